//! From what a test says to its artifacts: `results`, one JSON object per line, and `files/`.
//!
//! A [`Recorder`] takes the pieces of results in the order in which they came over the control channel, and the log. Data of
//! files goes to disk at once; of results only those are held that are still open (`partial`), within a limit. A result is
//! written when it is complete. [`Recorder::finish`] writes what is still open, adds the host's own result where the test
//! sent none, and publishes the directory.
//!
//! **Invariant:** whatever comes, a finished recorder has a `results` file of whole lines with at least one line, and the files that
//! those lines name.
//!
//! An error of [`Recorder::take`] or [`Recorder::log`] means that the test is to be ended; the recorder can, and should, still be
//! finished: what was complete before stays. What had begun to come and never got complete is not reported.

mod custom;
mod lines;
mod merge;
mod verdict;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use serde_json::{Map, Value};

use self::lines::Lines;
use self::merge::{Open, Partial};
use self::verdict::Tally;
use super::artifacts::{ArtifactsError, Directory};
use super::control::{Header, Part, Violation};
use super::names::clean;
use super::output::Output;
use super::spec::{Ended, Limits, Published, ResultRule};
use super::untar::{Piece, Untar};

pub use verdict::Fallback;

/// The file that has the log, where the host adds it.
const OUTPUT: &str = "output.txt";
/// The directory for what a test left in `TMT_TEST_DATA`.
const DATA: &str = "data";
/// Bytes of JSON that open results may have together: they are held in memory.
const MAX_OPEN_BYTES: u64 = 4 << 20;
/// Files that are taken from `TMT_TEST_DATA`.
const MAX_DATA_FILES: usize = 10_000;

/// How results are recorded.
#[derive(Debug, Clone)]
pub struct Options {
    pub limits: Limits,
    /// tmt's `result`.
    pub rule: ResultRule,
    /// Where the status comes from if the test sends no result of its own.
    pub fallback: Fallback,
}

/// Why a test cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The test broke a rule: [`Ended::Protocol`].
    #[error(transparent)]
    Protocol(#[from] Violation),
    /// The test went over a limit, which is named: [`Ended::Limit`].
    #[error("{0}")]
    Limit(String),
    /// What the test left in `TMT_TEST_DATA` did not come in good order.
    #[error("cannot collect TMT_TEST_DATA: {0}")]
    Archive(String),
    /// The host cannot write.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
}

impl RecordError {
    /// How this ends the test.
    pub fn ended(&self) -> Ended {
        match self {
            Self::Protocol(violation) => Ended::Protocol(violation.to_string()),
            Self::Limit(limit) => Ended::Limit(limit.clone()),
            // No fault of the test's.
            Self::Archive(_) | Self::Artifacts(_) => Ended::Host(self.to_string()),
        }
    }
}

/// What became of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The execution's status: that of the last result of the test's own, `infra` if the host had to make one.
    pub status: String,
    pub note: Option<String>,
    /// Lines in `results`.
    pub results: u64,
    /// Those lines that [`Recorder::finish`] added.
    pub last_lines: Vec<String>,
    pub published: Published,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Recorder {
    directory: Directory,
    options: Options,
    output: Output,
    lines: Lines,
    open: Open,
    /// The result whose files are coming.
    current: Option<Current>,
    tally: Tally,
    /// What the test left in `TMT_TEST_DATA`: its files, and the one that is coming.
    archive: Untar,
    data: IndexSet<String>,
    data_file: Option<File>,
    /// Headers so far.
    reported: u64,
    /// Bytes of results, files and log so far.
    received: u64,
    file_bytes: u64,
}

#[derive(Debug)]
struct Current {
    header: Header,
    /// The file that data goes to: how many were opened, and the last of them.
    opened: usize,
    file: Option<File>,
    /// Where the files are and what they are called, as it ended up.
    place: Option<String>,
    files: IndexSet<String>,
}

/// A result that is about to be written.
#[derive(Debug, Default)]
struct Complete {
    name: Option<String>,
    object: Map<String, Value>,
    files: IndexSet<String>,
}

impl Complete {
    fn new(name: Option<String>, partial: Partial) -> Self {
        Self { name: partial.place.or(name), object: partial.object, files: partial.files }
    }
}

impl Recorder {
    /// Begins the artifacts that will be published as `place`.
    pub fn create(place: &Path, options: Options) -> Result<Self, ArtifactsError> {
        Ok(Self {
            directory: Directory::create(place)?,
            output: Output::new(options.limits.log_bytes),
            options,
            lines: Lines::default(),
            open: Open::default(),
            current: None,
            tally: Tally::default(),
            archive: Untar::new(),
            data: IndexSet::new(),
            data_file: None,
            reported: 0,
            received: 0,
            file_bytes: 0,
        })
    }

    /// Artifacts of a test that never ran: one `infra` result with this note, no files.
    pub fn publish_not_run(place: &Path, note: &str) -> Result<Published, ArtifactsError> {
        let directory = Directory::create(place)?;
        let mut lines = Lines::default();
        let mut object = Map::new();
        object.insert("status".into(), verdict::INFRA.into());
        object.insert("note".into(), note.into());
        lines.write(&directory, &lines::line(None, object, None), true)?;
        let (bytes, digest) = lines.finish(&directory)?;
        Ok(Published { directory: directory.publish()?, bytes, digest })
    }

    /// Takes the next piece of a result. The line of `results`, if that completed one.
    pub fn take(&mut self, part: Part<'_>) -> Result<Option<String>, RecordError> {
        match part {
            Part::Header(header) => self.begin(*header).map(|()| None),
            Part::Data { file, bytes } => self.data(file, bytes).map(|()| None),
            Part::End => match self.current.take() {
                Some(current) => self.end(current),
                None => Ok(None),
            },
        }
    }

    /// Takes a piece of the log.
    pub fn log(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.charge(bytes.len() as u64)?;
        Ok(self.output.write(&self.directory, bytes)?)
    }

    /// Takes a piece of the tar stream of what the test left in `TMT_TEST_DATA`. Comes after the test's end. After an error
    /// the rest is to be dropped; the files that were complete stay.
    pub fn collect(&mut self, mut archive: &[u8]) -> Result<(), RecordError> {
        while let Some(piece) = self.archive.next(&mut archive).map_err(RecordError::Archive)? {
            match piece {
                Piece::File(name) => self.begin_data(&name)?,
                Piece::Data(bytes) => self.data_bytes(bytes)?,
            }
        }
        Ok(())
    }

    fn begin_data(&mut self, path: &str) -> Result<(), RecordError> {
        self.data_file = None;
        if self.data.len() >= MAX_DATA_FILES {
            return Err(RecordError::Limit(format!("more than {MAX_DATA_FILES} files in TMT_TEST_DATA")));
        }
        let opened = self.directory.append(None, &format!("{DATA}/{}", clean(path)))?;
        self.data.insert(opened.name);
        self.data_file = Some(opened.file);
        Ok(())
    }

    fn data_bytes(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.charge(bytes.len() as u64)?;
        let Some(file) = &mut self.data_file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| self.directory.io_error("write", DATA, source))?;
        self.file_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The test is over: writes what is missing and publishes.
    pub fn finish(mut self, ended: &Ended) -> Result<Recorded, ArtifactsError> {
        self.current = None;
        self.data_file = None;
        let mut cause = verdict::cause(ended);
        let mut last_lines = Vec::new();
        if self.options.rule == ResultRule::Custom && cause.is_none() {
            match custom::read(&self.directory) {
                Ok(results) => {
                    for result in results {
                        last_lines.push(self.write(result)?);
                    }
                }
                Err(wrong) => cause = Some(verdict::Cause::Test(wrong)),
            }
        }
        let open = std::mem::take(&mut self.open).into_ordered();
        let mut own_missing = !self.tally.has_own();
        for (name, partial) in open {
            let mut complete = Complete::new(name, partial);
            if complete.name.is_none() && self.tally.has_own() {
                // Opened again after a full one: the full one was the test's word, this is only one more line.
                verdict::settle(&mut complete.object, cause.as_ref());
            } else if complete.name.is_none() {
                own_missing = false;
                self.fall_back(&mut complete, ended, cause.as_ref());
            }
            last_lines.push(self.write(complete)?);
        }
        if own_missing {
            let mut complete = Complete::default();
            self.fall_back(&mut complete, ended, cause.as_ref());
            last_lines.push(self.write(complete)?);
        }
        self.publish(ended, last_lines)
    }

    fn publish(mut self, ended: &Ended, last_lines: Vec<String>) -> Result<Recorded, ArtifactsError> {
        if !self.data.is_empty() {
            self.lines.add_files_to_own(&self.directory, &self.data)?;
        }
        let log_bytes = self.output.finish(&self.directory)?;
        let results = self.lines.count();
        let (line_bytes, digest) = self.lines.finish(&self.directory)?;
        let directory: PathBuf = self.directory.publish()?;
        let bytes = self.file_bytes + log_bytes + line_bytes;
        let (status, note) = self.tally.verdict(ended);
        Ok(Recorded { status, note, results, last_lines, published: Published { directory, bytes, digest } })
    }

    fn charge(&mut self, bytes: u64) -> Result<(), RecordError> {
        let limit = self.options.limits.bytes_per_test;
        self.received = self.received.saturating_add(bytes);
        if self.received > limit {
            return Err(RecordError::Limit(format!("more than {limit} bytes of results, files and log")));
        }
        Ok(())
    }

    fn begin(&mut self, header: Header) -> Result<(), RecordError> {
        let limit = self.options.limits.results_per_test;
        self.reported += 1;
        if self.reported > limit {
            return Err(RecordError::Limit(format!("more than {limit} results")));
        }
        // All of it now, so that nothing is written that goes beyond the limit anyway.
        let announced = header.files.iter().fold(header.size, |sum, file| sum.saturating_add(file.length));
        self.charge(announced)?;
        self.current = Some(Current { header, opened: 0, file: None, place: None, files: IndexSet::new() });
        Ok(())
    }

    fn data(&mut self, file: usize, bytes: &[u8]) -> Result<(), RecordError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        while current.opened <= file {
            self.open_next(&mut current)?;
        }
        if let Some(file) = &mut current.file {
            file.write_all(bytes).map_err(|source| self.directory.io_error("write", "files", source))?;
        }
        self.file_bytes += bytes.len() as u64;
        self.current = Some(current);
        Ok(())
    }

    fn open_next(&mut self, current: &mut Current) -> Result<(), RecordError> {
        let Some(entry) = current.header.files.get(current.opened) else { return Ok(()) };
        let opened = self.directory.append(current.header.name.as_deref(), &entry.name)?;
        let is_log = self.output.is(&opened.file);
        if is_log.map_err(|source| self.directory.io_error("look at", &entry.name, source))? {
            let rule = format!("files[{}]: the test's output is in `{}`", current.opened, opened.name);
            return Err(violation(&current.header, rule).into());
        }
        current.opened += 1;
        current.file = Some(opened.file);
        current.place = opened.result;
        current.files.insert(opened.name);
        Ok(())
    }

    /// A result and all its files have come.
    fn end(&mut self, mut current: Current) -> Result<Option<String>, RecordError> {
        while current.opened < current.header.files.len() {
            self.open_next(&mut current)?;
        }
        self.check_testout(&current)?;
        let Current { header, place, files, .. } = current;
        let was_open = self.open.remove(header.name.as_deref());
        if header.partial {
            let mut partial = was_open.unwrap_or_else(|| self.open.fresh());
            partial.merge(&header, place, files);
            self.open.insert(header.name, partial);
            if self.open.bytes() > MAX_OPEN_BYTES {
                let what = format!("more than {MAX_OPEN_BYTES} bytes of results that are still open");
                return Err(RecordError::Limit(what));
            }
            return Ok(None);
        }
        let result = match was_open {
            Some(mut partial) => {
                partial.merge(&header, place, files);
                partial
            }
            None => Partial::alone(&header, place, files),
        };
        Ok(Some(self.write(Complete::new(header.name, result))?))
    }

    /// `testout` must not name a file that the result has. Asked before anything is merged, so that what came before stays.
    fn check_testout(&self, current: &Current) -> Result<(), RecordError> {
        let header = &current.header;
        let open = self.open.get(header.name.as_deref());
        let testout = match header.object.get("testout") {
            None => open.and_then(|open| open.object.get("testout")),
            named => named,
        };
        let Some(testout) = testout.and_then(Value::as_str) else { return Ok(()) };
        let place = current.place.as_ref().or(open.and_then(|open| open.place.as_ref()));
        let place = place.or(header.name.as_ref()).map(String::as_str);
        if current.files.contains(testout) || self.directory.has_file(place, testout)? {
            let rule = format!("`testout` is `{testout}`, which is a file of the result already");
            return Err(violation(header, rule).into());
        }
        Ok(())
    }

    /// Writes a result, with the log among its files if it asks for that.
    fn write(&mut self, mut complete: Complete) -> Result<String, ArtifactsError> {
        if let Some(Value::String(testout)) = complete.object.shift_remove("testout") {
            let name = complete.name.as_deref();
            let linked = match self.output.link(&self.directory, name, &testout)? {
                // A file that was to be refused has come in between; the log may tell why the test was ended.
                None if testout != OUTPUT => self.output.link(&self.directory, name, OUTPUT)?,
                linked => linked,
            };
            if let Some(linked) = linked {
                complete.name = linked.result;
                complete.files.insert(linked.name);
            }
        }
        let own = complete.name.is_none();
        if own {
            verdict::interpret(self.options.rule, &mut complete.object);
        }
        self.tally.add(own, &complete.object);
        let line = lines::line(complete.name, complete.object, Some(&complete.files));
        self.lines.write(&self.directory, &line, own)?;
        Ok(line)
    }

    /// Makes the test's own result from what there is of it.
    fn fall_back(&self, complete: &mut Complete, ended: &Ended, cause: Option<&verdict::Cause>) {
        if cause.is_some() {
            verdict::settle(&mut complete.object, cause);
        } else if !complete.object.get("status").is_some_and(Value::is_string) {
            let (status, note) = self.tally.fall_back(self.options.fallback, self.options.rule, ended);
            complete.object.insert("status".into(), status.into());
            if let Some(note) = note {
                complete.object.entry("note").or_insert_with(|| note.into());
            }
        }
        let has_testout = complete.object.get("testout").is_some_and(Value::is_string);
        if !has_testout && !complete.files.contains(OUTPUT) {
            complete.object.insert("testout".into(), OUTPUT.into());
        }
    }
}

fn violation(header: &Header, rule: String) -> Violation {
    Violation { line: header.line, text: format!("`result {}`", header.size), rule }
}

#[cfg(test)]
mod tests;
