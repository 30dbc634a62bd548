//! What the engine writes down, and for whom it wakes the readers.
//!
//! A ledger that cannot be written refuses the reservation. A journal that cannot be written is told once; the run goes on,
//! reporters get what was written, and the run cannot be resumed.

use std::io;

use crate::executor::spec::unix_ms;
use crate::store::{Entry, Journal, Ledger, LedgerError, Record, Ringer, Syncer, What, Whole};

/// Journal and ledger of one run.
#[derive(Debug)]
pub(crate) struct Chronicle {
    journal: Journal,
    whole: Whole,
    syncer: Syncer,
    ledger: Ledger,
    /// Told that the journal has grown.
    readers: Vec<Ringer>,
    broken: bool,
    /// Since the last turn there were records, and among them some that are synced at once.
    grown: bool,
    to_sync: bool,
}

impl Chronicle {
    /// Starts the thread that syncs the journal.
    pub(crate) fn start(
        journal: Journal,
        whole: Whole,
        ledger: Ledger,
        readers: Vec<Ringer>,
    ) -> io::Result<Self> {
        let syncer = Syncer::start(journal.file()?, readers.clone())?;
        Ok(Self { journal, whole, syncer, ledger, readers, broken: false, grown: true, to_sync: false })
    }

    /// Appends to the journal.
    pub(crate) fn tell(&mut self, what: What) {
        self.to_sync |= matches!(what, What::Verdict { .. } | What::Ended(_));
        if self.broken {
            return;
        }
        self.grown = true;
        if let Err(error) = self.journal.append(&Record { at: unix_ms(), what }) {
            self.give_up("write", &error.to_string());
        }
    }

    fn give_up(&mut self, what: &str, error: &str) {
        self.broken = true;
        self.whole.lost();
        tracing::error!("cannot {what} the journal: {error}: the run goes on and cannot be resumed");
    }

    /// Appends to the ledger, with one sync for all. After an error nothing of what the entries announce may be done.
    pub(crate) fn write_all_down(&mut self, entries: Vec<(String, Entry)>) -> Result<(), LedgerError> {
        if entries.is_empty() { Ok(()) } else { self.ledger.write_all(entries) }
    }

    /// Once per turn of the main loop: verdicts are on their way to the disk from here on, and readers are woken; where there
    /// is something to sync, after that.
    pub(crate) fn turn(&mut self) {
        if !self.broken
            && let Some(error) = self.syncer.failure().map(ToString::to_string)
        {
            self.give_up("sync", &error);
        }
        let grown = std::mem::take(&mut self.grown);
        if std::mem::take(&mut self.to_sync) {
            self.syncer.ask();
        } else if grown {
            for reader in &self.readers {
                reader.ring();
            }
        }
    }

    /// [`turn`](Self::turn) for the last time: everything is on disk when this returns, and readers end with what is there, also
    /// if the last record could not be written.
    pub(crate) fn last_turn(&mut self) {
        self.to_sync = true;
        self.turn();
        self.syncer.finish();
        self.turn();
        self.readers.clear();
    }

    /// Whether everything that happened is in the journal.
    pub(crate) fn is_complete(&self) -> bool {
        !self.broken
    }

    /// Leases that may still hold something.
    pub(crate) fn open_leases(&self) -> usize {
        self.ledger.open_leases().count()
    }

    /// Removes the ledger if nothing is held any more.
    pub(crate) fn close(self) -> Result<(), LedgerError> {
        self.ledger.close()
    }
}
