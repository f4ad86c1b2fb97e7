//! What the command line makes an axis of a stage becomes one of the stages that need a single instance of it: who sweeps
//! a training wants each trained network evaluated. Knows no values.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    overlay::{Refusal, axes, leaf, parameters, plain, put},
    params::{mentions, references, whole_reference, within},
    parse::{Data, Document, Entries, Entry, Node},
    schema::Facts,
};
use crate::kind::{Kinds, Roles};

/// Gives `axis` as `stage` has it now to all that hang on it, one instance each, and did not have it or had it as
/// `stage` had it before. Not where it would set a parameter. Refused where values would be lost without a word, or where
/// others would keep the one of `param`, which stood where the axis is now.
pub(super) fn pass_on(
    document: &mut Document,
    (swept, axis): (&str, &str),
    param: Option<&str>,
    before: Option<&Node>,
    kinds: &Kinds,
    facts: &Facts,
) -> Result<(), Refusal> {
    if ["exclude", "include"].contains(&axis) {
        return Ok(());
    }
    let Some(Data::Table(stage)) = document.stages.get(swept).map(|entry| &entry.node.data) else {
        return Ok(());
    };
    let Some(now) = matrix_of(stage).and_then(|axes| axes.get(axis)) else { return Ok(()) };
    let (now, before) = (now.node.clone(), before.cloned().map(plain));
    let several = !matches!(&now.data, Data::List(values) if values.len() == 1);
    let param = param.filter(|param| several && *param != axis);
    let mut last = vec![swept.to_owned()];
    let axes_of: BTreeMap<String, BTreeSet<String>> = document
        .stages
        .iter()
        .filter_map(|(name, entry)| {
            let Data::Table(stage) = &entry.node.data else { return None };
            let names = matrix_of(stage)?
                .keys()
                .map(String::as_str)
                .filter(|name| ![axis, "exclude", "include"].contains(name));
            Some((name.clone(), names.map(str::to_owned).collect()))
        })
        .collect();
    let users = users(&document.stages);
    let mut given = BTreeSet::from([swept.to_owned()]);
    while let Some(from) = last.pop() {
        for name in users.get(&from).into_iter().flatten().filter(|name| !given.contains(*name)) {
            let Some(Data::Table(stage)) = document.stages.get_mut(name).map(|entry| &mut entry.node.data)
            else {
                continue;
            };
            let there = matrix_of(stage).and_then(|axes| axes.get(axis));
            let (had, of_the_file) = (
                there.map(|entry| plain(entry.node.clone())),
                there.is_some_and(|entry| entry.key.is_some()),
            );
            let kind = stage.get("kind").and_then(leaf).and_then(toml::Value::as_str).unwrap_or_default();
            let sets =
                had.is_none() && facts.get(kind).is_some_and(|fact| fact.properties.contains_key(axis));
            let others = axes_of.get(&from).cloned().unwrap_or_default();
            if sets || !needs_one(stage, &from, kind, kinds, &others) {
                continue;
            }
            if had != before {
                if before.is_none() && of_the_file && had.as_ref() != Some(&plain(now.clone())) {
                    return Err((
                        format!(
                            "`{name}` has an axis `{axis}` of its own, with which what is swept would be paired, not crossed"
                        ),
                        Some(format!(
                            "give `{swept}` an axis of another name in the file: `matrix = {{ {swept}_{axis} = [...] }}` and `{axis} = \"${{{swept}_{axis}}}\"`"
                        )),
                    ));
                }
            } else if let Some(param) = param.filter(|param| keeps(stage, param)) {
                return Err(kept(name, &from, swept, param));
            } else if let Some(why) = no_room(stage, axis) {
                // What takes one input or many would take them all.
                if several && kinds.get(kind).is_some_and(|kind| kind.sees_axes()) && why != Room::Value {
                    return Err(lost(name, &from, axis, why));
                }
            } else {
                let Ok(axes) = axes(stage) else { continue };
                put(axes, axis, now.clone());
                last.push(name.clone());
            }
        }
        given.extend(last.iter().cloned());
    }
    Ok(())
}

/// Does the stage use `param` as it stands in `[params]`?
fn keeps(stage: &Entries, param: &str) -> bool {
    let is_axis = matrix_of(stage).is_some_and(|axes| axes.contains_key(param));
    !is_axis && parameters(stage).any(|(_, entry)| mentions(&entry.node, param))
}

fn kept(name: &str, from: &str, swept: &str, param: &str) -> Refusal {
    (
        format!(
            "`{name}` needs one `{from}` and uses `${{{param}}}` too, of which it would keep the one value that the file has"
        ),
        Some(format!(
            "sweep it in both, in this order: `-S 'stage.{name}.{param}=...' -S 'stage.{swept}.{param}=...'`"
        )),
    )
}

/// The settings that sweep a parameter in all stages that take it as `${param}`, under its own name where their kind has
/// a parameter of that; none where no stage does.
pub(super) fn settings(stages: &Entries, param: &str, values: &Node, facts: &Facts) -> Option<String> {
    let takes = |entry: &Entry| {
        let Data::Table(stage) = &entry.node.data else { return false };
        let kind = stage.get("kind").and_then(leaf).and_then(toml::Value::as_str).unwrap_or_default();
        let Some(fact) = facts.get(kind) else { return false };
        if fact.closed && !fact.properties.contains_key(param) {
            return parameters(stage).any(|(_, entry)| references(&entry.node).contains(&param));
        }
        // A setting of that name is one of the kind's parameter.
        let own = stage.get(param).is_some_and(|entry| whole_reference(&entry.node) == Some(param));
        own && !fact.takes_list(param)
    };
    let mut names: Vec<_> = stages.iter().filter(|(_, entry)| takes(entry)).map(|(name, _)| name).collect();
    // What needs others comes first: it would not take the axis from them. Fewer stages hang on it.
    let users = users(stages);
    names.sort_by_key(|name| {
        let (mut behind, mut open) = (BTreeSet::new(), vec![*name]);
        while let Some(name) = open.pop() {
            open.extend(users.get(name).into_iter().flatten().filter(|user| behind.insert(*user)));
        }
        behind.len()
    });
    let values = plain(values.clone()).to_string();
    let values = if values.len() > 80 || values.contains(['\'', '\n']) { "[...]" } else { &values };
    let all: Vec<_> = names.iter().map(|name| format!("-S 'stage.{name}.{param}={values}'")).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// A reference of the stage to a part of `param`, or to a table that it is in: no axis of that name changes it.
pub(super) fn beside<'a>(stage: &'a Entries, param: &str) -> Option<&'a str> {
    let mut all = parameters(stage).flat_map(|(_, entry)| references(&entry.node));
    all.find(|name| within(name, param) || within(param, name))
}

fn lost(name: &str, from: &str, axis: &str, why: Room) -> Refusal {
    let (what, hint) = if why == Room::Include {
        (
            format!("its `include` leaves no room for the axis `{axis}`"),
            format!(
                "leave that out, `-S 'stage.{name}.matrix.include=[]'` before this, or give it the axis in the file"
            ),
        )
    } else {
        (
            format!("it uses `${{{axis}}}` for something else"),
            format!(
                "if each is to have the value of what it needs, say so before this: `-S 'stage.{name}.{axis}=...'`"
            ),
        )
    };
    (format!("`{name}` needs one `{from}` and would get all of them at once: {what}"), Some(hint))
}

/// The stages that name each stage under `needs`, in order.
fn users(stages: &Entries) -> BTreeMap<String, BTreeSet<String>> {
    let mut users = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, entry) in stages {
        let Data::Table(stage) = &entry.node.data else { continue };
        let Some(Data::Table(needs)) = stage.get("needs").map(|needs| &needs.node.data) else { continue };
        for node in needs.values().map(|entry| &entry.node) {
            let items =
                if let Data::List(items) = &node.data { &items[..] } else { std::slice::from_ref(node) };
            for from in items
                .iter()
                .filter_map(|item| if let Data::Leaf(from) = &item.data { from.as_str() } else { None })
            {
                users.entry(from.to_owned()).or_default().insert(name.clone());
            }
        }
    }
    users
}

/// The stages that have axes.
pub(super) fn with_axes(document: &Document) -> BTreeSet<String> {
    let axes =
        |stage: &Entries| matrix_of(stage).is_some_and(|axes| axes.keys().any(|axis| axis != "exclude"));
    let has = |entry: &Entry| matches!(&entry.node.data, Data::Table(stage) if axes(stage));
    document.stages.iter().filter(|(_, entry)| has(entry)).map(|(name, _)| name.clone()).collect()
}

/// A stage's matrix.
pub(super) fn matrix_of(stage: &Entries) -> Option<&Entries> {
    if let Data::Table(axes) = &stage.get("matrix")?.node.data { Some(axes) } else { None }
}

/// Why a stage cannot have an axis that only tells inputs apart.
#[derive(PartialEq)]
enum Room {
    /// It has a parameter, or a value, of that name.
    Value,
    /// It refers to another thing of that name.
    Mention,
    /// What the matrix includes would lack it.
    Include,
}

fn no_room(stage: &Entries, axis: &str) -> Option<Room> {
    let part = |node: &Node| matches!(&node.data, Data::Table(parts) if parts.contains_key(axis));
    if parameters(stage).any(|(key, entry)| key == axis || part(&entry.node)) {
        Some(Room::Value)
    } else if parameters(stage).any(|(_, entry)| mentions(&entry.node, axis)) {
        Some(Room::Mention)
    } else {
        matrix_of(stage).is_some_and(|axes| !included(axes).is_empty()).then_some(Room::Include)
    }
}

/// The combinations that a matrix adds; of those that a reference stands for, the reference.
pub(super) fn included(axes: &Entries) -> &[Node] {
    match axes.get("include").map(|entry| &entry.node) {
        Some(Node { data: Data::List(all), .. }) => all,
        Some(reference) => std::slice::from_ref(reference),
        None => &[],
    }
}

/// Does each instance of the stage need a single one of `from`, which has these other axes? A kind that takes as many as
/// there are does where it has them too.
fn needs_one(stage: &Entries, from: &str, kind: &str, kinds: &Kinds, others: &BTreeSet<String>) -> bool {
    let Some(roles) = kinds.get(kind).map(|kind| kind.roles()) else { return false };
    let has_all = || others.iter().all(|axis| matrix_of(stage).is_some_and(|axes| axes.contains_key(axis)));
    let Some(Data::Table(needs)) = stage.get("needs").map(|needs| &needs.node.data) else { return false };
    let is = |node: &Node| matches!(&node.data, Data::Leaf(value) if value.as_str() == Some(from));
    let names = |node: &Node| match &node.data {
        Data::List(items) => items.iter().any(is),
        _ => is(node),
    };
    let one = |role: &str| match &roles {
        Roles::Named(specs) => specs.iter().any(|spec| spec.name == role && !spec.many),
        Roles::Any => has_all(),
    };
    needs.iter().any(|(role, entry)| one(role) && names(&entry.node))
}
