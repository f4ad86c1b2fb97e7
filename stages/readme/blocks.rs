//! Blocks between markers in Markdown, and figures as Markdown. Knows no files.

use std::{
    ops::Range,
    path::{Component, Path},
};

use engine::kind::StageError;
use pulldown_cmark::{Event, Parser};

use crate::plot::{Entry, table::plain};

/// The main figure with its caption.
pub(super) fn figure(list: &[Entry], prefix: &str) -> String {
    list.first().map_or_else(|| "There are no figures yet.\n".into(), |main| one(main, prefix))
}

fn one(entry: &Entry, prefix: &str) -> String {
    let [title, caption] = [&entry.title, &entry.caption].map(|text| plain(text));
    format!("![{title}]({prefix}{}.svg)\n\n*{}*\n", entry.name, caption.replace('*', "\\*"))
}

/// The main figure, the others folded away.
pub(super) fn figures(list: &[Entry], prefix: &str) -> String {
    let mut text = figure(list, prefix);
    let others = list.get(1..).unwrap_or_default();
    if !others.is_empty() {
        let more: Vec<_> = others.iter().map(|entry| one(entry, prefix)).collect();
        text += &format!(
            "\n<details>\n<summary>More figures ({})</summary>\n\n{}\n</details>\n",
            others.len(),
            more.join("\n")
        );
    }
    text
}

/// From the page to the folder of the figures, as a link has it: `docs/figures/`, `figures/`.
pub(super) fn way(page: &Path, folder: &Path) -> String {
    fn parts(path: &Path) -> Vec<Component<'_>> {
        path.components().filter(|part| *part != Component::CurDir).collect()
    }
    let (here, there) = (page.parent().map(parts).unwrap_or_default(), parts(folder));
    let shared = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
    let up = "../".repeat(here.len() - shared);
    let down = there[shared..].iter().map(|part| format!("{}/", part.as_os_str().to_string_lossy()));
    up + &down.collect::<String>()
}

/// What stands before and behind the block of `stage` called `name`.
pub(super) fn markers(stage: &str, name: &str) -> [String; 2] {
    around(&full_name(stage, name))
}

fn around(full_name: &str) -> [String; 2] {
    [format!("<!-- repro:{full_name} -->"), format!("<!-- /repro:{full_name} -->")]
}

fn full_name(stage: &str, name: &str) -> String {
    if stage.is_empty() { name.to_owned() } else { format!("{stage}/{name}") }
}

/// Does the page want a block of `stage`? An error where it wants one that the stage does not make, which would stay as
/// it is for ever, where one ends that does not begin, or where any block begins within another: what lies between would
/// be lost.
pub(super) fn check(
    text: &str,
    page: &Path,
    stage: &str,
    makes: impl Fn(&str) -> bool,
) -> Result<bool, StageError> {
    let page = page.display();
    let mut any = false;
    let mut within: Option<&str> = None;
    for Marker { name, ends, .. } in markers_in(text) {
        let [open, close] = around(name);
        let (whose, block) = name.rsplit_once('/').unwrap_or(("", name));
        if let Some(outer) = within.filter(|outer| !ends || *outer != name) {
            let [opened, end] = around(outer);
            let what = if ends { close } else { open };
            return Err(StageError::new(format!("{page} has `{what}` in the block `{opened}`"))
                .hint(format!("write `{end}` where that block ends")));
        }
        let opened = within.is_some();
        within = Some(name).filter(|_| !ends);
        if whose != stage {
            continue;
        }
        if ends && !opened {
            return Err(StageError::new(format!("{page} has `{close}` but no `{open}` before it"))
                .hint(format!("write `{open}` where the block begins")));
        }
        if !makes(block) {
            return Err(StageError::new(format!(
                "{page} has the block `{open}`, which this stage does not make"
            ))
            .hint(
                "give the stage what it is made of, correct the block's name, or take it out of the page; where it is \
                 another stage's, give each of them a `name`",
            ));
        }
        any = true;
    }
    Ok(any)
}

/// A comment that begins or ends a block.
struct Marker<'a> {
    /// The stage's name and the block's.
    name: &'a str,
    ends: bool,
    /// Bytes of the text.
    range: Range<usize>,
}

/// Those of a page, but for those in code, which explain what they look like. What is code, Markdown says.
fn markers_in(text: &str) -> Vec<Marker<'_>> {
    const OPEN: &str = "<!-- ";
    const CLOSE: &str = " -->";
    let mut found = Vec::new();
    for (event, range) in Parser::new(text).into_offset_iter() {
        if !matches!(event, Event::Html(_) | Event::InlineHtml(_)) {
            continue;
        }
        let html = &text[range.clone()];
        for (at, _) in html.match_indices(OPEN) {
            let Some((comment, _)) = html[at + OPEN.len()..].split_once(CLOSE) else { continue };
            let (ends, marker) = comment.strip_prefix('/').map_or((false, comment), |rest| (true, rest));
            let start = range.start + at;
            let end = start + OPEN.len() + comment.len() + CLOSE.len();
            found.extend(marker.strip_prefix("repro:").map(|name| Marker { name, ends, range: start..end }));
        }
    }
    found
}

/// `text` with `content` in each block of `stage` called `name`; unchanged where there is none.
pub(super) fn replace(
    text: &str,
    page: &Path,
    stage: &str,
    name: &str,
    content: &str,
) -> Result<String, StageError> {
    let name = full_name(stage, name);
    let (mut replaced, mut from) = (String::new(), 0);
    let mut markers = markers_in(text).into_iter();
    while let Some(open) = markers.find(|marker| marker.name == name && !marker.ends) {
        let Some(close) = markers.next().filter(|marker| marker.name == name && marker.ends) else {
            let [open, close] = around(&name);
            return Err(StageError::new(format!(
                "{} has `{open}` but no `{close}` after it",
                page.display()
            ))
            .hint(format!("write `{close}` where the block ends")));
        };
        let block = format!("\n\n{}\n\n", content.trim_end());
        replaced += &text[from..open.range.end];
        // As the page ends its lines.
        replaced +=
            &if text[open.range.end..].starts_with("\r\n") { block.replace('\n', "\r\n") } else { block };
        from = close.range.start;
    }
    Ok(replaced + &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_figures() {
        let way = |page: &str, folder: &str| way(page.as_ref(), folder.as_ref());
        assert_eq!(way("README.md", "docs/figures"), "docs/figures/");
        assert_eq!(way("docs/results.md", "docs/figures/depth"), "figures/depth/");
        assert_eq!(way("notes/a/b.md", "docs/figures"), "../../docs/figures/");
        assert_eq!(way("./docs/./results.md", "docs/figures"), "figures/");
        assert_eq!(way("./README.md", "docs/figures"), "docs/figures/");
    }

    #[test]
    fn a_block_that_nobody_fills_is_an_error() {
        let says = |text: &str, stage: &str| {
            let checked = check(text, "README.md".as_ref(), stage, |block| block == "table");
            checked.err().map(|error| error.message)
        };
        let table = "<!-- repro:table -->\n<!-- /repro:table --> <!-- a comment --> ";
        let others = "<!-- repro:depth/claims --> <!-- /repro:depth/claims -->";
        assert_eq!(says(&format!("{table}{others}{table}"), ""), None);
        let wanted = "README.md has the block `<!-- repro:depth/claims -->`, which this stage does not make";
        assert_eq!(says(&format!("{table}{others}"), "depth").as_deref(), Some(wanted));
        let told = "In `<!-- repro:NAME -->` and `<!-- /repro:NAME -->`:\n```\n<!-- repro:claims -->\n```\n";
        assert_eq!(says(&format!("{told}{table}"), ""), None, "code is no block");
        assert!(says(&format!("{told}{table}<!-- repro:claims -->"), "").is_some());
        assert_eq!(replace(told, "README.md".as_ref(), "", "claims", "lost").unwrap(), told);
        let own = "own words";
        for (text, told) in [
            (
                format!("<!-- repro:table --> {own} {table}"),
                "`<!-- repro:table -->` in the block `<!-- repro:table -->`",
            ),
            (
                format!("<!-- repro:table --> {others} {own} <!-- /repro:table -->"),
                "`<!-- repro:depth/claims -->` in the block `<!-- repro:table -->`",
            ),
            (
                format!("<!-- repro:table --> {own} <!-- /repro:depth/claims -->"),
                "`<!-- /repro:depth/claims -->` in the block `<!-- repro:table -->`",
            ),
        ] {
            assert_eq!(says(&text, ""), Some(format!("README.md has {told}")), "{text}");
        }
        let ended = "README.md has `<!-- /repro:table -->` but no `<!-- repro:table -->` before it";
        assert_eq!(says("<!-- /repro:table -->", "").as_deref(), Some(ended));
    }

    /// Is there a block called `table`, and no other one?
    fn has_table(text: &str) -> bool {
        check(text, "README.md".as_ref(), "", |block| block == "table").unwrap()
    }

    #[test]
    fn blocks_are_replaced_where_no_code_is_and_lines_end_as_they_did() {
        let filled = |text: &str| replace(text, "README.md".as_ref(), "", "table", "a\nb\n").unwrap();
        let code = "`<!-- repro:table -->` and\n```\n<!-- repro:table -->\n```\n";
        let block = |end: &str| format!("<!-- repro:table -->{end}<!-- /repro:table -->");
        assert_eq!(
            filled(&format!("{code}{}\nmine\n", block("\nold\n"))),
            format!("{code}{}\nmine\n", block("\n\na\nb\n\n"))
        );
        assert_eq!(filled(&block("\r\n")), block("\r\n\r\na\r\nb\r\n\r\n"));
        assert_eq!(filled(&block("").repeat(2)), block("\n\na\nb\n\n").repeat(2));
        assert!(!has_table(code) && has_table(&block("")));
        // Whatever code looks like, words in it are the author's.
        let mine = "<!-- repro:table --> mine <!-- /repro:table -->";
        for code in [
            format!("````markdown\n```\n{mine}\n```\n````\n"),
            format!("~~~\n```\n{mine}\n~~~\n"),
            format!("> ```\n> {mine}\n"),
            format!("\n    {mine}\n\t{mine}\n"),
            format!("```\n> ```\n{mine}\n```\n"),
            format!(" > ```\n > {mine}\n\n"),
            format!("- ```sh\n  {mine}\n  ```\n"),
            format!("`x {mine} y` and ``` `` {mine} ` ```\n"),
        ] {
            assert_eq!(filled(&code), code);
            let page = format!("{code}{}\n", block(""));
            assert_eq!(filled(&page), format!("{code}{}\n", block("\n\na\nb\n\n")), "{page}");
        }
        // And what is none hides no block.
        for text in [
            "```sh``` is\n",
            "~~~\n```\n~~~\n",
            "a ` alone\n",
            "```\n``\n```` \n",
            "\\` and ",
            "```markdown\n1. step\n\n    ```sh\n    x\n    ```\n```\n",
            "> ```\n> x\n",
        ] {
            assert!(has_table(&format!("{text}{}", block(""))), "{text}");
        }
    }

    #[test]
    fn the_main_figure_is_open_and_the_others_are_folded() {
        let entry =
            |name: &str| Entry { name: name.into(), title: name.to_uppercase(), caption: "Seen.".into() };
        let text = figures(&[entry("a"), entry("b")], "x/");
        assert!(text.starts_with("![A](x/a.svg)\n\n*Seen.*\n\n<details>"), "{text}");
        assert!(text.contains("More figures (1)") && text.contains("![B](x/b.svg)"), "{text}");
        assert!(!figures(&[entry("a")], "").contains("details"));
    }

    #[test]
    fn a_text_of_a_figure_ends_no_block_and_is_no_tag() {
        let evil = |name: &str| format!("{name} <!-- /repro:figure --> <b> & so");
        let entry = Entry { name: "a".into(), title: evil("t"), caption: evil("c") };
        let text = figure(&[entry], "");
        let plain = "&lt;!-- /repro:figure --> &lt;b> &amp; so";
        assert_eq!(text, format!("![t {plain}](a.svg)\n\n*c {plain}*\n"));
    }
}
