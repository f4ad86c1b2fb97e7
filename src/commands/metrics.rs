//! `repro metrics`: the numbers that results hold in their `metrics.json`, as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use engine::{digest::Digest, instance::Pipeline, past::Past, plan::Standing, project::Project};
use serde_json::{Map, Value, json};

use super::{
    diff::{self, Values},
    over,
    params::as_json,
};
use crate::{
    args::{Global, Metrics},
    error::Failure,
    git, ui,
};

/// The file of a result that holds its numbers.
pub(super) const FILE: &str = "metrics.json";

/// One result's texts and numbers, or those of several that differ in some axes alone.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) fresh: bool,
    pub(super) axes: Map<String, Value>,
    pub(super) fields: Map<String, Value>,
}

pub(super) fn metrics(global: &Global, options: &Metrics) -> Result<ExitCode, Failure> {
    let Metrics { listing, over, sort, .. } = options;
    if let Some((old, new)) = diff::sides(listing)? {
        if !over.is_empty() || sort.is_some() {
            return Err(Failure::user("`diff` compares result by result, in order of their names")
                .hint("leave out `--over` and `--sort`"));
        }
        let (pipeline, project) = super::project(global)?;
        let mut lost = BTreeSet::new();
        let mut side =
            |from| diff::side(from, "metrics", |revision| at(pipeline, &project, revision, &mut lost));
        let mut old = side(old)?;
        let mut new = new.map_or_else(|| today(pipeline, &project), side)?;
        // What cannot be found on one side is neither new nor gone.
        for values in [&mut old, &mut new] {
            values.retain(|name, _| !lost.contains(name));
        }
        if !listing.form.json && !lost.is_empty() && old.is_empty() && new.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        return Ok(diff::print(&old, &new, "metric", (listing.form, false), cell));
    }
    let (pipeline, project) = super::project(global)?;
    check(pipeline, over)?;
    let standings = super::standings(&project, pipeline)?;
    let mut rows = rows(pipeline, &project, &standings, &listing.instances, over)?;
    if !over.is_empty() {
        rows = over::averaged(rows);
    }
    if let Some(column) = sort {
        self::sort(&mut rows, column, |row| row.fields.get(column).or_else(|| row.axes.get(column)))?;
    }
    if listing.form.json {
        let row = |row: &Row| {
            let Row { name, fresh, axes, fields } = row;
            json!({ "instance": name, "fresh": fresh, "axes": axes, "metrics": fields })
        };
        ui::json(&rows.iter().map(row).collect());
    } else if rows.is_empty() {
        let of = if listing.instances.is_empty() { "no result has" } else { "none of these results has" };
        ui::note(&format!(
            "{of} a `metrics.json` yet; `repro metrics --past` shows those of other settings and profiles"
        ));
    } else {
        let table = if listing.form.csv { csv(&rows) } else { table(&rows) };
        ui::raw(&ui::formed(&table, listing.form));
    }
    Ok(ExitCode::SUCCESS)
}

/// The metrics of the results that are shown, with a word about those that are not fresh.
fn today(pipeline: &Pipeline, project: &Project) -> Result<Values, Failure> {
    let rows = rows(pipeline, project, &super::standings(project, pipeline)?, &[], &[])?;
    let stale = rows.iter().filter(|row| !row.fresh).count();
    if stale > 0 {
        let are = ui::count(stale, "result is", "results are");
        ui::note(&format!(
            "of today's, {are} not fresh: what they show may be of another recipe (`repro status` says why)"
        ));
    }
    Ok(rows.into_iter().map(|row| (row.name, row.fields)).collect())
}

/// The metrics of the results that the lock file of a commit names: from the cache, or from the commit
/// itself where it has the results; of those that neither has, the names become `lost`.
fn at(
    pipeline: &Pipeline,
    project: &Project,
    revision: &str,
    lost: &mut BTreeSet<String>,
) -> Result<Values, Failure> {
    let path = pipeline.lock_file();
    let Some(lock) = git::show(revision, &path)? else {
        let message = format!("`{revision}` has no `{}`", ui::path(&path));
        return Err(Failure::user(message).hint("commit the lock file that `repro run` writes"));
    };
    let place = format!("{revision}:{}", ui::path(&path));
    let lock = String::from_utf8_lossy(&lock);
    let mut values = Values::new();
    let mut missing = BTreeSet::new();
    for (name, Past { digest, content }) in project.past(&lock, &place, pipeline.profile.as_deref(), FILE)? {
        // By its name: today's pipeline need not have it any more.
        let committed = || {
            project.results_of(pipeline, &name).into_iter().find_map(|folder| {
                let bytes = git::show(revision, &folder.join(FILE)).ok()?;
                bytes.filter(|bytes| Digest::of(bytes) == digest)
            })
        };
        let Some(bytes) = content.or_else(committed) else {
            missing.insert(name);
            continue;
        };
        let place = format!("{revision}'s {FILE} of `{name}`");
        values.extend(fields(&bytes, &place).map(|fields| (name, fields)));
    }
    if !missing.is_empty() {
        let are = ui::count(missing.len(), "result of", "results of");
        ui::note(&format!(
            "{are} `{revision}` can be found neither in the cache nor in the commit, and left out\n\
             help: with `{revision}` checked out, `repro pull FOLDER` brings those that somebody pushed; of results whose \
             `{FILE}` is committed nothing more is needed"
        ));
    }
    lost.append(&mut missing);
    Ok(values)
}

/// The texts, numbers and truths of a `metrics.json`, those of tables in it as `table.key`; none, with a word
/// about it, where it holds something else. One result must not hide the others.
pub(super) fn fields(text: &[u8], place: &str) -> Option<Map<String, Value>> {
    let read: Result<Value, serde_json::Error> = serde_json::from_slice(text).or_else(|error| {
        let mended = serde_json::from_slice(&without_infinities(text)).map_err(|_| error)?;
        ui::note(&format!(
            "warning: `{place}` has NaN, Infinity or numbers beyond 1.8e308, which JSON has not; they are left out"
        ));
        Ok(mended)
    });
    match read {
        Ok(Value::Object(fields)) => {
            let mut flat = Map::new();
            flatten("", fields, &mut flat);
            Some(flat)
        }
        Ok(_) => {
            ui::note(&format!("warning: `{place}` holds no table of names and numbers; it is left out"));
            None
        }
        Err(error) => {
            ui::note(&format!("warning: `{place}` is not JSON ({error}); it is left out"));
            None
        }
    }
}

/// JSON as Python writes it, with `null` where a number is none, or too large to be one.
fn without_infinities(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let [first, after @ ..] = rest {
        let word = ["NaN", "Infinity", "-Infinity"].iter().find(|word| rest.starts_with(word.as_bytes()));
        let number = number_in(rest).len();
        if let Some(word) = word.filter(|_| !quoted) {
            out.extend_from_slice(b"null");
            rest = &rest[word.len()..];
        } else if number > 0 && !quoted {
            let text = str::from_utf8(&rest[..number]).unwrap_or_default();
            let infinite = text.parse::<f64>().is_ok_and(f64::is_infinite);
            out.extend_from_slice(if infinite { b"null" } else { text.as_bytes() });
            rest = &rest[number..];
        } else {
            let taken = if quoted && *first == b'\\' { after.len().min(1) + 1 } else { 1 };
            quoted ^= *first == b'"';
            out.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    out
}

/// The number that a text begins with, if it does.
fn number_in(text: &[u8]) -> &[u8] {
    let begins = text.first().is_some_and(|first| *first == b'-' || first.is_ascii_digit());
    let of_number = |byte: &u8| b"+-.eE".contains(byte) || byte.is_ascii_digit();
    let length = text.iter().take_while(|byte| of_number(byte)).count();
    if begins { &text[..length] } else { &[] }
}

fn flatten(prefix: &str, fields: Map<String, Value>, into: &mut Map<String, Value>) {
    for (key, value) in fields {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(&format!("{key}."), inner, into),
            Value::String(_) | Value::Number(_) | Value::Bool(_) => drop(into.insert(key, value)),
            Value::Array(_) | Value::Null => {}
        }
    }
}

/// Does each of these axes belong to some stage?
fn check(pipeline: &Pipeline, over: &[String]) -> Result<(), Failure> {
    let axes: BTreeSet<&String> =
        pipeline.instances.iter().flat_map(|instance| instance.axes.keys()).collect();
    let Some(unknown) = over.iter().find(|axis| !axes.contains(axis)) else { return Ok(()) };
    let known: Vec<_> = axes.into_iter().map(|axis| format!("`{axis}`")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Failure::user(format!("no stage has an axis `{unknown}`")).hint(format!("the axes are: {known}")))
}

/// Every shown result that has a `metrics.json`, named as if there were no axes `over`; lists in it are left out.
pub(super) fn rows(
    pipeline: &Pipeline,
    project: &Project,
    standings: &[Standing],
    names: &[String],
    over: &[String],
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for id in super::selected_or_all(pipeline, names)? {
        let folder = project.result(pipeline, id);
        let Some(text) = super::read(&folder, FILE) else { continue };
        let Some(mut fields) = fields(&text, &ui::path(&folder.join(FILE))) else { continue };
        fields.retain(|name, _| !over.contains(name));
        let instance = &pipeline.instances[id];
        let axes = instance.axes.iter().filter(|(axis, _)| !over.contains(axis));
        let axes = axes.map(|(axis, value)| (axis.clone(), as_json(value))).collect();
        let (name, fresh) = (instance.name_without(over), standings[id].is_current());
        rows.push(Row { name, fresh, axes, fields });
    }
    Ok(rows)
}

/// The heading and the lines.
pub(super) fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let columns = columns(rows.iter().map(|row| &row.fields));
    let heading = ["instance"].into_iter().chain(columns.iter().copied()).map(str::to_owned);
    let line = |row: &Row| {
        let name = if row.fresh { row.name.clone() } else { format!("{} (not fresh)", row.name) };
        std::iter::once(name).chain(cells(&row.fields, &columns, cell)).collect()
    };
    std::iter::once(heading.collect()).chain(rows.iter().map(line)).collect()
}

/// The same for programs: axes have columns too, and numbers all their digits. A field that says what the axis of its name
/// says has none of its own.
fn csv(rows: &[Row]) -> Vec<Vec<String>> {
    let known = ["instance", "fresh"];
    let axes = columns(rows.iter().map(|row| &row.axes));
    let mut fields = columns(rows.iter().map(|row| &row.fields));
    let says_more =
        |row: &Row, name: &str| row.fields.get(name).is_some_and(|field| row.axes.get(name) != Some(field));
    fields.retain(|name| !axes.contains(name) || rows.iter().any(|row| says_more(row, name)));
    let taken = |name: &str| known.contains(&name) || axes.contains(&name);
    let heading =
        fields.iter().map(|name| if taken(name) { format!("metrics.{name}") } else { (*name).to_owned() });
    let heading = known.iter().chain(&axes).map(|name| (*name).to_owned()).chain(heading).collect();
    let line = |row: &Row| {
        let values = cells(&row.axes, &axes, ui::whole).chain(cells(&row.fields, &fields, ui::whole));
        [row.name.clone(), row.fresh.to_string()].into_iter().chain(values).collect()
    };
    std::iter::once(heading).chain(rows.iter().map(line)).collect()
}

/// Brings rows in the order of one of their values: those without it first, then texts, then numbers; the largest at the
/// end, where a terminal shows it.
pub(super) fn sort<R>(
    rows: &mut [R],
    column: &str,
    value: impl Fn(&R) -> Option<&Value>,
) -> Result<(), Failure> {
    if !rows.is_empty() && !rows.iter().any(|row| value(row).is_some()) {
        return Err(Failure::user(format!("none of these results has a metric or an axis `{column}`"))
            .hint("name one that `--csv` shows; with `--past` a parameter will do, too"));
    }
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    let text = |value: Option<&Value>| value.map(ui::cell); // nothing comes before any text
    rows.sort_by(|a, b| {
        let (a, b) = (value(a), value(b));
        match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (None, None) => text(a).cmp(&text(b)),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    });
    Ok(())
}

/// The names of all fields. Texts come first, then whole numbers, then the rest: what an instance is before how well it
/// did.
pub(super) fn columns<'a>(all: impl Iterator<Item = &'a Map<String, Value>>) -> Vec<&'a str> {
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
    for (key, value) in all.flatten() {
        let worst = ranks.entry(key).or_default();
        *worst = rank(value).max(*worst);
    }
    let mut columns: Vec<_> = ranks.into_iter().map(|(key, rank)| (rank, key)).collect();
    columns.sort_unstable();
    columns.into_iter().map(|(_, key)| key).collect()
}

/// The values of these fields, as `cell` shows them; nothing where there is none.
pub(super) fn cells(
    fields: &Map<String, Value>,
    columns: &[&str],
    cell: fn(&Value) -> String,
) -> impl Iterator<Item = String> {
    columns.iter().map(move |key| fields.get(*key).map_or_else(String::new, cell))
}

/// With four digits behind the point, or four in all where it is small.
pub(super) fn cell(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::Number(number), Some(value)) if number.is_f64() => {
            if value != 0.0 && value.abs() < 0.001 {
                format!("{value:.3e}")
            } else {
                format!("{value:.4}")
            }
        }
        (other, _) => ui::cell(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_left_out_and_texts_are_not_touched() {
        let text = br#"{"a": NaN, "b": [-Infinity], "c": "NaN \" Infinity", "d": {"e": 2, "f": Infinity}}"#;
        let fields = fields(text, "it").unwrap();
        let told: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(told, [r#"c="NaN \" Infinity""#, "d.e=2"]);
        assert!(super::fields(b"{\"a\": NaNa}", "it").is_none());
        let text =
            br#"{"a": 1e400, "b1e400": -2.5e-3, "c": "1e400", "d": {"e": -1e+400, "f": 12}, "g": false}"#;
        let fields = super::fields(text, "it").unwrap();
        let told: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(told, ["b1e400=-0.0025", r#"c="1e400""#, "d.f=12", "g=false"]);
        assert!(super::fields(b"{\"a\": 1e400e}", "it").is_none());
    }
}
