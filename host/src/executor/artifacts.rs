//! The directory of one execution's artifacts while it is being filled, and its publication.
//!
//! **Invariant:** nothing is written outside this directory, whatever names come from a machine. Files are reached component
//! by component from a descriptor of the directory; no step follows a symbolic link, and names are
//! [clean](super::names::clean) before they come here.
//!
//! **Invariant:** the final directory appears complete or not at all. It is filled beside its place, under a name that ends in
//! `.part`, and renamed. What an earlier, killed attempt left under that name is removed first; a directory that is dropped
//! unpublished removes itself.
//!
//! Names may clash: `a` may be a file of one result and a directory that another one needs. Then ` (1)` is added to the
//! second; the same clash always ends in the same name, so appending goes on working.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::text::hex;

/// How many names are tried when one is taken by something else.
const MAX_ALTERNATIVES: u32 = 100;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PLAIN_FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const FILES: &str = "files";
const PARTIAL: &str = ".part";

/// An artifacts directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {error}", path.display())]
pub struct ArtifactsError {
    pub what: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Directory {
    place: PathBuf,
    /// Empty once published.
    partial: PathBuf,
    root: OwnedFd,
    files: OwnedFd,
}

/// A file below `files/`.
#[derive(Debug)]
pub(super) struct Opened<T> {
    pub(super) file: T,
    /// The directory below `files/` that it is in, as it ended up; `None`: `files/` itself.
    pub(super) result: Option<String>,
    /// Its path in there, as it ended up.
    pub(super) name: String,
}

impl Directory {
    /// Begins a directory that will be published as `place`, whose parents are made as needed.
    pub(super) fn create(place: &Path) -> Result<Self, ArtifactsError> {
        if fs::symlink_metadata(place).is_ok() {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(ArtifactsError { what: "make", path: place.to_owned(), error });
        }
        let partial = partial_name(place);
        let made = || -> io::Result<(OwnedFd, OwnedFd)> {
            if let Some(parent) = partial.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            make_empty(&partial)?;
            let root = rustix::fs::open(&partial, DIRECTORY, Mode::empty())?;
            mkdirat(&root, FILES, Mode::RWXU)?;
            let files = openat(&root, FILES, DIRECTORY, Mode::empty())?;
            Ok((root, files))
        };
        match made() {
            Ok((root, files)) => Ok(Self { place: place.to_owned(), partial, root, files }),
            Err(error) => Err(ArtifactsError { what: "make", path: partial, error }),
        }
    }

    /// A new file beside `files/`, for reading and writing.
    pub(super) fn scratch(&self, name: &'static str) -> Result<File, ArtifactsError> {
        let flags = PLAIN_FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let opened = openat(&self.root, name, flags, Mode::RUSR | Mode::WUSR);
        opened.map(File::from).map_err(|error| self.error("create", name, error))
    }

    /// Removes a file beside `files/`.
    pub(super) fn remove_scratch(&self, name: &'static str) -> Result<(), ArtifactsError> {
        unlinkat(&self.root, name, AtFlags::empty()).map_err(|error| self.error("remove", name, error))
    }

    /// Lets `to` be what `from` was, both beside `files/`.
    pub(super) fn replace_scratch(&self, from: &'static str, to: &'static str) -> Result<(), ArtifactsError> {
        rustix::fs::renameat(&self.root, from, &self.root, to)
            .map_err(|error| self.error("rename", from, error))
    }

    /// Opens a result's file for appending, with the directories it needs. Both names are clean.
    pub(super) fn append(&self, result: Option<&str>, name: &str) -> Result<Opened<File>, ArtifactsError> {
        let flags = PLAIN_FILE | OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        self.place_file(result, name, |directory, leaf| {
            openat(directory, leaf, flags, Mode::RUSR | Mode::WUSR).map(File::from)
        })
    }

    /// Makes a new file of a result, for reading and writing; `None` if the result has a file of that name. Both names are
    /// clean.
    pub(super) fn create_file(
        &self,
        result: Option<&str>,
        name: &str,
    ) -> Result<Option<Opened<File>>, ArtifactsError> {
        let flags = PLAIN_FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.place_new(result, name, |directory, leaf| {
            openat(directory, leaf, flags, Mode::RUSR | Mode::WUSR).map(File::from)
        })
    }

    /// Makes a file beside `files/` a result's file instead; `None` if the result has a file of that name.
    pub(super) fn move_scratch(
        &self,
        scratch: &'static str,
        result: Option<&str>,
        name: &str,
    ) -> Result<Option<Opened<()>>, ArtifactsError> {
        self.place_new(result, name, |directory, leaf| {
            match renameat_with(&self.root, scratch, directory, leaf, RenameFlags::NOREPLACE) {
                // Some network file systems know no flags.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    linkat(&self.root, scratch, directory, leaf, AtFlags::empty())?;
                    unlinkat(&self.root, scratch, AtFlags::empty())
                }
                other => other,
            }
        })
    }

    /// Makes a file below `files/` another result's file as well; `None` if the result has a file of that name.
    pub(super) fn link(
        &self,
        path: &str,
        result: Option<&str>,
        name: &str,
    ) -> Result<Option<Opened<()>>, ArtifactsError> {
        let Some((from, leaf_from)) = self.find(path)? else {
            return Err(self.error("link", path, Errno::NOENT));
        };
        self.place_new(result, name, |directory, leaf| {
            linkat(&from, leaf_from, directory, leaf, AtFlags::empty())
        })
    }

    /// [`place_file`](Self::place_file) for what must be new; `None` if there is a file of that name.
    fn place_new<T>(
        &self,
        result: Option<&str>,
        name: &str,
        act: impl Fn(BorrowedFd<'_>, &str) -> Result<T, Errno>,
    ) -> Result<Option<Opened<T>>, ArtifactsError> {
        let placed = self.place_file(result, name, |directory, leaf| match act(directory, leaf) {
            Ok(made) => Ok(Some(made)),
            // A directory is passed over, as in `append`.
            Err(Errno::EXIST) if openat(directory, leaf, DIRECTORY, Mode::empty()).is_ok() => {
                Err(Errno::ISDIR)
            }
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(error),
        })?;
        let Opened { file, result, name } = placed;
        Ok(file.map(|file| Opened { file, result, name }))
    }

    /// Whether a result has a file of this name.
    pub(super) fn has_file(&self, result: Option<&str>, name: &str) -> Result<bool, ArtifactsError> {
        let path = result.map_or_else(|| name.to_owned(), |result| format!("{result}/{name}"));
        let Some((directory, leaf)) = self.find(&path)? else { return Ok(false) };
        match rustix::fs::statat(&directory, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.error("look at", &path, error)),
        }
    }

    /// Opens a file below `files/` for reading.
    pub(super) fn read(&self, path: &str) -> Result<File, ArtifactsError> {
        let Some((directory, leaf)) = self.find(path)? else {
            return Err(self.error("open", path, Errno::NOENT));
        };
        let opened = openat(directory, leaf, PLAIN_FILE | OFlags::RDONLY, Mode::empty());
        opened.map(File::from).map_err(|error| self.error("open", path, error))
    }

    /// The directory of a path below `files/`, if it exists, and the path's last component.
    fn find<'p>(&self, path: &'p str) -> Result<Option<(OwnedFd, &'p str)>, ArtifactsError> {
        let (directories, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = self.files.try_clone().map_err(|error| self.io_error("open", path, error))?;
        for component in directories.split('/').filter(|component| !component.is_empty()) {
            at = match openat(&at, component, DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(self.error("open", path, error)),
            };
        }
        Ok(Some((at, leaf)))
    }

    /// Renames the directory into its place.
    pub(super) fn publish(mut self) -> Result<PathBuf, ArtifactsError> {
        let renamed = match renameat_with(
            rustix::fs::CWD,
            &self.partial,
            rustix::fs::CWD,
            &self.place,
            RenameFlags::NOREPLACE,
        ) {
            // Some network file systems know no flags; a directory that is there and not empty is still refused.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.partial, &self.place),
            other => other.map_err(io::Error::from),
        };
        renamed.map_err(|error| ArtifactsError {
            what: "publish artifacts as",
            path: self.place.clone(),
            error,
        })?;
        self.partial = PathBuf::new();
        Ok(self.place.clone())
    }

    /// Finds the directory for `result` and `name`, then lets `act` try names for the file until one is not a directory.
    fn place_file<T>(
        &self,
        result: Option<&str>,
        name: &str,
        act: impl Fn(BorrowedFd<'_>, &str) -> Result<T, Errno>,
    ) -> Result<Opened<T>, ArtifactsError> {
        let wrong = |error| self.error("write", name, error);
        let (directory, result) = match result {
            None => (None, None),
            Some(result) => {
                let (directory, result) = enter(self.files.as_fd(), result).map_err(wrong)?;
                (Some(directory), Some(result))
            }
        };
        let base = directory.as_ref().map_or(self.files.as_fd(), AsFd::as_fd);
        let Some((directories, leaf)) = name.rsplit_once('/') else {
            let (file, leaf) = alternatives(name, |leaf| act(base, leaf)).map_err(wrong)?;
            return Ok(Opened { file, result, name: leaf });
        };
        let (inner, directories) = enter(base, directories).map_err(wrong)?;
        let (file, leaf) = alternatives(leaf, |leaf| act(inner.as_fd(), leaf)).map_err(wrong)?;
        Ok(Opened { file, result, name: format!("{directories}/{leaf}") })
    }

    fn error(&self, what: &'static str, name: &str, error: Errno) -> ArtifactsError {
        self.io_error(what, name, error.into())
    }

    pub(super) fn io_error(&self, what: &'static str, name: &str, error: io::Error) -> ArtifactsError {
        ArtifactsError { what, path: self.partial.join(name), error }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.partial.as_os_str().is_empty() {
            // Nobody misses it; a later attempt under the same name tries again.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Whether published artifacts are as they were: `results` has this digest, all files together have so many bytes.
pub fn verify(directory: &Path, published_bytes: u64, digest: &str) -> io::Result<bool> {
    let mut results = File::open(directory.join("results"))?;
    let mut hash = Sha256::new();
    io::copy(&mut results, &mut hash)?;
    if hex(&hash.finalize()) != digest {
        return Ok(false);
    }
    // A log that several results have is one file.
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                directories.push(entry.path());
            } else if seen.insert(meta.ino()) {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes == published_bytes)
}

/// Removes what killed hosts began and never published, anywhere below `artifacts`; how many there were.
pub fn remove_leftovers(artifacts: &Path) -> io::Result<u64> {
    let mut removed = 0;
    let mut directories = vec![artifacts.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Names of tests do not begin with `=`.
            let name = entry.file_name();
            let is_execution = name.as_encoded_bytes().starts_with(b"=");
            if is_execution && name.as_encoded_bytes().ends_with(PARTIAL.as_bytes()) {
                fs::remove_dir_all(entry.path())?;
                removed += 1;
            } else if !is_execution && entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(removed)
}

/// Opens the directory `path` (clean) below `base`, making what is missing; also tells the path as it ended up.
fn enter(base: BorrowedFd<'_>, path: &str) -> Result<(OwnedFd, String), Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut resolved = String::with_capacity(path.len());
    for component in path.split('/') {
        let parent = at.as_ref().map_or(base, AsFd::as_fd);
        let (next, name) = alternatives(component, |name| match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => openat(parent, name, DIRECTORY, Mode::empty()),
            Err(error) => Err(error),
        })?;
        at = Some(next);
        if !resolved.is_empty() {
            resolved.push('/');
        }
        resolved.push_str(&name);
    }
    // `split` yields at least one component.
    at.map(|directory| (directory, resolved)).ok_or(Errno::INVAL)
}

/// Tries `name`, `name (1)`, ... as long as what stands there is of the wrong kind.
fn alternatives<T>(name: &str, act: impl Fn(&str) -> Result<T, Errno>) -> Result<(T, String), Errno> {
    for number in 0..MAX_ALTERNATIVES {
        let name = if number == 0 { name.to_owned() } else { format!("{name} ({number})") };
        match act(&name) {
            // What an open of the wrong kind says: a file for a directory, a directory for a file, a link, a pipe.
            Err(Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NXIO) => {}
            Err(error) => return Err(error),
            Ok(value) => return Ok((value, name)),
        }
    }
    Err(Errno::EXIST)
}

fn partial_name(place: &Path) -> PathBuf {
    let mut name = OsString::from(place.as_os_str());
    name.push(PARTIAL);
    PathBuf::from(name)
}

fn make_empty(path: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(path)?;
            make()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::executor::names::clean;

    fn write(
        directory: &Directory,
        result: Option<&str>,
        name: &str,
        text: &str,
    ) -> (Option<String>, String) {
        let mut opened = directory.append(result, name).unwrap();
        opened.file.write_all(text.as_bytes()).unwrap();
        (opened.result, opened.name)
    }

    /// Paths and contents below a directory, links as `-> TARGET`.
    fn contents(path: &Path) -> Vec<(String, String)> {
        fn walk(base: &Path, at: &Path, out: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    walk(base, &path, out);
                } else if meta.is_symlink() {
                    out.push((name, format!("-> {}", fs::read_link(&path).unwrap().display())));
                } else {
                    out.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut out = Vec::new();
        walk(path, path, &mut out);
        out.sort();
        out
    }

    #[test]
    fn appears_complete_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("p/t/=1");
        let directory = Directory::create(&place).unwrap();
        write(&directory, Some("sub/test"), "a/b", "one");
        write(&directory, Some("sub/test"), "a/b", "+two");
        assert!(!place.exists());
        drop(directory);
        assert_eq!(contents(base.path()), [], "what was not published is gone");

        fs::create_dir_all(base.path().join("p/t/=1.part/files")).unwrap();
        fs::write(base.path().join("p/t/=1.part/files/old"), "left by a killed host").unwrap();
        let directory = Directory::create(&place).unwrap();
        write(&directory, Some("sub/test"), "a/b", "one");
        assert_eq!(directory.publish().unwrap(), place);
        assert_eq!(contents(base.path()), [("p/t/=1/files/sub/test/a/b".to_owned(), "one".to_owned())]);
        assert!(Directory::create(&place).unwrap_err().to_string().starts_with("cannot make"));
    }

    #[test]
    fn a_place_that_was_taken_meanwhile_stays() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("=1");
        let directory = Directory::create(&place).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(directory.publish().is_err());
        assert_eq!(contents(base.path()), []);
        assert!(!base.path().join("=1.part").exists());
    }

    #[test]
    fn clashing_names_get_numbers_and_keep_them() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        let own = |name: &str| (None, name.to_owned());
        assert_eq!(write(&directory, None, "a", "file"), own("a"));
        let renamed = (Some("a (1)".to_owned()), "x".to_owned());
        assert_eq!(write(&directory, Some("a"), "x", "1"), renamed);
        assert_eq!(write(&directory, Some("a"), "x", "2"), renamed);
        assert_eq!(write(&directory, None, "a/x", "3"), own("a (1)/x"));
        assert_eq!(write(&directory, None, "a (1)", "4"), own("a (1) (1)"));
        assert!(directory.has_file(None, "a").unwrap() && !directory.has_file(None, "a (1)").unwrap());
        assert!(
            directory.has_file(Some("a (1)"), "x").unwrap() && !directory.has_file(Some("a"), "x").unwrap()
        );
    }

    #[test]
    fn links_are_shared_files() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        let mut log = directory.scratch("log").unwrap();
        let moved = directory.move_scratch("log", Some("s"), "d/out").unwrap().unwrap();
        assert_eq!((moved.result.as_deref(), moved.name.as_str()), (Some("s"), "d/out"));
        let linked = |name| directory.link("s/d/out", Some("s"), name).unwrap().map(|linked| linked.name);
        assert_eq!(linked("d/out"), None, "there is a file");
        assert_eq!(linked("d").as_deref(), Some("d (1)"));
        assert!(directory.link("s/none", None, "x").is_err());
        log.write_all(b"later").unwrap();
        let place = directory.publish().unwrap();
        for name in ["d/out", "d (1)"] {
            assert_eq!(fs::read_to_string(place.join("files/s").join(name)).unwrap(), "later");
        }
        assert!(!place.join("log").exists());
    }

    #[test]
    fn what_must_be_new_replaces_nothing() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        write(&directory, None, "dir/file", "old");
        directory.scratch("log").unwrap().write_all(b"log").unwrap();
        assert!(directory.create_file(None, "dir/file").unwrap().is_none());
        assert!(directory.move_scratch("log", None, "dir/file").unwrap().is_none());
        assert_eq!(directory.create_file(None, "dir").unwrap().unwrap().name, "dir (1)");
        assert_eq!(directory.move_scratch("log", None, "dir").unwrap().map(|moved| moved.name), None);
        assert_eq!(directory.move_scratch("log", None, "new").unwrap().unwrap().name, "new");
        let place = directory.publish().unwrap();
        assert_eq!(fs::read_to_string(place.join("files/dir/file")).unwrap(), "old");
        assert_eq!(fs::read_to_string(place.join("files/new")).unwrap(), "log");
    }

    #[test]
    fn changed_artifacts_are_noticed() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        directory.scratch("results").unwrap().write_all(b"line\n").unwrap();
        write(&directory, Some("s"), "f", "data");
        let place = directory.publish().unwrap();
        let digest = hex(&Sha256::digest(b"line\n"));
        fs::hard_link(place.join("files/s/f"), place.join("files/again")).unwrap();
        assert!(verify(&place, 9, &digest).unwrap());
        assert!(!verify(&place, 9, "00").unwrap());
        fs::write(place.join("files/s/f"), "").unwrap();
        assert!(!verify(&place, 9, &digest).unwrap());
        fs::remove_file(place.join("results")).unwrap();
        assert!(verify(&place, 9, &digest).is_err());
    }

    #[test]
    fn leftovers_are_found_and_nothing_else_goes() {
        let base = tempfile::tempdir().unwrap();
        for path in ["p/t/=1/files/=9.part", "p/t/=2.part/files/x", "p/=3.part", "p/t.part/=4"] {
            fs::create_dir_all(base.path().join(path)).unwrap();
        }
        assert_eq!(remove_leftovers(base.path()).unwrap(), 2);
        let stays = ["p/t/=1/files/=9.part", "p/t.part/=4"];
        assert!(stays.iter().all(|path| base.path().join(path).exists()));
        assert!(!base.path().join("p/t/=2.part").exists() && !base.path().join("p/=3.part").exists());
        assert_eq!(remove_leftovers(&base.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn planted_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let directory = Directory::create(&base.path().join("=1")).unwrap();
        let files = base.path().join("=1.part/files");
        std::os::unix::fs::symlink(&outside, files.join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.join("new"), files.join("file")).unwrap();
        assert_eq!(write(&directory, Some("dir"), "x", "1").0.as_deref(), Some("dir (1)"));
        assert_eq!(write(&directory, None, "file", "1").1, "file (1)");
        assert_eq!(contents(&outside), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_written_outside(names in prop::collection::vec(
            (prop::option::of("[a./\\x00é]{0,6}"), "[a./\\x00é]{0,6}"), 0..12,
        )) {
            let base = tempfile::tempdir().unwrap();
            let directory = Directory::create(&base.path().join("in/=1")).unwrap();
            for (result, name) in &names {
                let result = result.as_deref().map(clean);
                let (place, name) = write(&directory, result.as_deref(), &clean(name), "x");
                prop_assert!(directory.has_file(place.as_deref(), &name).unwrap());
            }
            directory.publish().unwrap();
            let total: usize = contents(&base.path().join("in/=1/files")).iter().map(|(_, text)| text.len()).sum();
            prop_assert_eq!(total, names.len());
            prop_assert!(contents(base.path()).iter().all(|(path, _)| path.starts_with("in/=1/files/")));
        }
    }
}
