//! What the machine has to give, and what is given. Knows nothing of stages.

use std::{collections::VecDeque, fs};

use crate::{instance::Resources, machine};

/// What is left.
pub(crate) struct Pool {
    all: Resources,
    threads: usize,
    memory: u64,
    gpus: VecDeque<String>,
    slots: usize,
    /// Were more processes asked for than there are threads? Then a command that asks for none need not have one: it may
    /// wait for something else than a processor.
    crowded: bool,
    /// Do others hand out what this only counts processes of?
    elsewhere: bool,
}

/// What one instance holds.
pub(crate) struct Grant {
    pub(crate) resources: Resources,
    pub(crate) gpus: Vec<String>,
}

impl Pool {
    /// This machine, for at most `jobs` instances at once; 0 means as many as there are threads.
    pub(crate) fn of_machine(jobs: usize) -> Self {
        let threads = machine::threads();
        let memory = machine::memory().map_or(u64::MAX, |[all, _]| all);
        let gpus: VecDeque<String> = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(list) => {
                let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
                // CUDA sees none from the first on that is no card.
                ids.take_while(|id| *id != "-1").map(str::to_owned).collect()
            }
            Err(_) => {
                // A container may have only some of the nodes; CUDA counts them from 0 all the same.
                let nodes = (0..64).filter(|id| fs::exists(format!("/dev/nvidia{id}")).unwrap_or(false));
                (0..nodes.count()).map(|id| id.to_string()).collect()
            }
        };
        let all = Resources { threads, gpus: gpus.len(), memory };
        let slots = if jobs == 0 { threads } else { jobs };
        Self { all, threads, memory, gpus, slots, crowded: slots > threads, elsewhere: false }
    }

    /// Other machines, of which somebody else knows what they have: for at most `jobs` processes at once.
    pub(crate) fn elsewhere(jobs: usize) -> Self {
        let all = Resources { threads: usize::MAX, gpus: usize::MAX, memory: u64::MAX };
        let Resources { threads, memory, .. } = all;
        let (gpus, slots) = (VecDeque::new(), jobs.max(1));
        Self { all, threads, memory, gpus, slots, crowded: false, elsewhere: true }
    }

    /// The threads of a stage that asks for none, while it runs.
    pub(crate) fn least(&self, command: bool) -> usize {
        usize::from(!(self.crowded && command))
    }

    /// Is it not this machine that gives?
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Processes that may run at once.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// GPUs in all.
    pub(crate) fn gpus(&self) -> usize {
        self.all.gpus
    }

    /// How many that want so much could start now, each on GPUs of its own; at least one.
    pub(crate) fn parts(&self, wanted: Resources) -> usize {
        let threads = self.threads.checked_div(wanted.threads.min(self.all.threads)).unwrap_or(usize::MAX);
        let gpus = if self.elsewhere { usize::MAX } else { self.gpus.len() };
        let gpus = gpus.checked_div(wanted.gpus).unwrap_or(1);
        self.slots.min(threads).min(gpus).max(1)
    }

    /// The threads of each of `parts` that start now, if those that are free are shared out; at least one. One of many
    /// can be `kept` for others.
    pub(crate) fn spare(&self, parts: usize, kept: bool) -> usize {
        let kept = usize::from(kept && self.threads > 3);
        ((self.threads - kept) / parts.clamp(1, self.slots.max(1))).max(1)
    }

    /// How many that want so much memory each, from the first on, have room together; at least one.
    pub(crate) fn room(&self, wanted: impl Iterator<Item = u64>) -> usize {
        let mut left = self.memory;
        let fits = |memory: &u64| {
            let rest = left.checked_sub(*memory);
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        wanted.take_while(fits).count().max(1)
    }

    /// Is a share free? Who wants more threads or memory than there are gets all.
    pub(crate) fn fits(&self, wanted: Resources) -> bool {
        let (threads, memory) = (wanted.threads.min(self.all.threads), wanted.memory.min(self.all.memory));
        let gpus = self.elsewhere || wanted.gpus <= self.gpus.len();
        self.slots > 0 && threads <= self.threads && memory <= self.memory && gpus
    }

    /// Takes a share, if it is free.
    pub(crate) fn take(&mut self, wanted: Resources) -> Option<Grant> {
        if !self.fits(wanted) {
            return None;
        }
        let (threads, memory) = (wanted.threads.min(self.all.threads), wanted.memory.min(self.all.memory));
        self.slots -= 1;
        self.threads -= threads;
        self.memory -= memory;
        let gpus = if self.elsewhere { Vec::new() } else { self.gpus.drain(..wanted.gpus).collect() };
        Some(Grant { resources: Resources { threads, gpus: wanted.gpus, memory }, gpus })
    }

    /// Takes a share back.
    pub(crate) fn give(&mut self, share: Grant) {
        self.slots += 1;
        self.threads += share.resources.threads;
        self.memory += share.resources.memory;
        self.gpus.extend(share.gpus);
    }

    /// Can nothing more start, whatever it wants?
    pub(crate) fn exhausted(&self) -> bool {
        self.slots == 0 || (self.threads == 0 && !self.crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_in_bytes() {
        // No machine that builds this has less, and none has so many MiB.
        let memory = Pool::of_machine(1).all.memory;
        assert!(memory > 1 << 28, "{memory}");
    }

    #[test]
    fn no_more_threads_are_given_away_than_there_are() {
        let (threads, memory) = (4, 10);
        let all = Resources { threads, gpus: 0, memory };
        let gpus = VecDeque::new();
        let mut pool = Pool { all, threads, memory, gpus, slots: 9, crowded: false, elsewhere: false };
        let wants = |threads| Resources { threads, ..Resources::default() };
        let three = pool.take(wants(3)).unwrap();
        assert_eq!([wants(1), wants(2), wants(99)].map(|wanted| pool.fits(wanted)), [true, false, false]);
        assert!(pool.take(wants(2)).is_none() && !pool.exhausted());
        let one = pool.take(wants(1)).unwrap();
        assert!(pool.take(wants(1)).is_none() && pool.exhausted());
        pool.give(one);
        pool.give(three);
        // Who wants more than there are gets all.
        let whole = pool.take(wants(99)).unwrap();
        assert!(whole.resources.threads == 4 && pool.exhausted());
    }

    #[test]
    fn as_many_run_as_there_are_threads_and_only_commands_may_be_more() {
        let pool = Pool::of_machine(0);
        let threads = pool.all.threads;
        assert_eq!((pool.slots(), threads), (threads, machine::threads()));
        assert_eq!([true, false].map(|command| pool.least(command)), [1, 1]);
        let crowded = Pool::of_machine(threads + 1);
        assert_eq!([true, false].map(|command| crowded.least(command)), [0, 1]);
        assert_eq!(crowded.slots(), threads + 1);
    }

    #[test]
    fn free_threads_are_shared_by_those_that_start() {
        let pool = |threads, slots| Pool { threads, slots, ..Pool::of_machine(1) };
        assert_eq!([1, 2, 3, 5, 16, 17].map(|parts| pool(16, 16).spare(parts, false)), [16, 8, 5, 3, 1, 1]);
        assert_eq!(
            [(16, 1), (16, 4), (4, 1), (3, 1), (1, 1)].map(|(free, parts)| pool(free, 16).spare(parts, true)),
            [15, 3, 3, 3, 1]
        );
        // No more can start at once than there are slots.
        assert_eq!(
            [pool(16, 1).spare(9, false), pool(16, 2).spare(9, false), pool(0, 0).spare(1, true)],
            [16, 8, 1]
        );
    }

    #[test]
    fn as_many_share_a_process_as_have_room_in_memory() {
        let pool = Pool { memory: 10, ..Pool::of_machine(1) };
        let room = |wanted: &[u64]| pool.room(wanted.iter().copied());
        assert_eq!([room(&[1; 12]), room(&[3; 12]), room(&[10; 2]), room(&[11; 2])], [10, 3, 1, 1]);
        assert_eq!([room(&[0; 12]), room(&[0, 4, 6, 1, 0]), room(&[0, 11])], [12, 3, 1]);
    }
}
