//! Sample exports: pinned ones, and larger ones for `check.py`, which reads them with PyTorch,
//! onnxruntime and TensorBoard.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    onnx::onnx,
    tensorboard::{self, Scalar, events},
};
use crate::{
    arch::{Graph, Variant},
    init::{BnInit, Init, WeightInit, initial},
    rng::stream,
    tensor::{Tensor, Tensors},
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
#[ignore = "writes some files of together 80 MB into target/export; called by check.py"]
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
        write(format!("{arch}-{variant}.safetensors"), &state_dict(&values));
    }
    write(format!("curves/{}", tensorboard::FILE_NAME), &events(1e9, SCALARS));
}

fn state_dict(values: &Tensors) -> Vec<u8> {
    let bytes = |tensor: &Tensor| tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<_> = values.iter().map(|(name, tensor)| (name, &tensor.shape, bytes(tensor))).collect();
    let views = data.iter().map(|(name, shape, data)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
