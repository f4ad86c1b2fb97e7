//! What was trained, in plain words: the line of a figure, the row of a table.

use std::{cmp::Ordering, collections::BTreeSet, ops::Deref};

use network::{arch::Variant, mode::Mode};

use super::Departure;

/// Modes in the order of the legends, and what they train.
const MODES: [(&str, &str); 10] = [
    ("all", "everything"),
    ("all-but-bn", "everything but BatchNorm"),
    ("bn+output+shortcut", "BatchNorm, output and shortcuts"),
    ("bn", "BatchNorm only"),
    ("gamma", "BatchNorm's scales only"),
    ("beta", "BatchNorm's shifts only"),
    ("output+shortcut", "output and shortcuts"),
    ("random", "as many random weights"),
    ("origin-random", "a thinned network (2 F.P.C.)"),
    ("none", "nothing"),
];

/// The axis of the paper's networks and the origin's.
const VARIANT: &str = "variant";

/// BatchNorm has two values per channel, and every filter makes one channel.
const AS_MANY: u64 = 2;

/// A value of an axis as text; numbers come before words, in their own order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value(pub(crate) String);

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |value: &Self| value.parse::<f64>().ok();
        let order = match (number(self), number(other)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        order.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Deref for Value {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What was trained, and whatever else tells runs apart; runs of a line differ in network and seed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    rank: usize,
    mode: String,
    k: Option<u64>,
    /// What `others` amount to, where they are settings of the paper's protocol: orders those before it.
    departure: Option<Departure>,
    others: Vec<(String, Value)>,
}

impl Line {
    /// `k` counts in mode `random` only.
    pub(crate) fn new(mode: &str, k: Option<u64>, others: Vec<(String, Value)>) -> Self {
        let rank = MODES.iter().position(|(name, _)| *name == mode).unwrap_or(MODES.len());
        let departure = Departure::of(&others);
        Self { rank, mode: mode.to_owned(), k: k.filter(|_| mode == "random"), departure, others }
    }

    /// The mode's name.
    pub(crate) fn mode(&self) -> &str {
        &self.mode
    }

    /// Weights trained in each filter, in mode `random`.
    pub(crate) fn k(&self) -> Option<u64> {
        self.k
    }

    /// As many random weights as BatchNorm has values, or another mode.
    pub(crate) fn is_as_many(&self) -> bool {
        self.k.is_none_or(|k| k == AS_MANY)
    }

    /// Is its mode one of ours? A command may call its own what it likes.
    pub(crate) fn is_of_a_mode(&self) -> bool {
        self.mode.parse::<Mode>().is_ok()
    }

    /// Are BatchNorm's scales trained?
    pub(crate) fn trains_scales(&self) -> bool {
        self.mode.parse::<Mode>().is_ok_and(|mode| mode.train_set(Variant::Paper, 0).gamma)
    }

    /// What else tells it from others: axes with their values, sorted.
    pub(crate) fn others(&self) -> &[(String, Value)] {
        &self.others
    }

    /// The value of one of these axes.
    pub(crate) fn value(&self, axis: &str) -> Option<&str> {
        self.others.iter().find(|(other, _)| other == axis).map(|(_, value)| &**value)
    }

    /// How it differs from the paper's protocol or the origin's, as far as its axes say.
    pub(crate) fn departure(&self) -> Option<&Departure> {
        self.departure.as_ref()
    }

    /// Nothing but mode and k tells it from others.
    pub(crate) fn is_plain(&self) -> bool {
        self.others.is_empty()
    }

    /// Nothing but mode, k and the networks' variant does.
    pub(crate) fn is_standard(&self) -> bool {
        self.others.iter().all(|(axis, _)| axis == VARIANT)
    }

    /// The networks' variant, where it tells it from others.
    pub(crate) fn variant(&self) -> Option<&str> {
        self.value(VARIANT)
    }

    /// Where something else says what the variant is.
    pub(crate) fn without_variant(&self) -> Self {
        let others = self.others.iter().filter(|(axis, _)| axis != VARIANT);
        Self::new(&self.mode, self.k, others.cloned().collect())
    }

    /// In legends and tables.
    pub(crate) fn label(&self) -> String {
        let (what, how) = (self.what(), self.how());
        match self.protocol() {
            _ if how.is_empty() => what,
            Some(_) => format!("{what}: {how}"),
            None => format!("{what}, {how}"),
        }
    }

    /// What is trained.
    pub(crate) fn what(&self) -> String {
        match self.k {
            Some(k) if !self.is_as_many() => {
                format!("{k} random weight{} of each filter", if k == 1 { "" } else { "s" })
            }
            _ => MODES.get(self.rank).map_or(&*self.mode, |(_, words)| words).to_owned(),
        }
    }

    /// What else tells it from others; empty where nothing does.
    pub(crate) fn how(&self) -> String {
        let words =
            || self.others.iter().map(|(axis, value)| words(axis, value)).collect::<Vec<_>>().join(", ");
        self.protocol().map_or_else(words, Departure::name)
    }

    /// The protocol that all its axes together amount to.
    fn protocol(&self) -> Option<&Departure> {
        self.departure.as_ref().filter(|_| self.others.len() > 1)
    }
}

/// An axis and the values that it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) axis: String,
    pub(crate) values: Vec<Value>,
}

/// The two axes, that of more values first, where these and nothing else tell lines apart.
pub(crate) fn crossed<'a>(lines: impl Iterator<Item = &'a Line>) -> Option<[Values; 2]> {
    let lines: Vec<_> = lines.collect();
    let first = lines.first()?;
    let mut both = [BTreeSet::new(), BTreeSet::new()];
    for line in &lines {
        let same = line.departure.is_none() && (&line.mode, line.k) == (&first.mode, first.k);
        let axes = line.others.iter().zip(&first.others);
        if !same || [line.others.len(), axes.filter(|(a, b)| a.0 == b.0).count()] != [2, 2] {
            return None;
        }
        for (values, (_, value)) in both.iter_mut().zip(&line.others) {
            values.insert(value.clone());
        }
    }
    let mut axes = both.into_iter().zip(&first.others);
    let mut next =
        || axes.next().map(|(of, (axis, _))| Values { axis: axis.clone(), values: of.into_iter().collect() });
    let (a, b) = (next()?, next()?);
    let each = a.values.len().min(b.values.len()) > 1;
    each.then_some(if a.values.len() < b.values.len() { [b, a] } else { [a, b] })
}

/// The same of an axis that tells lines apart: where nothing is said of its settings one by one, the variant stands for
/// all in which the two networks differ.
pub(crate) fn words(axis: &str, value: &str) -> String {
    if axis == VARIANT { whose(value) } else { setting(axis, value) }
}

/// A network of that variant.
pub(crate) fn whose(variant: &str) -> String {
    format!("the {variant}'s network")
}

/// What it means that `axis` has `value`, in a few words that no line break tears apart in the wrong place.
pub(crate) fn setting(axis: &str, value: &str) -> String {
    match (axis, value) {
        ("bn_init", "uniform") => "scales from U(0,\u{a0}1)".into(),
        ("bn_init", "fixed") => "scales begin at\u{a0}1".into(),
        ("bn_init", "oneone") => "scales and shifts begin at\u{a0}1".into(),
        ("bn_init", "positive-negative") => "scales from U(-1,\u{a0}1)".into(),
        ("bn_init", "alternate") => "other initialisation".into(),
        ("init", "he-normal") => "He-normal filters".into(),
        ("init", "he-uniform") => "He-uniform filters".into(),
        ("init", _) => format!("{value} filters"),
        ("precision", "f32") => "in float32".into(),
        ("precision", "bf16") => "in bfloat16".into(),
        ("precision", "tf32") => "in TF32".into(),
        ("shortcut_bn", "trained" | "frozen") => format!("shortcuts' BatchNorms {value}"),
        ("variant", "origin") => "stride 2 in the first stage".into(),
        ("variant", "paper") => "stride 1 in the first stage".into(),
        ("weight_decay", "0.0" | "0") => "no weight decay".into(),
        _ => format!("{} {value}", axis.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_plain_words() {
        let label = |mode: &str, k| Line::new(mode, k, Vec::new()).label();
        assert_eq!(label("bn", Some(3)), "BatchNorm only");
        assert_eq!(label("random", Some(2)), "as many random weights");
        assert_eq!(label("random", Some(1)), "1 random weight of each filter");
        assert_eq!(label("mine", None), "mine");
        for (mode, _) in Mode::NAMES {
            assert!(MODES.iter().any(|(name, _)| *name == mode), "what `{mode}` trains is not said in words");
        }
        let decayed = Line::new("bn", None, vec![("weight_decay".into(), Value("0.0".into()))]);
        assert_eq!(decayed.label(), "BatchNorm only, no weight decay");
        let axes = [
            ("bn_init", "fixed"),
            ("shortcut_bn", "variant"),
            ("variant", "origin"),
            ("weight_decay", "0.0001"),
        ];
        let between =
            Line::new("bn", None, axes.map(|(axis, value)| (axis.into(), Value(value.into()))).into());
        assert_eq!(between.label(), "BatchNorm only: the origin's, but weight decay 0.0001");
        // How the scales begin is not said.
        let open = [("variant", "origin"), ("weight_decay", "0.0")];
        let open = Line::new("bn", None, open.map(|(axis, value)| (axis.into(), Value(value.into()))).into());
        assert_eq!(open.label(), "BatchNorm only, the origin's network, no weight decay");
    }

    #[test]
    fn numbers_come_in_their_own_order_and_before_words() {
        let mut values = ["variant", "128", "1e-5", "16", "0.0001"].map(|text| Value(text.into()));
        values.sort();
        assert_eq!(values.each_ref().map(|value| &**value), ["1e-5", "0.0001", "16", "128", "variant"]);
    }
}
