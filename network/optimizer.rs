//! Stochastic gradient descent with momentum and coupled weight decay, as PyTorch's `SGD` does it
//! (no Nesterov, no dampening). Knows one slice at a time.

/// The constants of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sgd {
    /// Learning rate.
    pub(crate) rate: f32,
    /// Momentum.
    pub(crate) momentum: f32,
    /// Weight decay, added to the gradient.
    pub(crate) weight_decay: f32,
}

impl Sgd {
    /// One step on `values`: d = g + decay w; v = momentum v + d; w -= rate v. The velocity starts
    /// at zero, which gives PyTorch's first step (v = d).
    pub(crate) fn step(&self, values: &mut [f32], velocity: &mut [f32], gradient: &[f32]) {
        assert!(values.len() == velocity.len() && values.len() == gradient.len());
        for ((w, v), g) in values.iter_mut().zip(velocity).zip(gradient) {
            *v = self.momentum * *v + (g + self.weight_decay * *w);
            *w -= self.rate * *v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_follow_the_formula() {
        let sgd = Sgd { rate: 0.5, momentum: 0.5, weight_decay: 0.25 };
        let (mut w, mut v) = ([2.0], [0.0]);
        sgd.step(&mut w, &mut v, &[1.0]); // d = 1.5, v = 1.5, w = 1.25
        assert_eq!((w, v), ([1.25], [1.5]));
        sgd.step(&mut w, &mut v, &[0.0]); // d = 0.3125, v = 1.0625, w = 0.71875
        assert_eq!((w, v), ([0.71875], [1.0625]));
    }
}
