//! What all kernels share: which block of a launch is its last.

use super::{
    super::{
        device::{Device, Source},
        launches::{Args, COMMON, Size},
    },
    Bench, Order, emulated,
};

const THREADS: usize = 96;
const INSTANCES: usize = 3;

/// Each block leaves numbers; the last one adds all of them, each thread another block's than it wrote.
const SUM: &str = r#"
extern "C" __global__ void sum(unsigned *left, unsigned *sums, unsigned *counters, unsigned first) {
    const unsigned blocks = gridDim.x * gridDim.y, block = blockIdx.y * gridDim.x + blockIdx.x;
    left = own(left, blocks * blockDim.x);
    left[block * blockDim.x + threadIdx.x] = first + block * blockDim.x + threadIdx.x;
    if (!last_block(own(counters, COUNTERS), blocks)) return;
    unsigned sum = 0;
    for (unsigned i = blockDim.x - 1 - threadIdx.x; i < blocks * blockDim.x; i += blockDim.x) sum += left[i];
    own(sums, blockDim.x)[threadIdx.x] += sum;
}
"#;

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    for blocks in [[1, 1], [2, 1], [37, 5], [1000, 1]] {
        let count = blocks[0] * blocks[1];
        let left = bench.give(&vec![0xff; 4 * count * THREADS * INSTANCES]);
        let [sums, counters] = [4 * THREADS * INSTANCES, 4 * 64 * INSTANCES].map(|bytes| bench.room(bytes));
        for first in [7, 1000] {
            bench.run_all(INSTANCES, |to| {
                let source = Source {
                    name: "sum.cu",
                    text: [COMMON, SUM].concat(),
                    defines: vec![],
                    kernels: vec!["sum"],
                };
                let size = Size { blocks, threads: THREADS, shared: 0 };
                to.add(
                    source,
                    "sum",
                    size,
                    Args::default().at(&[left, sums, counters]).unsigned(first).done(),
                )
            });
        }
        let words = |bytes: Vec<u8>| -> Vec<u32> {
            bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let expected = |thread: usize| -> usize {
            let of = |block: usize| 2 * (block * THREADS + THREADS - 1 - thread) + 1007;
            (0..count).map(of).sum()
        };
        for (i, sum) in words(bench.bytes(sums, 4 * THREADS * INSTANCES)).into_iter().enumerate() {
            assert_eq!(sum as usize, expected(i % THREADS), "{blocks:?}, thread {i}");
        }
        let counters = words(bench.bytes(counters, 4 * 64 * INSTANCES));
        assert!(counters.iter().all(|counter| *counter == 0), "{blocks:?}");
    }
}

#[test]
fn one_block_is_the_last_and_sees_all_others() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
    let Some(backward) = super::Emulated::new(Order::Backward) else { return };
    check(&mut Bench::new(backward));
}
