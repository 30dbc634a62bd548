//! What a result means: the host's own status, tmt's `result`, and the verdict of an execution.

use serde_json::{Map, Value};

use crate::executor::spec::{Ended, ResultRule};

/// The host's own status: the test could not be judged.
pub(super) const INFRA: &str = "infra";

/// Where the status of a test comes from that sends no result of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// `pass` for exit status 0, else `fail`.
    #[default]
    ExitStatus,
    /// The worst of that and of what was reported: for beakerlib, whose tests exit with 0 even when they fail.
    WorstOfBoth,
    /// The worst of what was reported; `error` if nothing was.
    Reported,
}

/// Why a status is not the test's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The host ended the test, or could not run it.
    Host(String),
    /// The test ended well but left no usable results where it had to.
    Test(String),
}

/// Why the host ended the test; `None`: it did not.
pub(super) fn cause(ended: &Ended) -> Option<Cause> {
    match ended {
        Ended::Exited(_) => None,
        _ => Some(Cause::Host(ended.to_string())),
    }
}

/// Makes a result the host's, if there is a cause.
pub(super) fn settle(object: &mut Map<String, Value>, cause: Option<&Cause>) {
    let (status, note) = match cause {
        None => return,
        Some(Cause::Host(note)) => (INFRA, note),
        Some(Cause::Test(note)) => ("error", note),
    };
    object.insert("status".into(), status.into());
    object.insert("note".into(), note.as_str().into());
}

/// Applies tmt's `result` to a result of the test's own. The host's results stay; a changed status leaves a note.
pub(super) fn interpret(rule: ResultRule, object: &mut Map<String, Value>) {
    let status = object.get("status").and_then(Value::as_str).map(str::to_owned);
    let fixed = match rule {
        ResultRule::Respect | ResultRule::Custom | ResultRule::Restraint => return,
        ResultRule::Xfail => match status.as_deref() {
            Some("pass") => "fail",
            Some("fail") => "pass",
            _ => return,
        },
        ResultRule::Pass => "pass",
        ResultRule::Info => "info",
        ResultRule::Warn => "warn",
        ResultRule::Error => "error",
        ResultRule::Fail => "fail",
        ResultRule::Skip => "skip",
    };
    if status.as_deref() == Some(INFRA) || status.as_deref() == Some(fixed) {
        return;
    }
    object.insert("status".into(), fixed.into());
    let Some(status) = status else { return };
    let added = match rule {
        ResultRule::Xfail if fixed == "pass" => "failed, as expected".to_owned(),
        ResultRule::Xfail => "passed, but was expected to fail".to_owned(),
        _ => format!("the test's own status: {status}"),
    };
    let note = match object.get("note") {
        Some(Value::String(note)) if !note.is_empty() => format!("{note}; {added}"),
        Some(Value::Null) | None => added,
        // Not ours to change.
        Some(_) => return,
    };
    object.insert("note".into(), note.into());
}

/// What was reported so far, as far as the verdict needs it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Status and note of the last result of the test's own.
    own: Option<(Option<String>, Option<String>)>,
    /// The worst status that was reported for a part of the test.
    worst: Option<String>,
}

impl Tally {
    /// A result was written.
    pub(super) fn add(&mut self, own: bool, object: &Map<String, Value>) {
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let status = text("status");
        if own {
            self.own = Some((status, text("note")));
        } else if let Some(status) = status {
            self.worst = Some(worse(self.worst.take(), status));
        }
    }

    /// Whether there is a result of the test's own.
    pub(super) fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// Status and note for a test that sent no status of its own.
    pub(super) fn fall_back(
        &self,
        fallback: Fallback,
        rule: ResultRule,
        ended: &Ended,
    ) -> (String, Option<String>) {
        let by_exit = by_exit(ended).to_owned();
        let reported =
            matches!(rule, ResultRule::Restraint | ResultRule::Custom) || fallback == Fallback::Reported;
        match (&self.worst, reported) {
            (Some(worst), true) => (worst.clone(), None),
            (None, true) => ("error".to_owned(), Some("the test reported no result".to_owned())),
            (Some(worst), false) if fallback == Fallback::WorstOfBoth => {
                (worse(Some(by_exit), worst.clone()), None)
            }
            (_, false) => (by_exit, None),
        }
    }

    /// The status of the execution: that of the last result of its own, else by exit status.
    pub(super) fn verdict(self, ended: &Ended) -> (String, Option<String>) {
        match self.own {
            Some((Some(status), note)) => (status, note),
            _ => match cause(ended) {
                Some(Cause::Host(note) | Cause::Test(note)) => (INFRA.to_owned(), Some(note)),
                None => (by_exit(ended).to_owned(), self.own.and_then(|(_, note)| note)),
            },
        }
    }
}

fn by_exit(ended: &Ended) -> &'static str {
    if ended.exit() == 0 { "pass" } else { "fail" }
}

/// The worse of two; the first of equals.
fn worse(one: Option<String>, other: String) -> String {
    match one {
        Some(one) if severity(&one) >= severity(&other) => one,
        _ => other,
    }
}

/// How bad a status is; a word that the host does not know is a failure.
fn severity(status: &str) -> u8 {
    match status {
        "skip" => 0,
        "info" => 1,
        "pass" => 2,
        "warn" => 3,
        "error" => 5,
        INFRA => 6,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_tmt() {
        use ResultRule::{Custom, Error, Info, Pass, Respect, Skip, Xfail};
        let table = [
            (Respect, json!({"status": "fail"}), json!({"status": "fail"})),
            (Custom, json!({"status": "fail"}), json!({"status": "fail"})),
            (Xfail, json!({"status": "fail"}), json!({"status": "pass", "note": "failed, as expected"})),
            (
                Xfail,
                json!({"status": "pass", "note": "x"}),
                json!({"status": "fail", "note": "x; passed, but was expected to fail"}),
            ),
            (Xfail, json!({"status": "error"}), json!({"status": "error"})),
            (
                Pass,
                json!({"status": "fail"}),
                json!({"status": "pass", "note": "the test's own status: fail"}),
            ),
            (Pass, json!({"status": "pass"}), json!({"status": "pass"})),
            (Pass, json!({}), json!({"status": "pass"})),
            (Info, json!({"status": "infra", "note": "lost"}), json!({"status": "infra", "note": "lost"})),
            (Error, json!({"status": "pass", "note": 5}), json!({"status": "error", "note": 5})),
            (
                Skip,
                json!({"status": "x", "note": null}),
                json!({"status": "skip", "note": "the test's own status: x"}),
            ),
        ];
        for (rule, result, expected) in table {
            let Value::Object(mut object) = result.clone() else { panic!("an object") };
            interpret(rule, &mut object);
            assert_eq!(Value::Object(object), expected, "{rule:?} {result}");
        }
    }

    #[test]
    fn the_worst_of_what_was_reported() {
        let table: [(&[&str], i32, Fallback, &str); 9] = [
            (&[], 0, Fallback::ExitStatus, "pass"),
            (&["fail"], 0, Fallback::ExitStatus, "pass"),
            (&["fail"], 0, Fallback::WorstOfBoth, "fail"),
            (&["pass"], 1, Fallback::WorstOfBoth, "fail"),
            (&["warn", "skip"], 0, Fallback::WorstOfBoth, "warn"),
            (&["skip", "error", "fail"], 0, Fallback::WorstOfBoth, "error"),
            (&["skip", "skip"], 1, Fallback::Reported, "skip"),
            (&["pass", "weird", "fail"], 0, Fallback::Reported, "weird"),
            (&[], 0, Fallback::Reported, "error"),
        ];
        for (reported, exit, fallback, expected) in table {
            let mut tally = Tally::default();
            for status in reported {
                tally.add(false, json!({"status": status}).as_object().unwrap());
            }
            let (status, _) = tally.fall_back(fallback, ResultRule::Respect, &Ended::Exited(exit));
            assert_eq!(status, expected, "{reported:?} {exit} {fallback:?}");
        }
    }
}
