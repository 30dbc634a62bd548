//! What tests require: packages, beakerlib libraries, files.
//!
//! `require` and `recommend` hold, alone or in a list:
//!
//! - the name of a package;
//! - `library(repository/name)`: a library of the beakerlib project's own repositories, or, if there is none, a package
//!   that provides it;
//! - a mapping with `url` (and `ref`, `path`, `name`, `nick`, `destination`), with `path` alone for a tree of this box, or with
//!   `nick` alone for the tree that the test comes from;
//! - a mapping with `type: file`: those files come along anyway, as whole trees are sent.
//!
//! A library's repository goes to `libs/<nick>` below the tree of the test (or to `destination`). What the library requires
//! itself is resolved the same way; what refers back to itself is met once.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::discover::Layer;
use super::discover::error::{DiscoverError, Place};
use super::discover::reader::{Keys, Notes};
use super::discover::trees::Trees;
use super::git::shown;
use super::value::{Map, Value};
use crate::executor::spec::Packages;

/// Where `library(repository/name)` comes from.
const BEAKERLIB: &str = "https://github.com/beakerlib";
/// Libraries that one test may need, counted with those of its libraries.
const MAX_LIBRARIES: usize = 1000;

/// One entry of `require` or `recommend`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Dependency {
    Package(String),
    Library(LibraryId),
}

/// What something requires and recommends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Needs {
    pub(crate) require: Vec<Dependency>,
    pub(crate) recommend: Vec<Dependency>,
}

impl Needs {
    pub(crate) fn read(keys: &mut Keys<'_>) -> Result<Self, DiscoverError> {
        Ok(Self { require: dependencies(keys, "require")?, recommend: dependencies(keys, "recommend")? })
    }

    /// The last one first, marked with whether it is required.
    fn into_stack(self) -> impl Iterator<Item = (bool, Dependency)> {
        let recommend = self.recommend.into_iter().rev().map(|it| (false, it));
        recommend.chain(self.require.into_iter().rev().map(|it| (true, it)))
    }
}

/// Names a library and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LibraryId {
    from: From,
    reference: Option<String>,
    /// The node in the library's tree.
    name: String,
    nick: String,
    destination: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum From {
    /// `library(repository/name)`, as it was written.
    Short(String),
    Url {
        url: String,
        path: Option<String>,
    },
    Path(PathBuf),
    /// The tree of the test itself.
    Here,
}

/// Reads `require` or `recommend`.
fn dependencies(keys: &mut Keys<'_>, key: &'static str) -> Result<Vec<Dependency>, DiscoverError> {
    let Some(value) = keys.value(key) else { return Ok(Vec::new()) };
    let mut dependencies = Vec::new();
    for item in value.items() {
        match item {
            Value::Str(text) => dependencies.push(short(keys, key, text.trim())?),
            Value::Map(map) => dependencies.extend(identifier(keys, key, map)?.map(Dependency::Library)),
            Value::Null => {}
            other => {
                return Err(keys.error(key, format!("has {}, neither a text nor a mapping", other.repr())));
            }
        }
    }
    Ok(dependencies)
}

fn short(keys: &Keys<'_>, key: &str, text: &str) -> Result<Dependency, DiscoverError> {
    if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
        return Err(keys.error(key, format!("has {text:?}, which is no name of a package")));
    }
    let inner = text.strip_prefix("library(").and_then(|rest| rest.strip_suffix(')'));
    let Some((repository, name)) = inner.and_then(|inner| inner.split_once('/')) else {
        return Ok(Dependency::Package(text.to_owned()));
    };
    if !is_safe(repository) || name.is_empty() {
        return Ok(Dependency::Package(text.to_owned()));
    }
    Ok(Dependency::Library(LibraryId {
        from: From::Short(text.to_owned()),
        reference: None,
        name: format!("/{name}"),
        nick: repository.to_owned(),
        destination: "libs".to_owned(),
    }))
}

fn identifier(keys: &Keys<'_>, key: &str, map: &Map) -> Result<Option<LibraryId>, DiscoverError> {
    let mut own = Keys::new(keys.place(), keys.key(key), map);
    match own.text("type")?.as_deref() {
        None | Some("library") => {}
        Some("file") => return Ok(None),
        Some(other) => return Err(own.error("type", format!("is {other:?}; it is one of library, file"))),
    }
    let (url, path, nick) = (own.text("url")?, own.text("path")?, own.text("nick")?);
    let destination = own.text("destination")?.or(own.text("dest")?).unwrap_or_else(|| "libs".to_owned());
    let destination = destination.trim_matches('/').to_owned();
    let from = match (url, path) {
        (Some(url), path) => From::Url { url, path },
        (None, Some(path)) => From::Path(PathBuf::from(path)),
        (None, None) if nick.is_some() => From::Here,
        (None, None) => return Err(own.error("url", "is missing: a library needs url, path or nick")),
    };
    let nick = nick.or_else(|| last_name(&from)).unwrap_or_default();
    if !is_safe(&nick) {
        return Err(own
            .error("nick", format!("{nick:?} is no name for a directory; give the library another `nick`")));
    }
    if !destination.split('/').all(is_safe) {
        return Err(own.error("destination", format!("{destination:?} is no directory below the tree")));
    }
    let name = own.text("name")?.unwrap_or_else(|| "/".to_owned());
    if !name.starts_with('/') {
        return Err(own.error("name", format!("is {name:?}; it begins with a slash")));
    }
    Ok(Some(LibraryId { from, reference: own.text("ref")?, name, nick, destination }))
}

/// What a repository is called by its address.
fn last_name(from: &From) -> Option<String> {
    let place = match from {
        From::Url { url, .. } => url.as_str(),
        From::Path(path) => path.to_str()?,
        From::Short(_) | From::Here => return None,
    };
    let place = place.trim_end_matches('/');
    let name = place.rsplit(['/', ':']).next()?;
    Some(name.strip_suffix(".git").unwrap_or(name).to_owned())
}

/// Fit for one component of a path.
fn is_safe(name: &str) -> bool {
    let good = |c: char| !c.is_control() && c != '/' && c != '\\';
    !name.is_empty() && !name.starts_with('.') && !name.starts_with('-') && name.chars().all(good)
}

/// The tree that a test comes from.
#[derive(Debug, Clone)]
pub(crate) struct Home<'a> {
    /// The directory that is sent.
    pub(crate) directory: &'a Path,
    /// Where it goes, relative to the root on the machine.
    pub(crate) to: &'a str,
    /// Root of the metadata tree.
    pub(crate) root: &'a Path,
}

/// Where a library's files are, and what it needs.
#[derive(Debug)]
struct Placed {
    /// The directory on this side that holds the whole repository.
    directory: PathBuf,
    /// The root of its metadata.
    root: PathBuf,
}

/// Resolves the libraries of one plan.
pub(crate) struct Libraries<'a> {
    trees: &'a Trees,
    /// Stands for [`BEAKERLIB`].
    beakerlib: &'a str,
    /// By their directory on the machine.
    placed: HashMap<String, Placed>,
    /// Short names that are not there as repositories.
    absent: HashSet<String>,
    /// What was resolved, by the place of the tree: most tests need what they inherited.
    resolved: HashMap<(String, Needs), Arc<Packages>>,
    pub(crate) layers: Vec<Layer>,
}

impl<'a> Libraries<'a> {
    pub(crate) fn new(trees: &'a Trees) -> Self {
        let (placed, absent, resolved) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { trees, beakerlib: BEAKERLIB, placed, absent, resolved, layers: Vec::new() }
    }

    /// With another place for the project's own libraries.
    #[cfg(test)]
    pub(crate) fn with_beakerlib(trees: &'a Trees, beakerlib: &'a str) -> Self {
        Self { beakerlib, ..Self::new(trees) }
    }

    /// The packages that a test and its libraries need; the libraries join [`layers`](Self::layers).
    pub(crate) fn resolve(
        &mut self,
        place: &Place,
        home: &Home<'_>,
        needs: Needs,
        notes: &mut Notes,
    ) -> Result<Arc<Packages>, DiscoverError> {
        let key = (home.to.to_owned(), needs);
        if let Some(known) = self.resolved.get(&key) {
            return Ok(known.clone());
        }
        let packages = Arc::new(self.resolve_afresh(place, home, key.1.clone(), notes)?);
        self.resolved.insert(key, packages.clone());
        Ok(packages)
    }

    fn resolve_afresh(
        &mut self,
        place: &Place,
        home: &Home<'_>,
        needs: Needs,
        notes: &mut Notes,
    ) -> Result<Packages, DiscoverError> {
        let mut packages = Packages::default();
        let mut met = HashSet::new();
        // Taken from the end.
        let mut next: Vec<(bool, Dependency)> = needs.into_stack().collect();
        while let Some((required, dependency)) = next.pop() {
            let library = match dependency {
                Dependency::Package(name) => {
                    add(&mut packages, required, name);
                    continue;
                }
                Dependency::Library(library) => library,
            };
            if !met.insert(library.clone()) {
                continue;
            }
            if met.len() > MAX_LIBRARIES {
                let problem = format!("needs more than {MAX_LIBRARIES} libraries");
                return Err(DiscoverError::Key { place: place.clone(), key: "require".into(), problem });
            }
            match self.needs(place, home, &library, notes)? {
                Some(needs) => next.extend(needs.into_stack()),
                None => {
                    if let From::Short(text) = library.from {
                        add(&mut packages, required, text);
                    }
                }
            }
        }
        Ok(packages)
    }

    /// What a library requires and recommends, after it was placed; none if it is a package rather.
    fn needs(
        &mut self,
        place: &Place,
        home: &Home<'_>,
        library: &LibraryId,
        notes: &mut Notes,
    ) -> Result<Option<Needs>, DiscoverError> {
        let Some(root) = self.place(place, home, library, notes)? else { return Ok(None) };
        let shown = root.display().to_string();
        let wrong = |problem: String| {
            Err(DiscoverError::Key { place: place.clone(), key: "require".into(), problem })
        };
        let is_short = matches!(library.from, From::Short(_));
        let tree = match self.trees.load(&root)? {
            Some(tree) => tree,
            None if is_short => return Ok(None),
            None => return wrong(format!("names a library in {shown}, which is no tree with `.fmf`")),
        };
        let view = tree.view();
        let Some(node) = view.find(&library.name) else {
            if is_short {
                return Ok(None);
            }
            return wrong(format!("names the library {:?}, which is not in {shown}", library.name));
        };
        let place = Place::of(node);
        Needs::read(&mut Keys::new(&place, "", node.data())).map(Some)
    }

    /// Sees to it that the library's files go along; gives the root of its tree.
    fn place(
        &mut self,
        place: &Place,
        home: &Home<'_>,
        library: &LibraryId,
        notes: &mut Notes,
    ) -> Result<Option<PathBuf>, DiscoverError> {
        let to = at(home, library);
        if let (Some(placed), From::Short(_)) = (self.placed.get(&to), &library.from) {
            // Whatever stands for that repository is as good.
            return Ok(Some(placed.root.clone()));
        }
        let Some(found) = self.locate(place, home, library, notes)? else { return Ok(None) };
        let root = found.root.clone();
        if let Some(placed) = self.placed.get(&to) {
            if placed.directory == found.directory {
                return Ok(Some(root));
            }
            let (one, other) = (placed.directory.display(), found.directory.display());
            let problem =
                format!("brings two libraries to {to}: from {one} and from {other}; give one another `nick`");
            return Err(DiscoverError::Key { place: place.clone(), key: "require".into(), problem });
        }
        let inside = Path::new(&library.destination).join(&library.nick);
        if home.directory.join(&inside).exists() {
            notes.warn(format!("{to} is in the tree itself and stands for the library of that name"));
        } else {
            self.layers.push(Layer { from: found.directory.clone(), to: to.clone() });
        }
        self.placed.insert(to, found);
        Ok(Some(root))
    }

    fn locate(
        &mut self,
        place: &Place,
        home: &Home<'_>,
        library: &LibraryId,
        notes: &mut Notes,
    ) -> Result<Option<Placed>, DiscoverError> {
        let (url, path) = match &library.from {
            From::Here => {
                return Ok(Some(Placed { directory: home.directory.to_owned(), root: home.root.to_owned() }));
            }
            From::Path(path) => {
                let directory = super::normalize(&home.root.join(path));
                return Ok(Some(Placed { root: directory.clone(), directory }));
            }
            From::Url { url, path } => (url.clone(), path.as_deref()),
            From::Short(text) => {
                if self.absent.contains(text) {
                    return Ok(None);
                }
                (format!("{}/{}", self.beakerlib, library.nick), None)
            }
        };
        let checkout = match (self.trees.fetch(&url, library.reference.as_deref()), &library.from) {
            (Ok(checkout), _) => checkout,
            (Err(cause), From::Short(text)) => {
                self.absent.insert(text.clone());
                notes.warn(format!("{text} is taken for a package: {cause}"));
                return Ok(None);
            }
            (Err(cause), _) => {
                return Err(DiscoverError::Git {
                    place: place.clone(),
                    key: "require".into(),
                    cause: Box::new(cause),
                });
            }
        };
        if let Some(reason) = &checkout.stale {
            notes.warn(format!("library {}: the cached copy is used: {reason}", shown(&url)));
        }
        let below = path.unwrap_or("").trim_start_matches('/');
        let root = super::normalize(&checkout.directory.join(below));
        if !root.starts_with(&checkout.directory) {
            let problem = format!("names a library in {below:?}, which is outside its repository");
            return Err(DiscoverError::Key { place: place.clone(), key: "require".into(), problem });
        }
        Ok(Some(Placed { directory: checkout.directory, root }))
    }
}

/// The library's directory on the machine.
fn at(home: &Home<'_>, library: &LibraryId) -> String {
    let to = format!("{}/{}/{}", home.to, library.destination, library.nick);
    to.trim_start_matches('/').to_owned()
}

/// Once; what is required is not recommended.
fn add(packages: &mut Packages, required: bool, name: String) {
    if required {
        packages.recommended.retain(|known| *known != name);
        if !packages.required.contains(&name) {
            packages.required.push(name);
        }
    } else if !packages.required.contains(&name) && !packages.recommended.contains(&name) {
        packages.recommended.push(name);
    }
}
