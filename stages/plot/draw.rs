//! Draws a chart on whatever backend. Knows lines, bands, markers and the legend, not what they mean.

use std::sync::Once;

use plotters::{coord::Shift, prelude::*, style::register_font};

use super::{
    chart::{Chart, Dashes, Look, Marker, Series},
    ticks::Layout,
};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 540;
const LEGEND_WIDTH: u32 = 270;
/// Characters of a line of the legend.
const LEGEND_LINE: usize = 29;
const LINE_HEIGHT: i32 = 20;
const LEGEND_TOP: i32 = 60;
/// Lines with more points than this bear only some markers.
const MARKED: usize = 20;
const INK: RGBColor = RGBColor(30, 30, 30);
const GRID: RGBColor = RGBColor(218, 218, 218);

type Result<T, B> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
type Point = (f64, f64);

/// How large `chart` is, in pixels: a long legend makes it higher.
pub(super) fn size(chart: &Chart) -> (u32, u32) {
    let lines: usize = chart.series.iter().map(|series| wrap(&series.label).len()).sum();
    let gaps = chart.series.len() as u32 * 8;
    (WIDTH, HEIGHT.max(LEGEND_TOP as u32 + lines as u32 * LINE_HEIGHT as u32 + gaps + 20))
}

/// Draws `chart`.
pub(super) fn draw<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    register();
    area.fill(&WHITE)?;
    let (data, legend) = area.split_horizontally(WIDTH - LEGEND_WIDTH);
    draw_data(chart, &data)?;
    draw_legend(chart, &legend)?;
    area.present()
}

fn draw_data<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = Layout::new(&chart.x, points().map(|p| p.0));
    let y = Layout::new(&chart.y, points().flat_map(|p| [p.1 - p.2, p.1, p.1 + p.2]));
    let mut canvas = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 22).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(70)
        .build_cartesian_2d(x.clone(), y.clone())?;
    canvas
        .configure_mesh()
        .x_desc(&chart.x.title)
        .y_desc(&chart.y.title)
        .axis_desc_style(("sans-serif", 17).into_font().color(&INK))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .x_label_formatter(&|at| x.name(*at))
        .y_label_formatter(&|at| y.name(*at))
        .draw()?;
    for (index, series) in chart.series.iter().enumerate() {
        let Look { color, dashes, hollow, .. } = series.look;
        let place = |(px, mean, sd): &(f64, f64, f64), side: f64| Some((x.at(*px)?, y.at(mean + side * sd)?));
        // A band between points that no line joins would join them.
        if dashes != Dashes::None && series.points.iter().any(|p| p.2 > 0.0) {
            let upper = series.points.iter().filter_map(|p| place(p, 1.0));
            let lower = series.points.iter().rev().filter_map(|p| place(p, -1.0));
            let outline: Vec<Point> = upper.chain(lower).collect();
            canvas.draw_series([Polygon::new(outline, color.mix(0.18).filled())])?;
        }
        let line: Vec<Point> = series.points.iter().filter_map(|p| place(p, 0.0)).collect();
        let stroke = color.stroke_width(if hollow { 1 } else { 2 });
        match pattern(dashes) {
            Some((0, _)) => {
                canvas.draw_series(LineSeries::new(line.iter().copied(), stroke))?;
            }
            Some((dash, gap)) => {
                canvas.draw_series(DashedLineSeries::new(line.iter().copied(), dash, gap, stroke))?;
            }
            None => {}
        }
        let shape = outline(series.look.marker);
        let element = |at: Point| {
            EmptyElement::at(at)
                + Polygon::new(shape.clone(), inside(&series.look).filled())
                + PathElement::new(closed(&shape), color.stroke_width(2))
        };
        canvas.draw_series(marked(&line, index, chart.series.len()).map(element))?;
    }
    Ok(())
}

/// The points that bear a marker: all of a few; of many, some, at another place on each line.
fn marked(line: &[Point], index: usize, lines: usize) -> impl Iterator<Item = Point> {
    let step = if line.len() > MARKED { line.len().div_ceil(8) } else { 1 };
    let first = if step > 1 { step * (index + 1) / (lines + 1) } else { 0 };
    line.iter().copied().skip(first).step_by(step)
}

fn draw_legend<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    let style = ("sans-serif", 15).into_font().color(&INK);
    let mut y = LEGEND_TOP;
    for Series { label, look, .. } in &chart.series {
        let stroke = look.color.stroke_width(if look.hollow { 1 } else { 2 });
        let dashes: &[(i32, i32)] = match look.dashes {
            Dashes::Solid => &[(0, 36)],
            Dashes::Long => &[(0, 9), (14, 23), (28, 36)],
            Dashes::Dots => &[(0, 3), (7, 10), (26, 29), (33, 36)],
            Dashes::None => &[],
        };
        for &(from, to) in dashes {
            area.draw(&PathElement::new([(from, y), (to, y)], stroke))?;
        }
        let shape = outline(look.marker);
        let marker = EmptyElement::at((18, y))
            + Polygon::new(shape.clone(), inside(look).filled())
            + PathElement::new(closed(&shape), look.color.stroke_width(2));
        area.draw(&marker)?;
        for line in wrap(label) {
            area.draw(&Text::new(line, (46, y - 8), style.clone()))?;
            y += LINE_HEIGHT;
        }
        y += 8;
    }
    Ok(())
}

/// Length of dash and gap; a dash of 0 is a line without gaps, nothing is no line.
fn pattern(dashes: Dashes) -> Option<(u32, u32)> {
    match dashes {
        Dashes::Solid => Some((0, 0)),
        Dashes::Long => Some((9, 5)),
        Dashes::Dots => Some((3, 4)),
        Dashes::None => None,
    }
}

fn inside(look: &Look) -> RGBColor {
    if look.hollow { WHITE } else { look.color }
}

/// A marker around (0, 0).
fn outline(marker: Marker) -> Vec<(i32, i32)> {
    match marker {
        Marker::Circle => {
            vec![(-4, -2), (-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2)]
        }
        Marker::Square => vec![(-4, -4), (4, -4), (4, 4), (-4, 4)],
        Marker::Triangle => vec![(0, -5), (5, 4), (-5, 4)],
        Marker::Diamond => vec![(0, -6), (5, 0), (0, 6), (-5, 0)],
        Marker::Fall => vec![(0, 5), (-5, -4), (5, -4)],
    }
}

fn closed(outline: &[(i32, i32)]) -> Vec<(i32, i32)> {
    outline.iter().chain(outline.first()).copied().collect()
}

/// `label` in lines that fit the legend, broken between words.
fn wrap(label: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in label.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= LEGEND_LINE {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    // Where a line must not break it has spaces that the embedded font need not know.
    lines.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// The embedded font under the name that the charts use; there are no others.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font = include_bytes!("fonts/DejaVuSans-Latin.ttf");
        // A font that does not parse shows as an error of the first text that is drawn.
        let _ = register_font("sans-serif", FontStyle::Normal, font);
    });
}
