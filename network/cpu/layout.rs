//! A network as what the engine makes of it: units (a convolution and its BatchNorm) and the
//! features between them (rectified, added, pooled). Found once; knows no values and no batch.

use crate::{
    Error, Result,
    arch::{Conv, Graph, NodeId, Op},
};

/// A convolution and the BatchNorm behind it.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// The convolution.
    pub(crate) conv: Conv,
    /// PyTorch's name of the BatchNorm.
    pub(crate) norm: String,
    /// The feature that it reads; none: the image.
    pub(crate) reads: Option<usize>,
    /// Rows and columns that it reads.
    pub(crate) input: [usize; 2],
    /// Rows and columns that it writes.
    pub(crate) output: [usize; 2],
    /// Index in [`Layout::shapes`] of what it writes.
    pub(crate) shape: usize,
}

/// What is added before a feature's rectifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Added {
    /// Nothing.
    None,
    /// An earlier feature.
    Feature(usize),
    /// A unit: the projection of a shortcut.
    Unit(usize),
}

/// A map that convolutions read, as a function of what they wrote.
#[derive(Clone, Debug)]
pub(crate) struct Feature {
    /// The unit that is rectified.
    pub(crate) unit: usize,
    /// The shortcut.
    pub(crate) added: Added,
    /// Is the maximum of each 2x2 taken?
    pub(crate) pooled: bool,
    /// Index in [`Layout::shapes`].
    pub(crate) shape: usize,
    /// The units that read it.
    pub(crate) readers: Vec<usize>,
    /// The feature to which it is added, as an identity shortcut.
    pub(crate) joins: Option<usize>,
}

/// Channels, rows, columns.
pub(crate) type Shape = (usize, [usize; 2]);

/// A network's units and features, each in an order in which they can be computed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// In the order of the graph; the first one alone reads the image.
    pub(crate) units: Vec<Unit>,
    /// The last one is averaged for the output layer.
    pub(crate) features: Vec<Feature>,
    /// The different shapes of what units write and read (but for the image).
    pub(crate) shapes: Vec<Shape>,
    /// PyTorch's name of the output layer.
    pub(crate) output: String,
    /// Classes.
    pub(crate) classes: usize,
}

#[derive(Clone, Copy)]
enum Value {
    Image,
    Unit(usize),
    Sum(usize, Added),
    Feature(usize),
    /// The average of the last feature.
    Mean,
    Logits,
}

impl Layout {
    /// The layout of `graph`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where operations follow each other in an order that the engine has no
    /// sweep for. What is not known to be right is refused: the reference computes it.
    pub(crate) fn new(graph: &Graph) -> Result<Self> {
        let mut layout = Self::default();
        let mut values: Vec<Value> = Vec::with_capacity(graph.nodes.len());
        let mut reads = vec![0; graph.nodes.len()];
        graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|&from| reads[from] += 1);
        for (i, node) in graph.nodes.iter().enumerate() {
            let inputs: Vec<Value> = node.inputs.iter().map(|&i| values[i]).collect();
            let passing = |&from: &NodeId| matches!(values[from], Value::Unit(_) | Value::Sum(..));
            if node.inputs.iter().any(|from| passing(from) && reads[*from] > 1) {
                return Err(uncovered("what is read twice before it is rectified"));
            }
            let value = match (&node.op, inputs.as_slice()) {
                (Op::Input, _) => Value::Image,
                (Op::Conv(conv), [Value::Image]) if layout.units.is_empty() => {
                    layout.unit(graph, i, conv, None)?
                }
                (Op::Conv(conv), [Value::Feature(f)]) => layout.unit(graph, i, conv, Some(*f))?,
                (Op::BatchNorm { name, .. }, [Value::Unit(unit)]) if !layout.normed(*unit) => {
                    layout.units[*unit].norm.clone_from(name);
                    Value::Unit(*unit)
                }
                (Op::Add, [Value::Unit(unit), Value::Unit(side)])
                    if layout.normed(*unit) && layout.normed(*side) =>
                {
                    Value::Sum(*unit, Added::Unit(*side))
                }
                (Op::Add, [Value::Unit(unit), Value::Feature(side)])
                    if layout.normed(*unit) && layout.joinable(*side) =>
                {
                    Value::Sum(*unit, Added::Feature(*side))
                }
                (Op::Relu, [Value::Unit(unit)]) if layout.normed(*unit) => layout.feature(*unit, Added::None),
                (Op::Relu, [Value::Sum(unit, added)]) => layout.feature(*unit, *added),
                (Op::MaxPool, [Value::Feature(feature)]) if reads[node.inputs[0]] == 1 => {
                    layout.pool(*feature)?
                }
                (Op::GlobalAvgPool, [Value::Feature(feature)])
                    if feature + 1 == layout.features.len() && i + 2 == graph.nodes.len() =>
                {
                    Value::Mean
                }
                (Op::Linear { name, classes }, [Value::Mean]) => {
                    (layout.output, layout.classes) = (name.clone(), *classes);
                    Value::Logits
                }
                (op, _) => return Err(uncovered(&format!("{op:?} at this place"))),
            };
            values.push(value);
        }
        let last = layout.features.len().saturating_sub(1);
        let read_well = |(f, feature): (usize, &Feature)| match feature.readers[..] {
            [] => f == last,
            [reader] => f != last && !layout.is_projection(reader),
            _ => layout.forks(feature),
        };
        if layout.output.is_empty() || !layout.features.iter().enumerate().all(read_well) {
            return Err(uncovered("features that are read otherwise than in a chain of blocks"));
        }
        Ok(layout)
    }

    /// Has the convolution its BatchNorm?
    fn normed(&self, unit: usize) -> bool {
        !self.units[unit].norm.is_empty()
    }

    /// May feature `f` be added to what comes now? The gradient of a trunk is added to in place, one trunk to a shape.
    fn joinable(&self, f: usize) -> bool {
        let feature = &self.features[f];
        let later =
            (f + 1..self.features.len()).any(|l| self.trunk(l) && self.features[l].shape == feature.shape);
        feature.joins.is_none() && !feature.pooled && !later
    }

    fn is_projection(&self, unit: usize) -> bool {
        self.features.iter().any(|feature| feature.added == Added::Unit(unit))
    }

    /// Is this feature read by the first convolution of a block and by its projection, and by nothing else?
    fn forks(&self, feature: &Feature) -> bool {
        let of_block = |sum: &Feature| {
            let Added::Unit(side) = sum.added else { return false };
            let Some(between) = self.units[sum.unit].reads.map(|f| &self.features[f]) else { return false };
            let (first, projection) = (&self.units[between.unit].conv, &self.units[side].conv);
            let plain = between.added == Added::None && between.joins.is_none() && !between.pooled;
            plain
                && between.readers == [sum.unit]
                && feature.readers == [between.unit, side]
                && (projection.kernel, projection.stride) == (1, first.stride)
                && first.stride > 1
        };
        !feature.pooled && feature.joins.is_none() && self.features.iter().any(of_block)
    }

    fn unit(&mut self, graph: &Graph, node: NodeId, conv: &Conv, reads: Option<usize>) -> Result<Value> {
        if let Some(f) = reads {
            self.features[f].readers.push(self.units.len());
        }
        if !conv.cout.is_multiple_of(16) {
            return Err(uncovered("channels that are no multiple of 16"));
        }
        if ![1, 3].contains(&conv.kernel) || ![1, 2].contains(&conv.stride) {
            return Err(uncovered("filters other than 1x1 and 3x3, or strides above 2"));
        }
        let size = |node: NodeId| [graph.nodes[node].shape[1], graph.nodes[node].shape[2]];
        let shape = self.shape((conv.cout, size(node)));
        self.units.push(Unit {
            conv: conv.clone(),
            norm: String::new(),
            reads,
            input: size(graph.nodes[node].inputs[0]),
            output: size(node),
            shape,
        });
        Ok(Value::Unit(self.units.len() - 1))
    }

    fn feature(&mut self, unit: usize, added: Added) -> Value {
        if let Added::Feature(from) = added {
            self.features[from].joins = Some(self.features.len());
        }
        let shape = self.units[unit].shape;
        self.features.push(Feature { unit, added, pooled: false, shape, readers: Vec::new(), joins: None });
        Value::Feature(self.features.len() - 1)
    }

    fn pool(&mut self, feature: usize) -> Result<Value> {
        let Feature { added, pooled, shape, .. } = self.features[feature];
        let (channels, size) = self.shapes[shape];
        if added != Added::None || pooled || size.iter().any(|n| n % 2 != 0) {
            return Err(uncovered("max-pooling at this place"));
        }
        let shape = self.shape((channels, size.map(|n| n / 2)));
        (self.features[feature].shape, self.features[feature].pooled) = (shape, true);
        Ok(Value::Feature(feature))
    }

    fn shape(&mut self, shape: Shape) -> usize {
        self.shapes.iter().position(|s| *s == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        })
    }

    /// Is feature `f` on the trunk, that is, added to something or a sum itself? The gradients of the
    /// others live from one convolution to the next only.
    pub(crate) fn trunk(&self, f: usize) -> bool {
        self.features[f].added != Added::None || self.features[f].joins.is_some()
    }

    /// The units that end in feature `f`: the rectified one, and a projection.
    pub(crate) fn ends(&self, f: usize) -> impl Iterator<Item = usize> + use<> {
        let Feature { unit, added, .. } = self.features[f];
        std::iter::once(unit).chain(if let Added::Unit(side) = added { Some(side) } else { None })
    }

    /// The units whose outputs can be computed again on the way back from outputs that are kept, largest
    /// first: those that end in a sum and alone read what another convolution wrote.
    pub(crate) fn repeatable(&self) -> Vec<usize> {
        let alone = |u: usize| {
            self.units[u].reads.map(|f| &self.features[f]).is_some_and(|read| {
                read.added == Added::None && read.joins.is_none() && !read.pooled && read.readers == [u]
            })
        };
        let sums = self.features.iter().filter(|f| f.added != Added::None);
        let mut units: Vec<usize> = sums.map(|f| f.unit).filter(|u| alone(*u)).collect();
        let size =
            |u: &usize| self.shapes[self.units[*u].shape].0 * self.units[*u].output.iter().product::<usize>();
        units.sort_by_key(|u| std::cmp::Reverse(size(u)));
        units
    }

    /// The feature in which unit `u` ends.
    pub(crate) fn end_of(&self, u: usize) -> usize {
        let ends = |f: &usize| self.ends(*f).any(|end| end == u);
        (0..self.features.len()).find(ends).unwrap_or(self.features.len() - 1)
    }

    /// The first feature whose gradient is wanted, if these units train: none does before it.
    pub(crate) fn lowest(&self, trains: impl Fn(usize) -> bool) -> usize {
        let units = (0..self.units.len()).filter(|u| trains(*u));
        units.map(|u| self.end_of(u)).min().unwrap_or(usize::MAX)
    }
}

/// The engine's refusal.
pub(crate) fn uncovered(what: &str) -> Error {
    Error::Unsupported { engine: "cpu", reason: format!("it does not cover {what}") }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
