//! What is stored: a checkpoint of what was trained, against all weights.

use super::{Axis, Chart, Drawing, Given, Places, Series, grouped, looks, over_places};
use crate::{
    plot::chart::{Dashes, Look, Marker},
    results::Evaluation,
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
    // Every line's networks have the same weights: one of them is enough.
    let mut weights = Vec::new();
    for runs in groups.values() {
        let (points, _) = over_places(places, runs, |run| kilobytes(run.metrics.weights_bytes));
        if points.len() > weights.len() {
            weights = points;
        }
    }
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
        },
    }
}
