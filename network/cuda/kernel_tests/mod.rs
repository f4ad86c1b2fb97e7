//! Each kernel alone against plain loops, at awkward sizes: one image, counts that fill no tile, 16 to 512 channels.
//! Under the emulation, and (`card_tests.rs`) on a card.

mod common;
mod conv;
pub(super) mod filters;
mod head;
mod maps;
mod mma;
mod statistics;
mod update;

use super::{
    device::{Address, Device, Source},
    emulation::{Emulated, Order},
    launches::{Launches, Loaded},
    stored,
};
use crate::{
    Result,
    rng::{self, Stream},
    trainer::Precision,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

/// A device, and what tests give it and ask of it.
pub(super) struct Bench<D> {
    device: D,
    loaded: Loaded,
    stream: Stream,
}

/// The emulation, where there is a compiler.
fn emulated() -> Option<Bench<Emulated>> {
    Some(Bench::new(Emulated::new(Order::Forward)?))
}

impl<D: Device> Bench<D> {
    pub(super) fn new(device: D) -> Self {
        Self { device, loaded: Loaded::default(), stream: rng::stream(5, "kernels") }
    }

    /// Every kernel.
    pub(super) fn check(&mut self) {
        common::check(self);
        mma::check(self);
        conv::check(self);
        filters::check(self);
        statistics::check(self);
        head::check(self);
        update::check(self);
    }

    /// Normal noise, of which long ones repeat themselves.
    fn normal(&mut self, count: usize) -> Vec<f32> {
        const PERIOD: usize = 10_007;
        let drawn: Vec<f32> = (0..count.min(PERIOD)).map(|_| self.stream.normal() as f32).collect();
        drawn.into_iter().cycle().take(count).collect()
    }

    /// `bytes`, in room for `all` of which the others are not numbers.
    fn give_in(&mut self, bytes: &[u8], all: usize) -> Address {
        let mut room = vec![0xff; all];
        room[..bytes.len()].copy_from_slice(bytes);
        self.give(&room)
    }

    /// Scales near 1, then shifts near 0.
    fn line(&mut self, channels: usize) -> (Vec<f32>, Address) {
        let line: Vec<f32> = (0..2 * channels)
            .map(|i| 0.3 * self.stream.normal() as f32 + if i < channels { 1.0 } else { 0.0 })
            .collect();
        let at = self.floats(&line);
        (line, at)
    }

    fn give(&mut self, bytes: &[u8]) -> Address {
        let at = self.device.alloc(bytes.len()).unwrap();
        self.device.upload(at, bytes).unwrap();
        at
    }

    fn floats(&mut self, values: &[f32]) -> Address {
        self.give(&stored::bytes(Precision::F32, values))
    }

    fn room(&mut self, bytes: usize) -> Address {
        self.device.alloc(bytes).unwrap()
    }

    fn bytes(&mut self, at: Address, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        if count > 0 {
            self.device.download(at, &mut bytes).unwrap();
        }
        bytes
    }

    fn read(&mut self, precision: Precision, at: Address, count: usize) -> Vec<f32> {
        let bytes = self.bytes(at, count * stored::width(precision));
        match precision {
            Precision::Bf16 => {
                let half = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                bytes.as_chunks().0.iter().map(half).collect()
            }
            _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    }

    fn doubles(&mut self, at: Address, count: usize) -> Vec<f64> {
        self.bytes(at, 8 * count).as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    fn run(&mut self, launch: impl FnOnce(&mut Launches<'_>) -> Result<()>) {
        self.run_all(1, launch);
    }

    /// For as many instances.
    fn run_all(&mut self, instances: usize, launch: impl FnOnce(&mut Launches<'_>) -> Result<()>) {
        let load = &mut |source: &Source| self.device.load(source);
        let mut launches = Launches::new(load, &mut self.loaded, instances);
        launch(&mut launches).unwrap();
        for launch in launches.list {
            self.device.launch(&launch).unwrap();
        }
    }
}

/// The number that a map of this precision holds for `x`.
fn as_stored(precision: Precision, x: f32) -> f32 {
    match precision {
        Precision::F32 | Precision::Tf32 => x,
        Precision::Bf16 => {
            let bytes = stored::bytes(precision, &[x]);
            f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
        }
    }
}

/// What a tensor core multiplies for `x`.
fn as_multiplied(precision: Precision, x: f32) -> f32 {
    match precision {
        Precision::Tf32 => f32::from_bits((x.to_bits() + 0xfff + (x.to_bits() >> 13 & 1)) & !0x1fff),
        _ => as_stored(precision, x),
    }
}

/// Fails where a number is further than `most` from what it should be, or is none.
#[track_caller]
fn near(what: &str, got: f64, expected: f64, most: f64) {
    assert!((got - expected).abs() <= most, "{what}: {got}, expected {expected} within {most}");
}

#[test]
fn not_a_number_is_near_nothing() {
    assert!(std::panic::catch_unwind(|| near("a number", f64::NAN, 1.0, f64::MAX)).is_err());
    assert!(std::panic::catch_unwind(|| near("a number", 1.0, f64::NAN, f64::MAX)).is_err());
}
