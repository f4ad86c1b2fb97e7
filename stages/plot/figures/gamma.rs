//! BatchNorm's scales after training: their distribution, the share near zero, and what setting those
//! to zero costs. Knows `gamma.json`'s thresholds.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Axis, Chart, Drawing, Given, MANY, Places, Series, counted, crossed, entitled, grouped, in_parts, looks,
    over_places,
};
use crate::{
    plot::chart::Point,
    results::{Evaluation, Gammas, Histogram, Line, Network, Statistics},
};

const THRESHOLDS: [f64; 3] = [0.01, 0.05, 0.1];

/// What frozen shortcuts, as the origin has them, leave in the figure.
const FROZEN: &str = " The narrow peak at 1 with BatchNorm only is the scales of shortcuts that are not trained: they \
                      begin there.";

/// One figure for each network.
pub(super) fn distribution(given: &Given<'_>) -> Vec<Drawing> {
    let mut networks = BTreeMap::<&Network, BTreeMap<&Line, Vec<&Gammas>>>::new();
    let mut frozen = BTreeSet::new();
    for run in given.results.evaluations.iter().filter(|run| run.line.trains_scales()) {
        if let Some(gammas) = &run.gammas {
            networks.entry(&run.network).or_default().entry(&run.line).or_default().push(gammas);
            let mut shortcuts = gammas.layers.iter().filter(|layer| layer.shortcut).peekable();
            let frozen_at_1 =
                shortcuts.peek().is_some() && shortcuts.all(|layer| [layer.min, layer.max] == [1.0; 2]);
            if run.line.mode() == "bn" && frozen_at_1 {
                frozen.insert(&run.network);
            }
        }
    }
    let drawing = |(network, lines): (&Network, BTreeMap<&Line, Vec<&Gammas>>)| {
        let mut series = Vec::new();
        let title = format!("Distribution of BatchNorm's scales in {}", network.label());
        let (title, name) = entitled(title, lines.keys().copied());
        for ((line, runs), look) in lines.iter().zip(looks(lines.keys().copied())) {
            let label = counted(&name(line), &[runs.len()]);
            series.push(Series { label, look, points: density(runs) });
        }
        let caption = format!(
            "How BatchNorm's scales (gamma) are distributed in the trained {}: the higher a line, the more scales have \
             that value. A peak at 0 means channels whose input hardly counts. {}{}",
            network.label(),
            outside(lines.values().flatten()),
            if frozen.contains(network) { FROZEN } else { "" }
        );
        let chart = Chart {
            title,
            x: Axis::linear("gamma"),
            y: Axis::linear("density (share of the scales in an interval of 1)"),
            series,
            rows: false,
        };
        Drawing { name: format!("gamma-{}", crate::plot::file_name(network.name())), caption, chart }
    };
    networks.into_iter().map(drawing).collect()
}

/// What the figure leaves out: of which scales, and how large a share of a network's at most.
fn outside<'a>(runs: impl Iterator<Item = &'a &'a Gammas>) -> String {
    let histograms: Vec<_> = runs.map(|gammas| &gammas.histogram).collect();
    let Some(Histogram { from, to, .. }) = histograms.first() else { return String::new() };
    let share = |h: &&Histogram| 100.0 * h.outside() / h.total().max(1.0);
    let most = histograms.iter().map(share).fold(0.0, f64::max);
    if most == 0.0 {
        return format!("No scale lies below {from} or above {to}.");
    }
    format!("Scales below {from} or above {to} are left out: {most:.1} % of a network's at most.")
}

/// Density in the middle of each interval, without the empty ones at both ends; of all scales, so that lines that lose
/// more of them outside lie lower.
fn density(runs: &[&Gammas]) -> Vec<Point> {
    // By place in millionths: a command's histograms may have other intervals.
    let mut places = BTreeMap::<i64, (f64, Vec<f64>)>::new();
    for histogram in runs.iter().map(|gammas| &gammas.histogram) {
        let (Histogram { from, to, counts, .. }, total) = (histogram, histogram.total());
        let width = (to - from) / counts.len() as f64;
        for (index, count) in counts.iter().enumerate().filter(|_| total > 0.0) {
            let place = from + (index as f64 + 0.5) * width;
            let (_, values) = places.entry((1e6 * place).round() as i64).or_insert((place, Vec::new()));
            values.push(*count as f64 / (total * width));
        }
    }
    let points: Vec<_> = places
        .into_values()
        .filter_map(|(place, values)| {
            let s = Statistics::of(values)?;
            Some((place, s.mean, s.spread()))
        })
        .collect();
    let inhabited = |point: &Point| point.1 > 0.0;
    let Some(first) = points.iter().position(inhabited) else { return Vec::new() };
    let last = points.iter().rposition(inhabited).unwrap_or(first);
    points[first..=last].to_vec()
}

/// Share of scales near zero, by family.
pub(super) fn small(given: &Given<'_>) -> Vec<Drawing> {
    let share = |run: &Evaluation, threshold: f64| {
        let all = &run.gammas.as_ref()?.all;
        let shares = [all.below_001, all.below_005, all.below_01];
        Some(100.0 * shares[THRESHOLDS.iter().position(|of| *of == threshold)?])
    };
    let shares = Axis::linear_with("share of scales (%)", &[0.0]);
    let drawing = |places: &Places| {
        let caption = "Share of BatchNorm's scales that are nearer to zero than a threshold after training: a channel with \
                       such a scale hardly depends on its input."
            .into();
        let chart = by_threshold(given, places, "Scales near zero", share, &shares).dodged();
        Drawing { name: format!("small-gamma-by-{}", places.family.name()), caption, chart }
    };
    Places::all(given.results).iter().map(drawing).collect()
}

/// What setting them to zero costs, by family.
pub(super) fn zeroing(given: &Given<'_>) -> Vec<Drawing> {
    let change = |run: &Evaluation, threshold| run.gammas.as_ref()?.change_without(threshold);
    // A tenth of a point is ten images.
    let points = Axis::linear_with("change of test accuracy (points)", &[-1.0, 1.0]);
    let drawing = |places: &Places| {
        let caption =
            "How the test accuracy changes when every scale nearer to zero than a threshold is set to zero, \
                       without more training: at 0 they were not needed."
                .into();
        let title = "Change when small scales are set to zero";
        let chart = by_threshold(given, places, title, change, &points).dodged();
        Drawing { name: format!("zeroing-by-{}", places.family.name()), caption, chart }
    };
    Places::all(given.results).iter().map(drawing).collect()
}

/// A line for each mode and threshold.
fn by_threshold(
    given: &Given<'_>,
    places: &Places,
    title: &str,
    value: impl Fn(&Evaluation, f64) -> Option<f64>,
    y: &Axis,
) -> Chart {
    let groups = grouped(given.results, Line::trains_scales);
    let least = THRESHOLDS[0];
    let below = format!("{title} (below {least})");
    if let Some(chart) = crossed::chart(&groups, &below, |run| value(run, least), y.clone()) {
        return chart;
    }
    let thresholds = if groups.len() > MANY { &THRESHOLDS[..1] } else { &THRESHOLDS[..] };
    let mut series = Vec::new();
    let shown = in_parts(&looks(groups.keys().copied()), thresholds.len());
    for ((line, runs), shown) in groups.iter().zip(shown) {
        for (&threshold, look) in thresholds.iter().zip(shown) {
            let (points, n) = over_places(places, runs, |run| value(run, threshold));
            if !points.is_empty() {
                let label = counted(&format!("{}, below {threshold}", line.label()), &n);
                series.push(Series { label, look, points });
            }
        }
    }
    Chart { title: places.title(title), x: places.axis(), y: y.clone(), series, rows: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_of_other_intervals_keep_their_places_and_large_counts_add_up() {
        let of = |from: f64, to: f64, count: u64| -> Gammas {
            let text = format!(
                r#"{{"all":{{"below_001":0,"below_005":0,"below_01":0}},
                    "histogram":{{"from":{from},"to":{to},"counts":[0,{count},0,0],"below":0,"above":{count}}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let (wide, narrow, many) = (of(-2.0, 2.0, 5), of(0.0, 2.0, 5), of(-2.0, 2.0, u64::MAX));
        let places = |runs: &[&Gammas]| density(runs).iter().map(|point| point.0).collect::<Vec<_>>();
        assert_eq!(places(&[&wide]), [-0.5]);
        assert_eq!(places(&[&narrow]), [0.75]);
        let both = density(&[&wide, &narrow]);
        assert_eq!((both[0].0, both[both.len() - 1].0), (-0.5, 0.75), "{both:?}");
        assert_eq!(density(&[&many])[0].1, 0.5);
    }
}
