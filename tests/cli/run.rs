//! `repro run`: what it does, what it says, how it ends.

use crate::project::TestProject;

/// Three chains of two and a join of the last ones.
pub(crate) const CHAINS: &str = r#"
[params]
word = "one"

[stage.first]
kind = "command"
run = "echo ${word} ${seed} > $OUT/number"
outputs = ["number"]
matrix = { seed = [0, 1, 2] }

[stage.second]
kind = "command"
run = "cat $IN_NUMBER/number > $OUT/copy"
outputs = ["copy"]
needs = { number = "first" }
matrix = { seed = [0, 1, 2] }

[stage.join]
kind = "command"
run = "cat $(echo \"$IN_ALL\" | sed 's,$,/copy,') > $OUT/all"
outputs = ["all"]
needs = { all = "second" }
"#;

#[test]
fn a_second_run_has_nothing_to_do() {
    let project = TestProject::new(CHAINS);
    let first = project.repro(&["run"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.starts_with("ran 7 in "), "{}", first.out);
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 1\none 2\n");
    let second = project.repro(&["run"]);
    assert_eq!(second.code, Some(0), "{}", second.err);
    assert!(second.out.starts_with("nothing to do: 7 fresh ("), "{}", second.out);
    assert_eq!(second.err, "");
}
