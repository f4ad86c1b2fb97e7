//! What is stored: a checkpoint of what was trained, against all weights.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Places, Series, grouped, looks, over_places};
use crate::{
    plot::chart::{Dashes, Look, Marker},
    results::{Evaluation, Network},
};

pub(super) fn size(given: &Given<'_>) -> Vec<Drawing> {
    Places::all(given.results).iter().map(|places| drawing(given, places)).collect()
}

fn drawing(given: &Given<'_>, places: &Places) -> Drawing {
    let groups = grouped(given.results, |_| true);
    let mut series = Vec::new();
    let kilobytes = |bytes: Option<u64>| Some(bytes? as f64 / 1000.0);
    for ((line, runs), look) in groups.iter().zip(looks(groups.keys().copied())) {
        let of = |run: &Evaluation| kilobytes(run.metrics.checkpoint_bytes);
        let (points, _) = over_places(places, runs, of);
        if !points.is_empty() {
            series.push(Series { label: format!("checkpoint: {}", line.label()), look, points });
        }
    }
    // A network's size is nearly the same in every line: one run of it is enough.
    let mut all = BTreeMap::<&Network, Vec<&Evaluation>>::new();
    for (network, runs) in groups.values().flatten() {
        all.entry(*network).or_insert_with(|| runs.iter().take(1).copied().collect());
    }
    let (weights, _) = over_places(places, &all, |run| kilobytes(run.metrics.weights_bytes));
    let black = plotters::style::RGBColor(0, 0, 0);
    let look = Look { color: black, dashes: Dashes::Dots, marker: Marker::Fall, hollow: true };
    series.push(Series { label: "all numbers of the network".into(), look, points: weights });
    Drawing {
        name: format!("size-by-{}", places.family.name()),
        caption: "What must be stored of a trained network: the checkpoint holds only what was trained and BatchNorm's \
                  running statistics, because the seed draws everything else again."
            .into(),
        chart: Chart {
            title: places.title("Size of what is stored"),
            x: places.axis(),
            y: Axis::log("kilobytes (log scale)"),
            series,
            rows: false,
        }
        .dodged(),
    }
}
