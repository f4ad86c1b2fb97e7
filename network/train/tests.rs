use std::{ops::Range, sync::Mutex};

use super::*;
use crate::{
    data::{IMAGE_BYTES, Images, augmented_pixel, pack},
    init::{BnInit, Init, WeightInit},
    optimizer::Sgd,
    tensor::Tensor,
};

/// Logistic regression on one byte of the image: as quick as a training can be.
struct Toy {
    data: Arc<Dataset>,
    state: State,
    tally: Tally,
    sgd: Sgd,
    engine: &'static str,
    seen: Arc<Mutex<Seen>>,
    /// Whether it knows nothing of test images but a NaN.
    spoilt: bool,
}

/// What a trainer was given, and what it made of that.
#[derive(Default)]
struct Seen {
    examples: Vec<Example>,
    loss: f64,
    correct: u64,
}

impl Toy {
    fn boxed(data: &Arc<Dataset>) -> Box<dyn Trainer> {
        Self::of("toy", data)
    }

    fn of(engine: &'static str, data: &Arc<Dataset>) -> Box<dyn Trainer> {
        Box::new(Self::new(engine, data))
    }

    fn new(engine: &'static str, data: &Arc<Dataset>) -> Self {
        let zeros = |name: &str| (name.to_owned(), Tensor::full([3, 2], 0.0));
        let state = State { values: [zeros("w"), zeros("seen")].into(), momentum: [zeros("w")].into() };
        let sgd = Sgd { rate: 0.0, momentum: 0.9, weight_decay: 1e-4 };
        Self {
            data: data.clone(),
            state,
            tally: Tally::default(),
            sgd,
            engine,
            seen: Arc::default(),
            spoilt: false,
        }
    }

    fn logits(&self, split: Split, example: &Example) -> ([f32; 3], f32) {
        let image = self.data.image(split, example.index as usize);
        let x = f32::from(augmented_pixel(image, example, 0, 3, 3)) / 255.0;
        let w = &self.state.values["w"].data;
        (std::array::from_fn(|class| w[2 * class] + w[2 * class + 1] * x), x)
    }
}

impl Trainer for Toy {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        let mut gradient = [0.0; 6];
        let before = self.tally;
        for example in batch {
            let (logits, x) = self.logits(Split::Train, example);
            let label = usize::from(self.data.label(Split::Train, example.index as usize));
            let powers = logits.map(|x| f64::from(x).exp());
            let sum: f64 = powers.iter().sum();
            for class in 0..3 {
                let d = (powers[class] / sum) as f32 - if class == label { 1.0 } else { 0.0 };
                gradient[2 * class] += d / batch.len() as f32;
                gradient[2 * class + 1] += d * x / batch.len() as f32;
            }
            self.tally.examples += 1;
            self.tally.correct += u64::from((0..3).all(|c| logits[c] <= logits[label]));
            self.tally.loss -= (powers[label] / sum).ln();
        }
        let mut seen = self.seen.lock().unwrap();
        seen.examples.extend_from_slice(batch);
        seen.loss += self.tally.loss - before.loss;
        seen.correct += self.tally.correct - before.correct;
        let State { values, momentum } = &mut self.state;
        for (name, tensor) in values {
            if let Some(velocity) = momentum.get_mut(name) {
                Sgd { rate, ..self.sgd }.step(&mut tensor.data, &mut velocity.data, &gradient);
            } else {
                tensor.data[0] += batch.len() as f32;
            }
        }
        Ok(())
    }

    fn take_tally(&mut self) -> Result<Tally> {
        Ok(std::mem::take(&mut self.tally))
    }

    fn look(&mut self, split: Split, range: Range<usize>, _: Option<&mut [Vec<u64>]>) -> Result<Vec<f32>> {
        if self.spoilt {
            return Ok(vec![f32::NAN; 3 * range.len()]);
        }
        Ok(range.flat_map(|index| self.logits(split, &Example::whole(index as u32)).0).collect())
    }

    fn state(&mut self) -> Result<State> {
        Ok(self.state.clone())
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.state = state.clone();
        Ok(())
    }

    fn engine(&self) -> &'static str {
        self.engine
    }

    fn describe(&self) -> String {
        "toy".into()
    }
}

/// Three classes of grey images that one byte tells apart, but for its noise.
fn dataset() -> Arc<Dataset> {
    images_that_begin_at(0)
}

/// The same, as bright as this more.
fn images_that_begin_at(least: u8) -> Arc<Dataset> {
    let images = |n: usize| {
        let labels: Vec<u16> = (0..n).map(|i| (i % 3) as u16).collect();
        let pixels = (0..n).flat_map(|i| [least + ((i % 3) * 80 + i * 7 % 50) as u8; IMAGE_BYTES]).collect();
        (labels, pixels)
    };
    let ((train, train_pixels), (test, test_pixels)): ((_, Vec<u8>), (_, Vec<u8>)) =
        (images(100), images(30));
    let names = ["a", "b", "c"].map(String::from);
    let train = Images { labels: &train, pixels: &train_pixels };
    let bytes = pack(&names, train, Images { labels: &test, pixels: &test_pixels }).unwrap();
    Arc::new(Dataset::from_bytes(Arc::new(bytes)).unwrap())
}

fn spec(protocol: &Protocol) -> TrainSpec {
    let init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };
    let model = Model::new("resnet8".parse().unwrap(), crate::arch::Variant::Paper, 0, init, 3);
    protocol.spec(&model, TrainSet::NONE, Precision::F32)
}

fn training(protocol: Protocol) -> Training {
    let data = dataset();
    Training::new(Toy::boxed(&data), data, &spec(&protocol), protocol, 1).unwrap()
}

fn short() -> Protocol {
    Protocol { epochs: 4, batch: 8, milestones: vec![3], ..Protocol::default() }
}

fn run(training: &mut Training) {
    while !training.finished() {
        let Epoch::Finished(_) = training.epoch(&mut |_| ControlFlow::Continue(())).unwrap() else {
            panic!()
        };
    }
}

#[test]
fn rates_drop_after_the_milestones() {
    let protocol = Protocol::default();
    let rates = [0, 79, 80, 119, 120, 159].map(|epoch| protocol.rate(epoch));
    assert_eq!(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]);
}

#[test]
fn every_image_is_seen_once_an_epoch_the_last_few_too_and_the_toy_learns() {
    let mut training = training(short());
    run(&mut training);
    let last = training.history()[3];
    assert_eq!(training.values().unwrap()["seen"].data[0], 400.0);
    assert_eq!(training.steps(), 4 * 13);
    assert_eq!((last.epoch, last.learning_rate, training.history()[2].learning_rate), (4, 0.01, 0.1));
    assert!(last.train_loss < 0.9 * training.history()[0].train_loss, "{last:?}");
    assert!(last.test_accuracy > 0.6, "{last:?}");
}

#[test]
fn an_epoch_takes_the_images_in_the_order_of_its_seed_and_tells_their_means() {
    let (data, seed) = (dataset(), 7);
    let toy = Toy::new("toy", &data);
    let seen = toy.seen.clone();
    let mut training = Training::new(Box::new(toy), data, &spec(&short()), short(), seed).unwrap();
    for epoch in 0..4 {
        training.epoch(&mut |_| ControlFlow::Continue(())).unwrap();
        let Seen { examples, loss, correct } = std::mem::take(&mut *seen.lock().unwrap());
        let order = epoch_order(seed, epoch, 100).into_iter();
        assert_eq!(examples, order.map(|index| example(seed, epoch, index)).collect::<Vec<_>>());
        let row = training.history()[epoch];
        assert!((row.train_loss - loss / 100.0).abs() < 1e-12, "{row:?}: {loss}");
        assert_eq!(row.train_accuracy, correct as f64 / 100.0);
    }
}

#[test]
fn a_protocol_gives_a_trainer_its_own_settings() {
    let spec = spec(&Protocol { momentum: 0.5, weight_decay: 0.25, batch: 7, ..short() });
    assert_eq!((spec.momentum, spec.weight_decay, spec.batch, spec.seed), (0.5, 0.25, 7, 0));
}

#[test]
fn augmentation_can_be_switched_off_and_the_seed_counts() {
    let history = |augment, seed| {
        let (data, protocol) = (dataset(), Protocol { augment, ..short() });
        let mut training = Training::new(Toy::boxed(&data), data, &spec(&protocol), protocol, seed).unwrap();
        run(&mut training);
        csv(training.history())
    };
    let (plain, augmented) = (history(false, 1), history(true, 1));
    assert_ne!(plain, augmented);
    assert_ne!(augmented, history(true, 2));
    assert_eq!(augmented, history(true, 1));
}

#[test]
fn a_state_of_another_engine_is_refused_and_changes_nothing() {
    let data = dataset();
    let of =
        |engine| Training::new(Toy::of(engine, &data), data.clone(), &spec(&short()), short(), 1).unwrap();
    let mut other = of("reference");
    other.epoch(&mut |_| ControlFlow::Continue(())).unwrap();
    let saved = other.save().unwrap();
    let (mut training, before) = (of("toy"), of("toy").save().unwrap());
    let error = training.resume(&saved).unwrap_err();
    assert!(matches!(error, Error::Malformed(_)));
    assert_eq!(error.to_string(), "resume state: it was saved by the engine `reference`, and this is `toy`");
    assert_eq!(training.save().unwrap(), before);
    of("reference").resume(&saved).unwrap();
}

#[test]
fn foreign_and_damaged_states_are_refused() {
    let saved = training(short()).save().unwrap();
    for other in [Protocol { weight_decay: 0.0, ..short() }, Protocol { epochs: 5, ..short() }] {
        let error = training(other).resume(&saved).unwrap_err().to_string();
        assert_eq!(error, "resume state: it belongs to another training");
    }
    for (data, seed) in [(images_that_begin_at(1), 1), (dataset(), 2)] {
        let mut other = Training::new(Toy::boxed(&data), data, &spec(&short()), short(), seed).unwrap();
        let error = other.resume(&saved).unwrap_err().to_string();
        assert_eq!(error, "resume state: it belongs to another training");
    }
    assert!(training(short()).resume(&saved[..saved.len() - 1]).is_err());
    assert!(training(short()).resume(b"").is_err());
    let (mut metadata, tensors) = tensorfile::read("", &saved).unwrap();
    let says = |metadata: &Metadata| {
        let written = tensorfile::write(metadata, &Default::default(), &tensors).unwrap();
        training(short()).resume(&written).unwrap_err().to_string()
    };
    metadata.insert("history".into(), format!("{COLUMNS}\n2,0.1,1,1,1,1\n"));
    assert_eq!(says(&metadata), "resume state: it is damaged");
    // What has the right digest is not believed for that.
    let says = |metadata: &mut Metadata| {
        metadata.remove("digest");
        metadata.insert("digest".into(), digest(metadata, &tensors).unwrap());
        says(metadata)
    };
    assert!(says(&mut metadata).contains("history is damaged"));
    let rows: String = (1..=5).map(|epoch| format!("{epoch},0.1,1,1,1,1\n")).collect();
    metadata.insert("history".into(), format!("{COLUMNS}\n{rows}"));
    assert!(says(&mut metadata).contains("history is damaged"), "five epochs of four");
    metadata.remove("engine");
    assert!(says(&mut metadata).contains("does not say its `engine`"));
    metadata.insert("engine".into(), "toy".into());
    metadata.insert("history".into(), format!("{COLUMNS}\n"));
    metadata.insert("part".into(), "8 64 3".into());
    assert!(says(&mut metadata).contains("how far it is"));
}

/// Goes on with `training` until it is there: an epoch, a split, and how many of its images are done.
fn until(training: &mut Training, at: (usize, Split, usize)) -> Epoch {
    loop {
        let ended = training.epoch(&mut |progress| {
            let here = (progress.epoch, progress.split, progress.done);
            if here == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match ended.unwrap() {
            Epoch::Finished(_) => {}
            ended => return ended,
        }
    }
}

#[test]
fn a_training_pauses_after_eight_steps_and_among_the_test_images_and_goes_on_to_the_same_bits() {
    let mut straight = training(short());
    run(&mut straight);
    let all = straight.save().unwrap();
    let places = [
        (1, Split::Train, 0),
        (2, Split::Train, 64),
        (2, Split::Test, 0),
        (3, Split::Train, 0),
        (3, Split::Test, 16),
    ];
    let mut paused = training(short());
    for at in places {
        assert_eq!(until(&mut paused, at), Epoch::Paused, "{at:?}");
        let saved = paused.save().unwrap();
        assert_eq!(saved_within_epoch(&saved), at.2 > 0 || at.1 == Split::Test, "{at:?}");
        let mut resumed = training(short());
        resumed.resume(&saved).unwrap();
        assert_eq!(resumed.save().unwrap(), saved, "{at:?}");
        run(&mut resumed);
        assert_eq!(resumed.save().unwrap(), all, "{at:?}, saved");
    }
    run(&mut paused);
    assert_eq!(paused.save().unwrap(), all);
    let mut done = training(short());
    done.resume(&all).unwrap();
    assert!(done.finished());
    assert!(!saved_within_epoch(b"nonsense"));
}

#[test]
fn a_stop_elsewhere_takes_effect_before_the_next_batch_and_leaves_nothing_to_save() {
    let mut training = training(short());
    assert_eq!(until(&mut training, (2, Split::Train, 24)), Epoch::Stopped);
    assert!(training.save().is_err() && training.epoch(&mut |_| ControlFlow::Break(())).is_err());
}

#[test]
fn a_diverged_training_names_its_epoch() {
    let protocol = Protocol { learning_rate: 1e-1, milestones: vec![1], factor: 1e38, ..short() };
    let mut training = training(protocol);
    training.epoch(&mut |_| ControlFlow::Continue(())).unwrap();
    let error = training.epoch(&mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.starts_with("epoch 2: the training loss is") && error.ends_with("has diverged"), "{error}");
    let data = dataset();
    let spoilt = Box::new(Toy { spoilt: true, ..Toy::new("toy", &data) });
    let mut training = Training::new(spoilt, data, &spec(&short()), short(), 1).unwrap();
    let error = training.epoch(&mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.starts_with("epoch 1: on the test images, a logit is NaN"), "{error}");
    // Losses and logits may be numbers all the same.
    let data = dataset();
    let mut infinite = Toy::new("toy", &data);
    infinite.state.values.insert("running_var".into(), Tensor::new(vec![1], vec![f32::INFINITY]));
    let mut training = Training::new(Box::new(infinite), data, &spec(&short()), short(), 1).unwrap();
    let error = training.epoch(&mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert_eq!(error, "epoch 1: `running_var` is no longer finite: the training has diverged");
}

#[test]
fn histories_come_back_bit_for_bit() {
    let row = |epoch, x: f64| Row {
        epoch,
        learning_rate: 0.1,
        train_loss: x,
        train_accuracy: x / 3.0,
        test_loss: x / 7.0,
        test_accuracy: 1e-300,
    };
    let history = [row(1, 0.1 + 0.2), row(2, 5e-324)];
    assert_eq!(parse(&csv(&history)).unwrap(), history);
    assert_eq!(json_lines(&history[..1]).unwrap().matches("\"train_loss\":0.30000000000000004").count(), 1);
    assert!(parse("epoch\n1\n").is_none());
}
