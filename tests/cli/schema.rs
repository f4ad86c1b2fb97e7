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

#[test]
fn the_committed_parameters_are_what_the_command_prints() {
    let printed = TestProject::new("").ends(&["schema", "--md"], 0).out;
    assert!(printed.contains("| `momentum` | number | `0.9` | Momentum of SGD. |"), "{printed}");
    assert!(
        printed == include_str!("../../docs/parameters.md"),
        "a stage kind's parameters changed: run `cargo run -- schema --md > docs/parameters.md` and commit it"
    );
}

#[test]
fn the_schema_takes_and_refuses_what_the_program_does() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../pipeline.schema.json")).expect("JSON");
    let matrix = &schema["$defs"]["pipeline.matrix"]["properties"];
    for key in ["exclude", "include"] {
        let forms = &matrix[key]["anyOf"];
        assert_eq!((&forms[0]["type"], &forms[1]["type"]), (&"array".into(), &"string".into()), "{forms}");
        assert_eq!(forms[0]["items"]["anyOf"][1], forms[1], "each of them may be a reference too");
    }
    let outputs = &schema["$defs"]["pipeline.stage.command"]["properties"]["outputs"]["anyOf"][0];
    assert_eq!(
        (&outputs["minItems"], &outputs["items"]["pattern"]),
        (&1.into(), &"^[^/]".into()),
        "{outputs}"
    );
    assert_eq!(schema["properties"]["profile"]["propertyNames"]["not"]["const"], "default");
}
