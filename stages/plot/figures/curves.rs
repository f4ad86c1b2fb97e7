//! Loss and accuracy by epoch, one figure for each network. Knows the columns of a history.

use std::collections::{BTreeMap, BTreeSet};

use super::{Axis, Chart, Drawing, Given, MANY, Series, counted, entitled, looks};
use crate::{
    plot::{
        chart::{Dashes, Look, Marker, Point},
        look,
    },
    results::{History, Line, Network, Statistics},
};

/// Which columns of a history a chart shows.
struct Columns {
    file: &'static str,
    title: &'static str,
    y: &'static str,
    train: &'static str,
    test: &'static str,
    scale: f64,
    caption: &'static str,
    /// Did others publish it?
    published: bool,
}

const LOSS: Columns = Columns {
    file: "loss-curves",
    title: "Loss",
    y: "cross-entropy loss (nats)",
    train: "train_loss",
    test: "test_loss",
    scale: 1.0,
    caption: "How wrong the network is after each pass over the training images: lower is better.",
    published: false,
};
const ACCURACY: Columns = Columns {
    file: "accuracy-curves",
    title: "Accuracy",
    y: "top-1 accuracy (%)",
    train: "train_accuracy",
    test: "test_accuracy",
    scale: 100.0,
    caption: "How often the network is right after each pass over the training images.",
    published: true,
};

pub(super) fn loss(given: &Given<'_>) -> Vec<Drawing> {
    drawings(given, &LOSS)
}

pub(super) fn accuracy(given: &Given<'_>) -> Vec<Drawing> {
    drawings(given, &ACCURACY)
}

fn drawings(given: &Given<'_>, columns: &Columns) -> Vec<Drawing> {
    let mut networks = BTreeMap::<&Network, BTreeMap<&Line, Vec<&History>>>::new();
    for history in &given.results.histories {
        networks.entry(&history.network).or_default().entry(&history.line).or_default().push(history);
    }
    networks.into_iter().map(|(network, lines)| drawing(given, network, &lines, columns)).collect()
}

fn drawing(
    given: &Given<'_>,
    network: &Network,
    lines: &BTreeMap<&Line, Vec<&History>>,
    columns: &Columns,
) -> Drawing {
    let mut series = Vec::new();
    let sets = [(columns.test, "test", Dashes::Solid), (columns.train, "train", Dashes::Dots)];
    let mut looks = looks(lines.keys().copied());
    // Dashes tell train from test; lines of one mode, which differ in those, get colours of their own.
    let modes: BTreeSet<_> = lines.keys().map(|line| line.mode()).collect();
    if modes.len() == 1 && (2..=MANY).contains(&lines.len()) {
        looks = (0..lines.len()).map(look::mark).collect();
    }
    let colours_tell =
        looks.iter().enumerate().all(|(at, look)| looks[..at].iter().all(|other| other.color != look.color));
    for look in &mut looks {
        // Beside an empty triangle an empty one upside down is hard to tell.
        look.marker = if look.marker == Marker::Fall { Marker::Diamond } else { look.marker };
    }
    // Where it takes dashes to tell the lines apart there are none for the training images.
    let many = lines.len() > MANY || !colours_tell;
    let sets = if many { &sets[..1] } else { &sets[..] };
    let title = format!("{} of {} during training", columns.title, network.label());
    let (title, name) = entitled(title, lines.keys().copied());
    for ((line, runs), look) in lines.iter().zip(looks) {
        for &(column, set, dashes) in sets {
            let points = curve(runs, column, columns.scale);
            if points.is_empty() {
                continue;
            }
            let dashes = if many { look.dashes } else { dashes };
            let label = if many { name(line) } else { format!("{}, {set}", name(line)) };
            let label = counted(&label, &[runs.len()]);
            series.push(Series { label, look: Look { dashes, hollow: set == "train", ..look }, points });
        }
    }
    // So many lines are found by where they end.
    let sorted = series.len() > MANY;
    if sorted {
        let end = |series: &Series| series.points.last().map_or(f64::NAN, |(_, value, _)| *value);
        series.sort_by(|a, b| end(b).total_cmp(&end(a)));
    }
    let mut sources = Vec::new();
    for source in given.published.iter().filter(|_| columns.published) {
        for (line, points) in source.curves(network) {
            let points = points.iter().map(|(epoch, value)| (*epoch as f64, *value, None)).collect();
            let look = look::theirs(&line, source, 0);
            let dashes = if many { look.dashes } else { Dashes::Solid };
            let look = Look { dashes, ..look };
            series.push(Series { label: format!("{}: {}", source.label, line.label()), look, points });
            sources.push(source);
        }
    }
    sources.dedup();
    let (sets, whose) = if many {
        ("All lines: the test images, which it never learns from.", "Lines with empty markers")
    } else {
        (
            "Solid lines: the test images, which it never learns from; dotted lines: the training images, augmented, as it learnt from them during that pass.",
            "Solid lines with empty markers",
        )
    };
    let order = if sorted {
        " Our lines are listed from the one that ends highest to the one that ends lowest."
    } else {
        ""
    };
    let caption = format!("{} {sets}{order}{}", columns.caption, given.others(whose, &sources));
    Drawing {
        name: format!("{}-{}", columns.file, crate::plot::file_name(network.name())),
        caption,
        chart: Chart { title, x: Axis::linear("epoch"), y: Axis::linear(columns.y), series, rows: false },
    }
}

/// Mean and deviation of a column by epoch.
fn curve(runs: &[&History], column: &str, scale: f64) -> Vec<Point> {
    let mut epochs = BTreeMap::<u64, Vec<f64>>::new();
    for row in runs.iter().flat_map(|history| &history.rows) {
        epochs.entry(row.epoch).or_default().extend(row.values.get(column).map(|value| scale * value));
    }
    let points = epochs
        .into_iter()
        .filter_map(|(epoch, values)| Statistics::of(values).map(|s| (epoch as f64, s.mean, s.spread())));
    points.collect()
}
