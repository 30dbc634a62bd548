//! Brings a test's files from the host's artifacts into the report. The artifacts are never changed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::sink::{Codec, Sink};

/// Deepest nesting of directories that is followed.
const MAX_DEPTH: usize = 64;

/// How files are compressed.
#[derive(Debug, Clone)]
pub(crate) struct Compression {
    pub(crate) codec: Codec,
    pub(crate) level: Option<u32>,
    pub(crate) suffix: String,
    /// Names that are not.
    pub(crate) skip: Vec<String>,
}

impl Compression {
    fn skips(&self, name: &OsStr) -> bool {
        self.skip.iter().any(|skipped| name == OsStr::new(skipped))
    }

    /// The name of a file (with directories) in the report.
    pub(crate) fn renamed(&self, file: &str) -> String {
        let name = Path::new(file).file_name().unwrap_or_default();
        if self.skips(name) { file.to_owned() } else { format!("{file}{}", self.suffix) }
    }
}

/// What there is below a directory: directories, parents first, and regular files; all relative.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    /// Neither directories nor files; left out.
    pub(crate) others: Vec<PathBuf>,
}

impl Listing {
    /// Directories and files.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.directories.iter().chain(&self.files)
    }

    /// Reads it; a directory that does not exist is empty.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            if directory.components().count() > MAX_DEPTH {
                return Err(io::Error::other(format!("directories are nested deeper than {MAX_DEPTH}")));
            }
            let entries = match fs::read_dir(root.join(&directory)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.as_os_str().is_empty() => {
                    break;
                }
                entries => entries?,
            };
            let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let (path, kind) = (directory.join(entry.file_name()), entry.file_type()?);
                if kind.is_dir() {
                    listing.directories.push(path.clone());
                    pending.push(path);
                } else if kind.is_file() {
                    listing.files.push(path);
                } else {
                    listing.others.push(path);
                }
            }
        }
        Ok(listing)
    }
}

/// Puts the files of `listing` from `source` to `target`. After an error nothing of them is left there.
pub(crate) fn place(
    source: &Path,
    listing: &Listing,
    target: &Path,
    compression: Option<&Compression>,
) -> io::Result<()> {
    let mut placed = Vec::new();
    let all = try_place(source, listing, target, compression, &mut placed);
    if all.is_err() {
        for file in placed {
            let _ = fs::remove_file(file);
        }
    }
    all
}

fn try_place(
    source: &Path,
    listing: &Listing,
    target: &Path,
    compression: Option<&Compression>,
    placed: &mut Vec<PathBuf>,
) -> io::Result<()> {
    fs::create_dir_all(target)?;
    for directory in &listing.directories {
        fs::create_dir_all(target.join(directory))?;
    }
    for file in &listing.files {
        let (from, mut to) = (source.join(file), target.join(file));
        let compression = compression.filter(|it| !it.skips(file.file_name().unwrap_or_default()));
        if let Some(compression) = compression {
            let mut name = to.file_name().unwrap_or_default().to_owned();
            name.push(&compression.suffix);
            to.set_file_name(name);
        }
        let make = || match compression {
            Some(compression) => compress(&from, &to, compression),
            None => link_or_copy(&from, &to),
        };
        placed.push(to.clone());
        match make() {
            // What an earlier report of this run left.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&to)?;
                make()?;
            }
            made => made?,
        }
    }
    Ok(())
}

/// A link costs nothing; across file systems, or where links are not allowed, the system copies, sharing the data if the
/// file system can. What is there already may be another link to the artifacts: it is not written through, but an error.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            Err(error)
        }
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::copy(from, to).map(|_| ()),
    }
}

fn compress(from: &Path, to: &Path, compression: &Compression) -> io::Result<()> {
    let (mut from, to) = (File::open(from)?, File::create_new(to)?);
    let mut sink = Sink::new(to, Some(compression.codec), compression.level)?;
    io::copy(&mut from, &mut sink)?;
    sink.finish().map(|_| ())
}
