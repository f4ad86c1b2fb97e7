//! Which difference costs what? A row for each setting that a network was trained with, named by how it
//! differs from the paper's or the origin's, whose published numbers stand beside it. Knows which settings are
//! whose, not which experiment varied them.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Series, TOP1, counted, grouped_all, look, others};
use crate::{
    plot::chart::{Dashes, Look},
    results::{Evaluation, Line, Network, Statistics, setting},
};

/// How someone trains.
struct Protocol {
    /// Of the source that published its results.
    id: &'static str,
    words: &'static str,
    /// Axis and value.
    settings: [(&'static str, &'static str); 4],
}

const PAPER: Protocol = Protocol {
    id: "paper",
    words: "the paper's",
    settings: [
        ("variant", "paper"),
        ("bn_init", "uniform"),
        ("shortcut_bn", "trained"),
        ("weight_decay", "0.0001"),
    ],
};
const ORIGIN: Protocol = Protocol {
    id: "origin",
    words: "the origin's",
    settings: [
        ("variant", "origin"),
        ("bn_init", "fixed"),
        ("shortcut_bn", "frozen"),
        ("weight_decay", "0.0"),
    ],
};

/// Where a setting stands: from the paper's protocol down, up from the origin's, by which settings differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    of_origin: bool,
    rank: isize,
    differences: Vec<(usize, String)>,
}

impl Row {
    /// Nothing where the line's axes are others.
    fn of(line: &Line) -> Option<Self> {
        let mut settings: BTreeMap<&str, &str> = BTreeMap::new();
        for (axis, value) in line.others() {
            if !PAPER.settings.iter().any(|(known, _)| known == axis) {
                return None;
            }
            settings.insert(axis, value);
        }
        let protocol = if *settings.get("variant")? == "origin" { &ORIGIN } else { &PAPER };
        // What a variant has by itself.
        if settings.get("shortcut_bn") == Some(&"variant") {
            settings.extend(protocol.settings.iter().copied().filter(|(axis, _)| *axis == "shortcut_bn"));
        }
        let [paper, origin] = [&PAPER, &ORIGIN].map(|protocol| protocol.differences(&settings));
        let of_origin = origin.len() < paper.len();
        let differences = if of_origin { origin } else { paper };
        let rank = if of_origin { -(differences.len() as isize) } else { differences.len() as isize };
        Some(Self { of_origin, rank, differences })
    }

    fn protocol(&self) -> &'static Protocol {
        if self.of_origin { &ORIGIN } else { &PAPER }
    }

    fn name(&self) -> String {
        let words = self.protocol().words;
        if self.differences.is_empty() {
            return format!("{words} protocol");
        }
        let differences =
            self.differences.iter().map(|(place, value)| setting(PAPER.settings[*place].0, value));
        format!("{words}, but {}", differences.collect::<Vec<_>>().join(", "))
    }
}

impl Protocol {
    /// Which of `settings` are not its own, by their place, with their values.
    fn differences(&self, settings: &BTreeMap<&str, &str>) -> Vec<(usize, String)> {
        let own = self.settings.iter().enumerate();
        let differs = |(place, (axis, own)): (usize, &(&str, &str))| {
            settings.get(axis).filter(|value| *value != own).map(|value| (place, (*value).to_owned()))
        };
        own.filter_map(differs).collect()
    }
}

pub(super) fn ablation(given: &Given<'_>) -> Vec<Drawing> {
    let groups = grouped_all(given.results, |_| true);
    let mut networks = BTreeMap::<&Network, BTreeMap<Row, Vec<&Evaluation>>>::new();
    for (line, runs) in &groups {
        // One axis that the figure has no words for, and rows would not say what they are.
        let Some(row) = Row::of(line) else { return Vec::new() };
        for (network, runs) in runs {
            networks.entry(network).or_default().entry(row.clone()).or_default().extend(runs);
        }
    }
    networks.into_iter().filter_map(|(network, rows)| drawing(given, network, &rows)).collect()
}

fn drawing(given: &Given<'_>, network: &Network, rows: &BTreeMap<Row, Vec<&Evaluation>>) -> Option<Drawing> {
    // Between the ends there is something to compare.
    if rows.len() < 3 {
        return None;
    }
    let mut modes = BTreeMap::<Line, Vec<((f64, f64, f64), usize)>>::new();
    for (place, runs) in rows.values().enumerate() {
        let mut values = BTreeMap::<Line, Vec<f64>>::new();
        for run in runs {
            let mode = Line::new(run.line.mode(), run.line.k(), Vec::new());
            values.entry(mode).or_default().push(100.0 * run.metrics.top1);
        }
        for (mode, values) in values {
            let Some(s) = Statistics::of(values) else { continue };
            modes.entry(mode).or_default().push(((place as f64, s.mean, s.sd), s.n));
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
        let own = |row: &Row| row.differences.is_empty() && row.protocol().id == source.id;
        let Some(place) = rows.keys().position(own) else { continue };
        for (mode, published) in source.lines().filter(|(mode, _)| modes.contains_key(mode)) {
            let Some((_, value)) = published.iter().find(|(of, _)| of == network) else { continue };
            let look = Look { hollow: true, dashes: Dashes::None, ..look(&mode, 0) };
            let label = format!("{}: {}", source.label, mode.label());
            series.push(Series { label, look, points: vec![(place as f64, *value, 0.0)] });
            sources.push(source);
        }
    }
    sources.dedup();
    let caption = format!(
        "Test accuracy of {} as the paper trains it (first row), as the reproduction called origin does (last row), and \
         with one difference at a time in between: how far a row lies from its end is what that difference is worth.{}",
        network.label(),
        others("Empty marks", &sources)
    );
    let chart = Chart {
        title: format!("Which difference costs what? {}", network.label()),
        x: Axis::words("", rows.keys().map(Row::name).collect()),
        y: Axis::linear(TOP1),
        series,
        rows: true,
    };
    Some(Drawing { name: format!("ablation-{}", crate::plot::file_name(network.name())), caption, chart })
}
