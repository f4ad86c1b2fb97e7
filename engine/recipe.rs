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
//! that decides the result, sorted; the axes, sorted, for kinds that see them (a command does, in its
//! environment); the kind's own files, sorted; the inputs by role in the order of the needs. Where a role
//! takes many, an input has the axes of the instance that made it, and in front of these its stage for kinds
//! whose results name it. Values are TOML with one spelling only: strings are quoted with every control
//! character escaped, so no value can forge a line; tables are inline and sorted; floats are the shortest
//! text that reads back as the same number. The digest is BLAKE3 of the text. The stage's own name is not in
//! it: renaming is not redoing. A change of this encoding changes the `1` of the first line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use toml::Value;

use crate::{
    digest::Digest,
    instance::{InstanceId, Pipeline},
    kind::Roles,
};

/// Stands in a text for the digest of an input that has to be made first.
pub const UNDECIDED: &str = "undecided";

/// A recipe's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    text: Arc<str>,
    digest: Digest,
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
    /// A folder that the stage reads, and which of its files came, went or changed, in words.
    Within(String, Vec<String>),
}

/// So many files of a folder are named.
const NAMED: usize = 5;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(line) => write!(f, "new: {line}"),
            Self::Removed(line) => write!(f, "gone: {line}"),
            Self::Edited(then, now) => {
                let (name, then) = split(then);
                let (_, now) = split(now);
                match inside(name, then, now) {
                    Some(parts) => f.write_str(&parts.join("; ")),
                    None => write!(f, "{name}: {} -> {}", short(then), short(now)),
                }
            }
            Self::Within(folder, files) => {
                write!(f, "files in {folder}: {}", files[..files.len().min(NAMED)].join(", "))?;
                match files.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// A digest is recognised by its first digits.
fn short(value: &str) -> &str {
    if value.starts_with("blake3:") { value.get(..19).unwrap_or(value) } else { value }
}

/// The value that a text spells.
pub(crate) fn value_in(text: &str) -> Option<Value> {
    format!("v = {text}").parse::<toml::Table>().ok()?.remove("v")
}

/// What changed inside a table, or in a text of several lines.
fn inside(name: &str, then: &str, now: &str) -> Option<Vec<String>> {
    match (value_in(then)?, value_in(now)?) {
        (Value::Table(then), Value::Table(now)) => {
            let keys: BTreeSet<_> = then.keys().chain(now.keys()).collect();
            let part = |key: &String| match (then.get(key), now.get(key)) {
                (then, now) if then == now => None,
                (Some(then), Some(now)) => {
                    Some(format!("{name}.{key}: {} -> {}", value_text(then), value_text(now)))
                }
                (Some(then), None) => Some(format!("gone: {name}.{key} = {}", value_text(then))),
                (None, now) => {
                    Some(format!("new: {name}.{key} = {}", now.map_or_else(String::new, value_text)))
                }
            };
            Some(keys.into_iter().filter_map(part).collect())
        }
        (Value::String(then), Value::String(now)) if then.lines().count().max(now.lines().count()) > 1 => {
            let (mut then, mut now) = (then.lines(), now.lines());
            let mut differ = (1..).map_while(|at| match (then.next(), now.next()) {
                (None, None) => None,
                (then, now) => Some((at, then, now)),
            });
            let (at, then, now) = differ.find(|(_, then, now)| then != now)?;
            let quoted = |line: Option<&str>| {
                line.map_or_else(|| "nothing".into(), |line| format!("`{}`", line.trim()))
            };
            let more = if differ.any(|(_, then, now)| then != now) { ", and more" } else { "" };
            Some(vec![format!("{name}, line {at}: {} -> {}{more}", quoted(then), quoted(now))])
        }
        _ => None,
    }
}

/// A recipe line as what it is about and its value.
fn split(line: &str) -> (&str, &str) {
    let digest = ["file ", "input "].iter().any(|what| line.starts_with(what));
    if let Some((name, value)) = line.split_once(" = ").filter(|_| !digest) {
        return (name.strip_prefix("param ").unwrap_or(name), value);
    }
    line.rsplit_once(' ').unwrap_or((line, ""))
}

impl Recipe {
    /// The recipe of instance `id`, given the digests of its kind's files and, in the order of its
    /// needs, of its inputs.
    pub fn of(pipeline: &Pipeline, id: InstanceId, files: &[(PathBuf, Digest)], inputs: &[Digest]) -> Self {
        let text = Self::so_far(pipeline, id, files, inputs.iter().copied().map(Some));
        Self { digest: Digest::of(&text), text: text.into() }
    }

    /// As much of its text as is known: the line of an input that is not ends with [`UNDECIDED`].
    pub(crate) fn so_far(
        pipeline: &Pipeline,
        id: InstanceId,
        files: &[(PathBuf, Digest)],
        inputs: impl Iterator<Item = Option<Digest>>,
    ) -> String {
        let instance = &pipeline.instances[id];
        let kind = &instance.kind;
        let mut text = String::with_capacity(512);
        let _ = write!(text, "repro recipe 1\nkind {} {}\n", kind.name(), kind.version());
        let mut params: Vec<_> = instance.params.recipe.iter().collect();
        params.sort_unstable_by_key(|(key, _)| *key);
        let named = params.into_iter().map(|(key, value)| ("param ", key, value));
        let axes = kind.sees_axes().then(|| instance.axes.iter().map(|(key, value)| ("axis ", key, value)));
        for (what, key, value) in named.chain(axes.into_iter().flatten()) {
            text.push_str(what);
            write_key(&mut text, key);
            text.push_str(" = ");
            write_value(&mut text, value);
            text.push('\n');
        }
        let mut files: Vec<_> = files.iter().collect();
        files.sort();
        for (path, digest) in files {
            text.push_str("file ");
            write_key(&mut text, &path.to_string_lossy());
            let _ = writeln!(text, " blake3:{digest}");
        }
        for (need, digest) in instance.needs.iter().zip(inputs) {
            text.push_str("input ");
            write_key(&mut text, &need.role);
            let many = match kind.roles() {
                Roles::Any => true,
                Roles::Named(roles) => roles.iter().any(|role| role.name == need.role && role.many),
            };
            if many && kind.names_stages() {
                text.push(' ');
                write_key(&mut text, &pipeline.instances[need.from].stage);
            }
            if many {
                for (key, value) in &pipeline.instances[need.from].axes {
                    text.push(' ');
                    write_key(&mut text, key);
                    text.push('=');
                    write_value(&mut text, value);
                }
            }
            let _ = match digest {
                Some(digest) => writeln!(text, " blake3:{digest}"),
                None => writeln!(text, " {UNDECIDED}"),
            };
        }
        text
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The digest of the text: the instance's identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// What changed from one recipe text to another, line by line.
pub(crate) fn changes(then: &str, now: &str) -> Vec<Change> {
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

/// The folder that a changed line is about, and the digest that it had.
pub(crate) fn folder_in(change: &Change) -> Option<(String, Digest)> {
    let Change::Edited(then, _) = change else { return None };
    let (path, digest) = then.strip_prefix("file ")?.rsplit_once(" blake3:")?;
    let path = match value_in(path) {
        Some(Value::String(quoted)) => quoted,
        _ => path.to_owned(),
    };
    Some((path, digest.parse().ok()?))
}

/// A key: bare where TOML allows it, otherwise quoted.
fn write_key(text: &mut String, key: &str) {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    if !key.is_empty() && key.bytes().all(bare) { text.push_str(key) } else { write_quoted(text, key) }
}

/// What a recipe's text says.
pub(crate) enum Part {
    /// The kind and its version, as a TOML string.
    Kind(String),
    /// A parameter or an axis, or a part of one that is a table: its name, and its value as TOML.
    Value(String, String),
    /// A file that the kind itself reads.
    File(String, Digest),
    /// An input: the stage and the axes that the line has of it, and its digest.
    Input(String, Digest),
}

impl Part {
    /// Has a table this value by the name `key`?
    fn is_of_table(&self, key: &str, value: &str) -> bool {
        let named = |name: &str| name.rsplit_once('.').is_some_and(|(_, inner)| inner == key);
        matches!(self, Self::Value(name, same) if same == value && named(name))
    }
}

/// What a recipe's text says, line by line. Lines of an encoding that is not today's say nothing.
pub(crate) fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for line in text.lines() {
        let Some((what, rest)) = line.split_once(' ') else { continue };
        let digest = || rest.rsplit_once(" blake3:").and_then(|(what, hex)| Some((what, hex.parse().ok()?)));
        match what {
            "kind" => parts.push(Part::Kind(value_text(&rest.into()))),
            "param" | "axis" => {
                let Some((name, value)) = rest.split_once(" = ") else { continue };
                match value_in(value) {
                    // What the values of a command take from an axis is said once.
                    _ if what == "axis" && parts.iter().any(|part| part.is_of_table(name, value)) => {}
                    Some(Value::Table(table)) if !table.is_empty() => {
                        let inner = |(key, value)| Part::Value(format!("{name}.{key}"), value_text(value));
                        parts.extend(table.iter().map(inner));
                    }
                    _ => parts.push(Part::Value(name.to_owned(), value.to_owned())),
                }
            }
            "file" => parts.extend(digest().map(|(path, digest)| Part::File(path.into(), digest))),
            "input" => parts.extend(digest().map(|(whose, digest)| {
                let whose = whose.split_once(' ').map_or("", |(_role, whose)| whose);
                Part::Input(whose.into(), digest)
            })),
            _ => {}
        }
    }
    parts
}

/// The digest that a recipe's text has of the file `path`.
pub(crate) fn file_in(text: &str, path: &str) -> Option<Digest> {
    let mut line = "\nfile ".to_owned();
    write_key(&mut line, path);
    let (_, rest) = text.split_once(&(line + " blake3:"))?;
    rest.lines().next()?.parse().ok()
}

/// A string in TOML's quotes.
pub(crate) fn write_quoted(text: &mut String, value: &str) {
    text.push('"');
    let mut plain = 0;
    for (at, c) in value.char_indices() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\t' => "\\t",
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => "",
            _ => continue,
        };
        text.push_str(&value[plain..at]);
        text.push_str(escaped);
        if escaped.is_empty() {
            let _ = write!(text, "\\u{:04X}", u32::from(c));
        }
        plain = at + c.len_utf8();
    }
    text.push_str(&value[plain..]);
    text.push('"');
}

/// The one spelling of a value.
pub(crate) fn value_text(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::String(value) => write_quoted(text, value),
        Value::Float(number) if number.is_nan() => text.push_str("nan"),
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_value(text, value);
            }
            text.push(']');
        }
        Value::Table(table) => {
            text.push('{');
            let sorted: BTreeMap<_, _> = table.iter().collect();
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_key(text, key);
                text.push_str(" = ");
                write_value(text, value);
            }
            text.push('}');
        }
        // Writing to a string cannot fail.
        plain => drop(match plain {
            Value::Integer(number) => write!(text, "{number}"),
            Value::Float(number) => write!(text, "{number:?}"),
            Value::Boolean(truth) => write!(text, "{truth}"),
            other => write!(text, "{other}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_name_whatever_that_is() {
        let digest = |text: &str| format!("blake3:{}", Digest::of(text));
        let lines =
            |a: &str, b: &str| format!("file \"a = b\" {}\nfile \"a = c\" {}\n", digest(a), digest(b));
        let told: Vec<_> =
            changes(&lines("1", "2"), &lines("1", "3")).iter().map(ToString::to_string).collect();
        let short = |text: &str| digest(text)[..19].to_owned();
        assert_eq!(told, [format!("file \"a = c\": {} -> {}", short("2"), short("3"))]);
    }
}
