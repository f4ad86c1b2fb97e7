//! Which features of a network are dead: channels behind a ReLU that are zero at (nearly) all positions of
//! all images. Knows no engine and no files.

use serde::Serialize;

use crate::arch::{Graph, NodeId, Op};

/// What stands before a ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// A BatchNorm.
    Bn,
    /// The addition of a shortcut, which carries other features on.
    Addition,
}

/// A ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct Rectifier {
    /// PyTorch's name of the last BatchNorm of the main path before it.
    pub name: String,
    /// What stands directly before it.
    pub after: After,
    /// Channels.
    pub channels: usize,
    /// Positions of a channel.
    pub positions: usize,
}

/// The ReLUs of `graph`, in order.
pub fn rectifiers(graph: &Graph) -> Vec<Rectifier> {
    let main = |node: NodeId| graph.nodes[node].inputs.first().map_or(0, |input| *input);
    let relu = |(relu, node): (NodeId, &crate::arch::Node)| {
        let before = main(relu);
        let (after, norm) = match graph.nodes[before].op {
            Op::Add => (After::Addition, main(before)),
            _ => (After::Bn, before),
        };
        let Op::BatchNorm { name, .. } = &graph.nodes[norm].op else { return None };
        let [channels, rows, columns] = node.shape;
        Some(Rectifier { name: name.clone(), after, channels, positions: rows * columns })
    };
    graph.nodes.iter().enumerate().filter(|(_, node)| node.op == Op::Relu).filter_map(relu).collect()
}

/// No zeros yet: one number for each channel of each rectifier, to be counted into by
/// [`look`](crate::trainer::Trainer::look).
pub fn no_zeros(rectifiers: &[Rectifier]) -> Vec<Vec<u64>> {
    rectifiers.iter().map(|rectifier| vec![0; rectifier.channels]).collect()
}

/// How many channels, and which share of them is dead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dead {
    /// Channels.
    pub count: usize,
    /// Share of channels that are zero at 99 % of all positions or more.
    pub dead_99: f64,
    /// Share of channels that are zero everywhere.
    pub dead_100: f64,
}

/// The channels of one ReLU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerFeatures {
    /// As [`Rectifier::name`].
    pub name: String,
    /// As [`Rectifier::after`].
    pub after: After,
    /// Its dead channels.
    #[serde(flatten)]
    pub dead: Dead,
}

/// The features of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Features {
    /// That were looked at.
    pub images: u64,
    /// All ReLUs together.
    pub all: Dead,
    /// Those behind a BatchNorm.
    pub after_bn: Option<Dead>,
    /// Those behind an addition.
    pub after_addition: Option<Dead>,
    /// One by one, in the order of the network.
    pub layers: Vec<LayerFeatures>,
}

/// What `zeros`, counted over `images`, come to.
pub fn features(rectifiers: &[Rectifier], zeros: &[Vec<u64>], images: u64) -> Features {
    let numbers: Vec<(&Rectifier, [usize; 3])> = rectifiers
        .iter()
        .zip(zeros)
        .map(|(rectifier, zeros)| {
            let values = images * rectifier.positions as u64;
            let count = |dead: &dyn Fn(u64) -> bool| zeros.iter().filter(|zeros| dead(**zeros)).count();
            let dead_99 = count(&|zeros| 100 * zeros >= 99 * values);
            (rectifier, [zeros.len(), dead_99, count(&|zeros| zeros == values)])
        })
        .collect();
    let together = |keep: &dyn Fn(&Rectifier) -> bool| {
        let kept = numbers.iter().filter(|(rectifier, _)| keep(rectifier));
        let sum = kept.fold([0; 3], |sum, (_, numbers)| std::array::from_fn(|i| sum[i] + numbers[i]));
        (sum[0] > 0).then(|| shares(sum))
    };
    let layers = numbers.iter().map(|(rectifier, numbers)| LayerFeatures {
        name: rectifier.name.clone(),
        after: rectifier.after,
        dead: shares(*numbers),
    });
    Features {
        images,
        all: together(&|_| true).unwrap_or(Dead { count: 0, dead_99: 0.0, dead_100: 0.0 }),
        after_bn: together(&|rectifier| rectifier.after == After::Bn),
        after_addition: together(&|rectifier| rectifier.after == After::Addition),
        layers: layers.collect(),
    }
}

fn shares([count, dead_99, dead_100]: [usize; 3]) -> Dead {
    let share = |part: usize| part as f64 / count as f64;
    Dead { count, dead_99: share(dead_99), dead_100: share(dead_100) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Variant;

    fn of(arch: &str) -> Vec<Rectifier> {
        rectifiers(&Graph::new(arch.parse().unwrap(), Variant::Paper, 10))
    }

    #[test]
    fn rectifiers_are_named_by_the_batch_norm_before_them() {
        let found: Vec<_> =
            of("resnet8").into_iter().map(|r| (r.name, r.after, r.channels, r.positions)).collect();
        let expected = [
            ("bn1", After::Bn, 16, 1024),
            ("layer1.0.bn1", After::Bn, 16, 1024),
            ("layer1.0.bn2", After::Addition, 16, 1024),
            ("layer2.0.bn1", After::Bn, 32, 256),
            ("layer2.0.bn2", After::Addition, 32, 256),
            ("layer3.0.bn1", After::Bn, 64, 64),
            ("layer3.0.bn2", After::Addition, 64, 64),
        ];
        assert_eq!(found, expected.map(|(name, after, c, p)| (name.to_owned(), after, c, p)));
        assert_eq!((of("vgg11").len(), of("vgg11")[1].positions), (8, 256), "before the pooling");
    }

    #[test]
    fn channels_die_at_ninety_nine_percent() {
        let rectifiers = &of("resnet8")[..3];
        let mut zeros = no_zeros(rectifiers);
        let values = 100 * 1024;
        zeros[0][..3].copy_from_slice(&[values, values * 99 / 100, values * 99 / 100 - 1]);
        zeros[2][5] = values;
        let found = features(rectifiers, &zeros, 100);
        assert_eq!(found.all, Dead { count: 48, dead_99: 3.0 / 48.0, dead_100: 2.0 / 48.0 });
        assert_eq!(found.after_bn, Some(Dead { count: 32, dead_99: 2.0 / 32.0, dead_100: 1.0 / 32.0 }));
        assert_eq!(found.after_addition, Some(Dead { count: 16, dead_99: 1.0 / 16.0, dead_100: 1.0 / 16.0 }));
        assert_eq!(found.layers[1].dead.dead_99, 0.0);
        assert_eq!(features(&rectifiers[..2], &zeros[..2], 100).after_addition, None);
    }
}
