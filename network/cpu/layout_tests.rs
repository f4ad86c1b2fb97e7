//! What is laid out, and what is refused because it would be computed wrongly: small networks that nobody has a name for.

use super::*;
use crate::{
    arch::{Arch, Node, Variant},
    cuda::plan::covers,
};

/// A network in the making.
struct Net(Vec<Node>);

impl Net {
    fn new() -> Self {
        Self(vec![Node { op: Op::Input, inputs: vec![], shape: [3, 32, 32] }])
    }

    fn push(&mut self, op: Op, inputs: Vec<NodeId>, shape: [usize; 3]) -> NodeId {
        self.0.push(Node { op, inputs, shape });
        self.0.len() - 1
    }

    fn conv(&mut self, x: NodeId, cout: usize, kernel: usize, stride: usize) -> NodeId {
        let [cin, h, w] = self.0[x].shape;
        let name = format!("conv{}", self.0.len());
        let conv = Conv { name, cin, cout, kernel, stride, bias: false, shortcut: false };
        self.push(Op::Conv(conv), vec![x], [cout, h.div_ceil(stride), w.div_ceil(stride)])
    }

    fn norm(&mut self, x: NodeId) -> NodeId {
        let name = format!("bn{}", self.0.len());
        self.push(Op::BatchNorm { name, shortcut: false }, vec![x], self.0[x].shape)
    }

    fn relu(&mut self, x: NodeId) -> NodeId {
        self.push(Op::Relu, vec![x], self.0[x].shape)
    }

    /// A convolution and its BatchNorm.
    fn unit(&mut self, x: NodeId, cout: usize, kernel: usize, stride: usize) -> NodeId {
        let x = self.conv(x, cout, kernel, stride);
        self.norm(x)
    }

    /// The same, rectified.
    fn layer(&mut self, x: NodeId, cout: usize, kernel: usize, stride: usize) -> NodeId {
        let x = self.unit(x, cout, kernel, stride);
        self.relu(x)
    }

    fn add(&mut self, y: NodeId, x: NodeId) -> NodeId {
        let sum = self.push(Op::Add, vec![y, x], self.0[y].shape);
        self.relu(sum)
    }

    fn pool(&mut self, x: NodeId) -> NodeId {
        let [c, h, w] = self.0[x].shape;
        self.push(Op::MaxPool, vec![x], [c, h / 2, w / 2])
    }

    /// A residual block of `cout` channels; with a projection where it has a stride.
    fn block(&mut self, x: NodeId, cout: usize, stride: usize) -> NodeId {
        let y = self.layer(x, cout, 3, stride);
        let y = self.unit(y, cout, 3, 1);
        let side = if stride == 1 { x } else { self.unit(x, cout, 1, stride) };
        self.add(y, side)
    }

    /// Two layers of 16 channels, to which something else than what they read may be added.
    fn around(&mut self, x: NodeId, side: NodeId) -> NodeId {
        let y = self.layer(x, 16, 3, 1);
        let y = self.unit(y, 16, 3, 1);
        self.add(y, side)
    }
}

/// The layout of a network that ends in what `make` answers.
fn layout(make: impl FnOnce(&mut Net, NodeId) -> NodeId) -> Result<Layout> {
    let mut net = Net::new();
    let features = make(&mut net, 0);
    let channels = net.0[features].shape[0];
    let pooled = net.push(Op::GlobalAvgPool, vec![features], [channels, 1, 1]);
    net.push(Op::Linear { name: "linear".into(), classes: 10 }, vec![pooled], [10, 1, 1]);
    Layout::new(&Graph { nodes: net.0 })
}

/// Each was compared with the reference: gradients, steps and predictions in seven modes.
#[test]
fn chains_of_layers_and_blocks_are_covered() {
    for name in ["resnet8", "resnet14-3", "vgg11", "vgg19"] {
        for variant in [Variant::Paper, Variant::Origin] {
            let arch: Arch = name.parse().unwrap();
            covers(&Layout::new(&Graph::new(arch, variant, 10)).unwrap()).unwrap();
        }
    }
    layout(|net, x| {
        let mut x = net.layer(x, 64, 3, 2);
        for _ in 0..2 {
            let y = net.layer(x, 16, 1, 1);
            let y = net.layer(y, 16, 3, 1);
            let y = net.unit(y, 64, 1, 1);
            x = net.add(y, x);
        }
        x
    })
    .expect("bottlenecks");
    layout(|net, x| {
        let x = net.layer(x, 64, 3, 2);
        net.layer(x, 16, 3, 1)
    })
    .expect("a network that narrows");
    let pooled = layout(|net, x| {
        let x = net.layer(x, 16, 1, 1);
        let x = net.layer(x, 16, 3, 2);
        net.pool(x)
    })
    .expect("a 1x1 stem, and a last feature that is pooled");
    assert!(covers(&pooled).is_err(), "not on a card");
    let skipped = layout(|net, x| {
        let x = net.layer(x, 16, 3, 1);
        let x = net.block(x, 16, 1);
        net.layer(x, 16, 1, 2)
    })
    .expect("a sum of which a quarter is read");
    assert!(covers(&skipped).is_err(), "not on a card");
    layout(|net, x| {
        let x = net.layer(x, 16, 3, 2);
        let x = net.block(x, 16, 1);
        let x = net.layer(x, 32, 3, 2);
        let y = net.unit(x, 32, 3, 1);
        net.relu(y)
    })
    .expect("blocks without a projection");
}

#[test]
fn what_would_be_computed_wrongly_is_refused() {
    type Make = fn(&mut Net, NodeId) -> NodeId;
    let wrong: [(&str, Make); 17] = [
        ("a feature that is added twice", |net, x| {
            let first = net.layer(x, 16, 3, 2);
            let x = net.block(first, 16, 1);
            net.around(x, first)
        }),
        ("shortcuts that cross", |net, x| {
            let a = net.layer(x, 16, 3, 2);
            let b = net.layer(a, 16, 3, 1);
            let y = net.unit(b, 16, 3, 1);
            let x = net.add(y, a);
            let y = net.unit(x, 16, 3, 1);
            net.add(y, b)
        }),
        ("a shortcut within a shortcut", |net, x| {
            let first = net.layer(x, 16, 3, 2);
            let x = net.block(first, 16, 1);
            let y = net.unit(x, 16, 3, 1);
            net.add(y, first)
        }),
        ("a shortcut from before the rectifier", |net, x| {
            let s = net.unit(x, 16, 3, 2);
            let x = net.relu(s);
            net.around(x, s)
        }),
        ("two branches of stride 1", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let p = net.unit(x, 16, 3, 1);
            let q = net.unit(x, 16, 3, 1);
            net.add(p, q)
        }),
        ("two branches of 1x1 filters", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let p = net.layer(x, 32, 1, 1);
            let q = net.layer(x, 32, 1, 1);
            let p = net.unit(p, 16, 1, 1);
            let q = net.unit(q, 16, 1, 1);
            net.add(p, q)
        }),
        ("a projection of stride 1", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let y = net.layer(x, 32, 3, 1);
            let y = net.unit(y, 32, 3, 1);
            let side = net.unit(x, 32, 1, 1);
            net.add(y, side)
        }),
        ("a shortcut from a pooled feature", |net, x| {
            let x = net.layer(x, 16, 3, 1);
            let x = net.pool(x);
            net.block(x, 16, 1)
        }),
        ("a projection of a pooled feature", |net, x| {
            let x = net.layer(x, 16, 3, 1);
            let x = net.pool(x);
            net.block(x, 32, 2)
        }),
        ("two poolings", |net, x| {
            let x = net.layer(x, 16, 3, 1);
            let x = net.pool(x);
            net.pool(x)
        }),
        ("a pooling that nobody reads", |net, x| {
            let x = net.layer(x, 16, 3, 1);
            let _ = net.pool(x);
            net.layer(x, 16, 3, 2)
        }),
        ("two BatchNorms", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let y = net.unit(x, 16, 3, 1);
            let y = net.norm(y);
            net.relu(y)
        }),
        ("no BatchNorm", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let y = net.conv(x, 16, 3, 1);
            net.relu(y)
        }),
        ("an average of a feature that is not the last", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            let _ = net.layer(x, 16, 3, 1);
            x
        }),
        ("5x5 filters", |net, x| {
            let x = net.layer(x, 16, 3, 2);
            net.layer(x, 16, 5, 1)
        }),
        ("a stride of 4", |net, x| net.layer(x, 16, 3, 4)),
        ("channels that are no multiple of 16", |net, x| net.layer(x, 24, 3, 2)),
    ];
    for (what, make) in wrong {
        let refused = layout(make);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{what}");
    }
    let mut net = Net::new();
    let x = net.layer(0, 16, 3, 2);
    net.push(Op::Linear { name: "linear".into(), classes: 10 }, vec![x], [10, 1, 1]);
    assert!(Layout::new(&Graph { nodes: net.0 }).is_err(), "an output layer that reads no average");
}
