//! What a trained value is worth: accuracy by BatchNorm's budget, and by the number of trained values.

use std::collections::BTreeSet;

use super::{Axis, Chart, Drawing, Given, Places, Series, TOP1, counted, grouped_all, in_parts, looks};
use crate::{
    plot::chart::{Dashes, Look, Point},
    results::{Evaluation, Family, Statistics},
};

/// Depth against width, in mode `bn`, where what is trained is BatchNorm's budget.
pub(super) fn budget(given: &Given<'_>) -> Vec<Drawing> {
    let groups = grouped_all(given.results, |line| line.mode() == "bn");
    let networks = || groups.values().flat_map(|runs| runs.keys().copied());
    // One family alone has nothing to be compared with.
    let [Some(deep), Some(wide)] = [Family::Depth, Family::Width].map(|of| Places::new(of, networks()))
    else {
        return Vec::new();
    };
    let (mut series, mut families) = (Vec::new(), Vec::new());
    let shown = in_parts(&looks(groups.keys().copied()), 2);
    for ((line, runs), shown) in groups.iter().zip(shown) {
        let ways = [(&deep, "deeper and deeper ResNets"), (&wide, "wider and wider ResNets")];
        for ((places, words), look) in ways.into_iter().zip(shown) {
            let of = runs.iter().filter(|(network, _)| places.of(network).is_some()).map(|(_, runs)| runs);
            let (points, n) = by_trained(of);
            if points.len() > 1 {
                let words = if line.is_plain() { words.into() } else { format!("{words}, {}", line.label()) };
                series.push(Series { label: counted(&words, &n), look, points });
                families.push(places.family);
            }
        }
    }
    if ![Family::Depth, Family::Width].iter().all(|family| families.contains(family)) {
        return Vec::new();
    }
    let caption = "Test accuracy when only BatchNorm is trained, by how many values BatchNorm has: where one line lies \
                   above the other, that way of spending values is the better one."
        .into();
    let chart = Chart {
        title: "Depth or width: accuracy by BatchNorm's budget".into(),
        x: Axis::log("trained BatchNorm values (log scale)"),
        y: Axis::linear(TOP1),
        series,
        rows: false,
    };
    vec![Drawing { name: "budget".into(), caption, chart }]
}

/// All networks and modes by the number of values that were trained.
pub(super) fn trained(given: &Given<'_>) -> Vec<Drawing> {
    let groups = grouped_all(given.results, |_| true);
    let mut series = Vec::new();
    for ((line, runs), look) in groups.iter().zip(looks(groups.keys().copied())) {
        let (points, n) = by_trained(runs.values());
        if !points.is_empty() {
            series.push(Series {
                label: counted(&line.label(), &n),
                look: Look { dashes: Dashes::None, ..look },
                points,
            });
        }
    }
    // A single number of values compares nothing.
    let numbers = series.iter().flat_map(|s| s.points.iter().map(|point| point.0.to_bits()));
    if numbers.collect::<BTreeSet<_>>().len() < 2 {
        return Vec::new();
    }
    let caption =
        "Test accuracy by the number of values that were trained, one point for each network.".into();
    let chart = Chart {
        title: "Accuracy by number of trained values".into(),
        x: Axis::log("trained values (log scale)"),
        y: Axis::linear(TOP1),
        series,
        rows: false,
    };
    vec![Drawing { name: "accuracy-by-trained".into(), caption, chart }]
}

/// A point for each network, of which these are the runs, by number of trained values; and how many runs stand
/// behind each.
fn by_trained<'a>(networks: impl Iterator<Item = &'a Vec<&'a Evaluation>>) -> (Vec<Point>, Vec<usize>) {
    let point = |runs: &'a Vec<&'a Evaluation>| {
        // A logarithmic axis has no place for none.
        let trained = runs.iter().find_map(|run| run.metrics.trained).filter(|trained| *trained > 0)?;
        let s = Statistics::of(runs.iter().map(|run| run.top1()))?;
        Some(((trained as f64, s.mean, s.spread()), s.n))
    };
    let mut points: Vec<_> = networks.filter_map(point).collect();
    points.sort_by(|(a, _), (b, _)| a.0.total_cmp(&b.0));
    points.into_iter().unzip()
}
