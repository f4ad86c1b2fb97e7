use std::{collections::BTreeMap, path::Path};

use engine::kind::Input;

use super::{
    chart::{Axis, Chart, Dashes, Look, Marker, Series},
    *,
};
use crate::testing::{Listener, with_inputs};

mod drawn;
mod settings;

/// Two seeds of three modes at two depths and two widths, with everything a figure could want.
fn made_up(root: &Path) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (arch, trained) in
        [("resnet14", 1120), ("resnet32", 2464), ("resnet14-2", 2240), ("resnet14-4", 4480)]
    {
        for (mode, top) in
            [("all", 0.9), ("all-but-bn", 0.88), ("bn", 0.6), ("random", 0.4), ("output+shortcut", 0.3)]
        {
            // As many in networks of every size.
            let trained = if mode == "output+shortcut" { 3210 } else { trained };
            for seed in 0..2 {
                inputs.push(run(root, arch, mode, seed, top + f64::from(seed) * 0.04, trained));
            }
        }
    }
    inputs
}

fn run(root: &Path, arch: &str, mode: &str, seed: u8, top1: f64, trained: u64) -> Input {
    let dir = root.join(format!("{arch}-{mode}-{seed}"));
    std::fs::create_dir(&dir).unwrap();
    let mut csv = String::from("epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy\n");
    for epoch in 1..=30 {
        let done = 1.0 - (-f64::from(epoch) / 6.0).exp();
        let (loss, test) = (2.3 - 2.0 * done * top1, done * top1);
        csv += &format!("{epoch},0.1,{loss},{},{},{test}\n", test + 0.05, loss + 0.1);
    }
    let k = if mode == "random" { "\"k\":2," } else { "" };
    let subject = format!("\"arch\":\"{arch}\",\"mode\":\"{mode}\",{k}\"variant\":\"paper\",\"seed\":{seed}");
    let write =
        |name: &str, text: &str| std::fs::write(dir.join(name), format!("{{{subject},{text}}}")).unwrap();
    std::fs::write(dir.join("history.csv"), csv).unwrap();
    write(
        "metrics.json",
        &format!(
            "\"top1\":{top1},\"trained\":{trained},\"parameters\":175258,\"checkpoint_bytes\":{},\"weights_bytes\":705512,\"extra\":[1]",
            trained * 4
        ),
    );
    write(
        "gamma.json",
        "\"layers\":[{\"shortcut\":true,\"min\":1.0,\"max\":1.0}],\"all\":{\"below_001\":0.25,\"below_005\":0.3,\"below_01\":0.35},\"histogram\":{\"from\":-1.0,\"to\":1.0,\"counts\":[0,1,5,2],\"below\":0,\"above\":0},\
         \"zeroing\":[{\"threshold\":0.01,\"change\":-0.001},{\"threshold\":0.05,\"change\":-0.004},{\"threshold\":0.1,\"change\":-0.016}]",
    );
    write(
        "features.json",
        "\"all\":{\"dead_99\":0.3},\"after_bn\":{\"dead_99\":0.4},\"after_addition\":{\"dead_99\":0.2}",
    );
    write(
        "model.json",
        "\"parameters\":{\"total\":175258,\"batch_norm\":1120,\"shortcut_batch_norm\":192,\"output\":650,\"shortcut\":2560}",
    );
    write(
        "memory.json",
        "\"buffers\":[{\"batch\":64,\"bytes\":120000000},{\"batch\":128,\"bytes\":240000000}],\"budget\":1073741824,\"largest_batch\":512",
    );
    let axes = [("arch", arch.into()), ("mode", mode.into()), ("seed", i64::from(seed).into())];
    let axes = axes.into_iter().map(|(k, v): (&str, toml::Value)| (k.to_owned(), v)).collect();
    Input { instance: format!("train[{arch},{mode},{seed}]"), axes, dir, absent: Vec::new() }
}

fn draw(inputs: Vec<Input>, params: &str, out: &Path) -> Result<Vec<Entry>, StageError> {
    let roles = ["histories", "metrics", "models", "memory"];
    draw_roles(roles.map(|role| (role.to_owned(), inputs.clone())).into(), params, out)
}

fn only(role: &str, inputs: Vec<Input>, out: &Path) -> Vec<Entry> {
    draw_roles([(role.to_owned(), inputs)].into(), "", out).unwrap()
}

fn draw_roles(
    inputs: BTreeMap<String, Vec<Input>>,
    params: &str,
    out: &Path,
) -> Result<Vec<Entry>, StageError> {
    with_inputs(&mut Listener::default(), &Plot, params, &inputs, out, |job| Plot.run(job))?;
    Ok(serde_json::from_slice(&std::fs::read(out.join(LIST)).unwrap()).unwrap())
}

/// What is written in a figure; the legend breaks its labels between words.
fn words(out: &Path, name: &str) -> String {
    let svg = std::fs::read_to_string(out.join(format!("{name}.svg"))).unwrap();
    svg.lines().filter(|line| !line.starts_with('<')).collect::<Vec<_>>().join(" ").replace("&apos;", "'")
}

fn folders() -> (tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn where_nothing_can_be_drawn_it_says_what_it_could_draw() {
    let (given, out) = folders();
    let said = |header: &str| {
        std::fs::write(given.path().join("history.csv"), format!("{header}\n1,0.5\n2,0.7\n")).unwrap();
        let mut listener = Listener::default();
        let inputs = [("histories", given.path().to_owned())];
        crate::testing::run_with(&mut listener, &Plot, "", &inputs, out.path()).unwrap();
        listener.said
    };
    let none = said("epoch,reward");
    assert!(
        none.len() == 1 && none[0].starts_with("nothing was drawn: of `histories` it draws `train_loss`")
    );
    assert_eq!(std::fs::read_to_string(out.path().join(LIST)).unwrap().trim(), "[]");
    assert!(said("epoch,test_loss").is_empty());
}

/// A mode that knows no `k` has one training, however many values a sweep or a matrix gave it.
#[test]
fn one_training_counts_once_whatever_k_it_has() {
    let (given, out) = folders();
    let (mut inputs, mut random) = (Vec::new(), Vec::new());
    for seed in 0..2 {
        let one = run(given.path(), "resnet14", "bn", seed, 0.4 + f64::from(seed) * 0.2, 1120);
        let other = run(given.path(), "resnet14", "random", seed, 0.3, 1120);
        for k in 1..4 {
            let with = |input: &Input| {
                let mut input = input.clone();
                input.axes.insert("k".into(), toml::Value::Integer(k));
                input
            };
            inputs.push(with(&one));
            random.push(with(&other));
        }
    }
    inputs.append(&mut random);
    draw(inputs, "", out.path()).unwrap();
    let table = std::fs::read_to_string(out.path().join("table.md")).unwrap();
    assert!(table.contains("| BatchNorm only | 1,120 | 50.00 | 14.14 | 2 |"), "{table}");
    // Of these the files say that k is 2: the axes do not agree, and all count.
    assert!(table.contains("| as many random weights | 1,120 | 30.00 | 0.00 | 6 |"), "{table}");
}

#[test]
fn every_figure_has_title_axes_legend_number_of_runs_and_caption() {
    let (given, out) = folders();
    let list = draw(made_up(given.path()), "published = [\"paper\"]", out.path()).unwrap();
    let names: Vec<&str> = list.iter().map(|entry| &*entry.name).collect();
    for (name, texts) in [
        (
            "accuracy-by-depth",
            &[
                "Test accuracy by depth",
                "depth of the ResNet",
                "top-1 test accuracy (%)",
                "ours: BatchNorm only (n = 2)",
                "as many random weights",
                "paper: everything",
                "866",
            ][..],
        ),
        ("accuracy-by-width", &["14-1", "14-32", "paper: BatchNorm only"]),
        ("affine-by-depth", &["everything but BatchNorm (n = 2)"]),
        ("switches-by-width", &["output and shortcuts (n = 2)", "paper: output and shortcuts"]),
        ("budget", &["trained BatchNorm values", "deeper and deeper ResNets (n =", "wider and wider", "2 k"]),
        (
            "accuracy-by-trained",
            &["trained values (log scale)", "everything (n = 2)", "output and shortcuts (n = 2)"],
        ),
        (
            "loss-curves-resnet32",
            &[
                "Loss of ResNet-32 during training",
                "epoch",
                "cross-entropy loss (nats)",
                "BatchNorm only, test (n = 2)",
            ],
        ),
        ("accuracy-curves-resnet14-2", &["Accuracy of ResNet-14-2", "top-1 accuracy (%)"]),
        ("gamma-resnet14", &["gamma", "density", "BatchNorm only (n = 2)"]),
        ("small-gamma-by-depth", &["share of scales (%)", "BatchNorm only, below 0.05 (n ="]),
        ("zeroing-by-depth", &["change of test accuracy (points)", "everything, below 0.1 (n = 2)"]),
        ("dead-by-width", &["dead channels (%)", "behind"]),
        (
            "size-by-depth",
            &["kilobytes (log scale)", "checkpoint: BatchNorm only", "all numbers of the network"],
        ),
        ("memory-resnet14-paper", &["batch (images)", "buffers (MB)", "images fit 1 GiB"]),
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
        let text = words(out.path(), name);
        for part in texts {
            assert!(text.contains(part), "{name} has no `{part}` in {text}");
        }
        not_blank(&out.path().join(format!("{name}.png")));
    }
    assert_eq!(names[0], "accuracy-by-depth", "the main figure stands first");
    assert!(list.iter().all(|entry| entry.caption.ends_with('.') && !entry.title.is_empty()), "{list:?}");
    let gamma = list.iter().find(|entry| entry.name == "gamma-resnet14").unwrap();
    assert!(gamma.caption.contains("The narrow peak at 1"), "{}", gamma.caption);
    assert!(list[0].caption.contains("arXiv 2003.00152v1") && list[0].caption.contains("standard deviation"));
    let table = std::fs::read_to_string(out.path().join("table.md")).unwrap();
    assert!(table.contains("| ResNet-32 | BatchNorm only | 2,464 | 62.00 | 2.83 | 2 |"), "{table}");
    let parameters = std::fs::read_to_string(out.path().join("parameters.md")).unwrap();
    assert!(
        parameters.contains("| ResNet-14 | paper | 175,258 | 1,120 | 0.64 | 192 | 650 | 2,560 |"),
        "{parameters}"
    );
    let memory = std::fs::read_to_string(out.path().join("memory.md")).unwrap();
    let heads = "| network | variant | trained | 64 images (MB) | 128 images (MB) | most images in 1 GiB |\n";
    assert!(memory.starts_with(heads), "{memory}");
    assert!(memory.contains("| ResNet-14 | paper | BatchNorm only | 120 | 240 | 512 |\n"), "{memory}");
    assert_eq!(memory.matches("| ResNet-14 | paper | BatchNorm only |").count(), 1, "seeds take the same");
}

fn not_blank(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert!(pixels.iter().any(|p| *p != 255), "{} is blank", path.display());
}

#[test]
fn more_random_weights_make_a_curve_beside_the_level_of_batch_norm() {
    let (given, out) = folders();
    let mut inputs = vec![run(given.path(), "resnet14", "bn", 0, 0.5, 1120)];
    for k in [1, 4, 16] {
        let input = run(given.path(), "resnet14", "random", k, f64::from(k) * 0.03, 560);
        let text = std::fs::read_to_string(input.dir.join("metrics.json")).unwrap();
        std::fs::write(input.dir.join("metrics.json"), text.replace("\"k\":2", &format!("\"k\":{k}")))
            .unwrap();
        inputs.push(input);
    }
    let list = draw(inputs, "figures = [\"random-k\"]", out.path()).unwrap();
    assert_eq!(list.len(), 1);
    let svg = std::fs::read_to_string(out.path().join("random-k-resnet14.svg")).unwrap();
    assert!(svg.contains("BatchNorm only (n = 1)") && svg.contains("k random weights of each"), "{svg}");
}

#[test]
fn stages_with_the_same_axes_are_lines_of_their_own() {
    let (given, out) = folders();
    let mut inputs = vec![
        run(given.path(), "resnet14", "bn", 0, 0.5, 1120),
        run(given.path(), "resnet14", "bn", 1, 0.4, 1120),
    ];
    inputs[1].axes = inputs[0].axes.clone();
    inputs[0].instance = "evaluate[arch=resnet14]".into();
    inputs[1].instance = "undecayed[arch=resnet14]".into();
    draw(inputs, "figures = [\"accuracy\"]", out.path()).unwrap();
    let table = std::fs::read_to_string(out.path().join("table.md")).unwrap();
    assert!(table.contains("BatchNorm only, stage undecayed | 1,120 | 40.00 | – | 1 |"), "{table}");
}

#[test]
fn nothing_given_is_nothing_drawn() {
    let (_, out) = folders();
    assert_eq!(draw(Vec::new(), "", out.path()).unwrap(), []);
    assert_eq!(draw(Vec::new(), "figures = [\"gamma\"]", out.path()).unwrap(), []);
}

#[test]
fn a_single_run_is_drawn_without_a_band() {
    let (given, out) = folders();
    let list = draw(vec![run(given.path(), "resnet14", "bn", 0, 0.5, 1120)], "", out.path()).unwrap();
    assert!(list.iter().any(|entry| entry.name == "accuracy-by-depth"));
    assert!(list.iter().all(|entry| !entry.caption.contains("standard deviation")), "{list:?}");
}

#[test]
fn a_diverged_training_leaves_a_gap_and_no_panic() {
    let (given, out) = folders();
    let inputs = made_up(given.path());
    for input in &inputs {
        std::fs::write(input.dir.join("history.csv"), "epoch,train_loss\n1,2.0\n2,NaN\n3,inf\n").unwrap();
    }
    let list = draw(inputs, "", out.path()).unwrap();
    assert!(list.iter().any(|entry| entry.name == "loss-curves-resnet14"));
    assert!(list.iter().all(|entry| !entry.name.starts_with("accuracy-curves")));
}

#[test]
fn a_damaged_history_is_named_with_its_line() {
    let (given, out) = folders();
    let inputs = made_up(given.path());
    std::fs::write(inputs[0].dir.join("history.csv"), "epoch,rate\n1,0.1\n2\n").unwrap();
    let error = draw(inputs, "", out.path()).unwrap_err();
    assert!(error.message.contains("history.csv of `train[resnet14,all,0]`, line 3"), "{}", error.message);
}

#[test]
fn an_unknown_source_or_a_figure_named_twice_is_refused_before_anything_runs() {
    for (key, given) in [
        ("published", "published = [\"nobody\"]"),
        ("figures", "figures = [\"dead\", \"accuracy\", \"dead\"]"),
    ] {
        let errors = Plot.resolve(&given.parse().unwrap()).unwrap_err();
        assert_eq!(errors[0].key, key);
    }
}

#[test]
fn the_bytes_of_a_small_chart() {
    let look = Look {
        color: plotters::style::RGBColor(0, 114, 178),
        dashes: Dashes::Long,
        marker: Marker::Square,
        hollow: true,
    };
    let chart = Chart {
        title: "A <small> chart".into(),
        x: Axis::words("network", vec!["14".into(), "32".into()]),
        y: Axis::linear("accuracy (%)"),
        series: vec![Series {
            label: "BatchNorm only".into(),
            look,
            points: vec![(0.0, 48.0, Some(1.0)), (1.0, 57.0, Some(1.5))],
        }],
        rows: false,
    };
    insta::assert_snapshot!(chart.svg().unwrap());
}

#[test]
fn lines_over_a_single_network_become_rows() {
    let (given, out) = folders();
    let runs = ["bn", "all"].map(|mode| run(given.path(), "resnet14", mode, 0, 0.5, 1120));
    let again = run(given.path(), "resnet14", "bn", 1, 0.6, 1120);
    let list =
        draw([&runs[..], &[again]].concat(), "figures = [\"dead\", \"accuracy\"]", out.path()).unwrap();
    assert_eq!(list[0].title, "Dead features: ResNet-14");
    assert!(list[1].caption.ends_with("bars one standard deviation to each side."), "{list:?}");
    let svg = std::fs::read_to_string(out.path().join("accuracy-by-depth.svg")).unwrap();
    assert!(svg.contains("BatchNorm only (n = 2)") && svg.contains("everything (n = 1)"), "{svg}");
    // One legend less: the plot is as wide as the picture.
    let right = svg.lines().filter_map(|line| line.split(" x2=\"").nth(1)?.split('"').next()?.parse().ok());
    assert!(right.max().unwrap_or(0) > 950, "{svg}");
}

#[test]
fn the_papers_networks_and_the_origins_are_drawn_apart() {
    let (given, out) = folders();
    let mut inputs = Vec::new();
    let runs = [("paper", "bn"), ("origin", "bn"), ("paper", "all"), ("origin", "all")];
    for (seed, (variant, mode)) in (0_u8..).zip(runs) {
        let mut input = run(given.path(), "resnet110", mode, seed, 0.5 + 0.1 * f64::from(seed), 8096);
        input.axes.insert("variant".into(), variant.into());
        inputs.push(input);
    }
    let figures = "figures = ['accuracy', 'accuracy-curves']\npublished = ['paper', 'origin']\nremark = 'GUESSING it is.'";
    let list = draw(inputs.clone(), figures, out.path()).unwrap();
    let names: Vec<_> = list.iter().map(|entry| &*entry.name).collect();
    let expected = [
        "accuracy-by-depth-paper",
        "accuracy-by-depth-origin",
        "accuracy-curves-resnet110-paper",
        "accuracy-curves-resnet110-origin",
    ];
    assert_eq!(names, expected);
    assert_eq!(list[0].title, "Test accuracy by depth (the paper's network)");
    let caption = &list[0].caption;
    assert!(caption.contains("(10 % is guessing") && caption.ends_with("GUESSING it is."), "{caption}");
    let text = |name: &str| words(out.path(), name);
    let (papers, origins) = (text(expected[0]), text(expected[1]));
    assert!(papers.contains("ours: BatchNorm only (n = 1)"), "{papers}");
    assert!(papers.contains("paper: everything") && !papers.contains("origin:"), "{papers}");
    assert!(origins.contains("origin: BatchNorm only") && !origins.contains("paper:"), "{origins}");
    let (papers, origins) = (text(expected[2]), text(expected[3]));
    assert!(papers.contains("paper: BatchNorm, output and shortcuts"), "{papers}");
    assert!(!origins.contains("paper:"), "{origins}");
    let table = std::fs::read_to_string(out.path().join("table.md")).unwrap();
    let rows: Vec<_> =
        table.lines().skip(2).map(|row| row.split(" | ").take(3).collect::<Vec<_>>()).collect();
    let row = |variant, trained| vec!["| ResNet-110", variant, trained];
    assert_eq!(
        rows,
        [
            row("paper", "everything"),
            row("paper", "BatchNorm only"),
            row("origin", "everything"),
            row("origin", "BatchNorm only"),
        ]
    );
    // One variant alone needs no word of it.
    let list = draw(inputs.into_iter().step_by(2).collect(), figures, out.path()).unwrap();
    assert_eq!(list[0].name, "accuracy-by-depth");
}

#[test]
fn a_band_ends_where_a_single_run_says_nothing_of_spread() {
    let (given, out) = folders();
    let of = |arch: &str, seed: u8| run(given.path(), arch, "bn", seed, 0.5 + 0.01 * f64::from(seed), 1120);
    let several = |arch| [0, 1, 2].map(|seed| of(arch, seed));
    let inputs = [&several("resnet8")[..], &[of("resnet14", 0)], &several("resnet20"), &several("resnet32")];
    let list = draw(inputs.concat(), "figures = [\"accuracy\"]", out.path()).unwrap();
    let words = "Lines and marks are means over n seeds, bands and bars one standard deviation.";
    assert!(list[0].caption.ends_with(words), "{list:?}");
    let svg = std::fs::read_to_string(out.path().join("accuracy-by-depth.svg")).unwrap();
    let bands = svg.lines().filter(|line| line.starts_with("<polygon opacity=\"0.18\""));
    let corners = bands.filter_map(|line| {
        Some(line.split("points=\"").nth(1)?.split('"').next()?.split_whitespace().count())
    });
    assert_eq!(corners.collect::<Vec<_>>(), [4], "from ResNet-20 to ResNet-32: {svg}");
}

#[test]
fn one_number_of_random_weights_is_shown_whatever_it_is() {
    let (given, out) = folders();
    let input = run(given.path(), "resnet14", "random", 0, 0.3, 2240);
    let path = input.dir.join("metrics.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"k\":2", "\"k\":4")).unwrap();
    draw(vec![input], "figures = [\"accuracy\"]", out.path()).unwrap();
    let svg = std::fs::read_to_string(out.path().join("accuracy-by-depth.svg")).unwrap();
    assert!(svg.contains("4 random weights of each filter"), "{svg}");
}

#[test]
fn widths_stand_with_the_narrowest_network_of_their_depth() {
    let (given, out) = folders();
    let of = |arch: &str| run(given.path(), arch, "bn", 0, 0.5, 1120);
    let inputs = ["resnet8", "resnet14", "resnet8-2", "resnet8-4"].map(of).to_vec();
    draw(inputs, "figures = [\"accuracy\"]", out.path()).unwrap();
    let svg = std::fs::read_to_string(out.path().join("accuracy-by-width.svg")).unwrap();
    let words: Vec<_> = svg.lines().filter(|line| ["8-1", "8-2", "8-4", "14-1"].contains(line)).collect();
    assert_eq!(words, ["8-1", "8-2", "8-4"], "{svg}");
}

#[test]
fn without_evaluations_there_is_no_table_of_them() {
    let (given, out) = folders();
    let input = run(given.path(), "resnet14", "bn", 0, 0.5, 1120);
    std::fs::remove_file(input.dir.join("metrics.json")).unwrap();
    let list = only("memory", vec![input], out.path());
    assert_eq!(list[0].name, "memory-resnet14-paper");
    assert!(!out.path().join("table.md").exists());
}
