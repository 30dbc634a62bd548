//! The file `results`: written line by line, digested on the way.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};

use indexmap::IndexSet;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::executor::artifacts::{ArtifactsError, Directory};
use crate::text::hex;

const RESULTS: &str = "results";
const REWRITTEN: &str = "results.new";

/// See the [module](self). The file is made with the first line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    out: Option<BufWriter<Digested>>,
    count: u64,
    /// Where the last line of the test's own is: its first byte and its length without the newline.
    own: Option<(u64, u64)>,
}

/// A file whose contents are digested as they are written.
#[derive(Debug)]
struct Digested {
    file: File,
    digest: Sha256,
    length: u64,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digest.update(bytes.get(..count).unwrap_or(bytes));
        self.length += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One line, without its newline: `status`, `name` and `note` first, `files` last.
pub(super) fn line(
    name: Option<String>,
    mut object: Map<String, Value>,
    files: Option<&IndexSet<String>>,
) -> String {
    let mut line = Map::new();
    let mut move_over = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            line.insert(key.to_owned(), value);
        }
    };
    move_over("status", object.shift_remove("status"));
    move_over("name", name.map(Value::from));
    move_over("note", object.shift_remove("note"));
    line.extend(object);
    if let Some(files) = files.filter(|files| !files.is_empty()) {
        line.insert("files".into(), files.iter().cloned().collect());
    }
    Value::Object(line).to_string()
}

impl Lines {
    /// Lines so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Writes one line; `own`: it is a result of the test's own.
    pub(super) fn write(
        &mut self,
        directory: &Directory,
        line: &str,
        own: bool,
    ) -> Result<(), ArtifactsError> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(digested(directory.scratch(RESULTS)?)),
        };
        let start = out.get_ref().length + out.buffer().len() as u64;
        let written = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n"));
        written.map_err(|source| directory.io_error("write", RESULTS, source))?;
        if own {
            self.own = Some((start, line.len() as u64));
        }
        self.count += 1;
        Ok(())
    }

    /// Adds files to the last result of the test's own, which may have been written long ago.
    pub(super) fn add_files_to_own(
        &mut self,
        directory: &Directory,
        files: &IndexSet<String>,
    ) -> Result<(), ArtifactsError> {
        let (Some(own), Some(out)) = (self.own, self.out.take()) else { return Ok(()) };
        let new = directory.scratch(REWRITTEN)?;
        let rewritten = rewrite(out, new, own, files);
        self.out = Some(rewritten.map_err(|source| directory.io_error("rewrite", RESULTS, source))?);
        directory.replace_scratch(REWRITTEN, RESULTS)
    }

    /// The length of the file and its digest.
    pub(super) fn finish(self, directory: &Directory) -> Result<(u64, String), ArtifactsError> {
        let out = match self.out {
            Some(out) => out,
            None => digested(directory.scratch(RESULTS)?),
        };
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.map_err(|source| directory.io_error("write", RESULTS, source))?;
        Ok((file.length, hex(&file.digest.finalize())))
    }
}

fn digested(file: File) -> BufWriter<Digested> {
    BufWriter::new(Digested { file, digest: Sha256::new(), length: 0 })
}

fn rewrite(
    old: BufWriter<Digested>,
    new: File,
    (start, length): (u64, u64),
    files: &IndexSet<String>,
) -> io::Result<BufWriter<Digested>> {
    let mut old = old.into_inner().map_err(io::IntoInnerError::into_error)?.file;
    let mut new = digested(new);
    old.rewind()?;
    io::copy(&mut (&old).take(start), &mut new)?;
    let mut line = Vec::new();
    (&old).take(length).read_to_end(&mut line)?;
    let mut object: Map<String, Value> = serde_json::from_slice(&line)?;
    let listed = object.entry("files").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(listed) = listed {
        listed.extend(files.iter().cloned().map(Value::from));
    }
    serde_json::to_writer(&mut new, &object)?;
    old.seek(SeekFrom::Start(start + length))?;
    io::copy(&mut &old, &mut new)?;
    Ok(new)
}
