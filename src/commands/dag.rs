//! `repro dag`: the graph of instances, for people, Mermaid, Graphviz or programs.

use std::{fmt::Write as _, process::ExitCode};

use engine::instance::{Instance, Pipeline};
use serde_json::{Map, json};

use crate::{args::Global, error::Failure, ui};

pub(super) fn dag(global: &Global, mermaid: bool, dot: bool, json: bool) -> Result<ExitCode, Failure> {
    let pipeline = super::pipeline(global)?;
    if json {
        ui::json(&as_json(pipeline));
    } else if mermaid {
        ui::raw(&as_mermaid(pipeline));
    } else if dot {
        ui::raw(&as_dot(pipeline));
    } else {
        ui::print(&as_text(pipeline));
    }
    Ok(ExitCode::SUCCESS)
}

fn edges<'a>(pipeline: &'a Pipeline, instance: &'a Instance) -> impl Iterator<Item = (&'a str, &'a str)> {
    instance.needs.iter().map(|need| (need.role.as_str(), pipeline.instances[need.from].name.as_str()))
}

fn as_json(pipeline: &Pipeline) -> serde_json::Value {
    pipeline
        .instances
        .iter()
        .map(|instance| {
            let needs: Vec<_> =
                edges(pipeline, instance).map(|(role, from)| json!({ "role": role, "from": from })).collect();
            json!({
                "name": instance.name,
                "stage": instance.stage,
                "kind": instance.kind.name(),
                "axes": plain(&instance.axes),
                "params": plain(&instance.params.recipe),
                "settings": plain(&instance.params.settings),
                "needs": needs,
            })
        })
        .collect()
}

/// JSON has no infinity and no NaN: they are their names.
fn plain<'a>(
    values: impl IntoIterator<Item = (&'a String, &'a toml::Value)>,
) -> Map<String, serde_json::Value> {
    values.into_iter().map(|(name, value)| (name.clone(), super::params::as_json(value))).collect()
}

fn as_text(pipeline: &Pipeline) -> String {
    let mut text = String::new();
    for instance in &pipeline.instances {
        let _ = writeln!(text, "{} ({})", instance.name, instance.kind.name());
        for (role, from) in edges(pipeline, instance) {
            let _ = writeln!(text, "  {role} <- {from}");
        }
    }
    text
}

/// Nodes are numbered, because Mermaid takes few characters in a name; labels are quoted.
fn as_mermaid(pipeline: &Pipeline) -> String {
    let mut text = String::from("flowchart TD\n");
    for (id, instance) in pipeline.instances.iter().enumerate() {
        let _ = writeln!(text, "    n{id}[\"{}\"]", instance.name.replace('"', "#quot;"));
    }
    for (id, instance) in pipeline.instances.iter().enumerate() {
        for need in &instance.needs {
            let _ = writeln!(text, "    n{} -->|{}| n{id}", need.from, need.role);
        }
    }
    text
}

fn as_dot(pipeline: &Pipeline) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from("digraph pipeline {\n    node [shape=box];\n");
    for instance in &pipeline.instances {
        let _ = writeln!(text, "    {};", quoted(&instance.name));
    }
    for instance in &pipeline.instances {
        for (role, from) in edges(pipeline, instance) {
            let _ = writeln!(
                text,
                "    {} -> {} [label={}];",
                quoted(from),
                quoted(&instance.name),
                quoted(role)
            );
        }
    }
    text + "}\n"
}
