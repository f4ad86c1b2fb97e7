//! Blocks between markers in Markdown, and figures as Markdown. Knows no files.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use engine::kind::StageError;

use crate::plot::Entry;

/// The main figure with its caption.
pub(super) fn figure(list: &[Entry], prefix: &str) -> String {
    list.first().map_or_else(|| "There are no figures yet.\n".into(), |main| one(main, prefix))
}

fn one(entry: &Entry, prefix: &str) -> String {
    format!("![{}]({prefix}{}.svg)\n\n*{}*\n", entry.title, entry.name, entry.caption.replace('*', "\\*"))
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
    let name = if stage.is_empty() { name.to_owned() } else { format!("{stage}/{name}") };
    [format!("<!-- repro:{name} -->"), format!("<!-- /repro:{name} -->")]
}

/// An error where the page wants a block of `stage` that it does not make, which would stay as it is for ever, or where a
/// block ends that does not begin.
pub(super) fn check(
    text: &str,
    page: &Path,
    stage: &str,
    makes: impl Fn(&str) -> bool,
) -> Result<(), StageError> {
    let mut opened = BTreeSet::new();
    for marker in shown(text) {
        let (ends, name) = match (marker.strip_prefix("repro:"), marker.strip_prefix("/repro:")) {
            (Some(name), _) => (false, name),
            (_, Some(name)) => (true, name),
            _ => continue,
        };
        let (whose, block) = name.rsplit_once('/').unwrap_or(("", name));
        if whose != stage {
            continue;
        }
        let [open, close] = markers(stage, block);
        if ends && !opened.contains(block) {
            return Err(StageError::new(format!(
                "{} has `{close}` but no `{open}` before it",
                page.display()
            ))
            .hint(format!("write `{open}` where the block begins")));
        }
        if !makes(block) {
            return Err(StageError::new(format!(
                "{} has the block `{open}`, which this stage does not make",
                page.display()
            ))
            .hint(
                "give the stage what it is made of, correct the block's name, or take it out of the page; where it is \
                 another stage's, give each of them a `name`",
            ));
        }
        opened.insert(block);
    }
    Ok(())
}

/// The comments of a page, but for those in code, which explain what they look like.
fn shown(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    let lines = text.lines().filter(move |line| {
        let is_fence = ["```", "~~~"].iter().any(|fence| line.trim_start().starts_with(fence));
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    lines.flat_map(|line| {
        let parts = line.split("<!-- ");
        // A backtick before one opens code.
        let before = line.split("<!-- ").map(|part| part.ends_with('`'));
        let comments = parts.skip(1).zip(before).filter(|(_, in_code)| !in_code);
        comments.filter_map(|(part, _)| part.split_once(" -->")).map(|(comment, _)| comment)
    })
}

/// `text` with `content` in each block of `stage` called `name`; unchanged where there is none.
pub(super) fn replace(
    text: &str,
    page: &Path,
    stage: &str,
    name: &str,
    content: &str,
) -> Result<String, StageError> {
    let [open, close] = markers(stage, name);
    let Some((before, rest)) = text.split_once(&open) else {
        return Ok(text.to_owned());
    };
    let Some((_, after)) = rest.split_once(&close) else {
        return Err(StageError::new(format!("{} has `{open}` but no `{close}` after it", page.display()))
            .hint(format!("write `{close}` where the block ends")));
    };
    let after = replace(after, page, stage, name, content)?;
    Ok(format!("{before}{open}\n\n{}\n\n{close}{after}", content.trim_end()))
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
        let ended = "README.md has `<!-- /repro:table -->` but no `<!-- repro:table -->` before it";
        assert_eq!(says("<!-- /repro:table -->", "").as_deref(), Some(ended));
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
}
