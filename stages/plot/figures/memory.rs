//! Memory of a training step by batch, one figure for each network and variant.

use std::collections::BTreeMap;

use super::{Axis, Chart, Drawing, Given, Series, looks};
use crate::{
    plot::ticks::gibibytes,
    results::{Line, Memory, Network},
};

pub(super) fn memory(given: &Given<'_>) -> Vec<Drawing> {
    let mut networks = BTreeMap::<(&Network, &str), BTreeMap<&Line, &Memory>>::new();
    for memory in &given.results.memory {
        let lines = networks.entry((&memory.network, &*memory.variant)).or_default();
        lines.insert(&memory.line, memory);
    }
    let drawing = |((network, variant), lines): ((&Network, &str), BTreeMap<&Line, &Memory>)| {
        let mut series = Vec::new();
        for ((line, memory), look) in lines.iter().zip(looks(lines.keys().copied())) {
            let buffers = &memory.buffers;
            let mut points: Vec<_> =
                buffers.iter().map(|at| (at.batch as f64, at.bytes as f64 / 1e6, None)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let fits = memory.largest_batch.zip(memory.budget).map_or_else(String::new, |(n, budget)| {
                format!(" (up to {n} images fit {})", gibibytes(budget).replace(' ', "\u{a0}"))
            });
            // The title says whose network it is.
            let label = format!("{}{fits}", line.without_variant().label());
            series.push(Series { label, look, points });
        }
        let chart = Chart {
            title: format!("Memory of a training step, {} ({variant})", network.label()),
            x: Axis::linear("batch (images)"),
            y: Axis::linear_with("buffers (MB)", &[0.0]),
            series,
            rows: false,
        };
        let caption =
            "How much memory a training step occupies on one thread of the CPU, by how many images it \
                       looks at together: the lower a line, the larger the batch that fits."
                .into();
        let name = format!("memory-{}-{variant}", crate::plot::file_name(network.name()));
        Drawing { name, caption, chart }
    };
    networks.into_iter().map(drawing).collect()
}
