//! What the kind `command` promises of the shell that it starts.

use std::process::Command;

use crate::project::TestProject;

fn one(run: &str) -> TestProject {
    let text = "[stage.a]\nkind = 'command'\nrun = '''\nRUN\n'''\noutputs = ['x']\ndeps = ['d']\nvalues = { RATE = 1.0, SMALL = 0.00001 }";
    let project = TestProject::new(&text.replace("RUN", run));
    project.write("d", "1");
    project
}

#[test]
fn the_first_line_that_fails_ends_it() {
    let project = one("echo 1 > $OUT/x\nfalse\necho 2 > $OUT/x");
    assert!(project.ends(&["run"], 1).err.contains("its process ended with exit code 1"));
    project.edit("pipeline.toml", "\nfalse\n", "\nset +e\nfalse\n");
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/a/x"), "2\n");
}

#[test]
fn numbers_are_spelt_as_in_names_and_python_says_what_it_says_at_once() {
    let project = one("echo $RATE $SMALL $PYTHONUNBUFFERED > $OUT/x");
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/a/x"), "1.0 1e-5 1\n");
}

#[test]
fn its_log_goes_on_where_it_goes_on() {
    let project = one(
        "echo began; [ -e $SCRATCH/part ] && echo went on || { touch $SCRATCH/part; exit 3; }\necho 1 > $OUT/x",
    );
    project.ends(&["run"], 1);
    let status = project.ends(&["status"], 0).out;
    assert!(status.contains("it goes on from where it was stopped"), "{status}");
    project.ends(&["run"], 0);
    assert_eq!(project.read(".repro/logs/a.log"), "began\nbegan\nwent on\n");
    project.ends(&["run", "--force"], 1);
    assert_eq!(project.read(".repro/logs/a.log"), "began\n", "and anew where it does not");
    // What an earlier attempt said is not why this one failed.
    project.edit("pipeline.toml", "echo began;", "[ -e $SCRATCH/part ] && exit 4;");
    let failed = project.ends(&["run"], 1).err;
    assert!(failed.contains("exit code 3") && !failed.contains("began"), "{failed}");
    let failed = project.ends(&["run"], 1).err;
    assert!(failed.contains("exit code 4\n") && !failed.contains("\n  "), "{failed}");
}

#[test]
fn what_is_left_of_a_scratch_folder_that_was_being_deleted_is_not_gone_on_from() {
    let project = one(
        "[ ! -e $SCRATCH/part ] || { cp $SCRATCH/part $OUT/x; exit 0; }\necho half > $SCRATCH/part; exit 3",
    );
    project.ends(&["run"], 1);
    let scratch = std::fs::read_dir(project.path(".repro/scratch")).unwrap();
    let lock =
        scratch.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).expect("a lock");
    std::fs::write(lock, "nothing").unwrap(); // as before it is deleted
    project.ends(&["run"], 1);
    project.ends(&["run"], 0);
    // So is what `gc` deletes, with its lock.
    project.write("d", "2");
    project.ends(&["run"], 1);
    project.ends(&["gc", "--apply", "--keep-days", "0"], 0);
    let left = std::fs::read_dir(project.path(".repro/scratch"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

#[test]
fn a_command_is_told_whose_results_it_reads_and_its_images_are_in_the_report() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'echo \"<svg/>\" > $OUT/x.svg'\noutputs = ['x.svg']\nmatrix = { lr = [0.1, 1.0] }\n\
         [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\nrun = 'cat $IN_A_JSON > $OUT/y'\noutputs = ['y']",
    );
    project.ends(&["run"], 0);
    let inputs: serde_json::Value = serde_json::from_str(&project.read("artifacts/b/y")).expect("JSON");
    assert_eq!((&inputs[0]["instance"], &inputs[1]["axes"]["lr"]), (&"a[lr=0.1]".into(), &1.0.into()));
    assert!(inputs[0]["folder"].as_str().is_some_and(|folder| folder.ends_with("artifacts/a/lr=0.1")));
    project.ends(&["report"], 0);
    let image = "data:image/svg+xml;base64,PHN2Zy8+Cg==";
    assert_eq!(project.read("report.html").matches(image).count(), 2);
}

#[test]
fn who_ignores_the_ends_of_children_can_start_it() {
    let project = one("echo 1 > $OUT/x");
    let ignoring = format!("trap '' CHLD; exec {} run", env!("CARGO_BIN_EXE_repro"));
    let answer = project.start_as(Command::new("bash").args(["-c", &ignoring])).wait();
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let project = one("echo 1 > $OUT/x");
    let odd = project.path(".").join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    std::fs::create_dir(&odd).unwrap();
    std::fs::copy(project.path("pipeline.toml"), odd.join("pipeline.toml")).unwrap();
    let file = odd.with_extension("toml");
    std::fs::copy(project.path("pipeline.toml"), &file).unwrap();
    for (option, place) in [("-C", &odd), ("-f", &file)] {
        let program = env!("CARGO_BIN_EXE_repro");
        let answer = project.start_as(Command::new(program).arg("run").arg(option).arg(place)).wait();
        assert_eq!(answer.code, Some(2), "{}", answer.err);
        assert!(answer.err.contains("is not UTF-8"), "{}", answer.err);
    }
    assert!(!project.path("artifacts").exists());
}

#[test]
fn what_it_says_is_told_from_time_to_time() {
    let project = one("echo one\nsleep 10.1\nprintf '10 %%\\r20 %%\\n'\necho 1 > $OUT/x\nsleep 1");
    let told = project.ends(&["run"], 0).err;
    assert!(told.contains("start    a\n         a  20 %\ndone     a"), "{told}");
}

#[test]
fn a_misspelt_variable_of_the_runner_is_refused_before_it_is_empty() {
    let text = "[stage.a]\nkind = 'command'\nrun = 'echo $AXIS_SEED > $OUT/x'\noutputs = ['x']\nmatrix = { seed = [1] }\n\
                [stage.b]\nkind = 'command'\nrun = '''\nRUN\ntouch $OUT/x\n'''\noutputs = ['x']\nneeds = { first-run = 'a' }\nmatrix = { seed = [1] }\n";
    let project = TestProject::new(text);
    let mut shown = "RUN".to_owned();
    let mut put = |run: &str| {
        project.edit("pipeline.toml", &format!("\n{shown}\ntouch"), &format!("\n{run}\ntouch"));
        run.clone_into(&mut shown);
    };
    for (run, says) in [
        (
            r#"rm -r "$IN_FIRST/""#,
            "the command of `b` reads `$IN_FIRST`, which is always empty: the stage has no such input",
        ),
        (
            "ls $${IN_FRIST_RUN}",
            "did you mean `$IN_FIRST_RUN`? (what may be empty is written `$${IN_FRIST_RUN:-}`)",
        ),
        ("echo $AXIS_SED", "did you mean `$AXIS_SEED`?"),
        ("bash -c 'echo $${AXIS_SED%0}'", "`$AXIS_SED`, which is always empty: the stage has no such axis"),
    ] {
        put(&run.replace('\'', "\""));
        let told = project.ends(&["run", "-n"], 2).err;
        assert!(told.contains(says) && told.contains("pipeline.toml:8:7"), "{run}: {told}");
    }
    for run in [
        "cat $IN_FIRST_RUN/x $IN_FIRST_RUN_LIST \"$${IN_FIRST_RUN_JSON}\"; echo $AXIS_SEED",
        "echo $${AXIS_RATE:-1} $${IN_OTHER-} $${IN_OTHER:+given} $${#AXIS_RATE}",
        "IN_MINE=3; echo $IN_MINE",
        "while read -r IN_LINE; do echo $IN_LINE; done < d",
        "# cp $IN_OLD/x .\necho # not $IN_OLD",
        "echo \\$IN_TEXT $$IN_TEXT $AXIS_ $WIN_X",
    ] {
        put(run);
        project.ends(&["run", "-n"], 0);
    }
}
