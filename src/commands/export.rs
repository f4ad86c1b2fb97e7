//! `repro export`: a trained network as files for other programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use engine::{
    instance::{InstanceId, Pipeline},
    place::replace,
    plan::Standing,
    project::Project,
    run::RunOptions,
};
use network::{
    checkpoint::Checkpoint,
    data::{DEVIATION, MEAN},
    export::{
        hugging_face::{Card, FILES, model_folder},
        onnx::onnx,
        tensorboard::{self, Scalar},
    },
    mode::Mode,
    model::Model,
    trainer::Precision,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    args::{Export, Global, quoted},
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn export(global: &Global, args: &Export) -> Result<ExitCode, Failure> {
    check(args)?;
    let trained = Trained::find(global, args)?;
    if let Some(path) = &args.full {
        save(path, &trained.checkpoint()?.state_dict().map_err(refused)?)?;
    }
    if let Some(path) = &args.onnx {
        let checkpoint = trained.checkpoint()?;
        let weights = checkpoint.weights().map_err(refused)?;
        let mut metadata = checkpoint.metadata();
        let list = |values: [f32; 3]| values.map(|value| value.to_string()).join(" ");
        metadata.extend([("image_mean".into(), list(MEAN)), ("image_std".into(), list(DEVIATION))]);
        let model = onnx(&checkpoint.model.graph(), &weights, &metadata).map_err(refused)?;
        save(path, &model)?;
    }
    if let Some(folder) = &args.hf {
        for (name, bytes) in trained.model_folder(&trained.checkpoint()?)? {
            save_in(folder, name, &bytes)?;
        }
    }
    if let Some(folder) = &args.tensorboard {
        save_in(folder, tensorboard::FILE_NAME, &trained.curves()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Can all that is wanted be written? Nothing is, unless all of it can.
fn check(args: &Export) -> Result<(), Failure> {
    let folders = [(&args.hf, FILES.as_slice()), (&args.tensorboard, &[tensorboard::FILE_NAME])];
    let folders: Vec<_> =
        folders.into_iter().filter_map(|(folder, names)| Some((folder.as_ref()?, names))).collect();
    let files: Vec<_> = [&args.full, &args.onnx].into_iter().flatten().collect();
    for path in files.iter().copied().chain(folders.iter().map(|(folder, _)| *folder)) {
        let there = fs::metadata(path);
        if !args.force && (there.is_ok() || fs::symlink_metadata(path).is_ok()) {
            let message = format!("`{}` is there already", path.display());
            return Err(Failure::user(message).hint("choose another name, or replace it with `--force`"));
        }
        if !files.contains(&path) && there.is_ok_and(|meta| !meta.is_dir()) {
            let message = format!("`{}` is no folder", path.display());
            return Err(Failure::user(message).hint("name another place"));
        }
    }
    files.iter().try_for_each(|path| beside(path))?;
    let in_folders = folders.iter().flat_map(|(folder, names)| names.iter().map(|name| folder.join(name)));
    let mut places = BTreeSet::new();
    for path in files.into_iter().cloned().chain(in_folders) {
        if !places.insert(place(&path)) {
            return Err(Failure::user(format!("two things cannot both be `{}`", path.display())));
        }
    }
    Ok(())
}

/// Where a file will be: `./x` is `x`, and so is `y/../x`.
fn place(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = full.parent().and_then(|folder| fs::canonicalize(folder).ok());
    folder.zip(full.file_name()).map_or(full.clone(), |(folder, name)| folder.join(name))
}

/// Errors when there is no folder for a file.
fn beside(path: &Path) -> Result<(), Failure> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        Some(folder) => {
            let message =
                format!("cannot write `{}`: there is no folder `{}`", path.display(), folder.display());
            Err(Failure::user(message).hint("make it first, or name another place"))
        }
        None => Ok(()),
    }
}

/// The result of a training, and of what it needed.
struct Trained {
    pipeline: &'static Pipeline,
    project: Project,
    id: InstanceId,
}

impl Trained {
    /// That of the one instance that is meant, if it is up to date.
    fn find(global: &Global, args: &Export) -> Result<Self, Failure> {
        let (pipeline, project) = super::project(global)?;
        let id = super::one(pipeline, &args.instance)?;
        let name = &pipeline.instances[id].name;
        if pipeline.instances[id].kind.name() != "train" {
            let failure = Failure::user(format!("`{name}` trains no network"));
            return Err(failure.hint("name an instance of kind `train`"));
        }
        let options =
            RunOptions { targets: vec![id], allow_missing: args.allow_missing, ..RunOptions::default() };
        let plan = project.dry_run(pipeline, &options)?;
        // The curves are committed, the weights are not.
        let whole = args.full.is_some() || args.onnx.is_some() || args.hf.is_some();
        let locked = plan.contains(&(id, Standing::Locked));
        if locked && whole {
            let failure =
                Failure::user(format!("not all files of `{name}` are here, only what was committed"));
            return Err(
                failure.hint("`repro pull` takes them from who has them; `repro run` trains it again")
            );
        }
        if !locked && !plan.contains(&(id, Standing::Fresh)) {
            let failure = Failure::user(format!("`{name}` is not up to date"));
            return Err(failure.hint(format!("run `repro{} run {}` first", global.again(), quoted(name))));
        }
        Ok(Self { pipeline, project, id })
    }

    fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        let bytes = read(&self.project.result(self.pipeline, self.id).join("checkpoint.safetensors"))?;
        Checkpoint::from_bytes(&bytes).map_err(refused)
    }

    /// What happened in each epoch.
    fn history(&self) -> Result<Vec<Map<String, Value>>, Failure> {
        let path = self.project.result(self.pipeline, self.id).join("history.jsonl");
        let bytes = read(&path)?;
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| parse(line, &path)).collect()
    }

    /// The curves as TensorBoard reads them, each of loss and accuracy in a group of its own.
    fn curves(&self) -> Result<Vec<u8>, Failure> {
        let names = [
            ("learning_rate", "learning_rate"),
            ("loss/test", "test_loss"),
            ("loss/train", "train_loss"),
            ("accuracy/test", "test_accuracy"),
            ("accuracy/train", "train_accuracy"),
        ];
        let history = self.history()?;
        let scalars = history.iter().flat_map(|row| {
            let step = row.get("epoch").and_then(Value::as_u64).unwrap_or(0);
            names.into_iter().filter_map(move |(tag, key)| {
                Some(Scalar { step, tag, value: row.get(key)?.as_f64()? as f32 })
            })
        });
        // Without times, equal curves are equal files.
        Ok(tensorboard::events(0.0, scalars))
    }

    fn model_folder(&self, checkpoint: &Checkpoint) -> Result<BTreeMap<&'static str, Vec<u8>>, Failure> {
        let needs = &self.pipeline.instances[self.id].needs;
        let data = needs.iter().find(|need| need.role == "data").map_or(self.id, |need| need.from);
        let path = self.project.result(self.pipeline, data).join("dataset.json");
        let description: Description = parse(&read(&path)?, &path)?;
        let last = self.history()?.pop();
        let official = self.pipeline.instances[data].params.recipe.get("sha256");
        let official = official.and_then(toml::Value::as_str) == Some(stages::dataset::SHA256);
        let Model { arch, variant, seed, .. } = &checkpoint.model;
        let k = if checkpoint.mode == Mode::Random { format!("-k{}", checkpoint.k) } else { String::new() };
        let recipe = &self.pipeline.instances[self.id].params.recipe;
        let precision = recipe.get("precision").and_then(|precision| precision.clone().try_into().ok());
        let precision = precision.unwrap_or(Precision::F32);
        let card = Card {
            name: &format!("{arch}-{variant}-{}{k}-seed{seed}", checkpoint.mode),
            dataset: (official && description.is_whole()).then_some("cifar10"),
            classes: &description.classes,
            accuracy: last.and_then(|row| row.get("test_accuracy")?.as_f64()),
            precision,
            license: None,
        };
        model_folder(checkpoint, &card).map_err(refused)
    }
}

/// What `dataset.json` says of the data.
#[derive(Deserialize)]
struct Description {
    classes: Vec<String>,
    train: usize,
    test: usize,
}

impl Description {
    /// Are they as many as CIFAR-10 has?
    fn is_whole(&self) -> bool {
        (self.train, self.test) == (50_000, 10_000)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::user(format!("cannot read `{}`: {e}", ui::path(path))))
}

fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|e| {
        Failure::new(FailureKind::Integrity, format!("`{}` is not what it was: {e}", ui::path(path)))
    })
}

/// A checkpoint that is not what it was; wishes that no file can fulfil are the user's.
fn refused(error: network::Error) -> Failure {
    let kind = match error {
        network::Error::Malformed(_) => FailureKind::Integrity,
        _ => FailureKind::User,
    };
    Failure::new(kind, error.to_string())
}

/// Writes a file of a folder, which need not be there.
fn save_in(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|e| Failure::user(format!("cannot create `{}`: {e}", folder.display())))?;
    save(&folder.join(name), bytes)
}

/// Writes a file, whole or not at all: that at the end of a link, where `path` is one. What is no file (a device, a
/// pipe) is written into and not replaced.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let refused = |e: io::Error| {
        // Its words are of a draft beside it, whose name says nothing.
        let e = if e.get_ref().is_some() { e.kind().into() } else { e };
        Failure::user(format!("cannot write `{}`: {e}", path.display())).hint("name another place")
    };
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(refused(io::ErrorKind::IsADirectory.into())),
        Ok(meta) if meta.is_file() && meta.permissions().readonly() => {
            return Err(refused(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(meta) if !meta.is_file() => {
            return File::options()
                .write(true)
                .open(path)
                .and_then(|mut to| to.write_all(bytes))
                .map_err(refused);
        }
        _ => {
            beside(path)?;
            replace(path, bytes).map_err(refused)?;
        }
    }
    ui::line(&format!("wrote {} ({} bytes)", path.display(), bytes.len()));
    Ok(())
}
