use engine::{
    pipeline::{LoadOptions, load},
    store::Output,
};

use super::*;

fn pipeline(text: &str) -> (tempfile::TempDir, Pipeline) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file, profile: None, sets: Vec::new() };
    let pipeline = load(&options, &stages::kinds()).unwrap();
    (folder, pipeline)
}

const TWO: &str = "[stage.a]\nkind = \"command\"\nrun = \"true\"\nmatrix = { n = [1, 2] }\noutputs = [\"x\"]\n\
                   [stage.b]\nkind = \"command\"\nrun = \"true\"\nneeds = { all = \"a\" }\noutputs = [\"y\"]\n";

#[test]
fn the_page_shows_everything_and_lets_nothing_through() {
    let (_folder, pipeline) = pipeline(TWO);
    let evil = "<script>alert('&')</script>";
    let record = Record {
        recipe: format!("repro recipe 1\nparam run = {evil}"),
        outputs: Vec::new(),
        tree: engine::digest::Digest::of("x"),
        run: engine::record::Facts {
            instance: "a[n=1]".into(),
            seconds: 75.0,
            machine: engine::machine::Machine { cpu: Some(evil.into()), ..Default::default() },
            ..Default::default()
        },
    };
    let digest = engine::digest::Digest::of("y");
    let output = Output { path: "locked.txt".into(), digest, size: 7, executable: false };
    let locked = LockedResult { recipe: digest, outputs: vec![output] };
    let standings = [Standing::Fresh, Standing::Locked, Standing::Stale(Vec::new())];
    let item = |(id, instance)| Item {
        instance,
        standing: &standings[id],
        record: (id == 0).then(|| record.clone()),
        locked: (id < 2).then(|| locked.clone()),
    };
    let report = Report {
        pipeline: &pipeline,
        items: pipeline.instances.iter().enumerate().map(item).collect(),
        metrics: vec![vec!["instance".into()], vec![evil.into()]],
        tables: vec![vec![vec!["network".into()], vec![evil.into()]]],
        figures: vec![Figure {
            instance: "plot".into(),
            title: evil.into(),
            caption: evil.into(),
            media: "image/svg+xml",
            bytes: format!("<svg>{evil}\"</svg>").into_bytes(),
        }],
        claims: vec![(
            format!("claims{evil}, not fresh"),
            vec![
                serde_json::json!({ "statement": evil, "numbers": [evil], "verdict": "does-not-hold" }),
                serde_json::json!({ "verdict": "holds", "networks": [1, 4], "evidence": [evil, "b"], "note": "Besides." }),
                serde_json::json!({ "verdict": "open", "networks": [2, 7] }),
                serde_json::json!({ "verdict": "not-run", "networks": [0, 7] }),
            ],
        )],
    };
    let page = report.html();
    assert!(!page.contains("<script") && !page.contains("http"), "{page}");
    for text in [
        "3 instances: 1 fresh, 1 as the lock file says, 1 stale",
        "1 min 15 s",
        "a</text>",
        "command, 2 instances, 1 min 15 s</text>",
        "# by the lock file, recipe ",
        "<td>locked.txt</td>",
        "<p>Of 4, 1 hold as far as they were run, 1 do not, 2 are open.</p>",
        "<td>does not hold</td>",
        "<td>holds so far, 1 of 4 networks<div class=\"quiet\">Besides.</div></td>",
        "&lt;/script&gt; and 1 more.</div></td>",
        "<summary>Every evaluation</summary>",
        "<td>open, 2 of 7 networks</td>",
        "<td>not run</td>",
        ", not fresh</p>",
        "&lt;script&gt;alert(&#39;&amp;&#39;)",
        "data:image/svg+xml;base64,PHN2Zz48c2NyaXB0",
        "prefers-color-scheme: dark",
        "<h2>Recipes and digests</h2>",
    ] {
        assert!(page.contains(text), "there is no `{text}` in {page}");
    }
    assert_eq!(page.matches("<details>").count(), page.matches("</details>").count());
}

#[test]
fn without_results_there_is_the_graph() {
    let (_folder, pipeline) = pipeline(TWO);
    let stale = Standing::Stale(Vec::new());
    let items = pipeline.instances.iter().map(|instance| Item {
        instance,
        standing: &stale,
        record: None,
        locked: None,
    });
    let report = Report {
        pipeline: &pipeline,
        items: items.collect(),
        metrics: Vec::new(),
        tables: Vec::new(),
        figures: Vec::new(),
        claims: Vec::new(),
    };
    let page = report.html();
    assert!(page.contains("<h2>Graph</h2>") && !page.contains("<h2>Figures</h2>"), "{page}");
}
