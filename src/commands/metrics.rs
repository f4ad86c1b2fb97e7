//! `repro metrics`: the numbers that results hold in their `metrics.json`, as a table.

use std::{collections::BTreeMap, fs, process::ExitCode};

use engine::plan::Standing;
use serde_json::{Map, Value, json};

use crate::{
    args::Global,
    error::{Failure, FailureKind},
    ui,
};

/// One result's texts and numbers.
pub(super) struct Row {
    name: String,
    fresh: bool,
    fields: Map<String, Value>,
}

pub(super) fn metrics(global: &Global, names: &[String], json: bool, md: bool) -> Result<ExitCode, Failure> {
    let rows = rows(global, names)?;
    if json {
        let rows =
            rows.iter().map(|row| json!({ "instance": row.name, "fresh": row.fresh, "metrics": row.fields }));
        ui::json(&rows.collect());
    } else if rows.is_empty() {
        ui::note("no result has a `metrics.json` yet");
    } else {
        let table = table(&rows);
        ui::print(&if md { as_markdown(&table) } else { ui::table(&table) });
    }
    Ok(ExitCode::SUCCESS)
}

/// Every shown result that has a `metrics.json`; lists and tables in it are left out.
pub(super) fn rows(global: &Global, names: &[String]) -> Result<Vec<Row>, Failure> {
    let (pipeline, project) = super::project(global)?;
    let standings = project.status(&pipeline)?;
    let mut rows = Vec::new();
    for id in super::selected_or_all(&pipeline, names)? {
        let path = project.result(&pipeline, id).join("metrics.json");
        let Ok(text) = fs::read(&path) else { continue };
        let mut fields: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| Failure {
            hint: Some("`repro run` restores it if it was altered".into()),
            ..Failure::new(FailureKind::Integrity, format!("`{}` is not a JSON object: {e}", ui::path(&path)))
        })?;
        fields.retain(|_, value| value.is_string() || value.is_number());
        let fresh = standings[id] == Standing::Fresh;
        rows.push(Row { name: pipeline.instances[id].name.clone(), fresh, fields });
    }
    Ok(rows)
}

/// The heading and the lines. Texts come first, then whole numbers, then the rest: what an instance
/// is before how well it did.
pub(super) fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let rank = |value: &Value| {
        if value.is_string() {
            0
        } else if value.is_f64() {
            2
        } else {
            1
        }
    };
    let mut ranks = BTreeMap::<&str, i32>::new();
    for (key, value) in rows.iter().flat_map(|row| &row.fields) {
        let worst = ranks.entry(key).or_default();
        *worst = rank(value).max(*worst);
    }
    let mut columns: Vec<_> = ranks.into_iter().map(|(key, rank)| (rank, key)).collect();
    columns.sort_unstable();
    let heading = ["instance"].into_iter().chain(columns.iter().map(|(_, key)| *key)).map(str::to_owned);
    let line = |row: &Row| {
        let name = if row.fresh { row.name.clone() } else { format!("{} (not fresh)", row.name) };
        let cells = columns.iter().map(|(_, key)| row.fields.get(*key).map_or_else(String::new, cell));
        std::iter::once(name).chain(cells).collect()
    };
    std::iter::once(heading.collect()).chain(rows.iter().map(line)).collect()
}

fn cell(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::String(text), _) => text.clone(),
        (Value::Number(number), Some(value)) if number.is_f64() => {
            if value != 0.0 && value.abs() < 0.001 {
                format!("{value:.3e}")
            } else {
                format!("{value:.4}")
            }
        }
        (other, _) => other.to_string(),
    }
}

fn as_markdown(table: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, line) in table.iter().enumerate() {
        let cells: Vec<_> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if index == 0 {
            text.push_str(&format!("|{}\n", " --- |".repeat(line.len())));
        }
    }
    text
}
