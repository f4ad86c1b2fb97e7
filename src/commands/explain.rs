//! `repro explain`: the recipe of an instance's result against today's, line by line.

use std::{collections::BTreeSet, process::ExitCode};

use engine::{
    plan::{Standing, Why},
    project::Explanation,
    recipe::{Change, UNDECIDED},
    record::Facts,
};
use serde_json::json;

use crate::{args::Global, error::Failure, ui};

pub(super) fn explain(
    global: &Global,
    name: &str,
    allow_missing: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let id = super::one(pipeline, name)?;
    let Explanation { standing, then, made, now, so_far, undecided } =
        project.explain(pipeline, id, allow_missing)?;
    let name = &pipeline.instances[id].name;
    if json {
        let undecided = undecided.iter().map(|(from, standing)| {
            let name = &pipeline.instances[*from].name;
            let why = match standing {
                Standing::Stale(_) => super::each_reason(standing).join("; "),
                other => super::why(pipeline, other),
            };
            json!({ "name": name, "standing": super::word(standing), "why": why })
        });
        ui::json(&json!({
            "name": name, "standing": super::word(&standing), "reasons": super::each_reason(&standing),
            "then": then, "made": made, "now": now, "so_far": so_far, "undecided": undecided.collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    // What changed in its recipe is shown line by line.
    let shown = |why: &Why| now.is_some() && matches!(why, Why::Changed(_));
    let why = match &standing {
        Standing::Stale(whys) => {
            super::reasons(&whys.iter().filter(|why| !shown(why)).cloned().collect::<Vec<_>>())
        }
        Standing::Waiting(_) => String::new(), // see below
        other => super::why(pipeline, other),
    };
    let colon = if why.is_empty() { "" } else { ": " };
    ui::line(&format!("{name} is {}{colon}{why}", super::word(&standing)));
    if !undecided.is_empty() {
        ui::line("it is decided once these have run:");
    }
    for (from, standing) in undecided.iter().take(SHOWN) {
        let name = &pipeline.instances[*from].name;
        ui::line(&format!("  {name} is {}: {}", super::word(standing), super::why(pipeline, standing)));
    }
    if undecided.len() > SHOWN {
        ui::line(&format!("  and {} more", undecided.len() - SHOWN));
    }
    if matches!(standing, Standing::Stale(_)) && now.is_none() {
        ui::line("it has no recipe without that");
    }
    match &made {
        Some(facts) => ui::line(&told(facts)),
        None if then.is_some() && standing != Standing::Locked => {
            ui::line("nothing says how its result was made: it lay here when it was found")
        }
        None => {}
    }
    match (then, now.or(so_far)) {
        (None, None) => {}
        (None, Some(now)) => ui::print(&format!("it has no result; its recipe:\n{}", diff(&now, &now))),
        (Some(then), None) => ui::print(&format!("the recipe of its result:\n{}", diff(&then, &then))),
        (Some(then), Some(now)) if then == now => {
            ui::print(&format!("the recipe of its result is today's:\n{}", diff(&then, &now)));
        }
        (Some(then), Some(now)) => {
            let unknown = if undecided.is_empty() { "" } else { ", as far as it is known (?)" };
            let lines = diff(&then, &now);
            ui::print(&format!("the recipe of its result (-) and today's (+){unknown}:\n{lines}"));
            let whys = if let Standing::Stale(whys) = &standing { whys.as_slice() } else { &[] };
            let changes =
                whys.iter().filter_map(|why| if let Why::Changed(all) = why { Some(all) } else { None });
            for change in changes.flatten().filter(|change| matches!(change, Change::Within(..))) {
                ui::line(&change.to_string());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a result came about, in a line.
fn told(facts: &Facts) -> String {
    let Facts { started, seconds, machine, launcher, threads, gpus, notes, .. } = facts;
    let mut parts =
        vec![format!("its result was made {} UTC in {}", ui::when(*started), ui::seconds(*seconds))];
    parts.extend(super::commit(machine).map(|(commit, changed)| {
        format!("at commit {commit}{}", if changed { " with changes" } else { "" })
    }));
    let threads = ui::count(*threads, "thread", "threads");
    parts.push(match &machine.cpu {
        Some(cpu) => format!("on {cpu} ({}) with {threads}", machine.instructions),
        None => format!("with {threads}"), // what a launcher starts elsewhere may not say where it was
    });
    if !gpus.is_empty() {
        parts.push(format!("GPU {}", gpus.join(", ")));
    }
    parts.extend(launcher.as_ref().map(|launcher| format!("started by `{launcher}`")));
    let engine = notes.get("engine").and_then(toml::Value::as_str);
    parts.join(", ") + &engine.map_or_else(String::new, |engine| format!("; {engine}"))
}

/// So many of what an instance waits for are named.
const SHOWN: usize = 10;

/// Every line of both texts, marked. Recipes are sorted, so that common lines keep their order.
fn diff(then: &str, now: &str) -> String {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (then.lines().collect(), now.lines().collect());
    let (mut then, mut now) = (then.lines().peekable(), now.lines().peekable());
    let mut text = String::new();
    let mut put = |mark: char, line: &str| {
        text.push_str(&format!("{mark} {line}\n"));
    };
    loop {
        if let Some(line) = then.next_if(|line| !new.contains(line)) {
            put('-', line);
        } else if let Some(line) = now.next_if(|line| !old.contains(line)) {
            put(if line.ends_with(UNDECIDED) { '?' } else { '+' }, line);
        } else {
            match (then.next(), now.next()) {
                (Some(a), Some(b)) if a == b => put(' ', a),
                (None, None) => return text,
                (a, b) => {
                    a.into_iter().for_each(|line| put('-', line));
                    b.into_iter().for_each(|line| put('+', line));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn a_diff_shows_every_line_of_both_texts_once() {
        assert_eq!(diff("a\nb\nc\n", "a\nB\nc\nd\n"), "  a\n- b\n+ B\n  c\n+ d\n");
        assert_eq!(diff("", "a\n"), "+ a\n");
        assert_eq!(diff("a\nb\n", "b\na\n"), "- a\n+ b\n- b\n+ a\n");
    }
}
