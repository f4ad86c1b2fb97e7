//! The numbers behind a claim: which results count, and what they say. Knows no claim.

use serde::Deserialize;

use crate::{
    dataset::cifar::CLASSES,
    results::{Axes, Evaluation, Family, Line, Network, Results, Statistics},
};

/// Steps of the whole protocol: 160 epochs of 50,000 images in batches of 128.
const STEPS: u64 = 62_560;
/// Steps of its first epoch, after which BatchNorm's running statistics have forgotten where they began.
const EPOCH: u64 = 391;
/// Test images of CIFAR-10.
const EXAMPLES: u64 = 10_000;
/// The batch of the protocol.
const BATCH: u64 = 128;
/// Bytes that batches must fit, to be compared.
const BUDGET: u64 = 1 << 30;

/// What of a result is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Measure {
    #[default]
    Top1,
    Train,
    SmallGamma,
    Dead,
    DeadAfterBn,
    #[serde(rename = "zeroing-001")]
    Zeroing001,
    #[serde(rename = "zeroing-005")]
    Zeroing005,
    Trained,
    Parameters,
    TrainedShare,
    CheckpointShare,
    Buffers,
    LargestBatch,
}

/// A number that a claim speaks of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quantity {
    pub(super) mode: String,
    #[serde(default)]
    pub(super) of: Measure,
    /// Instead of the claim's networks.
    pub(super) network: Option<String>,
}

/// What results say of a quantity.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) value: Statistics,
    pub(super) runs: Vec<Run>,
}

/// What one result says of it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) value: f64,
    /// Runs of one seed begin with the same weights and see the same images in the same order.
    seed: Option<String>,
    pub(super) instance: String,
}

/// How far two numbers lie apart, and of how many seeds that is known at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    pub(super) value: Statistics,
    /// Each seed by itself.
    pub(super) paired: bool,
}

impl Evidence {
    /// Nothing where no run has a number.
    pub(super) fn of(runs: impl Iterator<Item = Run>) -> Option<Self> {
        let runs: Vec<_> = runs.filter(|run| run.value.is_finite()).collect();
        Some(Self { value: Statistics::of(runs.iter().map(|run| run.value))?, runs })
    }

    /// How far it lies above `other`: seed by seed where they share any, else mean above mean, of which no spread is known.
    pub(super) fn above(&self, other: &Self) -> Difference {
        let of_seed =
            |run: &Run| other.runs.iter().find(|other| run.seed.is_some() && other.seed == run.seed);
        let pairs = self.runs.iter().filter_map(|run| Some(run.value - of_seed(run)?.value));
        match Statistics::of(pairs) {
            Some(value) => Difference { value, paired: true },
            None => {
                let (mean, n) = (self.value.mean - other.value.mean, self.value.n.min(other.value.n));
                Difference { value: Statistics { mean, sd: 0.0, n }, paired: false }
            }
        }
    }
}

impl Measure {
    /// Does it change while a network is trained? Then only the whole protocol settles a claim.
    pub(super) fn is_trained(self) -> bool {
        use Measure::{Dead, DeadAfterBn, SmallGamma, Top1, Train, Zeroing001, Zeroing005};
        matches!(self, Top1 | Train | SmallGamma | Dead | DeadAfterBn | Zeroing001 | Zeroing005)
    }

    /// Does it say how much something changes? Such numbers have a sign.
    pub(super) fn is_change(self) -> bool {
        matches!(self, Self::Zeroing001 | Self::Zeroing005)
    }

    /// Written behind the number, and digits after the point.
    pub(super) fn unit(self) -> (&'static str, usize) {
        match self {
            Self::Top1 | Self::Train | Self::SmallGamma | Self::Dead | Self::DeadAfterBn => (" %", 1),
            Self::TrainedShare | Self::CheckpointShare => (" %", 2),
            Self::Zeroing001 | Self::Zeroing005 => (" points", 2),
            Self::Trained | Self::Parameters | Self::LargestBatch => ("", 0),
            Self::Buffers => (" MB", 0),
        }
    }

    fn of(self, run: &Evaluation) -> Option<f64> {
        let metrics = &run.metrics;
        let share = |part: u64, whole: u64| (whole > 0).then(|| 100.0 * part as f64 / whole as f64);
        let zeroing = |threshold| run.gammas.as_ref()?.change_without(threshold);
        match self {
            Self::Top1 => Some(run.top1()),
            Self::SmallGamma => Some(100.0 * run.gammas.as_ref()?.all.below_001),
            Self::Dead => Some(100.0 * run.features.as_ref()?.all.dead_99),
            Self::DeadAfterBn => Some(100.0 * run.features.as_ref()?.after_bn.as_ref()?.dead_99),
            Self::Zeroing001 => zeroing(0.01),
            Self::Zeroing005 => zeroing(0.05),
            Self::Trained => Some(metrics.trained? as f64),
            Self::Parameters => Some(metrics.parameters? as f64),
            Self::TrainedShare => share(metrics.trained?, metrics.parameters?),
            Self::CheckpointShare => share(metrics.checkpoint_bytes?, metrics.weights_bytes?),
            Self::Train | Self::Buffers | Self::LargestBatch => None,
        }
    }
}

impl Quantity {
    /// What the results say of it at `network`, among networks of `variant`.
    pub(super) fn evidence(&self, results: &Results, network: &str, variant: &str) -> Option<Evidence> {
        let network = Network::new(self.network.as_deref().unwrap_or(network));
        let meant = |of: &Network, line: &Line, whose: &str| {
            let same = *of == network || (of.of(Family::Depth) && of.label() == network.label());
            same && line.mode() == self.mode && line.is_as_many() && line.is_standard() && whose == variant
        };
        if matches!(self.of, Measure::Buffers | Measure::LargestBatch) {
            let memory = results.memory.iter().filter(|m| meant(&m.network, &m.line, &m.variant));
            return Evidence::of(memory.filter_map(|m| {
                let value = match self.of {
                    Measure::Buffers => m.buffers.iter().find(|b| b.batch == BATCH)?.bytes as f64 / 1e6,
                    _ => m.largest_batch.filter(|_| m.budget == Some(BUDGET))? as f64,
                };
                Some(Run { value, seed: None, instance: m.instance.clone() })
            }));
        }
        if self.of == Measure::Train {
            // A history does not say of which data it is: the evaluation of the same training must count.
            let counts = |axes: &Axes| {
                results.evaluations.iter().any(|run| {
                    run.axes == *axes
                        && meant(&run.network, &run.line, &run.metrics.subject.variant)
                        && is_whole(run)
                })
            };
            let histories = results.histories.iter();
            let histories = histories.filter(|h| meant(&h.network, &h.line, &h.variant) && counts(&h.axes));
            return Evidence::of(histories.filter_map(|h| {
                let last = h.rows.last()?.values.get("train_accuracy")?;
                Some(Run { value: 100.0 * last, seed: seed(&h.axes), instance: h.instance.clone() })
            }));
        }
        let runs = results.evaluations.iter().filter(|run| {
            meant(&run.network, &run.line, &run.metrics.subject.variant)
                && (!self.of.is_trained() || is_whole(run))
        });
        Evidence::of(runs.filter_map(|run| {
            let value = self.of.of(run)?;
            Some(Run { value, seed: seed(&run.axes), instance: run.instance.clone() })
        }))
    }
}

/// Was it trained for the whole protocol and evaluated on all of CIFAR-10's test images? Where nothing trains one epoch
/// is as good as all.
fn is_whole(run: &Evaluation) -> bool {
    let metrics = &run.metrics;
    let whole = metrics.steps == STEPS || metrics.trained == Some(0) && metrics.steps >= EPOCH;
    whole && metrics.examples == EXAMPLES && metrics.classes == CLASSES
}

fn seed(axes: &Axes) -> Option<String> {
    axes.get("seed").map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Evidence {
        /// What runs say that have these seeds.
        pub(in super::super) fn of_seeds(runs: &[(f64, Option<&str>)]) -> Self {
            let run = |(value, seed): &(f64, Option<&str>)| {
                let (seed, instance) = (seed.map(str::to_owned), String::new());
                Run { value: *value, seed, instance }
            };
            Self::of(runs.iter().map(run)).unwrap()
        }
    }

    #[test]
    fn differences_are_those_of_one_seed_where_two_share_any() {
        let of = Evidence::of_seeds;
        let two = of(&[(46.0, Some("0")), (50.0, Some("1"))]);
        for (other, mean, n, seed_by_seed) in [
            (&[(30.0, Some("0"))][..], 16.0, 1, true),
            (&[(31.0, Some("1")), (30.0, Some("0"))], 17.5, 2, true),
            (&[(31.0, Some("7")), (30.0, Some("0"))], 16.0, 1, true),
            (&[(30.0, Some("7"))], 18.0, 1, false),
            (&[(30.0, None), (32.0, None)], 17.0, 2, false),
        ] {
            let Difference { value, paired } = two.above(&of(other));
            assert_eq!((value.mean, value.n, paired), (mean, n, seed_by_seed), "{other:?}");
        }
        assert!(Evidence::of(std::iter::empty()).is_none());
    }
}
