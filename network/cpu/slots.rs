//! What trains, and how its gradient is found and its new values are taken over. Knows no batch and no rate.

use std::borrow::Cow;

use super::{lanes::Isa, step::Output, stored::Stored, unit::Unit};
use crate::tensor::Tensor;

/// Values that train.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) what: What,
    pub(super) values: Tensor,
    pub(super) velocity: Vec<f32>,
}

/// Which values.
pub(super) enum What {
    Gamma,
    Beta,
    Bias,
    Filters,
    /// Some of these filters.
    Positions {
        filters: Vec<f32>,
        at: Vec<u32>,
    },
    OutputWeights,
    OutputBias,
}

impl What {
    /// Bytes of what it holds beside what trains.
    pub(super) fn bytes(&self) -> usize {
        if let Self::Positions { filters, at } = self { 4 * (filters.len() + at.len()) } else { 0 }
    }
}

impl Slot {
    /// The gradient of the last step.
    pub(super) fn gradient<'a>(&self, unit: &'a Unit<impl Stored>) -> Cow<'a, [f32]> {
        match self.what {
            What::Gamma => (&unit.d_gamma).into(),
            What::Beta => (&unit.d_beta).into(),
            What::Filters | What::Positions { .. } => {
                unit.filters.as_ref().map_or_else(Cow::default, |filters| (&filters.values).into())
            }
            _ => vec![0.0; self.velocity.len()].into(), // BatchNorm takes the bias away again
        }
    }

    pub(super) fn output_gradient(&self, output: &Output) -> Vec<f32> {
        if let What::OutputBias = self.what { output.d_bias.clone() } else { output.d_weights.clone() }
    }

    /// Gives the unit the values.
    pub(super) fn apply(&mut self, isa: Isa, unit: &mut Unit<impl Stored>) {
        let values = &self.values.data;
        match &mut self.what {
            What::Gamma => unit.gamma.copy_from_slice(values),
            What::Beta => unit.beta.copy_from_slice(values),
            What::Bias => unit.bias.copy_from_slice(values),
            What::Filters => unit.layer.set(isa, values),
            What::Positions { filters, at } => {
                at.iter().zip(values).for_each(|(i, value)| filters[*i as usize] = *value);
                unit.layer.set(isa, filters);
            }
            What::OutputWeights | What::OutputBias => {}
        }
    }

    pub(super) fn apply_output(&self, output: &mut Output) {
        let to = if let What::OutputBias = self.what { &mut output.bias } else { &mut output.weights };
        to.copy_from_slice(&self.values.data);
    }
}
