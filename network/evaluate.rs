//! How good a network is, from its logits, and what its gammas look like. Every sum is in f64 and in
//! the order of the images or values. Knows no files and draws nothing.

use serde::Serialize;

use crate::{
    Error, Result,
    arch::{Graph, Op},
    data::Dataset,
    tensor::Tensors,
    trainer::{Split, Trainer},
};

/// Counts over the images of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// `[label][guess]`, where the guess is the largest logit, the first where several are equal.
    pub confusion: Vec<Vec<u64>>,
    /// How many had their label among the five largest logits.
    pub top5: u64,
    /// Sum of cross-entropies (natural logarithm).
    pub loss: f64,
}

/// What is written about an evaluation; fractions of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Images.
    pub examples: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose largest logit is their label's.
    pub top1: f64,
    /// Share of images whose label is among the five largest logits.
    pub top5: f64,
    /// Top-1 by label; nothing where there is no image.
    pub per_class: Vec<Option<f64>>,
    /// `[label][guess]`.
    pub confusion: Vec<Vec<u64>>,
}

/// Looks at all of `split`, `batch` images at a time. Before each it asks `go_on`, with the number
/// of images done; `None` when that said no.
pub fn evaluate(
    trainer: &mut dyn Trainer,
    data: &Dataset,
    split: Split,
    batch: usize,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    let (n, batch) = (data.len(split), batch.max(1));
    let mut evaluation = Evaluation::new(data.classes().len());
    for start in (0..n).step_by(batch) {
        if !go_on(start) {
            return Ok(None);
        }
        let range = start..n.min(start + batch);
        let logits = trainer.predict(split, range.clone())?;
        let labels: Vec<_> = range.map(|i| data.label(split, i)).collect();
        evaluation.add(&logits, &labels)?;
    }
    Ok(Some(evaluation))
}

impl Evaluation {
    /// Nothing seen yet.
    pub fn new(classes: usize) -> Self {
        Self { confusion: vec![vec![0; classes]; classes], top5: 0, loss: 0.0 }
    }

    /// Counts images with these `logits` (`N K`) and `labels` (`N`).
    pub fn add(&mut self, logits: &[f32], labels: &[u16]) -> Result<()> {
        let classes = self.confusion.len();
        if logits.len() != classes * labels.len() {
            return Err(Error::Invalid(format!(
                "{} logits do not go with {} images of {classes} classes",
                logits.len(),
                labels.len()
            )));
        }
        for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
            if let Some(bad) = logits.iter().find(|x| !x.is_finite()) {
                return Err(Error::Diverged(format!("a logit is {bad}: the network has diverged")));
            }
            let label = usize::from(label);
            let before = |a: usize, b: usize| logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
            let rank = (0..classes).filter(|&c| before(c, label)).count();
            let guess = (0..classes).fold(0, |best, c| if before(c, best) { c } else { best });
            self.confusion[label][guess] += 1;
            self.top5 += u64::from(rank < 5);
            self.loss += cross_entropy(logits, label, guess);
        }
        Ok(())
    }

    /// Images counted.
    pub fn examples(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// The shares and means.
    pub fn metrics(&self) -> Metrics {
        let examples = self.examples();
        let correct: u64 = (0..self.confusion.len()).map(|c| self.confusion[c][c]).sum();
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        let per_class = self.confusion.iter().enumerate().map(|(label, guesses)| {
            let images: u64 = guesses.iter().sum();
            (images > 0).then(|| share(guesses[label], images))
        });
        Metrics {
            examples,
            loss: self.loss / examples as f64,
            top1: share(correct, examples),
            top5: share(self.top5, examples),
            per_class: per_class.collect(),
            confusion: self.confusion.clone(),
        }
    }
}

/// -log softmax at `label`; `largest` is the index of the largest logit.
fn cross_entropy(logits: &[f32], label: usize, largest: usize) -> f64 {
    let largest = f64::from(logits[largest]);
    let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(*x) - largest)).sum();
    libm::log(sum) - (f64::from(logits[label]) - largest)
}

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

/// From -2 to 3 in steps of 0.05: trained gammas of these networks lie between -1.5 and 2.5.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, tensor::Tensor};

    #[test]
    fn shares_follow_the_logits() {
        let mut evaluation = Evaluation::new(6);
        let logits = [
            [5.0, 0.0, 0.0, 0.0, 0.0, 0.0], // right
            [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], // label 5 is sixth
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], // equal: the first counts, label 1 is second
        ];
        evaluation.add(&logits.concat(), &[0, 5, 1]).unwrap();
        let metrics = evaluation.metrics();
        assert_eq!((metrics.examples, metrics.top1, metrics.top5), (3, 1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(metrics.per_class, [Some(1.0), Some(0.0), None, None, None, Some(0.0)]);
        assert_eq!((metrics.confusion[5][0], metrics.confusion[1][0], metrics.confusion[0][0]), (1, 1, 1));
        let e = std::f64::consts::E;
        let first = (1.0 + 5.0 * e.powi(-5)).ln();
        let second = (0..6).map(|i| e.powi(-i)).sum::<f64>().ln() + 5.0;
        assert!((metrics.loss - (first + second + 6f64.ln()) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow_and_infinite_ones_are_refused() {
        let mut evaluation = Evaluation::new(2);
        evaluation.add(&[3e38, -3e38], &[0]).unwrap();
        assert_eq!(evaluation.loss, 0.0);
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(evaluation.add(&[0.0, bad], &[0]).unwrap_err().to_string().contains("diverged"));
        }
        assert!(evaluation.add(&[0.0; 3], &[0]).is_err());
    }

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
}
