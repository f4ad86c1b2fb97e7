use super::*;

#[test]
fn what_was_written_to_after_its_digest_was_taken_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let (store, place) = (Store::new(folder.path(), None), folder.path().join("output"));
    fs::write(&place, "old").unwrap();
    let (digest, before) = (Digest::of("old"), stamp(&place).unwrap());
    fs::write(&place, "newer").unwrap();
    assert!(store.put_copy(digest, &place, before).is_err());
    assert!(!store.object(digest).exists());
    let now = stamp(&place).unwrap();
    store.put_copy(Digest::of("newer"), &place, now).unwrap();
    assert_eq!(fs::read_to_string(store.object(Digest::of("newer"))).unwrap(), "newer");
}

/// Who writes to a folder that others write to, too, may find there what they laid in the place of its drafts.
#[test]
fn a_link_in_the_place_of_a_draft_leads_nobody_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let [theirs, large, small] = ["theirs", "large", "small"].map(|name| folder.path().join(name));
    let cache = folder.path().join("share");
    let store = Store::at(cache.clone(), PathBuf::new());
    fs::write(&theirs, "theirs").unwrap();
    fs::write(&large, "large").unwrap();
    fs::write(&small, "small").unwrap();
    fs::create_dir_all(cache.join("drafts")).unwrap();
    let before = stamp(&theirs).unwrap();
    let mut kept = Entry::expected(Digest::of(""), &[]);
    let writes: [&mut dyn FnMut() -> bool; 4] = [
        &mut || store.put_copy(Digest::of("large"), &large, stamp(&large).unwrap()).is_ok(),
        &mut || store.refill(Digest::of("large"), &large).is_ok(),
        &mut || store.keep_file(&small, "small".into(), &mut kept).is_ok(),
        &mut || store.leave(&cache.join("unfinished/list"), b"[]").is_ok(),
    ];
    for (number, write) in writes.into_iter().enumerate() {
        let name = format!("{}-{number}", store.signature);
        std::os::unix::fs::symlink(&theirs, cache.join("drafts").join(name)).unwrap();
        assert!(!write(), "{number}");
        assert!(is_as(&theirs, before), "{number}");
    }
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

#[test]
fn nobody_waits_for_a_pipe_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), None);
    let digest = Digest::of("x");
    let lock = lock_of(&store.scratch(digest));
    for place in [store.object(digest), store.failed(digest), lock.clone()] {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&place).status().unwrap().success());
    }
    assert_eq!((store.content(digest), store.failure(digest)), (None, None));
    assert!(!crate::held::is_held(&lock));
    let output = Output { path: "x".into(), digest, size: 1, executable: false };
    assert!(store.draw(digest, &[output]).is_err());
}
