//! What is laid over a file: a profile's tables, and the `key=value` settings of the command
//! line. Knows which parameters a kind takes, not what they mean.

use toml::Value;

use super::{
    Diagnostics,
    hint::did_you_mean,
    params::{find_mut, mentions, names, references, whole_reference, within},
    parse::{Data, Document, Entries, Entry, Node, table},
    schema::Facts,
    sweep,
    value::{as_list, value},
};
use crate::{instance::variable, kind::Kinds};

/// The keys of a stage that are not its kind's parameters.
pub(super) const RESERVED: [&str; 4] = ["kind", "matrix", "needs", "resources"];

/// Checks the profile `name`, chosen or not, against the file it will be laid over.
pub(super) fn profile(
    name: &str,
    entry: &Entry,
    document: &Document,
    diagnostics: &mut Diagnostics,
) -> Option<Document> {
    let mut overlay = Document::default();
    for (key, entry) in table(&entry.node, &format!("`profile.{name}`"), diagnostics)? {
        let target = match key.as_str() {
            "params" => &mut overlay.params,
            "stage" => &mut overlay.stages,
            _ => {
                let message = format!("unknown key `{key}` in profile `{name}`");
                diagnostics.add(&entry.key, message, did_you_mean(key, ["params", "stage"]));
                continue;
            }
        };
        if let Some(entries) = table(&entry.node, &format!("`profile.{name}.{key}`"), diagnostics) {
            target.clone_from(entries);
        }
    }
    let (known, mut new) = (names(&document.params), Vec::new());
    strangers(&document.params, &overlay.params, "", &mut new);
    for (param, entry) in new {
        // A profile may bring a parameter for what it brings.
        let mut all =
            [document, &overlay].into_iter().flat_map(|d| d.stages.values().chain(d.params.values()));
        if !all.any(|entry| mentions(&entry.node, &param)) {
            let message = format!("profile `{name}` sets a parameter `{param}` that does not exist");
            diagnostics.add(&entry.key, message, did_you_mean(&param, known.iter().map(String::as_str)));
        }
    }
    for (stage, entry) in &overlay.stages {
        let what = format!("`profile.{name}.stage.{stage}`");
        let Some(entries) = table(&entry.node, &what, diagnostics) else { continue };
        if !document.stages.contains_key(stage) && !entries.contains_key("kind") {
            let message = format!("profile `{name}` changes a stage `{stage}` that does not exist");
            diagnostics.add(
                &entry.key,
                message,
                did_you_mean(stage, document.stages.keys().map(String::as_str)),
            );
        }
    }
    Some(overlay)
}

/// The paths in `over` whose table `known` has, and not them.
fn strangers<'a>(known: &Entries, over: &'a Entries, above: &str, found: &mut Vec<(String, &'a Entry)>) {
    for (key, entry) in over {
        let path = format!("{above}{key}");
        match (known.get(key).map(|entry| &entry.node.data), &entry.node.data) {
            (None, _) => found.push((path, entry)),
            (Some(Data::Table(known)), Data::Table(over)) => {
                strangers(known, over, &format!("{path}."), found)
            }
            (Some(_), _) => {}
        }
    }
}

/// Lays `over` over `document`.
pub(super) fn lay(document: &mut Document, over: Document) {
    merge(&mut document.params, over.params);
    for (name, entry) in over.stages {
        let Some(Entry { node: Node { data: Data::Table(stage), .. }, .. }) = document.stages.get_mut(&name)
        else {
            document.stages.insert(name, entry);
            continue;
        };
        let Data::Table(changes) = entry.node.data else { continue };
        // Another kind has other parameters: nothing of the old stage would fit.
        if changes.get("kind").is_some_and(|new| leaf(new) != stage.get("kind").and_then(leaf)) {
            *stage = changes;
            continue;
        }
        // A parameter that was an axis becomes one value, and the other way round.
        if let Some(Entry { node: Node { data: Data::Table(axes), .. }, .. }) = stage.get_mut("matrix") {
            axes.retain(|axis, _| RESERVED.contains(&axis.as_str()) || !changes.contains_key(axis));
        }
        if let Some(new) = sweep::matrix_of(&changes) {
            stage.retain(|key, _| RESERVED.contains(&key.as_str()) || !new.contains_key(key));
        }
        merge(stage, changes);
        if sweep::matrix_of(stage).is_some_and(Entries::is_empty) {
            stage.remove("matrix");
        }
    }
}

pub(super) fn leaf(entry: &Entry) -> Option<&Value> {
    if let Data::Leaf(value) = &entry.node.data { Some(value) } else { None }
}

/// The stage's matrix, made when it has none.
pub(super) fn axes(stage: &mut Entries) -> Result<&mut Entries, Refusal> {
    let entry =
        stage.entry("matrix".into()).or_insert_with(|| Entry { key: None, node: Node::empty_table() });
    match &mut entry.node.data {
        Data::Table(entries) => Ok(entries),
        Data::Leaf(_) | Data::List(_) => Err(("`matrix` is not a table".into(), None)),
    }
}

/// Tables merge key by key, everything else is replaced. Keys keep their place in the order.
fn merge(base: &mut Entries, over: Entries) {
    for (key, entry) in over {
        match base.get_mut(&key) {
            None => {
                base.insert(key, entry);
            }
            Some(old) => match (&mut old.node.data, entry.node.data) {
                (Data::Table(old), Data::Table(new)) => merge(old, new),
                (_, data) => old.node = Node { span: entry.node.span, data },
            },
        }
    }
}

/// Applies one `key=value`.
pub(super) fn set(
    document: &mut Document,
    setting: &str,
    kinds: &Kinds,
    facts: &Facts,
    diagnostics: &mut Diagnostics,
) {
    let mut fail = |message: String, hint: Option<String>| {
        diagnostics.add(&None, format!("`-S {setting}`: {message}"), hint);
    };
    let Some((key, text)) = setting.split_once('=') else {
        return fail("there is no `=`".into(), Some("write `-S key=value`".into()));
    };
    let value = match value(text.trim()) {
        Ok(value) => value,
        Err((message, hint)) => return fail(message, hint),
    };
    let path: Vec<&str> = key.split('.').map(str::trim).collect();
    let result = match path.as_slice() {
        ["stage", name, rest @ ..] => match document.stages.get_mut(*name) {
            Some(Entry { node: Node { data: Data::Table(stage), .. }, .. }) => {
                let dotted = rest.join(".");
                let rest = if is_nested(stage, rest, &dotted, facts) { &[dotted.as_str()][..] } else { rest };
                let behind = axis_behind(stage, rest, matches!(value, Value::Array(_)));
                let rest = behind.as_ref().map_or_else(|| rest.to_vec(), |axis| vec!["matrix", axis]);
                let axis = rest.last().copied().unwrap_or_default();
                let before = sweep::matrix_of(stage).and_then(|axes| axes.get(axis)).map(|a| a.node.clone());
                let stood = at(stage, rest.strip_prefix(&["matrix"]).unwrap_or(&rest));
                let param = stood.and_then(whole_reference).map(str::to_owned);
                set_stage(name, stage, &rest, value, kinds, facts).and_then(|()| {
                    sweep::pass_on(document, (name, axis), param.as_deref(), before.as_ref(), kinds, facts)
                })
            }
            _ => Err((
                format!("there is no stage `{name}`"),
                did_you_mean(name, document.stages.keys().map(String::as_str)),
            )),
        },
        ["params", rest @ ..] if !rest.is_empty() => set_param(document, rest, value, facts),
        rest => {
            let of_stage = of_stage(document, rest, facts);
            set_param(document, rest, value, facts).map_err(|(message, hint)| (message, of_stage.or(hint)))
        }
    };
    if let Err((message, hint)) = result {
        fail(message, hint);
    }
}

/// A way out where a setting of that name is a stage's, and not one of `[params]`.
fn of_stage(document: &Document, path: &[&str], facts: &Facts) -> Option<String> {
    if document.params.contains_key(path[0]) {
        return None;
    }
    if document.stages.contains_key(path[0]) && path.len() > 1 {
        return Some(format!("did you mean `stage.{}`?", path.join(".")));
    }
    let has = |(name, entry): &(&String, &Entry)| {
        let Data::Table(stage) = &entry.node.data else { return None };
        let kind = stage
            .get("kind")
            .and_then(|kind| Some(facts.get(leaf(kind)?.as_str()?)?.properties.contains_key(path[0])));
        (stage.contains_key(path[0]) || kind == Some(true)).then(|| (*name).clone())
    };
    let name = document.stages.iter().find_map(|stage| has(&stage))?;
    Some(format!("a parameter of a stage is set by its name: `stage.{name}.{}`", path.join(".")))
}

pub(super) type Refusal = (String, Option<String>);

fn set_param(document: &mut Document, path: &[&str], value: Value, facts: &Facts) -> Result<(), Refusal> {
    let Document { params, stages, .. } = &mut *document;
    let names = names(params);
    let unknown = || {
        let name = path.join(".");
        let hint = did_you_mean(&name, names.iter().map(String::as_str))
            .unwrap_or_else(|| "the file has no `[params]`; a stage's parameter is `stage.NAME.key`".into());
        (format!("`[params]` has no `{name}`"), Some(hint))
    };
    if path == [""] {
        return Err(("it names no parameter".into(), Some("write -S 'key=value'".into())));
    }
    let name = path.join(".");
    let node = find_mut(params, &name).ok_or_else(unknown)?;
    if let (Data::Table(_), Value::Table(new)) = (&node.data, &value) {
        // Each as by itself, so that none is new.
        return new.iter().try_for_each(|(key, value)| {
            let path: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            set_param(document, &path, value.clone(), facts)
        });
    }
    match (&mut node.data, Node::given(value)) {
        (Data::Table(_), _) => return Err((format!("`{name}` is a table"), None)),
        (Data::Leaf(_), new @ Node { data: Data::List(_), .. }) => {
            let hint = match sweep::settings(stages, &name, &new, facts) {
                Some(settings) => format!("sweep it where stages use it: `{settings}`"),
                None => "no stage takes it as it is; sweep a stage's own parameter: `-S stage.NAME.KEY=...`"
                    .into(),
            };
            return Err((format!("`{name}` is one value, not a list"), Some(hint)));
        }
        (Data::List(_), new) => *node = as_list(&name, new)?,
        (_, new) => *node = new,
    }
    Ok(())
}

/// Does a command make use of an axis?
fn used(stage: &Entries, axis: &str) -> bool {
    let variable = format!("AXIS_{}", variable(axis));
    let runs =
        |entry: &Entry| leaf(entry).and_then(Value::as_str).is_some_and(|text| text.contains(&variable));
    let mut parameters = parameters(stage);
    stage.contains_key(axis) || parameters.any(|(_, entry)| runs(entry) || mentions(&entry.node, axis))
}

/// A stage's entries that are its kind's.
pub(super) fn parameters(stage: &Entries) -> impl Iterator<Item = (&String, &Entry)> {
    stage.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str()))
}

/// The `values` of a command.
fn values(stage: &Entries) -> Option<&Entries> {
    if let Data::Table(entries) = &stage.get("values")?.node.data { Some(entries) } else { None }
}

/// What stands in a stage at a path.
fn at<'a>(stage: &'a Entries, path: &[&str]) -> Option<&'a Node> {
    let (first, rest) = path.split_first()?;
    let node = &stage.get(*first)?.node;
    match &node.data {
        _ if rest.is_empty() => Some(node),
        Data::Table(inner) => at(inner, rest),
        _ => None,
    }
}

/// Does a path into a stage name a parameter within a table of `[params]`, which the stage takes as `${table.key}`?
fn is_nested(stage: &Entries, path: &[&str], name: &str, facts: &Facts) -> bool {
    let [first, _, ..] = path else { return false };
    let kind = stage.get("kind").and_then(leaf).and_then(Value::as_str).unwrap_or_default();
    let own = RESERVED.contains(first)
        || stage.contains_key(*first)
        || facts.get(kind).is_none_or(|fact| !fact.closed || fact.properties.contains_key(*first));
    !own && parameters(stage).any(|(_, entry)| references(&entry.node).contains(&name))
}

/// The axis of a stage that a parameter of it, or a part of one, is by name: what is set is that axis. One that only a
/// variable would be named alike for (`RATE = "${rate}"`) is meant where there are `several` values, which need an axis.
fn axis_behind(stage: &Entries, path: &[&str], several: bool) -> Option<String> {
    let last = path.last().filter(|_| !RESERVED.contains(&path[0]))?;
    let name = whole_reference(at(stage, path)?)?;
    let is_meant = name == *last || (several && variable(name) == variable(last));
    (is_meant && sweep::matrix_of(stage)?.contains_key(name)).then(|| name.to_owned())
}

/// Refused: what only combinations that are written out whole have, or would lack.
fn check_included(name: &str, stage: &Entries, axis: &str) -> Result<(), Refusal> {
    let Some(axes) = sweep::matrix_of(stage) else { return Ok(()) };
    if sweep::included(axes).is_empty() || axes.contains_key(axis) {
        return Ok(());
    }
    let hint = if axes.keys().any(|axis| !["exclude", "include"].contains(&axis.as_str())) {
        format!("leave that out, `-S 'stage.{name}.matrix.include=[]'` before this, or change the file")
    } else {
        "change the file: give the matrix lists instead of `include`".to_owned()
    };
    Err((
        format!("the `include` of `{name}` writes its combinations out, and `{axis}` is no list beside it"),
        Some(hint),
    ))
}

fn set_stage(
    name: &str,
    stage: &mut Entries,
    path: &[&str],
    value: Value,
    kinds: &Kinds,
    facts: &Facts,
) -> Result<(), Refusal> {
    let node = Node::given(value);
    let whole = format!("stage.{name}.{}", path.join("."));
    match path {
        [] => return Err(("it names no parameter".into(), Some("write `stage.NAME.key=value`".into()))),
        [key] if !RESERVED.contains(key) => {
            let kind = stage.get("kind").and_then(leaf).and_then(Value::as_str).unwrap_or("");
            let is_list = matches!(node.data, Data::List(_));
            let fact = facts.get(kind);
            let takes_list = fact.is_none_or(|fact| fact.takes_list(key));
            // What it takes as `${key}`.
            let is_taken = fact.is_some_and(|fact| fact.closed && !fact.properties.contains_key(*key))
                && parameters(stage).any(|(_, entry)| mentions(&entry.node, key));
            let is_axis = sweep::matrix_of(stage).is_some_and(|axes| axes.contains_key(*key));
            let of_included =
                |node: &Node| matches!(&node.data, Data::Table(axes) if axes.contains_key(*key));
            if is_axis
                || is_taken
                || (is_list && !takes_list)
                || sweep::matrix_of(stage).is_some_and(|axes| sweep::included(axes).iter().any(of_included))
            {
                check_included(name, stage, key)?;
                if !is_axis && kinds.get(kind).is_some_and(|kind| kind.sees_axes()) && !used(stage, key) {
                    let mut taken = parameters(stage).flat_map(|(_, entry)| references(&entry.node));
                    let hint = match taken.find(|taken| taken.rsplit('.').next() == Some(key)) {
                        Some(taken) => format!("it uses `${{{taken}}}`: `-S 'stage.{name}.{taken}=...'`"),
                        None => format!(
                            "write `${{{key}}}` where it should count, or give the stage the axis in the file"
                        ),
                    };
                    return Err((format!("nothing of the stage is `{key}` or uses it"), Some(hint)));
                }
                if let Some(other) = sweep::beside(stage, key).filter(|_| is_taken && !is_axis) {
                    let hint = if within(other, key) {
                        format!("sweep that: `-S 'stage.{name}.{other}=...'`")
                    } else {
                        format!("write `${{{key}}}` there, and the like for what else it holds")
                    };
                    return Err((
                        format!("the stage uses `${{{other}}}`, which would keep its value"),
                        Some(hint),
                    ));
                }
                stage.remove(*key);
                put_axis(stage, key, as_list(&whole, node)?)?;
            } else if fact.is_some_and(|fact| fact.is_list(key)) {
                put(stage, key, as_list(&whole, node)?);
            } else {
                put(stage, key, node);
            }
        }
        ["matrix", axis] => {
            if !["exclude", "include"].contains(axis) {
                check_included(name, stage, axis)?;
            }
            stage.remove(*axis);
            put_axis(stage, axis, as_list(&whole, node)?)?;
        }
        ["values", key] if values(stage).is_none_or(|known| !known.contains_key(*key)) => {
            let known = values(stage).into_iter().flat_map(Entries::keys).map(String::as_str);
            let hint =
                did_you_mean(key, known).unwrap_or_else(|| format!("write `{key}` into the file first"));
            return Err((format!("the stage has no value `{key}`"), Some(hint)));
        }
        [between @ .., last] => {
            if !RESERVED.contains(&path[0]) && matches!(node.data, Data::List(_)) {
                check_included(name, stage, last)?;
            }
            let mut entries = &mut *stage;
            for key in between {
                let entry = entries
                    .entry((*key).to_owned())
                    .or_insert_with(|| Entry { key: None, node: Node::empty_table() });
                let Data::Table(inner) = &mut entry.node.data else {
                    return Err((format!("`{key}` is not a table"), None));
                };
                entries = inner;
            }
            // Several values for one make an axis of its name.
            let one =
                !RESERVED.contains(&path[0]) && entries.get(*last).is_some_and(|entry| leaf(entry).is_some());
            if one && matches!(node.data, Data::List(_)) {
                put(entries, last, Node::given(Value::String(format!("${{{last}}}"))));
                put_axis(stage, last, node)?;
            } else {
                put(entries, last, node);
            }
        }
    }
    Ok(())
}

/// An axis that is no longer the file's.
fn put_axis(stage: &mut Entries, axis: &str, node: Node) -> Result<(), Refusal> {
    axes(stage)?.insert(axis.to_owned(), Entry { key: None, node });
    Ok(())
}

pub(super) fn put(entries: &mut Entries, key: &str, node: Node) {
    match entries.get_mut(key) {
        Some(entry) => entry.node = node,
        None => {
            entries.insert(key.to_owned(), Entry { key: None, node });
        }
    }
}

pub(super) fn plain(node: Node) -> Value {
    match node.data {
        Data::Leaf(value) => value,
        Data::List(items) => Value::Array(items.into_iter().map(plain).collect()),
        Data::Table(entries) => Value::Table(entries.into_iter().map(|(k, e)| (k, plain(e.node))).collect()),
    }
}
