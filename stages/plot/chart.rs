//! A chart as data, written as SVG and PNG by the same drawing code. Knows nothing of trainings.

use std::path::Path;

use engine::kind::StageError;
use plotters::prelude::*;

use super::{draw, ticks::Layout};
use crate::output::failed;

/// Marks that lie closer, as a part of the chart's height, hide one another.
const NEAR: f64 = 0.02;
/// How far apart they then stand, as a part of its width, and how far all at a word at most, as a part of the word's.
const BESIDE: f64 = 0.02;
const ALL_BESIDE: f64 = 0.6;

/// How values lie along an axis.
#[derive(Clone, Debug)]
pub(super) enum Scale {
    /// Evenly spaced words; values are their indices.
    Words(Vec<String>),
    Linear,
    /// Values must be positive. It names these, or round ones where there are none.
    Log(Vec<f64>),
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// With its unit.
    pub(super) title: String,
    pub(super) scale: Scale,
    /// Values that it has room for whatever is shown.
    pub(super) room: Vec<f64>,
}

/// The dashes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dashes {
    Solid,
    Long,
    Dots,
    /// Markers only.
    None,
}

/// The shape of a line's markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Fall,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) color: RGBColor,
    pub(super) dashes: Dashes,
    pub(super) marker: Marker,
    /// Thin, with empty markers: the numbers of others.
    pub(super) hollow: bool,
}

/// x, mean, standard deviation; all finite. One value alone has none of the last.
pub(super) type Point = (f64, f64, Option<f64>);

/// A line, with a band of one standard deviation around it.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// In the legend, which leaves out a series without one.
    pub(super) label: String,
    pub(super) look: Look,
    /// In order of x.
    pub(super) points: Vec<Point>,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Above it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Its lines.
    pub(super) series: Vec<Series>,
    /// The words of `x` stand below each other, and the values of `y` lie to their right.
    pub(super) rows: bool,
}

impl Series {
    /// Neighbouring points that have a standard deviation, and whether they are shown in a band: one point, or points that
    /// no line joins, have bars. A point of a single run says nothing of how far runs lie apart, and leaves a gap.
    pub(super) fn spreads(&self) -> impl Iterator<Item = (&[Point], bool)> {
        let alike = self.points.chunk_by(|a, b| a.2.is_some() == b.2.is_some());
        let spread = alike.filter(|points| points.iter().any(|point| point.2.is_some_and(|sd| sd > 0.0)));
        spread.map(|points| (points, points.len() > 1 && self.look.dashes != Dashes::None))
    }
}

impl Axis {
    /// With numbers along it.
    pub(super) fn linear(title: &str) -> Self {
        Self::linear_with(title, &[])
    }

    /// The same, with room for `values`: what differs by less than they do is not to look large.
    pub(super) fn linear_with(title: &str, values: &[f64]) -> Self {
        Self { title: title.into(), scale: Scale::Linear, room: values.to_vec() }
    }

    /// With powers of ten along it.
    pub(super) fn log(title: &str) -> Self {
        Self::log_at(title, Vec::new())
    }

    /// The same, with these named.
    pub(super) fn log_at(title: &str, values: Vec<f64>) -> Self {
        Self { title: title.into(), scale: Scale::Log(values), room: Vec::new() }
    }

    /// With words along it.
    pub(super) fn words(title: &str, words: Vec<String>) -> Self {
        Self { title: title.into(), scale: Scale::Words(words), room: Vec::new() }
    }
}

impl Chart {
    /// Series over a single word lie on one another: each becomes a row of its own, with its label before
    /// it. Any other chart stays as it is.
    pub(super) fn unstacked(self) -> Self {
        if !matches!(&self.x.scale, Scale::Words(words) if words.len() == 1) || self.rows {
            return self;
        }
        let series = self.series.into_iter().filter(|series| !series.points.is_empty());
        let mut labels = Vec::new();
        let series = series.enumerate().map(|(row, Series { label, look, points })| {
            labels.push(label);
            let points = points.into_iter().map(|(_, mean, sd)| (row as f64, mean, sd)).collect();
            Series { label: String::new(), look: Look { dashes: Dashes::None, ..look }, points }
        });
        let series = series.collect();
        Self { x: Axis::words("", labels), series, rows: true, ..self }
    }

    /// With marks that would hide one another over a word side by side, in the order of the legend.
    pub(super) fn dodged(mut self) -> Self {
        let words = self.words().len();
        if self.rows || words == 0 {
            return self;
        }
        let y = self.values();
        let mut marks = Vec::new();
        for (series, of) in self.series.iter().enumerate() {
            for (point, (x, mean, _)) in of.points.iter().enumerate() {
                let height = y.at(*mean).map(|at| at / (y.range.1 - y.range.0));
                marks.extend(height.map(|height| (*x, height, [series, point])));
            }
        }
        marks.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for together in marks.chunk_by_mut(|a, b| a.0 == b.0 && b.1 - a.1 < NEAR) {
            together.sort_by_key(|(_, _, of)| *of);
            let step = (BESIDE * words as f64).min(ALL_BESIDE / together.len() as f64);
            let middle = (together.len() - 1) as f64 / 2.0;
            for (index, (x, _, [series, point])) in together.iter().enumerate() {
                self.series[*series].points[*point].0 = x + step * (index as f64 - middle);
            }
        }
        self
    }

    /// The axis of the values, with room for all and for their spreads.
    pub(super) fn values(&self) -> Layout<'_> {
        let sides = |&(_, mean, sd): &Point| {
            let sd = sd.unwrap_or(0.0);
            [mean - sd, mean, mean + sd]
        };
        Layout::new(&self.y, self.series.iter().flat_map(|series| &series.points).flat_map(sides))
    }

    /// The words along `x`; none where it has numbers.
    pub(super) fn words(&self) -> &[String] {
        if let Scale::Words(words) = &self.x.scale { words } else { &[] }
    }

    /// Is there anything to see?
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// Writes `name.svg` and `name.png` into `folder`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<(), StageError> {
        for (extension, bytes) in [("svg", self.svg()?.into_bytes()), ("png", self.png()?)] {
            let path = folder.join(format!("{name}.{extension}"));
            std::fs::write(&path, bytes).map_err(|error| failed("write", &path, &error))?;
        }
        Ok(())
    }

    /// The chart as SVG, on a white ground of its own: pages in dark mode show it as it is.
    pub(super) fn svg(&self) -> Result<String, StageError> {
        let mut text = String::new();
        self.draw(SVGBackend::with_string(&mut text, draw::size(self)))?;
        // Measured with the embedded font, drawn with the reader's: those that are as wide come first.
        let text =
            text.replace("font-family=\"sans-serif\"", "font-family=\"DejaVu Sans, Verdana, sans-serif\"");
        // For readers that do not see it; `&`, `<` and `>` do not occur unescaped in an SVG's title.
        let title = self.title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        Ok(text.replacen('>', &format!(" role=\"img\">\n<title>{title}</title>"), 1))
    }

    /// The chart as PNG.
    pub(super) fn png(&self) -> Result<Vec<u8>, StageError> {
        let (width, height) = draw::size(self);
        let mut pixels = vec![0; (width * height * 3) as usize];
        self.draw(BitMapBackend::with_buffer(&mut pixels, (width, height)))?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<(), StageError> {
        draw::draw(self, &backend.into_drawing_area()).map_err(|e| self.failed(e))
    }

    fn failed(&self, cause: impl std::fmt::Display) -> StageError {
        StageError::new(format!("cannot draw `{}`: {cause}", self.title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_would_hide_one_another_stand_side_by_side_in_the_order_of_the_legend() {
        let look = Look { color: BLACK, dashes: Dashes::Solid, marker: Marker::Circle, hollow: false };
        let series = |values: [f64; 2]| {
            let points = values.into_iter().zip([0.0, 1.0]).map(|(value, x)| (x, value, None)).collect();
            Series { label: "some".into(), look, points }
        };
        let chart = |rows| Chart {
            title: "Some".into(),
            x: Axis::words("", vec!["14".into(), "32".into()]),
            y: Axis::linear(""),
            series: vec![series([30.1, 50.0]), series([80.0, 10.0]), series([30.0, 80.0])],
            rows,
        };
        let places = |chart: Chart| -> Vec<Vec<f64>> {
            chart.series.iter().map(|series| series.points.iter().map(|point| point.0).collect()).collect()
        };
        let dodged = chart(false).dodged();
        assert!(dodged.series.iter().zip(chart(false).series).all(|(a, b)| a.points[0].1 == b.points[0].1));
        let step = BESIDE; // of two words, half to each side
        assert_eq!(places(dodged), [vec![-step, 1.0], vec![0.0, 1.0], vec![step, 1.0]]);
        assert_eq!(places(chart(true).dodged()), vec![vec![0.0, 1.0]; 3], "rows have a height of their own");
    }
}
