//! `repro metrics --past`: the numbers of all results that the cache has, beside what tells them apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use engine::{digest::Digest, made::Made, pipeline, project::Project, recipe::value_in};
use serde_json::{Map, Value, json};

use super::metrics::{self, FILE};
use crate::{
    args::{Global, Listing},
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

pub(super) fn past(global: &Global, listing: &Listing) -> Result<ExitCode, Failure> {
    if listing.diff.is_some() {
        return Err(Failure::user("`--past` shows everything, and `diff` what is different now")
            .hint("leave one out"));
    }
    let project = Project::open(&pipeline::root_of(&global.file))?;
    let row = |made: Made| {
        let instance = &made.record.run.instance;
        let fields =
            metrics::fields(&made.content, &format!("{FILE} of `{instance}`, recipe {}", made.recipe))?;
        let with = made.with.iter().map(|(name, values)| (name.clone(), told(values))).collect();
        Some(Row { made, fields, with })
    };
    let rows: Vec<Row> = project.made(&listing.instances, FILE)?.into_iter().filter_map(row).collect();
    if listing.form.json {
        ui::json(&rows.iter().map(object).collect());
    } else if rows.is_empty() {
        ui::note(&format!("no such result in the cache has a `{FILE}`"));
    } else {
        ui::print(&ui::formed(&table(&rows), listing.form.md));
    }
    Ok(ExitCode::SUCCESS)
}

/// What it was made with by one name; a list where that is several.
fn told(values: &BTreeSet<String>) -> Value {
    let value = |text: &String| value_in(text).map_or_else(|| json!(text), |value| json!(value));
    let mut values: Vec<Value> = values.iter().map(value).collect();
    if values.len() == 1 { values.remove(0) } else { values.into() }
}

fn object(row: &Row) -> Value {
    let Row { made, fields, with } = row;
    let run = &made.record.run;
    json!({
        "instance": run.instance, "recipe": made.recipe, "started": run.started, "seconds": run.seconds,
        "commit": run.machine.commit, "dirty": run.machine.dirty, "shown": made.shown, "with": with, "metrics": fields,
    })
}

/// The heading and the lines. Of what a result was made with, and of its texts and whole numbers, what is the same in
/// all of several lines is left out.
fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let varies =
        |value: &dyn Fn(&Row) -> Option<Value>| rows.windows(2).any(|two| value(&two[0]) != value(&two[1]));
    let with: BTreeSet<&String> = rows.iter().flat_map(|row| row.with.keys()).collect();
    // What the numbers say themselves, such as the mode of a training, need not be said twice.
    let said = |name: &str| {
        let bare = name.rsplit('.').next().unwrap_or_default();
        rows.iter().all(|row| row.fields.get(bare) == row.with.get(name))
    };
    let with: Vec<_> =
        with.into_iter().filter(|name| varies(&|row| row.with.get(*name).cloned()) && !said(name)).collect();
    let exact = |name: &str| !rows.iter().any(|row| row.fields.get(name).is_some_and(Value::is_f64));
    let mut fields = metrics::columns(rows.iter().map(|row| &row.fields));
    fields.retain(|name| rows.len() == 1 || !exact(name) || varies(&|row| row.fields.get(*name).cloned()));
    let heading = ["made (UTC)", "shown", "commit", "instance"].into_iter();
    let heading = heading.chain(with.iter().map(|name| name.as_str())).chain(fields.iter().copied());
    let line = |row: &Row| {
        let run = &row.made.record.run;
        let commit = run.machine.commit.as_deref().unwrap_or_default();
        let commit: String = commit.chars().take(7).collect();
        let dirty = if run.machine.dirty == Some(true) && !commit.is_empty() { "+" } else { "" };
        let shown = if row.made.shown { "yes" } else { "" };
        let known = [ui::when(run.started), shown.to_owned(), commit + dirty, run.instance.clone()];
        let with = with.iter().map(|name| row.with.get(*name).map_or_else(String::new, short));
        known.into_iter().chain(with).chain(metrics::cells(&row.fields, &fields)).collect()
    };
    std::iter::once(heading.map(str::to_owned).collect()).chain(rows.iter().map(line)).collect()
}

/// A value as a table has room for it.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Array(parts) => parts.iter().map(ui::cell).collect::<Vec<_>>().join(", "),
        value => ui::cell(value),
    };
    if text.chars().count() <= LONGEST { text } else { format!("#{:.8}", Digest::of(&text).to_string()) }
}
