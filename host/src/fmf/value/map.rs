//! A mapping that keeps the order its keys came in; a key set again keeps its place.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;

use super::Value;
use crate::fmf::sharing::Label;

/// A mapping. Keys are any value that python can hash; nearly always strings.
///
/// A tree of a hundred thousand tests holds as many of them, with about fifteen keys each, so a small one is a list that is
/// searched from its start: a tenth of the memory of a hash table, and faster. Large ones, which strangers can make,
/// are hash tables.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Entries,
    /// Set on mappings that are in several places of a tree's data; nothing of a mapping's value.
    label: Option<Label>,
}

#[derive(Clone, Debug)]
enum Entries {
    Small(Columns),
    Large(Box<IndexMap<Value, Value>>),
}

/// The most entries of a small mapping.
const SMALL: usize = 40;

impl Default for Entries {
    fn default() -> Self {
        Self::Small(Columns::default())
    }
}

/// Keys and values apart: tests that inherit the same keys hold them together, until one gets a key of its own.
#[derive(Clone, Debug)]
struct Columns {
    keys: Arc<Vec<Value>>,
    /// As many as keys.
    values: Vec<Value>,
}

impl Default for Columns {
    fn default() -> Self {
        static NONE: LazyLock<Arc<Vec<Value>>> = LazyLock::new(Arc::default);
        Self { keys: NONE.clone(), values: Vec::new() }
    }
}

impl Columns {
    fn position(&self, is_it: impl Fn(&Value) -> bool) -> Option<usize> {
        self.keys.iter().position(is_it)
    }

    /// The keys to change, with room for one more.
    fn own_keys(&mut self) -> &mut Vec<Value> {
        if Arc::get_mut(&mut self.keys).is_none() {
            let mut own = Vec::with_capacity(self.keys.len() + 1);
            own.extend_from_slice(&self.keys);
            self.keys = Arc::new(own);
        }
        Arc::make_mut(&mut self.keys)
    }

    fn push(&mut self, key: Value, value: Value) {
        self.own_keys().push(key);
        self.values.push(value);
    }

    fn remove(&mut self, at: usize) -> Value {
        self.own_keys().remove(at);
        self.values.remove(at)
    }

    fn retain(&mut self, mut keep: impl FnMut(&Value, &Value) -> bool) {
        let kept: Vec<bool> = self.iter().map(|(key, value)| keep(key, value)).collect();
        if kept.contains(&false) {
            let mut flags = kept.iter();
            self.own_keys().retain(|_| flags.next() == Some(&true));
            let mut flags = kept.iter();
            self.values.retain(|_| flags.next() == Some(&true));
        }
    }

    fn iter(&self) -> SmallIter<'_> {
        self.keys.iter().zip(&self.values)
    }

    fn into_entries(self) -> std::iter::Zip<std::vec::IntoIter<Value>, std::vec::IntoIter<Value>> {
        Arc::unwrap_or_clone(self.keys).into_iter().zip(self.values)
    }
}

/// Lists of keys, each held once: siblings mostly have the same ones.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys(HashSet<Arc<Vec<Value>>>);

impl Map {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn label(&self) -> Option<Label> {
        self.label
    }

    pub(crate) fn set_label(&mut self, label: Label) {
        self.label = Some(label);
    }

    /// A mapping of its own with the same entries.
    pub(crate) fn without_label(&self) -> Self {
        Self { entries: self.entries.clone(), label: None }
    }

    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Small(entries) => entries.values.len(),
            Entries::Large(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        match &self.entries {
            Entries::Small(entries) => {
                entries.position(|known| is(known, key)).and_then(|at| entries.values.get(at))
            }
            Entries::Large(entries) => entries.get(key),
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match &mut self.entries {
            Entries::Small(entries) => {
                entries.position(|known| is(known, key)).and_then(|at| entries.values.get_mut(at))
            }
            Entries::Large(entries) => entries.get_mut(key),
        }
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Like [`get`](Self::get) for keys that need not be strings.
    pub fn get_value(&self, key: &Value) -> Option<&Value> {
        match &self.entries {
            Entries::Small(entries) => {
                entries.position(|known| known == key).and_then(|at| entries.values.get(at))
            }
            Entries::Large(entries) => entries.get(key),
        }
    }

    /// Sets `key`, in its old place if it has one (the old key stays: `1` is not replaced by `true`).
    pub fn insert(&mut self, key: impl Into<Value>, value: Value) -> Option<Value> {
        let key = key.into();
        match &mut self.entries {
            Entries::Small(entries) => match entries.position(|known| *known == key) {
                Some(at) => Some(std::mem::replace(&mut entries.values[at], value)),
                None if entries.values.len() < SMALL => {
                    entries.push(key, value);
                    None
                }
                None => {
                    let mut large: IndexMap<_, _> = std::mem::take(entries).into_entries().collect();
                    large.insert(key, value);
                    self.entries = Entries::Large(Box::new(large));
                    None
                }
            },
            Entries::Large(entries) => entries.insert(key, value),
        }
    }

    /// Removes `key`; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        match &mut self.entries {
            Entries::Small(entries) => {
                let at = entries.position(|known| is(known, key))?;
                Some(entries.remove(at))
            }
            Entries::Large(entries) => entries.shift_remove(key),
        }
    }

    /// Like [`remove`](Self::remove) for keys that need not be strings.
    pub fn remove_value(&mut self, key: &Value) -> Option<Value> {
        match &mut self.entries {
            Entries::Small(entries) => {
                let at = entries.position(|known| known == key)?;
                Some(entries.remove(at))
            }
            Entries::Large(entries) => entries.shift_remove(key),
        }
    }

    /// Keeps the entries for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Value, &Value) -> bool) {
        match &mut self.entries {
            Entries::Small(entries) => entries.retain(keep),
            Entries::Large(entries) => entries.retain(|key, value| keep(key, value)),
        }
    }

    /// Gives back memory that no entry uses, and holds the same keys as others do together with them.
    pub(crate) fn compact(&mut self, known: &mut KnownKeys) {
        let Entries::Small(entries) = &mut self.entries else { return };
        entries.values.shrink_to_fit();
        // Keys that are shared already stay so. Others than strings may be equal without being the same.
        let Some(own) = Arc::get_mut(&mut entries.keys) else { return };
        own.shrink_to_fit();
        if !own.iter().all(|key| matches!(key, Value::Str(_))) {
            return;
        }
        if let Some(same) = known.0.get(&entries.keys) {
            entries.keys = same.clone();
        } else {
            known.0.insert(entries.keys.clone());
        }
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.entries {
            Entries::Small(entries) => IterKind::Small(entries.iter()),
            Entries::Large(entries) => IterKind::Large(entries.iter()),
        })
    }

    /// The values to change, in the order of the keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        let (small, large) = match &mut self.entries {
            Entries::Small(entries) => (Some(entries.values.iter_mut()), None),
            Entries::Large(entries) => (None, Some(entries.values_mut())),
        };
        small.into_iter().flatten().chain(large.into_iter().flatten())
    }

    pub fn keys(&self) -> impl Iterator<Item = &Value> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Value> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

fn is(known: &Value, key: &str) -> bool {
    matches!(known, Value::Str(text) if text.as_ref() == key)
}

/// The entries of a [`Map`] in order.
#[derive(Clone, Debug)]
pub struct Iter<'a>(IterKind<'a>);

type SmallIter<'a> = std::iter::Zip<std::slice::Iter<'a, Value>, std::slice::Iter<'a, Value>>;

#[derive(Clone, Debug)]
enum IterKind<'a> {
    Small(SmallIter<'a>),
    Large(indexmap::map::Iter<'a, Value, Value>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Value, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterKind::Small(entries) => entries.next(),
            IterKind::Large(entries) => entries.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            IterKind::Small(entries) => entries.size_hint(),
            IterKind::Large(entries) => entries.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Value, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Equal when the same keys have equal values, in whatever order.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get_value(key) == Some(value))
    }
}

impl FromIterator<(Value, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Value, Value)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl IntoIterator for Map {
    type Item = (Value, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        match self.entries {
            Entries::Small(entries) => IntoIter::Small(entries.into_entries()),
            Entries::Large(entries) => IntoIter::Large(entries.into_iter()),
        }
    }
}

/// The entries of a [`Map`], owned.
#[derive(Debug)]
pub enum IntoIter {
    Small(std::iter::Zip<std::vec::IntoIter<Value>, std::vec::IntoIter<Value>>),
    Large(indexmap::map::IntoIter<Value, Value>),
}

impl Iterator for IntoIter {
    type Item = (Value, Value);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Small(entries) => entries.next(),
            Self::Large(entries) => entries.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_places_and_lookups_are_the_same_small_and_large() {
        for count in [SMALL as i64 - 1, SMALL as i64, SMALL as i64 + 1, 3 * SMALL as i64] {
            let mut map: Map = (0..count).map(|n| (Value::from(format!("k{n}")), Value::Int(n))).collect();
            map.insert("k1", Value::Int(-1));
            assert_eq!(map.remove("k0"), Some(Value::Int(0)));
            assert_eq!(map.remove("k0"), None);
            assert_eq!(map.len() as i64, count - 1);
            assert_eq!(map.iter().next(), Some((&Value::from("k1"), &Value::Int(-1))));
            assert_eq!(map.get("k7"), Some(&Value::Int(7)));
            assert_eq!(map.get_value(&Value::from("k8")), Some(&Value::Int(8)));
            map.retain(|_, value| *value == Value::Int(5));
            assert_eq!(map.into_iter().collect::<Vec<_>>(), [(Value::from("k5"), Value::Int(5))]);
        }
    }

    #[test]
    fn keys_are_shared_until_they_change() {
        let map = |entries: &[(Value, i64)]| -> Map {
            entries.iter().map(|(key, number)| (key.clone(), Value::Int(*number))).collect()
        };
        let keys = |map: &Map| match &map.entries {
            Entries::Small(entries) => Arc::as_ptr(&entries.keys),
            Entries::Large(_) => unreachable!("the map is small"),
        };
        let mut known = KnownKeys::default();
        let mut one = map(&[("a".into(), 1), ("b".into(), 2)]);
        let mut two = map(&[("a".into(), 3), ("b".into(), 4)]);
        one.compact(&mut known);
        two.compact(&mut known);
        assert_eq!(keys(&one), keys(&two));
        two.insert("c", Value::Int(5));
        two.remove("a");
        two.retain(|key, _| key.as_str() == Some("c"));
        assert_eq!(two, map(&[("c".into(), 5)]));
        assert_eq!(one, map(&[("a".into(), 1), ("b".into(), 2)]));

        // Equal, but not the same.
        let mut number = map(&[(Value::Int(1), 0)]);
        let mut truth = map(&[(Value::Bool(true), 0)]);
        number.compact(&mut known);
        truth.compact(&mut known);
        assert!(matches!(truth.keys().next(), Some(Value::Bool(true))));
    }

    #[test]
    fn maps_are_equal_whatever_the_order() {
        let one: Map =
            [("a", 1), ("b", 2)].map(|(k, v)| (Value::from(k), Value::Int(v))).into_iter().collect();
        let two: Map =
            [("b", 2), ("a", 1)].map(|(k, v)| (Value::from(k), Value::Int(v))).into_iter().collect();
        assert_eq!(one, two);
        assert_ne!(one, Map::new());
    }
}
