//! Builds the emulated card (`driver.cc`, `nvrtc.cc`). This crate's tests use it, and those of the whole binary, so it knows
//! only the standard library.

use std::{
    env,
    ffi::OsString,
    fs, io, iter,
    path::Path,
    process::{Command, id},
};

const TEXTS: [(&str, &str); 4] = [
    ("driver.cc", include_str!("driver.cc")),
    ("driver.h", include_str!("driver.h")),
    ("nvrtc.cc", include_str!("nvrtc.cc")),
    ("cuda.h", include_str!("cuda.h")), // read where kernels are compiled
];

const FLAGS: [&str; 8] = ["-std=c++17", "-O1", "-shared", "-fPIC", "-o", "library", "driver.cc", "nvrtc.cc"];

/// The driver in `folder`, built unless it is there, and what a program must have in its environment to find it; none
/// where there is no compiler: says so, and fails with `REPRO_TEST_EMULATION=1`.
///
/// # Panics
/// Where it cannot be built.
pub(crate) fn environment(folder: &Path) -> Option<[(&'static str, OsString); 4]> {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let library = folder.join("libcuda.so"); // the first name that is looked for, before that of a real driver
    let built = build(folder, &library, &compiler);
    if !built.unwrap_or_else(|error| panic!("the emulated card, by `{compiler}`: {error}")) {
        let must = env::var_os("REPRO_TEST_EMULATION").is_some();
        assert!(!must, "`REPRO_TEST_EMULATION` is set: no C++ compiler `{compiler}`");
        #[allow(clippy::print_stderr)] // the only way to say that a test checks nothing
        {
            eprintln!("SKIPPED: no C++ compiler `{compiler}`; set CXX to test what is done with a card");
        }
        return None;
    }
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let before = env::split_paths(&before).filter(|place| !place.as_os_str().is_empty());
    let places = env::join_paths(iter::once(folder.to_owned()).chain(before));
    Some([
        ("LD_LIBRARY_PATH", places.expect("folders without colons")),
        ("REPRO_NVRTC", library.into()),
        ("REPRO_KERNELS", folder.join("kernels").into()),
        ("CUDA_VISIBLE_DEVICES", "0".into()),
    ])
}

/// Whether there is a compiler. Tests in other processes may do the same at the same time.
fn build(folder: &Path, library: &Path, compiler: &str) -> io::Result<bool> {
    let by = format!("{compiler} {}\n", FLAGS.join(" "));
    let parts = TEXTS.into_iter().chain([("by", by.as_str())]);
    let is =
        |(name, text): (&str, &str)| fs::read_to_string(folder.join(name)).is_ok_and(|found| found == text);
    if library.exists() && parts.clone().all(is) {
        return Ok(true);
    }
    let draft = folder.join(id().to_string());
    fs::create_dir_all(&draft)?;
    parts.clone().try_for_each(|(name, text)| fs::write(draft.join(name), text))?;
    let mut words = compiler.split_whitespace(); // as the shell has it, which compiles the kernels
    let mut command = Command::new(words.next().unwrap_or("c++"));
    let output = match command.args(words).args(FLAGS).current_dir(&draft).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::remove_dir_all(draft)?;
            return Ok(false);
        }
        output => output?,
    };
    if !output.status.success() {
        fs::remove_dir_all(draft)?;
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
    }
    let _ = fs::remove_dir_all(folder.join("kernels")); // made by another
    fs::rename(draft.join("library"), library)?;
    parts.clone().try_for_each(|(name, _)| fs::rename(draft.join(name), folder.join(name)))?;
    fs::remove_dir(draft)?;
    Ok(true)
}
