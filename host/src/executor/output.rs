//! A test's log: what it wrote to stdout and stderr, in order, of which only a limited amount is kept.
//!
//! The first half of the limit goes to a file as it comes, the rest through a second file used as a ring, so that a log of any
//! length costs no memory and at most its limit on disk. The first file may become a file of results at any time: it is
//! complete when the log is [finished](Output::finish).
//!
//! File systems take their time for names, so there are as few as possible: no file until there is something to write or a
//! result that wants one, and the first such result gets the file itself.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::artifacts::{ArtifactsError, Directory, Opened};

const LOG: &str = "log";
const TAIL: &str = "log.tail";

/// See the [module](self). Files are made when the first byte comes.
#[derive(Debug)]
pub(super) struct Output {
    head_limit: u64,
    tail_limit: u64,
    /// Bytes that were written, kept or not.
    total: u64,
    head: Option<File>,
    tail: Option<File>,
    /// Set once it is a file of a result; until then it stands beside them.
    placed: Option<Placed>,
}

/// Where the log is among the files of results.
#[derive(Debug)]
struct Placed {
    /// One of its paths below `files/`.
    path: String,
    /// Device and inode.
    identity: (u64, u64),
}

impl Output {
    /// A log that keeps at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let head_limit = limit.div_ceil(2);
        Self { head_limit, tail_limit: limit - head_limit, total: 0, head: None, tail: None, placed: None }
    }

    pub(super) fn write(&mut self, directory: &Directory, bytes: &[u8]) -> Result<(), ArtifactsError> {
        let room = usize::try_from(self.head_limit.saturating_sub(self.total)).unwrap_or(usize::MAX);
        let (first, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        if !first.is_empty() {
            let written = self.head(directory)?.write_all(first);
            written.map_err(|source| directory.io_error("write", LOG, source))?;
        }
        self.total += first.len() as u64;
        if !rest.is_empty() {
            self.write_tail(directory, rest)?;
        }
        Ok(())
    }

    /// Makes the log a file of a result as well; `None` if there is a file of that name.
    pub(super) fn link(
        &mut self,
        directory: &Directory,
        result: Option<&str>,
        name: &str,
    ) -> Result<Option<Opened<()>>, ArtifactsError> {
        if let Some(placed) = &self.placed {
            return directory.link(&placed.path, result, name);
        }
        let opened = if self.head.is_some() {
            directory.move_scratch(LOG, result, name)?
        } else {
            directory.create_file(result, name)?.map(|Opened { file, result, name }| {
                self.head = Some(file);
                Opened { file: (), result, name }
            })
        };
        if let (Some(opened), Some(head)) = (&opened, &self.head) {
            let identity = identity(head).map_err(|source| directory.io_error("look at", LOG, source))?;
            let path = opened
                .result
                .as_ref()
                .map_or_else(|| opened.name.clone(), |result| format!("{result}/{}", opened.name));
            self.placed = Some(Placed { path, identity });
        }
        Ok(opened)
    }

    /// Whether a file is the log itself.
    pub(super) fn is(&self, file: &File) -> io::Result<bool> {
        match &self.placed {
            None => Ok(false),
            Some(placed) => Ok(identity(file)? == placed.identity),
        }
    }

    /// Brings head and tail together and removes what no result has linked. The bytes that stay.
    pub(super) fn finish(mut self, directory: &Directory) -> Result<u64, ArtifactsError> {
        let mut kept = 0;
        if self.placed.is_some() {
            kept = self.join().map_err(|source| directory.io_error("write", LOG, source))?;
        }
        if self.tail.is_some() {
            directory.remove_scratch(TAIL)?;
        }
        if self.head.is_some() && self.placed.is_none() {
            directory.remove_scratch(LOG)?;
        }
        Ok(kept)
    }

    fn head(&mut self, directory: &Directory) -> Result<&mut File, ArtifactsError> {
        match &mut self.head {
            Some(file) => Ok(file),
            none => Ok(none.insert(directory.scratch(LOG)?)),
        }
    }

    fn write_tail(&mut self, directory: &Directory, bytes: &[u8]) -> Result<(), ArtifactsError> {
        let capacity = self.tail_limit;
        // Of a piece longer than the ring only the end would be left.
        let skipped = bytes.len().saturating_sub(usize::try_from(capacity).unwrap_or(usize::MAX));
        self.total += skipped as u64;
        let mut bytes = bytes.get(skipped..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let tail = match &mut self.tail {
            Some(file) => file,
            none => none.insert(directory.scratch(TAIL)?),
        };
        while !bytes.is_empty() {
            let position = (self.total - self.head_limit) % capacity;
            let room = usize::try_from(capacity - position).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            let written = tail.write_all_at(now, position);
            written.map_err(|source| directory.io_error("write", TAIL, source))?;
            self.total += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Appends the tail to the head; the length of both.
    fn join(&mut self) -> io::Result<u64> {
        let (Some(head), beyond) = (&mut self.head, self.total.saturating_sub(self.head_limit)) else {
            return Ok(0);
        };
        if beyond > 0 {
            let left_out = beyond.saturating_sub(self.tail_limit);
            if left_out > 0 {
                write!(head, "\n[atex-host: {left_out} bytes left out]\n")?;
            }
            if let Some(tail) = &mut self.tail {
                let (start, length) =
                    if left_out > 0 { (beyond % self.tail_limit, self.tail_limit) } else { (0, beyond) };
                tail.seek(SeekFrom::Start(start))?;
                io::copy(&mut Read::by_ref(tail).take(length - start), head)?;
                tail.rewind()?;
                io::copy(&mut Read::by_ref(tail).take(start), head)?;
            }
        }
        head.stream_position()
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is kept of a log with this limit that is written in these pieces.
    fn kept(limit: u64, pieces: &[&[u8]]) -> Vec<u8> {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        let mut output = Output::new(limit);
        output.link(&directory, None, "out").unwrap().unwrap();
        for piece in pieces {
            output.write(&directory, piece).unwrap();
        }
        let length = output.finish(&directory).unwrap();
        let text = std::fs::read(directory.publish().unwrap().join("files/out")).unwrap();
        assert_eq!(length, text.len() as u64);
        text
    }

    fn text(limit: u64, pieces: &[&[u8]]) -> String {
        String::from_utf8(kept(limit, pieces)).unwrap()
    }

    #[test]
    fn head_and_tail_stay() {
        assert_eq!(text(8, &[]), "");
        assert_eq!(text(8, &[b"1234", b"5678"]), "12345678");
        assert_eq!(text(8, &[b"123", b"456", b"789"]), "1234\n[atex-host: 1 bytes left out]\n6789");
        assert_eq!(text(8, &[b"1234567890abcdefgh"]), "1234\n[atex-host: 10 bytes left out]\nefgh");
        assert_eq!(text(3, &[b"1234"]), "12\n[atex-host: 1 bytes left out]\n4");
        assert_eq!(text(1, &[b"12"]), "1\n[atex-host: 1 bytes left out]\n");
        assert_eq!(text(0, &[b"12"]), "\n[atex-host: 2 bytes left out]\n");
    }

    #[test]
    fn a_log_that_nobody_links_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        let mut output = Output::new(4);
        output.write(&directory, b"123456").unwrap();
        assert_eq!(output.finish(&directory).unwrap(), 0);
        let place = directory.publish().unwrap();
        let names: Vec<_> =
            std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["files"]);
    }

    #[test]
    fn a_log_has_as_many_names_as_results_want() {
        for written_before in [false, true] {
            let base = tempfile::tempdir().unwrap();
            let directory = Directory::create(&base.path().join("=1")).unwrap();
            let mut output = Output::new(100);
            if written_before {
                output.write(&directory, b"a").unwrap();
            }
            for (result, name) in [(None, "x"), (Some("sub"), "d/y"), (None, "z")] {
                assert_eq!(output.link(&directory, result, name).unwrap().unwrap().name, name);
                assert!(output.link(&directory, result, name).unwrap().is_none());
                assert!(output.is(&directory.append(result, name).unwrap().file).unwrap());
            }
            output.write(&directory, b"b").unwrap();
            let wanted = if written_before { "ab" } else { "b" };
            assert_eq!(output.finish(&directory).unwrap(), wanted.len() as u64);
            let place = directory.publish().unwrap();
            for name in ["x", "sub/d/y", "z"] {
                assert_eq!(
                    std::fs::read_to_string(place.join("files").join(name)).unwrap(),
                    wanted,
                    "{name}"
                );
            }
            assert_eq!(std::fs::read_dir(place).unwrap().count(), 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_make_no_difference(
            limit in 0_u64..40,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..8),
        ) {
            let whole = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let kept = kept(limit, &pieces);
            let head = usize::try_from(limit.div_ceil(2)).unwrap();
            let tail = usize::try_from(limit).unwrap() - head;
            if whole.len() <= head + tail {
                prop_assert_eq!(kept, whole);
            } else {
                prop_assert!(kept.starts_with(&whole[..head]) && kept.ends_with(&whole[whole.len() - tail..]));
            }
        }
    }
}
