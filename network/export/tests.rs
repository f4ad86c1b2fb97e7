//! Sample exports: pinned ones, and larger ones for `check.py`, which reads them with PyTorch,
//! onnxruntime and TensorBoard.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use candle_core::DType;

use super::{
    hugging_face::{Card, model_folder},
    onnx::onnx,
    tensorboard::{self, Scalar, events},
};
use crate::{
    arch::{Arch, Graph, Variant},
    checkpoint::Checkpoint,
    data::{Dataset, IMAGE_BYTES, Images, pack},
    init::{BnInit, Init, WeightInit, initial},
    mode::Mode,
    model::Model,
    reference::Reference,
    rng::stream,
    tensor::{Tensor, Tensors},
    tensorfile,
    train::Protocol,
    trainer::{Precision, Split, Trainer},
};

const HE_NORMAL: Init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };

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
    Checkpoint { model, mode, k, shortcut_bn: None, steps: 1, values }
}

fn model(checkpoint: &Checkpoint, weights: &Tensors) -> Vec<u8> {
    let Model { arch, variant, .. } = checkpoint.model;
    let metadata =
        BTreeMap::from([("arch".into(), arch.to_string()), ("variant".into(), variant.to_string())]);
    onnx(&checkpoint.model.graph(), weights, &metadata).unwrap()
}

/// What candle makes of a network: some images, as bytes, and their logits.
fn candle(checkpoint: &Checkpoint) -> Vec<u8> {
    const N: usize = 7;
    let mut numbers = stream(0, "images");
    let pixels: Vec<u8> = (0..N * IMAGE_BYTES).map(|_| numbers.below(256) as u8).collect();
    let classes = vec![String::new(); checkpoint.model.classes];
    let none = Images { labels: &[], pixels: &[] };
    let packed = pack(&classes, none, Images { labels: &[0; N], pixels: &pixels }).unwrap();
    let protocol = Protocol { batch: N, ..Protocol::default() };
    let spec = protocol.spec(&checkpoint.model, checkpoint.set(), Precision::F32);
    let data = Arc::new(Dataset::from_bytes(Arc::new(packed)).unwrap());
    let mut trainer = Reference::new(&spec, data, DType::F32).unwrap();
    trainer.restore(&checkpoint.state_in(&checkpoint.set(), &Tensors::new())).unwrap();
    let logits = trainer.predict(Split::Test, 0..N).unwrap();
    let images = pixels.into_iter().map(f32::from).collect();
    let tensors = BTreeMap::from([
        ("images".to_string(), Tensor::new([N, 3, 32, 32], images)),
        ("logits".to_string(), Tensor::new([N, checkpoint.model.classes], logits)),
    ]);
    tensorfile::write(&Default::default(), &Default::default(), &tensors).unwrap()
}

/// When one of these changes on purpose, run `check.py` before writing down the new digest.
#[test]
fn files_that_other_programs_have_read_stay_the_same() {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let made = checkpoint("resnet8", Variant::Paper, Mode::Bn, HE_NORMAL);
    let model = model(&made, &made.weights().unwrap());
    assert_eq!(digest(&model), "c5e7efe6512866dc4af0a8ab9100cddc839c85e76b3d96d58d4916839c6f857c");
    assert_eq!(
        digest(&events(0.0, SCALARS)),
        "1dd10caf25ae6a3a3877cb6fdfe381560ef322e8c1db5d978be411201507c97e"
    );
    assert_eq!(
        digest(include_bytes!("rebuild.py")),
        "7e6888338282a76a88fe97491b83a2d1e25647e4336f417b4bb06352def2c25d"
    );
}

#[test]
#[ignore = "writes 200 MB into target/export; called by check.py"]
fn write_what_check_py_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/export");
    let write = |name: String, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    use Variant::{Origin, Paper};
    let networks = [
        ("resnet8", Paper, Mode::Bn),
        ("resnet8", Origin, Mode::Bn),
        ("resnet32", Paper, Mode::Bn),
        ("resnet32", Origin, Mode::Bn),
        ("resnet32", Origin, Mode::OriginRandom),
        ("vgg11", Paper, Mode::Bn),
    ];
    for (arch, variant, mode) in networks {
        let made = checkpoint(arch, variant, mode, HE_NORMAL);
        let weights = made.weights().unwrap();
        write(format!("networks/{arch}-{variant}-{mode}.onnx"), &model(&made, &weights));
        write(format!("networks/{arch}-{variant}-{mode}.safetensors"), &made.state_dict().unwrap());
        write(format!("networks/{arch}-{variant}-{mode}.candle"), &candle(&made));
    }
    for (name, checkpoint) in checkpoints() {
        write(format!("folders/{name}.safetensors"), &checkpoint.state_dict().unwrap());
        let classes = vec!["some class".to_string(); 10];
        let card = Card {
            name: &name,
            dataset: Some("cifar10"),
            classes: &classes,
            accuracy: Some(0.5),
            precision: Precision::F32,
            license: Some("mit"),
        };
        for (file, bytes) in model_folder(&checkpoint, &card).unwrap() {
            write(format!("folders/{name}/{file}"), &bytes);
        }
    }
    write(format!("curves/{}", tensorboard::FILE_NAME), &events(1e9, SCALARS));
}

/// A network of its family that `check.py` compares with what `build` in `rebuild.py` makes of its name. Whoever adds a
/// family, and comes here because the compiler says so, adds it there too, and to `networks` above.
fn sample(arch: Arch) -> &'static str {
    match arch {
        Arch::ResNet { .. } => "resnet110",
        Arch::Vgg { .. } => "vgg11",
    }
}

#[test]
fn every_family_and_every_mode_is_among_what_check_py_reads() {
    let all = checkpoints();
    for arch in ["resnet110", "vgg11"] {
        let sample = sample(arch.parse().unwrap());
        assert!(all.values().any(|made| made.model.arch.to_string() == sample), "{sample}");
    }
    for (name, mode) in Mode::NAMES {
        assert!(all.values().any(|made| made.mode == mode), "{name}");
    }
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
    for (name, mode) in Mode::NAMES {
        for variant in [Variant::Paper, Variant::Origin] {
            checkpoints
                .insert(format!("{name}-{variant}"), checkpoint("resnet14-2", variant, mode, HE_NORMAL));
        }
    }
    let orthogonal = Init { weights: Orthogonal, bn: BnInit::Uniform };
    let made = checkpoint("resnet8", Variant::Paper, Mode::Random, orthogonal);
    checkpoints.insert("orthogonal-random".to_owned(), made);
    for (arch, mode) in [("resnet110", Mode::Bn), ("vgg16", Mode::Bn), ("vgg11", Mode::Random)] {
        checkpoints.insert(format!("{arch}-{mode}"), checkpoint(arch, Variant::Paper, mode, HE_NORMAL));
    }
    checkpoints
}
