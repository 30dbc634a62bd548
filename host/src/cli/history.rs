//! What `history` prints: tests that broke lately, tests that end now this way and now that, and the slowest ones.
//!
//! For people three short lists. As JSON, an array with one object per test and platform, by platform and name:
//!
//! ```json
//! {"platform": "rhel-9@x86_64", "test": "/a/b", "median_ms": 1500, "longest_ms": 9000, "fail_rate": 0.25, "flakiness": 0.5,
//!  "flaky": true, "newly_failing": false,
//!  "executions": [{"run": "20260102-030405-abcdef", "at_ms": 1767323045000, "status": "fail", "passed": false, "duration_ms": 1400}]}
//! ```
//!
//! Executions are newest first. Fields may be added.

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use serde_json::{Value as Json, json};

use crate::{
    store::{Past, TestHistory},
    text::printable,
};

/// Lines of each list.
const SHOWN: usize = 20;

/// For people.
pub fn text(out: &mut impl Write, tests: &[TestHistory]) -> io::Result<()> {
    let newly: Vec<_> = tests.iter().filter(|test| test.is_newly_failing()).collect();
    let mut flaky: Vec<_> = tests.iter().filter(|test| test.is_flaky()).collect();
    flaky.sort_by_key(|test| Reverse(test.flakiness()));
    let mut slow: Vec<_> = tests.iter().collect();
    slow.sort_by_key(|test| Reverse(test.median()));
    if slow.is_empty() {
        return writeln!(out, "nothing is known of such tests");
    }
    list(out, "newly failing", &newly)?;
    list(out, "flaky", &flaky)?;
    list(out, "slowest", &slow)
}

fn list(out: &mut impl Write, title: &str, tests: &[&TestHistory]) -> io::Result<()> {
    if tests.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}:")?;
    for test in tests.iter().take(SHOWN) {
        writeln!(
            out,
            "  {:>9} {:>3} % failed of {:<3} {} {}",
            seconds(test.median()),
            test.fail_rate() / 10,
            test.executions.len(),
            printable(&test.platform),
            printable(&test.test),
        )?;
    }
    match tests.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more; --format json has all"),
    }
}

/// For scripts.
pub fn json(out: &mut impl Write, tests: &[TestHistory]) -> io::Result<()> {
    let tests: Vec<Json> = tests.iter().map(one).collect();
    serde_json::to_writer(&mut *out, &tests)?;
    writeln!(out)
}

fn one(test: &TestHistory) -> Json {
    json!({
        "platform": test.platform,
        "test": test.test,
        "median_ms": test.median(),
        "longest_ms": test.longest(),
        "fail_rate": f64::from(test.fail_rate()) / 1000.0,
        "flakiness": f64::from(test.flakiness()) / 1000.0,
        "flaky": test.is_flaky(),
        "newly_failing": test.is_newly_failing(),
        "executions": test.executions.iter().map(execution).collect::<Vec<_>>(),
    })
}

fn execution(past: &Past) -> Json {
    json!({
        "run": past.run,
        "at_ms": past.at,
        "status": past.status,
        "passed": past.passed,
        "duration_ms": past.duration,
    })
}

/// `12.3 s`, from a hundred seconds on without the fraction.
fn seconds(ms: u64) -> String {
    if ms < 100_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { format!("{} s", ms / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(test: &str, outcomes: &str) -> TestHistory {
        let past = |(number, outcome): (usize, char)| Past {
            at: 10 - number as u64,
            run: format!("r{number}"),
            status: if outcome == 'p' { "pass" } else { "fail" }.into(),
            passed: outcome == 'p',
            duration: 1500 * test.len() as u64,
        };
        TestHistory {
            platform: "p".into(),
            test: test.into(),
            executions: outcomes.chars().enumerate().map(past).collect(),
        }
    }

    fn shown(tests: &[TestHistory], print: fn(&mut Vec<u8>, &[TestHistory]) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out, tests).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn three_lists_for_people() {
        let tests = [history("/broke\u{1b}", "fpp"), history("/flaky/one", "pfpfp"), history("/ok", "p")];
        let expected = [
            "newly failing:",
            "     10.5 s  33 % failed of 3   p /broke\\u{1b}",
            "flaky:",
            "     15.0 s  40 % failed of 5   p /flaky/one",
            "slowest:",
            "     15.0 s  40 % failed of 5   p /flaky/one",
            "     10.5 s  33 % failed of 3   p /broke\\u{1b}",
            "      4.5 s   0 % failed of 1   p /ok",
        ];
        assert_eq!(shown(&tests, text).lines().collect::<Vec<_>>(), expected);
        assert_eq!(shown(&[], text), "nothing is known of such tests\n");
        let many: Vec<_> = (0..25).map(|number| history(&format!("/{number}"), "p")).collect();
        assert!(shown(&many, text).ends_with("  and 5 more; --format json has all\n"));
        assert_eq!(seconds(123_456), "123 s");
    }

    #[test]
    fn everything_for_scripts() {
        let all: Json = serde_json::from_str(&shown(&[history("/t", "fp")], json)).unwrap();
        assert_eq!(all[0]["newly_failing"], true);
        assert_eq!((&all[0]["fail_rate"], &all[0]["median_ms"]), (&json!(0.5), &json!(3000)));
        let newest =
            json!({"run": "r0", "at_ms": 10, "status": "fail", "passed": false, "duration_ms": 3000});
        assert_eq!(all[0]["executions"][0], newest);
    }
}
