//! The colour, dashes and markers of what was trained: the same in every figure. Knows no numbers.

use std::collections::BTreeSet;

use plotters::style::RGBColor;

use super::{
    chart::{Dashes, Look, Marker},
    published::Source,
};
use crate::results::{Line, Values, crossed};

// The Okabe-Ito palette without yellow, which is too pale on white: told apart by colour-blind
// readers too.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);
const BLACK: RGBColor = RGBColor(0, 0, 0);
// Of Paul Tol's muted colours.
const WINE: RGBColor = RGBColor(136, 34, 85);
const INDIGO: RGBColor = RGBColor(51, 34, 136);
const OLIVE: RGBColor = RGBColor(153, 153, 51);
const GREY: RGBColor = RGBColor(120, 120, 120);

const DASHES: [Dashes; 3] = [Dashes::Solid, Dashes::Long, Dashes::Dots];
const MARKERS: [Marker; 5] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Fall];

/// The look of `line`; `twin` counts the lines before it that train the same and differ otherwise.
pub(super) fn look(line: &Line, twin: usize) -> Look {
    let (color, dashes, marker) = match line.mode() {
        "bn" => (BLUE, Dashes::Solid, Marker::Circle),
        "gamma" => (INDIGO, Dashes::Long, Marker::Triangle),
        "beta" => (OLIVE, Dashes::Dots, Marker::Fall),
        "random" => (VERMILLION, Dashes::Solid, Marker::Square),
        "origin-random" => (WINE, Dashes::Long, Marker::Diamond),
        "all" => (GREEN, Dashes::Solid, Marker::Triangle),
        "all-but-bn" => (PURPLE, Dashes::Long, Marker::Fall),
        "bn+output+shortcut" => (SKY, Dashes::Solid, Marker::Diamond),
        "output+shortcut" => (ORANGE, Dashes::Long, Marker::Square),
        "none" => (GREY, Dashes::Dots, Marker::Circle),
        _ => (BLACK, Dashes::Solid, Marker::Circle),
    };
    let dashes = DASHES.iter().position(|d| *d == dashes).unwrap_or(0);
    let marker = MARKERS.iter().position(|m| *m == marker).unwrap_or(0);
    let (dashes, marker) = (DASHES[(dashes + twin) % DASHES.len()], MARKERS[(marker + twin) % MARKERS.len()]);
    Look { color, dashes, marker, hollow: false }
}

/// The look of a line that others published: its colour says what was trained, its marker who says so. `twin` counts the
/// lines of the same source before it that train the same.
pub(super) fn theirs(line: &Line, source: &Source, twin: usize) -> Look {
    Look { marker: MARKERS[source.place % MARKERS.len()], hollow: true, ..look(line, twin) }
}

/// Colours for lines of which too many train the same.
const PALETTE: [RGBColor; 7] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK];

/// Mark `index` of those that differ in one setting.
pub(super) fn mark(index: usize) -> Look {
    let (color, marker) = (PALETTE[index % PALETTE.len()], MARKERS[index % MARKERS.len()]);
    Look { color, dashes: Dashes::Solid, marker, hollow: false }
}

/// `looks` for lines in order, with twins told apart.
pub(super) fn looks<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<Look> {
    let lines: Vec<_> = lines.collect();
    let mut seen: Vec<&Line> = Vec::new();
    let mut twins = Vec::new();
    for line in &lines {
        let is_known = |line: &Line| look(line, 0).color != BLACK;
        let same = |other: &Line| other.mode() == line.mode() || !is_known(other) && !is_known(line);
        let before = seen.iter().filter(|other| same(other));
        // As many random weights as BatchNorm's values look the same with and without others.
        twins.push(match (line.k().is_some(), line.is_as_many()) {
            (true, true) => before.filter(|other| other.is_as_many()).count(),
            (true, false) => 1 + before.filter(|other| !other.is_as_many()).count(),
            (false, _) => before.count(),
        });
        seen.push(line);
    }
    let looks: Vec<_> = lines.iter().zip(&twins).map(|(line, twin)| look(line, *twin)).collect();
    if twins.iter().all(|twin| *twin < DASHES.len()) && are_apart(&looks) {
        looks
    } else {
        by_settings(&lines)
    }
}

/// Do colours and markers tell them apart? Figures that show several numbers of each line need the dashes for those.
fn are_apart(looks: &[Look]) -> bool {
    let same = |a: &Look, b: &Look| (a.color, a.marker) == (b.color, b.marker);
    looks.iter().enumerate().all(|(index, look)| !looks[..index].iter().any(|other| same(look, other)))
}

/// Of each of these lines, how its `count` parts look: dashes tell them apart, and so do markers where colours tell the
/// lines.
pub(super) fn in_parts(lines: &[Look], count: usize) -> Vec<Vec<Look>> {
    let is_new = |(at, look): (usize, &Look)| lines[..at].iter().all(|other| other.color != look.color);
    let apart = count > 1 && lines.iter().enumerate().all(is_new);
    let part = |look: &Look, at: usize| {
        let marker = if apart { MARKERS[at % MARKERS.len()] } else { look.marker };
        Look { dashes: DASHES[at % DASHES.len()], marker, ..*look }
    };
    lines.iter().map(|look| (0..count).map(|at| part(look, at)).collect()).collect()
}

/// Dashes cannot tell so many twins apart: colours tell what they differ in, dashes what is trained, and markers both.
fn by_settings(lines: &[&Line]) -> Vec<Look> {
    if let Some([rows, marks]) = crossed(lines.iter().copied()) {
        let place = |line: &Line, of: &Values| {
            of.values.iter().position(|value| line.value(&of.axis) == Some(&**value)).unwrap_or(0)
        };
        let look = |line: &&Line| {
            let (row, of) = (place(line, &rows), place(line, &marks));
            Look { color: PALETTE[row % PALETTE.len()], dashes: DASHES[of % DASHES.len()], ..mark(of) }
        };
        return lines.iter().map(look).collect();
    }
    // Neighbours in a legend get neighbours in the palette.
    let settings: BTreeSet<_> =
        lines.iter().map(|line| (line.departure(), line.others(), line.k())).collect();
    let modes: BTreeSet<_> = lines.iter().map(|line| line.mode()).collect();
    let look = |line: &&Line| {
        let place =
            settings.iter().position(|of| *of == (line.departure(), line.others(), line.k())).unwrap_or(0);
        let mode = modes.iter().position(|mode| *mode == line.mode()).unwrap_or(0);
        let color = if settings.len() > 1 { place } else { mode };
        let marker = MARKERS[(place + mode) % MARKERS.len()];
        Look { dashes: DASHES[mode % DASHES.len()], marker, ..mark(color) }
    };
    lines.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Value;

    fn decays(mode: &str, values: &[&str]) -> Vec<Line> {
        let line =
            |value: &&str| Line::new(mode, None, vec![("weight_decay".into(), Value((*value).into()))]);
        values.iter().map(line).collect()
    }

    #[test]
    fn every_mode_has_a_colour() {
        for (mode, _) in network::mode::Mode::NAMES {
            assert_ne!(look(&Line::new(mode, None, Vec::new()), 0).color, BLACK, "{mode}");
        }
    }

    #[test]
    fn parts_of_lines_have_markers_of_their_own_where_colours_tell_the_lines() {
        let modes = ["bn", "all"].map(|mode| Line::new(mode, None, Vec::new()));
        let parts = in_parts(&looks(modes.iter()), 3);
        assert_eq!(parts[0][1].marker, parts[1][1].marker);
        assert!(are_apart(&parts.concat()), "{parts:?}");
        assert_eq!(in_parts(&looks(modes.iter()), 1).concat()[1].marker, Marker::Triangle);
        let twins = in_parts(&looks(decays("bn", &["0.0", "0.1"]).iter()), 2);
        assert_eq!(twins[0][0].marker, twins[0][1].marker);
        assert_ne!(twins[0][0].dashes, twins[0][1].dashes);
    }

    #[test]
    fn a_few_twins_share_their_colour_and_many_do_not() {
        let few = decays("bn", &["0.0", "0.1", "0.2"]);
        assert!(looks(few.iter()).iter().all(|look| look.color == BLUE));
        let mut many = decays("bn", &["0.0", "0.1", "0.2", "0.3"]);
        many.extend(decays("all", &["0.0", "0.1", "0.2", "0.3"]));
        let looks = looks(many.iter());
        for (a, left) in looks.iter().enumerate() {
            assert!(looks[..a].iter().all(|right| right != left), "{looks:?}");
        }
        assert_eq!(looks[0].color, looks[4].color, "the same setting");
        assert_ne!(looks[0].dashes, looks[4].dashes, "another mode");
        assert!(are_apart(&looks), "{looks:?}");
    }

    #[test]
    fn modes_that_nobody_knows_leave_the_others_their_colours() {
        let of = |modes: &[&str]| {
            let lines: Vec<_> = modes.iter().map(|mode| Line::new(mode, None, Vec::new())).collect();
            looks(lines.iter())
        };
        let few = of(&["all", "bn", "mine", "other", "third"]);
        assert!(are_apart(&few) && few[1].color == BLUE, "{few:?}");
        let many = of(&["bn", "a", "b", "c", "d", "e"]);
        assert!(are_apart(&many), "{many:?}");
    }

    #[test]
    fn a_twin_never_looks_like_another_mode_but_for_its_dashes() {
        // Modes that nobody knows share a colour.
        let mut lines = decays("mine", &["0.0", "0.1", "0.2"]);
        lines.extend(decays("other", &["0.0"]));
        assert!(are_apart(&looks(lines.iter())), "{:?}", looks(lines.iter()));
    }
}
