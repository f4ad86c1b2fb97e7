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

#[test]
fn what_others_still_make_is_not_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), None);
    let drafts = folder.path().join(".repro/drafts");
    let mut other = crate::process::spawn(std::process::Command::new("sleep").arg("60"), &[]).unwrap();
    // One that runs, one that cannot be, this one, and nobody.
    let of = [other.id().to_string(), i32::MAX.to_string(), std::process::id().to_string(), "x".to_owned()];
    let made = of.map(|pid| drafts.join(format!("{pid}-a-0")));
    for draft in &made {
        fs::create_dir_all(draft.join("full")).unwrap();
    }
    store.sweep();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(made.map(|draft| draft.exists()), [true, false, false, false]);
}

#[test]
fn a_damaged_object_has_no_content() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), None);
    let digest = Digest::of("whole");
    store.put(digest, |object| object.write_all(b"whole")).unwrap();
    assert_eq!(store.content(digest), Some(b"whole".to_vec()));
    fs::remove_file(store.object(digest)).unwrap();
    fs::write(store.object(digest), "WHOLE").unwrap();
    assert_eq!(store.content(digest), None);
}

#[test]
fn a_scratch_folder_that_cannot_leave_its_place_at_once_counts_for_nothing_before_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), None);
    let scratch = store.scratch(Digest::of("x"));
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("part"), "").unwrap();
    fs::write(lock_of(&scratch), UNTOUCHED).unwrap();
    // Nothing comes to where it would be moved.
    fs::write(folder.path().join(".repro/drafts"), "").unwrap();
    store.vacate(&scratch).unwrap();
    assert!(!scratch.exists());
    assert_eq!(fs::read(lock_of(&scratch)).unwrap(), b"nothing");
}
