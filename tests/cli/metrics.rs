//! `repro metrics`: the numbers of results as a table, as means over an axis, in order of a column.

use crate::project::TestProject;

#[test]
fn metrics_is_a_table_of_texts_and_numbers() {
    let project = TestProject::new(
        r#"
[stage.score]
kind = "command"
run = """echo '{"top1": 0.5'${seed}', "mode": "bn", "epochs": 3, "tiny": 0.00012, "list": [1]}' > $OUT/metrics.json"""
outputs = ["metrics.json"]
matrix = { seed = [1, 2] }
"#,
    );
    assert_eq!(project.ends(&["metrics"], 0).out, "");
    project.ends(&["run"], 0);
    insta::assert_snapshot!(project.ends(&["metrics"], 0).out, @r"
    instance       mode  epochs      tiny    top1
    score[seed=1]  bn         3  1.200e-4  0.5100
    score[seed=2]  bn         3  1.200e-4  0.5200
    ");
    insta::assert_snapshot!(project.ends(&["metrics", "score[seed=2]", "--md"], 0).out, @r"
    | instance | mode | epochs | tiny | top1 |
    | --- | --- | --- | --- | --- |
    | score[seed=2] | bn | 3 | 1.200e-4 | 0.5200 |
    ");
    let json = project.json(&["metrics", "--json"], 0);
    assert_eq!(json[1]["metrics"]["top1"], 0.52);
    assert_eq!((&json[1]["fresh"], &json[1]["metrics"]["list"]), (&true.into(), &serde_json::Value::Null));
}

const RUNS: &str = r#"
[stage.score]
kind = "command"
run = """echo '{"top1": '$TOP', "seed": '$AXIS_SEED', "mode": "'$AXIS_MODE'", "epochs": 3}' > $OUT/metrics.json"""
outputs = ["metrics.json"]
matrix = { mode = ["a", "c"], seed = [1, 2, 3] }
values = { TOP = "0.${seed}5" }

[stage.other]
kind = "command"
run = """echo '{"top1": 0.3, "text": "x, y"}' > $OUT/metrics.json"""
outputs = ["metrics.json"]
"#;

#[test]
fn over_an_axis_numbers_are_means_with_deviations_and_the_largest_stands_last() {
    let project = TestProject::new(RUNS);
    project.ends(&["run"], 0);
    project
        .write("artifacts/score/mode=c,seed=2/metrics.json", r#"{"top1": 1.25, "mode": "c", "epochs": 3}"#);
    insta::assert_snapshot!(project.ends(&["metrics", "--over", "seed", "--sort", "top1"], 0).out, @r#"
    instance                   mode  text  epochs  runs    top1  top1 sd
    score[mode=a]              a                3     3  0.2500   0.1000
    other                            x, y             1  0.3000
    score[mode=c] (not fresh)  c                3     3  0.5833   0.5859
    "#);
    insta::assert_snapshot!(project.ends(&["metrics", "--over", "seed", "--over", "mode", "--csv"], 0).out, @r#"
    instance,fresh,text,epochs,runs,top1,top1 sd
    score,false,,3,6,0.41666666666666663,0.4179314138308661
    other,true,"x, y",,1,0.3,
    "#);
    let json = project.json(&["metrics", "score", "--over", "mode", "--json"], 0);
    assert_eq!(
        (json[1]["instance"].as_str(), &json[1]["metrics"]["seed"]),
        (Some("score[seed=2]"), &().into())
    );
    // What one of them has not is not the mean of the others.
    project.write("artifacts/score/mode=c,seed=2/metrics.json", r#"{"top1": NaN, "mode": "d", "epochs": 3}"#);
    let json = project.json(&["metrics", "score", "--over", "seed", "--json"], 0);
    let fields: Vec<_> = json[1]["metrics"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((fields, &json[1]["metrics"]["runs"]), (vec!["epochs", "runs"], &3.into()));
    assert_eq!((&json[1]["fresh"], &json[1]["axes"]), (&false.into(), &serde_json::json!({ "mode": "c" })));
}

#[test]
fn csv_has_a_column_for_each_axis_and_all_digits() {
    let project = TestProject::new(RUNS);
    project.ends(&["run"], 0);
    insta::assert_snapshot!(project.ends(&["metrics", "--csv", "--sort", "seed"], 0).out, @r#"
    instance,fresh,mode,seed,text,epochs,top1
    other,true,,,"x, y",,0.3
    "score[mode=a,seed=1]",true,a,1,,3,0.15
    "score[mode=c,seed=1]",true,c,1,,3,0.15
    "score[mode=a,seed=2]",true,a,2,,3,0.25
    "score[mode=c,seed=2]",true,c,2,,3,0.25
    "score[mode=a,seed=3]",true,a,3,,3,0.35
    "score[mode=c,seed=3]",true,c,3,,3,0.35
    "#);
    project.ends(&["run", "-S", "stage.score.values.TOP=0.123456789"], 0);
    insta::assert_snapshot!(project.ends(&["metrics", "--csv", "score[seed=1]"], 0).out, @r#"
    instance,fresh,mode,seed,epochs,top1
    "score[mode=a,seed=1]",false,a,1,3,0.123456789
    "score[mode=c,seed=1]",false,c,1,3,0.123456789
    "#);
    let diff = project.ends(&["params", "diff", "--csv"], 2).err;
    assert!(diff.contains("git"), "{diff}");
    let past = project.ends(&["metrics", "--past", "score[mode=c,seed=1]", "--csv", "--sort", "top1"], 0).out;
    let ends: Vec<_> = past.lines().map(|line| line.rsplit(',').next().unwrap_or_default()).collect();
    assert_eq!(ends, ["top1", "0.123456789", "0.15"], "{past}");
}

#[test]
fn a_column_or_an_axis_that_nothing_has_is_named() {
    let project = TestProject::new(RUNS);
    project.ends(&["run"], 0);
    for (words, said) in [
        (&["--over", "sed"][..], "error: no stage has an axis `sed`\nhelp: the axes are: `mode`, `seed`\n"),
        (&["--sort", "top"], "error: none of these results has a metric or an axis `top`\nhelp: name one"),
        (
            &["--past", "--sort", "top"],
            "error: none of these results has a metric or an axis `top`\nhelp: name one",
        ),
        (&["--past", "--over", "seed"], "cannot be used with"),
        (&["--sort", "top1", "diff"], "help: leave out `--over` and `--sort`\n"),
        (&["--csv", "--md"], "cannot be used with"),
    ] {
        let told = project.ends(&[&["metrics"], words].concat(), 2).err;
        assert!(told.contains(said), "{words:?}: {told}");
    }
}

#[test]
fn equal_numbers_have_no_deviation_and_names_of_one_table_stand_once() {
    let project = TestProject::new(RUNS);
    project.ends(&["run"], 0);
    for (mode, seed, text) in [
        (
            "a",
            1,
            r#"{"top": 0.1, "runs": 7, "note": "a \"b\", c\nd", "seed": "1", "mode": "a", "word": "x"}"#,
        ),
        ("a", 2, r#"{"top": 0.1, "runs": 7, "seed": "2", "word": "x"}"#),
        ("a", 3, r#"{"top": 0.1, "runs": 7, "seed": "3", "word": "x"}"#),
        ("c", 1, r#"{"top": 0.1, "large": 1e200, "fresh": 1, "word": 1}"#),
        ("c", 2, r#"{"top": 0.3, "large": -1e200, "fresh": 1, "word": 2}"#),
        ("c", 3, r#"{"top": 0.2, "large": 1e200, "fresh": 1, "word": 3}"#),
    ] {
        project.write(&format!("artifacts/score/mode={mode},seed={seed}/metrics.json"), text);
    }
    let json = project.json(&["metrics", "score", "--over", "seed", "--json"], 0);
    let [first, second] = [0, 1].map(|row| &json[row]["metrics"]);
    assert_eq!((&first["top"], &first["top sd"], &first["runs"]), (&0.1.into(), &0.0.into(), &3.into()));
    assert_eq!((&first["word"], &second["word"]), (&"x".into(), &2.0.into()));
    assert!(second.get("large").is_some() && second.get("large sd").is_none(), "{second}");
    let csv = project.ends(&["metrics", "--csv", "score[mode=a]"], 0).out;
    let heading = "instance,fresh,mode,seed,note,metrics.seed,word,runs,top\n";
    assert!(csv.starts_with(heading) && csv.contains(",\"a \"\"b\"\", c\nd\",1,x,7,0.1\n"), "{csv}");
    let csv = project.ends(&["metrics", "--csv", "score[mode=c]"], 0).out;
    assert!(csv.starts_with("instance,fresh,mode,seed,metrics.fresh,"), "{csv}");
}
