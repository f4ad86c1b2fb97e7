//! Sample exports: pinned ones, and larger ones for `check.py`, which reads them with PyTorch,
//! onnxruntime and TensorBoard.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    hugging_face::{Card, model_folder},
    onnx::onnx,
    tensorboard::{self, Scalar, events},
};
use crate::{
    arch::{Graph, Variant},
    checkpoint::Checkpoint,
    init::{BnInit, Init, WeightInit, initial},
    mode::Mode,
    model::Model,
    rng::stream,
    tensor::{Tensor, Tensors},
    tensorfile,
};

/// Two curves.
pub(super) const SCALARS: [Scalar<'static>; 3] = [
    Scalar { step: 0, tag: "train/loss", value: 2.5 },
    Scalar { step: 0, tag: "test/accuracy", value: 0.1 },
    Scalar { step: 391, tag: "train/loss", value: 1.25 },
];

/// Values for all of `graph`: initial weights, and everything that could hide a mistake by being 0
/// or 1 drawn at random.
pub(super) fn values(graph: &Graph) -> Tensors {
    let mut values = initial(graph, 0, Init { weights: WeightInit::HeUniform, bn: BnInit::PositiveNegative });
    for (name, channels) in graph.batch_norms() {
        for (part, low) in [("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)] {
            let name = format!("{name}.{part}");
            let mut numbers = stream(0, &name);
            let data = (0..channels).map(|_| (low + numbers.uniform()) as f32).collect();
            values.insert(name, Tensor::new([channels], data));
        }
    }
    values
}

/// A network with seed 7, as if everything that trains in `mode` (with k = 3) had been trained.
pub(super) fn checkpoint(arch: &str, variant: Variant, mode: Mode, init: Init) -> Checkpoint {
    let k = 3;
    let model = Model::new(arch.parse().unwrap(), variant, 7, init, 10);
    let (graph, set) = (model.graph(), mode.train_set(variant, k));
    let mut drawn = values(&graph);
    let running = |name: &String| name.contains(".running_");
    let mut values: Tensors = graph
        .params()
        .iter()
        .filter_map(|param| {
            let (name, shape) = set.slot(param)?;
            let whole = drawn.remove(&param.name).unwrap();
            let data = whole.data.into_iter().take(shape.iter().product()).collect();
            Some((name, Tensor::new(shape, data)))
        })
        .collect();
    values.extend(drawn.into_iter().filter(|(name, _)| running(name)));
    Checkpoint { model, mode, k, steps: 1, values }
}

fn network(arch: &str, variant: Variant) -> (Tensors, Vec<u8>) {
    let graph = Graph::new(arch.parse().unwrap(), variant, 10);
    let values = values(&graph);
    let metadata = BTreeMap::from([("arch".into(), arch.into()), ("variant".into(), variant.to_string())]);
    let model = onnx(&graph, &values, &metadata).unwrap();
    (values, model)
}

/// When one of these changes on purpose, run `check.py` before writing down the new digest.
#[test]
fn files_that_other_programs_have_read_stay_the_same() {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let (_, model) = network("resnet8", Variant::Paper);
    assert_eq!(digest(&model), "3c842be79c0d4c29f66be5a5712c333e06fdc4cce3c057c5848e96de7474312f");
    assert_eq!(
        digest(&events(0.0, SCALARS)),
        "1dd10caf25ae6a3a3877cb6fdfe381560ef322e8c1db5d978be411201507c97e"
    );
}

#[test]
#[ignore = "writes 240 MB into target/export; called by check.py"]
fn write_what_check_py_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/export");
    let write = |name: String, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    use Variant::{Origin, Paper};
    let networks = [
        ("resnet8", Paper),
        ("resnet8", Origin),
        ("resnet32", Paper),
        ("resnet32", Origin),
        ("vgg11", Paper),
    ];
    for (arch, variant) in networks {
        let (values, model) = network(arch, variant);
        write(format!("{arch}-{variant}.onnx"), &model);
        write(
            format!("{arch}-{variant}.safetensors"),
            &tensorfile::write(&Default::default(), &Default::default(), &values).unwrap(),
        );
    }
    for (name, checkpoint) in checkpoints() {
        write(format!("folders/{name}.safetensors"), &checkpoint.state_dict().unwrap());
        let classes = vec!["some class".to_string(); 10];
        let card = Card {
            name: &name,
            dataset: "cifar10",
            classes: &classes,
            accuracy: Some(0.5),
            license: Some("mit"),
        };
        for (file, bytes) in model_folder(&checkpoint, &card).unwrap() {
            write(format!("folders/{name}/{file}"), &bytes);
        }
    }
    write(format!("curves/{}", tensorboard::FILE_NAME), &events(1e9, SCALARS));
}

/// Every initialisation, every mode, both kinds of network.
fn checkpoints() -> BTreeMap<String, Checkpoint> {
    use WeightInit::{Binary, HeNormal, HeUniform, Orthogonal};
    let mut checkpoints = BTreeMap::new();
    for weights in [HeNormal, HeUniform, Orthogonal, Binary] {
        for bn in [BnInit::Uniform, BnInit::Fixed, BnInit::Oneone, BnInit::PositiveNegative] {
            let made = checkpoint("resnet8", Variant::Paper, Mode::None, Init { weights, bn });
            checkpoints.insert(format!("{weights:?}-{bn:?}").to_lowercase(), made);
        }
    }
    let init = Init { weights: HeNormal, bn: BnInit::Uniform };
    for (name, mode) in Mode::NAMES {
        for variant in [Variant::Paper, Variant::Origin] {
            checkpoints.insert(format!("{name}-{variant}"), checkpoint("resnet14-2", variant, mode, init));
        }
    }
    for (arch, mode) in [("resnet110", Mode::Bn), ("vgg16", Mode::Bn), ("vgg11", Mode::Random)] {
        checkpoints.insert(format!("{arch}-{mode}"), checkpoint(arch, Variant::Paper, mode, init));
    }
    checkpoints
}
