//! `repro run`: what it does, what it says, how it ends.

use crate::project::TestProject;

/// Three chains of two and a join of the last ones.
pub(crate) const CHAINS: &str = r#"
[params]
word = "one"

[stage.first]
kind = "command"
run = "echo ${word} ${seed} > $OUT/number"
outputs = ["number"]
matrix = { seed = [0, 1, 2] }

[stage.second]
kind = "command"
run = "cat $IN_NUMBER/number > $OUT/copy"
outputs = ["copy"]
needs = { number = "first" }
matrix = { seed = [0, 1, 2] }

[stage.join]
kind = "command"
run = "cat $(echo \"$IN_ALL\" | sed 's,$,/copy,') > $OUT/all"
outputs = ["all"]
needs = { all = "second" }
"#;

#[test]
fn a_second_run_has_nothing_to_do() {
    let project = TestProject::new(CHAINS);
    let first = project.ends(&["run"], 0);
    assert!(first.out.starts_with("ran 7 in "), "{}", first.out);
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 1\none 2\n");
    let lock = project.read("pipeline.lock");
    let second = project.ends(&["run"], 0);
    assert!(second.out.starts_with("nothing to do: 7 fresh ("), "{}", second.out);
    assert_eq!((second.err, project.read("pipeline.lock")), (String::new(), lock));
}

#[test]
fn a_program_can_read_what_happens_line_by_line() {
    let project = TestProject::new(CHAINS);
    project.edit("pipeline.toml", "cat $(echo", "echo a line; test ${word} = one && cat $(echo");
    let run = |args: &[&str], code: i32| -> Vec<serde_json::Value> {
        let answer = project.ends(&[&["run", "--json", "-j", "1"], args].concat(), code);
        assert_eq!(answer.err.is_empty(), code == 0, "failures alone: {}", answer.err);
        answer.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let events = run(&[], 0);
    let of = |what: &str| events.iter().filter(|event| event["event"] == what).collect::<Vec<_>>();
    assert_eq!([of("started").len(), of("finished").len(), of("ended").len()], [7, 7, 1]);
    assert!(of("said").iter().any(|event| event["instance"] == "join" && event["line"] == "a line"));
    assert!(of("finished").iter().all(|event| event["seconds"].as_f64().is_some_and(|s| s > 0.0)));
    let last = events.last().expect("an end");
    assert_eq!((&last["ran"], &last["exit_code"], &last["fresh"]), (&7.into(), &0.into(), &0.into()));
    let [idle] = &run(&[], 0)[..] else { panic!("it says more than that all is fresh") };
    assert_eq!((&idle["event"], &idle["fresh"], &idle["ran"]), (&"ended".into(), &7.into(), &0.into()));
    let failing = run(&["-S", "word=two"], 1);
    let failed = failing.iter().find(|event| event["event"] == "failed").expect("a failure");
    assert!(failed["instance"] == "join" && failed["message"].is_string(), "{failed}");
    let last = failing.last().expect("an end");
    assert_eq!((&last["failed"], &last["exit_code"]), (&1.into(), &1.into()));
    assert_eq!(run(&["join"], 0)[0]["event"], "restored");
    project.ends(&["run", "--json", "--dry-run"], 2);
}

#[cfg(target_os = "linux")] // has `/dev/full`
#[test]
fn a_run_goes_on_where_nobody_can_be_told_what_happens() {
    let project = TestProject::new(CHAINS);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" run --json > /dev/full", env!("CARGO_BIN_EXE_repro")]);
    let answer = project.start_as(&mut shell).wait();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert_eq!(answer.err.matches("cannot write what happens, and go on: ").count(), 1, "{}", answer.err);
    assert!(project.ends(&["run"], 0).out.starts_with("nothing to do: 7 fresh ("));
}

#[test]
fn pipelines_in_a_folder_share_the_project_and_do_a_common_stage_once() {
    let stage = "[stage.first]\nkind = \"command\"\nrun = \"echo first >> done; echo 1 > $OUT/x\"\noutputs = [\"x\"]\n";
    let other = stage.replace("first", "own").replace("echo 1", "echo 2");
    let project = TestProject::new("");
    std::fs::create_dir(project.path("experiments")).expect("a new folder");
    project.write("experiments/depth.toml", stage);
    project.write("experiments/width.toml", &format!("{stage}{other}"));
    assert!(project.ends(&["-f", "experiments/depth.toml", "run"], 0).out.starts_with("ran 1 in "));
    let width = project.ends(&["-f", "experiments/width.toml", "run"], 0).out;
    assert!(width.starts_with("ran 1, restored 1 in "), "{width}");
    assert_eq!(project.read("done"), "first\nown\n");
    for name in ["artifacts/experiments/depth/first/x", "artifacts/experiments/width/first/x"] {
        assert_eq!(project.read(name), "1\n");
    }
    assert!(
        project.read("experiments/depth.lock").contains("first") && !project.path("pipeline.lock").exists()
    );
}

#[test]
fn a_changed_parameter_reruns_its_chain_and_the_join_and_changing_back_restores_them() {
    let stage = |name: &str, run: &str, needs: &str| {
        format!("[stage.{name}]\nkind = \"command\"\nrun = \"{run}\"\noutputs = [\"x\"]\nneeds = {needs}\n")
    };
    let project = TestProject::new(
        &[
            stage("left", "echo l > $OUT/x", "{}"),
            stage("left-end", "cat $IN_A/x > $OUT/x", "{ a = 'left' }"),
            stage("right", "echo r > $OUT/x", "{}"),
            stage("right-end", "cat $IN_A/x > $OUT/x", "{ a = 'right' }"),
            stage("join", "cat $IN_A/x $IN_B/x > $OUT/x", "{ a = 'left-end', b = 'right-end' }"),
        ]
        .concat(),
    );
    project.ends(&["run"], 0);
    project.edit("pipeline.toml", "echo l", "echo L");
    let changed = project.ends(&["run", "--jobs", "1"], 0);
    assert!(changed.out.starts_with("ran 3, 2 fresh in "), "{}", changed.out);
    let started: Vec<_> = changed.err.lines().filter(|line| line.starts_with("start")).collect();
    assert_eq!(started, ["start    left", "start    left-end", "start    join"]);
    assert_eq!(project.read("artifacts/join/x"), "L\nr\n");
    project.edit("pipeline.toml", "echo L", "echo l");
    let back = project.ends(&["run"], 0);
    assert!(back.out.starts_with("restored 3, 2 fresh in "), "{}", back.out);
    assert_eq!(project.read("artifacts/join/x"), "l\nr\n");
}

#[test]
fn a_command_runs_again_where_a_stage_that_it_reads_has_another_name() {
    let stage =
        |name: &str, rest: &str| format!("[stage.{name}]\nkind = 'command'\noutputs = ['o']\n{rest}\n");
    let table = "run = 'for d in $IN_X; do basename $d; done > $OUT/o'\nneeds = { x = ['adam', 'sgd'] }";
    let project = TestProject::new(
        &[
            stage("adam", "run = 'echo 0.9 > $OUT/o'"),
            stage("sgd", "run = 'echo 0.8 > $OUT/o'"),
            stage("table", table),
        ]
        .concat(),
    );
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/table/o"), "adam\nsgd\n");
    project.edit("pipeline.toml", "sgd", "zeus");
    assert!(project.ends(&["run"], 0).out.starts_with("ran 1, restored 1, 1 fresh in "));
    assert_eq!(project.read("artifacts/table/o"), "adam\nzeus\n");
}

#[test]
fn a_comment_the_order_of_keys_and_a_touch_change_nothing() {
    let project = TestProject::new(CHAINS);
    project.write("input.txt", "text");
    project.edit("pipeline.toml", "outputs = [\"all\"]", "outputs = [\"all\"]\ndeps = [\"input.txt\"]");
    project.ends(&["run"], 0);
    project.edit(
        "pipeline.toml",
        "outputs = [\"number\"]\nmatrix = { seed = [0, 1, 2] }",
        "# A comment.\nmatrix = {seed = [2, 1, 0]}\noutputs = ['number']",
    );
    for touched in ["input.txt", "artifacts/join/all", "pipeline.toml"] {
        let file = std::fs::File::options().append(true).open(project.path(touched)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let again = project.ends(&["run"], 0);
    assert!(again.out.starts_with("nothing to do: 7 fresh"), "{}", again.out);
    project.write("input.txt", "TEXT");
    assert!(project.ends(&["run"], 0).out.starts_with("ran 1, 6 fresh in "));
}

#[test]
fn a_failure_says_why_and_where_the_log_is_and_spares_what_does_not_depend_on_it() {
    let project = TestProject::new(CHAINS);
    let ok = "run = \"cat $IN_NUMBER/number > $OUT/copy\"";
    project.edit("pipeline.toml", ok, "run = \"echo partly > $OUT/copy; echo reason; exit ${seed}\"");
    let failed = project.ends(&["run", "--keep-going"], 1);
    assert!(failed.out.starts_with("ran 4, failed 2, 1 not reached in "), "{}", failed.out);
    assert!(
        failed.err.contains("error: `second[seed=2]`: its process ended with exit code 2\n  reason\n"),
        "{}",
        failed.err
    );
    assert!(failed.err.contains("log: .repro/logs/second/seed=2.log\n"), "{}", failed.err);
    assert_eq!(project.read(".repro/logs/second/seed=2.log"), "reason\n");
    assert!(project.path("artifacts/second/seed=0/copy").exists());
    assert!(!project.path("artifacts/second/seed=1/copy").exists());
    let first = project.ends(&["run", "--jobs", "1"], 1);
    assert!(first.out.starts_with("failed 1, 2 not reached, 4 fresh in "), "{}", first.out);
    project.edit("pipeline.toml", "; exit ${seed}", "");
    let mended = project.ends(&["run", "-q"], 0);
    assert_eq!((mended.out.as_str(), mended.err.as_str()), ("", ""));
}

#[test]
fn a_dry_run_says_what_then_happens() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run"], 0);
    project.edit("pipeline.toml", "echo ${word} ${seed} >", "sleep 0; echo ${word} ${seed} >");
    let plan = project.ends(&["run", "--dry-run"], 0);
    assert!(plan.out.contains("run      first[seed=0]: run: \"echo one 0"), "{}", plan.out);
    assert!(
        plan.out.contains("maybe    second[seed=0]: depends on what comes of `first[seed=0]`\n"),
        "{}",
        plan.out
    );
    assert!(plan.out.ends_with("3 will run, 4 may run or be cut off\n"), "{}", plan.out);
    let cut_off = project.ends(&["run"], 0);
    assert!(cut_off.out.starts_with("ran 3, 4 fresh in "), "{}", cut_off.out);
    project.ends(&["run", "-S", "word=two"], 0);
    let back = project.ends(&["run", "-n"], 0);
    assert!(back.out.ends_with("7 will be restored\n"), "{}", back.out);
    assert!(project.ends(&["run"], 0).out.starts_with("restored 7 in "));
    assert!(project.ends(&["run", "-n"], 0).out.starts_with("nothing to do: 7 fresh\n"));
    let forced = project.ends(&["run", "-n", "--force", "first[seed=0]", "second"], 0).out;
    assert!(forced.ends_with("4 will run, 2 fresh\n"), "{forced}");
    let only = project.ends(&["run", "-n", "--only", "second", "-S", "word=three"], 2).err;
    assert!(only.contains("`first[seed=0]` is needed but not up to date"), "{only}");
}

#[test]
fn a_record_names_the_program_and_what_it_computes_with() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run", "first[seed=0]"], 0);
    let records = walkdir::WalkDir::new(project.path(".repro/records")).into_iter().map(Result::unwrap);
    let record = records.into_iter().find(|entry| entry.file_type().is_file()).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record.path()).unwrap()).unwrap();
    let versions = &record["run"]["machine"]["versions"];
    assert_eq!(versions["repro"], env!("CARGO_PKG_VERSION"), "{record}");
    for name in ["candle-core", "repro-engine", "repro-network"] {
        assert!(versions[name].is_string(), "{record}");
    }
}

#[test]
fn only_force_and_names_choose_what_runs() {
    let project = TestProject::new(CHAINS);
    let early = project.ends(&["run", "--only", "second"], 2).err;
    assert!(early.contains("`first[seed=0]` is needed but not up to date"), "{early}");
    assert!(early.contains("help: run without `--only`"), "{early}");
    let one = project.ends(&["run", "second[seed=1]"], 0).out;
    assert!(one.starts_with("ran 2 in "), "{one}");
    project.ends(&["run"], 0);
    let forced = project.ends(&["run", "--force", "second"], 0).out;
    assert!(forced.starts_with("ran 3, 3 fresh in "), "{forced}");
    let only = project.ends(&["run", "--force", "--only", "second[seed=0]"], 0).out;
    assert!(only.starts_with("ran 1 in "), "{only}");
    // What is shown may be there, and of another recipe.
    project.ends(&["run", "-S", "stage.first.run='echo 7 > $OUT/number'"], 0);
    let other = project.ends(&["run", "--force", "--only", "second[seed=0]"], 2).err;
    assert!(other.contains("`first[seed=0]` is needed but not up to date"), "{other}");
    let twice = project.ends(&["run", "second[seed=0,seed=1]"], 2).err;
    assert!(twice.contains("has two values of the axis `seed`"), "{twice}");
}

#[test]
fn what_the_lock_file_says_otherwise_is_told_also_after_something_else_ran() {
    let random =
        "[stage.a]\nkind = \"command\"\nrun = \"od -An -N8 -tx1 /dev/urandom > $OUT/x\"\noutputs = [\"x\"]
[stage.b]\nkind = \"command\"\nrun = \"echo b > $OUT/x\"\noutputs = [\"x\"]";
    let project = TestProject::new(random);
    let told = "the lock file had other bytes for the same recipe";
    assert!(!project.ends(&["run"], 0).err.contains(told));
    for folder in [".repro", "artifacts"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    project.ends(&["run", "b"], 0);
    let answer = project.ends(&["run"], 0);
    assert!((answer.out + &answer.err).contains(told));
    assert!(!project.ends(&["run", "--force"], 0).err.contains(told), "it is this project's own now");
}

#[test]
fn status_says_what_changed_in_tables_and_texts() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = '''\necho one\necho two > $OUT/x'''\noutputs = ['x']\nvalues = { A = 1, B = 2 }\n",
    );
    project.ends(&["run"], 0);
    project.edit("pipeline.toml", "B = 2", "B = 3");
    project.edit("pipeline.toml", "echo two", "echo 2");
    let told = project.ends(&["status"], 0).out;
    let line = "run, line 2: `echo two > $OUT/x` -> `echo 2 > $OUT/x`; values.B: 2 -> 3";
    assert!(told.contains(line), "{told}");
    let listed = project.ends(&["params"], 0).out;
    assert!(listed.lines().any(|line| line.contains("values.B") && line.contains('3')), "{listed}");
}

#[test]
fn of_many_reasons_a_few_are_shown() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run", "-S", "stage.first.seed=0..9", "-S", "stage.second.seed=0..9"], 0);
    let plan = project.ends(&["run", "--dry-run"], 0).out;
    let line = plan.lines().find(|line| line.contains("join")).unwrap();
    assert!(line.ends_with("; and 2 more, which `repro explain` shows"), "{line}");
    assert_eq!(project.ends(&["explain", "join"], 0).out.matches("\n-").count(), 6);
}

#[test]
fn the_lock_file_keeps_what_a_setting_leaves_out_and_forgets_what_the_file_does() {
    let project = TestProject::new(CHAINS);
    let locked = |name: &str| project.read("pipeline.lock").contains(&format!("[\"default\".\"{name}\"]"));
    project.ends(&["run"], 0);
    project.ends(&["run", "-S", "stage.first.seed=0..1", "-S", "stage.second.seed=[0]"], 0);
    assert!(locked("first[seed=0]") && locked("first[seed=2]") && locked("second[seed=2]"));
    project.ends(&["run", "-S", "stage.first.seed=0..1", "-S", "stage.second.seed=[0]", "-S", "word=two"], 0);
    assert!(locked("first[seed=2]"));
    let two = engine::digest::Digest::of("two 0\n").to_string();
    assert!(project.read("pipeline.lock").contains(&two), "what ran has its new line");
    project.write("pipeline.toml", &CHAINS.replace("0, 1, 2", "0, 1"));
    project.ends(&["run"], 0);
    assert!(locked("first[seed=1]") && !locked("first[seed=2]"));
}

#[test]
fn a_damaged_artifact_is_named_and_restored_and_a_damaged_cache_is_made_again() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run"], 0);
    project.write("artifacts/join/all", "something else");
    let restored = project.ends(&["run"], 0);
    assert!(
        restored.err.contains("artifacts/join/all` was altered; the result is restored"),
        "{}",
        restored.err
    );
    assert!(restored.out.starts_with("restored 1, 6 fresh in "), "{}", restored.out);
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 1\none 2\n");

    let digest = engine::digest::Digest::of("one 0\none 1\none 2\n").to_string();
    let object = format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]);
    std::fs::remove_file(project.path(&object)).unwrap();
    project.write(&object, "ONE 0\none 1\none 2\n");
    project.write("artifacts/join/all", "something else");
    assert!(project.ends(&["run", "--dry-run"], 0).out.starts_with("run      join: "));
    let damaged = project.ends(&["run"], 0);
    assert!(damaged.err.contains(&digest[2..]) && damaged.err.contains("made again"), "{}", damaged.err);
    assert!(damaged.out.starts_with("ran 1, 6 fresh in "), "{}", damaged.out);
    assert_eq!(project.read(&object), "one 0\none 1\none 2\n");
}

#[test]
fn a_stage_never_reads_an_input_that_is_no_longer_what_was_made() {
    let stages = |bad: &str| {
        format!(
            "[stage.clean]\nkind = 'command'\nrun = 'echo clean > $OUT/o'\noutputs = ['o']\n\
             [stage.bad]\nkind = 'command'\nrun = '{bad}'\noutputs = ['o']\nneeds = {{ s = 'clean' }}\n\
             [stage.good]\nkind = 'command'\nrun = 'cp $IN_S/o $OUT'\noutputs = ['o']\nneeds = {{ s = 'clean' }}\n"
        )
    };
    let project = TestProject::new(&stages("cp $IN_S/o $OUT"));
    project.ends(&["run"], 0);
    // In this run `good` has to be made after `bad` has written into what both read.
    project.write("pipeline.toml", &stages("echo dirty >> $IN_S/o; false"));
    project.edit("pipeline.toml", "cp $IN_S/o $OUT'", "cat $IN_S/o > $OUT/o'");
    let run = project.ends(&["run", "-k", "-j1"], 1);
    assert!(
        run.err.contains("artifacts/clean/o` is no longer what was made; the result is restored"),
        "{}",
        run.err
    );
    let made = |project: &TestProject| [project.read("artifacts/clean/o"), project.read("artifacts/good/o")];
    assert_eq!(made(&project), ["clean\n", "clean\n"]);
    // Where the cache cannot restore it either, nothing is made of it.
    project.edit("pipeline.toml", "cat $IN_S/o > $OUT/o", "cat < $IN_S/o > $OUT/o");
    let digest = engine::digest::Digest::of("clean\n").to_string();
    let object = project.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
    project.edit(
        "pipeline.toml",
        "echo dirty >> $IN_S/o",
        &format!("rm -f {}; echo dirty >> $IN_S/o", object.display()),
    );
    let run = project.ends(&["run", "-k", "-j1"], 1);
    assert!(run.err.contains("its input `") && run.err.contains("restored or made anew"), "{}", run.err);
    assert!(!project.read("artifacts/good/o").contains("dirty"));
}

#[test]
fn the_list_of_a_roles_folders_is_there_for_one_too_and_no_other_runs() {
    let project = TestProject::new(
        "[params]\nxs = [1, 2]\n\
         [stage.a]\nkind = 'command'\nmatrix = { x = '${xs}' }\nrun = 'echo $AXIS_X > $OUT/o'\noutputs = ['o']\n\
         [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\n\
         run = 'while read -r f; do cat $f/o; done < $IN_A_LIST > $OUT/o; echo \"$${IN_B_LIST:-}$${AXIS_Y:-}\" >> $OUT/o'\n\
         outputs = ['o']\n",
    );
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/b/o"), "1\n2\n\n");
    project.ends(&["run", "-S", "xs=[2]"], 0);
    assert_eq!(project.read("artifacts/b/o"), "2\n\n");
    let strange = ["IN_B_LIST=strange", "AXIS_Y=strange", env!("CARGO_BIN_EXE_repro")];
    let mut run = std::process::Command::new("env");
    run.args(strange).args(["run", "-S", "xs=[3]"]);
    assert_eq!(project.start_as(&mut run).wait().code, Some(0));
    assert_eq!(project.read("artifacts/b/o"), "3\n\n");
}

#[test]
fn nothing_to_do_is_remembered_for_what_was_asked_also_through_a_link() {
    let project = TestProject::new(CHAINS);
    std::os::unix::fs::symlink(project.path("."), project.path("link")).unwrap();
    let answers = || std::fs::read_dir(project.path(".repro/idle")).map_or(0, Iterator::count);
    let idle = |words: &[&str]| {
        let words = [&["-f", "link/pipeline.toml", "run"], words].concat();
        project.ends(&words, 0).out.starts_with("nothing to do: 7 fresh")
    };
    assert!(!idle(&["join"]));
    assert_eq!(answers(), 0, "a part was asked for");
    assert!(idle(&[]) && answers() == 1);
    assert!(idle(&[]));
    assert!(!idle(&["-S", "word=two"]) && idle(&["-S", "word=two"]));
    assert!(!idle(&[]), "its result is restored");
    assert!(idle(&[]) && answers() == 1);
}

#[test]
fn many_processes_at_once_get_the_files_that_they_need() {
    let numbers: Vec<_> = (0..30).collect();
    let project = TestProject::new(&format!(
        "[stage.a]\nkind = \"command\"\nmatrix.n = {numbers:?}\nrun = \"sleep 0.5; echo > $OUT/x\"\noutputs = [\"x\"]\n"
    ));
    let line = "ulimit -S -n 50; exec \"$0\" run -j 30 --launcher env";
    let run =
        project.start_as(std::process::Command::new("sh").args(["-c", line, env!("CARGO_BIN_EXE_repro")]));
    let answer = run.wait();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
}

#[test]
fn a_reader_gets_the_input_that_its_recipe_names_though_the_record_has_other_bytes_by_now() {
    let project = TestProject::new(
        r#"
        [params]
        spoil = "true"
        word = "one"

        [stage.a]
        kind = "command"
        run = "od -An -N8 -tx1 /dev/urandom > $OUT/x"
        outputs = ["x"]

        [stage.between]
        kind = "command"
        run = "${spoil}; echo > $OUT/x"
        outputs = ["x"]

        [stage.b]
        kind = "command"
        run = "echo ${word} > $OUT/y; cat $IN_A/x >> $OUT/y"
        outputs = ["y"]
        needs = { a = "a" }

        [profile.p]
        "#,
    );
    project.ends(&["run"], 0);
    project.ends(&["run", "--profile", "p"], 0);
    let made = project.read("artifacts/p/a/x");
    project.ends(&["run", "--force", "a"], 0);
    let spoil = ["-S", "word=two", "-S", "spoil=echo dirty > artifacts/p/a/x"];
    let run = project.ends(&[&["run", "--profile", "p", "-j1"][..], &spoil].concat(), 0);
    assert!(run.err.contains("artifacts/p/a/x` is no longer what was made; the result is restored"));
    assert_eq!(project.read("artifacts/p/b/y"), format!("two\n{made}"));
    assert_eq!(project.read("artifacts/p/a/x"), made);
}

#[test]
fn more_jobs_than_threads_start_as_many_commands_that_ask_for_none() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    let numbers: Vec<_> = (0..jobs).collect();
    // Each waits until all have begun.
    let project = TestProject::new(&format!(
        "[stage.a]\nkind = \"command\"\nmatrix.n = {numbers:?}\noutputs = [\"x\"]\n\
         run = '''echo > begun-${{n}}; for i in $(seq 300); do set -- begun-*; [ $# -ge {jobs} ] && break; sleep 0.1; done\n\
         [ $# -ge {jobs} ] && echo $THREADS > $OUT/x'''\n"
    ));
    project.ends(&["run", "-j", &jobs.to_string()], 0);
    assert_eq!(project.read("artifacts/a/n=0/x"), "1\n");
}
