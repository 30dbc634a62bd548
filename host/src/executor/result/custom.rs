//! `result: custom`: the test wrote its results itself, into `results.yaml` or `results.json` in `TMT_TEST_DATA`.

use std::fs::File;
use std::io::Read as _;

use serde_json::{Map, Value};

use super::{Complete, DATA};
use crate::executor::artifacts::Directory;
use crate::executor::names::clean;
use crate::fmf::yaml;

const NAMES: [&str; 2] = ["results.yaml", "results.json"];
const MAX_BYTES: u64 = 4 << 20;
const MAX_RESULTS: usize = 10_000;

/// The results, or what is wrong with them. `/` and a result without a name are the test's own.
pub(super) fn read(directory: &Directory) -> Result<Vec<Complete>, String> {
    let (name, file) = find(directory)?;
    let mut text = String::new();
    let length =
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("{name}: {error}"))?;
    if length as u64 > MAX_BYTES {
        return Err(format!("{name} is longer than {MAX_BYTES} bytes"));
    }
    let list: Value = match name {
        "results.json" => serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?,
        _ => yaml::parse(&text).map_err(|error| format!("{name}: {error}"))?.to_json(),
    };
    match list {
        Value::Array(list) if list.len() > MAX_RESULTS => {
            Err(format!("{name} has more than {MAX_RESULTS} results"))
        }
        Value::Array(list) if list.is_empty() => Err(format!("{name} has no results")),
        Value::Array(list) => {
            list.into_iter().enumerate().map(|(index, value)| one(name, index, value)).collect()
        }
        _ => Err(format!("{name} is not a list of results")),
    }
}

fn find(directory: &Directory) -> Result<(&'static str, File), String> {
    for name in NAMES {
        let path = format!("{DATA}/{name}");
        match directory.has_file(None, &path) {
            Ok(false) => {}
            Ok(true) => return Ok((name, directory.read(&path).map_err(|error| error.to_string())?)),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("the test left neither {} in TMT_TEST_DATA", NAMES.join(" nor ")))
}

/// `result` is the status; `name` and `note` as usual; `log` are files relative to `TMT_TEST_DATA`; the rest is kept.
fn one(file: &str, index: usize, value: Value) -> Result<Complete, String> {
    let Value::Object(mut object) = value else {
        return Err(format!("{file}: result {index} is not a mapping"));
    };
    let name = match object.shift_remove("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.trim_matches('/').is_empty() => None,
        Some(Value::String(name)) => Some(clean(&name)),
        Some(_) => return Err(format!("{file}: the name of result {index} is not a string")),
    };
    let status = match object.shift_remove("result") {
        Some(Value::String(status)) if !status.is_empty() && status != super::verdict::INFRA => {
            clean(&status)
        }
        _ => return Err(format!("{file}: result {index} has no usable `result`")),
    };
    let mut reported = Map::new();
    reported.insert("status".into(), status.into());
    if let Some(note) = object.shift_remove("note").and_then(one_note) {
        reported.insert("note".into(), note.into());
    }
    for taken in ["status", "testout", "files", "partial"] {
        object.shift_remove(taken);
    }
    reported.extend(object);
    Ok(Complete { name, object: reported, files: indexmap::IndexSet::new() })
}

/// tmt has notes as a string or a list of them.
fn one_note(note: Value) -> Option<String> {
    match note {
        Value::String(note) => Some(note),
        Value::Array(notes) => {
            let notes: Vec<_> = notes.iter().filter_map(Value::as_str).collect();
            (!notes.is_empty()).then(|| notes.join("; "))
        }
        _ => None,
    }
}
