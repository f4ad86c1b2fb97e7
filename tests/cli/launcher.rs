//! Stages that a launcher starts, as on the nodes of a cluster.

use std::time::Duration;

use crate::{project::TestProject, share::TRAINING, stop::wait_for_end};

/// A short training on two threads.
fn training() -> String {
    TRAINING
        .replace("epochs = 30", "epochs = 2")
        .replace("batch = 16", "batch = 16\nresources = { threads = 2 }")
}

/// Runs what is behind it in a place that has nothing of the shell that started it but its environment.
const LAUNCHER: &str = "echo \"$REPRO_STAGE $REPRO_THREADS $1\" >> launched\nexec setsid --wait \"$@\"\n";

#[test]
fn launched_stages_make_the_same_bits_in_the_program_that_was_called() {
    let [here, there] = [(); 2].map(|()| TestProject::new(&training()));
    here.ends(&["run"], 0);
    there.write("launch.sh", LAUNCHER);
    there.ends(&["run", "-j", "4", "--launcher", "sh launch.sh"], 0);
    assert_eq!(there.read("pipeline.lock"), here.read("pipeline.lock"));
    let program = env!("CARGO_BIN_EXE_repro");
    let launched = there.read("launched");
    let mut launched: Vec<_> = launched.lines().collect();
    launched.sort_unstable();
    let of = |stage: &str, threads: usize| format!("{stage} {threads} {program}");
    assert_eq!(launched, [of("data", 1), of("evaluate", 1), of("model", 1), of("train", 2)]);
    // How a stage was started makes it no other.
    assert!(there.ends(&["run"], 0).out.starts_with("nothing to do: 4 fresh"));
}

#[test]
fn a_launched_training_stops_where_it_can_go_on() {
    let project = TestProject::new(&TRAINING.replace("epochs = 30", "epochs = 4000"));
    project.write("launch.sh", LAUNCHER);
    let run = project.start(&["run", "-j", "1", "--launcher", "sh launch.sh"]);
    let said = |words: &str| {
        let start = std::time::Instant::now();
        while !std::fs::read_to_string(project.path(".repro/logs/train.log"))
            .is_ok_and(|log| log.contains(words))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not say `{words}`");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    project.wait_for("artifacts/model/model.json");
    std::thread::sleep(Duration::from_millis(500)); // some epochs, or none: it saves when it is asked to stop
    run.signal("INT");
    let answer = run.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.err);
    assert!(answer.err.contains("stopped  train"), "{}", answer.err);
    let again = project.start(&["run", "-j", "1", "--launcher", "sh launch.sh"]);
    said("going on");
    again.signal("INT");
    assert_eq!(again.wait().code, Some(130));
}

#[test]
fn who_launches_says_how_many_at_once() {
    let project = TestProject::new(TRAINING);
    let answer = project.ends(&["run", "--launcher", "env"], 2);
    assert!(answer.err.contains("--jobs <N>"), "{}", answer.err);
}

/// A command that says in `$SCRATCH` that it was asked to stop, and the next time that it was.
const TRAPPING: &str = r#"
[stage.a]
kind = "command"
run = """
if [ -e $SCRATCH/half ]; then cp $SCRATCH/half $OUT/x; exit; fi
trap 'echo half > $SCRATCH/half; exit 1' TERM
echo $$ > begun; sleep 30 & wait
"""
outputs = ["x"]
"#;

#[test]
fn a_launched_command_is_asked_to_stop_though_the_launcher_passes_no_signal_on() {
    let project = TestProject::new(TRAPPING);
    // In a session of its own, which the runner's signals do not reach.
    project.write("launch.sh", "exec setsid --wait \"$@\"\n");
    let run = project.start(&["run", "-j", "1", "--launcher", "sh launch.sh"]);
    project.wait_for("begun");
    run.signal("INT");
    let answer = run.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.err);
    assert!(answer.err.contains("stopped  a"), "{}", answer.err);
    project.ends(&["run"], 0);
    assert_eq!(project.read("artifacts/a/x"), "half\n");
}

#[test]
fn a_launched_command_ends_with_its_own_exit_code_and_leaves_nothing_behind() {
    let project = TestProject::new(
        "[stage.a]\nkind = \"command\"\nrun = \"sleep 60 & echo $! > left; exit 7\"\noutputs = [\"x\"]\n",
    );
    let answer = project.ends(&["run", "-j", "1", "--launcher", "env A=1"], 1);
    assert!(answer.err.contains("exit code 7"), "{}", answer.err);
    wait_for_end(&project.read("left"));
}

#[test]
fn a_script_that_does_not_exec_is_given_time_to_end_what_it_started() {
    let project = TestProject::new(TRAPPING);
    let script = "exec 3<&0; setsid \"$@\" <&3 & job=$!\n\
        (trap 'kill -9 -$job; echo > ended; exit' TERM; sleep 60 & wait) &\n\
        wait $job\n";
    project.write("launch.sh", script);
    let run = project.start(&["run", "-j", "1", "--launcher", "sh launch.sh"]);
    project.wait_for("begun");
    run.signal("INT");
    run.signal("INT");
    assert_eq!(run.wait().code, Some(130));
    assert!(project.path("ended").exists(), "it was not asked");
}

#[test]
fn what_is_no_launcher_is_refused() {
    let project = TestProject::new(TRAPPING);
    for launcher in ["", "  ", "env;", "env A=1 &", "env\nenv"] {
        let answer = project.ends(&["run", "-j", "1", "--launcher", launcher], 2);
        assert!(answer.err.contains("name one program with its options"), "{}", answer.err);
    }
}
