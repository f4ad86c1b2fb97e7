//! Small trainings against PyTorch's numbers.

use crate::support::{engines, golden};

fn check_all(arch: &str) {
    let cases: Vec<_> = golden().into_iter().filter(|case| case.arch == arch).collect();
    assert!(!cases.is_empty());
    for case in cases {
        for mut engine in engines(&case.spec()) {
            case.check(&mut *engine);
        }
    }
}

#[test]
fn residual_networks_train_as_in_pytorch_in_every_mode() {
    check_all("resnet8");
}

#[test]
fn a_vgg_trains_as_in_pytorch() {
    check_all("vgg11");
}
