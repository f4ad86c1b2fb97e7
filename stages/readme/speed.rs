//! The lines of `benches/compare.json` that a page shows: whole training steps beside PyTorch's, at the
//! largest number of threads. Knows the report's form, not how it is measured.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use engine::kind::StageError;
use serde::Deserialize;

use crate::{
    plot::table::cell,
    results::{Line, Network},
};

pub(super) const BATCH: u64 = 128;
pub(super) const MODES: [&str; 3] = ["bn", "random", "all"];

/// What was measured together.
#[derive(Deserialize)]
struct Section {
    machine: Machine,
    results: Vec<Measured>,
}

#[derive(Deserialize)]
struct Machine {
    processor: String,
    cores: u64,
    torch: String,
    commit: String,
    date: String,
}

#[derive(Deserialize)]
struct Measured {
    program: String,
    arch: String,
    variant: String,
    mode: String,
    precision: String,
    batch: u64,
    threads: u64,
    pass: String,
    /// Only PyTorch can be.
    #[serde(default)]
    compiled: bool,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    images_per_second: f64,
    rss_growth_bytes: f64,
}

impl Measured {
    fn is(&self, program: &str, mode: &str, threads: u64) -> bool {
        let same = self.program == program && self.mode == mode && self.threads == threads;
        same && self.precision == "f32"
            && self.batch == BATCH
            && self.pass == "train"
            && !self.runs.is_empty()
    }

    fn speed(&self) -> f64 {
        median(self.runs.iter().map(|run| run.images_per_second))
    }

    fn megabytes(&self) -> impl Iterator<Item = f64> {
        self.runs.iter().map(|run| run.rss_growth_bytes / 1e6)
    }
}

/// The table, from the text of the report at `path`.
pub(super) fn table(text: &str, path: &Path) -> Result<String, StageError> {
    let sections: BTreeMap<String, Section> = serde_json::from_str(text).map_err(|e| {
        StageError::new(format!("`{}` is no report of benches/compare.py: {e}", path.display()))
            .hint("`python3 benches/compare.py` writes one")
    })?;
    let mut text = String::from(
        "| network | variant | trained | threads | repro, images/s | PyTorch, images/s | times as fast | \
         repro, MB | PyTorch, MB | processor |\n|---|---|---|---:|---:|---:|---:|---:|---:|---|\n",
    );
    let mut sections: Vec<_> = sections.into_values().collect();
    sections.sort_by_key(|section| {
        section.results.first().map(|measured| (Network::new(&measured.arch), measured.variant != "paper"))
    });
    let mut commits = Vec::<(String, Vec<&str>)>::new();
    let mut plain = Vec::new();
    for section in &sections {
        let Some(threads) = section.results.iter().map(|measured| measured.threads).max() else { continue };
        let processor = &section.machine.processor;
        let row = |mode: &&str| row(&section.results, mode, threads, processor);
        let rows: Vec<_> = MODES.iter().filter_map(row).collect();
        if rows.is_empty() {
            continue;
        }
        text.extend(rows);
        if !section.results.iter().any(|measured| measured.compiled && !measured.runs.is_empty()) {
            plain.extend(section.results.first().map(|measured| Network::new(&measured.arch).label()));
        }
        let Machine { processor, cores, torch, commit, date } = &section.machine;
        let day = date.split(' ').next().unwrap_or_default();
        let machine = format!("{processor}, {cores} cores, PyTorch {torch}, {day}");
        match commits.iter_mut().find(|(other, _)| *other == machine) {
            Some((_, of)) if of.contains(&&**commit) => {}
            Some((_, of)) => of.push(commit),
            None => commits.push((machine, vec![commit])),
        }
    }
    if commits.is_empty() {
        return Err(StageError::new(format!(
            "`{}` has no network that both programs trained",
            path.display()
        ))
        .hint("`python3 benches/compare.py` measures some"));
    }
    let machines = commits.iter().map(|(machine, of)| {
        format!("{machine}, commit{} {}", if of.len() == 1 { "" } else { "s" }, of.join(", "))
    });
    let machines: Vec<_> = machines.collect();
    plain.dedup();
    let except = if plain.is_empty() {
        String::new()
    } else {
        format!(" (compiled ones not tried: {})", plain.join(", "))
    };
    let _ = write!(
        text,
        "\nWhole training steps at batch {BATCH} in float32, and what the process grew by. PyTorch's speed is that of its \
         fastest configuration{except}, its memory the least that it took. It cannot train single weights, so random weights \
         are compared with its training of BatchNorm only. Measured on {}.\n",
        cell(&machines.join("; "))
    );
    Ok(text)
}

fn row(results: &[Measured], mode: &str, threads: u64, processor: &str) -> Option<String> {
    let ours = results.iter().find(|measured| measured.is("repro", mode, threads))?;
    let theirs_mode = if mode == "random" { "bn" } else { mode };
    let theirs = || results.iter().filter(|measured| measured.is("torch", theirs_mode, threads));
    let fastest = theirs().map(Measured::speed).reduce(f64::max)?;
    let frugal = theirs().flat_map(Measured::megabytes).reduce(f64::min)?;
    Some(format!(
        "| {} | {} | {} | {threads} | {:.0} | {fastest:.0} | **{:.2}** | {:.0} | {frugal:.0} | {} |\n",
        Network::new(&ours.arch).label(),
        cell(&ours.variant),
        Line::new(mode, None, Vec::new()).label(),
        ours.speed(),
        ours.speed() / fastest,
        median(ours.megabytes()),
        cell(processor),
    ))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_steps_stand_beside_the_fastest_and_the_most_frugal_of_pytorch() {
        let measured = |program: &str, mode: &str, threads: u64, speed: f64, megabytes: f64| {
            format!(
                r#"{{"program":"{program}","arch":"resnet32","variant":"paper","mode":"{mode}","precision":"f32","batch":128,
                "threads":{threads},"pass":"train","runs":[{{"images_per_second":{},"rss_growth_bytes":{}}},
                {{"images_per_second":{},"rss_growth_bytes":{}}}]}}"#,
                speed - 1.0,
                (megabytes - 10.0) * 1e6,
                speed + 1.0,
                (megabytes + 10.0) * 1e6
            )
        };
        let results = [
            measured("repro", "bn", 1, 999.0, 1.0),
            measured("repro", "bn", 2, 600.0, 200.0),
            measured("repro", "random", 2, 500.0, 300.0),
            measured("torch", "bn", 2, 250.0, 700.0),
            measured("torch", "bn", 2, 300.0, 800.0),
        ];
        let machine = r#"{"processor":"P","cores":2,"torch":"2","commit":"abc","date":"today"}"#;
        let text =
            format!(r#"{{"resnet32 paper":{{"machine":{machine},"results":[{}]}}}}"#, results.join(","));
        let table = table(&text, "compare.json".as_ref()).unwrap();
        for row in [
            "| ResNet-32 | paper | BatchNorm only | 2 | 600 | 300 | **2.00** | 200 | 690 | P |\n",
            "| ResNet-32 | paper | as many random weights | 2 | 500 | 300 | **1.67** | 300 | 690 | P |\n",
            "fastest configuration (compiled ones not tried: ResNet-32), its memory",
            "P, 2 cores, PyTorch 2, today, commit abc.",
        ] {
            assert!(table.contains(row), "{table}");
        }
        assert!(!table.contains("999") && !table.contains("everything"), "{table}");
    }

    #[test]
    fn anything_else_is_refused_with_its_path() {
        let empty = table("{}", "compare.json".as_ref()).unwrap_err();
        assert!(empty.message.contains("`compare.json` has no network"), "{}", empty.message);
        let error = table("[]", "notes.json".as_ref()).unwrap_err();
        assert!(error.message.contains("`notes.json` is no report"), "{}", error.message);
    }
}
