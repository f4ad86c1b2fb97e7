//! The figures by name, and what each needs. One file per sort of figure; each looks for what it can
//! show in the results and answers with as many drawings as there are, or none.

mod ablation;
mod accuracy;
mod budget;
mod crossed;
mod curves;
mod features;
mod gamma;
mod memory;
mod random;
mod size;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    chart::{Axis, Chart, Point, Series},
    look::{in_parts, look, looks},
    published::Source,
};
use crate::results::{Evaluation, Family, Line, Network, Results, Statistics, whose};

/// A figure, or a few of the same sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// Test accuracy by depth, width or VGG depth: BatchNorm only against the other modes.
    Accuracy,
    /// Everything against everything but BatchNorm.
    Affine,
    /// BatchNorm with and without output layer and shortcuts.
    Switches,
    /// Accuracy by number of BatchNorm parameters: depth against width.
    Budget,
    /// Accuracy by number of trained values.
    Trained,
    /// What each difference between the paper's protocol and the origin's costs.
    Ablation,
    /// Accuracy by number of random weights of each filter.
    RandomK,
    /// Accuracy by epoch.
    AccuracyCurves,
    /// Loss by epoch.
    LossCurves,
    /// How the scales are distributed.
    Gamma,
    /// Share of scales near zero.
    SmallGamma,
    /// What setting scales near zero to zero costs.
    Zeroing,
    /// Share of channels that are always zero.
    Dead,
    /// Bytes of a checkpoint against those of all weights.
    Size,
    /// Bytes of a training step's buffers.
    Memory,
}

impl Figure {
    /// All of them, the most important first.
    pub(super) const ALL: [Self; 15] = [
        Self::Ablation,
        Self::Accuracy,
        Self::Affine,
        Self::Switches,
        Self::Budget,
        Self::Trained,
        Self::RandomK,
        Self::AccuracyCurves,
        Self::LossCurves,
        Self::Gamma,
        Self::SmallGamma,
        Self::Zeroing,
        Self::Dead,
        Self::Size,
        Self::Memory,
    ];

    /// Draws it, as often as the results allow: for the paper's networks and the origin's apart, unless it sets one beside
    /// the other.
    pub(super) fn draw(self, given: &Given<'_>) -> Vec<Drawing> {
        let parts = match self {
            Self::Ablation | Self::Memory => Vec::new(),
            _ => given.results.by_variant(),
        };
        if parts.is_empty() {
            return self.drawings(given);
        }
        let mut all = Vec::new();
        for (variant, results) in &parts {
            let published = given.published.iter().filter(|source| source.variant == *variant);
            let published: Vec<_> = published.cloned().collect();
            for Drawing { name, caption, mut chart } in
                self.drawings(&Given { results, published: &published, ..*given })
            {
                chart.title = format!("{} ({})", chart.title, whose(variant));
                all.push(Drawing { name: format!("{name}-{variant}"), caption, chart });
            }
        }
        all
    }

    fn drawings(self, given: &Given<'_>) -> Vec<Drawing> {
        let drawings = match self {
            Self::Ablation => ablation::ablation(given),
            Self::Accuracy => accuracy::main(given),
            Self::Affine => accuracy::affine(given),
            Self::Switches => accuracy::switches(given),
            Self::Budget => budget::budget(given),
            Self::Trained => budget::trained(given),
            Self::RandomK => random::random(given),
            Self::AccuracyCurves => curves::accuracy(given),
            Self::LossCurves => curves::loss(given),
            Self::Gamma => gamma::distribution(given),
            Self::SmallGamma => gamma::small(given),
            Self::Zeroing => gamma::zeroing(given),
            Self::Dead => features::dead(given),
            Self::Size => size::size(given),
            Self::Memory => memory::memory(given),
        };
        let drawings = drawings.into_iter().filter(|drawing| !drawing.chart.is_empty());
        // Bytes are the same whatever a network learns from.
        let remark = if matches!(self, Self::Size | Self::Memory) { "" } else { given.remark };
        drawings.map(|drawing| drawing.finished(remark)).collect()
    }
}

/// What figures are drawn from.
pub(super) struct Given<'a> {
    pub(super) results: &'a Results,
    pub(super) published: &'a [Source],
    /// Of what our numbers come from; empty where nothing is said.
    pub(super) remark: &'a str,
}

impl Given<'_> {
    /// Who published what `they` show; nothing where nobody did.
    fn others(&self, they: &str, sources: &[&Source]) -> String {
        if sources.is_empty() {
            return String::new();
        }
        let how = |grade: &str| {
            if grade == "C" {
                ", read off the figure to about 0.4 points, less well where lines hide one another"
            } else {
                ""
            }
        };
        let words = sources.iter().map(|s| format!("{} ({}{})", s.label, s.source, how(&s.grade)));
        let words = words.collect::<Vec<_>>().join("; ");
        let shapes = if sources.len() > 1 { ", a shape for each" } else { "" };
        format!(" {they} are published by others{shapes}: {words}.")
    }
}

/// A chart, the name of its files, and what one sees on it.
pub(super) struct Drawing {
    pub(super) name: String,
    /// For a reader who does not know the paper.
    pub(super) caption: String,
    pub(super) chart: Chart,
}

impl Drawing {
    /// With each line over a single network as a row of its own, the `remark`, and the words for what spread there is.
    fn finished(self, remark: &str) -> Self {
        let chart = self.chart.unstacked();
        let is_there = |band: bool| chart.series.iter().any(|s| s.spreads().any(|(_, is)| is == band));
        let words = match (is_there(true), is_there(false)) {
            (false, false) => "",
            (true, false) => " Lines are means over n seeds, bands one standard deviation.",
            (false, true) => " Marks are means over n seeds, bars one standard deviation to each side.",
            (true, true) => " Lines and marks are means over n seeds, bands and bars one standard deviation.",
        };
        let caption = if chart.rows { self.caption.replace("Each line", "Each row") } else { self.caption };
        let remark = if remark.is_empty() { String::new() } else { format!(" {remark}") };
        Self { caption: caption + &remark + words, chart, ..self }
    }
}

/// More lines than this leave no room for parts of each.
const MANY: usize = 6;

/// Under the axis of accuracies.
const TOP1: &str = "top-1 test accuracy (%)";

/// Evaluations by what was trained and network; those that differ in the seed share a place.
type Grouped<'a> = BTreeMap<&'a Line, BTreeMap<&'a Network, Vec<&'a Evaluation>>>;

/// Those of the lines that `shows` wants. Where there are several numbers of random weights, others than BatchNorm's have
/// a figure of their own.
fn grouped<'a>(results: &'a Results, shows: impl Fn(&Line) -> bool) -> Grouped<'a> {
    let ks: BTreeSet<_> = results.evaluations.iter().filter_map(|run| run.line.k()).collect();
    grouped_all(results, |line| (ks.len() < 2 || line.is_as_many()) && shows(line))
}

fn grouped_all<'a>(results: &'a Results, shows: impl Fn(&Line) -> bool) -> Grouped<'a> {
    let mut groups = Grouped::new();
    for evaluation in results.evaluations.iter().filter(|evaluation| shows(&evaluation.line)) {
        let places = groups.entry(&evaluation.line).or_default();
        places.entry(&evaluation.network).or_default().push(evaluation);
    }
    groups
}

/// The evenly spaced places of a family: its networks among `networks`, in order.
#[derive(Clone)]
struct Places {
    family: Family,
    networks: Vec<Network>,
}

impl Places {
    /// Nothing where no network is properly of `family`. A narrowest one stands with wider ones of its depth.
    fn new<'a>(family: Family, networks: impl Iterator<Item = &'a Network>) -> Option<Self> {
        let mut networks: Vec<_> = networks.filter(|n| n.tick(family).is_some()).cloned().collect();
        networks.sort_by(|a, b| a.size().cmp(&b.size()).then_with(|| a.cmp(b)));
        networks.dedup_by(|a, b| a.tick(family) == b.tick(family));
        let proper: Vec<_> = networks.iter().filter(|network| network.of(family)).cloned().collect();
        networks.retain(|network| proper.iter().any(|other| other.size()[0] == network.size()[0]));
        (!proper.is_empty()).then_some(Self { family, networks })
    }

    /// For every family that the evaluations have networks of.
    fn all(results: &Results) -> Vec<Self> {
        let networks = || results.evaluations.iter().map(|evaluation| &evaluation.network);
        let all = Family::ALL.into_iter().filter_map(|family| Self::new(family, networks()));
        worth_drawing(all.map(|places| (places, ()))).into_iter().map(|(places, ())| places).collect()
    }

    fn of(&self, network: &Network) -> Option<f64> {
        let tick = network.tick(self.family)?;
        self.networks.iter().position(|n| n.tick(self.family).as_ref() == Some(&tick)).map(|i| i as f64)
    }

    /// What is shown along the family, or of its only network; a question needs no more words.
    fn title(&self, what: &str) -> String {
        match self.networks.as_slice() {
            _ if what.ends_with('?') => what.to_owned(),
            [network] => format!("{what}: {}", network.label()),
            _ if self.family == Family::Vgg => format!("{what} by VGG network"),
            _ => format!("{what} by {}", self.family.name()),
        }
    }

    fn axis(&self) -> Axis {
        let words = self.networks.iter().filter_map(|network| network.tick(self.family));
        Axis::words(self.family.axis(), words.collect())
    }
}

/// All but those of a network alone in its family that stands among others in another one.
fn worth_drawing<T>(all: impl Iterator<Item = (Places, T)>) -> Vec<(Places, T)> {
    let all: Vec<_> = all.collect();
    let several: Vec<_> =
        all.iter().map(|(places, _)| places.clone()).filter(|places| places.networks.len() > 1).collect();
    let elsewhere = |network: &Network| several.iter().any(|places| places.of(network).is_some());
    let worth = |places: &Places| places.networks.len() > 1 || !places.networks.iter().all(elsewhere);
    all.into_iter().filter(|(places, _)| worth(places)).collect()
}

/// `title`, and what lines are called: where settings alone tell them apart, the title says what all of them train, and
/// the labels need not.
fn entitled<'a>(title: String, mut lines: impl Iterator<Item = &'a Line>) -> (String, fn(&Line) -> String) {
    let what = lines.next().filter(|line| !line.how().is_empty()).map(Line::what);
    let mut others = lines.map(|line| Some(line.what()).filter(|_| !line.how().is_empty())).peekable();
    match what.filter(|_| others.peek().is_some()) {
        Some(what) if others.all(|other| other.as_ref() == Some(&what)) => {
            (format!("{title}: {what}"), Line::how)
        }
        _ => (title, Line::label),
    }
}

/// Points of a line over `places`, and how many runs stand behind each.
fn over_places<'a>(
    places: &Places,
    runs: &BTreeMap<&'a Network, Vec<&'a Evaluation>>,
    value: impl Fn(&Evaluation) -> Option<f64>,
) -> (Vec<Point>, Vec<usize>) {
    let mut points = Vec::new();
    for (network, runs) in runs {
        let Some(place) = places.of(network) else { continue };
        if let Some(s) = Statistics::of(runs.iter().filter_map(|run| value(run))) {
            points.push(((place, s.mean, s.spread()), s.n));
        }
    }
    points.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
    points.into_iter().unzip()
}

/// `label` with the number of runs behind it, which no line break parts.
fn counted(label: &str, runs: &[usize]) -> String {
    match (runs.iter().min(), runs.iter().max()) {
        (Some(least), Some(most)) if least == most => format!("{label} (n\u{a0}=\u{a0}{least})"),
        (Some(least), Some(most)) => format!("{label} (n\u{a0}=\u{a0}{least}\u{a0}to\u{a0}{most})"),
        _ => label.to_owned(),
    }
}
