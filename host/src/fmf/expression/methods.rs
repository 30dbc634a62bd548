//! The methods of texts, lists and mappings that an expression may call: those that only look.

use super::super::value::{Map, Value};
use super::ast::Expr;
use super::eval::{Machine, check_hashable, set_of};
use super::{Outcome, raised, type_error, unsupported};

/// Whether it gives a view of a mapping. Views are only iterated over: they have no value here.
pub(super) fn is_view(name: &str) -> bool {
    matches!(name, "keys" | "values" | "items")
}

/// The mapping that `object.name(arguments)` is a view of.
pub(super) fn check_view<'v>(at: u32, object: &'v Value, name: &str, arguments: &[Expr]) -> Outcome<&'v Map> {
    match object {
        Value::Map(_) if !arguments.is_empty() => {
            type_error(at, format!("dict.{name}() takes no arguments ({} given)", arguments.len()))
        }
        Value::Map(map) => Ok(map),
        other => no_attribute(at, other, name),
    }
}

fn no_attribute<T>(at: u32, object: &Value, name: &str) -> Outcome<T> {
    raised(at, "AttributeError", format!("'{}' object has no attribute '{name}'", object.type_name()))
}

/// Methods that python has and that are not here: they change the object, or need what expressions do not have.
const ABSENT: [(&str, &[&str]); 6] = [
    (
        "str",
        &[
            "center",
            "encode",
            "expandtabs",
            "format",
            "format_map",
            "isascii",
            "isdecimal",
            "isidentifier",
            "isprintable",
            "istitle",
            "ljust",
            "maketrans",
            "rindex",
            "rjust",
            "rsplit",
            "swapcase",
            "translate",
            "zfill",
        ],
    ),
    ("list", &["append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort"]),
    ("dict", &["clear", "copy", "fromkeys", "pop", "popitem", "setdefault", "update"]),
    (
        "set",
        &[
            "add",
            "clear",
            "copy",
            "difference_update",
            "discard",
            "intersection_update",
            "pop",
            "remove",
            "symmetric_difference",
            "symmetric_difference_update",
            "update",
        ],
    ),
    (
        "int",
        &["as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "is_integer", "to_bytes"],
    ),
    ("float", &["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"]),
];

pub(super) fn call(
    machine: &mut Machine<'_>,
    at: u32,
    receiver: &Value,
    name: &str,
    arguments: &[Expr],
) -> Outcome<Value> {
    if let (Value::Str(text), "join", [items]) = (receiver, name, arguments) {
        return join(machine, at, text, items);
    }
    if let Value::Set(members) = receiver
        && let Some(result) = set_method(machine, at, members, name, arguments)
    {
        return result;
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(machine.value(argument)?);
    }
    let result = match receiver {
        Value::Str(text) => str_method(machine, at, text, name, &values)?,
        Value::List(items) | Value::Tuple(items) => list_method(at, items, name, &values)?,
        Value::Map(map) => dict_method(at, map, name, &values)?,
        _ => None,
    };
    result.map_or_else(|| refuse(at, receiver, name, values.len()), Ok)
}

fn refuse(at: u32, receiver: &Value, name: &str, arguments: usize) -> Outcome<Value> {
    let class = receiver.type_name();
    // A boolean is an integer, a tuple has less than a list.
    let known = if class == "bool" { "int" } else { class };
    let absent = ABSENT.iter().find(|(class, _)| *class == known).map_or(&[] as &[&str], |(_, names)| names);
    if absent.contains(&name) || name.starts_with("__") {
        return unsupported(at, format!("the method `{name}()` of a '{class}'"));
    }
    let here: &[&str] = match receiver {
        Value::Str(_) => &STR_METHODS,
        Value::List(_) | Value::Tuple(_) => &["count", "index"],
        Value::Map(_) => &["get"],
        Value::Set(_) => &["union", "intersection", "difference", "issubset", "issuperset", "isdisjoint"],
        Value::Date(_) | Value::DateTime(_) | Value::Bytes(_) => {
            return unsupported(at, format!("the method `{name}()` of a '{class}'"));
        }
        _ => &[],
    };
    if here.contains(&name) {
        return unsupported(at, format!("`{name}()` with {arguments} arguments of these types"));
    }
    no_attribute(at, receiver, name)
}

const STR_METHODS: [&str; 29] = [
    "startswith",
    "endswith",
    "lower",
    "upper",
    "casefold",
    "capitalize",
    "title",
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "splitlines",
    "join",
    "replace",
    "find",
    "rfind",
    "index",
    "count",
    "partition",
    "rpartition",
    "removeprefix",
    "removesuffix",
    "isdigit",
    "isnumeric",
    "isalpha",
    "isalnum",
    "isspace",
    "islower",
    "isupper",
];

fn str_method(
    machine: &mut Machine<'_>,
    at: u32,
    text: &str,
    name: &str,
    arguments: &[Value],
) -> Outcome<Option<Value>> {
    let strings: Option<Vec<&str>> = arguments.iter().map(Value::as_str).collect();
    let result = match (name, strings.as_deref()) {
        ("startswith" | "endswith", _) => return affix(at, text, name, arguments),
        ("lower", Some([])) => text.to_lowercase(),
        ("casefold", Some([])) if text.is_ascii() => text.to_lowercase(),
        ("upper", Some([])) => text.to_uppercase(),
        ("capitalize", Some([])) => capitalized(text),
        ("title", Some([])) if text.is_ascii() => titled(text),
        ("strip", Some([])) => text.trim_matches(is_space).to_owned(),
        ("lstrip", Some([])) => text.trim_start_matches(is_space).to_owned(),
        ("rstrip", Some([])) => text.trim_end_matches(is_space).to_owned(),
        ("strip", Some([set])) => text.trim_matches(|c| set.contains(c)).to_owned(),
        ("lstrip", Some([set])) => text.trim_start_matches(|c| set.contains(c)).to_owned(),
        ("rstrip", Some([set])) => text.trim_end_matches(|c| set.contains(c)).to_owned(),
        ("removeprefix", Some([affix])) => text.strip_prefix(affix).unwrap_or(text).to_owned(),
        ("removesuffix", Some([affix])) => text.strip_suffix(affix).unwrap_or(text).to_owned(),
        ("replace", Some([from, to])) => {
            let count = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
            machine.reserve(at, count.saturating_mul(to.len()))?;
            text.replace(from, to)
        }
        ("split", _) => return split(machine, at, text, arguments),
        _ => return str_question(at, text, name, strings.as_deref()),
    };
    machine.text(at, result).map(Some)
}

/// Methods whose answer is no text.
fn str_question(at: u32, text: &str, name: &str, arguments: Option<&[&str]>) -> Outcome<Option<Value>> {
    let position = |byte: Option<usize>| byte.map_or(-1, |byte| text[..byte].chars().count() as i64);
    let every = |test: fn(char) -> bool| Value::Bool(!text.is_empty() && text.chars().all(test));
    let parts = |parts: [&str; 3]| Value::Tuple(parts.map(Value::from).to_vec().into());
    Ok(Some(match (name, arguments) {
        ("find", Some([part])) => Value::Int(position(text.find(part))),
        ("rfind", Some([part])) => Value::Int(position(text.rfind(part))),
        ("index", Some([part])) => match text.find(part) {
            Some(byte) => Value::Int(position(Some(byte))),
            None => return raised(at, "ValueError", "substring not found"),
        },
        ("count", Some([""])) => Value::Int(text.chars().count() as i64 + 1),
        ("count", Some([part])) => Value::Int(text.matches(part).count() as i64),
        ("partition" | "rpartition", Some([""])) => return raised(at, "ValueError", "empty separator"),
        ("partition", Some([separator])) => match text.split_once(separator) {
            Some((before, after)) => parts([before, separator, after]),
            None => parts([text, "", ""]),
        },
        ("rpartition", Some([separator])) => match text.rsplit_once(separator) {
            Some((before, after)) => parts([before, separator, after]),
            None => parts(["", "", text]),
        },
        ("splitlines", Some([])) => Value::list(lines(text).into_iter().map(Value::from).collect()),
        ("isdigit" | "isnumeric", Some([])) if text.is_ascii() => every(|c| c.is_ascii_digit()),
        ("isalpha", Some([])) => every(char::is_alphabetic),
        ("isalnum", Some([])) if text.is_ascii() => every(|c| c.is_ascii_alphanumeric()),
        ("isspace", Some([])) => every(is_space),
        ("islower", Some([])) => cased(text, char::is_lowercase, char::is_uppercase),
        ("isupper", Some([])) => cased(text, char::is_uppercase, char::is_lowercase),
        _ => return Ok(None),
    }))
}

/// At least one character of the case, none of the other.
fn cased(text: &str, case: fn(char) -> bool, other: fn(char) -> bool) -> Value {
    Value::Bool(text.chars().any(case) && !text.chars().any(other))
}

/// Python takes four separators of information for blanks too.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters.flat_map(char::to_lowercase)).collect()
    })
}

fn titled(text: &str) -> String {
    let mut inside = false;
    let mut titled = |c: char| {
        let shown = if inside { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
        inside = c.is_ascii_alphabetic();
        shown
    };
    text.chars().map(&mut titled).collect()
}

fn lines(text: &str) -> Vec<String> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let text = text.replace("\r\n", "\n");
    let mut lines: Vec<String> = text.split(is_end).map(str::to_owned).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// One affix or a tuple of them.
fn affix(at: u32, text: &str, name: &str, arguments: &[Value]) -> Outcome<Option<Value>> {
    let [argument] = arguments else { return Ok(None) };
    let affixes = match argument {
        Value::Str(_) => std::slice::from_ref(argument),
        Value::Tuple(affixes) => affixes.as_slice(),
        other => {
            let class = other.type_name();
            return type_error(at, format!("{name} first arg must be str or a tuple of str, not {class}"));
        }
    };
    for affix in affixes {
        let Some(affix) = affix.as_str() else {
            let class = affix.type_name();
            return type_error(at, format!("tuple for {name} must only contain str, not {class}"));
        };
        if if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) } {
            return Ok(Some(Value::Bool(true)));
        }
    }
    Ok(Some(Value::Bool(false)))
}

fn split(machine: &mut Machine<'_>, at: u32, text: &str, arguments: &[Value]) -> Outcome<Option<Value>> {
    let (separator, most) = match arguments {
        [] | [Value::Null] => (None, -1),
        [Value::Str(separator)] => (Some(&**separator), -1),
        [Value::Null, Value::Int(most)] => (None, *most),
        [Value::Str(separator), Value::Int(most)] => (Some(&**separator), *most),
        [other] => {
            return type_error(at, format!("must be str or None, not {}", other.type_name()));
        }
        _ => return Ok(None),
    };
    let most = usize::try_from(most).ok();
    let parts: Vec<Value> = match (separator, most) {
        (Some(""), _) => return raised(at, "ValueError", "empty separator"),
        (Some(separator), None) => text.split(separator).map(Value::from).collect(),
        (Some(separator), Some(most)) => {
            text.splitn(most.saturating_add(1), separator).map(Value::from).collect()
        }
        (None, None) => text.split(is_space).filter(|part| !part.is_empty()).map(Value::from).collect(),
        (None, Some(most)) => split_at_blanks(text, most),
    };
    machine.reserve(at, text.len())?;
    machine.items(at, parts).map(Some)
}

/// At most `most` splits; the last part keeps its inner blanks.
fn split_at_blanks(text: &str, most: usize) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(Value::from(rest));
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(Value::from(&rest[..end]));
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

fn join(machine: &mut Machine<'_>, at: u32, separator: &str, items: &Expr) -> Outcome<Value> {
    let mut text = String::new();
    for (index, item) in machine.collect(items)?.iter().enumerate() {
        let Some(item) = item.as_str() else {
            let class = item.type_name();
            return type_error(at, format!("sequence item {index}: expected str instance, {class} found"));
        };
        if index > 0 {
            text.push_str(separator);
        }
        machine.reserve(at, separator.len() + item.len())?;
        text.push_str(item);
    }
    Ok(Value::from(text))
}

fn list_method(at: u32, items: &[Value], name: &str, arguments: &[Value]) -> Outcome<Option<Value>> {
    match (name, arguments) {
        ("count", [wanted]) => {
            Ok(Some(Value::Int(items.iter().filter(|item| *item == wanted).count() as i64)))
        }
        ("index", [wanted]) => match items.iter().position(|item| item == wanted) {
            Some(position) => Ok(Some(Value::Int(position as i64))),
            None => raised(at, "ValueError", format!("{} is not in list", wanted.repr())),
        },
        _ => Ok(None),
    }
}

fn dict_method(at: u32, map: &Map, name: &str, arguments: &[Value]) -> Outcome<Option<Value>> {
    let (key, default) = match (name, arguments) {
        ("get", [key]) => (key, &Value::Null),
        ("get", [key, default]) => (key, default),
        _ => return Ok(None),
    };
    check_hashable(at, key)?;
    Ok(Some(map.get_value(key).unwrap_or(default).clone()))
}

fn set_method(
    machine: &mut Machine<'_>,
    at: u32,
    members: &Map,
    name: &str,
    arguments: &[Expr],
) -> Option<Outcome<Value>> {
    let [argument] = arguments else { return None };
    if !matches!(name, "union" | "intersection" | "difference" | "issubset" | "issuperset" | "isdisjoint") {
        return None;
    }
    let other = machine.collect(argument).and_then(|items| set_of(at, items));
    Some(other.and_then(|other| {
        let empty = Map::new();
        let other = if let Value::Set(other) = &other { other } else { &empty };
        let within = |a: &Map, b: &Map| a.keys().all(|key| b.get_value(key).is_some());
        let kept = |shared: bool| {
            members.keys().filter(|key| other.get_value(key).is_some() == shared).cloned().collect::<Vec<_>>()
        };
        match name {
            "issubset" => Ok(Value::Bool(within(members, other))),
            "issuperset" => Ok(Value::Bool(within(other, members))),
            "isdisjoint" => Ok(Value::Bool(kept(true).is_empty())),
            "intersection" => set_of(at, kept(true)),
            "difference" => set_of(at, kept(false)),
            _ => set_of(at, members.keys().chain(other.keys()).cloned().collect()),
        }
    }))
}
