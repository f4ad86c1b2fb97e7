//! What runs, what is restored, what stays: with shell commands as stages.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use engine::{
    digest::Digest,
    observer::{Event, Observer},
    plan::Standing,
    project::Project,
    run::RunOptions,
};

use crate::space::{Space, read};

#[test]
fn the_lock_file_follows_other_bytes_of_the_same_recipe() {
    let mut space = Space::new();
    space.edit("d", "od -An -N8 -tx1 /dev/urandom > $OUT/x");
    space.ran(&["a", "b", "c", "d"], &[]);
    for only in [false, true] {
        space.run_with(&RunOptions { targets: vec![3], force: true, only, ..RunOptions::default() });
        let digest = Digest::of(read(&space.path("artifacts/d/x"))).to_string();
        assert!(read(&space.path("pipeline.lock")).contains(&digest), "only: {only}");
    }
}

#[test]
fn equal_bytes_stop_the_ripple() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("a", "echo other > $OUT/x");
    space.ran(&["a", "b"], &[]);
}

#[test]
fn a_touched_artifact_is_still_fresh_and_an_edited_one_is_restored_from_an_unharmed_cache() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let artifact = space.path("artifacts/b/y");
    fs::write(&artifact, "o\n").unwrap();
    space.ran(&[], &[]);
    fs::write(&artifact, "!\n").unwrap();
    space.ran(&[], &["b"]);
    assert_eq!(read(&artifact), "o\n");
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    space.ran(&[], &["a", "b", "c", "d"]);
    // What lies there is what was locked; but without anybody's word it is nothing.
    fs::remove_dir_all(space.path(".repro")).unwrap();
    space.ran(&[], &[]);
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    space.ran(&[], &["a", "b", "c", "d"]);
    space.forget();
    space.ran(&["a", "b", "c", "d"], &[]);
}

#[test]
fn a_failing_stage_leaves_the_earlier_result_whole_and_stops_what_follows() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("b", "echo half > $OUT/y; echo reason >&2; exit 7");
    let (summary, events) = space.run();
    assert_eq!((summary.failed, summary.ran, summary.skipped), (vec![1], vec![], vec![2]));
    assert_eq!(read(&space.path("artifacts/b/y")), "o\n");
    let said = events.iter().any(|event| {
        matches!(event, Event::Failed { id: 1, message, .. }
        if message.contains("exit code 7") && message.contains("reason"))
    });
    assert!(said, "{events:?}");
}

#[test]
fn a_stage_without_output_is_an_error() {
    let mut space = Space::new();
    space.edit("a", "true");
    let (summary, _) = space.run();
    assert_eq!((summary.exit_code(), summary.failed), (1, vec![0]));
}

#[test]
fn verify_lists_everything_that_is_not_of_a_result() {
    let mut space = Space::new();
    space.edit("d", "mkdir $OUT/empty; echo alone > $OUT/x");
    space.ran(&["a", "b", "c", "d"], &[]);
    for name in ["one", "two"] {
        fs::write(space.path("artifacts/d").join(name), "mine").unwrap();
    }
    fs::remove_dir(space.path("artifacts/d/empty")).unwrap();
    fs::write(space.path("artifacts/d/x"), "other").unwrap();
    let found = Project::open(space.folder.path()).unwrap().verify(&space.pipeline()).unwrap();
    let names = found.iter().map(|f| (f.path.file_name().unwrap().to_str().unwrap(), f.problem.as_str()));
    let (missing, not_its) = ("is missing", "is not part of the result");
    let altered = "its content is not what was recorded";
    assert_eq!(
        names.collect::<Vec<_>>(),
        [("empty", missing), ("one", not_its), ("two", not_its), ("x", altered)]
    );
}

#[test]
fn a_damaged_cache_object_is_found_by_verify_and_made_again_when_it_is_needed() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let digest = engine::digest::Digest::of("alone\n").to_string();
    let object = space.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
    fs::remove_file(&object).unwrap();
    fs::write(&object, "wrong\n").unwrap();
    let project = Project::open(space.folder.path()).unwrap();
    let found = project.verify(&space.pipeline()).unwrap();
    assert_eq!((&found[0].path, found[0].mended), (&object.canonicalize().unwrap(), true), "{found:?}");
    assert_eq!(read(&object), "alone\n", "what is shown still had its content");
    assert_eq!(project.verify(&space.pipeline()).unwrap(), []);
    // The folder for what is in the making is not always there.
    fs::remove_dir_all(space.path(".repro/drafts")).unwrap();
    fs::remove_file(&object).unwrap();
    assert!(project.verify(&space.pipeline()).unwrap()[0].mended);
    assert_eq!(read(&object), "alone\n");
    fs::remove_file(&object).unwrap();
    fs::write(&object, "wrong\n").unwrap();
    space.ran(&[], &[]);
    fs::remove_file(space.path("artifacts/d/x")).unwrap();
    let (summary, events) = space.run();
    assert_eq!((summary.exit_code(), summary.ran, summary.restored), (0, vec![3], vec![]));
    let named = events
        .iter()
        .any(|event| matches!(event, Event::Said { id: 3, line } if line.contains(&digest[2..])));
    assert!(named, "{events:?}");
    assert_eq!(read(&object), "alone\n");
    assert_eq!(project.verify(&space.pipeline()).unwrap(), []);
}

#[test]
fn what_the_cache_lost_comes_back_from_what_lies_in_its_place_in_whatever_order() {
    // Two of one recipe, one of another with the same bytes, and what reads one of them.
    let stages = [
        ("a", "echo same > $OUT/x", vec![]),
        ("b", "echo same > $OUT/x", vec![]),
        ("c", "echo  same > $OUT/x", vec![]),
        ("d", "cat $IN_A/x > $OUT/x", vec!["a"]),
    ];
    let space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    space.run();
    let digest = Digest::of("same\n").to_string();
    let object = space.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
    for gone in [&[0][..], &[1], &[2], &[3], &[0, 1], &[0, 2], &[1, 2, 3], &[0, 1, 2]] {
        for damaged in [false, true] {
            let _ = fs::remove_file(&object);
            if damaged {
                fs::write(&object, "else\n").unwrap();
            }
            gone.iter().for_each(|&id| {
                fs::remove_dir_all(space.path("artifacts").join(["a", "b", "c", "d"][id])).unwrap()
            });
            // Nobody knows now who put the others there.
            fs::remove_file(space.path(".repro/state")).unwrap();
            let project = Project::open(space.folder.path()).unwrap();
            let dry = project.dry_run(&space.pipeline(), &RunOptions::default()).unwrap();
            let (summary, events) = space.run();
            // What waits for a result that is to come is not found before.
            let lies = (0..4).any(|id| !gone.contains(&id) && (id < 3 || !gone.contains(&0)));
            if lies {
                assert_eq!(
                    (summary.ran.len(), &summary.restored[..]),
                    (0, gone),
                    "{gone:?} {damaged}: {events:?}"
                );
                let restored = dry.iter().filter(|(_, standing)| matches!(standing, Standing::Restorable(_)));
                assert_eq!(restored.map(|(id, _)| *id).collect::<Vec<_>>(), gone, "{dry:?}");
            } else {
                assert_eq!(summary.exit_code(), 0, "{events:?}");
                assert!(summary.ran.contains(&0), "{gone:?} {damaged}: {events:?}");
            }
            assert_eq!(read(&object), "same\n");
        }
    }
}

/// Has no time for anything from when the second stage starts until the cache has what the first made, and then stops.
struct Late {
    object: PathBuf,
    stop: Arc<AtomicUsize>,
}

impl Observer for Late {
    fn event(&mut self, event: &Event) {
        if *event == (Event::Started { id: 1 }) {
            let begun = Instant::now();
            while !self.object.exists() {
                assert!(begun.elapsed() < Duration::from_secs(20), "nobody makes it");
                std::thread::sleep(Duration::from_millis(5));
            }
            self.stop.store(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn what_had_ended_before_it_was_told_to_stop_is_kept() {
    let stages = [("a", "echo one > $OUT/x", vec![]), ("b", "sleep 60", vec![])];
    let space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    let options = RunOptions { jobs: 2, ..RunOptions::default() };
    let digest = Digest::of("one\n").to_string();
    let object = space.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
    let mut late = Late { object, stop: Arc::clone(&options.stop) };
    let project = Project::open(space.folder.path()).unwrap();
    let summary = project.run(&space.pipeline(), &options, &mut late).unwrap();
    assert_eq!((summary.exit_code(), summary.ran, summary.stopped), (130, vec![0], vec![1]));
}

/// Has no time for anything when it is told the first line, until the log grows no more: how many lines has it then?
struct Busy {
    log: PathBuf,
    lines: Option<usize>,
}

impl Observer for Busy {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Said { .. }) && self.lines.is_none() {
            let (mut lines, begun) = (0, Instant::now());
            let mut since = begun;
            while lines == 0 || since.elapsed() < Duration::from_millis(150) {
                assert!(begun.elapsed() < Duration::from_secs(20), "the log has {lines} lines");
                let now = fs::read_to_string(&self.log).unwrap_or_default().lines().count();
                if now != lines {
                    (lines, since) = (now, Instant::now());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            self.lines = Some(lines);
        }
    }
}

#[test]
fn a_command_that_says_much_waits_for_who_has_to_listen() {
    let space = Space::of(vec![("a", "seq 100000; touch said; echo 1 > $OUT/x".to_owned(), vec![])]);
    let mut busy = Busy { log: space.path(".repro/logs/a.log"), lines: None };
    let project = Project::open(space.folder.path()).unwrap();
    let summary = project.run(&space.pipeline(), &RunOptions::default(), &mut busy).unwrap();
    // However long nobody listens: not all of it has room on the way.
    assert!(summary.ran == [0] && busy.lines.is_some_and(|lines| lines < 50_000), "{:?}", busy.lines);
    assert!(space.path("said").exists());
}

struct Deaf;

impl Observer for Deaf {
    fn event(&mut self, _: &Event) {}
}

#[test]
fn a_run_that_cannot_go_on_waits_for_no_command_that_goes_on_talking() {
    let harm = "echo 1 > $OUT/x; rm -rf .repro/records; touch .repro/records";
    let stages = [("a", harm, vec![]), ("b", "yes", vec!["a"])];
    let space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    let project = Project::open(space.folder.path()).unwrap();
    let error = project.run(&space.pipeline(), &RunOptions::default(), &mut Deaf).unwrap_err();
    assert!(error.to_string().contains(".repro/records"), "{error}");
}

#[test]
fn who_needs_what_cannot_be_restored_to_its_place_fails_and_says_why() {
    // `in/` is where `in/a` is shown.
    let stages = [
        ("in/a", "echo 0 > $OUT/x", vec![]),
        ("x", "echo 1 > $OUT/x", vec![]),
        ("b", "cat $IN_IN_A/x $IN_X/x > $OUT/y", vec!["in/a", "x"]),
        ("c", "cat $IN_X/x $IN_IN_A/x > $OUT/z", vec!["in/a", "x"]),
    ];
    let mut space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    space.ran(&["in/a", "x", "b", "c"], &[]);
    space.edit("x", "rm -r artifacts/in; touch artifacts/in; echo 2 > $OUT/x");
    let options = RunOptions { jobs: 1, keep_going: true, ..RunOptions::default() };
    let (summary, events) = space.run_with(&options);
    assert_eq!((summary.fresh, summary.ran, summary.failed), (vec![0], vec![1], vec![2, 3]));
    for reader in [2, 3] {
        let told = |event: &Event| match event {
            Event::Failed { id, message, .. } => {
                *id == reader
                    && message.contains("is no longer what was made: ")
                    && message.contains("artifacts/in` is not a folder")
            }
            _ => false,
        };
        assert!(events.iter().any(told), "{events:?}");
    }
}

#[test]
fn other_bytes_of_the_same_recipe_are_told_after_the_end_of_the_stage() {
    let mut space = Space::new();
    space.edit("d", "date +%N > $OUT/x");
    space.ran(&["a", "b", "c", "d"], &[]);
    let options = RunOptions { force: true, targets: vec![3], ..RunOptions::default() };
    let (summary, events) = space.run_with(&options);
    assert_eq!(summary.ran, [3]);
    let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted);
    let finished = at(|event| matches!(event, Event::Finished { id: 3, .. }));
    let told = at(|event| matches!(event, Event::Said { id: 3, line } if line.contains("not reproducible")));
    assert!(finished.is_some() && told > finished, "{events:?}");
}

#[test]
fn what_cannot_be_published_has_failed_and_holds_up_what_needs_it() {
    let mut space = Space::new();
    space.stages.rotate_right(1); // d begins before a, also where there is one thread
    space.give("a", "publish", "in-the-way/page");
    fs::write(space.path("in-the-way"), "").unwrap();
    for ran in [vec![0], vec![]] {
        let (summary, events) = space.run();
        assert_eq!((summary.ran, summary.failed, summary.skipped), (ran, vec![1], vec![2, 3]));
        let ends = |event: &&Event| {
            matches!(
                event,
                Event::Failed { id: 1, .. } | Event::Finished { id: 1, .. } | Event::Fresh { id: 1 }
            )
        };
        assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
    }
    fs::remove_file(space.path("in-the-way")).unwrap();
    let (summary, _) = space.run();
    assert_eq!((summary.fresh, summary.failed), (vec![0, 1], vec![]));
    assert_eq!(summary.ran, [2, 3]);
}

#[test]
fn what_somebody_made_in_a_results_folder_is_kept_when_the_result_makes_way() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::write(space.path("artifacts/d/notes"), "mine").unwrap();
    space.edit("d", "echo other > $OUT/x");
    let (summary, events) = space.run();
    assert_eq!(summary.ran, [3]);
    assert_eq!(read(&space.path("artifacts/d/x")), "other\n");
    assert_eq!(read(&space.path(".repro/replaced/d~1/notes")), "mine");
    let told = |event: &Event| {
        let Event::Said { id: 3, line } = event else { return false };
        line.contains("artifacts/d/notes") && line.contains(".repro/replaced/d~1")
    };
    assert!(events.iter().any(told), "{events:?}");
    // So is what somebody wrote into a file of the result.
    fs::write(space.path("artifacts/c/z"), "edited\n").unwrap();
    space.ran(&[], &["c"]);
    assert_eq!(read(&space.path(".repro/replaced/c~1/z")), "edited\n");
    // An old result, a copy of one, and one without the index that has the same bytes, are nobody's work.
    fs::write(space.path("artifacts/d/copy"), "other\n").unwrap();
    space.edit("d", "echo more > $OUT/x");
    space.ran(&["d"], &[]);
    assert!(!space.path(".repro/replaced/d~2").exists());
    space.forget();
    space.ran(&["a", "b", "c", "d"], &[]);
    assert!(!space.path(".repro/replaced").exists());
    // Nor is what the lock file names, as in a clone where it was committed, and of it alone. The cache takes it in: git
    // need not have it.
    fs::remove_dir_all(space.path(".repro")).unwrap();
    let before = engine::digest::Digest::of(read(&space.path("artifacts/d/x"))).to_string();
    space.edit("d", "echo fresh > $OUT/x");
    fs::write(space.path("artifacts/c/x"), "edited").unwrap();
    space.ran(&["c", "d"], &[]);
    let kept = fs::read_dir(space.path(".repro/replaced")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["c~1"]);
    let (folder, name) = before.split_at(2);
    assert!(space.path(".repro/objects").join(folder).join(name).exists(), "{before}");
}

#[test]
fn instances_whose_values_look_alike_in_a_file_name_have_places_of_their_own() {
    let values = ["a b", "a_b", "a:b"];
    let space = Space::of(values.map(|value| (value, format!("echo '{value}' > $OUT/x"), vec![])).into());
    let mut pipeline = space.pipeline();
    for (instance, value) in pipeline.instances.iter_mut().zip(values) {
        instance.stage = "s".to_owned();
        instance.name = format!("s[n={value}]");
        instance.axes = [("n".to_owned(), toml::Value::from(value))].into();
    }
    let (summary, events) = crate::common::run(&pipeline, &RunOptions::default());
    assert_eq!(summary.ran.len(), 3, "{events:?}");
    let project = Project::open(space.folder.path()).unwrap();
    for (id, value) in values.iter().enumerate() {
        assert_eq!(read(&project.result(&pipeline, id).join("x")), format!("{value}\n"));
    }
}

#[test]
fn large_results_come_back_as_they_were() {
    // A file is read, copied and hashed otherwise from some sizes on.
    const MIB: usize = 1 << 20;
    for size in [MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1, 8 * MIB + 7] {
        let make = format!("seq 2000000 | head -c {size} > $OUT/x");
        let space = Space::of(vec![("a", make, vec![])]);
        space.ran(&["a"], &[]);
        let made = fs::read(space.path("artifacts/a/x")).unwrap();
        assert_eq!(made.len(), size);
        assert!(read(&space.path("pipeline.lock")).contains(&Digest::of(&made).to_string()), "{size}");
        fs::remove_dir_all(space.path("artifacts")).unwrap();
        space.ran(&[], &["a"]);
        assert!(fs::read(space.path("artifacts/a/x")).unwrap() == made, "{size}");
    }
}

#[test]
fn what_macos_puts_into_every_folder_is_no_change_and_not_kept() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::write(space.path("artifacts/d/.DS_Store"), "a window").unwrap();
    space.ran(&[], &[]);
    space.edit("d", "echo another > $OUT/x");
    space.ran(&["d"], &[]);
    assert!(!space.path(".repro/replaced").exists());
}

#[test]
fn the_recipe_encoding_is_pinned() {
    let space = Space::new();
    let recipe = engine::recipe::Recipe::of(&space.pipeline(), 1, &[], &[engine::digest::Digest::of("")]);
    insta::assert_snapshot!(recipe.text(), @r#"
    repro recipe 1
    kind shell 1
    param run = "cut -c1 $IN_A/x > $OUT/y"
    input a blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
    "#);
    assert_eq!(
        recipe.digest().to_string(),
        "22b2d5f3bea3937e5938b8f589b2347e54eb13330f5d956d42e566638c004482"
    );
    let mut pipeline = space.pipeline();
    pipeline.instances[1].kind = std::sync::Arc::new(crate::common::Toy("names"));
    let recipe = engine::recipe::Recipe::of(&pipeline, 1, &[], &[engine::digest::Digest::of("")]);
    assert!(recipe.text().contains("\ninput a a blake3:af13"), "{}", recipe.text());
}

#[test]
fn threads_that_nothing_else_could_use_go_to_kinds_that_make_use_of_them() {
    let all = std::thread::available_parallelism().unwrap().get();
    // Each with a recipe of its own: of two that are the same one would not run.
    let stage = |name, needs: Vec<&'static str>| (name, format!("echo $THREADS > $OUT/x # {name}"), needs);
    let given = |kinds: [&'static str; 3], threads: usize, jobs: usize| {
        // c waits for a; b could run beside it.
        let space = Space::of(vec![stage("a", vec![]), stage("b", vec![]), stage("c", vec!["a"])]);
        let mut pipeline = space.pipeline();
        for (instance, kind) in pipeline.instances.iter_mut().zip(kinds) {
            instance.kind = Arc::new(crate::common::Toy(kind));
        }
        pipeline.instances[0].resources.threads = threads;
        let options = RunOptions { jobs, ..RunOptions::default() };
        let (summary, events) = crate::common::run(&pipeline, &options);
        assert_eq!(summary.ran.len(), 3, "{events:?}");
        let threads =
            |name| read(&space.path(&format!("artifacts/{name}/x"))).trim().parse::<usize>().unwrap();
        ["a", "b", "c"].map(threads)
    };
    // One process at a time: each has the machine.
    assert_eq!(given(["wide"; 3], 0, 1), [all; 3]);
    assert_eq!(given(["wide", "shell", "wide"], 0, 1), [if all > 3 { all - 1 } else { all }, 1, all]);
    assert_eq!(given(["shell"; 3], 0, 1), [1; 3]);
    let half = (all / 2).max(1);
    assert_eq!(given(["wide"; 3], 0, 2)[..2], [half, (all - half).max(1)]);
    // What the pipeline file says counts.
    assert_eq!(given(["wide"; 3], 1, 1)[0], 1);
}
