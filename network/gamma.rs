//! What a network's gammas look like, and what it is without the small ones. Every sum is in f64 and in the
//! order of the values. Knows no files, no engine and draws nothing.

use serde::Serialize;

use crate::{
    Error, Result,
    arch::{Graph, Op, Role},
    tensor::Tensors,
    trainer::State,
};

/// Size of gammas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GammaStatistics {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation around it (divided by the count).
    pub std: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
    /// Share with |gamma| < 0.01.
    pub below_001: f64,
    /// Share with |gamma| < 0.05.
    pub below_005: f64,
    /// Share with |gamma| < 0.1.
    pub below_01: f64,
}

/// The gammas of one BatchNorm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerGammas {
    /// PyTorch's module name.
    pub name: String,
    /// Does it stand on a shortcut?
    pub shortcut: bool,
    /// Their statistics.
    #[serde(flatten)]
    pub statistics: GammaStatistics,
}

/// How many gammas lie in each of equal intervals, closed below and open above.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower end of the first.
    pub from: f64,
    /// Upper end of the last.
    pub to: f64,
    /// Numbers in them.
    pub counts: Vec<u64>,
    /// Number below `from`.
    pub below: u64,
    /// Number at `to` or above.
    pub above: u64,
}

/// The gammas of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gammas {
    /// All of them together.
    pub all: GammaStatistics,
    /// All of them together.
    pub histogram: Histogram,
    /// By BatchNorm, in the order of the network.
    pub layers: Vec<LayerGammas>,
}

/// Looks at every gamma of `weights` (see [`Checkpoint::weights`](crate::checkpoint::Checkpoint)),
/// trained or not.
pub fn gammas(graph: &Graph, weights: &Tensors) -> Result<Gammas> {
    let (mut layers, mut all) = (Vec::new(), Vec::new());
    for node in &graph.nodes {
        if let Op::BatchNorm { name, shortcut } = &node.op {
            let gamma = weights.get(&format!("{name}.weight"));
            let gamma = gamma.ok_or_else(|| Error::Invalid(format!("there is no weight `{name}.weight`")))?;
            let statistics = statistics(&gamma.data);
            layers.push(LayerGammas { name: name.clone(), shortcut: *shortcut, statistics });
            all.extend_from_slice(&gamma.data);
        }
    }
    Ok(Gammas { all: statistics(&all), histogram: histogram(&all), layers })
}

fn statistics(gammas: &[f32]) -> GammaStatistics {
    let n = gammas.len() as f64;
    let wide = || gammas.iter().map(|g| f64::from(*g));
    let mean = wide().sum::<f64>() / n;
    let variance = wide().map(|g| (g - mean) * (g - mean)).sum::<f64>() / n;
    let below = |limit: f32| gammas.iter().filter(|g| g.abs() < limit).count() as f64 / n;
    GammaStatistics {
        count: gammas.len(),
        mean,
        std: libm::sqrt(variance),
        min: gammas.iter().copied().fold(f32::INFINITY, f32::min),
        max: gammas.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        below_001: below(0.01),
        below_005: below(0.05),
        below_01: below(0.1),
    }
}

/// From -2 to 3 in steps of 0.05: of the networks trained here at least 95 of 100 gammas lie there, of most all.
fn histogram(gammas: &[f32]) -> Histogram {
    let (from, to, per_unit) = (-2.0, 3.0, 20.0);
    let mut histogram = Histogram { from, to, counts: vec![0; 100], below: 0, above: 0 };
    for gamma in gammas {
        let place = libm::floor((f64::from(*gamma) - from) * per_unit);
        let count = if place < 0.0 {
            &mut histogram.below
        } else {
            histogram.counts.get_mut(place as usize).unwrap_or(&mut histogram.above)
        };
        *count += 1;
    }
    histogram
}

/// Sizes below which gammas are called small.
pub const THRESHOLDS: [f32; 3] = [0.01, 0.05, 0.1];

/// The network without its small gammas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Zeroing {
    /// Gammas below that in size were set to zero.
    pub threshold: f32,
    /// Share of the gammas that were.
    pub zeroed: f64,
    /// Share of images that it recognises.
    pub top1: f64,
    /// That less the whole network's.
    pub change: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

/// Sets every gamma of `state` smaller than `threshold` to zero; says whether that changed any.
pub fn zero_small(graph: &Graph, state: &mut State, threshold: f32) -> bool {
    let mut changed = false;
    for param in graph.params().iter().filter(|param| param.role == Role::Gamma) {
        let gammas = state.values.get_mut(&param.name).into_iter().flat_map(|tensor| &mut tensor.data);
        for gamma in gammas.filter(|gamma| gamma.abs() < threshold && **gamma != 0.0) {
            (*gamma, changed) = (0.0, true);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, tensor::Tensor};

    #[test]
    fn gammas_are_counted_by_layer_and_together() {
        let graph = Graph::new("resnet8".parse().unwrap(), Variant::Paper, 10);
        let mut weights: Tensors =
            graph.batch_norms().map(|(name, n)| (format!("{name}.weight"), Tensor::full([n], 1.0))).collect();
        let mut first = vec![0.5; 16];
        first[..5].copy_from_slice(&[-0.005, 0.01, 0.07, -5.0, 3.0]);
        weights.insert("bn1.weight".into(), Tensor::new([16], first));
        let gammas = gammas(&graph, &weights).unwrap();
        let first = &gammas.layers[0];
        assert_eq!((first.name.as_str(), first.shortcut), ("bn1", false));
        let s = &first.statistics;
        assert_eq!([s.below_001, s.below_005, s.below_01], [1.0 / 16.0, 2.0 / 16.0, 3.0 / 16.0]);
        assert_eq!((s.min, s.max, s.count), (-5.0, 3.0, 16));
        let total = 16 + 2 * (16 + 32 + 64) + 32 + 64;
        assert_eq!((gammas.all.count, gammas.layers.len()), (total, 9));
        let h = &gammas.histogram;
        assert_eq!((h.below, h.above, h.counts[60]), (1, 1, (total - 16) as u64));
        assert_eq!((h.counts[39], h.counts[40], h.counts[41], h.counts[50]), (1, 1, 1, 11));
        assert!((s.mean - (11.0 * 0.5 - 1.925) / 16.0).abs() < 1e-6);
        weights.remove("layer1.0.bn1.weight");
        assert!(super::gammas(&graph, &weights).is_err());
    }

    #[test]
    fn small_gammas_are_zeroed_and_nothing_else() {
        let graph = Graph::new("resnet8".parse().unwrap(), Variant::Paper, 10);
        let tensor = |data: &[f32]| Tensor::new([data.len()], data.to_vec());
        let given = [("bn1.weight", &[-0.04, 0.05, 0.0, 1.0][..]), ("bn1.bias", &[0.0, 0.001])];
        let values = given.map(|(name, data)| (name.to_owned(), tensor(data)));
        let mut state = State { values: values.into(), ..State::default() };
        let before = state.clone();
        assert!(!zero_small(&graph, &mut state, 0.01));
        assert_eq!(state, before);
        assert!(zero_small(&graph, &mut state, 0.05));
        assert_eq!(state.values["bn1.weight"].data, [0.0, 0.05, 0.0, 1.0]);
        assert_eq!(state.values["bn1.bias"], before.values["bn1.bias"]);
    }
}
