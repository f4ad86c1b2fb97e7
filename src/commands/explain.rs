//! `repro explain`: an instance's recipe line by line, that of its result against today's.

use std::{collections::BTreeSet, process::ExitCode};

use engine::{plan::Standing, project::Explanation};
use serde_json::json;

use crate::{
    args::Global,
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn explain(global: &Global, name: &str, json: bool) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let ids = super::selected(pipeline, &[name.to_owned()])?;
    let &[id] = ids.as_slice() else {
        let message = format!("`{name}` means {} instances: {}", ids.len(), super::names(pipeline, &ids));
        return Err(Failure {
            hint: Some("name one of them; quote it for the shell".into()),
            ..Failure::new(FailureKind::User, message)
        });
    };
    let standing = project.status(pipeline)?.swap_remove(id);
    let Explanation { then, now } = project.explain(pipeline, id)?;
    let name = &pipeline.instances[id].name;
    if json {
        let word = super::word(&standing);
        ui::json(&json!({ "name": name, "standing": word, "then": then, "now": now }));
        return Ok(ExitCode::SUCCESS);
    }
    ui::line(&format!("{name} is {}", super::word(&standing)));
    if let Standing::Waiting(on) = &standing {
        ui::line(&format!("its recipe is known once these have run: {}", super::names(pipeline, on)));
    }
    if let Standing::Stale(whys) = &standing
        && now.is_none()
    {
        ui::line(&format!("it has no recipe: {}", super::reasons(whys)));
    }
    match (then, now) {
        (None, None) => {}
        (None, Some(now)) => ui::print(&format!("it has no result; its recipe:\n{}", diff(&now, &now))),
        (Some(then), None) => ui::print(&format!("the recipe of its result:\n{}", diff(&then, &then))),
        (Some(then), Some(now)) if then == now => {
            ui::print(&format!("the recipe of its result is today's:\n{}", diff(&then, &now)));
        }
        (Some(then), Some(now)) => {
            ui::print(&format!("the recipe of its result (-) and today's (+):\n{}", diff(&then, &now)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

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
            put('+', line);
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
