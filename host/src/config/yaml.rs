//! YAML in, JSON values out: the only place of the configuration that knows the YAML library.
//!
//! Stricter than YAML: one document, no tags, no duplicate keys, keys are text. Merge keys (`<<`) are applied. Values are
//! those of YAML 1.2's core schema.
//!
//! Invariant: bounded work and memory on any input. Size, nesting and the number of values *after* aliases were followed
//! are limited while reading, so that a small file of aliases to aliases cannot grow.
//!
//! The library tells positions only in errors. [`locate`] therefore reads a text again, after something was found wrong in
//! it, and fails on purpose at the value in question.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::Position;
use super::path::Step;

/// Bytes of one document.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Values and keys of one document with aliases followed.
const MAX_NODES: usize = 200_000;
/// Open flow brackets; the library's own limit on nesting comes after it has read everything, in quadratic time.
const MAX_OPEN_BRACKETS: usize = 200;
/// The key whose value is merged into the mapping around it.
const MERGE: &str = "<<";

/// Why a text is not a document of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) position: Option<Position>,
}

impl YamlError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None }
    }
}

/// Reads a document. An empty one is `Null`.
pub(crate) fn parse(text: &str) -> Result<Value, YamlError> {
    check_size(text)?;
    let context = Context::default();
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else { return Ok(Value::Null) };
    let value = Build(&context).deserialize(first).map_err(|error| context.explain(&error))?;
    match documents.next() {
        None => Ok(value),
        Some(_) => Err(YamlError::new("more than one document in the file (a second `---`)")),
    }
}

fn check_size(text: &str) -> Result<(), YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError::new(format!("longer than {} KiB", MAX_BYTES >> 10)));
    }
    let mut open = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            return Err(YamlError::new(format!("more than {MAX_OPEN_BRACKETS} open brackets")));
        }
    }
    Ok(())
}

/// What goes along while a document is read.
#[derive(Debug, Default)]
struct Context {
    nodes: Cell<usize>,
    /// The message of an error of ours; the library would wrap it into its own words.
    message: RefCell<Option<String>>,
}

impl Context {
    fn fail<E: de::Error>(&self, message: impl Into<String>) -> E {
        let message = message.into();
        let error = E::custom(&message);
        *self.message.borrow_mut() = Some(message);
        error
    }

    fn count<E: de::Error>(&self) -> Result<(), E> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > MAX_NODES {
            return Err(self.fail(format!("more than {MAX_NODES} values, aliases included")));
        }
        Ok(())
    }

    fn explain(&self, error: &serde_yaml::Error) -> YamlError {
        let position = position_of(error);
        let message = self.message.borrow_mut().take();
        YamlError { message: message.unwrap_or_else(|| without_position(&error.to_string())), position }
    }
}

fn position_of(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line().max(1), column: at.column().max(1) })
}

/// The library's message up to its ` at line N column M`; the position is told in front.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Builds one value.
#[derive(Clone, Copy)]
struct Build<'a>(&'a Context);

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Err(self.0.fail(format!("the number {value} is too big; quote it if it is text")))
    }
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        Err(self.0.fail(format!("the number {value} is too big; quote it if it is text")))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| self.0.fail(format!("the number {value} is not finite; quote it if it is text")))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(Key(self.0, &map, !merged.is_empty()))? {
            let value = entries.next_value_seed(self)?;
            if key == MERGE {
                merged.push(value);
            } else {
                map.insert(key, value);
            }
        }
        for source in merged {
            merge(self.0, &mut map, source)?;
        }
        Ok(Value::Object(map))
    }
    fn visit_enum<A: de::EnumAccess<'de>>(self, _data: A) -> Result<Value, A::Error> {
        Err(self.0.fail("tags (`!...`) have no meaning here; quote the value if it is text"))
    }
}

/// Reads one key of a mapping that has `map` already, and a merge key if the third field says so.
#[derive(Clone, Copy)]
struct Key<'a>(&'a Context, &'a Map<String, Value>, bool);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        self.0.count()?;
        deserializer.deserialize_any(self)
    }
}

/// What every key does that is no text.
macro_rules! no_key {
    ($($method:ident: $kind:ty),*) => {$(
        fn $method<E: de::Error>(self, value: $kind) -> Result<String, E> {
            Err(self.0.fail(format!("the key {value} is not text; quote it")))
        }
    )*};
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }
    no_key!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64);
    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Err(self.0.fail("a key is empty; quote it"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _items: A) -> Result<String, A::Error> {
        Err(self.0.fail("a key is a list; keys are text"))
    }
    fn visit_map<A: MapAccess<'de>>(self, _entries: A) -> Result<String, A::Error> {
        Err(self.0.fail("a key is a mapping; keys are text (was a quote or a space forgotten around `{`?)"))
    }
    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        if self.1.contains_key(key) || (self.2 && key == MERGE) {
            return Err(self.0.fail(format!("the key {key:?} is given twice in one mapping")));
        }
        Ok(key.to_owned())
    }
}

/// Adds what `map` lacks from a mapping, or from a list of mappings of which the first wins.
fn merge<E: de::Error>(context: &Context, map: &mut Map<String, Value>, source: Value) -> Result<(), E> {
    let sources = match source {
        Value::Array(list) => list,
        single => vec![single],
    };
    for source in sources {
        let Value::Object(source) = source else {
            return Err(context.fail("`<<` wants a mapping or a list of mappings"));
        };
        for (key, value) in source {
            map.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// What of a mapping entry [`locate`] is to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

/// The position of what `steps` lead to in `text`, or of the nearest thing around it that can be found (a key may have come
/// through a merge).
pub(crate) fn locate(text: &str, steps: &[Step], part: Part) -> Option<Position> {
    check_size(text).ok()?;
    (0..=steps.len()).rev().find_map(|depth| {
        let wanted = if depth == steps.len() { part } else { Part::Value };
        let first = serde_yaml::Deserializer::from_str(text).next()?;
        let reached = Cell::new(false);
        let error =
            Seek { steps: steps.get(..depth)?, part: wanted, reached: &reached }.deserialize(first).err()?;
        if reached.get() { position_of(&error) } else { None }
    })
}

/// Walks along the steps and fails at their end.
#[derive(Clone, Copy)]
struct Seek<'a> {
    steps: &'a [Step],
    part: Part,
    reached: &'a Cell<bool>,
}

impl Seek<'_> {
    fn arrived<E: de::Error>(&self) -> E {
        self.reached.set(true);
        E::custom("here")
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What every scalar does: it is the end of the way, or a dead end.
macro_rules! scalar {
    ($($method:ident: $kind:ty),*) => {$(
        fn $method<E: de::Error>(self, _value: $kind) -> Result<(), E> {
            if self.steps.is_empty() { Err(self.arrived()) } else { Ok(()) }
        }
    )*};
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    scalar!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.steps.is_empty() { Err(self.arrived()) } else { Ok(()) }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else { return Err(self.arrived()) };
        if let Step::Index(wanted) = first {
            for _ in 0..*wanted {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            items.next_element_seed(Seek { steps: rest, ..self })?;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else { return Err(self.arrived()) };
        let wanted = match first {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        };
        let at_key = rest.is_empty() && self.part == Part::Key;
        while let Some(found) = entries.next_key_seed(SeekKey { wanted, fail: at_key, seek: self })? {
            if found {
                entries.next_value_seed(Seek { steps: rest, ..self })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
    fn visit_enum<A: de::EnumAccess<'de>>(self, _data: A) -> Result<(), A::Error> {
        Err(if self.steps.is_empty() { self.arrived() } else { de::Error::custom("a tag") })
    }
}

/// Tells whether a key is the wanted one; fails at it if that is the end of the way.
#[derive(Clone, Copy)]
struct SeekKey<'a> {
    wanted: Option<&'a str>,
    fail: bool,
    seek: Seek<'a>,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        match self.wanted == Some(key) {
            true if self.fail => Err(self.seek.arrived()),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::path::Path;
    use super::*;

    #[test]
    fn values_are_those_of_the_core_schema() {
        let text = "a: yes\nb: 010\nc: 1.5\nd: ~\ne: [1, -2, true]\nf: 0x10\n";
        let want = json!({"a": "yes", "b": "010", "c": 1.5, "d": null, "e": [1, -2, true], "f": 16});
        assert_eq!(parse(text), Ok(want));
        assert_eq!(parse(""), Ok(Value::Null));
        assert_eq!(parse("# nothing\n"), Ok(Value::Null));
    }

    #[test]
    fn merge_keys_are_applied_also_through_each_other() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {z: 9, x: 9}], w: 0}\n";
        let want =
            json!({"a": {"x": 1, "y": 1}, "b": {"y": 2, "x": 1}, "c": {"w": 0, "y": 2, "x": 1, "z": 9}});
        assert_eq!(parse(text), Ok(want));
    }

    #[test]
    fn errors_have_a_position_and_one_line() {
        let table = [
            ("a: 1\nb: 2\na: 3\n", 3, "the key \"a\" is given twice in one mapping"),
            ("a: {<<: {b: 1}, <<: {c: 1}}", 1, "the key \"<<\" is given twice in one mapping"),
            ("a: 1\n2: b\n", 2, "the key 2 is not text; quote it"),
            ("a: !x b\n", 1, "tags (`!...`) have no meaning here; quote the value if it is text"),
            ("a: .inf\n", 1, "the number inf is not finite; quote it if it is text"),
            ("a: {[b]: 1}", 1, "a key is a list; keys are text"),
            ("? \n: 1", 1, "a key is empty; quote it"),
            ("a: {<<: 1}\n", 1, "`<<` wants a mapping or a list of mappings"),
            ("a: *b\n", 1, "unknown anchor"),
            ("a: [1,\nb: 2\n", 3, "did not find expected ',' or ']'"),
        ];
        for (text, line, message) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(
                (error.position.map(|at| at.line), error.message.as_str()),
                (Some(line), message),
                "{text}"
            );
        }
        assert!(parse("a: 1\n---\nb: 1\n").unwrap_err().message.contains("more than one document"));
    }

    #[test]
    fn hostile_documents_end_soon() {
        let wide = format!("a: &a [{}]\nb: [{}]\n", "0,".repeat(5_000), "*a,".repeat(5_000));
        let message = |text: &str| parse(text).unwrap_err().message;
        assert_eq!(message(&wide), "more than 200000 values, aliases included");
        assert_eq!(message(&"[".repeat(1 << 19)), "more than 200 open brackets");
        assert_eq!(message(&"#".repeat(MAX_BYTES + 1)), "longer than 1024 KiB");
        assert_eq!(message(&"- ".repeat(10_000)), "recursion limit exceeded");
    }

    #[test]
    fn finds_positions_of_keys_and_values() {
        let text = "a:\n  - x: 1\n    y: {z: 2}\nb: &b\n  c: 3\nd:\n  <<: *b\n";
        let at = |path: &Path, part| locate(text, path.steps(), part).map(|at| (at.line, at.column));
        let top = Path::default();
        assert_eq!(at(&top.key("a").index(0).key("y").key("z"), Part::Value), Some((3, 12)));
        assert_eq!(at(&top.key("a").index(0).key("y"), Part::Key), Some((3, 5)));
        assert_eq!(at(&top.key("b").key("c"), Part::Value), Some((5, 6)));
        assert_eq!(
            at(&top.key("d").key("c"), Part::Key),
            Some((7, 3)),
            "a merged key is looked for around it"
        );
        assert_eq!(at(&top.key("nowhere"), Part::Key), Some((1, 1)));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s)[-:{}\\[\\]&*!<>~'\"a-c0-9., \n#%@|?$\\\\]{0,60}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.message.is_empty());
            }
            let path = Path::default().key("a").index(0);
            locate(&text, path.steps(), Part::Value);
        }
    }
}
