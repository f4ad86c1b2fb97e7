//! The trainings of a group as trainers of their own, each on a thread of its own: what all of them ask for
//! is done at once, so the training loop need not know of groups. They must go through the same steps in the
//! same order; one that ends earlier leaves, and the others go on. Knows no schedule and no files.

use std::{
    collections::VecDeque,
    ops::Range,
    rc::Rc,
    sync::mpsc::{Receiver, Sender, channel},
};

use super::{device::Device, group::Group, trainer::uncounted};
use crate::{
    Error, Result,
    plan::Plan,
    trainer::{Example, Split, State, Tally, Trainer},
};

/// Calls `work` for each of `jobs` on a thread of its own, with the seat of the training of the same number
/// in the group. None for one that panicked.
pub fn together<D: Device, T: Send, R: Send>(
    group: Group<D>,
    jobs: Vec<T>,
    work: impl Fn(T, &Seat) -> R + Sync,
) -> Vec<Option<R>> {
    let (asks, asked) = channel();
    let (names, bytes, work) = ([group.describe(), group.rounding()], group.bytes(), &work);
    std::thread::scope(|scope| {
        let mut answers = Vec::new();
        let mut threads = Vec::new();
        for (number, job) in jobs.into_iter().take(group.len()).enumerate() {
            let (answer, answered) = channel();
            answers.push(answer);
            let (asks, names) = (asks.clone(), names.clone());
            threads.push(scope.spawn(move || {
                work(job, &Seat(Member { number, names, bytes, asks, answers: Rc::new(answered) }))
            }));
        }
        drop(asks);
        Service {
            group,
            queues: answers.iter().map(|_| Some(VecDeque::new())).collect(),
            answers,
            failed: None,
        }
        .serve(&asked);
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

/// A place in the group, until it is dropped.
pub struct Seat(Member);

impl Seat {
    /// Its training; one at a time.
    pub fn trainer(&self) -> Box<dyn Trainer> {
        Box::new(self.0.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nobody listens once the group has ended.
        let _ = self.0.send(Ask::Leave);
    }
}

enum Ask {
    /// Not answered: a failure is the answer to whatever is asked next.
    Step(Vec<Example>, f32),
    Tally,
    Predict(Split, Range<usize>),
    State,
    Restore(Box<State>),
    Leave,
}

enum Answer {
    Done,
    Tally(Tally),
    Logits(Vec<f32>),
    State(State),
}

/// A training of the group.
#[derive(Clone)]
struct Member {
    number: usize,
    /// Of the group: its description, and its rounding.
    names: [String; 2],
    bytes: usize,
    asks: Sender<(usize, Ask)>,
    answers: Rc<Receiver<Result<Answer>>>,
}

impl Member {
    fn send(&self, ask: Ask) -> Result<()> {
        self.asks.send((self.number, ask)).map_err(|_| ended())
    }

    fn ask(&self, ask: Ask) -> Result<Answer> {
        self.send(ask)?;
        self.answers.recv().map_err(|_| ended())?
    }
}

fn ended() -> Error {
    Error::Device("the group of trainings has ended; run again".into())
}

/// An answer to another question cannot come: questions and answers alternate.
fn other<T>(_: Answer) -> Result<T> {
    Err(Error::Invalid("a group of trainings answered what was not asked".into()))
}

impl Trainer for Member {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        self.send(Ask::Step(batch.to_vec(), rate))
    }

    fn take_tally(&mut self) -> Result<Tally> {
        match self.ask(Ask::Tally)? {
            Answer::Tally(tally) => Ok(tally),
            answer => other(answer),
        }
    }

    fn look(
        &mut self,
        split: Split,
        range: Range<usize>,
        zeros: Option<&mut [Vec<u64>]>,
    ) -> Result<Vec<f32>> {
        uncounted(zeros)?;
        match self.ask(Ask::Predict(split, range))? {
            Answer::Logits(logits) => Ok(logits),
            answer => other(answer),
        }
    }

    fn state(&mut self) -> Result<State> {
        match self.ask(Ask::State)? {
            Answer::State(state) => Ok(state),
            answer => other(answer),
        }
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        match self.ask(Ask::Restore(Box::new(state.clone())))? {
            Answer::Done => Ok(()),
            answer => other(answer),
        }
    }

    fn engine(&self) -> &'static str {
        "cuda"
    }

    fn rounding(&self) -> String {
        self.names[1].clone()
    }

    fn describe(&self) -> String {
        format!("cuda engine, {}", self.names[0])
    }

    /// Those of the whole group.
    fn plan(&self) -> Option<Plan> {
        Some(Plan::of_memory(self.bytes))
    }
}

/// The thread that has the group.
struct Service<D> {
    group: Group<D>,
    /// What each has asked for; None for those that left.
    queues: Vec<Option<VecDeque<Ask>>>,
    answers: Vec<Sender<Result<Answer>>>,
    /// Why the steps of all came to nothing.
    failed: Option<String>,
}

impl<D: Device> Service<D> {
    fn serve(mut self, asked: &Receiver<(usize, Ask)>) {
        while let Ok((number, ask)) = asked.recv() {
            if let Some(queue) = &mut self.queues[number] {
                queue.push_back(ask);
            }
            self.alone(number);
            while self.all_wait() {
                self.round();
                (0..self.queues.len()).for_each(|number| self.alone(number));
            }
        }
    }

    /// Does what concerns one alone, as far as it is next.
    fn alone(&mut self, number: usize) {
        while let Some(queue) = &mut self.queues[number]
            && let Some(Ask::State | Ask::Restore(_) | Ask::Leave) = queue.front()
        {
            let answer = match queue.pop_front() {
                Some(Ask::State) => self.group.state(number).map(Answer::State),
                Some(Ask::Restore(state)) => self.group.restore(number, &state).map(|()| Answer::Done),
                _ => {
                    self.queues[number] = None;
                    return;
                }
            };
            self.answer(number, answer);
        }
    }

    /// Has everyone who is there asked for something, and is anyone there?
    fn all_wait(&self) -> bool {
        let mut queues = self.queues.iter().flatten().peekable();
        queues.peek().is_some() && queues.all(|queue| !queue.is_empty())
    }

    /// Does what all ask for next.
    fn round(&mut self) {
        let next = |queue: &mut Option<VecDeque<Ask>>| queue.as_mut().and_then(VecDeque::pop_front);
        let asks: Vec<Option<Ask>> = self.queues.iter_mut().map(next).collect();
        let done = match &self.failed {
            Some(reason) => Err(Error::Device(reason.clone())),
            None => run(&mut self.group, &asks),
        };
        match done {
            Ok(answers) => {
                for (number, answer) in answers.into_iter().enumerate() {
                    if asks[number].is_some() {
                        self.answer(number, Ok(answer));
                    }
                }
            }
            Err(error) => {
                let reason = self.failed.get_or_insert(error.to_string()).clone();
                for (number, ask) in asks.iter().enumerate() {
                    if !matches!(ask, None | Some(Ask::Step(..))) {
                        self.answer(number, Err(Error::Device(reason.clone())));
                    }
                }
            }
        }
    }

    fn answer(&self, number: usize, answer: Result<Answer>) {
        let failed = self.failed.as_ref().map(|reason| Error::Device(reason.clone()));
        // One that panicked listens no more.
        let _ = self.answers[number].send(failed.map_or(answer, Err));
    }
}

/// Does the same for all that ask; those that left go along with what another asks for. Steps have no answers.
fn run<D: Device>(group: &mut Group<D>, asks: &[Option<Ask>]) -> Result<Vec<Answer>> {
    let any = asks.iter().find_map(batch_of).unwrap_or_default();
    let batches: Vec<_> = asks.iter().map(|ask| batch_of(ask).unwrap_or(any)).collect();
    let same = |one: &dyn Fn(&Ask) -> bool| asks.iter().flatten().all(one);
    let first = asks.iter().flatten().next();
    match first {
        Some(Ask::Step(..)) if same(&|ask| matches!(ask, Ask::Step(..))) => {
            let rate = |ask: &Option<Ask>| if let Some(Ask::Step(_, rate)) = ask { *rate } else { 0.0 };
            group.step(&batches, &asks.iter().map(rate).collect::<Vec<_>>())?;
            Ok(Vec::new())
        }
        Some(Ask::Tally) if same(&|ask| matches!(ask, Ask::Tally)) => {
            Ok(group.take_tallies()?.into_iter().map(Answer::Tally).collect())
        }
        Some(Ask::Predict(split, range))
            if same(&|ask| matches!(ask, Ask::Predict(s, r) if s == split && r == range)) =>
        {
            Ok(group.predict(*split, range.clone())?.into_iter().map(Answer::Logits).collect())
        }
        _ => Err(Error::Invalid("the trainings of a group are at different places; train them alone".into())),
    }
}

fn batch_of(ask: &Option<Ask>) -> Option<&[Example]> {
    match ask {
        Some(Ask::Step(batch, _)) => Some(batch),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
