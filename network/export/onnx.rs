//! A network as an ONNX model, for onnxruntime and everything else that reads the format: input
//! `images` (`N 3 32 32`, normalised as in training, any N), output `logits` (`N` classes),
//! BatchNorm with its running statistics. Knows nothing of how the weights came about.

use std::collections::BTreeMap;

use super::protobuf::Message;
use crate::{
    Error, Result,
    arch::{BN_EPS, Graph, Op},
    tensor::{Tensor, Tensors},
};

/// What a file's header promises: the format of 2022, which every reader in use understands.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
/// Protobuf's readers refuse longer messages.
const LIMIT: usize = i32::MAX as usize;

/// The model of `graph` with `values`: every parameter and running statistic, by PyTorch's names.
/// `metadata` becomes the model's properties.
///
/// Errors when a value is missing or has another shape, and when the model would not fit into
/// ONNX's 2 GiB.
pub fn onnx(graph: &Graph, values: &Tensors, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let size = 4 * values.values().map(|tensor| tensor.data.len()).sum::<usize>();
    if size > LIMIT - (1 << 20) {
        return Err(Error::Invalid(format!(
            "{size} bytes of weights do not fit into an ONNX file, which holds 2 GiB; \
             export the network as safetensors"
        )));
    }
    let mut network = Message::new().each(nodes(graph), |network, node| network.message(1, node));
    network = network.bytes(2, "network");
    for (name, shape) in tensors(graph) {
        network = network.message(5, initialiser(&name, find(values, &name, &shape)?));
    }
    network = network
        .message(11, value_info("images", &graph.nodes[0].shape))
        .message(12, value_info("logits", &[graph.classes()]));
    let opset = Message::new().bytes(1, "").int(2, OPSET);
    let property = |(key, value)| Message::new().bytes(1, key).bytes(2, value);
    let model = Message::new()
        .int(1, IR_VERSION)
        .bytes(2, "repro")
        .message(7, network)
        .message(8, opset)
        .each(metadata, |model, entry| model.message(14, property(entry)));
    Ok(model.into_bytes())
}

/// Names and shapes of what the model must hold.
fn tensors(graph: &Graph) -> Vec<(String, Vec<usize>)> {
    let params = graph.params().into_iter().map(|param| (param.name, param.shape));
    params.chain(graph.running().map(|(name, channels, _)| (name, vec![channels]))).collect()
}

fn find<'a>(values: &'a Tensors, name: &str, shape: &[usize]) -> Result<&'a Tensor> {
    match values.get(name) {
        Some(tensor) if tensor.shape == shape => Ok(tensor),
        Some(tensor) => Err(Error::Invalid(format!(
            "`{name}` has the shape {:?}, and this network needs {shape:?}; \
             the weights belong to another architecture or variant",
            tensor.shape
        ))),
        None => Err(Error::Invalid(format!(
            "the weights hold no `{name}`; an ONNX model needs every parameter and running statistic"
        ))),
    }
}

/// The name of what node `id` computes.
fn output(graph: &Graph, id: usize) -> String {
    match &graph.nodes[id].op {
        Op::Input => "images".into(),
        _ if id + 1 == graph.nodes.len() => "logits".into(),
        Op::Conv(conv) => conv.name.clone(),
        Op::BatchNorm { name, .. } | Op::Linear { name, .. } => name.clone(),
        Op::Relu => format!("relu.{id}"),
        Op::Add => format!("add.{id}"),
        Op::MaxPool | Op::GlobalAvgPool => format!("pool.{id}"),
    }
}

/// The operations, as `NodeProto`s.
fn nodes(graph: &Graph) -> Vec<Message> {
    let mut nodes = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let mut inputs: Vec<String> = node.inputs.iter().map(|&input| output(graph, input)).collect();
        let mut add = |op, inputs: &[String], output: String, attributes| {
            nodes.push(operation(op, inputs, &output, attributes));
        };
        let (op, attributes) = match &node.op {
            Op::Input => continue,
            Op::Conv(conv) => {
                inputs.push(format!("{}.weight", conv.name));
                if conv.bias {
                    inputs.push(format!("{}.bias", conv.name));
                }
                let (kernel, stride, pad) = (conv.kernel as i64, conv.stride as i64, conv.kernel as i64 / 2);
                let attributes = vec![
                    ints("kernel_shape", &[kernel; 2]),
                    ints("pads", &[pad; 4]),
                    ints("strides", &[stride; 2]),
                ];
                ("Conv", attributes)
            }
            Op::BatchNorm { name, .. } => {
                inputs.extend(BATCH_NORM.map(|part| format!("{name}.{part}")));
                ("BatchNormalization", vec![float("epsilon", BN_EPS as f32)])
            }
            Op::Relu => ("Relu", vec![]),
            Op::Add => ("Add", vec![]),
            Op::MaxPool => ("MaxPool", vec![ints("kernel_shape", &[2; 2]), ints("strides", &[2; 2])]),
            Op::GlobalAvgPool => ("GlobalAveragePool", vec![]),
            Op::Linear { name, .. } => {
                let flat = format!("flat.{id}");
                add("Flatten", &inputs, flat.clone(), vec![]);
                inputs = vec![flat, format!("{name}.weight"), format!("{name}.bias")];
                ("Gemm", vec![int("transB", 1)])
            }
        };
        add(op, &inputs, output(graph, id), attributes);
    }
    nodes
}

/// A BatchNorm's tensors in the order in which ONNX takes them.
const BATCH_NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// A `NodeProto`, named after its output.
fn operation(op: &str, inputs: &[String], output: &str, attributes: Vec<Message>) -> Message {
    Message::new()
        .each(inputs, |node, input| node.bytes(1, input))
        .bytes(2, output)
        .bytes(3, output)
        .bytes(4, op)
        .each(attributes, |node, attribute| node.message(5, attribute))
}

// Attributes carry their type in field 20.

fn float(name: &str, value: f32) -> Message {
    Message::new().bytes(1, name).float(2, value).int(20, 1)
}

fn int(name: &str, value: i64) -> Message {
    Message::new().bytes(1, name).int(3, value).int(20, 2)
}

fn ints(name: &str, values: &[i64]) -> Message {
    Message::new().bytes(1, name).each(values, |attribute, &value| attribute.int(8, value)).int(20, 7)
}

/// The number of `f32` among ONNX's element types.
const FLOAT: i64 = 1;

/// A `TensorProto`.
fn initialiser(name: &str, tensor: &Tensor) -> Message {
    let data: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    Message::new()
        .each(&tensor.shape, |proto, &size| proto.int(1, size as i64))
        .int(2, FLOAT)
        .bytes(8, name)
        .bytes(9, data)
}

/// A `ValueInfoProto`: `f32`, any number `N` of `shape`.
fn value_info(name: &str, shape: &[usize]) -> Message {
    let batch = Message::new().bytes(2, "N");
    let sizes = Message::new()
        .message(1, batch)
        .each(shape, |sizes, &size| sizes.message(1, Message::new().int(1, size as i64)));
    let tensor_type = Message::new().int(1, FLOAT).message(2, sizes);
    Message::new().bytes(1, name).message(2, Message::new().message(1, tensor_type))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        arch::{Arch, Variant},
        export::{protobuf::reader::Fields, tests::values},
    };

    fn graph(arch: &str, variant: Variant) -> Graph {
        Graph::new(arch.parse::<Arch>().unwrap(), variant, 10)
    }

    fn texts(fields: &Fields, field: u64) -> Vec<&str> {
        fields.all(field).iter().map(|value| value.text()).collect()
    }

    /// Any reader's first checks: each operation reads what an earlier one, an initialiser or the
    /// input gives, no name is given twice, and the last one gives the output.
    #[test]
    fn every_name_is_defined_once_and_before_use() {
        for (arch, variant) in
            [("resnet14", Variant::Paper), ("resnet8", Variant::Origin), ("vgg11", Variant::Paper)]
        {
            let graph = graph(arch, variant);
            let values = values(&graph);
            let model = Fields::read(&onnx(&graph, &values, &BTreeMap::new()).unwrap());
            let network = model.message(7);
            let mut known = vec!["images".to_string()];
            for tensor in network.messages(5) {
                let stored = &values[tensor.text(8)];
                let shape: Vec<usize> = tensor.all(1).iter().map(|size| size.int() as usize).collect();
                assert_eq!(shape, stored.shape);
                let data = tensor.one(9).bytes().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                assert!(data.eq(stored.data.iter().copied()), "{}", tensor.text(8));
                known.push(tensor.text(8).into());
            }
            assert_eq!(known.len(), 1 + values.len());
            let mut read = BTreeSet::new();
            for node in network.messages(1) {
                for input in texts(&node, 1) {
                    assert!(known.iter().any(|name| name == input), "{input} of {}", node.text(3));
                    read.insert(input.to_owned());
                }
                assert!(!known.iter().any(|name| name == node.text(2)), "{} twice", node.text(2));
                known.push(node.text(2).into());
            }
            assert!(values.keys().all(|name| read.contains(name)), "{read:?} of {:?}", values.keys());
            assert_eq!(known.last().unwrap(), "logits");
            assert_eq!(network.message(12).text(1), "logits");
        }
    }

    #[test]
    fn strides_pads_and_epsilon_are_the_graphs() {
        let graph = graph("resnet8", Variant::Paper);
        let model = Fields::read(&onnx(&graph, &values(&graph), &BTreeMap::new()).unwrap());
        let nodes = model.message(7).messages(1);
        let attributes = |name: &str| {
            let node = nodes.iter().find(|node| node.text(3) == name).unwrap();
            let attributes = node.messages(5);
            let ints = |a: &Fields| a.all(8).iter().map(|value| value.int()).collect::<Vec<_>>();
            attributes.iter().map(|a| (a.text(1).to_string(), ints(a))).collect::<BTreeMap<_, _>>()
        };
        let main = attributes("layer2.0.conv1");
        assert_eq!((&main["kernel_shape"], &main["strides"]), (&vec![3, 3], &vec![2, 2]));
        assert_eq!(main["pads"], [1, 1, 1, 1]);
        let projection = attributes("layer2.0.shortcut.0");
        assert_eq!((&projection["kernel_shape"], &projection["strides"]), (&vec![1, 1], &vec![2, 2]));
        assert_eq!(projection["pads"], [0, 0, 0, 0]);
        let bn = nodes.iter().find(|node| node.text(3) == "layer2.0.bn1").unwrap();
        assert_eq!(bn.message(5).one(2).float(), 1e-5);
    }

    #[test]
    fn a_maximum_is_of_four_pixels_that_no_other_has() {
        let graph = graph("vgg11", Variant::Paper);
        let model = Fields::read(&onnx(&graph, &values(&graph), &BTreeMap::new()).unwrap());
        let nodes = model.message(7).messages(1);
        let maxima: Vec<_> = nodes.iter().filter(|node| node.text(4) == "MaxPool").collect();
        assert_eq!(maxima.len(), 4);
        for node in maxima {
            let attributes = node.messages(5);
            let attributes = attributes.iter().map(|a| (a.text(1), a.all(8)));
            let mut sizes: Vec<_> = attributes
                .map(|(name, all)| (name, all.iter().map(|value| value.int()).collect::<Vec<_>>()))
                .collect();
            sizes.sort();
            assert_eq!(sizes, [("kernel_shape", vec![2, 2]), ("strides", vec![2, 2])]);
        }
    }

    #[test]
    fn missing_and_foreign_values_are_refused_by_name() {
        let graph = graph("resnet8", Variant::Paper);
        let mut values = values(&graph);
        values.insert("bn1.running_var".into(), Tensor::full([3], 1.0));
        let refused = |values: &Tensors| onnx(&graph, values, &BTreeMap::new()).unwrap_err().to_string();
        assert!(refused(&values).starts_with("`bn1.running_var` has the shape [3]"), "{}", refused(&values));
        values.remove("bn1.running_var");
        assert!(refused(&values).starts_with("the weights hold no `bn1.running_var`"));
    }
}
