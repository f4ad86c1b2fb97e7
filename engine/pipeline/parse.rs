//! TOML text into a tree whose every key and value remembers its bytes. Knows the file's outer
//! tables (`params`, `stage`, `profile`) and nothing of what a stage holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use toml::{
    Value,
    de::{DeTable, DeValue},
};

use super::{Diagnostics, hint::did_you_mean, overlay, sweep};
use crate::lockfile;

/// Where something stood in the file; `None` for what came from the command line.
pub(super) type Span = Option<Range<usize>>;

/// A value and where it stood.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Leaf(Value),
    List(Vec<Node>),
    Table(Entries),
}

pub(super) type Entries = BTreeMap<String, Entry>;

/// A value and where its key stood.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Span,
    pub(super) node: Node,
}

/// What to do where a profile was chosen and there is none.
const NO_PROFILES: &str =
    "the file has no `[profile.NAME]`: leave out `--profile`, or unset the variable `REPRO_PROFILE`";

/// The file with the chosen profile laid over it.
#[derive(Default)]
pub(super) struct Document {
    pub(super) params: Entries,
    pub(super) stages: Entries,
    /// The names of all profiles.
    pub(super) profiles: BTreeSet<String>,
    /// The axes of stages that some profile changes.
    pub(super) varied: BTreeSet<(String, String)>,
}

impl Node {
    pub(super) fn what(&self) -> &'static str {
        match &self.data {
            Data::Leaf(value) => value.type_str(),
            Data::List(_) => "list",
            Data::Table(_) => "table",
        }
    }

    /// A node that stood nowhere.
    pub(super) fn given(value: Value) -> Self {
        let data = match value {
            Value::Array(items) => Data::List(items.into_iter().map(Self::given).collect()),
            Value::Table(table) => Data::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, Entry { key: None, node: Self::given(value) }))
                    .collect(),
            ),
            leaf => Data::Leaf(leaf),
        };
        Self { span: None, data }
    }

    pub(super) fn empty_table() -> Self {
        Self { span: None, data: Data::Table(Entries::new()) }
    }
}

/// The entries in the order of the file, those of the command line last.
pub(super) fn in_order(entries: &Entries) -> Vec<(&str, &Entry)> {
    let mut all: Vec<_> = entries.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
    all.sort_by_key(|(_, entry)| entry.key.as_ref().map_or(usize::MAX, |span| span.start));
    all
}

/// The entries of a table, or a diagnostic that says what should be one.
pub(super) fn table<'n>(node: &'n Node, what: &str, diagnostics: &mut Diagnostics) -> Option<&'n Entries> {
    if let Data::Table(entries) = &node.data {
        return Some(entries);
    }
    diagnostics.add(&node.span, format!("{what} must be a table, not {}", a(node.what())), None);
    None
}

/// The first line that begins with `mark`.
fn line_with(source: &str, mark: &str) -> Option<std::ops::Range<usize>> {
    let start = if source.starts_with(mark) { 0 } else { source.find(&format!("\n{mark}"))? + 1 };
    Some(start..start + mark.trim_end().len())
}

/// Reads the file and lays `profile` over it; `None` when its outer form is too broken to go on.
pub(super) fn document(
    source: &str,
    profile: Option<&str>,
    diagnostics: &mut Diagnostics,
) -> Option<Document> {
    let (tree, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        if let Some(at) = ["<<<<<<< ", ">>>>>>> "].iter().find_map(|mark| line_with(source, mark)) {
            let message = "a merge left both versions of a part here";
            diagnostics.add(&Some(at), message, Some("keep one, and delete the lines with the marks".into()));
            return None;
        }
        // Of a file that is something else, the first few tell as much as all.
        for error in errors.into_iter().take(20) {
            diagnostics.add(&error.span(), error.message(), None);
        }
        return None;
    }
    let found = diagnostics.count;
    let top = convert_table(tree.get_ref(), diagnostics);
    if diagnostics.count > found {
        return None; // what a number that cannot be read would have been is not known
    }
    let mut params = Entries::new();
    let mut stages = Entries::new();
    let mut profiles = Entries::new();
    for (key, entry) in top {
        let known = ["params", "profile", "stage"];
        let target = match key.as_str() {
            "params" => &mut params,
            "profile" => &mut profiles,
            "stage" => &mut stages,
            _ => {
                let message = format!("unknown key `{key}`");
                diagnostics.add(&entry.key, message, did_you_mean(&key, known));
                continue;
            }
        };
        // Taken, not cloned: a generated file may hold ten thousand stages.
        if table(&entry.node, &format!("`{key}`"), diagnostics).is_some()
            && let Data::Table(entries) = entry.node.data
        {
            *target = entries;
        }
    }
    for (name, entry) in &stages {
        check_name("stage", name, &entry.key, diagnostics);
    }
    let names = profiles.keys().cloned().collect();
    let mut document = Document { params, stages, profiles: names, ..Document::default() };
    let mut chosen = None;
    for (name, entry) in &profiles {
        check_name("profile", name, &entry.key, diagnostics);
        if name == lockfile::section(None) {
            let hint = "lock files call the file without a profile so: rename it".to_owned();
            diagnostics.add(&entry.key, format!("a profile cannot be called `{name}`"), Some(hint));
        }
        if document.stages.contains_key(name) {
            let message = format!("the profile `{name}` has the name of a stage");
            let hint = format!("rename one of them: `artifacts/{name}/` cannot show the results of both");
            diagnostics.add(&entry.key, message, Some(hint));
        }
        let overlay = overlay::profile(name, entry, &document, diagnostics);
        for (stage, entry) in overlay.iter().flat_map(|overlay| &overlay.stages) {
            let Data::Table(stage_now) = &entry.node.data else { continue };
            let axes = sweep::matrix_of(stage_now).into_iter().flat_map(Entries::keys);
            let axes = axes.chain(stage_now.keys()).map(|axis| (stage.clone(), axis.clone()));
            document.varied.extend(axes);
        }
        if profile == Some(name) {
            chosen = overlay;
        }
    }
    match (profile, chosen) {
        (Some(_), Some(overlay)) => overlay::lay(&mut document, overlay),
        (Some(name), None) if !profiles.contains_key(name) => {
            let hint =
                did_you_mean(name, profiles.keys().map(String::as_str)).unwrap_or_else(|| NO_PROFILES.into());
            diagnostics.add(&None, format!("there is no profile `{name}`"), Some(hint));
        }
        _ => {}
    }
    Some(document)
}

/// A word with its article.
pub(super) fn a(word: &str) -> String {
    format!("a{} {word}", if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "n" } else { "" })
}

/// Names stand in file names, instance names and `-S` keys.
pub(super) fn check_name(what: &str, name: &str, span: &Span, diagnostics: &mut Diagnostics) {
    // What `-S` sweeps is called as the file does: an axis of a nested parameter has its dots.
    let dots = what == "axis" && span.is_none();
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || (dots && c == '.');
    if name.is_empty() || name.len() > 100 || !name.chars().all(fine) {
        let hint = "use the letters a-z and A-Z, digits, `_` and `-`, at most 100 of them".to_owned();
        diagnostics.add(span, format!("`{name}` cannot be the name of {}", a(what)), Some(hint));
    }
}

fn convert_table(table: &DeTable<'_>, diagnostics: &mut Diagnostics) -> Entries {
    table
        .iter()
        .map(|(key, value)| {
            let node = convert(value.get_ref(), Some(value.span()), diagnostics);
            (key.get_ref().to_string(), Entry { key: Some(key.span()), node })
        })
        .collect()
}

pub(super) fn convert(value: &DeValue<'_>, span: Span, diagnostics: &mut Diagnostics) -> Node {
    let data = match value {
        DeValue::String(text) => Data::Leaf(Value::String(text.to_string())),
        DeValue::Boolean(value) => Data::Leaf(Value::Boolean(*value)),
        DeValue::Datetime(value) => Data::Leaf(Value::Datetime(*value)),
        DeValue::Integer(digits) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix()).unwrap_or_else(|_| {
                let hint = "whole numbers have 64 bits and a sign".to_owned();
                diagnostics.add(&span, format!("the number {digits} is too large"), Some(hint));
                0
            });
            Data::Leaf(Value::Integer(number))
        }
        DeValue::Float(digits) => {
            let number = digits.as_str().parse().unwrap_or_else(|_| {
                diagnostics.add(&span, format!("`{digits}` is not a number"), None);
                0.0
            });
            Data::Leaf(Value::Float(number))
        }
        DeValue::Array(items) => {
            Data::List(items.iter().map(|i| convert(i.get_ref(), Some(i.span()), diagnostics)).collect())
        }
        DeValue::Table(table) => Data::Table(convert_table(table, diagnostics)),
    };
    Node { span, data }
}
