//! Results that come in pieces: `partial: true`, merged by name until one comes without it.

use std::collections::HashMap;

use indexmap::IndexSet;
use serde_json::{Map, Value};

use crate::executor::control::Header;

/// A result that is not complete yet.
#[derive(Debug)]
pub(super) struct Partial {
    /// When it was opened, among the others.
    order: u64,
    /// Bytes of JSON that made it.
    size: u64,
    pub(super) object: Map<String, Value>,
    /// Where its files are, once it has any.
    pub(super) place: Option<String>,
    pub(super) files: IndexSet<String>,
}

impl Partial {
    /// A result that came in one piece: nothing is merged, so that a null stays a null.
    pub(super) fn alone(header: &Header, place: Option<String>, files: IndexSet<String>) -> Self {
        Self { order: 0, size: header.size, object: header.object.clone(), place, files }
    }

    /// The next piece.
    pub(super) fn merge(&mut self, header: &Header, place: Option<String>, files: IndexSet<String>) {
        self.size += header.size;
        if header.forget_files {
            self.files.clear();
        }
        self.files.extend(files);
        self.place = place.or(self.place.take());
        merge(&mut self.object, &header.object);
    }
}

/// New keys are added, null deletes, lists append, objects merge, anything else replaces.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.shift_remove(key);
            }
            (Some(Value::Array(list)), Value::Array(more)) => list.extend_from_slice(more),
            (Some(Value::Object(object)), Value::Object(more)) => merge(object, more),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// All results that are open.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// By name; the test's own is "", which is no name.
    results: HashMap<String, Partial>,
    opened: u64,
    bytes: u64,
}

impl Open {
    /// A result that opens now, to be [inserted](Self::insert).
    pub(super) fn fresh(&mut self) -> Partial {
        self.opened += 1;
        Partial { order: self.opened, size: 0, object: Map::new(), place: None, files: IndexSet::new() }
    }

    pub(super) fn insert(&mut self, name: Option<String>, partial: Partial) {
        self.bytes += partial.size;
        self.results.insert(name.unwrap_or_default(), partial);
    }

    pub(super) fn get(&self, name: Option<&str>) -> Option<&Partial> {
        self.results.get(name.unwrap_or_default())
    }

    pub(super) fn remove(&mut self, name: Option<&str>) -> Option<Partial> {
        let partial = self.results.remove(name.unwrap_or_default());
        self.bytes -= partial.as_ref().map_or(0, |partial| partial.size);
        partial
    }

    /// Bytes of JSON that made them all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them, in order of their first appearance.
    pub(super) fn into_ordered(self) -> Vec<(Option<String>, Partial)> {
        let mut results: Vec<_> = self.results.into_iter().collect();
        results.sort_unstable_by_key(|(_, partial)| partial.order);
        results.into_iter().map(|(name, partial)| ((!name.is_empty()).then_some(name), partial)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging() {
        let table = [
            (json!({}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": 1}), json!({"a": "x"}), json!({"a": "x"})),
            (json!({"a": 1, "b": 2}), json!({"a": null, "c": null}), json!({"b": 2})),
            (json!({"a": [1]}), json!({"a": [2, null]}), json!({"a": [1, 2, null]})),
            (json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (
                json!({"a": {"b": 1, "c": [1]}}),
                json!({"a": {"b": null, "c": [2]}}),
                json!({"a": {"c": [1, 2]}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": 3}), json!({"a": 3})),
            (json!({"a": true}), json!({"a": false}), json!({"a": false})),
        ];
        for (into, from, expected) in table {
            let (Value::Object(mut object), Value::Object(from)) = (into, from) else { panic!("objects") };
            merge(&mut object, &from);
            assert_eq!(Value::Object(object), expected);
        }
    }
}
