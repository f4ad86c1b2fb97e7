//! The rules that claims are judged by. Knows numbers, not where they come from.

use serde::Deserialize;

use super::evidence::{Difference, Evidence, Measure, Quantity};

/// A rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Rule {
    Greater { left: Quantity, right: Quantity, by: f64 },
    Difference { left: Quantity, right: Quantity, low: f64, high: f64 },
    Within { what: Quantity, low: f64, high: f64 },
    Rises { what: Quantity },
    Falls { what: Quantity },
    Equal { what: Quantity, values: Vec<u64> },
}

impl Rule {
    /// The quantities that must be known at each network.
    pub(super) fn quantities(&self) -> Vec<&Quantity> {
        match self {
            Self::Greater { left, right, .. } | Self::Difference { left, right, .. } => vec![left, right],
            Self::Within { what, .. }
            | Self::Rises { what }
            | Self::Falls { what }
            | Self::Equal { what, .. } => {
                vec![what]
            }
        }
    }

    /// Is it kept? `known` are the networks that were run: their place among the claim's, and the
    /// evidence for each quantity.
    pub(super) fn is_kept(&self, known: &[(usize, Vec<Evidence>)]) -> bool {
        let mean = |of: &[Evidence], index: usize| tidy(of[index].value.mean);
        let difference = |of: &[Evidence]| tidy(of[0].above(&of[1]).value.mean);
        let steps = |kept: fn(f64, f64) -> bool| {
            known.windows(2).all(|pair| kept(mean(&pair[0].1, 0), mean(&pair[1].1, 0)))
        };
        match self {
            Self::Greater { by, .. } => known.iter().all(|(_, of)| difference(of) > *by),
            Self::Difference { low, high, .. } => {
                known.iter().all(|(_, of)| (*low..=*high).contains(&difference(of)))
            }
            // Changes up and down would make a mean that says that nothing changes.
            Self::Within { what, .. } if what.of.is_change() => {
                known.iter().all(|(_, of)| self.inside(&of[0]) == Some(of[0].runs.len()))
            }
            Self::Within { low, high, .. } => {
                known.iter().all(|(_, of)| (*low..=*high).contains(&mean(of, 0)))
            }
            Self::Rises { .. } => steps(|before, after| after > before),
            Self::Falls { .. } => steps(|before, after| after < before),
            Self::Equal { values, .. } => {
                let value = |place: &usize| values.get(*place).map(|value| *value as f64);
                known.iter().all(|(place, of)| value(place) == Some(mean(of, 0)))
            }
        }
    }

    /// How far the left lies above the right, where that is what decides.
    pub(super) fn apart(&self, found: &[Evidence]) -> Option<Difference> {
        match (self, found) {
            (Self::Greater { .. } | Self::Difference { .. }, [left, right]) => Some(left.above(right)),
            _ => None,
        }
    }

    /// How many of the runs lie within the rule's bounds by themselves, where bounds decide.
    pub(super) fn inside(&self, of: &Evidence) -> Option<usize> {
        let Self::Within { low, high, .. } = self else { return None };
        Some(of.runs.iter().filter(|run| (*low..=*high).contains(&tidy(run.value))).count())
    }

    /// In words, for the JSON file.
    pub(super) fn words(&self) -> String {
        let name = |of: &Quantity| {
            let network = of.network.as_ref().map_or_else(String::new, |network| format!(" at {network}"));
            format!("{} of `{}`{network}", measure(of.of), of.mode)
        };
        match self {
            Self::Greater { left, right, by } => {
                format!("{} is more than {by} above {}", name(left), name(right))
            }
            Self::Difference { left, right, low: f64::NEG_INFINITY, high } => {
                format!("{} is at most {high} above {}", name(left), name(right))
            }
            Self::Difference { left, right, low, high } => {
                format!("{} is {low} to {high} above {}", name(left), name(right))
            }
            Self::Within { what, low, high } if what.of.is_change() => {
                format!("{} is {low} to {high} with each seed", name(what))
            }
            Self::Within { what, low, high } => format!("{} is {low} to {high}", name(what)),
            Self::Rises { what } => format!("{} grows from each network to the next", name(what)),
            Self::Falls { what } => format!("{} shrinks from each network to the next", name(what)),
            Self::Equal { what, values } => format!("{} is exactly one of {values:?}, in order", name(what)),
        }
    }
}

/// A bound counts, and 100 times a share is a little off: of 0.553 it is 55.300000000000004.
fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// What a measure is, in words.
pub(super) fn measure(of: Measure) -> &'static str {
    match of {
        Measure::Top1 => "test accuracy",
        Measure::Train => "training accuracy",
        Measure::SmallGamma => "share of scales within 0.01 of zero",
        Measure::Dead => "share of dead channels",
        Measure::DeadAfterBn => "share of dead channels straight behind a BatchNorm",
        Measure::Zeroing001 => "change of accuracy without scales within 0.01 of zero",
        Measure::Zeroing005 => "change of accuracy without scales within 0.05 of zero",
        Measure::Trained => "trained values",
        Measure::Parameters => "parameters",
        Measure::TrainedShare => "trained share of parameters",
        Measure::CheckpointShare => "size of the checkpoint against all numbers",
        Measure::Buffers => "buffers at batch 128",
        Measure::LargestBatch => "largest batch that fits 1 GiB",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_kept_by_what_it_says_and_broken_by_the_rest() {
        let two = "left = { mode = 'bn' }, right = { mode = 'all' }";
        let one = "what = { mode = 'bn' }";
        type Networks = &'static [&'static [f64]]; // of each the means
        let rules: [(String, Networks, Networks); 12] = [
            (format!("greater = {{ {two}, by = 5.0 }}"), &[&[10.1, 5.0]], &[&[10.0, 5.0]]),
            (format!("greater = {{ {two}, by = 0.0 }}"), &[&[2.0, 1.0]], &[&[2.0, 1.0], &[1.0, 2.0]]),
            (format!("difference = {{ {two}, low = 1.0, high = 2.0 }}"), &[&[6.0, 5.0]], &[&[5.5, 5.0]]),
            (format!("difference = {{ {two}, low = 1.0, high = 2.0 }}"), &[&[7.0, 5.0]], &[&[7.5, 5.0]]),
            (format!("within = {{ {one}, low = 1.0, high = 2.0 }}"), &[&[2.0]], &[&[2.1]]),
            (format!("within = {{ {one}, low = 1.0, high = 2.0 }}"), &[&[1.0]], &[&[0.9]]),
            (format!("within = {{ {one}, low = 1.0, high = 55.3 }}"), &[&[100.0 * 0.553]], &[&[55.3001]]),
            (format!("greater = {{ {two}, by = 0.3 }}"), &[&[0.4, 0.0]], &[&[0.1 + 0.2, 0.0]]),
            (
                format!("difference = {{ {two}, low = 0.0, high = 0.3 }}"),
                &[&[0.1 + 0.2, 0.0]],
                &[&[0.4, 0.0]],
            ),
            (format!("rises = {{ {one} }}"), &[&[1.0], &[2.0]], &[&[1.0], &[1.0]]),
            (format!("falls = {{ {one} }}"), &[&[2.0], &[1.0]], &[&[1.0], &[1.0]]),
            (format!("equal = {{ {one}, values = [3, 4] }}"), &[&[3.0], &[4.0]], &[&[3.0], &[3.0]]),
        ];
        let known = |networks: Networks| -> Vec<(usize, Vec<Evidence>)> {
            let evidence = |value: &f64| Evidence::of_seeds(&[(*value, None)]);
            networks.iter().map(|of| of.iter().map(evidence).collect()).enumerate().collect()
        };
        for (rule, kept, broken) in rules {
            let rule =
                toml::from_str::<std::collections::BTreeMap<String, Rule>>(&format!("rule = {{ {rule} }}"));
            let rule = &rule.unwrap()["rule"];
            assert!(rule.is_kept(&known(kept)), "{} by {kept:?}", rule.words());
            assert!(!rule.is_kept(&known(broken)), "{} by {broken:?}", rule.words());
        }
    }
}
