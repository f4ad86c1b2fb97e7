//! `${name}` references: to a stage's axes first, then to `[params]`. Knows no kinds.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use toml::{Table, Value};

use super::{
    Diagnostics,
    hint::did_you_mean,
    parse::{Data, Entries, Node, Span},
};
use crate::instance::show;

/// Parameters that may refer to each other in a row.
const DEEPEST: usize = 100;

/// Bytes of a text with its references answered.
const LONGEST: usize = 1 << 20;

/// Values in a list or table with its references answered.
const MOST: usize = 100_000;

/// Bytes of all answers to references, about.
const LARGEST: usize = 1 << 26;

/// Answers the references inside `[params]` itself.
pub(super) fn resolve(params: &Entries, diagnostics: &mut Diagnostics) -> Table {
    let resolver = Resolver { params, done: RefCell::default(), names: names(params), size: Cell::new(0) };
    let mut table = Table::new();
    for (key, entry) in params {
        let value = resolver.value(&entry.node, &mut vec![key.clone()], diagnostics);
        table.insert(key.clone(), value);
    }
    table
}

fn bytes(value: &Value) -> usize {
    let inside: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Table(table) => table.iter().map(|(key, value)| key.len() + bytes(value)).sum(),
        _ => 0,
    };
    inside + size_of::<Value>()
}

struct Resolver<'a> {
    params: &'a Entries,
    done: RefCell<BTreeMap<String, Value>>,
    names: Vec<String>,
    /// Of the answers so far.
    size: Cell<usize>,
}

impl Resolver<'_> {
    fn value(&self, node: &Node, stack: &mut Vec<String>, diagnostics: &mut Diagnostics) -> Value {
        match &node.data {
            Data::List(items) => {
                let mut list = Vec::new();
                let mut count = 0;
                for item in items {
                    list.push(self.value(item, stack, diagnostics));
                    count += list.last().map_or(0, items_of);
                    if count > MOST {
                        too_many("list", &node.span, diagnostics);
                        return Value::Array(Vec::new());
                    }
                }
                Value::Array(list)
            }
            Data::Table(entries) => {
                let mut table = Table::new();
                let mut count = 0;
                for (key, entry) in entries {
                    let path = format!("{}.{key}", stack.last().map_or("", String::as_str));
                    stack.push(path);
                    let value = self.value(&entry.node, stack, diagnostics);
                    stack.pop();
                    count += items_of(&value);
                    if count > MOST {
                        too_many("table", &node.span, diagnostics);
                        return Value::Table(Table::new());
                    }
                    table.insert(key.clone(), value);
                }
                Value::Table(table)
            }
            Data::Leaf(Value::String(text)) if text.contains("${") => {
                let answer = |name: &str, diagnostics: &mut Diagnostics| {
                    self.named(name, &node.span, stack, diagnostics)
                };
                if self.size.get() > LARGEST {
                    return Value::String(String::new()); // which has been told
                }
                let value = text_value(node, text, answer, diagnostics);
                self.size.set(self.size.get() + bytes(&value));
                if self.size.get() > LARGEST {
                    let message = format!(
                        "the answers to references in `[params]` take more than {} MiB",
                        LARGEST >> 20
                    );
                    let hint = "refer to long ones in the stages that read them".to_owned();
                    diagnostics.add(&node.span, message, Some(hint));
                }
                value
            }
            Data::Leaf(value) => value.clone(),
        }
    }

    fn named(
        &self,
        name: &str,
        span: &Span,
        stack: &mut Vec<String>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Value> {
        if let Some(value) = self.done.borrow().get(name) {
            return Some(value.clone());
        }
        // A table is on the stack together with its keys, so a reference to it from inside shows.
        if let Some(at) = stack.iter().position(|s| s == name) {
            let mut path = stack[at..].to_vec();
            path.push(name.to_owned());
            diagnostics.add(span, format!("parameters refer to each other: {}", path.join(" -> ")), None);
            return None;
        }
        let Some(node) = find(self.params, name) else {
            unknown(name, span, self.names.iter().map(String::as_str), diagnostics);
            return None;
        };
        if stack.len() > DEEPEST {
            let hint = "write the value where it is used".to_owned();
            let message = format!("more than {DEEPEST} parameters refer to each other in a row");
            diagnostics.add(span, message, Some(hint));
            return None;
        }
        stack.push(name.to_owned());
        let value = self.value(node, stack, diagnostics);
        stack.pop();
        self.done.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }
}

/// How many values a value holds. An empty list or table is one too: they can double like all others.
fn items_of(value: &Value) -> usize {
    let held: usize = match value {
        Value::Array(items) => items.iter().map(items_of).sum(),
        Value::Table(entries) => entries.iter().map(|(_, value)| items_of(value)).sum(),
        _ => 1,
    };
    held.max(1)
}

fn too_many(what: &str, span: &Span, diagnostics: &mut Diagnostics) {
    let message = format!("with its references answered this {what} has more than {MOST} values");
    diagnostics.add(span, message, None);
}

/// A key may have dots itself.
fn find<'a>(params: &'a Entries, path: &str) -> Option<&'a Node> {
    let within = |(dot, _)| match &params.get(&path[..dot])?.node.data {
        Data::Table(inner) => find(inner, &path[dot + 1..]),
        _ => None,
    };
    params.get(path).map(|entry| &entry.node).or_else(|| path.match_indices('.').find_map(within))
}

/// The same, to be changed.
pub(super) fn find_mut<'a>(params: &'a mut Entries, path: &str) -> Option<&'a mut Node> {
    if params.contains_key(path) {
        return params.get_mut(path).map(|entry| &mut entry.node);
    }
    let leads = |dot: usize| match params.get(&path[..dot]).map(|entry| &entry.node.data) {
        Some(Data::Table(inner)) => find(inner, &path[dot + 1..]).is_some(),
        _ => false,
    };
    let dot = path.match_indices('.').map(|(dot, _)| dot).find(|&dot| leads(dot))?;
    match &mut params.get_mut(&path[..dot])?.node.data {
        Data::Table(inner) => find_mut(inner, &path[dot + 1..]),
        _ => None,
    }
}

/// The parameters by their names, `table.key` for those of tables, which come before the table itself.
pub(super) fn names(params: &Entries) -> Vec<String> {
    fn walk(entries: &Entries, prefix: &str, out: &mut Vec<String>) {
        for (key, entry) in entries {
            let path = format!("{prefix}{key}");
            if let Data::Table(inner) = &entry.node.data {
                walk(inner, &format!("{path}."), out);
            }
            out.push(path);
        }
    }
    let mut out = Vec::new();
    walk(params, "", &mut out);
    out
}

/// An error where `what` refers to an axis: it is the same for all instances of a stage.
pub(super) fn no_axes<'a>(
    node: &Node,
    what: &str,
    axes: impl IntoIterator<Item = &'a String>,
    params: &Table,
    diagnostics: &mut Diagnostics,
) -> bool {
    let axis = axes.into_iter().find(|axis| find_value(params, axis).is_none() && mentions(node, axis));
    if let Some(axis) = axis {
        let message =
            format!("{what} is the same for all instances of a stage: it cannot use the axis `{axis}`");
        diagnostics.add(&node.span, message, Some("write the value, or take it from `[params]`".into()));
    }
    axis.is_none()
}

/// The value of a stage's node, its references answered from `axes`, then `params`.
pub(super) fn substitute(
    node: &Node,
    axes: &BTreeMap<String, Value>,
    params: &Table,
    diagnostics: &mut Diagnostics,
) -> Value {
    match &node.data {
        Data::List(items) => {
            Value::Array(items.iter().map(|item| substitute(item, axes, params, diagnostics)).collect())
        }
        Data::Table(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, entry)| (key.clone(), substitute(&entry.node, axes, params, diagnostics)))
                .collect(),
        ),
        Data::Leaf(Value::String(text)) if text.contains("${") => {
            let answer = |name: &str, diagnostics: &mut Diagnostics| {
                let found = axes.get(name).or_else(|| find_value(params, name));
                if found.is_none() {
                    let mut names: BTreeSet<String> = axes.keys().cloned().collect();
                    value_names(params, "", &mut names);
                    unknown(name, &node.span, names.iter().map(String::as_str), diagnostics);
                }
                found.cloned()
            };
            text_value(node, text, answer, diagnostics)
        }
        Data::Leaf(value) => value.clone(),
    }
}

/// Does anything in `node` refer to `name`, to something in it, or to a table that it is in?
pub(super) fn mentions(node: &Node, name: &str) -> bool {
    references(node).into_iter().any(|inside| inside == name || within(inside, name) || within(name, inside))
}

/// Is `name` that of something in the table `table`?
pub(super) fn within(name: &str, table: &str) -> bool {
    name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// The names that `node` refers to.
pub(super) fn references(node: &Node) -> Vec<&str> {
    match &node.data {
        Data::List(items) => items.iter().flat_map(references).collect(),
        Data::Table(entries) => entries.values().flat_map(|entry| references(&entry.node)).collect(),
        Data::Leaf(Value::String(text)) => {
            let plain = |at: usize| text[..at].ends_with('$'); // `$${` is a plain `${`
            let marks = text.match_indices("${").filter(|(at, _)| !plain(*at));
            marks.filter_map(|(at, _)| Some(text[at + 2..].split_once('}')?.0.trim())).collect()
        }
        Data::Leaf(_) => Vec::new(),
    }
}

/// The name that a text which is nothing but a reference refers to.
pub(super) fn whole_reference(node: &Node) -> Option<&str> {
    let Data::Leaf(Value::String(text)) = &node.data else { return None };
    let inside = text.strip_prefix("${")?.strip_suffix('}')?;
    (!inside.contains('}')).then(|| inside.trim())
}

/// Keys may have dots in them.
fn find_value<'a>(params: &'a Table, path: &str) -> Option<&'a Value> {
    let within = |(dot, _)| find_value(params.get(&path[..dot])?.as_table()?, &path[dot + 1..]);
    params.get(path).or_else(|| path.match_indices('.').find_map(within))
}

fn value_names(table: &Table, prefix: &str, out: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            value_names(inner, &format!("{path}."), out);
        }
        out.insert(path);
    }
}

fn unknown<'a>(name: &str, span: &Span, names: impl Iterator<Item = &'a str>, diagnostics: &mut Diagnostics) {
    let meant = did_you_mean(name, names).map_or_else(String::new, |hint| format!("{hint} "));
    let hint = format!("{meant}(a literal one is written `$${{{name}}}`)");
    diagnostics.add(span, format!("`${{{name}}}` is neither an axis nor in `[params]`"), Some(hint));
}

/// The `text` of a node with its references answered; one that is a single reference keeps the value's type.
fn text_value(
    node: &Node,
    text: &str,
    mut answer: impl FnMut(&str, &mut Diagnostics) -> Option<Value>,
    diagnostics: &mut Diagnostics,
) -> Value {
    let kept = || Value::String(text.to_owned());
    let span = &node.span;
    if let Some(name) = whole_reference(node) {
        return answer(name, diagnostics).unwrap_or_else(kept);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            let hint = "a literal `${` is written `$${`".to_owned();
            diagnostics.add(span, "a `${` has no `}`", Some(hint));
            return kept();
        };
        match answer(after[..end].trim(), diagnostics) {
            Some(Value::Array(_) | Value::Table(_)) => {
                let message =
                    format!("`${{{}}}` is a list or table and cannot be part of a text", &after[..end]);
                diagnostics.add(span, message, None);
            }
            Some(value) => out.push_str(&show(&value)),
            None => {}
        }
        if out.len() > LONGEST {
            diagnostics.add(
                span,
                format!("with its references answered this text exceeds {LONGEST} bytes"),
                None,
            );
            return kept();
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Value::String(out)
}
