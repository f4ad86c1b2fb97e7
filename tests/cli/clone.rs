//! What a clone has of results, and what `--allow-missing` makes of it.

use crate::project::TestProject;

#[test]
fn what_a_clone_lacks_is_not_made_again_where_the_lock_file_may_be_believed() {
    let project = TestProject::new(
        r#"
        [params]
        figures = []

        [stage.train]
        kind = "command"
        run = """
        echo x >> ran; mkdir -p $OUT/parts/none; echo much > $OUT/large
        echo '{ "arch": "resnet14", "mode": "bn", "top1": 0.5 }' > $OUT/metrics.json"""
        outputs = ["metrics.json", "large", "parts"]

        [stage.read]
        kind = "plot"
        figures = "${figures}"
        needs = { metrics = "train" }
        "#,
    );
    let like_a_clone = || {
        std::fs::remove_dir_all(project.path(".repro")).unwrap();
        std::fs::remove_file(project.path("artifacts/train/large")).unwrap();
        std::fs::remove_dir_all(project.path("artifacts/train/parts")).unwrap(); // git keeps no empty folders
    };
    let trainings = || project.read("ran").lines().count();
    let other = ["run", "--allow-missing", "-S", "figures=['accuracy']"];
    project.ends(&["run"], 0);
    like_a_clone();
    let answer = project.ends(&[&other[..], &["--dry-run"]].concat(), 0);
    let taken = "take     train: what is there is as the lock file says\n";
    assert!(answer.out.starts_with(taken), "{}", answer.out);
    assert!(answer.out.ends_with("\n1 will run, 1 as the lock file says\n"), "{}", answer.out);
    std::fs::remove_dir_all(project.path("artifacts/read")).unwrap();
    let answer = project.ends(&other, 0);
    assert!(answer.out.starts_with("ran 1, 1 as the lock file says in "), "{}", answer.out);
    assert_eq!(trainings(), 1);
    assert!(project.read("artifacts/read/table.md").contains("| 50.00 |"));
    let lock = project.read("pipeline.lock");
    assert!(lock.contains("outputs.\"large\""), "{lock}");
    // Who asks only for what is shown need not ask for it to be believed.
    assert!(project.ends(&["status"], 0).out.contains("stale      train: never ran\n"));
    let status = project.ends(&["status", "--allow-missing", "-S", "figures=['accuracy']"], 0).out;
    assert_eq!(status, "locked     train: what is there is as the lock file says\n1 fresh, 1 locked\n");
    assert!(project.ends(&["explain", "train"], 0).out.starts_with("train is stale: never ran\n"));
    let explained = project.ends(&["explain", "train", "--allow-missing"], 0).out;
    let locked =
        "train is locked: what is there is as the lock file says\nthe recipe of its result is today's:\n";
    assert!(explained.starts_with(locked), "{explained}");
    assert!(!project.ends(&["metrics"], 0).out.contains("not fresh"));
    project.ends(&["-S", "figures=['accuracy']", "report", "-o", "page.html"], 0);
    let page = project.read("page.html");
    assert!(
        page.contains("2 instances: 1 fresh, 1 as the lock file says.") && !page.contains("not fresh"),
        "{page}"
    );
    assert!(page.contains("# by the lock file, recipe ") && page.contains("<td>large</td>"), "{page}");
    // In the middle of a merge it says nothing, and what is shown is shown all the same.
    project.write("pipeline.lock", &format!("<<<<<<< ours\n{lock}"));
    assert!(project.ends(&["metrics"], 0).out.contains("train (not fresh)"));
    project.write("pipeline.lock", &lock);
    let answer = project.ends(&other, 0);
    assert!(answer.out.starts_with("1 as the lock file says, 1 fresh in "), "{}", answer.out);

    // Without the word of the lock file it is made.
    project.ends(&["run"], 0);
    assert_eq!((project.read("artifacts/train/large").as_str(), trainings()), ("much\n", 2));

    // What is there must be what was locked, of today's recipe; and something must be there.
    for spoil in [
        "echo >> artifacts/train/metrics.json",
        "sed -i.bak s/0.5/0.6/ artifacts/train/metrics.json; rm artifacts/train/*.bak",
        "rm artifacts/train/metrics.json",
        "mkdir -p artifacts/train/parts; touch artifacts/train/parts/more",
    ] {
        like_a_clone();
        let spoilt =
            std::process::Command::new("sh").args(["-c", spoil]).current_dir(project.path("")).status();
        assert!(spoilt.unwrap().success());
        let before = trainings();
        project.ends(&["run", "--allow-missing"], 0);
        assert_eq!(trainings(), before + 1, "{spoil}");
    }
    like_a_clone();
    project.write("pipeline.toml", &project.read("pipeline.toml").replace("echo much", "echo more"));
    let before = trainings();
    project.ends(&["run", "--allow-missing"], 0);
    assert_eq!(trainings(), before + 1, "another recipe");
}

#[test]
fn a_command_does_not_run_on_a_part_of_what_was_locked() {
    let project = TestProject::new(
        r#"
        [stage.a]
        kind = "command"
        run = "mkdir -p $OUT/parts/none; cd $OUT/parts; touch 1.csv 2.csv 3.csv 4.bin 5.bin; echo 6 > 6.bin"
        outputs = ["parts"]

        [stage.b]
        kind = "command"
        run = "ls $IN_A/parts | wc -l > $OUT/count"
        outputs = ["count"]
        needs = { a = "a" }
        "#,
    );
    project.ends(&["run"], 0);
    for folder in [".repro", "artifacts/b", "artifacts/a/parts/none"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    for name in ["5.bin", "6.bin"] {
        std::fs::remove_file(project.path("artifacts/a/parts").join(name)).unwrap();
    }
    let told = "its input lacks `artifacts/a/parts/5.bin` and 2 more";
    let plan = project.ends(&["run", "--allow-missing", "--dry-run"], 0).out;
    assert!(plan.contains(&format!("fail     b: {told}\n")), "{plan}");
    let answer = project.ends(&["run", "--allow-missing"], 1);
    assert!(answer.out.starts_with("1 as the lock file says, failed 1 in "), "{}", answer.out);
    assert!(answer.err.contains(&format!("error: `b`: {told}\n")), "{}", answer.err);
    assert!(answer.err.contains("run without it, or bring the file"), "{}", answer.err);
    assert!(!project.path("artifacts/b").exists());
    // Git keeps no empty folders, but a command may ask for them.
    for (name, text) in [("5.bin", ""), ("6.bin", "6\n")] {
        project.write(&format!("artifacts/a/parts/{name}"), text);
    }
    let answer = project.ends(&["run", "--allow-missing"], 1);
    assert!(answer.err.contains("its input lacks `artifacts/a/parts/none/`\n"), "{}", answer.err);
    std::fs::create_dir(project.path("artifacts/a/parts/none")).unwrap();
    project.ends(&["run", "--allow-missing"], 0);
    assert_eq!(project.read("artifacts/b/count").trim(), "7");
}

#[test]
fn what_was_taken_and_then_changed_is_not_read() {
    let project = TestProject::new(
        r#"
        [stage.z]
        kind = "command"
        run = "touch $OUT/x"
        outputs = ["x"]

        [stage.a]
        kind = "command"
        run = """
        echo much > $OUT/large; echo '{ "arch": "resnet14", "mode": "bn", "top1": 0.5 }' > $OUT/metrics.json"""
        outputs = ["metrics.json", "large"]

        [stage.table]
        kind = "plot"
        needs = { metrics = "a" }
        "#,
    );
    project.ends(&["run"], 0);
    for folder in [".repro", "artifacts/table", "artifacts/z"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    std::fs::remove_file(project.path("artifacts/a/large")).unwrap();
    let shown = "artifacts/a/metrics.json";
    let text = project.read(shown);
    let other = text.replace("0.5", "0.9");
    project.write("other", &other);
    project.edit("pipeline.toml", "touch $OUT/x", &format!("cp other {shown}; touch $OUT/x"));
    let answer = project.ends(&["run", "--allow-missing", "--keep-going", "-j1"], 1);
    assert!(answer.err.contains("is no longer what was taken"), "{}", answer.err);
    assert!(!project.path("artifacts/table").exists());
    project.write(shown, &text);
    project.ends(&["run", "--allow-missing"], 0);
    assert!(project.read("artifacts/table/table.md").contains("| 50.00 |"));
}

#[test]
fn a_part_of_what_was_locked_is_no_whole_though_the_index_knows_another() {
    let project = TestProject::new(
        "[params]\nw = 'one'\n\
         [stage.a]\nkind = 'command'\nrun = 'echo ${w} > $OUT/x; echo ${w} > $OUT/y'\noutputs = ['x', 'y']\n\
         [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\nrun = 'cat $IN_A/* > $OUT/n'\noutputs = ['n']",
    );
    project.ends(&["run", "-S", "w=two"], 0);
    let lock = project.read("pipeline.lock");
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    project.ends(&["run"], 0);
    // As a checkout of the other branch leaves them.
    project.write("pipeline.lock", &lock);
    project.write("artifacts/a/x", "two\n");
    std::fs::remove_file(project.path("artifacts/a/y")).unwrap();
    std::fs::remove_dir_all(project.path("artifacts/b")).unwrap();
    let answer = project.ends(&["run", "--allow-missing", "-S", "w=two"], 1);
    assert!(answer.err.contains("its input lacks `artifacts/a/y`"), "{}", answer.err);
    assert!(!project.path("artifacts/b").exists());
}

#[test]
fn a_clone_without_the_files_that_a_stage_reads_goes_on_from_what_was_locked() {
    let project = TestProject::new(
        r#"
        [stage.pack]
        kind = "command"
        run = '''
        echo x >> ran; cat images/* > $OUT/pixels
        echo "{ \"arch\": \"resnet14\", \"mode\": \"$(ls images)\", \"top1\": 0.5 }" > $OUT/metrics.json'''
        deps = ["images"]
        outputs = ["metrics.json", "pixels"]

        [stage.table]
        kind = "plot"
        needs = { metrics = "pack" }
        "#,
    );
    let images = project.path("images");
    std::fs::create_dir(&images).unwrap();
    project.write("images/bn", "1");
    project.ends(&["run"], 0);
    let lock = project.read("pipeline.lock");
    assert!(lock.contains("\nfiles.\"images\" = "), "{lock}");
    // Neither is the folder in the repository, nor what was made of it, nor the figure.
    std::fs::remove_dir_all(&images).unwrap();
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    std::fs::remove_dir_all(project.path("artifacts/table")).unwrap();
    std::fs::remove_file(project.path("artifacts/pack/pixels")).unwrap();
    assert!(project.ends(&["run"], 1).err.contains("it reads `images`"));
    let answer = project.ends(&["run", "--allow-missing"], 0);
    assert!(answer.out.starts_with("ran 1, 1 as the lock file says in "), "{}", answer.out);
    assert!(project.path("artifacts/table/table.md").exists());
    assert_eq!(project.read("pipeline.lock"), lock);
    // Nothing is made without the folder: neither when asked for, nor in place of what somebody changed or took away.
    let lacks = |words: &[&str]| {
        let answer = project.ends(words, 1);
        assert!(answer.err.contains("it reads `images`"), "{}", answer.err);
        assert_eq!(project.read("ran").lines().count(), 1);
    };
    let shown = "artifacts/pack/metrics.json";
    let made = project.read(shown);
    lacks(&["run", "--allow-missing", "--force", "pack"]);
    assert_eq!(project.read(shown), made);
    project.write(shown, "{}");
    lacks(&["run", "--allow-missing"]);
    assert_eq!(project.read(shown), "{}");
    let plan = project.ends(&["run", "--allow-missing", "--dry-run"], 0).out;
    assert!(plan.starts_with("fail     pack: it reads `images`"), "{plan}");
    std::fs::remove_file(project.path(shown)).unwrap();
    lacks(&["run", "--allow-missing"]);
    project.write(shown, &made);
    project.ends(&["run", "--allow-missing"], 0);
    // Only of that recipe, and only where nothing else is in its place.
    let pipeline = project.read("pipeline.toml");
    project.write("pipeline.toml", &pipeline.replace("cat images/*", "cat images/bn"));
    assert!(project.ends(&["run", "--allow-missing"], 1).err.contains("it reads `images`"));
    project.write("pipeline.toml", &pipeline);
    std::fs::create_dir(&images).unwrap();
    project.write("images/all", "2");
    project.ends(&["run", "--allow-missing"], 0);
    assert_eq!((project.read(shown).contains("all"), project.read("ran").lines().count()), (true, 2));
}

#[test]
fn what_a_clone_has_whole_is_its_own_and_what_git_puts_in_place_is_no_damage() {
    let project = TestProject::new(
        "[params]\nword = 'one'\n[stage.a]\nkind = 'command'\nrun = 'echo x >> ran; mkdir -p $OUT/d; echo ${word} > $OUT/d/x'\noutputs = ['d']\n\
         [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\nrun = 'echo x >> ran; cat $IN_A/d/x > $OUT/y'\noutputs = ['y']",
    );
    let ran = || project.read("ran").lines().count();
    let keep = |to: &str| {
        std::fs::copy(project.path("pipeline.lock"), project.path(&format!("{to}.lock"))).unwrap();
        std::fs::copy(project.path("artifacts/a/d/x"), project.path(&format!("{to}.x"))).unwrap();
        std::fs::copy(project.path("artifacts/b/y"), project.path(&format!("{to}.y"))).unwrap();
    };
    let check_out = |from: &str, word: &str| {
        for (name, place) in [("lock", "pipeline.lock"), ("x", "artifacts/a/d/x"), ("y", "artifacts/b/y")] {
            project.write(place, &project.read(&format!("{from}.{name}")));
        }
        let text = project.read("pipeline.toml");
        let (_, rest) = text.split_once("\n[stage.a]").expect("a stage");
        project.write("pipeline.toml", &format!("[params]\nword = '{word}'\n[stage.a]{rest}"));
    };
    project.ends(&["run"], 0);
    keep("first");
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    assert_eq!(project.ends(&["status"], 0).out, "2 fresh\n");
    assert_eq!(project.ends(&["explain", "b"], 0).out.lines().next(), Some("b is fresh"));
    assert!(project.ends(&["run"], 0).out.starts_with("nothing to do: 2 fresh"));
    // Nothing is lost of what was never made here.
    project.ends(&["run", "-S", "word=two"], 0);
    assert_eq!(ran(), 4);
    let back = project.ends(&["run"], 0);
    assert!(back.out.starts_with("restored 2 in "), "{}", back.out);
    // Another branch, its results, its lock file.
    check_out("first", "two");
    project.ends(&["run"], 0);
    keep("second");
    for (branch, word) in [("first", "one"), ("second", "two")] {
        check_out(branch, word);
        project.ends(&["verify"], 0);
        let answer = project.ends(&["run"], 0);
        assert!(answer.out.starts_with("nothing to do: 2 fresh"), "{}{}", answer.out, answer.err);
        assert!(!answer.err.contains("warning"), "{}", answer.err);
    }
    // One that is not what was made is still told from it.
    project.write("artifacts/b/y", "three\n");
    assert!(project.ends(&["verify"], 3).out.contains("artifacts/b/y"));
    assert!(project.ends(&["run"], 0).out.starts_with("restored 1, "));
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    project.write("artifacts/b/y", "three\n");
    assert!(project.ends(&["status"], 0).out.contains("stale      b: never ran\n"));
    assert_eq!(ran(), 4);
}

#[test]
fn what_another_clone_made_of_the_same_recipe_stays_what_is_shown() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'od -An -N8 -tx1 /dev/urandom > $OUT/x'\noutputs = ['x']\n\
         [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\nrun = 'cat $IN_A/x > $OUT/y'\noutputs = ['y']",
    );
    project.ends(&["run"], 0);
    let (theirs, lock) = (project.read("artifacts/a/x"), project.read("pipeline.lock"));
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    project.ends(&["run"], 0);
    // As git brings it: `a` is that of the other clone, and what came of the one that was made here is not.
    project.write("artifacts/a/x", &theirs);
    project.write("artifacts/b/y", &theirs);
    project.write("pipeline.lock", &lock);
    assert_eq!(project.ends(&["status"], 0).out, "2 fresh\n");
    project.ends(&["run"], 0);
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    assert!(project.ends(&["run"], 0).out.starts_with("restored 2 in "));
    assert_eq!((project.read("artifacts/a/x"), project.read("pipeline.lock")), (theirs, lock));
}

#[test]
fn what_lies_in_place_serves_single_stages_pushes_and_twins() {
    let two = "[stage.a]\nkind = 'command'\nrun = 'echo 1 > $OUT/x'\noutputs = ['x']\n\
               [stage.b]\nkind = 'command'\nneeds = { a = 'a' }\nrun = 'cat $IN_A/x > $OUT/y'\noutputs = ['y']\n";
    let project = TestProject::new(two);
    project.ends(&["run"], 0);
    let forget = || std::fs::remove_dir_all(project.path(".repro")).unwrap();
    forget();
    assert!(project.ends(&["run", "--only", "b"], 0).out.starts_with("nothing to do: 1 fresh"));
    forget();
    assert!(project.ends(&["push", "shared"], 0).out.contains("pushed 2 results"));
    forget();
    // The one that has to run has the recipe of one that lies there.
    project.write(
        "pipeline.toml",
        &format!("{two}{}", two.split("[stage.b]").next().unwrap().replace("stage.a", "stage.0")),
    );
    let plan = project.ends(&["run", "--dry-run"], 0).out;
    assert!(plan.starts_with("restore  0: "), "{plan}");
    assert!(project.ends(&["run"], 0).out.starts_with("restored 1, 2 fresh in "));
}

#[test]
fn a_report_of_a_clone_shows_the_images_that_commands_made() {
    let project = TestProject::new(
        "[stage.a]\nkind = \"command\"\nrun = \"echo image > $OUT/a.png\"\noutputs = [\"a.png\"]\n",
    );
    project.ends(&["run"], 0);
    std::fs::remove_dir_all(project.path(".repro")).unwrap();
    let images = || {
        project.ends(&["report"], 0);
        project.read("report.html").matches("data:image/png").count()
    };
    assert_eq!(images(), 1);
    // What nobody locked or made is not shown.
    std::fs::remove_file(project.path("pipeline.lock")).unwrap();
    assert_eq!(images(), 0);
}

#[test]
fn who_lacks_a_file_that_the_lock_file_knows_is_told_how_to_go_without() {
    let project = TestProject::new(
        r#"
        [stage.data]
        kind = "command"
        run = "cat my-images/* > $OUT/pixels; echo '{}' > $OUT/metrics.json"
        deps = ["my-images"]
        outputs = ["metrics.json", "pixels"]
        "#,
    );
    std::fs::create_dir(project.path("my-images")).unwrap();
    project.write("my-images/1", "1");
    project.ends(&["run"], 0);
    project.ends(&["push", "shared"], 0);
    for folder in [".repro", "my-images"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    std::fs::remove_file(project.path("artifacts/data/pixels")).unwrap();
    let way =
        "help: in a clone without `my-images`: `--allow-missing` takes what the lock file says of `data`\n";
    for from in [&[][..], &["--from", "shared"]] {
        let told = project.ends(&[&["run"], from].concat(), 1).err;
        assert!(told.contains("error: `data`: it reads `my-images`") && told.contains(way), "{told}");
        assert_eq!(project.ends(&[&["run", "-n"], from].concat(), 0).err, way);
    }
    // Where it would not help, nobody is sent there.
    let silent = |words: &[&str]| {
        let told = project.ends(words, 1).err;
        assert!(!told.contains("in a clone"), "{told}");
    };
    silent(&["run", "--force"]);
    silent(&["run", "-S", "stage.data.run='cat my-images/1 > $OUT/pixels'"]);
    project.ends(&["run", "--from", "shared", "--allow-missing"], 0);
    assert_eq!(project.read("artifacts/data/pixels"), "1");
}

#[test]
fn what_the_cache_has_is_restored_and_nothing_is_run_by_pulling_from_here() {
    let project = TestProject::new(
        "[stage.a]\nkind = 'command'\nrun = 'echo x >> ran; echo 1 > $OUT/x'\noutputs = ['x']\n",
    );
    project.ends(&["run"], 0);
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    assert!(project.ends(&["pull", "."], 0).out.starts_with("restored 1 in "));
    project.edit("pipeline.toml", "echo 1", "echo 2");
    assert!(project.ends(&["pull", "."], 0).out.starts_with("1 not taken in "));
    assert_eq!((project.read("ran").as_str(), project.read("artifacts/a/x").as_str()), ("x\n", "1\n"));
}
