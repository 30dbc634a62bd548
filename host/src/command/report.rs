//! `report`: tells a run again, to other reporters, from its journal.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    cli,
    config::ExitStatus,
    engine::{self, Input},
    report::{self, PluginReporter},
    store::{RunDir, StateDir},
};

use super::{Error, Terminal, open};

const JOURNAL: &str = "journal.jsonl";

pub(super) fn report(wanted: &cli::Report, terminal: &Terminal) -> Result<ExitStatus, Error> {
    terminal.mask(&wanted.secrets);
    let state = StateDir::from_environment().map_err(Error::State)?;
    let run = Arc::new(RunDir::read(&wanted.run)?);
    let registry = open::registry(&wanted.libraries, false, &state, &wanted.secrets)?;
    let (sender, inbox) = engine::inbox();
    let mut left = 0_usize;
    for entry in &wanted.reporters {
        let reporter = open::reporter(&registry, &entry.plugin)?;
        // What is in the journal is all there is: without a sender to wake it, the reader ends there.
        let follower =
            PluginReporter::new(reporter, Arc::clone(&run), wanted.run.clone(), true, Arc::new(|_, _| None));
        let journal = Path::new(&wanted.run).join(JOURNAL);
        drop(
            report::start(entry.plugin.name.as_str(), Box::new(follower), journal, 0, sender.clone())
                .map_err(Error::Thread)?,
        );
        left += 1;
    }
    drop(sender);
    let limit = wanted.reporters.iter().map(|entry| entry.finish_timeout).max().unwrap_or(Duration::ZERO);
    let mut status = ExitStatus::Passed;
    while left > 0 {
        match inbox.recv_timeout(limit) {
            Ok(Input::ReporterDone { problem, .. }) => {
                left -= 1;
                if let Some(problem) = problem {
                    tracing::error!("{problem}");
                    status = ExitStatus::HostFailed;
                }
            }
            Ok(_) => {}
            Err(_) => {
                tracing::error!("{left} reporters were not through within {limit:?}");
                return Ok(ExitStatus::HostFailed);
            }
        }
    }
    Ok(status)
}
