#![allow(clippy::print_stderr)] // says how it ran

use std::env;

use super::*;
#[cfg(target_os = "linux")]
use crate::cuda::emulation;
use crate::cuda::{kernel_tests::found, launches::COMMON};

const TOY: &str = r#"
extern "C" __global__ void fill(float* to, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = 1.5f;
}
extern "C" __global__ void add(float* to, const float* from, unsigned n) {
    SHARED_MEMORY(float, part);
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

/// All of these on an emulated card, in a process that finds its driver.
#[cfg(target_os = "linux")]
#[test]
fn whatever_a_card_must_do_an_emulated_one_does() {
    let own = env::current_exe().unwrap();
    let Some(environment) = emulation::card::environment(&own.with_file_name("cuda-driver")) else { return };
    let tests = ["cuda::driver::tests", "--skip", "an_emulated_one_does"];
    let output = std::process::Command::new(own)
        .args(tests)
        .envs(environment)
        .env("REPRO_TEST_CARD", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("6 passed"), "{said}");
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn a_graph_repeats_its_launches_in_order() {
    let Some(mut card) = card() else { return };
    let text = [COMMON, TOY].concat();
    let source = Source { name: "toy.cu", text, defines: vec![], kernels: vec!["fill", "add"] };
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
    let text = [COMMON, SLOW].concat();
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

/// Also where whoever had the bytes writes others there at once.
#[test]
fn uploads_bring_what_was_there_when_they_were_asked_for() {
    let Some(mut card) = card() else { return };
    for len in [STAGE / 3, STAGE + 1] {
        let places: Vec<Address> = (0..20).map(|_| card.alloc(len).unwrap()).collect();
        let mut bytes = vec![0; len];
        for (round, to) in places.iter().enumerate() {
            bytes.fill(round as u8);
            card.upload(*to, &bytes).unwrap();
        }
        for (round, from) in places.iter().enumerate() {
            bytes.fill(99);
            card.download(*from, &mut bytes).unwrap();
            assert!(bytes.iter().all(|&byte| byte == round as u8), "{round} of {len}");
        }
    }
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
