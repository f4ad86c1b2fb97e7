//! Kind `dataset`: images from one of several sources, packed into one file that training maps into
//! memory. Knows nothing of networks; each source, in its own file, knows nothing of the others.

mod archive;
pub(crate) mod cifar;
mod decode;
mod download;
mod folder;
mod subset;
mod synthetic;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use engine::{
    digest::Digest,
    kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError},
};
use network::data::{Dataset as Packed, Images, pack};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

pub use self::download::SHA256;
use self::{cifar::BinaryParams, download::DownloadParams, folder::FolderParams, synthetic::SyntheticParams};
use crate::{
    output::{write, write_json},
    params::{checked, stays_inside},
};

/// The packed images, as [`network::data`] describes them.
const PACKED: &str = "dataset.bin";
/// The role of what another stage made, for the sources that read files.
const FILES: &str = "files";
/// What is in them, for people and tables.
const DESCRIPTION: &str = "dataset.json";
/// Images between two looks at whether to stop.
const BLOCK: usize = 2000;

/// The kind `dataset`.
pub(crate) struct Dataset;

/// Parameters of a `dataset` stage: `source`, and what that source needs.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "source", rename_all = "kebab-case")]
enum Source {
    /// The official CIFAR-10 binary archive, downloaded or already there.
    Cifar10(DownloadParams),
    /// A folder with the six files of that archive.
    CifarBinary(BinaryParams),
    /// A folder of images, `train/CLASS/*` and `test/CLASS/*`.
    ImageFolder(FolderParams),
    /// Drawn images, made without any file or network.
    Synthetic(SyntheticParams),
}

/// The names of the sources.
const SOURCES: [&str; 4] = ["cifar10", "cifar-binary", "image-folder", "synthetic"];

/// What a source delivers.
struct Collected {
    classes: Vec<String>,
    train: Part,
    test: Part,
}

/// The images of one split, in order.
#[derive(Default)]
struct Part {
    /// Class of each image.
    labels: Vec<u16>,
    /// The images, `N 3 32 32`.
    pixels: Vec<u8>,
}

impl Kind for Dataset {
    fn name(&self) -> &'static str {
        "dataset"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[RoleSpec { name: FILES, required: false, many: false }])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Source::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let mut rest = given.clone();
        let source = rest.remove("source");
        let mut params = match source.as_ref().and_then(toml::Value::as_str) {
            Some("cifar10") => checked(&rest, &download::SETTINGS, DownloadParams::faults)?,
            Some("cifar-binary") => checked(&rest, &[], |params: &BinaryParams| params.place.faults())?,
            Some("image-folder") => checked(&rest, &[], |params: &FolderParams| params.place.faults())?,
            Some("synthetic") => checked(&rest, &[], SyntheticParams::faults)?,
            _ => return Err(vec![unknown(source.as_ref())]),
        };
        params.recipe.extend(source.map(|source| ("source".to_owned(), source)));
        Ok(params)
    }

    fn files(&self, params: &Params) -> Vec<PathBuf> {
        match Source::deserialize(toml::Value::Table(params.recipe.clone())) {
            Ok(Source::CifarBinary(params)) => cifar::files(&params),
            Ok(Source::ImageFolder(params)) => folder::files(&params),
            Ok(Source::Cifar10(_) | Source::Synthetic(_)) | Err(_) => Vec::new(),
        }
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let source = job.params()?;
        if let (Source::Cifar10(_) | Source::Synthetic(_), Some(role)) = (&source, job.inputs.keys().next()) {
            return Err(StageError::new(format!("images from this `source` need no `{role}`"))
                .hint("take that out of the stage's `needs`"));
        }
        let collected = match source {
            Source::Cifar10(params) => download::collect(&params, job)?,
            Source::CifarBinary(params) => cifar::collect(&params, job)?,
            Source::ImageFolder(params) => folder::collect(&params, job)?,
            Source::Synthetic(params) => synthetic::draw(&params, job)?,
        };
        keep(collected, job)
    }
}

fn unknown(source: Option<&toml::Value>) -> ParamError {
    let message = match source {
        None => "a dataset needs a `source`".to_owned(),
        Some(other) => format!("there is no source {other}"),
    };
    let hint = format!("the sources are {}", SOURCES.map(|name| format!("`{name}`")).join(", "));
    ParamError { key: "source".into(), message, hint: Some(hint) }
}

/// Where files come from: a place of the project, or the result of another stage.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Place {
    /// The folder; a relative path begins at the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    /// Instead of `path`: the folder in the result of the stage that `needs.files` names, `.` for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<PathBuf>,
}

impl Place {
    /// The files come from one place. `input` is a folder of the result: nobody would notice a change of files elsewhere.
    fn faults(&self) -> Vec<ParamError> {
        let fault = |key: &str, message: String, hint: &str| {
            vec![ParamError { key: key.into(), message, hint: Some(hint.into()) }]
        };
        let wrong = match (&self.path, &self.input) {
            (None, None) => "there is neither `path` nor `input`",
            (Some(_), Some(_)) => "there are both `path` and `input`",
            (_, Some(input)) if !stays_inside(input) => {
                let message = format!("`{}` leaves the result of the stage", input.display());
                return fault("input", message, "write a relative path without `..`; `.` is all of it");
            }
            _ => return Vec::new(),
        };
        let hint = "`path` is a folder of the project, `input` one in the result of the stage that `needs.files` names";
        fault("path", wrong.into(), hint)
    }

    /// Those of `names` that are files of the project.
    fn files<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<PathBuf> {
        let join = |path: &PathBuf| names.into_iter().map(|name| path.join(name)).collect();
        self.path.as_ref().map_or_else(Vec::new, join)
    }

    /// An error where the folder `name` lacks files only here: a list of it would not tell.
    fn whole(&self, name: &str, job: &Job<'_>) -> Result<(), StageError> {
        self.input.as_ref().map_or(Ok(()), |input| job.input(FILES)?.lacks_no(&input.join(name)))
    }

    fn folder(&self, job: &Job<'_>) -> Result<PathBuf, StageError> {
        let given = job.inputs.contains_key(FILES);
        match (&self.path, &self.input) {
            (Some(path), None) if !given => Ok(job.project.join(path)),
            (None, Some(input)) if given => Ok(job.input(FILES)?.dir.join(input)),
            (_, Some(_)) => {
                Err(StageError::new("`input` is a folder of another stage's result, and none is given")
                    .hint(format!("write `needs = {{ {FILES} = \"STAGE\" }}`, or `path` instead of `input`")))
            }
            _ => Err(StageError::new("there is another stage's result, and `path` is not in it")
                .hint("write `input` instead of `path`, with the folder in that result")),
        }
    }
}

/// What `dataset.json` says.
#[derive(Serialize)]
struct Description<'a> {
    source: Option<&'a str>,
    classes: &'a [String],
    train: usize,
    test: usize,
    /// Images of each class in the training split.
    train_per_class: Vec<usize>,
    /// Images of each class in the test split.
    test_per_class: Vec<usize>,
    /// Mean of each channel of the training images, scaled to 0..1.
    mean: [f64; 3],
    /// Standard deviation of the same.
    std: [f64; 3],
    /// BLAKE3 of `dataset.bin`.
    digest: String,
}

fn keep(collected: Collected, job: &Job<'_>) -> Result<(), StageError> {
    let Collected { classes, train, test } = collected;
    let counts = |part: &Part| {
        let mut counts = vec![0; classes.len()];
        for label in &part.labels {
            counts.get_mut(usize::from(*label)).into_iter().for_each(|count| *count += 1);
        }
        counts
    };
    let (train_per_class, test_per_class) = (counts(&train), counts(&test));
    let [train, test] = [&train, &test].map(|part| Images { labels: &part.labels, pixels: &part.pixels });
    let wrong = |error| StageError::new(format!("cannot pack `{}`: {error}", job.instance));
    let bytes = Arc::new(pack(&classes, train, test).map_err(wrong)?);
    let (mean, std) = Packed::from_bytes(Arc::clone(&bytes) as _).map_err(wrong)?.statistics();
    let description = Description {
        source: job.params.recipe.get("source").and_then(toml::Value::as_str),
        train: train.labels.len(),
        test: test.labels.len(),
        train_per_class,
        test_per_class,
        mean,
        std,
        digest: Digest::of(&*bytes).to_string(),
        classes: &classes,
    };
    write(job, PACKED, &bytes)?;
    write_json(job, DESCRIPTION, &description)
}
