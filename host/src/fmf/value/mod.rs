//! The values that FMF documents hold.
//!
//! [`Value`] is what a YAML document resolves to, with the types and the rules of the language the reference
//! implementation is written in: `1`, `1.0` and `true` are equal, integers have no limit, mappings keep the order
//! their keys were written in. Filters match on the text of a value and `-` removes equal items, so these rules
//! decide which tests are selected.
//!
//! Strings, lists and mappings are shared and copied on write: a test that inherits thirty keys from its parent holds
//! thirty pointers, so a clone costs a reference count, not a copy. Two clones never see each other's changes.
//!
//! Not here: resolving scalars of YAML ([`yaml`](super::yaml)), merging ([`merge`](super::merge)).

mod encode;
mod map;
mod python;
mod temporal;

use std::sync::Arc;

use num_bigint::BigInt;

pub use self::encode::{Keys, write_string};
pub(crate) use self::map::KnownKeys;
pub use self::map::Map;
pub use self::temporal::{Date, DateTime};

/// One value of a document. Equality and hashing are those of python: see the module's head.
#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that does not fit into `Int`; never one that does.
    BigInt(Arc<BigInt>),
    Float(f64),
    Str(Arc<str>),
    Date(Date),
    DateTime(Arc<DateTime>),
    /// `!!binary`
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>),
    /// A sequence used as a key, or an item of `!!pairs`.
    Tuple(Arc<Vec<Value>>),
    Map(Arc<Map>),
    /// `!!set`: the members are the keys.
    Set(Arc<Map>),
}

impl Value {
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(items))
    }

    pub fn map(map: Map) -> Self {
        Self::Map(Arc::new(map))
    }

    /// An integer in its smallest form.
    pub fn integer(number: BigInt) -> Self {
        i64::try_from(&number).map_or_else(|_| Self::BigInt(Arc::new(number)), Self::Int)
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The integer, if it is one (not a boolean) and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list to change; it is copied first if somebody else holds it too.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Self>> {
        match self {
            Self::List(items) => Some(Arc::make_mut(items)),
            _ => None,
        }
    }

    /// The mapping to change; it is copied first (its keys and values are not) if somebody else holds it too.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(Arc::make_mut(map)),
            _ => None,
        }
    }

    /// The value under `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The items of a list; any other value as the only item, null as none. Many keys take "one or several".
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Null => &[],
            Self::List(items) => items,
            other => std::slice::from_ref(other),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Self>) -> Self {
        Self::list(items)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::map(map)
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::integer(value.into()),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::from(text.as_str()),
            serde_json::Value::Array(items) => Self::list(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(object) => Self::map(
                object.iter().map(|(key, value)| (Self::from(key.as_str()), Self::from(value))).collect(),
            ),
        }
    }
}
