use super::*;
use crate::{
    arch::Variant,
    cuda::{
        emulation::{Emulated, Order},
        trainer::CudaTrainer,
    },
    mode::Mode,
    support::{batch, images, spec},
    trainer::TrainSpec,
};

const BATCH: usize = 3;

fn specs() -> Vec<TrainSpec> {
    let spec = spec("resnet8", Variant::Paper, Mode::Bn, BATCH);
    (0..3).map(|seed| TrainSpec { seed, ..spec.clone() }).collect()
}

/// A short training: what it saw, and where it ended.
fn train(trainer: &mut dyn Trainer, seed: u64, steps: usize) -> (Tally, Vec<f32>, State) {
    for step in 0..steps {
        trainer.step(&batch(seed, step, BATCH), 0.1 + seed as f32).unwrap();
    }
    let tally = trainer.take_tally().unwrap();
    (tally, trainer.predict(Split::Test, 0..2).unwrap(), trainer.state().unwrap())
}

#[test]
fn each_trains_as_it_would_alone_also_when_one_leaves() {
    let Some(device) = Emulated::new(Order::Forward) else { return };
    let group = Group::new(&specs(), images(), device).unwrap();
    let results = together(group, vec![0, 1, 2], |seed: u64, seat| {
        let mut trainer = seat.trainer();
        if seed == 1 {
            trainer.step(&batch(seed, 0, BATCH), 0.1).unwrap();
            return None;
        }
        Some(train(&mut *trainer, seed, 2))
    });
    for (i, result) in results.into_iter().enumerate() {
        let Some(result) = result.expect("no panic") else { continue };
        let device = Emulated::new(Order::Forward).unwrap();
        let mut alone = CudaTrainer::new(&specs()[i], images(), device).unwrap();
        assert_eq!(result, train(&mut alone, i as u64, 2), "training {i}");
    }
}

#[test]
fn one_that_panics_takes_no_other_along() {
    let Some(device) = Emulated::new(Order::Forward) else { return };
    let group = Group::new(&specs()[..2], images(), device).unwrap();
    let results = together(group, vec![0, 1], |seed: u64, seat| {
        let mut trainer = seat.trainer();
        assert!(seed == 0, "this one panics");
        train(&mut *trainer, seed, 1).0.examples
    });
    assert_eq!(results, [Some(BATCH as u64), None]);
}

#[test]
fn all_learn_that_the_card_is_lost() {
    let Some(mut device) = Emulated::new(Order::Forward) else { return };
    device.lost_after = Some(1);
    let group = Group::new(&specs()[..2], images(), device).unwrap();
    let results = together(group, vec![0, 1], |seed: u64, seat| {
        let mut trainer = seat.trainer();
        for step in 0..2 {
            trainer.step(&batch(seed, step, BATCH), 0.1).unwrap();
        }
        [trainer.take_tally().err(), trainer.state().err()].map(|error| error.unwrap().to_string())
    });
    for result in results {
        for error in result.expect("no panic") {
            assert!(error.contains("the card was lost"), "{error}");
        }
    }
}

#[test]
fn trainings_out_of_step_are_told_so() {
    let Some(device) = Emulated::new(Order::Forward) else { return };
    let group = Group::new(&specs()[..2], images(), device).unwrap();
    let results = together(group, vec![1, 2], |steps: usize, seat| {
        let mut trainer = seat.trainer();
        for step in 0..steps {
            trainer.step(&batch(0, step, BATCH), 0.1).unwrap();
        }
        trainer.take_tally().unwrap_err().to_string()
    });
    for result in results {
        assert!(result.unwrap().contains("at different places"));
    }
}
