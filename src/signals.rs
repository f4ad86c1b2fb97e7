//! Ctrl-C and its relatives as a number that only grows. Knows nothing of what stops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// From now on, each request to end raises `stop` by one and then calls `told` with its value.
pub(crate) fn count_into(stop: Arc<AtomicUsize>, told: impl Fn(usize) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            told(stop.fetch_add(1, Ordering::Relaxed) + 1);
        }
    });
    Ok(())
}
