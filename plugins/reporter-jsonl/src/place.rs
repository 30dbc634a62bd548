//! One file of lines with its tree of files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use atex_plugin_api::reporter::{Finished, ResultLine};
use atex_plugin_api::{Error, ErrorKind, Host, Result};

use crate::files::{self, Compression, Listing};
use crate::format;
use crate::names::{Names, numbered};
use crate::sink::{Codec, Sink};

/// Longest line of a `results` file.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Bytes of results that are held, so that they are read once; a test with more of them has its file read twice.
const MAX_HELD_BYTES: u64 = 1 << 20;

/// How a place is written.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) codec: Option<Codec>,
    pub(crate) level: Option<u32>,
    pub(crate) files: Option<Compression>,
    pub(crate) duplicates: bool,
    /// What is there is an earlier report of the same run.
    pub(crate) replace: bool,
}

#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    sink: Sink,
    files: PathBuf,
    options: Options,
    names: Names,
    /// A line could not be written and not be taken back: nothing can follow it.
    broken: bool,
}

impl Place {
    pub(crate) fn open(path: &Path, files: &Path, options: &Options) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))?;
        }
        if !options.replace && fs::symlink_metadata(files).is_ok() {
            return Err(
                Error::new(ErrorKind::Other, format!("{} already exists", files.display())).retryable(false)
            );
        }
        let mut how = OpenOptions::new();
        let how = how.write(true);
        let how = if options.replace { how.create(true).truncate(true) } else { how.create_new(true) };
        let file = how.open(path).map_err(|error| cannot("make", path, &error))?;
        fs::create_dir_all(files).map_err(|error| cannot("make", files, &error))?;
        let sink =
            Sink::new(file, options.codec, options.level).map_err(|error| cannot("write", path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            sink,
            files: files.to_owned(),
            options: options.clone(),
            names: Names::default(),
            broken: false,
        })
    }

    /// Adds all results of one execution, or none.
    pub(crate) fn add(&mut self, finished: &Finished, host: &Host) -> Result<()> {
        if self.broken {
            return Err(Error::new(ErrorKind::Other, format!("{} is incomplete", self.path.display())));
        }
        let (platform, test) = (&finished.platform, &finished.test);
        let times = self.names.count(platform, test);
        if times > 0 && !self.options.duplicates {
            self.names.uncount(platform, test);
            let message = format!("{test} was already reported for {platform}");
            return Err(Error::new(ErrorKind::Other, message).retryable(false));
        }
        let added = self.add_named(finished, &numbered(test, times), host);
        added.inspect_err(|_| self.names.uncount(platform, test))
    }

    fn add_named(&mut self, finished: &Finished, name: &str, host: &Host) -> Result<()> {
        let Some(artifacts) = &finished.artifacts else {
            return self.write(|sink| {
                let line = format::line(&finished.platform, name, &of_verdict(finished), str::to_owned);
                writeln!(sink, "{line}")
            });
        };
        let results = artifacts.join("results");
        // Everything is looked at before anything is written.
        let (mut bytes, mut held) = (0, Vec::new());
        let looked = for_each_result(&results, |length, result| {
            bytes += length;
            if bytes <= MAX_HELD_BYTES {
                held.push(result);
            }
            Ok(())
        });
        looked.map_err(|error| cannot("read", &results, &error))?;
        let name = self.place_files(finished, name, &artifacts.join("files"), host)?;
        let compression = self.options.files.clone();
        self.write(|sink| {
            let mut line = |result: &ResultLine| {
                let file_name =
                    |file: &str| compression.as_ref().map_or_else(|| file.to_owned(), |it| it.renamed(file));
                writeln!(sink, "{}", format::line(&finished.platform, &name, result, file_name))
            };
            if bytes <= MAX_HELD_BYTES {
                held.iter().try_for_each(line)
            } else {
                for_each_result(&results, |_, result| line(&result))
            }
        })
    }

    /// Places the test's files, if it has any, and says under which name.
    fn place_files(&mut self, finished: &Finished, name: &str, source: &Path, host: &Host) -> Result<String> {
        let listing = Listing::read(source).map_err(|error| cannot("read", source, &error))?;
        for other in &listing.others {
            host.warn(format!("{} is no regular file and is left out", source.join(other).display()));
        }
        if listing.files.is_empty() {
            return Ok(name.to_owned());
        }
        let (name, place) = self.names.place(&finished.platform, name, &listing);
        let target = self.files.join(place);
        files::place(source, &listing, &target, self.options.files.as_ref())
            .map_err(|error| cannot("put files to", &target, &error))?;
        Ok(name)
    }

    /// Writes whole tests only: half of one is taken back.
    fn write(&mut self, write: impl FnOnce(&mut Sink) -> io::Result<()>) -> Result<()> {
        let begin = self.sink.plain().map(|mut file| file.stream_position());
        let written = write(&mut self.sink).and_then(|()| self.sink.publish());
        let Err(error) = written else { return Ok(()) };
        self.broken = !matches!(begin, Some(Ok(begin)) if self.take_back(begin));
        Err(cannot("write", &self.path, &error))
    }

    /// Goes back to a place in a plain file.
    fn take_back(&mut self, begin: u64) -> bool {
        let Some(mut file) = self.sink.plain().and_then(|file| file.try_clone().ok()) else { return false };
        let back = file.set_len(begin).and_then(|()| file.seek(io::SeekFrom::Start(begin)));
        // What is still buffered must not follow.
        if let (Ok(_), Ok(sink)) = (back, Sink::new(file, None, None)) {
            let old = std::mem::replace(&mut self.sink, sink);
            if let Sink::Plain(buffer) = old {
                let _ = buffer.into_parts();
            }
            return true;
        }
        false
    }

    /// Completes the file and waits until it is on disk.
    pub(crate) fn close(self) -> Result<()> {
        let done = self.sink.finish().and_then(|file| file.sync_all());
        done.map_err(|error| cannot("write", &self.path, &error))
    }
}

/// The line of a test that never ran.
fn of_verdict(finished: &Finished) -> ResultLine {
    let mut line = ResultLine::default();
    line.status = Some(finished.status.clone());
    line.note.clone_from(&finished.note);
    line
}

/// Gives each line's length and what it says.
fn for_each_result(path: &Path, mut each: impl FnMut(u64, ResultLine) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        io::Read::take(&mut file, MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(io::Error::other(format!("line {number} is longer than {MAX_LINE_BYTES} bytes")));
        }
        let result = serde_json::from_slice(&line)
            .map_err(|error| io::Error::other(format!("line {number} is no result: {error}")))?;
        each(line.len() as u64, result)?;
    }
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::with_source(ErrorKind::Other, format!("cannot {what} {}", path.display()), error)
}
