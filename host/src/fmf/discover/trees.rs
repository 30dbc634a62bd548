//! Trees besides the one that the run is about: fetched and loaded once, for all plans and platforms.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::git::{Cache, Checkout, GitError};
use super::super::{Error, Tree};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Trees {
    cache: Cache,
    loaded: Mutex<HashMap<PathBuf, Arc<Tree>>>,
}

impl Trees {
    pub(crate) fn new(cache: Cache, own: &Arc<Tree>) -> Self {
        let loaded = HashMap::from([(own.root().to_owned(), own.clone())]);
        Self { cache, loaded: Mutex::new(loaded) }
    }

    pub(crate) fn fetch(&self, url: &str, reference: Option<&str>) -> Result<Checkout, GitError> {
        self.cache.fetch(url, reference)
    }

    /// The tree whose root is `directory` itself; none if that is no root of a tree.
    pub(crate) fn load(&self, directory: &Path) -> Result<Option<Arc<Tree>>, Error> {
        if !directory.join(".fmf").is_dir() {
            return Ok(None);
        }
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(directory).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let tree = Arc::new(Tree::load(directory)?);
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), tree.clone());
        Ok(Some(tree))
    }
}
