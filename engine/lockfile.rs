//! `pipeline.lock`: every instance's recipe and result digests beside the pipeline file, so that
//! two clones can compare. Written once at the end of a run. Knows nothing of running.

use std::{fmt::Write, fs, path::PathBuf};

use toml::{Table, Value};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    instance::Pipeline,
    project::key,
    state::{Entry, State},
    store::write_whole,
};

const HEAD: &str =
    "# Made by `repro run`; commit it. Recipe and result digests (BLAKE3) of every instance.\n\n";

/// Brings the pipeline's section of the lock file up to date: `current` says which of the shown
/// results are today's. Others keep their lines; those of instances that are gone go.
pub(crate) fn write(pipeline: &Pipeline, current: &[bool], state: &mut State) -> Result<(), EngineError> {
    let place = pipeline.root.join(&pipeline.file).with_extension("lock");
    let section = pipeline.profile.as_deref().unwrap_or("default");
    let entry = |id: usize, state: &State| {
        if current[id] { state.results.get(&key(pipeline, id)).cloned() } else { None }
    };
    let mut said = section.to_owned();
    for (id, instance) in pipeline.instances.iter().enumerate() {
        let recipe = entry(id, state).map(|entry| entry.recipe);
        let _ = writeln!(said, "{} {recipe:?}", instance.name);
    }
    let said = Digest::of(&said);
    let memory: PathBuf = place.join(section);
    if let (Ok(stamp), Some(written)) = (Stamp::of(&place), state.locks.get(&memory))
        && *written == (stamp, said)
    {
        return Ok(());
    }
    let mut whole: Table =
        fs::read_to_string(&place).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut old = match whole.remove(section) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    };
    let mut new = Table::new();
    for (id, instance) in pipeline.instances.iter().enumerate() {
        let value = entry(id, state).map(|entry| describe(&entry)).or_else(|| old.remove(&instance.name));
        if let Some(value) = value {
            new.insert(instance.name.clone(), value);
        }
    }
    if !new.is_empty() {
        whole.insert(section.to_owned(), Value::Table(new));
    }
    let text = toml::to_string(&whole).map_err(std::io::Error::other).context("encode", &place)?;
    let text = format!("{HEAD}{text}");
    if fs::read_to_string(&place).ok().as_deref() != Some(&text) {
        write_whole(&place, text.as_bytes())?;
    }
    let stamp = Stamp::of(&place).context("read", &place)?;
    state.locked(memory, stamp, said)
}

fn describe(entry: &Entry) -> Value {
    let mut outputs = Table::new();
    for file in &entry.files {
        let size = Value::Integer(i64::try_from(file.stamp.size).unwrap_or(i64::MAX));
        let both = Table::from_iter([
            ("blake3".to_owned(), Value::String(file.digest.to_string())),
            ("size".to_owned(), size),
        ]);
        outputs.insert(file.path.clone(), Value::Table(both));
    }
    Value::Table(Table::from_iter([
        ("recipe".to_owned(), Value::String(entry.recipe.to_string())),
        ("outputs".to_owned(), Value::Table(outputs)),
    ]))
}
