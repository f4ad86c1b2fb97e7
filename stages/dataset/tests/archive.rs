//! Archives that are not what they should be.

use std::io::Write;

use tar::{EntryType, Header};

use super::*;
use crate::dataset::{
    archive::read,
    cifar::{BATCHES, RECORD},
};

/// `count` records; class and pixels differ from record to record.
pub(super) fn batch(count: u8) -> Vec<u8> {
    (0..count).flat_map(|i| std::iter::once(i % 10).chain(std::iter::repeat_n(i, RECORD - 1))).collect()
}

/// An archive in the official layout, with what `content` says of each batch.
pub(super) fn archive(content: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "cifar-10-batches-bin/", EntryType::Directory, &[]);
    add(&mut tar, "cifar-10-batches-bin/readme.html", EntryType::Regular, b"<html>");
    // Not in order, as in the official one.
    for (name, _) in BATCHES.iter().rev() {
        add(&mut tar, &format!("cifar-10-batches-bin/{name}"), EntryType::Regular, &content(name));
    }
    tar.into_inner().unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Adds an entry whose name the library would refuse to write.
fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// What is said of a good archive to which `more` was added.
fn with(more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> String {
    let good = archive(|_| batch(10));
    let mut tar = tar::Builder::new(good[..good.len() - 1024].to_vec()); // without its end
    more(&mut tar);
    refusal(&gzip(&tar.into_inner().unwrap()))
}

fn refusal(bytes: &[u8]) -> String {
    let bench = Bench::new();
    fs::write(bench.path("a.tar.gz"), bytes).unwrap();
    let error = read(&bench.path("a.tar.gz"), false).err().unwrap();
    assert!(error.integrity && error.hint.is_some());
    let rest: Vec<_> = walkdir::WalkDir::new(bench.root.path()).into_iter().map(|e| e.unwrap()).collect();
    assert_eq!(rest.len(), 4, "something was unpacked: {rest:?}");
    error.message
}

#[test]
fn paths_that_lead_outside_and_links_refuse_the_whole_archive() {
    for name in ["../evil", "/tmp/evil", "cifar-10-batches-bin/../../evil"] {
        let message = with(|tar| add(tar, name, EntryType::Regular, b"x"));
        assert!(message.contains("leads outside") && message.contains("evil"), "{message}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
        let message = with(|tar| add(tar, "cifar-10-batches-bin/odd", kind, b""));
        assert!(message.contains("neither a file nor a folder"), "{kind:?}: {message}");
    }
}

#[test]
fn absurd_sizes_are_refused_unread() {
    let message = with(|tar| {
        let mut header = Header::new_gnu();
        header.set_path("cifar-10-batches-bin/huge").unwrap();
        header.set_size(1 << 60);
        header.set_cksum();
        tar.append(&header, [].as_slice()).unwrap();
    });
    assert!(message.contains("claims 1152921504606846976 bytes"), "{message}");
    // Many entries that are small enough each.
    let zeros = vec![0; 30_000_000];
    let message = with(|tar| (0..9).for_each(|_| add(tar, "zeros", EntryType::Regular, &zeros)));
    assert!(message.contains("expands to more than 256 MiB"), "{message}");
}

#[test]
fn missing_doubled_and_cut_members_are_named() {
    let message = with(|tar| add(tar, "cifar-10-batches-bin/test_batch.bin", EntryType::Regular, b"x"));
    assert!(message.contains("`test_batch.bin` is in it twice"), "{message}");

    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "elsewhere/test_batch.bin", EntryType::Regular, b"x");
    let message = refusal(&gzip(&tar.into_inner().unwrap()));
    assert!(message.contains("lacks cifar-10-batches-bin/data_batch_1.bin, data_batch_2.bin"), "{message}");

    let good = archive(|_| batch(10));
    for cut in [good.len() / 2, good.len() - 20_000] {
        let message = refusal(&gzip(&good[..cut]));
        assert!(message.contains("cut off") || message.contains("damaged"), "{message}");
    }
    let packed = gzip(&good);
    for cut in [0, 5, packed.len() / 2, packed.len() - 4] {
        assert!(refusal(&packed[..cut]).contains("damaged"), "cut at {cut}");
    }
    assert!(refusal(b"<html>no archive</html>").contains("damaged"));
}

#[test]
fn members_come_in_the_order_of_the_batches() {
    let bench = Bench::new();
    let path = bench.path("a.tar.gz");
    let place = |name: &str| BATCHES.iter().position(|(batch, _)| *batch == name).unwrap();
    fs::write(&path, gzip(&archive(|name| batch(10 + place(name) as u8)))).unwrap();
    let members = read(&path, false).unwrap();
    let images: Vec<_> = members.iter().map(|bytes| bytes.len() / RECORD).collect();
    assert_eq!(images, [10, 11, 12, 13, 14, 15]);
    assert!(members == [10, 11, 12, 13, 14, 15].map(batch));
}

#[test]
fn an_unofficial_member_is_refused_where_the_official_archive_is_meant() {
    let bench = Bench::new();
    let path = bench.path("a.tar.gz");
    fs::write(&path, gzip(&archive(|_| batch(10)))).unwrap();
    assert!(read(&path, false).unwrap() == vec![batch(10); 6]);
    assert!(
        read(&path, true).err().unwrap().message.contains("`test_batch.bin` in it is not the official file")
    );
}

#[test]
fn a_folder_in_the_binary_layout_is_read_in_order_and_its_damage_named() {
    let mut bench = Bench::new();
    let params = "source = 'cifar-binary'\npath = 'bin'";
    let resolved = Dataset.resolve(&params.parse().unwrap()).unwrap();
    assert_eq!(Dataset.files(&resolved)[5], PathBuf::from("bin/test_batch.bin"));
    fs::create_dir(bench.path("bin")).unwrap();
    assert!(bench.fail(params).contains("data_batch_1.bin"));
    for (index, (name, _)) in BATCHES.iter().enumerate() {
        fs::write(bench.path("bin").join(name), batch(index as u8 + 1)).unwrap();
    }
    bench.run(params).unwrap();
    let set = bench.packed();
    assert_eq!((set.len(Split::Train), set.len(Split::Test)), (1 + 2 + 3 + 4 + 5, 6));
    assert_eq!((set.label(Split::Train, 14), set.image(Split::Train, 14)[0]), (4, 4));

    fs::remove_file(bench.path("out/dataset.bin")).unwrap();
    for (damage, says) in
        [(vec![0; RECORD + 1], "whole records"), (vec![10; RECORD], "record 0 has class 10")]
    {
        fs::write(bench.path("bin/data_batch_3.bin"), damage).unwrap();
        let message = bench.fail(params);
        assert!(message.contains("`data_batch_3.bin` is damaged") && message.contains(says), "{message}");
    }
}
