//! What trainings and evaluations left behind, as `plot` and `claims` read it: whose result each is,
//! its numbers, its history. Knows neither figures nor claims.

mod history;
mod line;
mod network;
mod protocol;
mod read;
mod telling;

pub(crate) use self::{
    history::History,
    line::{Line, Value, Values, crossed, setting, whose, words},
    network::{Family, Network},
    protocol::Departure,
    read::{Axes, Evaluation, Gammas, Histogram, Memory, Results},
    telling::{Apart, Repeated},
};

/// Mean, sample standard deviation and number of values that are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Of equal values it is that value, without rounding.
    pub mean: f64,
    /// 0 for a single value.
    pub sd: f64,
    /// How many.
    pub n: usize,
}

impl Statistics {
    /// The standard deviation of several values; a single one says nothing of how far others lie apart.
    pub fn spread(&self) -> Option<f64> {
        (self.n > 1).then_some(self.sd)
    }

    /// Nothing where no value is finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let (n, first) = (values.len(), *values.first()?);
        let mean = first + values.iter().map(|v| v - first).sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self { mean, sd: if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 }, n })
    }
}
