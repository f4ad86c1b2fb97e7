//! The lines of `benches/gpu.json` that a page shows: whole training steps on a card beside PyTorch's. Knows the
//! report's form, not how it is measured.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use engine::kind::StageError;
use serde::Deserialize;

use super::speed::{BATCH, MODES};
use crate::{
    plot::table::cell,
    results::{Line, Network},
};

/// Whose networks are shown.
const VARIANT: &str = "paper";
/// Those of both programs; `tf32` is PyTorch's f32 too.
const PRECISIONS: [&str; 2] = ["f32", "bf16"];

#[derive(Deserialize)]
struct Report {
    steps: BTreeMap<String, Step>,
}

#[derive(Deserialize)]
struct Step {
    result: Option<serde_json::Value>,
}

/// A measurement of either program.
#[derive(Deserialize)]
struct Measured {
    arch: String,
    variant: String,
    mode: String,
    batch: u64,
    /// Ours ends with the precision.
    engine: String,
    images_per_second: f64,
    /// Trainings that step together; ours alone says it.
    instances: Option<u64>,
    /// PyTorch's alone say these.
    #[serde(default)]
    bf16: bool,
    #[serde(default)]
    compile: bool,
}

impl Measured {
    /// Our card with its driver and compiler, and the precision.
    fn card(&self) -> (&str, &str) {
        self.engine.rsplit_once(", ").unwrap_or((&self.engine, ""))
    }
}

/// The table, from the text of the report at `path`.
pub(super) fn table(text: &str, path: &Path) -> Result<String, StageError> {
    let report: Report = serde_json::from_str(text).map_err(|e| {
        StageError::new(format!("`{}` is no report of benches/gpu.sh: {e}", path.display()))
            .hint("benches/gpu.sh measures one on a machine with a card")
    })?;
    // What did not run has no result, and a step may be no measurement of speed.
    let all = report.steps.into_values().filter_map(|step| serde_json::from_value(step.result?).ok());
    let (ours, torch): (Vec<Measured>, Vec<_>) = all
        .filter(|m: &Measured| m.batch == BATCH && m.variant == VARIANT)
        .partition(|m| m.instances.is_some());
    let mut ours: Vec<_> = ours.into_iter().filter(|m| m.instances == Some(1)).collect();
    let order = |m: &Measured| {
        let place = |mode| MODES.iter().position(|other| *other == mode);
        (Network::new(&m.arch), place(&*m.mode), PRECISIONS.iter().position(|p| *p == m.card().1))
    };
    ours.sort_by_key(order);
    let mut text = String::from(
        "| network | trained | precision | repro, images/s | PyTorch eager, images/s | times as fast | PyTorch compiled, \
         images/s | times as fast |\n|---|---|---|---:|---:|---:|---:|---:|\n",
    );
    let mut machines = Vec::new();
    for one in ours.iter().filter(|m| PRECISIONS.contains(&m.card().1)) {
        let (card, precision) = one.card();
        if !machines.contains(&card) {
            machines.push(card);
        }
        let mode = if one.mode == "random" { "bn" } else { &one.mode };
        let same = |m: &&Measured| m.arch == one.arch && m.mode == mode && m.bf16 == (precision == "bf16");
        let beside = [false, true].map(|compile| {
            let like = torch.iter().filter(same).filter(|m| m.compile == compile);
            let best = like.map(|m| m.images_per_second).reduce(f64::max);
            best.map_or_else(
                || "– | –".into(),
                |best| format!("{best:.0} | **{:.1}**", one.images_per_second / best),
            )
        });
        let _ = writeln!(
            text,
            "| {} | {} | {precision} | {:.0} | {} |",
            Network::new(&one.arch).label(),
            Line::new(&one.mode, None, Vec::new()).label(),
            one.images_per_second,
            beside.join(" | "),
        );
    }
    let mut theirs: Vec<_> = torch.iter().map(|m| m.engine.as_str()).collect();
    theirs.sort_unstable();
    theirs.dedup();
    let _ = write!(
        text,
        "\nWhole training steps at batch {BATCH} of one training, the paper's network. PyTorch is shown without compiling, \
         channels-last or, where that was measured too and is faster, in its other layout, and with `torch.compile` where \
         compiling finished, with TF32 on in f32. It cannot train \
         single weights, so random weights are compared with its training of BatchNorm only. A dash was not measured. \
         Measured with the {}; {}.\n",
        cell(&machines.join("; ")),
        cell(&theirs.join("; ")),
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_steps_stand_beside_the_fastest_of_pytorch() {
        let ours = |arch: &str, mode: &str, precision: &str, instances: u64, speed: f64| {
            format!(
                r#"{{"status":0,"result":{{"arch":"{arch}","variant":"paper","mode":"{mode}","batch":128,"instances":{instances},
                "engine":"cuda engine, Card (sm_90), {precision}","images_per_second":{speed}}}}}"#
            )
        };
        let torch = |bf16: bool, compile: bool, speed: f64| {
            format!(
                r#"{{"status":0,"result":{{"arch":"resnet32","variant":"paper","mode":"bn","batch":128,"engine":"torch 2",
                "bf16":{bf16},"compile":{compile},"images_per_second":{speed}}}}}"#
            )
        };
        let steps = [
            ours("resnet110", "bn", "f32", 1, 500.0),
            ours("resnet32", "random", "bf16", 1, 4000.0),
            ours("resnet32", "bn", "bf16", 1, 6000.0),
            ours("resnet32", "bn", "f32", 1, 3000.0),
            ours("resnet32", "bn", "tf32", 1, 777.0),
            ours("resnet32", "bn", "f32", 10, 999.0),
            ours("resnet32", "bn", "f32", 1, 9999.0).replace("paper", "origin"),
            torch(false, false, 100.0),
            torch(false, false, 150.0),
            torch(true, false, 120.0),
            torch(true, true, 1000.0),
            r#"{"status":124,"result":null}"#.into(),
            r#"{"status":0,"result":{"passed":12}}"#.into(),
        ];
        let steps: Vec<_> = steps.iter().enumerate().map(|(n, step)| format!("\"{n:02}\":{step}")).collect();
        let table = table(&format!("{{\"steps\":{{{}}}}}", steps.join(",")), "gpu.json".as_ref()).unwrap();
        let rows: Vec<_> = table.lines().skip(2).take_while(|line| !line.is_empty()).collect();
        assert_eq!(
            rows,
            [
                "| ResNet-32 | BatchNorm only | f32 | 3000 | 150 | **20.0** | – | – |",
                "| ResNet-32 | BatchNorm only | bf16 | 6000 | 120 | **50.0** | 1000 | **6.0** |",
                "| ResNet-32 | as many random weights | bf16 | 4000 | 120 | **33.3** | 1000 | **4.0** |",
                "| ResNet-110 | BatchNorm only | f32 | 500 | – | – | – | – |",
            ]
        );
        assert!(table.ends_with("Measured with the cuda engine, Card (sm_90); torch 2.\n"), "{table}");
    }

    #[test]
    fn anything_else_is_refused_with_its_path() {
        let error = table("[]", "notes.json".as_ref()).unwrap_err();
        assert!(error.message.contains("`notes.json` is no report"), "{}", error.message);
    }
}
