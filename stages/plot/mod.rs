//! Kind `plot`: the figures and the table, from the trainings' histories and the evaluations'
//! metrics. Knows nothing of networks: what an instance is, its axes say.

mod chart;
mod read;

use std::{collections::BTreeMap, fmt::Write as _};

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use self::{
    chart::{Chart, Series},
    read::{History, Metrics, histories, metrics},
};
use crate::{output::write, params::resolve};

/// The kind `plot`.
pub struct Plot;

/// Parameters of a `plot` stage: none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlotParams {}

impl Kind for Plot {
    fn name(&self) -> &'static str {
        "plot"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "histories", required: true, many: true },
            RoleSpec { name: "metrics", required: true, many: true },
        ])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        PlotParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        resolve::<PlotParams>(given)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let none = Vec::new();
        let histories = histories(job.inputs.get("histories").unwrap_or(&none))?;
        let metrics = metrics(job.inputs.get("metrics").unwrap_or(&none))?;
        accuracy_by_depth(&metrics).write(job.out, "accuracy-by-depth")?;
        for (arch, of_arch) in &histories {
            let name = file_name(arch);
            curves(arch, of_arch, &LOSS).write(job.out, &format!("loss-curves-{name}"))?;
            curves(arch, of_arch, &ACCURACY).write(job.out, &format!("accuracy-curves-{name}"))?;
        }
        write(job, "table.md", table(&metrics).as_bytes())
    }
}

/// Mean, sample standard deviation (0 for a single value) and number of the finite values.
fn statistics(values: impl Iterator<Item = f64>) -> Option<(f64, f64, usize)> {
    let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((mean, if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 }, n))
}

fn accuracy_by_depth(metrics: &Metrics) -> Chart {
    let mut lines: BTreeMap<&str, Vec<(f64, f64, f64)>> = BTreeMap::new();
    for ((arch, label), runs) in metrics {
        let depth = runs.iter().find_map(|run| run.depth).or_else(|| depth(arch));
        if let (Some(depth), Some((mean, sd, _))) = (depth, statistics(runs.iter().map(|r| 100.0 * r.top1))) {
            lines.entry(label).or_default().push((depth, mean, sd));
        }
    }
    let series = lines.into_iter().enumerate().map(|(color, (label, mut points))| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { label: label.into(), color, dashed: false, points }
    });
    Chart {
        title: "Test accuracy by depth".into(),
        x: "depth (layers)",
        y: "top-1 test accuracy (%)",
        markers: true,
        series: series.collect(),
    }
}

/// Which columns of a history a chart shows.
struct Columns {
    title: &'static str,
    y: &'static str,
    train: &'static str,
    test: &'static str,
    scale: f64,
}

const LOSS: Columns = Columns {
    title: "Loss",
    y: "cross-entropy loss (nats)",
    train: "train_loss",
    test: "test_loss",
    scale: 1.0,
};
const ACCURACY: Columns = Columns {
    title: "Accuracy",
    y: "top-1 accuracy (%)",
    train: "train_accuracy",
    test: "test_accuracy",
    scale: 100.0,
};

fn curves(arch: &str, histories: &BTreeMap<String, Vec<History>>, columns: &Columns) -> Chart {
    let mut series = Vec::new();
    for (color, (label, runs)) in histories.iter().enumerate() {
        for (column, set, dashed) in [(columns.train, "train", true), (columns.test, "test", false)] {
            let mut epochs: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for row in runs.iter().flatten() {
                let value = row.values.get(column).map(|value| columns.scale * value);
                epochs.entry(row.epoch).or_default().extend(value);
            }
            let points = epochs.into_iter().filter_map(|(epoch, values)| {
                statistics(values.into_iter()).map(|(mean, sd, _)| (epoch as f64, mean, sd))
            });
            series.push(Series { label: format!("{label}, {set}"), color, dashed, points: points.collect() });
        }
    }
    let title = format!("{} of {arch} during training", columns.title);
    Chart { title, x: "epoch", y: columns.y, markers: false, series }
}

fn table(metrics: &Metrics) -> String {
    let mut text = String::from(
        "| network | trained | top-1 test accuracy (%) | standard deviation | runs |\n|---|---|---:|---:|---:|\n",
    );
    for ((arch, label), runs) in metrics {
        if let Some((mean, sd, n)) = statistics(runs.iter().map(|run| 100.0 * run.top1)) {
            let sd = if n > 1 { format!("{sd:.2}") } else { "–".into() };
            let _ = writeln!(text, "| {arch} | {label} | {mean:.2} | {sd} | {n} |");
        }
    }
    text
}

/// The first number in a network's name.
fn depth(arch: &str) -> Option<f64> {
    arch.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

fn file_name(arch: &str) -> String {
    arch.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests;
