//! Random graphs: whatever was changed, damaged or stopped before, a run ends with what the
//! parameters ask for, and the dry run had said how.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    observer::{Event, Observer},
    plan::Standing,
    project::Project,
    run::RunOptions,
};
use proptest::prelude::*;

use crate::space::{Space, read};

const NAMES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

/// One stage: which of those before it are its inputs, bit by bit.
type Needs = Vec<u8>;

/// Something that happens to a project.
#[derive(Clone, Debug)]
enum Act {
    Set(usize, u32),
    Run,
    /// A run that is stopped at once when so many stages have started.
    Stop(usize),
    Alter(usize),
    Delete(usize),
    DamageObject(usize),
    DeleteIndex,
    DeleteArtifacts,
    DeleteCache,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..NAMES.len(), 0..4u32).prop_map(|(stage, value)| Act::Set(stage, value)),
        4 => Just(Act::Run),
        2 => (0..3usize).prop_map(Act::Stop),
        2 => (0..NAMES.len()).prop_map(Act::Alter),
        2 => (0..NAMES.len()).prop_map(Act::Delete),
        2 => (0..100usize).prop_map(Act::DamageObject),
        1 => Just(Act::DeleteIndex),
        1 => Just(Act::DeleteArtifacts),
        1 => Just(Act::DeleteCache),
    ]
}

/// A project whose stages halve the sum of their parameter and their inputs: a change often stops
/// after a stage or two.
struct Halves {
    space: Space,
    needs: Vec<Vec<usize>>,
    values: Vec<u32>,
}

impl Halves {
    fn new(needs: &Needs) -> Self {
        let before = |(stage, bits): (usize, &u8)| (0..stage).filter(|at| bits >> at & 1 == 1).collect();
        let needs: Vec<Vec<usize>> = needs.iter().enumerate().map(before).collect();
        let stages = needs
            .iter()
            .enumerate()
            .map(|(stage, needs)| (NAMES[stage], String::new(), needs.iter().map(|&at| NAMES[at]).collect()));
        let space = Space::of(stages.collect());
        let mut this = Self { space, values: vec![0; needs.len()], needs };
        (0..this.values.len()).for_each(|stage| this.set(stage, 0));
        this
    }

    fn set(&mut self, stage: usize, value: u32) {
        let inputs = self.needs[stage].iter().map(|at| format!(" + $(cat $IN_S{at}/x)"));
        let run = format!("echo $(( ({value}{}) / 2 )) > $OUT/x", inputs.collect::<String>());
        self.values[stage] = value;
        self.space.edit(NAMES[stage], &run);
    }

    fn expected(&self) -> Vec<u32> {
        let mut results = Vec::new();
        for (needs, value) in self.needs.iter().zip(&self.values) {
            results.push((value + needs.iter().map(|&at| results[at]).sum::<u32>()) / 2);
        }
        results
    }

    fn act(&mut self, act: &Act) {
        let count = self.values.len();
        let artifact = |stage: usize| self.space.path("artifacts").join(NAMES[stage % count]).join("x");
        // What is not there cannot be harmed.
        match *act {
            Act::Set(stage, value) => self.set(stage % count, value),
            Act::Run => assert_eq!(self.space.run().0.exit_code(), 0),
            Act::Stop(after) => self.stop(after),
            Act::Alter(stage) => drop(fs::write(artifact(stage), "77\n")),
            Act::Delete(stage) => drop(fs::remove_file(artifact(stage))),
            Act::DamageObject(number) => self.damage(number),
            Act::DeleteIndex => drop(fs::remove_file(self.space.path(".repro/state"))),
            Act::DeleteArtifacts => drop(fs::remove_dir_all(self.space.path("artifacts"))),
            Act::DeleteCache => drop(fs::remove_dir_all(self.space.path(".repro"))),
        }
    }

    fn stop(&self, after: usize) {
        let options = RunOptions { jobs: 2, ..RunOptions::default() };
        let mut observer = Stopper { left: after, stop: Arc::clone(&options.stop) };
        let project = Project::open(self.space.folder.path()).unwrap();
        let summary = project.run(&self.space.pipeline(), &options, &mut observer).unwrap();
        assert!(summary.failed.is_empty(), "{summary:?}");
    }

    /// Other bytes of the same length.
    fn damage(&self, number: usize) {
        let walk = walkdir::WalkDir::new(self.space.path(".repro/objects")).sort_by_file_name();
        let files = walk.into_iter().flatten().filter(|entry| entry.file_type().is_file());
        let objects: Vec<PathBuf> = files.map(walkdir::DirEntry::into_path).collect();
        if !objects.is_empty() {
            let object = &objects[number % objects.len()];
            let length = fs::read(object).unwrap().len();
            fs::remove_file(object).unwrap();
            fs::write(object, "?".repeat(length)).unwrap();
        }
    }

    /// What a run would do.
    fn plan(&self) -> Vec<(usize, Standing)> {
        let project = Project::open(self.space.folder.path()).unwrap();
        project.dry_run(&self.space.pipeline(), &RunOptions::default()).unwrap()
    }

    /// There is nothing to do only where the dry run says so of every stage.
    fn check_idle(&self) {
        if self.space.nothing_to_do().is_some() {
            let plan = self.plan();
            assert!(plan.iter().all(|(_, standing)| *standing == Standing::Fresh), "{plan:?}");
        }
    }

    /// The dry run's answer against what then happens, and the results against arithmetic.
    fn check(&self) {
        let plan = self.plan();
        let (summary, events) = self.space.run();
        assert_eq!(summary.exit_code(), 0, "{events:?}");
        for (id, standing) in plan {
            let kept = match standing {
                Standing::Fresh => summary.fresh.contains(&id),
                Standing::Restorable(_) => summary.restored.contains(&id),
                Standing::Stale(_) => summary.ran.contains(&id),
                Standing::Locked => false,
                Standing::Waiting(_) => true,
            };
            assert!(kept, "{} was said to be {standing:?}: {summary:?}\n{events:?}", NAMES[id]);
        }
        for (stage, expected) in self.expected().into_iter().enumerate() {
            let place = self.space.path("artifacts").join(NAMES[stage]).join("x");
            assert_eq!(read(&place).trim(), expected.to_string(), "{}", NAMES[stage]);
        }
        assert_eq!(self.space.run().0.fresh.len(), self.values.len());
        // What somebody wrote just now is read once more.
        for _ in 0..200 {
            if self.space.nothing_to_do().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            self.space.run();
        }
        assert_eq!(self.space.nothing_to_do(), Some(self.values.len()));
    }
}

struct Stopper {
    left: usize,
    stop: Arc<AtomicUsize>,
}

impl Observer for Stopper {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Started { .. }) {
            match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => self.stop.store(2, Ordering::Relaxed),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_a_run_ends_with_the_results_of_a_fresh_one(
        needs in prop::collection::vec(any::<u8>(), 2..=NAMES.len()),
        acts in prop::collection::vec(act(), 1..12),
    ) {
        let mut project = Halves::new(&needs);
        for act in &acts {
            project.act(act);
            project.check_idle();
        }
        project.check();
    }
}
