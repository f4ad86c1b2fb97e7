//! How good a network is, from its logits. Every sum is in f64 and in the order of the images. Knows no
//! files, no weights and draws nothing.

use serde::Serialize;

use crate::{
    Error, Result,
    data::Dataset,
    trainer::{Split, Trainer},
};

/// Counts over the images of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// `[label][guess]`, where the guess is the largest logit, the first where several are equal.
    pub confusion: Vec<Vec<u64>>,
    /// How many had their label among the five largest logits.
    pub top5: u64,
    /// Sum of cross-entropies (natural logarithm).
    pub loss: f64,
}

/// What is written about an evaluation; fractions of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Images.
    pub examples: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose largest logit is their label's.
    pub top1: f64,
    /// Share of images whose label is among the five largest logits.
    pub top5: f64,
    /// Top-1 by label; nothing where there is no image.
    pub per_class: Vec<Option<f64>>,
    /// `[label][guess]`.
    pub confusion: Vec<Vec<u64>>,
}

/// Looks at all test images, `batch` at a time. Before each it asks `go_on`, with the number
/// of images done; `None` when that said no. Where `zeros` are wanted, it counts them as [`Trainer::look`] does.
pub fn evaluate(
    trainer: &mut dyn Trainer,
    data: &Dataset,
    batch: usize,
    mut zeros: Option<&mut [Vec<u64>]>,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Metrics>> {
    let (n, batch) = (data.len(Split::Test), batch.max(1));
    let mut evaluation = Evaluation::new(data.classes().len());
    for start in (0..n).step_by(batch) {
        if !go_on(start) {
            return Ok(None);
        }
        let range = start..n.min(start + batch);
        let logits = trainer.look(Split::Test, range.clone(), zeros.as_deref_mut())?;
        let labels: Vec<_> = range.map(|i| data.label(Split::Test, i)).collect();
        evaluation.add(&logits, &labels)?;
    }
    Ok(Some(evaluation.metrics()))
}

impl Evaluation {
    /// Nothing seen yet.
    pub fn new(classes: usize) -> Self {
        Self { confusion: vec![vec![0; classes]; classes], top5: 0, loss: 0.0 }
    }

    /// Counts images with these `logits` (`N K`) and `labels` (`N`).
    pub fn add(&mut self, logits: &[f32], labels: &[u16]) -> Result<()> {
        let classes = self.confusion.len();
        if logits.len() != classes * labels.len() {
            return Err(Error::Invalid(format!(
                "{} logits do not go with {} images of {classes} classes",
                logits.len(),
                labels.len()
            )));
        }
        for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
            if let Some(bad) = logits.iter().find(|x| !x.is_finite()) {
                return Err(Error::Diverged(format!("a logit is {bad}: the network has diverged")));
            }
            let label = usize::from(label);
            let before = |a: usize, b: usize| logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
            let rank = (0..classes).filter(|&c| before(c, label)).count();
            let guess = (0..classes).fold(0, |best, c| if before(c, best) { c } else { best });
            self.confusion[label][guess] += 1;
            self.top5 += u64::from(rank < 5);
            self.loss += cross_entropy(logits, label, guess);
        }
        Ok(())
    }

    /// Images counted.
    pub fn examples(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// The shares and means.
    pub fn metrics(&self) -> Metrics {
        let examples = self.examples();
        let correct: u64 = (0..self.confusion.len()).map(|c| self.confusion[c][c]).sum();
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        let per_class = self.confusion.iter().enumerate().map(|(label, guesses)| {
            let images: u64 = guesses.iter().sum();
            (images > 0).then(|| share(guesses[label], images))
        });
        Metrics {
            examples,
            loss: self.loss / examples as f64,
            top1: share(correct, examples),
            top5: share(self.top5, examples),
            per_class: per_class.collect(),
            confusion: self.confusion.clone(),
        }
    }
}

/// -log softmax at `label`; `largest` is the index of the largest logit.
fn cross_entropy(logits: &[f32], label: usize, largest: usize) -> f64 {
    let largest = f64::from(logits[largest]);
    let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(*x) - largest)).sum();
    libm::log(sum) - (f64::from(logits[label]) - largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_logits() {
        let mut evaluation = Evaluation::new(6);
        let logits = [
            [5.0, 0.0, 0.0, 0.0, 0.0, 0.0], // right
            [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], // label 5 is sixth
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], // equal: the first counts, label 1 is second
            [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], // label 4 is fifth
        ];
        evaluation.add(&logits.concat(), &[0, 5, 1, 4]).unwrap();
        let metrics = evaluation.metrics();
        assert_eq!((metrics.examples, metrics.top1, metrics.top5), (4, 1.0 / 4.0, 3.0 / 4.0));
        assert_eq!(metrics.per_class, [Some(1.0), Some(0.0), None, None, Some(0.0), Some(0.0)]);
        assert_eq!((metrics.confusion[5][0], metrics.confusion[1][0], metrics.confusion[0][0]), (1, 1, 1));
        let e = std::f64::consts::E;
        let first = (1.0 + 5.0 * e.powi(-5)).ln();
        let second = (0..6).map(|i| e.powi(-i)).sum::<f64>().ln() + 5.0;
        assert!((metrics.loss - (first + second + 6f64.ln() + (second - 1.0)) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow_and_infinite_ones_are_refused() {
        let mut evaluation = Evaluation::new(2);
        evaluation.add(&[3e38, -3e38], &[0]).unwrap();
        assert_eq!(evaluation.loss, 0.0);
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(evaluation.add(&[0.0, bad], &[0]).unwrap_err().to_string().contains("diverged"));
        }
        assert!(evaluation.add(&[0.0; 3], &[0]).is_err());
    }
}
