//! A process of a stage: its log, what it says, its end. Whatever it started ends with it. Knows
//! nothing of what it does.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{FdFlags, fcntl_setfd, retry_on_intr},
    process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, setrlimit,
        waitid,
    },
};

use crate::{error::EngineError, machine::field};

/// The longest line that is kept together.
const LONGEST: usize = 1 << 20;

/// How long an earlier process may take to end once it is asked to, and then once it is killed. What a launcher started on
/// another machine ends only if the launcher is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A running process and its group.
pub(crate) struct Running {
    pub(crate) group: ProcessGroup,
    /// Dropped to ask a stage to stop; a command gets a signal instead, unless a launcher started it.
    pub(crate) stdin: Option<ChildStdin>,
    /// Did a launcher start it?
    pub(crate) launched: bool,
    /// Has it been asked to stop, or been ended?
    pub(crate) told: Arc<AtomicBool>,
}

impl Running {
    /// Asks it to stop at a safe point.
    pub(crate) fn stop(&mut self) {
        self.told.store(true, Ordering::SeqCst);
        if self.stdin.take().is_none() {
            self.group.ask();
        }
    }

    /// Ends it, and what it started, at once. A launcher is asked first: what it started elsewhere it ends itself.
    pub(crate) fn kill(&mut self) {
        self.told.store(true, Ordering::SeqCst);
        if self.launched {
            self.group.signal(Signal::TERM);
            let group = self.group.clone();
            let later = std::thread::Builder::new().spawn(move || {
                std::thread::sleep(PATIENCE);
                group.kill();
            });
            if later.is_err() {
                self.group.kill();
            }
        } else {
            self.group.kill();
        }
    }
}

/// The number of a process that leads a group, while it is its own.
#[derive(Clone)]
pub(crate) struct ProcessGroup(Arc<Mutex<Option<Pid>>>);

impl ProcessGroup {
    pub(crate) fn of(child: &Child) -> Self {
        Self(Arc::new(Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw))))
    }

    fn id(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = *self.id() {
            // It may have ended by itself just now.
            let _ = kill_process_group(id, signal);
        }
    }

    /// Asks all that is in it to stop.
    pub(crate) fn ask(&self) {
        self.signal(Signal::TERM);
        // Who asks on the terminal is stopped by the system, and hears nothing before this.
        self.signal(Signal::CONT);
    }

    /// Ends all that is in it at once.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits until the process has ended, and leaves it where it is: nobody else gets its number.
    fn outlive(&self) -> io::Result<()> {
        let id = *self.id();
        id.map_or(Ok(()), await_end)
    }

    /// Waits until the process has ended, ends what is left of the group, and says how it ended.
    pub(crate) fn wait_and_end(&self, child: &mut Child) -> io::Result<ExitStatus> {
        self.outlive()?;
        self.kill();
        self.wait(child)
    }

    /// Waits until the process has ended, and says how. Once it is known, the system may give its number to another.
    pub(crate) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        self.outlive()?;
        let mut id = self.id();
        *id = None;
        child.wait()
    }
}

/// The last few lines of a log, which may be huge, after its first bytes, which are of an earlier attempt.
pub(crate) fn last_lines(log: &Path, before: u64) -> Vec<String> {
    const BYTES: u64 = 4096;
    let read = || {
        let mut file = File::open(log)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(BYTES).max(before)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let tail = read().unwrap_or_default();
    let lines: Vec<_> = tail.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(5)..].to_vec()
}

/// What a process says until it ends.
pub(crate) fn output(process: &mut Command) -> io::Result<Output> {
    spawn(process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()), &[])?.wait_with_output()
}

/// Starts a process that holds the locks of all these files, whatever it does with them; see [`open_held`](crate::held::open_held).
pub(crate) fn spawn(process: &mut Command, held: &[&File]) -> io::Result<Child> {
    // Nothing else of this program must start one meanwhile: that would hold them too.
    let _one = one_by_one();
    inherit(held, true);
    let child = process.spawn();
    inherit(held, false);
    child
}

/// Held while a process is started, and while what none must inherit is made in more than one step.
fn one_by_one() -> MutexGuard<'static, ()> {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a child has ended, and leaves it where it is.
fn await_end(pid: Pid) -> io::Result<()> {
    loop {
        let how = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
        // macOS answers for one that is only stopped, too.
        if how.is_none_or(|how| !how.stopped()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Lets this program open as many files as so many processes at once ask for, if the system allows it: for each its
/// input, output, log, lock and end.
pub(crate) fn allow(processes: usize) {
    let (limit, wanted) = (getrlimit(Resource::Nofile), 128 + 8 * processes as u64);
    if limit.current.is_some_and(|now| now < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        // Where that is refused, what cannot be opened is an error of its own.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

/// Lets processes that are started from now on keep the files open, or no longer.
fn inherit(held: &[&File], yes: bool) {
    let flags = if yes { FdFlags::empty() } else { FdFlags::CLOEXEC };
    for file in held {
        // Only fails for what is not open.
        let _ = fcntl_setfd(file, flags);
    }
}

/// Gives this signal to the processes of others that have the file open for writing. It is known by its number: the way to
/// it may lead through links.
pub(crate) fn end_leftovers(held: &Path, signal: Signal) {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(held) = identity(held) else { return };
    signal_others(signal, |process| {
        let mut files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        // Who only reads it disturbs nothing. The flags are octal; a last digit 0 means open for reading.
        let writes = |file: &fs::DirEntry| {
            let flags = field(&process.join("fdinfo").join(file.file_name()), "flags:");
            flags.is_some_and(|flags| !flags.ends_with('0'))
        };
        files.any(|file| identity(&file.path()) == Some(held) && writes(&file))
    });
}

/// Ends the processes of others that began with this environment variable: what a command started and gave other files
/// to write into. It would disturb the stage's next try.
pub(crate) fn end_left_with(name: &str, value: &OsStr) -> Result<(), EngineError> {
    let wanted = [name.as_bytes(), b"=", value.as_encoded_bytes()].concat();
    let has = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
    };
    let started = Instant::now();
    let mut signal = Some(Signal::TERM);
    while signal_others(signal.take(), has) {
        if started.elapsed() > 2 * PATIENCE {
            return Err(EngineError::user(
                format!(
                    "a process of an earlier run, with `{name}={}` in its environment, does not end",
                    value.display()
                ),
                "end that process, then run again",
            ));
        }
        signal = (started.elapsed() > PATIENCE).then_some(Signal::KILL);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Gives a signal to the processes of others that are meant, known by their folders in `/proc`; are there any?
fn signal_others(signal: impl Into<Option<Signal>>, is_meant: impl Fn(&Path) -> bool) -> bool {
    let (signal, own, mut any) = (signal.into(), ancestors(), false);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // Nor children: one that another thread is starting has copies of all that is open here, for a moment.
        let others = pid.filter(|pid| !own.contains(pid) && parent(*pid) != Some(rustix::process::getpid()));
        let Some(pid) = others.filter(|_| is_meant(&entry.path())) else { continue };
        any = true;
        if let Some(signal) = signal {
            // It may have ended by itself just now.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    any
}

/// This process and those that led to it.
fn ancestors() -> Vec<Pid> {
    std::iter::successors(Some(rustix::process::getpid()), |pid| parent(*pid)).collect()
}

fn parent(pid: Pid) -> Option<Pid> {
    Pid::from_raw(field(format!("/proc/{pid}/status").as_ref(), "PPid:")?.parse().ok()?)
}

/// Hands over what the process says, line by line, until it has ended; then ends what is left of its
/// group.
pub(crate) fn follow(
    mut output: impl Read + AsFd,
    group: &ProcessGroup,
    launched: bool,
    line: impl FnMut(&[u8]),
) -> io::Result<()> {
    let end = group.id().and_then(end_of);
    let mut lines = Lines { rest: Vec::new(), line };
    let mut block = vec![0; 1 << 16];
    let mut open = true;
    // After its end only what it had said before is of interest, not what others still say.
    let (mut left, mut asked) = (None, None);
    while left != Some(0) && (open || (end.is_some() && left.is_none())) {
        let (readable, ended) = wait(open.then_some(&output), end.as_ref(), left.is_some())?;
        if readable {
            match output.read(&mut block) {
                Ok(0) => open = false,
                Ok(length) => lines.feed(&block[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if ended && left.is_none() {
            // What a launcher left behind may have something to end elsewhere, and has while it holds the output.
            let since = *asked.get_or_insert_with(|| {
                if launched {
                    group.signal(Signal::TERM);
                }
                Instant::now()
            });
            if !(launched && open) || since.elapsed() > PATIENCE {
                group.kill();
                left = Some(64);
            } else if !readable {
                std::thread::sleep(Duration::from_millis(20));
            }
        } else if let Some(left) = &mut left {
            *left = if readable { *left - 1 } else { 0 };
        }
    }
    lines.end();
    Ok(())
}

/// Bytes cut into lines.
struct Lines<F> {
    rest: Vec<u8>,
    line: F,
}

impl<F: FnMut(&[u8])> Lines<F> {
    fn feed(&mut self, bytes: &[u8]) {
        // In what was there before no line ends.
        let (mut from, mut at) = (0, self.rest.len());
        self.rest.extend_from_slice(bytes);
        while let Some(length) = self.rest[at..].iter().position(|&byte| byte == b'\n') {
            (self.line)(&self.rest[from..at + length]);
            from = at + length + 1;
            at = from;
        }
        self.rest.drain(..from);
        if self.rest.len() > LONGEST {
            self.end();
        }
    }

    fn end(&mut self) {
        if !self.rest.is_empty() {
            (self.line)(&self.rest);
            self.rest.clear();
        }
    }
}

/// Becomes readable when the process ends.
#[cfg(target_os = "linux")]
fn end_of(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn end_of(pid: Pid) -> Option<OwnedFd> {
    watch_for_end(pid)
}

/// The same where the system has nothing for it: a thread waits, and then closes the other end of a pipe.
#[cfg(any(test, not(target_os = "linux")))]
fn watch_for_end(pid: Pid) -> Option<OwnedFd> {
    let (end, open) = {
        let _one = one_by_one();
        io::pipe().ok()?
    };
    std::thread::spawn(move || {
        // Fails when somebody else has waited for it: then it has ended, too.
        let _ = await_end(pid);
        drop(open);
    });
    Some(end.into())
}

/// Is there output, or the end of it? Has the process ended? Waits for either, or only asks.
fn wait(output: Option<&impl AsFd>, end: Option<&OwnedFd>, ask: bool) -> io::Result<(bool, bool)> {
    let output = output.map(|output| PollFd::new(output, PollFlags::IN));
    let end = end.map(|end| PollFd::new(end, PollFlags::IN));
    let has_output = usize::from(output.is_some());
    let mut fds: Vec<_> = output.into_iter().chain(end).collect();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, ask.then_some(&now)) {
        Ok(_) => {
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            Ok((has_output == 1 && ready[0], ready.get(has_output).copied().unwrap_or(false)))
        }
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_notices_the_end_of_a_process_too() {
        let mut child = spawn(Command::new("sleep").arg("60"), &[]).unwrap();
        let end = watch_for_end(Pid::from_child(&child)).unwrap();
        let nothing = None::<&OwnedFd>;
        assert_eq!(wait(nothing, Some(&end), true).unwrap(), (false, false), "it has not ended");
        child.kill().unwrap();
        assert_eq!(wait(nothing, Some(&end), false).unwrap(), (false, true), "it has");
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        let text = b"one\n\ntwo three\nwithout end";
        for size in 1..=text.len() {
            let mut heard = Vec::new();
            let mut lines = Lines { rest: Vec::new(), line: |line: &[u8]| heard.push(line.to_vec()) };
            text.chunks(size).for_each(|piece| lines.feed(piece));
            lines.end();
            assert_eq!(heard.join(&b'\n'), text, "pieces of {size}");
        }
    }

    #[test]
    fn a_process_holds_the_locks_that_it_was_given_also_without_who_started_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        let mut child = spawn(Command::new("sleep").arg("60"), &[&lock]).unwrap();
        drop(lock);
        let held = crate::held::is_held(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(held);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_left_of_a_command_is_known_by_its_environment() {
        let mut shell = Command::new("/bin/sh");
        let script = "trap '' TERM; sleep 60 < /dev/null > /dev/null 2>&1 & echo $!";
        let shell = shell.args(["-c", script]).env("SCRATCH", "/its/own").output().unwrap();
        let leftover = String::from_utf8(shell.stdout).unwrap();
        let alive =
            || fs::read(format!("/proc/{}/environ", leftover.trim())).is_ok_and(|all| !all.is_empty());
        end_left_with("SCRATCH", "/its".as_ref()).unwrap();
        assert!(alive(), "it has another one");
        end_left_with("SCRATCH", "/its/own".as_ref()).unwrap();
        assert!(!alive());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn leftovers_of_others_are_ended_and_children_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let writer = || Stdio::from(File::options().append(true).create(true).open(&path).unwrap());
        let mut child = Command::new("sleep").arg("60").stdout(writer()).spawn().unwrap();
        let script = "sleep 60 > /dev/null & echo $!";
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", script]).stderr(writer()).output().unwrap();
        let leftover = String::from_utf8(shell.stdout).unwrap();
        let stat = format!("/proc/{}/stat", leftover.trim());
        let alive = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(alive());
        end_leftovers(&path, Signal::TERM);
        let since = Instant::now();
        while alive() {
            assert!(since.elapsed() < PATIENCE, "it lives");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
