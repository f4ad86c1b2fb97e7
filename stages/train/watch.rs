//! Watches a training: tells how far it is and how fast, and where it is to pause to be saved. Knows neither
//! what trains nor where it is saved.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use engine::{
    kind::{self, Reporter},
    machine,
};
use network::{
    train::{Progress, Row},
    trainer::Split,
};

/// So much of a training may be lost to a crash.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// So long a training that is asked to stop may look for a place to pause; whoever asks may not wait for long.
const GRACE: Duration = Duration::from_secs(5);
/// A report more often than this is more than anyone reads.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Tells how far a training is, and how fast; and has it pause to be saved.
pub(super) struct Watch {
    images: usize,
    epochs: usize,
    last: Option<Row>,
    reported: Option<Instant>,
    /// May it be saved within an epoch?
    within: bool,
    saved: Instant,
    /// Since when it should stop.
    stop: Option<Instant>,
    /// Start of the running epoch, once its first batch is asked for, and the images that were done then.
    epoch: Option<(Instant, usize)>,
    /// Images trained on since the start of the program, and the time that took.
    trained: (usize, Duration),
}

impl Watch {
    pub(super) fn new(images: usize, epochs: usize, within: bool, history: &[Row]) -> Self {
        Self {
            images,
            epochs,
            last: history.last().copied(),
            reported: None,
            within,
            saved: Instant::now(),
            stop: None,
            epoch: None,
            trained: Default::default(),
        }
    }

    /// It was saved; go on?
    pub(super) fn saved(&mut self) -> bool {
        self.saved = Instant::now();
        self.stop.is_none()
    }

    /// Should it stop or pause here?
    fn halt(&mut self, reporter: &dyn Reporter, progress: &Progress) -> bool {
        if reporter.stop_requested() {
            let since = *self.stop.get_or_insert_with(Instant::now);
            return !self.within || progress.safe || since.elapsed() >= GRACE;
        }
        // A pause among the test images would begin these anew.
        self.within && progress.safe && progress.split == Split::Train && self.saved.elapsed() >= SAVE_EVERY
    }

    pub(super) fn look(&mut self, reporter: &mut dyn Reporter, progress: &Progress) -> ControlFlow<()> {
        if self.halt(reporter, progress) {
            return ControlFlow::Break(());
        }
        let done = match progress.split {
            Split::Train => progress.done,
            Split::Test => self.images,
        };
        let (start, from) = *self.epoch.get_or_insert_with(|| (Instant::now(), done));
        let trained = || (self.trained.0 + done - from, self.trained.1 + start.elapsed());
        let (images, time) = match progress.split {
            Split::Train => trained(),
            Split::Test if progress.done == 0 => {
                self.trained = trained();
                self.trained
            }
            Split::Test => self.trained,
        };
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            let mut readings = vec![format!("epoch {}/{}", progress.epoch, self.epochs)];
            let loss = progress.loss.or(self.last.map(|row| row.train_loss));
            readings.extend(loss.map(|loss| format!("loss {loss:.3}")));
            readings.extend(self.last.map(|row| format!("test {:.1} %", 100.0 * row.test_accuracy)));
            readings.extend(speed(images, time).map(|speed| format!("{speed:.0} images/s")));
            self.report(reporter, progress.epoch - 1, done, readings);
        }
        ControlFlow::Continue(())
    }

    pub(super) fn finished(&mut self, reporter: &mut dyn Reporter, row: &Row) {
        (self.epoch, self.last) = (None, Some(*row));
        let Row { epoch, train_loss, test_accuracy, .. } = row;
        let test = 100.0 * test_accuracy;
        reporter.say(&format!("epoch {epoch}/{}: loss {train_loss:.4}, test {test:.2} %", self.epochs));
        if *epoch == self.epochs {
            self.report(reporter, *epoch, 0, vec![format!("test {test:.1} %")]);
        }
    }

    fn report(&self, reporter: &mut dyn Reporter, epochs: usize, images: usize, readings: Vec<String>) {
        let (done, total) = (epochs * self.images + images, self.epochs * self.images);
        let unit = "image".to_owned();
        reporter.progress(&kind::Progress { done: done as u64, total: total as u64, unit, readings });
    }

    /// What the record should say of it.
    pub(super) fn note(&self, reporter: &mut dyn Reporter) {
        if let Some(speed) = speed(self.trained.0, self.trained.1) {
            reporter.note("images_per_second", ((10.0 * speed).round() / 10.0).into());
        }
        if let Some([_, peak]) = machine::resident() {
            reporter.note("peak_rss_bytes", (peak as i64).into());
        }
    }
}

fn speed(images: usize, time: Duration) -> Option<f64> {
    (images > 0 && !time.is_zero()).then(|| images as f64 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::Listener;

    #[test]
    fn a_training_is_saved_each_minute_and_stops_where_it_may_pause_or_after_some_seconds() {
        let (watched, asked) =
            (Listener::default(), Listener { patience: Some(Cell::new(0)), ..Default::default() });
        let at = |split, safe| Progress { epoch: 1, split, done: 8, loss: None, safe };
        let (safe, unsafe_, test) = (at(Split::Train, true), at(Split::Train, false), at(Split::Test, true));
        let ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
        let mut watch = Watch::new(20, 2, true, &[]);
        assert!(!watch.halt(&watched, &safe), "it was just saved");
        watch.saved = ago(SAVE_EVERY);
        assert!(
            !watch.halt(&watched, &unsafe_) && !watch.halt(&watched, &test) && watch.halt(&watched, &safe)
        );
        assert!(watch.saved() && !watch.halt(&watched, &safe));
        assert!(!watch.halt(&asked, &unsafe_) && watch.halt(&asked, &test) && watch.halt(&asked, &safe));
        assert!(!watch.saved(), "it goes on though it should stop");
        watch.stop = Some(ago(GRACE));
        assert!(watch.halt(&asked, &unsafe_));
        // In a group neither: the others would not.
        let mut watch = Watch::new(20, 2, false, &[]);
        watch.saved = ago(SAVE_EVERY);
        assert!(!watch.halt(&watched, &safe) && watch.halt(&asked, &unsafe_));
    }
}
