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
    let (input, path, wanted) = file(job, "data")?;
    let mapped = File::open(&path).and_then(|file| {
        // SAFETY: the runner never writes into a finished result: it replaces files by renaming. Who cuts the file
        // while it is read ends this process by a signal, which the runner reports and a next run goes on from.
        #[allow(unsafe_code, reason = "mapping a file is unsafe because others may write to it")]
        unsafe {
            memmap2::Mmap::map(&file)
        }
    });
    let bytes = mapped.map_err(|e| unreadable(input, "data", wanted, &e))?;
    let opened = Dataset::from_bytes(Arc::new(bytes));
    opened.map(Arc::new).map_err(|e| wrong(input, "data", wanted, &e))
}

/// The model of role `model`.
pub(crate) fn model(job: &Job<'_>) -> Result<Model, StageError> {
    read(job, "model", Model::from_json)
}

/// The checkpoint of role `train`.
pub(crate) fn checkpoint(job: &Job<'_>) -> Result<Checkpoint, StageError> {
    read(job, "train", Checkpoint::from_bytes)
}

/// What the file of `role` holds.
fn read<T>(job: &Job<'_>, role: &str, read: impl Fn(&[u8]) -> network::Result<T>) -> Result<T, StageError> {
    let (input, path, wanted) = file(job, role)?;
    let bytes = fs::read(path).map_err(|e| unreadable(input, role, wanted, &e))?;
    read(&bytes).map_err(|e| wrong(input, role, wanted, &e))
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

/// What fills `role`, and the file that is wanted of it.
fn file<'a>(job: &'a Job<'_>, role: &str) -> Result<(&'a Input, PathBuf, Wanted), StageError> {
    let input = job.input(role)?;
    let wanted = wanted(role).ok_or_else(|| StageError::new(format!("`{role}` is not read")))?;
    input.lacks_no(wanted.file.as_ref())?;
    Ok((input, input.dir.join(wanted.file), wanted))
}

fn unreadable(input: &Input, role: &str, wanted: Wanted, cause: &std::io::Error) -> StageError {
    let hint = format!("`{role}` wants an instance of kind `{}`", wanted.kinds[0]);
    StageError::new(format!("cannot read {} of `{}`: {cause}", wanted.file, input.instance)).hint(hint)
}

fn wrong(input: &Input, role: &str, wanted: Wanted, cause: &network::Error) -> StageError {
    let hint = format!(
        "`{role}` wants an instance of kind `{}`; if it is one, `repro verify` says what is damaged",
        wanted.kinds[0]
    );
    StageError::new(format!("{} of `{}` cannot be used: {cause}", wanted.file, input.instance))
        .integrity()
        .hint(hint)
}
