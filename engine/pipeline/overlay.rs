//! What is laid over a file: a profile's tables, and the `key=value` settings of the command
//! line. Knows which parameters a kind takes, not what they mean.

use toml::{Value, de::DeValue};

use super::{
    Diagnostics,
    hint::did_you_mean,
    params::{find_mut, mentions, names},
    parse::{Data, Document, Entries, Entry, Node, convert, table},
    schema::Facts,
    sweep,
};
use crate::{instance::variable, kind::Kinds};

/// The keys of a stage that are not its kind's parameters.
pub(super) const RESERVED: [&str; 4] = ["kind", "matrix", "needs", "resources"];

/// Lists in one another that a setting may spell with bare words.
const DEEPEST: usize = 100;

/// Longest range that a setting may spell.
const LONGEST: i64 = 100_000;

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
                let behind = axis_behind(stage, rest, matches!(value, Value::Array(_)));
                let rest = behind.as_ref().map_or_else(|| rest.to_vec(), |axis| vec!["matrix", axis]);
                let axis = rest.last().copied().unwrap_or_default();
                let before = sweep::matrix_of(stage).and_then(|axes| axes.get(axis)).map(|a| a.node.clone());
                set_stage(name, stage, &rest, value, kinds, facts)
                    .and_then(|()| sweep::pass_on(document, (name, axis), before.as_ref(), kinds, facts))
            }
            _ => Err((
                format!("there is no stage `{name}`"),
                did_you_mean(name, document.stages.keys().map(String::as_str)),
            )),
        },
        ["params", rest @ ..] if !rest.is_empty() => set_param(&mut document.params, rest, value),
        rest => {
            let of_stage = of_stage(document, rest, facts);
            set_param(&mut document.params, rest, value)
                .map_err(|(message, hint)| (message, of_stage.or(hint)))
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

fn set_param(params: &mut Entries, path: &[&str], value: Value) -> Result<(), Refusal> {
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
    let node = find_mut(params, &path.join(".")).ok_or_else(unknown)?;
    if let (Data::Table(_), Value::Table(new)) = (&node.data, &value) {
        // Each as by itself, so that none is new.
        return new.iter().try_for_each(|(key, value)| {
            let path: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            set_param(params, &path, value.clone())
        });
    }
    match (&mut node.data, Node::given(value)) {
        (Data::Table(_), _) => return Err((format!("`{}` is a table", path.join(".")), None)),
        (Data::Leaf(_), Node { data: Data::List(_), .. }) => {
            let hint = format!("sweep a stage's parameter: `-S stage.NAME.{}=...`", path[path.len() - 1]);
            return Err((format!("`{}` is one value, not a list", path.join(".")), Some(hint)));
        }
        (Data::List(_), new) => *node = as_list(new),
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

/// One value where a list is asked for is a list of one. What a reference stands for may be a list itself.
fn as_list(node: Node) -> Node {
    match &node.data {
        Data::List(_) => node,
        Data::Leaf(Value::String(text)) if text.starts_with("${") && text.ends_with('}') => node,
        _ => Node { span: None, data: Data::List(vec![node]) },
    }
}

/// The axis of a stage that a parameter of it, or a part of one, is by name: what is set is that axis. One that only a
/// variable would be named alike for (`RATE = "${rate}"`) is meant where there are `several` values, which need an axis.
fn axis_behind(stage: &Entries, path: &[&str], several: bool) -> Option<String> {
    let [between @ .., last] = path else { return None };
    if RESERVED.contains(&path[0]) {
        return None;
    }
    let mut entries = stage;
    for key in between {
        let Data::Table(inner) = &entries.get(*key)?.node.data else { return None };
        entries = inner;
    }
    let name = leaf(entries.get(*last)?)?.as_str()?.strip_prefix("${")?.strip_suffix('}')?;
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
                    let hint = format!(
                        "write `${{{key}}}` where it should count, or give the stage the axis in the file"
                    );
                    return Err((format!("nothing of the stage is `{key}` or uses it"), Some(hint)));
                }
                stage.remove(*key);
                put_axis(stage, key, as_list(node))?;
            } else if fact.is_some_and(|fact| fact.is_list(key)) {
                put(stage, key, as_list(node));
            } else {
                put(stage, key, node);
            }
        }
        ["matrix", axis] => {
            if !["exclude", "include"].contains(axis) {
                check_included(name, stage, axis)?;
            }
            stage.remove(*axis);
            put_axis(stage, axis, as_list(node))?;
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

/// The value after `=`: a range, TOML, a list of bare words, or a bare word.
fn value(text: &str) -> Result<Value, Refusal> {
    let quote = || Some("quote it for the shell: -S 'key=value'".to_owned());
    let refused = |message| Err((message, quote()));
    if let Some(range) = range(text) {
        return range;
    }
    if let Ok(parsed) = DeValue::parse(text) {
        let mut problems = Diagnostics::default();
        let node = convert(parsed.get_ref(), None, &mut problems);
        return match problems.list.pop() {
            Some(problem) => Err((problem.message, problem.hint.or_else(quote))),
            None => Ok(plain(node)),
        };
    }
    if text.matches('[').count() > DEEPEST {
        return refused(format!("it nests more than {DEEPEST} lists"));
    }
    if let Some(items) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return items.split(',').map(|item| value(item.trim())).collect::<Result<_, _>>().map(Value::Array);
    }
    if text.starts_with(['[', '{', '"', '\'']) {
        return refused(format!("`{text}` is not a TOML value"));
    }
    if text.contains(',') && text.split(',').all(|item| item.trim().parse::<f64>().is_ok()) {
        let hint = format!("a list of values is `[{text}]`, a text `\"{text}\"`, both quoted for the shell");
        return Err((format!("`{text}` is no single value"), Some(hint)));
    }
    Ok(Value::String(text.to_owned()))
}

pub(super) fn plain(node: Node) -> Value {
    match node.data {
        Data::Leaf(value) => value,
        Data::List(items) => Value::Array(items.into_iter().map(plain).collect()),
        Data::Table(entries) => Value::Table(entries.into_iter().map(|(k, e)| (k, plain(e.node))).collect()),
    }
}

/// `0..5` without its end, `0..=5` with it.
fn range(text: &str) -> Option<Result<Value, Refusal>> {
    let (start, end) = text.split_once("..")?;
    let (end, with_end) = end.strip_prefix('=').map_or((end, false), |last| (last, true));
    let [start, end] = [start.trim(), end.trim()];
    let refused = |why: &str| {
        let hint = "a range is `FIRST..END` without its end, or `FIRST..=LAST`".into();
        Some(Err((format!("the range `{text}` {why}"), Some(hint))))
    };
    let (Ok(start), Ok(end)) = (start.parse::<i64>(), end.parse::<i64>()) else {
        let numbers = [start, end].iter().all(|bound| bound.parse::<f64>().is_ok());
        return if numbers { refused("is not one of whole numbers") } else { None };
    };
    let end = if with_end { end.saturating_add(1) } else { end };
    if end <= start || end.checked_sub(start).is_none_or(|n| n > LONGEST) {
        return refused(&format!("is empty or longer than {LONGEST}"));
    }
    Some(Ok(Value::Array((start..end).map(Value::Integer).collect())))
}
