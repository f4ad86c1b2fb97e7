use std::os::unix::fs::symlink;

use super::*;

/// A memory of the folder `data` in `root`, made by reading it and read back.
fn learned(root: &Path) -> Memo {
    let mut memo = Memo::new(&root.join("cache"));
    memo.digest(root, "data".as_ref()).unwrap();
    memo.write_tables().unwrap();
    let mut again = Memo::new(&root.join("cache"));
    memo.take_learned().into_iter().for_each(|(path, what)| again.remember(path, what));
    again
}

fn wait_until_old() {
    std::thread::sleep(std::time::Duration::from_millis(60));
}

#[test]
fn an_unchanged_folder_is_one_line_and_none_of_its_files_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::create_dir_all(data.join("train")).unwrap();
    (0..100).for_each(|n| fs::write(data.join(format!("train/{n}")), n.to_string()).unwrap());
    wait_until_old();
    let mut memo = learned(root);
    assert_eq!(memo.all().count(), 1);
    // Who would read this table would hear nonsense of every file.
    let table = memo.table("data".as_ref());
    let mut known = decode(&fs::read(&table).unwrap()).unwrap();
    assert_eq!(known.len(), 100);
    known.values_mut().for_each(|(_, digest)| *digest = Digest::of("nonsense"));
    fs::write(&table, encode(&known).unwrap()).unwrap();
    let truth = Memo::default().digest(root, "data".as_ref()).unwrap();
    assert_eq!(memo.digest(root, "data".as_ref()).unwrap(), truth);
    // And nobody hears what a flipped digit says.
    let mut bytes = encode(&known).unwrap();
    assert!(decode(&bytes).is_some());
    let digit = bytes.iter_mut().rfind(|byte| byte.is_ascii_digit()).unwrap();
    *digit = if *digit == b'1' { b'2' } else { b'1' };
    assert!(decode(&bytes).is_none());
    // One changed file: the others are known from the table.
    fs::write(data.join("train/7"), "other").unwrap();
    assert_ne!(memo.digest(root, "data".as_ref()).unwrap(), truth);
    let fresh = Memo::default().digest(root, "data".as_ref()).unwrap();
    assert_ne!(memo.digest(root, "data".as_ref()).unwrap(), fresh);
}

#[test]
fn whatever_changes_in_a_folder_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a"), "one").unwrap();
    fs::write(data.join("b"), "two").unwrap();
    wait_until_old();
    let mut memo = learned(root);
    let mut seen = BTreeSet::from([memo.digest(root, "data".as_ref()).unwrap()]);
    let mut differs = |what: &str| {
        let digest = memo.digest(root, "data".as_ref()).unwrap();
        assert_eq!(digest, Memo::default().digest(root, "data".as_ref()).unwrap(), "{what}");
        assert!(seen.insert(digest), "{what}");
    };
    // Same length, and the modification time set back.
    let then = fs::metadata(data.join("a")).unwrap().modified().unwrap();
    fs::write(data.join("a"), "eno").unwrap();
    fs::File::open(data.join("a")).unwrap().set_modified(then).unwrap();
    differs("content");
    fs::write(data.join("c"), "three").unwrap();
    differs("a new file");
    fs::rename(data.join("c"), data.join("d")).unwrap();
    differs("a new name");
    fs::remove_file(data.join("b")).unwrap();
    differs("a file less");
    fs::create_dir(data.join("sub")).unwrap();
    fs::rename(data.join("d"), data.join("sub/d")).unwrap();
    differs("another folder");
}

#[test]
fn a_folder_of_files_that_may_still_change_unseen_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::create_dir(&data).unwrap();
    let file = data.join("a");
    // What is young afterwards was young when it was read; a machine may be too slow for that.
    let read_young = || {
        fs::write(&file, "one").unwrap();
        let mut memo = Memo::new(&root.join("cache"));
        memo.digest(root, "data".as_ref()).unwrap();
        let young = Stamp::of(&fs::metadata(&file).unwrap()).too_young();
        memo.write_tables().unwrap();
        let known = decode(&fs::read(memo.table("data".as_ref())).unwrap()).unwrap();
        young.then(|| (memo.all().count(), known["a"].0))
    };
    match (0..20).find_map(|_| read_young()) {
        Some(learned) => assert_eq!(learned, (0, Stamp::NONE)),
        #[allow(clippy::print_stderr)] // the only way to say that a test checks nothing
        None => eprintln!("SKIPPED: no file is read so soon after it was written that it is young"),
    }
}

#[test]
fn links_that_lead_nowhere_count_as_themselves_and_what_programs_leave_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a"), "one").unwrap();
    let digest = || Memo::default().digest(root, "data".as_ref()).unwrap();
    let plain = digest();
    for left in ["a~", ".#b", "#a#", ".a.swp"] {
        fs::write(data.join(left), left).unwrap();
    }
    let tools = ["__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints"];
    for left in [".git", ".repro", ".DS_Store"].into_iter().chain(tools) {
        fs::create_dir(data.join(left)).unwrap();
        fs::write(data.join(left).join("x"), "").unwrap();
    }
    symlink("user@host.1:1", data.join(".#a")).unwrap();
    assert_eq!(digest(), plain);
    symlink("nowhere", data.join("link")).unwrap();
    let nowhere = digest();
    assert_ne!(nowhere, plain);
    fs::remove_file(data.join("link")).unwrap();
    symlink("elsewhere", data.join("link")).unwrap();
    assert!(![plain, nowhere].contains(&digest()));
    symlink(".", data.join("loop")).unwrap();
    wait_until_old();
    let mut memo = learned(root);
    assert_eq!(memo.digest(root, "data".as_ref()).unwrap(), digest());
    assert_eq!(as_it_is(&data).unwrap(), memo.remembered("data".as_ref()).unwrap().known_by());
}

#[test]
fn a_folder_that_was_a_file_is_looked_at_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::write(&data, "file").unwrap();
    wait_until_old();
    let mut memo = learned(root);
    assert_eq!(memo.digest(root, "data".as_ref()).unwrap(), Digest::of("file"));
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    assert_eq!(memo.digest(root, "data".as_ref()).unwrap(), Digest::of_tree([]));
    assert!(matches!(memo.remembered("data".as_ref()), Some(Remembered::Folder { .. })));
    let missing = memo.digest(root, "nowhere".as_ref()).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
