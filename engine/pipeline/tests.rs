//! One toy kind, small files.

mod places;
mod profiles;
mod settings;

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{LoadError, LoadOptions, load, select};
use crate::{
    instance::Pipeline,
    kind::{Job, Kind, Kinds, ParamError, Params, RoleSpec, Roles, StageError},
};

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ToyParams {
    lr: f64,
    epochs: u32,
    seed: u64,
    arch: String,
    mode: String,
    drops: Vec<u32>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoParams {}

impl Default for ToyParams {
    fn default() -> Self {
        Self { lr: 0.1, epochs: 160, seed: 0, arch: "a".into(), mode: "bn".into(), drops: vec![80, 120] }
    }
}

struct Toy {
    name: &'static str,
    roles: &'static [RoleSpec],
}

impl Kind for Toy {
    fn name(&self) -> &'static str {
        self.name
    }
    fn version(&self) -> u32 {
        1
    }
    fn roles(&self) -> Roles {
        Roles::Named(self.roles)
    }
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        if ["validate", "two"].contains(&self.name) {
            generator.subschema_for::<NoParams>()
        } else {
            generator.subschema_for::<ToyParams>()
        }
    }
    fn resolve(&self, given: &Table) -> Result<Params, Vec<ParamError>> {
        for (key, value) in given {
            let fine = match key.as_str() {
                "lr" => value.is_float(),
                "epochs" | "seed" => value.is_integer(),
                "drops" => value.is_array(),
                _ => value.is_str(),
            };
            if !fine {
                let message = format!("does not fit: {value}");
                return Err(vec![ParamError { key: key.clone(), message, hint: None }]);
            }
        }
        Ok(Params { recipe: given.clone(), settings: Table::new() })
    }
    fn run(&self, _job: &mut Job<'_>) -> Result<(), StageError> {
        Ok(())
    }
}

fn kinds() -> Kinds {
    const ONE: &[RoleSpec] = &[RoleSpec { name: "data", required: true, many: false }];
    const MANY: &[RoleSpec] = &[RoleSpec { name: "from", required: true, many: true }];
    const TWO: &[RoleSpec] = &[
        RoleSpec { name: "x", required: true, many: false },
        RoleSpec { name: "y", required: true, many: false },
    ];
    Kinds::default()
        .with(Toy { name: "source", roles: &[] })
        .with(Toy { name: "two", roles: TWO })
        .with(Toy { name: "train", roles: ONE })
        .with(Toy { name: "validate", roles: ONE })
        .with(Toy { name: "plot", roles: MANY })
}

fn try_load(text: &str, profile: Option<&str>, sets: &[&str]) -> Result<Pipeline, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.toml");
    fs::write(&file, text).unwrap();
    let sets = sets.iter().map(|s| (*s).to_owned()).collect();
    load(&LoadOptions { file, profile: profile.map(Into::into), sets }, &kinds())
}

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.instances.iter().map(|i| i.name.as_str()).collect()
}

/// `text under the span: message; hint` of every diagnostic.
fn complaints(text: &str, profile: Option<&str>, sets: &[&str]) -> Vec<String> {
    let error = try_load(text, profile, sets).err().expect("it has mistakes");
    let said = |d: &super::Diagnostic| {
        let place = d.span.clone().map_or("-", |span| &text[span]);
        format!("{place}: {}; {}", d.message, d.hint.as_deref().unwrap_or("-"))
    };
    error.diagnostics.iter().map(said).collect()
}

const FILE: &str = r#"
[params]
base = 0.5
train.lr = "${base}"
note = "lr ${train.lr}"

[stage.plot]
kind = "plot"
needs = { from = "train" }

[stage.train]
kind = "train"
needs = { data = "images" }
lr = "${train.lr}"
mode = "${mode} at ${arch}"
matrix = { kernel = ["x"], arch = ["r20", "r14"], seed = [0, 1], exclude = [{ arch = "r20", seed = 1 }] }

[stage.images]
kind = "source"

[profile.quick]
params.base = 0.25
[profile.quick.stage.train]
epochs = 2
matrix.arch = ["r8"]
"#;

fn file() -> String {
    FILE.replace("\"${mode} at ${arch}\"", "\"${kernel} at ${arch}\"")
}

#[test]
fn instances_come_after_their_needs_and_in_order_of_file_and_matrix() {
    let pipeline = try_load(&file(), None, &[]).unwrap();
    let expected = [
        "images",
        "train[arch=r20,kernel=x,seed=0]",
        "train[arch=r14,kernel=x,seed=0]",
        "train[arch=r14,kernel=x,seed=1]",
        "plot",
    ];
    assert_eq!(names(&pipeline), expected);
    let from: Vec<usize> = pipeline.instances[4].needs.iter().map(|need| need.from).collect();
    assert_eq!(from, [2, 3, 1], "needs are sorted by name");
    let recipe = &pipeline.instances[1].params.recipe;
    assert_eq!(recipe["lr"], Value::Float(0.5), "a single reference keeps its type");
    assert_eq!(recipe["mode"], Value::String("x at r20".into()));
    assert_eq!(recipe["seed"], Value::Integer(0), "a known axis sets the parameter");
    assert!(!recipe.contains_key("kernel"), "an unknown axis does not");
}

#[test]
fn stages_with_the_same_axes_join_on_them() {
    let text = "[stage.a]\nkind = 'source'\nmatrix = { seed = [0, 1], arch = ['x', 'y'] }\n\
                [stage.b]\nkind = 'train'\nneeds.data = 'a'\nmatrix = { arch = ['y', 'x'], seed = [1] }\n";
    let pipeline = try_load(text, None, &[]).unwrap();
    let joined: Vec<_> = pipeline.instances.iter().filter(|i| i.stage == "b").collect();
    assert_eq!(joined.len(), 2);
    for instance in joined {
        assert_eq!(instance.needs.len(), 1);
        let need = &pipeline.instances[instance.needs[0].from];
        assert_eq!(need.axes, instance.axes);
    }
    let text = text.replace("seed = [1]", "seed = [1, 2]");
    let said = complaints(&text, None, &[]);
    assert!(
        said[0].contains("`b[arch=y,seed=2]` needs `a`, which has no instance [arch=y,seed=2]"),
        "{said:?}"
    );
    let text =
        "[stage.a]\nkind = 'source'\nmatrix.seed = [0, 1]\n[stage.b]\nkind = 'train'\nneeds.data = 'a'\n";
    let said = complaints(text, None, &[]);
    assert!(said[0].starts_with("'a': the role `data` of stage `b` takes one instance"), "{said:?}");
    assert!(said[0].ends_with("give `b` the axis `seed` too"), "{said:?}");
    // One of a single value tells nothing apart.
    let text =
        text.replace("matrix.seed = [0, 1]", "matrix = { seed = [0, 1], arch = ['x', 'y'], lr = [0.1] }");
    let said = complaints(&text, None, &[]);
    assert!(said[0].ends_with("give `b` the axes `arch`, `seed` too"), "{said:?}");
}

#[test]
fn every_mistake_of_a_file_is_said_at_its_place() {
    let text = r#"
stages = 1
[params]
a = "${b}"
b = "${a}"
[stage.x]
kind = "trian"
[stage.y]
kind = "train"
needs = { dat = "z" }
epochz = 3
stage.v = { kind = "source" }
lr = "${bass}"
[stage.z]
kind = "source"
seed = true
resources = { thread = 2, gpus = -1 }
[stage.w]
kind = "plot"
needs = { from = ["zz", "z", "z"] }
[profile.fast.stage.yy]
lr = 0.1
"#;
    let said = complaints(text, Some("fest"), &[]).join("\n");
    for wanted in [
        "-: there is no profile `fest`; did you mean `fast`?",
        "stages: unknown key `stages`; did you mean `stage`?",
        "\"${a}\": parameters refer to each other: a -> b -> a",
        "\"trian\": there is no kind `trian`; did you mean `train`?",
        "dat: the kind `train` has no role `dat`; did you mean `data`?",
        "does not say where its `data` comes from",
        "stage: the kind `train` of stage `y` has no parameter `stage`; what follows `[stage.y]` belongs to it",
        "epochz: the kind `train` of stage `y` has no parameter `epochz`; did you mean `epochs`?",
        "\"${bass}\": `${bass}` is neither an axis nor in `[params]`",
        "true: `seed` of stage `z`: does not fit: true",
        "thread: `resources` has no `thread`; did you mean `threads`?",
        "-1: `gpus` must be a whole number that is not negative, not -1",
        "\"zz\": there is no stage `zz`; did you mean `z`?",
        "\"z\": `from` names the stage `z` twice",
        "yy: profile `fast` changes a stage `yy` that does not exist",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
}

#[test]
fn a_need_that_is_misspelt_is_one_mistake() {
    let text = |need: &str| {
        format!(
            "[stage.model]\nkind = 'source'\nmatrix.seed = [0, 1]\n\
             [stage.m]\nkind = 'validate'\nneeds = {{ {need} }}\nmatrix.seed = [0, 1]\n"
        )
    };
    assert!(try_load(&text("data = 'model'"), None, &[]).is_ok());
    let said = complaints(&text("data = 'modle'"), None, &[]);
    assert_eq!(said, ["'modle': there is no stage `modle`; did you mean `model`?"]);
    let said = complaints(&text("dat = 'model'"), None, &[]);
    assert!(!said.iter().any(|said| said.contains("does nothing")), "{said:?}");
}

#[test]
fn the_ends_of_lines_are_no_part_of_a_text() {
    let text = "[stage.a]\nkind = 'source'\nmode = \"\"\"\none\ntwo\"\"\"\narch = \"a\\r\\nb\"\n";
    let recipe = |text: &str| try_load(text, None, &[]).unwrap().instances[0].params.recipe.clone();
    let plain = recipe(text);
    assert_eq!(plain["mode"], Value::String("one\ntwo".into()));
    assert_eq!(plain["arch"], Value::String("a\r\nb".into()), "what is spelt out stays");
    assert_eq!(recipe(&text.replace('\n', "\r\n")), plain);
}

#[test]
fn cycles_are_printed_from_their_first_stage() {
    let stage = |name: &str, need: &str| format!("[stage.{name}]\nkind = 'plot'\nneeds.from = '{need}'\n");
    let text =
        stage("late", "b") + &stage("a", "c") + &stage("b", "a") + &stage("c", "b") + &stage("me", "me");
    let said = complaints(&text, None, &[]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("'c': the stages need each other: a -> c -> b -> a;"), "{said:?}");
    assert!(said[1].starts_with("'me': the stages need each other: me -> me;"), "{said:?}");
}

#[test]
fn syntax_errors_and_duplicate_keys_have_their_place() {
    let text = "[stage.a]\nkind = 'source'\nkind = 'plot'\nx = = 2\n";
    let found = try_load(text, None, &[]).err().unwrap().diagnostics;
    let places: Vec<_> = found.iter().flat_map(|found| &found.span).map(|span| span.start).collect();
    assert!(places.len() >= 2 && places.contains(&text.rfind("kind").unwrap()), "{found:?}");
}

#[test]
fn the_same_mistake_in_thousands_of_stages_is_told_a_few_times() {
    let stage = |n: usize| format!("[stage.step-{n}]\nkind = 'validate'\nneeds.data = 'setp-{n}'\n");
    let said = complaints(&(0..3000).map(stage).collect::<String>(), None, &[]);
    assert!((20..1000).contains(&said.len()), "{}", said.len());
    assert!(said[0].ends_with("there is no stage `setp-0`; did you mean `step-1`?"), "{}", said[0]);
}

#[test]
fn what_is_wrong_with_a_setting_names_its_stage() {
    let text = "[stage.a]\nkind = 'source'\n[stage.b]\nkind = 'validate'\nneeds.data = 'a'\n";
    for (set, told) in [
        ("stage.a.resources.gpus=x", "the stage `a`: `gpus` must be"),
        ("stage.b.needs.data='nope'", "the stage `b`: there is no stage `nope`"),
        ("stage.a.matrix.exclude=[1]", "the stage `a`: each `exclude` must be a table"),
        ("stage.a.kind=true", "the stage `a`: `kind` must be a string"),
    ] {
        let said = complaints(text, None, &[set]);
        assert!(said.iter().any(|said| said.contains(told)), "{set}: {said:?}");
    }
}

#[test]
fn instances_that_would_read_millions_of_inputs_are_refused() {
    let range = |n: usize| format!("[{}]", (0..n).map(|i| format!("{i},")).collect::<String>());
    let text = format!(
        "[stage.a]\nkind = 'source'\nmatrix.epochs = {}\n[stage.b]\nkind = 'plot'\nneeds.from = 'a'\nmatrix.seed = {}\n",
        range(2000),
        range(1001)
    );
    let said = complaints(&text, None, &[]);
    assert!(said.iter().any(|text| text.contains("each of `b` reads 2000 of `a`")), "{said:?}");
}

#[test]
fn include_adds_whole_combinations_only() {
    let text = |rule: &str| {
        format!("[stage.a]\nkind = 'source'\nmatrix = {{ seed = [0], arch = ['x'], include = [{rule}] }}\n")
    };
    let pipeline = try_load(&text("{ seed = 7, arch = 'z' }"), None, &[]).unwrap();
    assert_eq!(names(&pipeline), ["a[arch=x,seed=0]", "a[arch=z,seed=7]"]);
    assert!(complaints(&text("{ seed = 7 }"), None, &[])[0].contains("leaves out the axis `arch`"));
    assert!(complaints(&text("{ seed = 0, arch = 'x' }"), None, &[])[0].contains("is in the matrix twice"));
    assert!(complaints(&text("{ sed = 0 }"), None, &[])[0].contains("no axis `sed`; did you mean `seed`?"));
}

#[test]
fn values_of_an_axis_are_different_and_can_be_told_in_a_name() {
    let said = |values: &str| {
        complaints(&format!("[stage.a]\nkind = 'source'\nmatrix.mode = [{values}]\n"), None, &[])
    };
    assert!(said("'x', 'y', 'x'")[0].contains("the axis `mode` has the value `x` twice"));
    for bad in
        ["''", "'a,b'", "'[a'", "'a]'", "'a=b'", "'a/b'", "'a\\b'", "\"a\\nb\"", "[1]", "nan", "1979-05-27"]
    {
        assert!(said(bad)[0].contains("cannot be a value of the axis `mode`"), "{bad}");
    }
    let text = "[stage.a]\nkind = 'source'\nmatrix.mode = ['a b', 'ä', '~']\n";
    assert_eq!(try_load(text, None, &[]).unwrap().instances.len(), 3);
}

#[test]
fn select_takes_full_stage_and_partial_names() {
    let pipeline = try_load(&file(), None, &[]).unwrap();
    assert_eq!(select(&pipeline, "train[arch=r14,kernel=x,seed=1]"), Ok(vec![3]));
    assert_eq!(select(&pipeline, "train"), Ok(vec![1, 2, 3]));
    assert_eq!(select(&pipeline, "train[seed=0]"), Ok(vec![1, 2]));
    assert_eq!(select(&pipeline, "train[seed=0, arch=r14]"), Ok(vec![2]));
    assert!(select(&pipeline, "trian").unwrap_err().ends_with("did you mean `train`?"));
    assert!(select(&pipeline, "train[sed=0]").unwrap_err().ends_with("did you mean `seed`?"));
    assert!(select(&pipeline, "train[arch=r15]").unwrap_err().contains("did you mean `r14`?"));
    assert!(select(&pipeline, "train[arch=r20,seed=1]").unwrap_err().contains("leaves them out"));
}

#[test]
fn a_parameter_may_have_a_dot_in_its_name() {
    let text = "[params]\n'g.h' = 0.5\nt = { 'a.b' = { c = 0.2 } }\nagain = '${t.a.b.c}'\n[stage.a]\nkind = 'source'\n\
                matrix = { lr = ['${g.h}', '${t.a.b.c}'] }\n[stage.b]\nkind = 'source'\nmatrix.lr = ['${again}']\n";
    assert_eq!(names(&try_load(text, None, &[]).unwrap()), ["a[lr=0.5]", "a[lr=0.2]", "b[lr=0.2]"]);
}

#[test]
fn a_dollar_escapes_a_reference() {
    let text = "[stage.a]\nkind = 'source'\nmode = 'echo $${HOME} $HOME'\n";
    let pipeline = try_load(text, None, &[]).unwrap();
    assert_eq!(pipeline.instances[0].params.recipe["mode"], Value::String("echo ${HOME} $HOME".into()));
}

#[test]
fn ten_thousand_instances_are_expanded_in_a_moment() {
    let mut text = String::from("[stage.all]\nkind = 'plot'\nneeds.from = ['b']\n");
    text += "[stage.a]\nkind = 'source'\nmatrix.seed = '${seeds}'\n";
    text += "[stage.b]\nkind = 'train'\nneeds.data = 'a'\nmode = 'm${seed}'\nmatrix.seed = '${seeds}'\n";
    text += &format!("[params]\nseeds = {:?}\n", (0..5000).collect::<Vec<_>>());
    let start = std::time::Instant::now();
    let pipeline = try_load(&text, None, &[]).unwrap();
    let took = start.elapsed();
    assert_eq!(pipeline.instances.len(), 10_001);
    // Far above what it takes (tens of milliseconds), also on a busy machine: only a quadratic step should fail here.
    assert!(took.as_secs() < 5, "it took {took:?}");
}

#[test]
fn ten_thousand_stages_in_one_chain_are_no_deeper_than_one() {
    let mut text = String::from("[stage.s0]\nkind = 'source'\n");
    for i in 1..10_000 {
        text += &format!("[stage.s{i}]\nkind = 'train'\nneeds.data = 's{}'\n", i - 1);
    }
    let start = std::time::Instant::now();
    let pipeline = try_load(&text, None, &["stage.s1.seed=3"]).unwrap();
    let took = start.elapsed();
    assert_eq!(pipeline.instances.len(), 10_000);
    assert_eq!(names(&pipeline)[9_999], "s9999");
    assert!(took.as_secs() < 5, "it took {took:?}");
}

#[test]
fn a_name_as_it_is_written_comes_before_the_number_that_it_spells() {
    let text = "[stage.a]\nkind = 'source'\nmatrix = { lr = [0.5], arch = ['2.1', '2.10'], seed = [0] }\n";
    let pipeline = try_load(text, None, &[]).unwrap();
    assert_eq!(select(&pipeline, "a[arch=2.10]"), Ok(vec![1]));
    assert_eq!(select(&pipeline, "a[arch=2.1]"), Ok(vec![0]));
    assert_eq!(select(&pipeline, "a[lr=0.50]"), Ok(vec![0, 1]));
}

#[test]
fn a_missing_file_says_what_to_do() {
    let options = LoadOptions { file: "no/such.toml".into(), profile: None, sets: vec![] };
    let error = load(&options, &kinds()).err().unwrap();
    assert!(error.diagnostics[0].message.contains("cannot read the pipeline file"), "{error:?}");
    assert!(error.diagnostics[0].hint.as_deref().unwrap().contains("-f FILE"));
}

#[test]
fn a_mistake_in_a_stage_with_a_matrix_is_one_mistake() {
    let text = "[stage.a]\nkind = 'source'\nlr = '${bass}'\nmatrix.seed = [0, 1, 2]\n";
    let said = complaints(text, None, &[]);
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn an_excluded_number_may_be_spelt_otherwise() {
    let text = "[stage.a]\nkind = 'source'\nmatrix = { lr = [1.0, 2.0], seed = [1, 2], exclude = [{ lr = 1, seed = 2.0 }] }";
    let pipeline = try_load(text, None, &[]).unwrap();
    assert_eq!(names(&pipeline), ["a[lr=1.0,seed=1]", "a[lr=2.0,seed=1]", "a[lr=2.0,seed=2]"]);
}

#[test]
fn parameters_that_go_too_deep_or_grow_too_long_are_refused() {
    let chain = |length: usize, next: &dyn Fn(usize) -> String| -> String {
        let lines = (0..length).map(|i| format!("p{i} = '{}'\n", next(i + 1)));
        format!(
            "[params]\n{}p{length} = '0123456789'\n[stage.a]\nkind = 'source'\n",
            lines.collect::<String>()
        )
    };
    assert!(try_load(&chain(50, &|i| format!("${{p{i}}}")), None, &[]).is_ok());
    let deep = complaints(&chain(20_000, &|i| format!("${{p{i}}}")), None, &[]);
    assert!(deep.iter().any(|text| text.contains("more than 100 parameters")), "{deep:?}");
    let long = complaints(&chain(12, &|i| format!("${{p{i}}}").repeat(10)), None, &[]);
    assert!(long.iter().any(|text| text.contains("exceeds 1048576 bytes")), "{long:?}");
    let lists = (0..9).map(|i| format!("p{i} = [{}]\n", format!("'${{p{}}}', ", i + 1).repeat(10)));
    let lists = format!("[params]\n{}p9 = 1\n[stage.a]\nkind = 'source'\n", lists.collect::<String>());
    let wide = complaints(&lists, None, &[]);
    assert!(wide.iter().any(|text| text.contains("this list has more than 100000 values")), "{wide:?}");
    // Each line doubles the one before it, whatever the first one holds.
    for (first, what) in [("{ a = 1 }", "table"), ("{}", "table"), ("[]", "list")] {
        let twice = |i: usize| match what {
            "table" => format!("p{i} = {{ a = '${{p{0}}}', b = '${{p{0}}}' }}\n", i - 1),
            _ => format!("p{i} = ['${{p{0}}}', '${{p{0}}}']\n", i - 1),
        };
        let lines = (1..40).map(twice).collect::<String>();
        let doubled =
            complaints(&format!("[params]\np0 = {first}\n{lines}[stage.a]\nkind = 'source'\n"), None, &[]);
        let told = format!("this {what} has more than 100000 values");
        assert!(doubled.iter().any(|text| text.contains(&told)), "{first}: {doubled:?}");
    }
    let long = format!("[params]\na = '{}'\n", "a".repeat(1 << 20));
    let copies = (0..70).map(|i| format!("b{i} = '${{a}}'\n")).collect::<String>();
    let copied = complaints(&format!("{long}{copies}[stage.a]\nkind = 'source'\n"), None, &[]);
    let listed = format!("b = [{}]\n", "'${a}', ".repeat(2000));
    let listed = complaints(&format!("{long}{listed}[stage.a]\nkind = 'source'\n"), None, &[]);
    for said in [copied, listed] {
        assert_eq!(said.iter().filter(|text| text.contains("take more than 64 MiB")).count(), 1, "{said:?}");
    }
    let nested = format!("x={}a{}", "[".repeat(20_000), "]".repeat(20_000));
    let nested = complaints("[params]\nx = 1\n[stage.a]\nkind = 'source'\n", None, &[&nested]);
    assert!(nested[0].contains("nests more than 100 lists"), "{nested:?}");
    let name = "n".repeat(101);
    let named = complaints(&format!("[stage.{name}]\nkind = 'source'\n"), None, &[]);
    assert!(named[0].contains("at most 100"), "{named:?}");
}
