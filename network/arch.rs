//! The networks: ResNets and VGGs for 32x32 images, as a flat list of operations that every
//! engine, exporter and table walks. Holds no weights and knows no engine.
//!
//! Source: OpenLTH `models/cifar_resnet.py` and `models/cifar_vgg.py` for [`Variant::Paper`];
//! the PyTorch reproduction `origin` for [`Variant::Origin`] (stride 2 and a projection in the
//! first stage).

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// What BatchNorm adds to a variance; PyTorch's default.
pub const BN_EPS: f64 = 1e-5;
/// The share of a batch in BatchNorm's running statistics; PyTorch's default.
pub const BN_MOMENTUM: f64 = 0.1;

/// Which of two readings of the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The paper's: stage 1 at full resolution, identity shortcuts.
    Paper,
    /// The origin's: stage 1 also has stride 2 and a projection; maps are 16, 8, 4.
    Origin,
}

impl FromStr for Variant {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "paper" => Ok(Self::Paper),
            "origin" => Ok(Self::Origin),
            _ => Err(Error::Unknown { what: "variant", name: s.into(), known: "paper, origin".into() }),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Origin => "origin",
        })
    }
}

/// An architecture by its name: `resnet32`, `resnet14-8` (first-stage width 16 x 8), `vgg16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// `resnetN` or `resnetN-W`, N = 6 `blocks` + 2, stage widths 16 W, 32 W, 64 W.
    ResNet {
        /// Residual blocks per stage (D in the paper).
        blocks: usize,
        /// Width multiplier (W in ResNet-14-W).
        width: usize,
    },
    /// `vgg11`, `vgg13`, `vgg16`, `vgg19`: configurations A, B, D, E.
    Vgg {
        /// 11, 13, 16 or 19.
        depth: usize,
    },
}

impl FromStr for Arch {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        // Another spelling of the same number would be the same network under two names.
        let spelt = |arch: &Arch| arch.to_string() == s.strip_suffix("-1").unwrap_or(s);
        parse(s).filter(spelt).ok_or_else(|| Error::Unknown {
            what: "architecture",
            name: s.into(),
            known: "resnetN with N = 6 D + 2 (resnet14, resnet20, resnet32, ...), resnetN-W (resnet14-8), of at most \
                    some 4 billion weights, vgg11, vgg13, vgg16, vgg19"
                .into(),
        })
    }
}

fn parse(s: &str) -> Option<Arch> {
    if let Some(depth) = s.strip_prefix("vgg") {
        let depth = depth.parse().ok()?;
        return [11, 13, 16, 19].contains(&depth).then_some(Arch::Vgg { depth });
    }
    let rest = s.strip_prefix("resnet")?;
    let (depth, width) = rest.split_once('-').unwrap_or((rest, "1"));
    let (depth, width): (usize, usize) = (depth.parse().ok()?, width.parse().ok()?);
    let valid = depth >= 8 && depth % 6 == 2 && depth <= 10_000 && (1..=64).contains(&width);
    // Of each D and W^2 some 97,000 weights: 16 GB in all.
    let valid = valid && (depth - 2) / 6 * width * width <= 41_000;
    valid.then_some(Arch::ResNet { blocks: (depth - 2) / 6, width })
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResNet { width: 1, .. } => write!(f, "resnet{}", self.depth()),
            Self::ResNet { width, .. } => write!(f, "resnet{}-{width}", self.depth()),
            Self::Vgg { depth } => write!(f, "vgg{depth}"),
        }
    }
}

impl Arch {
    /// Layers with weights on the longest path: N of ResNet-N and VGG-N.
    pub fn depth(&self) -> usize {
        match self {
            Self::ResNet { blocks, .. } => 6 * blocks + 2,
            Self::Vgg { depth } => *depth,
        }
    }

    /// W of ResNet-N-W; 1 for a VGG.
    pub fn width(&self) -> usize {
        match self {
            Self::ResNet { width, .. } => *width,
            Self::Vgg { .. } => 1,
        }
    }
}

/// Index of a [`Node`] in [`Graph::nodes`].
pub type NodeId = usize;

/// One operation; its inputs are earlier nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The nodes it reads: none for the input, two for an addition, one otherwise.
    pub inputs: Vec<NodeId>,
    /// Output sizes: channels, rows, columns (1, 1 after pooling).
    pub shape: [usize; 3],
}

/// The operations that these networks are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The normalised image.
    Input,
    /// A convolution with padding `kernel / 2`.
    Conv(Conv),
    /// Batch normalisation over N, H, W: [`BN_EPS`], [`BN_MOMENTUM`], unbiased running variance.
    BatchNorm {
        /// PyTorch's module name, e.g. `layer1.0.bn1`.
        name: String,
        /// Does it stand on a projection shortcut?
        shortcut: bool,
    },
    /// max(x, 0).
    Relu,
    /// The sum of the residual branch (first input) and the shortcut (second input).
    Add,
    /// 2x2 maximum, stride 2.
    MaxPool,
    /// Mean over all rows and columns.
    GlobalAvgPool,
    /// The output layer, with bias.
    Linear {
        /// PyTorch's module name.
        name: String,
        /// Classes.
        classes: usize,
    },
}

/// A convolution's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// PyTorch's module name, e.g. `layer1.0.conv1`, `layer2.0.shortcut.0`.
    pub name: String,
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// Filter rows and columns: 3 or 1.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Has a bias (VGG only).
    pub bias: bool,
    /// Is it the projection of a shortcut?
    pub shortcut: bool,
}

/// Which of the paper's groups a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Filters `K C R S` of a convolution on the main path.
    Conv,
    /// Filters of a 1x1 projection.
    Shortcut,
    /// Bias of a convolution (VGG).
    ConvBias,
    /// BatchNorm scale.
    Gamma,
    /// BatchNorm shift.
    Beta,
    /// Weight `K C` of the output layer.
    OutputWeight,
    /// Bias of the output layer.
    OutputBias,
}

/// A parameter tensor, trained or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// PyTorch's name, e.g. `layer1.0.bn1.weight`.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Its group.
    pub role: Role,
    /// Belongs to a shortcut (projection or its BatchNorm).
    pub shortcut: bool,
}

impl Param {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A network as operations in execution order; the last node is the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The operations; each reads only earlier ones.
    pub nodes: Vec<Node>,
}

/// Rows and columns of the images.
pub const IMAGE_SIZE: usize = 32;
/// Channels of the images.
pub const IMAGE_CHANNELS: usize = 3;

impl Graph {
    /// The operations of `arch` for `classes` classes.
    pub fn new(arch: Arch, variant: Variant, classes: usize) -> Self {
        let mut b = Builder { nodes: Vec::new() };
        let input = b.push(Op::Input, vec![], [IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE]);
        let features = match arch {
            Arch::ResNet { blocks, width } => b.resnet(input, blocks, 16 * width, variant),
            Arch::Vgg { depth } => b.vgg(input, depth),
        };
        let [channels, ..] = b.nodes[features].shape;
        let pooled = b.push(Op::GlobalAvgPool, vec![features], [channels, 1, 1]);
        b.push(Op::Linear { name: "linear".into(), classes }, vec![pooled], [classes, 1, 1]);
        Self { nodes: b.nodes }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.shape[0])
    }

    /// Every parameter in PyTorch's `state_dict` order, running statistics left out.
    pub fn params(&self) -> Vec<Param> {
        let mut params = Vec::new();
        let mut add = |name: String, shape: Vec<usize>, role, shortcut| {
            params.push(Param { name, shape, role, shortcut });
        };
        for node in &self.nodes {
            match &node.op {
                Op::Conv(c) => {
                    let role = if c.shortcut { Role::Shortcut } else { Role::Conv };
                    let shape = vec![c.cout, c.cin, c.kernel, c.kernel];
                    add(format!("{}.weight", c.name), shape, role, c.shortcut);
                    if c.bias {
                        add(format!("{}.bias", c.name), vec![c.cout], Role::ConvBias, c.shortcut);
                    }
                }
                Op::BatchNorm { name, shortcut } => {
                    add(format!("{name}.weight"), vec![node.shape[0]], Role::Gamma, *shortcut);
                    add(format!("{name}.bias"), vec![node.shape[0]], Role::Beta, *shortcut);
                }
                Op::Linear { name, classes } => {
                    let inputs = self.nodes[node.inputs[0]].shape[0];
                    add(format!("{name}.weight"), vec![*classes, inputs], Role::OutputWeight, false);
                    add(format!("{name}.bias"), vec![*classes], Role::OutputBias, false);
                }
                Op::Input | Op::Relu | Op::Add | Op::MaxPool | Op::GlobalAvgPool => {}
            }
        }
        params
    }

    /// The running statistics: names, channels, and which of a BatchNorm's two it is (the last word of the name).
    pub fn running(&self) -> impl Iterator<Item = (String, usize, &'static str)> {
        let both = |(name, channels)| {
            ["running_mean", "running_var"].map(|which| (format!("{name}.{which}"), channels, which))
        };
        self.batch_norms().flat_map(both)
    }

    /// Names and channels of the BatchNorms, in order.
    pub fn batch_norms(&self) -> impl Iterator<Item = (&str, usize)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::BatchNorm { name, .. } => Some((name.as_str(), node.shape[0])),
            _ => None,
        })
    }
}

struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn push(&mut self, op: Op, inputs: Vec<NodeId>, shape: [usize; 3]) -> NodeId {
        self.nodes.push(Node { op, inputs, shape });
        self.nodes.len() - 1
    }

    fn conv(&mut self, x: NodeId, conv: Conv) -> NodeId {
        let [_, h, w] = self.nodes[x].shape;
        let shape = [conv.cout, h.div_ceil(conv.stride), w.div_ceil(conv.stride)];
        self.push(Op::Conv(conv), vec![x], shape)
    }

    fn batch_norm(&mut self, x: NodeId, name: String, shortcut: bool) -> NodeId {
        let shape = self.nodes[x].shape;
        self.push(Op::BatchNorm { name, shortcut }, vec![x], shape)
    }

    fn relu(&mut self, x: NodeId) -> NodeId {
        let shape = self.nodes[x].shape;
        self.push(Op::Relu, vec![x], shape)
    }

    fn conv3x3(&mut self, x: NodeId, name: String, cout: usize, stride: usize, bias: bool) -> NodeId {
        let cin = self.nodes[x].shape[0];
        self.conv(x, Conv { name, cin, cout, kernel: 3, stride, bias, shortcut: false })
    }

    fn resnet(&mut self, input: NodeId, blocks: usize, width: usize, variant: Variant) -> NodeId {
        let stem = self.conv3x3(input, "conv1".into(), width, 1, false);
        let stem = self.batch_norm(stem, "bn1".into(), false);
        let mut x = self.relu(stem);
        for stage in 0..3 {
            for block in 0..blocks {
                let first_stride = if stage > 0 || variant == Variant::Origin { 2 } else { 1 };
                let stride = if block == 0 { first_stride } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                x = self.block(x, &name, width << stage, stride);
            }
        }
        x
    }

    fn block(&mut self, x: NodeId, name: &str, cout: usize, stride: usize) -> NodeId {
        let cin = self.nodes[x].shape[0];
        let y = self.conv3x3(x, format!("{name}.conv1"), cout, stride, false);
        let y = self.batch_norm(y, format!("{name}.bn1"), false);
        let y = self.relu(y);
        let y = self.conv3x3(y, format!("{name}.conv2"), cout, 1, false);
        let y = self.batch_norm(y, format!("{name}.bn2"), false);
        let shortcut = if stride == 1 && cin == cout {
            x
        } else {
            let projection = Conv {
                name: format!("{name}.shortcut.0"),
                cin,
                cout,
                kernel: 1,
                stride,
                bias: false,
                shortcut: true,
            };
            let s = self.conv(x, projection);
            self.batch_norm(s, format!("{name}.shortcut.1"), true)
        };
        let shape = self.nodes[y].shape;
        let sum = self.push(Op::Add, vec![y, shortcut], shape);
        self.relu(sum)
    }

    fn vgg(&mut self, input: NodeId, depth: usize) -> NodeId {
        // Convolutions before each of the four max-pools and after the last.
        let groups: [usize; 5] = match depth {
            11 => [1, 1, 2, 2, 2],
            13 => [2, 2, 2, 2, 2],
            16 => [2, 2, 3, 3, 3],
            _ => [2, 2, 4, 4, 4],
        };
        let mut x = input;
        let mut index = 0;
        for (group, (&convs, width)) in groups.iter().zip([64, 128, 256, 512, 512]).enumerate() {
            if group > 0 {
                let [c, h, w] = self.nodes[x].shape;
                x = self.push(Op::MaxPool, vec![x], [c, h / 2, w / 2]);
                index += 1;
            }
            for _ in 0..convs {
                x = self.conv3x3(x, format!("layers.{index}.conv"), width, 1, true);
                x = self.batch_norm(x, format!("layers.{index}.bn"), false);
                x = self.relu(x);
                index += 1;
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Counts;

    #[test]
    fn names_round_trip_and_wrong_names_are_refused() {
        for name in ["resnet14", "resnet866", "resnet14-32", "vgg16"] {
            assert_eq!(name.parse::<Arch>().unwrap().to_string(), name);
        }
        assert_eq!("resnet14-1".parse::<Arch>().unwrap().to_string(), "resnet14");
        let spelt = ["resnet08", "resnet+8", "resnet14-08", "vgg011", "vgg11-1"];
        let wrong =
            ["resnet15", "resnet2", "resnet14-0", "vgg12", "alexnet", "resnet-14", "resnet", "resnet9998-64"];
        for name in wrong.into_iter().chain(spelt) {
            assert!(name.parse::<Arch>().is_err(), "{name}");
        }
    }

    /// The parameter table of the paper: total, BatchNorm, of which shortcut BatchNorm, output, shortcut.
    #[test]
    fn parameter_counts_equal_the_papers_table() {
        let table: [(&str, [usize; 5]); 18] = [
            ("resnet14", [175_258, 1_120, 192, 650, 2_560]),
            ("resnet20", [272_474, 1_568, 192, 650, 2_560]),
            ("resnet32", [466_906, 2_464, 192, 650, 2_560]),
            ("resnet44", [661_338, 3_360, 192, 650, 2_560]),
            ("resnet56", [855_770, 4_256, 192, 650, 2_560]),
            ("resnet110", [1_730_714, 8_288, 192, 650, 2_560]),
            ("resnet218", [3_480_602, 16_352, 192, 650, 2_560]),
            ("resnet434", [6_980_378, 32_480, 192, 650, 2_560]),
            ("resnet866", [13_979_930, 64_736, 192, 650, 2_560]),
            ("resnet14-2", [696_618, 2_240, 384, 1_290, 10_240]),
            ("resnet14-4", [2_777_674, 4_480, 768, 2_570, 40_960]),
            ("resnet14-8", [11_093_130, 8_960, 1_536, 5_130, 163_840]),
            ("resnet14-16", [44_337_418, 17_920, 3_072, 10_250, 655_360]),
            ("resnet14-32", [177_279_498, 35_840, 6_144, 20_490, 2_621_440]),
            ("vgg11", [9_231_114, 5_504, 0, 5_130, 0]),
            ("vgg13", [9_416_010, 5_888, 0, 5_130, 0]),
            ("vgg16", [14_728_266, 8_448, 0, 5_130, 0]),
            ("vgg19", [20_040_522, 11_008, 0, 5_130, 0]),
        ];
        for (name, expected) in table {
            assert_eq!(counts(name, Variant::Paper), expected, "{name}");
        }
    }

    #[test]
    fn the_origins_variant_has_its_counts() {
        for (name, total, trained) in
            [("resnet32", 467_194, 2_272), ("resnet56", 856_058, 4_064), ("resnet110", 1_731_002, 8_096)]
        {
            let [all, bn, shortcut_bn, ..] = counts(name, Variant::Origin);
            assert_eq!((all, bn - shortcut_bn), (total, trained), "{name}");
        }
    }

    fn counts(name: &str, variant: Variant) -> [usize; 5] {
        let Counts { total, batch_norm, shortcut_batch_norm, output, shortcut } =
            Counts::of(&Graph::new(name.parse().unwrap(), variant, 10));
        [total, batch_norm, shortcut_batch_norm, output, shortcut]
    }
}
