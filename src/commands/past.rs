//! `repro metrics --past`: the numbers of all results that the cache has, beside what tells them apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use engine::{digest::Digest, instance::variable, made::Made, pipeline, project::Project};
use serde_json::{Map, Value, json};

use super::metrics::{self, FILE};
use crate::{
    args::{Global, Metrics},
    error::Failure,
    ui,
};

/// Longer values are shown by the beginning of their digest.
const LONGEST: usize = 40;

/// A result, its numbers, and what it was made with.
struct Row {
    made: Made,
    fields: Map<String, Value>,
    with: BTreeMap<String, Value>,
}

pub(super) fn past(global: &Global, options: &Metrics) -> Result<ExitCode, Failure> {
    let listing = &options.listing;
    if listing.diff.is_some() {
        return Err(Failure::user("`--past` shows everything, and `diff` what is different now")
            .hint("leave one out"));
    }
    let project = Project::open(&pipeline::root_of(&global.file))?;
    let row = |made: Made| {
        let fields = metrics::fields(&made.content, &format!("{}'s {FILE}", made.record.run.instance))?;
        let with = made.with.iter().map(|(name, values)| (name.clone(), told(values))).collect();
        Some(Row { made, fields, with })
    };
    let mut rows: Vec<Row> = project.made(&listing.instances, FILE)?.into_iter().filter_map(row).collect();
    if let Some(column) = &options.sort {
        metrics::sort(&mut rows, column, |row| row.fields.get(column).or_else(|| row.with.get(column)))?;
    }
    if listing.form.json {
        ui::json(&rows.iter().map(object).collect());
    } else if rows.is_empty() {
        ui::note(&format!("no such result in the cache has a `{FILE}`"));
    } else {
        ui::raw(&ui::formed(&table(&rows, listing.form.csv), listing.form));
    }
    Ok(ExitCode::SUCCESS)
}

/// What it was made with by one name; a list where that is several.
fn told(values: &[toml::Value]) -> Value {
    if let [value] = values { json!(value) } else { json!(values) }
}

fn object(row: &Row) -> Value {
    let Row { made, fields, with } = row;
    let run = &made.record.run;
    json!({
        "instance": run.instance, "recipe": made.recipe, "started": run.started, "seconds": run.seconds,
        "commit": run.machine.commit, "dirty": run.machine.dirty, "shown": made.shown, "with": with, "metrics": fields,
    })
}

/// The heading and the lines. Of what the results were made with, and of their texts and whole numbers, only that is
/// shown in which they differ, and once. Where it is `whole`, no value is cut.
fn table(rows: &[Row], whole: bool) -> Vec<Vec<String>> {
    let exact = |name: &&str| !rows.iter().any(|row| row.fields.get(*name).is_some_and(Value::is_f64));
    let numbers = |name: &str| rows.iter().map(|row| row.fields.get(name)).collect::<Vec<_>>();
    let mut fields = metrics::columns(rows.iter().map(|row| &row.fields));
    fields.retain(|name| rows.len() == 1 || !exact(name) || varies(&numbers(name)));
    let said: Vec<_> = fields.iter().copied().filter(exact).map(|name| (name, numbers(name))).collect();
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.with.keys()).collect();
    let columns =
        names.into_iter().map(|name| (name, rows.iter().map(|row| row.with.get(name)).collect::<Vec<_>>()));
    let columns: Vec<_> = columns.filter(|(name, values)| tells_apart(rows, name, values)).collect();
    // An axis is often the parameter of another stage. What has another name may have the same values by chance.
    let with = columns.iter().enumerate().filter(|(at, (name, values))| {
        let same = |other: &str| alike(name) == alike(other);
        let others = columns.iter().enumerate().filter(|(other, (name, _))| other != at && same(name));
        let said_there = |(other, (_, there)): (usize, &(&String, Vec<_>))| {
            is_part(values, there) && (other < *at || !is_part(there, values))
        };
        let in_metrics = said.iter().any(|(name, there)| same(name) && is_part(values, there));
        !in_metrics && !others.into_iter().any(said_there)
    });
    let with: Vec<_> = with.map(|(_, (name, _))| *name).collect();
    let heading = ["made (UTC)", "shown", "commit", "instance"].into_iter();
    let heading = heading.chain(with.iter().map(|name| name.as_str())).chain(fields.iter().copied());
    let line = |row: &Row| {
        let run = &row.made.record.run;
        let commit = super::commit(&run.machine)
            .map_or_else(String::new, |(commit, changed)| commit + if changed { "+" } else { "" });
        let shown = if row.made.shown { "yes" } else { "" };
        let known = [ui::when(run.started), shown.to_owned(), commit, run.instance.clone()];
        let short = |name: &str, value: &Value| if whole { ui::whole(value) } else { short(name, value) };
        let cell = if whole { ui::whole } else { metrics::cell };
        let with =
            with.iter().map(|name| row.with.get(*name).map_or_else(String::new, |value| short(name, value)));
        known.into_iter().chain(with).chain(metrics::cells(&row.fields, &fields, cell)).collect()
    };
    std::iter::once(heading.map(str::to_owned).collect()).chain(rows.iter().map(line)).collect()
}

fn varies(values: &[Option<&Value>]) -> bool {
    values.windows(2).any(|two| two[0] != two[1])
}

/// Do rows differ in what they were made with by this name? A stage that led to some results only does not tell these
/// apart from others by all its parameters.
fn tells_apart(rows: &[Row], name: &str, values: &[Option<&Value>]) -> bool {
    let stage = format!("kind {}", name.split_once('.').map_or("", |(stage, _)| stage));
    let among =
        rows.iter().zip(values).filter(|(row, value)| value.is_some() || row.with.contains_key(&stage));
    varies(&among.map(|(_, value)| *value).collect::<Vec<_>>())
}

/// The last part of a name, as it is spelt in variables too: `train.learning_rate`, `eval.values.LEARNING_RATE`.
fn alike(name: &str) -> String {
    variable(name.rsplit('.').next().unwrap_or(name))
}

/// Does another column say all that this one says?
fn is_part(values: &[Option<&Value>], other: &[Option<&Value>]) -> bool {
    values.iter().zip(other).all(|(value, other)| value.is_none() || value == other)
}

/// A value of that name as a table has room for it.
fn short(name: &str, value: &Value) -> String {
    let part = |part: &Value| {
        let text = ui::cell(part);
        if name.starts_with("file ") { text.get(..12).unwrap_or(&text).to_owned() } else { text }
    };
    let text = match value {
        Value::Array(parts) => parts.iter().map(part).collect::<Vec<_>>().join(", "),
        value => part(value),
    };
    if text.chars().count() <= LONGEST { text } else { format!("#{:.8}", Digest::of(&text).to_string()) }
}
