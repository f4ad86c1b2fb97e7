//! The inputs of a job, read: `metrics.json`, `gamma.json` and `features.json` of evaluations,
//! `history.csv` of trainings, `model.json`, `memory.json`. Knows no meaning of their numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use engine::kind::{Input, Job, StageError};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Apart, Line, Network, Repeated,
    history::{History, rows},
    telling::{Telling, repeated, stage_of, telling_axes},
};

/// The axes of an instance, with their values.
pub(crate) type Axes = BTreeMap<String, toml::Value>;

/// What a file says of whom it is about.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Subject {
    arch: Option<String>,
    mode: Option<String>,
    k: Option<u64>,
    /// `paper` or `origin`.
    #[serde(default)]
    pub(crate) variant: String,
}

/// `metrics.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metrics {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// Fraction of the test images.
    pub(crate) top1: f64,
    /// Optimisation steps.
    #[serde(default)]
    pub(crate) steps: u64,
    /// Of the initial weights.
    pub(crate) seed: Option<u64>,
    /// Test images.
    #[serde(default)]
    pub(crate) examples: u64,
    #[serde(default)]
    pub(crate) classes: Vec<String>,
    /// Values that trained.
    pub(crate) trained: Option<u64>,
    pub(crate) parameters: Option<u64>,
    pub(crate) checkpoint_bytes: Option<u64>,
    pub(crate) weights_bytes: Option<u64>,
}

/// Shares of small gammas.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Shares {
    pub(crate) below_001: f64,
    pub(crate) below_005: f64,
    pub(crate) below_01: f64,
}

/// Gammas counted in equal intervals.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Histogram {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) counts: Vec<u64>,
    /// Gammas outside.
    pub(crate) below: u64,
    pub(crate) above: u64,
}

impl Histogram {
    /// Of all gammas, those outside too.
    pub(crate) fn total(&self) -> f64 {
        self.counts.iter().map(|count| *count as f64).sum::<f64>() + self.outside()
    }

    /// Of those outside.
    pub(crate) fn outside(&self) -> f64 {
        self.below as f64 + self.above as f64
    }
}

/// What setting small gammas to zero costs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Zeroing {
    pub(crate) threshold: f64,
    /// Of `top1`, a fraction.
    pub(crate) change: f64,
}

/// `gamma.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Gammas {
    pub(crate) all: Shares,
    pub(crate) histogram: Histogram,
    #[serde(default)]
    pub(crate) zeroing: Vec<Zeroing>,
    #[serde(default)]
    pub(crate) layers: Vec<LayerGammas>,
}

impl Gammas {
    /// Points of accuracy more without the gammas below `threshold`.
    pub(crate) fn change_without(&self, threshold: f64) -> Option<f64> {
        let of = self.zeroing.iter().find(|zeroing| (zeroing.threshold - threshold).abs() < 1e-9)?;
        Some(100.0 * of.change)
    }
}

/// Those of one BatchNorm.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LayerGammas {
    pub(crate) shortcut: bool,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Shares of dead channels.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dead {
    pub(crate) dead_99: f64,
}

/// `features.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Features {
    pub(crate) all: Dead,
    pub(crate) after_bn: Option<Dead>,
    pub(crate) after_addition: Option<Dead>,
}

/// An evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Evaluation {
    /// The instance.
    pub(crate) instance: String,
    pub(crate) axes: Axes,
    pub(crate) network: Network,
    pub(crate) line: Line,
    pub(crate) metrics: Metrics,
    pub(crate) gammas: Option<Gammas>,
    pub(crate) features: Option<Features>,
}

/// The parameter table of a `model.json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) batch_norm: u64,
    pub(crate) shortcut_batch_norm: u64,
    pub(crate) output: u64,
    pub(crate) shortcut: u64,
}

#[derive(Deserialize)]
struct Model {
    #[serde(flatten)]
    subject: Subject,
    parameters: Counts,
}

/// Bytes of a training step's buffers at a batch size.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Buffers {
    pub(crate) batch: u64,
    pub(crate) bytes: u64,
}

#[derive(Deserialize)]
struct MemoryFile {
    #[serde(flatten)]
    subject: Subject,
    buffers: Vec<Buffers>,
    budget: Option<u64>,
    largest_batch: Option<u64>,
}

/// `memory.json`.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// The instance.
    pub(crate) instance: String,
    pub(crate) network: Network,
    pub(crate) line: Line,
    /// `paper` or `origin`.
    pub(crate) variant: String,
    pub(crate) buffers: Vec<Buffers>,
    /// Bytes.
    pub(crate) budget: Option<u64>,
    /// That fits the budget.
    pub(crate) largest_batch: Option<u64>,
}

/// All that a job was given.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) evaluations: Vec<Evaluation>,
    pub(crate) histories: Vec<History>,
    /// Network and variant -> parameter table.
    pub(crate) models: BTreeMap<(Network, String), Counts>,
    pub(crate) memory: Vec<Memory>,
    /// Roles of which some inputs have the same axes, so that only their stages tell these apart.
    pub(crate) repeated: Vec<Repeated>,
}

impl Evaluation {
    /// Test accuracy in per cent.
    pub(crate) fn top1(&self) -> f64 {
        100.0 * self.metrics.top1
    }
}

impl Results {
    /// Reads the roles `metrics`, `histories`, `models` and `memory`, those that there are.
    pub(crate) fn read(job: &Job<'_>, apart: Apart) -> Result<Self, StageError> {
        let of = |role: &str| job.inputs.get(role).map_or(&[][..], Vec::as_slice);
        let axes = telling_axes(job.inputs);
        let telling = |role: &str| Telling::new(&axes, of(role), apart);
        let [of_metrics, of_histories, of_memory] = ["metrics", "histories", "memory"].map(telling);
        let evaluations = of("metrics").iter().map(|input| evaluation(input, &of_metrics));
        let histories = of("histories").iter().map(|input| history(input, of("metrics"), &of_histories));
        let memory = of("memory").iter().map(|input| memory(input, &of_memory));
        let mut models = BTreeMap::new();
        for input in of("models") {
            let model: Model = json(input, "model.json")?.ok_or_else(|| missing(input, "model.json"))?;
            models.insert((network(input, &model.subject), model.subject.variant), model.parameters);
        }
        let evaluations: Vec<_> = evaluations.collect::<Result<_, _>>()?;
        let histories: Vec<_> = histories.collect::<Result<_, _>>()?;
        Ok(Self {
            evaluations: once(evaluations, |run| {
                (&run.instance, &run.line, &run.axes, format!("{:?}", run.metrics))
            }),
            histories: once(histories, |run| {
                (&run.instance, &run.line, &run.axes, format!("{:?}", run.rows))
            }),
            memory: memory.collect::<Result<_, _>>()?,
            models,
            repeated: repeated(job.inputs),
        })
    }

    /// Evaluations and histories apart by the networks' variant, the paper's first, and without it in their lines;
    /// nothing where there is one variant only, or where something else tells lines apart besides.
    pub(crate) fn by_variant(&self) -> Vec<(String, Self)> {
        let lines = self.evaluations.iter().map(|run| &run.line);
        let lines = lines.chain(self.histories.iter().map(|history| &history.line));
        let mut variants = BTreeSet::new();
        for line in lines {
            match line.variant() {
                Some(variant) if line.is_standard() => variants.insert(variant),
                _ => return Vec::new(),
            };
        }
        if variants.len() < 2 {
            return Vec::new();
        }
        let part = |variant: &str| {
            let of = |line: &Line| (line.variant() == Some(variant)).then(|| line.without_variant());
            let evaluations = self.evaluations.iter();
            let evaluations =
                evaluations.filter_map(|run| Some(Evaluation { line: of(&run.line)?, ..run.clone() }));
            let histories = self.histories.iter();
            let histories = histories.filter_map(|h| Some(History { line: of(&h.line)?, ..h.clone() }));
            let (evaluations, histories) = (evaluations.collect(), histories.collect());
            let (models, memory, repeated) = (BTreeMap::new(), Vec::new(), Vec::new());
            Self { evaluations, histories, models, memory, repeated }
        };
        variants.iter().rev().map(|variant| ((*variant).to_owned(), part(variant))).collect()
    }
}

/// Runs of a stage that differ in an axis `k` alone are one training where a mode does not know `k`, and have the same
/// numbers: the first stands for all. `told` are instance, line, axes and numbers.
fn once<T>(runs: Vec<T>, told: impl Fn(&T) -> (&String, &Line, &Axes, String)) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let is_first = |run: &T| {
        let (instance, line, axes, numbers) = told(run);
        let counts = |axis: &str| axis != "k" || !line.is_of_a_mode() || line.k().is_some();
        let axes = axes.iter().filter(|(axis, _)| counts(axis));
        let axes: Vec<_> = axes.map(|(axis, value)| (axis.clone(), plain(value))).collect();
        seen.insert((stage_of(instance).to_owned(), axes, numbers))
    };
    let first: Vec<_> = runs.iter().map(is_first).collect();
    runs.into_iter().zip(first).filter_map(|(run, first)| first.then_some(run)).collect()
}

fn evaluation(input: &Input, telling: &Telling<'_>) -> Result<Evaluation, StageError> {
    let metrics: Metrics = json(input, "metrics.json")?.ok_or_else(|| missing(input, "metrics.json"))?;
    let (network, line) = (network(input, &metrics.subject), line(input, &metrics.subject, telling));
    let (gammas, features) = (json(input, "gamma.json")?, json(input, "features.json")?);
    let (instance, axes) = (input.instance.clone(), input.axes.clone());
    Ok(Evaluation { instance, axes, network, line, metrics, gammas, features })
}

fn history(input: &Input, metrics: &[Input], telling: &Telling<'_>) -> Result<History, StageError> {
    input.lacks_no("history.csv".as_ref())?;
    let text = fs::read_to_string(input.dir.join("history.csv")).map_err(|e| {
        StageError::new(format!("cannot read history.csv of `{}`: {e}", input.instance))
            .hint("`histories` wants instances of kind `train`")
    })?;
    let subject = trained(input, metrics)?;
    let (network, line) = (network(input, &subject), line(input, &subject, telling));
    let (instance, axes) = (input.instance.clone(), input.axes.clone());
    let (variant, rows) = (subject.variant, rows(&text, input)?);
    Ok(History { instance, axes, variant, network, line, rows })
}

/// Whose history it is: what the checkpoint says, or where that is missing, as in a clone, the one evaluation of the
/// same axes.
fn trained(input: &Input, metrics: &[Input]) -> Result<Subject, StageError> {
    let path = input.dir.join("checkpoint.safetensors");
    let mut alike = metrics.iter().filter(|other| other.axes == input.axes);
    if !path.exists()
        && let (Some(evaluation), None) = (alike.next(), alike.next())
    {
        let metrics: Option<Metrics> = json(evaluation, "metrics.json")?;
        return Ok(metrics.map(|metrics| metrics.subject).unwrap_or_default());
    }
    Ok(checkpoint(&path).unwrap_or_default())
}

fn memory(input: &Input, telling: &Telling<'_>) -> Result<Memory, StageError> {
    let file: MemoryFile = json(input, "memory.json")?.ok_or_else(|| missing(input, "memory.json"))?;
    let (network, line) = (network(input, &file.subject), line(input, &file.subject, telling));
    let MemoryFile { subject: Subject { variant, .. }, buffers, budget, largest_batch } = file;
    Ok(Memory { instance: input.instance.clone(), network, line, variant, buffers, budget, largest_batch })
}

/// The value of an axis as text.
fn axis(input: &Input, name: &str) -> Option<String> {
    input.axes.get(name).map(plain)
}

/// The network of a result: what its file says, else what its axes say.
fn network(input: &Input, said: &Subject) -> Network {
    Network::new(&said.arch.clone().or_else(|| axis(input, "arch")).unwrap_or_else(|| "network".into()))
}

/// The line of a result: what its file says, else what its axes say.
fn line(input: &Input, said: &Subject, telling: &Telling<'_>) -> Line {
    let mode = said.mode.clone().or_else(|| axis(input, "mode")).unwrap_or_else(|| "run".into());
    let k = said.k.or_else(|| axis(input, "k")?.parse().ok());
    Line::new(&mode, k, telling.of(input))
}

pub(super) fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The file `name` of an input; nothing where the result has no such file.
fn json<T: DeserializeOwned>(input: &Input, name: &str) -> Result<Option<T>, StageError> {
    let text = match fs::read(input.dir.join(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return input.lacks_no(name.as_ref()).map(|()| None);
        }
        Err(error) => {
            return Err(StageError::new(format!("cannot read {name} of `{}`: {error}", input.instance)));
        }
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        StageError::new(format!("{name} of `{}` cannot be understood: {e}", input.instance))
            .hint("look whether `needs` names a stage of the right kind: docs/pipeline.md lists them")
    })
}

fn missing(input: &Input, name: &str) -> StageError {
    StageError::new(format!("`{}` has no {name}", input.instance)).hint(
        "`metrics` wants instances of kind `evaluate`, `histories` of kind `train`, `models` of kind `model`, \
         `memory` of kind `memory`",
    )
}

/// What a checkpoint says of itself, without reading its tensors.
fn checkpoint(path: &Path) -> Option<Subject> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        words: BTreeMap<String, String>,
    }
    // The length comes from a file that may be damaged; real headers are a few kilobytes.
    const LONGEST: u64 = 1 << 20;
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut header = Vec::new();
    file.take(length.min(LONGEST)).read_to_end(&mut header).ok()?;
    let words = serde_json::from_slice::<Header>(&header).ok()?.words;
    let word = |key: &str| words.get(key).cloned();
    let k = word("k").and_then(|k| k.parse().ok());
    Some(Subject { arch: word("arch"), mode: word("mode"), k, variant: word("variant").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_without_its_checkpoint_is_that_of_the_evaluation_of_the_same_axes() {
        let folder = tempfile::tempdir().unwrap();
        let input = |instance: &str, seed: i64| {
            let dir = folder.path().join(instance);
            fs::create_dir(&dir).unwrap();
            let axes = BTreeMap::from([("seed".to_owned(), toml::Value::Integer(seed))]);
            let axes = axes.into_iter().collect();
            Input { instance: instance.to_owned(), axes, dir, absent: Vec::new() }
        };
        let [train, other, evaluate] = [input("train", 0), input("other", 1), input("evaluate", 0)];
        let metrics = r#"{"arch":"resnet14","variant":"paper","mode":"random","k":3,"top1":0.5}"#;
        fs::write(evaluate.dir.join("metrics.json"), metrics).unwrap();
        let said = |input: &Input, of: &[Input]| trained(input, of).unwrap();
        let known = said(&train, std::slice::from_ref(&evaluate));
        assert_eq!((known.variant.as_str(), known.k), ("paper", Some(3)));
        assert_eq!(said(&other, std::slice::from_ref(&evaluate)).variant, "", "of other axes");
        let twice = [input("again", 0), evaluate];
        assert_eq!(said(&train, &twice).variant, "", "which of the two?");
    }

    #[test]
    fn what_only_a_clone_lacks_is_not_taken_for_what_was_never_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.json"), r#"{"top1":0.5}"#).unwrap();
        let input = |absent: &[&str]| {
            let (instance, dir) = ("evaluate".to_owned(), folder.path().to_owned());
            let absent = absent.iter().map(|&path| path.to_owned()).collect();
            Input { instance, axes: BTreeMap::new(), dir, absent }
        };
        let none = BTreeSet::new();
        let telling = Telling::new(&none, &[], Apart::Results);
        let read = |absent: &[&str]| evaluation(&input(absent), &telling);
        assert!(read(&[]).unwrap().gammas.is_none());
        assert!(read(&["checkpoint.safetensors"]).unwrap().features.is_none());
        for name in ["gamma.json", "features.json"] {
            let error = read(&[name]).unwrap_err();
            let told = format!("`evaluate` has no {name} here, though it was locked with one");
            assert_eq!(error.message, told);
            assert!(error.hint.unwrap().contains("run without it, or bring the file"));
        }
    }

    #[test]
    fn a_network_may_lack_either_kind_of_rectifier() {
        let features = r#"{"all":{"dead_99":0.5},"after_bn":null,"after_addition":null}"#;
        let features: Features = serde_json::from_str(features).unwrap();
        assert!(features.after_bn.is_none() && features.after_addition.is_none());
    }
}
