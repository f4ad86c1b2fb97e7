//! One file per command. Each is a thin line from the arguments to the runner to [`crate::ui`].

mod bench;
mod completions;
mod dag;
mod diff;
mod doctor;
mod explain;
mod export;
mod gc;
mod metrics;
mod over;
mod params;
mod past;
mod plan;
mod pull;
mod push;
mod report;
mod run;
mod schema;
mod status;
mod verify;

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use engine::{
    idle::Question,
    instance::{InstanceId, Pipeline},
    machine::Machine,
    pipeline::{self, LoadOptions, load, load_text, select},
    place::{link_below, read_at_most},
    plan::{Standing, Why},
    project::Project,
    share::Share,
};

use crate::{
    args::{Args, Command, FILE, Global, Metrics, Unread},
    error::Failure,
    owner, ui,
};

/// Does what the command line says.
pub(crate) fn dispatch(args: &mut Args) -> Result<ExitCode, Failure> {
    if let Some(directory) = &args.global.directory {
        std::env::set_current_dir(directory)
            .map_err(|e| Failure::user(format!("cannot work in `{}`: {e}", directory.display())))?;
    }
    match args.unread {
        None => owner::check(&args.global.file)?,
        Some(unread) => refuse_unread(unread, args)?,
    }
    if let Some(file) = above(&args.global.file) {
        args.global.file = file;
    }
    let global = &args.global;
    match &args.command {
        Command::Run(run) => run::run(global, run),
        Command::Status { instances, allow_missing, quiet, json } => {
            status::status(global, instances, *allow_missing, [*quiet, *json])
        }
        Command::Explain { instance, allow_missing, json } => {
            explain::explain(global, instance, *allow_missing, *json)
        }
        Command::Export(args) => export::export(global, args),
        Command::Metrics(metrics @ Metrics { past: false, .. }) => metrics::metrics(global, metrics),
        Command::Metrics(metrics @ Metrics { past: true, .. }) => past::past(global, metrics),
        Command::Params(listing) => params::params(global, listing),
        Command::Report { output } => report::report(global, output.as_deref()),
        Command::Verify { json } => verify::verify(global, *json),
        Command::Gc { apply, keep_days, json } => gc::gc(global, *apply, *keep_days, *json),
        Command::Push { folder, instances } => push::push(global, folder, instances),
        Command::Pull(pull) => pull::pull(global, pull),
        Command::Dag { mermaid, dot, json } => dag::dag(global, *mermaid, *dot, *json),
        Command::Plan(options) => plan::plan(options),
        Command::Bench { what } => bench::bench(what),
        Command::Doctor { json } => doctor::doctor(global, *json),
        Command::Schema { md } => schema::schema(*md),
        Command::Completions { shell } => completions::completions(*shell),
    }
}

/// Errors when an option stands before or behind a command that does not read it. A profile may come from the environment.
fn refuse_unread((command, options): Unread, args: &Args) -> Result<(), Failure> {
    let Global { file, sets, .. } = &args.global;
    let given = [
        ("file", "file", file != Path::new(FILE)),
        ("profile", "profile", args.names_profile),
        ("sets", "set", !sets.is_empty()),
    ];
    match given.into_iter().find(|(id, _, given)| *given && options.contains(id)) {
        None => Ok(()),
        Some((_, option, _)) => {
            Err(Failure::user(format!("`repro {command}` reads no pipeline; leave out `--{option}`")))
        }
    }
}

/// The pipeline file of the project around this folder, where `file` is none here and no other was asked for.
fn above(file: &Path) -> Option<PathBuf> {
    if file != Path::new(FILE) || file.exists() {
        return None;
    }
    let found = pipeline::root_of(file).join(FILE);
    found.is_file().then_some(found)
}

/// Reads the pipeline that the options name and opens its project.
fn project(global: &Global) -> Result<(&'static Pipeline, Project), Failure> {
    let pipeline = pipeline(global)?;
    let project = Project::open(&pipeline.root)?;
    Ok((pipeline, project))
}

/// A pipeline file that is not read further yet: when nothing has changed, it need not be.
struct Asked {
    options: LoadOptions,
    source: String,
    project: Project,
    question: Option<Question>,
}

impl Asked {
    /// What is not in the project's cache may be in the folder `beside` it.
    fn of(global: &Global, beside: Option<&Path>) -> Result<Self, Failure> {
        let options = options(global);
        let source = pipeline::read(&options.file)?;
        let beside = beside.map(Share::open).transpose()?;
        let project = Project::open_beside(&pipeline::root_of(&options.file), beside)?;
        let question = Question::new(&source, &options, &this_program()?);
        Ok(Self { options, source, project, question })
    }

    /// The number of instances, if all are known to be fresh.
    fn fresh(&self) -> Option<usize> {
        self.project.nothing_to_do(self.question.as_ref()?)
    }

    fn read(self) -> Result<(&'static Pipeline, Project, Option<Question>), Failure> {
        let pipeline = load_text(self.source, &self.options, &stages::kinds())?;
        if pipeline.instances.is_empty() {
            let profiles: Vec<_> =
                pipeline.profiles.iter().map(|name| format!("`--profile {name}`")).collect();
            let hint = match profiles.as_slice() {
                [] => "write `[stage.NAME]`; docs/pipeline.md has an example".to_owned(),
                some => format!("perhaps a profile adds some: {}", some.join(", ")),
            };
            let message = format!("`{}` has no stage to run", ui::path(&self.options.file));
            return Err(Failure::user(message).hint(hint));
        }
        Ok((keep(pipeline), self.project, self.question))
    }
}

/// The beginning of the commit that was checked out, and whether something had changed since.
fn commit(machine: &Machine) -> Option<(String, bool)> {
    Some((machine.commit.as_ref()?.chars().take(7).collect(), machine.dirty == Some(true)))
}

/// The program that stages run in: this very one, even if its file is replaced meanwhile.
fn this_program() -> Result<PathBuf, Failure> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return Ok(link);
    }
    this_file()
}

/// The file that it was started from, which other machines may see too.
fn this_file() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::user(format!("cannot find this program's own file: {e}")))
}

/// Reads the pipeline that the options name.
fn pipeline(global: &Global) -> Result<&'static Pipeline, Failure> {
    Ok(keep(load(&options(global), &stages::kinds())?))
}

/// Lets a pipeline live as long as the program: freeing ten thousand instances one by one would be a good part of
/// many a command.
fn keep(pipeline: Pipeline) -> &'static Pipeline {
    Box::leak(Box::new(pipeline))
}

fn options(global: &Global) -> LoadOptions {
    let Global { file, profile, sets, .. } = global;
    LoadOptions { file: file.clone(), profile: profile.clone(), sets: sets.clone() }
}

/// The instances that the words on the command line mean, each once, in order; all of them where
/// there are no words.
fn selected_or_all(pipeline: &Pipeline, names: &[String]) -> Result<Vec<InstanceId>, Failure> {
    if names.is_empty() { Ok((0..pipeline.instances.len()).collect()) } else { selected(pipeline, names) }
}

/// The instances that the words on the command line mean, each once, in order.
fn selected(pipeline: &Pipeline, names: &[String]) -> Result<Vec<InstanceId>, Failure> {
    let mut ids = Vec::new();
    for name in names {
        ids.extend(select(pipeline, name).map_err(Failure::user)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The one instance that a word on the command line means.
fn one(pipeline: &Pipeline, name: &str) -> Result<InstanceId, Failure> {
    let ids = select(pipeline, name).map_err(Failure::user)?;
    let &[id] = ids.as_slice() else {
        let message = format!("`{name}` means {} instances: {}", ids.len(), names(pipeline, &ids));
        return Err(Failure::user(message).hint("name one of them; quote it for the shell"));
    };
    Ok(id)
}

/// The words for where instances stand.
const WORDS: [&str; 6] = ["fresh", "restorable", "locked", "running", "stale", "waiting"];

/// Where an instance stands, in a word.
pub(crate) fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Fresh => "fresh",
        Standing::Restorable(_) => "restorable",
        Standing::Locked => "locked",
        Standing::Stale(whys) if whys.contains(&Why::Running) => "running",
        Standing::Stale(_) => "stale",
        Standing::Waiting(_) => "waiting",
    }
}

/// How many stand where, by its word; the words that fit none are left out.
pub(crate) fn counted<'a>(standings: impl Iterator<Item = &'a Standing>) -> Vec<(usize, &'static str)> {
    let mut counts = WORDS.map(|word| (0, word));
    for word in standings.map(word) {
        counts.iter_mut().filter(|(_, other)| *other == word).for_each(|(count, _)| *count += 1);
    }
    counts.into_iter().filter(|(count, _)| *count > 0).collect()
}

/// Where instances stand for who asks what is shown, and not what would run: the lock file confirms what is there. One
/// that cannot be read confirms nothing.
fn standings(project: &Project, pipeline: &Pipeline) -> Result<Vec<Standing>, Failure> {
    Ok(project.status(pipeline, true).or_else(|_| project.status(pipeline, false))?)
}

/// Why an instance stands where it does; nothing of one that is fresh.
fn why(pipeline: &Pipeline, standing: &Standing) -> String {
    match standing {
        Standing::Fresh => String::new(),
        Standing::Locked => "what is there is as the lock file says".to_owned(),
        Standing::Restorable(touched) => restorable(touched.as_ref(), None),
        Standing::Stale(whys) => reasons(whys),
        Standing::Waiting(on) => format!("for {}", names(pipeline, on)),
    }
}

/// Why an instance is to be restored, from the cache or what lies `beside` it.
fn restorable(touched: Option<&Why>, beside: Option<&Path>) -> String {
    let beside = beside.map_or_else(String::new, |folder| format!(" or `{}`", folder.display()));
    match touched {
        Some(why @ Why::NotPublished(_)) => format!("{why}; a run writes it"),
        Some(why @ Why::NotRemoved(_)) => format!("{why}; a run removes it"),
        Some(why) => format!("{why}; the cache{beside} holds its result"),
        None => format!("the cache{beside} holds its result"),
    }
}

/// Why an instance is stale. The recipe of what joins many inputs may have changed in a hundred lines; `explain` shows
/// them all.
fn reasons(whys: &[Why]) -> String {
    const SHOWN: usize = 4;
    let each = |why: &Why| match why {
        Why::Changed(changes) if changes.len() > SHOWN => {
            let (first, more) = (Why::Changed(changes[..SHOWN].to_vec()), changes.len() - SHOWN);
            format!("{first}; and {more} more, which `repro explain` shows")
        }
        why => why.to_string(),
    };
    told(whys).map(each).collect::<Vec<_>>().join("; ")
}

/// The same, one by one and whole, for programs.
fn each_reason(standing: &Standing) -> Vec<String> {
    match standing {
        Standing::Stale(whys) => told(whys).map(ToString::to_string).collect(),
        Standing::Restorable(touched) => touched.iter().map(ToString::to_string).collect(),
        Standing::Fresh | Standing::Locked | Standing::Waiting(_) => Vec::new(),
    }
}

/// Those that the word for where it stands does not say.
fn told(whys: &[Why]) -> impl Iterator<Item = &Why> {
    whys.iter().filter(|why| **why != Why::Running)
}

/// A few instances by name.
fn names(pipeline: &Pipeline, ids: &[InstanceId]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> =
        ids.iter().take(SHOWN).map(|&id| format!("`{}`", pipeline.instances[id].name)).collect();
    let more = ids.len().saturating_sub(SHOWN);
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

/// A file of the result in `folder`, if it is there. What others get to see must be nothing else: a link in a result,
/// as a clone may bring one, could lead to whatever there is.
fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    const LARGEST: u64 = 32 << 20;
    let path = folder.join(name);
    let read = match link_below(folder, &path) {
        Some(_) => Err(io::Error::other("a link leads to it")),
        None => read_at_most(&path, LARGEST),
    };
    match read {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            ui::note(&format!("warning: `{}` cannot be read ({error}); it is left out", ui::path(&path)));
            None
        }
    }
}
