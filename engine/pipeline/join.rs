//! Stages joined along `needs` into the list of instances. Knows no files and no parameters.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    path::Path,
};

use super::{
    Diagnostics,
    expand::{Joining, Stage, StageNeed},
    hint::choices,
    matrix::Axes,
};
use crate::{
    instance::{Instance, InstanceId, Need, name_of, pairs},
    kind::{Params, Wanted},
};

/// Inputs of all instances: more than anybody reads, and as much memory as a machine spares.
const MOST: usize = 2_000_000;

/// Orders the stages and joins their instances on the axes that they share.
pub(super) fn instances(stages: Vec<Stage>, diagnostics: &mut Diagnostics) -> Vec<Instance> {
    let index: BTreeMap<String, usize> =
        stages.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
    let order = order(&stages, &index, diagnostics);
    refuse_idle_axes(&stages, &index, diagnostics);
    // With errors so far some stages or instances are missing; joining would invent more.
    if !diagnostics.list.is_empty() {
        return Vec::new();
    }
    let mut out: Vec<Instance> = Vec::new();
    let mut ranges = vec![0..0; stages.len()];
    let axes_of: Vec<BTreeSet<String>> = stages.iter().map(|s| s.axes.clone()).collect();
    let mut slots: Vec<Option<Stage>> = stages.into_iter().map(Some).collect();
    let mut inputs = 0;
    for at in order {
        let stage = slots[at].take().expect("an order names each stage once");
        let start = out.len();
        let tables: Vec<_> = stage
            .needs
            .iter()
            .map(|need| {
                let from = index[&need.from];
                let shared: Vec<&String> = axes_of[at].intersection(&axes_of[from]).collect();
                let mut groups: BTreeMap<String, Vec<InstanceId>> = BTreeMap::new();
                for id in ranges[from].clone() {
                    groups.entry(projection(&out[id].axes, &shared)).or_default().push(id);
                }
                (need, shared, groups)
            })
            .collect();
        let mut made = Vec::with_capacity(stage.instances.len());
        for (axes, params) in stage.instances {
            let name = name_of(&stage.name, &axes);
            let mut needs: Vec<Need> = Vec::new();
            for (need, shared, groups) in &tables {
                let wanted = projection(&axes, shared);
                let found = groups.get(&wanted).map_or(&[][..], Vec::as_slice);
                if found.is_empty() {
                    let message = format!("`{name}` needs `{}`, which has no instance [{wanted}]", need.from);
                    let hint = format!("exclude the combination here, or add it to `{}`", need.from);
                    diagnostics.add(&need.span, message, Some(hint));
                }
                inputs += found.len();
                if inputs > MOST {
                    let message = format!(
                        "the instances would read more than {MOST} inputs: each of `{}` reads {} of `{}`",
                        stage.name,
                        found.len(),
                        need.from
                    );
                    let hint = "give both an axis by which each reads its own".to_owned();
                    diagnostics.add(&need.span, message, Some(hint));
                    return Vec::new();
                }
                needs.extend(found.iter().map(|&from| Need { role: need.role.clone(), from }));
            }
            for (need, ..) in tables.iter().filter(|(need, ..)| !need.many) {
                let found: Vec<_> = needs.iter().filter(|n| n.role == need.role).collect();
                if let [first, second, ..] = found.as_slice() {
                    let message = format!(
                        "the role `{}` of stage `{}` takes one instance, but `{name}` has {}: `{}`, `{}`{}",
                        need.role,
                        stage.name,
                        found.len(),
                        out[first.from].name,
                        out[second.from].name,
                        if found.len() > 2 { ", ..." } else { "" },
                    );
                    // Those that tell what it has apart.
                    let differs = |axis: &&String| {
                        found.iter().any(|n| out[n.from].axes.get(*axis) != out[first.from].axes.get(*axis))
                    };
                    let missing = axes_of[index[&need.from]].difference(&axes_of[at]).filter(differs);
                    let missing: Vec<_> = missing.map(|axis| format!("`{axis}`")).collect();
                    let hint = match missing.as_slice() {
                        [] => "name one stage".to_owned(),
                        [axis] => format!("give `{}` the axis {axis} too", stage.name),
                        axes => format!("give `{}` the axes {} too", stage.name, axes.join(", ")),
                    };
                    diagnostics.add(&need.span, message, Some(hint));
                }
            }
            needs.sort_by(|a, b| {
                (a.role.as_str(), &out[a.from].name).cmp(&(b.role.as_str(), &out[b.from].name))
            });
            made.push(Instance {
                name,
                stage: stage.name.clone(),
                axes,
                kind: stage.kind.clone(),
                params,
                needs,
                resources: stage.resources,
            });
            if diagnostics.list.len() >= 20 {
                return Vec::new();
            }
        }
        out.extend(made);
        ranges[at] = start..out.len();
    }
    out
}

/// An axis that neither decides a result nor tells inputs apart would make one result several times, under names
/// that say otherwise.
fn refuse_idle_axes(stages: &[Stage], index: &BTreeMap<String, usize>, diagnostics: &mut Diagnostics) {
    for stage in stages {
        for Joining { axis, span, hint } in &stage.joining {
            let from = |need: &StageNeed| index.get(&need.from).map(|&at| &stages[at]);
            // Of a stage that is missing because something is wrong with it nobody knows.
            if stage.needs.iter().all(|need| from(need).is_some_and(|from| !from.axes.contains(axis))) {
                let message = format!(
                    "the axis `{axis}` of `{}` does nothing: it is no parameter of the stage and no axis of \
                     what it needs",
                    stage.name
                );
                diagnostics.add(span, message, hint.clone());
            }
        }
    }
}

/// A role that reads one file of what fills it, filled by what has none.
pub(super) fn refuse_wrong_kinds(stages: &[Stage], diagnostics: &mut Diagnostics) {
    let index: BTreeMap<&str, &Stage> = stages.iter().map(|stage| (stage.name.as_str(), stage)).collect();
    for (stage, need) in stages.iter().flat_map(|stage| stage.needs.iter().map(move |need| (stage, need))) {
        let Some(Wanted { kinds, file }) = stage.kind.wants(&need.role) else { continue };
        let Some(from) = index.get(need.from.as_str()).filter(|from| !from.instances.is_empty()) else {
            continue;
        };
        // What a command makes is what it says.
        let makes = |(_, params): &(Axes, Params)| {
            let made = from.kind.command(params).map(|command| command.outputs);
            made.is_some_and(|made| made.iter().any(|path| path.as_path() == Path::new(file)))
        };
        if kinds.contains(&from.kind.name()) || from.instances.iter().any(makes) {
            continue;
        }
        let (role, kind, wanted) = (&need.role, from.kind.name(), kinds[0]);
        let message = format!(
            "`{role}` of `{}` wants an instance of kind `{wanted}`, and `{}` is of kind `{kind}`",
            stage.name, from.name
        );
        let fitting =
            stages.iter().filter(|other| other.kind.name() == wanted).map(|other| other.name.as_str());
        let fitting = choices(&fitting.collect::<Vec<_>>());
        let hint = if from.instances.iter().any(|(_, params)| from.kind.command(params).is_some()) {
            format!("if it makes one, name the file in its `outputs`: `{file}`")
        } else {
            fitting.map_or_else(
                || format!("add a stage of kind `{wanted}`"),
                |those| format!("of that kind {those}"),
            )
        };
        diagnostics.add(&need.key, message, Some(hint));
    }
}

fn projection(axes: &Axes, shared: &[&String]) -> String {
    pairs(shared.iter().filter_map(|axis| axes.get_key_value(*axis)))
}

/// The stages so that needs come first, otherwise in order of the file. Cycles are diagnosed.
fn order(stages: &[Stage], index: &BTreeMap<String, usize>, diagnostics: &mut Diagnostics) -> Vec<usize> {
    let needs: Vec<BTreeSet<usize>> = stages
        .iter()
        .map(|stage| stage.needs.iter().filter_map(|need| index.get(&need.from).copied()).collect())
        .collect();
    let mut users = vec![Vec::new(); stages.len()];
    let mut open: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    for (at, needs) in needs.iter().enumerate() {
        for &need in needs {
            users[need].push(at);
        }
    }
    let mut ready: BinaryHeap<_> = (0..stages.len()).filter(|&at| open[at] == 0).map(Reverse).collect();
    let mut out = Vec::with_capacity(stages.len());
    while let Some(Reverse(at)) = ready.pop() {
        out.push(at);
        for &user in &users[at] {
            open[user] -= 1;
            if open[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    // Every stage left over needs another one left over: following them leads into a cycle.
    let mut visited = vec![false; stages.len()];
    for start in (0..stages.len()).filter(|&at| open[at] > 0) {
        let mut path: Vec<usize> = Vec::new();
        let mut at = start;
        while !visited[at] {
            visited[at] = true;
            path.push(at);
            match needs[at].iter().find(|&&need| open[need] > 0) {
                Some(&next) => at = next,
                None => break,
            }
        }
        if let Some(first) =
            path.iter().position(|&p| p == at).filter(|_| needs[at].iter().any(|&n| open[n] > 0))
        {
            report_cycle(stages, &mut path[first..], diagnostics);
        }
    }
    out
}

fn report_cycle(stages: &[Stage], cycle: &mut [usize], diagnostics: &mut Diagnostics) {
    let least = cycle.iter().enumerate().min_by_key(|(_, stage)| **stage).map_or(0, |(at, _)| at);
    cycle.rotate_left(least);
    let name = |at: usize| stages[at].name.as_str();
    let mut names: Vec<&str> = cycle.iter().map(|&at| name(at)).collect();
    names.push(name(cycle[0]));
    let first = &stages[cycle[0]];
    let span = first.needs.iter().find(|need| need.from == names[1]).map_or(&first.key, |need| &need.span);
    let hint = "remove one of these needs".to_owned();
    diagnostics.add(span, format!("the stages need each other: {}", names.join(" -> ")), Some(hint));
}
