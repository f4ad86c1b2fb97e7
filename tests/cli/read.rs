//! Commands that only read: the pipeline file, the state, the results.

use std::{os::unix::ffi::OsStrExt as _, process::Command};

use crate::{project::TestProject, run::CHAINS};

const CHAIN: &str = r#"
[stage.first]
kind = "command"
run = "echo 1 > $OUT/number"
outputs = ["number"]

[stage.second]
kind = "command"
run = "cat $IN_NUMBER/number > $OUT/copy"
outputs = ["copy"]
needs = { number = "first" }
"#;

#[test]
fn the_graph_shows_every_instance_and_edge_in_every_format() {
    let project = TestProject::new(CHAIN);
    for (args, edge) in [
        (&["dag"][..], "number <- first"),
        (&["dag", "--mermaid"], "n0 -->|number| n1"),
        (&["dag", "--dot"], "\"first\" -> \"second\" [label=\"number\"]"),
    ] {
        let answer = project.ends(args, 0);
        assert!(answer.out.contains(edge), "{}", answer.out);
    }
    project.edit("pipeline.toml", "needs = {", "values = { MOST = inf }\nneeds = {");
    let graph = project.json(&["dag", "--json"], 0);
    assert_eq!(
        (&graph[1]["needs"][0]["from"], &graph[1]["params"]["values"]["MOST"]),
        (&"first".into(), &"inf".into())
    );
}

#[test]
fn commands_that_read_no_pipeline_refuse_what_is_about_one() {
    let project = TestProject::new("");
    for command in [&["plan", "resnet8"][..], &["bench", "kernels"], &["schema"], &["completions", "bash"]] {
        for (option, named) in
            [("-f=other.toml", "file"), ("--profile=quick", "profile"), ("-S=epochs=1", "set")]
        {
            let told = format!("reads no pipeline; leave out `--{named}`");
            for words in [[command, &[option]].concat(), [&[option], command].concat()] {
                let refused = project.ends(&words, 2).err;
                assert!(refused.contains(&told), "{words:?}: {refused}");
            }
        }
    }
    let mut schema = Command::new("env");
    schema.args(["REPRO_PROFILE=quick", env!("CARGO_BIN_EXE_repro"), "schema"]);
    assert_eq!(project.start_as(&mut schema).wait().code, Some(0));
    // `doctor` looks at the cache beside the file.
    let told = project.ends(&["-f", "other.toml", "doctor"], 2).err;
    assert!(told.contains("other.toml") && told.contains("cannot read the pipeline file"), "{told}");
    project.write("other.toml", "");
    project.ends(&["-f", "other.toml", "doctor"], 0);
    project.ends(&["-S", "epochs=1", "doctor"], 2);
    project.ends(&["--profile", "quick", "doctor"], 2);
}

#[test]
fn help_offers_what_works_in_any_project_and_where_it_is_read() {
    let project = TestProject::new("");
    let help = |words: &[&str]| project.ends(&[words, &["--help"]].concat(), 0).out;
    let first = help(&[]);
    assert!(first.contains("1 a stage failed (of `status -q`: is not fresh), 2 "), "{first}");
    assert!(first.contains("First: `repro run --dry-run`") && !first.contains("quick"), "{first}");
    assert_eq!([&["help"][..], &["help", "-h"]].map(&help), [&first[..], &first]);
    assert_eq!(help(&["help", "gc"]), help(&["gc"]));
    let offered = |words: &[&str]| {
        let help = help(words);
        ["--file <", "--profile <", "--set <", "--directory <"].map(|option| help.contains(option))
    };
    assert_eq!(offered(&["status"]), [true; 4]);
    for command in [&["plan"][..], &["bench"], &["bench", "step"], &["schema"], &["completions"]] {
        assert_eq!(offered(command), [false, false, false, true], "{command:?}");
    }
    assert_eq!(offered(&["doctor"]), [true, false, false, true]);
    let shells = help(&["completions"]);
    assert!(shells.contains("source <(repro completions bash) ") && shells.contains("~/.bashrc"), "{shells}");
}

#[test]
fn completions_name_every_command() {
    let answer = TestProject::new("").ends(&["completions", "bash"], 0);
    let known = TestProject::new("").ends(&["--help"], 0).out;
    let listed = known.split("Commands:\n").nth(1).expect("a list of commands").lines();
    let listed = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 15 && names.contains(&"run"), "{names:?}");
    for name in names {
        assert!(answer.out.contains(&format!("repro,{name})")), "`{name}` is not in {}", answer.out);
    }
    assert!(!answer.out.contains("__stage"), "{}", answer.out);
}

#[test]
fn status_counts_the_fresh_and_gives_a_reason_for_the_rest() {
    let project = TestProject::new(CHAINS);
    let never = project.ends(&["status"], 0).out;
    assert!(never.contains("stale      first[seed=0]: never ran\n"), "{never}");
    assert!(never.contains("waiting    second[seed=0]: for `first[seed=0]`\n"), "{never}");
    assert!(never.ends_with("3 stale, 4 waiting\n"), "{never}");
    project.ends(&["status", "-q"], 1);
    project.ends(&["run"], 0);
    assert_eq!(project.ends(&["status"], 0).out, "7 fresh\n");
    assert_eq!(project.ends(&["status", "join"], 0).out, "fresh      join\n1 fresh\n");
    assert_eq!(project.ends(&["status", "-q"], 0).out, "");
    let changed = project.ends(&["status", "-S", "word=two"], 0).out;
    assert!(changed.contains(r#"-> "echo two 0 > $OUT/number""#), "{changed}");
    project.ends(&["status", "-q", "-S", "word=two"], 1);
    project.ends(&["run", "-S", "word=two"], 0);
    let back = project.ends(&["status"], 0).out;
    assert!(back.contains("restorable join: the cache holds its result\n"), "{back}");
}

#[test]
fn status_as_json_names_standing_reasons_and_what_is_waited_for() {
    let all = TestProject::new(CHAINS).json(&["status", "--json"], 0);
    assert_eq!(all[0]["name"], "first[seed=0]");
    assert_eq!((&all[0]["standing"], &all[0]["reasons"][0]), (&"stale".into(), &"never ran".into()));
    assert_eq!(all[6]["standing"], "waiting");
    assert_eq!(all[6]["waits_for"][2], "second[seed=2]");
}

#[test]
fn explain_shows_both_recipes_line_by_line() {
    let project = TestProject::new(CHAINS);
    let never = project.ends(&["explain", "first[seed=1]"], 0).out;
    assert!(never.contains("it has no result") && never.contains("\n  axis seed = 1\n"), "{never}");
    project.ends(&["run"], 0);
    let same = project.ends(&["explain", "first[seed=1]"], 0).out;
    assert!(same.starts_with("first[seed=1] is fresh\nits result was made 20"), "{same}");
    assert!(same.contains(" with 1 thread\nthe recipe of its result is today's:\n"), "{same}");
    let changed = project.ends(&["explain", "first[seed=1]", "-S", "word=two"], 0).out;
    assert!(changed.starts_with("first[seed=1] is stale\nits result was made 20"), "{changed}");
    assert!(changed.contains("\n- param run = \"echo one 1 > $OUT/number\"\n"), "{changed}");
    assert!(changed.contains("\n+ param run = \"echo two 1 > $OUT/number\"\n"), "{changed}");
    assert!(changed.contains("\n  axis seed = 1\n"), "{changed}");
    let waiting = project.ends(&["explain", "join", "-S", "word=two"], 0).out;
    assert!(
        waiting.contains(
            "it is decided once these have run:\n  second[seed=0] is waiting: for `first[seed=0]`\n"
        ),
        "{waiting}"
    );
    assert!(waiting.contains("today's (+), as far as it is known (?):\n"), "{waiting}");
    assert!(waiting.contains("\n? input all second seed=2 undecided\n"), "{waiting}");
    let both = ["explain", "second[seed=1]", "-S", "word=two", "-S", "stage.second.run='cat $IN_NUMBER/*'"];
    let both = project.ends(&both, 0).out;
    assert!(both.contains("\n  first[seed=1] is stale: run: \"echo one 1 > "), "{both}");
    assert!(both.contains("\n- param run = \"cat $IN_NUMBER/number > $OUT/copy\"\n"), "{both}");
    assert!(both.contains("\n+ param run = \"cat $IN_NUMBER/*\"\n"), "{both}");
    assert!(both.contains("\n? input number first seed=1 undecided\n"), "{both}");
    let json = project.json(&["explain", "join", "-S", "word=two", "--json"], 0);
    assert_eq!((&json["now"], &json["undecided"][1]["name"]), (&().into(), &"second[seed=1]".into()));
    let json = project.json(&["explain", "join", "--json"], 0);
    assert_eq!(json["then"], json["now"]);
    let seconds = json["made"]["seconds"].as_f64();
    assert!(json["made"]["instance"] == "join" && seconds.is_some_and(|seconds| seconds > 0.0), "{json}");
    let many = project.ends(&["explain", "first"], 2).err;
    assert!(many.contains("`first` means 3 instances") && many.contains("`first[seed=2]`"), "{many}");
    std::fs::remove_dir_all(project.path(".repro")).expect("a cache");
    project.ends(&["run"], 0);
    let found = project.ends(&["explain", "first[seed=1]"], 0).out;
    let nothing =
        "first[seed=1] is fresh\nnothing says how its result was made: it lay here when it was found\n";
    assert!(found.starts_with(nothing), "{found}");
    assert_eq!(project.json(&["explain", "join", "--json"], 0)["made"], serde_json::Value::Null);
}

#[test]
fn verify_names_every_damaged_file_and_exits_3() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run"], 0);
    assert_eq!(project.json(&["verify", "--json"], 0), serde_json::json!([]));
    project.write("artifacts/join/all", "something else");
    std::fs::remove_file(project.path("artifacts/second/seed=0/copy")).unwrap();
    let found = project.ends(&["verify"], 3).out;
    assert!(found.contains("join: `artifacts/join/all`: its content is not what was recorded"), "{found}");
    assert!(found.contains("second[seed=0]: `artifacts/second/seed=0/copy`: No such file"), "{found}");
    let json = project.json(&["verify", "--json"], 3);
    assert_eq!(json[1]["instance"], "join");
    project.ends(&["run"], 0);
    assert_eq!(project.ends(&["verify"], 0).out, "every result is what it was\n");
    // An object that several results share is made again of any of them.
    let copies =
        ["first/seed=0/number", "second/seed=0/copy"].map(|name| project.path("artifacts").join(name));
    let objects = walkdir::WalkDir::new(project.path(".repro/objects"));
    let object = objects.into_iter().flatten().find(|entry| {
        entry.file_type().is_file() && std::fs::read(entry.path()).ok() == std::fs::read(&copies[0]).ok()
    });
    let object = object.unwrap().into_path();
    for path in [&object, &copies[0]] {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, "something else").unwrap();
    }
    let found = project.ends(&["verify"], 3).out;
    assert!(found.lines().count() >= 2 && found.contains("made again"), "{found}");
    assert_eq!(std::fs::read(&object).unwrap(), std::fs::read(&copies[1]).unwrap());
    project.ends(&["run"], 0);
    // macOS takes no such name.
    if cfg!(target_os = "linux") {
        let odd = std::ffi::OsStr::from_bytes(b"artifacts/join/\xff");
        std::fs::write(project.path(".").join(odd), "").unwrap();
        let json = project.json(&["verify", "--json"], 3);
        assert_eq!((json.as_array().map(Vec::len), &json[0]["instance"]), (Some(1), &"join".into()));
    }
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    let unknown = project.ends(&["verify"], 0).out;
    assert!(unknown.starts_with("nothing was read: none of these results"), "{unknown}");
}

#[test]
fn a_report_takes_the_place_of_nothing_but_a_report() {
    let project = TestProject::new("[stage.a]\nkind = 'command'\nrun = 'echo > $OUT/o'\noutputs = ['o']\n");
    let told = project.ends(&["report", "-o", "pipeline.toml"], 2).err;
    assert!(told.contains("`pipeline.toml` is there already, and is no report"), "{told}");
    let told = project.ends(&["report", "-o", "none/report.html"], 2).err;
    assert!(told.contains("there is no folder `none`\nhelp: make it first"), "{told}");
    assert!(project.read("pipeline.toml").starts_with("[stage.a]"));
    for _ in 0..2 {
        project.ends(&["report", "-o", "page.html"], 0);
    }
    project.write("empty.html", "");
    project.ends(&["report", "-o", "empty.html"], 0);
    assert!(project.read("empty.html").starts_with("<!doctype html>"));
}

#[test]
fn gc_deletes_only_what_nothing_needs_and_only_when_told() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run"], 0);
    project.ends(&["run", "-S", "word=two"], 0);
    let young = project.ends(&["gc"], 0).out;
    assert!(young.starts_with("nothing to delete; "), "{young}");
    // 7 records, as many objects less the 3 that a first and its second share, and the last answer of a run.
    let dry = project.json(&["gc", "--keep-days", "0", "--json"], 0);
    assert_eq!((dry["files"].as_array().map(Vec::len), &dry["deleted"]), (Some(12), &false.into()));
    let said = project.ends(&["gc", "--keep-days", "0"], 0);
    assert!(said.out.starts_with("would delete 12 files, "), "{}", said.out);
    let done = project.ends(&["gc", "--keep-days", "0", "--apply"], 0).out;
    assert!(done.starts_with("deleted 12 files, "), "{done}");
    let kept = project.ends(&["run", "-S", "word=two"], 0).out;
    assert!(kept.starts_with("nothing to do: 7 fresh"), "{kept}");
    assert!(project.ends(&["run"], 0).out.starts_with("ran 7 in "));
}

#[test]
fn explain_says_why_where_the_recipe_is_the_same() {
    let project = TestProject::new(
        "[stage.a]\nkind = \"command\"\nrun = \"test -e ok && echo > $OUT/x\"\noutputs = [\"x\"]\n",
    );
    project.ends(&["run"], 1);
    let failed = project.ends(&["explain", "a"], 0).out;
    let why = "never ran; its last run failed: its process ended with exit code 1";
    assert!(failed.starts_with(&format!("a is stale: {why}\nit has no result; ")), "{failed}");
    let json = project.json(&["explain", "a", "--json"], 0);
    assert_eq!(json["reasons"].as_array().map(Vec::len), Some(2), "{json}");
    project.write("ok", "");
    project.ends(&["run"], 0);
    project.write("artifacts/a/x", "other");
    let altered = project.ends(&["explain", "a"], 0).out;
    assert!(altered.starts_with("a is restorable: `"), "{altered}");
    assert!(altered.contains("artifacts/a/x` was altered; the cache holds its result\n"), "{altered}");
    let json = project.json(&["explain", "a", "--json"], 0);
    assert!(json["reasons"][0].as_str().unwrap().ends_with("was altered"), "{json}");
    // Something new is not something else.
    project.ends(&["run"], 0);
    project.write("artifacts/a/new", "");
    let told = project.ends(&["status"], 0).out;
    assert!(told.contains("artifacts/a/new` is not part of the result; the cache holds"), "{told}");
    let told = project.ends(&["run"], 0).err;
    assert!(told.contains("artifacts/a/new` is not part of the result; the result is restored"), "{told}");
}

#[test]
fn changed_files_of_a_folder_are_named_whatever_it_is_called() {
    let project = TestProject::new(
        "[stage.a]\nkind = \"command\"\ndeps = [\"my data\"]\nrun = \"ls 'my data' > $OUT/x\"\noutputs = [\"x\"]\n",
    );
    std::fs::create_dir(project.path("my data")).unwrap();
    project.write("my data/one", "1");
    std::thread::sleep(std::time::Duration::from_millis(60)); // what is younger is not remembered
    project.ends(&["run"], 0);
    project.write("my data/two", "2");
    let told = project.ends(&["status"], 0).out;
    assert!(told.contains("files in my data: ") && told.contains("two"), "{told}");
}

#[test]
fn gc_names_results_that_no_instance_has_any_more() {
    let project = TestProject::new(&CHAINS.replace("[params]", "[profile.p.params]\n[params]"));
    project.ends(&["run"], 0);
    project.ends(&["run", "--profile", "p"], 0);
    project.write("other.toml", CHAINS);
    project.ends(&["-f", "other.toml", "run"], 0);
    let gone = |words: &[&str]| {
        let json = project.json(&[words, &["gc", "--json"]].concat(), 0);
        let gone = json["without_instance"].as_array().expect("a list").clone();
        gone.into_iter().map(|path| path.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(gone(&[]), [""; 0]);
    project.write("pipeline.toml", &CHAINS.replace("0, 1, 2", "0, 1").replace("stage.join", "stage.all"));
    project.ends(&["run"], 0);
    let left = gone(&[]);
    assert_eq!(left.len(), 3, "{left:?}");
    for (place, end) in left.iter().zip(["first/seed=2", "join", "second/seed=2"]) {
        assert!(place.ends_with(&format!("/artifacts/{end}")), "{place}");
    }
    assert_eq!(gone(&["-f", "other.toml"]), [""; 0]);
    let told = project.ends(&["gc"], 0).err;
    assert!(
        told.contains("3 things stay in `artifacts/`, such as `artifacts/first/seed=2`, of no instance"),
        "{told}"
    );
    project.ends(&["gc", "--apply", "--keep-days", "0"], 0);
    assert!(left.iter().all(|place| std::path::Path::new(place).exists()));
    std::fs::remove_dir_all(project.path("artifacts/join")).unwrap();
    assert_eq!(gone(&[]).len(), 2);
    // A stage that gets axes has its results where its only one was.
    let all = "needs = { all = \"second\" }";
    project.edit("pipeline.toml", all, &format!("matrix = {{ x = [1] }}\n{all}"));
    project.ends(&["run"], 0);
    let left = gone(&[]);
    assert!(left.len() == 3 && left[0].ends_with("/artifacts/all/all"), "{left:?}");
}
