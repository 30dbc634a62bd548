//! `atex-host`: see [`atex_host::cli`] for what is typed and [`atex_host::command`] for what is done.

use std::{env, io::Write as _};

use atex_host::{
    cli, command,
    config::{ExitStatus, Surroundings},
};

fn main() {
    let status = run().unwrap_or_else(|error| {
        let status =
            error.downcast_ref::<command::Error>().map_or(ExitStatus::WrongUse, command::Error::status);
        // An error that is none: whoever reads our output has seen enough.
        if status != ExitStatus::Passed {
            // Standard error may be gone; the status says the same.
            let _gone = writeln!(std::io::stderr(), "atex-host: {error:#}");
        }
        status
    });
    command::leave(status)
}

fn run() -> anyhow::Result<ExitStatus> {
    let surroundings = Surroundings::of_process()?;
    let invocation = cli::parse(env::args_os().skip(1), &surroundings)?;
    let terminal = command::Terminal::new(&invocation.output)?;
    Ok(command::execute(invocation, &surroundings, &terminal)?)
}
