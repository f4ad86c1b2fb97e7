//! What a process says of the stages that it runs, and when each has come to its end.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::{Child, ExitStatus},
    sync::mpsc::SyncSender,
    time::Instant,
};

use toml::Value;

use super::{Held, Message, Ran};
use crate::{
    child::Report,
    kind::StageError,
    launcher::{END, end},
    machine::Machine,
    observer::Event,
    process::{ProcessGroup, follow},
    record::now,
};

/// What a process said of one stage.
pub(super) struct Heard {
    pub(super) held: Held,
    pub(super) notes: BTreeMap<String, Value>,
    /// What it runs on, where it had to say so.
    pub(super) machine: Machine,
    /// When it began.
    pub(super) started: (u64, Instant),
    pub(super) failure: Option<StageError>,
    pub(super) finished: bool,
}

impl Heard {
    pub(super) fn new(held: Held, started: (u64, Instant)) -> Self {
        let (notes, machine) = (BTreeMap::new(), Machine::default());
        Self { held, notes, machine, started, failure: None, finished: false }
    }

    /// In one write: the process writes its errors to the same file.
    fn log(&mut self, line: &str) {
        let _ = self.held.log.write_all(format!("{line}\n").as_bytes());
    }

    fn hear(&mut self, report: Report, to: &SyncSender<Message>) {
        let id = self.held.member.id;
        match report {
            Report::Said(line) => {
                self.log(&line);
                let _ = to.send(Message::Event(Event::Said { id, line }));
            }
            Report::Warned(line) => {
                self.log(&line);
                let _ = to.send(Message::Event(Event::Warned { id, line }));
            }
            Report::Progress(progress) => {
                let _ = to.send(Message::Event(Event::Progress { id, progress }));
            }
            Report::Note(key, value) => drop(self.notes.insert(key, value)),
            Report::Machine(machine) => {
                self.machine = *machine;
                self.started = (now(), Instant::now()); // until now it waited for that
            }
            Report::Failed(_) if self.failure.is_some() => {} // once more, as its process ends
            Report::Failed(error) => {
                self.log(&format!("failed: {error}"));
                self.failure = Some(error);
            }
            Report::Finished => self.finished = true,
        }
    }
}

/// Listens to the child until it has ended, and says how it did. What has come to its end while others go on is handed to
/// `conclude` at once: it need not wait for them, and is not lost with them. The last one waits for the process, which may
/// hold a card until it has ended.
pub(super) fn listen(
    child: &mut Child,
    group: &ProcessGroup,
    run: &Ran,
    heard: &mut [Option<Heard>],
    to: &SyncSender<Message>,
    conclude: impl Fn(Heard),
) -> io::Result<ExitStatus> {
    let Ran { ends_with, launcher, .. } = run;
    // Of a shell in words of its own.
    let reports = !run.by_shell;
    let hear = |line: &[u8]| {
        let last = ends_with.as_ref().and_then(|end| line.strip_suffix(end.as_bytes()));
        let line = last.unwrap_or(line);
        if let (Some(_), Some(Some(of))) = (last, heard.first_mut()) {
            of.finished = true;
        }
        if let (Some(_), Some(Some(of))) = (ends_with, heard.first_mut())
            && line.ends_with(end("").as_bytes())
        {
            let message =
                format!("the launcher does not pass the variable `{END}` on, which says that it ended well");
            of.failure = Some(StageError::new(message).hint("let it pass the whole environment on"));
        }
        if (reports || last.is_some()) && line.is_empty() {
            return; // what a launcher says before that may end in no line
        }
        let report = if reports { serde_json::from_slice::<(usize, Report)>(line).ok() } else { None };
        let first = heard.iter().position(Option::is_some).unwrap_or(0);
        let said = || (first, Report::Said(String::from_utf8_lossy(line).trim_end().to_owned()));
        let (job, report) = report.filter(|(job, _)| *job < heard.len()).unwrap_or_else(said);
        let others = heard.iter().flatten().count() > 1;
        let Some(of) = &mut heard[job] else { return };
        of.hear(report, to);
        if others && (of.finished || of.failure.is_some()) {
            heard[job].take().into_iter().for_each(&conclude);
        }
    };
    let followed =
        child.stdout.take().map_or(Ok(()), |stdout| follow(stdout, group, launcher.is_some(), hear));
    if followed.is_err() {
        // Its stages have failed: it must not go on beside what comes next.
        group.kill();
    }
    let status = group.wait(child);
    followed.and(status)
}
