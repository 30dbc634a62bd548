//! Values as JSON.
//!
//! Two forms. *Plain* ([`Value::to_json`], [`serde::Serialize`]) is for people's scripts: keys become strings, dates
//! and bytes text, numbers that JSON does not have strings. *Typed* ([`Value::write_typed`]) loses nothing: what JSON
//! cannot say is an object with one key that starts with a dollar, and a dollar that starts a key of the data is
//! doubled. It is written straight into a buffer, in ASCII, integers of any size included.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Map, Value};

/// The order in which [`Value::write_typed`] writes the keys of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// By code point.
    Sorted,
    /// As the mapping has them.
    AsIs,
}

impl Value {
    /// The plain form.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Appends the typed form to `out`.
    pub fn write_typed(&self, out: &mut String, keys: Keys) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Int(_) | Self::BigInt(_) => {
                let _ = write!(out, "{self}");
            }
            Self::Float(number) if number.is_finite() => out.push_str(&super::python::float_repr(*number)),
            Self::Float(number) => write_tagged(out, "$float", &super::python::float_repr(*number)),
            Self::Str(text) => write_string(out, text),
            Self::Date(date) => write_tagged(out, "$date", &date.to_string()),
            Self::DateTime(time) => write_tagged(out, "$datetime", &time.iso('T')),
            Self::Bytes(bytes) => write_tagged(out, "$bytes", &base64(bytes)),
            Self::List(items) => write_items(out, items.iter(), keys),
            Self::Tuple(items) => {
                out.push_str("{\"$tuple\": ");
                write_items(out, items.iter(), keys);
                out.push('}');
            }
            Self::Map(map) => write_map(out, map, keys),
            Self::Set(map) => {
                let mut members: Vec<String> = map.keys().map(|key| typed(key, keys)).collect();
                members.sort_unstable();
                let _ = write!(out, "{{\"$set\": [{}]}}", members.join(", "));
            }
        }
    }
}

impl Map {
    /// Appends the typed form to `out`.
    pub fn write_typed(&self, out: &mut String, keys: Keys) {
        write_map(out, self, keys);
    }
}

fn typed(value: &Value, keys: Keys) -> String {
    let mut text = String::new();
    value.write_typed(&mut text, keys);
    text
}

fn write_tagged(out: &mut String, tag: &str, text: &str) {
    let _ = write!(out, "{{\"{tag}\": ");
    write_string(out, text);
    out.push('}');
}

fn write_items<'a>(out: &mut String, items: impl Iterator<Item = &'a Value>, keys: Keys) {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        item.write_typed(out, keys);
    }
    out.push(']');
}

fn write_map(out: &mut String, map: &Map, keys: Keys) {
    let strings: Option<Vec<(&str, &Value)>> =
        map.iter().map(|(key, value)| key.as_str().map(|key| (key, value))).collect();
    let Some(mut entries) = strings else { return write_pairs(out, map, keys) };
    if keys == Keys::Sorted {
        entries.sort_unstable_by_key(|(key, _)| *key);
    }
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push('"');
        if key.starts_with('$') {
            out.push('$');
        }
        write_escaped(out, key);
        out.push_str("\": ");
        value.write_typed(out, keys);
    }
    out.push('}');
}

/// A mapping with keys that are not strings: a list of pairs.
fn write_pairs(out: &mut String, map: &Map, keys: Keys) {
    let mut pairs: Vec<(String, String)> =
        map.iter().map(|(key, value)| (typed(key, keys), typed(value, keys))).collect();
    if keys == Keys::Sorted {
        pairs.sort();
    }
    out.push_str("{\"$map\": [");
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}[{key}, {value}]");
    }
    out.push_str("]}");
}

/// Appends `text` as a JSON string in ASCII.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    write_escaped(out, text);
    out.push('"');
}

fn write_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| (group << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position)) & 0x3f;
            text.push(if position <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// The plain form.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_str(&base64(bytes)),
            Self::DateTime(time) => serializer.serialize_str(&time.iso('T')),
            Self::BigInt(_) | Self::Float(_) | Self::Date(_) => serializer.serialize_str(&self.to_string()),
            Self::List(items) | Self::Tuple(items) => serialize_items(items.iter(), serializer),
            Self::Set(map) => serialize_items(map.keys(), serializer),
            Self::Map(map) => map.serialize(serializer),
        }
    }
}

fn serialize_items<'a, S: Serializer>(
    items: impl Iterator<Item = &'a Value>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(items.size_hint().1)?;
    for item in items {
        sequence.serialize_element(item)?;
    }
    sequence.end()
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self {
            match key.as_str() {
                Some(key) => entries.serialize_entry(key, value)?,
                None => entries.serialize_entry(&key.to_string(), value)?,
            }
        }
        entries.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_form_keeps_what_json_cannot_say() {
        let mut map = Map::new();
        map.insert("$k", Value::Float(1.0));
        map.insert("b", Value::Bytes(b"hello".as_slice().into()));
        map.insert("a", Value::Float(f64::INFINITY));
        let mut odd = Map::new();
        odd.insert(Value::Int(1), Value::Null);
        map.insert("m", Value::map(odd));
        assert_eq!(
            typed(&Value::map(map.clone()), Keys::Sorted),
            r#"{"$$k": 1.0, "a": {"$float": "inf"}, "b": {"$bytes": "aGVsbG8="}, "m": {"$map": [[1, null]]}}"#
        );
        assert!(typed(&Value::map(map), Keys::AsIs).starts_with(r#"{"$$k": 1.0, "b""#));
    }

    #[test]
    fn text_is_ascii_with_surrogate_pairs() {
        assert_eq!(typed(&Value::from("é😀\u{7f}\"\\"), Keys::Sorted), r#""\u00e9\ud83d\ude00\u007f\"\\""#);
    }

    #[test]
    fn plain_form_makes_strings_of_the_rest() {
        let mut map = Map::new();
        map.insert(Value::Null, Value::Date(super::super::Date::new(2024, 2, 29).unwrap()));
        map.insert("n", Value::Float(f64::NAN));
        assert_eq!(Value::map(map).to_json().to_string(), r#"{"None":"2024-02-29","n":"nan"}"#);
    }
}
