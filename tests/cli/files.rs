//! Files that people have in a project, beside what the runner makes: they are neither lost nor mistaken.

use std::{fs, path::Path, time::SystemTime};

use crate::{dry::page, project::TestProject};

const ONE: &str = "[stage.one]\nkind = \"command\"\noutputs = [\"x\"]\n";

fn with(run: &str) -> TestProject {
    TestProject::new(&format!("{ONE}run = \"{run}\"\n"))
}

#[test]
fn what_a_command_leaves_beside_its_outputs_is_named_and_spreads_nothing() {
    let project = with("date +%N > $OUT/debug.log; mkdir $OUT/d; echo > $OUT/d/e; echo 1 > $OUT/x");
    // Nobody but the superuser may take anything out of that one.
    let shut = "mkdir $OUT/shut; touch $OUT/shut/a; chmod 555 $OUT/shut";
    project.edit("pipeline.toml", "echo 1 > $OUT/x", &format!("echo 1 > $OUT/x; {shut}"));
    project.edit("pipeline.toml", "[\"x\"]", "[\"x\", \"d/e\"]");
    project.edit("pipeline.toml", "echo > $OUT/d/e", "touch $OUT/d/e $OUT/d/f");
    let two = "\n[stage.two]\nkind = \"command\"\nneeds = { one = \"one\" }\nrun = \"cp $IN_ONE/x $OUT\"\noutputs = [\"x\"]\n";
    project.write("pipeline.toml", &(project.read("pipeline.toml") + two));
    let told = project.ends(&["run"], 0).err;
    let dropped = "not among its `outputs`, and so dropped: `d/f`, `debug.log`, `shut`\n";
    assert!(told.contains(&format!("warning: `one`: {dropped}")), "{told}");
    assert!(project.path("artifacts/one/d/e").exists() && !project.path("artifacts/one/debug.log").exists());
    let again = project.ends(&["run", "--force", "one"], 0);
    assert!(again.out.starts_with("ran 1 in ") && !again.err.contains("not reproducible"), "{}", again.err);
    assert!(project.ends(&["run"], 0).out.starts_with("nothing to do: 2 fresh"));
}

#[test]
fn a_stage_whose_output_folder_is_taken_away_is_told_so() {
    let project = with("rm -rf .repro/drafts; echo 1 > x");
    let told = project.ends(&["run"], 1).err;
    let said =
        ["error: `one`: its output folder is gone now\n", "help: leave that folder, and `.repro`, alone"];
    assert!(said.into_iter().all(|said| told.contains(said)), "{told}");
}

#[test]
fn lock_files_are_no_part_of_a_folder_that_a_stage_reads() {
    let project = with("true");
    fs::create_dir(project.path("exp")).unwrap();
    project.write("exp/data", "1");
    let text =
        "[stage.one]\nkind = \"command\"\ndeps = [\"exp\"]\nrun = \"ls exp > $OUT/x\"\noutputs = [\"x\"]\n";
    project.write("exp/a.toml", text);
    project.write("exp/b.toml", &text.replace("one", "two"));
    for file in ["exp/a.toml", "exp/b.toml"] {
        project.ends(&["-f", file, "run"], 0);
    }
    for file in ["exp/a.toml", "exp/b.toml"] {
        let again = project.ends(&["-f", file, "run"], 0).out;
        assert!(again.starts_with("nothing to do: 1 fresh"), "{again}");
    }
    // What somebody else calls so counts.
    project.write("exp/other.lock", "version = 4\n");
    assert!(project.ends(&["-f", "exp/a.toml", "run"], 0).out.starts_with("ran 1 in "));
}

#[test]
fn what_a_link_in_the_output_folder_leads_to_is_not_dropped() {
    for run in [
        "ln -s $PWD/mine $OUT/d; echo > $OUT/d/x",
        "rmdir $OUT; ln -s $PWD/mine $OUT; mkdir -p $OUT/d; echo > $OUT/d/x",
    ] {
        let project = with(run);
        project.edit("pipeline.toml", "[\"x\"]", "[\"d/x\"]");
        fs::create_dir(project.path("mine")).unwrap();
        project.write("mine/notes", "precious");
        let told = project.ends(&["run"], 1).err;
        assert!(
            told.contains("is not a plain file") || told.contains("its output folder is something else now"),
            "{told}"
        );
        assert_eq!(project.read("mine/notes"), "precious");
    }
}

#[test]
fn a_result_that_is_read_as_a_file_is_refused() {
    let project = with("echo 1 > $OUT/x");
    let two = "\n[stage.two]\nkind = \"command\"\nrun = \"cp artifacts/one/x $OUT\"\noutputs = [\"x\"]\ndeps = [\"artifacts/one/x\"]\n";
    project.write("pipeline.toml", &(project.read("pipeline.toml") + two));
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("`two` reads `artifacts/one/x`, a result of `one`"), "{told}");
    assert!(told.contains("write `needs = { one = \"one\" }` instead"), "{told}");
    // Nor a folder in which results lie, its own one among them; a profile has a folder of its own in that.
    project.edit("pipeline.toml", "[\"artifacts/one/x\"]", "[\"./artifacts\"]\n[profile.quick]");
    for words in [&["run"][..], &["run", "--profile", "quick"]] {
        let told = project.ends(words, 2).err;
        assert!(told.contains("`two` reads `artifacts`, in which its own result lies"), "{told}");
        assert!(told.contains("name the stages in `needs` instead"), "{told}");
    }
    let folder = "\n[stage.two]\nkind = \"dataset\"\nsource = \"cifar-binary\"\npath = \"./artifacts/one\"\n";
    project.write("pipeline.toml", &format!("{ONE}run = \"echo 1 > $OUT/x\"\n{folder}"));
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("`two` reads `./artifacts/one/data_batch_1.bin`, a result of `one`"), "{told}");
    assert!(told.contains("write `needs = { files = \"one\" }` instead"), "{told}");
}

#[test]
fn a_result_that_is_read_through_a_link_is_refused() {
    let project = with("echo 1 > $OUT/x");
    let two = "\n[stage.two]\nkind = \"command\"\nrun = \"cat model.txt > $OUT/x\"\noutputs = [\"x\"]\ndeps = [\"model.txt\"]\n";
    project.write("pipeline.toml", &(project.read("pipeline.toml") + two));
    fs::create_dir_all(project.path("links")).unwrap();
    let link = |to: &Path| {
        let _ = fs::remove_file(project.path("model.txt"));
        std::os::unix::fs::symlink(to, project.path("model.txt")).unwrap();
        project.ends(&["status"], 2).err
    };
    std::os::unix::fs::symlink("../artifacts", project.path("links/made")).unwrap();
    let told = "`two` reads `model.txt`, which leads to `artifacts/one/x`, a result of `one`";
    // Nothing is there yet.
    let whole = project.path("artifacts/one/x");
    for to in [Path::new("artifacts/one/x"), Path::new("links/made/one/x"), &whole] {
        let said = link(to);
        assert!(said.contains(told) && said.contains("write `needs = { one = \"one\" }` instead"), "{said}");
    }
    let said = link(Path::new("links/made"));
    assert!(said.contains("which leads to `artifacts`, in which its own result lies"), "{said}");
    assert!(link(Path::new("links/..")).contains("in which its own result lies"));
    // Nor where the results lie somewhere else.
    let far = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(far.path(), project.path("artifacts")).unwrap();
    for to in [Path::new("artifacts/one/x"), &far.path().join("one/x")] {
        let said = link(to);
        assert!(said.contains("which leads to `") && said.contains("one/x`, a result of `one`"), "{said}");
    }
    // All else may be behind a link.
    project.write("links/model.txt", "mine");
    fs::remove_file(project.path("model.txt")).unwrap();
    std::os::unix::fs::symlink("links/model.txt", project.path("model.txt")).unwrap();
    project.ends(&["status"], 0);
}

#[test]
fn what_a_command_made_instead_of_its_outputs_is_named() {
    let project = with("cd $OUT; touch a b c d e f");
    let told = "did not make its output `x`; it left `a`, `b`, `c`, `d`, `e` and 1 more\n";
    assert!(project.ends(&["run"], 1).err.contains(told));
    project.edit("pipeline.toml", "touch a b c d e f", "true");
    let told = project.ends(&["run"], 1).err;
    assert!(told.contains("did not make its output `x`; it left nothing\n"), "{told}");
}

#[test]
fn python_may_leave_its_caches_beside_what_a_stage_reads() {
    let caches = "for i in __pycache__ .pytest_cache; do mkdir -p src/$i; date +%N > src/$i/m; done; cp src/m.py $OUT/x";
    let project = with(caches);
    project.write("pipeline.toml", &(project.read("pipeline.toml") + "deps = [\"./src\"]\n"));
    fs::create_dir(project.path("src")).unwrap();
    project.write("src/m.py", "1");
    project.ends(&["run"], 0);
    project.ends(&["run", "--force"], 0);
    assert!(project.ends(&["run"], 0).out.starts_with("nothing to do"));
    project.write("src/m.py", "2");
    assert!(project.ends(&["run"], 0).out.starts_with("ran 1"));
}

#[test]
fn the_project_is_found_from_its_folders_but_not_from_outside_of_its_repository() {
    let project = with("echo 1 > $OUT/x");
    fs::create_dir_all(project.path("a/b/.git")).unwrap();
    fs::create_dir_all(project.path("a/b/c")).unwrap();
    assert!(project.ends(&["-C", "a", "run"], 0).out.starts_with("ran 1 in "));
    assert!(project.path("artifacts/one/x").exists());
    let told = project.ends(&["-C", "a/b/c", "run"], 2).err;
    assert!(told.contains("cannot read the pipeline file"), "{told}");
}

#[test]
fn git_sees_nothing_of_the_cache() {
    let project = with("echo 1 > $OUT/x");
    project.ends(&["run"], 0);
    assert!(project.read(".repro/.gitignore").lines().any(|line| line == "*"));
}

#[test]
fn status_names_what_was_touched() {
    let project = with("echo 1 > $OUT/x");
    project.ends(&["run"], 0);
    fs::remove_file(project.path("artifacts/one/x")).unwrap();
    let text = project.ends(&["status"], 0).out;
    let missing = text.lines().next().unwrap();
    assert!(
        missing.starts_with("restorable one: `") && missing.contains("artifacts/one/x` is missing; "),
        "{text}"
    );
    let json = project.json(&["status", "--json"], 0);
    assert!(json[0]["reasons"][0].as_str().unwrap().ends_with("is missing"), "{json}");
}

#[test]
fn status_says_which_page_does_not_show_a_result() {
    let project = page();
    let shown = project.read("README.md");
    project.edit("README.md", "| ResNet-8 | paper |", "| ResNet-8 | mine |");
    let told = "page: `README.md` does not show it; a run writes it\n";
    assert!(project.ends(&["status"], 0).out.starts_with(&format!("restorable {told}")));
    assert!(project.ends(&["run", "-n"], 0).out.starts_with(&format!("restore  {told}")));
    project.ends(&["status", "-q"], 1);
    assert!(project.ends(&["run"], 0).out.starts_with("4 fresh in"));
    assert_eq!(project.read("README.md"), shown);
    // A figure where the stage's own are, and of no result, is not lost.
    project.write("docs/figures/mine.svg", "<svg/>");
    let mine = fs::File::options().write(true).open(project.path("docs/figures/mine.svg")).unwrap();
    mine.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let told = "page: `docs/figures/mine.svg` is not of it; a run removes it\n";
    assert!(project.ends(&["status"], 0).out.starts_with(&format!("restorable {told}")));
    let answer = project.ends(&["run"], 0);
    assert!((answer.out + &answer.err).contains("is of no result; what was there is kept in"));
    assert_eq!(project.read(".repro/replaced/docs~figures~mine.svg~1"), "<svg/>");
    assert!(!project.path("docs/figures/mine.svg").exists());
    // It is nobody's to delete.
    let garbage = project.json(&["gc", "--keep-days", "0", "--json"], 0);
    assert!(!garbage["files"].to_string().contains("replaced"), "{garbage}");
    project.write("README.md", "nothing");
    assert!(
        project
            .ends(&["status"], 0)
            .out
            .starts_with("stale      page: `README.md` has no block of this stage")
    );
}

#[test]
fn status_says_how_the_last_run_failed_until_one_succeeds() {
    let project = with("test -e good && echo 1 > $OUT/x");
    project.ends(&["run"], 1);
    let text = project.ends(&["status"], 0).out;
    assert!(
        text.starts_with(
            "stale      one: never ran; its last run failed: its process ended with exit code 1\n"
        ),
        "{text}"
    );
    project.write("good", "");
    project.ends(&["run"], 0);
    fs::remove_dir_all(project.path(".repro/records")).unwrap();
    fs::remove_dir_all(project.path("artifacts")).unwrap();
    assert!(!project.ends(&["status"], 0).out.contains("failed"));
}

#[test]
fn one_unreadable_metrics_file_hides_no_other_and_tables_are_flattened() {
    let stage = |name: &str, text: &str| {
        format!(
            "[stage.{name}]\nkind = \"command\"\noutputs = [\"metrics.json\"]\nrun = '''echo '{text}' > $OUT/metrics.json'''\n"
        )
    };
    let good = stage("good", r#"{"train": {"acc": 0.5, "of": [1]}, "done": true, "none": null}"#);
    let project =
        TestProject::new(&(good + &stage("nan", r#"{"loss": NaN, "acc": 1}"#) + &stage("list", "[1]")));
    project.ends(&["run"], 0);
    let answer = project.ends(&["metrics", "--json"], 0);
    let rows: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    assert_eq!(rows[0]["metrics"], serde_json::json!({ "train.acc": 0.5, "done": true }));
    assert_eq!(rows[1]["metrics"], serde_json::json!({ "acc": 1 }));
    for name in ["nan", "list"] {
        assert!(answer.err.contains(&format!("artifacts/{name}/metrics.json`")), "{}", answer.err);
    }
    // Nor does one that is there and cannot be read.
    fs::remove_file(project.path("artifacts/list/metrics.json")).unwrap();
    fs::create_dir(project.path("artifacts/list/metrics.json")).unwrap();
    let told = project.ends(&["metrics"], 0).err;
    assert!(told.contains("artifacts/list/metrics.json` cannot be read (Is a directory"), "{told}");
    project.ends(&["report"], 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_report_goes_through_links_and_into_pipes() {
    let project = with("echo 1 > $OUT/x");
    project.write("real.html", "<!doctype html>old");
    std::os::unix::fs::symlink("real.html", project.path("link.html")).unwrap();
    project.ends(&["report", "-o", "link.html"], 0);
    assert!(!project.read("real.html").ends_with("old"));
    assert!(fs::symlink_metadata(project.path("link.html")).unwrap().is_symlink());
    assert!(project.ends(&["report", "-o", "/dev/stdout"], 0).out.starts_with("<!"));
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_no_success() {
    let project = with("echo 1 > $OUT/x");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let schema = std::process::Command::new(env!("CARGO_BIN_EXE_repro"))
        .arg("schema")
        .current_dir(project.path("."))
        .stdout(full)
        .output();
    let schema = schema.unwrap();
    assert_eq!(schema.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&schema.stderr).starts_with("error: cannot write what was asked for"));
}

#[test]
fn nobody_waits_for_a_pipe_among_the_figures() {
    let project = page();
    let pipe = project.path("docs/figures/zz.svg");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let told = project.ends(&["status"], 0).out;
    assert!(told.contains("page: `docs/figures/zz.svg` is not of it; a run removes it\n"), "{told}");
    project.ends(&["run"], 0);
    assert!(!pipe.exists() && project.path(".repro/replaced/docs~figures~zz.svg~1").exists());
}
