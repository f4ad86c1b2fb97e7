//! Runs the shipped kernels on the processor: the host's C++ compiler compiles them together with `cuda.h`, which
//! runs a block's threads as fibers. For tests, on machines without a card; knows no kernel.
//!
//! In this it is stricter than a card: memory behind a buffer and shared memory that nobody wrote are not numbers, writes
//! around a buffer and threads that miss a barrier are errors, and blocks and threads can be run in the opposite
//! order, which must change no bit.
#![allow(unsafe_code)] // foreign code, on memory that this file owns

use std::{
    alloc::{self, Layout},
    collections::BTreeMap,
    ffi::c_void,
    path::PathBuf,
    process::Command,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::sys::CUresult;
use libloading::Library;

use super::{
    cards::sentence,
    device::{Address, Arg, Device, Kernel, Launch, Recording, Source},
};
use crate::{Error, Result};

#[cfg(target_os = "linux")] // it reads ELF
pub(super) mod card;

const HEADER: &str = include_str!("cuda.h");
/// Bytes around each buffer, and what they hold: as floats not numbers.
const AROUND: usize = 1024;
const NOTHING: u8 = 0xff;

type Start = unsafe extern "C" fn(*const u32, *const u32, u32, *mut *mut c_void, u32, bool) -> i32;

/// In which order the blocks of a launch, and the threads of a block, take turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Forward,
    Backward,
}

/// The processor as a device.
pub(crate) struct Emulated {
    order: Order,
    buffers: Vec<(*mut u8, usize)>,
    /// Bytes that they take as a card gives them, in blocks of 256.
    used: u64,
    kernels: Vec<(String, Start, Turn)>,
    recordings: Vec<Vec<Launch>>,
    /// Once it was told any, only these are loaded.
    prepared: Vec<Source>,
    /// Bytes that it says it has.
    pub(crate) total: u64,
    /// Whether it says it has any.
    pub(crate) tensor_cores: bool,
    /// Bytes of shared memory that it says a block may have.
    pub(crate) shared: u32,
    /// Recordings that it still runs before it is lost. As on a card, the one that it fails at begins like any other, and
    /// whatever is asked next tells.
    pub(crate) lost_after: Option<usize>,
    lost: bool,
}

/// Whose turn it is to compile a library, and then to use it: fibers live in its own memory.
type Turn = Arc<Mutex<()>>;

/// By the libraries' names.
static TURNS: Mutex<BTreeMap<PathBuf, Turn>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this processor can: folders of libraries may be carried to another.
fn processor() -> String {
    let all = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    all.lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"))
        .unwrap_or_default()
        .into()
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".into())
}

/// Its command, of words as in a shell.
fn call(compiler: &str) -> Command {
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("c++"));
    command.args(words);
    command
}

impl Emulated {
    /// A device, or none where there is no compiler; says so, and fails with `REPRO_TEST_EMULATION=1`.
    pub(crate) fn new(order: Order) -> Option<Self> {
        let compiler = compiler();
        if call(&compiler).arg("--version").output().is_err() {
            assert!(
                std::env::var_os("REPRO_TEST_EMULATION").is_none(),
                "`REPRO_TEST_EMULATION` is set: no C++ compiler `{compiler}`"
            );
            #[allow(clippy::print_stderr)] // the only way to say that a test checks nothing
            {
                eprintln!("SKIPPED: no C++ compiler `{compiler}`; set CXX to test the CUDA kernels");
            }
            return None;
        }
        let (buffers, kernels, recordings) = (Vec::new(), Vec::new(), Vec::new());
        let prepared = Vec::new();
        Some(Self {
            order,
            buffers,
            used: 0,
            kernels,
            recordings,
            prepared,
            total: 1 << 40,
            tensor_cores: true,
            shared: u32::MAX,
            lost_after: None,
            lost: false,
        })
    }

    /// Errs once the device is lost.
    fn alive(&self) -> Result<()> {
        let code = CUresult::CUDA_ERROR_LAUNCH_FAILED;
        if self.lost { Err(Error::Device(sentence("the card failed at its work", code, ""))) } else { Ok(()) }
    }

    /// The buffer that holds `bytes` bytes from `at` on.
    fn find(&self, at: Address, bytes: usize) -> Result<*mut u8> {
        let holds = |(first, len): &&(*mut u8, usize)| {
            let first = *first as u64;
            first <= at.0 && at.0 + bytes as u64 <= first + *len as u64
        };
        if bytes > 0 && self.buffers.iter().any(|buffer| holds(&buffer)) {
            return Ok(at.0 as *mut u8);
        }
        Err(Error::Invalid(format!("no {bytes} bytes of the device at {at:?}")))
    }

    /// Errs if something wrote around a buffer.
    fn check(&self, after: &str) -> Result<()> {
        for (first, len) in &self.buffers {
            // SAFETY: `alloc` made both borders.
            let borders = unsafe {
                [
                    std::slice::from_raw_parts(first.sub(AROUND), AROUND),
                    std::slice::from_raw_parts(first.add(*len), AROUND),
                ]
            };
            if borders.iter().any(|border| **border != [NOTHING; AROUND]) {
                return Err(Error::Invalid(format!("{after} wrote around a buffer of {len} bytes")));
            }
        }
        Ok(())
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (first, len) in &self.buffers {
            // SAFETY: `alloc` allocated this much with this alignment.
            unsafe { alloc::dealloc(first.sub(AROUND), layout(*len)) };
        }
    }
}

fn layout(len: usize) -> Layout {
    #[allow(clippy::expect_used)] // sizes of small tests
    Layout::from_size_align(len + 2 * AROUND, 256).expect("a layout")
}

/// The library of `source`, compiled unless an earlier test has, and its turn.
fn library(source: &Source) -> Result<(PathBuf, Turn)> {
    let failed = |what: &str, e: std::io::Error| Error::Invalid(format!("{what}: {e}"));
    let defines: String =
        source.defines.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
    let starts: String = source.kernels.iter().map(|name| format!("EMULATED_START({name})\n")).collect();
    let text = format!("{HEADER}\n{defines}\n{}\n{starts}", source.text);
    // What checks jumps takes those between fibers for mistakes.
    let flags = [
        "-O2",
        if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" },
        "-std=c++17",
        "-shared",
        "-fPIC",
        "-fno-strict-aliasing",
        "-w",
        "-U_FORTIFY_SOURCE",
    ];
    let key = format!("{}{flags:?}{}{text}", compiler(), processor());
    let key = blake3::hash(key.as_bytes()).to_hex();
    let folder = std::env::current_exe().map_err(|e| failed("the test's own place", e))?;
    let folder = folder.with_file_name("cuda-emulation");
    std::fs::create_dir_all(&folder).map_err(|e| failed("the emulation's folder", e))?;
    let library = folder.join(format!("{key}.so"));
    let turn = lock(&TURNS).entry(library.clone()).or_default().clone();
    let compiling = lock(&turn);
    if !library.exists() {
        let part = |end: &str| folder.join(format!("{key}-{}{end}", std::process::id()));
        let (code, made) = (part(".cpp"), part(".so"));
        std::fs::write(&code, text).map_err(|e| failed("the emulation's source", e))?;
        let output = call(&compiler()).args(flags).arg("-o").arg(&made).arg(&code).output();
        let output = output.map_err(|e| failed("the C++ compiler", e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Invalid(format!("{} {:?}: {said}", source.name, source.defines)));
        }
        std::fs::rename(&made, &library).map_err(|e| failed("the emulation's library", e))?;
        std::fs::remove_file(&code).map_err(|e| failed("the emulation's source", e))?;
    }
    drop(compiling);
    Ok((library, turn))
}

impl Device for Emulated {
    fn prepare(&mut self, sources: &[Source]) -> Result<()> {
        self.prepared.extend_from_slice(sources);
        Ok(())
    }

    fn load(&mut self, source: &Source) -> Result<Vec<Kernel>> {
        if !self.prepared.is_empty() && !self.prepared.contains(source) {
            let Source { name, defines, .. } = source;
            return Err(Error::Invalid(format!("{name} {defines:?} was not prepared")));
        }
        let (path, turn) = library(source)?;
        let invalid = |error: libloading::Error| Error::Invalid(format!("{}: {error}", source.name));
        // SAFETY: a library that this file made; it has no initialisers. It stays, so that what is found in it does too.
        let library = Box::leak(Box::new(unsafe { Library::new(&path) }.map_err(invalid)?));
        let mut kernels = Vec::new();
        for kernel in &source.kernels {
            // SAFETY: `start` wrote it with this signature.
            let start: Start =
                *unsafe { library.get(format!("start_{kernel}").as_bytes()) }.map_err(invalid)?;
            self.kernels.push((format!("{kernel} {:?}", source.defines), start, turn.clone()));
            kernels.push(Kernel(self.kernels.len() - 1));
        }
        Ok(kernels)
    }

    fn alloc(&mut self, bytes: usize) -> Result<Address> {
        self.used += bytes.next_multiple_of(256) as u64;
        if self.used > self.total {
            return Err(Error::Invalid(format!("{} bytes are more than the device has", self.used)));
        }
        // SAFETY: not empty; freed in `drop`.
        let first = unsafe { alloc::alloc(layout(bytes)) };
        if first.is_null() {
            return Err(Error::Invalid(format!("no {bytes} bytes for the emulation")));
        }
        // SAFETY: that much was allocated.
        let first = unsafe {
            ptr::write_bytes(first, NOTHING, bytes + 2 * AROUND);
            ptr::write_bytes(first.add(AROUND), 0, bytes);
            first.add(AROUND)
        };
        self.buffers.push((first, bytes));
        Ok(Address(first as u64))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.alive()?;
        let to = self.find(to, bytes.len())?;
        // SAFETY: `find` found room.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.alive()?;
        let from = self.find(from, bytes.len())?;
        // SAFETY: `find` found as much.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        let (name, start, turn) = &self.kernels[launch.kernel.0];
        let mut cells: Vec<u64> = launch.args.iter().map(cell).collect();
        let mut arguments: Vec<*mut c_void> =
            cells.iter_mut().map(|cell| ptr::from_mut(cell).cast()).collect();
        let turn = lock(turn);
        // SAFETY: a kernel with its arguments; that it writes only where it may is what tests are for.
        let result = unsafe {
            let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
            let (given, backward) = (arguments.len() as u32, self.order == Order::Backward);
            start(grid, block, launch.shared, arguments.as_mut_ptr(), given, backward)
        };
        drop(turn);
        match result {
            0 => self.check(name),
            1 => Err(Error::Invalid(format!("{name}: not all threads of a block reach a barrier"))),
            4 => Err(Error::Invalid(format!("{name} has not {} parameters", launch.args.len()))),
            3 => Err(Error::Invalid(format!(
                "{name} wrote behind its {} bytes of shared memory",
                launch.shared
            ))),
            _ => Err(Error::Invalid(format!(
                "{name}: no or too many threads or blocks, or too much shared memory: {launch:?}"
            ))),
        }
    }

    fn record(&mut self, launches: &[Launch]) -> Result<Recording> {
        self.recordings.push(launches.to_vec());
        Ok(Recording(self.recordings.len() - 1))
    }

    fn replay(&mut self, recording: Recording) -> Result<()> {
        self.alive()?;
        if let Some(left) = &mut self.lost_after {
            if *left == 0 {
                self.lost = true;
                return Ok(());
            }
            *left -= 1;
        }
        for launch in self.recordings[recording.0].clone() {
            self.launch(&launch)?;
        }
        Ok(())
    }

    fn memory(&self) -> Result<[u64; 2]> {
        Ok([self.total - self.used, self.total])
    }

    fn has_tensor_cores(&self) -> bool {
        self.tensor_cores
    }

    fn most_shared(&self) -> u32 {
        self.shared
    }

    fn rounding(&self) -> String {
        "emulation".into()
    }

    fn describe(&self) -> String {
        "emulated on the processor".into()
    }
}

/// An argument where a kernel looks for it: in the first bytes of a cell.
fn cell(arg: &Arg) -> u64 {
    match *arg {
        Arg::Address(address) => address.0,
        Arg::I32(n) => u64::from(n.cast_unsigned()),
        Arg::U32(n) => n.into(),
    }
}
