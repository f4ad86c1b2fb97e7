//! What the README says in its own words is what its tables say, which come from results and reports; and its pipeline
//! is one.

use std::{fs, path::Path};

use crate::project::TestProject;

fn page() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    page.expect("a readable page")
}

/// The rows of the table in the block `name`, without its head: their cells.
fn rows(page: &str, name: &str) -> Vec<Vec<String>> {
    let (open, close) = (format!("<!-- repro:{name} -->"), format!("<!-- /repro:{name} -->"));
    let block = page.split(&open).nth(1).and_then(|rest| rest.split(&close).next()).expect("a block");
    let lines = block.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.map(cells).collect()
}

#[test]
fn the_readme_says_in_words_what_its_tables_say() {
    let page = page();
    let accuracies = rows(&page, "overnight/table");
    let top1 = |network: &str, trained: &str| {
        let row = accuracies.iter().find(|row| row[..3] == [network, "paper", trained]).expect("a row");
        row[4].parse::<f64>().expect("a number")
    };
    let speeds = rows(&page, "speed");
    let ratios = |trained: &str| {
        let of = speeds.iter().filter(|row| row[2] == trained);
        let ratios = of.map(|row| row[6].trim_matches('*').parse::<f64>().expect("a number"));
        let ratios: Vec<f64> = ratios.collect();
        let (least, most) =
            (ratios.iter().copied().reduce(f64::min), ratios.iter().copied().reduce(f64::max));
        format!("{:.1} to {:.1}", least.expect("a row"), most.expect("a row"))
    };
    let judged = rows(&page, "overnight/claims");
    let headline =
        judged.iter().find(|row| row[0] == "1" && row[1].starts_with("`repro run")).expect("a command");
    let trained = |trained: &str| {
        let row = accuracies.iter().find(|row| row[..3] == ["ResNet-110", "origin", trained]).expect("a row");
        row[3].replace(',', "").parse::<u64>().expect("a number")
    };
    let depth = include_str!("../../experiments/depth.toml");
    let a_seed = depth
        .split("# Cost: ")
        .nth(1)
        .and_then(|rest| rest.split(" CPU-hours a seed").next())
        .expect("a cost");
    let shallow =
        include_str!("../../stages/claims/claims.toml").split("id = \"shallow\"").nth(1).expect("a command");
    let shallow = shallow.split('"').find(|text| text.ends_with(" CPU-hours")).expect("a cost");
    let claims = &judged.iter().find(|row| row[0] == "all").expect("a row")[1];
    let bn = "BatchNorm only";
    let said = [
        format!(
            "BatchNorm alone takes ResNet-14 to {:.1} % and ResNet-32 to {:.1} % test accuracy",
            top1("ResNet-14", bn),
            top1("ResNet-32", bn)
        ),
        format!(
            "training as many random weights takes ResNet-14 to {:.1} % (one seed; BatchNorm frozen as drawn) and training everything to {:.1} %",
            top1("ResNet-14", "as many random weights"),
            top1("ResNet-14", "everything")
        ),
        format!(
            "with BatchNorm only {} times as fast as PyTorch on the same processor in float32 (everything trained: {})",
            ratios(bn),
            ratios("everything")
        ),
        format!("[{claims} claims about CIFAR-10](#results)"),
        format!("it takes [{}](#results)", headline[2]),
        format!("that is {} values more", trained("as many random weights") - trained("BatchNorm only")),
        format!("# {shallow}; the whole file is five seeds of {a_seed}"),
    ];
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for sentence in said {
        assert!(words.contains(&sentence), "README.md should say: {sentence}");
    }
}

#[test]
fn the_readmes_own_pipeline_is_understood() {
    let page = page();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let project = TestProject::new("");
    fs::create_dir(project.path("my-images")).expect("a folder");
    project.write("mine.toml", example.expect("an example"));
    let told = project.ends(&["-f", "mine.toml", "status"], 0).out;
    assert!(told.ends_with("3 stale, 8 waiting\n"), "{told}");
    assert!(told.contains("waiting    evaluate[arch=vgg11,mode=all]: "), "{told}");
}
