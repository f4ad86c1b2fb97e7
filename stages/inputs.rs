//! What other stages left, opened: datasets, models, checkpoints. Knows only what a [`Job`] names.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
};

use engine::kind::{Input, Job, StageError, Wanted};
use network::{checkpoint::Checkpoint, data::Dataset, model::Model};

/// What the roles are filled with that are read here.
pub(crate) fn wanted(role: &str) -> Option<Wanted> {
    let (kinds, file): (&[_], _) = match role {
        "data" => (&["dataset"], "dataset.bin"),
        "model" => (&["model"], "model.json"),
        "train" => (&["train"], "checkpoint.safetensors"),
        _ => return None,
    };
    Some(Wanted { kinds, file })
}

/// The dataset of role `data`, mapped into memory: several trainings share its pages.
pub(crate) fn dataset(job: &Job<'_>) -> Result<Arc<Dataset>, StageError> {
    let (input, path) = file(job, "data", "dataset.bin")?;
    let mapped = File::open(&path).and_then(|file| {
        // SAFETY: the runner never writes into a finished result: it replaces files by renaming. Who cuts the file
        // while it is read ends this process by a signal, which the runner reports and a next run goes on from.
        #[allow(unsafe_code, reason = "mapping a file is unsafe because others may write to it")]
        unsafe {
            memmap2::Mmap::map(&file)
        }
    });
    let bytes = mapped.map_err(|e| unreadable(input, "data", "dataset.bin", &e))?;
    let opened = Dataset::from_bytes(Arc::new(bytes));
    opened.map(Arc::new).map_err(|e| wrong(input, "data", "dataset.bin", &e))
}

/// The model of role `model`.
pub(crate) fn model(job: &Job<'_>) -> Result<Model, StageError> {
    read(job, "model", "model.json", Model::from_json)
}

/// The checkpoint of role `train`.
pub(crate) fn checkpoint(job: &Job<'_>) -> Result<Checkpoint, StageError> {
    read(job, "train", "checkpoint.safetensors", Checkpoint::from_bytes)
}

/// What the file `name` holds of the input whose role and kind have the same name.
fn read<T>(
    job: &Job<'_>,
    role: &str,
    name: &str,
    read: impl Fn(&[u8]) -> network::Result<T>,
) -> Result<T, StageError> {
    let (input, path) = file(job, role, name)?;
    let bytes = fs::read(path).map_err(|e| unreadable(input, role, name, &e))?;
    read(&bytes).map_err(|e| wrong(input, role, name, &e))
}

/// A network and a dataset only go together when they know equally many classes.
pub(crate) fn same_classes(model: &Model, data: &Dataset) -> Result<(), StageError> {
    let (of_model, of_data) = (model.classes, data.classes().len());
    if of_model == of_data {
        return Ok(());
    }
    Err(StageError::new(format!("the model has {of_model} outputs, the dataset {of_data} classes"))
        .hint(format!("set `classes = {of_data}` in the `model` stage")))
}

fn file<'a>(job: &'a Job<'_>, role: &str, name: &str) -> Result<(&'a Input, PathBuf), StageError> {
    let input = job.input(role)?;
    input.lacks_no(name.as_ref())?;
    Ok((input, input.dir.join(name)))
}

fn unreadable(input: &Input, role: &str, name: &str, cause: &std::io::Error) -> StageError {
    let hint = format!("`{role}` wants an instance of kind `{}`", kind_of(role));
    StageError::new(format!("cannot read {name} of `{}`: {cause}", input.instance)).hint(hint)
}

fn wrong(input: &Input, role: &str, name: &str, cause: &network::Error) -> StageError {
    let kind = kind_of(role);
    let hint = format!(
        "`{role}` wants an instance of kind `{kind}`; if it is one, `repro verify` says what is damaged"
    );
    StageError::new(format!("{name} of `{}` cannot be used: {cause}", input.instance)).integrity().hint(hint)
}

/// The kind that fills a role here.
fn kind_of(role: &str) -> &str {
    if role == "data" { "dataset" } else { role }
}
