//! Conditions against what python answered: `table.jsonl` has expressions over `data.json` with the text of the value,
//! or the class of the exception, as CPython 3.11 gave them (`table.py` writes it).

use super::*;

fn data() -> Map {
    let json: serde_json::Value = serde_json::from_str(include_str!("data.json")).unwrap();
    match Value::from(&json) {
        Value::Map(map) => Map::clone(&map),
        other => panic!("{other:?}"),
    }
}

fn evaluate(text: &str) -> Result<Value, ConditionError> {
    Condition::parse(text)?.evaluate(&data())
}

fn problem(text: &str) -> String {
    evaluate(text).unwrap_err().to_string()
}

#[test]
fn answers_are_those_of_python() {
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in include_str!("table.jsonl").lines() {
        let (expression, expected): (String, String) = serde_json::from_str(line).unwrap();
        rows += 1;
        let got = match evaluate(&expression) {
            Ok(value) => value.repr(),
            Err(error) => match error.class() {
                Some(class) => format!("!{class}"),
                None => error.to_string(),
            },
        };
        if got != expected {
            wrong.push(format!("{expression}\n    expected {expected}\n    got      {got}"));
        }
    }
    assert!(rows > 2000, "{rows}");
    assert!(wrong.is_empty(), "{} of {rows} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_missing_makes_a_condition_false_and_nothing_else_does() {
    let holds = |text: &str| Condition::parse(text).unwrap().holds(&data());
    assert_eq!(holds("tier == 1"), Ok(true));
    assert_eq!(holds("nokey == 1"), Ok(false));
    assert_eq!(holds("environment['B'] == 1"), Ok(false));
    assert_eq!(holds("not nokey"), Ok(false));
    assert_eq!(holds("re.search('x', name)"), Ok(false));
    assert_eq!(holds("tier < 'x'").unwrap_err().class(), Some("TypeError"));
}

#[test]
fn errors_show_the_expression_and_the_column() {
    for (text, expected) in [
        ("tier < 'x'", "column 6: TypeError: '<' not supported between instances of 'int' and 'str'"),
        ("tier = 1", "column 6: an assignment is no condition; `==` compares"),
        ("tier ==", "column 8: expected a value, found the end"),
        ("(tier\n  + )", "column 5: expected a value, found `)`"),
        ("'é' + tier.x()", "column 11: AttributeError: 'int' object has no attribute 'x'"),
    ] {
        assert_eq!(problem(text), format!("condition {text:?}, {expected}"), "{text}");
    }
}

/// A part of python that is not there never gives an answer, and nothing outside can be reached.
#[test]
fn the_rest_of_python_is_refused_by_name() {
    for text in [
        "open('/etc/passwd')",
        "__import__('os')",
        "().__class__()",
        "name.__len__()",
        "name.format(1)",
        "'%s' % name",
        "f'{name}'",
        "b'x'",
        "lambda: 1",
        "(x := 1)",
        "sorted(tag, reverse=True)",
        "[*tag]",
        "{**environment}",
        "tag.append('x')",
        "tag.append",
        "name is 'x'",
        "1 << 2",
        "1j",
        "[locals() for x in tag]",
        "(x for x in tag)",
        "environment.items()",
        "map(str, tag)",
        "...",
        "'\\N{DASH}'",
        "(-8) ** 0.5",
    ] {
        let error = evaluate(text).unwrap_err();
        assert!(matches!(error.problem(), Problem::Unsupported(_)), "{text}: {error}");
    }
    // A key of that name hides the function, as it does in python.
    let mut data = data();
    data.insert("open", Value::Int(1));
    assert!(Condition::parse("open == 1").unwrap().holds(&data).unwrap());
}

#[test]
fn what_takes_too_much_ends_soon() {
    let nested =
        |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    for text in [
        nested("(", ")", 4000),
        nested("[", "]", 4000),
        nested("-", "", 4000),
        nested("not ", "", 3000),
        format!("1{}", " + 1".repeat(3000)),
        format!("tag{}", "[0]".repeat(3000)),
        format!("tag{}", ".a()".repeat(3000)),
        format!("1{}", " if 1 else 1".repeat(1000)),
        format!("2{}", " ** 2".repeat(2000)),
        "x".repeat(20_000),
        "10 ** 10 ** 10".into(),
        "'a' * 10 ** 10".into(),
        "[0] * 2 ** 62".into(),
        "[1 for a in [0] * 2000 for b in [0] * 2000]".into(),
        "any(0 for a in [0] * 2000 for b in [0] * 2000)".into(),
        "('a' * 10000).replace('a', 'b' * 10000)".into(),
        "('a' * 100000).join('b' * 1000)".into(),
        "(10 ** 5000) ** 5".into(),
    ] {
        let error = evaluate(&text).unwrap_err();
        assert!(matches!(error.problem(), Problem::Limit(_)), "{}: {error}", &text[..20.min(text.len())]);
    }
    // Long, but flat.
    let long = vec!["tier == 1"; 1000].join(" and ");
    assert!(Condition::parse(&long).unwrap().holds(&data()).unwrap());
}

proptest::proptest! {
    /// Whatever is written, there is an answer or an error.
    #[test]
    fn no_text_makes_it_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "tag", "tier", "name", "1", "'a'", "2.5", "(", ")", "[", "]", "{", "}", ":", ",", ".", "==", "<", "in",
                "not", "and", "or", "if", "else", "for", "x", "*", "**", "//", "%", "-", "lower()", "len(", "any(", "is",
                "None", "split(", "\n", "\\", "'", "é",
            ]),
            0..14,
        )
    ) {
        let _ = evaluate(&parts.join(" "));
    }
}
