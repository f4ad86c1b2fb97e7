//! `repro metrics diff` and `repro params`: now against a commit or a file.

use std::process::Command;

use crate::project::{TestProject, by_itself};

const SCORES: &str = r#"
[params]
rate = 0.5

[stage.score]
kind = "command"
run = """echo '{"top1": ${rate}'${seed}', "mode": "bn", "list": [1]}' > $OUT/metrics.json"""
outputs = ["metrics.json"]
values = { RATE = "${rate}" }
matrix = { seed = [1, 2] }
"#;

/// A project whose first results are committed.
fn committed() -> TestProject {
    let project = TestProject::new(SCORES);
    project.write(".gitignore", ".repro/\n");
    project.ends(&["run"], 0);
    for words in [&["init", "-q", "-b", "main"][..], &["add", "."], &["commit", "-q", "-m", "one"]] {
        git(&project, words);
    }
    project
}

fn git(project: &TestProject, words: &[&str]) {
    let mut git = Command::new("git");
    git.arg("-C").arg(project.path(".")).args(["-c", "user.name=t", "-c", "user.email=t@t"]);
    let done = by_itself(git.args(words)).output().expect("there is a `git`");
    assert!(done.status.success(), "{done:?}");
}

/// Takes an object from git, as if the clone were a partial one.
fn lose(project: &TestProject, revision: &str) {
    let mut asked = Command::new("git");
    asked.arg("-C").arg(project.path(".")).args(["rev-parse", revision]);
    let asked = by_itself(&mut asked).output().expect("there is a `git`");
    let id = String::from_utf8(asked.stdout).expect("a digest");
    let (folder, name) = id.trim().split_at(2);
    std::fs::remove_file(project.path(&format!(".git/objects/{folder}/{name}"))).expect("an object");
}

#[test]
fn what_another_branch_locks_is_no_garbage() {
    let project = committed();
    let garbage = || {
        let found = project.json(&["gc", "--keep-days", "0", "--json"], 0);
        let files = found["files"].as_array().expect("a list").iter().filter_map(serde_json::Value::as_str);
        files.filter(|file| file.contains("/objects/") || file.contains("/records/")).count()
    };
    git(&project, &["checkout", "-q", "-b", "other"]);
    project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
    project.ends(&["run"], 0);
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    // The first branch's results are neither shown nor locked here.
    let before = garbage();
    assert_eq!(before, 0);
    // What only a stash has, also below another, and what is checked out without a branch.
    for rate in ["0.7", "0.8"] {
        project.edit("pipeline.toml", "rate = 0.6", &format!("rate = {rate}"));
        project.ends(&["run"], 0);
        git(&project, &["stash", "-q"]);
    }
    project.ends(&["run"], 0);
    assert_eq!(garbage(), before);
    git(&project, &["stash", "clear"]);
    git(&project, &["branch", "-q", "-D", "main"]);
    assert!(garbage() > before, "{before}");
    // Where git cannot say, nothing is garbage.
    project.write(".git/HEAD", "nonsense");
    assert!(project.ends(&["gc", "--keep-days", "0"], 2).err.contains("`git for-each-ref` says"));
}

#[test]
fn a_tag_may_be_of_a_file_and_a_branch_that_cannot_be_read_locks_everything() {
    let project = committed();
    git(&project, &["checkout", "-q", "-b", "other"]);
    project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
    project.ends(&["run"], 0);
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    git(&project, &["tag", "plain", "HEAD:pipeline.toml"]);
    git(&project, &["tag", "-a", "-m", "three", "annotated", "HEAD:pipeline.toml"]);
    project.ends(&["gc", "--keep-days", "0"], 0);
    lose(&project, "main^{tree}");
    let told = project.ends(&["gc", "--keep-days", "0", "--apply"], 2).err;
    assert!(told.contains("`git ls-tree` says: ") && told.contains("\nhelp: without git"), "{told}");
}

#[test]
fn metrics_are_compared_with_a_commit_and_with_a_file() {
    let project = committed();
    let same = project.ends(&["metrics", "diff"], 0);
    assert_eq!((same.out.as_str(), same.err.as_str()), ("", "no metric is different\n"));
    let before = project.ends(&["metrics", "--json"], 0).out;
    project.write("before.json", &before);
    project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
    project.edit("pipeline.toml", "seed = [1, 2]", "seed = [2, 3]");
    project.ends(&["run"], 0);
    let table = project.ends(&["metrics", "diff"], 0).out;
    insta::assert_snapshot!(table, @r"
    instance       metric  old     new      change
    score[seed=1]  mode    bn
    score[seed=1]  top1    0.5100
    score[seed=2]  top1    0.5200  0.6200  +0.1000
    score[seed=3]  mode            bn
    score[seed=3]  top1            0.6300
    ");
    assert_eq!(project.ends(&["metrics", "diff", "before.json"], 0).out, table);
    // Of two commits, too, whatever is shown now.
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    assert_eq!(project.ends(&["metrics", "diff", "HEAD~"], 0).out, table);
    project.edit("pipeline.toml", "rate = 0.6", "rate = 0.9");
    project.ends(&["run"], 0);
    for sides in [["HEAD~", "HEAD"], ["before.json", "HEAD"]] {
        let between = project.ends(&["metrics", "diff", sides[0], sides[1]], 0);
        assert_eq!((between.out.as_str(), between.err.as_str()), (table.as_str(), ""));
    }
    let rates = project.json(&["params", "diff", "HEAD~", "HEAD", "--json"], 0);
    let of = |d: &&serde_json::Value| d["instance"] == "score[seed=2]" && d["name"] == "values.RATE";
    let rate = rates.as_array().and_then(|all| all.iter().find(of));
    assert_eq!(rate.map(|d| (&d["old"], &d["new"])), Some((&0.5.into(), &0.6.into())), "{rates}");
    project.edit("pipeline.toml", "rate = 0.9", "rate = 0.6");
    project.ends(&["run"], 0);
    git(&project, &["reset", "-q", "--soft", "HEAD~"]);
    project.edit("pipeline.toml", "rate = 0.6", "rate = 0.7");
    let stale = project.ends(&["metrics", "diff"], 0);
    assert!(stale.out == table && stale.err.contains("2 results are not fresh"), "{}", stale.err);
    project.edit("pipeline.toml", "rate = 0.7", "rate = 0.6");
    let json = project.json(&["metrics", "diff", "HEAD", "--json"], 0);
    assert_eq!((&json[2]["old"], &json[2]["new"]), (&0.52.into(), &0.62.into()));
    let markdown = project.ends(&["metrics", "diff", "--md"], 0).out;
    assert!(markdown.starts_with("| instance | metric | old | new | change |\n| --- |"), "{markdown}");
    // The form may stand on either side.
    assert_eq!(project.json(&["metrics", "--json", "diff"], 0), json);
    assert_eq!(project.ends(&["metrics", "--md", "diff"], 0).out, markdown);
    // Without its cache, a clone still has the results that were committed, also those of instances that are gone.
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    project.ends(&["run"], 0);
    assert_eq!(project.ends(&["metrics", "diff"], 0).out, table);
}

#[test]
fn results_of_a_profile_are_compared_with_its_own() {
    let project = committed();
    project.write("pipeline.toml", &format!("{SCORES}\n[profile.p.params]\nrate = 0.7\n"));
    project.ends(&["run", "--profile", "p"], 0);
    for words in [&["add", "."][..], &["commit", "-q", "-m", "two"]] {
        git(&project, words);
    }
    for words in [&["metrics", "diff", "--profile", "p"][..], &["metrics", "diff"]] {
        let same = project.ends(words, 0);
        assert_eq!((same.out.as_str(), same.err.as_str()), ("", "no metric is different\n"));
    }
}

#[test]
fn a_file_of_a_commit_that_its_lock_file_does_not_name_is_no_result_of_it() {
    let project = committed();
    project.write("artifacts/score/seed=1/metrics.json", r#"{"top1": 0.99, "mode": "bn"}"#);
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    for folder in [".repro", "artifacts"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
    project.ends(&["run"], 0);
    let found = project.ends(&["metrics", "diff"], 0);
    assert!(found.err.starts_with("1 result of `HEAD` can be found neither in the cache"), "{}", found.err);
    assert!(found.out.contains("score[seed=2]  top1    0.5200  0.6200  +0.1000\n"), "{}", found.out);
    assert!(!found.out.contains("score[seed=1]"), "{}", found.out);
}

#[test]
fn parameters_are_listed_whole_and_compared() {
    let project = committed();
    let listed = project.ends(&["params", "score[seed=2]"], 0).out;
    assert!(listed.contains("score[seed=2]  values.RATE  0.5\n"), "{listed}");
    assert!(listed.contains("score[seed=2]  deps         []\n"), "{listed}");
    let json = project.json(&["params", "--json"], 0);
    assert_eq!(
        (&json[1]["instance"], &json[1]["params"]["values.RATE"]),
        (&"score[seed=2]".into(), &0.5.into())
    );
    project.write("before.json", &json.to_string());
    assert_eq!(project.ends(&["params", "diff"], 0).err, "no parameter is different\n");
    assert_eq!(project.json(&["params", "--json", "diff"], 0), serde_json::json!([]));
    let json = project.json(&["params", "diff", "-S", "rate=0.6", "--json"], 0);
    assert_eq!((&json[1]["name"], &json[1]["new"]), (&"values.RATE".into(), &0.6.into()));
    project.edit("pipeline.toml", "RATE = ", "SPEED = ");
    for from in ["HEAD", "before.json"] {
        let json = project.json(&["params", "diff", from, "--json"], 0);
        assert_eq!((&json[0]["name"], &json[0]["old"]), (&"values.RATE".into(), &0.5.into()), "{json}");
        assert_eq!((&json[1]["name"], &json[1]["new"]), (&"values.SPEED".into(), &0.5.into()), "{json}");
    }
}

#[test]
fn where_git_refuses_its_own_words_are_passed_on() {
    let project = committed();
    project.write(".git/HEAD", "nonsense");
    for command in ["metrics", "params"] {
        let told = project.ends(&[command, "diff"], 2).err;
        assert!(told.contains("`git rev-parse` says: fatal: not a git repository"), "{told}");
        assert!(told.contains("\nhelp: `metrics diff` and `params diff` also take a file"), "{told}");
    }
}

#[test]
fn what_a_partial_clone_lacks_is_not_missing_in_the_commit() {
    let project = committed();
    lose(&project, "HEAD:pipeline.lock");
    let told = project.ends(&["metrics", "diff"], 2).err;
    assert!(told.contains("error: `git show` says: ") && !told.contains("has no"), "{told}");
    lose(&project, "HEAD^{tree}");
    let told = project.ends(&["params", "diff"], 2).err;
    assert!(told.contains("error: `git ls-tree` says: "), "{told}");
}

#[test]
fn what_cannot_be_compared_with_is_named() {
    let project = committed();
    project.write("odd.json", "{}");
    for (from, said) in [
        ("nowhere", "`nowhere` is neither a file nor a commit that git knows here"),
        ("--output=x", "unexpected argument"),
        ("odd.json", "`odd.json` is no list of metrics of instances"),
    ] {
        let answer = project.ends(&["metrics", "diff", from], 2);
        assert!(answer.err.contains(said), "{}", answer.err);
    }
    let answer = project.ends(&["metrics", "score", "diff"], 2);
    assert!(answer.err.contains("`diff` compares all instances\nhelp: leave out `score`"), "{}", answer.err);
    for words in [["metrics", "--md", "diff", "--json"], ["params", "diff", "--md", "--json"]] {
        let answer = project.ends(&words, 2);
        assert!(answer.err.contains("cannot be used with"), "{}", answer.err);
    }
    let other = project.path("pipeline.lock");
    std::fs::rename(&other, project.path("pipeline.lock.old")).unwrap();
    project.write("other.toml", SCORES);
    let answer = project.ends(&["metrics", "diff", "-f", "other.toml"], 2);
    assert!(answer.err.contains("`HEAD` has no `other.lock`"), "{}", answer.err);
    let answer = project.ends(&["params", "diff", "-f", "other.toml"], 2);
    assert!(answer.err.contains("`HEAD` has no `other.toml`"), "{}", answer.err);
}

#[test]
fn a_report_tells_of_the_recipe_that_made_what_lies_there() {
    let project = committed();
    project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
    project.ends(&["run"], 0);
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    git(&project, &["checkout", "-q", "HEAD~1"]);
    assert_eq!(project.ends(&["status"], 0).out, "2 fresh\n");
    project.ends(&["report"], 0);
    let page = project.read("report.html");
    assert!(page.contains("RATE = 0.5") && !page.contains("RATE = 0.6"), "{page}");
}

#[test]
fn committed_results_of_a_sweep_are_found_without_it() {
    let project =
        TestProject::new(&SCORES.replace("matrix = { seed = [1, 2] }", "").replace("${seed}", "$N"));
    project.edit("pipeline.toml", "RATE =", "N = 1, RATE =");
    project.write(".gitignore", ".repro/\n");
    let sweep = ["-S", "stage.score.values.N=[3, 4]"];
    project.ends(&[&["run"][..], &sweep].concat(), 0);
    for words in [&["init", "-q", "-b", "main"][..], &["add", "."], &["commit", "-q", "-m", "one"]] {
        git(&project, words);
    }
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    for words in [
        &["metrics", "diff", "HEAD", "--json"][..],
        &["metrics", "diff", "HEAD", "--json", sweep[0], sweep[1]],
    ] {
        let answer = project.ends(words, 0);
        assert!(!answer.err.contains("neither in the cache nor in the commit"), "{}", answer.err);
    }
    let old = project.json(&["metrics", "diff", "HEAD", "--json"], 0);
    assert_eq!(old[1]["old"], 0.53, "{old}");
}

#[test]
fn in_a_table_of_parameters_an_instance_that_comes_or_goes_is_one_line_and_long_texts_are_cut() {
    let project = committed();
    project.edit("pipeline.toml", "rate = 0.5", "rate = 8");
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    project.edit("pipeline.toml", "rate = 8", "rate = 0");
    project.edit("pipeline.toml", "seed = [1, 2]", "seed = [2, 3]");
    let table = project.ends(&["params", "diff"], 0).out;
    insta::assert_snapshot!(table, @r#"
    instance       parameter    old                               new                               change
    score[seed=1]  (all 5)      only in old
    score[seed=2]  run          …'{"top1": 8'2', "mode": "bn", …  …'{"top1": 0'2', "mode": "bn", …
    score[seed=2]  values.RATE  8                                 0                                     -8
    score[seed=3]  (all 5)                                        only in new
    "#);
    for form in ["--md", "--csv", "--json"] {
        let whole = project.ends(&["params", "diff", form], 0).out;
        assert!(!whole.contains("only in") && !whole.contains('…'), "{whole}");
        assert!(whole.matches("score[seed=3]").count() > 3, "{whole}");
    }
    let all = project.json(&["params", "diff", "--json"], 0);
    let change =
        all.as_array().unwrap().iter().find(|d| d["instance"] == "score[seed=2]" && d["name"] != "run");
    assert_eq!(change.map(|d| d["change"].to_string()), Some("-8".to_owned()), "{all}");
}

#[test]
fn whole_numbers_change_by_whole_numbers() {
    let project = TestProject::new(&SCORES.replace("0.5", "8"));
    project.ends(&["run"], 0);
    project.write("before.json", &project.ends(&["metrics", "--json"], 0).out);
    project.ends(&["run", "-S", "rate=6"], 0);
    let table = project.ends(&["metrics", "diff", "before.json"], 0).out;
    assert!(table.contains("score[seed=1]  top1     81   61     -20\n"), "{table}");
}

#[test]
fn results_of_a_commit_that_nobody_can_find_are_neither_new_nor_gone() {
    let project = TestProject::new(SCORES);
    project.write(".gitignore", ".repro/\nartifacts/\nshared/\n");
    project.ends(&["run"], 0);
    project.ends(&["push", "shared"], 0);
    for words in [&["init", "-q", "-b", "main"][..], &["add", "."], &["commit", "-q", "-m", "one"]] {
        git(&project, words);
    }
    let change = || {
        project.edit("pipeline.toml", "rate = 0.5", "rate = 0.6");
        project.ends(&["run"], 0);
    };
    for folder in [".repro", "artifacts"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    change();
    let none = project.ends(&["metrics", "diff"], 0);
    assert_eq!(none.out, "");
    let told = "2 results of `HEAD` can be found neither in the cache nor in the commit, and left out\n\
                help: with `HEAD` checked out, `repro pull FOLDER` brings";
    assert!(none.err.starts_with(told), "{}", none.err);
    assert!(!none.err.contains("no metric"), "{}", none.err);
    assert_eq!(project.json(&["metrics", "diff", "--json"], 0), serde_json::json!([]));
    // What is new is.
    project.edit("pipeline.toml", "seed = [1, 2]", "seed = [2, 3]");
    project.ends(&["run"], 0);
    let new = project.json(&["metrics", "diff", "--json"], 0);
    let names = new.as_array().unwrap().iter().map(|d| d["instance"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["score[seed=3]"; 2]);
    // As the help says.
    git(&project, &["checkout", "-q", "HEAD", "--", "."]);
    project.ends(&["pull", "shared"], 0);
    change();
    let found = project.ends(&["metrics", "diff"], 0);
    assert!(found.out.contains("score[seed=2]  top1    0.5200  0.6200  +0.1000\n"), "{}", found.out);
    assert_eq!(found.err, "");
}
