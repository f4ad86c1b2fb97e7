//! Each stage by itself: its kind, its matrix, the parameters of every instance. Knows nothing of
//! how stages hang together beyond the names in `needs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rayon::prelude::*;
use toml::{Table, Value};

use super::{
    Diagnostics,
    hint::did_you_mean,
    matrix::{self, Axes, Matrix},
    overlay::{RESERVED, parameters},
    params::{mentions, no_axes, substitute},
    parse::{Data, Entries, Entry, Node, Span, a, check_name, in_order, table},
    schema::{Fact, Facts},
    shell, sweep,
};
use crate::{
    instance::{Resources, show, variable},
    kind::{Kind, Kinds, Params, Roles},
};

/// A stage, its matrix multiplied out.
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) key: Span,
    pub(super) kind: Arc<dyn Kind>,
    pub(super) needs: Vec<StageNeed>,
    pub(super) axes: BTreeSet<String>,
    pub(super) joining: Vec<Joining>,
    pub(super) resources: Resources,
    pub(super) instances: Vec<(Axes, Params)>,
}

/// An axis that has no other use than to tell inputs apart.
pub(super) struct Joining {
    pub(super) axis: String,
    pub(super) span: Span,
    /// What else it could have been meant to be.
    pub(super) hint: Option<String>,
}

/// One name in a stage's `needs`.
pub(super) struct StageNeed {
    pub(super) role: String,
    pub(super) many: bool,
    pub(super) from: String,
    pub(super) span: Span,
    /// Of the role.
    pub(super) key: Span,
}

/// The stages in order of the file. Those too broken to expand are left out, with a diagnostic.
pub(super) fn stages(
    entries: &Entries,
    kinds: &Kinds,
    facts: &Facts,
    params: &Table,
    diagnostics: &mut Diagnostics,
) -> Vec<Stage> {
    let context = Context { entries, kinds, facts, params };
    let expand = |(name, entry): (&str, &Entry)| {
        let (stage, found) = each(|found| context.stage(name, entry, found));
        (stage, found.of_stage(name))
    };
    let mut stages = Vec::new();
    for part in in_order(entries).chunks(512) {
        stages.extend(gather(part.par_iter().with_min_len(64).copied().map(expand).collect(), diagnostics));
        // In a file that a program wrote the same may be wrong with thousands.
        if diagnostics.list.len() >= 20 {
            break;
        }
    }
    stages
}

/// What each of many gave, and what was wrong with it.
type Found<T> = (Option<T>, Diagnostics);

fn each<T>(expand: impl FnOnce(&mut Diagnostics) -> Option<T>) -> Found<T> {
    let mut diagnostics = Diagnostics::default();
    (expand(&mut diagnostics), diagnostics)
}

fn gather<T>(all: Vec<Found<T>>, diagnostics: &mut Diagnostics) -> Vec<T> {
    let one = |(one, found)| {
        diagnostics.merge(found);
        one
    };
    all.into_iter().filter_map(one).collect()
}

/// What every stage is read with.
struct Context<'a> {
    entries: &'a Entries,
    kinds: &'a Kinds,
    facts: &'a Facts,
    params: &'a Table,
}

impl Context<'_> {
    fn stage(&self, name: &str, entry: &Entry, diagnostics: &mut Diagnostics) -> Option<Stage> {
        let &Context { entries, kinds, facts, params } = self;
        let stage = table(&entry.node, &format!("the stage `{name}`"), diagnostics)?;
        let kind = kind_of(name, stage, &entry.key, kinds, diagnostics)?;
        let fact = facts.get(kind.name())?;
        let before = diagnostics.count;
        let needs = needs_of(name, stage, &entry.key, kind.as_ref(), entries, diagnostics);
        let needs_known = diagnostics.count == before;
        let resources = resources_of(stage, params, diagnostics);
        if kind.sees_axes() {
            same_variables(name, stage, params, diagnostics);
        }
        let empty = Node::empty_table();
        let matrix = stage.get("matrix").map_or(&empty, |m| &m.node);
        let mut matrix = matrix::expand(name, matrix, params, diagnostics)?;
        let combinations = std::mem::take(&mut matrix.combinations);
        // Of what it should have needed, nobody knows which axes that has.
        let uses_all = kind.sees_axes() || !fact.closed || !needs_known;
        let joining = if uses_all { Vec::new() } else { joining(stage, &matrix, fact) };
        let given = known_parameters(name, stage, &matrix, kind.as_ref(), fact, diagnostics);
        let key = &entry.key;
        let expander =
            Expander { name, key, stage, given, kind: kind.as_ref(), fact, params, matrix: &matrix };
        let expand = |axes| each(|found| expander.instance(axes, found));
        let all: Vec<_> = combinations.into_par_iter().with_min_len(64).map(expand).collect();
        let instances = gather(all, diagnostics);
        if kind.sees_axes() && needs_known {
            let roles: BTreeSet<&str> = needs.iter().map(|need| need.role.as_str()).collect();
            let known = shell::Known::new(roles, matrix.axes.keys().map(String::as_str));
            let span = expander.place("run", &Axes::new());
            let mut last = String::new(); // most often they differ in values only
            for command in instances.iter().filter_map(|(_, params)| kind.command(params)) {
                if command.run != last {
                    known.check(name, &command.run, &span, diagnostics);
                    last = command.run;
                }
            }
        }
        Some(Stage {
            name: name.to_owned(),
            key: key.clone(),
            instances,
            kind,
            needs,
            axes: matrix.axes.into_keys().collect(),
            joining,
            resources,
        })
    }
}

/// The axes that neither set a parameter nor are written into one: they must tell inputs apart.
fn joining(stage: &Entries, matrix: &Matrix, fact: &Fact) -> Vec<Joining> {
    let axes = matrix.axes.keys().filter(|axis| {
        !fact.properties.contains_key(*axis)
            && !parameters(stage).any(|(_, entry)| mentions(&entry.node, axis))
    });
    let entries = sweep::matrix_of(stage);
    let joining = |axis: &String| Joining {
        axis: axis.clone(),
        span: entries.and_then(|entries| entries.get(axis)).and_then(|entry| entry.key.clone()),
        hint: did_you_mean(axis, fact.properties.keys().map(String::as_str)),
    };
    axes.map(joining).collect()
}

fn kind_of(
    name: &str,
    stage: &Entries,
    key: &Span,
    kinds: &Kinds,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<dyn Kind>> {
    let names = || kinds.iter().map(|kind| kind.name());
    let Some(entry) = stage.get("kind") else {
        let shell = ["cmd", "run", "shell", "outs", "deps"].iter().any(|key| stage.contains_key(*key));
        let hint = shell.then(|| "what runs a command line is `kind = \"command\"`".to_owned());
        let hint = hint.or_else(|| did_you_mean("", names()));
        diagnostics.add(key, format!("the stage `{name}` has no `kind`"), hint);
        return None;
    };
    let Data::Leaf(Value::String(word)) = &entry.node.data else {
        diagnostics.add(
            &entry.node.span,
            format!("`kind` must be a string, not {}", a(entry.node.what())),
            None,
        );
        return None;
    };
    let kind = kinds.get(word);
    if kind.is_none() {
        diagnostics.add(&entry.node.span, format!("there is no kind `{word}`"), did_you_mean(word, names()));
    }
    kind.cloned()
}

fn needs_of(
    name: &str,
    stage: &Entries,
    key: &Span,
    kind: &dyn Kind,
    stages: &Entries,
    diagnostics: &mut Diagnostics,
) -> Vec<StageNeed> {
    let mut out = Vec::new();
    let empty = Entries::new();
    let given = match stage.get("needs") {
        None => &empty,
        Some(entry) => match &entry.node.data {
            Data::Table(entries) => entries,
            _ => {
                let message = format!("`needs` must be a table, not {}", a(entry.node.what()));
                let hint = "write `needs = { role = \"stage\" }`".to_owned();
                diagnostics.add(&entry.node.span, message, Some(hint));
                return out;
            }
        },
    };
    for (role, entry) in in_order(given) {
        check_name("role", role, &entry.key, diagnostics);
        let many = match kind.roles() {
            Roles::Any => true,
            Roles::Named(specs) => match specs.iter().find(|spec| spec.name == role) {
                Some(spec) => spec.many,
                None => {
                    let message = format!("the kind `{}` has no role `{role}`", kind.name());
                    let hint = did_you_mean(role, specs.iter().map(|spec| spec.name))
                        .unwrap_or_else(|| "it needs nothing".into());
                    diagnostics.add(&entry.key, message, Some(hint));
                    continue;
                }
            },
        };
        let items = match &entry.node.data {
            Data::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        let mut seen = BTreeSet::new();
        for item in items {
            let Data::Leaf(Value::String(from)) = &item.data else {
                let message =
                    format!("`{role}` must name a stage or a list of stages, not {}", a(item.what()));
                diagnostics.add(&item.span, message, None);
                continue;
            };
            if !stages.contains_key(from) {
                let hint = did_you_mean(from, stages.keys().map(String::as_str).filter(|s| *s != name));
                diagnostics.add(&item.span, format!("there is no stage `{from}`"), hint);
            } else if !seen.insert(from) {
                diagnostics.add(&item.span, format!("`{role}` names the stage `{from}` twice"), None);
            } else {
                let (span, key) = (item.span.clone(), entry.key.clone());
                out.push(StageNeed { role: role.to_owned(), many, from: from.clone(), span, key });
            }
        }
    }
    if let Roles::Named(specs) = kind.roles() {
        for spec in specs.iter().filter(|spec| spec.required && !given.contains_key(spec.name)) {
            let message = format!("the stage `{name}` does not say where its `{}` comes from", spec.name);
            let hint = format!("add `needs.{} = \"STAGE\"`", spec.name);
            diagnostics.add(key, message, Some(hint));
        }
    }
    out
}

/// A command knows its inputs and axes by environment variables, which must not be the same ones.
fn same_variables(name: &str, stage: &Entries, params: &Table, diagnostics: &mut Diagnostics) {
    for (key, what, prefix) in [("needs", "role", "IN"), ("matrix", "axis", "AXIS")] {
        let Some(Entry { node: Node { data: Data::Table(entries), .. }, .. }) = stage.get(key) else {
            continue;
        };
        let mut known = BTreeMap::new();
        let written =
            |entries| in_order(entries).into_iter().map(|(word, entry)| (word.to_owned(), &entry.key));
        let mut words: Vec<_> = written(entries).collect();
        words.retain(|(word, _)| !["exclude", "include"].contains(&word.as_str()));
        for node in sweep::included(entries) {
            if let Data::Table(entries) = &node.data {
                words.extend(written(entries));
            } else {
                // What is wrong with a reference is told where the matrix is made.
                let tables = match substitute(node, &Axes::new(), params, &mut Diagnostics::default()) {
                    Value::Array(items) => items,
                    other => vec![other],
                };
                let names = tables.iter().filter_map(Value::as_table).flat_map(Table::keys);
                words.extend(names.map(|word| (word.clone(), &node.span)));
            }
        }
        for (word, span) in words {
            // A role also has lists of its inputs.
            let lists = ["_LIST", "_JSON"].into_iter().filter(|_| key == "needs");
            let lists = lists.map(|ending| variable(&word) + ending);
            for variable in std::iter::once(variable(&word)).chain(lists) {
                if let Some(other) =
                    known.insert(variable.clone(), word.clone()).filter(|other| *other != word)
                {
                    let message = format!(
                        "the {what} `{word}` of `{name}` would be `{prefix}_{variable}`, as `{other}` is"
                    );
                    diagnostics.add(span, message, Some("rename one of them".into()));
                }
            }
        }
    }
}

fn resources_of(stage: &Entries, params: &Table, diagnostics: &mut Diagnostics) -> Resources {
    let mut out = Resources::default();
    let Some(entry) = stage.get("resources") else { return out };
    let Some(entries) = table(&entry.node, "`resources`", diagnostics) else { return out };
    for (key, entry) in entries {
        if !["gpus", "memory", "threads"].contains(&key.as_str()) {
            let hint = did_you_mean(key, ["gpus", "memory", "threads"]);
            diagnostics.add(&entry.key, format!("`resources` has no `{key}`"), hint);
            continue;
        }
        let axes = sweep::matrix_of(stage).into_iter().flat_map(Entries::keys);
        if !no_axes(&entry.node, &format!("`{key}`"), axes, params, diagnostics) {
            continue;
        }
        let before = diagnostics.count;
        let value = substitute(&entry.node, &Axes::new(), params, diagnostics);
        if diagnostics.count > before {
            continue; // what it would be is not known
        }
        let number = value.as_integer().and_then(|n| usize::try_from(n).ok());
        match (key.as_str(), number) {
            (_, None) => {
                let message = format!("`{key}` must be a whole number that is not negative, not {value}");
                let hint = (key == "memory").then(|| "write bytes, such as `4_000_000_000`".to_owned());
                diagnostics.add(&entry.node.span, message, hint);
            }
            ("gpus", Some(number)) => out.gpus = number,
            ("memory", Some(number)) => out.memory = number as u64,
            (_, Some(number)) => out.threads = number,
        }
    }
    out
}

/// The stage's entries that are parameters of its kind; the others are diagnosed here, so that
/// the kind is asked only about those it knows.
fn known_parameters<'a>(
    name: &str,
    stage: &'a Entries,
    matrix: &Matrix,
    kind: &dyn Kind,
    fact: &Fact,
    diagnostics: &mut Diagnostics,
) -> Vec<(&'a str, &'a Node)> {
    let mut out = Vec::new();
    for (key, entry) in in_order(stage) {
        if RESERVED.contains(&key) {
            continue;
        }
        if fact.closed && !fact.properties.contains_key(key) {
            let names = fact.properties.keys().map(String::as_str).chain(RESERVED);
            let message = format!("the kind `{}` of stage `{name}` has no parameter `{key}`", kind.name());
            let instead = match key {
                "stage" | "params" | "profile" => Some(format!(
                    "what follows `[stage.{name}]` belongs to it: write `[{key}...]` with brackets, or above"
                )),
                _ => kind.instead_of(key).map(str::to_owned),
            };
            diagnostics.add(&entry.key, message, instead.or_else(|| did_you_mean(key, names)));
        } else if matrix.axes.contains_key(key) {
            let message = format!("`{key}` is both a parameter and an axis of `{name}`");
            diagnostics.add(&entry.key, message, Some("remove one of them".into()));
        } else {
            if let Data::Table(parts) = &entry.node.data {
                unused_axes(name, key, parts, matrix, diagnostics);
            }
            out.push((key, &entry.node));
        }
    }
    out
}

/// An axis that is called like one of the values of a stage, and is not it, would make one result under several names.
fn unused_axes(name: &str, key: &str, parts: &Entries, matrix: &Matrix, diagnostics: &mut Diagnostics) {
    for (part, entry) in parts.iter().filter(|(part, _)| matrix.axes.contains_key(*part)) {
        if !mentions(&entry.node, part) {
            let message = format!("`{part}` is both an axis of `{name}` and one of its `{key}`");
            let hint = format!("write `{part} = \"${{{part}}}\"` in `{key}`, or rename one of them");
            // The key may be that of the file, and the value of what is laid over it.
            diagnostics.add(&entry.node.span, message, Some(hint));
        }
    }
}

struct Expander<'a> {
    name: &'a str,
    key: &'a Span,
    stage: &'a Entries,
    given: Vec<(&'a str, &'a Node)>,
    kind: &'a dyn Kind,
    fact: &'a Fact,
    params: &'a Table,
    matrix: &'a Matrix,
}

impl Expander<'_> {
    fn instance(&self, axes: Axes, diagnostics: &mut Diagnostics) -> Option<(Axes, Params)> {
        let before = diagnostics.count;
        let mut given = Table::new();
        for (key, node) in &self.given {
            given.insert((*key).to_owned(), substitute(node, &axes, self.params, diagnostics));
        }
        for (axis, value) in axes.iter().filter(|(axis, _)| self.fact.properties.contains_key(*axis)) {
            given.insert(axis.clone(), value.clone());
        }
        if diagnostics.count > before {
            return None;
        }
        match self.kind.resolve(&given) {
            Ok(params) => Some((axes, params)),
            Err(errors) => {
                for error in errors {
                    let span = self.place(&error.key, &axes);
                    let message = match error.key.as_str() {
                        "" => format!("the stage `{}`: {}", self.name, error.message),
                        key => format!("`{key}` of stage `{}`: {}", self.name, error.message),
                    };
                    diagnostics.add(&span, message, error.hint);
                }
                None
            }
        }
    }

    /// Where the parameter `key` got its value in this instance.
    fn place(&self, key: &str, axes: &Axes) -> Span {
        let mut words = key.split(['.', '[']);
        let first = words.next().unwrap_or(key);
        let axis = self.matrix.axes.get(first).zip(axes.get(first));
        if let Some(span) = axis.and_then(|(spans, value)| spans.get(&show(value))) {
            return span.clone();
        }
        let Some(entry) = self.stage.get(first) else { return self.key.clone() };
        let mut node = &entry.node;
        for word in words {
            let Data::Table(entries) = &node.data else { break };
            let Some(inner) = entries.get(word) else { break };
            node = &inner.node;
        }
        node.span.clone()
    }
}
