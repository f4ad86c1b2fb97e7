//! The results as Markdown tables. Knows no figure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::ticks::gibibytes;
use crate::results::{Evaluation, Line, Network, Results, Statistics};

/// Accuracy by network and by what was trained; with both variants of networks, the paper's first. Nothing where no
/// evaluation was given.
pub(super) fn accuracies(results: &Results) -> Option<String> {
    if results.evaluations.is_empty() {
        return None;
    }
    let parts = results.by_variant();
    let (head, rule) = if parts.is_empty() { ("", "") } else { (" variant |", "---|") };
    let mut text = format!(
        "| network |{head} trained | trained values | top-1 test accuracy (%) | standard deviation | runs |\n\
         |---|{rule}---|---:|---:|---:|---:|\n",
    );
    if parts.is_empty() {
        text += &rows(results, "");
    }
    for (variant, results) in &parts {
        text += &rows(results, &format!(" {variant} |"));
    }
    Some(text)
}

/// Those of a variant, which stands behind the network.
fn rows(results: &Results, variant: &str) -> String {
    let mut groups = BTreeMap::<(&Network, &Line), Vec<&Evaluation>>::new();
    for evaluation in &results.evaluations {
        groups.entry((&evaluation.network, &evaluation.line)).or_default().push(evaluation);
    }
    let mut text = String::new();
    for ((network, line), runs) in groups {
        let Some(s) = Statistics::of(runs.iter().map(|run| run.top1())) else { continue };
        let sd = s.spread().map_or_else(|| "–".into(), |sd| format!("{sd:.2}"));
        let trained = runs.iter().find_map(|run| run.metrics.trained).map_or_else(|| "–".into(), grouped);
        let _ = writeln!(
            text,
            "| {} |{variant} {} | {trained} | {:.2} | {sd} | {} |",
            cell(&network.label()),
            cell(&line.label()),
            s.mean,
            s.n
        );
    }
    text
}

/// The parameter table; nothing where no model was given.
pub(super) fn parameters(results: &Results) -> Option<String> {
    if results.models.is_empty() {
        return None;
    }
    let mut text = String::from(
        "| network | variant | all parameters | BatchNorm | share (%) | of which in shortcuts | output layer | 1x1 shortcuts |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for ((network, variant), counts) in &results.models {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.2} | {} | {} | {} |",
            cell(&network.label()),
            cell(variant),
            grouped(counts.total),
            grouped(counts.batch_norm),
            100.0 * counts.batch_norm as f64 / counts.total.max(1) as f64,
            grouped(counts.shortcut_batch_norm),
            grouped(counts.output),
            grouped(counts.shortcut),
        );
    }
    Some(text)
}

/// Buffers of a training step by mode and batch; nothing where no memory was given.
pub(super) fn memory(results: &Results) -> Option<String> {
    let batches: BTreeSet<u64> =
        results.memory.iter().flat_map(|memory| memory.buffers.iter().map(|of| of.batch)).collect();
    let budgets: BTreeSet<u64> = results.memory.iter().filter_map(|memory| memory.budget).collect();
    if batches.is_empty() {
        return None;
    }
    let batch_heads = batches.iter().map(|batch| format!(" {batch} images (MB) |"));
    let budget_heads = budgets.iter().map(|budget| format!(" most images in {} |", gibibytes(*budget)));
    let heads: String = batch_heads.chain(budget_heads).collect();
    let rule = "---:|".repeat(batches.len() + budgets.len());
    let mut text = format!("| network | variant | trained |{heads}\n|---|---|---|{rule}\n");
    // Seeds take the same memory.
    let rows: BTreeMap<_, _> = results
        .memory
        .iter()
        .map(|memory| ((&memory.network, &memory.variant, &memory.line), memory))
        .collect();
    for ((network, variant, line), memory) in rows {
        let bytes = |batch: &u64| memory.buffers.iter().find(|of| of.batch == *batch).map(|of| of.bytes);
        let sizes =
            batches.iter().map(|batch| bytes(batch).map(|bytes| format!("{:.0}", bytes as f64 / 1e6)));
        let largest = budgets
            .iter()
            .map(|budget| memory.largest_batch.filter(|_| memory.budget == Some(*budget)).map(grouped));
        let cells: String =
            sizes.chain(largest).map(|text| format!(" {} |", text.unwrap_or_else(|| "–".into()))).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |{cells}",
            cell(&network.label()),
            cell(variant),
            cell(&line.without_variant().label())
        );
    }
    Some(text)
}

/// A text that leaves a table whole, and the page around it: no tag, and no marker that a block could end at.
pub(crate) fn cell(text: &str) -> String {
    code(&plain(text))
}

/// The same of what stands in backticks, where nothing but `|` means anything.
pub(crate) fn code(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A text without a tag.
pub(crate) fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// With commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_a_table_or_ends_a_block() {
        assert_eq!(cell("a|b\n<!-- /repro:table --> &"), "a\\|b &lt;!-- /repro:table --> &amp;");
        assert_eq!(code("a|b<c&"), "a\\|b<c&");
    }
}
