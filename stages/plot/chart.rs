//! One line chart as SVG and as PNG, from the same drawing code. Knows nothing of trainings.

use std::{path::Path, sync::Once};

use engine::kind::StageError;
use plotters::{coord::Shift, prelude::*, style::register_font};

use crate::output::failed;

const SIZE: (u32, u32) = (960, 540);
const LEGEND_WIDTH: u32 = 190;
const INK: RGBColor = RGBColor(30, 30, 30);

/// The Okabe-Ito palette without black and yellow: told apart by colour-blind readers too.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line, with a band of one standard deviation around it.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// In the legend.
    pub(super) label: String,
    /// Index of its colour.
    pub(super) color: usize,
    /// Dashed, without markers.
    pub(super) dashed: bool,
    /// x, mean, standard deviation; in order of x, all finite.
    pub(super) points: Vec<(f64, f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Above it.
    pub(super) title: String,
    /// Below the x axis, with its unit.
    pub(super) x: &'static str,
    /// Beside the y axis, with its unit.
    pub(super) y: &'static str,
    /// Few points, each with a marker.
    pub(super) markers: bool,
    /// Its lines.
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// Writes `name.svg` and `name.png` into `folder`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<(), StageError> {
        for (extension, bytes) in [("svg", self.svg()?.into_bytes()), ("png", self.png()?)] {
            let path = folder.join(format!("{name}.{extension}"));
            std::fs::write(&path, bytes).map_err(|error| failed("write", &path, &error))?;
        }
        Ok(())
    }

    /// The chart as SVG.
    pub(super) fn svg(&self) -> Result<String, StageError> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    /// The chart as PNG.
    pub(super) fn png(&self) -> Result<Vec<u8>, StageError> {
        let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area())?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    fn failed(&self, cause: impl std::fmt::Display) -> StageError {
        StageError::new(format!("cannot draw `{}`: {cause}", self.title))
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), StageError> {
        register();
        area.fill(&WHITE).map_err(|e| self.failed(e))?;
        let (data, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        self.draw_data(&data).map_err(|e| self.failed(e))?;
        self.draw_legend(&legend).map_err(|e| self.failed(e))?;
        area.present().map_err(|e| self.failed(e))
    }

    fn draw_data<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (left, right) = range(points().map(|p| p.0));
        let (low, high) = range(points().flat_map(|p| [p.1 - p.2, p.1 + p.2]));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24).into_font().color(&INK))
            .margin(12)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, low..high)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style(("sans-serif", 18).into_font().color(&INK))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .axis_style(INK)
            .bold_line_style(RGBColor(215, 215, 215))
            .light_line_style(WHITE)
            .x_label_formatter(&whole)
            .y_label_formatter(&number)
            .draw()?;
        for series in &self.series {
            let color = color(series);
            if series.points.iter().any(|p| p.2 > 0.0) {
                let upper = series.points.iter().map(|p| (p.0, p.1 + p.2));
                let lower = series.points.iter().rev().map(|p| (p.0, p.1 - p.2));
                let outline: Vec<_> = upper.chain(lower).collect();
                chart.draw_series([Polygon::new(outline, color.mix(0.18).filled())])?;
            }
            let line = series.points.iter().map(|p| (p.0, p.1));
            if series.dashed {
                chart.draw_series(DashedLineSeries::new(line.clone(), 6, 4, color.stroke_width(2)))?;
            } else {
                chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?;
            }
            // A line through a single point is invisible.
            if self.markers || series.points.len() == 1 {
                chart.draw_series(line.map(|at| Circle::new(at, 4, color.filled())))?;
            }
        }
        Ok(())
    }

    fn draw_legend<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let style = ("sans-serif", 15).into_font().color(&INK);
        let mut y = 60;
        for series in &self.series {
            let stroke = color(series).stroke_width(3);
            let dashes: &[(i32, i32)] = if series.dashed { &[(4, 13), (19, 28)] } else { &[(4, 28)] };
            for &(from, to) in dashes {
                area.draw(&PathElement::new([(from, y), (to, y)], stroke))?;
            }
            area.draw(&Text::new(series.label.clone(), (36, y - 8), style.clone()))?;
            y += 24;
        }
        Ok(())
    }
}

fn color(series: &Series) -> RGBColor {
    COLORS[series.color % COLORS.len()]
}

/// Epochs and layers are whole; a tick between two of them stays bare.
fn whole(value: &f64) -> String {
    if (value - value.round()).abs() < 1e-9 { number(value) } else { String::new() }
}

fn number(value: &f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// From the least to the greatest value with a little air; never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let air = if high > low { (high - low) * 0.05 } else { 1.0 };
    (low - air, high + air)
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
