//! The words beside a chart: the legend to its right, and the names of its rows to its left. Knows how wide
//! they are, not what they mean.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    chart::{Chart, Dashes, Series},
    draw::{self, INK, Result},
};

/// How wide the legend is.
pub(super) const WIDTH: u32 = 270;
/// Characters of a line of the legend, and of a row's name.
const LINE: usize = 29;
const ROW_LINE: usize = 46;
const LINE_HEIGHT: u32 = 20;
const GAP: u32 = 8;
const TOP: u32 = 60;

/// The series that the legend names.
fn named(chart: &Chart) -> impl Iterator<Item = &Series> {
    chart.series.iter().filter(|series| !series.label.is_empty())
}

/// Is there a legend?
pub(super) fn is_there(chart: &Chart) -> bool {
    named(chart).next().is_some()
}

/// How high the legend is.
pub(super) fn height(chart: &Chart) -> u32 {
    let lines = |series: &Series| wrap(&series.label, LINE).len() as u32 * LINE_HEIGHT + GAP;
    TOP + named(chart).map(lines).sum::<u32>() + 20
}

/// How wide the names of rows are.
pub(super) fn rows_width(chart: &Chart) -> u32 {
    let lines = chart.words().iter().flat_map(|word| wrap(word, ROW_LINE));
    lines.map(|line| line.chars().count()).max().unwrap_or(0) as u32 * 7 + 30
}

/// How high a row must be for the longest of their names.
pub(super) fn row_height(chart: &Chart) -> u32 {
    let lines = chart.words().iter().map(|word| wrap(word, ROW_LINE).len()).max().unwrap_or(1);
    lines as u32 * LINE_HEIGHT + GAP
}

/// Draws the legend into `area`.
pub(super) fn draw<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    let style = ("sans-serif", 15).into_font().color(&INK);
    let mut y = TOP as i32;
    for Series { label, look, .. } in named(chart) {
        let stroke = draw::stroke(look);
        let dashes: &[(i32, i32)] = match look.dashes {
            Dashes::Solid => &[(0, 36)],
            Dashes::Long => &[(0, 9), (14, 23), (28, 36)],
            Dashes::Dots => &[(0, 3), (7, 10), (26, 29), (33, 36)],
            Dashes::None => &[],
        };
        for &(from, to) in dashes {
            area.draw(&PathElement::new([(from, y), (to, y)], stroke))?;
        }
        area.draw(&draw::mark((18, y), look))?;
        for line in wrap(label, LINE) {
            area.draw(&Text::new(line, (46, y - 8), style.clone()))?;
            y += LINE_HEIGHT as i32;
        }
        y += GAP as i32;
    }
    Ok(())
}

/// Writes the name of a row, whose middle lies at `y`, to the left of `x`.
pub(super) fn name_row<B: DrawingBackend>(
    name: &str,
    (x, y): (i32, i32),
    area: &DrawingArea<B, Shift>,
) -> Result<(), B> {
    let style = ("sans-serif", 15).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
    let lines = wrap(name, ROW_LINE);
    let first = y - (lines.len() as i32 - 1) * LINE_HEIGHT as i32 / 2;
    for (index, line) in lines.into_iter().enumerate() {
        area.draw(&Text::new(line, (x - 10, first + index as i32 * LINE_HEIGHT as i32), style.clone()))?;
    }
    Ok(())
}

/// `label` in lines of at most `width` characters, broken between words.
fn wrap(label: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in label.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    // Where a line must not break it has spaces that the embedded font need not know.
    lines.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}
