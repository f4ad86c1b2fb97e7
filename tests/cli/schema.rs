//! The committed schema of pipeline files.

use crate::project::TestProject;

#[test]
fn the_committed_schema_is_what_the_command_prints() {
    let printed = TestProject::new("").ends(&["schema"], 0).out;
    let schema: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert!(schema["properties"]["stage"].is_object(), "{schema}");
    let committed = include_str!("../../pipeline.schema.json");
    assert!(
        printed == committed,
        "a stage kind's parameters changed: run `cargo run -- schema > pipeline.schema.json` and commit it"
    );
}
