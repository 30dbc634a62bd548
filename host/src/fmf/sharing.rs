//! Mappings that several places of a tree's data are, not only have.
//!
//! In the reference implementation an anchor and its aliases are one object, and merging mappings changes objects in
//! place: with `a: &A {..}` and `b: *A`, a child's `a+: {..}` shows in its `b`. Trees in the field may count on it, so it is
//! kept, without objects: a mapping that is in more than one place carries a *label*, and what became of a labelled mapping
//! is noted here once and holds wherever the label is. A child's copy of its parent's data gets labels of its own.
//!
//! Nearly no tree has labels; [`Sharing::is_used`] lets everything else go past this.

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::error::Limit;
use super::value::{Map, Value};

/// The name of a mapping that is in more than one place.
pub(crate) type Label = NonZeroU32;

/// How deep merged data may be nested. Only a mapping that got into itself is.
const MAX_NESTING: usize = 400;

/// How many values may be looked at on the way to labels. Without labels, nothing is walked.
const MAX_WALKED: u64 = 32_000_000;

/// Which labels there are, and what the labelled mappings have become.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharing {
    labels: u32,
    changed: HashMap<Label, Arc<Map>>,
    /// What each change since [`Sharing::begin`] replaced.
    log: Option<Vec<(Label, Option<Arc<Map>>)>>,
    walked: u64,
}

/// What a walk over data does with labelled mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// Puts what they have become in their places.
    Resolve,
    /// The same, and gives them new labels.
    Copy,
    /// Gives every mapping without a label one.
    Label,
}

impl Sharing {
    pub(crate) fn is_used(&self) -> bool {
        self.labels > 0
    }

    /// The number of labels given so far; later ones are larger.
    pub(crate) fn labels(&self) -> u32 {
        self.labels
    }

    /// Starts to note changes so that they can be taken back.
    pub(crate) fn begin(&mut self) {
        self.log = Some(Vec::new());
    }

    /// Keeps the changes since the beginning.
    pub(crate) fn keep(&mut self) {
        self.log = None;
    }

    /// Takes the changes since the beginning back; gives them, newest first, so that they can be made again.
    pub(crate) fn take_back(&mut self) -> Vec<(Label, Arc<Map>)> {
        let mut taken = Vec::new();
        for (label, previous) in self.log.take().unwrap_or_default().into_iter().rev() {
            let change = match previous {
                Some(previous) => self.changed.insert(label, previous),
                None => self.changed.remove(&label),
            };
            taken.extend(change.map(|change| (label, change)));
        }
        taken
    }

    /// Makes changes again that were taken back.
    pub(crate) fn make_again(&mut self, taken: Vec<(Label, Arc<Map>)>) {
        self.changed.extend(taken.into_iter().rev());
    }

    /// Whether a mapping whose label came after the first `labels` was changed since the beginning.
    pub(crate) fn changed_since(&self, labels: u32) -> bool {
        self.log.iter().flatten().any(|(label, _)| label.get() > labels)
    }

    /// Forgets the changes to labels after the first `labels`, once all places that have them were resolved.
    pub(crate) fn forget_since(&mut self, labels: u32) {
        for (label, _) in self.log.iter().flatten().filter(|(label, _)| label.get() > labels) {
            self.changed.remove(label);
        }
    }

    /// What the mapping is now.
    pub(crate) fn current<'a>(&'a self, map: &'a Arc<Map>) -> &'a Arc<Map> {
        map.label().and_then(|label| self.changed.get(&label)).unwrap_or(map)
    }

    /// Notes what a labelled mapping has become.
    pub(crate) fn change(&mut self, label: Label, map: Map) {
        let previous = self.changed.insert(label, Arc::new(map));
        if let Some(log) = &mut self.log {
            log.push((label, previous));
        }
    }

    /// Forgets the changes, once every place that has them was resolved.
    pub(crate) fn forget_changes(&mut self) {
        self.changed.clear();
    }

    /// The value as it is now, with everything in it.
    pub(crate) fn resolve<'a>(&mut self, value: &'a Value) -> Result<Cow<'a, Value>, Limit> {
        if self.changed.is_empty() {
            return Ok(Cow::Borrowed(value));
        }
        let walked = self.walk_value(value, Walk::Resolve, &mut HashMap::new(), 0)?;
        Ok(walked.map_or(Cow::Borrowed(value), Cow::Owned))
    }

    /// Data with everything in it as it is now; none if that is what it was.
    pub(crate) fn resolve_map(&mut self, map: &Map) -> Result<Option<Map>, Limit> {
        if self.changed.is_empty() {
            return Ok(None);
        }
        self.walk_entries(map, Walk::Resolve, &mut HashMap::new(), 0)
    }

    /// A copy that later changes of the original do not reach; none if it would be the same.
    pub(crate) fn copy(&mut self, map: &Map) -> Result<Option<Map>, Limit> {
        if !self.is_used() {
            return Ok(None);
        }
        self.walk_entries(map, Walk::Copy, &mut HashMap::new(), 0)
    }

    /// The value with a label on every mapping in it, itself included.
    pub(crate) fn label(&mut self, value: &Value) -> Result<Value, Limit> {
        let labelled = self.walk_value(value, Walk::Label, &mut HashMap::new(), 0)?;
        Ok(labelled.unwrap_or_else(|| value.clone()))
    }

    /// The mapping, with a label on every mapping in its values.
    pub(crate) fn label_values(&mut self, map: &Map) -> Result<Option<Map>, Limit> {
        self.walk_entries(map, Walk::Label, &mut HashMap::new(), 0)
    }

    fn new_label(&mut self) -> Label {
        self.labels = self.labels.saturating_add(1);
        Label::MIN.saturating_add(self.labels - 1)
    }

    /// None if nothing is different.
    fn walk_value(
        &mut self,
        value: &Value,
        walk: Walk,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<Option<Value>, Limit> {
        self.walked += 1;
        if depth > MAX_NESTING {
            return Err(Limit::Nesting(MAX_NESTING));
        }
        if self.walked > MAX_WALKED {
            return Err(Limit::Shared);
        }
        match value {
            Value::List(items) => {
                let mut walked = None;
                for (index, item) in items.iter().enumerate() {
                    if let Some(item) = self.walk_value(item, walk, seen, depth + 1)? {
                        walked.get_or_insert_with(|| items.as_ref().clone())[index] = item;
                    }
                }
                Ok(walked.map(Value::list))
            }
            Value::Map(map) => Ok(self.walk_map(map, walk, seen, depth + 1)?.map(Value::Map)),
            _ => Ok(None),
        }
    }

    fn walk_map(
        &mut self,
        map: &Arc<Map>,
        walk: Walk,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<Option<Arc<Map>>, Limit> {
        let Some(label) = map.label() else {
            let walked = self.walk_entries(map, walk, seen, depth)?;
            if walk != Walk::Label {
                return Ok(walked.map(Arc::new));
            }
            let mut walked = walked.unwrap_or_else(|| map.as_ref().clone());
            walked.set_label(self.new_label());
            return Ok(Some(Arc::new(walked)));
        };
        if let Some(done) = seen.get(&label) {
            return Ok(done.clone());
        }
        let current = self.current(map).clone();
        let walked = self.walk_entries(&current, walk, seen, depth)?;
        let is_new = walk == Walk::Copy || !Arc::ptr_eq(&current, map);
        let done = if walked.is_some() || is_new {
            let mut walked = walked.unwrap_or_else(|| current.as_ref().clone());
            walked.set_label(if walk == Walk::Copy { self.new_label() } else { label });
            Some(Arc::new(walked))
        } else {
            None
        };
        seen.insert(label, done.clone());
        Ok(done)
    }

    fn walk_entries(
        &mut self,
        map: &Map,
        walk: Walk,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<Option<Map>, Limit> {
        let mut walked: Option<Map> = None;
        for (key, value) in map {
            if let Some(value) = self.walk_value(value, walk, seen, depth)? {
                walked.get_or_insert_with(|| map.clone()).insert(key.clone(), value);
            }
        }
        Ok(walked)
    }
}

/// What a walk made of the labelled mappings it met.
type Seen = HashMap<Label, Option<Arc<Map>>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmf::yaml;

    fn labelled(sharing: &mut Sharing, text: &str) -> Value {
        sharing.label(&yaml::parse(text).unwrap()).unwrap()
    }

    fn inner(value: &Value) -> Label {
        value.get("a").and_then(Value::as_map).and_then(Map::label).unwrap()
    }

    fn map(text: &str) -> Map {
        yaml::parse(text).unwrap().as_map().unwrap().clone()
    }

    #[test]
    fn a_change_holds_wherever_the_label_is() {
        let mut sharing = Sharing::default();
        let value = labelled(&mut sharing, "a: {k: 1}");
        let twice = Value::list(vec![value.clone(), value.clone()]);
        sharing.change(inner(&value), map("k: 2"));
        assert_eq!(sharing.resolve(&twice).unwrap().to_string(), "[{'a': {'k': 2}}, {'a': {'k': 2}}]");
    }

    #[test]
    fn a_copy_has_labels_of_its_own() {
        let mut sharing = Sharing::default();
        let value = labelled(&mut sharing, "a: {k: 1}");
        let copy = Value::map(sharing.copy(value.as_map().unwrap()).unwrap().unwrap());
        assert_ne!(inner(&copy), inner(&value));
        sharing.change(inner(&value), map("k: 2"));
        assert_eq!(sharing.resolve(&copy).unwrap().to_string(), "{'a': {'k': 1}}");
    }

    #[test]
    fn changes_can_be_taken_back_and_made_again() {
        let mut sharing = Sharing::default();
        let value = labelled(&mut sharing, "a: {k: 1}");
        sharing.change(inner(&value), map("k: 2"));
        sharing.begin();
        sharing.change(inner(&value), map("k: 3"));
        sharing.change(inner(&value), map("k: 4"));
        let taken = sharing.take_back();
        assert_eq!(sharing.resolve(&value).unwrap().to_string(), "{'a': {'k': 2}}");
        sharing.make_again(taken);
        assert_eq!(sharing.resolve(&value).unwrap().to_string(), "{'a': {'k': 4}}");
    }

    #[test]
    fn a_mapping_in_itself_is_an_error() {
        let mut sharing = Sharing::default();
        let value = labelled(&mut sharing, "a: {k: 1}");
        let mut around = Map::new();
        around.insert("a", value.get("a").unwrap().clone());
        sharing.change(inner(&value), around);
        assert_eq!(sharing.resolve(&value), Err(Limit::Nesting(MAX_NESTING)));
    }
}
