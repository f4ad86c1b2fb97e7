//! Test accuracy along depth, width and VGG depth, by what was trained. Knows who published what for
//! the same networks.

use super::{
    Axis, Chart, Drawing, Given, Places, Series, Source, TOP1, counted, crossed, grouped, looks, over_places,
    worth_drawing,
};
use crate::{
    plot::{look, ticks::brief},
    results::{Evaluation, Family, Line},
};

/// Lines of a figure, and what it is about.
struct Sort {
    file: &'static str,
    title: &'static str,
    caption: &'static str,
    shows: fn(&Line) -> bool,
    /// Without one of these modes, the figure has nothing to say.
    about: &'static [&'static str],
}

const MAIN: Sort = Sort {
    file: "accuracy",
    title: "Test accuracy",
    caption: "How often the trained network is right on images that it has never seen (GUESSING). Each line says which weights were trained; all others stay as the seed drew them. n counts \
              the seeds.",
    shows: |line| {
        !["all-but-bn", "bn+output+shortcut", "output+shortcut"].contains(&line.mode())
            && line.value("bn_init") != Some("alternate")
    },
    about: &[],
};

/// Instead of the caption where rows and marks take the place of lines.
const CROSSED: &str = "How often the trained network is right on images that it has never seen (GUESSING), by two settings of its training: one in rows, the other in marks. n counts the \
                       seeds.";

const AFFINE: Sort = Sort {
    file: "affine",
    title: "Are BatchNorm's scales and shifts useful?",
    caption: "Networks trained whole, against networks in which everything but BatchNorm's scales and shifts is \
              trained: the distance is what these few values are worth.",
    shows: |line| ["all", "all-but-bn"].contains(&line.mode()),
    about: &["all-but-bn"],
};

const SWITCHES: Sort = Sort {
    file: "switches",
    title: "BatchNorm with output layer and shortcuts",
    caption: "What the output layer and the 1x1 shortcuts add when they are trained too, with BatchNorm and without.",
    shows: |line| ["all", "bn", "bn+output+shortcut", "output+shortcut", "none"].contains(&line.mode()),
    about: &["bn+output+shortcut", "output+shortcut"],
};

pub(super) fn main(given: &Given<'_>) -> Vec<Drawing> {
    drawings(given, &MAIN)
}

pub(super) fn affine(given: &Given<'_>) -> Vec<Drawing> {
    drawings(given, &AFFINE)
}

pub(super) fn switches(given: &Given<'_>) -> Vec<Drawing> {
    drawings(given, &SWITCHES)
}

fn drawings(given: &Given<'_>, sort: &Sort) -> Vec<Drawing> {
    let ours = |mode: &&str| given.results.evaluations.iter().any(|e| e.line.mode() == *mode);
    if !sort.about.is_empty() && !sort.about.iter().any(ours) {
        return Vec::new();
    }
    let all = Family::ALL.into_iter().filter_map(|family| drawing(given, sort, family));
    worth_drawing(all).into_iter().map(|(_, drawing)| drawing).collect()
}

/// What chance gives.
fn guessing(evaluations: &[Evaluation]) -> String {
    let classes =
        evaluations.iter().map(|run| run.metrics.classes.len()).max().filter(|classes| *classes > 0);
    match classes.unwrap_or(10) {
        10 => "10 % is guessing among ten classes".to_owned(),
        1 => "all images are of one class".to_owned(),
        n => format!("{} % is guessing among {n} classes", brief(100.0 / n as f64)),
    }
}

/// With its places.
fn drawing(given: &Given<'_>, sort: &Sort, family: Family) -> Option<(Places, Drawing)> {
    let evaluations = &given.results.evaluations;
    let shown = || evaluations.iter().filter(|e| (sort.shows)(&e.line)).map(|e| &e.network);
    if !shown().any(|network| network.of(family)) {
        return None;
    }
    let published: Vec<_> = given
        .published
        .iter()
        .filter(|source| {
            sort.about.is_empty() || source.lines().any(|(line, _)| sort.about.contains(&line.mode()))
        })
        .flat_map(|source| source.lines().map(move |(line, points)| (source, line, points)))
        .filter(|(_, line, _)| (sort.shows)(line))
        .collect();
    let theirs = published.iter().flat_map(|(_, _, points)| points.iter().map(|(network, _)| network));
    let places = Places::new(family, shown().chain(theirs))?;
    let groups = grouped(given.results, sort.shows);
    let top1 = |run: &Evaluation| Some(run.top1());
    let told = |caption: &str| caption.replace("GUESSING", &guessing(evaluations));
    let crossed =
        crossed::chart(&groups, sort.title, top1, Axis::linear(TOP1)).filter(|_| published.is_empty());
    if let Some(chart) = crossed {
        let name = format!("{}-by-{}", sort.file, family.name());
        return Some((places, Drawing { name, caption: told(CROSSED), chart }));
    }
    let mut series = Vec::new();
    for ((line, runs), look) in groups.iter().zip(looks(groups.keys().copied())) {
        let (points, runs) = over_places(&places, runs, top1);
        if !points.is_empty() {
            let whose = if published.is_empty() { "" } else { "ours: " };
            series.push(Series { label: counted(&format!("{whose}{}", line.label()), &runs), look, points });
        }
    }
    let mut sources = Vec::new();
    for (index, (source, line, points)) in published.iter().enumerate() {
        let points: Vec<_> =
            points.iter().filter_map(|(network, value)| Some((places.of(network)?, *value, None))).collect();
        if points.is_empty() {
            continue;
        }
        let same = |(of, other, _): &&(&Source, Line, _)| of == source && other.mode() == line.mode();
        let look = look::theirs(line, source, published[..index].iter().filter(same).count());
        series.push(Series { label: format!("{}: {}", source.label, line.label()), look, points });
        if !sources.contains(source) {
            sources.push(source);
        }
    }
    let of = |mode: &str| groups.keys().any(|line| line.mode() == mode);
    let thinned = if of("origin-random") {
        " A thinned network (2 F.P.C.) begins with nearly all weights of its filters at zero; all of them may train, but \
         most filters that are zero get no gradient."
    } else {
        ""
    };
    let alternate = published.iter().any(|(_, line, _)| line.value("bn_init") == Some("alternate"));
    let alternate = if alternate {
        " Which one the other initialisation is, what we have of the paper's first version does not say."
    } else {
        ""
    };
    let random = if !sources.is_empty()
        && of("random")
        && published.iter().all(|(_, line, _)| line.mode() != "random")
    {
        " Of random weights that are drawn once nobody published a number."
    } else {
        ""
    };
    let drawing = Drawing {
        name: format!("{}-by-{}", sort.file, family.name()),
        caption: format!(
            "{}{thinned}{}{alternate}{random}",
            told(sort.caption),
            given.others("Thin lines with empty markers", &sources)
        ),
        chart: Chart {
            title: places.title(sort.title),
            x: places.axis(),
            y: Axis::linear(TOP1),
            series,
            rows: false,
        },
    };
    Some((places, drawing))
}
