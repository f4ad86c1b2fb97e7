//! NVIDIA's run-time compiler, loaded when it is wanted: CUDA C++ in, the machine code of one kind of
//! card out. Needs no card and no driver. The library is opened here and not by cudarc, which takes the
//! first that the loader knows, cannot be given another, and panics where there is none. Knows no kernel.
#![allow(unsafe_code)] // functions of a C library

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::{Path, PathBuf},
    ptr::{null, null_mut},
};

use libloading::{Library, Symbol};

use super::device::Source;
use crate::{Error, Result};

/// The library's names, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// Arguments of every compilation.
pub(super) const OPTIONS: [&str; 2] = ["--std=c++17", "--generate-line-info"];

/// Where things that are no part of this program may lie, and how a card is used.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The compiler, as a file or the folder that holds it: this one or none.
    pub nvrtc: Option<PathBuf>,
    /// Folders in which to look for it after the loader's.
    pub folders: Vec<PathBuf>,
    /// Folder of compiled kernels; without one they are compiled every time.
    pub kernels: Option<PathBuf>,
    /// Whether each launch waits for the end of the one before, also where the card could begin it earlier.
    pub in_turn: bool,
}

/// The loaded compiler.
pub struct Nvrtc {
    library: Library,
    /// What it looks for by name while it compiles; held so that the loader knows it.
    _builtins: Option<Library>,
    /// Major and minor.
    version: [u32; 2],
    place: String,
}

type Program = *mut std::ffi::c_void;
type WithSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type WithText = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

impl Nvrtc {
    /// Looks for the compiler: the first, and of one place the newest, whose major version is at most `newest`, the
    /// driver's, and that knows the compute `capability`, the card's.
    pub fn find(places: &Places, newest: Option<u32>, capability: Option<[u32; 2]>) -> Result<Self> {
        let mut refused = Vec::new();
        for candidate in candidates(places) {
            match Self::open(&candidate) {
                Ok(found) if newest.is_none_or(|newest| found.version[0] <= newest) => {
                    match capability.filter(|&capability| !found.knows(capability)) {
                        None => return Ok(found),
                        Some([major, minor]) => refused.push(format!(
                            "NVRTC {} (`{}`) does not know the card's compute capability {major}.{minor}; install one \
                             that does and let `REPRO_NVRTC` name it, or another than the first card with \
                             `CUDA_VISIBLE_DEVICES`",
                            found.version(),
                            found.place
                        )),
                    }
                }
                Ok(found) => refused.push(format!(
                    "NVRTC {} (`{}`) is newer than the driver, which is for CUDA {}; update the driver, or \
                     `pip install nvidia-cuda-nvrtc-cu{}`",
                    found.version(),
                    found.place,
                    newest.unwrap_or_default(),
                    newest.unwrap_or_default(),
                )),
                // What is not there is the ordinary case; what is there and broken is worth a word.
                Err(reason) if candidate.is_file() => refused.push(reason),
                Err(_) => {}
            }
        }
        let reason = refused.into_iter().next().unwrap_or_else(|| match &places.nvrtc {
            Some(path) => {
                format!("there is no NVRTC at `{}`, where `REPRO_NVRTC` says it is", path.display())
            }
            None => {
                "CUDA's compiler NVRTC was not found; `pip install nvidia-cuda-nvrtc`, or install the CUDA \
                     toolkit, and let `REPRO_NVRTC` name the folder of `libnvrtc.so.13`"
                    .into()
            }
        });
        Err(Error::Device(reason))
    }

    fn open(path: &Path) -> Result<Self, String> {
        let place = || path.display().to_string();
        let unusable = |error: libloading::Error| format!("`{}` cannot be used: {error}", place());
        // SAFETY: the initialisers of NVIDIA's library have no preconditions.
        let library = unsafe { Library::new(path) }.map_err(unusable)?;
        let [mut major, mut minor] = [0, 0];
        // SAFETY: the signature is NVRTC's, unchanged since its first version.
        unsafe {
            let version: Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                library.get(b"nvrtcVersion\0").map_err(unusable)?;
            version(&raw mut major, &raw mut minor);
        }
        let place = if path.is_absolute() { place() } else { loaded_as(path).unwrap_or_else(place) };
        let builtins = Path::new(&place).with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
        // NVIDIA's Python packages lie where the loader does not look. A compiler that has them elsewhere
        // finds them itself, or says what it lacks.
        // SAFETY: as above.
        let _builtins = unsafe { Library::new(builtins) }.ok();
        Ok(Self { library, _builtins, version: [major.cast_unsigned(), minor.cast_unsigned()], place })
    }

    /// Its version and the size of its file, which tells its updates apart.
    pub(super) fn build(&self) -> String {
        let size = std::fs::metadata(&self.place).map_or(0, |meta| meta.len());
        format!("{} {size}", self.version())
    }

    /// Its version, `13.0`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.version[0], self.version[1])
    }

    /// The file.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Does it compile for cards of this compute capability? One that cannot say is asked when it compiles.
    pub(super) fn knows(&self, [major, minor]: [u32; 2]) -> bool {
        type Tell = unsafe extern "C" fn(*mut c_int) -> c_int;
        let mut count = 0;
        // SAFETY: both are of this type since CUDA 11.2; the second writes as many numbers as the first says.
        let known = unsafe {
            let (Ok(tell), Ok(list)) = (
                self.get::<Tell>(b"nvrtcGetNumSupportedArchs\0"),
                self.get::<Tell>(b"nvrtcGetSupportedArchs\0"),
            ) else {
                return true;
            };
            if tell(&raw mut count) != 0 {
                return true;
            }
            let mut known = vec![0; usize::try_from(count).unwrap_or_default()];
            if list(known.as_mut_ptr()) != 0 {
                return true;
            }
            known
        };
        known.contains(&(10 * major + minor).cast_signed())
    }

    /// Machine code for `arch`, such as `sm_90`.
    pub fn compile(&self, source: &Source, arch: &str) -> Result<Vec<u8>> {
        let nul = |_| Error::Invalid(format!("the kernel source `{}` holds a NUL", source.name));
        let (text, name) =
            (CString::new(&*source.text).map_err(nul)?, CString::new(source.name).map_err(nul)?);
        let defines = source.defines.iter().map(|(name, value)| format!("-D{name}={value}"));
        let options: Vec<CString> = std::iter::once(format!("--gpu-architecture={arch}"))
            .chain(OPTIONS.map(str::to_owned))
            .chain(defines)
            .map(|option| CString::new(option).map_err(nul))
            .collect::<Result<_>>()?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let program = Compilation::new(self, source.name, &text, &name)?;
        // SAFETY: `program` lives; `options` are strings that outlive the call, and as many as it says.
        let code = unsafe {
            let compile: Symbol<'_, unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int> =
                self.get(b"nvrtcCompileProgram\0")?;
            compile(program.program, options.len() as c_int, options.as_ptr())
        };
        if code != 0 {
            let log = program.bytes(b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0").unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches(['\0', '\n']);
            let what = self.message(code);
            return Err(Error::Device(format!(
                "NVRTC {} did not compile `{}` for {arch}: {what}\n{log}",
                self.version(),
                source.name
            )));
        }
        program.bytes(b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0")
    }

    /// A function of the library.
    ///
    /// # Safety
    ///
    /// `T` must be the function's type.
    unsafe fn get<T>(&self, name: &[u8]) -> Result<Symbol<'_, T>> {
        // SAFETY: the caller's promise.
        unsafe { self.library.get(name) }.map_err(|error| {
            Error::Device(format!("`{}` is not the NVRTC it should be: {error}", self.place))
        })
    }

    /// Its words for an error code.
    fn message(&self, code: c_int) -> String {
        // SAFETY: it returns a constant string for every number.
        unsafe {
            match self.get::<unsafe extern "C" fn(c_int) -> *const c_char>(b"nvrtcGetErrorString\0") {
                Ok(words) => CStr::from_ptr(words(code)).to_string_lossy().into_owned(),
                Err(_) => format!("error {code}"),
            }
        }
    }
}

/// A program of the compiler's, until it is dropped.
struct Compilation<'a> {
    nvrtc: &'a Nvrtc,
    name: &'static str,
    program: Program,
}

impl<'a> Compilation<'a> {
    fn new(nvrtc: &'a Nvrtc, name: &'static str, text: &CStr, file: &CStr) -> Result<Self> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let mut program = null_mut();
        // SAFETY: the strings outlive the call, which copies them; no headers are given.
        let code = unsafe {
            let create: Symbol<'_, Create> = nvrtc.get(b"nvrtcCreateProgram\0")?;
            create(&raw mut program, text.as_ptr(), file.as_ptr(), 0, null(), null())
        };
        let this = Self { nvrtc, name, program };
        this.check(code)?;
        Ok(this)
    }

    /// What the pair of functions `size` and `read` tells of the program.
    fn bytes(&self, size: &[u8], read: &[u8]) -> Result<Vec<u8>> {
        let mut length = 0;
        // SAFETY: both have these types; `read` writes as many bytes as `size` said.
        unsafe {
            self.check(self.nvrtc.get::<WithSize>(size)?(self.program, &raw mut length))?;
            let mut bytes = vec![0u8; length];
            self.check(self.nvrtc.get::<WithText>(read)?(self.program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    fn check(&self, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let (version, what) = (self.nvrtc.version(), self.nvrtc.message(code));
        Err(Error::Device(format!("NVRTC {version} failed at `{}`: {what}", self.name)))
    }
}

impl Drop for Compilation<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is this one's; where none could be made, NVRTC refuses the null.
        unsafe {
            if let Ok(destroy) =
                self.nvrtc.get::<unsafe extern "C" fn(*mut Program) -> c_int>(b"nvrtcDestroyProgram\0")
            {
                destroy(&raw mut self.program);
            }
        }
    }
}

/// What to try, in order. A name without a folder is the loader's to find.
fn candidates(places: &Places) -> Vec<PathBuf> {
    let inside = |folder: &Path| NAMES.map(|name| folder.join(name));
    match &places.nvrtc {
        Some(path) if path.is_dir() => inside(path).to_vec(),
        Some(path) => vec![path.clone()],
        None => {
            let known = NAMES.iter().map(PathBuf::from);
            known.chain(places.folders.iter().flat_map(|folder| inside(folder))).collect()
        }
    }
}

/// The file that the loader took for `name`, where the system tells.
fn loaded_as(name: &Path) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let file = maps.lines().find(|line| line.contains(&*name.to_string_lossy()))?;
    file.find('/').map(|from| file[from..].to_owned())
}

#[cfg(test)]
mod tests;
