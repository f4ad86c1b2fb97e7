//! Folders of images: how they are read, and what is wrong with some.

use super::*;

/// Writes `train/CLASS/N.png` and `test/CLASS/N.png`, each of one colour of its own.
fn folder(bench: &Bench, classes: &[&str], train: u8, test: u8) {
    for (split, count) in [("train", train), ("test", test)] {
        for (label, class) in classes.iter().enumerate() {
            let folder = bench.path("images").join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let pixel = image::Rgb([label as u8, i, if split == "train" { 10 } else { 20 }]);
                image::RgbImage::from_pixel(32, 32, pixel).save(folder.join(format!("{i:03}.png"))).unwrap();
            }
        }
    }
}

const FOLDER: &str = "source = 'image-folder'\npath = 'images'";

#[test]
fn a_folder_of_images_is_read_in_order_of_names() {
    let mut bench = Bench::new();
    folder(&bench, &["cat", "ant"], 3, 2);
    fs::write(bench.path("images/train/.DS_Store"), "").unwrap();
    bench.run(FOLDER).unwrap();
    let set = bench.packed();
    assert_eq!(set.classes(), ["ant", "cat"]);
    let seen: Vec<_> = (0..6)
        .map(|i| {
            let image = set.image(Split::Train, i);
            (set.label(Split::Train, i), image[0], image[1024], image[2048])
        })
        .collect();
    assert_eq!(
        seen,
        [(0, 1, 0, 10), (0, 1, 1, 10), (0, 1, 2, 10), (1, 0, 0, 10), (1, 0, 1, 10), (1, 0, 2, 10)]
    );
    assert_eq!(set.image(Split::Test, 3)[2 * 1024..], [20; 1024]);
    assert_eq!(bench.described()["source"], "image-folder");
    let params = Dataset.resolve(&FOLDER.parse().unwrap()).unwrap();
    assert_eq!(Dataset.files(&params), [PathBuf::from("images/train"), PathBuf::from("images/test")]);
}

#[test]
fn a_folder_that_lacks_images_only_in_a_clone_is_refused() {
    let mut bench = Bench::new();
    folder(&bench, &["ant", "cat"], 2, 2);
    let mut give = |absent: &str| {
        let (instance, dir) = ("drawn".to_owned(), bench.path("images"));
        let input = Input { instance, axes: BTreeMap::new(), dir, absent: vec![absent.to_owned()] };
        bench.inputs.insert(FILES.to_owned(), vec![input]);
        bench.run("source = 'image-folder'\ninput = './.'")
    };
    for absent in ["train/ant/002.png", "test/cat/"] {
        let error = give(absent).unwrap_err();
        let told = format!("`drawn` has no {absent} here, though it was locked with one");
        assert_eq!((error.message, error.hint.is_some()), (told, true));
    }
    // What the stage does not read it need not have.
    give("notes/train.txt").unwrap();
}

#[test]
fn a_folder_outside_of_the_result_is_refused() {
    for outside in ["../other", "/tmp", "a/../.."] {
        let params = format!("source = 'image-folder'\ninput = '{outside}'");
        let errors = Dataset.resolve(&params.parse().unwrap()).unwrap_err();
        let told = format!("`{outside}` leaves the result of the stage");
        assert_eq!((&*errors[0].key, &*errors[0].message), ("input", &*told));
    }
}

#[test]
fn a_subset_is_stratified_and_a_larger_one_contains_it() {
    let kept = |params: &str| {
        let mut bench = Bench::new();
        folder(&bench, &["ant", "cat"], 40, 3);
        bench.run(&format!("{FOLDER}\n{params}")).unwrap();
        let set = bench.packed();
        assert_eq!(set.len(Split::Test), 6);
        (0..set.len(Split::Train))
            .map(|i| (set.label(Split::Train, i), set.image(Split::Train, i)[1024]))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (few, more) = (kept("train_per_class = 5"), kept("train_per_class = 20"));
    assert_eq!(few.iter().filter(|(label, _)| *label == 0).count(), 5);
    assert_eq!((few.len(), more.len()), (10, 40));
    assert!(few.is_subset(&more));
    assert_ne!(few, kept("train_per_class = 5\nsubset_seed = 1"));

    let mut bench = Bench::new();
    folder(&bench, &["ant", "cat"], 4, 3);
    for wrong in ["train_per_class = 5", "test_per_class = 0"] {
        let message = bench.fail(&format!("{FOLDER}\n{wrong}"));
        assert!(message.contains(wrong) && message.contains("`ant`"), "{message}");
    }
}

#[test]
fn folders_that_are_not_laid_out_as_they_should_be_are_refused() {
    let mut bench = Bench::new();
    let message = bench.fail(FOLDER);
    assert!(message.contains("cannot read") && message.contains("images/train"), "{message}");
    fs::create_dir_all(bench.path("images/train")).unwrap();
    assert!(bench.fail(FOLDER).contains("images/train` is empty"));
    folder(&bench, &["ant", "cat"], 2, 2);
    let moves = [
        ("images/test/cat", "images/cat", "class `cat` is in"),
        ("images/train/cat", "images/cat", "class `cat` is in"),
    ];
    for (from, to, says) in moves {
        fs::rename(bench.path(from), bench.path(to)).unwrap();
        let message = bench.fail(FOLDER);
        assert!(message.contains(says) && message.contains("but not in"), "{message}");
        fs::rename(bench.path(to), bench.path(from)).unwrap();
    }
    let odd = [
        ("images/train/ant/notes.txt", "not called like a JPEG or PNG"),
        ("images/train/notes.txt", "lies among the folders of the classes"),
        ("images/test/notes.txt", "lies among the folders of the classes"),
    ];
    for (path, says) in odd {
        fs::write(bench.path(path), "x").unwrap();
        let message = bench.fail(FOLDER);
        assert!(message.contains(says) && message.contains("notes.txt"), "{message}");
        fs::remove_file(bench.path(path)).unwrap();
    }
    for below in ["000.png", "001.png"] {
        fs::remove_file(bench.path("images/test/cat").join(below)).unwrap();
    }
    assert!(bench.fail(FOLDER).contains("images/test/cat` is empty"));
}

fn colours(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 8) as u8, (y * 8) as u8, ((x * y) % 256) as u8])
    })
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    encoder.encode_image(&colours(width, height)).unwrap();
    bytes
}

/// Changes only with [`Dataset::version`], or where the encoder of the test does.
const JPEG: &str = "a4f549ad60fb1774e337a993d80f02bdebe2c961ae8d132fa9fa6f882eff6176";

#[test]
fn jpeg_is_decoded_to_pinned_bytes() {
    let mut bench = Bench::new();
    folder(&bench, &["ant"], 1, 1);
    fs::write(bench.path("images/train/ant/a.JPG"), jpeg(32, 32)).unwrap();
    let more_behind = [&jpeg(32, 32)[..], &[0xff, 0xda, 0, 2]].concat();
    fs::write(bench.path("images/train/ant/b.jpg"), more_behind).unwrap();
    bench.run(FOLDER).unwrap();
    let (set, at) = (bench.packed(), 10 * 32 + 20);
    let image = set.image(Split::Train, 1);
    for (channel, value) in [160, 80, 200].into_iter().enumerate() {
        assert!(image[1024 * channel + at].abs_diff(value) < 40, "{channel}: {}", image[1024 * channel + at]);
    }
    assert_eq!(Digest::of(image).to_string(), JPEG);
    assert_eq!(set.image(Split::Train, 2), image);
}

#[test]
fn damaged_images_are_named_and_never_filled_in() {
    let mut bench = Bench::new();
    folder(&bench, &["ant"], 2, 1);
    let png = fs::read(bench.path("images/train/ant/000.png")).unwrap();
    let jpeg = jpeg(32, 32);
    let cut = |bytes: &[u8], at: usize| bytes[..at].to_vec();
    let mut flipped = png.clone();
    flipped[60] ^= 0x40;
    let damages = [
        Vec::new(),
        b"GIF89a".to_vec(),
        cut(&jpeg, 100),
        cut(&jpeg, jpeg.len() / 2),
        cut(&jpeg, jpeg.len() - 30),
        cut(&jpeg, jpeg.len() - 1),
        cut(&png, 20),
        cut(&png, png.len() / 2),
        flipped,
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        fs::write(bench.path("images/train/ant/001.png"), damage).unwrap();
        let message = bench.fail(FOLDER);
        assert!(message.contains("train/ant/001.png` is damaged"), "{number}: {message}");
    }
}

#[test]
fn other_sizes_are_an_error_that_names_the_file_unless_resizing_is_asked_for() {
    let mut bench = Bench::new();
    folder(&bench, &["ant"], 1, 1);
    fs::write(bench.path("images/test/ant/000.png"), jpeg(40, 20)).unwrap();
    let message = bench.fail(FOLDER);
    assert!(message.contains("test/ant/000.png` is 40x20, not 32x32"), "{message}");
    // Some damaged bytes that announce 16,384 rows of 16,384 pixels are not decoded.
    let mut huge = jpeg(40, 20);
    let frame = huge.windows(2).position(|mark| mark == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0x40, 0, 0x40, 0]);
    fs::write(bench.path("images/test/ant/000.png"), huge).unwrap();
    let message = bench.fail(&format!("{FOLDER}\nresize = true"));
    assert!(message.contains("test/ant/000.png` is 16384x16384, too large"), "{message}");
    fs::write(bench.path("images/test/ant/000.png"), jpeg(40, 20)).unwrap();
    bench.run(&format!("{FOLDER}\nresize = true")).unwrap();
    assert!(bench.packed().image(Split::Test, 0)[0] < 20);
}

/// Changes only with [`Dataset::version`].
const RESIZED: &str = "8e09e609d280322952c77cffede7d2eec9b25f0020c4c5fcdb3517971dab9fa8";

#[test]
fn other_sizes_are_resized_to_pinned_bytes() {
    let mut bench = Bench::new();
    folder(&bench, &["ant"], 1, 1);
    colours(40, 20).save(bench.path("images/test/ant/000.png")).unwrap();
    bench.run(&format!("{FOLDER}\nresize = true")).unwrap();
    let set = bench.packed();
    assert_eq!(Digest::of(set.image(Split::Test, 0)).to_string(), RESIZED);
}

#[cfg(target_os = "linux")] // has `/dev/full`
#[test]
fn a_file_that_cannot_be_read_and_an_output_that_cannot_be_written_are_named() {
    let mut bench = Bench::new();
    folder(&bench, &["ant"], 1, 1);
    fs::create_dir(bench.path("images/train/ant/b.png")).unwrap();
    let message = bench.fail(FOLDER);
    assert!(message.contains("cannot read") && message.contains("b.png"), "{message}");
    fs::remove_dir(bench.path("images/train/ant/b.png")).unwrap();
    // Who opens a pipe waits for somebody to write into it.
    let made = std::process::Command::new("mkfifo").arg(bench.path("images/train/ant/b.png")).status();
    assert!(made.unwrap().success());
    let message = bench.fail(FOLDER);
    assert!(message.contains("b.png`: it is no file"), "{message}");
    fs::remove_file(bench.path("images/train/ant/b.png")).unwrap();

    std::os::unix::fs::symlink("/dev/full", bench.path("out/dataset.bin")).unwrap();
    let error = bench.run(FOLDER).unwrap_err();
    assert!(
        error.message.contains("cannot write") && error.message.contains("dataset.bin"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("make room"));
}
