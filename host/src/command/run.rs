//! `run`: from a plan to an exit status.

use std::{
    io::{self, Write as _},
    process,
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    cli::Format,
    config::{ExitStatus, RunDirectory, RunPlan},
    core::event::{Event, TestId},
    engine::{self, Chronicle, Engine, unix_ms},
    report::{self, Console, Follower, PluginReporter, Statistics, Style},
    store::{self, Ledger, RunDir, RunFile, RunPlatform, Session, StateDir, What},
    text::{counted, printable},
};

use super::{
    Error, Terminal,
    prepare::{Prepared, prepare},
    usage,
};

pub(super) fn run(plan: RunPlan, terminal: &Terminal) -> Result<ExitStatus, Error> {
    terminal.mask(&plan.secrets);
    let state = StateDir::from_environment().map_err(Error::State)?;
    let run = run_id();
    let mut prepared = prepare(plan, &run, &state)?;
    for warning in &prepared.warnings {
        tracing::warn!("{warning}");
    }
    if prepared.job.tests.is_empty() {
        return no_tests(&prepared);
    }
    if prepared.plan.dry_run {
        return dry_run(&prepared, terminal).map_err(Error::Output);
    }
    let directory = make_directory(&prepared.plan.run_directory, &run)?;
    prepared.job.directory = directory.path().into();
    terminal.log_to(&directory.log()).map_err(Error::State)?;
    let run_file = Arc::new(run_file(&prepared, &run));
    directory.write_run_file(&run_file)?;
    let ledger = Ledger::open(&state.ledger(&run).map_err(Error::State)?)?;
    terminal.say(&headline(&prepared, &run));
    raise_descriptor_limit();
    let first = prepared.first_events();
    let begin = Begin { directory, run_file, ledger, first, resumed: false, reopened: Vec::new() };
    go(prepared, begin, &state, terminal)
}

/// A run about to begin or to go on: what is on disk of it, and how to begin.
pub(super) struct Begin {
    pub(super) directory: RunDir,
    pub(super) run_file: Arc<RunFile>,
    pub(super) ledger: Ledger,
    pub(super) first: Vec<Event>,
    /// An earlier process began it.
    pub(super) resumed: bool,
    /// Tests whose verdict of then does not count.
    pub(super) reopened: Vec<TestId>,
}

/// Starts readers and engine, and waits for the end.
pub(super) fn go(
    prepared: Prepared,
    begin: Begin,
    state: &StateDir,
    terminal: &Terminal,
) -> Result<ExitStatus, Error> {
    let Begin { directory, run_file, ledger, first, resumed, reopened } = begin;
    directory.set_complete(false).map_err(Error::State)?;
    let whole = directory.begin_journal()?;
    let mut journal = directory.journal()?;
    let offset = journal.length();
    let session = Session { host: run_file.host.clone(), pid: process::id(), resumed };
    let reopened = reopened.into_iter().map(|test| What::Reopened { test });
    for what in std::iter::once(What::Session(session)).chain(reopened) {
        journal.append(&store::Record { at: unix_ms(), what }).map_err(Error::State)?;
    }
    let (sender, inbox) = engine::inbox();
    let mut readers = Vec::new();
    let mut names = Vec::new();
    let mut start = |name: &str, follower: Box<dyn Follower>, offset: u64, timeout: Duration| {
        let wake = report::start(name, follower, directory.journal_path(), offset, sender.clone());
        readers.push(wake.map_err(Error::Thread)?);
        names.push((name.to_owned(), timeout));
        Ok::<(), Error>(())
    };
    let (style, bar) = (style(terminal), terminal.bar().clone());
    let console = Console::new(style, Arc::clone(&run_file), directory.path().to_owned(), bar);
    // The console goes on from here; all others are told everything anew.
    start(CONSOLE, Box::new(console), offset, CONSOLE_TIMEOUT)?;
    if let Some(recorder) = report::recorder(state.history(), &run_file) {
        start(HISTORY, Box::new(recorder), 0, HISTORY_TIMEOUT)?;
    }
    if let Some(every) = prepared.plan.statistics {
        let watched = terminal.clone();
        let say = move |line: &str| {
            tracing::debug!("{line}");
            watched.say(line);
        };
        start(STATISTICS, Box::new(Statistics::new(every, run_file.tests.len(), say)), 0, CONSOLE_TIMEOUT)?;
    }
    for (reporter, timeout) in prepared.reporters {
        let name = reporter.instance().name().to_owned();
        let follower = PluginReporter::new(
            reporter,
            Arc::clone(&run_file),
            directory.path().to_owned(),
            resumed,
            Arc::clone(&prepared.metadata),
        );
        start(&name, Box::new(follower), 0, timeout)?;
    }
    let keep_artifacts = prepared.plan.keep_artifacts;
    let chronicle = Chronicle::start(journal, whole, ledger, readers).map_err(Error::State)?;
    let engine = Engine::start(prepared.job, chronicle, names, &prepared.kept, (sender, inbox))?;
    let tally = engine.run(first);
    if tally.reporters_failed() {
        // `resume` and `report` can still tell the rest, for which they need all that is here.
        usage::tell();
        return Ok(tally.exit());
    }
    if !keep_artifacts && let Err(error) = std::fs::remove_dir_all(directory.artifacts()) {
        tracing::warn!("cannot remove {}: {error}", directory.artifacts().display());
    }
    if let Err(error) = directory.set_complete(true) {
        tracing::warn!("cannot note that the run is complete: {error}");
    }
    usage::tell();
    Ok(tally.exit())
}

/// How long the console may take to show what is left at the end.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same of the history: longer than it waits for other hosts.
const HISTORY_TIMEOUT: Duration = Duration::from_mins(1);
/// Names of the host's own readers, such as no plugin has.
const CONSOLE: &str = "the console";
const HISTORY: &str = "the history";
const STATISTICS: &str = "the statistics";

pub(super) fn style(terminal: &Terminal) -> Style {
    let output = terminal.output();
    Style {
        json: output.format == Format::Json,
        colour: terminal.colour(),
        quiet: output.verbosity < 0,
        verbose: output.verbosity > 0,
    }
}

/// `20261122-194501-1a2b3c`: UTC and something that makes it unique.
pub(super) fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let unique = Uuid::now_v7().simple().to_string();
    format!("{now}-{}", &unique[unique.len() - 6..])
}

fn make_directory(wanted: &RunDirectory, run: &str) -> Result<RunDir, Error> {
    Ok(match wanted {
        RunDirectory::Fresh { below } => RunDir::create_below(&below.join(store::RUNS), run)?,
        RunDirectory::At(path) => RunDir::create(path)?,
    })
}

fn run_file(prepared: &Prepared, run: &str) -> RunFile {
    let job = &prepared.job;
    let platform = |platform: &engine::Platform| RunPlatform {
        name: platform.name.clone(),
        context: platform.context.iter().map(|(name, values)| (name.clone(), values.clone())).collect(),
    };
    RunFile {
        version: store::VERSION,
        run: run.to_owned(),
        owner: job.owner.clone(),
        created: unix_ms(),
        host: concat!("atex-host ", env!("CARGO_PKG_VERSION")).to_owned(),
        origin: prepared.plan.origin.clone(),
        tree: prepared.root.clone(),
        digest: prepared.digest.clone(),
        platforms: job.platforms.iter().map(platform).collect(),
        plugins: prepared.plugins.clone(),
        tests: prepared.promises(),
    }
}

/// What is about to happen, and what it takes to make it happen again.
fn headline(prepared: &Prepared, run: &str) -> String {
    let job = &prepared.job;
    let platforms: Vec<_> = job.platforms.iter().map(|platform| printable(&platform.name)).collect();
    let tests = counted(job.tests.len(), "test");
    format!("run {run}: {tests} on {}, seed {}", platforms.join(", "), prepared.plan.seed)
}

/// Each machine takes up to five descriptors, and the usual limit is for programs that do one thing. What cannot be had shows
/// as machines that cannot be connected to.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _as_it_is = setrlimit(Resource::Nofile, limit);
}

fn no_tests(prepared: &Prepared) -> Result<ExitStatus, Error> {
    if prepared.plan.allow.empty {
        tracing::warn!("no test is selected");
        return Ok(ExitStatus::Passed);
    }
    Err(Error::NoTests)
}

/// What would run where.
fn dry_run(prepared: &Prepared, terminal: &Terminal) -> io::Result<ExitStatus> {
    let job = &prepared.job;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let json = terminal.output().format == Format::Json;
    for (number, platform) in job.platforms.iter().enumerate() {
        let serves =
            |pool: &&crate::core::config::Pool| pool.serves.iter().any(|s| usize::from(s.platform) == number);
        let pools: Vec<String> = job
            .config
            .pools
            .iter()
            .zip(&job.pools)
            .filter(|(config, _)| serves(config))
            .map(|(config, pool)| format!("{} (up to {})", pool.name(), config.max))
            .collect();
        let tests = job.tests.iter().filter(|test| usize::from(test.platform) == number);
        if json {
            let tests: Vec<&str> = tests.map(|test| test.name.as_str()).collect();
            writeln!(
                out,
                "{}",
                serde_json::json!({"platform": platform.name, "pools": pools, "tests": tests})
            )?;
            continue;
        }
        let tests: Vec<_> = tests.collect();
        let count = counted(tests.len(), "test");
        writeln!(out, "{}: {count} on {}", printable(&platform.name), pools.join(", "))?;
        for test in tests {
            writeln!(out, "    {}", printable(&test.name))?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Passed)
}
