//! Lines, byte for byte as python's `json.dumps` makes them: a space after each comma, nothing but printable ASCII.

use std::fmt::Write as _;

use atex_plugin_api::reporter::ResultLine;

/// `[platform, status, test, subtest, files, note]` without the end of the line.
pub(crate) fn line(
    platform: &str,
    test: &str,
    result: &ResultLine,
    file_name: impl Fn(&str) -> String,
) -> String {
    let mut out = String::from("[");
    string(&mut out, platform);
    out.push_str(", ");
    optional(&mut out, result.status.as_deref());
    out.push_str(", ");
    string(&mut out, test);
    out.push_str(", ");
    optional(&mut out, result.name.as_deref());
    out.push_str(", [");
    for (index, file) in files(result).enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        string(&mut out, &file_name(file));
    }
    out.push_str("], ");
    optional(&mut out, result.note.as_deref());
    out.push(']');
    out
}

/// The test's output comes first, under the name that the test gave it, then what it uploaded.
fn files(result: &ResultLine) -> impl Iterator<Item = &str> {
    let output = result.other.get("testout").and_then(|name| name.as_str()).filter(|name| !name.is_empty());
    let uploaded = result.files.iter().map(String::as_str).filter(move |name| Some(*name) != output);
    output.into_iter().chain(uploaded)
}

fn optional(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.push_str("null"),
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> String {
        line("9.8@x86_64", "/unit/syscalls", &serde_json::from_str(json).unwrap(), str::to_owned)
    }

    #[test]
    fn lines_are_those_of_python() {
        let table = [
            (
                r#"{"status":"fail","name":"connect","files":["test.txt"],"note":"Got errno: ECONNABORTED"}"#,
                r#"["9.8@x86_64", "fail", "/unit/syscalls", "connect", ["test.txt"], "Got errno: ECONNABORTED"]"#,
            ),
            ("{}", r#"["9.8@x86_64", null, "/unit/syscalls", null, [], null]"#),
            (
                r#"{"status":"pass","files":["a","log","b"],"testout":"log"}"#,
                r#"["9.8@x86_64", "pass", "/unit/syscalls", null, ["log", "a", "b"], null]"#,
            ),
            (
                "{\"note\":\"é€😀 \\\"q\\\" \\\\ \\n\\t\\u0001\\u007f/\"}",
                r#"["9.8@x86_64", null, "/unit/syscalls", null, [], "\u00e9\u20ac\ud83d\ude00 \"q\" \\ \n\t\u0001\u007f/"]"#,
            ),
        ];
        for (json, expected) in table {
            assert_eq!(of(json), expected);
        }
    }

    proptest! {
        #[test]
        fn every_line_is_one_line_of_ascii_json(platform in ".*", status in ".*", note in ".*", files in prop::collection::vec(".*", 0..4)) {
            let result = ResultLine::default();
            let mut value = serde_json::to_value(&result).unwrap();
            value["status"] = status.clone().into();
            value["note"] = note.clone().into();
            value["files"] = files.clone().into();
            let line = line(&platform, "/t", &serde_json::from_value(value).unwrap(), str::to_owned);
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let back: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back, serde_json::json!([platform, status, "/t", null, files, note]));
        }
    }
}
