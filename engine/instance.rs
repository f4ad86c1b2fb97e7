//! The expanded pipeline: plain data between the reader of `pipeline.toml` and the runner. Knows
//! no syntax and no files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use toml::Value;

use crate::{
    kind::{Kind, Params},
    recipe::value_text,
};

/// Index into [`Pipeline::instances`].
pub type InstanceId = usize;

/// A pipeline, expanded and checked: every need resolved, no cycles.
pub struct Pipeline {
    /// The folder that holds `.repro/` and `artifacts/`.
    pub root: PathBuf,
    /// Path of the pipeline file; its lock file lies beside it.
    pub file: PathBuf,
    /// The profile that was chosen, if any.
    pub profile: Option<String>,
    /// All that the file has.
    pub profiles: BTreeSet<String>,
    /// Were values set on the command line? Then instances may be absent that the file has.
    pub set: bool,
    /// Stages that have axes on the command line and none in the file.
    pub swept: BTreeSet<String>,
    /// Where this pipeline's results are shown, below `artifacts/`: empty for `pipeline.toml`
    /// without a profile, `quick` for its quick profile, `experiments/depth/quick` for that of `experiments/depth.toml`.
    pub namespace: PathBuf,
    /// The instances; each one's needs come before it, otherwise in order of the file and the
    /// matrix.
    pub instances: Vec<Instance>,
}

impl Pipeline {
    /// Where its lock file lies.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join(&self.file).with_extension("lock")
    }
}

/// One stage at one combination of its matrix.
pub struct Instance {
    /// `train[arch=resnet32,mode=bn,seed=0]`, axes sorted; the bare stage name without a matrix.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// Axis -> value.
    pub axes: BTreeMap<String, Value>,
    /// What it does.
    pub kind: Arc<dyn Kind>,
    /// Its parameters, complete.
    pub params: Params,
    /// What it reads, sorted by role, then by instance name.
    pub needs: Vec<Need>,
    /// What it occupies while it runs.
    pub resources: Resources,
}

impl Instance {
    /// The name that it and those have in common that differ from it in these axes alone.
    pub fn name_without(&self, axes: &[String]) -> String {
        name_of(&self.stage, self.axes.iter().filter(|(axis, _)| !axes.contains(axis)))
    }
}

/// How a value shows in an instance's name, and wherever else an instance is named.
pub(crate) fn show(value: &Value) -> String {
    value.as_str().map_or_else(|| value_text(value), str::to_owned)
}

/// Axes with their values, as they show in names: `arch=resnet32,seed=0`.
pub(crate) fn pairs<'a>(axes: impl IntoIterator<Item = (&'a String, &'a Value)>) -> String {
    let mut pairs = String::new();
    for (axis, value) in axes {
        if !pairs.is_empty() {
            pairs.push(',');
        }
        pairs.push_str(axis);
        pairs.push('=');
        pairs.push_str(&show(value));
    }
    pairs
}

/// The name of a stage's instance.
pub(crate) fn name_of<'a>(stage: &str, axes: impl IntoIterator<Item = (&'a String, &'a Value)>) -> String {
    let pairs = pairs(axes);
    if pairs.is_empty() { stage.to_owned() } else { format!("{stage}[{pairs}]") }
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// What the input is to the stage, e.g. `data`.
    pub role: String,
    /// Where it comes from.
    pub from: InstanceId,
}

/// What an instance occupies while it runs; never part of its recipe.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPU threads; 0 means one, and more where the stage makes use of them and nothing else could.
    pub threads: usize,
    /// GPUs, handed out as ids through `CUDA_VISIBLE_DEVICES`.
    pub gpus: usize,
    /// Memory in bytes; 0 means not counted.
    pub memory: u64,
}

/// A name as part of an environment variable.
pub fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
