//! Charts as data: which there are, how their lines look, what they show.

use super::{settings::setting, *};
use crate::results::Apart;

/// The drawings of `figure` from evaluations, trainings and their memory, beside what `sources` published.
fn drawings(inputs: Vec<Input>, figure: Figure, sources: &[&str]) -> Vec<Drawing> {
    let out = tempfile::tempdir().unwrap();
    let roles = ["metrics", "histories", "memory"];
    let inputs = roles.map(|role| (role.to_owned(), inputs.clone())).into();
    let read = |job: &mut Job<'_>| Results::read(job, Apart::Lines);
    let results = with_inputs(&mut Listener::default(), &Plot, "", &inputs, out.path(), read).unwrap();
    let sources: Vec<_> = sources.iter().map(|&source| source.to_owned()).collect();
    let published = published::published(&sources).unwrap();
    figure.draw(&Given { results: &results, published: &published, remark: "" })
}

#[test]
fn a_network_alone_in_its_family_is_drawn_unless_another_family_shows_it() {
    let given = tempfile::tempdir().unwrap();
    let of = |arch: &str| run(given.path(), arch, "bn", 0, 0.5, 1120);
    let [shallow, wide, vgg] = ["resnet14", "resnet14-2", "vgg11"].map(of);
    let names = |inputs: &[&Input], figure, sources: &[&str]| -> Vec<String> {
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        drawings(inputs, figure, sources).into_iter().map(|drawing| drawing.name).collect()
    };
    let accuracy = |inputs: &[&Input], sources| names(inputs, Figure::Accuracy, sources);
    // Only published numbers make several depths.
    assert_eq!(accuracy(&[&shallow, &vgg], &["paper"]), ["accuracy-by-depth", "accuracy-by-vgg"]);
    assert_eq!(accuracy(&[&shallow, &wide], &[]), ["accuracy-by-width"]);
    assert_eq!(names(&[&shallow, &wide, &vgg], Figure::Dead, &[]), ["dead-by-width", "dead-by-vgg"]);
}

#[test]
fn lines_of_more_than_one_setting_look_different_in_the_figure_of_the_budget() {
    let given = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (arch, trained) in
        [("resnet14", 1120), ("resnet32", 2464), ("resnet14-2", 2240), ("resnet14-4", 4480)]
    {
        for (seed, decay) in [(0, "0.0"), (1, "0.0001")] {
            let mut input = run(given.path(), arch, "bn", seed, 0.5, trained);
            input.axes.insert("weight_decay".into(), decay.into());
            inputs.push(input);
        }
    }
    let looks = |inputs: &[Input]| -> Vec<Look> {
        let drawing = drawings(inputs.to_vec(), Figure::Budget, &[]).remove(0);
        drawing.chart.series.iter().map(|series| series.look).collect()
    };
    let all = looks(&inputs);
    assert_eq!(all.len(), 4);
    for (index, look) in all.iter().enumerate() {
        assert!(!all[..index].contains(look), "{all:?}");
    }
    // One setting alone: the families have markers of their own.
    let plain: Vec<_> = inputs.into_iter().step_by(2).collect();
    let markers: Vec<_> = looks(&plain).iter().map(|look| look.marker).collect();
    assert_eq!(markers, [Marker::Circle, Marker::Square]);
}

#[test]
fn scales_that_a_figure_leaves_out_count_and_are_told() {
    let given = tempfile::tempdir().unwrap();
    let inputs: Vec<_> =
        [0, 1].map(|seed| run(given.path(), "resnet14", "bn", seed, 0.5, 1120)).into_iter().collect();
    let drawn = |inputs: &[Input]| drawings(inputs.to_vec(), Figure::Gamma, &[]).remove(0);
    let inside =
        |drawing: &Drawing| -> f64 { drawing.chart.series[0].points.iter().map(|point| point.1 * 0.5).sum() };
    let whole = drawn(&inputs);
    assert!((inside(&whole) - 1.0).abs() < 1e-9);
    assert!(whole.caption.contains("No scale lies below -1 or above 1."), "{}", whole.caption);
    let file = inputs[1].dir.join("gamma.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let none = "\"below\":0,\"above\":0";
    assert!(text.contains(none));
    std::fs::write(&file, text.replace(none, "\"below\":2,\"above\":6")).unwrap();
    let part = drawn(&inputs);
    assert!((inside(&part) - 0.75).abs() < 1e-9, "half of them with one of two seeds");
    let told = "Scales below -1 or above 1 are left out: 50.0 % of a network's at most.";
    assert!(part.caption.contains(told), "{}", part.caption);
}

#[test]
fn memory_says_once_whose_network_it_is() {
    let (given, out) = folders();
    let mut inputs = Vec::new();
    for (seed, variant) in [(0, "paper"), (1, "origin")] {
        let mut input = run(given.path(), "resnet14", "bn", seed, 0.5, 1120);
        input.axes.insert("variant".into(), variant.into());
        let file = input.dir.join("memory.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("\"paper\"", &format!("\"{variant}\""))).unwrap();
        inputs.push(input);
    }
    let list = only("memory", inputs, out.path());
    assert_eq!(list.len(), 2);
    let table = std::fs::read_to_string(out.path().join("memory.md")).unwrap();
    assert!(table.contains("| ResNet-14 | origin | BatchNorm only | 120 |"), "{table}");
    let svg = std::fs::read_to_string(out.path().join("memory-resnet14-origin.svg")).unwrap();
    assert!(svg.contains("(origin)") && !svg.contains("origin&apos;s"), "{svg}");
}

/// A run with numbers of its own in every file: `n` and 8, 16 and 24 more, as they are or by 32.
fn own(root: &Path, arch: &str, mode: &str, n: u32) -> Input {
    let input = run(root, arch, mode, 0, 0.5, 500 * u64::from(n * n));
    let [a, b, c, d] = [0, 8, 16, 24].map(|more| f64::from(n + more) / 32.0);
    let history = format!(
        "epoch,train_loss,train_accuracy,test_loss,test_accuracy\n1,{},{a},{},{b}\n2,{n},{c},{},{d}\n",
        n + 16,
        n + 24,
        n + 8
    );
    let gammas = serde_json::json!({
        "all": { "below_001": a, "below_005": b, "below_01": c },
        "histogram": { "from": -1.0, "to": 1.0, "counts": [1], "below": 0, "above": 0 },
        "zeroing": [
            { "threshold": 0.01, "change": -a },
            { "threshold": 0.05, "change": -b },
            { "threshold": 0.1, "change": -c },
        ],
    });
    let features = serde_json::json!({
        "all": { "dead_99": a },
        "after_bn": { "dead_99": b },
        "after_addition": { "dead_99": c },
    });
    let memory = serde_json::json!({
        "arch": arch,
        "mode": mode,
        "variant": "paper",
        "buffers": [{ "batch": 64, "bytes": n * 1_000_000 }, { "batch": 128, "bytes": n * 3_000_000 }],
    });
    let metrics = std::fs::read_to_string(input.dir.join("metrics.json")).unwrap();
    for (name, text) in [
        ("history.csv", history),
        ("gamma.json", gammas.to_string()),
        ("features.json", features.to_string()),
        ("memory.json", memory.to_string()),
        ("metrics.json", metrics.replace("705512", &format!("{}", n * 1_000_000))),
    ] {
        std::fs::write(input.dir.join(name), text).unwrap();
    }
    input
}

/// A series by its label, with x and y of its points.
type Numbers = (String, Vec<(f64, f64)>);

fn numbers(inputs: &[Input], figure: Figure, sources: &[&str]) -> Vec<Numbers> {
    let drawings = drawings(inputs.to_vec(), figure, sources).into_iter();
    let numbers = |Series { label, points, .. }: Series| -> Numbers {
        (label.replace('\u{a0}', " "), points.into_iter().map(|(x, mean, _)| (x, mean)).collect())
    };
    drawings.flat_map(|drawing| drawing.chart.series).map(numbers).collect()
}

#[test]
fn figures_show_these_numbers() {
    let given = tempfile::tempdir().unwrap();
    let runs = [("resnet14", "all"), ("resnet14", "bn"), ("resnet32", "all"), ("resnet32", "bn")];
    let runs = runs.into_iter().zip(1..).map(|((arch, mode), n)| own(given.path(), arch, mode, n));
    let runs: Vec<_> = runs.collect();
    let series =
        |label: String, x: [f64; 2], y: [f64; 2]| -> Numbers { (label, x.into_iter().zip(y).collect()) };

    // Of each network in turn.
    let [accuracy, loss] = [
        [
            28.125, 78.125, 3.125, 53.125, 31.25, 81.25, 6.25, 56.25, 34.375, 84.375, 9.375, 59.375, 37.5,
            87.5, 12.5, 62.5,
        ],
        [25.0, 9.0, 17.0, 1.0, 26.0, 10.0, 18.0, 2.0, 27.0, 11.0, 19.0, 3.0, 28.0, 12.0, 20.0, 4.0],
    ];
    for (figure, values) in [(Figure::AccuracyCurves, accuracy), (Figure::LossCurves, loss)] {
        let lines =
            ["everything, test", "everything, train", "BatchNorm only, test", "BatchNorm only, train"]
                .map(|line| format!("{line} (n = 1)"));
        let lines = lines.iter().cycle().zip(values.chunks_exact(2));
        let expected = lines.map(|(line, values)| series(line.clone(), [1.0, 2.0], [values[0], values[1]]));
        assert_eq!(numbers(&runs, figure, &[]), expected.collect::<Vec<_>>(), "{figure:?}");
    }

    // Of ResNet-14, then of ResNet-32.
    let thresholds = ["below 0.01", "below 0.05", "below 0.1"];
    let parts = ["all channels", "behind BatchNorm", "behind an addition"];
    for (figure, parts, sign) in [
        (Figure::Dead, parts, 1.0),
        (Figure::SmallGamma, thresholds, 1.0),
        (Figure::Zeroing, thresholds, -1.0),
    ] {
        let of = |mode: &str, values: [[f64; 2]; 3]| {
            let all = parts.into_iter().zip(values);
            let all = all.map(|(part, values)| {
                series(format!("{mode}, {part} (n = 1)"), [0.0, 1.0], values.map(|value| sign * value))
            });
            all.collect::<Vec<_>>()
        };
        let everything = of("everything", [[3.125, 9.375], [28.125, 34.375], [53.125, 59.375]]);
        let norms = of("BatchNorm only", [[6.25, 12.5], [31.25, 37.5], [56.25, 62.5]]);
        assert_eq!(numbers(&runs, figure, &[]), [everything, norms].concat(), "{figure:?}");
    }
    let sizes = [
        ("checkpoint: everything", [2.0, 18.0]),
        ("checkpoint: BatchNorm only", [8.0, 32.0]),
        ("all numbers of the network", [1000.0, 3000.0]),
    ];
    let sizes = sizes.map(|(label, values)| series(label.into(), [0.0, 1.0], values));
    assert_eq!(numbers(&runs, Figure::Size, &[]), sizes);

    let buffers = [
        ("everything", [1.0, 3.0]),
        ("BatchNorm only", [2.0, 6.0]),
        ("everything", [3.0, 9.0]),
        ("BatchNorm only", [4.0, 12.0]),
    ];
    let buffers = buffers.map(|(label, values)| series(label.into(), [64.0, 128.0], values));
    assert_eq!(numbers(&runs, Figure::Memory, &[]), buffers);
}

#[test]
fn rows_of_an_ablation_have_their_own_numbers() {
    let given = tempfile::tempdir().unwrap();
    let settings = [
        ("a", 0.5, ["origin", "fixed", "variant", "0.0"]),
        ("b", 0.515625, ["origin", "uniform", "variant", "0.0"]),
        ("c", 0.53125, ["origin", "uniform", "trained", "0.0001"]),
        ("d", 0.5625, ["paper", "uniform", "variant", "0.0001"]),
        ("e", 0.546875, ["paper", "uniform", "variant", "0.0"]),
    ];
    let runs = settings.map(|(name, top1, settings)| setting(given.path(), name, top1, settings));
    // From the paper's settings to the origin's, as another test has it.
    let ours = [56.25, 53.125, 54.6875, 51.5625, 50.0];
    let ours: Vec<(f64, f64)> = [0.0, 1.0, 2.0, 3.0, 4.0].into_iter().zip(ours).collect();
    let expected = [
        ("ours: BatchNorm only (n = 1)".to_owned(), ours),
        ("paper: BatchNorm only".to_owned(), vec![(0.0, 57.6)]),
        ("origin: BatchNorm only".to_owned(), vec![(4.0, 49.6)]),
    ];
    assert_eq!(numbers(&runs, Figure::Ablation, &["paper", "origin"]), expected);
}
