//! What `-S` changes.

use toml::Value;

use super::{complaints, file, names, try_load};

#[test]
fn settings_replace_values_and_lists_become_axes() {
    let first = |sets: &[&str]| try_load(&file(), Some("quick"), sets).unwrap();
    let pipeline = first(&["train.lr=2.5", "stage.train.epochs=7", "stage.train.seed=4"]);
    assert_eq!(names(&pipeline)[1], "train[arch=r8,kernel=x,seed=4]");
    assert_eq!(pipeline.instances[1].params.recipe["lr"], Value::Float(2.5));
    assert_eq!(pipeline.instances[1].params.recipe["epochs"], Value::Integer(7));
    let pipeline = first(&["stage.train.seed=3..5", "stage.train.lr=[0.1, 1.0]", "stage.train.drops=[1]"]);
    assert_eq!(pipeline.instances.len(), 6);
    assert_eq!(names(&pipeline)[4], "train[arch=r8,kernel=x,lr=1.0,seed=4]");
    assert_eq!(pipeline.instances[1].params.recipe["drops"], Value::Array(vec![Value::Integer(1)]));
    let pipeline = first(&["stage.train.arch=[r1, r2]", "stage.train.resources.threads=3"]);
    assert_eq!(names(&pipeline)[1], "train[arch=r1,kernel=x,seed=0]");
    assert_eq!(pipeline.instances[1].resources.threads, 3);
}

#[test]
fn a_text_that_begins_and_ends_with_a_reference_is_one_value() {
    let text = "params = { x = 'a', y = 'b' }\n[stage.a]\nkind = 'source'\nmatrix.mode = [0]\n";
    let pipeline = try_load(text, None, &["stage.a.mode=${x}-${y}"]).unwrap();
    assert_eq!(names(&pipeline), ["a[mode=a-b]"]);
}

#[test]
fn what_is_swept_reaches_the_stages_that_need_one_instance_of_it() {
    let text = "[stage.images]\nkind = 'source'\n\
                [stage.train]\nkind = 'train'\nneeds.data = 'images'\nmatrix.seed = [0, 1]\n\
                [stage.check]\nkind = 'validate'\nneeds.data = 'train'\nmatrix.seed = [0, 1]\n\
                [stage.again]\nkind = 'validate'\nneeds.data = 'check'\nmatrix.seed = [0, 1]\n\
                [stage.plot]\nkind = 'plot'\nneeds.from = 'again'\n";
    let loaded = |text: &str, set: &str| try_load(text, None, &[set]).unwrap();
    let pipeline = loaded(text, "stage.train.lr=[0.1, 0.2]");
    assert_eq!(pipeline.instances.len(), 1 + 3 * 4 + 1);
    assert_eq!(
        names(&pipeline)[9..12],
        ["again[lr=0.1,seed=0]", "again[lr=0.2,seed=0]", "again[lr=0.1,seed=1]"]
    );
    assert_eq!(pipeline.instances[13].needs.len(), 4);
    // Values of an axis that is there reach those that had the same ones.
    let pipeline = loaded(text, "stage.train.seed=3..6");
    assert_eq!(names(&pipeline)[7..], ["again[seed=3]", "again[seed=4]", "again[seed=5]", "plot"]);
    assert_eq!(loaded(text, "stage.train.matrix.exclude=[{seed=7}]").instances.len(), 8);
    let narrow = text.replacen("'train'\nmatrix.seed = [0, 1]", "'train'\nmatrix.seed = [0]", 1);
    let said = complaints(&narrow, None, &["stage.train.seed=3..6"]);
    assert!(said[0].contains("`check[seed=0]` needs `train`, which has no instance [seed=0]"), "{said:?}");
    // A list of one is one.
    let list = text.replace("needs.data = 'train'", "needs.data = ['train']");
    assert_eq!(loaded(&list, "stage.train.lr=[0.1, 0.2]").instances.len(), 1 + 3 * 4 + 1);
    // What a matrix includes names every axis.
    let include = text.replacen(
        "'train'\nmatrix.seed = [0, 1]",
        "'train'\nmatrix.include = [{ seed = 0 }, { seed = 1 }]",
        1,
    );
    assert_eq!(loaded(&include, "stage.train.lr=[0.1]").instances.len(), 8);
    // A parameter of theirs it does not become.
    let said = complaints(text, None, &["stage.images.mode=[bn, random]"]);
    assert!(said[0].ends_with("give `train` the axis `mode` too"), "{said:?}");
}

#[test]
fn what_is_swept_reaches_each_stage_once_in_a_cycle_and_in_layers() {
    let text = "[stage.a]\nkind = 'validate'\nneeds.data = 'b'\nmatrix.s = [1, 2]\n\
                [stage.b]\nkind = 'validate'\nneeds.data = 'a'\nmatrix.s = [1, 2]\n";
    let said = complaints(text, None, &["stage.a.matrix.s=[1, 2]"]);
    assert!(said.iter().any(|said| said.contains("the stages need each other")), "{said:?}");
    // By every way at once it would be 2^40 times.
    let mut text = "[stage.a0]\nkind = 'source'\n[stage.b0]\nkind = 'source'\n".to_owned();
    for n in 1..40 {
        for name in ["a", "b"] {
            let before = n - 1;
            text +=
                &format!("[stage.{name}{n}]\nkind = 'two'\nneeds = {{ x = 'a{before}', y = 'b{before}' }}\n");
        }
    }
    let pipeline = try_load(&text, None, &["stage.a0.arch=[r1, r2]"]).unwrap();
    assert_eq!(pipeline.instances.len(), 2 + 1 + 39 * 4);
}

#[test]
fn a_matrix_without_axes_is_none() {
    for matrix in ["", "matrix = {}\n"] {
        let text = format!("[stage.a]\nkind = 'source'\n{matrix}");
        let pipeline = try_load(&text, None, &["stage.a.arch=[r1, r2]"]).unwrap();
        assert!(pipeline.swept.contains("a"), "its results lie beside the one of the file");
    }
}

#[test]
fn one_value_for_a_list_is_a_list_of_one() {
    let text = "params.seeds = [0, 1]\n[stage.a]\nkind = 'source'\nmatrix.seed = '${seeds}'\n";
    for set in ["seeds=7", "seeds=[7]"] {
        assert_eq!(names(&try_load(text, None, &[set]).unwrap()), ["a[seed=7]"]);
    }
}

#[test]
fn a_number_that_is_too_large_is_told_by_its_size() {
    let said = complaints(&file(), None, &["base=99999999999999999999"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].ends_with("is too large; whole numbers have 64 bits and a sign"), "{said:?}");
    // And nothing is said of what would stand for it.
    let text = "[stage.a]\nkind = 'source'\ntext = -99999999999999999999\n";
    let said = complaints(text, None, &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the number -99999999999999999999 is too large"), "{said:?}");
}

#[test]
fn a_mistake_is_shown_where_the_value_is_that_makes_it_one() {
    let text = "[stage.a]\nkind = 'source'\ndrops = { seed = '${seed}.' }\nmatrix.seed = [0]\n\
                [profile.p]\nstage.a.drops.seed = 3\n";
    let told = "`seed` is both an axis of `a` and one of its `drops`";
    for (profile, sets, place) in [(Some("p"), &[][..], "3"), (None, &["stage.a.drops.seed=4"][..], "-")] {
        let said = complaints(text, profile, sets);
        assert!(said.iter().any(|said| said.starts_with(&format!("{place}: {told}"))), "{said:?}");
    }
}

#[test]
fn wrong_settings_are_named_all_at_once() {
    let sets =
        ["train.lt=1", "base", "stage.trian.lr=1.0", "stage.train.epoch=2", "base=[0.1, 0.2]", "base=3..3"];
    let said = complaints(&file(), None, &sets).join("\n");
    for wanted in [
        "`-S train.lt=1`: `[params]` has no `train.lt`; did you mean `train.lr`?",
        "`-S base`: there is no `=`",
        "there is no stage `trian`; did you mean `train`?",
        "has no parameter `epoch`; did you mean `epochs`?",
        "`base` is one value, not a list; no stage takes it as it is; sweep a stage's own parameter: `-S stage.NAME.KEY=...`",
        "the range `3..3` is empty",
        "a range is `FIRST..END`",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
}

#[test]
fn a_setting_that_a_stage_has_or_that_is_a_list_elsewhere_is_told_the_way() {
    let text = "[stage.first]\nkind = 'source'\n[stage.x]\nkind = 'train'\nneeds.data = 'first'\n";
    let says = |set: &str| complaints(text, None, &[set])[0].clone();
    assert!(says("epochs=3").ends_with("is set by its name: `stage.first.epochs`"), "{}", says("epochs=3"));
    assert!(says("x.epochs=3").ends_with("did you mean `stage.x.epochs`?"), "{}", says("x.epochs=3"));
    let list = says("stage.x.lr=0.1, 2e-1");
    assert!(list.contains("`0.1, 2e-1` is no single value; a list of values is `[0.1, 2e-1]`"), "{list}");
}
