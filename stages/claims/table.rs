//! Verdicts as Markdown: the claims with our numbers, and what would settle those that are open. Knows no
//! rule.

use std::fmt::Write as _;

use super::{
    Command, Judged, Verdict,
    evidence::{Evidence, Measure, Quantity},
    rule::measure,
};
use crate::{
    plot::table::cell,
    results::{Line, Network},
};

/// The numbers at one network: `ResNet-32: BatchNorm only 57.1 ± 0.4 % (n = 3), everything ...`.
pub(super) fn numbers(network: &str, quantities: &[&Quantity], found: &[Evidence]) -> String {
    let part = |(of, evidence): (&&Quantity, &Evidence)| {
        let (unit, digits) = of.of.unit();
        let value = &evidence.value;
        let spread = if value.n > 1 { format!(" ± {:.digits$}", value.sd) } else { String::new() };
        let at = of.network.as_ref().map_or_else(String::new, |name| Network::new(name).label() + ", ");
        let label = Line::new(&of.mode, None, Vec::new()).label();
        let what = if of.of == Measure::Top1 { "" } else { measure(of.of) };
        let space = if what.is_empty() { "" } else { ", " };
        format!("{at}{label}{space}{what} {:.digits$}{spread}{unit} (n = {})", value.mean, value.n)
    };
    let parts = quantities.iter().zip(found).map(part).collect::<Vec<_>>().join("; ");
    if network.is_empty() { parts } else { format!("{}: {parts}", Network::new(network).label()) }
}

pub(super) fn verdicts(judged: &[Judged]) -> String {
    let mut text =
        counts(judged) + "\n| # | claim | source | our numbers | verdict |\n|---:|---|---|---|---|\n";
    for (index, claim) in judged.iter().enumerate() {
        let number = index + 1;
        let (decided, of) = verdict(claim.verdict, claim.networks);
        let bold = if claim.verdict.is_settled() { "**" } else { "" };
        let numbers = if claim.numbers.is_empty() { "–".into() } else { cell(&claim.numbers.join("<br>")) };
        let shown = evidence(&claim.evidence, |instance| format!("`{}`", cell(instance)));
        let shown = shown.map_or_else(String::new, |shown| format!(" ({shown})"));
        let (statement, source) = (cell(&claim.statement), cell(&claim.source));
        let _ = writeln!(
            text,
            "| {number} | {statement} | {source} | {numbers}{shown} | {bold}{decided}{bold}{of} |"
        );
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
        "| claims of | number | hold, as far as run | do not | open |\n|---|---:|---:|---:|---:|\n",
    );
    for (whose, is) in sources {
        let of =
            |verdict| judged.iter().filter(|claim| is(&claim.source) && claim.verdict == verdict).count();
        let (hold, fail) = (of(Verdict::Holds), of(Verdict::DoesNotHold));
        let open = of(Verdict::Open) + of(Verdict::NotRun);
        let all = hold + fail + open;
        let _ = writeln!(text, "| {whose} | {all} | {hold} | {fail} | {open} |");
    }
    let known = judged.iter().filter(|claim| claim.verdict == Verdict::Holds && !claim.is_trained).count();
    if known > 0 {
        let _ = writeln!(text, "\nOf those that hold, {known} are counts and sizes, which need no training.");
    }
    text
}

/// What became of a claim, in words, and at how many of its networks.
pub(super) fn verdict(verdict: Verdict, [run, named]: [usize; 2]) -> (&'static str, String) {
    let decided = match verdict {
        Verdict::Holds if run < named => "holds so far",
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "does not hold",
        Verdict::Open => "open",
        Verdict::NotRun => "not run",
    };
    let of = if named > 1 && run > 0 { format!(", {run} of {named} networks") } else { String::new() };
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
        let open = judged.iter().enumerate().filter(|(_, claim)| !claim.verdict.is_settled());
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
        "\nWhat would settle those that are open or not run, with one seed and on one thread (`--profile jpeg` takes the JPEG \
         copy of the images; where trainings of two commands are the same, they are run once). Each command leaves its \
         verdicts in the file `claims.md` of its stage `claims`:\n\n\
         | claims | command | cost |\n|---|---|---:|\n{text}"
    )
}
