//! Channels that are zero on nearly every image. Knows where `features.json` counts them.

use std::collections::BTreeMap;

use super::{
    Axis, Chart, Drawing, Given, MANY, Places, Series, counted, crossed, grouped, in_parts, looks,
    over_places,
};
use crate::results::Evaluation;

/// A part of the channels: in the legend, and its share of dead ones.
type Part = (&'static str, fn(&Evaluation) -> Option<f64>);

const PARTS: [Part; 3] = [
    ("all channels", |run| Some(run.features.as_ref()?.all.dead_99)),
    ("behind BatchNorm", |run| Some(run.features.as_ref()?.after_bn.as_ref()?.dead_99)),
    ("behind an addition", |run| Some(run.features.as_ref()?.after_addition.as_ref()?.dead_99)),
];

pub(super) fn dead(given: &Given<'_>) -> Vec<Drawing> {
    Places::all(given.results).iter().map(|places| drawing(given, places)).collect()
}

fn drawing(given: &Given<'_>, places: &Places) -> Drawing {
    let groups = grouped(given.results, |_| true);
    let many = groups.len() > MANY;
    let parts = if many { &PARTS[..1] } else { &PARTS[..] };
    let mut series = Vec::new();
    let added =
        |run: &Evaluation| run.features.as_ref().is_some_and(|features| features.after_addition.is_some());
    let older = !many && groups.values().flat_map(BTreeMap::values).flatten().any(|run| added(run));
    let shown = in_parts(&looks(groups.keys().copied()), parts.len());
    for ((line, runs), shown) in groups.iter().zip(shown) {
        // Without additions all are behind a BatchNorm.
        let both = runs.values().flatten().any(|run| added(run));
        for (&(part, share), look) in if both { parts } else { &parts[..1] }.iter().zip(shown) {
            let (points, n) = over_places(places, runs, |run| Some(100.0 * share(run)?));
            if !points.is_empty() {
                let label = if many { line.label() } else { format!("{}, {part}", line.label()) };
                let label = counted(&label, &n);
                series.push(Series { label, look, points });
            }
        }
    }
    let (title, axis, all) = ("Dead features", "dead channels (%)", PARTS[0].1);
    let crossed = crossed::chart(&groups, title, |run| Some(100.0 * all(run)?), axis);
    let caption = format!(
        "Share of channels behind a ReLU that are zero at 99 % or more of all positions of the test images: features \
         that are hardly ever active.{}",
        match crossed {
            Some(_) => "",
            None if many => " Counted are all channels, straight behind a BatchNorm or behind an addition.",
            None if older => " Those behind the addition of a shortcut carry older features on.",
            None => "",
        }
    );
    let chart = crossed.unwrap_or_else(|| {
        let (title, x, y) = (places.title(title), places.axis(), Axis::linear(axis));
        Chart { title, x, y, series, rows: false }.dodged()
    });
    Drawing { name: format!("dead-by-{}", places.family.name()), caption, chart }
}
