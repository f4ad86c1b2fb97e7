//! Trainings that share a card: those of one network, mode, batch and dataset step together, and differ in
//! seed, initialisation and rates. Each has the bits that it would have alone. Knows no kernel.

use std::{collections::BTreeMap, fs};

use engine::kind::{Group, Input, Job, Kind as _, Params, StageError};
use network::{
    cuda::{
        driver::Card,
        group,
        members::{Seat, together},
    },
    model::Model,
    train::saved_within_epoch,
};
use serde::Deserialize as _;

use super::{Train, TrainParams, Work, failed, read, saved_by};
use crate::{card, compute};

/// More than so many at once gain nothing more.
const MOST: usize = 16;

/// What trainings must have in common to go together; None where they do not compute on a card.
pub(super) fn of(params: &Params, inputs: &BTreeMap<String, Vec<Input>>) -> Option<Group> {
    if compute::gpus(params) == 0 || !compute::has_card() {
        return None;
    }
    let read = TrainParams::deserialize(toml::Value::Table(params.recipe.clone())).ok()?;
    let only = |role: &str| inputs.get(role)?.first().map(|input| &input.dir);
    let model = Model::from_json(&fs::read(only("model")?.join("model.json")).ok()?).ok()?;
    let TrainParams { mode, k, batch, precision, .. } = &read;
    let shortcut_bn = read.shortcut_bn.train();
    let (arch, variant, data) = (model.arch, model.variant, only("data")?.display());
    let key = format!("{arch} {variant} {} {k} {shortcut_bn:?} {batch} {precision:?} {data}", mode.0);
    Some(Group { key, most: MOST })
}

/// Runs them together, or as many of them as go together.
pub(super) fn run(jobs: &mut [Job<'_>]) -> Vec<Result<(), StageError>> {
    if let [job] = jobs {
        return vec![Train.run(job)];
    }
    all(jobs).unwrap_or_else(|_| {
        // Which of them it is that cannot, or how many are too many for the memory, shows in halves.
        let (some, others) = jobs.split_at_mut(jobs.len() / 2);
        run(some).into_iter().chain(run(others)).collect()
    })
}

/// Fails before anything is trained, or not as a whole.
fn all(jobs: &mut [Job<'_>]) -> Result<Vec<Result<(), StageError>>, StageError> {
    for job in &*jobs {
        // The steps of all must fall together. So who goes on within an epoch does that alone, to its end; and here
        // nothing is saved within one.
        if read(&job.scratch.join(saved_by("cuda")))?.is_some_and(|bytes| saved_within_epoch(&bytes)) {
            return Err(StageError::new("it goes on within an epoch"));
        }
    }
    let works = jobs.iter().map(Work::of).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = works.first() else { return Ok(Vec::new()) };
    let specs: Vec<_> = works.iter().map(|work| work.spec.for_images_of(&work.data)).collect();
    let open = || group::Group::new(&specs, first.data.clone(), Card::open(&card::places())?);
    let group = open().map_err(failed)?;
    let name = jobs.first().map_or_else(String::new, |job| job.instance.to_owned());
    let jobs = jobs.iter_mut().zip(&works).collect();
    let results = together(group, jobs, |(job, work): (&mut Job<'_>, &Work), seat| one(job, work, seat));
    // All write their errors to the log of the first.
    let log = format!("the log of `{name}`, which ran in the same process, says where");
    let panicked = || Err(StageError::new("the training panicked").hint(log.as_str()));
    Ok(results.into_iter().map(|result| result.unwrap_or_else(panicked)).collect())
}

fn one(job: &mut Job<'_>, work: &Work, seat: &Seat) -> Result<(), StageError> {
    let trainer = seat.trainer();
    job.reporter.note("engine", trainer.describe().into());
    work.train(job, trainer, false)
}
