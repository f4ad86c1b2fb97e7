//! What tells the results of a role apart: their axes, and where these are the same, their stages.

use std::collections::{BTreeMap, BTreeSet};

use engine::kind::Input;

use super::{Value, read::plain};

/// Axes that are part of what a result is.
const OWN_AXES: [&str; 4] = ["arch", "mode", "seed", "k"];

/// Axes along which a line goes on.
const WITHIN_LINES: [&str; 2] = ["arch", "seed"];

/// What stands for an axis where stages tell lines of a role apart.
const STAGE: &str = "stage";

/// What is told apart by its stage where two results of a role have the same axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// These results alone.
    Results,
    /// The lines that they are in, whole: a figure is not to tear one.
    Lines,
}

/// Two results of a role that have the same axes, and how many more do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeated {
    pub(crate) role: String,
    pub(crate) instances: [String; 2],
    pub(crate) more: usize,
}

/// Axes with their values.
type Key<'a> = Vec<(&'a str, String)>;

/// What tells the results of a role apart.
pub(super) struct Telling<'a> {
    axes: &'a BTreeSet<String>,
    /// Those that their stages tell apart, too.
    by_stage: BTreeSet<&'a str>,
}

impl<'a> Telling<'a> {
    pub(super) fn new(axes: &'a BTreeSet<String>, inputs: &'a [Input], apart: Apart) -> Self {
        let without: &[&str] = if apart == Apart::Lines { &WITHIN_LINES } else { &[] };
        let twins: BTreeSet<_> = twins(inputs).map(|input| key(input, without)).collect();
        let by_stage = inputs.iter().filter(|input| twins.contains(&key(input, without)));
        Self { axes, by_stage: by_stage.map(|input| &*input.instance).collect() }
    }

    /// The axes of `input` that tell it from others, with their values.
    pub(super) fn of(&self, input: &Input) -> Vec<(String, Value)> {
        let axes = input.axes.iter().filter(|(axis, _)| self.axes.contains(*axis));
        let mut axes: Vec<_> = axes.map(|(axis, value)| (axis.clone(), Value(plain(value)))).collect();
        if self.by_stage.contains(&*input.instance) {
            axes.push((STAGE.to_owned(), Value(stage_of(&input.instance).to_owned())));
        }
        axes
    }
}

/// Axes that say neither network nor mode nor seed, and have several values or are not those of all inputs of a role:
/// they tell lines apart.
pub(super) fn telling_axes(inputs: &BTreeMap<String, Vec<Input>>) -> BTreeSet<String> {
    let mut values = BTreeMap::<&str, BTreeSet<String>>::new();
    for (axis, value) in inputs.values().flatten().flat_map(|input| &input.axes) {
        values.entry(axis).or_default().insert(plain(value));
    }
    let lacked = |axis: &str| {
        let having = |role: &Vec<Input>| role.iter().filter(|input| input.axes.contains_key(axis)).count();
        inputs.values().any(|role| (1..role.len()).contains(&having(role)))
    };
    let telling = values
        .into_iter()
        .filter(|(axis, values)| !OWN_AXES.contains(axis) && (values.len() > 1 || lacked(axis)));
    telling.map(|(axis, _)| axis.to_owned()).collect()
}

/// The roles of which some results have the same axes, each with the first two of these.
pub(super) fn repeated(inputs: &BTreeMap<String, Vec<Input>>) -> Vec<Repeated> {
    let of_role = |(role, inputs): (&String, &Vec<Input>)| {
        let first = twins(inputs).next()?;
        let second = inputs.iter().rfind(|other| key(other, &[]) == key(first, &[]))?;
        let instances = [first, second].map(|input| input.instance.clone());
        Some(Repeated { role: role.clone(), instances, more: twins(inputs).count().saturating_sub(2) })
    };
    inputs.iter().filter_map(of_role).collect()
}

/// Those with the axes of another.
fn twins(inputs: &[Input]) -> impl Iterator<Item = &Input> {
    let mut counts = BTreeMap::<Key<'_>, usize>::new();
    for input in inputs {
        *counts.entry(key(input, &[])).or_default() += 1;
    }
    inputs.iter().filter(move |input| counts.get(&key(input, &[])).is_some_and(|count| *count > 1))
}

fn key<'a>(input: &'a Input, without: &[&str]) -> Key<'a> {
    let axes = input.axes.iter().filter(|(axis, _)| !without.contains(&axis.as_str()));
    axes.map(|(axis, value)| (axis.as_str(), plain(value))).collect()
}

pub(super) fn stage_of(instance: &str) -> &str {
    instance.split('[').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(stage: &str, arch: &str, mode: &str) -> Input {
        let axes = [("arch", arch), ("mode", mode)];
        let axes = axes.into_iter().map(|(axis, value)| (axis.to_owned(), value.into())).collect();
        Input { instance: format!("{stage}[{arch},{mode}]"), axes, dir: "".into(), absent: Vec::new() }
    }

    #[test]
    fn only_what_collides_is_told_apart_by_its_stage() {
        let inputs = [
            input("evaluate", "resnet14", "bn"),
            input("evaluate", "resnet32", "bn"),
            input("evaluate", "resnet14", "all"),
            input("again", "resnet32", "bn"),
            input("again", "resnet56", "all"),
        ];
        let none = BTreeSet::new();
        let stages = |apart| {
            let telling = Telling::new(&none, &inputs, apart);
            let stage = |input| telling.of(input).first().map(|(_, stage)| stage.to_string());
            inputs.iter().map(stage).collect::<Vec<_>>()
        };
        let (evaluate, again) = (Some("evaluate".to_owned()), Some("again".to_owned()));
        assert_eq!(stages(Apart::Results), [None, evaluate.clone(), None, again.clone(), None]);
        assert_eq!(stages(Apart::Lines), [evaluate.clone(), evaluate, None, again, None]);
        let all = BTreeMap::from([("metrics".to_owned(), inputs.to_vec())]);
        let instances = ["evaluate[resnet32,bn]", "again[resnet32,bn]"].map(str::to_owned);
        assert_eq!(repeated(&all), [Repeated { role: "metrics".into(), instances, more: 0 }]);
        assert!(repeated(&BTreeMap::from([("metrics".to_owned(), inputs[..3].to_vec())])).is_empty());
    }
}
