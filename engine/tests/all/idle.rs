//! When a run need not read the pipeline to know that there is nothing to do.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use engine::{gc::GcOptions, idle::Question, pipeline::LoadOptions, project::Project, run::RunOptions};

use crate::space::Space;

/// Files younger than the clock's grain are not known by their stamp.
fn grow_old() {
    std::thread::sleep(Duration::from_millis(60));
}

/// A project whose stages read a file and a folder, where nothing is to be done.
fn idle() -> Space {
    let mut space = Space::new();
    fs::create_dir_all(space.path("notes/more")).unwrap();
    for file in ["notes/one", "notes/more/two", "plain"] {
        fs::write(space.path(file), "1").unwrap();
    }
    grow_old();
    space.give("c", "reads", vec!["plain"]);
    space.give("d", "reads", vec!["notes"]);
    space.edit("d", "mkdir $OUT/sub; echo alone | tee $OUT/x > $OUT/sub/y");
    space.ran(&["a", "b", "c", "d"], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
    space
}

#[test]
fn a_run_that_ran_or_restored_or_did_nothing_is_remembered() {
    let mut space = idle();
    fs::remove_dir_all(space.path(".repro/idle")).unwrap();
    assert_eq!(space.nothing_to_do(), None);
    space.ran(&[], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
    space.edit("a", "echo two > $OUT/x");
    assert_eq!(space.nothing_to_do(), None, "something else is asked");
    space.ran(&["a", "b", "c"], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
    space.edit("a", "echo one > $OUT/x");
    space.ran(&[], &["a", "b", "c"]);
    assert_eq!(space.nothing_to_do(), Some(4));
}

#[test]
fn no_digit_that_flips_in_the_index_is_believed() {
    let space = idle();
    let (index, lock) = (space.path(".repro/state"), space.path("pipeline.lock"));
    let (whole, locked) = (fs::read(&index).unwrap(), fs::read(&lock).unwrap());
    // One digit of each digest, not those of the lines themselves.
    let is_digest = |at: &usize| {
        let digits = |range: std::ops::Range<usize>| whole[range].iter().all(u8::is_ascii_hexdigit);
        whole[at - 1] == b'"' && whole.len() > at + 64 && digits(*at..at + 64)
    };
    let digests: Vec<_> = (1..whole.len()).filter(is_digest).collect();
    assert!(digests.len() > 10, "{}", digests.len());
    for at in digests {
        let mut damaged = whole.clone();
        damaged[at + 5] = if damaged[at + 5] == b'0' { b'1' } else { b'0' };
        fs::write(&index, damaged).unwrap();
        fs::write(&lock, &locked).unwrap(); // touched: it is compared with what is shown
        space.ran(&[], &[]);
        assert_eq!(fs::read(&lock).unwrap(), locked, "{at} of {}", String::from_utf8_lossy(&whole));
    }
}

#[test]
fn a_pipe_beside_the_files_is_not_waited_for() {
    let space = idle();
    for pipe in ["notes/x.lock", "y.lock", ".repro/folders/z"] {
        assert!(std::process::Command::new("mkfifo").arg(space.path(pipe)).status().unwrap().success());
    }
    space.ran(&[], &[]);
    let options = GcOptions { keep: Duration::ZERO, delete: false, locks: Vec::new() };
    Project::open(space.folder.path()).unwrap().gc(&options).unwrap();
}

#[test]
fn whatever_happens_to_a_file_is_noticed() {
    let touch = |path: &Path| fs::write(path, "1").unwrap();
    let delete = |path: &Path| fs::remove_file(path).unwrap();
    let empty = |path: &Path| {
        fs::remove_dir_all(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let link = |path: &Path| {
        fs::rename(path, path.with_extension("old")).unwrap();
        std::os::unix::fs::symlink(path.with_extension("old"), path).unwrap();
    };
    type Harm<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Harm<'_>); 14] = [
        ("artifacts/a/x", &touch),
        ("artifacts/a/x", &delete),
        ("artifacts/a/x", &link),
        ("artifacts/a/stray", &touch),
        ("artifacts/d/sub/stray", &touch),
        ("artifacts/d/sub", &link),
        ("artifacts/d", &empty),
        ("plain", &touch),
        ("plain", &delete),
        ("notes/more/two", &touch),
        ("notes/more/three", &touch),
        ("notes/more", &empty),
        (".repro/state", &delete),
        ("pipeline.lock", &delete),
    ];
    for (file, harm) in cases {
        let space = idle();
        harm(&space.path(file));
        assert_eq!(space.nothing_to_do(), None, "{file}");
    }
}

#[test]
fn another_program_is_asked_another_question() {
    let folder = tempfile::tempdir().unwrap();
    let [exe, new] = ["exe", "new"].map(|name| folder.path().join(name));
    let options = LoadOptions { file: folder.path().join("pipeline.toml"), ..LoadOptions::default() };
    let ask = || Question::new("", &options, &exe);
    assert_eq!(ask(), None);
    fs::write(&exe, "one").unwrap();
    let first = ask();
    assert!(first.is_some() && ask() == first);
    fs::write(&new, "two").unwrap();
    fs::rename(&new, &exe).unwrap();
    assert_ne!(ask(), first);
}

#[test]
fn a_damaged_memory_is_none() {
    let space = idle();
    let file = fs::read_dir(space.path(".repro/idle")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    for broken in [
        String::new(),
        text[..text.len() - 3].to_owned(),
        text.replace("\n4\n", "\n5\n"),
        text.replace("artifacts/a", "artifacts/b"),
    ] {
        fs::write(&file, &broken).unwrap();
        assert_eq!(space.nothing_to_do(), None, "{broken}");
    }
    fs::write(&file, &text).unwrap();
    assert_eq!(space.nothing_to_do(), Some(4));
}

#[test]
fn what_was_read_too_young_or_publishes_or_ran_in_part_is_not_remembered() {
    let mut space = idle();
    let plain = fs::File::options().write(true).open(space.path("plain")).unwrap();
    // What is young afterwards was young when it was read; a machine may be too slow for that. The clock of the
    // file system may be a tick behind.
    let read_young = || {
        let begun = Instant::now();
        plain.set_modified(SystemTime::now()).unwrap();
        space.ran(&[], &[]);
        (begun.elapsed() < Duration::from_millis(30)).then(|| space.nothing_to_do())
    };
    match (0..20).find_map(|_| read_young()) {
        Some(answer) => assert_eq!(answer, None, "`plain` was too young"),
        #[allow(clippy::print_stderr)] // the only way to say that a test checks nothing
        None => eprintln!("SKIPPED: no run is so fast that what is young before it is young when it is read"),
    }
    grow_old();
    space.ran(&[], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
    space.give("d", "publish", "page.md");
    space.ran(&["d"], &[]);
    assert_eq!(space.nothing_to_do(), None, "a page must be looked at");
    let space = Space::new();
    let part = RunOptions { targets: vec![3], question: Some(space.question()), ..RunOptions::default() };
    space.run_with(&part);
    assert_eq!(space.nothing_to_do(), None);
    let mut space = idle();
    space.edit("d", "false");
    space.run();
    assert_eq!(space.nothing_to_do(), None, "a stage failed");
    let space = idle();
    let lock = space.path("pipeline.lock");
    fs::rename(&lock, space.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &lock).unwrap();
    space.ran(&[], &[]);
    assert_eq!(space.nothing_to_do(), None, "nobody would see what happens behind a link");
}
