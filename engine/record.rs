//! What a finished instance left behind, and how it came about. Knows no kind of stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::{digest::Digest, machine::Machine, store::Output};

/// Written last: from then on the result exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The recipe's text.
    pub recipe: String,
    /// The files, sorted by path.
    pub outputs: Vec<Output>,
    /// Digest of all the files together: what others' recipes say of this input.
    pub tree: Digest,
    /// The instance that ran, and how; never hashed.
    pub run: Facts,
}

impl Record {
    /// What it means, if its recipe has come to another result now.
    pub(crate) fn unlike(&self, tree: Digest, run: &Facts) -> Option<&'static str> {
        let why = if self.run.settings == run.settings {
            "the stage is not reproducible"
        } else {
            "settings that are in no recipe (such as its engine) were others then"
        };
        (self.tree != tree).then_some(why)
    }

    /// Could a stage have left these outputs, and are they what their common digest says?
    pub(crate) fn is_sound(&self) -> bool {
        are_sound(&self.outputs) && Output::tree(&self.outputs) == self.tree
    }
}

/// Are these, as [`Store::keep`](crate::store::Store::keep) sorts them, files and empty folders that can lie in one folder
/// and nowhere else? Whoever can write to a folder that clones share says what they are.
pub(crate) fn are_sound(outputs: &[Output]) -> bool {
    const LONGEST: usize = 255;
    // No system opens longer paths.
    const DEEPEST: usize = 4096;
    let bare = |output: &Output| output.path.strip_suffix('/').unwrap_or(&output.path).to_owned();
    let places: BTreeSet<String> = outputs.iter().map(bare).collect();
    let sound = |path: &String| {
        let plain =
            |name: &str| !["", ".", ".."].contains(&name) && name.len() <= LONGEST && !name.contains('\0');
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        path.len() <= DEEPEST
            && path.split('/').all(plain)
            && !above.into_iter().any(|folder| places.contains(folder))
    };
    !outputs.is_empty()
        && places.len() == outputs.len()
        && outputs.is_sorted_by(|a, b| a.path < b.path)
        && places.iter().all(sound)
}

/// How a result came about. Never hashed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Which instance ran.
    pub instance: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// What it ran on.
    pub machine: Machine,
    /// What started it, if not the runner itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// What it occupied.
    pub threads: usize,
    /// The GPUs it was handed.
    pub gpus: Vec<String>,
    /// Its settings: parameters that are not in the recipe.
    pub settings: BTreeMap<String, Value>,
    /// What the stage itself noted: engine, speed, seed, ...
    pub notes: BTreeMap<String, Value>,
}

/// A value as JSON can hold it: numbers that are not finite become their names.
pub fn recordable(value: Value) -> Value {
    match value {
        Value::Float(number) if !number.is_finite() => Value::String(number.to_string()),
        Value::Datetime(when) => Value::String(when.to_string()),
        Value::Array(values) => Value::Array(values.into_iter().map(recordable).collect()),
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(key, value)| (key, recordable(value))).collect())
        }
        plain => plain,
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_to_blame_for_other_bytes_only_where_its_settings_are_the_same() {
        let (recipe, outputs, tree) = (String::new(), Vec::new(), Digest::of("a"));
        let old = Record { recipe, outputs, tree, run: Facts::default() };
        let set = Facts { settings: [("engine".to_owned(), "reference".into())].into(), ..Facts::default() };
        assert_eq!(old.unlike(Digest::of("a"), &set), None);
        assert!(
            old.unlike(Digest::of("b"), &Facts::default())
                .is_some_and(|why| why.contains("not reproducible"))
        );
        assert!(old.unlike(Digest::of("b"), &set).is_some_and(|why| why.starts_with("settings ")));
    }
}
