//! The paper's protocol and the origin's, and how another way to train is named by what it does differently. Knows
//! which settings are whose, not which experiment varied them.

use std::collections::BTreeMap;

use super::{Value, setting};

/// How someone trains.
struct Protocol {
    /// Of the source that published its results.
    id: &'static str,
    words: &'static str,
    /// Axis and value.
    settings: [(&'static str, &'static str); 4],
}

const PAPER: Protocol = Protocol {
    id: "paper",
    words: "the paper's",
    settings: [
        ("variant", "paper"),
        ("bn_init", "uniform"),
        ("shortcut_bn", "trained"),
        ("weight_decay", "0.0001"),
    ],
};
const ORIGIN: Protocol = Protocol {
    id: "origin",
    words: "the origin's",
    settings: [
        ("variant", "origin"),
        ("bn_init", "fixed"),
        ("shortcut_bn", "frozen"),
        ("weight_decay", "0.0"),
    ],
};

impl Protocol {
    /// Which of `settings` are not its own, by their place, with their values.
    fn differences(&self, settings: &BTreeMap<&str, &str>) -> Vec<(usize, String)> {
        let own = self.settings.iter().enumerate();
        let differs = |(place, (axis, own)): (usize, &(&str, &str))| {
            settings.get(axis).filter(|value| !same(value, own)).map(|value| (place, (*value).to_owned()))
        };
        own.filter_map(differs).collect()
    }
}

/// Is it the same setting? A number may be spelt in several ways.
fn same(a: &str, b: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    a == b || number(a).is_some_and(|a| number(b) == Some(a))
}

/// A way to train, by how it differs from the nearer of the two protocols; ordered from the paper's down, then up to
/// the origin's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Departure {
    of_origin: bool,
    rank: isize,
    differences: Vec<(usize, String)>,
}

impl Departure {
    /// Nothing where one of the axes means something else, or where they leave open in what the two protocols differ (the
    /// shortcuts' BatchNorms are the variant's unless an axis says otherwise).
    pub(super) fn of(axes: &[(String, Value)]) -> Option<Self> {
        let mut settings: BTreeMap<&str, &str> = BTreeMap::new();
        for (axis, value) in axes {
            if !PAPER.settings.iter().any(|(known, _)| known == axis) {
                return None;
            }
            settings.insert(axis, value);
        }
        for axis in ["bn_init", "weight_decay"] {
            settings.get(axis)?;
        }
        let protocol = if *settings.get("variant")? == "origin" { &ORIGIN } else { &PAPER };
        // What a variant has by itself.
        if settings.get("shortcut_bn") == Some(&"variant") {
            settings.extend(protocol.settings.iter().copied().filter(|(axis, _)| *axis == "shortcut_bn"));
        }
        let [paper, origin] = [&PAPER, &ORIGIN].map(|protocol| protocol.differences(&settings));
        let of_origin = origin.len() < paper.len();
        let differences = if of_origin { origin } else { paper };
        let rank = if of_origin { -(differences.len() as isize) } else { differences.len() as isize };
        Some(Self { of_origin, rank, differences })
    }

    /// In how many settings it differs.
    pub(crate) fn differences(&self) -> usize {
        self.differences.len()
    }

    fn protocol(&self) -> &'static Protocol {
        if self.of_origin { &ORIGIN } else { &PAPER }
    }

    /// Is it how the source `id` trains?
    pub(crate) fn is_protocol_of(&self, id: &str) -> bool {
        self.differences.is_empty() && self.protocol().id == id
    }

    /// In plain words.
    pub(crate) fn name(&self) -> String {
        let words = self.protocol().words;
        if self.differences.is_empty() {
            return format!("{words} settings");
        }
        let differences =
            self.differences.iter().map(|(place, value)| setting(PAPER.settings[*place].0, value));
        format!("{words}, but {}", differences.collect::<Vec<_>>().join(", "))
    }
}
