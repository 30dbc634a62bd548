//! What python says about values: text, truth, equality, order, names of types.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use indexmap::Equivalent;
use num_bigint::BigInt;

use super::{Map, Value};

impl Value {
    /// `bool(value)`
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.is_empty(),
            Self::Map(map) | Self::Set(map) => !map.is_empty(),
            Self::BigInt(_) | Self::Date(_) | Self::DateTime(_) => true,
        }
    }

    /// `type(value).__name__`
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::BigInt(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Date(_) => "date",
            Self::DateTime(_) => "datetime",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Map(_) => "dict",
            Self::Set(_) => "set",
        }
    }

    /// `repr(value)`: strings in quotes.
    pub fn repr(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = write_repr(&mut text, self);
        text
    }

    /// Whether a mapping can have it as a key.
    pub fn is_hashable(&self) -> bool {
        match self {
            Self::List(_) | Self::Map(_) | Self::Set(_) => false,
            Self::Tuple(items) => items.iter().all(Self::is_hashable),
            _ => true,
        }
    }

    /// `self < other` and its kin; none where python raises a `TypeError` (or a NaN takes part).
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => Some(a.as_ref().cmp(b.as_ref())),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Date(a), Self::Date(b)) => Some(a.cmp(b)),
            (Self::DateTime(a), Self::DateTime(b)) => a.order(b),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => order_of_items(a, b),
            _ => order_of_numbers(self, other),
        }
    }

    /// The number as an integer, booleans included.
    pub(crate) fn to_integer(&self) -> Option<BigInt> {
        match self {
            Self::Bool(value) => Some(i64::from(*value).into()),
            Self::Int(value) => Some((*value).into()),
            Self::BigInt(value) => Some(value.as_ref().clone()),
            _ => None,
        }
    }

    /// The number as a float, booleans included; an integer out of range is infinite.
    pub(crate) fn to_float(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Int(value) => Some(*value as f64),
            Self::BigInt(value) => Some(big_to_float(value)),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }
}

fn big_to_float(value: &BigInt) -> f64 {
    // Through decimal text: correctly rounded, and integers this long are rare.
    value.to_string().parse().unwrap_or(f64::NAN)
}

fn order_of_items(a: &[Value], b: &[Value]) -> Option<Ordering> {
    for (a, b) in a.iter().zip(b) {
        if a != b {
            return a.order(b);
        }
    }
    Some(a.len().cmp(&b.len()))
}

fn order_of_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (a.to_integer(), b.to_integer()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => order_of_mixed(&a, b.to_float()?),
        (None, Some(b)) => order_of_mixed(&b, a.to_float()?).map(Ordering::reverse),
        (None, None) => a.to_float()?.partial_cmp(&b.to_float()?),
    }
}

/// Exact, also where the integer has more digits than a float.
fn order_of_mixed(a: &BigInt, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b.is_infinite() {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = format!("{:.0}", b.trunc()).parse::<BigInt>().ok()?;
    Some(a.cmp(&whole).then_with(|| 0.0.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)))
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Date(a), Self::Date(b)) => a == b,
            (Self::DateTime(a), Self::DateTime(b)) => a.order(b) == Some(Ordering::Equal),
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Set(a), Self::Set(b)) => {
                a.len() == b.len() && a.keys().all(|key| b.get_value(key).is_some())
            }
            _ => order_of_numbers(self, other) == Some(Ordering::Equal),
        }
    }
}

/// A NaN is not equal to itself; as a key it is only ever not found.
impl Eq for Value {}

/// Equal values hash alike: numbers by their value as a float, strings as `str` does (so that a key can be looked up
/// without making a [`Value`] of it).
impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Str(text) => text.as_ref().hash(state),
            Self::Bool(_) | Self::Int(_) | Self::BigInt(_) | Self::Float(_) => {
                let float = self.to_float().unwrap_or(f64::NAN);
                // 0.0 and -0.0 are equal.
                state.write_u64((float + 0.0).to_bits());
            }
            Self::Date(date) => date.hash(state),
            Self::DateTime(time) => time.instant().hash(state),
            Self::Bytes(bytes) => bytes.hash(state),
            Self::Tuple(items) => items.hash(state),
            Self::Null => state.write_u8(1),
            Self::List(_) | Self::Map(_) | Self::Set(_) => state.write_u8(2),
        }
    }
}

impl Equivalent<Value> for str {
    fn equivalent(&self, key: &Value) -> bool {
        key.as_str() == Some(self)
    }
}

/// `str(value)`
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Date(date) => date.fmt(f),
            Self::DateTime(time) => time.fmt(f),
            other => write_repr(f, other),
        }
    }
}

fn write_repr(out: &mut impl fmt::Write, value: &Value) -> fmt::Result {
    match value {
        Value::Null => out.write_str("None"),
        Value::Bool(true) => out.write_str("True"),
        Value::Bool(false) => out.write_str("False"),
        Value::Int(number) => write!(out, "{number}"),
        Value::BigInt(number) => write!(out, "{number}"),
        Value::Float(number) => out.write_str(&float_repr(*number)),
        Value::Str(text) => write_quoted(out, text),
        Value::Date(date) => out.write_str(&date.repr()),
        Value::DateTime(time) => out.write_str(&time.repr()),
        Value::Bytes(bytes) => write_bytes(out, bytes),
        Value::List(items) => write_items(out, '[', items.iter(), ']'),
        Value::Tuple(items) if items.len() == 1 => {
            out.write_char('(')?;
            write_repr(out, &items[0])?;
            out.write_str(",)")
        }
        Value::Tuple(items) => write_items(out, '(', items.iter(), ')'),
        Value::Map(map) => write_map(out, map),
        Value::Set(map) if map.is_empty() => out.write_str("set()"),
        Value::Set(map) => write_items(out, '{', map.keys(), '}'),
    }
}

fn write_items<'a>(
    out: &mut impl fmt::Write,
    open: char,
    items: impl IntoIterator<Item = &'a Value>,
    close: char,
) -> fmt::Result {
    out.write_char(open)?;
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        write_repr(out, item)?;
    }
    out.write_char(close)
}

fn write_map(out: &mut impl fmt::Write, map: &Map) -> fmt::Result {
    out.write_char('{')?;
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        write_repr(out, key)?;
        out.write_str(": ")?;
        write_repr(out, value)?;
    }
    out.write_char('}')
}

/// Single quotes unless there are only single ones inside; what cannot be seen is escaped.
fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if is_printable(c) => out.write_char(c)?,
            c => match u32::from(c) {
                code @ ..=0xff => write!(out, "\\x{code:02x}")?,
                code @ ..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
        }
    }
    out.write_char(quote)
}

/// Control and format characters, separators but the blank, surrogates and private use are not. Characters that no
/// table here knows (unassigned ones) count as printable.
fn is_printable(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..);
    c == ' ' || !(hidden || c.is_control() || c.is_whitespace())
}

fn write_bytes(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    write!(out, "b{quote}")?;
    for &byte in bytes {
        match char::from(byte) {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c @ ' '..='~' => out.write_char(c)?,
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    out.write_char(quote)
}

/// The shortest digits that give the number back; exponents below -4 and from 16 up.
pub(super) fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let mut text = format!("{number}");
    if !text.contains('.') {
        let _ = write!(text, ".0");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::from(&serde_json::from_str::<serde_json::Value>(json).unwrap())
    }

    #[test]
    fn numbers_are_equal_and_hash_alike_whatever_their_type() {
        let mut map = Map::new();
        map.insert(Value::Int(1), Value::from("one"));
        for key in [Value::Bool(true), Value::Float(1.0), Value::Int(1)] {
            assert_eq!(map.get_value(&key), Some(&Value::from("one")), "{key:?}");
        }
        assert_eq!(map.get_value(&Value::from("1")), None);
        assert_ne!(Value::Int(i64::MAX), Value::Float(i64::MAX as f64));
        assert_ne!(Value::Float(f64::NAN), Value::Float(f64::NAN));
    }

    #[test]
    fn text_is_that_of_python() {
        let list = value(r#"[1, true, null, 1.0, "it's", "\n\u0000é", {"a": [2.5]}]"#);
        assert_eq!(list.to_string(), r#"[1, True, None, 1.0, "it's", '\n\x00é', {'a': [2.5]}]"#);
        assert_eq!(value(r#""x""#).to_string(), "x");
        for (number, text) in [
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
        ] {
            assert_eq!(float_repr(number), text);
        }
    }

    #[test]
    fn order_is_exact_and_only_between_comparable_types() {
        assert_eq!(Value::Int(2).order(&Value::Float(2.5)), Some(Ordering::Less));
        assert_eq!(Value::Float(-2.5).order(&Value::Int(-2)), Some(Ordering::Less));
        assert_eq!(Value::Bool(true).order(&Value::Int(1)), Some(Ordering::Equal));
        assert_eq!(Value::from("a").order(&Value::Int(1)), None);
        assert_eq!(value(r#"[1, "a"]"#).order(&value("[1]")), Some(Ordering::Greater));
        assert_eq!(Value::Null.order(&Value::Null), None);
    }
}
