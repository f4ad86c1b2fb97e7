//! What this machine is and has to give. What it does not say is `None`. Knows no stage.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};
use sysinfo::{
    CpuRefreshKind, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
    get_current_pid,
};

use crate::process::output;

/// The machine and the program, looked at once per run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Versions of the program and of what it is built from.
    pub versions: BTreeMap<String, String>,
    /// The commit of the project's repository, if it is one.
    pub commit: Option<String>,
    /// Did the tree differ from that commit?
    pub dirty: Option<bool>,
    /// The operating system's name and version.
    pub system: Option<String>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Architecture and vector instruction sets found.
    pub instructions: String,
    /// The NVIDIA driver, if there is one.
    pub driver: Option<String>,
    /// The NVIDIA GPUs, in the driver's order.
    pub devices: Vec<String>,
}

impl Machine {
    /// Looks around, for a project in `root`; `versions` is what the program says of itself.
    pub(crate) fn look(root: &Path, versions: &BTreeMap<String, String>) -> Self {
        let git = |arguments: &[&str]| {
            let output = output(git(root).arg("--no-optional-locks").args(arguments)).ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let mut versions = versions.clone();
        versions.insert(env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self {
            versions,
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|text| !text.is_empty()),
            ..Self::here()
        }
    }

    /// The hardware and the system alone.
    pub(crate) fn here() -> Self {
        Self {
            system: System::kernel_version()
                .ok()
                .map(|release| format!("{} {release}", std::env::consts::OS)),
            cpu: processor(),
            instructions: instructions(),
            driver: field("/proc/driver/nvidia/version".as_ref(), "NVRM version:"),
            devices: devices("/proc/driver/nvidia/gpus".as_ref()),
            ..Self::default()
        }
    }

    /// What the runner knows of itself and its project, with the hardware that another process said it runs on.
    pub(crate) fn there(&self, hardware: Self) -> Self {
        let Self { versions, commit, dirty, .. } = self.clone();
        Self { versions, commit, dirty, ..hardware }
    }
}

/// A call of git in `folder`, which may have come from anybody: with the files of a bare repository in it, which can be
/// committed like others, git would take its configuration from there, and start the programs that this names.
pub fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    for setting in ["safe.bareRepository=explicit", "core.fsmonitor=false", "log.showSignature=false"] {
        git.args(["-c", setting]);
    }
    git.arg("-C").arg(folder);
    git
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let cpus = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing())).ok()?;
    cpus.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).filter(|name| !name.is_empty())
}

/// Threads that this process may run at once.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory that this process may have: all of it, and what it can still get. A container or a cluster's job may
/// have less than its machine.
pub fn memory() -> Option<[u64; 2]> {
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let mut system = System::new_with_specifics(ram).ok()?;
    let here = [system.total_memory(), system.available_memory()];
    let own = get_current_pid().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, ProcessRefreshKind::nothing());
    let limits = system.process(own).and_then(|process| process.cgroup_limits());
    Some(limits.map_or(here, |limits| [here[0].min(limits.total_memory), here[1].min(limits.free_memory)]))
}

/// How many threads wanted to run, on average over the last minute.
pub fn load() -> Option<f64> {
    System::load_average().ok().map(|load| load.one)
}

/// Bytes of memory that this process holds: now, and at its peak. Only Linux says that.
pub fn resident() -> Option<[u64; 2]> {
    let kib = |name| {
        let value = field("/proc/self/status".as_ref(), name)?;
        value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some([kib("VmRSS:")?, kib("VmHWM:")?])
}

/// Bytes of the largest cache of a processor's.
pub fn cache() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let text = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    sizes.max()
}

/// The version of NVIDIA's kernel driver.
pub fn nvidia_driver() -> Option<String> {
    let version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let module = field("/proc/driver/nvidia/version".as_ref(), "NVRM version:")?;
    module.split_whitespace().find(version).map(str::to_owned)
}

/// The value of the first line of a file that begins with `name`.
pub fn field(path: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
}

fn devices(folder: &Path) -> Vec<String> {
    let mut folders: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    folders.sort_by_key(fs::DirEntry::file_name);
    folders.iter().filter_map(|gpu| field(&gpu.path().join("information"), "Model:")).collect()
}

fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    let sets = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let sets: [(&str, bool); 0] = []; // nothing that a kernel chooses by
    let found = sets.into_iter().filter(|(_, found)| *found).map(|(name, _)| name);
    std::iter::once(std::env::consts::ARCH).chain(found).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_it_has() {
        assert!(processor().is_some_and(|name| name == name.trim()));
        let [all, free] = memory().unwrap();
        assert!(all >= free && free > 1 << 20, "{all} {free}");
        assert!(load().unwrap() >= 0.0);
        let here = Machine::here();
        assert!(here.system.unwrap().starts_with(std::env::consts::OS));
        assert_eq!((here.cpu, here.commit), (processor(), None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_process_holds_is_found() {
        let [_, before] = resident().unwrap();
        let held = vec![1_u8; 1 << 26];
        let [now, peak] = resident().unwrap();
        assert!(now >= 1 << 26 && peak >= now && peak >= before, "{before} {now} {peak} {}", held.len());
    }

    /// A bare repository; and one whose configuration names programs, with a commit that seems to be signed.
    const REPOSITORIES: &str = r#"
        mkdir -p bare/objects bare/refs
        echo 'ref: refs/heads/main' > bare/HEAD
        printf '#!/bin/sh\ntouch %s/ran\n' "$PWD" > program
        chmod +x program
        git init -q
        who='nobody <> 0 +0000'
        signed='gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----'
        tree=$(git mktree < /dev/null)
        commit=$(printf "tree $tree\nauthor $who\ncommitter $who\n$signed\n\nmessage\n" |
            git hash-object -t commit -w --stdin)
        git update-ref HEAD $commit
        git config core.fsmonitor "$PWD/program"
        git config gpg.program "$PWD/program"
        git config log.showSignature true
    "#;

    #[test]
    fn git_starts_no_program_that_a_repository_names() {
        let folder = tempfile::tempdir().unwrap();
        let (root, ran) = (folder.path(), folder.path().join("ran"));
        let answer = |process: &mut Command| {
            for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
                process.env_remove(name);
            }
            crate::process::output(process.env("GIT_CONFIG_GLOBAL", "/dev/null")).unwrap()
        };
        let made = answer(Command::new("sh").args(["-ec", REPOSITORIES]).current_dir(root));
        assert!(made.status.success(), "{made:?}");
        for words in [&["status", "--porcelain"][..], &["log", "-1"]] {
            let told = answer(git(root).args(words));
            assert!(told.status.success() && !ran.exists(), "{words:?}: {told:?}");
        }
        let bare = answer(git(&root.join("bare")).args(["rev-parse", "--git-dir"]));
        assert!(!bare.status.success(), "{bare:?}");
    }

    #[test]
    fn fields_are_what_stands_behind_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("information");
        fs::write(&path, "VmHWMx: 1 kB\nVmHWM:\t   20 kB\nModel: A: B\n").unwrap();
        let field = |name| super::field(&path, name);
        assert_eq!([field("VmHWM:"), field("Model:")], [Some("20 kB".into()), Some("A: B".into())]);
        assert_eq!(field("VmRSS:"), None);
    }
}
