//! Steps of small networks by the shipped kernels under the emulation, against the CPU engine and PyTorch.

use std::{iter::zip, ops::ControlFlow};

use super::*;
use crate::{
    arch::Variant,
    cuda::{
        emulation::{Emulated, Order},
        fit::{bytes_needed, largest_batch},
        memory::Memory,
        plan::Plan,
    },
    data::{Images, pack},
    init::{BnInit, Init},
    mode::Mode,
    support::{TEST, TRAIN, batch, engine, golden, images, spec},
    train::{Epoch, Progress, Protocol, Training},
    trainer::{EngineName, Precision},
};

#[path = "card_tests.rs"]
mod card;

fn on(spec: &TrainSpec, order: Order) -> Option<CudaTrainer<Emulated>> {
    Some(CudaTrainer::new(spec, images(), Emulated::new(order)?).unwrap())
}

/// How far two tensors are apart, of the size of the second; not a number if one of them is not.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut zip(a, b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|x| f64::from(*x))).max(1e-6)
}

#[test]
fn gradients_are_those_of_the_cpu_engine() {
    // The largest batch decides tiles; with 128 they are those of real trainings.
    // With scales below zero, a maximum of what BatchNorm made is not one of what it read.
    for (arch, variant, mode, bn, most, n) in [
        ("resnet8", Variant::Paper, Mode::All, BnInit::Uniform, 3, 3),
        ("resnet8", Variant::Paper, Mode::BnOutputShortcut, BnInit::PositiveNegative, 128, 3),
        ("resnet8", Variant::Origin, Mode::Random, BnInit::Fixed, 7, 7),
        ("resnet14", Variant::Origin, Mode::Bn, BnInit::Oneone, 5, 5),
        ("resnet8-3", Variant::Origin, Mode::All, BnInit::Uniform, 2, 1),
        ("vgg11", Variant::Paper, Mode::All, BnInit::PositiveNegative, 2, 2),
    ] {
        let mut spec = spec(arch, variant, mode, most);
        spec.init.bn = bn;
        let Some(mut cuda) = on(&spec, Order::Forward) else { return };
        let mut cpu = engine(&spec, EngineName::Cpu).unwrap();
        let batch = batch(0, 0, n);
        let (tally, gradients) = cuda.gradients(&batch).unwrap();
        let (expected_tally, expected) = cpu.gradients(&batch).unwrap();
        let who = format!("{arch} {variant} {mode}");
        assert!((tally.loss - expected_tally.loss).abs() < 1e-5 * expected_tally.loss, "{who}: {tally:?}");
        assert_eq!((tally.examples, tally.correct), (n as u64, expected_tally.correct), "{who}");
        assert!(gradients.keys().eq(expected.keys()), "{who}");
        for (name, gradient) in &gradients {
            let apart = apart(&gradient.data, &expected[name].data);
            assert!(apart < 1e-3, "{who}, {name}: {apart}");
        }
    }
}

/// A network's gradients as one vector: in tf32 they must be nearer to those in f32 than the CPU engine's in bf16, which
/// is stored but not multiplied, and in bf16 about as near.
fn check_precisions<D: Device>(spec: &TrainSpec, batch: &[Example], device: impl Fn() -> Option<D>) {
    let flat = |(_, all): &(Tally, Tensors)| all.values().flat_map(|t| t.data.clone()).collect::<Vec<f32>>();
    let half = TrainSpec { precision: Precision::Bf16, ..spec.clone() };
    let [exact, half] =
        [spec, &half].map(|spec| engine(spec, EngineName::Cpu).unwrap().gradients(batch).unwrap());
    let distance = apart(&flat(&half), &flat(&exact));
    assert!(distance < 0.3, "{}: {distance} is no yardstick", spec.arch);
    for (precision, most) in [(Precision::Tf32, distance), (Precision::Bf16, 2.0 * distance)] {
        let Some(device) = device() else { return };
        let spec = TrainSpec { precision, ..spec.clone() };
        let own = CudaTrainer::new(&spec, images(), device).unwrap().gradients(batch).unwrap();
        let (apart, who) = (apart(&flat(&own), &flat(&exact)), format!("{} {precision:?}", spec.arch));
        assert!(apart < most && apart > 1e-3 * most, "{who}: {apart} of {most}");
        assert!((own.0.loss - exact.0.loss).abs() < most * exact.0.loss, "{who}: {:?}, {:?}", own.0, exact.0);
    }
}

#[test]
fn gradients_on_tensor_cores_are_near_those_in_f32() {
    for (arch, variant, mode, n) in [
        ("resnet8", Variant::Paper, Mode::All, 3),
        ("resnet8", Variant::Origin, Mode::Random, 7),
        ("resnet8", Variant::Origin, Mode::Bn, 2),
    ] {
        check_precisions(&spec(arch, variant, mode, n), &batch(0, 0, n), || Emulated::new(Order::Forward));
    }
}

#[test]
fn several_alike_count_together_and_the_first_is_the_one_asked_for() {
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, 3);
    let Some(device) = Emulated::new(Order::Forward) else { return };
    let mut many = CudaTrainer::many(&spec, 3, images(), device).unwrap();
    let mut one = on(&spec, Order::Forward).unwrap();
    for trainer in [&mut many, &mut one] {
        trainer.step(&batch(0, 0, 3), 0.1).unwrap();
    }
    assert!(many.state().unwrap() == one.state().unwrap());
    let (all, own) = (many.take_tally().unwrap(), one.take_tally().unwrap());
    assert!(all.examples == 9 && own.examples == 3 && all.loss > 2.0 * own.loss, "{all:?} {own:?}");
}

/// What trains decides whether filters are packed after a step, and by which kernels their gradients are made. (All of
/// them, and the VGG, train on a card: `a_card_trains_as_pytorch_does`.)
#[test]
fn small_networks_train_as_in_pytorch() {
    let few = ["all", "random", "origin-random"];
    let cases: Vec<_> =
        golden().into_iter().filter(|case| case.arch == "resnet8" && few.contains(&&*case.mode)).collect();
    assert_eq!(cases.len(), 5);
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                let Some(mut cuda) = on(&case.spec(), Order::Forward) else { return };
                case.check(&mut cuda);
            });
        }
    });
}

/// As on a card of capability 7.5.
#[test]
fn small_networks_train_as_in_pytorch_without_tensor_cores() {
    for wanted in [("resnet8", "origin", "all"), ("resnet8", "origin", "random"), ("vgg11", "paper", "all")] {
        let case = golden().into_iter().find(|case| (&*case.arch, &*case.variant, &*case.mode) == wanted);
        let Some(mut device) = Emulated::new(Order::Forward) else { return };
        device.tensor_cores = false;
        let case = case.unwrap();
        case.check(&mut CudaTrainer::new(&case.spec(), images(), device).unwrap());
    }
}

#[test]
fn the_way_back_ends_where_nothing_trains_before() {
    let lowest = |mode| {
        let plan = Plan::new(&spec("resnet8", Variant::Paper, mode, 3), 1, 10, 8, true).unwrap();
        let projection = |u: &usize| plan.layout.units[*u].conv.shortcut;
        let first = (0..plan.layout.units.len()).find(projection).unwrap();
        (plan.lowest, plan.layout.end_of(first))
    };
    let (found, first) = lowest(Mode::OutputShortcut);
    assert!(found == first && found > 0, "{found}");
    for mode in [Mode::All, Mode::Bn, Mode::Gamma, Mode::Beta, Mode::Random, Mode::BnOutputShortcut] {
        assert_eq!(lowest(mode).0, 0, "{mode}");
    }
    assert_eq!(lowest(Mode::None).0, usize::MAX);
}

#[test]
fn steps_in_every_mode_are_those_of_the_cpu_engine() {
    let each = Mode::NAMES.map(|(name, mode)| (name, mode, Variant::Origin));
    for (name, mode, variant) in each.into_iter().chain([("paper", Mode::OutputShortcut, Variant::Paper)]) {
        let spec = spec("resnet8", variant, mode, 3);
        let Some(mut cuda) = on(&spec, Order::Forward) else { return };
        let mut cpu = engine(&spec, EngineName::Cpu).unwrap();
        let [(own, tally), (expected, expected_tally)] =
            [&mut cuda as &mut dyn Trainer, &mut *cpu].map(|trainer| {
                for step in 0..2 {
                    trainer.step(&batch(0, step, 3), 0.1).unwrap();
                }
                (trainer.state().unwrap(), trainer.take_tally().unwrap())
            });
        assert_eq!((tally.examples, tally.correct), (6, expected_tally.correct), "{name}");
        let [loss, expected_loss] = [tally, expected_tally].map(|tally| tally.loss);
        assert!((loss - expected_loss).abs() < 1e-3 * expected_loss, "{name}: {loss}, {expected_loss}");
        for (own, expected) in [(own.values, expected.values), (own.momentum, expected.momentum)] {
            assert!(own.keys().eq(expected.keys()), "{name}");
            for (of, tensor) in &own {
                let apart = apart(&tensor.data, &expected[of].data);
                assert!(apart < 1e-3, "{name}, {of}: {apart}");
            }
        }
    }
}

/// A card that is lost within an epoch costs what came after the last state that was saved, and no bit.
#[test]
fn a_training_whose_card_is_lost_goes_on_from_what_was_saved_to_the_same_bits() {
    const BATCH: usize = 1;
    let protocol = Protocol { epochs: 2, batch: BATCH, milestones: vec![1], ..Protocol::default() };
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, BATCH);
    let training = |lost_after: Option<usize>| {
        let mut device = Emulated::new(Order::Forward)?;
        device.lost_after = lost_after;
        let trainer = CudaTrainer::new(&spec, few_images(), device).unwrap();
        let seed = 3;
        Some(Training::new(Box::new(trainer), few_images(), &spec, protocol.clone(), seed).unwrap())
    };
    let on = &mut |_: &Progress| ControlFlow::Continue(());
    let Some(mut straight) = training(None) else { return };
    while !straight.finished() {
        straight.epoch(on).unwrap();
    }
    let whole = straight.save().unwrap();
    // An epoch is nine steps, after eight of which it may be saved, and one batch of test images.
    for (lost_after, pauses) in [(8, true), (12, false)] {
        let mut first = training(Some(lost_after)).unwrap();
        let pause = first.epoch(&mut |progress| {
            let here = pauses && progress.done == 8 * BATCH;
            if here { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(pause.unwrap() == Epoch::Paused, pauses);
        let saved = first.save().unwrap();
        let lost = first.epoch(on).unwrap_err().to_string();
        assert!(lost.contains("CUDA_ERROR_LAUNCH_FAILED"), "{lost}");
        assert!(lost.contains("goes on from where it was saved last"), "{lost}");
        assert!(first.save().is_err(), "what the card has lost cannot be saved");
        let mut second = training(None).unwrap();
        second.resume(&saved).unwrap();
        while !second.finished() {
            second.epoch(on).unwrap();
        }
        assert!(second.save().unwrap() == whole, "lost after {lost_after}");
    }
}

/// The first few of [`images`].
fn few_images() -> Arc<Dataset> {
    let all = images();
    let [train, test] = [(Split::Train, 9), (Split::Test, 1)].map(|(split, count)| {
        let labels: Vec<u16> = (0..count).map(|i| all.label(split, i)).collect();
        (labels, (0..count).flat_map(|i| all.image(split, i).to_vec()).collect::<Vec<u8>>())
    });
    let [train, test] = [&train, &test].map(|(labels, pixels)| Images { labels, pixels });
    Arc::new(Dataset::from_bytes(Arc::new(pack(all.classes(), train, test).unwrap())).unwrap())
}

/// All bits of a few steps (the last batch being smaller), and of predictions in parts.
fn bits(trainer: &mut dyn Trainer, seed: u64) -> Vec<u32> {
    for (i, n) in [5, 5, 2].into_iter().enumerate() {
        trainer.step(&batch(seed, i, 5)[..n], 0.1).unwrap();
    }
    let (tally, logits) = (trainer.take_tally().unwrap(), trainer.predict(Split::Test, 3..16).unwrap());
    assert_eq!((tally.examples, logits.len()), (12, 130));
    let state = trainer.state().unwrap();
    let tensors = state.values.into_values().chain(state.momentum.into_values());
    let all = tensors.flat_map(|tensor| tensor.data).chain(logits).chain([tally.loss as f32]);
    all.map(f32::to_bits).collect()
}

#[test]
fn bits_do_not_depend_on_the_order_of_blocks_and_threads() {
    for (mode, precision) in
        [(Mode::All, Precision::F32), (Mode::Random, Precision::F32), (Mode::All, Precision::Bf16)]
    {
        let spec = TrainSpec { precision, ..spec("resnet8", Variant::Origin, mode, 5) };
        let (Some(mut a), Some(mut b)) = (on(&spec, Order::Forward), on(&spec, Order::Backward)) else {
            return;
        };
        assert!(bits(&mut a, 0) == bits(&mut b, 0), "{mode} {precision:?}");
    }
}

#[test]
fn a_training_in_a_group_has_the_bits_that_it_has_alone() {
    for (mode, precision) in [(Mode::Bn, Precision::F32), (Mode::Random, Precision::Bf16)] {
        let spec = TrainSpec { precision, ..spec("resnet8", Variant::Origin, mode, 5) };
        let specs = [
            (0, 0.9, 0.0, BnInit::Uniform),
            (1, 0.5, 0.05, BnInit::PositiveNegative),
            (2, 0.0, 0.5, BnInit::Oneone),
        ]
        .map(|(seed, momentum, weight_decay, bn)| {
            let init = Init { bn, ..spec.init };
            TrainSpec { seed, init, momentum, weight_decay, ..spec.clone() }
        });
        let Some(device) = Emulated::new(Order::Forward) else { return };
        let mut group = Group::new(&specs, images(), device).unwrap();
        for (i, n) in [5, 5, 2].into_iter().enumerate() {
            let batches = specs.each_ref().map(|spec| batch(spec.seed, i, 5)[..n].to_vec());
            group.step(&batches.each_ref().map(Vec::as_slice), &[0.1; 3]).unwrap();
        }
        let (tallies, logits) = (group.take_tallies().unwrap(), group.predict(Split::Test, 0..7).unwrap());
        for (i, spec) in specs.iter().enumerate() {
            let mut alone = on(spec, Order::Forward).unwrap();
            bits(&mut alone, spec.seed);
            assert!(alone.predict(Split::Test, 0..7).unwrap() == logits[i], "{mode} {i}");
            assert!(alone.state().unwrap() == group.state(i).unwrap(), "{mode} {i}");
            assert_eq!(tallies[i].examples, 12);
        }
    }
}

#[test]
fn a_restored_training_goes_on_with_the_same_bits() {
    for (mode, precision) in [(Mode::All, Precision::F32), (Mode::Random, Precision::Bf16)] {
        let spec = TrainSpec { precision, ..spec("resnet8", Variant::Origin, mode, 5) };
        let Some(mut first) = on(&spec, Order::Forward) else { return };
        first.step(&batch(0, 0, 5), 0.1).unwrap();
        assert_eq!(first.take_tally().unwrap().examples, 5);
        let mut second = on(&spec, Order::Forward).unwrap();
        let state = first.state().unwrap();
        second.restore(&state).unwrap();
        assert!(second.state().unwrap() == state);
        let gradients = second.gradients(&batch(0, 1, 5)).unwrap();
        assert!(second.state().unwrap() == state && gradients.0.examples == 5, "gradients change nothing");
        assert!(bits(&mut first, 0) == bits(&mut second, 0), "{mode}");
        let mut foreign = state;
        foreign.values.remove("bn1.running_var");
        assert!(second.restore(&foreign).unwrap_err().to_string().contains("`bn1.running_var` is missing"));
    }
}

#[test]
fn each_training_of_a_group_goes_on_from_its_own_state() {
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, 5);
    let specs = [0, 1, 2].map(|seed| TrainSpec { seed, ..spec.clone() });
    let group = || Some(Group::new(&specs, images(), Emulated::new(Order::Forward)?).unwrap());
    let (Some(mut first), Some(mut second)) = (group(), group()) else { return };
    let step = |group: &mut Group<Emulated>, i: usize| {
        let batches = specs.each_ref().map(|spec| batch(spec.seed, i, 5)[..2].to_vec());
        group.step(&batches.each_ref().map(Vec::as_slice), &[0.1; 3]).unwrap();
        [0, 1, 2].map(|i| group.state(i).unwrap())
    };
    for (i, state) in step(&mut first, 0).iter().enumerate() {
        second.restore(i, state).unwrap();
    }
    assert!(step(&mut first, 1) == step(&mut second, 1));
}

#[test]
fn memory_is_predicted_to_the_byte_and_a_batch_that_fits_is_named() {
    let spec = spec("resnet8", Variant::Paper, Mode::All, 8);
    let needed = bytes_needed(&spec, &images(), 1).unwrap() as u64;
    let Some(mut device) = Emulated::new(Order::Forward) else { return };
    device.total = needed;
    Group::new(std::slice::from_ref(&spec), images(), device).unwrap();
    let mut device = Emulated::new(Order::Forward).unwrap();
    device.total = needed;
    let plan = Plan::new(&spec, 1, 10, TRAIN + TEST, true).unwrap();
    Memory::new(&plan, &mut |bytes| device.alloc(bytes)).unwrap();
    assert_eq!(device.memory().unwrap(), [0, needed]);
    let mut device = Emulated::new(Order::Forward).unwrap();
    device.total = needed - 1;
    let message = CudaTrainer::new(&spec, images(), device).err().unwrap().to_string();
    assert!(message.contains("resnet8 at batch 8 take") && message.contains("that fits is 7"), "{message}");
    let most = largest_batch(&spec, &images(), 3, 1 << 32).unwrap();
    let bytes = |batch| bytes_needed(&TrainSpec { batch, ..spec.clone() }, &images(), 3).unwrap();
    assert!(bytes(most) <= 1 << 32 && bytes(most + 1) > 1 << 32, "{most}");
    assert_eq!(largest_batch(&spec, &images(), 1, 1000).unwrap(), 0);
    // Kernels count the elements of a map, 16 x 32 x 32 for each image, in 32 bits.
    assert_eq!(largest_batch(&spec, &images(), 1, 1 << 60).unwrap(), (1 << 18) - 1);
    let half = TrainSpec { precision: Precision::Bf16, ..spec };
    let [whole, halved] = [needed, bytes_needed(&half, &images(), 1).unwrap() as u64];
    let mut device = Emulated::new(Order::Forward).unwrap();
    device.total = halved;
    assert!(Group::new(&[half], images(), device).is_ok() && 3 * halved < 2 * whole, "{halved} of {whole}");
}

#[test]
fn what_it_cannot_do_is_refused_in_words() {
    let spec = spec("resnet8", Variant::Paper, Mode::Bn, 7);
    let Some(mut t) = on(&spec, Order::Forward) else { return };
    assert!(t.step(&[], 0.1).is_err());
    assert!(t.step(&[batch(0, 0, 1)[0]; 8], 0.1).unwrap_err().to_string().contains("1 to 7"));
    let far = Example::whole(64);
    assert!(t.step(&[far], 0.1).unwrap_err().to_string().contains("no training image 64"));
    assert!(t.predict(Split::Test, 0..17).is_err());
    assert!(t.look(Split::Test, 0..1, Some(&mut [])).unwrap_err().to_string().contains("count zeros"));
    // Before anything is allocated or compiled.
    let large = TrainSpec { set: Mode::Random.train_set(Variant::Paper, 30), ..spec.clone() };
    let refused = Plan::new(&large, 1, 10, 8, true).err().unwrap().to_string();
    assert!(refused.contains("k = 30 trained weights per filter do not fit"), "{refused}");
    let device = || Emulated::new(Order::Forward).unwrap();
    let bf16 = TrainSpec { precision: Precision::Bf16, ..spec.clone() };
    let mut old = device();
    old.tensor_cores = false;
    let refused = CudaTrainer::new(&bf16, images(), old).err().unwrap();
    assert!(matches!(refused, Error::Unsupported { engine: "cuda", .. }));
    let mut small = device();
    small.shared = 8 << 10;
    let refused = CudaTrainer::new(&spec, images(), small).err().unwrap();
    assert!(
        refused.to_string().contains("whose blocks have 8 KiB of shared memory: one of its kernels takes")
    );
    assert!(matches!(refused, Error::Unsupported { engine: "cuda", .. }));
    for other in [
        TrainSpec { batch: 8, ..spec.clone() },
        TrainSpec { arch: "resnet14".parse().unwrap(), ..spec.clone() },
        TrainSpec { variant: Variant::Origin, ..spec.clone() },
        TrainSpec { set: Mode::All.train_set(Variant::Paper, 2), ..spec.clone() },
        bf16,
    ] {
        let refused = Group::new(&[spec.clone(), other], images(), device()).err().unwrap();
        assert!(refused.to_string().contains("must agree in architecture, mode, batch and precision"));
    }
}

#[test]
fn predictions_in_parts_are_those_of_the_cpu_engine() {
    let spec = spec("resnet8", Variant::Origin, Mode::All, 5);
    let Some(mut cuda) = on(&spec, Order::Forward) else { return };
    let mut cpu = engine(&spec, EngineName::Cpu).unwrap();
    for (split, range) in [(Split::Test, 3..16), (Split::Train, 2..13)] {
        let [own, expected] =
            [&mut cuda as &mut dyn Trainer, &mut *cpu].map(|t| t.predict(split, range.clone()).unwrap());
        assert!(apart(&own, &expected) < 1e-3, "{split:?}");
    }
}

/// Diverged numbers must be seen, not rectified away.
#[test]
fn not_a_number_reaches_the_loss() {
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, 3);
    let spec = TrainSpec { precision: Precision::Bf16, ..spec };
    let Some(mut t) = on(&spec, Order::Forward) else { return };
    let mut state = t.state().unwrap();
    state.values.get_mut("layer1.0.bn1.weight").unwrap().data[3] = f32::NAN;
    t.restore(&state).unwrap();
    t.step(&batch(0, 0, 3), 0.1).unwrap();
    assert!(t.take_tally().unwrap().loss.is_nan());
    assert!(t.state().unwrap().values["bn1.weight"].data.iter().any(|x| x.is_nan()));
}
