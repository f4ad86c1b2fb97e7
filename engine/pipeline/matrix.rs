//! A stage's matrix multiplied out. Knows no kinds.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{
    Diagnostics,
    hint::{choices, did_you_mean},
    params::substitute,
    parse::{Data, Document, Entries, Entry, Node, Span, a, check_name, in_order, table},
    sweep,
};
use crate::instance::{name_of, show};

/// Most combinations that a stage may have.
const MOST: usize = 100_000;

/// Axis -> value.
pub(super) type Axes = BTreeMap<String, Value>;

/// What a stage's matrix comes to.
pub(super) struct Matrix {
    /// Axis -> its values' places, by how the values show.
    pub(super) axes: BTreeMap<String, BTreeMap<String, Span>>,
    /// The combinations in order, first axis outermost.
    pub(super) combinations: Vec<Axes>,
}

/// Multiplies out `node`, the matrix of `stage`; `None` after an error.
pub(super) fn expand(
    stage: &str,
    node: &Node,
    params: &Table,
    diagnostics: &mut Diagnostics,
) -> Option<Matrix> {
    let before = diagnostics.count;
    let entries = table(node, &format!("the matrix of `{stage}`"), diagnostics)?;
    let mut lists: Vec<(String, Vec<Value>)> = Vec::new();
    let mut axes = BTreeMap::new();
    for (axis, entry) in in_order(entries) {
        if axis == "exclude" || axis == "include" {
            continue;
        }
        check_name("axis", axis, &entry.key, diagnostics);
        let (values, spans) = axis_values(axis, &entry.node, params, diagnostics);
        axes.insert(axis.to_owned(), spans);
        lists.push((axis.to_owned(), values));
    }
    let excluded = rules(entries, "exclude", params, diagnostics);
    let included = rules(entries, "include", params, diagnostics);
    // A matrix of nothing but `include` has the axes of its first table.
    if let (true, Some((span, first))) = (lists.is_empty(), included.first()) {
        first.keys().for_each(|axis| check_name("axis", axis, span, diagnostics));
        axes = first.keys().map(|axis| (axis.clone(), BTreeMap::new())).collect();
    }
    let names = || axes.keys().map(String::as_str);
    for (span, rule) in excluded.iter().chain(&included) {
        for axis in rule.keys().filter(|axis| !axes.contains_key(*axis)) {
            let message = format!("the matrix of `{stage}` has no axis `{axis}`");
            diagnostics.add(span, message, did_you_mean(axis, names()));
        }
    }
    for (span, rule) in &included {
        for axis in names().filter(|axis| !rule.contains_key(*axis)) {
            let hint = "an included combination names every axis; `-S` cannot sweep a stage that has some"
                .to_owned();
            diagnostics.add(span, format!("this combination leaves out the axis `{axis}`"), Some(hint));
        }
    }
    let count = lists.iter().try_fold(1usize, |n, (_, values)| n.checked_mul(values.len()));
    if count.is_none_or(|n| n > MOST) {
        let message = format!("the matrix of `{stage}` has more than {MOST} combinations");
        diagnostics.add(&node.span, message, None);
    }
    if diagnostics.count > before {
        return None;
    }
    let mut combinations = if lists.is_empty() && !included.is_empty() { vec![] } else { vec![Axes::new()] };
    for (axis, values) in &lists {
        combinations = combinations
            .iter()
            .flat_map(|combination| {
                values.iter().map(|value| {
                    let mut longer = combination.clone();
                    longer.insert(axis.clone(), value.clone());
                    longer
                })
            })
            .collect();
    }
    combinations.retain(|combination| !excluded.iter().any(|(_, rule)| matches(combination, rule)));
    if !included.is_empty() {
        let mut seen: BTreeSet<String> = combinations.iter().map(|c| name_of(stage, c)).collect();
        for (span, rule) in included {
            let name = name_of(stage, &rule);
            if seen.contains(&name) {
                let hint = Some("leave this table out".to_owned());
                diagnostics.add(&span, format!("`{name}` is in the matrix twice"), hint);
            }
            seen.insert(name);
            combinations.push(rule);
        }
    }
    if combinations.is_empty() {
        let message = format!("the matrix of `{stage}` leaves no combination");
        diagnostics.add(&node.span, message, Some("remove an `exclude`, or the stage".into()));
    }
    Some(Matrix { axes, combinations })
}

/// An `exclude` that takes nothing away is a slip, where both it and the axis are written out in the file. An axis that
/// is taken from `[params]`, swept, or changed by a profile may have the value another time.
pub(super) fn refuse_idle_exclusions(document: &Document, diagnostics: &mut Diagnostics) {
    let written = |node: &Node| match &node.data {
        Data::Leaf(value) if !value.as_str().is_some_and(|text| text.contains("${")) => Some(value.clone()),
        _ => None,
    };
    for (stage, entry) in &document.stages {
        let Data::Table(entries) = &entry.node.data else { continue };
        let Some(axes) = sweep::matrix_of(entries) else { continue };
        let Some(Data::List(rules)) = axes.get("exclude").map(|entry| &entry.node.data) else { continue };
        let tables = rules.iter().filter_map(|rule| match &rule.data {
            Data::Table(rule) => Some(rule),
            _ => None,
        });
        for (axis, entry) in tables.flatten().filter(|(_, entry)| entry.key.is_some()) {
            let list = axes.get(axis).filter(|axis| axis.key.is_some()).map(|axis| &axis.node.data);
            let (Some(value), Some(Data::List(list))) = (written(&entry.node), list) else { continue };
            let varied = document.varied.contains(&(stage.clone(), axis.clone()));
            let Some(values) = list.iter().map(written).collect::<Option<Vec<_>>>().filter(|_| !varied)
            else {
                continue;
            };
            if !values.iter().any(|other| same(other, &value)) {
                let message =
                    format!("this excludes nothing: the axis `{axis}` of `{stage}` has no value {value}");
                let shown: Vec<_> = values.iter().map(show).collect();
                let hint = choices(&shown.iter().map(String::as_str).collect::<Vec<_>>());
                diagnostics.add(&entry.node.span, message, hint);
            }
        }
    }
}

fn matches(combination: &Axes, rule: &Axes) -> bool {
    rule.iter().all(|(axis, value)| combination.get(axis).is_some_and(|v| same(v, value)))
}

/// Is it the same value, also where one is written `1` and the other `1.0`?
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Integer(whole), Value::Float(number)) | (Value::Float(number), Value::Integer(whole)) => {
            *whole as f64 == *number
        }
        _ => show(a) == show(b),
    }
}

fn axis_values(
    axis: &str,
    node: &Node,
    params: &Table,
    diagnostics: &mut Diagnostics,
) -> (Vec<Value>, BTreeMap<String, Span>) {
    let before = diagnostics.count;
    let given = substitute(node, &Axes::new(), params, diagnostics);
    if diagnostics.count > before {
        return Default::default(); // what it would be is not known
    }
    let Value::Array(values) = given else {
        let message = format!("the axis `{axis}` must be a list, not {}", a(given.type_str()));
        diagnostics.add(&node.span, message, Some(format!("write `{axis} = [...]`")));
        return Default::default();
    };
    if values.is_empty() {
        diagnostics.add(&node.span, format!("the axis `{axis}` has no values"), None);
    }
    let mut spans = BTreeMap::new();
    for (i, value) in values.iter().enumerate() {
        let span = match &node.data {
            Data::List(items) => items.get(i).map_or(&node.span, |item| &item.span),
            _ => &node.span,
        };
        check_value(axis, value, span, diagnostics);
        if spans.insert(show(value), span.clone()).is_some() {
            let message = format!("the axis `{axis}` has the value `{}` twice", show(value));
            diagnostics.add(span, message, None);
        }
    }
    (values, spans)
}

/// Values stand in instance names, which are file names and are written on command lines.
fn check_value(axis: &str, value: &Value, span: &Span, diagnostics: &mut Diagnostics) {
    let fine = match value {
        Value::String(text) => {
            !text.is_empty() && !text.chars().any(|c| c.is_control() || ",[]=/\\".contains(c))
        }
        Value::Integer(_) | Value::Boolean(_) => true,
        Value::Float(number) => number.is_finite(),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => false,
    };
    if !fine {
        let message = format!("{value} cannot be a value of the axis `{axis}`");
        let hint = "use numbers, booleans, or texts without , [ ] = / and \\".to_owned();
        diagnostics.add(span, message, Some(hint));
    }
}

fn rules(entries: &Entries, key: &str, params: &Table, diagnostics: &mut Diagnostics) -> Vec<(Span, Axes)> {
    let Some(Entry { node, .. }) = entries.get(key) else { return Vec::new() };
    // The whole list may be a reference, and so may each of its tables.
    let before = diagnostics.count;
    let given = substitute(node, &Axes::new(), params, diagnostics);
    if diagnostics.count > before {
        return Vec::new();
    }
    let items = match given {
        Value::Array(items) => items,
        other => {
            let message = format!("`{key}` must be a list of tables, not {}", a(other.type_str()));
            diagnostics.add(&node.span, message, Some(format!("write `{key} = [{{ axis = value }}]`")));
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (at, rule) in items.into_iter().enumerate() {
        let item = if let Data::List(items) = &node.data { &items[at] } else { node };
        let Value::Table(rule) = rule else {
            let message = format!("each `{key}` must be a table, not {}", a(rule.type_str()));
            diagnostics.add(&item.span, message, None);
            continue;
        };
        for (axis, value) in &rule {
            let own = if let Data::Table(written) = &item.data { written.get(axis) } else { None };
            check_value(axis, value, own.map_or(&item.span, |entry| &entry.node.span), diagnostics);
        }
        out.push((item.span.clone(), rule.into_iter().collect()));
    }
    out
}
