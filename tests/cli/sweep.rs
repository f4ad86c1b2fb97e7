//! Axes that come and go, and stages that read what commands made.

use crate::{project::TestProject, run::CHAINS};

#[test]
fn a_setting_on_the_command_line_sweeps() {
    let project = TestProject::new(CHAINS);
    let sweep = ["run", "-S", "stage.first.seed=0..5", "-S", "stage.second.seed=[0, 4]"];
    let swept = project.ends(&sweep, 0);
    assert!(swept.out.starts_with("ran 8 in "), "{}", swept.out);
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 4\n");
    // On either side of the command.
    let both = ["-S", "word=two", "run", "-S", "stage.first.seed=[4]", "-S", "stage.second.seed=[4]"];
    project.ends(&both, 0);
    assert_eq!(project.read("artifacts/join/all"), "two 4\n");
}

#[test]
fn what_is_swept_lies_beside_what_the_file_has() {
    let project = TestProject::new(
        "[params]\nword = 'one'\n[stage.first]\nkind = 'command'\nrun = 'echo $N ${word} > $OUT/x'\noutputs = ['x']\nvalues = { N = 3 }\n\
         [stage.second]\nkind = 'command'\nrun = 'cat $IN_A/x > $OUT/y'\noutputs = ['y']\nneeds = { a = 'first' }",
    );
    project.ends(&["run"], 0);
    for sweep in ["stage.first.values.N=[5, 7]", "stage.first.word=[5, 7]"] {
        project.ends(&["-S", sweep, "run", "first"], 0);
        assert!(project.ends(&["-S", sweep, "run", "first"], 0).out.starts_with("nothing to do"));
    }
    assert_eq!(project.read("artifacts/first,N=5/x"), "5 one\n");
    assert_eq!(project.read("artifacts/first,word=7/x"), "3 7\n");
    assert_eq!(project.read("artifacts/first/x"), "3 one\n");
    assert_eq!(project.ends(&["status"], 0).out, "2 fresh\n");
    // An axis that nothing reads would be one result under two names.
    let told = project.ends(&["-S", "stage.first.wrod=[1, 2]", "status"], 2).err;
    assert!(told.contains("nothing of the stage is `wrod` or uses it"), "{told}");
    project.edit("pipeline.toml", "values = { N = 3 }", "values = { N = 3 }\nmatrix = { N = [1, 2] }");
    let told = project.ends(&["status"], 2).err;
    assert!(told.contains("`N` is both an axis of `first` and one of its `values`"), "{told}");
    project.edit("pipeline.toml", "{ N = 3 }", "{ N = '${N}' }");
    project.ends(&["run", "first"], 0);
    assert_eq!(project.read("artifacts/first/N=2/x"), "2 one\n");
}

#[test]
fn of_several_settings_of_one_thing_the_last_counts() {
    let stage = "kind = 'command'\nrun = 'echo $LR > $OUT/x'\noutputs = ['x']\nvalues = { LR = 0.1 }";
    let project = TestProject::new(&format!("[stage.t]\n{stage}"));
    let [some, one, others] = ["[1, 2]", "3", "[4, 5]"].map(|value| format!("stage.t.values.LR={value}"));
    let shows = |sets: &[&str], count: usize, shown: &str, value: &str| {
        let words: Vec<_> = sets.iter().flat_map(|set| ["-S", set]).chain(["run"]).collect();
        assert!(project.ends(&words, 0).out.starts_with(&format!("ran {count} in ")), "{sets:?}");
        assert_eq!(project.read(&format!("artifacts/t,{shown}x")), value, "{sets:?}");
    };
    shows(&[&some, &one], 1, "LR=3/", "3\n");
    shows(&[&one, &others], 2, "LR=5/", "5\n");
    shows(&[&some, &one, &some], 2, "LR=1/", "1\n");
}

#[test]
fn what_is_swept_goes_through_a_chain_of_commands() {
    let project = TestProject::new(
        "[stage.fit]\nkind = 'command'\nrun = 'echo $EPOCHS > $OUT/w'\noutputs = ['w']\nvalues = { EPOCHS = 3 }\n\
         [stage.score]\nkind = 'command'\nrun = 'echo \"{\\\"acc\\\": $(cat $IN_M/w)}\" > $OUT/metrics.json'\noutputs = ['metrics.json']\nneeds = { m = 'fit' }\n\
         [stage.show]\nkind = 'command'\nrun = 'cat $IN_S/metrics.json > $OUT/x'\noutputs = ['x']\nneeds = { s = ['score'] }",
    );
    let sweep = ["run", "-S", "stage.fit.values.EPOCHS=[5, 8]"];
    assert!(project.ends(&sweep, 0).out.starts_with("ran 6 in "));
    assert_eq!(project.read("artifacts/show,EPOCHS=5/x"), "{\"acc\": 5}\n");
    assert_eq!(project.read("artifacts/show,EPOCHS=8/x"), "{\"acc\": 8}\n");
    // What collects goes on collecting, and what has a value of that name of its own keeps it.
    project.edit("pipeline.toml", "EPOCHS = 3 }", "EPOCHS = 3 }\nmatrix = { seed = [0, 1] }");
    project.edit("pipeline.toml", "$(cat $IN_M/w)", "$(for m in $IN_M; do echo 1; done | wc -l)");
    assert!(project.ends(&sweep, 0).out.starts_with("ran 6 in "));
    assert_eq!(project.read("artifacts/show/x"), "{\"acc\": 4}\n");
    project.edit(
        "pipeline.toml",
        "cat $IN_S/metrics.json",
        "for s in $IN_S; do cat $s/metrics.json; break; done",
    );
    // What the matrix leaves out is no axis.
    project.edit("pipeline.toml", "seed = [0, 1] }", "seed = [0, 1, 2], exclude = [{ seed = 2 }] }");
    project.edit("pipeline.toml", "{ m = 'fit' }", "{ m = 'fit' }\nmatrix = { seed = [0, 1] }");
    project.ends(&sweep, 0);
    assert_eq!(project.read("artifacts/score/EPOCHS=8,seed=1/metrics.json"), "{\"acc\": 1}\n");
    project.edit("pipeline.toml", "{ m = 'fit' }", "{ m = 'fit' }\nvalues = { EPOCHS = 1 }");
    project.ends(&sweep, 0);
    assert_eq!(project.read("artifacts/score/seed=0/metrics.json"), "{\"acc\": 2}\n");
}

/// What a setting would lose without a word is refused, with a way out that works.
#[test]
fn a_sweep_loses_nothing_of_what_it_asks_for() {
    let project = TestProject::new(
        "[params]\nrate = 1\ntable = { list = [1, 2], value = 3 }\n\
         [stage.fit]\nkind = 'command'\nrun = 'echo $RATE > $OUT/x'\noutputs = ['x']\nvalues = { RATE = '${rate}' }\n\
         [stage.prep]\nkind = 'command'\nrun = 'echo $N > $OUT/x'\noutputs = ['x']\nvalues = { N = 3 }\n\
         [stage.score]\nkind = 'command'\nrun = 'echo ${rate}: $(cat $IN_F/x) > $OUT/x'\noutputs = ['x']\nneeds = { f = 'fit' }\n\
         [stage.named]\nkind = 'command'\nrun = 'cat $IN_P/x > $OUT/x; echo $AXIS_NAME >> $OUT/x'\noutputs = ['x']\nneeds = { p = 'prep' }\n\
         matrix = { include = [{ name = 'a', n = 1 }] }\n\
         [stage.seeds]\nkind = 'command'\nrun = 'cat $IN_P/x > $OUT/x'\noutputs = ['x']\nneeds = { p = 'prep' }\n\
         values = { LR = '${lr}' }\nmatrix = { N = [1, 2], lr = [0.1] }\n",
    );
    let refused = |set: &str, says: &str| {
        let told = project.ends(&["-S", set, "status"], 2).err;
        assert!(told.contains(says), "{set}: {told}");
    };
    refused("stage.fit.rate=[1, 2]", "`score` needs one `fit` and would get all of them at once");
    refused("stage.fit.rate=[1, 2]", "`-S 'stage.score.rate=...'`");
    project.ends(&["-S", "stage.score.rate=[1, 2]", "-S", "stage.fit.rate=[1, 2]", "run", "score"], 0);
    assert_eq!(project.read("artifacts/score,rate=2/x"), "2: 2\n");
    refused("stage.prep.values.M=[1, 2]", "the stage has no value `M`");
    refused("stage.prep.values.N=[1, 2]", "its `include` leaves no room for the axis `N`");
    refused("stage.named.n=[1, 2]", "`n` is no list beside it");
    refused("stage.named.matrix.other=[1, 2]", "`other` is no list beside it");
    let without = ["-S", "stage.named.matrix.include=[]", "-S", "stage.prep.values.N=[1, 3]"];
    let told = project.ends(&[&without[..], &["status"]].concat(), 2).err;
    assert!(told.contains("`seeds` has an axis `N` of its own"), "{told}");
    assert!(told.contains("`matrix = { prep_N = [...] }` and `N = \"${prep_N}\"`"), "{told}");
    refused("table={zz=5}", "`[params]` has no `table.zz`");
    refused("table={value=[5]}", "`table.value` is one value, not a list");
    project.ends(&["-S", "table={list=5}", "status"], 0);
    for range in ["0.1..0.5", "0..=9223372036854775807"] {
        refused(&format!("stage.prep.values.N={range}"), &format!("the range `{range}` is"));
    }
    // A value that is an axis is set by either name, and a single value of what is taken is a list of one.
    project.ends(&["-S", "stage.seeds.values.LR=[0.2, 0.3]", "run", "seeds"], 0);
    assert_eq!(project.read("artifacts/seeds/N=2,lr=0.3/x"), "3\n");
    project.ends(&["-S", "stage.fit.rate=7", "run", "fit"], 0);
    assert_eq!(project.read("artifacts/fit,rate=7/x"), "7\n");
    // What only uses an axis is no axis, and keeps it.
    project.edit("pipeline.toml", "LR = '${lr}' }", "LR = '${lr}', WARM = '${lr}' }");
    let told = project.ends(&["-S", "stage.seeds.values.WARM=[3, 4]", "status", "seeds"], 0).out;
    assert!(told.contains("seeds[N=2,WARM=4,lr=0.1]"), "{told}");
    let told = project.ends(&["-S", "stage.seeds.values.WARM=3", "status", "seeds"], 0).out;
    assert!(told.contains("seeds[N=2,lr=0.1]"), "{told}");
    // Nor is what the matrix or the resources take from `[params]`.
    refused("stage.fit.threads=4", "has no parameter `threads`");
    project.edit("pipeline.toml", "lr = [0.1] }", "lr = [0.1] }\nresources = { threads = '${N}' }");
    refused("rate=1", "`threads` is the same for all instances of a stage: it cannot use the axis `N`");
}

#[test]
fn a_result_of_an_axis_that_the_file_no_longer_has_makes_way_and_comes_back() {
    let text = "[stage.a]\nkind = 'command'\nrun = 'echo $${AXIS_N:-} > $OUT/x'\noutputs = ['x']\n";
    let project = TestProject::new(text);
    let with_axis = format!("{text}matrix = {{ N = [1, 2] }}\n");
    project.write("pipeline.toml", &with_axis);
    project.ends(&["run"], 0);
    project.write("pipeline.toml", text);
    let answer = project.ends(&["run"], 0);
    let told = answer.out + &answer.err;
    assert!(told.contains("artifacts/a/N=1` made way; the cache keeps it"), "{told}");
    project.write("pipeline.toml", &with_axis);
    let told = project.ends(&["status"], 0).out;
    assert!(told.contains("restorable a[N=1]: the cache holds its result"), "{told}");
    assert!(project.ends(&["run"], 0).out.starts_with("restored 2"));
}

#[test]
fn images_that_a_command_makes_are_a_dataset() {
    let project = TestProject::new(
        "[stage.draw]\nkind = 'command'\nrun = '''\nfor part in train test; do for class in a b; do\n\
         mkdir -p $OUT/images/$part/$class\nprintf '%s' $PNG | base64 -d > $OUT/images/$part/$class/1.png\ndone; done'''\noutputs = ['images']\n\
         values = { PNG = 'PIXELS' }\n[stage.data]\nkind = 'dataset'\nsource = 'image-folder'\npath = 'artifacts/draw/images'\nresize = true\n",
    );
    let refused = project.ends(&["run"], 2).err;
    assert!(refused.contains("write `needs = { files = \"draw\" }` instead"), "{refused}");
    let pixel =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
    project.edit("pipeline.toml", "PIXELS", pixel);
    project.edit(
        "pipeline.toml",
        "path = 'artifacts/draw/images'",
        "needs = { files = 'draw' }\npath = 'images'",
    );
    std::fs::create_dir_all(project.path("images/train")).unwrap();
    std::fs::create_dir_all(project.path("images/test")).unwrap();
    let refused = project.ends(&["run"], 1).err;
    assert!(refused.contains("write `input` instead of `path`"), "{refused}");
    project.edit("pipeline.toml", "path = ", "input = ");
    project.ends(&["run"], 0);
    assert!(project.read("artifacts/data/dataset.json").contains("\"train\": 2"));
    project.edit("pipeline.toml", "input = 'images'", "path = 'images'\ninput = 'images'");
    assert!(project.ends(&["run"], 2).err.contains("there are both `path` and `input`"));
}

#[test]
fn the_commands_that_the_documentation_shows_run() {
    let page = include_str!("../../docs/pipeline.md");
    let example = page.split_once("### Commands\n\n```toml\n").unwrap().1.split_once("```").unwrap().0;
    let project = TestProject::new(example);
    project.write("words.txt", "pear\napple\npear\n");
    project.ends(&["run"], 0);
    let all = project.read("artifacts/all/all.jsonl");
    assert_eq!(all, "{\"rate\": 0.1, \"lines\": 2}\n{\"rate\": 0.2, \"lines\": 2}\n");
    assert!(project.ends(&["metrics"], 0).out.contains("score[rate=0.2]"));
    project.ends(&["-S", "stage.score.values.LIMIT=[1, 2]", "run"], 0);
    assert_eq!(project.read("artifacts/score/LIMIT=1,rate=0.1/best.txt"), "apple\n");
}

#[test]
fn inputs_that_are_set_are_no_sweep() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'echo a > $OUT/x'\noutputs = ['x']\n\
         [stage.b]\nkind = 'command'\nrun = 'echo b > $OUT/x'\noutputs = ['x']\n\
         [stage.c]\nkind = 'command'\nrun = 'for i in $IN_X; do cat $i/x; done > $OUT/x'\noutputs = ['x']\nneeds = { x = 'a' }",
    );
    project.ends(&["run", "-S", "stage.c.needs.x=[a, b]"], 0);
    assert_eq!(project.read("artifacts/c/x"), "a\nb\n");
    project.ends(&["run", "-S", "stage.c.needs.x=b"], 0);
    assert_eq!(project.read("artifacts/c/x"), "b\n");
}

#[test]
fn a_setting_finds_a_parameter_as_references_do() {
    let project = TestProject::new(
        "[params]\n\"dot.key\" = 3\n\"a.b\" = { c = 1 }\n[stage.a]\nkind = 'command'\noutputs = ['x']\n\
         run = 'echo ${dot.key} ${a.b.c} > $OUT/x'\n",
    );
    for (set, shown) in [("dot.key=4", "4 1\n"), ("params.a.b.c=5", "3 5\n"), ("a.b={ c = 6 }", "3 6\n")] {
        project.ends(&["run", "-S", set], 0);
        assert_eq!(project.read("artifacts/a/x"), shown);
    }
    project.ends(&["run", "-S", "dot.keys=4"], 2);
}

#[test]
fn what_a_matrix_includes_may_be_a_reference() {
    let project = TestProject::new(
        "[params]\ncombos = [{ m = 'a', n = 1 }, { m = 'b', n = 2 }]\none = { m = 'c', n = 3 }\n\
         [stage.a]\nkind = 'command'\noutputs = ['x']\nmatrix = { include = '${combos}' }\n\
         run = 'echo ${m} ${n} > $OUT/x'\n",
    );
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/a/m=b,n=2/x"), "b 2\n");
    let told = project.ends(&["run", "-S", "stage.a.n=[1, 2]"], 2).err;
    assert!(told.contains("the `include` of `a` writes its combinations out"), "{told}");
    project.edit("pipeline.toml", "'${combos}'", "['${one}']");
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/a/m=c,n=3/x"), "c 3\n");
    project.edit("pipeline.toml", "['${one}']", "['${combos}']");
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("each `include` must be a table, not an array"), "{told}");
    project.edit("pipeline.toml", "['${combos}']", "'${one}'");
    let told = project.ends(&["run"], 2).err;
    assert!(told.contains("`include` must be a list of tables, not a table"), "{told}");
}

/// What is swept by another name than the parameter's would leave that as it is where others use it.
#[test]
fn a_sweep_leaves_no_stage_behind_with_the_old_value_of_a_parameter() {
    let project = TestProject::new(
        "[params]\nlr = 0.1\n\
         [stage.train]\nkind = 'command'\nrun = 'echo $LR > $OUT/x'\noutputs = ['x']\nvalues = { LR = '${lr}' }\n\
         [stage.between]\nkind = 'command'\nrun = 'cat $IN_T/x > $OUT/x'\noutputs = ['x']\nneeds = { t = 'train' }\n\
         [stage.eval]\nkind = 'command'\nrun = 'echo $T $(cat $IN_T/x) > $OUT/x'\noutputs = ['x']\nneeds = { t = 'between' }\n\
         values = { T = '${lr}' }\n",
    );
    let refused = |set: &str, says: &str| {
        let told = project.ends(&["-S", set, "run"], 2).err;
        assert!(told.contains(says), "{set}: {told}");
    };
    refused("stage.train.lr=[0.1, 0.2]", "`eval` needs one `between`");
    refused("stage.train.values.LR=[0.1, 0.2]", "`eval` needs one `between` and uses `${lr}` too");
    let way = "`-S 'stage.eval.lr=...' -S 'stage.train.lr=...'`";
    refused("stage.train.values.LR=[0.1, 0.2]", way);
    project.ends(&["-S", "stage.eval.lr=[0.1, 0.2]", "-S", "stage.train.lr=[0.1, 0.2]", "run"], 0);
    assert_eq!(project.read("artifacts/eval,lr=0.2/x"), "0.2 0.2\n");
    // Also where its value has the same name: it would collect all of them.
    project.edit("pipeline.toml", "values = { T", "values = { LR");
    refused("stage.train.values.LR=[0.1, 0.2]", way);
    // Nothing is lost where it has a value of its own, or one value is all there is.
    project.ends(&["-S", "stage.train.values.LR=[0.2]", "status"], 0);
    project.edit(
        "pipeline.toml",
        "values = { LR = '${lr}' }\n[stage.between]",
        "values = { LR = 0.1 }\n[stage.between]",
    );
    project.edit("pipeline.toml", "values = { LR = '${lr}' }\n", "values = { T = '${lr}' }\n");
    project.ends(&["-S", "stage.train.values.LR=[0.1, 0.2]", "run"], 0);
}

#[test]
fn a_parameter_of_a_stage_s_kind_that_others_take_too_is_swept_in_both() {
    let project = TestProject::new(
        "[params]\nwidth = 'resnet8'\n[stage.model]\nkind = 'model'\narch = '${width}'\n\
         [stage.show]\nkind = 'command'\nrun = 'echo $W > $OUT/x; cat $IN_M/model.json >> $OUT/x'\noutputs = ['x']\n\
         needs = { m = 'model' }\nvalues = { W = '${width}' }\n",
    );
    let told = project.ends(&["-S", "stage.model.arch=[resnet8, resnet14]", "run"], 2).err;
    assert!(told.contains("`-S 'stage.show.width=...' -S 'stage.model.width=...'`"), "{told}");
    let both = ["stage.show.width=[resnet8, resnet14]", "stage.model.width=[resnet8, resnet14]"];
    project.ends(&["-S", both[0], "-S", both[1], "run"], 0);
    assert!(project.read("artifacts/show,width=resnet14/x").starts_with("resnet14\n"));
}

#[test]
fn a_parameter_that_a_stage_takes_under_its_own_name_is_swept_there_and_the_help_says_so() {
    let project = TestProject::new(
        "[params]\narch = 'resnet8'\n[stage.model]\nkind = 'model'\narch = '${arch}'\n\
         [stage.count]\nkind = 'command'\nrun = 'echo ${arch} > $OUT/x'\noutputs = ['x']\nneeds = { m = 'model' }\n",
    );
    let said = project.ends(&["-S", "arch=[resnet8, resnet14]", "run"], 2).err;
    let both = [r#"stage.count.arch=["resnet8", "resnet14"]"#, r#"stage.model.arch=["resnet8", "resnet14"]"#];
    assert!(said.contains(&format!("use it: `-S '{}' -S '{}'`", both[0], both[1])), "{said}");
    project.ends(&["-S", both[0], "-S", both[1], "run"], 0);
    assert_eq!(project.read("artifacts/count,arch=resnet14/x"), "resnet14\n");
}

#[test]
fn a_nested_parameter_is_swept_by_its_whole_name_and_the_help_says_so() {
    let project = TestProject::new(
        "[params]\ntrain.lr = 0.1\ntrain.steps = 3\n\
         [stage.train]\nkind = 'command'\nrun = 'echo $LR $AXIS_TRAIN_LR > $OUT/x'\noutputs = ['x']\nvalues = { LR = '${train.lr}' }\n\
         [stage.eval]\nkind = 'command'\nrun = 'cat $IN_T/x > $OUT/x'\noutputs = ['x']\nneeds = { t = 'train' }\n",
    );
    project.edit("pipeline.toml", "$AXIS_TRAIN_LR", "$${AXIS_TRAIN_LR:-}");
    let told = |set: &str| project.ends(&["-S", set, "run"], 2).err;
    let said = told("train.lr=[0.1, 0.2]");
    assert!(said.contains("sweep it where stages use it: `-S 'stage.train.train.lr=[0.1, 0.2]'`"), "{said}");
    let said = told("stage.train.lr=[0.1, 0.2]");
    assert!(said.contains("it uses `${train.lr}`: `-S 'stage.train.train.lr=...'`"), "{said}");
    assert!(told("train.steps=[1, 2]").contains("no stage takes it as it is"));
    let sweep = ["-S", "stage.train.train.lr=[0.1, 0.2]", "run"];
    project.ends(&sweep, 0);
    assert_eq!(project.read("artifacts/eval,train.lr=0.2/x"), "0.2 0.2\n");
    assert!(project.ends(&sweep, 0).out.starts_with("nothing to do"));
    project.ends(&["-S", sweep[1], "status", "eval[train.lr=0.2]"], 0);
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/eval/x"), "0.1\n");
    // All stages that use it are named, those behind others first, and that works as it stands.
    project.edit(
        "pipeline.toml",
        "needs = { t = 'train' }",
        "needs = { t = 'train' }\nenv = { LR = 'at ${train.lr}' }",
    );
    let said = told("train.lr=0..2");
    let both = "`-S 'stage.eval.train.lr=[0, 1]' -S 'stage.train.train.lr=[0, 1]'`";
    assert!(said.contains(both), "{said}");
    project.ends(&["-S", "stage.eval.train.lr=[0, 1]", "-S", "stage.train.train.lr=[0, 1]", "run"], 0);
    assert_eq!(project.read("artifacts/eval,train.lr=1/x"), "1 1\n");
    // What holds it together with others would keep the old value.
    project.edit(
        "pipeline.toml",
        "values = { LR = '${train.lr}' }",
        "values = { LR = '${train.lr}' }\nenv = '${train}'",
    );
    let said = told("stage.train.train.lr=[0.1, 0.2]");
    assert!(said.contains("the stage uses `${train}`, which would keep its value"), "{said}");
}

#[test]
fn words_with_commas_for_a_list_are_answered_with_the_list() {
    let project = TestProject::new(
        "[params]\nmodes = ['bn']\n[stage.a]\nkind = 'command'\nrun = 'echo ${mode} > $OUT/x'\noutputs = ['x']\n\
         matrix = { mode = '${modes}' }\n",
    );
    for (set, help) in [
        ("modes=bn,all", "-S 'modes=[\"bn\", \"all\"]'"),
        ("stage.a.mode=bn, all", "-S 'stage.a.mode=[\"bn\", \"all\"]'"),
        ("modes=bn,3", "-S 'modes=[\"bn\", 3]'"),
    ] {
        let told = project.ends(&["-S", set, "run"], 2).err;
        assert!(told.contains(help) && told.matches("error").count() == 1, "{told}");
    }
    project.ends(&["-S", "modes=[\"bn\", \"all\"]", "run"], 0);
    assert_eq!(project.read("artifacts/a/mode=all/x"), "all\n");
}
