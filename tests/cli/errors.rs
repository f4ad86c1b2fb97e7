//! Mistakes: each is shown at its place, with a way out and the right exit code.

use std::process::Command;

use crate::{project::TestProject, run::CHAINS};

#[test]
fn a_cycle_is_shown_as_a_loop_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    project.edit("pipeline.toml", "outputs = [\"number\"]", "outputs = [\"number\"]\nneeds.late = \"join\"");
    let answer = project.ends(&["run"], 2);
    let said = "the stages need each other: first -> join -> second -> first";
    assert!(answer.err.contains(said) && answer.err.contains("pipeline.toml:9:14"), "{}", answer.err);
    assert!(answer.err.contains("remove one of these needs"), "{}", answer.err);
    assert!(!project.path(".repro").exists());
}

/// A limit on the size of files stands in for a full disk: the system refuses further bytes alike.
#[test]
fn a_disk_that_takes_no_more_is_named_and_what_was_finished_before_is_kept() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run", "first"], 0);
    let program = env!("CARGO_BIN_EXE_repro");
    let small = format!("trap '' XFSZ; ulimit -f 1; exec {program} run --jobs 1");
    let answer = project.start_as(Command::new("sh").args(["-c", &small])).wait();
    assert_eq!(answer.code, Some(2), "{}{}", answer.out, answer.err);
    assert!(answer.err.contains("error: cannot write `"), "{}", answer.err);
    assert!(answer.err.contains("File too large"), "{}", answer.err);
    let answer = project.ends(&["run"], 0).out;
    assert!(answer.contains(" 3 fresh in ") || answer.contains("restored"), "{answer}");
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 1\none 2\n");
    project.ends(&["verify"], 0);
}

#[cfg(target_os = "linux")] // has `/dev/full`
#[test]
fn a_stage_that_finds_the_disk_full_fails_with_its_own_words() {
    let project = TestProject::new(CHAINS);
    project.edit("pipeline.toml", "cat $IN_NUMBER/number > $OUT/copy", "cat $IN_NUMBER/number > /dev/full");
    let answer = project.ends(&["run"], 1);
    assert!(answer.err.contains("No space left on device"), "{}", answer.err);
    assert_eq!(project.read("artifacts/first/seed=0/number"), "one 0\n");
}

#[test]
fn a_stage_that_cannot_be_started_fails_by_itself() {
    let project = TestProject::new(CHAINS);
    let large = format!("kind = \"command\"\nenv = {{ LARGE = \"{}\" }}", "x".repeat(3_000_000));
    project.edit("pipeline.toml", "kind = \"command\"", &large);
    let answer = project.ends(&["run", "--keep-going"], 1);
    assert!(answer.err.contains("Argument list too long"), "{}", answer.err);
    assert!(answer.err.contains("\nhelp: put long values into a file"), "{}", answer.err);
    project.edit("pipeline.toml", &"x".repeat(3_000_000), "a\\u0000b");
    let answer = project.ends(&["run"], 2);
    assert!(answer.err.contains("`LARGE` has a NUL in its text"), "{}", answer.err);
}

#[test]
fn a_file_above_is_a_project_of_its_own_however_it_is_named() {
    let project = TestProject::new("");
    std::fs::create_dir(project.path("inner")).unwrap();
    project.write("inner/pipeline.toml", "");
    project.write("other.toml", CHAINS);
    let above = ["-C", "inner", "-f", "../other.toml"];
    project.ends(&[&above[..], &["run"]].concat(), 0);
    assert!(project.path("artifacts/other/join/all").exists());
    assert!(!project.path("inner/other").exists() && !project.path("other").exists());
    let again = project.ends(&["-f", "other.toml", "run"], 0);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    project.write("other.tml", CHAINS);
    let answer = project.ends(&["-f", "other.tml", "run"], 2);
    assert!(answer.err.contains("does not end in `.toml`"), "{}", answer.err);
}

#[test]
fn an_unknown_key_is_shown_with_place_caret_suggestion_and_exit_code_2() {
    let project = TestProject::new("[stage.a]\nkind = \"command\"\nrum = \"true\"\noutputs = []\n");
    let answer = project.ends(&["dag"], 2);
    assert!(answer.err.contains("pipeline.toml:3:1"), "{}", answer.err);
    assert!(answer.err.contains("rum = \"true\""), "{}", answer.err);
    assert!(answer.err.contains("^^^"), "{}", answer.err);
    assert!(answer.err.contains("`run`"), "{}", answer.err);
}

#[test]
fn a_folder_that_is_not_there_is_named_with_exit_code_2() {
    let project = TestProject::new("");
    let answer = project.ends(&["-C", "nowhere", "dag"], 2);
    assert!(answer.err.contains("`nowhere`"), "{}", answer.err);
}

#[test]
fn a_misspelt_stage_axis_or_value_is_suggested_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    for (name, said) in [
        ("secnd", "there is no stage `secnd`; did you mean `second`?"),
        ("seeds=[1]", "there is no stage `seeds=`; `-S 'seeds=[1]'` sets a value"),
        ("second[sed=1]", "has no axis `sed`; did you mean `seed`?"),
        ("second[seed=7]", "has no value `7`; there is `0`, `1`"),
    ] {
        for command in ["run", "status", "explain", "metrics"] {
            let answer = project.ends(&[command, name], 2);
            assert!(answer.err.contains(said), "{}", answer.err);
        }
    }
    assert!(!project.path(".repro").exists());
}

#[test]
fn two_instances_that_would_publish_in_one_place_are_refused() {
    let project = TestProject::new(
        "[stage.model]\nkind = \"model\"\narch = \"resnet14\"\nmatrix = { seed = [1, 2] }\n\
         [stage.plot]\nkind = \"plot\"\nneeds = { models = \"model\" }\nmatrix = { seed = [1, 2] }\n\
         [stage.page]\nkind = \"readme\"\nneeds = { figures = \"plot\" }\nmatrix = { seed = [1, 2] }\npublish = true\n",
    );
    let said = project.ends(&["status"], 2).err;
    assert!(said.contains("`page[seed=1]` and `page[seed=2]` would publish in the same place"), "{said}");
    let page = |name: &str| {
        format!("[stage.{name}]\nkind = \"readme\"\nneeds = {{ figures = \"plot\" }}\npublish = true\n")
    };
    let plot = "[stage.model]\nkind = \"model\"\narch = \"resnet14\"\n[stage.plot]\nkind = \"plot\"\nneeds = { models = \"model\" }\n";
    let two = format!("{plot}{}{}", page("page"), page("other"));
    project.write("pipeline.toml", &two);
    let said = project.ends(&["status"], 2).err;
    assert!(said.contains("`page` and `other` would publish in the same place"), "{said}");
    project.write("pipeline.toml", &(two + "name = \"other\"\n"));
    project.ends(&["status"], 0);
}

#[test]
fn what_would_do_nothing_is_refused() {
    let model = "[params]\nepochs = 3\n[stage.model]\nkind = \"model\"\narch = \"resnet8\"\nmatrix = { seed = [0, 1] }\n";
    let project = TestProject::new(model);
    for (setting, hint) in [("sead=[0, 1]", "did you mean `seed`?"), ("sead=0", "did you mean `seed`?")] {
        let told = project.ends(&["status", "-S", &format!("stage.model.{setting}")], 2).err;
        assert!(told.contains("`sead`") && told.contains(hint), "{told}");
    }
    // Also where a parameter of that name lists its values.
    let listed = model.replace("epochs = 3", "sead = [0, 1]").replace("seed = [0, 1]", "sead = \"${sead}\"");
    let told = TestProject::new(&listed).ends(&["status"], 2).err;
    assert!(told.contains("the axis `sead` of `model` does nothing"), "{told}");
    project.write("pipeline.toml", &format!("{model}[profile.quick]\nparams.epoch = 1\n"));
    let told = project.ends(&["status"], 2).err;
    assert!(told.contains("profile `quick` sets a parameter `epoch` that does not exist"), "{told}");
    assert!(told.contains("did you mean `epochs`?"), "{told}");
    // What is escaped refers to nothing.
    let escaped = "[stage.a]\nkind = \"command\"\nrun = \"echo $${rate} > $OUT/x\"\noutputs = [\"x\"]\n";
    let told = TestProject::new(escaped).ends(&["status", "-S", "stage.a.rate=[1, 2]"], 2).err;
    assert!(told.contains("`rate`"), "{told}");
    // It may bring one for a stage of its own.
    let own = "params.word = \"w\"\n[profile.quick.stage.more]\nkind = \"model\"\narch = \"${word}\"\n";
    project.write("pipeline.toml", &format!("{model}[profile.quick]\n{own}"));
    project.ends(&["status"], 0);
    project.write("pipeline.toml", "[stage.model]\nkind = \"model\"\nmatrix = 3\n");
    for args in [&["status"][..], &["status", "-S", "stage.model.seed=[1, 2]"]] {
        let told = project.ends(args, 2).err;
        assert!(told.contains("table"), "{told}");
    }
}

#[test]
fn names_that_a_command_could_not_tell_apart_are_refused() {
    let stage = "[stage.a]\nkind = \"command\"\nrun = \"true\"\noutputs = [\"x\"]\n";
    let twice = format!(
        "{stage}matrix = {{ n-layers = [4], N_LAYERS = [8] }}\nvalues = {{ OUT = 1 }}\nenv = {{ AXIS_Q = \"\" }}\n"
    );
    let roles = format!(
        "{stage}\n{}needs = {{ eval-set = \"a\", eval_set = \"a\" }}\n",
        stage.replace("stage.a", "stage.b")
    );
    let included = format!("{stage}matrix.include = [{{ n-l = 1, N_L = 2 }}, {{ n-l = 2, N_L = 2 }}]\n");
    let referenced =
        format!("[params]\nboth = [{{ n-l = 1, N_L = 2 }}]\n{stage}matrix.include = \"${{both}}\"\n");
    for (text, said) in [
        (&twice, "would be `AXIS_N_LAYERS`"),
        (&included, "would be `AXIS_N_L`"),
        (&referenced, "would be `AXIS_N_L`"),
        (&twice, "`OUT` is set by the runner"),
        (&twice, "`AXIS_Q` is set by the runner"),
        (&roles, "would be `IN_EVAL_SET`"),
    ] {
        let told = TestProject::new(text).ends(&["status"], 2).err;
        assert!(told.contains(said), "{said}:\n{told}");
    }
}

#[test]
fn a_small_number_has_one_name_and_may_be_spelt_otherwise() {
    let project = TestProject::new(
        "[stage.a]\nkind = \"command\"\nrun = \"echo $AXIS_RATE > $OUT/x\"\noutputs = [\"x\"]\nmatrix = { rate = [0.00001, 1.0] }\n",
    );
    project.ends(&["run", "a[rate=0.00001]"], 0);
    assert_eq!(project.read("artifacts/a/rate=1e-5/x"), "1e-5\n");
    assert!(project.ends(&["status", "a[rate=1e-5]"], 0).out.starts_with("fresh      a[rate=1e-5]\n"));
    assert!(project.ends(&["status", "a[rate=1]"], 0).out.starts_with("stale      a[rate=1.0]"));
}

#[test]
fn an_empty_profile_is_none() {
    let text = "[stage.data]\nkind = 'dataset'\nsource = 'synthetic'\n[stage.model]\nkind = 'model'\narch = 'resnet8'\n\
                [stage.train]\nkind = 'train'\nneeds = { data = 'data', model = 'model' }\n";
    let project = TestProject::new(text);
    let repro = |words: &[&str]| {
        let program = ["REPRO_PROFILE=", env!("CARGO_BIN_EXE_repro")];
        project.start_as(Command::new("env").args(program).args(words)).wait()
    };
    assert_eq!(repro(&["status"]).code, Some(0));
    // Nor is it one in what there is to do next.
    let told = repro(&["export", "train", "--onnx", "x.onnx"]).err;
    assert!(told.contains("`repro run train` first"), "{told}");
}

#[test]
fn an_unknown_profile_is_named_with_exit_code_2() {
    let quick = "\n[profile.quick.params]\nword = \"quick\"\n";
    let project = TestProject::new(&format!("{CHAINS}{quick}"));
    let answer = project.ends(&["run", "--profile", "quik"], 2);
    assert!(answer.err.contains("`quik`") && answer.err.contains("`quick`"), "{}", answer.err);
    project.ends(&["run", "--profile", "quick"], 0);
    assert_eq!(project.read("artifacts/quick/first/seed=0/number"), "quick 0\n");
    project.write("pipeline.toml", CHAINS);
    let mut status = Command::new("env");
    status.args(["REPRO_PROFILE=quick", env!("CARGO_BIN_EXE_repro"), "status"]);
    let answer = project.start_as(&mut status).wait();
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("unset the variable `REPRO_PROFILE`"), "{}", answer.err);
}

/// The system refuses new files in `/sys` even to its superuser.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_named_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    let answer = project.ends(&["push", "/sys/shared"], 2);
    assert!(answer.err.starts_with("error: cannot create `/sys/shared/records`: "), "{}", answer.err);
    assert!(answer.err.contains("help: make `/sys` writable for you"), "{}", answer.err);
}

#[test]
fn who_writes_as_for_another_runner_is_told_what_it_is_called_here() {
    for (line, said) in [
        ("cmd = \"true\"", "has no parameter `cmd`"),
        ("cmd = \"true\"", "help: the command line is called `run`"),
        ("outs = [\"x\"]", "help: what it makes is called `outputs`, and written to `$OUT`"),
        ("run = [\"true\", \"false\"]", "help: write one text; several lines stand between `'''`"),
        ("resources = { memory = \"4GB\" }", "help: write bytes, such as `4_000_000_000`"),
        (
            "deps = [\"data/*.csv\"]\nrun = \"true\"\noutputs = [\"x\"]",
            "or correct the path, which is no pattern",
        ),
    ] {
        let project = TestProject::new(&format!("[stage.a]\nkind = \"command\"\n{line}\n"));
        let answer = project.repro(&["run"]);
        assert!(answer.code != Some(0) && answer.err.contains(said), "{line}: {}", answer.err);
    }
}

#[test]
fn what_a_merge_another_runner_or_a_slip_left_is_named() {
    let text =
        "[stage.a]\nkind = 'command'\nrun = 'echo $RATE > $OUT/x'\noutputs = ['x']\nvalues = { RATE = 1 }\n";
    let project = TestProject::new(&format!("<<<<<<< ours\n{text}=======\n>>>>>>> theirs\n"));
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("a merge left both versions") && !told.contains("expected"), "{told}");
    project.write("pipeline.toml", &text.replace("kind = 'command'\nrun", "cmd"));
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("what runs a command line is `kind = \"command\"`"), "{told}");
    project.write("pipeline.toml", text);
    let told = project.ends(&["run", "-S", "stage.a.values.RAET=2"], 2).err;
    assert!(told.contains("has no value `RAET`") && told.contains("did you mean `RATE`?"), "{told}");
    project.ends(&["run", "-S", "stage.a.values.RATE=2"], 0);
}

#[test]
fn a_figure_that_cannot_be_drawn_is_told_beside_the_result() {
    let project = TestProject::new(
        r#"
        [stage.evaluate]
        kind = "command"
        run = """echo '{ "arch": "resnet14", "mode": "bn", "top1": 0.5 }' > $OUT/metrics.json"""
        outputs = ["metrics.json"]

        [stage.plot]
        kind = "plot"
        figures = ["accuracy", "affine"]
        needs = { metrics = "evaluate" }

        [profile.quick]
        "#,
    );
    let answer = project.ends(&["run"], 0);
    let told = "warning: `plot`: the inputs have nothing for the figure \"affine\"";
    assert!(answer.err.contains(told), "{}", answer.err);
    assert!(project.path("artifacts/plot/accuracy-by-depth.svg").exists());
    let answer = project.ends(&["run", "quick"], 2);
    assert!(answer.err.contains("there is no stage `quick`; `--profile quick` is there"), "{}", answer.err);
}

#[test]
fn a_file_without_a_stage_has_nothing_to_run() {
    let project = TestProject::new("[params]\nseed = 1\n");
    for command in ["run", "status"] {
        let answer = project.ends(&[command], 2);
        let told = "`pipeline.toml` has no stage to run\nhelp: write `[stage.NAME]`";
        assert!(answer.err.contains(told), "{}", answer.err);
    }
    project.ends(&["gc"], 0);
    let of_profile =
        "[profile.quick.stage.a]\nkind = \"command\"\nrun = \"echo 1 > $OUT/x\"\noutputs = [\"x\"]\n";
    project.write("pipeline.toml", of_profile);
    let answer = project.ends(&["run"], 2);
    assert!(answer.err.contains("help: perhaps a profile adds some: `--profile quick`"), "{}", answer.err);
    project.ends(&["run", "--profile", "quick"], 0);
}

#[test]
fn an_input_of_the_wrong_kind_is_refused_before_anything_runs() {
    let text = "[stage.data]\nkind = 'dataset'\nsource = 'synthetic'\n[stage.model]\nkind = 'model'\narch = 'resnet8'\n\
                [stage.train]\nkind = 'train'\nneeds = { data = 'model', model = 'data' }\n";
    let project = TestProject::new(text);
    for command in [&["run", "-n"][..], &["dag"], &["run"]] {
        let told = project.ends(command, 2).err;
        assert!(
            told.contains(
                "`data` of `train` wants an instance of kind `dataset`, and `model` is of kind `model`"
            ),
            "{told}"
        );
        assert!(told.contains("help: of that kind there is `data`"), "{told}");
        assert!(told.contains("pipeline.toml:9:11") && told.contains("pipeline.toml:9:27"), "{told}");
    }
    assert!(!project.path(".repro").exists());
    project.edit("pipeline.toml", "{ data = 'model', model = 'data' }", "{ data = 'data', model = 'own' }");
    // A command stands in for a kind where it makes the file.
    let own = |output: &str| {
        format!(
            "[stage.own]\nkind = 'command'\nrun = 'cp model.json $OUT/'\noutputs = ['{output}']\ndeps = ['model.json']\n"
        )
    };
    let correct = project.read("pipeline.toml");
    project.write("pipeline.toml", &format!("{}{correct}", own("net.json")));
    project.write("model.json", "{}");
    let told = project.ends(&["status"], 2).err;
    assert!(told.contains("if it makes one, name the file in its `outputs`: `model.json`"), "{told}");
    project.write("pipeline.toml", &format!("{}{correct}", own("./model.json")));
    project.ends(&["status"], 0);
}

#[test]
fn an_exclude_that_takes_nothing_away_is_refused_where_it_never_could() {
    let project = TestProject::new(
        "[params]\nseeds = [0, 1]\n[stage.a]\nkind = 'model'\narch = 'resnet8'\n\
         matrix = { seed = [0, 1], exclude = [{ seed = 7 }] }\n",
    );
    let told = project.ends(&["status"], 2).err;
    assert!(told.contains("this excludes nothing: the axis `seed` of `a` has no value 7"), "{told}");
    assert!(told.contains("help: there is `0`, `1`") && told.contains("pipeline.toml:6:47"), "{told}");
    project.ends(&["status", "-S", "stage.a.seed=[0, 7]"], 0);
    project.ends(&["status", "-S", "stage.a.matrix.exclude=[]"], 0);
    let text = project.read("pipeline.toml");
    project.write("pipeline.toml", &format!("{text}[profile.long]\nstage.a.matrix.seed = [0, 7]\n"));
    project.ends(&["status"], 0);
    project.write("pipeline.toml", &text.replace("seed = [0, 1]", "seed = '${seeds}'"));
    project.ends(&["status"], 0);
    project.write("pipeline.toml", &text.replace("seed = 7", "seed = 1.0"));
    project.ends(&["status"], 0);
}

#[test]
fn what_follows_from_a_mistake_is_not_told_beside_it() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'true'\noutputs = ['x']\nresources = { threads = '${many}' }\n\
         matrix = { seed = '${seed}', exclude = '${rules}' }\n",
    );
    let told = project.ends(&["status"], 2).err;
    for name in ["many", "seed", "rules"] {
        assert!(told.contains(&format!("`${{{name}}}` is neither an axis nor in `[params]`")), "{told}");
    }
    assert!(!told.contains("must be"), "{told}");
    project.write(
        "pipeline.toml",
        "[stage.a]\nkind = 'command'\nrun = 'true'\noutputs = ['x']\nmatrix = { \"Größe\" = [1] }\n",
    );
    let told = project.ends(&["status"], 2).err;
    assert!(told.contains("use the letters a-z and A-Z, digits"), "{told}");
}
