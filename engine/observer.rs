//! What a run tells as it happens. Knows nothing of how it is shown.

use std::path::PathBuf;

use crate::{instance::InstanceId, kind::Progress, publish::Change};

/// Something happened to an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Its process started.
    Started {
        /// Which.
        id: InstanceId,
    },
    /// How far it is.
    Progress {
        /// Which.
        id: InstanceId,
        /// How far.
        progress: Progress,
    },
    /// It said a line, or the runner did about it.
    Said {
        /// Which.
        id: InstanceId,
        /// The line.
        line: String,
    },
    /// It said a line that is not to be missed.
    Warned {
        /// Which.
        id: InstanceId,
        /// The line.
        line: String,
    },
    /// It ran to its end and its result is kept.
    Finished {
        /// Which.
        id: InstanceId,
        /// How long it took.
        seconds: f64,
    },
    /// Its result came from the cache.
    Restored {
        /// Which.
        id: InstanceId,
    },
    /// What it can go on from came from the folder beside the project.
    Brought {
        /// Which.
        id: InstanceId,
    },
    /// Files of its result are missing, and the lock file's word for it was taken.
    Taken {
        /// Which.
        id: InstanceId,
    },
    /// There was nothing to do.
    Fresh {
        /// Which.
        id: InstanceId,
    },
    /// It failed; its earlier result is untouched.
    Failed {
        /// Which.
        id: InstanceId,
        /// Why.
        message: String,
        /// A way out.
        hint: Option<String>,
    },
    /// It ended early because the run was asked to stop.
    Stopped {
        /// Which.
        id: InstanceId,
    },
    /// It changed a file of the project that shows its result, or showed one.
    Published {
        /// Which.
        id: InstanceId,
        /// The file.
        path: PathBuf,
        /// What it did.
        change: Change,
    },
}

/// Watches a run.
pub trait Observer {
    /// Called once per event, in order, from one thread.
    fn event(&mut self, event: &Event);
}

impl Observer for Vec<Event> {
    fn event(&mut self, event: &Event) {
        self.push(event.clone());
    }
}
