//! Where an axis begins and ends, which values it names, and how. Knows no drawing.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use super::chart::{Axis, Scale};

/// An axis, laid out; positions are logarithms on a logarithmic axis.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    scale: &'a Scale,
    /// First and last position.
    pub(super) range: (f64, f64),
    /// The positions that are named.
    pub(super) ticks: Vec<f64>,
}

impl<'a> Layout<'a> {
    /// Room for `values` (not for those that a logarithmic axis cannot hold).
    pub(super) fn new(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Self {
        let scale = &axis.scale;
        if let Scale::Words(words) = scale {
            let last = words.len().max(1) as f64 - 0.5;
            return Self { scale, range: (-0.5, last), ticks: (0..words.len()).map(|i| i as f64).collect() };
        }
        let values = values.chain(axis.room.iter().copied());
        let positions = values.filter_map(|value| position(scale, value));
        let (low, high) =
            positions.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let air = if high > low {
            (high - low) * 0.05
        } else if matches!(scale, Scale::Log(_)) {
            0.3
        } else {
            1.0
        };
        let range = (low - air, high + air);
        let ticks = match scale {
            Scale::Log(named) if !named.is_empty() => named.iter().map(|value| libm::log10(*value)).collect(),
            Scale::Log(_) => decades(range),
            _ => even(range),
        };
        Self { scale, range, ticks }
    }

    /// From its end to its beginning: downwards, what went upwards.
    pub(super) fn turned(self) -> Self {
        Self { range: (self.range.1, self.range.0), ..self }
    }

    /// Where `value` lies; nothing where this axis has no place for it.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        position(self.scale, value)
    }

    /// The name of a position.
    pub(super) fn name(&self, position: f64) -> String {
        match self.scale {
            Scale::Words(words) => words.get(position.round() as usize).cloned().unwrap_or_default(),
            // Longer ones would reach into the axis's title.
            Scale::Linear if position.abs() >= 1e5 => format!("{position:e}"),
            Scale::Linear => number(position),
            Scale::Log(_) => large(libm::exp10(position)),
        }
    }
}

impl Ranged for Layout<'_> {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let (low, high) = self.range;
        from + (f64::from(to - from) * (value - low) / (high - low)).round() as i32
    }

    /// There are no lines between the named ones.
    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

fn position(scale: &Scale, value: f64) -> Option<f64> {
    let position = if matches!(scale, Scale::Log(_)) { libm::log10(value) } else { value };
    position.is_finite().then_some(position)
}

/// About six values whose distance is 1, 2 or 5 times a power of ten.
fn even((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = libm::exp10(libm::log10(rough).floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let (first, last) = ((low / step).ceil(), (high / step).floor());
    // Nearer to each other than numbers have digits.
    if !step.is_normal() || last - first > 100.0 {
        return vec![low, high];
    }
    (first as i64..=last as i64).map(|i| i as f64 * step).collect()
}

/// Memory as people ask for it.
pub(super) fn gibibytes(bytes: u64) -> String {
    let [mebi, gibi] = [20, 30].map(|power| bytes as f64 / f64::from(1 << power));
    let (size, unit) = if gibi < 0.1 { (mebi, "MiB") } else { (gibi, "GiB") };
    format!("{} {unit}", number((100.0 * size).round() / 100.0))
}

/// What is left of a number that a reader needs only about: two digits of a small one.
pub(super) fn brief(value: f64) -> String {
    match value {
        10.0.. => format!("{value:.0}"),
        1.0.. => number((10.0 * value).round() / 10.0),
        _ => number((100.0 * value).round() / 100.0),
    }
}

/// Powers of ten; the fewer of them, the more of their multiples too.
fn decades((low, high): (f64, f64)) -> Vec<f64> {
    let multiples: &[f64] = match high - low {
        ..1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        ..2.2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let powers = low.floor() as i32..=high.ceil() as i32;
    let all = powers.flat_map(|power| multiples.iter().map(move |m| f64::from(power) + libm::log10(*m)));
    let within: Vec<_> = all.filter(|at| (low..=high).contains(at)).collect();
    if within.len() > 1 {
        return within;
    }
    // Between two of them, logarithms are nearly straight.
    even((libm::exp10(low), libm::exp10(high))).into_iter().map(libm::log10).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// With `k` and `M` for thousands and millions.
fn large(value: f64) -> String {
    match value {
        999_999.0.. => number(value / 1e6) + " M",
        999.9.. => number(value / 1e3) + " k",
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis, values: &[f64]) -> Vec<String> {
        let layout = Layout::new(axis, values.iter().copied());
        layout.ticks.iter().map(|tick| layout.name(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(names(&Axis::linear(""), &[0.0, 100.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(names(&Axis::linear(""), &[-0.01, 0.02]), ["-0.01", "0", "0.01", "0.02"]);
        assert_eq!(names(&Axis::linear(""), &[0.0, 1.7e9])[..3], ["0", "5e8", "1e9"]);
        assert_eq!(names(&Axis::log(""), &[900.0, 60_000.0]), ["1 k", "2 k", "5 k", "10 k", "20 k", "50 k"]);
        assert_eq!(names(&Axis::log(""), &[2272.0, 2496.0]), ["2.3 k", "2.35 k", "2.4 k", "2.45 k", "2.5 k"]);
        assert_eq!(names(&Axis::log(""), &[500.0, 2e6]), ["1 k", "10 k", "100 k", "1 M"]);
        assert_eq!(names(&Axis::words("", vec!["a".into(), "b".into()]), &[]), ["a", "b"]);
    }

    #[test]
    fn values_nearer_to_each_other_than_digits_go_have_two_ticks() {
        let next = f64::from_bits(1e300_f64.to_bits() + 1);
        for values in [[0.0, 5e-324], [-5e-324, 5e-324], [1e300, next], [f64::MIN, f64::MAX]] {
            let axis = Axis::linear("");
            let layout = Layout::new(&axis, values.into_iter());
            assert!((1..=101).contains(&layout.ticks.len()), "{layout:?}");
        }
    }

    #[test]
    fn chance_is_said_in_two_digits() {
        assert_eq!([50.0, 100.0 / 3.0, 1.0, 0.5, 1.0 / 3.0].map(brief), ["50", "33", "1", "0.5", "0.33"]);
    }

    #[test]
    fn nothing_and_a_single_value_have_room() {
        let (linear, log) = (Axis::linear(""), Axis::log(""));
        for values in [&[][..], &[3.0], &[f64::NAN, f64::INFINITY]] {
            let layout = Layout::new(&linear, values.iter().copied());
            assert!(layout.range.0 < layout.range.1 && !layout.ticks.is_empty(), "{layout:?}");
        }
        assert_eq!(Layout::new(&log, [0.0, -1.0].into_iter()).at(0.0), None);
    }
}
