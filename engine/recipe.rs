//! The recipe: the short text that is an instance's identity. Knows nothing of files or time.
//!
//! ```text
//! repro recipe 1
//! kind train 3
//! param epochs = 160
//! param mode = "bn"
//! axis seed = 0
//! file data/labels.txt blake3:9f2c41...
//! input data blake3:41aa07...
//! input runs arch="resnet32" seed=0 blake3:77b0e1...
//! ```
//!
//! One line each, ended by a line feed, in this order: the kind with its version; every parameter
//! that decides the result, sorted; the axes, sorted, for kinds that are a command (a command sees
//! them in its environment); the kind's own files, sorted; the inputs by role in the order of the
//! needs, with the axes of the instance that made them where a role takes many. Values are TOML
//! with one spelling only: strings are quoted with every control character escaped, so no value
//! can forge a line; tables are inline and sorted; floats are the shortest text that reads back as
//! the same number. The digest is BLAKE3 of the text. The stage's name is not in it: renaming is
//! not redoing. A change of this encoding changes the `1` of the first line.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    path::PathBuf,
};

use toml::Value;

use crate::{
    digest::Digest,
    instance::{InstanceId, Pipeline},
    kind::Roles,
};

/// A recipe's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    text: String,
}

/// A line that came or went between two recipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Was not there before.
    Added(String),
    /// Is no longer there.
    Removed(String),
    /// What it was, what it is.
    Edited(String, String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(line) => write!(f, "new: {line}"),
            Self::Removed(line) => write!(f, "gone: {line}"),
            Self::Edited(then, now) => {
                let (name, then) = split(then);
                let (_, now) = split(now);
                write!(f, "{name}: {} -> {}", short(then), short(now))
            }
        }
    }
}

/// A digest is recognised by its first digits.
fn short(value: &str) -> &str {
    if value.starts_with("blake3:") { value.get(..19).unwrap_or(value) } else { value }
}

/// A recipe line as what it is about and its value.
fn split(line: &str) -> (&str, &str) {
    if let Some((name, value)) = line.split_once(" = ") {
        return (name.strip_prefix("param ").unwrap_or(name), value);
    }
    line.rsplit_once(' ').unwrap_or((line, ""))
}

impl Recipe {
    /// The recipe of instance `id`, given the digests of its kind's files and, in the order of its
    /// needs, of its inputs.
    pub fn of(pipeline: &Pipeline, id: InstanceId, files: &[(PathBuf, Digest)], inputs: &[Digest]) -> Self {
        let instance = &pipeline.instances[id];
        let kind = &instance.kind;
        let mut text = format!("repro recipe 1\nkind {} {}\n", kind.name(), kind.version());
        for (key, value) in instance.params.recipe.iter().collect::<BTreeMap<_, _>>() {
            let _ = writeln!(text, "param {} = {}", key_text(key), value_text(value));
        }
        if kind.command(&instance.params).is_some() {
            for (key, value) in &instance.axes {
                let _ = writeln!(text, "axis {} = {}", key_text(key), value_text(value));
            }
        }
        let mut files: Vec<_> = files.iter().collect();
        files.sort();
        for (path, digest) in files {
            let _ = writeln!(text, "file {} blake3:{digest}", key_text(&path.to_string_lossy()));
        }
        for (need, digest) in instance.needs.iter().zip(inputs) {
            let _ = write!(text, "input {}", key_text(&need.role));
            let many = match kind.roles() {
                Roles::Any => true,
                Roles::Named(roles) => roles.iter().any(|role| role.name == need.role && role.many),
            };
            if many {
                for (key, value) in &pipeline.instances[need.from].axes {
                    let _ = write!(text, " {}={}", key_text(key), value_text(value));
                }
            }
            let _ = writeln!(text, " blake3:{digest}");
        }
        Self { text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The digest of the text: the instance's identity.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }
}

/// What changed from one recipe text to another, line by line.
pub fn changes(then: &str, now: &str) -> Vec<Change> {
    let lines = |text: &str| -> BTreeMap<String, Vec<String>> {
        let mut lines = BTreeMap::<_, Vec<_>>::new();
        for line in text.lines() {
            let name = if line.starts_with("kind ") { "kind" } else { split(line).0 };
            lines.entry(name.to_owned()).or_default().push(line.to_owned());
        }
        lines
    };
    let (then, mut now) = (lines(then), lines(now));
    let mut changes = Vec::new();
    for (name, old) in then {
        let mut new = now.remove(&name).unwrap_or_default().into_iter();
        for line in old {
            match new.next() {
                None => changes.push(Change::Removed(line)),
                Some(other) if other != line => changes.push(Change::Edited(line, other)),
                Some(_) => {}
            }
        }
        changes.extend(new.map(Change::Added));
    }
    changes.extend(now.into_values().flatten().map(Change::Added));
    changes
}

/// A key: bare where TOML allows it, otherwise quoted.
fn key_text(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The one spelling of a value.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "nan".to_owned(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(when) => when.to_string(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(value_text).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let sorted: BTreeMap<_, _> = table.iter().collect();
            let pairs = sorted.iter().map(|(k, v)| format!("{} = {}", key_text(k), value_text(v)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}
