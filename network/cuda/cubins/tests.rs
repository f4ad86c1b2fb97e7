use std::{cell::Cell, fs, path::PathBuf};

use super::*;

fn source() -> Source {
    Source { name: "toy.cu", text: "body".into(), defines: vec![("SIZE", "3".into())], kernels: vec!["toy"] }
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("repro-cubins-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn a_kernel_is_compiled_once_and_again_after_damage() {
    let folder = folder("damage");
    let (cubins, made) = (Cubins::new(Some(folder.clone())), Cell::new(0));
    let key = key(&source(), "sm_90", "13.0", &[]);
    let get = || {
        cubins.get(key, || {
            made.set(made.get() + 1);
            Ok(b"machine code".to_vec())
        })
    };
    assert_eq!(get().unwrap(), b"machine code");
    assert_eq!(get().unwrap(), b"machine code");
    assert_eq!(made.get(), 1);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "a draft was left: {files:?}");
    for damage in [&b""[..], b"short", &[7; 64]] {
        fs::write(&files[0], damage).unwrap();
        assert_eq!(get().unwrap(), b"machine code");
    }
    assert_eq!(made.get(), 4);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_failure_is_not_kept() {
    let folder = folder("failure");
    let cubins = Cubins::new(Some(folder.clone()));
    let key = key(&source(), "sm_90", "13.0", &[]);
    assert!(cubins.get(key, || Err(crate::Error::Device("no".into()))).is_err());
    assert_eq!(cubins.get(key, || Ok(vec![1])).unwrap(), [1]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_costs_only_time() {
    let file = folder("file");
    fs::write(&file, "").unwrap();
    let cubins = Cubins::new(Some(file.join("below")));
    assert_eq!(cubins.get(key(&source(), "sm_90", "13.0", &[]), || Ok(vec![1])).unwrap(), [1]);
    fs::remove_file(&file).unwrap();
}

#[test]
fn everything_that_decides_the_machine_code_is_in_the_name() {
    let base = key(&source(), "sm_90", "13.0", &["-a"]);
    assert_eq!(base, key(&source(), "sm_90", "13.0", &["-a"]));
    let changed = |change: fn(&mut Source)| {
        let mut source = source();
        change(&mut source);
        key(&source, "sm_90", "13.0", &["-a"])
    };
    let others = [
        key(&source(), "sm_80", "13.0", &["-a"]),
        key(&source(), "sm_90", "13.1", &["-a"]),
        key(&source(), "sm_90", "13.0", &["-b"]),
        changed(|source| source.text.push(' ')),
        changed(|source| source.defines[0].1.push('0')),
        changed(|source| source.defines.clear()),
    ];
    for (i, other) in others.iter().enumerate() {
        assert_ne!(base, *other, "change {i}");
    }
}
