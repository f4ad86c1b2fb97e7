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
    device::{Address, Device, Kernel, Source},
    emulation::{Emulated, Order},
    launches::{Launches, Loaded},
    sources::tests::sources,
    stored,
};
use crate::{
    Result,
    arch::Variant,
    init::{BnInit, Init, WeightInit},
    mode::Mode,
    rng::{self, Stream},
    trainer::{Precision, TrainSpec},
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

/// What was found, or none with a word; what `wanted` says must be there is an error.
#[allow(clippy::print_stderr)] // the only way to say that a test checks nothing
pub(super) fn found<T>(what: crate::Result<T>, wanted: &str) -> Option<T> {
    match what {
        Ok(found) => Some(found),
        Err(error) if std::env::var_os(wanted).is_some() => panic!("`{wanted}` is set: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

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
        if self.device.has_tensor_cores() {
            mma::check(self);
        }
        conv::check(self);
        filters::check(self);
        statistics::check(self);
        head::check(self);
        update::check(self);
    }

    /// How the device stores maps: 16 bits go with tensor cores.
    fn stores(&self) -> Vec<Precision> {
        let mut stores = vec![Precision::F32];
        stores.extend(self.device.has_tensor_cores().then_some(Precision::Bf16));
        stores
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

/// What the kernels of real trainings differ in, and which of them are not like any of `checked`: `groups` of constants
/// must each be those of something checked.
fn unlike_any(checked: &[Source], files: &[&str], groups: &[&[&str]]) -> Vec<String> {
    let known: Vec<Vec<String>> =
        groups.iter().map(|names| checked.iter().map(|source| told(source, names)).collect()).collect();
    let mut unlike = Vec::new();
    for source in of_trainings().iter().filter(|source| files.contains(&source.name)) {
        for (names, known) in groups.iter().zip(&known) {
            let told = told(source, names);
            if !known.contains(&told) && !unlike.contains(&told) {
                unlike.push(told);
            }
        }
    }
    unlike
}

/// The constants `names` of a source; `PIXELS` is what a block writes of a map.
fn told(source: &Source, names: &[&str]) -> String {
    let value = |name: &str| source.defines.iter().find(|(own, _)| *own == name).map(|(_, value)| &**value);
    let number = |name: &str| value(name).map_or(1, |value| value.parse::<usize>().unwrap());
    let tell = |name: &&str| match *name {
        "PIXELS" => format!("PIXELS={}", number("ROWS") * number("IMAGES") * number("WIDTH")),
        name => format!("{name}={}", value(name).unwrap_or("none")),
    };
    [source.name.to_owned()].into_iter().chain(names.iter().map(tell)).collect::<Vec<_>>().join(" ")
}

/// All sources of the networks of both kinds at the batch of a real training.
fn of_trainings() -> Vec<Source> {
    let init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };
    let mut all = Vec::new();
    for (arch, variant) in ["resnet14", "resnet14-2", "resnet14-32", "vgg16"]
        .into_iter()
        .flat_map(|arch| [(arch, Variant::Paper), (arch, Variant::Origin)])
    {
        for (mode, precision) in
            [Mode::Bn, Mode::Random, Mode::All].into_iter().flat_map(|mode| PRECISIONS.map(|p| (mode, p)))
        {
            let arch = arch.parse().unwrap();
            let set = mode.train_set(variant, 2);
            let (seed, momentum, weight_decay, batch) = (0, 0.9, 1e-4, 128);
            let spec = TrainSpec { arch, variant, seed, init, set, momentum, weight_decay, batch, precision };
            all.extend(sources(&spec, 10, true).unwrap());
            if precision == Precision::F32 {
                all.extend(sources(&spec, 10, false).unwrap());
            }
        }
    }
    all
}

/// The sources of what `launch` launches.
fn sources_of(launch: impl FnOnce(&mut Launches<'_>) -> Result<()>) -> Vec<Source> {
    let (mut sources, mut loaded) = (Vec::new(), Loaded::default());
    let load = &mut |source: &Source| {
        sources.push(source.clone());
        Ok(vec![Kernel(0); source.kernels.len()])
    };
    launch(&mut Launches::new(load, &mut loaded, 1)).unwrap();
    sources
}

#[test]
fn not_a_number_is_near_nothing() {
    assert!(std::panic::catch_unwind(|| near("a number", f64::NAN, 1.0, f64::MAX)).is_err());
    assert!(std::panic::catch_unwind(|| near("a number", 1.0, f64::NAN, f64::MAX)).is_err());
}
