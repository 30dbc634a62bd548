//! Every row of the truth tables recorded from the reference implementation: context rules, filters, merges, YAML scalars.

#![expect(clippy::unwrap_used, reason = "this is a test: what it needs has to be there")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use atex_host::fmf::context::{Context, Rule};
use atex_host::fmf::filter::{Filter, Options, Verdict};
use atex_host::fmf::value::Keys;
use atex_host::fmf::{Tree, Value, yaml};
use serde_json::Value as Json;

/// Documents that the two YAML parsers of python installations disagree about. The table has the answer of the one in
/// python, this implementation that of libyaml.
const LIBYAML: [(&str, &str); 5] = [
    ("k: a\tb\n", r#"{"k": "a\tb"}"#),
    ("{k: a\tb}\n", r#"{"k": "a\tb"}"#),
    ("k: x\t\n", r#"{"k": "x"}"#),
    ("{k: x:}\n", "error"),
    ("{k: :x}\n", "error"),
];

/// The rows of a table, each with its number.
fn rows(table: &str) -> Vec<(usize, Json)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fmf/tables").join(table);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().enumerate().map(|(index, line)| (index + 1, serde_json::from_str(line).unwrap())).collect()
}

/// Compares every row and shows the first ones that differ.
fn check(table: &str, count: usize, actual: impl Fn(&Json) -> String, expected: impl Fn(&Json) -> String) {
    let rows = rows(table);
    assert_eq!(rows.len(), count);
    let mut report = String::new();
    let mut different = 0;
    for (number, row) in &rows {
        let (actual, expected) = (actual(row), expected(row));
        if actual != expected {
            different += 1;
            if different <= 20 {
                writeln!(report, "{number}: {row}\n   expected {expected}\n   actual   {actual}").unwrap();
            }
        }
    }
    assert!(different == 0, "{different} rows of {table} differ:\n{report}");
}

fn error_or(row: &Json, other: impl Fn(&Json) -> String) -> String {
    match row["result"].get("error") {
        Some(_) => "error".to_owned(),
        None => other(&row["result"]),
    }
}

#[test]
fn context_rules() {
    check("context.jsonl", 12_775, decide, |row| match row["result"].as_str() {
        Some("CannotDecide") => "Undecided".to_owned(),
        _ => error_or(row, |result| if *result == true { "True".to_owned() } else { "False".to_owned() }),
    });
}

fn decide(row: &Json) -> String {
    let mut context = Context::new();
    context.ignore_case(!row["case_sensitive"].as_bool().unwrap());
    for (dimension, values) in row["context"].as_object().unwrap() {
        for value in Value::from(values).items() {
            context.add(dimension, &value.to_string());
        }
    }
    let rule = match &row["rule"] {
        Json::Bool(value) => Ok(Rule::from(*value)),
        Json::String(text) => Rule::parse(text),
        // There are no rules of other types here.
        _ => return "error".to_owned(),
    };
    rule.and_then(|rule| context.decide(&rule))
        .map_or_else(|_| "error".to_owned(), |outcome| format!("{outcome:?}"))
}

#[test]
fn context_definitions() {
    let actual = |row: &Json| match Context::parse(row["definition"].as_str().unwrap()) {
        Err(_) => "error".to_owned(),
        Ok(context) => {
            let dimensions: serde_json::Map<String, Json> =
                context.dimensions().map(|(name, values)| (name.to_owned(), values.into())).collect();
            Json::from(dimensions).to_string()
        }
    };
    check("context-init.jsonl", 9, actual, |row| error_or(row, Json::to_string));
}

#[test]
fn filters() {
    check("filter.jsonl", 2380, filter, |row| match row["result"].get("error").and_then(Json::as_str) {
        Some("FilterError") => "missing".to_owned(),
        _ => error_or(row, Json::to_string),
    });
}

fn filter(row: &Json) -> String {
    let flag = |name: &str| row[name].as_bool().unwrap();
    let options = Options { case_sensitive: flag("sensitive"), regex: flag("regexp") };
    let data = Value::from(&row["data"]);
    let filter = Filter::with_options(row["filter"].as_str().unwrap(), options);
    match filter.check(row["name"].as_str(), data.as_map().unwrap()) {
        Ok(Verdict::Match) => "true".to_owned(),
        Ok(Verdict::NoMatch) => "false".to_owned(),
        Ok(Verdict::Missing(_)) => "missing".to_owned(),
        Err(_) => "error".to_owned(),
    }
}

#[test]
fn merges() {
    check("merge.jsonl", 5382, merge, |row| error_or(row, |result| typed(&Value::from(&result["data"]))));
}

/// The data of a child `/c` under a parent with the row's data.
fn merge(row: &Json) -> String {
    let mut document = Value::from(&row["parent"]).as_map().unwrap().clone();
    document.insert("/c", Value::from(&row["child"]));
    match Tree::from_data(&document) {
        Err(_) => "error".to_owned(),
        Ok(tree) => typed(&Value::map(Arc::new(tree).view().find("/c").unwrap().data().clone())),
    }
}

#[test]
fn yaml_scalars() {
    let actual = |row: &Json| {
        yaml::parse(row["doc"].as_str().unwrap()).map_or_else(|_| "error".to_owned(), |value| typed(&value))
    };
    check("yaml-scalars.jsonl", 378, actual, |row| {
        let document = row["doc"].as_str().unwrap();
        match LIBYAML.iter().find(|(known, _)| *known == document) {
            Some((_, result)) => (*result).to_owned(),
            None => error_or(row, |result| result["value"].as_str().unwrap().to_owned()),
        }
    });
}

fn typed(value: &Value) -> String {
    let mut text = String::new();
    value.write_typed(&mut text, Keys::Sorted);
    text
}
