use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use engine::{
    kind::Input,
    pipeline::{LoadOptions, load},
};

use super::*;
use crate::testing::{Listener, with_inputs};

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

/// Publishes, and says what changed.
fn publish(params: &Params, result: &Path, project: &Path) -> Result<Vec<PathBuf>, StageError> {
    let remove = |place: &Path| {
        fs::remove_file(place).unwrap();
        Ok(None)
    };
    let mut changed = Vec::new();
    engine::publish::publish(&Readme, params, result, project, &remove, &mut |path, _| changed.push(path))?;
    Ok(changed)
}

#[test]
fn a_figure_that_does_not_lie_beside_its_list_is_refused() {
    let (result, project) = result_and_project("<!-- repro:figures --><!-- /repro:figures -->");
    fs::write(project.path().join("logo.svg"), "<svg/>").unwrap();
    for name in ["../logo", "/logo", "a/b", "..", ""] {
        let list = format!(r#"[{{"name":"{name}","title":"t","caption":"c"}}]"#);
        fs::write(result.path().join(LIST), list).unwrap();
        let error = publish(&params("publish = true"), result.path(), project.path()).unwrap_err();
        assert!(error.message.ends_with("is not the name of a file beside it"), "{}", error.message);
    }
}

#[test]
fn blocks_are_replaced_once_and_then_left_alone() {
    let text = "top\n<!-- repro:table -->old<!-- /repro:table -->\n<!-- repro:figures --><!-- /repro:figures -->\n<!-- repro:figure --><!-- /repro:figure -->end";
    let (result, project) = result_and_project(text);
    let publish = || publish(&params("publish = true"), result.path(), project.path()).unwrap();
    assert_eq!(publish(), [PathBuf::from("README.md"), "docs/figures/loss-curves.svg".into()]);
    let written = fs::read_to_string(project.path().join("README.md")).unwrap();
    assert!(
        written.starts_with("top\n<!-- repro:table -->\n\n| a |\n|---|\n\n<!-- /repro:table -->"),
        "{written}"
    );
    let figure = "![Loss](docs/figures/loss-curves.svg)\n\n*How wrong.*\n\n<!-- /repro:figure";
    assert!(
        written.contains(&format!("{figure}s -->")) && written.contains(&format!("{figure} -->")),
        "{written}"
    );
    assert!(!written.contains("old") && written.ends_with("end"), "{written}");
    assert!(publish().is_empty());
    // One that is there twice is replaced twice.
    fs::write(
        project.path().join("README.md"),
        format!("{written}\n<!-- repro:table --><!-- /repro:table -->"),
    )
    .unwrap();
    assert_eq!(publish(), [PathBuf::from("README.md")]);
    assert_eq!(fs::read_to_string(project.path().join("README.md")).unwrap().matches("| a |").count(), 2);
}

#[test]
fn several_pages_and_stages_keep_their_blocks_apart() {
    let (result, project) = result_and_project("<!-- repro:table -->mine<!-- /repro:table -->");
    fs::create_dir(project.path().join("docs")).unwrap();
    let page = "<!-- repro:depth/claims --><!-- /repro:depth/claims --><!-- repro:depth/figures --><!-- /repro:depth/figures -->";
    fs::write(project.path().join("docs/results.md"), page).unwrap();
    publish(&params("publish = true"), result.path(), project.path()).unwrap();
    let readme = fs::read_to_string(project.path().join("README.md")).unwrap();
    let params = params("publish = true\nname = \"depth\"\npages = [\"./docs/results.md\"]");
    publish(&params, result.path(), project.path()).unwrap();
    let read = |name: &str| fs::read_to_string(project.path().join(name)).unwrap();
    assert_eq!(read("README.md"), readme);
    assert!(read("docs/results.md").contains("| claim |"), "{}", read("docs/results.md"));
    assert!(read("docs/results.md").contains("![Loss](figures/depth/loss-curves.svg)"));
    assert_eq!(read("docs/figures/depth/loss-curves.svg"), "<svg/>");
}

#[test]
fn a_page_without_a_block_of_the_stage_is_an_error_with_a_way_out_that_changes_nothing() {
    let text = "<!-- repro:table --><!-- /repro:table -->";
    let (result, project) = result_and_project(text);
    let params = params("publish = true\nname = 'depth'");
    let error = publish(&params, result.path(), project.path()).unwrap_err();
    assert_eq!(error.message, "`README.md` has no block of this stage, such as `<!-- repro:depth/table -->`");
    assert!(error.hint.unwrap().ends_with("or take the page out of `pages`"));
    assert_eq!(fs::read_to_string(project.path().join("README.md")).unwrap(), text);
    assert!(!project.path().join(FIGURES).exists());
}

#[test]
fn figures_that_are_no_longer_made_are_removed_and_nothing_else_is() {
    let (result, project) = result_and_project(
        "<!-- repro:a/table --><!-- /repro:a/table --><!-- repro:table --><!-- /repro:table -->",
    );
    let figures = project.path().join(FIGURES);
    for (folder, files) in
        [("", ["old.svg", "note.md"]), ("a", ["old.svg", "loss-curves.svg.png"]), ("b", ["old.svg", "x"])]
    {
        fs::create_dir_all(figures.join(folder)).unwrap();
        files.iter().for_each(|file| fs::write(figures.join(folder).join(file), "").unwrap());
    }
    let publish = |text: &str| publish(&params(text), result.path(), project.path()).unwrap();
    let changed = publish("publish = true\nname = 'a'");
    assert_eq!(changed[2..], [PathBuf::from("docs/figures/a/old.svg")], "{changed:?}");
    assert!(publish("publish = true\nname = 'a'").is_empty());
    assert!(figures.join("old.svg").exists());
    assert_eq!(publish("publish = true")[2..], [PathBuf::from("docs/figures/old.svg")]);
    for left in ["note.md", "loss-curves.svg", "a/loss-curves.svg", "a/loss-curves.svg.png", "b/old.svg"] {
        assert!(figures.join(left).exists(), "{left}");
    }
}

#[test]
fn without_publish_the_readme_stays() {
    let (result, project) = result_and_project("<!-- repro:table --><!-- /repro:table -->");
    assert_eq!(Readme.publishes(&params("")), None);
    assert!(publish(&params(""), result.path(), project.path()).unwrap().is_empty());
}

#[test]
fn what_changed_before_a_page_that_cannot_be_written_is_told() {
    let block = "<!-- repro:table --><!-- /repro:table -->";
    let (result, project) = result_and_project(block);
    fs::create_dir_all(project.path().join("docs/figures/loss-curves.svg")).unwrap();
    let (mut told, nothing) = (Vec::new(), |_: &Path| Ok(None));
    let params = params("publish = true");
    let mut tell = |path: PathBuf, change| told.push((path, change));
    let done = engine::publish::publish(&Readme, &params, result.path(), project.path(), &nothing, &mut tell);
    let error = done.unwrap_err();
    assert_eq!(told, [(PathBuf::from("README.md"), engine::publish::Change::Wrote)], "{error}");
}

#[test]
fn a_block_without_end_is_an_error_that_changes_nothing() {
    let (result, project) = result_and_project("<!-- repro:table -->\nmine");
    let error = publish(&params("publish = true"), result.path(), project.path()).unwrap_err();
    assert!(error.message.contains("README.md has") && error.message.contains("no `<!-- /repro:table -->`"));
    let left = fs::read_to_string(project.path().join("README.md")).unwrap();
    assert_eq!(left, "<!-- repro:table -->\nmine");
}

#[test]
fn a_table_that_only_a_clone_lacks_is_not_left_out() {
    let (result, out) = result_and_project("");
    let page = |absent: &str| {
        let (instance, dir) = ("plot".to_owned(), result.path().to_owned());
        let input = Input { instance, axes: BTreeMap::new(), dir, absent: vec![absent.to_owned()] };
        let inputs = BTreeMap::from([("figures".to_owned(), vec![input])]);
        with_inputs(&mut Listener::default(), &Readme, "", &inputs, out.path(), |job| Readme.run(job))
    };
    let told = "`plot` has no memory.md here, though it was locked with one";
    assert_eq!(page("memory.md").unwrap_err().message, told);
    page("loss-curves.png").unwrap();
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let errors = Readme.resolve(&"name = \"../up\"".parse().unwrap()).unwrap_err();
    assert_eq!(errors[0].key, "name");
    let errors = Readme.resolve(&"pages = ['a.md', '../b.md', '/c.md']".parse().unwrap()).unwrap_err();
    assert_eq!(errors.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["pages"; 2]);
    assert!(errors[1].message.starts_with("`pages` has `/c.md`"), "{}", errors[1].message);
}

/// The parameters and results of the stages of this repository that publish, in every pipeline and profile, as
/// far as there are results.
fn committed(root: &Path) -> Vec<(Params, PathBuf)> {
    let folder = fs::read_dir(root.join("experiments")).unwrap().map(|entry| entry.unwrap().path());
    let files = folder.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut found = Vec::new();
    for file in files.chain([root.join("pipeline.toml")]) {
        let table: toml::Table = read(&file).unwrap().parse().unwrap();
        let profiles = table.get("profile").and_then(toml::Value::as_table).into_iter();
        for profile in iter::once(None).chain(profiles.flat_map(toml::Table::keys).cloned().map(Some)) {
            let options = LoadOptions { file: file.clone(), profile, sets: Vec::new() };
            let pipeline =
                load(&options, &crate::kinds()).unwrap_or_else(|error| panic!("{:?}", error.diagnostics));
            for page in pipeline.instances.iter().filter(|page| page.kind.name() == Readme.name()) {
                let result = root.join("artifacts").join(&pipeline.namespace).join(&page.stage);
                if Readme.publishes(&page.params).is_some() && result.exists() {
                    found.push((page.params.clone(), result));
                }
            }
        }
    }
    found
}

/// The pages of this repository say what its committed results and its benchmark report say.
#[test]
fn the_committed_pages_are_those_of_the_committed_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let project = tempfile::tempdir().unwrap();
    let figures = walkdir::WalkDir::new(root.join(FIGURES)).into_iter().map(|entry| entry.unwrap());
    let figures = figures.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
    for file in figures.chain(["README.md", "docs/results.md"].map(|page| root.join(page))) {
        let copy = project.path().join(file.strip_prefix(root).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    let mut shown = BTreeSet::new();
    for (params, result) in committed(root) {
        let changed = publish(&params, &result, project.path()).unwrap();
        assert!(changed.is_empty(), "{changed:?} differ from `{}`", result.display());
        let ReadmeParams { pages, name, .. } = read_params(&params).unwrap();
        let made = TABLES.iter().map(|(table, _)| *table);
        let made = made.filter(|table| result.join(format!("{table}.md")).exists());
        for block in made.chain(["figure", "figures"]) {
            let [open, _] = blocks::markers(&name, block);
            shown.extend(pages.iter().map(|page| (page.clone(), open.clone())));
        }
    }
    assert!(!shown.is_empty());
    for page in ["README.md", "docs/results.md"].map(PathBuf::from) {
        let text = read(&root.join(&page)).unwrap();
        for (at, _) in text.match_indices("<!-- repro:") {
            let end = text[at..].find("-->").expect("the end of a marker") + "-->".len();
            let block = text[at..at + end].to_owned();
            assert!(
                shown.contains(&(page.clone(), block.clone())),
                "no committed result makes `{block}` of {page:?}"
            );
        }
    }
    let report = Path::new("benches/compare.json");
    let speed = speed::table(&read(&root.join(report)).unwrap(), report).unwrap();
    let said = read(&root.join("artifacts/hour/page/speed.md")).unwrap();
    assert_eq!(said, speed, "run `repro run --profile hour page`");
    let report = Path::new("benches/gpu.json");
    let card = card::table(&read(&root.join(report)).unwrap(), report).unwrap();
    let said = read(&root.join("artifacts/hour/page/card.md")).unwrap();
    assert_eq!(said, card, "run `repro run --profile hour page`");
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    files
}

/// From what git has, without the checkpoints.
#[test]
fn the_committed_claims_and_figures_are_those_of_the_committed_evaluations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let file = root.join("experiments/overnight.toml");
    let options = LoadOptions { file, profile: Some("jpeg".to_owned()), sets: Vec::new() };
    let pipeline = load(&options, &crate::kinds()).unwrap_or_else(|error| panic!("{:?}", error.diagnostics));
    let results = root.join("artifacts").join(&pipeline.namespace);
    for name in ["claims", "plot"] {
        let stage = pipeline.instances.iter().find(|instance| instance.stage == name).unwrap();
        let mut inputs = BTreeMap::<String, Vec<Input>>::new();
        for need in &stage.needs {
            let from = &pipeline.instances[need.from];
            let axes = from.name[from.stage.len()..].trim_start_matches('[').trim_end_matches(']');
            let (instance, dir) = (from.name.clone(), results.join(&from.stage).join(axes));
            let input = Input { instance, axes: from.axes.clone(), dir, absent: Vec::new() };
            inputs.entry(need.role.clone()).or_default().push(input);
        }
        let (kind, params) = (&*stage.kind, stage.params.recipe.to_string());
        let (out, mut listener) = (tempfile::tempdir().unwrap(), Listener::default());
        with_inputs(&mut listener, kind, &params, &inputs, out.path(), |job| kind.run(job)).unwrap();
        let (made, committed) = (files(out.path()), files(&results.join(name)));
        let mut differ: BTreeSet<_> = made.keys().chain(committed.keys()).collect();
        differ.retain(|file| made.get(*file) != committed.get(*file));
        let again = format!("repro run -f experiments/overnight.toml --profile jpeg {name}");
        assert!(differ.is_empty(), "{differ:?} of `{name}` are not what today's code makes: run `{again}`");
    }
}
