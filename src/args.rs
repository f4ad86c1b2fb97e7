//! The command line, as types. Knows nothing of what the commands do.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Reproduces "Training BatchNorm and Only BatchNorm" from one declarative file.
#[derive(Debug, Parser)]
#[command(name = "repro", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The pipeline file
    #[arg(short, long, global = true, value_name = "FILE", default_value = "pipeline.toml")]
    pub(crate) file: PathBuf,
    /// Lay `[profile.NAME]` over the file
    #[arg(long, global = true, value_name = "NAME", env = "REPRO_PROFILE")]
    pub(crate) profile: Option<String>,
    /// Override a parameter; the value is TOML, a list or range sweeps (repeatable)
    #[arg(short = 'S', long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Work in this folder
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// Print the JSON Schema of pipeline files
    Schema,
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
