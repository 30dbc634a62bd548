//! What a test of `tests/executor` must leave, as its own metadata says it (`extra-expect`), compared with what it left.
//!
//! Used by the executor's tests, which know more of a run than its artifacts show, and by `cargo xtask executor`, which looks at
//! a run directory. The keys are described in `tests/executor/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

/// What is known of one execution.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Its artifacts: `results` and `files/`.
    pub directory: &'a Path,
    pub status: &'a str,
    pub note: Option<&'a str>,
    /// What only the executor's reports tell.
    pub reported: Option<Reported>,
}

/// See [`Outcome::reported`].
#[derive(Debug)]
pub struct Reported {
    /// `exited N`, or the host's reason for the end.
    pub ended: String,
    /// What the test remembered of the machine.
    pub labels: BTreeMap<String, String>,
}

/// What is wrong, if anything.
pub fn check(expected: &Value, outcome: &Outcome<'_>) -> Result<(), String> {
    let expected = expected.as_object().ok_or("`extra-expect` is no mapping")?;
    let lines = read_lines(outcome.directory)?;
    let whole = !expected.contains_key("ended") || is_exit(&expected["ended"]);
    files_are_named(outcome.directory, &lines, whole)?;
    for (key, value) in expected {
        let checked = match key.as_str() {
            "ended" => ended(value, outcome.reported.as_ref()),
            "status" => same("status", &Value::from(outcome.status), value),
            "note" => has_note(value, outcome.note),
            "log" => content(outcome.directory, "output.txt", value),
            "count" => same("number of results", &lines.len().into(), value),
            "results" => same("results", &Value::Array(lines.clone()), value),
            "files" => of_each(value, |name, value| content(outcome.directory, name, value)),
            "sizes" => of_each(value, |name, value| {
                same(&format!("size of {name}"), &read(outcome.directory, name)?.len().into(), value)
            }),
            "labels" => labels(value, outcome.reported.as_ref()),
            _ => Err(format!("`extra-expect` has an unknown key `{key}`")),
        };
        checked.map_err(|wrong| format!("{wrong}\n    {}", shown(&lines)))?;
    }
    Ok(())
}

/// The test ended by itself.
fn is_exit(ended: &Value) -> bool {
    ended.as_str().is_some_and(|ended| ended.starts_with("exited"))
}

fn ended(value: &Value, reported: Option<&Reported>) -> Result<(), String> {
    let Some(reported) = reported else { return Ok(()) };
    let wanted = value.as_str().unwrap_or_default();
    // Words for people go on after these; an exit status does not.
    let as_wanted = reported.ended == wanted || !is_exit(value) && reported.ended.starts_with(wanted);
    if as_wanted { Ok(()) } else { Err(format!("ended with `{}`, expected {value}", reported.ended)) }
}

fn has_note(value: &Value, note: Option<&str>) -> Result<(), String> {
    let wanted = value.as_str().unwrap_or_default();
    if note.is_some_and(|note| note.contains(wanted)) {
        return Ok(());
    }
    Err(format!("note {note:?}, expected {value} in it"))
}

fn labels(value: &Value, reported: Option<&Reported>) -> Result<(), String> {
    let Some(reported) = reported else { return Ok(()) };
    of_each(value, |key, value| {
        let found = reported.labels.get(key).map_or(Value::Null, |text| text.as_str().into());
        same(&format!("fact {key}"), &found, value)
    })
}

fn of_each(value: &Value, check: impl Fn(&str, &Value) -> Result<(), String>) -> Result<(), String> {
    let entries = value.as_object().ok_or_else(|| format!("{value} is no mapping"))?;
    entries.iter().try_for_each(|(key, value)| check(key, value))
}

fn content(directory: &Path, name: &str, expected: &Value) -> Result<(), String> {
    let bytes = read(directory, name)?;
    same(name, &String::from_utf8_lossy(&bytes).into_owned().into(), expected)
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, String> {
    fs::read(directory.join("files").join(name)).map_err(|error| format!("files/{name}: {error}"))
}

fn same(what: &str, found: &Value, expected: &Value) -> Result<(), String> {
    if is_like(found, expected) {
        return Ok(());
    }
    Err(format!("{what}: {found}\n    expected {expected}"))
}

/// `*` stands for anything, and what begins with `re:` for a text that the rest, a regular expression, is found in.
fn is_like(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (_, Value::String(any)) if any == "*" => true,
        (Value::String(text), Value::String(wanted)) => match wanted.strip_prefix("re:") {
            Some(pattern) => Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)),
            None => text == wanted,
        },
        (Value::Object(found), Value::Object(expected)) => {
            let has = |key: &String| found.get(key).zip(expected.get(key));
            found.len() == expected.len()
                && found.keys().all(|key| has(key).is_some_and(|(a, b)| is_like(a, b)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| is_like(a, b))
        }
        _ => found == expected,
    }
}

fn read_lines(directory: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read_to_string(directory.join("results")).map_err(|error| format!("results: {error}"))?;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}")))
        .collect::<Result<_, _>>()?;
    if lines.is_empty() { Err("there is no result".into()) } else { Ok(lines) }
}

/// Whatever a test does: the files that its results name are there, plain ones, in the test's own directory. There are no
/// others, but for what had begun to come when the host ended the test.
fn files_are_named(directory: &Path, lines: &[Value], whole: bool) -> Result<(), String> {
    let mut named = BTreeSet::new();
    for line in lines {
        let prefix =
            line.get("name").and_then(Value::as_str).map(|name| format!("{name}/")).unwrap_or_default();
        for file in line.get("files").and_then(Value::as_array).into_iter().flatten() {
            named.insert(format!("{prefix}{}", file.as_str().unwrap_or_default()));
        }
    }
    let mut found = BTreeSet::new();
    list(&directory.join("files"), "", &mut found).map_err(|error| format!("files: {error}"))?;
    let good = if whole { found == named } else { found.is_superset(&named) };
    if good { Ok(()) } else { Err(format!("files {found:?}\n    named by results {named:?}")) }
}

fn list(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(if kind.is_file() { name } else { format!("{name} (no plain file)") });
        }
    }
    Ok(())
}

fn shown(lines: &[Value]) -> String {
    let some: Vec<_> = lines.iter().take(20).map(Value::to_string).collect();
    format!("results {}", some.join(" "))
}

/// What is expected of a test that does not say so: that it passes.
pub fn of(metadata: &Map<String, Value>) -> Value {
    metadata.get("extra-expect").cloned().unwrap_or_else(|| serde_json::json!({"status": "pass"}))
}
