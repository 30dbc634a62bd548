//! From a JSON value to typed structures, with errors that say where and what would be right.
//!
//! A small `serde` deserializer: each error carries the path of the value it is about; unknown keys and words come with the
//! nearest known one; numbers and booleans may also be text, because that is what `${VAR}` gives.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde_json::{Map, Value};

use super::error::ConfigError;
use super::path::{Path, Step};
use super::suggest;
use super::yaml::Part;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    path: Path,
    /// Whether it is about the key or the value at the path.
    pub(crate) part: Part,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { path: Path::default(), part: Part::Value, message: message.into(), help: None }
    }

    fn below(mut self, step: Step) -> Self {
        self.path.prepend(step);
        self
    }
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.message).at(fault.path);
        match fault.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", in_words(&expected.to_string()), found_in_words(&found)))
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self { help: suggest::help(word, known), ..Self::new(format!("{word:?} is not known here")) }
    }
    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        let fault = Self { help: suggest::help(key, known), ..Self::new("unknown key") };
        Self { part: Part::Key, ..fault.below(Step::Key(key.to_owned())) }
    }
    fn missing_field(key: &'static str) -> Self {
        Self::new(format!("the key `{key}` is missing"))
    }
}

/// What serde's derived code calls things, as the user knows them.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" => "a whole number from 1",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other if other.starts_with("struct ") => "a mapping",
        other if other.starts_with("enum ") || other.starts_with("variant of enum ") => "a word",
        other => other,
    };
    words.to_owned()
}

fn found_in_words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// `value` as a `T`.
pub(crate) fn from_value<'de, T: de::Deserialize<'de>>(value: &'de Value) -> Result<T, Fault> {
    T::deserialize(Node(value))
}

/// One value.
#[derive(Clone, Copy)]
struct Node<'de>(&'de Value);

/// Accepts text where the type wants a number or a boolean.
macro_rules! or_text {
    ($($method:ident => $kind:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.0.as_str().and_then(|text| text.parse::<$kind>().ok()) {
                Some(parsed) => visitor.$visit(parsed),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => visitor.visit_seq(Items { list, next: 0 }),
            Value::Object(map) => visitor.visit_map(Entries { entries: map.iter(), current: None }),
        }
    }

    or_text! {
        deserialize_bool => bool, visit_bool;
        deserialize_u8 => u64, visit_u64;
        deserialize_u16 => u64, visit_u64;
        deserialize_u32 => u64, visit_u64;
        deserialize_u64 => u64, visit_u64;
        deserialize_i8 => i64, visit_i64;
        deserialize_i16 => i64, visit_i64;
        deserialize_i32 => i64, visit_i64;
        deserialize_i64 => i64, visit_i64;
        deserialize_f32 => f64, visit_f64;
        deserialize_f64 => f64, visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.as_str() {
            Some(word) => {
                let word: StrDeserializer<'de, Fault> = word.into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            None => self.deserialize_any(visitor),
        }
    }

    /// Derived code would also take a list, field by field: nobody means that.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    list: &'de [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.list.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|fault| fault.below(Step::Index(index)))
    }
}

struct Entries<'de> {
    entries: <&'de Map<String, Value> as IntoIterator>::IntoIter,
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    /// Errors about a key know it themselves ([`de::Error::unknown_field`]).
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.current = Some((key, value));
        let key: de::value::BorrowedStrDeserializer<'de, Fault> =
            de::value::BorrowedStrDeserializer::new(key);
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.current.take() else {
            return Err(Fault::new("a value was asked for before its key"));
        };
        seed.deserialize(Node(value)).map_err(|fault| fault.below(Step::Key(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Inner {
        slots: Option<NonZeroU16>,
        keep_going: bool,
        names: Vec<String>,
        mode: Mode,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        #[default]
        Slow,
        VeryFast,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        r#use: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[test]
    fn text_may_stand_for_numbers_and_booleans() {
        let value = json!({"use": "x", "inner": [{"slots": "4", "keep-going": "true", "mode": "very-fast"}]});
        let inner =
            Inner { slots: NonZeroU16::new(4), keep_going: true, names: Vec::new(), mode: Mode::VeryFast };
        assert_eq!(from_value::<Outer>(&value), Ok(Outer { r#use: "x".into(), inner: vec![inner] }));
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        let table = [
            (json!({}), "the key `use` is missing"),
            (json!([]), "expected a mapping, found a list"),
            (json!({"use": 4}), "use: expected text, found 4"),
            (json!({"use": "x", "iner": []}), "iner: unknown key; did you mean `inner`?"),
            (
                json!({"use": "x", "inner": [{}, {"slotz": 1}]}),
                "inner[1].slotz: unknown key; did you mean `slots`?",
            ),
            (
                json!({"use": "x", "inner": [{"slots": 0}]}),
                "inner[0].slots: expected a whole number from 1, found 0",
            ),
            (
                json!({"use": "x", "inner": [{"slots": 70000}]}),
                "inner[0].slots: expected a whole number from 1, found 70000",
            ),
            (
                json!({"use": "x", "inner": [{"slots": "many"}]}),
                "inner[0].slots: expected a whole number from 1, found \"many\"",
            ),
            (
                json!({"use": "x", "inner": [{"keep-going": 1}]}),
                "inner[0].keep-going: expected true or false, found 1",
            ),
            (
                json!({"use": "x", "inner": [{"names": ["a", null]}]}),
                "inner[0].names[1]: expected text, found nothing",
            ),
            (
                json!({"use": "x", "inner": [{"mode": "very-fats"}]}),
                "inner[0].mode: \"very-fats\" is not known here; did you mean `very-fast`?",
            ),
            (json!({"use": "x", "inner": [{"mode": 1}]}), "inner[0].mode: expected a word, found 1"),
        ];
        for (value, want) in table {
            let fault = from_value::<Outer>(&value).unwrap_err();
            assert_eq!(ConfigError::from(fault).to_string(), want);
        }
    }

    #[test]
    fn only_unknown_keys_are_about_the_key() {
        assert_eq!(from_value::<Outer>(&json!({"x": 1})).unwrap_err().part, Part::Key);
        assert_eq!(from_value::<Outer>(&json!({"use": 1})).unwrap_err().part, Part::Value);
    }
}
