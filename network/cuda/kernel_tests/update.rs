//! Sums of parts, and SGD with its copies of the filters, against the formulas.

use super::{Bench, as_stored, emulated, near};
use crate::{
    cuda::{
        device::Device,
        update::{Values, pack, sgd, total},
    },
    trainer::Precision,
};

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    for precision in bench.stores() {
        for len in [1, 255, 257] {
            for splits in [7, 20, 264] {
                check_total(bench, precision, splits, len);
            }
            check_sgd(bench, precision, len);
        }
    }
}

fn check_total<D: Device>(bench: &mut Bench<D>, precision: Precision, splits: usize, len: usize) {
    let gradient = bench.room(4 * len);
    let parts = bench.normal(splits * len);
    let partial = bench.floats(&parts);
    bench.run(|to| total(to, precision, splits, len, (partial, 0), (gradient, 0)));
    for (i, got) in bench.read(Precision::F32, gradient, len).into_iter().enumerate() {
        let expected: f64 = (0..splits).map(|split| f64::from(parts[split * len + i])).sum();
        near("a sum of parts", got.into(), expected, 1e-7 * (1.0 + expected.abs()));
    }
}

/// Of `len` values that train all but the last two are weights of filters; one more value stays as it is.
fn check_sgd<D: Device>(bench: &mut Bench<D>, precision: Precision, len: usize) {
    let filters = len.saturating_sub(2);
    let (values, velocity, gradient) = (bench.normal(len + 1), bench.normal(len), bench.normal(len));
    let [rate, momentum, decay] = [0.1, 0.9, 0.01];
    // The second copies lie behind the first ones, backwards.
    let places: Vec<u8> = (0..filters)
        .flat_map(|i| [i as u32, (2 * filters - 1 - i) as u32])
        .flat_map(u32::to_le_bytes)
        .collect();
    let of = Values {
        precision,
        len: len + 1,
        trained: len,
        weights: filters,
        packed_len: 2 * filters,
        values: bench.floats(&values),
        velocity: bench.floats(&velocity),
        gradient: bench.floats(&gradient),
        settings: bench.floats(&[rate, momentum, decay, f32::NAN]),
        places: bench.give(&[places, vec![0]].concat()),
        packed: bench.room(8 * filters + 1),
    };
    let check_packed = |bench: &mut Bench<D>, values: &[f32]| {
        let packed = bench.read(precision, of.packed, 2 * filters);
        for (i, value) in values[..filters].iter().enumerate() {
            assert_eq!([packed[i], packed[2 * filters - 1 - i]], [as_stored(precision, *value); 2]);
        }
    };
    bench.run(|to| pack(to, &of));
    check_packed(bench, &values);
    bench.run(|to| sgd(to, &of));
    let [new, speed] =
        [(of.values, len + 1), (of.velocity, len)].map(|(at, len)| bench.read(Precision::F32, at, len));
    assert_eq!(new[len], values[len], "what does not train");
    for i in 0..len {
        let expected = momentum * velocity[i] + (gradient[i] + decay * values[i]);
        near("a velocity", speed[i].into(), expected.into(), 1e-6);
        near("a value", new[i].into(), f64::from(values[i] - rate * expected), 1e-6);
    }
    check_packed(bench, &new);
}

#[test]
fn values_go_down_their_gradients_and_into_the_filters() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}
