//! `SPEC`: how a plugin is named on the command line.
//!
//! `NAME`, `NAME,key=value,...`, or a whole `{use: NAME, ...}`. A value that begins with `[`, `{` or a quote is YAML (and may
//! then have commas in it); any other value goes up to the next comma and is a number or a boolean if it looks like one,
//! else text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::yaml;

/// A plugin with the keys that were given to it; `use` is always there and is text.
///
/// `Debug` shows no values: nothing says yet which are secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spec {
    /// A mapping.
    value: Value,
}

impl Spec {
    /// A mapping with all keys, `use` included.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The same, to change values in it.
    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// The same plugin with other values.
    pub(crate) fn with_value(value: Value) -> Self {
        Self { value }
    }

    fn whole(text: &str) -> Result<Self, String> {
        let value = yaml::parse(text).map_err(|error| error.message)?;
        match value.get("use") {
            Some(Value::String(_)) => Ok(Self { value }),
            _ => Err("the mapping says no plugin; write `{use: NAME, ...}`".to_owned()),
        }
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.value.as_object().into_iter().flat_map(Map::keys)).finish()
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') {
            return Self::whole(text);
        }
        let mut parts = split(text)?.into_iter();
        let name = parts.next().unwrap_or_default().trim();
        if name.is_empty() {
            return Err("no plugin is named; write NAME or NAME,key=value,...".to_owned());
        }
        if name.contains('=') {
            return Err(format!("{name:?} stands where the plugin's name belongs; write NAME,{name}"));
        }
        let mut keys = Map::new();
        keys.insert("use".to_owned(), name.into());
        for part in parts {
            let (key, value) = assignment(part)?;
            if keys.insert(key.to_owned(), value).is_some() {
                return Err(format!("the key {key:?} is given twice"));
            }
        }
        Ok(Self { value: Value::Object(keys) })
    }
}

fn assignment(part: &str) -> Result<(&str, Value), String> {
    match part.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim(), self::value(value)?)),
        _ => Err(format!("{part:?} is no key=value; a value with a comma in it needs quotes or brackets")),
    }
}

/// One value; see the module.
fn value(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Value::String(String::new()));
    }
    if text.starts_with(['[', '{', '"', '\'']) {
        return yaml::parse(text).map_err(|error| format!("the value {text:?}: {}", error.message));
    }
    match yaml::parse(text) {
        Ok(Value::Null) if matches!(text, "~" | "null") => Ok(Value::Null),
        Ok(scalar @ (Value::Bool(_) | Value::Number(_))) if !text.contains('#') => Ok(scalar),
        // Whatever else YAML makes of it (anchors, comments, mappings): here it is text.
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Splits at commas outside of quotes and brackets that begin a value.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let end = end_of_part(rest).ok_or_else(|| format!("a quote or bracket in {rest:?} is not closed"))?;
        let (part, after) = rest.split_at(end);
        parts.push(part);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(parts),
        }
    }
}

/// Where the first part of `text` ends: at a comma or at the end. `None` if something is left open.
fn end_of_part(text: &str) -> Option<usize> {
    let value_start = text.find(['=', ',']).filter(|at| text[*at..].starts_with('=')).map(|at| at + 1);
    let value = text.get(value_start.unwrap_or(0)..)?.trim_start();
    if value_start.is_none() || !value.starts_with(['[', '{', '"', '\'']) {
        return Some(text.find(',').unwrap_or(text.len()));
    }
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < text.len() - value.len()) {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.checked_sub(1)?,
            (None, ',') if depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && quote.is_none()).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn keys(text: &str) -> Result<Value, String> {
        text.parse::<Spec>().map(|spec| spec.value)
    }

    #[test]
    fn all_three_forms() {
        let table = [
            ("local", json!({"use": "local"})),
            ("local,max=4", json!({"use": "local", "max": 4})),
            ("ssh,hosts=[a,b],max=2", json!({"use": "ssh", "hosts": ["a", "b"], "max": 2})),
            (
                "ssh,hosts=['a,b', \"c]\"],x=\"d,\\\"e\"",
                json!({"use": "ssh", "hosts": ["a,b", "c]"], "x": "d,\"e"}),
            ),
            (
                "podman,image=quay.io/a/b:1.2,pull=true",
                json!({"use": "podman", "image": "quay.io/a/b:1.2", "pull": true}),
            ),
            (
                "a,b=,c=x=y,d=*z,e=[1],f=!t,g=a: b,h= #c",
                json!({"use": "a", "b": "", "c": "x=y", "d": "*z", "e": [1], "f": "!t", "g": "a: b", "h": "#c"}),
            ),
            ("a,re=^x[0-9]{2}$,q=it's", json!({"use": "a", "re": "^x[0-9]{2}$", "q": "it's"})),
            ("a,host={slots: 2, isolate: true}", json!({"use": "a", "host": {"slots": 2, "isolate": true}})),
            ("{use: ssh, hosts: [a]}", json!({"use": "ssh", "hosts": ["a"]})),
            ("a,b=#,c=4 #d,e=~,f=---", json!({"use": "a", "b": "#", "c": "4 #d", "e": null, "f": "---"})),
            ("a,version=010", json!({"use": "a", "version": "010"})),
        ];
        for (text, want) in table {
            assert_eq!(keys(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn wrong_ones_say_what_is_wrong() {
        let table = [
            ("", "no plugin is named; write NAME or NAME,key=value,..."),
            ("max=4", "\"max=4\" stands where the plugin's name belongs; write NAME,max=4"),
            ("local,max", "\"max\" is no key=value; a value with a comma in it needs quotes or brackets"),
            ("local,max=4,max=5", "the key \"max\" is given twice"),
            ("local,use=x", "the key \"use\" is given twice"),
            ("local,", "\"\" is no key=value; a value with a comma in it needs quotes or brackets"),
            ("ssh,hosts=[a,b", "a quote or bracket in \"hosts=[a,b\" is not closed"),
            ("{max: 4}", "the mapping says no plugin; write `{use: NAME, ...}`"),
            ("{use: a", "did not find expected ',' or '}'"),
        ];
        for (text, want) in table {
            assert_eq!(keys(text).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let spec: Spec = "ssh,password=hunter2".parse().unwrap();
        assert_eq!(format!("{spec:?}"), r#"{"use", "password"}"#);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a,=\\[\\]{}'\"\\\\ é:1]{0,30}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert!(spec.value.get("use").is_some_and(Value::is_string));
            }
        }
    }
}
