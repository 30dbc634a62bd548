//! What is on disk: the run directory with its journal, and the user's state directory with the ledgers.
//!
//! Two files tell everything. The *ledger* of a run ([`Ledger`]) says which machines it holds or may hold; it is in the user's
//! state directory, so that a deleted workspace leaks nothing, and each record is synced before the act that it announces. The
//! *journal* ([`Journal`]) says what happened; it is in the run directory, records are written before they count (they survive
//! the death of the process) and synced in groups.

mod bell;
mod history;
mod journal;
mod lease;
mod ledger;
mod progress;
mod record;
mod run_dir;
mod state;
mod syncer;

pub use bell::{Heard, Listener, Ringer, bell};
pub use history::{Expectation, Expectations, History, HistoryError, Past, Sample, TestHistory};
pub use journal::{Journal, JournalReader};
pub use lease::{Claim, Entry, PluginFile, Standing, State, Todo};
pub use ledger::{Damage, Ledger, LedgerError};
pub use progress::Progress;
pub use record::{
    Class, Ended, Execution, How, Machine, MachineChange, Promise, Record, RunFile, RunPlatform, RunPlugin,
    Session, What,
};
#[cfg(test)]
pub(crate) use run_dir::tests::run_file;
pub use run_dir::{RUNS, RunDir, RunDirError, VERSION, Whole};
pub use state::StateDir;
pub use syncer::Syncer;
