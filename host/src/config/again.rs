//! What was recorded without secrets, made whole again for `resume` and `gc`.
//!
//! Variables are looked up anew. A secret that had been written out is not in the record; it is taken from the configuration
//! file if that still stands where it stood and still has something there, and is an error that names it otherwise.

use std::path::{Path as FilePath, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::read;
use super::error::ConfigError;
use super::expand::{self, REDACTED, has_reference};
use super::path::Path;
use super::place::Place;
use super::plan::Origin;
use super::secret::{PluginUse, Secrets};
use super::surroundings::Surroundings;
use super::yaml;

/// Where an entry stood in a configuration file, as it may be stored beside what was written there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPlace {
    pub file: PathBuf,
    pub path: Path,
}

impl PluginUse {
    /// Where it stands, if that is a file.
    pub fn stored_place(&self) -> Option<StoredPlace> {
        match self.place() {
            Place::File { script, path } => {
                Some(StoredPlace { file: script.file.clone(), path: path.clone() })
            }
            Place::Default | Place::Option { .. } => None,
        }
    }

    /// The same use of a plugin from its stored parts, on its own: nothing else of its run's configuration has to be there
    /// still. Secrets found are added to `secrets`.
    pub fn again(
        plugin: &str,
        name: &str,
        base: &FilePath,
        written: &Map<String, Value>,
        place: Option<&StoredPlace>,
        around: &Surroundings,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let stored = Value::Object(written.clone());
        let whole = match place {
            Some(place) => recovered(&stored, &place.file, &place.path),
            None => stored,
        };
        let lookup = |name: &str| around.variable(name).map(str::to_owned);
        let forms = expand::expand(&whole, &lookup, secrets).map_err(|error| {
            let top = place.map_or_else(|| Path::default().key(name), |place| place.path.clone());
            let path = top.join(error.path());
            error.at(path)
        })?;
        let map = |value: Value| if let Value::Object(map) = value { map } else { Map::new() };
        Ok(Self::new(plugin, name, base, map(forms.written), map(forms.resolved)))
    }
}

/// Whether the configuration file of a run is gone, unreadable or says something else now. Secrets that were written out are
/// not compared: they were not stored.
pub fn configuration_changed(origin: &Origin) -> bool {
    match &origin.file {
        None => false,
        Some(file) => raw(file).is_none_or(|now| !same(&origin.configuration, &now)),
    }
}

/// The configuration of a run with secrets that had been written out taken from the file.
pub(crate) fn configuration(origin: &Origin) -> Value {
    match &origin.file {
        Some(file) => recovered(&origin.configuration, file, &Path::default()),
        None => origin.configuration.clone(),
    }
}

fn recovered(stored: &Value, file: &FilePath, path: &Path) -> Value {
    if !holds_redacted(stored) {
        return stored.clone();
    }
    match raw(file).as_ref().and_then(|now| path.find(now)) {
        Some(now) => fill_in(stored, now),
        None => stored.clone(),
    }
}

fn raw(file: &FilePath) -> Option<Value> {
    yaml::parse(&read(file).ok()?).ok()
}

fn holds_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => text == REDACTED,
        Value::Array(list) => list.iter().any(holds_redacted),
        Value::Object(map) => map.values().any(holds_redacted),
        _ => false,
    }
}

/// `stored` with what is redacted there taken from `now`. Only texts and numbers that mean themselves are taken: a tree's
/// file may have changed since, and is not trusted with variables.
fn fill_in(stored: &Value, now: &Value) -> Value {
    match (stored, now) {
        (Value::String(text), Value::String(found)) if text == REDACTED && !has_reference(found) => {
            now.clone()
        }
        (Value::String(text), Value::Number(_)) if text == REDACTED => now.clone(),
        (Value::Array(list), Value::Array(others)) if list.len() == others.len() => {
            list.iter().zip(others).map(|(item, other)| fill_in(item, other)).collect()
        }
        (Value::Object(map), Value::Object(others)) => {
            let one = |(key, value): (&String, &Value)| {
                let filled = others.get(key).map_or_else(|| value.clone(), |other| fill_in(value, other));
                (key.clone(), filled)
            };
            Value::Object(map.iter().map(one).collect())
        }
        _ => stored.clone(),
    }
}

/// Equal but for what is redacted in `stored`.
fn same(stored: &Value, now: &Value) -> bool {
    match (stored, now) {
        (Value::String(text), Value::String(_) | Value::Number(_)) if text == REDACTED => true,
        (Value::Array(list), Value::Array(others)) => {
            list.len() == others.len() && list.iter().zip(others).all(|(item, other)| same(item, other))
        }
        (Value::Object(map), Value::Object(others)) => {
            map.len() == others.len()
                && map.iter().all(|(key, value)| others.get(key).is_some_and(|other| same(value, other)))
        }
        _ => stored == now,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_redacted_is_taken_from_the_file() {
        let stored = json!({"a": REDACTED, "b": [REDACTED, "x"], "c": {"d": REDACTED}, "e": "same", "f": REDACTED, "g": REDACTED});
        let now = json!({"a": "s1", "b": [2, "other"], "c": {"d": "${HOME}"}, "e": "changed", "f": [1]});
        let want = json!({"a": "s1", "b": [2, "x"], "c": {"d": REDACTED}, "e": "same", "f": REDACTED, "g": REDACTED});
        assert_eq!(fill_in(&stored, &now), want);
    }

    #[test]
    fn comparing_leaves_out_what_is_redacted() {
        let stored = json!({"a": [REDACTED, 1], "b": "${X}"});
        assert!(same(&stored, &json!({"b": "${X}", "a": ["new", 1]})));
        for other in [
            json!({"a": ["s", 2], "b": "${X}"}),
            json!({"a": ["s", 1]}),
            json!({"a": ["s", 1], "b": "x"}),
            json!({"a": [[], 1], "b": "${X}"}),
        ] {
            assert!(!same(&stored, &other), "{other}");
        }
    }
}
