use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    sync::{Barrier, Mutex},
};

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
    let (mut cubins, made) = (Cubins::new(Some(folder.clone())), Cell::new(0));
    let key = key(&source(), "sm_90", "13.0", &[]);
    let mut get = || {
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
    let mut cubins = Cubins::new(Some(folder.clone()));
    let key = key(&source(), "sm_90", "13.0", &[]);
    assert!(cubins.get(key, || Err(crate::Error::Device("no".into()))).is_err());
    assert_eq!(cubins.get(key, || Ok(vec![1])).unwrap(), [1]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_costs_only_time() {
    let file = folder("file");
    fs::write(&file, "").unwrap();
    let mut cubins = Cubins::new(Some(file.join("below")));
    assert_eq!(cubins.get(key(&source(), "sm_90", "13.0", &[]), || Ok(vec![1])).unwrap(), [1]);
    fs::remove_file(&file).unwrap();
}

/// `count` keys, each with its number.
fn numbered(count: u8) -> Vec<(Hash, u8)> {
    (0..count).map(|i| (blake3::hash(&[i]), i)).collect()
}

#[test]
fn what_is_prepared_is_made_once_with_a_folder_and_without() {
    let folder = folder("prepared");
    for place in [None, Some(folder.clone()), Some(folder.clone())] {
        let (mut cubins, wanted, made) = (Cubins::new(place.clone()), numbered(50), Mutex::new(Vec::new()));
        let kept = fs::exists(&folder).unwrap();
        cubins
            .prepare(&wanted, |i| {
                made.lock().unwrap().push(*i);
                Ok(vec![*i; 3])
            })
            .unwrap();
        let mut made = made.into_inner().unwrap();
        made.sort_unstable();
        assert_eq!(made, if kept { vec![] } else { (0..50).collect::<Vec<u8>>() }, "{place:?}");
        for (key, i) in wanted.into_iter().rev() {
            assert_eq!(cubins.get(key, || panic!("{i} is made again")).unwrap(), vec![i; 3]);
        }
        // Each was handed out, and takes no more memory.
        assert!(cubins.ready.is_empty());
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Each of two waits for the other: one after the other they would never end.
#[test]
fn several_are_made_at_once() {
    if thread::available_parallelism().unwrap().get() == 1 {
        return;
    }
    let both = Barrier::new(2);
    let make = |i: &u8| {
        both.wait();
        Ok(vec![*i])
    };
    Cubins::new(None).prepare(&numbered(2), make).unwrap();
}

#[test]
fn a_failure_on_any_thread_is_the_answer() {
    for bad in [0, 17, 49] {
        let make = |i: &u8| if *i == bad { Err(crate::Error::Device("no".into())) } else { Ok(vec![*i]) };
        let error = Cubins::new(None).prepare(&numbered(50), make).unwrap_err();
        assert!(error.to_string().contains("no"), "{error}");
    }
    Cubins::new(None).prepare(&numbered(0), |_| panic!("nothing is wanted")).unwrap();
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
