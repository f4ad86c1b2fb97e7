//! Channels that are zero on nearly every image. Knows where `features.json` counts them.

use std::collections::BTreeMap;

use super::{
    Axis, Chart, Drawing, Given, Line, MANY, Network, Places, Series, Statistics, counted, crossed, grouped,
    in_parts, looks, over_places,
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
    // With so many lines only that with the most dead channels is shown in parts.
    let most = |(_, runs): &(&&Line, &BTreeMap<&Network, Vec<&Evaluation>>)| {
        let all = runs.values().flatten().filter_map(|run| PARTS[0].1(run));
        Statistics::of(all).map_or(0.0, |share| share.mean)
    };
    let most = groups.iter().max_by(|a, b| most(a).total_cmp(&most(b))).map(|(line, _)| *line);
    let mut series = Vec::new();
    let added =
        |run: &Evaluation| run.features.as_ref().is_some_and(|features| features.after_addition.is_some());
    let older = groups.values().flat_map(BTreeMap::values).flatten().any(|run| added(run));
    let looks = looks(groups.keys().copied());
    for (((line, runs), look), parts) in groups.iter().zip(&looks).zip(in_parts(&looks, PARTS.len())) {
        // Without additions all are behind a BatchNorm.
        let both = runs.values().flatten().any(|run| added(run));
        let divided = both && (!many || most == Some(*line));
        let shown = if divided { parts } else { vec![*look] };
        for (&(part, share), look) in PARTS.iter().zip(shown) {
            let (points, n) = over_places(places, runs, |run| Some(100.0 * share(run)?));
            if !points.is_empty() {
                let label = if many && !divided { line.label() } else { format!("{}, {part}", line.label()) };
                let label = counted(&label, &n);
                series.push(Series { label, look, points });
            }
        }
    }
    let (title, all) = ("Dead features", PARTS[0].1);
    let y = Axis::linear_with("dead channels (%)", &[0.0]);
    let crossed = crossed::chart(&groups, title, |run| Some(100.0 * all(run)?), y.clone());
    let caption = format!(
        "Share of channels behind a ReLU that are zero at 99 % or more of all positions of the test images: features \
         that are hardly ever active.{}",
        match crossed {
            Some(_) => "",
            None if many && older => {
                " Counted are all channels, and, where most are dead, those straight behind a BatchNorm and those behind the \
                 addition of a shortcut, which carry older features on."
            }
            None if older => " Those behind the addition of a shortcut carry older features on.",
            None => "",
        }
    );
    let chart = crossed.unwrap_or_else(|| {
        Chart { title: places.title(title), x: places.axis(), y, series, rows: false }.dodged()
    });
    Drawing { name: format!("dead-by-{}", places.family.name()), caption, chart }
}
