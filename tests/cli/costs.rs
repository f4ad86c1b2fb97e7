//! What the experiments cost, estimated from the measured speeds of `benches/compare.json` and `benches/gpu.json` and
//! what the pipelines train. The files say it in their first lines, and a file that says something else fails here: by more
//! than a tenth, which is what one measurement differs from the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use engine::instance::{Instance, Pipeline};
use network::{
    arch::{Graph, Variant},
    cost,
    mode::Mode,
};

use super::experiments::{expanded, files, param};

/// Images of CIFAR-10.
const TRAIN: f64 = 50_000.0;
const TEST: f64 = 10_000.0;
const BATCH: u64 = 128;

/// A speed on one thread, or on a card.
struct Speed {
    arch: String,
    variant: String,
    mode: String,
    trains: bool,
    images_per_second: f64,
    /// Operations for an image.
    flop: f64,
}

/// Float32 at the protocol's batch, the median of each measurement.
fn speeds() -> Vec<Speed> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare.json"));
    let sections: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&text.expect("a report")).expect("a report of benches/compare.py");
    let results = sections.values().flat_map(|section| section["results"].as_array().expect("a list"));
    let wanted = |r: &&serde_json::Value| {
        let kept = r.get("memory").is_none(); // with less memory a step takes longer
        kept && r["program"] == "repro" && r["precision"] == "f32" && r["threads"] == 1 && r["batch"] == BATCH
    };
    let text = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
    let speed = |r: &serde_json::Value| {
        let runs = r["runs"].as_array().expect("a list");
        let rates = runs.iter().map(|run| run["images_per_second"].as_f64().expect("a number"));
        let mut rates: Vec<_> = rates.collect();
        rates.sort_by(f64::total_cmp);
        let [arch, variant, mode] = ["arch", "variant", "mode"].map(|key| text(&r[key]));
        let trains = r["pass"] == "train";
        let flop = flop(&arch, &variant, &mode, trains);
        let images_per_second = (rates[(rates.len() - 1) / 2] + rates[rates.len() / 2]) / 2.0;
        Speed { arch, variant, mode, trains, images_per_second, flop }
    };
    results.filter(wanted).map(speed).collect()
}

/// Of one training in float32 on the card that was measured. How fast it evaluates was not: an image to test counts
/// like one to learn from in mode `bn`.
fn card_speeds() -> Vec<Speed> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu.json"));
    let report: serde_json::Value =
        serde_json::from_str(&text.expect("a report")).expect("a report of benches/gpu.sh");
    let steps = report["steps"].as_object().expect("a table").values().map(|step| &step["result"]);
    let ours = steps.filter(|r| {
        r["instances"] == 1 && r["engine"].as_str().is_some_and(|engine| engine.ends_with(", f32"))
    });
    let word = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
    let speeds = ours.flat_map(|r| {
        let [arch, variant, mode] = ["arch", "variant", "mode"].map(|key| word(&r[key]));
        let images_per_second = r["images_per_second"].as_f64().expect("a number");
        let passes: &[bool] = if mode == "bn" { &[true, false] } else { &[true] };
        let speed = |&trains: &bool| {
            let flop = flop(&arch, &variant, &mode, trains);
            let [arch, variant, mode] = [&arch, &variant, &mode].map(Clone::clone);
            Speed { arch, variant, mode, trains, images_per_second, flop }
        };
        passes.iter().map(speed).collect::<Vec<_>>()
    });
    speeds.collect()
}

/// Were its networks measured on a card, or at least narrower, deeper or shallower ones of the same kind?
fn card_knows(pipeline: &Pipeline) -> bool {
    let mut models = pipeline.instances.iter().filter(|instance| instance.kind.name() == "model");
    models.all(|model| {
        let arch = param(model, "arch");
        param(model, "variant") == "paper" && arch.starts_with("resnet") && !arch.contains('-')
    })
}

/// The measured mode that takes as long: filters train, k weights of each do, or at most BatchNorm, the
/// output layer and the shortcuts.
fn measured(mode: &str) -> &str {
    match mode {
        "all" | "all-but-bn" | "origin-random" => "all",
        "random" => "random",
        _ => "bn",
    }
}

/// Operations for an image.
fn flop(arch: &str, variant: &str, mode: &str, trains: bool) -> f64 {
    let variant: Variant = variant.parse().expect("a variant");
    let set = mode.parse::<Mode>().expect("a mode").train_set(variant, 2);
    let graph = Graph::new(arch.parse().expect("a network"), variant, 10);
    let count = if trains { cost::Operation::step } else { |operation: &cost::Operation| operation.forward };
    cost::operations(&graph, &set).iter().map(count).sum::<u64>() as f64
}

/// Seconds for an image: those of the measured network of its family that is nearest in arithmetic, times
/// how much more arithmetic it is.
fn seconds(speeds: &[Speed], arch: &str, variant: &str, mode: &str, trains: bool) -> f64 {
    let family = |arch: &str| arch.trim_end_matches(|c: char| !c.is_alphabetic()).to_owned();
    let like = |mode: &str| {
        let own = flop(arch, variant, mode, trains);
        let alike = speeds.iter().filter(|s| {
            // What a wide network takes says nothing of deep ones.
            let fits = family(&s.arch) == family(arch) && (arch.contains('-') || !s.arch.contains('-'));
            fits && s.variant == variant && s.mode == mode && s.trains == trains
        });
        let ratios = alike.map(|s| (own / s.flop, s.images_per_second));
        ratios.min_by(|a, b| a.0.ln().abs().total_cmp(&b.0.ln().abs())).map(|(ratio, speed)| ratio / speed)
    };
    // Random weights of a VGG were not measured: training every weight takes longer.
    let found = like(mode).or_else(|| like("all"));
    found.unwrap_or_else(|| {
        panic!("benches/compare.json has no speed of anything like {arch}, {variant}, by which to tell costs")
    })
}

/// Hours on one thread by mode, of the trainings with the first seed.
fn hours(speeds: &[Speed], pipeline: &Pipeline) -> BTreeMap<String, f64> {
    let mut counted = BTreeMap::<_, f64>::new();
    let seed = |i: &Instance| i.axes.get("seed").and_then(toml::Value::as_integer).unwrap_or(0);
    for instance in pipeline.instances.iter().filter(|i| i.kind.name() == "train" && seed(i) == 0) {
        let model = instance.needs.iter().find(|need| need.role == "model").expect("a model").from;
        let model = &pipeline.instances[model];
        let epochs = instance.params.recipe["epochs"].as_integer().expect("a number") as f64;
        let what = (param(model, "arch"), param(model, "variant"), param(instance, "mode"));
        *counted.entry(what).or_default() += epochs;
    }
    let mut by_mode = BTreeMap::new();
    for ((arch, variant, mode), epochs) in counted {
        let train = seconds(speeds, &arch, &variant, measured(&mode), true);
        let test = seconds(speeds, &arch, &variant, "bn", false);
        *by_mode.entry(mode).or_insert(0.0) += epochs * (TRAIN * train + TEST * test) / 3600.0;
    }
    by_mode
}

/// With two digits that mean something, and a comma between thousands.
fn round(hours: f64) -> String {
    if hours < 9.95 {
        return format!("{hours:.1}");
    }
    let unit = 10f64.powf(hours.log10().floor() - 1.0);
    let number = ((hours / unit).round() * unit) as u64;
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

fn total(by_mode: &BTreeMap<String, f64>) -> String {
    format!("{} CPU-hours a seed", round(by_mode.values().sum()))
}

/// The number that `text` begins with, commas between thousands left out, and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let inside = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let len = text.find(|c| !inside(c)).unwrap_or(text.len());
    let digits = text[..len].trim_end_matches(['.', ',']);
    Some((digits.replace(',', "").parse().ok()?, &text[digits.len()..]))
}

/// Does `text` begin with `expected`, its numbers within a tenth?
fn begins(text: &str, expected: &str) -> bool {
    match (number(text), number(expected)) {
        (Some((said, text)), Some((true_one, expected))) => {
            (said - true_one).abs() <= 0.1 * true_one && begins(text, expected)
        }
        (None, None) => match (text.chars().next(), expected.chars().next()) {
            (_, None) => true,
            (a, Some(c)) => a == Some(c) && begins(&text[c.len_utf8()..], &expected[c.len_utf8()..]),
        },
        _ => expected.is_empty(),
    }
}

/// Does `text` say `expected`, its numbers within a tenth?
fn says(text: &str, expected: &str) -> bool {
    text.char_indices().any(|(at, _)| begins(&text[at..], expected))
}

#[test]
fn a_cost_may_differ_by_a_tenth_and_no_more() {
    assert!(says("# Cost: 1,200 CPU-hours (`bn` 9.9), twice", "Cost: 1,150 CPU-hours (`bn` 10)"));
    assert!(!says("# Cost: 1,200 CPU-hours (`bn` 9.9)", "Cost: 1,000 CPU-hours (`bn` 10)"));
    assert!(!says("# Cost: 1,200 CPU-hours (`all` 10)", "Cost: 1,200 CPU-hours (`bn` 10)"));
}

#[test]
fn the_experiments_say_what_they_cost_at_the_measured_speeds() {
    let (speeds, card) = (speeds(), card_speeds());
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results.md"));
    let (page, mut wrong) = (page.expect("a readable page"), Vec::new());
    for file in files() {
        let source = fs::read_to_string(&file).expect("a readable file");
        let comment = source.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let comment = comment.collect::<Vec<_>>().join(" ");
        let mut check = |place: &str, text: &str, expected: String| {
            if !says(text, &expected) {
                wrong.push(format!("{place}: {expected}"));
            }
        };
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let path = format!("experiments/{name}");
        let pipeline = expanded(&file, None, &[]);
        let by_mode = hours(&speeds, &pipeline);
        if by_mode.is_empty() {
            check(&path, &comment, "Cost: seconds".into());
            continue;
        }
        let modes: Vec<_> =
            by_mode.iter().map(|(mode, hours)| format!("`{mode}` {}", round(*hours))).collect();
        check(&path, &comment, format!("Cost: {} ({})", total(&by_mode), modes.join(", ")));
        let on_card = if card_knows(&pipeline) {
            let minutes = 60.0 * hours(&card, &pipeline).values().sum::<f64>();
            format!("On an H100, in float32: {} GPU-minutes a seed", round(minutes))
        } else {
            "GPU-minutes".to_owned()
        };
        check(&path, &comment, on_card);
        let sum = round(by_mode.values().sum());
        check("docs/results.md", &page, format!("| `repro run -f {path}` | {sum} |"));
        // What a part of it costs.
        for set in comment.split("With -S '").skip(1).filter_map(|rest| rest.split('\'').next()) {
            let part = hours(&speeds, &expanded(&file, None, &[set]));
            check(&path, &comment, format!("With -S '{set}': {}", total(&part)));
        }
    }
    let origin = expanded(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline.toml"), Some("jpeg"), &[]);
    let row = format!("| `repro run --profile jpeg` | {} |", round(hours(&speeds, &origin).values().sum()));
    if !says(&page, &row) {
        wrong.push(format!("docs/results.md: {row}"));
    }
    assert!(wrong.is_empty(), "these should stand in the files' first comments:\n{}", wrong.join("\n"));
}

/// What a claim speaks of: every table of its rule that names a mode.
fn quantities(rule: &toml::Table) -> Vec<&toml::Table> {
    let tables = rule.values().filter_map(toml::Value::as_table);
    tables
        .flat_map(|table| if table.contains_key("mode") { vec![table] } else { quantities(table) })
        .collect()
}

/// Is there a result of `quantity` at `network`?
fn is_made(pipeline: &Pipeline, quantity: &toml::Table, network: &str, variant: &str) -> bool {
    let word = |key: &str| quantity.get(key).and_then(toml::Value::as_str);
    let network = word("network").unwrap_or(network);
    let kind = if matches!(word("of"), Some("buffers" | "largest-batch")) { "memory" } else { "evaluate" };
    pipeline.instances.iter().filter(|instance| instance.kind.name() == kind).any(|instance| {
        let axis = |key: &str| instance.axes.get(key).and_then(toml::Value::as_str);
        // Of an evaluation, the model is a need of the training.
        let mut from = instance;
        while let Some(need) = from.needs.iter().find(|need| ["train", "model"].contains(&&*need.role)) {
            from = &pipeline.instances[need.from];
        }
        axis("arch") == Some(network) && axis("mode") == word("mode") && param(from, "variant") == variant
    })
}

#[test]
fn each_claim_names_a_command_that_settles_it_and_what_that_costs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("stages/claims/claims.toml")).expect("the claims");
    let all: toml::Table = text.parse().expect("TOML");
    let list =
        |key: &str| all[key].as_array().expect("a list").iter().map(|of| of.as_table().expect("a table"));
    let word = |table: &toml::Table, key: &str| table[key].as_str().expect("a word").to_owned();
    let words = |value: &toml::Value| -> Vec<String> {
        let words =
            value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned());
        words.collect()
    };
    let (speeds, mut wrong) = (speeds(), Vec::new());
    for command in list("command") {
        let (id, sets) = (word(command, "id"), words(&command["sets"]));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let pipeline = expanded(&root.join(word(command, "file")), None, &sets);
        assert!(pipeline.instances.iter().any(|instance| instance.kind.name() == "claims"), "{id}");
        let seeds = pipeline.instances.iter().filter_map(|instance| instance.axes.get("seed"));
        let seeds = seeds.map(ToString::to_string).collect::<BTreeSet<_>>().len();
        let hours = hours(&speeds, &pipeline).values().sum::<f64>() * seeds as f64;
        let (number, unit) = if hours < 1.0 { (60.0 * hours, "minutes") } else { (hours, "hours") };
        let cost = format!("{} CPU-{unit}", round(number));
        if !says(&word(command, "cost"), &cost) {
            wrong.push(format!("the cost of `{id}` is \"{cost}\""));
        }
        for claim in list("claim").filter(|claim| word(claim, "settled_by") == id) {
            let networks = claim.get("networks").map_or_else(|| vec![String::new()], words);
            let rule = claim["rule"].as_table().expect("a rule");
            let whole = |network: &&String| {
                quantities(rule).iter().all(|of| is_made(&pipeline, of, network, &word(claim, "variant")))
            };
            let least = claim
                .get("least")
                .map_or(networks.len() as i64, |least| least.as_integer().expect("a number"));
            let made = networks.iter().filter(whole).count() as i64;
            let wanted = claim.get("seeds").map_or(1, |seeds| seeds.as_integer().expect("a number"));
            if wanted > seeds as i64 {
                wrong.push(format!("`{id}` leaves `{}` open: {seeds} of {wanted} seeds", word(claim, "id")));
            }
            if made < least {
                wrong.push(format!("`{id}` leaves `{}` open: {made} of {least} networks", word(claim, "id")));
            }
        }
    }
    assert!(wrong.is_empty(), "stages/claims/claims.toml:\n{}", wrong.join("\n"));
}

#[test]
fn a_network_that_was_not_measured_costs_what_its_arithmetic_says() {
    let speeds = speeds();
    let seconds = |arch: &str| seconds(&speeds, arch, "paper", "bn", true);
    let of = |arch: &str| flop(arch, "paper", "bn", true);
    let ratio = seconds("resnet866") / seconds("resnet218");
    assert!((ratio - of("resnet866") / of("resnet218")).abs() < 1e-9, "{ratio}");
    assert_eq!([2.96, 38.4, 1234.0].map(round), ["3.0", "38", "1,200"]);
}
