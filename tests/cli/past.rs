//! `repro metrics --past`: every result that the cache has, and what it was made with.

use crate::project::TestProject;

const FITS: &str = r#"
[params]
rate = 0.5

[stage.fit]
kind = "command"
run = "cat offset.txt > $OUT/offset; echo $RATE > $OUT/rate"
outputs = ["offset", "rate"]
deps = ["offset.txt"]
values = { RATE = "${rate}" }

[stage.score]
kind = "command"
run = """
for fit in $IN_FIT; do rate=$(cat $fit/rate); done
echo '{"top1": '$rate', "steps": 3, "mode": "bn"}' > $OUT/metrics.json"""
outputs = ["metrics.json"]
needs = { fit = "fit" }
"#;

/// The lines below the heading, each as its words without when it was made, sorted: what is made within a second is in
/// no order.
fn told(project: &TestProject, words: &[&str]) -> Vec<String> {
    let out = project.ends(&[&["metrics", "--past"], words].concat(), 0).out;
    let words = |line: &str| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> = out.lines().skip(1).map(words).collect();
    lines.sort();
    lines
}

#[test]
fn what_changes_together_is_told_of_both() {
    let project = TestProject::new(
        "[params]\ndepth = 2\nwidth = 2\n[stage.t]\nkind = 'command'\noutputs = ['metrics.json']\n\
         run = 'echo \"{\\\"acc\\\": 0.$DEPTH$WIDTH, \\\"trained\\\": $WIDTH}\" > $OUT/metrics.json'\n\
         values = { DEPTH = '${depth}', WIDTH = '${width}' }\n",
    );
    project.ends(&["run"], 0);
    project.ends(&["run", "-S", "depth=4", "-S", "width=4"], 0);
    let out = project.ends(&["metrics", "--past"], 0).out;
    let heading: Vec<_> = out.lines().next().unwrap_or_default().split_whitespace().skip(4).collect();
    assert_eq!(heading, ["instance", "t.values.DEPTH", "t.values.WIDTH", "trained", "acc"], "{out}");
}

#[test]
fn results_of_earlier_settings_stand_beside_those_of_today() {
    let project = TestProject::new(FITS);
    project.write("offset.txt", "1");
    let none = project.ends(&["metrics", "--past"], 0);
    assert_eq!(
        (none.out.as_str(), none.err.as_str()),
        ("", "no such result in the cache has a `metrics.json`\n")
    );
    project.ends(&["run"], 0);
    let heading = |project: &TestProject| {
        let out = project.ends(&["metrics", "--past"], 0).out;
        out.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // Of one alone nothing is left out, and nothing tells it apart.
    assert_eq!(heading(&project), "made (UTC) shown commit instance mode steps top1");
    for rate in ["0.25", "0.75"] {
        project.ends(&["run", "-S", &format!("rate={rate}")], 0);
    }
    assert_eq!(heading(&project), "made (UTC) shown commit instance fit.values.RATE top1");
    let all = ["score 0.25 0.2500", "score 0.5 0.5000", "yes score 0.75 0.7500"];
    assert_eq!(told(&project, &[]), all);
    let rows = project.json(&["metrics", "--past", "--json"], 0);
    let shown =
        rows.as_array().expect("a list").iter().find(|row| row["shown"] == true).expect("one is shown");
    assert_eq!((&shown["with"]["fit.values.RATE"], &shown["metrics"]["top1"]), (&0.75.into(), &0.75.into()));
    // What lies there now counts, whoever put it there.
    let quarter = r#"{"top1": 0.25, "steps": 3, "mode": "bn"}"#;
    project.write("artifacts/score/metrics.json", &format!("{quarter}\n"));
    assert_eq!(told(&project, &[]), ["score 0.5 0.5000", "score 0.75 0.7500", "yes score 0.25 0.2500"]);
    // A file is told by its content, an axis by the parameter that it is. Stages need not be in the file any more.
    project.write("offset.txt", "2");
    project.ends(&["run", "-S", "stage.fit.values.RATE=[0.5, 1.0]"], 0);
    assert_eq!(heading(&project), "made (UTC) shown commit instance file offset.txt fit.values.RATE top1");
    project.write("pipeline.toml", "not TOML");
    let now = told(&project, &["score"]);
    assert!(now.len() == 5 && now[4].ends_with(" 1.0 1.0000"), "{now:?}");
    let refused = project.ends(&["metrics", "--past", "scores"], 2).err;
    assert_eq!(refused, "error: no result in the cache is of `scores`\nhelp: did you mean `score`?\n");
    let refused = project.ends(&["metrics", "--past", "diff"], 2).err;
    assert!(refused.contains("`--past` shows everything"), "{refused}");
}
