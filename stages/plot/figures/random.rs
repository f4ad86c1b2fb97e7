//! From how many random weights on do they reach BatchNorm? One figure for each network.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Series, TOP1, counted, look};
use crate::{
    plot::chart::{Dashes, Look},
    results::{Evaluation, Line, Network, Statistics},
};

pub(super) fn random(given: &Given<'_>) -> Vec<Drawing> {
    let mut networks = BTreeMap::<&Network, Vec<&Evaluation>>::new();
    for evaluation in &given.results.evaluations {
        networks.entry(&evaluation.network).or_default().push(evaluation);
    }
    networks.into_iter().filter_map(|(network, runs)| drawing(network, &runs)).collect()
}

fn drawing(network: &Network, runs: &[&Evaluation]) -> Option<Drawing> {
    let mut by_k = BTreeMap::<u64, Vec<f64>>::new();
    for run in runs.iter().filter(|run| run.line.is_plain()) {
        if let Some(k) = run.line.k() {
            by_k.entry(k).or_default().push(run.top1());
        }
    }
    let (points, n): (Vec<_>, Vec<_>) = by_k
        .into_iter()
        .filter_map(|(k, values)| Statistics::of(values).map(|s| ((k as f64, s.mean, s.spread()), s.n)))
        .unzip();
    let (first, last) = (points.first()?.0, points.last()?.0);
    let values: Vec<_> = points.iter().map(|point| point.0).collect();
    // A single k is no line.
    if first >= last {
        return None;
    }
    let many = Line::new("random", Some(2), Vec::new());
    let mut series =
        vec![Series { label: counted("k random weights of each filter", &n), look: look(&many, 0), points }];
    let mut instead = Vec::new();
    for (mode, what) in [("bn", "BatchNorm"), ("all", "everything")] {
        let of_mode = runs.iter().filter(|run| run.line.is_plain() && run.line.mode() == mode);
        let Some(s) = Statistics::of(of_mode.map(|run| run.top1())) else { continue };
        let line = Line::new(mode, None, Vec::new());
        let look = Look { dashes: Dashes::Long, ..look(&line, 0) };
        let points = vec![(first, s.mean, s.spread()), (last, s.mean, s.spread())];
        series.push(Series { label: counted(&line.label(), &[s.n]), look, points });
        instead.push(what);
    }
    let level = if instead.is_empty() {
        String::new()
    } else {
        format!(
            " A level line is the same network with {} trained instead: where the curve crosses one, so many random weights \
             are worth as much.",
            instead.join(" or ")
        )
    };
    let caption = format!(
        "Test accuracy of {} when k randomly chosen weights of each filter are trained and nothing else.{level}",
        network.label()
    );
    let chart = Chart {
        title: format!("How many random weights reach BatchNorm? {}", network.label()),
        x: Axis::log_at("k, trained weights of each filter (log scale)", values),
        y: Axis::linear(TOP1),
        series,
        rows: false,
    };
    Some(Drawing { name: format!("random-k-{}", crate::plot::file_name(network.name())), caption, chart })
}
