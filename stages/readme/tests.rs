use super::*;

fn result_and_project(readme: &str) -> (tempfile::TempDir, tempfile::TempDir) {
    let (result, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let list = r#"[{"name":"loss-curves","title":"Loss","caption":"How wrong."}]"#;
    for (name, text) in [
        (LIST, list),
        ("table.md", "| a |\n|---|\n"),
        ("claims.md", "| claim |\n"),
        ("loss-curves.svg", "<svg/>"),
    ] {
        fs::write(result.path().join(name), text).unwrap();
    }
    fs::write(project.path().join("README.md"), readme).unwrap();
    (result, project)
}

fn params(text: &str) -> Params {
    Readme.resolve(&text.parse().unwrap()).unwrap()
}

#[test]
fn blocks_are_replaced_once_and_then_left_alone() {
    let text =
        "top\n<!-- repro:table -->old<!-- /repro:table -->\n<!-- repro:figures --><!-- /repro:figures -->end";
    let (result, project) = result_and_project(text);
    let publish = || Readme.publish(&params("publish = true"), result.path(), project.path()).unwrap();
    assert_eq!(publish(), [PathBuf::from("README.md"), "docs/figures/loss-curves.svg".into()]);
    let written = fs::read_to_string(project.path().join("README.md")).unwrap();
    assert!(
        written.starts_with("top\n<!-- repro:table -->\n\n| a |\n|---|\n\n<!-- /repro:table -->"),
        "{written}"
    );
    assert!(written.contains("![Loss](docs/figures/loss-curves.svg)\n\n*How wrong.*"), "{written}");
    assert!(!written.contains("old") && written.ends_with("end"), "{written}");
    assert!(publish().is_empty());
}

#[test]
fn several_pages_and_stages_keep_their_blocks_apart() {
    let (result, project) = result_and_project("<!-- repro:table -->mine<!-- /repro:table -->");
    fs::create_dir(project.path().join("docs")).unwrap();
    let page = "<!-- repro:depth/claims --><!-- /repro:depth/claims --><!-- repro:depth/figures --><!-- /repro:depth/figures -->";
    fs::write(project.path().join("docs/results.md"), page).unwrap();
    let params = params("publish = true\nname = \"depth\"\npages = [\"README.md\", \"docs/results.md\"]");
    Readme.publish(&params, result.path(), project.path()).unwrap();
    let read = |name: &str| fs::read_to_string(project.path().join(name)).unwrap();
    assert_eq!(read("README.md"), "<!-- repro:table -->mine<!-- /repro:table -->");
    assert!(read("docs/results.md").contains("| claim |"), "{}", read("docs/results.md"));
    assert!(read("docs/results.md").contains("![Loss](figures/depth/loss-curves.svg)"));
    assert_eq!(read("docs/figures/depth/loss-curves.svg"), "<svg/>");
}

#[test]
fn without_publish_the_readme_stays() {
    let (result, project) = result_and_project("<!-- repro:table --><!-- /repro:table -->");
    assert!(!Readme.publishes(&params("")));
    assert!(Readme.publish(&params(""), result.path(), project.path()).unwrap().is_empty());
}

#[test]
fn a_block_without_end_is_an_error_that_changes_nothing() {
    let (result, project) = result_and_project("<!-- repro:table -->\nmine");
    let error = Readme.publish(&params("publish = true"), result.path(), project.path()).unwrap_err();
    assert!(error.message.contains("README.md has") && error.message.contains("no `<!-- /repro:table -->`"));
    let left = fs::read_to_string(project.path().join("README.md")).unwrap();
    assert_eq!(left, "<!-- repro:table -->\nmine");
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let errors = Readme.resolve(&"name = \"../up\"".parse().unwrap()).unwrap_err();
    assert_eq!(errors[0].key, "name");
}

/// The pages of this repository say what its committed results and its benchmark report say.
#[test]
fn the_committed_pages_are_those_of_the_committed_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let result = root.join("artifacts/hour/page");
    let params = params("publish = true\npages = [\"README.md\", \"docs/results.md\"]");
    let project = tempfile::tempdir().unwrap();
    let mut files = vec![PathBuf::from("README.md"), "docs/results.md".into()];
    files.extend(
        list(&result).unwrap().iter().map(|entry| Path::new(FIGURES).join(format!("{}.svg", entry.name))),
    );
    for file in &files {
        let copy = project.path().join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(root.join(file), copy).unwrap();
    }
    let changed = Readme.publish(&params, &result, project.path()).unwrap();
    assert!(changed.is_empty(), "{changed:?} differ: run `repro run --profile hour page`");
    let report = Path::new("benches/compare.json");
    let speed = speed::table(&read(&root.join(report)).unwrap(), report).unwrap();
    assert_eq!(read(&result.join("speed.md")).unwrap(), speed, "run `repro run --profile hour page`");
}
