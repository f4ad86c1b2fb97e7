//! What `run --dry-run` and `status` say will fail or be refused does, and nothing else.

use std::fs;

use crate::project::TestProject;

const READS: &str =
    "[stage.one]\nkind = \"command\"\ndeps = [\"data\"]\nrun = \"cat data > $OUT/x\"\noutputs = [\"x\"]\n";

const PAGE: &str = r#"
[stage.model]
kind = "model"
arch = "resnet8"

[stage.memory]
kind = "memory"
needs = { model = "model" }

[stage.plot]
kind = "plot"
needs = { memory = "memory" }

[stage.page]
kind = "readme"
publish = true
needs = { figures = "plot" }
"#;

/// A project with a page that shows its results.
pub(crate) fn page() -> TestProject {
    let project = TestProject::new(PAGE);
    project.write(
        "README.md",
        "<!-- repro:memory --><!-- /repro:memory -->\n<!-- repro:figures --><!-- /repro:figures -->\n",
    );
    project.ends(&["run"], 0);
    assert_eq!(project.ends(&["status"], 0).out, "4 fresh\n");
    project
}

#[test]
fn what_would_run_without_a_file_that_it_reads_is_told_to_fail() {
    let project = TestProject::new(READS);
    project.write("data", "1");
    project.ends(&["run"], 0);
    fs::remove_file(project.path("data")).unwrap();
    fs::remove_dir_all(project.path(".repro")).unwrap();
    let forced = ["run", "--allow-missing", "--force"];
    let plan = project.ends(&[&forced[..], &["-n"]].concat(), 0).out;
    assert!(plan.starts_with("fail     one: it reads `data`: "), "{plan}");
    assert!(plan.ends_with("\n1 will fail\n"), "{plan}");
    project.ends(&forced, 1);
}

#[test]
fn a_page_that_cannot_be_written_is_told_to_fail() {
    let project = page();
    project.write("README.md", "no block");
    let plan = project.ends(&["run", "-n"], 0).out;
    assert!(plan.starts_with("fail     page: `README.md` has no block of this stage"), "{plan}");
    assert!(plan.ends_with("\n1 will fail, 3 fresh\n"), "{plan}");
    project.ends(&["run"], 1);
}

#[test]
fn a_page_of_which_a_clone_lacks_figures_is_told_to_fail() {
    let project = page();
    fs::remove_dir_all(project.path(".repro")).unwrap();
    let svg = |entry: &walkdir::DirEntry| entry.path().extension().is_some_and(|end| end == "svg");
    let place = project.path("artifacts/page");
    let figures: Vec<_> = walkdir::WalkDir::new(&place).into_iter().flatten().filter(svg).collect();
    assert!(!figures.is_empty());
    figures.iter().for_each(|figure| fs::remove_file(figure.path()).unwrap());
    let plan = project.ends(&["run", "--allow-missing", "-n"], 0).out;
    assert!(plan.starts_with("fail     page: cannot read `"), "{plan}");
    let status = project.ends(&["status", "--allow-missing"], 0).out;
    assert!(status.starts_with("stale      page: cannot read `"), "{status}");
    let run = project.ends(&["run", "--allow-missing"], 1);
    assert!(run.err.contains("error: `page`: cannot read `"), "{}", run.err);
}

#[test]
fn to_write_a_page_again_takes_nothing_of_a_damaged_cache() {
    let project = page();
    project.edit("README.md", "| ResNet-8 | paper |", "| ResNet-8 | mine |");
    for entry in walkdir::WalkDir::new(project.path(".repro/objects")).into_iter().flatten() {
        if entry.file_type().is_file() {
            let size = entry.metadata().unwrap().len() as usize;
            fs::remove_file(entry.path()).unwrap();
            fs::write(entry.path(), "x".repeat(size)).unwrap();
        }
    }
    let plan = project.ends(&["run", "-n"], 0).out;
    assert!(plan.starts_with("restore  page: `README.md` does not show it; a run writes it\n"), "{plan}");
    assert!(project.ends(&["run"], 0).out.starts_with("4 fresh in "));
}

#[test]
fn a_lock_file_with_conflict_marks_is_refused_before_and_named_by_status() {
    let project = TestProject::new(READS);
    project.write("data", "1");
    project.ends(&["run"], 0);
    let lock = project.read("pipeline.lock");
    project.write("pipeline.lock", &format!("<<<<<<< ours\n{lock}"));
    for words in [&["run"][..], &["run", "-n"]] {
        let told = project.ends(words, 2).err;
        assert!(told.contains("pipeline.lock` cannot be read: line 1"), "{told}");
    }
    let status = project.ends(&["status"], 0);
    assert_eq!(status.out, "1 fresh\n");
    assert!(
        status.err.contains("`repro run` refuses that\nhelp: resolve the conflict in it"),
        "{}",
        status.err
    );
}

#[test]
fn what_a_failure_that_is_foreseen_may_stop_is_not_promised() {
    let project = TestProject::new(
        &[("early", "here"), ("fails", "nowhere"), ("late", "here")]
            .map(|(name, file)| {
                READS.replace("one", name).replace("data", file).replace("cat", &format!(": {name}; cat"))
            })
            .concat(),
    );
    project.write("here", "1");
    let fails = "fail     fails: it reads `nowhere`: ";
    let told = |words: &[&str], lines: [&str; 3]| {
        let plan = project.ends(&[&["run", "-n"], words].concat(), 0).out;
        assert!(plan.starts_with(lines[0]) && plan.contains(lines[1]) && plan.ends_with(lines[2]), "{plan}");
        assert!(plan.contains(fails), "{plan}");
    };
    let none = ["maybe    early: never ran\n", "maybe    late: never ran\n"];
    told(&[], [none[0], none[1], "\n1 will fail, 2 may not be reached without `-k`\n"]);
    assert!(project.ends(&["run"], 1).out.starts_with("failed 1, 2 not reached in "));
    let both = ["run      early: never ran\n", "run      late: never ran\n"];
    told(&["-k"], [both[0], both[1], "\n2 will run, 1 will fail\n"]);
    assert!(project.ends(&["run", "-k"], 1).out.starts_with("ran 2, failed 1 in "));
    // What is only put in its place is, up to the first that fails.
    fs::remove_dir_all(project.path("artifacts")).unwrap();
    let some = ["restore  early: ", "\nmaybe    late: "];
    told(&[], [some[0], some[1], "\n1 will be restored, 1 will fail, 1 may not be reached without `-k`\n"]);
    assert!(project.ends(&["run"], 1).out.starts_with("restored 1, failed 1, 1 not reached in "));
}
