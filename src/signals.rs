//! Ctrl-C and its relatives as a number that only grows. Knows nothing of what stops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use engine::machine::field;
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};

/// Signals that come so close together are one request: `timeout` sends one to the program and one to its group.
const ONE: Duration = Duration::from_millis(200);

/// From now on, each request to end raises `stop` by one and then calls `told` with its value. What this program
/// was started to ignore stays ignored: after `nohup` it does not end with its terminal.
pub(crate) fn count_into(stop: Arc<AtomicUsize>, told: impl Fn(usize) + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let heard = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(heard)?;
    std::thread::Builder::new().spawn(move || {
        let mut last: Option<Instant> = None;
        for _ in signals.forever() {
            if last.is_none_or(|last| last.elapsed() > ONE) {
                last = Some(Instant::now());
                told(stop.fetch_add(1, Ordering::Relaxed) + 1);
            }
        }
    })?;
    Ok(())
}

/// A file that may grow no more is an error where it is written, as on a full disk, and not the end of this program. What it
/// starts hears of it as before.
pub(crate) fn outlive_limits() {
    // Where that is refused it ends, as before.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Undoes that the end of a child is ignored, as some programs leave it to those that they start: then nobody could wait
/// for one.
pub(crate) fn hear_children() {
    if ignored() >> (SIGCHLD - 1) & 1 == 1 {
        // Where that is refused, each stage says that it cannot be waited for.
        let _ = signal_hook::flag::register(SIGCHLD, Arc::default());
    }
}

/// The signals that this process ignores, one bit each; none where the system does not say.
fn ignored() -> u64 {
    let mask = field("/proc/self/status".as_ref(), "SigIgn:");
    mask.and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0)
}
