//! Machines on disk: `marks/ID` says whose a machine is, `machines/ID` is its directory.
//!
//! Invariant: no directory without a mark. The mark is written first and removed last, so whatever interrupts a call, `list`
//! still shows what `remove` has to remove.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use atex_plugin_api::{Error, ErrorKind, Result};

/// Longest mark that is read back.
const MAX_MARK_BYTES: u64 = 1024;

#[derive(Debug)]
pub(crate) struct Store {
    marks: PathBuf,
    machines: PathBuf,
}

impl Store {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { marks: directory.join("marks"), machines: directory.join("machines") }
    }

    /// Makes the directory of a machine; making it twice is one machine.
    pub(crate) fn make(&self, id: &str, mark: &str) -> Result<PathBuf> {
        let machine =
            self.machine(id).ok_or_else(|| Error::unsupported(format!("{id:?} is no id of a lease")))?;
        for directory in [&self.marks, &self.machines] {
            private(directory, true).map_err(|error| cannot("make", directory, &error))?;
        }
        let file = self.marks.join(id);
        write_mark(&file, mark).map_err(|error| cannot("write", &file, &error))?;
        match private(&machine, false) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let _ = fs::remove_file(&file);
                Err(cannot("make", &machine, &error))
            }
            _ => Ok(machine),
        }
    }

    pub(crate) fn exists(&self, id: &str) -> bool {
        self.machine(id).is_some_and(|machine| machine.is_dir())
    }

    /// Removes a machine; what is not there is removed already.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let Some(machine) = self.machine(id) else { return Ok(()) };
        remove_tree(&machine).map_err(|error| cannot("remove", &machine, &error))?;
        let file = self.marks.join(id);
        missing_is_fine(fs::remove_file(&file)).map_err(|error| cannot("remove", &file, &error))
    }

    /// Ids and marks of all machines.
    pub(crate) fn list(&self) -> Result<Vec<(String, String)>> {
        let entries = match fs::read_dir(&self.marks) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| cannot("read", &self.marks, &error))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| cannot("read", &self.marks, &error))?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()).filter(|id| plain(id)) else {
                continue;
            };
            match read_mark(&path) {
                // Removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                mark => all.push((id.to_owned(), mark.map_err(|error| cannot("read", &path, &error))?)),
            }
        }
        all.sort();
        Ok(all)
    }

    fn machine(&self, id: &str) -> Option<PathBuf> {
        plain(id).then(|| self.machines.join(id))
    }
}

/// A lease's id and nothing that could lead elsewhere. Names that begin with a dot are unfinished marks.
fn plain(id: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.bytes().all(good)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::with_source(ErrorKind::Other, format!("cannot {what} {}", path.display()), error)
}

fn private(directory: &Path, parents: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(parents).create(directory)
}

/// Appears complete or not at all, and is on disk when this returns.
fn write_mark(file: &Path, mark: &str) -> io::Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let unfinished = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    opened.write_all(mark.as_bytes())?;
    opened.sync_all()?;
    fs::rename(&unfinished, file)?;
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn read_mark(file: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_MARK_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Tests leave directories that even their owner may not enter: those are opened up, then it is tried once more.
fn remove_tree(path: &Path) -> io::Result<()> {
    match missing_is_fine(fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            missing_is_fine(fs::remove_dir_all(path))
        }
        other => other,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Not through symbolic links: what they point to is not ours.
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("pool"));
        fs::write(directory.path().join("precious"), "x").unwrap();
        for id in ["../precious", "..", ".", "", "a/b", "/etc", ".hidden", "a\0b"] {
            assert!(store.make(id, "m").is_err(), "{id:?}");
            assert!(!store.exists(id), "{id:?}");
            store.remove(id).unwrap();
        }
        assert!(directory.path().join("precious").exists());
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn a_mark_without_a_directory_is_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let machine = store.make("a1", "o/r/a1").unwrap();
        fs::remove_dir(&machine).unwrap();
        assert_eq!(store.list().unwrap(), [("a1".to_owned(), "o/r/a1".to_owned())]);
        store.remove("a1").unwrap();
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn locked_directories_and_links_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("pool"));
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let machine = store.make("a1", "m").unwrap();
        fs::create_dir_all(machine.join("locked/inner")).unwrap();
        std::os::unix::fs::symlink(&outside, machine.join("locked/link")).unwrap();
        fs::set_permissions(machine.join("locked"), Permissions::from_mode(0o000)).unwrap();
        open_up(&machine).unwrap();
        store.remove("a1").unwrap();
        assert!(outside.is_dir() && !machine.exists());
    }

    #[test]
    fn machines_are_private_and_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let machine = store.make("a1", "m").unwrap();
        assert_eq!(store.make("a1", "m").unwrap(), machine);
        assert_eq!(machine.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
