//! Reading keys of metadata with errors that name file, node and key, and noting what was left out.

use std::collections::HashSet;

use indexmap::IndexSet;

use super::super::value::{Map, Value};
use super::error::{DiscoverError, Place};

/// What there is to say besides the result, each thing once.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    ignore_unsupported: bool,
    warnings: IndexSet<String>,
}

impl Notes {
    pub(crate) fn new(ignore_unsupported: bool) -> Self {
        Self { ignore_unsupported, warnings: IndexSet::new() }
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.insert(text.into());
    }

    /// An error, unless the user wants such things left out.
    pub(crate) fn unsupported(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        what: impl Into<String>,
    ) -> Result<(), DiscoverError> {
        let (key, what) = (key.into(), what.into());
        if !self.ignore_unsupported {
            return Err(DiscoverError::Unsupported { place: place.clone(), key, what });
        }
        self.warn(format!("{place}: `{key}`: {what} is not supported and left out"));
        Ok(())
    }

    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_iter().collect()
    }
}

/// The keys of one mapping. What has not been asked for in the end is unknown.
pub(crate) struct Keys<'a> {
    place: &'a Place,
    /// The way to the mapping: `prepare[1]`; empty for the node itself.
    path: String,
    map: &'a Map,
    seen: HashSet<&'static str>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(place: &'a Place, path: impl Into<String>, map: &'a Map) -> Self {
        Self { place, path: path.into(), map, seen: HashSet::new() }
    }

    pub(crate) fn place(&self) -> &'a Place {
        self.place
    }

    /// The whole way to a key of this mapping.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> DiscoverError {
        DiscoverError::Key { place: self.place.clone(), key: self.key(key), problem: problem.into() }
    }

    fn expected(&self, key: &str, expected: &str, found: &Value) -> DiscoverError {
        self.error(key, format!("has to be {expected}, not {}", described(found)))
    }

    /// The value, if there is one that is not null.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A text, or a number or date as its text.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, DiscoverError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        plain(value).map(Some).ok_or_else(|| self.expected(key, "a text", value))
    }

    /// One text or a list of them.
    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Vec<String>, DiscoverError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let texts = value
            .items()
            .iter()
            .map(|item| plain(item).ok_or_else(|| self.expected(key, "a text or a list of texts", item)));
        texts.collect()
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, DiscoverError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.expected(key, "true or false", value))
    }

    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<i64>, DiscoverError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.expected(key, "a whole number", value))
    }

    /// One mapping or a list of them, each with the way to it; nothing for null.
    pub(crate) fn mappings(&mut self, key: &'static str) -> Result<Vec<(String, &'a Map)>, DiscoverError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_list().is_some();
        let mut mappings = Vec::new();
        for (index, item) in value.items().iter().enumerate() {
            let path = if list { format!("{}[{index}]", self.key(key)) } else { self.key(key) };
            let map =
                item.as_map().ok_or_else(|| self.expected(key, "a mapping or a list of mappings", item))?;
            mappings.push((path, map));
        }
        Ok(mappings)
    }

    /// Marks keys as known that change nothing.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        self.seen.extend(keys);
    }

    /// A key that is only known as being off.
    pub(crate) fn must_be_off(&mut self, key: &'static str, notes: &mut Notes) -> Result<(), DiscoverError> {
        match self.value(key) {
            Some(value) if value.is_true() => {
                notes.unsupported(self.place, self.key(key), format!("`{key}`"))
            }
            _ => Ok(()),
        }
    }

    /// What nobody asked for is not supported.
    /// Keys that nobody has asked for.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = String> + '_ {
        let keys = self.map.keys().map(ToString::to_string);
        keys.filter(|key| !self.seen.contains(key.as_str()) && !key.starts_with("extra-"))
    }

    pub(crate) fn finish(self, notes: &mut Notes) -> Result<(), DiscoverError> {
        for (key, value) in self.map {
            let key = key.to_string();
            if self.seen.contains(key.as_str()) || key.starts_with("extra-") || value.is_null() {
                continue;
            }
            notes.unsupported(self.place, self.key(&key), format!("the key `{key}`"))?;
        }
        Ok(())
    }
}

/// The text of a scalar as somebody wrote it, or nearly: `true`, `1.5`, `2024-01-02`.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("true".to_owned()),
        Value::Bool(false) => Some("false".to_owned()),
        Value::Str(text) => Some(text.to_string()),
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Date(_) | Value::DateTime(_) => {
            Some(value.to_string())
        }
        Value::Null | Value::Bytes(_) | Value::List(_) | Value::Tuple(_) | Value::Map(_) | Value::Set(_) => {
            None
        }
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) => "a number",
        Value::Str(_) => "a text",
        Value::Date(_) | Value::DateTime(_) => "a date",
        Value::Bytes(_) => "bytes",
        Value::List(_) | Value::Tuple(_) => "a list",
        Value::Map(_) | Value::Set(_) => "a mapping",
    }
}
