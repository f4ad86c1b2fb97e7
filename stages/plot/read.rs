//! What trainings and evaluations left behind, grouped by network and by what was trained; runs
//! that differ in nothing but the seed share a group. Knows nothing of drawing.

use std::{collections::BTreeMap, fs, path::Path};

use engine::kind::{Input, StageError};
use serde::Deserialize;

/// One line of a history.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Counted from 1.
    pub(super) epoch: u64,
    /// By column.
    pub(super) values: BTreeMap<String, f64>,
}

/// A training's history.
pub(super) type History = Vec<Row>;

/// Network -> what was trained -> runs.
pub(super) type Histories = BTreeMap<String, BTreeMap<String, Vec<History>>>;

/// What of an evaluation is shown.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metric {
    /// Fraction of the test images.
    pub(super) top1: f64,
    /// Of the network.
    #[serde(default)]
    pub(super) depth: Option<f64>,
    #[serde(default)]
    arch: Option<String>,
    #[serde(default)]
    mode: Option<String>,
}

/// Network and what was trained -> runs.
pub(super) type Metrics = BTreeMap<(String, String), Vec<Metric>>;

/// Reads `history.csv` of every input.
pub(super) fn histories(inputs: &[Input]) -> Result<Histories, StageError> {
    let mut histories = Histories::new();
    for input in inputs {
        let (arch, label) = group(input, None, None);
        let history = history(&read(&input.dir, "history.csv", input)?, input)?;
        histories.entry(arch).or_default().entry(label).or_default().push(history);
    }
    Ok(histories)
}

/// Reads `metrics.json` of every input.
pub(super) fn metrics(inputs: &[Input]) -> Result<Metrics, StageError> {
    let mut metrics = Metrics::new();
    for input in inputs {
        let text = read(&input.dir, "metrics.json", input)?;
        let metric: Metric = serde_json::from_str(&text).map_err(|e| {
            StageError::new(format!("metrics.json of `{}` cannot be understood: {e}", input.instance))
                .hint("`metrics` wants instances of kind `evaluate`")
        })?;
        let key = group(input, metric.arch.as_deref(), metric.mode.as_deref());
        metrics.entry(key).or_default().push(metric);
    }
    Ok(metrics)
}

fn read(dir: &Path, name: &str, input: &Input) -> Result<String, StageError> {
    fs::read_to_string(dir.join(name)).map_err(|e| {
        StageError::new(format!("cannot read {name} of `{}`: {e}", input.instance))
            .hint("`histories` wants instances of kind `train`, `metrics` of kind `evaluate`")
    })
}

/// The network, and everything else but the seed that tells instances apart.
fn group(input: &Input, arch: Option<&str>, mode: Option<&str>) -> (String, String) {
    let text = |axis: &str| input.axes.get(axis).map(plain);
    let arch = text("arch").or(arch.map(str::to_owned)).unwrap_or_else(|| "network".into());
    let mut label: Vec<String> = text("mode").or(mode.map(str::to_owned)).into_iter().collect();
    let others = input.axes.iter().filter(|(axis, _)| !["arch", "mode", "seed"].contains(&axis.as_str()));
    label.extend(others.map(|(axis, value)| format!("{axis} {}", plain(value))));
    (arch, if label.is_empty() { "run".into() } else { label.join(", ") })
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn history(text: &str, input: &Input) -> Result<History, StageError> {
    let wrong = |line: usize, what: &str| {
        StageError::new(format!("history.csv of `{}`, line {line}: {what}", input.instance))
            .hint("`histories` wants instances of kind `train`")
    };
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map(|(_, line)| line.split(',').collect()).unwrap_or_default();
    let epoch = header.iter().position(|name| *name == "epoch");
    let epoch = epoch.ok_or_else(|| wrong(1, "there is no column `epoch`"))?;
    let mut history = History::new();
    for (index, line) in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != header.len() {
            return Err(wrong(index + 1, "the number of cells is not that of the header"));
        }
        let mut values = BTreeMap::new();
        for (name, cell) in header.iter().zip(&cells) {
            let value = cell.parse::<f64>().map_err(|_| wrong(index + 1, "a cell is not a number"))?;
            values.insert((*name).to_owned(), value);
        }
        let epoch = cells[epoch].parse().map_err(|_| wrong(index + 1, "`epoch` is not a whole number"))?;
        history.push(Row { epoch, values });
    }
    Ok(history)
}
