//! The command line: from what was typed to a [`Command`] that is complete and checked.
//!
//! Two layers. [`args`] is what clap reads, as typed. [`parse`] resolves it against configuration and surroundings, so that
//! whoever carries out a command has nothing left to look up, join or default. Nothing here starts a process, opens a
//! plugin or prints: the texts of `--help`, `schema`, `completions` and `man` are commands like others.

pub mod args;
pub mod discover;
mod first;
pub mod fmf;
pub mod history;
pub mod plugins;
pub mod requires;
pub mod show;
pub mod simulate;
mod texts;

use std::ffi::OsString;
use std::num::{IntErrorKind, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use self::args::{
    Arguments, CheckOptions, CommandLine, GcOptions, OutputOptions, PluginsCommand, ReportOptions,
    SimulateOptions, When,
};
pub use self::args::{Format, NewPlugin};
use self::first::First;
use crate::config::options::{RunOptions, TreeOptions};
use crate::config::{self, ConfigError, ExitStatus, Libraries, Reporter, RunPlan, Secrets, Surroundings};

/// Machines that `plugins check --live` holds at the same time, unless told otherwise.
const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// What is to be done, and how it is to be shown.
#[derive(Debug)]
pub struct Invocation {
    pub output: Output,
    pub command: Command,
}

/// How to show things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub format: Format,
    pub color: Color,
    /// 0 is normal; each `-v` adds one, each `-q` takes one away.
    pub verbosity: i8,
    /// Absolute path of the log to write besides the run's own.
    pub log_file: Option<PathBuf>,
}

/// Whether to use colours, `NO_COLOR` taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Where a stream is a terminal.
    Terminals,
    Always,
    Never,
}

impl Color {
    /// For a stream that is a terminal or not.
    pub fn enabled(self, terminal: bool) -> bool {
        match self {
            Self::Terminals => terminal,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// A command with all it needs.
#[derive(Debug)]
pub enum Command {
    Run(Box<RunPlan>),
    Discover(Box<RunPlan>),
    Show(Box<RunPlan>),
    Requires(Box<RunPlan>),
    Simulate(Box<Simulate>),
    Resume(Resume),
    Gc(Box<Gc>),
    Report(Report),
    History(History),
    PluginsList(Libraries),
    PluginsCheck(PathBuf),
    PluginsCheckLive(Box<CheckLive>),
    PluginsNew(NewPluginAt),
    Fmf(Box<fmf::FmfArgs>),
    /// Print this text and be done, with success.
    Print(String),
}

/// `simulate`.
#[derive(Debug)]
pub struct Simulate {
    pub plan: RunPlan,
    /// Numbers of machines to try; empty: 1, 2, 4, ... as long as more help.
    pub machines: Vec<NonZeroU32>,
    pub deadline: Option<Duration>,
    /// From the reservation to the machine.
    pub start_up: Option<Duration>,
    /// Percent of reservations that fail and of machines that die.
    pub failures: u8,
    /// So many made-up tests instead of those of the tree.
    pub synthetic: Option<NonZeroU32>,
}

/// `resume`.
#[derive(Debug)]
pub struct Resume {
    pub run: PathBuf,
    /// Libraries that replace recorded ones.
    pub libraries: Libraries,
    /// Go on in spite of changes.
    pub force: bool,
}

/// `gc`.
#[derive(Debug)]
pub struct Gc {
    /// Empty: every run in the ledger.
    pub runs: Vec<PathBuf>,
    /// Pools to look into for what their owner ([`RunPlan::owner`]) holds, record or not.
    pub plan: Option<RunPlan>,
    pub libraries: Libraries,
    pub force: bool,
}

/// `report`.
#[derive(Debug)]
pub struct Report {
    pub run: PathBuf,
    pub reporters: Vec<Reporter>,
    pub libraries: Libraries,
    pub secrets: Secrets,
}

/// `history`.
#[derive(Debug)]
pub struct History {
    /// Regular expressions; empty: all tests.
    pub tests: Vec<String>,
    /// Names; empty: all platforms.
    pub platforms: Vec<String>,
}

/// `plugins check --live`.
#[derive(Debug)]
pub struct CheckLive {
    /// Its pools are checked; there is at least one.
    pub plan: RunPlan,
    /// Machines to hold at the same time.
    pub machines: NonZeroU32,
    /// How long one call may take, but for reservations.
    pub limit: Duration,
}

/// `plugins new`.
#[derive(Debug)]
pub struct NewPluginAt {
    pub name: String,
    pub kind: NewPlugin,
    /// The directory to make.
    pub directory: PathBuf,
}

/// Wrong use or configuration: one line for standard error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Configuration(#[from] ConfigError),
}

impl UsageError {
    /// The exit status it ends with.
    pub fn status(&self) -> ExitStatus {
        ExitStatus::WrongUse
    }
}

/// Reads a command line, `arguments` without the program's name.
///
/// Reads the configuration file where the command has one; everything else of the process comes through `around`.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    around: &Surroundings,
) -> Result<Invocation, UsageError> {
    let typed: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let mut whole = vec![OsString::from("atex-host")];
    let first = first::classify(&typed);
    if let First::Run { at } = first {
        whole.extend_from_slice(&typed[..at]);
        whole.push("run".into());
        whole.extend_from_slice(&typed[at..]);
    } else {
        whole.extend(typed);
    }
    let matches = match texts::command().try_get_matches_from(whole) {
        Ok(matches) => matches,
        Err(error) => return explain(&error),
    };
    let arguments =
        Arguments::from_arg_matches(&matches).map_err(|error| UsageError::Arguments(one_line(&error)))?;
    if let (First::Run { .. }, CommandLine::Run(options)) = (first, &arguments.command) {
        check_tree(options, around)?;
    }
    Ok(Invocation { output: output(&arguments.output, around), command: resolve(arguments.command, around)? })
}

/// What clap calls an error: help and version are texts to print.
fn explain(error: &clap::Error) -> Result<Invocation, UsageError> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Invocation {
            output: Output { format: Format::Human, color: Color::Never, verbosity: 0, log_file: None },
            command: Command::Print(error.render().to_string()),
        }),
        _ => Err(UsageError::Arguments(one_line(error))),
    }
}

/// Clap's message on one line, with its tips and without its usage; values of options that may be secret are left out.
fn one_line(error: &clap::Error) -> String {
    if let (Some(ContextValue::String(option)), Some(cause)) =
        (error.get(ContextKind::InvalidArg), std::error::Error::source(error))
        && error.kind() == ErrorKind::ValueValidation
    {
        return format!("{option}: {}", number_problem(error, cause).unwrap_or_else(|| cause.to_string()));
    }
    let text = error.render().to_string();
    let parts = text
        .split("\n\n")
        .filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"));
    let parts = parts.map(|part| {
        let words = part.split_whitespace().collect::<Vec<_>>().join(" ");
        words.trim_start_matches("error: ").trim_start_matches("tip: ").replace(" tip: ", "; ")
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// What is wrong with a number, in better words than the standard library's.
fn number_problem(error: &clap::Error, cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let problem = cause.downcast_ref::<std::num::ParseIntError>()?;
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidValue) else { return None };
    let expected = match problem.kind() {
        IntErrorKind::Zero => "a whole number from 1",
        IntErrorKind::PosOverflow => "a smaller number",
        _ => "a whole number",
    };
    Some(format!("expected {expected}, found {found:?}"))
}

/// A first word that is no directory may be a command in wrong letters, or a command in the wrong place.
fn check_tree(options: &RunOptions, around: &Surroundings) -> Result<(), UsageError> {
    let Some(tree) = options.tree.tree.as_deref().and_then(Path::to_str) else { return Ok(()) };
    let command = Arguments::command();
    let known = || command.get_subcommands().map(clap::Command::get_name);
    if known().any(|name| name == tree) {
        let message = format!("`{tree}` is a command and comes first; a tree of that name is `./{tree}`");
        return Err(UsageError::Arguments(message));
    }
    match config::nearest(tree, known()) {
        Some(near) if !around.absolute(Path::new(tree)).exists() => Err(UsageError::Arguments(format!(
            "there is neither a command nor a directory {tree:?}; did you mean `{near}`?"
        ))),
        _ => Ok(()),
    }
}

fn output(options: &OutputOptions, around: &Surroundings) -> Output {
    let no_color = around.variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = match options.color {
        When::Auto if no_color => Color::Never,
        When::Auto => Color::Terminals,
        When::Always => Color::Always,
        When::Never => Color::Never,
    };
    Output {
        format: options.format,
        color,
        verbosity: i8::try_from(options.verbose).unwrap_or(i8::MAX)
            - i8::try_from(options.quiet).unwrap_or(i8::MAX),
        log_file: options.log_file.as_deref().map(|file| around.absolute(file)),
    }
}

fn resolve(command: CommandLine, around: &Surroundings) -> Result<Command, UsageError> {
    let of_tree = |tree: TreeOptions| -> Result<Box<RunPlan>, UsageError> {
        let options = RunOptions { tree, ..RunOptions::default() };
        Ok(Box::new(config::plan(&options, around)?))
    };
    Ok(match command {
        CommandLine::Run(options) => Command::Run(Box::new(config::plan(&options, around)?)),
        CommandLine::Discover(tree) => Command::Discover(of_tree(*tree)?),
        CommandLine::Show(tree) => Command::Show(of_tree(*tree)?),
        CommandLine::Requires(tree) => Command::Requires(of_tree(*tree)?),
        CommandLine::Simulate(options) => Command::Simulate(Box::new(simulate(*options, around)?)),
        CommandLine::Resume(options) => Command::Resume(Resume {
            run: around.absolute(&options.run),
            libraries: config::libraries(&options.plugins, around),
            force: options.force,
        }),
        CommandLine::Gc(options) => Command::Gc(Box::new(gc(options, around)?)),
        CommandLine::Report(options) => Command::Report(report(&options, around)?),
        CommandLine::History(options) => {
            config::check_patterns("--test", &options.test)?;
            Command::History(History { tests: options.test, platforms: options.platform })
        }
        CommandLine::Plugins(PluginsCommand::List(options)) => {
            Command::PluginsList(config::libraries(&options, around))
        }
        CommandLine::Plugins(PluginsCommand::Check(options)) => match &options.file {
            Some(file) => Command::PluginsCheck(around.absolute(file)),
            None => Command::PluginsCheckLive(Box::new(check_live(*options, around)?)),
        },
        CommandLine::Plugins(PluginsCommand::New { name, kind }) => new_plugin(name, kind, around)?,
        CommandLine::Fmf(args) => Command::Fmf(args),
        CommandLine::Schema => Command::Print(texts::schema()),
        CommandLine::Completions { shell } => Command::Print(texts::completions(shell)?),
        CommandLine::Man { command } => Command::Print(texts::man(command.as_deref())?),
    })
}

fn simulate(options: SimulateOptions, around: &Surroundings) -> Result<Simulate, UsageError> {
    Ok(Simulate {
        plan: config::plan(&options.run, around)?,
        machines: options.machines,
        deadline: options.deadline.map(|time| time.0),
        start_up: options.start_up.map(|time| time.0),
        failures: options.failures,
        synthetic: options.synthetic,
    })
}

fn gc(options: GcOptions, around: &Surroundings) -> Result<Gc, UsageError> {
    let libraries = config::libraries(&options.plugins, around);
    let plan = match options.config {
        None => None,
        Some(file) => {
            let tree = TreeOptions { config: Some(file), ..TreeOptions::default() };
            let run = RunOptions { tree, plugins: options.plugins, ..RunOptions::default() };
            let plan = config::plan(&run, around)?;
            Some(match options.owner {
                Some(owner) => plan.with_owner(owner)?,
                None => plan,
            })
        }
    };
    let runs = options.runs.iter().map(|run| around.absolute(run)).collect();
    Ok(Gc { runs, plan, libraries, force: options.force })
}

fn check_live(options: CheckOptions, around: &Surroundings) -> Result<CheckLive, UsageError> {
    let tree = TreeOptions { config: options.config, ..TreeOptions::default() };
    let CheckOptions { plugins, provisioner, .. } = options;
    let plan = config::plan(&RunOptions { tree, plugins, provisioner, ..RunOptions::default() }, around)?;
    if plan.pools.is_empty() {
        let message = "there is no pool to check: name one by --provisioner or --config";
        return Err(UsageError::Arguments(message.to_owned()));
    }
    let limit = options.limit.map_or(Duration::from_mins(5), |limit| limit.0);
    Ok(CheckLive { plan, machines: options.machines.unwrap_or(TWO), limit })
}

fn report(options: &ReportOptions, around: &Surroundings) -> Result<Report, UsageError> {
    let (reporters, secrets) = config::reporters(&options.reporter, around)?;
    let libraries = config::libraries(&options.plugins, around);
    Ok(Report { run: around.absolute(&options.run), reporters, libraries, secrets })
}

fn new_plugin(name: String, kind: NewPlugin, around: &Surroundings) -> Result<Command, UsageError> {
    config::check_plugin_name(&name).map_err(UsageError::Arguments)?;
    let directory = around.absolute(Path::new(&name));
    Ok(Command::PluginsNew(NewPluginAt { name, kind, directory }))
}

#[cfg(test)]
mod tests;
