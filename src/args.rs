//! The command line, as types. Knows nothing of what the commands do.

mod bench;

use std::{
    convert::Infallible,
    ffi::OsString,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};

pub(crate) use bench::{Bench, BenchKernels, BenchStep, Device, Engine, Plan, Precision, Work};

/// Reproduces "Training BatchNorm and Only BatchNorm" from one declarative file.
#[derive(Debug, Parser)]
#[command(name = "repro", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = FIRST)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Of a command that reads no pipeline.
    #[arg(skip)]
    pub(crate) unread: Option<Unread>,
    /// Does the command line name a profile, and not the environment?
    #[arg(skip)]
    pub(crate) names_profile: bool,
}

/// A command, and the global options that it does not read.
pub(crate) type Unread = (&'static str, &'static [&'static str]);

/// The commands that read no pipeline. Of the file `doctor` takes the folder.
const UNREAD: [Unread; 5] = [
    ("plan", &["file", "profile", "sets"]),
    ("bench", &["file", "profile", "sets"]),
    ("schema", &["file", "profile", "sets"]),
    ("completions", &["file", "profile", "sets"]),
    ("doctor", &["profile", "sets"]),
];

/// The pipeline file, when no other is named.
pub(crate) const FILE: &str = "pipeline.toml";

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pipeline")]
pub(crate) struct Global {
    /// The pipeline file; without one here, that of the nearest folder above
    #[arg(short, long, global = true, value_name = "FILE", default_value = FILE)]
    pub(crate) file: PathBuf,
    /// Lay `[profile.NAME]` over the file
    #[arg(long, global = true, value_name = "NAME", env = "REPRO_PROFILE")]
    pub(crate) profile: Option<String>,
    /// Override a parameter, such as `epochs=10`, or a stage's, such as
    /// `stage.train.learning_rate=0.2`; a list or range (`0..5`) for a stage's parameter sweeps (repeatable)
    #[arg(short = 'S', long = "set", global = true, value_name = "KEY=VALUE", value_parser = set)]
    pub(crate) sets: Vec<String>,
    /// Work in this folder
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

impl Global {
    /// What has to stand before a command that is about the same pipeline: nothing, or a space and options.
    pub(crate) fn again(&self) -> String {
        let directory = self.directory.as_ref().map(|path| ("-C", path.display().to_string()));
        let file = Some(&self.file).filter(|file| file.as_os_str() != FILE);
        let file = file.map(|path| ("-f", path.display().to_string()));
        let profile = self.profile.as_ref().map(|name| ("--profile", name.clone()));
        let sets = self.sets.iter().map(|set| ("-S", set.clone()));
        let shown = |(option, value): (&str, String)| format!(" {option} {}", quoted(&value));
        directory.into_iter().chain(file).chain(profile).chain(sets).map(shown).collect()
    }
}

/// A word as a shell has to be given it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    let bare = !word.is_empty() && word.chars().all(plain);
    if bare { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A command line to which another one can be added.
fn launcher(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.ends_with([';', '&', '|', '#']) || text.contains('\n') {
        return Err(
            "name one program with its options, such as `srun -n 1`, or a script that does more".into()
        );
    }
    Ok(text.to_owned())
}

/// The settings in the order in which they stand: of a global option that may be repeated, clap keeps only what
/// stands behind the command where something does.
static SETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes a setting; clap asks once for each.
fn set(text: &str) -> Result<String, Infallible> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    Ok(text.to_owned())
}

/// The command line. What a command does not read is not in its help.
pub(crate) fn command() -> clap::Command {
    let command = Args::command();
    let hidden: Vec<_> =
        command.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.clone().hide(true)).collect();
    let hide = |command: clap::Command, (name, options): Unread| {
        let hidden = hidden.iter().filter(|arg| options.contains(&arg.get_id().as_str())).cloned();
        command.mut_subcommand(name, |command| command.args(hidden))
    };
    UNREAD.into_iter().fold(command, hide)
}

/// The words of this process. Who asks `repro help -h` for help wants that of `repro help`, which knows no options.
fn words() -> Vec<OsString> {
    let mut words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "help") {
        words.retain(|word| word != "-h" && word != "--help");
    }
    words
}

/// The arguments of this process.
pub(crate) fn parse() -> Args {
    let matches = command().get_matches_from(words());
    let read = Args::from_arg_matches(&matches);
    let mut args = read.unwrap_or_else(|error| error.format(&mut command()).exit());
    args.unread = UNREAD.into_iter().find(|(name, _)| matches.subcommand_name() == Some(*name));
    args.names_profile = matches.value_source("profile") == Some(ValueSource::CommandLine);
    args.global.profile.take_if(|name| name.is_empty()); // `REPRO_PROFILE=` means none
    args.global.sets = std::mem::take(&mut *SETS.lock().unwrap_or_else(PoisonError::into_inner));
    args
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the stages up to date: run what changed, restore what the cache holds
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Show what is fresh and what is not, and why
    Status {
        /// Only these: stages, instances, or stages with some of their axes
        #[arg(value_name = "INSTANCE")]
        instances: Vec<String>,
        /// In a clone: believe the lock file where it has today's recipe and what is there is as it says, as `repro run`
        /// does with this option
        #[arg(long)]
        allow_missing: bool,
        /// Print nothing; exit with 1 when something is not fresh
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare line by line the recipe of an instance's result with today's
    Explain {
        /// The instance
        instance: String,
        /// In a clone: believe the lock file, as `repro status` does with this option
        #[arg(long)]
        allow_missing: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a trained network for other programs
    Export(Export),
    /// Show the numbers that the results hold, as a table
    #[command(after_help = METRICS_EXAMPLES)]
    Metrics(Metrics),
    /// Show every parameter of every instance, defaults included, as a table
    Params(Listing),
    /// Write everything about the results of the pipeline, under its profile, into one HTML file that needs no network
    Report {
        /// The file, which is replaced [default: report.html]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read every result of the pipeline, under its profile, and compare it with its digest; exit with 3 when one is
    /// damaged
    Verify {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show cached data that no current result, lock file (any branch) or recent run needs
    Gc {
        /// Delete it
        #[arg(long)]
        apply: bool,
        /// Keep what was made or restored within so many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        keep_days: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy results into a folder that clones share, and what unfinished stages can go on from
    #[command(after_help = SHARE)]
    Push {
        /// The folder, made where it is missing
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Only these: stages, instances, or stages with some of their axes
        #[arg(value_name = "INSTANCE")]
        instances: Vec<String>,
    },
    /// Bring results here from a folder that clones share, or from another clone; runs nothing
    #[command(after_help = SHARE)]
    Pull(Pull),
    /// Show the stages and what each one needs
    Dag {
        /// As a Mermaid flowchart
        #[arg(long, conflicts_with_all = ["dot", "json"])]
        mermaid: bool,
        /// As a Graphviz graph
        #[arg(long, conflicts_with = "json")]
        dot: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a training step costs: its operations, their arithmetic and bytes, the buffers
    Plan(Plan),
    /// Measure how fast this machine computes
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Show what this machine has: processor, memory, GPUs, cache folder
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of pipeline files
    Schema {
        /// The parameters of each stage kind instead, as Markdown tables
        #[arg(long)]
        md: bool,
    },
    /// Print a completion script
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Options of `repro metrics`.
#[derive(Debug, clap::Args)]
#[command(subcommand_precedence_over_arg = true)]
pub(crate) struct Metrics {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// All that the cache has, whatever pipeline file, profile or setting it was made under: when, with which commit
    /// checked out, and with the parameters and files that not all of them have in common
    #[arg(long)]
    pub(crate) past: bool,
    /// Results that differ in this axis alone as one: means, standard deviations (`sd`) and how many they are (repeatable)
    #[arg(long, value_name = "AXIS", conflicts_with = "past")]
    pub(crate) over: Vec<String>,
    /// In order of this metric or axis, the largest at the end; with `--past`, of a parameter
    #[arg(long, value_name = "NAME")]
    pub(crate) sort: Option<String>,
}

/// Options of `repro metrics` and `repro params`.
#[derive(Debug, clap::Args)]
#[command(subcommand_precedence_over_arg = true)]
pub(crate) struct Listing {
    #[command(subcommand)]
    pub(crate) diff: Option<Diff>,
    /// Only these: stages, instances, or stages with some of their axes
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Before or after `diff`.
    #[command(flatten)]
    pub(crate) form: Form,
}

/// How a table is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Form {
    /// As JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// As a Markdown table
    #[arg(long, global = true, conflicts_with = "json")]
    pub(crate) md: bool,
    /// As CSV, with all digits
    #[arg(long, global = true, conflicts_with_all = ["json", "md"])]
    pub(crate) csv: bool,
}

/// The comparison of two listings.
#[derive(Debug, Subcommand)]
pub(crate) enum Diff {
    /// Compare with a commit (default: HEAD) or a file of `--json`, or two of these with each other
    Diff {
        /// What was: a file, or else a revision as git names it
        #[arg(value_name = "OLD", default_value = "HEAD")]
        old: String,
        /// What is: such a file or revision, too [default: today's]
        #[arg(value_name = "NEW")]
        new: Option<String>,
    },
}

/// Options of `repro run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// What to bring up to date, with all that it needs: a stage, an instance, or a stage with some
    /// of its axes; everything when left out
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Run at most N processes at once; stages that share one count as one. Above the number of threads, only
    /// commands without `threads` gain [default: one per thread]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Start the stages elsewhere, by this command line, which has to run the one behind it in this folder and pass on its
    /// environment, input, output, signals and exit code, such as `srun -n 1 -c $REPRO_THREADS`; needs `-j N`, the number
    /// at once. Also set for it: `$REPRO_STAGE` and, where the stage asks for them, `$REPRO_GPUS` and `$REPRO_MEMORY_MIB`
    #[arg(long, value_name = "COMMAND", requires = "jobs", value_parser = launcher)]
    pub(crate) launcher: Option<String>,
    /// After a failure, go on with what does not depend on it
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// Run the named instances, or all where none is named, even if they are fresh; they begin anew
    #[arg(long)]
    pub(crate) force: bool,
    /// Run the named instances and not what they need
    #[arg(long, requires = "instances")]
    pub(crate) only: bool,
    /// Run nothing; say what would happen, also with --quiet
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// In a clone: take committed results as done though checkpoints or data are missing, where the lock file has
    /// today's recipe and what is there is as it says. A stage that reads what is missing fails. Not with --only
    #[arg(long, conflicts_with = "only")]
    pub(crate) allow_missing: bool,
    /// What is not in the cache, take from this folder, to which `repro push` copied it, or from another clone, before
    /// it is run
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: Option<PathBuf>,
    /// Use no network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print nothing but failures
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print what happens as JSON, a line for each event, and on standard error failures, what to do about them, and
    /// answers to Ctrl-C; `status --json` tells what would run
    #[arg(long, conflicts_with_all = ["dry_run", "quiet"])]
    pub(crate) json: bool,
}

/// Options of `repro pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// The folder: one that `repro push` copied to, or another clone
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Only these, with all that they need: stages, instances, or stages with some of their axes
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Take committed results as done though checkpoints or data are missing, as `repro run` does with this option
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

/// Options of `repro export`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("form").required(true).multiple(true).args(["full", "hf", "onnx", "tensorboard"])))]
pub(crate) struct Export {
    /// The instance, of kind `train`
    pub(crate) instance: String,
    /// Every tensor under PyTorch's name, for `load_state_dict(..., strict=True)`, as safetensors
    #[arg(long, value_name = "FILE")]
    pub(crate) full: Option<PathBuf>,
    /// An ONNX model, from normalised images to logits
    #[arg(long, value_name = "FILE")]
    pub(crate) onnx: Option<PathBuf>,
    /// A model folder for the Hugging Face Hub, with a card and `rebuild.py`, which makes the network
    /// in Python of what was trained and the seed
    #[arg(long, value_name = "DIR")]
    pub(crate) hf: Option<PathBuf>,
    /// The curves of the training, in a folder that TensorBoard reads
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
    /// In a clone: what the training read may be missing, and for --tensorboard its checkpoint, as for `repro run`
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

const FIRST: &str = "\
First: `repro run --dry-run` says what would run, `repro run` runs it, `repro status` says what is fresh
Exit codes: 0 done, 1 a stage failed (of `status -q`: is not fresh), 2 you can fix it, 3 damaged data, 130 interrupted.";

const COMPLETIONS: &str = "\
Where it goes:
  bash    source <(repro completions bash)      in ~/.bashrc
  zsh     source <(repro completions zsh)       in ~/.zshrc, behind compinit
  fish    repro completions fish | source       in ~/.config/fish/config.fish";

const SHARE: &str = "\
Examples:
  repro push /mnt/team/repro                what this clone has, into a folder
  repro push /mnt/team/repro train          only the trainings
  repro pull /mnt/team/repro                what others have, into this clone
  repro run --from /mnt/team/repro          the same, and what nobody has is run
  rsync -a /mnt/team/repro/ host:repro/     the folder goes wherever folders can be copied

An interrupted training goes on elsewhere: push here, then run there with --from.";

const METRICS_EXAMPLES: &str = "\
Examples:
  repro metrics                             of all results of the pipeline
  repro metrics 'evaluate[mode=bn]' --md    of some, for a page
  repro metrics --over seed --sort top1     means over the seeds, the best at the end
  repro metrics diff                        against those of the last commit
  repro metrics diff v1 main                of two commits
  repro metrics --past evaluate             every evaluation that ever ran here";

const RUN_EXAMPLES: &str = "\
Examples:
  repro run                                 everything
  repro run --profile quick                 everything, as `[profile.quick]` has it
  repro run 'train[mode=bn]'                the BatchNorm trainings and what they need
  repro run -S epochs=10                    with another value of `[params]`
  repro run -S stage.train.momentum=0.5     with another value of a stage's parameter
  repro run --dry-run                       what would run, and why

Ctrl-C stops at the next safe point and keeps everything finished; once more stops at once.";

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
