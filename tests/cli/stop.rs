//! Being told to stop, and not being alone.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::project::TestProject;

/// A quick stage, then one that lasts until there is a file `go`.
const SLOW: &str = r#"
[stage.quick]
kind = "command"
run = "echo quick > $OUT/x"
outputs = ["x"]

[stage.slow]
kind = "command"
run = "touch started; while [ ! -e go ]; do sleep 0.02; done; cp $IN_QUICK/x $OUT/y"
outputs = ["y"]
needs = { quick = "quick" }
"#;

/// Does the process of that number go on?
fn lives(id: &str) -> bool {
    if cfg!(not(target_os = "linux")) {
        let kill = std::process::Command::new("kill").args(["-0", id.trim()]).output();
        return kill.is_ok_and(|answer| answer.status.success());
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim()));
    // What has ended may stay in the table, as a zombie, for as long as nobody asks for its exit code.
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until it has ended.
#[track_caller]
pub(crate) fn wait_for_end(id: &str) {
    let start = Instant::now();
    while lives(id) {
        assert!(start.elapsed() < Duration::from_secs(20), "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_status_says_what_is_running() {
    let project = TestProject::new(SLOW);
    let run = project.start(&["run"]);
    project.wait_for("started");
    let since = Instant::now();
    // It is known when the result that it needs has been recorded.
    let status = loop {
        let status = project.ends(&["status"], 0).out;
        if status.contains("slow: never ran") || since.elapsed() > Duration::from_secs(20) {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status, "running    slow: never ran\n1 fresh, 1 running\n");
    let json = project.ends(&["status", "--json", "slow"], 0).out;
    assert!(
        json.contains("\"standing\": \"running\"") && json.contains("[\n      \"never ran\"\n    ]"),
        "{json}"
    );
    project.write("go", "");
    assert_eq!(run.wait().code, Some(0));
    assert_eq!(project.ends(&["status"], 0).out, "2 fresh\n");
}

#[test]
fn a_signal_keeps_what_is_finished_and_exits_130() {
    for signal in ["INT", "TERM", "HUP"] {
        let project = TestProject::new(SLOW);
        let run = project.start(&["run"]);
        project.wait_for("started");
        run.signal(signal);
        let answer = run.wait();
        assert_eq!(answer.code, Some(130), "{}", answer.err);
        assert!(answer.err.contains("stopping at the next safe point"), "{}", answer.err);
        assert!(answer.err.contains("\nstopped  slow\n"), "{}", answer.err);
        assert!(
            answer.out.starts_with("interrupted, everything finished is kept: ran 1, stopped 1 in "),
            "{}",
            answer.out
        );
        project.write("go", "");
        assert!(project.ends(&["run"], 0).out.starts_with("ran 1, 1 fresh in "));
    }
}

/// As `timeout` sends them.
#[test]
fn two_signals_that_come_together_are_one_request() {
    let project = TestProject::new(SLOW);
    project.edit(
        "pipeline.toml",
        "touch started",
        "trap 'sleep 0.5; touch saved; exit 0' TERM; touch started",
    );
    let run = project.start(&["run"]);
    project.wait_for("started");
    run.signal("TERM");
    run.signal("INT");
    let answer = run.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.err);
    assert!(!answer.err.contains("stopping at once") && project.path("saved").exists(), "{}", answer.err);
}

/// A result is shown some time before the index tells of it.
#[test]
fn verify_does_not_take_what_a_run_beside_it_has_just_replaced_for_damage() {
    // The first result is recorded at once, the next a while after that.
    let first = "[stage.first]\nkind = \"command\"\nrun = \"echo quick > $OUT/x\"\noutputs = [\"x\"]\n";
    let project = TestProject::new(&format!("{first}{SLOW}"));
    let (run, needs) = ("run = \"sleep 0.1; echo quick > $OUT/x\"", "needs = { first = \"first\" }");
    project.edit(
        "pipeline.toml",
        "[stage.quick]\nkind = \"command\"\nrun = \"echo quick > $OUT/x\"",
        &format!("[stage.quick]\nkind = \"command\"\n{needs}\n{run}"),
    );
    project.write("go", "");
    project.ends(&["run"], 0);
    for name in ["go", "started"] {
        fs::remove_file(project.path(name)).unwrap();
    }
    project.edit("pipeline.toml", "echo quick", "echo another");
    let run = project.start(&["run"]);
    project.wait_for("started");
    let verified = project.ends(&["verify"], 0);
    project.write("go", "");
    assert_eq!(run.wait().code, Some(0));
    assert!(!verified.out.contains("damaged"), "{}", verified.out);
    project.write("artifacts/quick/x", "edited");
    assert!(project.ends(&["verify"], 3).out.contains("artifacts/quick/x"));
}

/// As `nohup` has it: what is ignored from the beginning does not end a night's work.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_that_was_to_be_ignored_is_ignored() {
    let project = TestProject::new(SLOW);
    let line = "trap '' HUP; exec \"$0\" run";
    let run =
        project.start_as(std::process::Command::new("sh").args(["-c", line, env!("CARGO_BIN_EXE_repro")]));
    project.wait_for("started");
    run.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    project.write("go", "");
    let answer = run.wait();
    assert_eq!((answer.code, answer.err.contains("stopping")), (Some(0), false), "{}", answer.err);
}

/// A command that asks on the terminal is stopped by the system.
#[test]
fn a_command_that_was_stopped_ends_with_the_first_signal() {
    let project = TestProject::new(SLOW);
    project.edit("pipeline.toml", "touch started", "touch started; kill -STOP $$");
    let run = project.start(&["run"]);
    project.wait_for("started");
    std::thread::sleep(Duration::from_millis(200));
    run.signal("INT");
    assert_eq!(run.wait().code, Some(130));
}

#[test]
fn a_command_that_ends_well_when_it_is_told_to_stop_is_not_done() {
    let project = TestProject::new(SLOW);
    let tidy = "trap 'cp $IN_QUICK/x $OUT/y; exit 0' TERM; touch started; while :; do sleep 0.05; done; echo";
    project.edit("pipeline.toml", "touch started", tidy);
    let run = project.start(&["run"]);
    project.wait_for("started");
    run.signal("INT");
    assert_eq!(run.wait().code, Some(130));
    assert!(!project.path("artifacts/slow").exists());
    let told = project.ends(&["status"], 0).out;
    assert!(told.contains("stale      slow: never ran"), "{told}");
}

#[test]
fn what_a_command_started_ends_with_it() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'sleep 60 & echo $! > pid; echo 1 > $OUT/x'\noutputs = ['x']\n",
    );
    project.ends(&["run"], 0);
    wait_for_end(&project.read("pid"));
}

#[test]
fn a_second_signal_ends_at_once_what_does_not_listen_to_the_first() {
    let project = TestProject::new(SLOW);
    project.edit("pipeline.toml", "touch started", "trap '' TERM; echo $$ > pid; touch started");
    let mut run = project.start(&["run"]);
    project.wait_for("started");
    // Signals that come too fast for a busy machine count as one: ask until it listens.
    while !run.ended() {
        run.signal("INT");
        std::thread::sleep(Duration::from_secs(1));
    }
    let answer = run.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.err);
    assert!(answer.err.contains("stopping at once"), "{}", answer.err);
    wait_for_end(&project.read("pid"));
    assert!(!project.path("artifacts/slow").exists());
}

/// The command of a killed run goes on; the cache may be a link to somewhere else.
#[test]
#[cfg(target_os = "linux")]
fn what_a_killed_run_left_behind_is_ended_by_the_next() {
    for linked in [false, true] {
        let project = TestProject::new(SLOW);
        if linked {
            fs::create_dir(project.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", project.path(".repro")).unwrap();
        }
        let run = project.start(&["run"]);
        project.wait_for("started");
        run.signal("KILL");
        run.wait();
        fs::remove_file(project.path("started")).unwrap();
        let next = project.start(&["run"]);
        project.wait_for("started");
        project.write("go", "");
        let answer = next.wait();
        assert_eq!(answer.code, Some(0), "linked: {linked}\n{}", answer.err);
    }
}

/// Nobody saw then what was done to its files until the command ended.
#[test]
fn what_a_killed_run_left_is_gone_on_from_only_where_nothing_was_touched_since() {
    const RUN: &str = "if [ -e $SCRATCH/part ]; then echo went on > $OUT/x; exit; fi; touch $SCRATCH/part; touch started; \
                       until [ -e go ]; do sleep 0.02; done; echo anew > $OUT/x";
    for (touched, made) in [(false, "went on\n"), (true, "anew\n")] {
        let stage = format!("[stage.a]\nkind = 'command'\noutputs = ['x']\ndeps = ['note']\nrun = '{RUN}'\n");
        let project = TestProject::new(&stage);
        project.write("note", "1");
        let run = project.start(&["run"]);
        project.wait_for("started");
        run.signal("KILL");
        run.wait();
        if touched {
            project.write("note", "1");
        }
        let next = project.start(&["run"]);
        project.write("go", "");
        let answer = next.wait();
        assert_eq!(project.read("artifacts/a/x"), made, "{}", answer.err);
        assert_eq!(answer.err.contains("begins anew"), touched, "{}", answer.err);
    }
}

/// Kills a run whose command, which writes its number to `started`, outlives it; then the run `next` ends that before it
/// begins.
#[cfg(target_os = "linux")]
fn ends_what_is_left(project: &TestProject, next: &[&str]) {
    let run = project.start(&["run"]);
    project.wait_for("started");
    run.signal("KILL");
    run.wait();
    let leftover = project.read("started");
    assert!(lives(&leftover), "the command outlives the runner");
    fs::remove_file(project.path("started")).expect("it is there");
    let next = project.start(next);
    project.wait_for("started");
    assert!(!lives(&leftover), "the next run ends it before it begins");
    project.write("go", "");
    let answer = next.wait();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
}

#[test]
#[cfg(target_os = "linux")]
fn a_leftover_that_sends_its_errors_elsewhere_is_ended_too() {
    let project = TestProject::new(SLOW);
    project.edit("pipeline.toml", "touch started", "exec 2> errors; echo $$ > pid; mv pid started");
    ends_what_is_left(&project, &["run"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_leftover_that_does_not_listen_is_ended_too() {
    let project = TestProject::new(SLOW);
    project.edit("pipeline.toml", "touch started", "trap '' TERM; echo $$ > pid; mv pid started");
    ends_what_is_left(&project, &["run"]);
}

/// A profile with the same stage shares its scratch folder, not its log.
#[test]
#[cfg(target_os = "linux")]
fn a_leftover_with_the_same_scratch_folder_is_ended_too() {
    let project = TestProject::new(&format!("{SLOW}[profile.other]\n"));
    project.edit(
        "pipeline.toml",
        "touch started",
        "echo $$ > $SCRATCH/pid; cp $SCRATCH/pid . && mv pid started",
    );
    ends_what_is_left(&project, &["run", "--profile", "other"]);
    assert_eq!(project.read("artifacts/other/slow/y"), "quick\n");
}

#[test]
fn a_second_run_at_the_same_time_is_refused_with_exit_code_2() {
    let project = TestProject::new(SLOW);
    let run = project.start(&["run"]);
    project.wait_for("started");
    let second = project.ends(&["run"], 2);
    assert!(second.err.contains("another `repro` is running in this project"), "{}", second.err);
    assert!(second.err.contains("help: wait for the other run to end"), "{}", second.err);
    // What would be deleted may be told beside it.
    project.ends(&["gc"], 0);
    project.ends(&["gc", "--apply"], 2);
    // What is finished may still be on its way to the disk while the next stage runs.
    let status = project.ends(&["status"], 0).out;
    let sums = ["1 fresh, 1 running", "1 restorable, 1 running", "1 stale, 1 waiting"];
    assert!(sums.contains(&status.lines().last().unwrap_or("")), "{status}");
    project.write("go", "");
    let answer = run.wait();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
}
