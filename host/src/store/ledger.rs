//! `ledger/<run>.jsonl` in the user's state directory: every lease of a run, from before it exists until after it is gone.
//!
//! **Invariant:** an [`Entry`] is on disk, synced, before the act that it announces. So whatever a provider holds for this
//! user stands in a ledger, and a lease that ends with `Released` is known to hold nothing.
//!
//! What a lease is after an entry is said by [`Standing::after`] alone, for the writer and for whoever reads it back.
//!
//! A torn tail, which a killed writer leaves, was never acted upon and is cut off. A line in the middle that cannot be read is
//! [damage](Ledger::damage): the others still count, and the file is never removed, because it may tell of a machine.
//!
//! The writer holds a kernel lock on the file, which ends with its process: a ledger whose lock is free is that of a dead run.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::lease::{Entry, Standing};

/// Longest line that is read; longer ones are damage.
const MAX_LINE: usize = 16 << 20;
/// How often a ledger is opened anew because it was removed meanwhile.
const MAX_TRIES: usize = 16;

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
    #[error("cannot use the ledger {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("the ledger {} belongs to a run that is alive", path.display())]
    Alive { path: PathBuf },
}

/// A line that cannot be read: nobody knows what it announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// From 1.
    pub line: u64,
    pub problem: String,
}

/// A run's ledger, open for writing and locked.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    /// Bytes that count.
    length: u64,
    /// There may be bytes beyond `length`, of an entry that could not be written as a whole.
    torn: bool,
    leases: BTreeMap<String, Standing>,
    damage: Vec<Damage>,
}

impl Ledger {
    /// Opens or creates the ledger at `path` and takes its lock. A torn tail is cut off.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let wrong = |error| LedgerError::File { path: path.to_owned(), error };
        let file = open_locked(path)?;
        let mut replay = Replay::default();
        replay.read(&mut BufReader::new(&file)).map_err(wrong)?;
        file.set_len(replay.length).and_then(|()| file.sync_all()).map_err(wrong)?;
        sync_directory(path).map_err(wrong)?;
        let Replay { length, leases, damage, .. } = replay;
        Ok(Self { path: path.to_owned(), file, length, torn: false, leases, damage })
    }

    /// Writes an entry down and syncs it. After an error nothing is written, and what the entry announces must not be done.
    pub fn write(&mut self, lease: &str, entry: Entry) -> Result<(), LedgerError> {
        self.write_all([(lease.to_owned(), entry)])
    }

    /// Writes entries of several leases with one sync: all of them or, on error, none.
    pub fn write_all(
        &mut self,
        entries: impl IntoIterator<Item = (String, Entry)>,
    ) -> Result<(), LedgerError> {
        let lines: Vec<_> = entries.into_iter().map(|(lease, entry)| Line { lease, entry }).collect();
        self.append(&lines).map_err(|error| LedgerError::File { path: self.path.clone(), error })?;
        for line in lines {
            apply(&mut self.leases, line);
        }
        Ok(())
    }

    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        // Half a line would swallow the next one. If it cannot be cut off now, it is before the next entry.
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Lines that could not be read; they may tell of machines.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Leases that may still hold something, in order of their ids, which is that of their making.
    pub fn open_leases(&self) -> impl Iterator<Item = &Standing> {
        self.leases.values().filter(|standing| standing.is_open())
    }

    /// Removes the file, if no lease is open and no line is damaged. Call at the end of a run.
    pub fn close(self) -> Result<(), LedgerError> {
        if self.open_leases().next().is_some() || !self.damage.is_empty() {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(|error| LedgerError::File { path: self.path.clone(), error })
    }
}

/// Opens the file and locks it. Its former owner may remove it between the two: then the lock is that of a file without a name.
fn open_locked(path: &Path) -> Result<File, LedgerError> {
    let wrong = |error| LedgerError::File { path: path.to_owned(), error };
    let mut options = OpenOptions::new();
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    options.read(true).append(true).create(true).mode(0o600).custom_flags(no_follow);
    for _ in 0..MAX_TRIES {
        let file = options.open(path).map_err(wrong)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, path).map_err(wrong)? => return Ok(file),
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::Alive { path: path.to_owned() }),
            Err(error) => return Err(wrong(error.into())),
        }
    }
    Err(wrong(io::Error::other("it is removed again and again")))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the name of a file as lasting as its contents.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn apply(leases: &mut BTreeMap<String, Standing>, line: Line) {
    let before = leases.remove(&line.lease);
    if let Some(standing) = Standing::after(before, &line.entry) {
        leases.insert(line.lease, standing);
    }
}

/// A ledger on its way from the disk.
#[derive(Debug, Default)]
struct Replay {
    /// Bytes of complete lines.
    length: u64,
    lines: u64,
    leases: BTreeMap<String, Standing>,
    damage: Vec<Damage>,
}

impl Replay {
    fn read(&mut self, file: &mut impl BufRead) -> io::Result<()> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let (length, complete) = read_line(file, &mut text)?;
            if !complete {
                return Ok(());
            }
            self.length += length;
            self.lines += 1;
            match serde_json::from_slice(&text) {
                Ok(line) => apply(&mut self.leases, line),
                Err(error) => self.damage.push(Damage { line: self.lines, problem: error.to_string() }),
            }
        }
    }
}

/// Reads a line, of which at most [`MAX_LINE`] bytes are kept; its length, and whether it has an end.
fn read_line(file: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    let mut length = 0;
    loop {
        let block = file.fill_buf()?;
        if block.is_empty() {
            return Ok((length, false));
        }
        let end = memchr::memchr(b'\n', block);
        let used = end.map_or(block.len(), |at| at + 1);
        let piece = block.get(..end.unwrap_or(used)).unwrap_or_default();
        let room = MAX_LINE.saturating_sub(text.len());
        text.extend_from_slice(piece.get(..room).unwrap_or(piece));
        file.consume(used);
        length += used as u64;
        if end.is_some() {
            return Ok((length, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lease::{Claim, PluginFile, State};
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
                timeout_s: 7_200,
                lifetime_s: None,
                release_s: 0,
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
    fn a_damaged_line_hides_nothing_else_and_keeps_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.write("a1", claim("a1")).unwrap();
        drop(ledger);
        let intent = fs::read_to_string(&path).unwrap();
        let other = intent.replace("a1", "a2");
        let future = "{\"lease\":\"a1\",\"state\":\"teleported\"}\n";
        fs::write(&path, format!("{intent}non\0sense\n{other}{future}")).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.damage().iter().map(|damage| damage.line).collect::<Vec<_>>(), [2, 4]);
        assert!(ledger.damage()[1].problem.contains("teleported"), "{:?}", ledger.damage());
        assert_eq!(ledger.open_leases().count(), 2);
        ledger.write_all(["a1", "a2"].map(|lease| (lease.to_owned(), Entry::Released))).unwrap();
        ledger.close().unwrap();
        assert!(path.exists());
        assert_eq!(
            states(&Ledger::open(&path).unwrap()),
            [("a1", State::Released), ("a2", State::Released)]
                .map(|(lease, state)| (lease.to_owned(), state))
        );
    }

    #[test]
    fn what_could_not_be_written_is_cut_off_before_the_next_entry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.write("a1", claim("a1")).unwrap();
        // As after a write that was cut short on a full disk, and could not even be cut off.
        ledger.file.write_all(b"{\"lease\":\"a1\",\"sta").unwrap();
        ledger.torn = true;
        ledger.write("a1", Entry::Releasing).unwrap();
        let live = states(&ledger);
        drop(ledger);
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!((states(&ledger), ledger.damage()), (live, &[][..]));
    }

    #[test]
    fn an_error_writes_nothing_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        // Reading only: every write fails.
        ledger.file = File::open(&path).unwrap();
        assert!(ledger.write("a1", claim("a1")).is_err());
        assert_eq!(ledger.open_leases().count(), 0);
    }

    #[test]
    fn a_line_without_bounds_costs_no_memory() {
        let mut text = Vec::new();
        let endless = vec![b'x'; MAX_LINE + 10];
        let mut file = BufReader::new(&endless[..]);
        assert_eq!(read_line(&mut file, &mut text).unwrap(), (endless.len() as u64, false));
        assert_eq!(text.len(), MAX_LINE);
    }

    #[test]
    fn a_removed_file_is_not_taken_for_the_ledger() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r1.jsonl");
        let first = Ledger::open(&path).unwrap();
        assert!(is_at(&first.file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&first.file, &path).unwrap());
        let second = Ledger::open(&path).unwrap();
        assert!(is_at(&second.file, &path).unwrap() && !is_at(&first.file, &path).unwrap());
    }

    fn entries() -> impl Strategy<Value = Vec<(usize, usize)>> {
        proptest::collection::vec((0..3_usize, 0..6_usize), 0..12)
    }

    proptest! {
        // Each entry is synced.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), any::<u8>()], 0..60)) {
            let mut replay = Replay::default();
            replay.read(&mut &bytes[..]).unwrap();
            let lines = memchr::memchr_iter(b'\n', &bytes).count() as u64;
            prop_assert_eq!((replay.lines, replay.damage.len() as u64), (lines, lines));
        }

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
                    5 => Entry::FoundDead { at: 7 },
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
