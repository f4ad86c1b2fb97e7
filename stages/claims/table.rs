//! Verdicts as Markdown: the claims with our numbers, and what would settle those that are open. Knows no
//! rule.

use std::fmt::Write as _;

use super::{
    Command, Judged, Outcome, Seeds, Verdict,
    evidence::{Difference, Evidence, Measure, Quantity},
    rule::{Rule, measure},
};
use crate::{
    plot::table::{cell, code},
    results::{Line, Network, Statistics},
};

/// The numbers at one network: `ResNet-32: BatchNorm only 57.1 ± 0.4 % (n = 3); everything ...`, the difference that the
/// rule asks for, then what else there is to be `told`.
pub(super) fn numbers(
    network: &str,
    rule: &Rule,
    found: &[Evidence],
    told: &[(&Quantity, Evidence)],
) -> String {
    let number = |value: &Statistics, (unit, digits): (&str, usize), more: &str| {
        let spread = if value.n > 1 { format!(" ± {:.digits$}", value.sd) } else { String::new() };
        format!("{:.digits$}{spread}{unit} (n = {}{more})", value.mean, value.n)
    };
    let part = |of: &Quantity, evidence: &Evidence, more: &str| {
        let at = of.network.as_ref().map_or_else(String::new, |name| Network::new(name).label() + ", ");
        let label = Line::new(&of.mode, None, Vec::new()).label();
        let what = if of.of == Measure::Top1 { "" } else { measure(of.of) };
        let space = if what.is_empty() { "" } else { ", " };
        format!("{at}{label}{space}{what} {}", number(&evidence.value, of.of.unit(), more))
    };
    let quantities = rule.quantities();
    let judged = quantities.iter().zip(found).map(|(of, evidence)| {
        let inside = rule.inside(evidence).filter(|inside| *inside < evidence.runs.len());
        let inside = inside.filter(|_| evidence.runs.len() > 1);
        part(of, evidence, &inside.map_or_else(String::new, |inside| format!(", {inside} within the bounds")))
    });
    let trained = quantities.iter().all(|of| of.of.is_trained());
    let apart = rule.apart(found).filter(|_| trained);
    let apart = apart.map(|Difference { value, paired }| match paired {
        true => format!("difference {}", number(&value, (" points", 1), "")),
        false => format!("difference of the means {:.1} points", value.mean),
    });
    let told = told.iter().map(|(of, evidence)| part(of, evidence, ""));
    let parts = judged.chain(apart).chain(told).collect::<Vec<_>>().join("; ");
    if network.is_empty() { parts } else { format!("{}: {parts}", Network::new(network).label()) }
}

pub(super) fn verdicts(judged: &[Judged]) -> String {
    let mut text =
        counts(judged) + "\n| # | claim | source | our numbers | verdict |\n|---:|---|---|---|---|\n";
    for (index, claim) in judged.iter().enumerate() {
        let number = index + 1;
        let Outcome { verdict, evidence: instances, .. } = &claim.outcome;
        let (decided, of) = decided(&claim.outcome);
        let bold = if verdict.is_settled() { "**" } else { "" };
        let numbers = if claim.numbers.is_empty() {
            "–".into()
        } else {
            claim.numbers.iter().map(|of| cell(of)).collect::<Vec<_>>().join("<br>")
        };
        let shown = evidence(instances, |instance| format!("`{}`", code(instance)));
        let shown = shown.map_or_else(String::new, |shown| format!(" ({shown})"));
        let (statement, source) = (cell(&claim.statement), cell(&claim.source));
        let _ = writeln!(
            text,
            "| {number} | {statement} | {source} | {numbers}{shown} | {bold}{decided}{bold}{of} |"
        );
    }
    if text.contains(" ± ") {
        text += "\n± is one sample standard deviation over the n seeds.\n";
    }
    text + &notes(judged)
}

/// How many hold, of all and by who says so.
fn counts(judged: &[Judged]) -> String {
    type Is = fn(&str) -> bool;
    let sources: [(&str, Is); 4] = [
        ("the paper", |source| source.starts_with("paper")),
        ("the origin", |source| source.starts_with("origin")),
        ("other reproductions", |source| !source.starts_with("paper") && !source.starts_with("origin")),
        ("all", |_| true),
    ];
    let mut text = String::from(
        "| claims of | number | hold | hold so far | do not | open |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for (whose, is) in sources {
        let all = judged.iter().filter(|claim| is(&claim.source));
        let count =
            |words: &[&str]| all.clone().filter(|claim| words.contains(&decided(&claim.outcome).0)).count();
        let [hold, so_far, fail, open] = [&[HOLDS][..], &[SO_FAR], &[FAILS], &[OPEN, NOT_RUN]].map(count);
        let _ = writeln!(text, "| {whose} | {} | {hold} | {so_far} | {fail} | {open} |", all.clone().count());
    }
    let holds = || judged.iter().filter(|claim| claim.outcome.verdict == Verdict::Holds);
    let known = holds().filter(|claim| claim.outcome.seeds.is_none()).count();
    let single = holds().filter(|claim| claim.outcome.seeds.is_some_and(|seeds| seeds.run == 1)).count();
    if known + single > 0 {
        let _ = writeln!(
            text,
            "\nOf those that hold, {known} are counts and sizes, which need no training, and {single} rest on one seed on at \
             least one side. With so many rules and so few seeds some hold, or do not, by chance."
        );
    }
    text
}

const HOLDS: &str = "holds";
const SO_FAR: &str = "holds so far";
const FAILS: &str = "does not hold";
const OPEN: &str = "open";
const NOT_RUN: &str = "not run";

/// What became of a claim, in words, and at how many of its networks and seeds.
pub(super) fn decided(outcome: &Outcome) -> (&'static str, String) {
    let Outcome { verdict, networks: [run, named], seeds, .. } = *outcome;
    let decided = match verdict {
        Verdict::Holds if run < named => SO_FAR,
        Verdict::Holds => HOLDS,
        Verdict::DoesNotHold => FAILS,
        Verdict::Open => OPEN,
        Verdict::NotRun => NOT_RUN,
    };
    let mut of = if named > 1 && run > 0 { format!(", {run} of {named} networks") } else { String::new() };
    match seeds {
        Some(Seeds { run, wanted }) if run < wanted => of += &format!(", {run} of {wanted} seeds"),
        Some(Seeds { run: 1, .. }) if verdict.is_settled() => of += ", one seed",
        _ => {}
    }
    (decided, of)
}

/// The first of the instances that show it, and how many more there are.
pub(super) fn evidence(instances: &[String], quoted: impl Fn(&str) -> String) -> Option<String> {
    let (first, rest) = instances.split_first()?;
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(quoted(first) + &more)
}

/// What a reader must know of some verdicts besides, under the table.
fn notes(judged: &[Judged]) -> String {
    let noted =
        judged.iter().enumerate().filter_map(|(index, claim)| Some((index + 1, claim.note.as_ref()?)));
    let notes: String = noted.map(|(number, note)| format!("- Claim {number}: {note}\n")).collect();
    if notes.is_empty() { notes } else { format!("\n{notes}") }
}

/// The claims that are open, by the command that would settle them; nothing where there are none.
pub(super) fn commands(judged: &[Judged], commands: &[Command]) -> String {
    let mut text = String::new();
    for Command { id, file, sets, cost } in commands {
        let open = judged.iter().enumerate().filter(|(_, claim)| !claim.outcome.verdict.is_settled());
        let open =
            open.filter(|(_, claim)| claim.settled_by == *id).map(|(index, _)| (index + 1).to_string());
        let open: Vec<_> = open.collect();
        if open.is_empty() {
            continue;
        }
        let sets: String = sets.iter().map(|set| format!(" -S '{set}'")).collect();
        let _ = writeln!(text, "| {} | `repro run -f {file}{sets}` | {cost} |", open.join(", "));
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nWhat would settle those that are open or not run, on one thread (`--profile jpeg` takes the JPEG copy of the \
         images; where trainings of two commands are the same, they are run once). Each command leaves its \
         verdicts in the file `claims.md` of its stage `claims`:\n\n\
         | claims | command | cost |\n|---|---|---:|\n{text}"
    )
}
