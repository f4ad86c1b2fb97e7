//! Figures of runs that differ in their settings: rows of an ablation, rows and marks of two settings.

use super::*;

/// A run of the ablation: the paper's or the origin's protocol, or what lies between.
pub(super) fn setting(root: &Path, name: &str, top1: f64, settings: [&str; 4]) -> Input {
    let mut input = run(root, "resnet32", "bn", 0, top1, 2464);
    let dir = root.join(name);
    std::fs::rename(&input.dir, &dir).unwrap();
    for (axis, value) in ["variant", "bn_init", "shortcut_bn", "weight_decay"].into_iter().zip(settings) {
        input.axes.insert(axis.into(), value.into());
    }
    Input { instance: format!("evaluate[{name}]"), dir, ..input }
}

/// Are `words` in `text`, one behind the other?
fn in_order(text: &str, words: &[&str]) {
    let mut rest = text;
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("no `{word}`, or not in its place: {text}"));
        rest = &rest[at..];
    }
}

#[test]
fn an_ablation_has_a_row_for_each_difference_between_the_papers_protocol_and_the_origins() {
    let (given, out) = folders();
    let inputs = vec![
        setting(given.path(), "a", 0.5, ["origin", "fixed", "variant", "0.0"]),
        setting(given.path(), "b", 0.52, ["origin", "uniform", "variant", "0.0"]),
        setting(given.path(), "c", 0.53, ["origin", "uniform", "trained", "0.0001"]),
        setting(given.path(), "d", 0.57, ["paper", "uniform", "variant", "0.0001"]),
        setting(given.path(), "e", 0.56, ["paper", "uniform", "variant", "0.0"]),
    ];
    let params =
        "figures = [\"ablation\"]\npublished = [\"paper\", \"origin\"]\nremark = \"Ours are small.\"";
    let list = draw(inputs.clone(), params, out.path()).unwrap();
    assert_eq!(list[0].name, "ablation-resnet32");
    assert!(list[0].caption.contains("read off the figure to about 0.4 points"), "{}", list[0].caption);
    assert!(list[0].caption.ends_with(". Ours are small."), "{}", list[0].caption);
    let (_, elsewhere) = folders();
    let alone =
        draw(inputs.clone(), "figures = [\"ablation\"]\nremark = \"Ours are small.\"", elsewhere.path());
    assert!(alone.unwrap()[0].caption.ends_with(" Ours are small."), "also beside nobody else's");
    let rows = [
        "the paper's settings",
        "the paper's, but stride 2 in the first stage",
        "the paper's, but no weight decay",
        "the origin's, but scales from U(0, 1)",
        "the origin's settings",
        "paper: BatchNorm only",
        "origin: BatchNorm only",
    ];
    in_order(&words(out.path(), "ablation-resnet32"), &rows);
    // A setting in other words is the same training.
    let again = setting(given.path(), "f", 0.57, ["paper", "uniform", "trained", "0.0001"]);
    let list = draw([&inputs[..], &[again]].concat(), params, out.path()).unwrap();
    assert!(list[0].caption.contains("with one difference at a time in between"), "{list:?}");
    let svg = std::fs::read_to_string(out.path().join("ablation-resnet32.svg")).unwrap();
    assert!(svg.contains("(n = 1)"), "{svg}");
    // No axis tells these seeds.
    let other = setting(given.path(), "h", 0.59, ["paper", "uniform", "trained", "0.0001"]);
    let file = other.dir.join("metrics.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"seed\":0", "\"seed\":1")).unwrap();
    let mut seeds = [&inputs[..], &[other]].concat();
    seeds.iter_mut().for_each(|input| drop(input.axes.remove("seed")));
    let list = draw(seeds, params, out.path()).unwrap();
    assert!(!list[0].caption.contains("One seed each"), "{list:?}");
    let both = setting(given.path(), "g", 0.55, ["paper", "fixed", "variant", "0.0"]);
    let list = draw([&inputs[..], &[both]].concat(), params, out.path()).unwrap();
    assert!(list[0].caption.contains("trained in several ways"), "{list:?}");
    let mut other = inputs;
    other[0].axes.insert("init".into(), "binary".into());
    other[1].axes.insert("init".into(), "he-normal".into());
    assert_eq!(draw(other, params, out.path()).unwrap(), [], "no words for another axis");
}

#[test]
fn two_settings_of_one_training_are_rows_and_marks() {
    let (given, out) = folders();
    let mut inputs = Vec::new();
    for (row, decay) in ["0.0", "0.0001", "0.001"].into_iter().enumerate() {
        for (mark, init) in ["fixed", "uniform"].into_iter().enumerate() {
            let top1 = 0.5 + 0.01 * (3 * row + mark) as f64;
            let settings = ["paper", init, "trained", decay];
            inputs.push(setting(given.path(), &format!("{init}-{decay}"), top1, settings));
        }
    }
    let figures = "figures = [\"accuracy\", \"small-gamma\", \"dead\", \"accuracy-curves\", \"trained\"]";
    let list = draw(inputs.clone(), figures, out.path()).unwrap();
    let titles: Vec<_> = list.iter().map(|entry| &*entry.title).collect();
    let of = "ResNet-32, BatchNorm only (n = 1)".replace(" =", "\u{a0}=").replace("= ", "=\u{a0}");
    assert_eq!(
        titles,
        [
            format!("Test accuracy: {of}"),
            format!("Scales near zero (below 0.01): {of}"),
            format!("Dead features: {of}"),
            "Accuracy of ResNet-32 during training: BatchNorm only".into(),
        ],
        "the same values train in all: nothing to compare"
    );
    let svg = std::fs::read_to_string(out.path().join("accuracy-by-depth.svg")).unwrap();
    let labels = [
        "no weight decay",
        "weight decay 0.0001",
        "weight decay 0.001",
        "scales begin at 1",
        "scales from U(0, 1)",
    ];
    in_order(&words(out.path(), "accuracy-by-depth"), &labels);
    // Accuracies were given so that they rise from row to row, and from the first mark to the second.
    let corner = |line: &str| line.split("points=\"").nth(1)?.split([',', ' ', '"']).next()?.parse().ok();
    let marks: Vec<i32> =
        svg.lines().filter(|line| line.starts_with("<polygon")).filter_map(corner).collect();
    assert!(marks[..3].is_sorted_by(|a, b| a < b) && marks[3..6].is_sorted_by(|a, b| a < b), "{marks:?}");
    assert!(marks[0] < marks[3] && marks[3] < marks[1], "{marks:?}");
    // With another mode among them, labels and lines say what is what.
    inputs.push(run(given.path(), "resnet32", "all", 0, 0.8, 467_194));
    let list = draw(inputs, "figures = [\"accuracy\"]", out.path()).unwrap();
    assert_eq!(list[0].title, "Test accuracy: ResNet-32");
}
