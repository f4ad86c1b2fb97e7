//! Names on the command line to instances. Knows no files.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::hint::{choices, did_you_mean};
use crate::instance::{InstanceId, Pipeline, show};

/// The instances that `name` means: an instance's full name, a stage, or a stage with some of its
/// axes, `train[mode=bn]`, in any order.
///
/// # Errors
/// When it means none: a sentence that says which part of it is not there, and what is.
pub fn select(pipeline: &Pipeline, name: &str) -> Result<Vec<InstanceId>, String> {
    let name = name.trim();
    if let Some(id) = pipeline.instances.iter().position(|instance| instance.name == name) {
        return Ok(vec![id]);
    }
    let (stage, rest) = match name.split_once('[') {
        None => (name, ""),
        Some((stage, rest)) => {
            let inner = rest.strip_suffix(']').ok_or_else(|| format!("`{name}` has no closing `]`"))?;
            (stage.trim(), inner)
        }
    };
    let of_stage: Vec<InstanceId> =
        (0..pipeline.instances.len()).filter(|&id| pipeline.instances[id].stage == stage).collect();
    let hinted = |message: String, hint: Option<String>| match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    };
    let Some(&first) = of_stage.first() else {
        let stages: BTreeSet<&str> = pipeline.instances.iter().map(|i| i.stage.as_str()).collect();
        let setting = stage.contains('=').then(|| format!("`-S '{name}'` sets a value"));
        let profile = pipeline.profiles.contains(stage).then(|| format!("`--profile {stage}` is there"));
        let setting = setting.or(profile);
        return Err(hinted(
            format!("there is no stage `{stage}`"),
            setting.or_else(|| did_you_mean(stage, stages)),
        ));
    };
    let mut wanted = BTreeMap::new();
    for pair in rest.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((axis, value)) = pair.split_once('=') else {
            return Err(format!("`{pair}` in `{name}` should be `axis=value`"));
        };
        let (axis, value) = (axis.trim(), value.trim());
        let axes = &pipeline.instances[first].axes;
        if !axes.contains_key(axis) {
            let hint = did_you_mean(axis, axes.keys().map(String::as_str));
            return Err(hinted(format!("the stage `{stage}` has no axis `{axis}`"), hint));
        }
        let values: BTreeSet<String> =
            of_stage.iter().filter_map(|&id| pipeline.instances[id].axes.get(axis)).map(show).collect();
        // A number may be spelt otherwise than names do: `0.00001` is `1e-5` there.
        let number = || {
            let number = show(&Value::Float(value.parse().ok()?));
            values.contains(&number).then_some(number)
        };
        let value = if values.contains(value) { None } else { number() }.unwrap_or_else(|| value.to_owned());
        if !values.contains(&value) {
            // No number is meant by another one that is written nearly alike.
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let is_number = value.parse::<f64>().is_ok();
            let hint = if is_number { choices(&values) } else { did_you_mean(&value, values) };
            return Err(hinted(format!("the axis `{axis}` of `{stage}` has no value `{value}`"), hint));
        }
        if wanted.insert(axis, value).is_some() {
            return Err(format!(
                "`{name}` has two values of the axis `{axis}`; give a name for each, `{stage}[{axis}=...]`"
            ));
        }
    }
    let fits = |id: &InstanceId| {
        let axes = &pipeline.instances[*id].axes;
        wanted.iter().all(|(axis, value)| axes.get(*axis).is_some_and(|v| show(v) == *value))
    };
    let found: Vec<InstanceId> = of_stage.into_iter().filter(fits).collect();
    if found.is_empty() {
        return Err(format!("no instance of `{stage}` has all of [{rest}]; the matrix leaves them out"));
    }
    Ok(found)
}
