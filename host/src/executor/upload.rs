//! Trees as tar streams, made on the fly.
//!
//! What is sent has the modes, times and symbolic links that it has here, in the order of names. Left out are `.git`
//! (directory or file), directories that hold a `run.json` (runs of ours) or a `CACHEDIR.TAG`, sockets, devices and pipes. A file that changes
//! while it is read arrives in the length it had first.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::store::RUNS;

/// Below this, one write per file would cost more than the copy.
const BUFFER: usize = 256 << 10;

/// Sends what is in the directory `root`.
pub(crate) fn send(root: &Path, to: &mut dyn Write) -> io::Result<()> {
    send_as(root, ".", to)
}

/// Sends what is in `root` if it is a directory; else the file `root` under the given name.
pub(crate) fn send_as(root: &Path, name: &str, to: &mut dyn Write) -> io::Result<()> {
    pack(root, name, Times::Kept, to)
}

/// Whether the times of files matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Kept,
    /// All are 0.
    LeftOut,
}

fn pack(root: &Path, name: &str, times: Times, to: &mut dyn Write) -> io::Result<()> {
    let mut tar = Builder::new(io::BufWriter::with_capacity(BUFFER, to));
    let metadata = fs::metadata(root).map_err(|e| named(root, &e))?;
    if metadata.is_dir() {
        let mut pending = vec![(root.to_path_buf(), PathBuf::from("."))];
        while let Some((directory, name)) = pending.pop() {
            append_directory(&mut tar, &directory, &name, times, &mut pending)?;
        }
    } else {
        append_file(&mut tar, root, Path::new(name), times, &metadata)?;
    }
    tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.flush()
}

fn append_directory<W: Write>(
    tar: &mut Builder<W>,
    directory: &Path,
    name: &Path,
    times: Times,
    pending: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory).map_err(|e| named(directory, &e))?;
    tar.append_data(&mut header(&metadata, EntryType::Directory, times, 0), name, io::empty())?;
    let entries = fs::read_dir(directory).map_err(|e| named(directory, &e))?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(|e| named(directory, &e))?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    let first = pending.len();
    for entry in entries {
        let (path, file_name) = (entry.path(), entry.file_name());
        if file_name == ".git" {
            continue;
        }
        let name = name.join(&file_name);
        let metadata = fs::symlink_metadata(&path).map_err(|e| named(&path, &e))?;
        if metadata.is_dir() {
            if !is_left_out(&path) {
                pending.push((path, name));
            }
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| named(&path, &e))?;
            tar.append_link(&mut header(&metadata, EntryType::Symlink, times, 0), &name, target)?;
        } else if metadata.is_file() {
            append_file(tar, &path, &name, times, &metadata)?;
        }
    }
    pending[first..].reverse();
    Ok(())
}

/// Runs of ours, the directory where they are by default, and caches by the convention of bford.info/cachedir: what tools can make again, often large.
fn is_left_out(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name == RUNS)
        || ["run.json", "CACHEDIR.TAG"].iter().any(|name| fs::symlink_metadata(directory.join(name)).is_ok())
}

/// SHA-256 of what [`send`] would send, in hexadecimal digits: names, kinds, modes and contents. Not times: a run directory that
/// is made in the tree changes those of its parents, and a checkout of the same commit all of them.
pub(crate) fn digest(root: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    pack(root, ".", Times::LeftOut, &mut hasher)?;
    Ok(crate::text::hex(&hasher.finalize()))
}

fn append_file<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    name: &Path,
    times: Times,
    metadata: &fs::Metadata,
) -> io::Result<()> {
    let file = File::open(path).map_err(|e| named(path, &e))?;
    let length = metadata.len();
    tar.append_data(
        &mut header(metadata, EntryType::Regular, times, length),
        name,
        Exactly { file, left: length },
    )
}

fn header(metadata: &fs::Metadata, kind: EntryType, times: Times, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    let modified = if times == Times::Kept { u64::try_from(metadata.mtime()).unwrap_or(0) } else { 0 };
    header.set_mtime(modified);
    header.set_size(length);
    header
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()))
}

/// A file in the length it was announced with: cut, or filled up with zeros.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let mut n = self.file.read(buffer)?;
        if n == 0 {
            buffer.fill(0);
            n = wanted;
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn entries(bytes: &[u8]) -> BTreeMap<String, (EntryType, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = vec![];
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            let value = (header.entry_type(), header.mode().unwrap(), content);
            found.insert(entry.path().unwrap().to_string_lossy().into_owned(), value);
        }
        found
    }

    #[test]
    fn a_tree_travels_without_what_is_not_of_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let long = format!("deep/{}", "n".repeat(200));
        for directory in ["deep", ".git", "deep/.git", "runs/one", "runs/one/files", "empty"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for (name, content) in [
            ("a", "A"),
            (long.as_str(), "L"),
            (".git/HEAD", "x"),
            ("runs/one/run.json", "{}"),
            ("runs/.gitignore", "*"),
        ] {
            fs::write(at(name), content).unwrap();
        }
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("nowhere", at("link")).unwrap();
        let mut bytes = vec![];
        send(root.path(), &mut bytes).unwrap();
        let found = entries(&bytes);
        let mut names: Vec<_> =
            found.keys().map(|name| name.trim_start_matches("./").trim_end_matches('/')).collect();
        names.sort_unstable();
        assert_eq!(names, [".", "a", "deep", long.as_str(), "empty", "link", "runs", "runs/.gitignore"]);
        assert_eq!(found["a"], (EntryType::Regular, 0o750, b"A".to_vec()));
        assert_eq!(found["link"].0, EntryType::Symlink);
    }

    #[test]
    fn a_file_that_shrank_keeps_its_announced_length() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        for (left, expected) in [(5, &b"abc\0\0"[..]), (2, b"ab"), (0, b"")] {
            let mut content = vec![];
            Exactly { file: File::open(file.path()).unwrap(), left }.read_to_end(&mut content).unwrap();
            assert_eq!(content, expected);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let error = send(Path::new("/no/such/tree"), &mut vec![]).unwrap_err();
        assert!(error.to_string().contains("/no/such/tree"), "{error}");
    }
}
