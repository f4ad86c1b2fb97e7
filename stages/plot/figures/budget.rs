//! What a trained value is worth: accuracy by BatchNorm's budget, and by the number of trained values.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Series, TOP1, counted, grouped_all, look, looks};
use crate::{
    plot::chart::{Dashes, Look, Marker},
    results::{Evaluation, Family, Statistics},
};

/// Depth against width, in mode `bn`, where what is trained is BatchNorm's budget.
pub(super) fn budget(given: &Given<'_>) -> Vec<Drawing> {
    let groups = grouped_all(given.results, |line| line.mode() == "bn");
    let mut series = Vec::new();
    for (line, runs) in &groups {
        for (family, marker, dashes, words) in [
            (Family::Depth, Marker::Circle, Dashes::Solid, "deeper and deeper ResNets"),
            (Family::Width, Marker::Square, Dashes::Long, "wider and wider ResNet-14s"),
        ] {
            let of = runs.iter().filter(|(network, _)| network.tick(family).is_some()).map(|(_, runs)| runs);
            let (points, n) = by_trained(of);
            if points.len() > 1 {
                let words = if line.is_plain() { words.into() } else { format!("{words}, {}", line.label()) };
                let look = Look { marker, dashes, ..look(line, 0) };
                series.push(Series { label: counted(&words, &n), look, points });
            }
        }
    }
    // One family alone has nothing to be compared with.
    if series.len() < 2 {
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
    // A single point compares nothing.
    if series.iter().map(|s| s.points.len()).sum::<usize>() < 2 {
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

/// Points by number of trained values, in that order, and how many runs stand behind each.
fn by_trained<'a>(
    groups: impl Iterator<Item = &'a Vec<&'a Evaluation>>,
) -> (Vec<(f64, f64, f64)>, Vec<usize>) {
    let mut places = BTreeMap::<u64, Vec<f64>>::new();
    for run in groups.flatten() {
        // A logarithmic axis has no place for none.
        if let Some(trained) = run.metrics.trained.filter(|trained| *trained > 0) {
            places.entry(trained).or_default().push(100.0 * run.metrics.top1);
        }
    }
    let points = places.into_iter().filter_map(|(trained, values)| {
        let Statistics { mean, sd, n } = Statistics::of(values)?;
        Some(((trained as f64, mean, sd), n))
    });
    points.unzip()
}
