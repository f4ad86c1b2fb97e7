//! The report and the figures of the pages in a browser, as a person opens them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::experiments::files;

/// Pixels: a screen, and about the least that Chromium makes a window.
const WIDE: u32 = 1200;
const NARROW: u32 = 500;

/// What the page shows in a window so wide.
fn look(html: &str, width: u32) -> Value {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let file = folder.path().join("page.html");
    let page = format!("{html}<script>{}</script>", include_str!("browser.js"));
    fs::write(&file, page).expect("a writable temporary folder");
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let window = format!("--window-size={width},900");
    let answer = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args(["--disable-component-update", "--disable-sync", &profile, &window, "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .stderr(Stdio::null())
        .output();
    let answer = answer.unwrap_or_else(|error| panic!("`chromium` does not start: {error}"));
    let text = String::from_utf8(answer.stdout).expect("a page is UTF-8");
    let title = text.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let title = title.unwrap_or_else(|| panic!("no title in what the browser made of the page: {text}"));
    let title = title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&title).unwrap_or_else(|error| panic!("{error}: {title}"))
}

/// Nothing is cut off, too wide, or over something else. Gives the numbers of images and of drawings with theirs.
#[track_caller]
fn check(what: &Path, html: &str, width: u32) -> [u64; 2] {
    let look = look(html, width);
    assert_eq!(look["found"], serde_json::json!([]), "{} at {width} pixels", what.display());
    assert!(look["texts"].as_u64() > Some(5), "{}: {look}", what.display());
    ["images", "drawings"].map(|key| look[key].as_u64().expect("a number"))
}

#[test]
#[ignore = "needs Chromium and the results of all quick profiles: .ci/run makes them"]
fn reports_show_everything_at_any_width_in_a_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let mut images = 0;
    for file in files().into_iter().chain([root.join("pipeline.toml")]) {
        let report = folder.path().join("report.html");
        let status = Command::new(env!("CARGO_BIN_EXE_repro"))
            .current_dir(root)
            .args(["report", "--profile", "quick", "-f"])
            .arg(&file)
            .arg("-o")
            .arg(&report)
            .status();
        assert!(status.expect("the binary starts").success(), "{}", file.display());
        let html = fs::read_to_string(&report).expect("the report");
        for width in [WIDE, NARROW] {
            let [shown, drawings] = check(&file, &html, width);
            assert_eq!(drawings, shown + 1, "the graph and the figures of {}", file.display());
            images += shown;
        }
    }
    assert!(images > 60, "only {images} figures in all reports: run the quick profiles first");
}

#[test]
#[ignore = "needs Chromium"]
fn the_figures_of_the_pages_are_whole_in_a_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/figures");
    let files =
        walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(|entry| entry.expect("an entry"));
    let files: Vec<_> = files.filter(|entry| entry.file_type().is_file()).collect();
    assert!(files.len() > 20, "{files:?}");
    let figure = |entry: &walkdir::DirEntry| {
        let svg = fs::read_to_string(entry.path()).expect("a figure");
        format!("<div data-name=\"{}\">{svg}</div>", entry.path().display())
    };
    let figures: String = files.iter().map(figure).collect();
    let html = format!("<!doctype html><meta charset=\"utf-8\"><title></title>{figures}");
    check(Path::new("docs/figures"), &html, WIDE);
}
