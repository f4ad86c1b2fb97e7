//! Where CUDA's compiler may lie on this machine, and where compiled kernels are kept. Reads the
//! environment, as in this crate only `dataset/download.rs` does, which asks for a proxy. Knows no card.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use network::cuda::nvrtc::Places;

/// What the environment says, and the folders where toolkits and Python packages put the compiler.
#[must_use]
pub fn places() -> Places {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable);
    let toolkits = toolkits.chain(["/usr/local/cuda".into()]).map(|toolkit| toolkit.join("lib64"));
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable);
    let environments = environments
        .chain(home.iter().map(|home| home.join(".local")))
        .chain(["/usr/local", "/usr"].map(PathBuf::from));
    let caches = variable("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
    Places {
        nvrtc: variable("REPRO_NVRTC"),
        folders: toolkits.chain(environments.flat_map(|root| packages(&root))).collect(),
        in_turn: variable("REPRO_CUDA_EARLY").is_some_and(|value| value.as_os_str() == "0"),
        kernels: variable("REPRO_KERNELS").or_else(|| caches.map(|caches| caches.join("repro/kernels"))),
    }
}

/// The device that `REPRO_DEVICE` names, for stages that leave it open.
pub(crate) fn device() -> Option<String> {
    env::var("REPRO_DEVICE").ok().filter(|name| !name.is_empty())
}

/// Does the runner hide all cards from this process? It does so with those that it found no use for.
pub(crate) fn are_hidden() -> bool {
    env::var_os(engine::kind::HIDDEN).is_some_and(|hidden| !hidden.is_empty())
}

/// The library folders of NVIDIA's Python packages in the environment at `root`, newest Python first.
fn packages(root: &Path) -> Vec<PathBuf> {
    let pythons = fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let mut pythons: Vec<_> = pythons
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .collect();
    // 3.12 is newer than 3.9.
    let minor = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.rsplit_once('.').and_then(|(_, minor)| minor.parse::<u32>().ok())
    };
    pythons.sort_by_key(|path| (minor(path), path.clone()));
    let places = pythons
        .iter()
        .rev()
        .flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    let libraries = places
        .flat_map(|place| ["cu13", "cuda_nvrtc"].map(|name| place.join("nvidia").join(name).join("lib")));
    libraries.filter(|folder| folder.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_newest_python_come_first() {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib",
            "lib/python3.12/dist-packages/nvidia/cu13/lib",
            "lib/other/site-packages/nvidia/cu13/lib",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let found = packages(root.path());
        let found: Vec<_> = found.iter().map(|path| path.strip_prefix(root.path()).unwrap()).collect();
        let wanted = [
            "lib/python3.12/dist-packages/nvidia/cu13/lib",
            "lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib",
        ];
        assert_eq!(found, wanted.map(Path::new));
    }
}
