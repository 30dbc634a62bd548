//! All plugins of a run, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use atex_plugin_api::describe::{Kind, Provided};
use atex_plugin_api::host_side::PolicyHandle;
use serde_json::Value;

use super::error::PluginError;
use super::handle::{Provisioner, Reporter};
use super::instance::{Call, Instance};
use super::library::{Library, Warning};
use super::search::Search;
use crate::config::Secrets;

/// All plugins that can be used, by kind and name. Libraries of directories are opened at the first use of a name.
#[derive(Debug)]
pub struct Registry {
    search: Search,
    named: Vec<Arc<Library>>,
    /// Libraries of directories that were opened, by the path they were found at.
    found: Mutex<BTreeMap<PathBuf, Arc<Library>>>,
    state_dir: PathBuf,
    secrets: Secrets,
}

/// A plugin that can be used, any number of times.
#[derive(Debug, Clone)]
pub struct Offer {
    library: Arc<Library>,
    provided: Provided,
}

/// A plugin that was found.
#[derive(Debug, Clone)]
pub struct Listed {
    pub kind: Kind,
    pub name: String,
    pub path: PathBuf,
    /// Itself, or why it cannot be had.
    pub offer: Result<Offer, PluginError>,
}

impl Registry {
    /// Opens all named libraries. `state_dir`: where plugins get their private directories.
    pub fn open(search: Search, state_dir: &Path) -> Result<Self, PluginError> {
        let mut named: Vec<Arc<Library>> = Vec::new();
        for path in &search.libraries {
            let library = Library::open(path, search.trust)?;
            if named.iter().all(|other| other.path() != library.path()) {
                check_clash(&named, &library)?;
                named.push(Arc::new(library));
            }
        }
        Ok(Self {
            search,
            named,
            found: Mutex::default(),
            state_dir: state_dir.to_owned(),
            secrets: Secrets::default(),
        })
    }

    /// The same, with secrets that are kept out of whatever plugins say.
    #[must_use]
    pub fn masking(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    fn instance(&self, kind: Kind, name: &str) -> Result<Arc<Instance>, PluginError> {
        Ok(Arc::new(Instance::new(kind, name, &self.state_dir)?.masking(self.secrets.clone())))
    }

    /// The plugin of that name.
    pub fn find(&self, kind: Kind, name: &str) -> Result<Offer, PluginError> {
        if let Some(offer) = self.named.iter().find_map(|library| offer(library, kind, name)) {
            return Ok(offer);
        }
        let Some(path) = self.search.file(kind, name) else {
            return Err(PluginError::Unknown { kind, name: name.to_owned(), hint: self.hint(kind, name) });
        };
        let library = self.opened(&path)?;
        offer(&library, kind, name).ok_or_else(|| PluginError::Misnamed { path, kind, name: name.to_owned() })
    }

    /// The provisioner `name`, used as `instance` with `config`, a JSON object.
    pub fn provisioner(
        &self,
        name: &str,
        instance: &str,
        config: &Value,
    ) -> Result<Provisioner, PluginError> {
        let offer = self.find(Kind::Provisioner, name)?;
        let instance = self.instance(Kind::Provisioner, instance)?;
        let host = Call::default().host(&instance);
        let made = offer.library.root().provisioner(name, &config.to_string(), &host);
        let handle = made.map_err(|error| cannot_make(&instance, error))?;
        Ok(Provisioner::new(handle, instance, &offer.provided))
    }

    /// The policy `name`, used as `instance` with `config`, a JSON object.
    pub fn policy(&self, name: &str, instance: &str, config: &Value) -> Result<PolicyHandle, PluginError> {
        let offer = self.find(Kind::Policy, name)?;
        let instance = self.instance(Kind::Policy, instance)?;
        let host = Call::default().host(&instance);
        let made = offer.library.root().policy(name, &config.to_string(), &host);
        made.map_err(|error| cannot_make(&instance, error))
    }

    /// The reporter `name`, used as `instance` with `config`, a JSON object.
    pub fn reporter(&self, name: &str, instance: &str, config: &Value) -> Result<Reporter, PluginError> {
        let offer = self.find(Kind::Reporter, name)?;
        let instance = self.instance(Kind::Reporter, instance)?;
        let host = Call::default().host(&instance);
        let made = offer.library.root().reporter(name, &config.to_string(), &host);
        let handle = made.map_err(|error| cannot_make(&instance, error))?;
        Ok(Reporter::new(handle, instance))
    }

    /// The libraries that were opened so far.
    pub fn libraries(&self) -> Vec<Arc<Library>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.named.iter().chain(found.values()).cloned().collect()
    }

    /// What the user should know of them.
    pub fn warnings(&self) -> Vec<Warning> {
        self.libraries().iter().flat_map(|library| library.warnings().to_vec()).collect()
    }

    /// Every plugin there is, in order of kind and name. This opens everything.
    pub fn everything(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = Vec::new();
        for library in &self.named {
            for one in &library.description().provides {
                let offer = Offer { library: Arc::clone(library), provided: one.clone() };
                let (kind, name, path) = (one.kind, one.name.clone(), library.path().to_owned());
                all.push(Listed { kind, name, path, offer: Ok(offer) });
            }
        }
        for (kind, name, path) in self.search.listing() {
            if !all.iter().any(|other| other.kind == kind && other.name == name) {
                let offer = self.find(kind, &name);
                all.push(Listed { kind, name, path, offer });
            }
        }
        all.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        all
    }

    fn opened(&self, path: &Path) -> Result<Arc<Library>, PluginError> {
        // Held while opening: that calls no plugin but for its description, and makes each library be opened once.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = found.get(path) {
            return Ok(Arc::clone(library));
        }
        let library = Arc::new(Library::open(path, self.search.trust)?);
        found.insert(path.to_owned(), Arc::clone(&library));
        Ok(library)
    }

    fn hint(&self, kind: Kind, name: &str) -> String {
        let named = self.named.iter().flat_map(|library| &library.description().provides);
        let mut names: Vec<String> =
            named.filter(|one| one.kind == kind).map(|one| one.name.clone()).collect();
        let listing = self.search.listing().into_iter().filter(|(other, ..)| *other == kind);
        names.extend(listing.map(|(_, name, _)| name));
        names.sort();
        names.dedup();
        hint(name, &names)
    }
}

impl Offer {
    /// Kind, name, schema and what else the library says of it.
    pub fn provided(&self) -> &Provided {
        &self.provided
    }

    /// Where it comes from.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Whether its configuration has this key at the top.
    pub fn takes(&self, key: &str) -> bool {
        self.provided.schema.get("properties").and_then(|properties| properties.get(key)).is_some()
    }
}

fn offer(library: &Arc<Library>, kind: Kind, name: &str) -> Option<Offer> {
    let provided = library.description().provides.iter().find(|one| one.kind == kind && one.name == name)?;
    Some(Offer { library: Arc::clone(library), provided: provided.clone() })
}

fn cannot_make(instance: &Instance, error: atex_plugin_api::Error) -> PluginError {
    let error = instance.masked(error);
    PluginError::Make { kind: instance.kind(), name: instance.name().to_owned(), error }
}

fn check_clash(named: &[Arc<Library>], library: &Library) -> Result<(), PluginError> {
    for one in &library.description().provides {
        if let Some(first) = named.iter().find(|other| offer(other, one.kind, &one.name).is_some()) {
            return Err(PluginError::Clash {
                kind: one.kind,
                name: one.name.clone(),
                first: first.path().to_owned(),
                second: library.path().to_owned(),
            });
        }
    }
    Ok(())
}

/// What was probably meant, else what there is.
fn hint(name: &str, names: &[String]) -> String {
    let near = names
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + name.len().min(candidate.len()) / 4)
        .min();
    match near {
        Some((_, near)) => format!(", did you mean `{near}`?"),
        None if names.is_empty() => ": none was found (--plugin PATH loads a library)".to_owned(),
        None => format!(", there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_helpful() {
        let names = ["duration".to_owned(), "priority".to_owned()];
        assert_eq!(hint("priorty", &names), ", did you mean `priority`?");
        assert_eq!(hint("x", &names), ", there are: duration, priority");
        assert!(hint("x", &[]).contains("--plugin"));
    }

    #[test]
    fn an_unknown_name_is_an_error_without_opening_anything() {
        let directory = tempfile::tempdir().unwrap();
        // Opening this one would be an error of another sort.
        std::fs::write(directory.path().join("libatex_policy_reruns.so"), "no library").unwrap();
        let search = Search { directories: vec![directory.path().to_owned()], ..Search::default() };
        let registry = Registry::open(search, directory.path()).unwrap();
        let error = registry.find(Kind::Policy, "rerun").unwrap_err().to_string();
        assert_eq!(error, "there is no policy `rerun`, did you mean `reruns`?");
        assert!(matches!(registry.find(Kind::Policy, "reruns"), Err(PluginError::Library { .. })));
    }
}
