//! Kind `command`: any shell command with declared files, outputs and parameters. Knows nothing of
//! processes: the runner starts the shell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use engine::kind::{self, Job, Kind, ParamError, Params, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::params::{resolve, sound, stays_inside};

/// The kind `command`.
pub(crate) struct Command;

/// The most bytes of one argument that Linux takes, without the NUL at its end.
const LONGEST_COMMAND: usize = 128 * 1024 - 1;

/// Parameters of a `command` stage.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CommandParams {
    /// The shell command, given to `sh -ec` in the project's root: the first line that fails ends it.
    run: String,
    /// Files or folders that it must leave in the output folder.
    #[schemars(length(min = 1), inner(regex(pattern = "^[^/]")))]
    outputs: Vec<PathBuf>,
    /// Files and folders of the project that it reads.
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^[^/]")))]
    deps: Vec<PathBuf>,
    /// Parameters that the command reads as environment variables of the same name.
    #[serde(default)]
    values: BTreeMap<String, Scalar>,
    /// Further environment variables.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// A value that has one obvious spelling in an environment variable.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, a text or a truth value")]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"), // as in the name of an axis
            Self::Text(value) => value.clone(),
        }
    }
}

impl Kind for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn version(&self) -> u32 {
        3
    }

    fn roles(&self) -> Roles {
        Roles::Any
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        CommandParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (read, params) = resolve(given, &[]).map_err(explained)?;
        sound(faults(&read)).map(|()| params)
    }

    fn instead_of(&self, key: &str) -> Option<&'static str> {
        Some(match key {
            "cmd" | "shell" => "the command line is called `run`",
            "outs" | "output" => "what it makes is called `outputs`, and written to `$OUT`",
            "input" | "params" => {
                "files are called `deps`, results of stages `needs`, numbers and texts `values`"
            }
            "wdir" => "begin `run` with a `cd`",
            "foreach" => "combinations are called `matrix`",
            "frozen" | "always_changed" => {
                "name the stages to run: `repro run STAGE`, with `--force` once more"
            }
            "desc" => "write a comment: `# ...`",
            _ => return None,
        })
    }

    fn sees_axes(&self) -> bool {
        true
    }

    fn names_stages(&self) -> bool {
        true // the folders in `IN_ROLE` do
    }

    fn files(&self, params: &Params) -> Vec<PathBuf> {
        let deps = params.recipe.get("deps").and_then(toml::Value::as_array);
        deps.into_iter().flatten().filter_map(toml::Value::as_str).map(|path| plain(path.as_ref())).collect()
    }

    fn command(&self, params: &Params) -> Option<kind::Command> {
        let params = read(params)?;
        let mut env = params.env;
        env.extend(params.values.iter().map(|(name, value)| (name.clone(), value.text())));
        let outputs = params.outputs.iter().map(|path| plain(path)).collect();
        Some(kind::Command { run: params.run, env, outputs })
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let message = format!("`{}` is a shell command and cannot run inside the program", job.instance);
        Err(StageError::new(message).hint("this is a bug of the runner: it should start the shell itself"))
    }
}

fn read(params: &Params) -> Option<CommandParams> {
    CommandParams::deserialize(toml::Value::Table(params.recipe.clone())).ok()
}

/// With a way out where several lines are a list elsewhere.
fn explained(mut errors: Vec<ParamError>) -> Vec<ParamError> {
    for error in errors.iter_mut().filter(|error| error.key == "run") {
        error.hint = Some("write one text; several lines stand between `'''`".into());
    }
    errors
}

/// Everything that the types let through and that could not work.
fn faults(params: &CommandParams) -> Vec<ParamError> {
    let mut errors = Vec::new();
    let mut fault = |key: &str, message: String, hint: &str| {
        errors.push(ParamError { key: key.into(), message, hint: Some(hint.into()) });
    };
    if params.run.trim().is_empty() {
        fault("run", "the command is empty".into(), "write what `sh` should run");
    }
    if params.run.len() > LONGEST_COMMAND {
        let message = format!(
            "the command has {} bytes, of which the system takes {LONGEST_COMMAND}",
            params.run.len()
        );
        fault("run", message, "put it into a script, name that in `deps`, and run it here");
    }
    if params.run.contains('\0') {
        fault("run", "the command has a NUL in its text".into(), "no process can be given that");
    }
    if params.outputs.is_empty() {
        fault("outputs", "the command has no outputs".into(), "name at least one file that it writes");
    }
    for (key, paths) in [("outputs", &params.outputs), ("deps", &params.deps)] {
        for path in paths {
            if !stays_inside(path) {
                let message = format!("`{}` leaves its folder", path.display());
                fault(key, message, "write a relative path without `..`");
            } else if path.as_os_str().as_encoded_bytes().contains(&0) {
                fault(key, format!("`{}` has a NUL in its name", path.display()), "no file can be named so");
            } else if plain(path).as_os_str().is_empty() {
                let message = format!("`{}` is the whole folder", path.display());
                fault(key, message, "name the files and folders in it; of the project, results are part too");
            }
        }
    }
    let outputs = params.outputs.iter().filter(|path| stays_inside(path)).map(|path| plain(path));
    let outputs: BTreeSet<_> = outputs.filter(|path| !path.as_os_str().is_empty()).collect();
    for path in &outputs {
        if let Some(folder) = path.ancestors().skip(1).find(|folder| outputs.contains(*folder)) {
            let message =
                format!("`{}` is in `{}`, which is an output too", path.display(), folder.display());
            fault("outputs", message, "name the folder alone, or only files in it");
        }
    }
    for (key, name) in
        params.env.keys().map(|name| ("env", name)).chain(params.values.keys().map(|name| ("values", name)))
    {
        if !is_variable(name) {
            let message = format!("`{name}` cannot be an environment variable");
            fault(key, message, "use letters, digits and `_`, not beginning with a digit");
        } else if ["OUT", "SCRATCH", "THREADS"].contains(&name.as_str())
            || ["IN_", "AXIS_"].iter().any(|prefix| name.starts_with(prefix))
        {
            fault(key, format!("`{name}` is set by the runner"), "choose another name");
        }
    }
    let env = params.env.iter().filter(|(_, text)| text.contains('\0')).map(|(name, _)| ("env", name));
    let values = params.values.iter().filter(|(_, value)| value.text().contains('\0'));
    for (key, name) in env.chain(values.map(|(name, _)| ("values", name))) {
        let hint = "the environment of a process cannot hold that";
        fault(key, format!("`{name}` has a NUL in its text"), hint);
    }
    for name in params.values.keys().filter(|name| params.env.contains_key(*name)) {
        fault("env", format!("`{name}` is in `values` too"), "keep it in one of them");
    }
    errors
}

/// `x` for `./x`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    #[test]
    fn values_and_env_become_variables_and_deps_become_files() {
        let params = Command
            .resolve(&given(
                "run = 'x'\noutputs = ['./o']\ndeps = ['./src/./x.py']\nvalues = { RATE = 1e-1, N = 3, ON = true, X = 1.0, Y = 1e-5 }\nenv = { LANG = 'C' }",
            ))
            .unwrap();
        let command = Command.command(&params).unwrap();
        let env: Vec<_> = command.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["LANG=C", "N=3", "ON=true", "RATE=0.1", "X=1.0", "Y=1e-5"]);
        assert_eq!(command.outputs, [PathBuf::from("o")]);
        assert_eq!(Command.files(&params), [PathBuf::from("src/x.py")]);
    }

    #[test]
    fn every_parameter_that_could_not_work_is_named() {
        let text =
            "run = ' '\noutputs = ['../o', '/o', '.']\nvalues = { 'a-b' = 1, X = 1 }\nenv = { X = '2' }";
        let errors = Command.resolve(&given(text)).unwrap_err();
        let keys: Vec<_> = errors.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["run", "outputs", "outputs", "outputs", "values", "env"]);
        let errors = Command.resolve(&given("run = 'x'\noutputs = ['o']\nvalues = { X = 1, Y = [2] }"));
        assert!(errors.unwrap_err()[0].message.starts_with("`values.Y`: expected a number"));
        let long =
            format!("run = \"# {}\"\noutputs = ['o', './o/p']\ndeps = [\"a\\u0000\"]", "x".repeat(1 << 17));
        let errors = Command.resolve(&given(&long)).unwrap_err();
        let messages: Vec<_> = errors.iter().map(|e| e.message.as_str()).collect();
        assert!(
            matches!(messages[..], [run, deps, nested]
                if run.contains("131071") && deps.contains("NUL") && nested.contains("is in `o`")),
            "{messages:?}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let errors = Command.resolve(&given("run = 'x'\noutputs = ['o']\noutput = 'p'")).unwrap_err();
        assert!(errors[0].message.contains("output"), "{:?}", errors[0]);
    }
}
