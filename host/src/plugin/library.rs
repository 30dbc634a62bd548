//! One library file: may it be used, does it fit, what does it provide.

use std::ffi::c_void;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use atex_plugin_api::describe::{Description, Kind};
use atex_plugin_api::host_side::{ENTRY_SYMBOL, Root, Version};
use libloading::os::unix::{Library as Mapped, RTLD_LOCAL, RTLD_NOW, Symbol};

use super::elf;
use super::error::{PluginError, Refusal};

/// Longest name of a plugin, and the most plugins of one library.
const MAX_NAME_BYTES: usize = 64;
const MAX_PLUGINS: usize = 256;

const GROUP_WRITABLE: u32 = 0o020;
const WORLD_WRITABLE: u32 = 0o002;

/// What to do about a library that somebody else may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Use it, with a warning.
    #[default]
    Warn,
    /// Do not.
    Strict,
}

/// Something about a library that the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub path: PathBuf,
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin library {}: {}", self.path.display(), self.text)
    }
}

/// A library that was opened. It stays in memory as long as the process lives.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
    root: Root,
    description: Description,
    warnings: Vec<Warning>,
}

impl Library {
    /// Checks and opens a library.
    pub fn open(path: &Path, trust: Trust) -> Result<Self, PluginError> {
        Self::try_open(path, trust).map_err(|reason| PluginError::Library { path: path.to_owned(), reason })
    }

    fn try_open(path: &Path, trust: Trust) -> Result<Self, Refusal> {
        // Without a slash the dynamic loader would search its own path.
        check_links(path)?;
        let path = path.canonicalize().map_err(|error| unreadable(&error))?;
        let warnings = check_writers(&path, trust)?;
        elf::check(&mut File::open(&path).map_err(|error| unreadable(&error))?)?;
        let root = map(&path)?;
        let description = root.describe().map_err(|error| Refusal::Description(error.to_string()))?;
        check_description(&description)?;
        Ok(Self { path, root, description, warnings })
    }

    /// Its real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the user should know of it.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The version of the API crate that it was built with.
    pub fn api(&self) -> Version {
        self.root.api()
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }
}

fn unreadable(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::Missing,
        _ => Refusal::Unreadable(error.to_string()),
    }
}

/// Code that others can change is code of others.
/// Whoever may write to the directory of a symbolic link says where it leads.
fn check_links(path: &Path) -> Result<(), Refusal> {
    /// As the kernel has it.
    const MOST_LINKS: usize = 40;
    let mut link = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = link.read_link() else { break };
        let directory = match link.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let metadata = directory.metadata().map_err(|error| unreadable(&error))?;
        if metadata.mode() & WORLD_WRITABLE != 0 {
            return Err(Refusal::WritableByAnybody { what: "the directory of its link", path: directory });
        }
        link = directory.join(target);
    }
    Ok(())
}

fn check_writers(path: &Path, trust: Trust) -> Result<Vec<Warning>, Refusal> {
    let metadata = path.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile);
    }
    let mut places = vec![("it", path, metadata)];
    if let Some(directory) = path.parent() {
        places.push(("its directory", directory, directory.metadata().map_err(|error| unreadable(&error))?));
    }
    let mut warnings = Vec::new();
    for (what, place, metadata) in places {
        if metadata.mode() & WORLD_WRITABLE != 0 {
            return Err(Refusal::WritableByAnybody { what, path: place.to_owned() });
        }
        if let Some(doubt) = doubt(&metadata) {
            let text = format!("{what} {doubt}");
            if trust == Trust::Strict {
                return Err(Refusal::Doubtful(text));
            }
            warnings.push(Warning { path: path.to_owned(), text });
        }
    }
    Ok(warnings)
}

fn doubt(metadata: &Metadata) -> Option<String> {
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Some(format!("belongs to somebody else (user {owner})"));
    }
    (metadata.mode() & GROUP_WRITABLE != 0).then(|| format!("may be written by group {}", metadata.gid()))
}

#[expect(unsafe_code, reason = "loading code into the process and looking up its entry")]
fn map(path: &Path) -> Result<Root, Refusal> {
    // SAFETY: this runs the library's constructors. Plugins are code that the user chose to run; everything else about the
    // file was checked. All symbols are bound now, so that a missing one is an error here and not a crash later.
    let mapped = unsafe { Mapped::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let mapped = mapped.map_err(|error| explain(path, &error.to_string()))?;
    // SAFETY: the symbol is only taken for an address; `Root::from_entry` checks what is there.
    let entry = unsafe { mapped.get::<*const c_void>(ENTRY_SYMBOL.as_bytes()) }.map(Symbol::into_raw);
    let entry = entry.map_err(|_| Refusal::NotAPlugin)?;
    // From here on code of the library may run at any time: it is never unmapped.
    std::mem::forget(mapped);
    // SAFETY: the address is that of the library's entry symbol, and the library stays.
    Ok(unsafe { Root::from_entry(entry.cast_const()) }?)
}

/// Turns the dynamic loader's message into a reason.
fn explain(path: &Path, message: &str) -> Refusal {
    if let Some(version) = between(message, "version `", "' not found") {
        return Refusal::NewerLibc(version.replace('_', " "));
    }
    if let Some((_, symbol)) = message.split_once("undefined symbol: ") {
        let symbol = symbol.split([',', ' ']).next().unwrap_or(symbol);
        return Refusal::MissingSymbol(symbol.to_owned());
    }
    let own = path.to_string_lossy();
    if let Some((library, _)) = message.split_once(": cannot open shared object file")
        && library != own
    {
        return Refusal::MissingLibrary(library.to_owned());
    }
    let message =
        message.strip_prefix(own.as_ref()).map_or(message, |rest| rest.trim_start_matches([':', ' ']));
    Refusal::Loader(message.lines().next().unwrap_or(message).to_owned())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// Names end up in file names, logs and reports.
fn check_description(description: &Description) -> Result<(), Refusal> {
    if description.provides.len() > MAX_PLUGINS {
        return Err(Refusal::Description(format!("it names {} plugins", description.provides.len())));
    }
    let known: Vec<_> = description.provides.iter().filter(|one| one.kind != Kind::Unknown).collect();
    if known.is_empty() {
        return Err(Refusal::Description("it provides no plugin that this host knows".to_owned()));
    }
    for (index, one) in known.iter().enumerate() {
        let name = &one.name;
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
        if !good {
            return Err(Refusal::Description(format!("{name:?} is no name: a-z, 0-9, - and _ are allowed")));
        }
        if known[..index].iter().any(|other| other.kind == one.kind && other.name == *name) {
            return Err(Refusal::Description(format!("it names {} `{name}` twice", one.kind)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_loaders_messages_are_understood() {
        let table = [
            (
                "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by /p/libx.so)",
                Refusal::NewerLibc("GLIBC 2.99".into()),
            ),
            ("/p/libx.so: undefined symbol: frobnicate", Refusal::MissingSymbol("frobnicate".into())),
            ("/p/libx.so: undefined symbol: f, version V1", Refusal::MissingSymbol("f".into())),
            (
                "libpq.so.5: cannot open shared object file: No such file or directory",
                Refusal::MissingLibrary("libpq.so.5".into()),
            ),
            ("/p/libx.so: invalid ELF header", Refusal::Loader("invalid ELF header".into())),
        ];
        for (message, expected) in table {
            assert_eq!(explain(Path::new("/p/libx.so"), message), expected);
        }
    }

    fn provided(names: &[&str]) -> Description {
        let list: Vec<_> =
            names.iter().map(|name| serde_json::json!({"kind": "policy", "name": name})).collect();
        serde_json::from_value(serde_json::json!({"provides": list})).unwrap()
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(check_description(&provided(&["a", "b-2"])), Ok(()));
        for bad in [&["../x"] as &[_], &["A"], &[""], &["a", "a"], &[]] {
            assert!(check_description(&provided(bad)).is_err(), "{bad:?}");
        }
    }

    fn refusal(path: &Path, trust: Trust) -> Refusal {
        match Library::open(path, trust) {
            Err(PluginError::Library { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_that_anybody_may_write_are_refused_before_they_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libx.so");
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(refusal(&file, Trust::Warn), Refusal::Missing);
        assert_eq!(refusal(directory.path(), Trust::Warn), Refusal::NotAFile);
        std::fs::write(&file, "text").unwrap();
        mode(&file, 0o646);
        assert!(matches!(refusal(&file, Trust::Warn), Refusal::WritableByAnybody { what: "it", .. }));
        mode(&file, 0o644);
        assert_eq!(refusal(&file, Trust::Strict), Refusal::Elf(elf::ElfFault::NotElf));
        mode(&file, 0o664);
        assert_eq!(refusal(&file, Trust::Warn), Refusal::Elf(elf::ElfFault::NotElf));
        assert!(matches!(refusal(&file, Trust::Strict), Refusal::Doubtful(_)));
        mode(&file, 0o644);
        mode(directory.path(), 0o777);
        assert!(matches!(
            refusal(&file, Trust::Warn),
            Refusal::WritableByAnybody { what: "its directory", .. }
        ));
    }

    #[test]
    fn a_link_that_anybody_may_change_is_refused() {
        let (good, open) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = good.path().join("libx.so");
        std::fs::write(&file, "text").unwrap();
        let (first, second) = (good.path().join("first.so"), open.path().join("second.so"));
        std::os::unix::fs::symlink(&file, &second).unwrap();
        std::os::unix::fs::symlink(&second, &first).unwrap();
        assert_eq!(refusal(&first, Trust::Warn), Refusal::Elf(elf::ElfFault::NotElf));
        std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777)).unwrap();
        for link in [&first, &second] {
            assert!(
                matches!(
                    refusal(link, Trust::Warn),
                    Refusal::WritableByAnybody { what: "the directory of its link", .. }
                ),
                "{}",
                link.display()
            );
        }
    }
}
