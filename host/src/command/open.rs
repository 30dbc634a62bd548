//! Plugins, made ready for use: opened, constructed within a time limit, described for the ledger.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use atex_plugin_api::{ErrorKind, describe::Kind};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Libraries, PluginUse, Secrets},
    plugin::{self, PluginError, Provisioner, Registry, Reporter, Search, Trust},
    store::{PluginFile, StateDir},
    text::hex,
};

use super::Error;

/// How long a plugin may take to be made, or to answer a question before the run begins.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Opens the libraries of a command. Nothing that plugins say shows any of `secrets`.
pub(super) fn registry(
    libraries: &Libraries,
    strict: bool,
    state: &StateDir,
    secrets: &Secrets,
) -> Result<Arc<Registry>, Error> {
    let trust = if strict { Trust::Strict } else { Trust::Warn };
    let path = std::env::join_paths(&libraries.directories).ok();
    let search = Search::new(libraries.files.clone(), path.as_deref(), trust);
    Ok(Arc::new(Registry::open(search, state.path())?.masking(secrets.clone())))
}

/// Makes the provisioner of a pool. What its schema marks as secret joins `secrets`.
pub(super) fn provisioner(
    registry: &Arc<Registry>,
    of_pool: &PluginUse,
    secrets: &Secrets,
) -> Result<Provisioner, Error> {
    make(registry, of_pool, secrets, Kind::Provisioner, |registry, name, instance, config| {
        registry.provisioner(name, instance, config)
    })
}

/// Makes a reporter.
pub(super) fn reporter(registry: &Arc<Registry>, entry: &PluginUse) -> Result<Reporter, Error> {
    make(registry, entry, &Secrets::default(), Kind::Reporter, |registry, name, instance, config| {
        registry.reporter(name, instance, config)
    })
}

/// Makes a policy.
pub(super) fn policy(
    registry: &Arc<Registry>,
    entry: &PluginUse,
) -> Result<atex_plugin_api::host_side::PolicyHandle, Error> {
    make(registry, entry, &Secrets::default(), Kind::Policy, |registry, name, instance, config| {
        registry.policy(name, instance, config)
    })
}

fn make<T: Send + 'static>(
    registry: &Arc<Registry>,
    entry: &PluginUse,
    secrets: &Secrets,
    kind: Kind,
    make: fn(&Registry, &str, &str, &Value) -> Result<T, PluginError>,
) -> Result<T, Error> {
    let (registry, plugin, name) = (Arc::clone(registry), entry.plugin.clone(), entry.name.clone());
    let offer = registry.find(kind, &plugin).map_err(|error| blame(entry, error))?;
    let entry = &entry.clone().with_schema(&offer.provided().schema, secrets);
    let config = Value::Object(entry.expose().clone());
    within(LIMIT, format!("{kind} `{}`", entry.name), move || make(&registry, &plugin, &name, &config))?
        .map_err(|error| blame(entry, error))
}

/// What a plugin says of its configuration is told with the place where that was written.
fn blame(entry: &PluginUse, error: PluginError) -> Error {
    match error {
        PluginError::Make { error, .. } if error.kind() == ErrorKind::Config => {
            entry.blame(&error.to_string()).into()
        }
        unknown @ PluginError::Unknown { .. } => entry.blame(&unknown.to_string()).into(),
        other => other.into(),
    }
}

/// Calls a plugin on a thread of its own, and leaves it behind at the limit.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    what: String,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    plugin::within(limit, what.clone(), call).map_err(|why| Error::Silent { what, why: why.to_string() })
}

/// Which file a plugin comes from, with its digest.
pub(super) fn plugin_file(registry: &Registry, kind: Kind, name: &str) -> Result<PluginFile, Error> {
    let offer = registry.find(kind, name)?;
    let path = offer.library().path().to_owned();
    let sha256 = digest(&path).map_err(Error::State)?;
    Ok(PluginFile { name: name.to_owned(), path, sha256 })
}

/// SHA-256 of a file, in hexadecimal digits.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hex(&hasher.finalize()))
}
