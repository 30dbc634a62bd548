//! Finding a tree on disk and reading its files.
//!
//! For each directory: `main.fmf`, the other `*.fmf` files, then the directories in it, all by code point of their names.
//! Hidden ones are left out unless the tree's configuration names them, and so are nested trees and directories of
//! earlier runs. A directory behind a symbolic link is entered once, which ends every loop.
//!
//! Nothing but regular files is opened for reading, and no file, tree or depth is without a limit.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::draft::{Draft, MAX_DEPTH};
use super::error::{Error, Limit, NodeProblem};
use super::sharing::Sharing;
use super::value::Value;
use super::{context, yaml};

const SUFFIX: &str = ".fmf";
const MAIN: &str = "main.fmf";

/// What marks a directory that holds the results of a run.
const RUN_MARK: &str = "run.json";

const MAX_FILE: u64 = 16 << 20;
const MAX_FILES: u64 = 256 << 20;
const MAX_DIRECTORIES: usize = 1_000_000;

/// The nearest directory at or above `path` with a directory `.fmf` in it.
pub(super) fn find_root(path: &Path) -> Result<PathBuf, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |cause| Error::Directory { path, cause }
    };
    let start = normalize(&std::path::absolute(path).map_err(failed(path))?);
    for directory in start.ancestors() {
        fs::read_dir(directory).map_err(failed(directory))?;
        if directory.join(SUFFIX).is_dir() {
            return Ok(directory.to_owned());
        }
    }
    Err(Error::NoRoot(start))
}

/// The path without `.` and `..`, by its text alone.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = normal.pop(),
            other => normal.push(other),
        }
    }
    normal
}

/// Reads all files of the tree at `root`; also gives the labels of their anchored mappings.
pub(super) fn explore(root: &Path) -> Result<(Draft, Sharing), Error> {
    check_version(root)?;
    let included = configuration(root)?;
    let mut explorer = Explorer {
        draft: Draft::root(),
        included,
        entered: HashSet::new(),
        directories: 0,
        bytes: 0,
        common: yaml::Common::default(),
    };
    let listing = explorer.list(root)?;
    if let Some(listing) = listing {
        explorer.directory(root, 0, listing, 0)?;
    }
    Ok((explorer.draft, explorer.common.sharing))
}

/// The format's version has to be an integer, whichever.
fn check_version(root: &Path) -> Result<(), Error> {
    let path = root.join(".fmf/version");
    let bad = |problem| Error::Version { path: path.clone(), problem };
    let text = read(&path).map_err(|cause| bad(cause.to_string()))?;
    match context::integer(&text) {
        Some(_) => Ok(()),
        None => Err(bad("it is not an integer".to_owned())),
    }
}

/// The names of hidden files and directories that are explored.
fn configuration(root: &Path) -> Result<HashSet<String>, Error> {
    let path = root.join(".fmf/config");
    let bad = |problem| Error::Config { path: path.clone(), problem };
    let text = match read(&path) {
        Ok(text) => text,
        Err(Error::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            return Ok(HashSet::new());
        }
        Err(error) => return Err(error),
    };
    let document = yaml::parse(&text).map_err(|cause| Error::Yaml { path: path.clone(), cause })?;
    let document = document.as_map().ok_or_else(|| bad("the configuration has to be a mapping"))?;
    let Some(explore) = document.get("explore") else { return Ok(HashSet::new()) };
    let explore = explore.as_map().ok_or_else(|| bad("`explore` has to be a mapping"))?;
    let Some(include) = explore.get("include") else { return Ok(HashSet::new()) };
    let include = include.as_list().ok_or_else(|| bad("`include` has to be a list of names"))?;
    let names: HashSet<String> = include.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if names.contains(SUFFIX) {
        return Err(bad("the directory `.fmf` cannot be explored"));
    }
    Ok(names)
}

/// Reads a regular file that is UTF-8. A FIFO or a device does not make it wait.
fn read(path: &Path) -> Result<String, Error> {
    let failed = |cause| Error::Read { path: path.to_owned(), cause };
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    let bytes = read_regular(&file).map_err(failed)?;
    let bytes = bytes.ok_or(Limit::File { mebibytes: MAX_FILE >> 20 });
    let bytes = bytes.map_err(|limit| failed(io::Error::other(limit)))?;
    String::from_utf8(bytes)
        .map_err(|error| Error::Encoding { path: path.to_owned(), at: error.utf8_error().valid_up_to() })
}

/// None if the file is too large.
fn read_regular(file: &File) -> io::Result<Option<Vec<u8>>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_FILE) as usize + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_FILE).then_some(bytes))
}

/// What a directory holds of interest, each sorted.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<String>,
    directories: Vec<Directory>,
    nested_tree: bool,
    run: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Directory {
    name: String,
    link: bool,
}

struct Explorer {
    draft: Draft,
    included: HashSet<String>,
    /// Real paths of directories that were entered through a link.
    entered: HashSet<PathBuf>,
    directories: usize,
    bytes: u64,
    common: yaml::Common,
}

impl Explorer {
    fn is_explored(&self, name: &str) -> bool {
        !name.starts_with('.') || self.included.contains(name)
    }

    /// None if the directory is not there any more, or behind a link that leads nowhere.
    fn list(&mut self, path: &Path) -> Result<Option<Listing>, Error> {
        self.directories += 1;
        if self.directories > MAX_DIRECTORIES {
            return Err(Limit::Directories(MAX_DIRECTORIES).into());
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // Tests must not get lost because somebody forgot a permission.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::Directory { path: path.to_owned(), cause });
            }
            Err(_) => return Ok(None),
        };
        let mut listing = Listing::default();
        for entry in entries {
            let Ok(entry) = entry else { break };
            self.sort_in(path, &entry, &mut listing)?;
        }
        listing.files.sort_unstable_by(|a, b| (a != MAIN, a).cmp(&(b != MAIN, b)));
        listing.directories.sort_unstable();
        Ok(Some(listing))
    }

    fn sort_in(&self, path: &Path, entry: &fs::DirEntry, listing: &mut Listing) -> Result<(), Error> {
        let name = entry.file_name();
        let kind = entry.file_type();
        let link = kind.as_ref().is_ok_and(fs::FileType::is_symlink);
        let is_directory = match kind {
            Ok(kind) if !link => kind.is_dir(),
            _ => fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()),
        };
        listing.nested_tree |= is_directory && name == SUFFIX;
        listing.run |= !is_directory && name == RUN_MARK;
        if !is_directory && !name.as_bytes().ends_with(SUFFIX.as_bytes()) {
            return Ok(());
        }
        let Some(name) = name.to_str().map(str::to_owned) else {
            // Only a directory that turns out to hold metadata needs a name that can be shown.
            let problem = NodeProblem::Name { name: name.to_string_lossy().into_owned() };
            return if is_directory {
                Ok(())
            } else {
                Err(Error::Document { path: path.to_owned(), problem })
            };
        };
        if self.is_explored(&name) {
            if is_directory {
                listing.directories.push(Directory { name, link });
            } else {
                listing.files.push(name);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, node: usize, listing: Listing, depth: usize) -> Result<(), Error> {
        for name in &listing.files {
            self.file(&path.join(name), name, node)?;
        }
        for Directory { name, link } in listing.directories {
            let path = path.join(&name);
            if link && !self.enters(&path) || is_special(&path) {
                continue;
            }
            let Some(listing) = self.list(&path)? else { continue };
            if listing.nested_tree || listing.run {
                continue;
            }
            if depth >= MAX_DEPTH {
                return Err(Limit::Depth(MAX_DEPTH).into());
            }
            let child = self.draft.child(node, &name)?;
            self.directory(&path, child, listing, depth + 1)?;
        }
        self.draft.drop_empty_children(node);
        Ok(())
    }

    /// Whether the directory behind this link was not entered through a link before.
    fn enters(&mut self, link: &Path) -> bool {
        fs::canonicalize(link).is_ok_and(|real| self.entered.insert(real))
    }

    fn file(&mut self, path: &Path, name: &str, node: usize) -> Result<(), Error> {
        let text = read(path)?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_FILES {
            return Err(Limit::Files { mebibytes: MAX_FILES >> 20 }.into());
        }
        let document = yaml::parse_with(&text, &mut self.common)
            .map_err(|cause| Error::Yaml { path: path.to_owned(), cause })?;
        let target = if name == MAIN { node } else { self.draft.child(node, stem(name))? };
        match &document {
            Value::Null => self.draft.touch(target),
            Value::Map(map) => self.draft.update(target, map).map_err(|error| in_file(path, error))?,
            // A directory to explore for the reference implementation, which is not done here; see `draft`.
            Value::Str(_) if name != MAIN => {}
            other => {
                let problem = NodeProblem::NotAMapping { found: other.type_name() };
                return Err(Error::Document { path: path.to_owned(), problem });
            }
        }
        self.draft.add_source(target, path.into());
        Ok(())
    }
}

/// Without the suffix, unless nothing but dots would be left.
fn stem(name: &str) -> &str {
    let stem = name.strip_suffix(SUFFIX).unwrap_or(name);
    if stem.bytes().all(|byte| byte == b'.') { name } else { stem }
}

fn is_special(path: &Path) -> bool {
    ["/dev", "/proc", "/sys"].iter().any(|special| path == Path::new(special))
}

/// Adds the file to what is wrong in a document.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Node { problem, .. } => Error::Document { path: path.to_owned(), problem },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::fmf::{Order, Tree};

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [(".fmf/version", "1\n")].iter().chain(files) {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn nodes(path: &Path) -> BTreeMap<String, usize> {
        let view = Arc::new(Tree::load(path).unwrap()).view();
        view.climb(Order::Sorted).map(|node| (node.name().to_owned(), node.sources().len())).collect()
    }

    #[test]
    fn directories_of_runs_and_nested_trees_are_left_out() {
        let directory = tree(&[
            ("main.fmf", "x: 1\n"),
            ("a/t.fmf", ""),
            ("runs/1/run.json", "{}"),
            ("runs/1/t.fmf", "test: t\n"),
            ("nested/.fmf/version", "1"),
            ("nested/t.fmf", ""),
            ("plain/notes", ""),
            (".hidden/t.fmf", ""),
        ]);
        let names: Vec<String> = nodes(directory.path()).into_keys().collect();
        assert_eq!(names, ["/", "/a", "/a/t"]);
    }

    #[test]
    fn the_root_is_above_and_the_whole_tree_is_loaded() {
        let directory = tree(&[("a/b/t.fmf", ""), ("c.fmf", "")]);
        assert_eq!(find_root(&directory.path().join("a/./b/../b")).unwrap(), directory.path());
        assert_eq!(nodes(&directory.path().join("a/b")).len(), 5);
        assert!(matches!(find_root(&directory.path().join("c.fmf")), Err(Error::Directory { .. })));
        assert!(matches!(find_root(Path::new("/")), Err(Error::NoRoot(_))));
    }

    #[test]
    fn sources_are_the_files_in_the_order_they_were_merged() {
        let directory =
            tree(&[("main.fmf", "/o: {a: 1}\n"), ("o.fmf", "b: 1"), ("o/main.fmf", "c: 1"), ("o/x.fmf", "")]);
        let view = Arc::new(Tree::load(directory.path()).unwrap()).view();
        let node = view.find("/o/x").unwrap();
        let sources: Vec<_> =
            node.sources().map(|path| path.strip_prefix(directory.path()).unwrap()).collect();
        assert_eq!(sources, ["main.fmf", "o.fmf", "o/main.fmf", "o/x.fmf"].map(Path::new));
        assert_eq!(node.directory(), Some(Path::new("o")));
    }

    #[test]
    fn configuration_names_hidden_files_and_nothing_else() {
        for (config, expected) in [
            ("explore: {include: [.h, .x.fmf]}", Ok(4)),
            ("explore: {}", Ok(1)),
            ("other: 1", Ok(1)),
            ("explore: {include: .h}", Err("list of names")),
            ("explore: {include: [.fmf]}", Err("cannot be explored")),
            ("explore:", Err("`explore`")),
            ("", Err("mapping")),
            ("a: [", Err("line 2")),
        ] {
            let directory = tree(&[
                (".fmf/config", &format!("{config}\n")),
                (".h/a.fmf", ""),
                (".x.fmf", ""),
                (".y.fmf", ""),
            ]);
            match (Tree::load(directory.path()), expected) {
                (Ok(tree), Ok(count)) => assert_eq!(tree.len(), count, "{config}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{config}: {error}"),
                (other, _) => assert!(other.is_err() == expected.is_err(), "{config}"),
            }
        }
    }

    #[test]
    fn any_integer_is_a_version() {
        for (version, fits) in
            [("1", true), (" -99\n", true), ("1_0", true), ("1.0", false), ("", false), ("one", false)]
        {
            let directory = tree(&[(".fmf/version", version)]);
            assert_eq!(Tree::load(directory.path()).is_ok(), fits, "{version:?}");
        }
    }
}
