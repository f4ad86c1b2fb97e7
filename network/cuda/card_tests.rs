//! The kernels through NVIDIA's compiler and on a card. Where either is missing a test says `SKIPPED`; with
//! `REPRO_NVRTC` and `REPRO_TEST_CARD=1` it fails instead. `benches/gpu.sh` runs them under compute-sanitizer.
#![allow(clippy::print_stderr)] // the only way to say that a test checks nothing

use std::{
    collections::{BTreeMap, HashSet},
    env,
    sync::Mutex,
};

use super::*;
use crate::cuda::{
    device::Source,
    driver::Card,
    kernel_tests::{Bench, found},
    nvrtc::{Nvrtc, Places},
    sources::tests::sources,
};

fn places() -> Places {
    let [nvrtc, kernels] = ["REPRO_NVRTC", "REPRO_KERNELS"].map(|name| env::var_os(name).map(Into::into));
    let in_turn = env::var_os("REPRO_CUDA_EARLY").is_some_and(|value| value == "0");
    Places { nvrtc, kernels, in_turn, ..Places::default() }
}

fn card() -> Option<Card> {
    found(Card::open(&places()), "REPRO_TEST_CARD")
}

/// One that computes in every precision.
fn card_with_tensor_cores() -> Option<Card> {
    let card = card()?;
    if !card.has_tensor_cores() {
        eprintln!("SKIPPED: the card has no tensor cores for tf32 and bf16");
    }
    Some(card).filter(Card::has_tensor_cores)
}

/// The first of each generation of cards; the first of all knows neither tf32 nor bf16.
const GENERATIONS: [[u32; 2]; 4] = [[7, 5], [8, 0], [9, 0], [12, 0]];

#[test]
fn every_kernel_compiles_for_cards_of_all_generations() {
    let Some(compiler) = found(Nvrtc::find(&places(), None, None), "REPRO_NVRTC") else { return };
    for [major, minor] in GENERATIONS.into_iter().filter(|capability| !compiler.knows(*capability)) {
        eprintln!("SKIPPED: NVRTC {} does not know sm_{major}{minor}", compiler.version());
    }
    let known = |old: bool| {
        let generations = GENERATIONS.into_iter().filter(move |[major, _]| old == (*major < 8));
        generations.filter(|capability| compiler.knows(*capability))
    };
    let mut files = BTreeMap::<_, Vec<Source>>::new();
    for (source, old) in sources_of_networks() {
        files.entry((old, source.name)).or_default().push(source);
    }
    let mut wanted = Vec::new();
    for ((old, _), sources) in files {
        let generations: Vec<_> = known(old).collect();
        // Where there are many, each is for one generation, and in turns all are for each.
        let many = sources.len() >= generations.len();
        for (turn, source) in sources.into_iter().enumerate() {
            let turns =
                generations.iter().enumerate().filter(|(i, _)| !many || turn % generations.len() == *i);
            wanted.extend(turns.map(|(_, [major, minor])| (source.clone(), format!("sm_{major}{minor}"))));
        }
    }
    let next = Mutex::new(wanted.into_iter());
    let compile = || {
        while let Some((source, generation)) = { next.lock().unwrap().next() } {
            let cubin = compiler.compile(&source, &generation).unwrap_or_else(|error| panic!("{error}"));
            assert!(cubin.starts_with(b"\x7fELF"), "{} {:?} {generation}", source.name, source.defines);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(compile))));
}

/// What tells the kernels of a file apart but for sizes; of those, the compiler of the tests under the emulation has all.
const KINDS: [&str; 7] = ["PRECISION", "KIND", "TARGET", "BACK", "FILTER", "STRIDE", "DILATE"];

/// What small networks of each kind load in each precision, once for each kernel; and is it what cards without tensor
/// cores load?
fn sources_of_networks() -> Vec<(Source, bool)> {
    let mut all = Vec::new();
    for (arch, variant) in
        [("resnet8", Variant::Paper), ("resnet8", Variant::Origin), ("vgg11", Variant::Paper)]
    {
        for mode in [Mode::All, Mode::Random, Mode::Bn] {
            let spec = spec(arch, variant, mode, 128);
            for (precision, old) in [
                (Precision::F32, true),
                (Precision::F32, false),
                (Precision::Tf32, false),
                (Precision::Bf16, false),
            ] {
                let spec = TrainSpec { precision, ..spec.clone() };
                all.extend(sources(&spec, 10, !old).unwrap().into_iter().map(|source| (source, old)));
            }
        }
    }
    let mut known = HashSet::new();
    all.retain(|(source, old)| {
        let kernel = source.defines.iter().filter(|(name, _)| KINDS.contains(name));
        known.insert((source.name, kernel.cloned().collect::<Vec<_>>(), *old))
    });
    all
}

#[test]
fn every_kernel_on_a_card_is_as_plain_loops_have_it() {
    let Some(card) = card() else { return };
    Bench::new(card).check();
}

#[test]
fn gradients_on_a_cards_tensor_cores_are_near_those_in_f32() {
    for (arch, mode, most, n) in [
        ("resnet14", Mode::All, 128, 64),
        ("vgg11", Mode::Random, 7, 7),
        ("resnet14", Mode::OutputShortcut, 128, 64), // whose way back ends early
    ] {
        check_precisions(&spec(arch, Variant::Paper, mode, most), &batch(0, 0, n), card_with_tensor_cores);
    }
}

#[test]
fn gradients_on_a_card_are_those_of_the_cpu_engine() {
    for (arch, variant, mode, most, n) in [
        ("resnet8", Variant::Paper, Mode::All, 3, 3),
        ("resnet14", Variant::Paper, Mode::All, 128, 64),
        ("resnet8", Variant::Origin, Mode::Random, 128, 63),
        ("resnet8-3", Variant::Origin, Mode::All, 7, 7),
        ("vgg11", Variant::Paper, Mode::All, 16, 13),
        ("vgg11", Variant::Paper, Mode::Random, 5, 5),
    ] {
        let Some(card) = card() else { return };
        let (spec, batch) = (spec(arch, variant, mode, most), batch(0, 0, n));
        let (tally, gradients) = CudaTrainer::new(&spec, images(), card).unwrap().gradients(&batch).unwrap();
        let (expected_tally, expected) = engine(&spec, EngineName::Cpu).unwrap().gradients(&batch).unwrap();
        let who = format!("{arch} {variant} {mode}");
        assert!((tally.loss - expected_tally.loss).abs() < 1e-5 * expected_tally.loss, "{who}: {tally:?}");
        for (name, gradient) in &gradients {
            let apart = apart(&gradient.data, &expected[name].data);
            // A rectifier near zero that changes sides moves some layers' gradients by so much.
            assert!(apart < 5e-3, "{who}, {name}: {apart}");
        }
    }
}

#[test]
fn two_trainings_on_a_card_have_the_same_bits_alone_and_in_a_group() {
    for (mode, precision) in
        [(Mode::All, Precision::F32), (Mode::Random, Precision::Tf32), (Mode::Bn, Precision::Bf16)]
    {
        let spec = TrainSpec { precision, ..spec("resnet8", Variant::Paper, mode, 5) };
        let card = || if precision == Precision::F32 { card() } else { card_with_tensor_cores() };
        let run = || Some(bits(&mut CudaTrainer::new(&spec, images(), card()?).unwrap(), 0));
        let (Some(first), Some(second), Some(one)) = (run(), run(), card()) else { return };
        assert!(first == second, "{mode}");
        let other = TrainSpec { seed: 1, ..spec.clone() };
        let mut group = Group::new(&[other, spec.clone()], images(), one).unwrap();
        let mut alone = CudaTrainer::new(&spec, images(), card().unwrap()).unwrap();
        for i in 0..3 {
            let batches = [batch(1, i, 5), batch(0, i, 5)];
            group.step(&batches.each_ref().map(Vec::as_slice), &[0.1; 2]).unwrap();
            alone.step(&batches[1], 0.1).unwrap();
        }
        assert!(group.state(1).unwrap() == alone.state().unwrap(), "{mode}");
    }
}

#[test]
fn trainings_beside_each_other_on_a_card_have_the_bits_of_each_alone() {
    let Some(has_tensor_cores) = card().map(|card| card.has_tensor_cores()) else { return };
    let of = |precision| if has_tensor_cores { precision } else { Precision::F32 };
    let specs = [
        TrainSpec { precision: of(Precision::Tf32), ..spec("resnet14", Variant::Paper, Mode::Bn, 128) },
        TrainSpec { precision: of(Precision::Bf16), ..spec("resnet14", Variant::Origin, Mode::Random, 128) },
        spec("resnet8", Variant::Paper, Mode::All, 128),
        // Its way back ends early, so that other launches follow each other.
        TrainSpec {
            precision: of(Precision::Bf16),
            ..spec("resnet14", Variant::Paper, Mode::OutputShortcut, 128)
        },
    ];
    let train = |spec: &TrainSpec, in_turn: bool| {
        let card = found(Card::open(&Places { in_turn, ..places() }), "REPRO_TEST_CARD")?;
        let mut trainer = CudaTrainer::new(spec, images(), card).unwrap();
        for step in 0..300 {
            trainer.step(&batch(0, step, 64), 0.01).unwrap();
        }
        Some((trainer.take_tally().unwrap(), trainer.state().unwrap()))
    };
    let alone: Vec<_> = specs.iter().map(|spec| train(spec, true)).collect();
    // Launches that begin early must see all that the one before them left, in every step.
    assert!(alone == specs.iter().map(|spec| train(spec, false)).collect::<Vec<_>>());
    let beside: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = specs.iter().map(|spec| scope.spawn(|| train(spec, false))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(alone == beside);
}

#[test]
fn a_card_trains_as_pytorch_does() {
    for case in golden() {
        let Some(card) = card() else { return };
        let spec = case.spec();
        case.check(&mut CudaTrainer::new(&spec, images(), card).unwrap());
    }
}
