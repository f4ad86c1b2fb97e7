//! `repro params`: every parameter of every instance, as the kinds complete them. Knows no kind.

use std::process::ExitCode;

use engine::{
    instance::{InstanceId, Pipeline},
    pipeline::{LoadOptions, load_text},
    record::recordable,
};
use serde_json::{Map, Value, json};

use super::diff::{self, Values};
use crate::{
    args::{Global, Listing},
    error::Failure,
    git, ui,
};

pub(super) fn params(global: &Global, listing: &Listing) -> Result<ExitCode, Failure> {
    let pipeline = super::pipeline(global)?;
    if let Some((old, new)) = diff::sides(listing)? {
        let side = |from| diff::side(from, "params", |revision| at(global, revision));
        let (old, new) = (side(old)?, new.map_or_else(|| Ok(all(pipeline)), side)?);
        return Ok(diff::print(&old, &new, "parameter", (listing.form, true), ui::cell));
    }
    let ids = super::selected_or_all(pipeline, &listing.instances)?;
    if listing.form.json {
        let row = |id: InstanceId| json!({ "instance": pipeline.instances[id].name, "params": values(pipeline, id) });
        ui::json(&ids.into_iter().map(row).collect());
        return Ok(ExitCode::SUCCESS);
    }
    let cell = if listing.form.csv { ui::whole } else { ui::cell };
    let mut lines = vec![["instance", "parameter", "value"].map(str::to_owned).to_vec()];
    for id in ids {
        let name = &pipeline.instances[id].name;
        let line = |(key, value): (String, Value)| vec![name.clone(), key, cell(&value)];
        lines.extend(values(pipeline, id).into_iter().map(line));
    }
    ui::raw(&ui::formed(&lines, listing.form));
    Ok(ExitCode::SUCCESS)
}

fn all(pipeline: &Pipeline) -> Values {
    let one = |id: InstanceId| (pipeline.instances[id].name.clone(), values(pipeline, id));
    (0..pipeline.instances.len()).map(one).collect()
}

/// The parameters as today's kinds read the pipeline file of a commit, without `-S`: that is a wish of
/// today.
fn at(global: &Global, revision: &str) -> Result<Values, Failure> {
    let options = LoadOptions { sets: Vec::new(), ..super::options(global) };
    let path = std::path::absolute(&options.file).unwrap_or_else(|_| options.file.clone());
    let Some(text) = git::show(revision, &path)? else {
        let message = format!("`{revision}` has no `{}`", options.file.display());
        return Err(Failure::user(message).hint("name another commit, or another file with `-f FILE`"));
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let old = load_text(text, &options, &stages::kinds()).map_err(|mut error| {
        error.file = format!("{revision}:{}", error.file.display()).into();
        error
    })?;
    Ok(all(&old))
}

/// Those of the recipe and those that only say where and how fast, sorted by name; each value of a table by itself.
fn values(pipeline: &Pipeline, id: InstanceId) -> Map<String, Value> {
    let params = &pipeline.instances[id].params;
    let all = params.recipe.iter().chain(&params.settings);
    let each = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(parts) if !parts.is_empty() => {
            parts.iter().map(|(part, value)| (format!("{key}.{part}"), as_json(value))).collect()
        }
        value => vec![(key.clone(), as_json(value))],
    };
    let mut all: Vec<_> = all.flat_map(each).collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().collect()
}

/// JSON has no infinity and no NaN: they are their names.
pub(super) fn as_json(value: &toml::Value) -> Value {
    json!(recordable(value.clone()))
}
