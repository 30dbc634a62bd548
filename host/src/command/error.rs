//! Why a command was not carried out.

use std::io;

use crate::{
    config::{ConfigError, ExitStatus},
    plugin::{CallError, PluginError},
    store::{HistoryError, LedgerError, RunDirError},
};

/// Each is one line for standard error and an exit status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{what}: {why}")]
    Silent { what: String, why: String },
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("changed since the run began: {0}; --force goes on all the same")]
    Changed(String),
    #[error("the journal of {} could not be written to its end; --force runs what it does not tell of again", .0.display())]
    Gaps(std::path::PathBuf),
    #[error("the tree has other tests than when the run began: begin a new run")]
    OtherTests,
    #[error("no test is selected; --allow-empty makes that a success")]
    NoTests,
    #[error(transparent)]
    Start(#[from] crate::engine::StartError),
    #[error(transparent)]
    Fmf(#[from] crate::fmf::Error),
    #[error(transparent)]
    Discover(#[from] crate::fmf::discover::DiscoverError),
    #[error("cannot read the tree {}: {error}", root.display())]
    Tree { root: std::path::PathBuf, error: io::Error },
    #[error("cannot read the journal of {}: {error}", run.display())]
    Journal { run: std::path::PathBuf, error: io::Error },
    #[error("cannot use the state directory: {0}")]
    State(io::Error),
    #[error("cannot make {}: {error}", .directory.display())]
    NewPlugin { directory: std::path::PathBuf, error: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl Error {
    /// The exit status it ends with: 2 where the user can mend it and nothing was reserved.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::NoTests
            | Self::Changed(_)
            | Self::Gaps(_)
            | Self::OtherTests
            | Self::Configuration(_)
            | Self::Plugin(_)
            | Self::Call(_)
            | Self::Silent { .. }
            | Self::Fmf(_)
            | Self::Discover(_)
            | Self::Tree { .. }
            | Self::Journal { .. }
            | Self::RunDir(_)
            | Self::NewPlugin { .. } => ExitStatus::WrongUse,
            // Whoever reads our output has gone: `| head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Passed,
            Self::History(_)
            | Self::Start(_)
            | Self::Ledger(_)
            | Self::State(_)
            | Self::Output(_)
            | Self::Thread(_) => ExitStatus::HostFailed,
        }
    }
}
