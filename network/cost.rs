//! What a training step costs by definition: the arithmetic of its direct convolutions, and the bytes
//! of activations that it cannot avoid to move. Knows no engine, no algorithm and no machine.
//!
//! A multiplication-addition counts as two operations (FLOP). Normalising, rectifying, adding and
//! pooling count as none: they are done while something is read or written. Weights count no bytes:
//! they are read once for a whole batch.

use std::collections::BTreeMap;

use crate::{
    arch::{Graph, Op},
    mode::TrainSet,
};

/// One convolution or output layer, with all that follows up to the next one. Costs are per image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// PyTorch's module name.
    pub name: String,
    /// Input channels.
    pub cin: usize,
    /// Filter rows (and columns); 1 for the output layer.
    pub kernel: usize,
    /// Step between two outputs.
    pub stride: usize,
    /// Output channels, rows, columns.
    pub output: [usize; 3],
    /// What follows: `bn`, `add`, `relu`, `max-pool`, `average-pool`.
    pub then: Vec<&'static str>,
    /// Operations of the forward pass.
    pub forward: u64,
    /// Operations of the gradient of its input; 0 where nothing before it trains.
    pub data: u64,
    /// Operations of the gradients of its weights, of those that train.
    pub weights: u64,
    /// Numbers read and written forward: its input and its output.
    pub forward_numbers: u64,
    /// Numbers read and written backward: its output and that one's gradient, its input's gradient
    /// where that is wanted, and its input where weights train.
    pub backward_numbers: u64,
}

impl Operation {
    /// Operations of a training step.
    pub fn step(&self) -> u64 {
        self.forward + self.data + self.weights
    }
}

/// The operations of `graph` in order, when `set` trains.
pub fn operations(graph: &Graph, set: &TrainSet) -> Vec<Operation> {
    let trained = trained(graph, set);
    let mut operations: Vec<Operation> = Vec::new();
    // Of each node: does anything train at or before it, and whose end is it?
    let mut wanted: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    let mut end: Vec<Option<usize>> = Vec::with_capacity(graph.nodes.len());
    for (node, &trained) in graph.nodes.iter().zip(&trained) {
        let before = node.inputs.iter().any(|i| wanted[*i]);
        wanted.push(before || trained > 0);
        let of = node.inputs.first().and_then(|i| end[*i]);
        let operation = match &node.op {
            Op::Conv(conv) => Some((&conv.name, conv.kernel, conv.stride)),
            Op::Linear { name, .. } => Some((name, 1, 1)),
            _ => None,
        };
        if let Some((name, kernel, stride)) = operation {
            let from = graph.nodes[node.inputs[0]].shape;
            let (input, output) = (numbers(from), numbers(node.shape));
            let forward = 2 * output * (from[0] * kernel * kernel) as u64;
            let if_so = |condition: bool, cost: u64| if condition { cost } else { 0 };
            end.push(Some(operations.len()));
            operations.push(Operation {
                name: name.clone(),
                cin: from[0],
                kernel,
                stride,
                output: node.shape,
                then: Vec::new(),
                forward,
                data: if_so(before, forward),
                weights: 2 * trained as u64 * output / node.shape[0] as u64,
                forward_numbers: input + output,
                backward_numbers: if_so(before, input)
                    + if_so(trained > 0, input)
                    + if_so(before || trained > 0, 2 * output),
            });
            continue;
        }
        end.push(of);
        let Some(operation) = of.and_then(|of| operations.get_mut(of)) else { continue };
        operation.then.push(word(&node.op));
        // A BatchNorm that trains behind a convolution that has no way back needs the same two maps.
        if trained > 0 && operation.backward_numbers == 0 {
            operation.backward_numbers = 2 * numbers(operation.output);
        }
    }
    operations
}

fn numbers(shape: [usize; 3]) -> u64 {
    shape.iter().product::<usize>() as u64
}

/// How many weights (biases of convolutions and of the output layer left out) train at each node.
fn trained(graph: &Graph, set: &TrainSet) -> Vec<usize> {
    let params = graph.params();
    let of: BTreeMap<&str, usize> = params.iter().map(|p| (p.name.as_str(), set.trained(p))).collect();
    let count = |name: &str, parts: &[&str]| -> usize {
        parts.iter().filter_map(|part| of.get(&*format!("{name}.{part}"))).sum()
    };
    let node = |op: &Op| match op {
        Op::Conv(conv) => count(&conv.name, &["weight"]),
        Op::Linear { name, .. } => count(name, &["weight"]),
        Op::BatchNorm { name, .. } => count(name, &["weight", "bias"]),
        Op::Input | Op::Relu | Op::Add | Op::MaxPool | Op::GlobalAvgPool => 0,
    };
    graph.nodes.iter().map(|n| node(&n.op)).collect()
}

fn word(op: &Op) -> &'static str {
    match op {
        Op::BatchNorm { .. } => "bn",
        Op::Relu => "relu",
        Op::Add => "add",
        Op::MaxPool => "max-pool",
        Op::GlobalAvgPool => "average-pool",
        Op::Input | Op::Conv(_) | Op::Linear { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, mode::Mode};

    fn of(arch: &str, variant: Variant, mode: Mode) -> Vec<Operation> {
        let graph = Graph::new(arch.parse().unwrap(), variant, 10);
        operations(&graph, &mode.train_set(variant, 2))
    }

    fn sum(operations: &[Operation], part: impl Fn(&Operation) -> u64) -> u64 {
        operations.iter().map(part).sum()
    }

    /// Multiplication-additions by hand: stem, stage 1, and entry, rest and projection of two more.
    #[test]
    fn resnet32_costs_what_a_pencil_says() {
        let stages = 10 * 2_359_296 + 2 * (1_179_648 + 9 * 2_359_296 + 131_072);
        let (stem, output) = (27 * 16 * 1024, 640);
        let bn = of("resnet32", Variant::Paper, Mode::Bn);
        assert_eq!(bn.len(), 31 + 2 + 1);
        assert_eq!(sum(&bn, |o| o.forward), 2 * (stem + stages + output));
        assert_eq!(sum(&bn, |o| o.data), 2 * (stages + output));
        assert_eq!(sum(&bn, |o| o.weights), 0);
        let all = of("resnet32", Variant::Paper, Mode::All);
        assert_eq!(sum(&all, Operation::step), 3 * 2 * (stem + stages + output) - 2 * stem);
    }

    #[test]
    fn the_way_back_ends_where_nothing_trains() {
        let none = of("resnet8", Variant::Paper, Mode::None);
        assert_eq!(sum(&none, |o| o.data + o.weights + o.backward_numbers), 0);
        let random = of("resnet8", Variant::Paper, Mode::Random);
        assert_eq!(random[0].weights, 2 * 2 * 16 * 1024);
        assert_eq!(random[0].data, 0);
        // Below the first shortcut nothing trains.
        let shortcut = of("resnet8", Variant::Paper, Mode::OutputShortcut);
        let with_gradient: Vec<_> = shortcut.iter().filter(|o| o.data > 0).map(|o| o.name.as_str()).collect();
        assert_eq!(with_gradient, ["layer3.0.conv1", "layer3.0.conv2", "layer3.0.shortcut.0", "linear"]);
    }

    #[test]
    fn operations_carry_what_follows_them_and_move_their_maps() {
        let bn = of("resnet8", Variant::Origin, Mode::Bn);
        let follow = |name: &str| bn.iter().find(|o| o.name == name).unwrap().then.join(" ");
        assert_eq!(follow("conv1"), "bn relu");
        assert_eq!(follow("layer1.0.conv2"), "bn add relu");
        assert_eq!(follow("layer1.0.shortcut.0"), "bn");
        assert_eq!(follow("layer3.0.conv2"), "bn add relu average-pool");
        let (image, map) = (3 * 1024, 16 * 1024);
        assert_eq!((bn[0].forward_numbers, bn[0].backward_numbers), (image + map, 2 * map));
        assert_eq!(bn[1].backward_numbers, map + 2 * map / 4);
        assert_eq!(of("vgg11", Variant::Paper, Mode::Bn)[0].then.join(" "), "bn relu max-pool");
    }
}
