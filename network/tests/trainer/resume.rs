//! What a state holds: enough to go on with the same bits, and nothing that did not train.

use network::{
    Error,
    arch::{Graph, Variant},
    init::random_positions,
    mode::{Mode, VALUES},
    trainer::{EngineName, Split, State, Tally, Trainer},
};

use crate::support::{TEST, TRAIN, batch, engine, engines, in_f64, spec};

fn run(trainer: &mut dyn Trainer, steps: std::ops::Range<usize>) -> Tally {
    for step in steps {
        trainer.step(&batch(0, step, 8), 0.1).unwrap();
    }
    trainer.take_tally().unwrap()
}

#[test]
fn an_interrupted_training_ends_with_the_same_bits() {
    for mode in [Mode::All, Mode::BnOutputShortcut, Mode::Random] {
        let spec = spec("resnet8", Variant::Origin, mode, 8);
        for (mut whole, (mut first, mut second)) in
            engines(&spec).into_iter().zip(engines(&spec).into_iter().zip(engines(&spec)))
        {
            run(&mut *whole, 0..2);
            run(&mut *first, 0..2);
            second.restore(&first.state().unwrap()).unwrap();
            let who = whole.describe();
            assert_eq!(run(&mut *whole, 2..4), run(&mut *second, 2..4), "{who}");
            assert_eq!(whole.state().unwrap(), second.state().unwrap(), "{who}");
            let logits = |t: &mut dyn Trainer| t.predict(Split::Test, 0..16).unwrap();
            assert_eq!(logits(&mut *whole), logits(&mut *second), "{who}");
        }
    }
}

#[test]
fn steps_are_summed_until_somebody_asks_for_them() {
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, 8);
    for (mut seldom, mut often) in engines(&spec).into_iter().zip(engines(&spec)) {
        let mut sum = run(&mut *often, 0..1);
        sum += run(&mut *often, 1..2);
        assert_eq!(run(&mut *seldom, 0..2), sum, "{}", often.describe());
        assert_eq!(sum.examples, 16);
    }
}

/// The network after training a few weights is the initial network but for those weights.
#[test]
fn what_does_not_train_stays_where_the_seed_put_it() {
    for mode in [Mode::Bn, Mode::Random, Mode::OutputShortcut] {
        let mut spec = spec("resnet8", Variant::Origin, mode, 8);
        spec.weight_decay = 0.1; // would show
        let graph = Graph::new(spec.arch, spec.variant, 10);
        let whole = network::trainer::TrainSpec { set: Mode::All.train_set(spec.variant, 0), ..spec.clone() };
        for mut engine in engines(&spec) {
            run(&mut *engine, 0..3);
            let State { values, .. } = engine.state().unwrap();
            let (mut state, _) = State::initial(&graph, &whole).unwrap();
            for param in graph.params() {
                let Some(trained) = values.get(&format!("{}{VALUES}", param.name)) else { continue };
                let all = &mut state.values.get_mut(&param.name).unwrap().data;
                let at = random_positions(spec.seed, &param, 2);
                at.iter().zip(&trained.data).for_each(|(p, value)| all[*p as usize] = *value);
            }
            for (name, tensor) in values.into_iter().filter(|(name, _)| !name.ends_with(VALUES)) {
                state.values.insert(name, tensor);
            }
            let mut rebuilt = in_f64(&whole);
            rebuilt.restore(&state).unwrap();
            let expected = rebuilt.predict(Split::Test, 0..16).unwrap();
            let got = engine.predict(Split::Test, 0..16).unwrap();
            assert_eq!(got.len(), 160);
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(
                    (got - expected).abs() < 1e-4,
                    "{}, {mode}, {i}: {got}, {expected}",
                    engine.describe()
                );
            }
        }
    }
}

#[test]
fn a_batch_larger_than_the_dataset_takes_no_more_memory_and_changes_no_bit() {
    let run = |most: usize| {
        let spec = spec("resnet8", Variant::Origin, Mode::Random, most);
        let mut trainer = engine(&spec, EngineName::Cpu).unwrap();
        trainer.step(&batch(0, 0, TRAIN), 0.1).unwrap();
        let logits = trainer.predict(Split::Test, 0..TEST).unwrap();
        (trainer.plan().unwrap().buffer_bytes(false), trainer.state().unwrap(), logits)
    };
    assert_eq!(run(TRAIN), run(65_536));
}

#[test]
fn wrong_batches_ranges_and_states_are_refused() {
    let spec = spec("resnet8", Variant::Origin, Mode::Bn, 8);
    for mut engine in engines(&spec) {
        let mut examples = batch(0, 0, 8);
        assert!(engine.step(&[], 0.1).is_err());
        let refused = |done: Result<(), Error>, why: &str| {
            let message = done.unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        };
        refused(engine.step(&[examples[0]; 9], 0.1), "1 to 8");
        examples[3].index = 64;
        refused(engine.step(&examples, 0.1), "no training image 64");
        assert!(engine.predict(Split::Test, 10..17).is_err());
        let mut state = engine.state().unwrap();
        state.values.remove("layer1.0.bn1.running_var");
        refused(engine.restore(&state), "`layer1.0.bn1.running_var` is missing");
        let mut state = engine.state().unwrap();
        state.momentum.clear();
        refused(engine.restore(&state), "bn1.bias");
    }
}
