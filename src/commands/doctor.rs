//! `repro doctor`: what this machine and this folder have to give.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use engine::{
    machine,
    pipeline::{self, root_of},
};
use indicatif::BinaryBytes;
use network::{
    cpu::lanes::Isa,
    cuda::{
        cards::{self, CardInfo, Driver},
        nvrtc::Nvrtc,
    },
};
use rustix::fs::{Access, access};
use serde_json::{Value, json};

use crate::{
    args::{FILE, Global},
    error::Failure,
    ui,
};

/// A folder of kept results or kernels.
struct Cache {
    path: PathBuf,
    exists: bool,
    writable: bool,
    files: u64,
    bytes: u64,
}

/// What there is of CUDA; where something is missing, the sentence about it.
struct Cuda {
    driver: Result<Driver, String>,
    nvrtc: Result<Nvrtc, String>,
    kernels: Option<Cache>,
}

pub(super) fn doctor(global: &Global, json: bool) -> Result<ExitCode, Failure> {
    if global.file != Path::new(FILE) {
        pipeline::read(&global.file)?; // or its folder would be that of a slip
    }
    let sets: Vec<String> = Isa::all().iter().map(ToString::to_string).collect();
    let bf16 = sets.iter().any(|set| set == "avx512bf16");
    let (processor, cuda) = (machine::processor(), cuda());
    let (threads, caches, load) = (machine::threads(), machine::cache(), machine::load());
    let memory = machine::memory();
    let cache = cache(root_of(&global.file).join(".repro"));
    if json {
        ui::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "processor": processor,
            "threads": threads,
            "load": load,
            "instruction_sets": sets,
            "bf16": bf16,
            "largest_cache_bytes": caches,
            "memory_bytes": memory.map(|[all, _]| all),
            "available_memory_bytes": memory.map(|[_, available]| available),
            "cuda": cuda.json(),
            "cache": cache.json(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let unknown = || "unknown".to_string();
    let size = |bytes: u64| BinaryBytes(bytes).to_string();
    line("repro", env!("CARGO_PKG_VERSION").to_string());
    line("processor", processor.unwrap_or_else(unknown));
    line("instructions", format!("{} (bf16: {})", sets.join(", "), if bf16 { "yes" } else { "no" }));
    line("threads", format!("{threads}, load {}", load.map_or_else(unknown, |load| load.to_string())));
    line("largest cache", caches.map_or_else(unknown, size));
    line(
        "memory",
        memory.map_or_else(unknown, |[all, free]| format!("{}, {} of it free", size(all), size(free))),
    );
    line("cache", describe(&cache));
    cuda.lines();
    if cache.exists && !cache.writable {
        ui::note(&format!(
            "help: `{}` cannot be written; `chown` it, or work in a copy of this folder",
            ui::path(&cache.path)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(what: &str, text: String) {
    ui::line(&format!("{what:<14}{text}"));
}

fn cuda() -> Cuda {
    let places = stages::card::places();
    let driver = cards::look().map_err(|error| error.to_string());
    let nvrtc = driver
        .as_ref()
        .map_or_else(|_| Nvrtc::find(&places, cards::newest(), None), |driver| driver.compiler(&places));
    let nvrtc = nvrtc.map_err(|error| error.to_string());
    Cuda { driver, nvrtc, kernels: places.kernels.map(cache) }
}

impl Cuda {
    fn json(&self) -> Value {
        let card = |card: &CardInfo| {
            let capability = version(card.capability);
            json!({ "name": card.name, "memory_bytes": card.memory, "capability": capability })
        };
        let (driver, nvrtc) = (self.driver.as_ref(), self.nvrtc.as_ref());
        let missing: Vec<_> = [driver.err(), nvrtc.err()].into_iter().flatten().collect();
        json!({
            "driver": machine::nvidia_driver(),
            "version": driver.ok().map(|driver| version(driver.cuda)),
            "cards": driver.map_or(Vec::new(), |driver| driver.cards.iter().map(card).collect()),
            "nvrtc": nvrtc.ok().map(|nvrtc| {
                json!({ "version": nvrtc.version(), "path": nvrtc.place() })
            }),
            "kernels": self.kernels.as_ref().map(Cache::json),
            "missing": missing,
        })
    }

    fn lines(&self) {
        match &self.driver {
            Ok(driver) => {
                let module =
                    machine::nvidia_driver().map_or_else(String::new, |module| format!(" ({module})"));
                line("CUDA driver", format!("for CUDA {}{module}", version(driver.cuda)));
                for card in &driver.cards {
                    let capability = version(card.capability);
                    line(
                        "card",
                        format!("{}, {}, capability {capability}", card.name, BinaryBytes(card.memory)),
                    );
                }
                if driver.silent > 0 {
                    line("card", format!("{} more, of which the driver says nothing", driver.silent));
                }
            }
            Err(missing) => line("CUDA driver", format!("none: {missing}")),
        }
        match &self.nvrtc {
            Ok(nvrtc) => line("CUDA compiler", format!("NVRTC {}, `{}`", nvrtc.version(), nvrtc.place())),
            Err(missing) => line("CUDA compiler", format!("none: {missing}")),
        }
        if let Some(kernels) = &self.kernels {
            line("kernels", describe(kernels));
        }
    }
}

fn version([major, minor]: [u32; 2]) -> String {
    format!("{major}.{minor}")
}

fn describe(cache: &Cache) -> String {
    let path = ui::path(&cache.path);
    if !cache.exists {
        return format!("`{path}` is not there yet");
    }
    let access = if cache.writable { "" } else { ", not writable" };
    let files = ui::count(cache.files as usize, "file", "files");
    format!("`{path}`: {files}, {}{access}", BinaryBytes(cache.bytes))
}

impl Cache {
    fn json(&self) -> Value {
        json!({
            "path": self.path.to_string_lossy(), "exists": self.exists, "writable": self.writable,
            "files": self.files, "bytes": self.bytes,
        })
    }
}

/// The folder at `path`, whether that exists or not.
fn cache(path: PathBuf) -> Cache {
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
