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
    /// By how much a number changed; a whole one by a whole one.
    fn change(&self) -> Option<Value> {
        let (old, new) = (self.old?, self.new?);
        let whole = old.as_i64().zip(new.as_i64()).and_then(|(old, new)| new.checked_sub(old));
        whole.map_or_else(|| Some((new.as_f64()? - old.as_f64()?).into()), |whole| Some(whole.into()))
    }
}

/// Prints what is different; `cell` says how a value is written, `what` what the values are. `joined` are the values of an
/// instance in a table for people where only one side has it.
pub(super) fn print(
    old: &Values,
    new: &Values,
    what: &str,
    (form, joined): (Form, bool),
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
        let people = !form.csv && !form.md;
        let lines = differences.chunk_by(|a, b| a.instance == b.instance).flat_map(|of_one| {
            let instance = of_one[0].instance;
            match [old, new].map(|side| side.contains_key(instance)) {
                [was, is] if was != is && joined && people => vec![whole(instance, of_one.len(), is)],
                _ => of_one.iter().map(|d| if people { cut(line(d, cell)) } else { line(d, cell) }).collect(),
            }
        });
        let heading = ["instance", what, "old", "new", "change"].map(str::to_owned);
        ui::raw(&ui::formed(&std::iter::once(heading.to_vec()).chain(lines).collect::<Vec<_>>(), form));
    }
    ExitCode::SUCCESS
}

fn line(difference: &Difference<'_>, cell: fn(&Value) -> String) -> Vec<String> {
    let written = |value: Option<&Value>| value.map(cell).unwrap_or_default();
    let change = difference.change().map(|change| {
        let text = cell(&change);
        if change.as_f64() > Some(0.0) { format!("+{text}") } else { text }
    });
    vec![
        difference.instance.to_owned(),
        difference.name.to_owned(),
        written(difference.old),
        written(difference.new),
        change.unwrap_or_default(),
    ]
}

/// The line of an instance with so many values that only one side has.
fn whole(instance: &str, count: usize, is_new: bool) -> Vec<String> {
    let [old, new] = if is_new { ["", "only in new"] } else { ["only in old", ""] };
    [instance, &format!("(all {count})"), old, new, ""].map(str::to_owned).to_vec()
}

/// A line in which long values are cut to where they differ: of two scripts the beginnings are often the same.
fn cut(mut line: Vec<String>) -> Vec<String> {
    const LONGEST: usize = 30;
    let values = [&line[2], &line[3]].map(|value| value.chars().collect::<Vec<_>>());
    let same = values[0].iter().zip(&values[1]).take_while(|(a, b)| a == b).count();
    for (place, value) in [2, 3].into_iter().zip(&values) {
        if value.len() > LONGEST {
            let from = same.saturating_sub(LONGEST / 3).min(value.len() - LONGEST);
            let shown: String = value[from..from + LONGEST].iter().collect();
            let [before, after] =
                [from > 0, from + LONGEST < value.len()].map(|cut| if cut { "…" } else { "" });
            line[place] = format!("{before}{shown}{after}");
        }
    }
    line
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
    fn long_values_are_cut_to_where_they_differ() {
        let shown =
            |old: &str, new: &str| cut(["", "", old, new, ""].map(str::to_owned).to_vec())[2..4].join(" | ");
        let long = "abcdefghijklmnopqrstuvwxyz".repeat(2);
        assert_eq!(
            shown(&format!("{long}{long}"), &format!("{long}ä{long}")),
            "…qrstuvwxyzabcdefghijklmnopqrst… | …qrstuvwxyzäabcdefghijklmnopqrs…"
        );
        assert_eq!(shown(&long, "b"), "abcdefghijklmnopqrstuvwxyzabcd… | b");
        assert_eq!(
            shown(&long, &long[..51]),
            "…wxyzabcdefghijklmnopqrstuvwxyz | …vwxyzabcdefghijklmnopqrstuvwxy"
        );
        assert_eq!(shown("", "short"), " | short");
    }

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
