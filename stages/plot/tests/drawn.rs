//! Charts as data: which there are, how their lines look, what they show.

use super::*;
use crate::results::Apart;

/// The drawings of `figure` from evaluations, beside what `sources` published.
fn drawings(inputs: Vec<Input>, figure: Figure, sources: &[&str]) -> Vec<Drawing> {
    let out = tempfile::tempdir().unwrap();
    let inputs = [("metrics".to_owned(), inputs)].into();
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
