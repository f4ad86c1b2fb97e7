//! How a setting of the command line spells its value. Knows no pipeline.

use toml::{Value, de::DeValue};

use super::{
    Diagnostics,
    overlay::{Refusal, plain},
    params::whole_reference,
    parse::{Data, Node, convert},
};

/// Lists in one another that a setting may spell with bare words.
const DEEPEST: usize = 100;

/// Longest range that a setting may spell.
const LONGEST: i64 = 100_000;

/// The value after `=`: a range, TOML, a list of bare words, or a bare word.
pub(super) fn value(text: &str) -> Result<Value, Refusal> {
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

/// One value where a list is asked for is a list of one. What a reference stands for may be a list itself.
pub(super) fn as_list(key: &str, node: Node) -> Result<Node, Refusal> {
    match &node.data {
        Data::List(_) => Ok(node),
        _ if whole_reference(&node).is_some() => Ok(node),
        Data::Leaf(Value::String(text)) if text.contains(',') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items = items.map(|item| value(item).unwrap_or_else(|_| item.into())).collect();
            let (several, one) = (Value::Array(items), Value::Array(vec![text.as_str().into()]));
            let hint =
                format!("several are `-S '{key}={several}'`, a single one with a comma `-S '{key}={one}'`");
            Err((format!("`{text}` is one text, not a list of values"), Some(hint)))
        }
        _ => Ok(Node { span: None, data: Data::List(vec![node]) }),
    }
}
