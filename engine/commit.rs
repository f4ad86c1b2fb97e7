//! Makes results lasting, many at once: the files first, then the records and the index. Knows
//! nothing of stages and of what else runs.
//!
//! A sync of the disk costs as much for one small result as for a hundred. So results that finish
//! while others are synced, or within [`PAUSE`] of it, share the next two. Nothing waits for it but
//! the end of the run: what a result is needed for starts at once, because its recipe names content.

#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt as _;
use std::{
    borrow::Cow,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, SyncSender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    machine::Machine,
    record::Record,
    state::{Entry, Journal, Line},
    store::Store,
    task::Message,
};

/// At least so long lies between two batches, and at least four times as long as the syncs of one take.
const PAUSE: Duration = Duration::from_millis(250);

/// A result that is shown.
pub(crate) struct Commit {
    /// Where; see `project::key`.
    pub(crate) key: String,
    /// What; nothing when what is shown there counts as nobody's result.
    pub(crate) entry: Option<Entry>,
    /// How it came about, unless the cache gave it.
    pub(crate) record: Option<Record>,
}

/// The thread that does it.
pub(crate) struct Committer {
    sender: Sender<Commit>,
    thread: JoinHandle<(Journal, Result<(), EngineError>)>,
}

impl Committer {
    /// Starts it. The scheduler is told what is lasting, and if that is no longer possible;
    /// [`Committer::finish`] then says why.
    pub(crate) fn start(
        store: Arc<Store>,
        mut journal: Journal,
        machine: Arc<OnceLock<Machine>>,
        scheduler: SyncSender<Message>,
    ) -> Self {
        // Without limit: the scheduler never waits for this thread, which may be waiting to tell it something.
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            let result = work(&store, &mut journal, &machine, &receiver, &scheduler);
            if result.is_err() {
                let _ = scheduler.send(Message::Broken);
            }
            (journal, result)
        });
        Self { sender, thread }
    }

    pub(crate) fn commit(&self, commit: Commit) {
        // It only stops listening when it failed, and has said so.
        let _ = self.sender.send(commit);
    }

    /// Waits until everything is lasting.
    pub(crate) fn finish(self) -> (Journal, Result<(), EngineError>) {
        drop(self.sender);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn work(
    store: &Store,
    journal: &mut Journal,
    machine: &OnceLock<Machine>,
    receiver: &Receiver<Commit>,
    scheduler: &SyncSender<Message>,
) -> Result<(), EngineError> {
    let mut next = Instant::now();
    while let Ok(first) = receiver.recv() {
        let mut batch = vec![first];
        while let Ok(commit) = receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
            batch.push(commit);
        }
        let started = Instant::now();
        sync(store).context("sync", store.cache())?;
        let mut lasting = Vec::new();
        for record in batch.iter_mut().filter_map(|commit| commit.record.as_mut()) {
            let recipe = Digest::of(&record.recipe);
            let (here, run) = (machine.wait(), &mut record.run);
            run.machine = match run.launcher {
                None => here.clone(),
                Some(_) => here.there(std::mem::take(&mut run.machine)),
            };
            store.write_record(recipe, record)?;
            lasting.push(recipe);
        }
        let lines = batch.iter().map(|commit| match &commit.entry {
            Some(entry) => Line::Result((&commit.key).into(), Cow::Borrowed(entry)),
            None => Line::Gone((&commit.key).into()),
        });
        journal.append(&lines.collect::<Vec<_>>())?;
        sync(store).context("sync", store.cache())?;
        for recipe in &lasting {
            // Only what an interrupted run needs lies there, and that is over now.
            store.forget_attempts(*recipe);
        }
        next = Instant::now() + PAUSE.max(4 * started.elapsed());
        let _ = scheduler.send(Message::Lasting(lasting));
    }
    Ok(())
}

/// Syncs the file system that holds the cache, and that of `artifacts/` where it is another one.
#[cfg(target_os = "linux")]
pub(crate) fn sync(store: &Store) -> std::io::Result<()> {
    let cache = std::fs::File::open(store.cache())?;
    rustix::fs::syncfs(&cache)?;
    let device = |file: &std::fs::File| file.metadata().map(|meta| meta.dev());
    if let Ok(shown) = std::fs::File::open(store.artifacts())
        && device(&shown)? != device(&cache)?
    {
        rustix::fs::syncfs(&shown)?;
    }
    Ok(())
}

/// Syncs all file systems; some systems only begin to.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync(_: &Store) -> std::io::Result<()> {
    rustix::fs::sync();
    Ok(())
}
