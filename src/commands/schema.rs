//! `repro schema`: the JSON Schema of pipeline files for editors, or the parameters of each stage kind for people.

use std::process::ExitCode;

use serde_json::Value;

use crate::{error::Failure, ui};

/// Keys of every stage, whatever its kind.
const COMMON: [&str; 4] = ["kind", "matrix", "needs", "resources"];

pub(super) fn schema(md: bool) -> Result<ExitCode, Failure> {
    let schema = engine::pipeline::schema(&stages::kinds());
    if md {
        ui::line(parameters(&schema).trim_end());
    } else {
        ui::json(&schema);
    }
    Ok(ExitCode::SUCCESS)
}

/// A Markdown table of each kind's parameters.
fn parameters(schema: &Value) -> String {
    let definitions = &schema["$defs"];
    let kinds = definitions.as_object().into_iter().flatten();
    let kinds = kinds.filter_map(|(key, kind)| Some((key.strip_prefix("pipeline.stage.")?, kind)));
    let table = |(name, kind): (&str, &Value)| {
        let keys = kind["properties"].as_object().into_iter().flatten();
        let keys = keys.filter(|(key, _)| !COMMON.contains(&&***key));
        let rows: String = keys.map(|(key, property)| row(key, &property["anyOf"][0], definitions)).collect();
        let rows = if rows.is_empty() {
            "It has none.\n".into()
        } else {
            format!("| parameter | value | default | what it is |\n|---|---|---|---|\n{rows}")
        };
        format!("\n## `{name}`\n\n{rows}")
    };
    let tables: String = kinds.map(table).collect();
    format!(
        "# Parameters\n\nWhat `repro schema --md` prints: the parameters of each [stage kind](pipeline.md#kinds), what they take, \
         and what they are when left out.\nEach may be a reference, such as `${{epochs}}`, too. An editor that knows JSON Schema \
         completes them with [pipeline.schema.json](../pipeline.schema.json).\n{tables}"
    )
}

/// `form`: what a value that is no reference looks like.
fn row(key: &str, form: &Value, definitions: &Value) -> String {
    let default = form.get("default").map_or("–".into(), |value| format!("`{value}`"));
    let about = form["description"].as_str().unwrap_or_default().replace('\n', " ");
    let choices = choices(form, definitions);
    let explained: Vec<_> = choices.iter().filter(|(_, about)| !about.is_empty()).collect();
    let explained = explained.iter().map(|(choice, about)| format!("<br>{choice}: {about}"));
    let cell = format!("{about}{}", explained.collect::<String>()).replace('|', "\\|");
    format!("| `{key}` | {} | {default} | {cell} |\n", value(form, definitions))
}

/// What a form takes, in a few words.
fn value(form: &Value, definitions: &Value) -> String {
    let choices = choices(form, definitions);
    if !choices.is_empty() {
        let names: Vec<_> = choices.into_iter().map(|(name, _)| name).collect();
        return names.join(", ");
    }
    let form = resolved(form, definitions);
    let types = form["type"].as_array().and_then(|all| all.first()).unwrap_or(&form["type"]);
    match types.as_str() {
        Some("integer") => match (form["minimum"].as_u64(), form["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            (Some(low @ 1..), None) => format!("integer from {low} on"),
            _ => "integer".into(),
        },
        Some("array") => format!("list: {}", value(&form["items"], definitions)),
        Some("object") => format!("table: {}", value(&form["additionalProperties"], definitions)),
        Some("string") => "text".into(),
        Some(other) => other.into(),
        None => {
            let forms = form["anyOf"].as_array().into_iter().flatten();
            forms.map(|form| value(form, definitions)).collect::<Vec<_>>().join(" or ")
        }
    }
}

/// The values that a form takes, where they can be counted, and what each means, as far as it says.
fn choices(form: &Value, definitions: &Value) -> Vec<(String, String)> {
    let form = resolved(form, definitions);
    if let Some(one) = form["const"].as_str() {
        let about = form["description"].as_str().unwrap_or_default().replace('\n', " ");
        return vec![(format!("`{one}`"), about)];
    }
    if let Some(all) = form["enum"].as_array() {
        return all.iter().filter_map(Value::as_str).map(|one| (format!("`{one}`"), String::new())).collect();
    }
    if let Some("array") = form["type"].as_str() {
        return choices(&form["items"], definitions)
            .into_iter()
            .filter(|(_, about)| !about.is_empty())
            .collect();
    }
    let forms = form.get("oneOf").or(form.get("anyOf")).and_then(Value::as_array).into_iter().flatten();
    let forms: Vec<_> = forms.map(|form| choices(form, definitions)).collect();
    if forms.iter().any(Vec::is_empty) { Vec::new() } else { forms.into_iter().flatten().collect() }
}

/// What a form refers to, or itself.
fn resolved<'a>(form: &'a Value, definitions: &'a Value) -> &'a Value {
    let name = form["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/"));
    name.map_or(form, |name| &definitions[name])
}
