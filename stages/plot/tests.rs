use engine::{
    instance::Resources,
    kind::{Input, Progress, Reporter},
};

use super::*;

struct Silent;

impl Reporter for Silent {
    fn say(&mut self, _: &str) {}
    fn progress(&mut self, _: &Progress) {}
    fn note(&mut self, _: &str, _: toml::Value) {}
    fn stop_requested(&self) -> bool {
        false
    }
}

fn made_up(root: &std::path::Path) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (arch, depth) in [("resnet8", 8), ("resnet14", 14)] {
        for (mode, top) in [("all", 0.9), ("bn", 0.7), ("random", 0.5)] {
            for seed in 0..2 {
                let dir = root.join(format!("{arch}-{mode}-{seed}"));
                std::fs::create_dir(&dir).unwrap();
                let mut csv = String::from("epoch,rate,train_loss,train_accuracy,test_loss,test_accuracy\n");
                for epoch in 1..=20 {
                    let done = 1.0 - (-f64::from(epoch) / 6.0).exp();
                    let test = done * top + f64::from(seed) * 0.04;
                    csv += &format!(
                        "{epoch},0.1,{},{},{},{test}\n",
                        2.3 - 2.0 * done * top,
                        test + 0.05,
                        2.4 - 1.8 * done * top
                    );
                }
                std::fs::write(dir.join("history.csv"), csv).unwrap();
                let top1 = top + f64::from(seed) * 0.04;
                std::fs::write(
                    dir.join("metrics.json"),
                    format!("{{\"top1\":{top1},\"depth\":{depth},\"extra\":[1]}}"),
                )
                .unwrap();
                let axes = [("arch", arch.into()), ("mode", mode.into()), ("seed", i64::from(seed).into())];
                let axes = axes.into_iter().map(|(k, v): (&str, toml::Value)| (k.to_owned(), v)).collect();
                inputs.push(Input { instance: format!("train[{arch},{mode},{seed}]"), axes, dir });
            }
        }
    }
    inputs
}

fn draw(inputs: Vec<Input>, out: &std::path::Path) -> Result<(), StageError> {
    let inputs = [("histories".to_owned(), inputs.clone()), ("metrics".to_owned(), inputs)].into();
    Plot.run(&mut Job {
        instance: "plot",
        axes: &BTreeMap::new(),
        params: &Params::default(),
        inputs: &inputs,
        out,
        scratch: out,
        project: out,
        resources: Resources::default(),
        offline: true,
        reporter: &mut Silent,
    })
}

#[test]
fn figures_have_titles_axes_and_legend_and_the_table_counts_seeds() {
    let (given, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    draw(made_up(given.path()), out.path()).unwrap();
    let svg = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    let depth = svg("accuracy-by-depth.svg");
    for text in ["Test accuracy by depth", "depth (layers)", "top-1 test accuracy (%)", "random", "bn"] {
        assert!(depth.contains(text), "{text}");
    }
    let loss = svg("loss-curves-resnet14.svg");
    for text in ["Loss of resnet14 during training", "epoch", "cross-entropy loss (nats)", "bn, test"] {
        assert!(loss.contains(text), "{text}");
    }
    let table = svg("table.md");
    assert!(table.contains("| resnet8 | bn | 72.00 | 2.83 | 2 |"), "{table}");
    for name in ["accuracy-by-depth", "loss-curves-resnet8", "accuracy-curves-resnet14"] {
        let file = std::fs::File::open(out.path().join(format!("{name}.png"))).unwrap();
        let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels.iter().any(|p| *p != 255), "{name}.png is blank");
    }
}

#[test]
fn a_diverged_training_leaves_a_gap_and_no_panic() {
    let (given, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = made_up(given.path());
    for input in &inputs {
        std::fs::write(input.dir.join("history.csv"), "epoch,train_loss\n1,2.0\n2,NaN\n3,inf\n").unwrap();
    }
    draw(inputs, out.path()).unwrap();
}

#[test]
fn a_damaged_history_is_named_with_its_line() {
    let (given, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = made_up(given.path());
    std::fs::write(inputs[0].dir.join("history.csv"), "epoch,rate\n1,0.1\n2\n").unwrap();
    let error = draw(inputs, out.path()).unwrap_err();
    assert!(error.message.contains("history.csv of `train[resnet8,all,0]`, line 3"), "{}", error.message);
}
