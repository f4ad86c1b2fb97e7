//! What a finished instance left behind, and how it came about. Knows the machine, not the stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::{digest::Digest, process::output, store::Output};

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
    /// Could a stage have left these outputs, and are they what their common digest says?
    pub(crate) fn is_sound(&self) -> bool {
        are_sound(&self.outputs) && Output::tree(&self.outputs) == self.tree
    }
}

/// Are these, as [`Store::keep`](crate::store::Store::keep) sorts them, files and empty folders that can lie in one folder
/// and nowhere else? Whoever can write to a folder that clones share says what they are.
pub(crate) fn are_sound(outputs: &[Output]) -> bool {
    const LONGEST: usize = 255;
    // What lies deeper could not be copied to a place below a long one.
    const DEEPEST: usize = 1024;
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

/// The machine and the program, looked at once per run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Versions of the program and of what it is built from.
    pub versions: BTreeMap<String, String>,
    /// The commit of the project's repository, if it is one.
    pub commit: Option<String>,
    /// Did the tree differ from that commit?
    pub dirty: Option<bool>,
    /// The operating system's name and version.
    pub system: Option<String>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Architecture and vector instruction sets found.
    pub instructions: String,
    /// The NVIDIA driver, if there is one.
    pub driver: Option<String>,
    /// The NVIDIA GPUs, in the driver's order.
    pub devices: Vec<String>,
}

impl Machine {
    /// Looks around, for a project in `root`; `versions` is what the program says of itself.
    pub(crate) fn look(root: &Path, versions: &BTreeMap<String, String>) -> Self {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("--no-optional-locks").arg("-C").arg(root).args(arguments);
            let output = output(&mut git).ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let mut versions = versions.clone();
        versions.insert(env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self {
            versions,
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|text| !text.is_empty()),
            ..Self::here()
        }
    }

    /// The hardware and the system alone.
    pub(crate) fn here() -> Self {
        Self {
            system: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|release| format!("{} {}", std::env::consts::OS, release.trim())),
            cpu: field("/proc/cpuinfo".as_ref(), "model name"),
            instructions: instructions(),
            driver: field("/proc/driver/nvidia/version".as_ref(), "NVRM version"),
            devices: devices("/proc/driver/nvidia/gpus".as_ref()),
            ..Self::default()
        }
    }

    /// What the runner knows of itself and its project, with the hardware that another process said it runs on.
    pub(crate) fn there(&self, hardware: Self) -> Self {
        let Self { versions, commit, dirty, .. } = self.clone();
        Self { versions, commit, dirty, ..hardware }
    }
}

/// The value of the first line of a file that begins with `name`.
fn field(path: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
}

fn devices(folder: &Path) -> Vec<String> {
    let mut folders: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    folders.sort_by_key(fs::DirEntry::file_name);
    folders.iter().filter_map(|gpu| field(&gpu.path().join("information"), "Model")).collect()
}

/// A value as JSON can hold it: numbers that are not finite become their names.
pub(crate) fn recordable(value: Value) -> Value {
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

fn instructions() -> String {
    #[allow(unused_mut, reason = "other architectures add nothing")]
    let mut names = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    for (name, found) in [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ] {
        if found {
            names.push(name);
        }
    }
    names.join(" ")
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
