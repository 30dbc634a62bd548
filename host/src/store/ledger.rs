//! `ledger/<run>.jsonl` in the user's state directory: every lease of a run, from before it exists until after it is gone.
//!
//! **Invariant:** an [`Entry`] is on disk, synced, before the act that it announces. So whatever a provider holds for this
//! user stands in a ledger, and a lease that ends with `Released` is known to hold nothing.
//!
//! Writing and replaying go through one function, [`Standing::after`]: a ledger that was read back is in exactly the state
//! that its writer was in. Entries never go back: whatever comes after `Released` is ignored.
//!
//! The writer holds a kernel lock on the file, which ends with its process: a ledger whose lock is free is that of a dead run.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::config::StoredPlace;

/// Largest ledger that is read.
const MAX_BYTES: u64 = 1 << 30;

/// What is written down of one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Entry {
    /// A machine is about to be asked for.
    Intent { claim: Box<Claim> },
    /// The provisioner handed it out under this id.
    Held { machine: String },
    /// It is about to be given back.
    Releasing,
    /// It is not known whether anything exists.
    Uncertain,
    /// Nothing of it exists any more.
    Released,
}

/// A lease, with all that is needed to find and free it without the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub owner: String,
    pub run: String,
    pub lease: String,
    pub pool: String,
    pub plugin: PluginFile,
    /// The pool's configuration as it was written: secrets and variables unresolved.
    pub configuration: serde_json::Map<String, serde_json::Value>,
    /// Where relative paths in it begin.
    pub base: PathBuf,
    /// The entry of the pool in the configuration file: secrets that were written out there are not stored here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<StoredPlace>,
    /// How long after a cut-off reservation the machine may still appear, in seconds.
    pub settle_s: u64,
    /// Directory of the run.
    pub directory: PathBuf,
    /// Unix time in milliseconds.
    pub at: u64,
}

/// The library that a pool's provisioner came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginFile {
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
}

/// What is known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub claim: Claim,
    /// The provisioner's name for it, once it told.
    pub machine: Option<String>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `reserve` may be under way, or was cut off.
    Intent,
    Held,
    Releasing,
    Uncertain,
    Released,
}

impl Standing {
    /// The one transition function: what a lease is after an entry about it. `None` for an entry about a lease that was never
    /// announced.
    pub fn after(before: Option<Self>, entry: &Entry) -> Option<Self> {
        let Some(mut standing) = before else {
            let Entry::Intent { claim } = entry else { return None };
            return Some(Self { claim: (**claim).clone(), machine: None, state: State::Intent });
        };
        if standing.state == State::Released {
            return Some(standing);
        }
        standing.state = match entry {
            Entry::Intent { .. } => standing.state,
            Entry::Held { machine } => {
                standing.machine = Some(machine.clone());
                // A machine that came late is still to be given back.
                if standing.state == State::Releasing { State::Releasing } else { State::Held }
            }
            Entry::Releasing => State::Releasing,
            Entry::Uncertain => State::Uncertain,
            Entry::Released => State::Released,
        };
        Some(standing)
    }

    /// Whether the lease may still hold something.
    pub fn is_open(&self) -> bool {
        self.state != State::Released
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    lease: String,
    #[serde(flatten)]
    entry: Entry,
}

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot use the ledger {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the ledger {} belongs to a run that is alive", path.display())]
    Alive { path: PathBuf },
    #[error("the ledger {} cannot be read at line {line}: {source}", path.display())]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
}

/// A run's ledger, open for writing and locked.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    length: u64,
    leases: BTreeMap<String, Standing>,
}

impl Ledger {
    /// Opens or creates the ledger at `path` and takes its lock. A torn tail is cut off.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let wrong = |source| LedgerError::File { path: path.to_owned(), source };
        let new = !path.exists();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(wrong)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::Alive { path: path.to_owned() }),
            Err(error) => return Err(wrong(error.into())),
        }
        let (leases, length) = replay(path, &mut file)?;
        file.set_len(length).and_then(|()| file.sync_all()).map_err(wrong)?;
        if new {
            sync_directory(path).map_err(wrong)?;
        }
        Ok(Self { path: path.to_owned(), file, length, leases })
    }

    /// Writes an entry down and syncs it. After an error nothing is written, and what the entry announces must not be done.
    pub fn write(&mut self, lease: &str, entry: Entry) -> Result<(), LedgerError> {
        let line = Line { lease: lease.to_owned(), entry };
        if let Err(source) = self.append(&line) {
            let _as_good_as_it_gets = self.file.set_len(self.length);
            return Err(LedgerError::File { path: self.path.clone(), source });
        }
        let before = self.leases.remove(lease);
        if let Some(standing) = Standing::after(before, &line.entry) {
            self.leases.insert(line.lease, standing);
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Leases that may still hold something, in order of their ids, which is that of their making.
    pub fn open_leases(&self) -> impl Iterator<Item = &Standing> {
        self.leases.values().filter(|standing| standing.is_open())
    }

    /// Removes the file, if no lease is open. Call at the end of a run.
    pub fn close(self) -> Result<(), LedgerError> {
        if self.open_leases().next().is_some() {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(|source| LedgerError::File { path: self.path.clone(), source })
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The leases of a ledger, and the bytes of its complete lines.
fn replay(path: &Path, file: &mut File) -> Result<(BTreeMap<String, Standing>, u64), LedgerError> {
    let mut text = Vec::new();
    (&mut *file)
        .take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
    let length = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
    let mut leases = BTreeMap::new();
    for (number, line) in
        text[..length].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate()
    {
        let line: Line = serde_json::from_slice(line).map_err(|source| LedgerError::Line {
            path: path.to_owned(),
            line: number + 1,
            source,
        })?;
        let before = leases.remove(&line.lease);
        if let Some(standing) = Standing::after(before, &line.entry) {
            leases.insert(line.lease, standing);
        }
    }
    Ok((leases, length as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(lease: &str) -> Entry {
        Entry::Intent {
            claim: Box::new(Claim {
                owner: "me@here".into(),
                run: "r1".into(),
                lease: lease.into(),
                pool: "lab".into(),
                plugin: PluginFile { name: "local".into(), path: "/p.so".into(), sha256: "00".into() },
                configuration: serde_json::Map::new(),
                base: "/".into(),
                place: None,
                settle_s: 600,
                directory: "/runs/1".into(),
                at: 1,
            }),
        }
    }

    fn states(ledger: &Ledger) -> Vec<(String, State)> {
        ledger.leases.iter().map(|(lease, standing)| (lease.clone(), standing.state)).collect()
    }

    #[test]
    fn a_run_that_is_alive_keeps_others_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::Alive { .. })));
        drop(ledger);
        assert!(Ledger::open(&path).is_ok());
    }

    #[test]
    fn only_a_ledger_without_open_leases_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.write("a1", claim("a1")).unwrap();
        ledger.write("a1", Entry::Uncertain).unwrap();
        ledger.close().unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.open_leases().count(), 1);
        ledger.write("a1", Entry::Released).unwrap();
        ledger.close().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_an_error_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        fs::write(&path, "{\"lease\":\"a1\",\"state\":\"released\"}\nnonsense\n").unwrap();
        let error = Ledger::open(&path).unwrap_err().to_string();
        assert!(error.contains("at line 2"), "{error}");
    }

    fn entries() -> impl Strategy<Value = Vec<(usize, usize)>> {
        proptest::collection::vec((0..3_usize, 0..5_usize), 0..12)
    }

    proptest! {
        /// Whatever is written and wherever it is cut, replay gives a state that the writer was in.
        #[test]
        fn replay_is_a_prefix_of_what_was_written(entries in entries(), cut in 0.0..1.0_f64) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("r1.jsonl");
            let mut ledger = Ledger::open(&path).unwrap();
            let mut history = vec![states(&ledger)];
            for (lease, entry) in entries {
                let lease = format!("a{lease}");
                let entry = match entry {
                    0 => claim(&lease),
                    1 => Entry::Held { machine: "m".into() },
                    2 => Entry::Releasing,
                    3 => Entry::Uncertain,
                    _ => Entry::Released,
                };
                ledger.write(&lease, entry).unwrap();
                history.push(states(&ledger));
            }
            drop(ledger);
            let bytes = fs::read(&path).unwrap();
            let cut = (bytes.len() as f64 * cut) as usize;
            let whole = memchr::memchr_iter(b'\n', &bytes[..cut]).count();
            fs::write(&path, &bytes[..cut]).unwrap();
            prop_assert_eq!(&states(&Ledger::open(&path).unwrap()), &history[whole]);
        }
    }
}
