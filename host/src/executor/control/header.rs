//! The JSON object of a result: checked once, here, so that the rest of the host meets clean names and the right types.

use serde_json::{Map, Value};

use crate::executor::names::clean;

/// Bytes of a status word.
const MAX_STATUS: usize = 128;

/// What a test says about a result before its files come.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Number of its control line.
    pub line: u64,
    /// Bytes of its JSON.
    pub size: u64,
    /// A [clean] name; `None`: the result is the test's own.
    pub name: Option<String>,
    /// More of this result may follow.
    pub partial: bool,
    /// In the order of their data.
    pub files: Vec<FileEntry>,
    /// `files` is null: forget those that were named before.
    pub forget_files: bool,
    /// All other keys as they came: `status` and `testout`, which are strings or null (`testout` a clean name), `note`, and
    /// what the host does not know.
    pub object: Map<String, Value>,
}

/// One of a result's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// A [clean] name.
    pub name: String,
    pub length: u64,
}

impl Header {
    /// Which rule it breaks is the error.
    pub(super) fn parse(line: u64, json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|error| format!("invalid JSON: {error}"))?;
        let Value::Object(mut object) = value else {
            return Err(format!("a result is a JSON object, not {}", kind(&value)));
        };
        let name = match object.shift_remove("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if name.is_empty() => None,
            Some(Value::String(name)) => Some(clean(&name)),
            Some(other) => return Err(wrong_type("name", "a string", &other)),
        };
        let partial = match object.shift_remove("partial") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(partial)) => partial,
            Some(other) => return Err(wrong_type("partial", "true or false", &other)),
        };
        let (files, forget_files) = match object.shift_remove("files") {
            None => (Vec::new(), false),
            Some(Value::Null) => (Vec::new(), true),
            Some(Value::Array(entries)) => (file_entries(&entries)?, false),
            Some(other) => return Err(wrong_type("files", "a list", &other)),
        };
        check_status(object.get("status"))?;
        if let Some(testout) = object.get_mut("testout") {
            check_testout(testout)?;
        }
        Ok(Self { line, size: json.len() as u64, name, partial, files, forget_files, object })
    }
}

fn check_status(status: Option<&Value>) -> Result<(), String> {
    match status {
        Some(Value::String(status)) if status == "infra" => {
            Err("status `infra` is for the host's own verdicts; use `error`".into())
        }
        Some(Value::String(status)) if status.is_empty() => Err("`status` is empty; leave it out".into()),
        Some(Value::String(status)) if status.len() > MAX_STATUS => {
            Err(format!("`status` is longer than {MAX_STATUS} bytes"))
        }
        Some(Value::String(status)) if status.contains(char::is_control) => {
            Err("`status` has control characters".into())
        }
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(other) => Err(wrong_type("status", "a string", other)),
    }
}

fn check_testout(testout: &mut Value) -> Result<(), String> {
    match testout {
        Value::Null => Ok(()),
        Value::String(name) if name.is_empty() => Err("`testout` is empty".into()),
        Value::String(name) => {
            *name = clean(name);
            Ok(())
        }
        other => Err(wrong_type("testout", "a string", other)),
    }
}

fn file_entries(entries: &[Value]) -> Result<Vec<FileEntry>, String> {
    entries.iter().enumerate().map(|(index, entry)| file_entry(index, entry)).collect()
}

fn file_entry(index: usize, entry: &Value) -> Result<FileEntry, String> {
    let Value::Object(entry) = entry else {
        return Err(wrong_type(&format!("files[{index}]"), "an object", entry));
    };
    let name = match entry.get("name") {
        Some(Value::String(name)) if !name.is_empty() => clean(name),
        _ => return Err(format!("files[{index}] needs a `name`, a string that is not empty")),
    };
    let length = entry.get("length").and_then(Value::as_u64);
    let length = length.ok_or_else(|| format!("files[{index}] needs a `length`, a number of bytes"))?;
    Ok(FileEntry { name, length })
}

fn wrong_type(key: &str, wanted: &str, found: &Value) -> String {
    format!("`{key}` is {wanted}, not {}", kind(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
