//! Which difference costs what? A row for each setting that a network was trained with, named by how it
//! differs from the paper's or the origin's, whose published numbers stand beside it.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Series, TOP1, counted, grouped_all, look};
use crate::{
    plot::chart::{Dashes, Look, Point},
    results::{Departure, Evaluation, Line, Network, Statistics},
};

pub(super) fn ablation(given: &Given<'_>) -> Vec<Drawing> {
    // What trains no scales lies far off, and would press the rows that differ little together.
    let groups = grouped_all(given.results, Line::trains_scales);
    let mut networks = BTreeMap::<&Network, BTreeMap<&Departure, Vec<&Evaluation>>>::new();
    for (line, runs) in &groups {
        // One axis that the figure has no words for, and rows would not say what they are.
        let Some(row) = line.departure() else { return Vec::new() };
        for (network, runs) in runs {
            networks.entry(network).or_default().entry(row).or_default().extend(runs);
        }
    }
    networks.into_iter().filter_map(|(network, rows)| drawing(given, network, &rows)).collect()
}

fn drawing(
    given: &Given<'_>,
    network: &Network,
    rows: &BTreeMap<&Departure, Vec<&Evaluation>>,
) -> Option<Drawing> {
    // Between the ends there is something to compare.
    if rows.len() < 3 {
        return None;
    }
    let mut modes = BTreeMap::<Line, Vec<(Point, usize)>>::new();
    for (place, runs) in rows.values().enumerate() {
        let mut values = BTreeMap::<Line, BTreeMap<_, f64>>::new();
        for run in runs {
            let mode = Line::new(run.line.mode(), run.line.k(), Vec::new());
            // Settings that come to the same make one training of a seed.
            let seed = (run.axes.get("seed").map(ToString::to_string), run.metrics.seed);
            values.entry(mode).or_default().entry(seed).or_insert_with(|| run.top1());
        }
        for (mode, values) in values {
            let Some(s) = Statistics::of(values.into_values()) else { continue };
            modes.entry(mode).or_default().push(((place as f64, s.mean, s.spread()), s.n));
        }
    }
    let mut series = Vec::new();
    for (mode, points) in &modes {
        let (points, n): (Vec<_>, Vec<_>) = points.iter().copied().unzip();
        let look = Look { dashes: Dashes::None, ..look(mode, 0) };
        let whose = if given.published.is_empty() { "" } else { "ours: " };
        series.push(Series { label: counted(&format!("{whose}{}", mode.label()), &n), look, points });
    }
    let mut sources = Vec::new();
    for source in given.published {
        let Some(place) = rows.keys().position(|row| row.is_protocol_of(&source.id)) else { continue };
        for (mode, published) in source.lines().filter(|(mode, _)| modes.contains_key(mode)) {
            let Some((_, value)) = published.iter().find(|(of, _)| of == network) else { continue };
            let look = Look { hollow: true, dashes: Dashes::None, ..look(&mode, 0) };
            let label = format!("{}: {}", source.label, mode.label());
            series.push(Series { label, look, points: vec![(place as f64, *value, None)] });
            sources.push(source);
        }
    }
    sources.dedup();
    let ends = rows.keys().next().is_some_and(|row| row.is_protocol_of("paper"))
        && rows.keys().next_back().is_some_and(|row| row.is_protocol_of("origin"))
        && rows.keys().all(|row| row.differences() < 2);
    let words = if ends {
        "with the paper's stride, initial scales, shortcuts and weight decay (first row), with those of the reproduction \
         called origin (last row), and with one difference at a time in between: how far a row lies from its end is what \
         that difference is worth."
    } else {
        "trained in several ways, each named by how it differs from the paper's or from that of the reproduction called \
         origin."
    };
    let chance = if modes.values().flatten().all(|(_, n)| *n == 1) {
        " One seed each: differences of a point or two may be chance."
    } else {
        ""
    };
    let caption = format!(
        "Test accuracy of {} {words}{chance}{}",
        network.label(),
        given.others("Empty marks", &sources)
    );
    let chart = Chart {
        title: format!("Which difference costs what? {}", network.label()),
        x: Axis::words("", rows.keys().map(|row| row.name()).collect()),
        y: Axis::linear(TOP1),
        series,
        rows: true,
    };
    Some(Drawing { name: format!("ablation-{}", crate::plot::file_name(network.name())), caption, chart })
}
