//! Draws a chart on whatever backend. Knows lines, bands, bars and markers, not what they mean.

use std::sync::Once;

use plotters::{coord::Shift, element::ComposedElement, prelude::*, style::register_font};

use super::{
    chart::{self, Chart, Dashes, Look, Marker, Series},
    legend,
    ticks::Layout,
};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 540;
/// Above and below the rows of a chart.
const AROUND_ROWS: u32 = 130;
/// Around a chart.
const MARGIN: u32 = 14;
/// Size of a title, of which a long one has less; and about how wide a letter is for its size.
const TITLE: f64 = 22.0;
const ADVANCE: f64 = 0.45;
/// Lines with more points than this bear only some markers.
const MARKED: usize = 20;
pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
const GRID: RGBColor = RGBColor(218, 218, 218);

pub(super) type Result<T, B> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
type Point = (f64, f64);
type Pixel = (i32, i32);
/// A marker's inside and its outline.
type Mark<P, B> = ComposedElement<P, B, Polygon<Pixel>, PathElement<Pixel>>;
/// What has room for x and y.
type Canvas<'a, 'b, B> = ChartContext<'a, B, Cartesian2d<Layout<'b>, Layout<'b>>>;

/// How large `chart` is, in pixels: many rows and a long legend make it higher.
pub(super) fn size(chart: &Chart) -> (u32, u32) {
    let rows = chart.words().len() as u32 * legend::row_height(chart) + AROUND_ROWS;
    let height = if chart.rows { rows } else { HEIGHT };
    (WIDTH, if legend::is_there(chart) { height.max(legend::height(chart)) } else { height })
}

/// Draws `chart`.
pub(super) fn draw<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    register();
    area.fill(&WHITE)?;
    if legend::is_there(chart) {
        let (data, beside) = area.split_horizontally(WIDTH - legend::WIDTH);
        draw_data(chart, &data)?;
        legend::draw(chart, &beside)?;
    } else {
        draw_data(chart, area)?;
    }
    area.present()
}

fn draw_data<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Result<(), B> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let words = Layout::new(&chart.x, points().map(|p| p.0));
    let values = chart.values();
    let (x, y) = if chart.rows { (values, words.turned()) } else { (words, values) };
    let (below, before) =
        if chart.rows { (&chart.y.title, &chart.x.title) } else { (&chart.x.title, &chart.y.title) };
    let letters = chart.title.chars().count().max(1) as f64;
    let fits = f64::from(area.dim_in_pixel().0 - 2 * MARGIN) / (ADVANCE * letters);
    let mut canvas = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", fits.min(TITLE).floor()).into_font().color(&INK))
        .margin(MARGIN)
        .x_label_area_size(52)
        .y_label_area_size(if chart.rows { legend::rows_width(chart) } else { 70 })
        .build_cartesian_2d(x.clone(), y.clone())?;
    canvas
        .configure_mesh()
        .x_desc(below)
        .y_desc(before)
        .axis_desc_style(("sans-serif", 17).into_font().color(&INK))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .x_label_formatter(&|at| x.name(*at))
        // The names of rows break into lines, which a mesh cannot.
        .y_label_formatter(&|at| if chart.rows { String::new() } else { y.name(*at) })
        .draw()?;
    if chart.rows {
        for (row, name) in chart.words().iter().enumerate() {
            legend::name_row(name, canvas.backend_coord(&(x.range.0, row as f64)), area)?;
        }
    }
    // The numbers of others first, so that they never hide ours.
    for hollow in [true, false] {
        for (index, series) in chart.series.iter().enumerate().filter(|(_, s)| s.look.hollow == hollow) {
            let place = |(at, mean, sd): &chart::Point, side: f64| {
                let value = mean + side * sd.unwrap_or(0.0);
                let (px, py) = if chart.rows { (value, *at) } else { (*at, value) };
                Some((x.at(px)?, y.at(py)?))
            };
            draw_spread(series, place, &mut canvas)?;
            let line: Vec<Point> = series.points.iter().filter_map(|p| place(p, 0.0)).collect();
            draw_line(&line, &series.look, &mut canvas)?;
            let marks = marked(&line, index, chart.series.len());
            canvas.draw_series(marks.map(|at| mark(at, &series.look)))?;
        }
    }
    Ok(())
}

/// One standard deviation.
fn draw_spread<B: DrawingBackend>(
    series: &Series,
    place: impl Fn(&chart::Point, f64) -> Option<Point>,
    canvas: &mut Canvas<'_, '_, B>,
) -> Result<(), B> {
    let color = series.look.color;
    for (points, is_band) in series.spreads() {
        if is_band {
            let upper = points.iter().filter_map(|p| place(p, 1.0));
            let lower = points.iter().rev().filter_map(|p| place(p, -1.0));
            let outline: Vec<Point> = upper.chain(lower).collect();
            canvas.draw_series([Polygon::new(outline, color.mix(0.18).filled())])?;
        } else {
            let bar = |p| Some(PathElement::new([place(p, -1.0)?, place(p, 1.0)?], color.stroke_width(2)));
            canvas.draw_series(points.iter().filter_map(bar))?;
        }
    }
    Ok(())
}

fn draw_line<B: DrawingBackend>(
    line: &[Point],
    look: &Look,
    canvas: &mut Canvas<'_, '_, B>,
) -> Result<(), B> {
    let (dash, gap) = match look.dashes {
        Dashes::Solid => {
            canvas.draw_series(LineSeries::new(line.iter().copied(), stroke(look)))?;
            return Ok(());
        }
        Dashes::None => return Ok(()),
        Dashes::Long => (9, 5),
        Dashes::Dots => (3, 4),
    };
    canvas.draw_series(DashedLineSeries::new(line.iter().copied(), dash, gap, stroke(look)))?;
    Ok(())
}

/// The points that bear a marker: all of a few; of many, some, at another place on each line.
fn marked(line: &[Point], index: usize, lines: usize) -> impl Iterator<Item = Point> {
    let step = if line.len() > MARKED { line.len().div_ceil(8) } else { 1 };
    let first = if step > 1 { step * (index + 1) / (lines + 1) } else { 0 };
    line.iter().copied().skip(first).step_by(step)
}

/// The stroke of a line.
pub(super) fn stroke(look: &Look) -> ShapeStyle {
    color(look).stroke_width(if look.hollow { 1 } else { 2 })
}

/// Paler for the numbers of others.
fn color(look: &Look) -> RGBColor {
    let RGBColor(red, green, blue) = look.color;
    let paler = |part: u8| if look.hollow { part + (255 - part) / 3 } else { part };
    RGBColor(paler(red), paler(green), paler(blue))
}

/// A marker at `at`. Hollow ones are larger: one of ours on the same spot leaves a ring to be seen.
pub(super) fn mark<B: DrawingBackend, P>(at: P, look: &Look) -> Mark<P, B> {
    let size = if look.hollow { 3 } else { 2 };
    let shape: Vec<Pixel> = outline(look.marker).iter().map(|(x, y)| (x * size / 2, y * size / 2)).collect();
    let closed: Vec<_> = shape.iter().chain(shape.first()).copied().collect();
    let inside = if look.hollow { WHITE } else { color(look) };
    EmptyElement::at(at)
        + Polygon::new(shape, inside.filled())
        + PathElement::new(closed, color(look).stroke_width(2))
}

/// A marker around (0, 0).
fn outline(marker: Marker) -> &'static [Pixel] {
    match marker {
        Marker::Circle => &[(-4, -2), (-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2)],
        Marker::Square => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        Marker::Triangle => &[(0, -5), (5, 4), (-5, 4)],
        Marker::Diamond => &[(0, -6), (5, 0), (0, 6), (-5, 0)],
        Marker::Fall => &[(0, 5), (-5, -4), (5, -4)],
    }
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
