//! Commands that only read the pipeline file.

use crate::project::TestProject;

const CHAIN: &str = r#"
[stage.first]
kind = "command"
run = "echo 1 > $OUT/number"
outputs = ["number"]

[stage.second]
kind = "command"
run = "cat $IN_NUMBER/number > $OUT/copy"
outputs = ["copy"]
needs = { number = "first" }
"#;

#[test]
fn the_graph_shows_every_instance_and_edge_in_every_format() {
    let project = TestProject::new(CHAIN);
    for (args, edge) in [
        (&["dag"][..], "number <- first"),
        (&["dag", "--mermaid"], "n0 -->|number| n1"),
        (&["dag", "--dot"], "\"first\" -> \"second\" [label=\"number\"]"),
    ] {
        let answer = project.repro(args);
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        assert!(answer.out.contains(edge), "{}", answer.out);
    }
    let json = project.repro(&["dag", "--json"]).out;
    let graph: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(graph[1]["needs"][0]["from"], "first");
}

#[test]
fn the_schema_is_json_and_knows_stages() {
    let answer = TestProject::new("").repro(&["schema"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let schema: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
    assert!(schema["properties"]["stage"].is_object(), "{schema}");
}

#[test]
fn completions_hide_the_runners_own_command() {
    let answer = TestProject::new("").repro(&["completions", "bash"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.out.contains("completions") && !answer.out.contains("__stage"), "{}", answer.out);
}
