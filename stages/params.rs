//! From the table in the pipeline file to complete parameters, for every kind alike. Knows no
//! kind: the parameters' own type says which keys there are and what they default to.

use std::path::{Component, Path};

use engine::kind::{ParamError, Params};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Checks `given` against `T` and writes every default out. The keys in `settings` only say where and how fast the stage
/// runs; all others decide the result.
pub(crate) fn resolve<T: Serialize + DeserializeOwned + JsonSchema>(
    given: &Table,
    settings: &[&str],
) -> Result<(T, Params), Vec<ParamError>> {
    let complete = complete::<T>(given);
    // Thousands of instances may be read: only where something may be wrong is the schema asked.
    let all_taken = complete.as_ref().is_ok_and(|(_, table)| given.keys().all(|key| table.contains_key(key)));
    let errors = if all_taken { Vec::new() } else { faults::<T>(given) };
    match complete {
        Ok((read, mut recipe)) if errors.is_empty() => {
            let settings = settings.iter().filter_map(|key| recipe.remove_entry(*key)).collect();
            Ok((read, Params { recipe, settings }))
        }
        Err(message) if errors.is_empty() => {
            Err(vec![ParamError { key: String::new(), message, hint: None }])
        }
        _ => Err(errors),
    }
}

/// The same, for kinds that know of faults which the type lets through.
pub(crate) fn checked<T: Serialize + DeserializeOwned + JsonSchema>(
    given: &Table,
    settings: &[&str],
    faults: impl FnOnce(&T) -> Vec<ParamError>,
) -> Result<Params, Vec<ParamError>> {
    let (read, params) = resolve::<T>(given, settings)?;
    sound(faults(&read)).map(|()| params)
}

/// An error where there are any.
pub(crate) fn sound(faults: Vec<ParamError>) -> Result<(), Vec<ParamError>> {
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn complete<T: Serialize + DeserializeOwned>(given: &Table) -> Result<(T, Table), String> {
    let read = read::<T>(given.clone()).map_err(|(message, _)| message)?;
    let table = Table::try_from(&read).map_err(|e| e.to_string())?;
    Ok((read, table))
}

/// What is wrong with `given`, key by key.
fn faults<T: DeserializeOwned + JsonSchema>(given: &Table) -> Vec<ParamError> {
    let known = keys::<T>();
    let mut errors = Vec::new();
    for (key, value) in given {
        if !known.contains(key) {
            errors.push(ParamError {
                key: key.clone(),
                message: format!("there is no parameter `{key}`"),
                hint: Some(format!("the parameters are {}", listed(&known))),
            });
            continue;
        }
        // Alone in a table, a key is the only one that can be of the wrong type, so that every
        // wrong one is named; what this table lacks is judged below, with all of them.
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        if let Err((message, place)) = read::<T>(alone)
            && !message.starts_with("missing field")
        {
            // Of a table, which of its keys.
            let message = match place.filter(|place| place != key) {
                Some(place) => format!("`{place}`: {message}"),
                None => message,
            };
            errors.push(ParamError { key: key.clone(), message, hint: None });
        }
    }
    errors
}

/// An error is a message and, where the library says that, the key that it is about, with those around it.
fn read<T: DeserializeOwned>(table: Table) -> Result<T, (String, Option<String>)> {
    T::deserialize(Value::Table(table)).map_err(|error| {
        let text = error.to_string();
        let mut lines = text.lines();
        let message = plain(lines.next().unwrap_or_default());
        (
            message,
            lines.next().and_then(|line| Some(line.strip_prefix("in `")?.strip_suffix('`')?.to_owned())),
        )
    })
}

/// A message of the library without the names of Rust's types.
fn plain(message: &str) -> String {
    let words = [
        ("expected usize", "expected a whole number from 0 on"),
        ("expected u64", "expected a whole number from 0 on"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected path string", "expected a path"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list: `[...]`"),
        ("expected a map", "expected a table: `{ ... }`"),
        ("floating point `", "`"),
    ];
    words.iter().fold(message.to_owned(), |message, (rust, plain)| message.replace(rust, plain))
}

/// Is it a path below the folder that it begins in?
pub(crate) fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn keys<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    match schema.get("properties") {
        Some(serde_json::Value::Object(properties)) => properties.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        rate: f64,
        #[serde(default)]
        epochs: u32,
        #[serde(default)]
        device: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    }

    fn given(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn defaults_are_written_out_and_settings_kept_apart() {
        let (_, params) = resolve::<Toy>(&given("rate = 0.1\ndevice = \"cpu\""), &["device"]).unwrap();
        assert_eq!(params.recipe, given("epochs = 0\nrate = 0.1"));
        assert_eq!(params.settings, given("device = \"cpu\""));
    }

    #[test]
    fn an_unknown_key_and_a_wrong_type_are_both_named() {
        let errors = resolve::<Toy>(&given("epoch = 3\nepochs = \"three\""), &[]).err().unwrap();
        assert_eq!(errors.len(), 2);
        assert_eq!(errors[0].key, "epoch");
        let hint = errors[0].hint.as_deref().unwrap();
        assert_eq!(hint, "the parameters are `device`, `epochs`, `limit`, `rate`");
        assert_eq!(errors[1].key, "epochs");
        let told = "invalid type: string \"three\", expected a whole number from 0 to 4294967295";
        assert_eq!(errors[1].message, told);
    }

    #[test]
    fn a_missing_parameter_is_named() {
        let errors = resolve::<Toy>(&given("epochs = 3"), &[]).err().unwrap();
        assert!(errors[0].message.contains("missing field `rate`"), "{}", errors[0].message);
    }
}
