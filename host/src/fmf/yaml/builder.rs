//! Values from events, with a stack of its own: lists, mappings, anchors, merge keys, the limits.

use std::collections::HashMap;

use libyaml_safer::{Mark, ScalarStyle};

use super::scalar::{self, Plain};
use super::{Common, Error, MAX_DEPTH, MAX_VALUES, Schema};
use crate::fmf::value::{Map, Value};

/// The prefix of `!!int` and its like, written out.
const CORE: &str = "tag:yaml.org,2002:";

/// What a list or mapping becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    List,
    Map,
    Set,
    /// `!!omap`: a mapping written as a list of single entries.
    OrderedMap,
    /// `!!pairs`: tuples written as a list of single entries.
    Pairs,
}

/// A value that is complete, and how many values it counts for.
#[derive(Clone, Debug)]
struct Done {
    value: Value,
    size: usize,
}

/// The key that a mapping is waiting for the value of.
#[derive(Debug)]
enum Key {
    Value(Value, Mark),
    /// `<<`
    Merge,
}

#[derive(Debug)]
struct Frame {
    shape: Shape,
    anchor: Option<String>,
    start: Mark,
    size: usize,
    items: Vec<Value>,
    entries: Map,
    key: Option<Key>,
    /// The entries of `<<`, and whether there was one.
    merged: Option<Map>,
    /// The first key that came twice; an error unless the mapping has a merge key, which lets the last one win.
    duplicate: Option<(Value, Mark)>,
}

pub(super) struct Builder<'a> {
    schema: Schema,
    common: &'a mut Common,
    stack: Vec<Frame>,
    /// By anchor; none while the value is not complete.
    anchors: HashMap<String, Option<Done>>,
    total: usize,
    result: Value,
}

impl<'a> Builder<'a> {
    pub(super) fn new(common: &'a mut Common) -> Self {
        let schema = Schema::V12;
        Self { schema, common, stack: Vec::new(), anchors: HashMap::new(), total: 0, result: Value::Null }
    }

    pub(super) fn use_schema(&mut self, schema: Schema) {
        self.schema = schema;
    }

    pub(super) fn finish(self) -> Value {
        self.result
    }

    pub(super) fn alias(&mut self, anchor: &str, at: Mark) -> Result<(), Error> {
        let done = match self.anchors.get(anchor) {
            Some(Some(done)) => done.clone(),
            Some(None) => {
                return Err(Error::new(
                    at,
                    format!("the alias `{anchor}` is inside the value it stands for"),
                ));
            }
            None => return Err(Error::new(at, format!("there is no anchor `{anchor}` before this alias"))),
        };
        self.count(done.size, at)?;
        self.place(done, at)
    }

    pub(super) fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: Option<String>,
        tag: Option<&str>,
        at: Mark,
    ) -> Result<(), Error> {
        self.count(1, at)?;
        let resolved = match tag.map(tag_name) {
            Some(name) => scalar::construct(self.schema, name, text),
            None if style == ScalarStyle::Plain => scalar::resolve(self.schema, text),
            None => Ok(Plain::Text),
        };
        let value = match resolved.map_err(|problem| Error::new(at, problem))? {
            Plain::Text => Value::Str(self.common.text(text)),
            Plain::Value(value) => value,
            Plain::Merge if self.expects_key() => return self.merge_key(at),
            Plain::Merge => return Err(Error::new(at, "`<<` is a merge key, not a value; put it in quotes")),
            // As a key it is only a text.
            Plain::Default if self.expects_key() => Value::Str(self.common.text(text)),
            Plain::Default => return Err(Error::new(at, "`=` has no meaning as a value; put it in quotes")),
        };
        let done = Done { value, size: 1 };
        self.remember(anchor, Some(&done));
        self.place(done, at)
    }

    pub(super) fn open_list(
        &mut self,
        anchor: Option<String>,
        tag: Option<&str>,
        at: Mark,
    ) -> Result<(), Error> {
        let shape = match tag.map(tag_name) {
            None | Some("seq" | "!") => Shape::List,
            Some("omap") => Shape::OrderedMap,
            Some("pairs") => Shape::Pairs,
            Some(other) => return Err(unknown_tag(other, "a list", at)),
        };
        self.open(shape, anchor, at)
    }

    pub(super) fn open_map(
        &mut self,
        anchor: Option<String>,
        tag: Option<&str>,
        at: Mark,
    ) -> Result<(), Error> {
        let shape = match tag.map(tag_name) {
            None | Some("map" | "!") => Shape::Map,
            Some("set") => Shape::Set,
            Some(other) => return Err(unknown_tag(other, "a mapping", at)),
        };
        self.open(shape, anchor, at)
    }

    fn open(&mut self, shape: Shape, anchor: Option<String>, start: Mark) -> Result<(), Error> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Error::new(start, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.count(1, start)?;
        self.remember(anchor.clone(), None);
        self.stack.push(Frame {
            shape,
            anchor,
            start,
            size: 1,
            items: Vec::new(),
            entries: Map::new(),
            key: None,
            merged: None,
            duplicate: None,
        });
        Ok(())
    }

    pub(super) fn close(&mut self, at: Mark) -> Result<(), Error> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let (size, anchor) = (frame.size, frame.anchor.clone());
        let mut value = frame.finish()?;
        if anchor.is_some() {
            let labelled = self.common.sharing.label(&value);
            value = labelled.map_err(|limit| Error::new(at, limit.to_string()))?;
        }
        let done = Done { value, size };
        self.remember(anchor, Some(&done));
        self.place(done, at)
    }

    fn count(&mut self, values: usize, at: Mark) -> Result<(), Error> {
        self.total += values;
        if self.total > MAX_VALUES {
            return Err(Error::new(
                at,
                format!("more than {MAX_VALUES} values with the aliases written out"),
            ));
        }
        Ok(())
    }

    /// A later anchor of the same name takes over.
    fn remember(&mut self, anchor: Option<String>, done: Option<&Done>) {
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, done.cloned());
        }
    }

    fn expects_key(&self) -> bool {
        self.stack
            .last()
            .is_some_and(|frame| matches!(frame.shape, Shape::Map | Shape::Set) && frame.key.is_none())
    }

    fn merge_key(&mut self, at: Mark) -> Result<(), Error> {
        if let Some(frame) = self.stack.last_mut() {
            if frame.merged.as_ref().is_some_and(|merged| !merged.is_empty()) {
                return Err(Error::new(at, "a second merge key `<<` in this mapping"));
            }
            frame.key = Some(Key::Merge);
        }
        Ok(())
    }

    /// Puts a complete value where the innermost list or mapping wants it.
    fn place(&mut self, done: Done, at: Mark) -> Result<(), Error> {
        let Some(frame) = self.stack.last_mut() else {
            self.result = done.value;
            return Ok(());
        };
        frame.size = frame.size.saturating_add(done.size);
        match frame.shape {
            Shape::List => frame.items.push(done.value),
            Shape::OrderedMap | Shape::Pairs => {
                let value = done.value;
                if value.as_map().is_none_or(|map| map.len() != 1) {
                    return Err(Error::new(at, "an item here has to be a mapping with one key"));
                }
                frame.items.push(value);
            }
            Shape::Map | Shape::Set => match frame.key.take() {
                None => frame.key = Some(Key::Value(as_key(done.value, at)?, at)),
                Some(Key::Merge) => frame.merge(&done.value, at)?,
                Some(Key::Value(key, at)) => frame.insert(key, done.value, at),
            },
        }
        Ok(())
    }
}

impl Frame {
    fn insert(&mut self, key: Value, value: Value, at: Mark) {
        if self.entries.get_value(&key).is_some() && self.duplicate.is_none() {
            self.duplicate = Some((key.clone(), at));
        }
        self.entries.insert(key, value);
    }

    /// Takes the entries of a merge key's value; of several mappings the first has the last word.
    fn merge(&mut self, value: &Value, at: Mark) -> Result<(), Error> {
        let problem = || Error::new(at, "`<<` takes a mapping or a list of mappings");
        let merged = self.merged.get_or_insert_default();
        let maps = match value {
            Value::List(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for map in maps.iter().rev() {
            for (key, value) in map.as_map().ok_or_else(problem)? {
                merged.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Value, Error> {
        let start = self.start;
        match self.shape {
            Shape::List => Ok(Value::list(self.items)),
            Shape::Map => self.entries().map(Value::map),
            Shape::Set => self.entries().map(|map| Value::Set(map.into())),
            Shape::Pairs => Ok(Value::list(
                single_entries(self.items).map(|(k, v)| Value::Tuple(vec![k, v].into())).collect(),
            )),
            Shape::OrderedMap => {
                let mut map = Map::new();
                for (key, value) in single_entries(self.items) {
                    if map.insert(key, value).is_some() {
                        return Err(Error::new(start, "a key comes twice in this ordered mapping"));
                    }
                }
                Ok(Value::map(map))
            }
        }
    }

    /// The merged entries first, the mapping's own replacing them in place.
    fn entries(self) -> Result<Map, Error> {
        match (self.merged.filter(|merged| !merged.is_empty()), self.duplicate) {
            (None, Some((key, at))) => {
                Err(Error::new(at, format!("the key {} comes twice in this mapping", key.repr())))
            }
            (None, None) => Ok(self.entries),
            (Some(mut merged), _) => {
                for (key, value) in self.entries {
                    merged.insert(key, value);
                }
                Ok(merged)
            }
        }
    }
}

fn single_entries(items: Vec<Value>) -> impl Iterator<Item = (Value, Value)> {
    items.into_iter().filter_map(|item| match item {
        Value::Map(map) => map.iter().next().map(|(key, value)| (key.clone(), value.clone())),
        _ => None,
    })
}

/// A list used as a key becomes a tuple; other containers cannot be keys.
fn as_key(value: Value, at: Mark) -> Result<Value, Error> {
    let key = match value {
        Value::List(items) => Value::Tuple(items),
        other => other,
    };
    if key.is_hashable() {
        Ok(key)
    } else {
        Err(Error::new(at, format!("a {} cannot be a key", key.type_name())))
    }
}

/// `int` for `!!int`; other tags as they are.
fn tag_name(tag: &str) -> &str {
    tag.strip_prefix(CORE).unwrap_or(tag)
}

fn unknown_tag(tag: &str, what: &str, at: Mark) -> Error {
    Error::new(at, format!("the tag `{}` is not known for {what}", tag.escape_debug()))
}
