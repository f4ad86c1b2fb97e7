//! The functions of tensor cores against a plain product: each thread's words are put where PTX's documentation has
//! them.

use super::{Bench, as_multiplied, emulated, near};
use crate::{
    cuda::{
        device::{Device, Source},
        launches::{Args, COMMON, MMA, STORED, Size},
        stored,
    },
    trainer::Precision,
};

/// One warp multiplies `left` (16 x K, rows lie one after another) with `right` (K x 8, columns do), both in words.
const KERNELS: &str = r#"
extern "C" __global__ void product(const float *left, const float *right, float *sums) {
    SHARED_MEMORY(unsigned, memory);
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4, k = 8 * EACH;
    const float *l = left + lane / 2 * k + lane % 2 * k / 2; // half a row for each thread
    for (int i = 0; i < k / 2; i += 4) store_words(memory + lane / 2 * 12 + lane % 2 * 4 + i / EACH, load(l + i));
    unsigned *columns = memory + 16 * 12;
    if (lane < 8) {
        for (int i = 0; i < k; i += 4) store_words(columns + lane * 12 + i / EACH, load(right + lane * k + i));
    }
    __syncthreads();
    unsigned a[4], b[2] = {columns[g * 12 + t], columns[g * 12 + t + 4]};
    load_matrices(a, memory + lane % 16 * 12 + lane / 16 * 4);
    float own[4] = {1.f, 2.f, 3.f, 4.f};
    multiply_add(own, a, b);
    sums[g * 8 + 2 * t] = own[0], sums[g * 8 + 2 * t + 1] = own[1];
    sums[(g + 8) * 8 + 2 * t] = own[2], sums[(g + 8) * 8 + 2 * t + 1] = own[3];
}

// Each thread's numbers of a matrix of 16 x 16, in four parts.
extern "C" __global__ void across(const float *matrix, float *numbers) {
    SHARED_MEMORY(unsigned, memory);
    const int lane = threadIdx.x, row = lane / 2, half = lane % 2;
    for (int i = 0; i < 8; i += 4) {
        store_words(memory + row * 12 + half * 4 + i / 2, load(matrix + row * 16 + half * 8 + i));
    }
    __syncthreads();
    unsigned words[4];
    load_matrices_across(words, memory + (lane / 16 * 8 + lane % 8) * 12 + lane / 8 % 2 * 4);
    for (int i = 0; i < 4; i++) {
        numbers[lane * 8 + 2 * i] = __uint_as_float(words[i] << 16);
        numbers[lane * 8 + 2 * i + 1] = __uint_as_float(words[i] & 0xffff0000);
    }
}
"#;

fn source(precision: Precision) -> Source {
    let defines = vec![("PRECISION", stored::name(precision).into())];
    let (text, kernels) = ([COMMON, STORED, MMA, KERNELS].concat(), vec!["product", "across"]);
    Source { name: "mma_tests.cu", text, defines, kernels }
}

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    check_products(bench);
    check_across(bench);
}

/// Part i has rows of half i / 2 and columns of half i % 2; there thread 4 g + t has rows 2 t and 2 t + 1 of column g.
fn check_across<D: Device>(bench: &mut Bench<D>) {
    let matrix = bench.normal(16 * 16);
    let [at, numbers] = [bench.floats(&matrix), bench.room(4 * 32 * 8)];
    let size = Size { blocks: [1, 1], threads: 32, shared: 4 * 16 * 12 };
    let args = Args::default().at(&[at, numbers]).done();
    bench.run(|to| to.add(source(Precision::Bf16), "across", size, args));
    for (i, got) in bench.read(Precision::F32, numbers, 32 * 8).into_iter().enumerate() {
        let (lane, part, second) = (i / 8, i / 2 % 4, i % 2);
        let (row, column) = (part / 2 * 8 + lane % 4 * 2 + second, part % 2 * 8 + lane / 4);
        assert_eq!(
            got,
            as_multiplied(Precision::Bf16, matrix[row * 16 + column]),
            "thread {lane}, part {part}"
        );
    }
}

fn check_products<D: Device>(bench: &mut Bench<D>) {
    for (precision, k) in [(Precision::F32, 8), (Precision::Tf32, 8), (Precision::Bf16, 16)] {
        let [left, right] = [16, 8].map(|rows| bench.normal(rows * k));
        let [l, r, sums] = [bench.floats(&left), bench.floats(&right), bench.room(4 * 16 * 8)];
        let size = Size { blocks: [1, 1], threads: 32, shared: 4 * 24 * 12 };
        bench.run(|to| to.add(source(precision), "product", size, Args::default().at(&[l, r, sums]).done()));
        let sums = bench.read(Precision::F32, sums, 16 * 8);
        let number = |x: f32| f64::from(as_multiplied(precision, x));
        for (i, got) in sums.iter().enumerate() {
            let (row, column) = (i / 8, i % 8);
            let before = [[1.0, 2.0], [3.0, 4.0]][row / 8][column % 2];
            let products = (0..k).map(|i| number(left[row * k + i]) * number(right[column * k + i]));
            near("a product", f64::from(*got), before + products.sum::<f64>(), 2e-5);
        }
    }
}

#[test]
fn words_lie_where_ptx_has_them() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}
