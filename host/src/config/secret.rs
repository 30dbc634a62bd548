//! Values that may hold secrets: what they are now, and what may be shown and stored of them.
//!
//! Each value exists in two forms of the same shape. The *written* form is what stood in the configuration, with `${VAR}`
//! not expanded and literal secrets replaced by `${redacted:}`; it is what `Debug`, `Serialize`, run.json, messages and logs
//! see. The *resolved* form is for the plugin or the machine only and has to be asked for by name.
//!
//! Invariant: no way of printing a value of this module shows its resolved form.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::ConfigError;
use super::place::Place;

/// Shown in place of a secret wherever text is scrubbed.
const MASK: &str = "***";

/// Secrets shorter than this are not searched for in text: masking every `1` would make logs unreadable and tell more about
/// the secret than it hides.
const SHORTEST_MASKED: usize = 4;

/// A string that may hold secrets, e.g. the value of an environment variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    written: String,
    resolved: String,
}

impl Text {
    /// A string and the form of it that may be shown.
    pub fn new(written: impl Into<String>, resolved: impl Into<String>) -> Self {
        Self { written: written.into(), resolved: resolved.into() }
    }

    /// A string that anybody may see.
    pub fn plain(text: impl Into<String>) -> Self {
        let resolved = text.into();
        Self { written: escape(&resolved).into_owned(), resolved }
    }

    /// What may be shown and stored.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The value itself. Not to be printed, logged or stored.
    pub fn expose(&self) -> &str {
        &self.resolved
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

/// One use of a plugin: which one, under which name, with what configuration of its own.
#[derive(Clone)]
pub struct PluginUse {
    /// The plugin's name, as in `libatex_provisioner_NAME.so`.
    pub plugin: String,
    /// The name of this use of it, for messages and reports: `name` of the entry, else the plugin's.
    pub name: String,
    /// Directory that relative paths in the plugin's configuration start from.
    pub base: PathBuf,
    written: Map<String, Value>,
    resolved: Map<String, Value>,
    place: Place,
}

impl PluginUse {
    /// `written` and `resolved` are the plugin's own keys, without those of the host.
    pub fn new(
        plugin: impl Into<String>,
        name: impl Into<String>,
        base: impl Into<PathBuf>,
        written: Map<String, Value>,
        resolved: Map<String, Value>,
    ) -> Self {
        Self {
            plugin: plugin.into(),
            name: name.into(),
            base: base.into(),
            written,
            resolved,
            place: Place::Default,
        }
    }

    /// A plugin without configuration of its own.
    pub fn bare(plugin: impl Into<String>) -> Self {
        let plugin = plugin.into();
        Self::new(plugin.clone(), plugin, PathBuf::new(), Map::new(), Map::new())
    }

    /// The same, standing at `place`.
    pub(crate) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// An error about this entry, with the line or the option where it stands: for what the plugin says of it.
    pub fn blame(&self, message: &str) -> ConfigError {
        self.place.blame(message)
    }

    pub(crate) fn set_resolved(&mut self, resolved: Map<String, Value>) {
        self.resolved = resolved;
    }

    pub(crate) fn set_written(&mut self, written: Map<String, Value>) {
        self.written = written;
    }

    /// Sets one of the plugin's own keys to something that is no secret.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.written.insert(key.to_owned(), value.clone());
        self.resolved.insert(key.to_owned(), value);
    }

    /// The plugin's own keys as they may be shown and stored.
    pub fn written(&self) -> &Map<String, Value> {
        &self.written
    }

    /// The plugin's own keys with their values, secrets included: for the plugin only.
    pub fn expose(&self) -> &Map<String, Value> {
        &self.resolved
    }
}

/// Equal wherever they stand.
impl PartialEq for PluginUse {
    fn eq(&self, other: &Self) -> bool {
        let Self { plugin, name, base, written, resolved, place: _ } = self;
        (plugin, name, base, written, resolved)
            == (&other.plugin, &other.name, &other.base, &other.written, &other.resolved)
    }
}

impl fmt::Debug for PluginUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginUse")
            .field("plugin", &self.plugin)
            .field("name", &self.name)
            .field("base", &self.base)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// All secrets of a run, for masking them in text that comes from elsewhere: logs, messages of plugins, console output.
///
/// Clones share one set, so that what is found out to be a secret later ([`super::RunPlan::with_schemas`]) is masked by whoever
/// took a clone before.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Longest first, so that a secret that contains another one is masked as a whole.
    values: Arc<RwLock<Vec<String>>>,
}

impl Secrets {
    /// Adds a value; the empty and the very short are not masked (see the module).
    pub fn insert(&self, value: &str) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        if value.len() < SHORTEST_MASKED || values.iter().any(|known| known == value) {
            return;
        }
        let at = values.partition_point(|known| known.len() >= value.len());
        values.insert(at, value.to_owned());
    }

    pub fn is_empty(&self) -> bool {
        self.values.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// `text` with every secret replaced by `***`.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for secret in self.values.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if masked.contains(secret.as_str()) {
                masked = Cow::Owned(masked.replace(secret.as_str(), MASK));
            }
        }
        masked
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.values.read().unwrap_or_else(PoisonError::into_inner).len())
    }
}

/// Text as it has to be written in a configuration to mean itself: `${` becomes `$${`.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains("${") { Cow::Owned(text.replace("${", "$${")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_forms_are_never_shown() {
        let text = Text::new("${secret:TOKEN}", "hunter2");
        let entry = PluginUse::new(
            "acme",
            "acme",
            "/etc",
            serde_json::from_str(r#"{"token": "${secret:TOKEN}"}"#).unwrap(),
            serde_json::from_str(r#"{"token": "hunter2"}"#).unwrap(),
        );
        let secrets = Secrets::default();
        secrets.insert("hunter2");
        let shown = format!("{text:?} {entry:?} {secrets:?} {}", serde_json::to_string(&text).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("${secret:TOKEN}"), "{shown}");
    }

    #[test]
    fn longer_secrets_are_masked_first() {
        let secrets = Secrets::default();
        for secret in ["pass", "password1", "abc", ""] {
            secrets.insert(secret);
        }
        assert_eq!(secrets.mask("pass=password1 abc"), "***=*** abc");
        assert_eq!(secrets.mask("nothing here"), "nothing here");
        secrets.clone().insert("nothing");
        assert_eq!(secrets.mask("nothing here"), "*** here", "clones share");
    }

    #[test]
    fn plain_text_is_written_so_that_it_means_itself() {
        assert_eq!(Text::plain("a ${B}").written(), "a $${B}");
        assert_eq!(Text::plain("a $B").written(), "a $B");
    }
}
