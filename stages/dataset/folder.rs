//! Source `image-folder`: `train/CLASS/*` and `test/CLASS/*`, JPEG or PNG. Classes are the names of
//! the folders, sorted; so are the images of a class. Knows nothing of how images are packed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use engine::kind::{Job, Progress, StageError};
use network::{data::IMAGE_BYTES, trainer::Split};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BLOCK, Collected, Part, Place, decode::decode, subset::Subset};
use crate::output::failed;

const LAYOUT: &str = "the folder should hold `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (or `.png`)";

/// Parameters of an image folder.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FolderParams {
    /// Of the folder with `train` and `test`.
    #[serde(flatten)]
    pub(super) place: Place,
    /// Resize images that are not 32x32, whatever their aspect ratio; otherwise they are an error.
    #[serde(default)]
    resize: bool,
    #[serde(flatten)]
    subset: Subset,
}

/// What the source reads.
pub(super) fn files(params: &FolderParams) -> Vec<PathBuf> {
    params.place.files(["train", "test"])
}

/// Reads the images.
pub(super) fn collect(params: &FolderParams, job: &mut Job<'_>) -> Result<Collected, StageError> {
    let root = params.place.folder(job)?;
    params.place.whole("train", job)?;
    params.place.whole("test", job)?;
    let classes = classes_of(&root.join("train"))?;
    agree(&classes, &classes_of(&root.join("test"))?, &root)?;
    if classes.len() > usize::from(u16::MAX) {
        let message = format!("`{}` has {} classes", root.join("train").display(), classes.len());
        return Err(StageError::new(message).hint(format!("at most {} are possible", u16::MAX)));
    }
    let mut train = Files::of(&root.join("train"), &classes, Split::Train, &params.subset)?;
    let mut test = Files::of(&root.join("test"), &classes, Split::Test, &params.subset)?;
    let total = train.paths.len() + test.paths.len();
    let mut done = 0;
    for files in [&mut train, &mut test] {
        files.part.pixels = vec![0; IMAGE_BYTES * files.paths.len()];
        for (paths, pixels) in
            files.paths.chunks(BLOCK).zip(files.part.pixels.chunks_mut(BLOCK * IMAGE_BYTES))
        {
            if job.reporter.stop_requested() {
                return Err(StageError::interrupted());
            }
            let images = paths.par_iter().zip(pixels.par_chunks_mut(IMAGE_BYTES));
            // The first in order, so that a folder with two bad files always names the same one.
            if let Some(error) =
                images.map(|(path, image)| decode(path, params.resize, image)).find_map_first(Result::err)
            {
                return Err(error);
            }
            done += paths.len();
            let (done, total) = (done as u64, total as u64);
            job.reporter.progress(&Progress { done, total, unit: "image".into(), readings: Vec::new() });
        }
    }
    Ok(Collected { classes, train: train.part, test: test.part })
}

/// The images of one split that are to be read.
struct Files {
    paths: Vec<PathBuf>,
    part: Part,
}

impl Files {
    fn of(folder: &Path, classes: &[String], split: Split, subset: &Subset) -> Result<Self, StageError> {
        let (mut paths, mut part) = (Vec::new(), Part::default());
        for (label, class) in classes.iter().enumerate() {
            let folder = folder.join(class);
            let names = names(&folder)?;
            for index in subset.keep(split, class, names.len())? {
                let path = folder.join(&names[index]);
                let end = path.extension().map(|e| e.to_string_lossy().to_lowercase());
                if !matches!(end.as_deref(), Some("jpg" | "jpeg" | "png")) {
                    let message = format!("`{}` is not called like a JPEG or PNG image", path.display());
                    return Err(StageError::new(message).hint("convert it, or move it elsewhere"));
                }
                paths.push(path);
                part.labels.push(label as u16);
            }
        }
        Ok(Self { paths, part })
    }
}

/// The names of the folders in a folder, in which there is nothing else.
fn classes_of(folder: &Path) -> Result<Vec<String>, StageError> {
    let classes = names(folder)?;
    if let Some(other) = classes.iter().map(|class| folder.join(class)).find(|path| !path.is_dir()) {
        let message = format!("`{}` lies among the folders of the classes", other.display());
        return Err(StageError::new(message).hint(format!("move it elsewhere; {LAYOUT}")));
    }
    Ok(classes)
}

/// The names in a folder, sorted, without those that begin with a dot; at least one.
fn names(folder: &Path) -> Result<Vec<String>, StageError> {
    let cannot = |error: &_| failed("read", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| cannot(&e).hint(LAYOUT))? {
        let name = entry.map_err(|e| cannot(&e))?.file_name();
        match name.into_string() {
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => names.push(name),
            Err(name) => {
                let message = format!("{} has a name that is not UTF-8", folder.join(name).display());
                return Err(StageError::new(message).hint("rename it"));
            }
        }
    }
    if names.is_empty() {
        return Err(StageError::new(format!("`{}` is empty", folder.display())).hint(LAYOUT));
    }
    names.sort();
    Ok(names)
}

fn agree(train: &[String], test: &[String], root: &Path) -> Result<(), StageError> {
    let (of_train, of_test): (BTreeSet<_>, BTreeSet<_>) = (train.iter().collect(), test.iter().collect());
    let Some(odd) = of_train.symmetric_difference(&of_test).next() else { return Ok(()) };
    let (has, lacks) = if of_train.contains(odd) { ("train", "test") } else { ("test", "train") };
    let message = format!("class `{odd}` is in `{}` but not in `{lacks}`", root.join(has).display());
    Err(StageError::new(message).hint(format!("both need the same class folders; {LAYOUT}")))
}
