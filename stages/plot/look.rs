//! The colour, dashes and markers of what was trained: the same in every figure. Knows no numbers.

use plotters::style::RGBColor;

use super::chart::{Dashes, Look, Marker};
use crate::results::Line;

// The Okabe-Ito palette without yellow, which is too pale on white: told apart by colour-blind
// readers too. Variants of one idea share a colour and differ in dashes and markers.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);
const BLACK: RGBColor = RGBColor(0, 0, 0);
const GREY: RGBColor = RGBColor(120, 120, 120);

const DASHES: [Dashes; 3] = [Dashes::Solid, Dashes::Long, Dashes::Dots];
const MARKERS: [Marker; 5] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Fall];

/// The look of `line`; `twin` counts the lines before it that train the same and differ otherwise.
pub(super) fn look(line: &Line, twin: usize) -> Look {
    let (color, dashes, marker) = match line.mode() {
        "bn" => (BLUE, Dashes::Solid, Marker::Circle),
        "gamma" => (BLUE, Dashes::Long, Marker::Triangle),
        "beta" => (BLUE, Dashes::Dots, Marker::Fall),
        "random" => (VERMILLION, Dashes::Solid, Marker::Square),
        "origin-random" => (VERMILLION, Dashes::Long, Marker::Diamond),
        "all" => (GREEN, Dashes::Solid, Marker::Triangle),
        "all-but-bn" => (PURPLE, Dashes::Long, Marker::Fall),
        "bn+output+shortcut" => (SKY, Dashes::Solid, Marker::Diamond),
        "output+shortcut" => (ORANGE, Dashes::Long, Marker::Square),
        "none" => (GREY, Dashes::Dots, Marker::Circle),
        _ => (BLACK, Dashes::Solid, Marker::Circle),
    };
    let turned = |all: &[Dashes]| {
        all.iter().position(|d| *d == dashes).map_or(dashes, |i| all[(i + twin) % all.len()])
    };
    let start = MARKERS.iter().position(|m| *m == marker).unwrap_or(0);
    Look { color, dashes: turned(&DASHES), marker: MARKERS[(start + twin) % MARKERS.len()], hollow: false }
}

/// `looks` for lines in order, with twins told apart.
pub(super) fn looks<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<Look> {
    let mut seen: Vec<&Line> = Vec::new();
    lines
        .map(|line| {
            let before = seen.iter().filter(|other| other.mode() == line.mode());
            // As many random weights as BatchNorm's values look the same with and without others.
            let twin = match (line.k().is_some(), line.is_as_many()) {
                (true, true) => before.filter(|other| other.is_as_many()).count(),
                (true, false) => 1 + before.filter(|other| !other.is_as_many()).count(),
                (false, _) => before.count(),
            };
            seen.push(line);
            look(line, twin)
        })
        .collect()
}
