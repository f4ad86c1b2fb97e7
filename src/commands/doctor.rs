//! `repro doctor`: what this machine and this folder have to give.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use indicatif::{BinaryBytes, HumanCount};
use network::cpu::lanes::Isa;
use rustix::fs::{Access, access};
use serde_json::json;

use crate::{args::Global, error::Failure, machine, ui};

/// The cache folder.
struct Cache {
    path: PathBuf,
    exists: bool,
    writable: bool,
    files: u64,
    bytes: u64,
}

pub(super) fn doctor(global: &Global, json: bool) -> Result<ExitCode, Failure> {
    let sets: Vec<String> = Isa::all().iter().map(ToString::to_string).collect();
    let (processor, driver, devices) =
        (machine::processor(), machine::nvidia_driver(), machine::nvidia_devices());
    let (threads, caches, load) = (machine::threads(), machine::cache_bytes(), machine::load());
    let memory = machine::memory();
    let cache = cache(global);
    if json {
        ui::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "processor": processor,
            "threads": threads,
            "load": load,
            "instruction_sets": sets,
            "bf16": bf16(),
            "largest_cache_bytes": caches,
            "memory_bytes": memory.map(|[all, _]| all),
            "available_memory_bytes": memory.map(|[_, available]| available),
            "nvidia_driver": driver,
            "nvidia_devices": devices,
            "cache": {
                "path": cache.path, "exists": cache.exists, "writable": cache.writable,
                "files": cache.files, "bytes": cache.bytes,
            },
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let line = |what: &str, text: String| ui::line(&format!("{what:<14}{text}"));
    let unknown = || "unknown".to_string();
    let size = |bytes: u64| BinaryBytes(bytes).to_string();
    line("repro", env!("CARGO_PKG_VERSION").to_string());
    line("processor", processor.unwrap_or_else(unknown));
    line("instructions", format!("{} (bf16: {})", sets.join(", "), if bf16() { "yes" } else { "no" }));
    line("threads", format!("{threads}, load {}", load.map_or_else(unknown, |load| load.to_string())));
    line("largest cache", caches.map_or_else(unknown, size));
    line(
        "memory",
        memory.map_or_else(unknown, |[all, free]| format!("{}, {} of it free", size(all), size(free))),
    );
    line("CUDA", driver.map_or_else(|| "no driver".into(), |v| format!("driver {v}, {devices} GPUs")));
    line("cache", describe(&cache));
    if cache.exists && !cache.writable {
        ui::note(&format!(
            "help: `{}` cannot be written; `chown` it, or work in a copy of this folder",
            ui::path(&cache.path)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Does the processor multiply bfloat16 in vectors?
fn bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn describe(cache: &Cache) -> String {
    let path = ui::path(&cache.path);
    if !cache.exists {
        return format!("`{path}` is not there yet");
    }
    let access = if cache.writable { "" } else { ", not writable" };
    let files = HumanCount(cache.files);
    format!("`{path}`: {files} files, {}{access}", BinaryBytes(cache.bytes))
}

/// The one that belongs to the pipeline file, whether that exists or not.
fn cache(global: &Global) -> Cache {
    let folder = global.file.parent().unwrap_or(Path::new(""));
    let path = folder.join(".repro");
    let [files, bytes] = contents(&path);
    let writable = access(&path, Access::WRITE_OK).is_ok();
    Cache { exists: path.is_dir(), writable, files, bytes, path }
}

/// Files below `folder` and their bytes; nothing where it cannot be read.
fn contents(folder: &Path) -> [u64; 2] {
    let mut sum = [0, 0];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(data) = entry.metadata() else { continue };
        let [files, bytes] = if data.is_dir() { contents(&entry.path()) } else { [1, data.len()] };
        sum = [sum[0] + files, sum[1] + bytes];
    }
    sum
}
