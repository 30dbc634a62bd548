//! Merging the keys of a child, or of a rule, into inherited data.
//!
//! The suffix of a key is its operator: `+` and `+<` extend, `-` and `-~` remove, `~` substitutes, none replaces. Keys
//! are merged in the order they are written, each acting on what the ones before it left. The semantics are python's, down to
//! `true + true` being 2.
//!
//! Mappings are changed in place, which shows wherever the same mapping is; see [`sharing`](super::sharing).

mod arithmetic;

use std::sync::Arc;

use thiserror::Error;

use self::arithmetic::{difference, sum};
use super::budget::Budget;
use super::error::{Limit, escape};
use super::regex::{self, Template};
use super::sharing::Sharing;
use super::value::{Map, Value};

/// Strings do not grow beyond this by substitution.
const MAX_TEXT: usize = 16 << 20;

/// Why a key cannot be merged.
#[derive(Debug, Error, PartialEq)]
pub enum Error {
    #[error("`{}`: a {addend} cannot be added to a {found}", escape(.key))]
    Sum { key: String, found: &'static str, addend: &'static str },

    #[error("`{}`: the integer is too large to become a float", escape(.key))]
    Overflow { key: String },

    #[error("`{}`: the item {item} has to be a mapping", escape(.key))]
    Item { key: String, item: String },

    #[error("`{}`: a {operand} cannot be removed from a {found}", escape(.key))]
    Difference { key: String, found: &'static str, operand: &'static str },

    #[error("`{}`: a {found} cannot be a key, so it cannot be removed", escape(.key))]
    Unhashable { key: String, found: &'static str },

    #[error("`{}`: patterns work on strings, lists and (to remove) mappings, not on a {found}", escape(.key))]
    Target { key: String, found: &'static str },

    #[error("`{}`: the item {item} is not a string", escape(.key))]
    NotAString { key: String, item: String },

    #[error("`{}`: a pattern has to be a string, not a {found}", escape(.key))]
    Pattern { key: String, found: &'static str },

    #[error("`{}`: {problem} in {source_text}; it is written like `/pattern/replacement/`, with any delimiter", escape(.key))]
    Substitution { key: String, source_text: String, problem: &'static str },

    #[error("`{}`: {problem}", escape(.key))]
    Template { key: String, problem: String },

    #[error("`{}`: {cause}", escape(.key))]
    Regex { key: String, cause: regex::Error },

    #[error("the key {key} is a {found}; only string keys can be merged")]
    KeyType { key: String, found: &'static str },

    #[error("{0}")]
    Limit(#[from] Limit),
}

impl Error {
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Substitution { .. } => "FormatError",
            Self::Overflow { .. } => "OverflowError",
            Self::Unhashable { .. } | Self::Pattern { .. } => "TypeError",
            Self::Regex { .. } | Self::Template { .. } => "error",
            Self::KeyType { .. } => "AttributeError",
            Self::Limit(_) => "LimitError",
            _ => "MergeError",
        }
    }
}

/// What the suffix of a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Replace,
    Append,
    Prepend,
    Remove,
    RemoveMatching,
    Substitute,
}

/// The operator of a raw key and the key it acts on.
fn split(raw: &str) -> (Operator, &str) {
    match raw.as_bytes() {
        [.., b'+'] => (Operator::Append, raw.trim_end_matches('+')),
        [.., b'+', b'<'] => (Operator::Prepend, raw.trim_end_matches(['+', '<'])),
        [.., b'-', b'~'] => (Operator::RemoveMatching, raw.trim_end_matches(['-', '~'])),
        [.., b'-'] => (Operator::Remove, raw.trim_end_matches('-')),
        [.., b'~'] => (Operator::Substitute, raw.trim_end_matches('~')),
        _ => (Operator::Replace, raw),
    }
}

/// Merges mappings, with what several merges share.
#[derive(Debug)]
pub(crate) struct Merger {
    regexes: regex::Cache,
    budget: Budget,
    pub(crate) sharing: Sharing,
    /// Whether a mapping without a label was put into data while the source still holds it.
    pub(crate) borrowed: bool,
}

impl Merger {
    pub(crate) fn new(sharing: Sharing) -> Self {
        Self { regexes: regex::Cache::default(), budget: Budget::new(), sharing, borrowed: false }
    }

    pub(crate) fn into_sharing(self) -> Sharing {
        self.sharing
    }

    /// A child's copy of its parent's data; none if the data itself will do.
    pub(crate) fn copy(&mut self, data: &Map) -> Result<Option<Map>, Limit> {
        let copy = self.sharing.copy(data)?;
        if copy.is_some() {
            self.count_copy(data.len())?;
        }
        Ok(copy)
    }

    /// Counts a copy of `map`, or a text, against the limit.
    pub(crate) fn count_copy(&mut self, entries: usize) -> Result<(), Limit> {
        self.budget.spend(entries, size_of::<(Value, Value)>())
    }

    /// Counts a text that is kept.
    pub(crate) fn count_text(&mut self, bytes: usize) -> Result<(), Limit> {
        self.budget.spend(bytes, 1)
    }

    /// Merges the keys of `source` into `data`, in their order.
    pub(crate) fn merge(&mut self, data: &mut Map, source: &Map) -> Result<(), Error> {
        self.merge_except(data, source, &[])
    }

    /// Like [`merge`](Self::merge), without the raw keys in `except`.
    pub(crate) fn merge_except(
        &mut self,
        data: &mut Map,
        source: &Map,
        except: &[&str],
    ) -> Result<(), Error> {
        self.count_copy(source.len())?;
        for (key, value) in source {
            let Some(raw) = key.as_str() else {
                return Err(Error::KeyType { key: key.repr(), found: key.type_name() });
            };
            if except.contains(&raw) {
                continue;
            }
            let (operator, target) = split(raw);
            let value = &*self.sharing.resolve(value)?;
            match (operator, data.get_mut(target)) {
                (Operator::Replace, Some(current)) => *current = self.lent(value),
                (Operator::Replace, None) => _ = data.insert(key.clone(), self.lent(value)),
                // Suffixes inside the value stay as they are.
                (Operator::Append | Operator::Prepend, None) => _ = data.insert(target, self.lent(value)),
                (Operator::Remove | Operator::RemoveMatching | Operator::Substitute, None) => {}
                (operator, Some(current)) => self.apply(operator, raw, current, value)?,
            }
        }
        Ok(())
    }

    /// A value for the data that stays in its source too.
    fn lent(&mut self, value: &Value) -> Value {
        self.borrowed = self.borrowed || is_borrowed(value);
        value.clone()
    }

    fn apply(
        &mut self,
        operator: Operator,
        raw: &str,
        current: &mut Value,
        operand: &Value,
    ) -> Result<(), Error> {
        self.budget.spend(weight(current) + weight(operand), 1)?;
        match operator {
            Operator::Replace => *current = self.lent(operand),
            Operator::Append => self.extend(raw, current, operand, false)?,
            Operator::Prepend => self.extend(raw, current, operand, true)?,
            Operator::Remove => self.remove(raw, current, operand)?,
            Operator::RemoveMatching => self.remove_matching(raw, current, operand)?,
            Operator::Substitute => self.substitute(raw, current, operand)?,
        }
        Ok(())
    }

    fn extend(
        &mut self,
        raw: &str,
        current: &mut Value,
        operand: &Value,
        prepend: bool,
    ) -> Result<(), Error> {
        match (&mut *current, operand) {
            (Value::List(items), Value::Map(addition)) => {
                // All items get the same mappings.
                self.borrowed = self.borrowed || addition.values().any(is_borrowed);
                let labelled = if items.len() > 1 { self.sharing.label_values(addition)? } else { None };
                let addition = labelled.as_ref().unwrap_or(addition);
                for item in current.as_list_mut().into_iter().flatten() {
                    if item.as_map().is_none() {
                        return Err(Error::Item { key: raw.to_owned(), item: item.repr() });
                    }
                    self.merge_into(item, addition)?;
                }
            }
            (Value::Map(base), Value::List(items)) => {
                let mut merged = Vec::with_capacity(items.len());
                for item in items.iter() {
                    let Some(addition) = item.as_map() else {
                        return Err(Error::Item { key: raw.to_owned(), item: item.repr() });
                    };
                    let base = self.sharing.current(base).clone();
                    let mut copy = Value::map(match self.copy(&base)? {
                        Some(copy) => copy.without_label(),
                        None => base.without_label(),
                    });
                    self.merge_into(&mut copy, addition)?;
                    merged.push(copy);
                }
                *current = Value::list(merged);
            }
            (Value::Map(_), Value::Map(addition)) => self.merge_into(current, addition)?,
            // In place, without a copy of a list that nobody else holds.
            (Value::List(_), Value::List(more)) if !prepend => {
                self.borrowed = self.borrowed || is_borrowed(operand);
                current.as_list_mut().into_iter().for_each(|items| items.extend_from_slice(more));
            }
            _ => {
                self.borrowed = self.borrowed || is_borrowed(operand);
                let (first, second) = if prepend { (operand, &*current) } else { (&*current, operand) };
                *current = sum(raw, first, second)?;
            }
        }
        Ok(())
    }

    fn merge_into(&mut self, target: &mut Value, addition: &Map) -> Result<(), Error> {
        self.change(target, |merger, map| merger.merge(map, addition))
    }

    /// Changes a mapping in place: wherever it is.
    fn change(
        &mut self,
        target: &mut Value,
        change: impl FnOnce(&mut Self, &mut Map) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Value::Map(map) = target else { return Ok(()) };
        self.count_copy(map.len())?;
        match map.label() {
            None => change(self, Arc::make_mut(map)),
            Some(label) => {
                let mut current = self.sharing.current(map).as_ref().clone();
                change(self, &mut current)?;
                self.sharing.change(label, current);
                Ok(())
            }
        }
    }

    fn remove(&mut self, raw: &str, current: &mut Value, operand: &Value) -> Result<(), Error> {
        match (&mut *current, operand) {
            (Value::Str(text), Value::Str(pattern)) => {
                let regex = self.regex(raw, pattern)?;
                let replaced = regex.replace(text, &Template::literal(""), MAX_TEXT);
                *current = Value::from(&*replaced.map_err(|cause| bad_regex(raw, cause))?);
            }
            (Value::List(items), Value::List(unwanted)) => {
                self.budget.spend(items.len().saturating_mul(unwanted.len()), size_of::<Value>())?;
                let unwanted = self.sharing.resolve(operand)?;
                let mut kept = Vec::with_capacity(items.len());
                for item in items.iter() {
                    if !unwanted.items().contains(&*self.sharing.resolve(item)?) {
                        kept.push(item.clone());
                    }
                }
                *current = Value::list(kept);
            }
            (Value::Map(map), Value::List(_)) if self.sharing.current(map).is_empty() => {}
            (Value::Map(_), Value::List(keys)) => {
                for key in keys.iter() {
                    if !key.is_hashable() {
                        return Err(Error::Unhashable { key: raw.to_owned(), found: key.type_name() });
                    }
                    self.change(current, |_, map| {
                        map.remove_value(key);
                        Ok(())
                    })?;
                }
            }
            (number, operand) => {
                *current = difference(raw, number, operand)?;
            }
        }
        Ok(())
    }

    fn remove_matching(&mut self, raw: &str, current: &mut Value, operand: &Value) -> Result<(), Error> {
        let is_empty = match current {
            Value::List(items) => items.is_empty(),
            Value::Map(map) => self.sharing.current(map).is_empty(),
            _ => false,
        };
        if is_empty {
            // Whatever the pattern is, nothing is compared with it.
            return Ok(());
        }
        let patterns = patterns(raw, operand)?;
        match &mut *current {
            Value::List(items) => {
                let mut kept = Vec::with_capacity(items.len());
                for item in items.iter() {
                    let resolved = self.sharing.resolve(item)?;
                    if !self.any_matches(raw, &patterns, &resolved)? {
                        kept.push(item.clone());
                    }
                }
                *current = Value::list(kept);
            }
            Value::Str(_) => {
                if self.any_matches(raw, &patterns, current)? {
                    *current = Value::from("");
                }
            }
            Value::Map(map) => {
                let mut unwanted = Vec::new();
                for key in self.sharing.current(map).clone().keys() {
                    if self.any_matches(raw, &patterns, key)? {
                        unwanted.push(key.clone());
                    }
                }
                if !unwanted.is_empty() {
                    self.change(current, |_, map| {
                        map.retain(|key, _| !unwanted.contains(key));
                        Ok(())
                    })?;
                }
            }
            other => return Err(Error::Target { key: raw.to_owned(), found: other.type_name() }),
        }
        Ok(())
    }

    fn any_matches(&mut self, raw: &str, patterns: &[&Value], item: &Value) -> Result<bool, Error> {
        let owned;
        let text = match item {
            Value::Str(text) => text.as_ref(),
            other => {
                owned = other.to_string();
                &owned
            }
        };
        for pattern in patterns {
            let regex = self.regex(raw, pattern_text(raw, pattern)?)?;
            if regex.search(text).map_err(|cause| bad_regex(raw, cause))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn substitute(&mut self, raw: &str, current: &mut Value, operand: &Value) -> Result<(), Error> {
        let patterns = patterns(raw, operand)?;
        let mut steps = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            steps.push(split_substitution(raw, pattern_text(raw, pattern)?)?);
        }
        for (pattern, replacement) in steps {
            match &mut *current {
                Value::List(items) => {
                    let mut replaced = Vec::with_capacity(items.len());
                    for item in items.iter() {
                        let Value::Str(text) = item else {
                            return Err(Error::NotAString { key: raw.to_owned(), item: item.repr() });
                        };
                        replaced.push(self.replace(raw, pattern, replacement, text)?);
                    }
                    *current = Value::list(replaced);
                }
                Value::Str(text) => *current = self.replace(raw, pattern, replacement, text)?,
                other => return Err(Error::Target { key: raw.to_owned(), found: other.type_name() }),
            }
        }
        Ok(())
    }

    fn replace(&mut self, raw: &str, pattern: &str, replacement: &str, text: &str) -> Result<Value, Error> {
        let regex = self.regex(raw, pattern)?;
        let template = Template::parse(replacement)
            .map_err(|problem| Error::Template { key: raw.to_owned(), problem })?;
        let replaced = regex.replace(text, &template, MAX_TEXT).map_err(|cause| bad_regex(raw, cause))?;
        self.count_text(replaced.len())?;
        Ok(Value::from(&*replaced))
    }

    fn regex(&mut self, raw: &str, pattern: &str) -> Result<Arc<regex::Regex>, Error> {
        self.regexes.get(pattern).map_err(|cause| bad_regex(raw, cause))
    }
}

/// Whether there is a mapping without a label in the value.
fn is_borrowed(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.label().is_none(),
        Value::List(items) => items.iter().any(is_borrowed),
        _ => false,
    }
}

fn bad_regex(raw: &str, cause: regex::Error) -> Error {
    Error::Regex { key: raw.to_owned(), cause }
}

/// About how many bytes a change of the value copies.
fn weight(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len() * size_of::<Value>(),
        Value::Map(map) => map.len() * size_of::<(Value, Value)>(),
        _ => size_of::<Value>(),
    }
}

/// One pattern, or what python gets when it iterates over several.
fn patterns<'a>(raw: &str, operand: &'a Value) -> Result<Vec<&'a Value>, Error> {
    match operand {
        Value::Str(_) => Ok(vec![operand]),
        Value::List(items) | Value::Tuple(items) => Ok(items.iter().collect()),
        Value::Map(map) | Value::Set(map) => Ok(map.keys().collect()),
        other => Err(Error::Pattern { key: raw.to_owned(), found: other.type_name() }),
    }
}

fn pattern_text<'a>(raw: &str, pattern: &'a Value) -> Result<&'a str, Error> {
    pattern.as_str().ok_or_else(|| Error::Pattern { key: raw.to_owned(), found: pattern.type_name() })
}

/// `/pattern/replacement/` with its first character as the delimiter.
fn split_substitution<'a>(raw: &str, source: &'a str) -> Result<(&'a str, &'a str), Error> {
    let bad =
        |problem| Error::Substitution { key: raw.to_owned(), source_text: format!("{source:?}"), problem };
    let delimiter = source.chars().next().ok_or_else(|| bad("nothing"))?;
    let inner = source.strip_suffix(delimiter).ok_or_else(|| bad("the last delimiter is missing"))?;
    let inner = inner.strip_prefix(delimiter).unwrap_or_default();
    let mut parts = inner.split(delimiter);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(""), Some(_), None) => Err(bad("an empty pattern")),
        (Some(pattern), Some(replacement), None) => Ok((pattern, replacement)),
        _ => Err(bad("not exactly three delimiters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmf::yaml;

    fn merged(data: &str, source: &str) -> Result<String, String> {
        let document = |text: &str| yaml::parse(text).unwrap().as_map().unwrap().clone();
        let mut data = document(data);
        let mut merger = Merger::new(Sharing::default());
        merger.merge(&mut data, &document(source)).map_err(|error| error.to_string())?;
        Ok(Value::map(data).to_string())
    }

    #[test]
    fn suffixes_are_operators() {
        for (raw, operator, target) in [
            ("x", Operator::Replace, "x"),
            ("x++", Operator::Append, "x"),
            ("x+<+<", Operator::Prepend, "x"),
            ("x<+<", Operator::Prepend, "x"),
            ("x~-~", Operator::RemoveMatching, "x"),
            ("x-+", Operator::Append, "x-"),
            ("x+-", Operator::Remove, "x+"),
            ("x+~", Operator::Substitute, "x+"),
            ("+", Operator::Append, ""),
            ("x<", Operator::Replace, "x<"),
        ] {
            assert_eq!(split(raw), (operator, target), "{raw}");
        }
    }

    #[test]
    fn operators_act_in_the_order_they_are_written() {
        assert_eq!(
            merged("l: [a, b]", "l+: [x]\nl-: [x, a]\nl+<: [first]").unwrap(),
            "{'l': ['first', 'b']}"
        );
    }

    #[test]
    fn numbers_are_those_of_python() {
        assert_eq!(
            merged("b: true\nn: 9223372036854775807", "b+: true\nn+: 1").unwrap(),
            "{'b': 2, 'n': 9223372036854775808}"
        );
        assert_eq!(merged("n: 9223372036854775808", "n-: 1").unwrap(), "{'n': 9223372036854775807}");
        let huge = "9".repeat(400);
        assert!(merged(&format!("n: {huge}"), "n+: 0.5").unwrap_err().contains("too large"));
    }

    #[test]
    fn errors_name_the_key_and_the_types() {
        for (data, source, words) in [
            ("k: [1]", "k+: x", ["`k+`", "str", "list"]),
            ("k: null", "k+: [1]", ["`k+`", "list", "NoneType"]),
            ("k: {a: 1}", "k-: {a: 1}", ["`k-`", "dict", "removed"]),
            ("k: [1, {}]", "k+: {a: 1}", ["`k+`", "item 1", "mapping"]),
            ("k: [1]", "k~: /a/b/", ["`k~`", "item 1", "string"]),
            (
                "k: x",
                "k~: /a/b",
                ["`k~`", "'/a/b'", "delimiter"].map(|w| if w == "'/a/b'" { "/a/b" } else { w }),
            ),
            ("k: x", "k~: ['(']", ["`k~`", "(", "delimiter"]),
            ("k: x", "k-: '('", ["`k-`", "regular expression", "\"(\""]),
            ("k: {a: 1}", "k-: [[a]]", ["`k-`", "list", "key"]),
            ("k: {a: 1}", "k+: {1: 2}", ["1", "int", "string keys"]),
        ] {
            let error = merged(data, source).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{source}: {error}");
        }
    }
}
