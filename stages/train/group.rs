//! Trainings that share a card. Those of one network, mode, batch and dataset step together, as a group, and differ in
//! seed, initialisation and rates; groups train beside each other, each on a stream of its own, because none of them
//! fills the card. Each training has the bits that it would have alone. Knows no kernel.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, RwLock, mpsc::channel},
    thread,
};

use engine::kind::{Group, Job, Kind as _, Params, StageError};
use network::{
    cuda::{
        driver::Card,
        group,
        members::{self, Seat},
    },
    train::saved_within_epoch,
};

use super::{Train, Work, asides, failed, read, saved_by};
use crate::{card, compute};

/// More than so many at once gain nothing more.
const MOST: usize = 16;

/// A job, and its place among all of them.
type Placed<'a, 'b> = (usize, &'a mut Job<'b>);

/// All that compute on a card go together. Those that take longer wait for their like, so as not to keep the card from
/// others.
pub(super) fn of(params: &Params) -> Option<Group> {
    let on_card = compute::gpus(params) > 0 && compute::has_card();
    let epochs = params.recipe.get("epochs").map(ToString::to_string).unwrap_or_default();
    on_card.then(|| Group { key: format!("{epochs} epochs on a card"), most: MOST })
}

/// Runs them beside each other, and then, by themselves, those that could not begin: what is wrong with them, or how many
/// are too many for the memory, shows in halves.
pub(super) fn run(jobs: &mut [Job<'_>]) -> Vec<Result<(), StageError>> {
    // All write their errors to the log of the first.
    let log = jobs.first().map_or_else(String::new, |job| job.instance.to_owned());
    let panicked = || {
        let hint = format!("the log of `{log}`, which ran in the same process, says where");
        Err(StageError::new("the training panicked").hint(hint))
    };
    let mut groups = alike(jobs);
    let results = beside(
        &mut groups,
        |group| if stopped(group) { None } else { open(group).ok() },
        |begun, group| match begun {
            Some((works, together)) => Some(step(together, group, &works, panicked)),
            None => (stopped(group) || unreadable(group)).then(|| halves(group, panicked)),
        },
    );
    let each = groups.into_iter().zip(results).map(|(mut group, results)| {
        let results = match results {
            Some(Some(results)) => results,
            Some(None) => halves(&mut group, panicked),
            None => group.iter_mut().map(|(_, job)| told(job, panicked())).collect(),
        };
        group.into_iter().map(|(place, _)| place).zip(results).collect()
    });
    in_order(each)
}

/// What all groups made, by the places of those that made it.
fn in_order<R>(groups: impl Iterator<Item = Vec<(usize, R)>>) -> Vec<R> {
    let mut each: Vec<_> = groups.flatten().collect();
    each.sort_by_key(|(place, _)| *place);
    each.into_iter().map(|(_, result)| result).collect()
}

/// The jobs by what they must have in common to step together. One that cannot be read is alone, and says so when it runs.
fn alike<'a, 'b>(jobs: &'a mut [Job<'b>]) -> Vec<Vec<Placed<'a, 'b>>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for (place, job) in jobs.iter_mut().enumerate() {
        groups.entry(key(job).map_err(|_| place)).or_default().push((place, job));
    }
    groups.into_values().collect()
}

/// What those have in common that step together.
pub(super) fn key(job: &Job<'_>) -> Result<String, StageError> {
    let Work { model, params, spec, .. } = Work::of(job)?;
    let (data, precision) = (job.input("data")?.dir.display(), params.precision);
    // The steps of all must fall together. So who goes on within an epoch, or may from what was put aside, does that alone,
    // to its end.
    let saved = job.scratch.join(saved_by("cuda"));
    let mut alone = None;
    for place in asides(&saved).iter().chain([&saved]) {
        if read(place)?.is_some_and(|bytes| saved_within_epoch(&bytes)) {
            alone = Some(job.scratch);
        }
    }
    let what = format!("{} {} {:?} {}", model.arch, model.variant, spec.set, params.batch);
    Ok(format!("{what} {precision:?} {data} {alone:?}"))
}

fn stopped(group: &[Placed<'_, '_>]) -> bool {
    group.iter().any(|(_, job)| job.reporter.stop_requested())
}

fn unreadable(group: &[Placed<'_, '_>]) -> bool {
    group.iter().any(|(_, job)| Work::of(job).is_err())
}

/// Has each of `parts` begin, one after the other, and then, when all have, go on, all at the same time; none for one that
/// panicked. So each sees the memory that those before it left, and finds their kernels compiled; and none loads kernels
/// while another one trains, for which it would have to wait. What has begun belongs to its thread, as a graph of a card
/// does.
fn beside<T: Send, B, R: Send>(
    parts: &mut [T],
    begin: impl Fn(&mut T) -> B + Sync,
    go_on: impl Fn(B, &mut T) -> R + Sync,
) -> Vec<Option<R>> {
    let (beginning, one_by_one, all) = (channel::<()>(), Mutex::new(()), RwLock::new(()));
    let (begin, go_on, one_by_one, all) = (&begin, &go_on, &one_by_one, &all);
    thread::scope(|scope| {
        let waiting = all.write();
        let each = parts.iter_mut().map(|part| {
            let beginning = beginning.0.clone();
            scope.spawn(move || {
                let begun = {
                    let _alone = one_by_one.lock().unwrap_or_else(PoisonError::into_inner);
                    begin(part)
                };
                drop(beginning);
                drop(all.read());
                go_on(begun, part)
            })
        });
        let threads: Vec<_> = each.collect();
        drop(beginning.0);
        // Nothing is sent: it ends when all have dropped their ends, also by a panic.
        let _ = beginning.1.recv();
        drop(waiting);
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

/// Alike jobs on the card, before their first step.
fn open(group: &[Placed<'_, '_>]) -> Result<(Vec<Work>, group::Group<Card>), StageError> {
    let works = group.iter().map(|(_, job)| Work::of(job)).collect::<Result<Vec<_>, _>>()?;
    let first = works.first().ok_or_else(|| StageError::new("a group of no trainings"))?;
    let specs: Vec<_> = works.iter().map(|work| work.spec.for_images_of(&work.data)).collect();
    let open = || group::Group::new(&specs, first.data.clone(), Card::open(&card::places())?);
    let group = open().map_err(failed)?;
    Ok((works, group))
}

/// Trains them to their ends. One alone is saved within epochs too.
fn step(
    together: group::Group<Card>,
    group: &mut [Placed<'_, '_>],
    works: &[Work],
    panicked: impl Fn() -> Result<(), StageError>,
) -> Vec<Result<(), StageError>> {
    let within = works.len() == 1;
    let jobs = group.iter_mut().map(|(_, job)| &mut **job).zip(works).collect();
    let one = |(job, work): (&mut Job<'_>, &Work), seat: &Seat| {
        let trainer = seat.trainer();
        job.reporter.note("engine", trainer.describe().into());
        let result = work.train(job, trainer, within);
        told(job, result)
    };
    let results = members::together(together, jobs, one);
    let each = results
        .into_iter()
        .zip(group)
        .map(|(result, (_, job))| result.unwrap_or_else(|| told(job, panicked())));
    each.collect()
}

/// The same, told at once and not when the process ends.
fn told(job: &mut Job<'_>, result: Result<(), StageError>) -> Result<(), StageError> {
    result.inspect_err(|error| job.reporter.failed(error))
}

/// Runs alike jobs, or as many of them as go together.
fn halves(
    group: &mut [Placed<'_, '_>],
    panicked: impl Fn() -> Result<(), StageError> + Copy,
) -> Vec<Result<(), StageError>> {
    if stopped(group) {
        return group.iter_mut().map(|(_, job)| told(job, Err(StageError::interrupted()))).collect();
    }
    match group {
        [] => Vec::new(),
        [(_, job)] => {
            let run = || Train.run(job);
            let result = thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|_| panicked()));
            vec![told(job, result)]
        }
        several => match open(several) {
            Ok((works, together)) => step(together, several, &works, panicked),
            Err(_) => {
                let (some, others) = several.split_at_mut(several.len() / 2);
                halves(some, panicked).into_iter().chain(halves(others, panicked)).collect()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn none_goes_on_before_all_have_begun_one_by_one() {
        let (beginning, begun) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = |part: &mut usize| {
            assert_eq!(beginning.fetch_add(1, Ordering::SeqCst), 0, "one by one");
            thread::sleep(std::time::Duration::from_millis(10));
            beginning.fetch_sub(1, Ordering::SeqCst);
            begun.fetch_add(1, Ordering::SeqCst);
            *part + 1
        };
        let go_on = |next: usize, part: &mut usize| {
            assert_eq!(begun.load(Ordering::SeqCst), 3, "all have");
            *part *= 10;
            next
        };
        let mut parts = [3, 1, 2];
        assert_eq!(beside(&mut parts, begin, go_on), [Some(4), Some(2), Some(3)]);
        assert_eq!(parts, [30, 10, 20]);
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let groups = [vec![(1, "b")], vec![(0, "a"), (3, "d")], vec![(2, "c")]];
        assert_eq!(in_order(groups.into_iter()), ["a", "b", "c", "d"]);
    }

    #[test]
    fn one_that_panics_holds_up_no_other() {
        let begin = |part: &mut usize| assert!(*part > 1, "this one panics as it begins");
        let go_on = |(), part: &mut usize| {
            assert!(*part < 3, "this one later");
            *part
        };
        assert_eq!(beside(&mut [1, 2, 3], begin, go_on), [None, Some(2), None]);
    }
}
