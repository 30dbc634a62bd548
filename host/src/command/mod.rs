//! What is done for each command.

mod check_live;
mod error;
mod gc;
mod history;
mod list;
mod open;
mod plugins;
mod prepare;
mod provision;
mod report;
mod resume;
mod run;
mod select;
mod simulate;
mod terminal;
mod usage;
mod workload;

use std::{
    io::{self, Write},
    sync::{Arc, atomic::AtomicBool},
};

pub use error::Error;
pub use terminal::Terminal;

use crate::{
    cli::{self, Command, Invocation},
    config::{ExitStatus, Surroundings},
};

/// Carries out a command; its results are on standard output when this returns.
pub fn execute(
    invocation: Invocation,
    surroundings: &Surroundings,
    terminal: &Terminal,
) -> Result<ExitStatus, Error> {
    survive_limited_files();
    match invocation.command {
        Command::Run(plan) => run::run(*plan, terminal),
        Command::Discover(plan) => list::list(&plan, list::What::Names, terminal),
        Command::Show(plan) => list::list(&plan, list::What::Metadata, terminal),
        Command::Requires(plan) => list::list(&plan, list::What::Packages, terminal),
        Command::Report(wanted) => report::report(&wanted, terminal),
        Command::Gc(gc) => gc::gc(&gc, surroundings, terminal),
        Command::History(wanted) => history::history(&wanted, terminal),
        Command::PluginsList(libraries) => plugins::list(&libraries, terminal),
        Command::PluginsCheck(file) => plugins::check(&file, terminal),
        Command::PluginsCheckLive(wanted) => check_live::check(*wanted, terminal),
        Command::PluginsNew(wanted) => plugins::new(&wanted),
        Command::Fmf(args) => fmf(&args),
        Command::Print(text) => print(&text),
        Command::Simulate(wanted) => simulate::simulate(*wanted, terminal),
        Command::Resume(wanted) => resume::resume(&wanted, surroundings, terminal),
    }
}

/// From now on a file that may not grow (`ulimit -f`) is an error of the write, as on a full disk, and no sudden death.
///
/// By a handler that does nothing: that a signal is ignored would be passed on to all programs that are started.
fn survive_limited_files() {
    let seen = Arc::new(AtomicBool::new(false));
    // Without it, such a limit kills: nothing is held then that is not in the ledger.
    let _as_it_was = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen);
}

/// Ends the process without running destructors: threads of plugins may still run, and what they use must stay.
pub fn leave(status: ExitStatus) -> ! {
    let _gone = io::stdout().flush();
    signal_hook::low_level::exit(status.code().into())
}

fn fmf(args: &cli::fmf::FmfArgs) -> Result<ExitStatus, Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let status = cli::fmf::run(args, &mut out).and_then(|status| out.flush().map(|()| status));
    match status.map_err(Error::Output)? {
        0 => Ok(ExitStatus::Passed),
        _ => Ok(ExitStatus::Failed),
    }
}

fn print(text: &str) -> Result<ExitStatus, Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)?;
    Ok(ExitStatus::Passed)
}
