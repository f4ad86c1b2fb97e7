//! What a finished instance left behind, and how it came about. Knows the machine, not the stage.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::SystemTime};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::{digest::Digest, store::Output};

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
    /// Version of the runner.
    pub version: String,
    /// The commit of the project's repository, if it is one.
    pub commit: Option<String>,
    /// Did the tree differ from that commit?
    pub dirty: Option<bool>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Architecture and vector instruction sets found.
    pub instructions: String,
    /// The NVIDIA driver, if there is one.
    pub driver: Option<String>,
}

impl Machine {
    /// Looks around, for a project in `root`.
    pub(crate) fn look(root: &Path) -> Self {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let first_line = |path: &str, prefix: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(prefix))?;
            Some(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|text| !text.is_empty()),
            cpu: first_line("/proc/cpuinfo", "model name"),
            instructions: instructions(),
            driver: first_line("/proc/driver/nvidia/version", "NVRM version"),
        }
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
