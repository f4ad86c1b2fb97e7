//! What others laid into a project's folder, as a clone may bring it, harms nobody who works there.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use crate::project::TestProject;

const ONE: &str = "[stage.one]\nkind = \"command\"\noutputs = [\"x\"]\nrun = \"echo 1 > $OUT/x\"\n";

#[test]
fn git_starts_no_program_that_a_bare_repository_in_the_folder_names() {
    let project = TestProject::new(ONE);
    for folder in ["objects", "refs"] {
        fs::create_dir(project.path(folder)).unwrap();
    }
    project.write("HEAD", "ref: refs/heads/main\n");
    let ran = project.path("ran");
    project.write(
        "config",
        &format!(
            "[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\nfsmonitor = \"touch '{}'; false\"\n",
            ran.display()
        ),
    );
    project.ends(&["run"], 0);
    project.ends(&["metrics", "diff", "HEAD"], 2);
    assert!(!ran.exists());
}

#[test]
fn no_link_in_the_cache_leads_to_what_somebody_has_elsewhere() {
    let theirs = tempfile::tempdir().unwrap();
    let (file, folder) = (theirs.path().join("file"), theirs.path().join("folder"));
    let before = || {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&file, "theirs").unwrap();
        fs::write(folder.join("one.log"), "theirs").unwrap();
    };
    before();
    let same = || {
        let names = |folder| fs::read_dir(folder).unwrap().count();
        let read = |path| fs::read_to_string(path).unwrap();
        (read(&file), read(&folder.join("one.log"))) == ("theirs".into(), "theirs".into())
            && (names(theirs.path()), names(&folder)) == (2, 1)
    };
    let refused = |link: &str, to: &std::path::Path, said: &str| {
        let project = TestProject::new(ONE);
        let link = project.path(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(to, &link).unwrap();
        let pushed = project.path("pushed");
        for words in [&["run"][..], &["verify"], &["gc", "--apply"], &["push", pushed.to_str().unwrap()]] {
            let answer = project.ends(words, 2);
            assert!(answer.err.contains(said) && answer.err.contains("help: "), "{words:?} {}", answer.err);
            assert!(same(), "{words:?}");
        }
    };
    let inside = "is a link, and the cache would be written through it";
    for name in ["project", "state", "lock", ".gitignore"] {
        refused(&format!(".repro/{name}"), &file, inside);
    }
    for name in ["drafts", "objects", "records", "logs", "scratch", "failed", "folders", "idle", "replaced"] {
        refused(&format!(".repro/{name}"), &folder, inside);
    }
    refused(".repro", theirs.path(), "is a link to a folder that holds something else");
}

#[test]
fn what_stages_hold_in_the_cache_is_opened_through_no_link() {
    let theirs = tempfile::tempdir().unwrap();
    let file = theirs.path().join("seed=0.log");
    fs::write(&file, "theirs").unwrap();
    let project = TestProject::new(&format!("{ONE}matrix = {{ seed = [0] }}\n"));
    project.edit("pipeline.toml", "echo 1 >", "echo 2 > $SCRATCH/seed=0.log; echo 1 >");
    project.ends(&["run"], 0);
    let records = walkdir::WalkDir::new(project.path(".repro/records")).min_depth(2).into_iter().flatten();
    let record = records.map(walkdir::DirEntry::into_path).next().unwrap();
    let first = record.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let recipe = format!("{first}{}", record.file_stem().unwrap().to_str().unwrap());
    let [log, logs, lock] =
        [".repro/logs/one/seed=0.log", ".repro/logs/one", &format!(".repro/scratch/{recipe}.lock")]
            .map(|place| project.path(place));
    for (link, to) in [(&log, file.as_path()), (&logs, theirs.path()), (&lock, &file)] {
        let _ = fs::remove_dir_all(link).or_else(|_| fs::remove_file(link));
        symlink(to, link).unwrap();
        let told = project.ends(&["run", "--force"], 1).err;
        assert!(told.contains(&format!("{}` is a link", link.display())), "{told}");
        assert!(told.contains("help: delete it, then run again"), "{told}");
        fs::remove_file(link).unwrap();
    }
    // A command writes into its scratch folder.
    symlink(theirs.path(), lock.with_extension("")).unwrap();
    for made in ["artifacts", ".repro/objects"] {
        fs::remove_dir_all(project.path(made)).unwrap();
    }
    assert_eq!(project.ends(&["run"], 0).out.split(' ').next(), Some("ran"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
}

#[test]
fn a_report_shows_nothing_that_is_no_part_of_a_result() {
    const IMAGES: &str = "[stage.one]\nkind = \"command\"\noutputs = [\"a.png\", \"b/c.png\", \"d.png\"]\n\
                          run = \"cd $OUT; mkdir b; for x in a.png b/c.png d.png; do echo $x > $x; done\"\n";
    let theirs = tempfile::tempdir().unwrap();
    fs::write(theirs.path().join("c.png"), "secret").unwrap();
    let project = TestProject::new(IMAGES);
    project.ends(&["run"], 0);
    // A whole result may lie somewhere else.
    let [place, far] = ["artifacts/one", "far"].map(|name| project.path(name));
    fs::rename(&place, &far).unwrap();
    symlink(&far, &place).unwrap();
    let images = || {
        let noted = project.ends(&["report"], 0).err;
        (project.read("report.html").matches("data:image/png").count(), noted)
    };
    assert_eq!(images(), (3, String::new()));
    let file = far.join("a.png");
    fs::remove_file(&file).unwrap();
    symlink(theirs.path().join("c.png"), &file).unwrap();
    fs::remove_dir_all(far.join("b")).unwrap();
    symlink(theirs.path(), far.join("b")).unwrap();
    let (count, noted) = images();
    assert_eq!(
        (count, noted.matches("cannot be read (a link leads to it); it is left out").count()),
        (1, 2),
        "{noted}"
    );
    // Nor what has no end.
    fs::remove_file(far.join("d.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(far.join("d.png")).status().unwrap().success());
    let (count, noted) = images();
    assert!(count == 0 && noted.contains("d.png` cannot be read (it is not a plain file)"), "{noted}");
    fs::remove_file(far.join("d.png")).unwrap();
    fs::File::create(far.join("d.png")).unwrap().set_len(33 << 20).unwrap();
    let (count, noted) = images();
    assert!(count == 0 && noted.contains("d.png` cannot be read (it has more than 32 MiB)"), "{noted}");
}

/// Only root can give files to others.
#[test]
fn a_project_above_that_belongs_to_another_user_is_not_taken() {
    const NOBODY: u32 = 65_534;
    let project = TestProject::new(ONE);
    fs::create_dir(project.path("sub")).unwrap();
    project.write("sub/own.toml", ONE);
    let sub = ["-C", "sub", "status"];
    let named = ["-f", "sub/own.toml", "status"];
    project.ends(&sub, 0);
    let give = |name: &str, to: u32| std::os::unix::fs::chown(project.path(name), Some(to), None);
    if give("pipeline.toml", NOBODY).is_err() {
        return;
    }
    for words in [&sub, &named] {
        let told = project.ends(words, 2).err;
        assert!(told.contains("pipeline.toml` belongs to another user"), "{told}");
        assert!(told.contains("help: if you trust them, work there: `-C /"), "{told}");
    }
    project.ends(&["status"], 0);
    project.ends(&["-C", "sub", "schema"], 0);
    // Whose file is asked for is believed.
    give("sub/own.toml", NOBODY).unwrap();
    project.ends(&named, 0);
    give("sub/own.toml", 0).unwrap();
    // Nor a cache of theirs.
    fs::remove_file(project.path("pipeline.toml")).unwrap();
    fs::create_dir(project.path(".repro")).unwrap();
    give(".repro", NOBODY).unwrap();
    assert!(project.ends(&named, 2).err.contains(".repro` belongs to another user"));
}

#[test]
fn nothing_that_others_wrote_does_something_to_a_terminal() {
    let project = TestProject::new(&format!("{ONE}deps = [\"no\\u001b[2J\\u009b\"]\n"));
    let shows = |words: &[&str], code, shown: &str| {
        let answer = project.ends(words, code);
        let told = format!("{}{}", answer.out, answer.err);
        let acts = |c: char| c.is_control() && !"\n\t".contains(c);
        assert!(!told.contains(acts) && told.contains(shown), "{words:?} {told:?}");
    };
    let shown = r"it reads `no\u{1b}[2J\u{9b}`";
    for (words, code) in
        [(&["status"][..], 0), (&["run", "--dry-run"], 0), (&["run"], 1), (&["explain", "one"], 0)]
    {
        shows(words, code, shown);
    }
    shows(&["explain", "on\u{1b}[2J"], 2, r"`on\u{1b}[2J`");
    // For programs it is what it is.
    let reason = &project.json(&["status", "--json"], 0)[0]["reasons"][0];
    assert!(reason.as_str().unwrap().starts_with("it reads `no\u{1b}[2J\u{9b}`"), "{reason}");
    project.edit("pipeline.toml", "kind =", "\"ki\\u001bnd\u{9b}\" = 1 # \u{9b}\nkind =");
    shows(&["status"], 2, r"`ki\u{1b}nd\u{9b}`");
}

#[test]
fn new_files_are_readable_for_whom_the_umask_lets() {
    let project = TestProject::new(&ONE.replace("$OUT/x", "$OUT/x; chmod 755 $OUT/x"));
    project.write("page.html", "");
    let run = |umask: &str, words: &str| {
        let line = format!("umask {umask}; exec '{}' {words}", env!("CARGO_BIN_EXE_repro"));
        let answer = project.start_as(std::process::Command::new("/bin/sh").args(["-c", &line])).wait();
        assert_eq!(answer.code, Some(0), "{}", answer.err);
    };
    let mode = |name: &str| fs::metadata(project.path(name)).unwrap().permissions().mode() & 0o777;
    for (umask, plain, executable) in [("077", 0o600, 0o700), ("002", 0o664, 0o775)] {
        let _ = fs::remove_file(project.path("pipeline.lock"));
        run(umask, "run");
        fs::remove_dir_all(project.path("artifacts")).unwrap();
        run(umask, "run");
        assert_eq!((mode("pipeline.lock"), mode("artifacts/one/x")), (plain, executable), "{umask}");
        run(umask, "report -o new.html");
        assert_eq!(mode("new.html"), plain);
        fs::remove_file(project.path("new.html")).unwrap();
    }
    let objects = walkdir::WalkDir::new(project.path(".repro/objects")).min_depth(2).into_iter().flatten();
    let modes: Vec<_> =
        objects.map(|object| object.metadata().unwrap().permissions().mode() & 0o777).collect();
    assert_eq!(modes, [0o400]);
    // What is there keeps its own.
    fs::set_permissions(project.path("page.html"), fs::Permissions::from_mode(0o640)).unwrap();
    run("077", "report -o page.html");
    assert_eq!(mode("page.html"), 0o640);
}

#[test]
fn a_report_goes_through_a_link_only_where_that_is_named() {
    let project = TestProject::new(ONE);
    symlink("new.html", project.path("report.html")).unwrap();
    let told = project.ends(&["report"], 2).err;
    assert!(told.contains("`report.html` is a link") && told.contains("by `-o report.html`"), "{told}");
    assert!(!project.path("new.html").exists());
    project.write("new.html", "");
    project.ends(&["report"], 2);
    assert_eq!(project.read("new.html"), "");
    project.ends(&["report", "-o", "report.html"], 0);
    assert!(project.read("new.html").starts_with("<!"));
}

#[test]
fn metrics_are_read_through_no_link() {
    let theirs = tempfile::tempdir().unwrap();
    fs::write(theirs.path().join("credentials.json"), r#"{"token": "secret"}"#).unwrap();
    let project = TestProject::new(
        &ONE.replace("[\"x\"]", "[\"metrics.json\"]")
            .replace("echo 1 > $OUT/x", "echo {} > $OUT/metrics.json"),
    );
    project.ends(&["run"], 0);
    let place = project.path("artifacts/one/metrics.json");
    fs::remove_file(&place).unwrap();
    symlink(theirs.path().join("credentials.json"), &place).unwrap();
    let answer = project.ends(&["report"], 0);
    assert!(answer.err.contains("metrics.json` cannot be read (a link leads to it); it is left out"));
    assert!(!project.read("report.html").contains("secret"));
    assert!(!project.ends(&["metrics"], 0).out.contains("secret"));
}
