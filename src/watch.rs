//! Shows a run as it happens: live lines on a terminal, plain lines elsewhere. Knows nothing of how
//! a run is scheduled or what its stages do.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use engine::{
    instance::{InstanceId, Pipeline},
    kind::Progress,
    observer::{Event, Observer},
    project::Project,
    publish::Change,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::ui;

/// Without a terminal, a stage's progress is a line this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Where lines appear: above the live ones, where there are any.
#[derive(Clone)]
pub(crate) struct Screen(Option<MultiProgress>);

impl Screen {
    /// Live where standard error is a terminal, unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = !quiet && !dumb && std::io::stderr().is_terminal();
        Self(live.then(MultiProgress::new))
    }

    /// A line that stays.
    pub(crate) fn note(&self, text: &str) {
        match &self.0 {
            Some(live) => live.suspend(|| ui::note(text)),
            None => ui::note(text),
        }
    }
}

/// Watches one run.
pub(crate) struct Watch<'a> {
    project: &'a Project,
    pipeline: &'a Pipeline,
    screen: Screen,
    quiet: bool,
    running: BTreeMap<InstanceId, Stage>,
    /// The lowest live line: how far the whole run is. Appears with the first stage that starts.
    whole: ProgressBar,
    wanted: usize,
    settled: u64,
}

/// A running stage.
struct Stage {
    line: Option<ProgressBar>,
    /// When it first said how far it is, and how far that was.
    first: Option<(Instant, u64)>,
    /// When a plain line was last printed.
    printed: Instant,
    /// How far it said it is.
    percent: Option<u64>,
    /// Has its start been told? Results become lasting, and are told, some time after what needs them has started: its
    /// line waits for theirs.
    told: bool,
}

impl<'a> Watch<'a> {
    /// Watches a run of `wanted` instances.
    pub(crate) fn new(
        project: &'a Project,
        pipeline: &'a Pipeline,
        screen: Screen,
        quiet: bool,
        wanted: usize,
    ) -> Self {
        let (running, whole) = (BTreeMap::new(), ProgressBar::hidden());
        Self { project, pipeline, screen, quiet, running, whole, wanted, settled: 0 }
    }

    /// Removes the live lines.
    pub(crate) fn end(&mut self) {
        self.running.values().filter_map(|stage| stage.line.as_ref()).for_each(ProgressBar::finish_and_clear);
        self.whole.finish_and_clear();
    }

    fn name(&self, id: InstanceId) -> &str {
        &self.pipeline.instances[id].name
    }

    /// A line that stays, unless only failures are wanted.
    fn note(&self, text: &str) {
        if !self.quiet {
            self.screen.note(text);
        }
    }

    fn start(&mut self, id: InstanceId) {
        let line = self.screen.0.as_ref().map(|live| {
            if self.running.is_empty() && self.whole.is_hidden() {
                self.whole = live.add(bar("{spinner} {wide_msg}"));
                self.whole.enable_steady_tick(Duration::from_millis(200));
            }
            live.insert_before(&self.whole, bar("  {wide_msg}"))
        });
        if let Some(line) = &line {
            line.set_message(ui::visible(self.name(id), ""));
        }
        let told = line.is_some();
        self.running.insert(id, Stage { line, first: None, printed: Instant::now(), percent: None, told });
        self.tell_started();
        self.show_whole();
    }

    /// Tells which stages started, of those whose inputs have all been told.
    fn tell_started(&mut self) {
        let needs = |id: InstanceId| self.pipeline.instances[id].needs.iter().map(|need| need.from);
        let ready = |id: &InstanceId| !needs(*id).any(|from| self.running.contains_key(&from));
        let waiting = self.running.iter().filter(|(_, stage)| !stage.told).map(|(id, _)| *id);
        let ready: Vec<_> = waiting.filter(ready).collect();
        ready.into_iter().for_each(|id| self.tell_start(id));
    }

    /// Tells that a stage started, if nobody has.
    fn tell_start(&mut self, id: InstanceId) {
        if let Some(stage) = self.running.get_mut(&id)
            && !std::mem::replace(&mut stage.told, true)
        {
            self.note(&format!("start    {}", self.name(id)));
        }
    }

    fn progress(&mut self, id: InstanceId, progress: &Progress) {
        let name = &self.pipeline.instances[id].name;
        let Some(stage) = self.running.get_mut(&id) else { return };
        stage.percent = Some(percent(progress));
        let first = *stage.first.get_or_insert((Instant::now(), progress.done));
        let text = describe(name, progress, left(first, progress));
        self.show(id, text);
    }

    fn said(&mut self, id: InstanceId, line: &str) {
        match self.running.get(&id) {
            // Its log keeps it; it is shown until there is something better.
            Some(Stage { first: None, .. }) => {
                let line = line.rsplit('\r').next().unwrap_or(line); // what was written over is not shown
                if !line.trim().is_empty() {
                    self.show(id, format!("{}  {line}", self.name(id)));
                }
            }
            Some(_) => {}
            None => self.warn(id, line),
        }
    }

    fn warn(&self, id: InstanceId, line: &str) {
        self.note(&format!("warning: `{}`: {line}", self.name(id)));
    }

    /// How far a running stage is, as far as anybody knows.
    fn show(&mut self, id: InstanceId, text: String) {
        let Some(stage) = self.running.get_mut(&id) else { return };
        match &stage.line {
            Some(line) => line.set_message(ui::visible(&text, "")),
            None if stage.printed.elapsed() >= PLAIN_EVERY => {
                stage.printed = Instant::now();
                self.tell_start(id);
                self.note(&format!("         {text}"));
            }
            None => {}
        }
    }

    /// An instance needs no more attention; `text` says how it ended.
    fn settle(&mut self, id: InstanceId, text: Option<&str>) {
        self.settled += 1;
        self.tell_start(id);
        if let Some(line) = self.running.remove(&id).and_then(|stage| stage.line) {
            line.finish_and_clear();
        }
        if let Some(text) = text {
            self.note(text);
        }
        self.tell_started();
        self.show_whole();
    }

    fn fail(&mut self, id: InstanceId, message: &str, hint: Option<&str>) {
        self.tell_start(id);
        let mut text = format!("error: `{}`: {message}", self.name(id));
        if self.running.contains_key(&id) {
            let log = self.project.log(self.pipeline, id);
            text.push_str(&format!("\nlog: {}", ui::path(&log)));
        }
        if let Some(hint) = hint {
            text.push_str(&format!("\nhelp: {hint}"));
        }
        self.screen.note(&text);
        self.settle(id, None);
    }

    fn show_whole(&self) {
        if !self.whole.is_hidden() {
            self.whole.set_message(format!(
                "{} of {} done, {} running",
                self.settled,
                self.wanted,
                self.running.len()
            ));
        }
    }
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { id } => self.start(*id),
            Event::Progress { id, progress } => self.progress(*id, progress),
            Event::Said { id, line } => self.said(*id, line),
            Event::Warned { id, line } => {
                self.tell_start(*id);
                self.warn(*id, line);
            }
            Event::Fresh { id } => self.settle(*id, None),
            Event::Finished { id, seconds } => {
                let text = format!("done     {} ({})", self.name(*id), ui::seconds(*seconds));
                self.settle(*id, Some(&text));
            }
            Event::Stopped { id } => {
                let percent = self.running.get(id).and_then(|stage| stage.percent);
                let far = percent.map_or_else(String::new, |percent| format!(" at {percent} %"));
                let text = format!("stopped  {}{far}", self.name(*id));
                self.settle(*id, Some(&text));
            }
            Event::Taken { id } => {
                let text = format!("taken    {}: what is there is as the lock file says", self.name(*id));
                self.settle(*id, Some(&text));
            }
            Event::Restored { id } => {
                let text = format!("restored {}", self.name(*id));
                self.settle(*id, Some(&text));
            }
            Event::Brought { id } => {
                self.note(&format!("brought  {}: what it can go on from", self.name(*id)));
            }
            Event::Failed { id, message, hint } => self.fail(*id, message, hint.as_deref()),
            Event::Published { path, change, .. } => {
                let word = if *change == Change::Wrote { "wrote" } else { "removed" };
                self.note(&format!("{word:<8} {}", ui::path(&self.pipeline.root.join(path))));
            }
        }
    }
}

fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// `train[mode=bn]  30 %, 41.3 s left, loss 1.234, test 56.7 %, 812 images/s, epoch 3/10`: a narrow terminal cuts
/// the end off.
fn describe(name: &str, progress: &Progress, left: Option<f64>) -> String {
    let mut text = format!("{name}  {} %", percent(progress));
    if let Some(left) = left {
        text.push_str(&format!(", {} left", ui::seconds(left)));
    }
    for reading in &progress.readings {
        text.push_str(", ");
        text.push_str(reading);
    }
    text.push_str(&format!(", {} {}/{}", progress.unit, progress.done, progress.total));
    text
}

fn percent(progress: &Progress) -> u64 {
    progress.done.saturating_mul(100).checked_div(progress.total).unwrap_or(0)
}

/// Seconds to go, at the speed since the first report: a resumed stage did not do the units before
/// that now.
fn left((since, first): (Instant, u64), progress: &Progress) -> Option<f64> {
    let done = progress.done.checked_sub(first).filter(|&done| done > 0)?;
    let to_go = progress.total.saturating_sub(progress.done);
    Some(since.elapsed().as_secs_f64() / done as f64 * to_go as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line_and_a_resumed_stage_is_not_credited_with_what_it_did_before() {
        let readings = vec!["loss 1.234".to_owned(), "812 images/s".to_owned()];
        let progress = Progress { done: 90, total: 100, unit: "epoch".to_owned(), readings };
        let since = Instant::now().checked_sub(Duration::from_secs(20)).unwrap();
        let left = left((since, 80), &progress);
        assert_eq!(left.map(f64::round), Some(20.0));
        assert_eq!(
            describe("train", &progress, left),
            "train  90 %, 20.0 s left, loss 1.234, 812 images/s, epoch 90/100"
        );
        assert_eq!(super::left((since, 90), &progress), None);
    }
}
