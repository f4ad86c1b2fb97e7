#![allow(clippy::print_stderr)] // says how it ran

use std::env;

use super::*;
use crate::cuda::kernel_tests::found;

const TOY: &str = r#"
extern "C" __global__ void fill(float* to, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = 1.5f;
}
extern "C" __global__ void add(float* to, const float* from, unsigned n) {
    extern __shared__ float part[];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < n ? from[i] : 0.0f;
    if (i < n) to[i] += part[threadIdx.x];
}
"#;

/// The card, where this machine has one.
fn card() -> Option<Card> {
    let places = Places { nvrtc: env::var_os("REPRO_NVRTC").map(Into::into), ..Places::default() };
    found(Card::open(&places), "REPRO_TEST_CARD")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn a_graph_repeats_its_launches_in_order() {
    let Some(mut card) = card() else { return };
    let source = Source { name: "toy.cu", text: TOY.into(), defines: vec![], kernels: vec!["fill", "add"] };
    let kernels = card.load(&source).unwrap();
    const N: usize = 1000;
    let [from, to] = [0; 2].map(|_| card.alloc(4 * N).unwrap());
    let mut bytes = vec![1; 4 * N];
    card.download(to, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0), "new memory is zero");
    let launch = |kernel, shared, args| Launch {
        kernel,
        grid: [4, 1, 1],
        block: [256, 1, 1],
        shared,
        early: false,
        args,
    };
    let fill = launch(kernels[0], 0, vec![Arg::Address(from), Arg::I32(N as i32)]);
    // More shared memory than a kernel may have unasked.
    let add = launch(kernels[1], 64 << 10, vec![Arg::Address(to), Arg::Address(from), Arg::U32(N as u32)]);
    let graph = card.record(&[fill, add]).unwrap();
    for _ in 0..3 {
        card.replay(graph).unwrap();
    }
    card.download(to, &mut bytes).unwrap();
    assert!(floats(&bytes).iter().all(|&x| x == 4.5), "{:?}", &floats(&bytes)[..4]);
}

/// Long enough that a launch which did not wait would read what is not there yet.
const SLOW: &str = r#"
extern "C" __global__ void next(int* to, const int* from) {
    let_next_begin();
    await_launches();
    for (int i = 0; i < 20; i++) __nanosleep(1000);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    to[i] = from[gridDim.x * blockDim.x - 1 - i] + 1;
}
"#;

#[test]
fn early_launches_keep_their_order_in_a_graph_and_outside() {
    let Some(mut card) = card() else { return };
    eprintln!("begins early: {}", card.begins_early);
    let text = [crate::cuda::launches::COMMON, SLOW].concat();
    let kernels =
        card.load(&Source { name: "slow.cu", text, defines: vec![], kernels: vec!["next"] }).unwrap();
    const N: usize = 64 * 256;
    let at = [0; 2].map(|_| Arg::Address(card.alloc(4 * N).unwrap()));
    let launch = |i: usize| Launch {
        kernel: kernels[0],
        grid: [64, 1, 1],
        block: [256, 1, 1],
        shared: 0,
        early: true,
        args: vec![at[(i + 1) % 2], at[i % 2]],
    };
    let launches: Vec<Launch> = (0..50).map(launch).collect();
    let graph = card.record(&launches).unwrap();
    for _ in 0..3 {
        card.replay(graph).unwrap();
    }
    launches.iter().for_each(|launch| card.launch(launch).unwrap());
    let Arg::Address(to) = at[0] else { panic!() };
    let mut bytes = vec![0; 4 * N];
    card.download(to, &mut bytes).unwrap();
    assert!(bytes.chunks_exact(4).all(|word| word == 200i32.to_le_bytes()), "{:?}", &bytes[..16]);
}

#[test]
fn uploads_keep_their_order_beyond_the_stage() {
    let Some(mut card) = card() else { return };
    let to = card.alloc(STAGE).unwrap();
    for round in 0..20u8 {
        card.upload(to, &vec![round; STAGE / 3]).unwrap();
    }
    let mut bytes = vec![0; STAGE / 3];
    card.download(to, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 19));
}

#[test]
fn copies_outside_the_memory_are_refused() {
    let Some(mut card) = card() else { return };
    let to = card.alloc(100).unwrap();
    assert!(card.upload(Address(to.0 + 1), &[0; 100]).is_err());
    assert!(card.download(Address(to.0 + 100), &mut [0]).is_err());
    assert!(card.upload(Address(to.0 + 1), &[0; 99]).is_ok());
}

#[test]
fn too_much_memory_is_refused_with_what_there_is() {
    let Some(mut card) = card() else { return };
    let error = card.alloc(1 << 50).unwrap_err().to_string();
    assert!(error.contains("MiB are free"), "{error}");
}

#[test]
fn arguments_are_their_own_bytes_first() {
    assert_eq!(bits(Arg::I32(-1)).to_ne_bytes(), [255, 255, 255, 255, 0, 0, 0, 0]);
    assert_eq!(bits(Arg::Address(Address(u64::MAX))), u64::MAX);
}
