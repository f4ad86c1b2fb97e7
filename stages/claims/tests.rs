use std::{collections::BTreeSet, path::Path};

use engine::{instance::Resources, kind::Input};

use super::*;
use crate::testing::Listener;

const CIFAR: &str = r#"["airplane","automobile","bird","cat","deer","dog","frog","horse","ship","truck"]"#;

/// An evaluation after `steps` steps.
fn run(root: &Path, arch: &str, variant: &str, mode: &str, top1: f64, steps: u64) -> Input {
    let dir = root.join(format!("{arch}-{variant}-{mode}-{top1}"));
    std::fs::create_dir(&dir).unwrap();
    let text = format!(
        r#"{{"arch":"{arch}","variant":"{variant}","mode":"{mode}","k":2,"top1":{top1},"steps":{steps},"examples":10000,
            "classes":{CIFAR},"trained":2272,"parameters":467194,"checkpoint_bytes":20000,"weights_bytes":1900000}}"#
    );
    std::fs::write(dir.join("metrics.json"), text).unwrap();
    let gammas = r#"{"all":{"below_001":0.25,"below_005":0.3,"below_01":0.35},"histogram":{"from":0,"to":1,"counts":[1]},
        "zeroing":[{"threshold":0.01,"change":-0.0004},{"threshold":0.05,"change":-0.02}]}"#;
    std::fs::write(dir.join("gamma.json"), gammas).unwrap();
    std::fs::write(dir.join("history.csv"), "epoch,train_accuracy\n1,0.1\n2,0.575\n").unwrap();
    let seed = (1000.0 * top1) as i64;
    let axes = [("arch", arch.into()), ("mode", mode.into()), ("seed", seed.into())];
    let axes = axes.into_iter().map(|(k, v): (&str, toml::Value)| (k.to_owned(), v)).collect();
    Input { instance: format!("evaluate[{arch},{mode}]"), axes, dir }
}

/// Verdicts by claim, and the table.
fn judge(inputs: Vec<Input>) -> (impl Fn(&str) -> String, String) {
    let out = tempfile::tempdir().unwrap();
    Claims
        .run(&mut Job {
            instance: "claims",
            axes: &std::collections::BTreeMap::new(),
            params: &Params::default(),
            inputs: &[("metrics".to_owned(), inputs)].into(),
            out: out.path(),
            scratch: out.path(),
            project: out.path(),
            resources: Resources::default(),
            offline: true,
            reporter: &mut Listener::default(),
        })
        .unwrap();
    let text = std::fs::read(out.path().join(FILE)).unwrap();
    let claims: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let verdict = move |id: &str| {
        let claim = claims.iter().find(|claim| claim["id"] == id).unwrap();
        claim["verdict"].as_str().unwrap().to_owned()
    };
    (verdict, std::fs::read_to_string(out.path().join(TABLE)).unwrap())
}

#[test]
fn claims_have_names_of_their_own_and_rules_for_their_networks() {
    let File { command, claim: claims } = file().unwrap();
    for Command { id, .. } in &command {
        assert!(claims.iter().any(|claim| claim.settled_by == *id), "nothing needs `{id}`");
    }
    let ids: BTreeSet<_> = claims.iter().map(|claim| &claim.id).collect();
    assert_eq!(ids.len(), claims.len());
    for claim in &claims {
        assert!(command.iter().any(|command| command.id == claim.settled_by), "{claim:?}");
        assert!(
            ["paper", "origin"].contains(&&*claim.variant) && claim.statement.ends_with('.'),
            "{claim:?}"
        );
        let named = claim.rule.quantities().iter().all(|of| of.network.is_some());
        assert_eq!(named, claim.networks.is_empty(), "{}", claim.id);
        assert!(
            claim.least.unwrap_or(1) >= 1 && claim.least.unwrap_or(0) <= claim.networks.len(),
            "{}",
            claim.id
        );
        if let Rule::Equal { values, .. } = &claim.rule {
            assert_eq!(values.len(), claim.networks.len(), "{}", claim.id);
        }
    }
}

#[test]
fn without_results_nothing_is_claimed() {
    let (_, table) = judge(Vec::new());
    assert!(
        table.contains("claims: 0 hold as far as they were run, 0 do not,") && !table.contains("**"),
        "{table}"
    );
    assert!(table.contains("\n| 1 | `repro run -f experiments/depth.toml -S 'seeds=[0]'"), "{table}");
}

#[test]
fn a_rule_decides_and_the_numbers_stand_beside() {
    let root = tempfile::tempdir().unwrap();
    let paper = |arch, mode, top1| run(root.path(), arch, "paper", mode, top1, 62_560);
    let (verdict, table) = judge(vec![
        paper("resnet32", "bn", 0.57),
        paper("resnet32", "bn", 0.59),
        paper("resnet32", "random", 0.41),
        paper("resnet32", "none", 0.15),
        paper("resnet14", "bn", 0.48),
        paper("resnet56", "bn", 0.56),
    ]);
    assert_eq!(verdict("bn-beats-random"), "holds");
    assert_eq!(verdict("bn-resnet32"), "holds");
    assert_eq!(verdict("bn-rises-with-depth"), "does-not-hold");
    assert_eq!(verdict("none-guesses"), "does-not-hold");
    assert_eq!(verdict("gamma-quarter-at-zero"), "holds");
    assert_eq!(verdict("zeroing-costs-nothing"), "holds");
    assert_eq!(verdict("zeroing-005"), "does-not-hold");
    assert_eq!(verdict("bn-reaches-82"), "not-run");
    assert_eq!(verdict("origin-bn-beats-random"), "not-run");
    let numbers = "ResNet-32: BatchNorm only 58.0 ± 1.4 % (n = 2); as many random weights 41.0 % (n = 1)";
    assert!(table.contains(numbers), "{table}");
    let settle = table.split("What would settle").nth(1).unwrap();
    assert!(
        !settle.contains("| 2, ") && settle.contains("archs=[\"resnet866\"]"),
        "only what is open: {table}"
    );
}

#[test]
fn one_network_can_break_a_rule_and_too_few_cannot_keep_it() {
    let root = tempfile::tempdir().unwrap();
    let whole = |top1| judge(vec![run(root.path(), "resnet14", "paper", "all", top1, 62_560)]).0("all-flat");
    assert_eq!([0.905, 0.867].map(whole), ["not-run", "does-not-hold"]);
}

#[test]
fn a_part_of_the_protocol_settles_nothing_but_counts() {
    let root = tempfile::tempdir().unwrap();
    let short = |mode, top1| run(root.path(), "resnet32", "origin", mode, top1, 4710);
    let (verdict, _) = judge(vec![short("bn", 0.5), short("random", 0.3), short("all", 0.9)]);
    assert_eq!(verdict("origin-bn-beats-random"), "not-run");
    assert_eq!(verdict("origin-bn-count"), "holds");
    assert_eq!(verdict("origin-half-percent"), "holds");
    assert_eq!(verdict("origin-storage"), "holds");
}

#[test]
fn runs_that_differ_from_the_protocol_do_not_count() {
    let root = tempfile::tempdir().unwrap();
    let mut inputs = vec![
        run(root.path(), "resnet32", "paper", "bn", 0.57, 62_560),
        run(root.path(), "resnet32", "paper", "bn", 0.50, 62_560),
    ];
    for (input, decay) in inputs.iter_mut().zip([0.0, 1e-4]) {
        input.axes.insert("weight_decay".into(), decay.into());
    }
    assert_eq!(judge(inputs.clone()).0("bn-resnet32"), "not-run");
    // Also where only one of two stages has the axis.
    inputs[1].axes.remove("weight_decay");
    let (verdict, table) = judge(inputs);
    assert_eq!(verdict("bn-resnet32"), "does-not-hold");
    assert!(table.contains("ResNet-32: BatchNorm only 50.0 % (n = 1)"), "{table}");
}
