//! One network, trained one way but for two settings: a row for each value of one, a mark for each of the other.
//! What a row of its own for each pair would say in many words, one sees at a glance.

use super::{Axis, Chart, Evaluation, Grouped, Series, Statistics};
use crate::{
    plot::{
        chart::{Dashes, Look},
        look::mark,
    },
    results::{crossed, words},
};

/// `value` of the runs by both settings, where there are two of them and nothing else tells the lines apart.
pub(super) fn chart(
    groups: &Grouped<'_>,
    title: &str,
    value: impl Fn(&Evaluation) -> Option<f64>,
    y: Axis,
) -> Option<Chart> {
    let [rows, marks] = crossed(groups.keys().copied())?;
    let mut networks = groups.values().flat_map(|runs| runs.keys());
    let (line, network) = (groups.keys().next()?, networks.next()?);
    if networks.any(|other| other != network) {
        return None;
    }
    let mut counts = Vec::new();
    let mut series = Vec::new();
    for (index, of) in marks.values.iter().enumerate() {
        let mut points = Vec::new();
        for (place, row) in rows.values.iter().enumerate() {
            let here = groups.iter().filter(|(line, _)| {
                line.value(&rows.axis) == Some(&**row) && line.value(&marks.axis) == Some(&**of)
            });
            let runs = here.flat_map(|(_, runs)| runs.values().flatten());
            if let Some(s) = Statistics::of(runs.filter_map(|run| value(run))) {
                points.push((place as f64, s.mean, s.spread()));
                counts.push(s.n);
            }
        }
        let look = Look { dashes: Dashes::None, ..mark(index) };
        series.push(Series { label: words(&marks.axis, of), look, points });
    }
    Some(Chart {
        title: super::counted(&format!("{title}: {}, {}", network.label(), line.what()), &counts),
        x: Axis::words("", rows.values.iter().map(|row| words(&rows.axis, row)).collect()),
        y,
        series,
        rows: true,
    })
}
