//! How many run at once.

use engine::run::RunOptions;

use crate::space::Space;

#[test]
fn no_more_run_at_once_than_there_are_threads_for() {
    let all = std::thread::available_parallelism().unwrap().get();
    let most = |count: usize, threads: usize, jobs: usize| {
        let stage = |n: usize| {
            let name: &'static str = Box::leak(format!("s{n}").into_boxed_str());
            let run = format!("echo + >> running; sleep 0.2; echo - >> running; echo {n} > $OUT/x");
            (name, run, vec![])
        };
        let space = Space::of((0..count).map(stage).collect());
        let mut pipeline = space.pipeline();
        pipeline.instances.iter_mut().for_each(|instance| instance.resources.threads = threads);
        let options = RunOptions { jobs, ..RunOptions::default() };
        let (summary, events) = crate::common::run(&pipeline, &options);
        assert_eq!(summary.ran.len(), count, "{events:?}");
        space.most_at_once()
    };
    assert!(most(all + 2, 0, 0) <= all);
    // However many may run beside each other.
    assert_eq!(most(3, all, 4), 1);
}
