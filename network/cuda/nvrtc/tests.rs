use std::env;

use super::*;
use crate::cuda::kernel_tests::found;

const TOY: &str = r#"
extern "C" __global__ void fill(float* to, float value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = value * SCALE;
}
"#;

fn toy(text: &str) -> Source {
    Source {
        name: "toy.cu",
        text: text.into(),
        defines: vec![("SCALE", "2.0f".into())],
        kernels: vec!["fill"],
    }
}

/// The compiler, where this machine has one.
fn compiler() -> Option<Nvrtc> {
    let places = Places { nvrtc: env::var_os("REPRO_NVRTC").map(PathBuf::from), ..Places::default() };
    found(Nvrtc::find(&places, None, None), "REPRO_NVRTC")
}

#[test]
fn kernels_compile_without_a_card() {
    let Some(compiler) = compiler() else { return };
    for arch in ["sm_80", "sm_90"] {
        let cubin = compiler.compile(&toy(TOY), arch).unwrap();
        assert!(cubin.starts_with(b"\x7fELF"), "{arch}");
        assert!(cubin.windows(4).any(|name| name == b"fill"), "{arch}");
    }
}

#[test]
fn a_mistake_is_reported_with_file_and_line() {
    let Some(compiler) = compiler() else { return };
    let error = compiler.compile(&toy("\nnonsense;"), "sm_90").unwrap_err().to_string();
    assert!(error.contains("did not compile `toy.cu` for sm_90"), "{error}");
    assert!(error.contains("toy.cu(2)"), "{error}");
    let error = compiler.compile(&toy(TOY), "sm_1").unwrap_err().to_string();
    assert!(error.contains("sm_1"), "{error}");
}

#[test]
fn a_compiler_newer_than_the_driver_is_refused() {
    let Some(compiler) = compiler() else { return };
    let places = Places { nvrtc: Some(compiler.place().into()), ..Places::default() };
    let error = Nvrtc::find(&places, Some(compiler.version[0] - 1), None).err().unwrap().to_string();
    assert!(error.contains("is newer than the driver"), "{error}");
    assert!(Nvrtc::find(&places, Some(compiler.version[0]), None).is_ok());
}

#[test]
fn a_compiler_that_does_not_know_the_card_is_refused() {
    let Some(compiler) = compiler() else { return };
    let places = Places { nvrtc: Some(compiler.place().into()), ..Places::default() };
    assert!(Nvrtc::find(&places, None, Some([9, 0])).is_ok());
    let error = Nvrtc::find(&places, None, Some([1, 3])).err().unwrap().to_string();
    assert!(error.contains("does not know the card's compute capability 1.3"), "{error}");
}

#[test]
fn a_missing_compiler_is_an_error_that_says_where_to_get_it() {
    let places = Places { nvrtc: Some("/nowhere/libnvrtc.so".into()), ..Places::default() };
    let error = Nvrtc::find(&places, None, None).err().unwrap().to_string();
    assert!(error.contains("/nowhere/libnvrtc.so") && error.contains("REPRO_NVRTC"), "{error}");
}

#[test]
fn a_file_that_is_no_library_is_named() {
    let file = env::temp_dir().join(format!("repro-nvrtc-{}", std::process::id()));
    std::fs::write(&file, "not a library").unwrap();
    let places = Places { nvrtc: Some(file.clone()), ..Places::default() };
    let error = Nvrtc::find(&places, None, None).err().unwrap().to_string();
    std::fs::remove_file(&file).unwrap();
    assert!(error.contains(&*file.to_string_lossy()) && error.contains("cannot be used"), "{error}");
}
