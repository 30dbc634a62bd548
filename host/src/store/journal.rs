//! `journal.jsonl`: one record per line, appended, never changed.
//!
//! A line is written by one `write` before its record counts, so it survives the death of the process; a
//! [syncer](super::Syncer) makes it survive that of the machine. A line without its end (a torn tail) was never told to anybody and does not count.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::record::Record;

/// Longest line that a reader takes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The writing side; there is one per run, guarded by the run directory's lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Bytes of complete lines.
    length: u64,
}

impl Journal {
    /// Opens or creates the file and cuts off a torn tail.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let length = complete_bytes(&mut file)?;
        file.set_len(length)?;
        Ok(Self { file, length })
    }

    /// Appends a record. When this returns well, the record survives the death of this process. After an error the file is as
    /// it was before, as far as that can be had.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line would swallow the next one.
            let _as_good_as_it_gets = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// The file, for who syncs it.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Bytes written so far: up to where a reader may read.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Bytes up to the end of the last complete line.
fn complete_bytes(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&mut *file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Reads records from an offset on, while the file grows.
#[derive(Debug)]
pub struct JournalReader {
    file: BufReader<File>,
    offset: u64,
}

impl JournalReader {
    /// `offset`: 0, or what [`offset`](Self::offset) said before.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, offset })
    }

    /// The next record; `None` if there is no further complete line yet. Lines that are no records are errors, once each.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        let mut line = Vec::new();
        self.file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            self.file.seek(SeekFrom::Start(self.offset))?;
            if line.len() as u64 == MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the journal has no end"));
            }
            return Ok(None);
        }
        let at = self.offset;
        self.offset += line.len() as u64;
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("journal, at byte {at}: {error}"))
        })
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::What;

    fn record(number: u64) -> Record {
        Record { at: number, what: What::Warning { text: format!("number {number}\n\u{1b}") } }
    }

    fn read_all(path: &Path) -> Vec<Record> {
        let mut reader = JournalReader::open(path, 0).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    #[test]
    fn cut_anywhere_it_holds_a_prefix_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let all: Vec<_> = (0..4).map(record).collect();
        for record in &all {
            journal.append(record).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(journal.length(), bytes.len() as u64);
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = memchr::memchr_iter(b'\n', &bytes[..cut]).count();
            assert_eq!(read_all(&path), all[..whole], "cut at {cut}");
            let mut journal = Journal::open(&path).unwrap();
            journal.append(&record(9)).unwrap();
            let seen = read_all(&path);
            assert_eq!((&seen[..whole], &seen[whole..]), (&all[..whole], &[record(9)][..]), "cut at {cut}");
        }
    }

    #[test]
    fn a_reader_follows_and_goes_on_from_its_offset() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let mut reader = JournalReader::open(&path, 0).unwrap();
        assert_eq!(reader.next_record().unwrap(), None);
        journal.append(&record(1)).unwrap();
        assert_eq!(reader.next_record().unwrap(), Some(record(1)));
        assert_eq!(reader.next_record().unwrap(), None);
        journal.append(&record(2)).unwrap();
        let mut later = JournalReader::open(&path, reader.offset()).unwrap();
        assert_eq!(later.next_record().unwrap(), Some(record(2)));
        assert_eq!(reader.next_record().unwrap(), Some(record(2)));
    }

    #[test]
    fn a_line_that_is_no_record_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        std::fs::write(&path, "nonsense\n{\"at\":1,\"what\":\"warning\",\"text\":\"x\"}\n").unwrap();
        let mut reader = JournalReader::open(&path, 0).unwrap();
        assert!(reader.next_record().unwrap_err().to_string().contains("at byte 0"));
        assert!(reader.next_record().unwrap().is_some());
    }
}
