//! The command line as typed: what clap reads, with the help texts that users see.
//!
//! Nothing is decided here; [`super::parse`] turns this into a [`super::Command`]. The options of a run themselves are in
//! [`crate::config::options`], because run.json keeps them.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::fmf::FmfArgs;
use crate::config::options::{PluginOptions, RunOptions, Time, TreeOptions};
use crate::config::spec::Spec;

/// Colours of help texts.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What the program is for.
pub(super) const ABOUT: &str = "Runs the tests of an FMF tree on machines that plugins supply";

/// Everything that may be typed.
#[derive(Debug, Parser)]
#[command(
    name = "atex-host",
    version,
    about = ABOUT,
    override_usage = "atex-host [run] [TREE] [OPTIONS]\n       atex-host <COMMAND> ...",
    after_help = "A tree that is named like a command needs `./` before it. `atex-host COMMAND --help` tells about a \
                  command; docs/cli.md tells all.",
    styles = STYLES,
    max_term_width = 110,
    infer_subcommands = false
)]
pub struct Arguments {
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(subcommand)]
    pub command: CommandLine,
}

/// What all commands take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print for people or for scripts
    #[arg(long, global = true, value_enum, default_value = "human", value_name = "FORMAT")]
    pub format: Format,

    /// Use colours [NO_COLOR: never, if not said otherwise]
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: When,

    /// Say more; again for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Say less; again for nothing but errors
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub quiet: u8,

    /// Write a log of everything to this file
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
}

/// Whom the output is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Human,
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CommandLine {
    /// Run the tests of a tree (the default)
    Run(Box<RunOptions>),
    /// Print the names of the tests that would run
    Discover(Box<TreeOptions>),
    /// Print the final metadata of the tests
    Show(Box<TreeOptions>),
    /// Print the packages that the tests need
    Requires(Box<TreeOptions>),
    /// Tell how long a run would take, with how many machines
    Simulate(Box<SimulateOptions>),
    /// Finish an interrupted run
    Resume(ResumeOptions),
    /// Free what dead runs still hold
    Gc(GcOptions),
    /// Report a run again, with other reporters
    Report(ReportOptions),
    /// Show durations and flakiness of tests over runs
    History(HistoryOptions),
    /// Look at plugins, check them, begin new ones
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Show the nodes of an FMF tree as JSON
    Fmf(Box<FmfArgs>),
    /// Print the JSON schema of atex.yaml
    Schema,
    /// Print a script that completes commands in a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of everything or of one command
    Man {
        /// One command only
        command: Option<String>,
    },
}

/// `simulate`.
#[derive(Debug, Args)]
pub struct SimulateOptions {
    #[command(flatten)]
    pub run: RunOptions,

    /// Numbers of machines to try, e.g. 1,2,4 [default: 1, 2, 4, ... as long as more help]
    #[arg(long, value_name = "N,N", value_delimiter = ',', help_heading = "Simulation")]
    pub machines: Vec<NonZeroU32>,

    /// Find the least number of machines that is through in this time, e.g. 2h
    #[arg(long, value_name = "T", help_heading = "Simulation")]
    pub deadline: Option<Time>,

    /// From asking for a machine until tests run on it [default: 1m]
    #[arg(long, value_name = "T", help_heading = "Simulation")]
    pub start_up: Option<Time>,

    /// So many of 100 reservations fail, and so many of 100 machines die within an hour
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90),
        hide_default_value = true, help_heading = "Simulation")]
    pub failures: u8,

    /// Make up a workload of N tests instead of reading a tree
    #[arg(long, value_name = "N", help_heading = "Simulation")]
    pub synthetic: Option<NonZeroU32>,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct ResumeOptions {
    /// The directory of the run
    #[arg(value_name = "RUN_DIR", value_hint = clap::ValueHint::DirPath)]
    pub run: PathBuf,

    #[command(flatten)]
    pub plugins: PluginOptions,

    /// Go on although the tree, a plugin or the configuration changed
    #[arg(long)]
    pub force: bool,
}

/// `gc`.
#[derive(Debug, Args)]
pub struct GcOptions {
    /// Directories of runs [default: every run in the ledger of this user]
    #[arg(value_name = "RUN_DIR", value_hint = clap::ValueHint::DirPath)]
    pub runs: Vec<PathBuf>,

    /// Look for what this owner holds, with the pools of --config, also without any record
    #[arg(long, value_name = "NAME", requires = "config")]
    pub owner: Option<String>,

    /// Configuration with the pools to look into
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub plugins: PluginOptions,

    /// Free also what a run holds that may be alive still
    #[arg(long)]
    pub force: bool,
}

/// `report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// The directory of the run
    #[arg(value_name = "RUN_DIR", value_hint = clap::ValueHint::DirPath)]
    pub run: PathBuf,

    /// Reporter: NAME, NAME,key=value,... or {use: NAME, ...}; repeatable
    #[arg(long, value_name = "SPEC", required = true)]
    pub reporter: Vec<Spec>,

    #[command(flatten)]
    pub plugins: PluginOptions,
}

/// `history`.
#[derive(Debug, Default, Args)]
pub struct HistoryOptions {
    /// Tests in whose name this regular expression is found; repeatable
    #[arg(long, value_name = "RE")]
    pub test: Vec<String>,

    /// Only this platform; repeatable
    #[arg(long, value_name = "NAME")]
    pub platform: Vec<String>,
}

/// `plugins`.
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// List the plugins that can be used
    List(PluginOptions),
    /// Look closely at a plugin library, or at pools at work; exit status 1 if something is wrong
    Check(Box<CheckOptions>),
    /// Begin a new plugin: a crate in a new directory of that name
    New {
        /// Its name: a-z, 0-9 and dashes
        name: String,
        /// What it is to be
        #[arg(long, value_enum, default_value = "provisioner")]
        kind: NewPlugin,
    },
}

/// `plugins check`.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// The library
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath, required_unless_present = "live", conflicts_with = "live")]
    pub file: Option<PathBuf>,

    /// Reserve real machines of pools, and check whether their provisioners do all that is expected of them
    #[arg(long)]
    pub live: bool,

    /// Pool to check: NAME, NAME,key=value,... or {use: NAME, ...}; repeatable [default: those of --config]
    #[arg(short = 'p', long, value_name = "SPEC", requires = "live", help_heading = "Live check")]
    pub provisioner: Vec<Spec>,

    /// Configuration with the pools to check
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires = "live", help_heading = "Live check")]
    pub config: Option<PathBuf>,

    /// Machines to hold at the same time [default: 2, as far as the pool's `max` allows]
    #[arg(long, value_name = "N", requires = "live", help_heading = "Live check")]
    pub machines: Option<NonZeroU32>,

    /// How long one call may take, but for reservations, which have the pool's `reserve-timeout` [default: 5m]
    #[arg(long, value_name = "T", requires = "live", help_heading = "Live check")]
    pub limit: Option<Time>,

    #[command(flatten)]
    pub plugins: PluginOptions,
}

/// What a new plugin is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NewPlugin {
    /// It supplies machines
    #[value(help = None::<&str>)]
    Provisioner,
    /// It orders tests and judges runs
    #[value(help = None::<&str>)]
    Policy,
    /// It publishes results
    #[value(help = None::<&str>)]
    Reporter,
}
