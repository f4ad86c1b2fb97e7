//! Two listings of instances, each with named values, and what is different in them. Knows neither
//! metrics nor parameters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::{
    args::{Diff, Form, Listing},
    error::Failure,
    ui,
};

/// Instance -> name -> value.
pub(super) type Values = BTreeMap<String, Map<String, Value>>;

/// One value that is not what it was.
struct Difference<'a> {
    instance: &'a str,
    name: &'a str,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
}

impl Difference<'_> {
    /// By how much a number changed.
    fn change(&self) -> Option<f64> {
        Some(self.new?.as_f64()? - self.old?.as_f64()?)
    }
}

/// Prints what is different; `cell` says how a value is written, `what` what the values are.
pub(super) fn print(
    old: &Values,
    new: &Values,
    what: &str,
    form: Form,
    cell: fn(&Value) -> String,
) -> ExitCode {
    let differences = differences(old, new);
    if form.json {
        let object = |d: &Difference<'_>| {
            json!({
                "instance": d.instance, "name": d.name, "old": d.old, "new": d.new, "change": d.change(),
            })
        };
        ui::json(&differences.iter().map(object).collect());
    } else if old.is_empty() && new.is_empty() {
        ui::note(&format!("nothing was compared: there is no {what} on either side"));
    } else if differences.is_empty() {
        ui::note(&format!("no {what} is different"));
    } else {
        let cell = if form.csv { ui::whole } else { cell };
        let lines = differences.iter().map(|d| line(d, cell));
        let heading = ["instance", what, "old", "new", "change"].map(str::to_owned);
        ui::raw(&ui::formed(&std::iter::once(heading.to_vec()).chain(lines).collect::<Vec<_>>(), form));
    }
    ExitCode::SUCCESS
}

fn line(difference: &Difference<'_>, cell: fn(&Value) -> String) -> Vec<String> {
    let written = |value: Option<&Value>| value.map(cell).unwrap_or_default();
    let change = difference.change().map(|change| {
        let text = cell(&change.into());
        if change > 0.0 { format!("+{text}") } else { text }
    });
    vec![
        difference.instance.to_owned(),
        difference.name.to_owned(),
        written(difference.old),
        written(difference.new),
        change.unwrap_or_default(),
    ]
}

/// Every value that is not the same on both sides, by instance and name.
fn differences<'a>(old: &'a Values, new: &'a Values) -> Vec<Difference<'a>> {
    let instances: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut differences = Vec::new();
    for instance in instances {
        let [old, new] = [old, new].map(|values| values.get(instance));
        let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(Map::keys).collect();
        for name in names {
            let [old, new] = [old, new].map(|values| values.and_then(|values| values.get(name)));
            if old != new {
                differences.push(Difference { instance, name, old, new });
            }
        }
    }
    differences
}

/// What to compare, where that is asked: the old side, and the new one unless it is today's.
pub(super) fn sides(listing: &Listing) -> Result<Option<(&str, Option<&str>)>, Failure> {
    let Some(Diff::Diff { old, new }) = &listing.diff else { return Ok(None) };
    if let Some(name) = listing.instances.first() {
        return Err(Failure::user("`diff` compares all instances").hint(format!("leave out `{name}`")));
    }
    // The parser sees no more than one side of `diff`.
    let Form { json, md, csv } = listing.form;
    if usize::from(json) + usize::from(md) + usize::from(csv) > 1 {
        return Err(
            Failure::user("`--json`, `--md` and `--csv` cannot be used with each other").hint("choose one")
        );
    }
    Ok(Some((old, new.as_deref())))
}

/// One side: what an earlier call wrote with `--json`, if it names a file (objects with `instance` and `key`); else
/// what `at` finds in the revision of that name.
pub(super) fn side(
    from: &str,
    key: &str,
    at: impl FnOnce(&str) -> Result<Values, Failure>,
) -> Result<Values, Failure> {
    let path = Path::new(from);
    if !path.is_file() {
        return at(from);
    }
    let text = fs::read(path).map_err(|e| Failure::user(format!("cannot read `{}`: {e}", path.display())))?;
    let values = serde_json::from_slice(&text).ok().and_then(|value| values(value, key));
    values.ok_or_else(|| {
        Failure::user(format!("`{from}` is no list of {key} of instances"))
            .hint(format!("write one with `repro {key} --json > FILE`"))
    })
}

fn values(value: Value, key: &str) -> Option<Values> {
    let Value::Array(rows) = value else { return None };
    let row = |mut row: Value| {
        let name = row.get("instance")?.as_str()?.to_owned();
        let Value::Object(fields) = row.get_mut(key)?.take() else { return None };
        Some((name, fields))
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_gone_or_changed_is_different_and_nothing_else() {
        let listing = |text: &str| values(serde_json::from_str(text).unwrap(), "metrics").unwrap();
        let old = listing(
            r#"[{"instance": "a", "metrics": {"x": 1, "y": 2}}, {"instance": "b", "metrics": {"z": 3}}]"#,
        );
        let new = listing(
            r#"[{"instance": "a", "metrics": {"x": 1.5, "y": 2}}, {"instance": "c", "metrics": {"z": 3}}]"#,
        );
        let found = differences(&old, &new);
        let lines: Vec<_> = found.iter().map(|d| line(d, Value::to_string).join(" ")).collect();
        assert_eq!(lines, ["a x 1 1.5 +0.5", "b z 3  ", "c z  3 "]);
        assert!(differences(&new, &new).is_empty());
        assert!(values(serde_json::json!([{ "instance": "a" }]), "metrics").is_none());
    }
}
