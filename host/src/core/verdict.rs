//! How a test's part in the run ended. Every test gets exactly one [`Verdict`].

use std::fmt;
use std::sync::Arc;

use atex_plugin_api::policy::Outcome;
use serde::{Deserialize, Serialize};

use super::event::{ExecutionId, TestId};
use crate::text::printable;

/// The final word on a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It ran, and this run is what counts.
    Ran(Judged),
    /// It ran and was to run again, but that did not happen: the judged run counts, for want of a better one.
    Unfinished(Judged, Cause),
    /// There is no run that counts.
    NotRun(Cause),
}

/// A run that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    pub execution: ExecutionId,
    #[serde(with = "outcome_word")]
    pub outcome: Outcome,
}

impl Verdict {
    /// The run that counts, if there is one.
    pub fn judged(&self) -> Option<Judged> {
        match self {
            Self::Ran(judged) | Self::Unfinished(judged, _) => Some(*judged),
            Self::NotRun(_) => None,
        }
    }

    /// Whether it counts for `max-fail`: the test ran, and did not pass.
    pub fn failed(&self) -> bool {
        self.judged().is_some() && !self.passed()
    }

    /// Why the test did not run, or not again.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Ran(_) => None,
            Self::Unfinished(_, cause) | Self::NotRun(cause) => Some(cause),
        }
    }

    /// Whether the test ran and passed.
    pub fn passed(&self) -> bool {
        self.judged().is_some_and(|judged| judged.outcome == Outcome::Passed)
    }
}

/// Why a test did not run, or not again. A closed list: [`code`](Self::code) is what scripts may rely on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code")]
pub enum Cause {
    /// No pool had a machine for its platform.
    NoMachine,
    /// Too many set-ups in a row failed on its platform.
    SetupFailed,
    /// The machine under it was lost more often than `lost-machine-reruns` allows.
    MachineLost,
    /// There were machines, but the policies want the test on none of them.
    Unsuitable,
    /// A policy (its position in the chain, and its name if that is known) left it out.
    PolicySkipped {
        policy: u16,
        #[serde(default)]
        name: Arc<str>,
        reason: String,
    },
    /// A policy stopped the run.
    PolicyStopped {
        policy: u16,
        #[serde(default)]
        name: Arc<str>,
        reason: String,
    },
    /// A test asked for the end of the run.
    TestAborted { test: TestId, name: Arc<str> },
    /// The run was stopped by a signal.
    Signal { signal: i32 },
    /// The run's own time limit was reached.
    RunTimeLimit,
    /// As many tests had failed as `max-fail` allows.
    MaxFail,
}

impl Cause {
    /// The stable word for this cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMachine => "no-machine",
            Self::SetupFailed => "setup-failed",
            Self::MachineLost => "machine-lost",
            Self::Unsuitable => "unsuitable",
            Self::PolicySkipped { .. } => "policy-skipped",
            Self::PolicyStopped { .. } => "policy-stopped",
            Self::TestAborted { .. } => "test-aborted",
            Self::Signal { .. } => "signal",
            Self::RunTimeLimit => "run-time-limit",
            Self::MaxFail => "max-fail",
        }
    }

    /// Whether somebody wanted the run to end early, rather than something being broken.
    pub fn is_stop(&self) -> bool {
        matches!(
            self,
            Self::PolicyStopped { .. }
                | Self::TestAborted { .. }
                | Self::Signal { .. }
                | Self::RunTimeLimit
                | Self::MaxFail
        )
    }
}

/// For people: the code, and what else is known.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMachine => f.write_str("no machine could be had"),
            Self::SetupFailed => f.write_str("machines could not be set up"),
            Self::MachineLost => f.write_str("machines were lost under it"),
            Self::Unsuitable => f.write_str("the policies want it on none of the machines"),
            Self::PolicySkipped { policy, name, reason } => {
                write!(f, "left out by {}: {reason}", PolicyName(*policy, name))
            }
            Self::PolicyStopped { policy, name, reason } => {
                write!(f, "run stopped by {}: {reason}", PolicyName(*policy, name))
            }
            Self::TestAborted { name, .. } => write!(f, "run aborted by test {}", printable(name)),
            Self::Signal { signal } => match signal_name(*signal) {
                Some(name) => write!(f, "run stopped by {name}"),
                None => write!(f, "run stopped by signal {signal}"),
            },
            Self::RunTimeLimit => f.write_str("the time limit of the run was reached"),
            Self::MaxFail => f.write_str("too many tests had failed"),
        }
    }
}

/// A policy in messages.
struct PolicyName<'a>(u16, &'a str);

impl fmt::Display for PolicyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            "" => write!(f, "policy number {}", u32::from(self.0) + 1),
            name => write!(f, "policy {}", printable(name)),
        }
    }
}

/// The signals that people and batch systems send to end a run.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    match signal {
        1 => Some("SIGHUP"),
        2 => Some("SIGINT"),
        15 => Some("SIGTERM"),
        _ => None,
    }
}

/// The word for an [`Outcome`], and back.
pub mod outcome_word {
    use atex_plugin_api::policy::Outcome;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    const WORDS: [(Outcome, &str); 5] = [
        (Outcome::Passed, "passed"),
        (Outcome::Failed, "failed"),
        (Outcome::TimedOut, "timed-out"),
        (Outcome::Protocol, "protocol"),
        (Outcome::Limit, "limit"),
    ];

    /// The stable word for an outcome.
    pub fn word(outcome: Outcome) -> &'static str {
        WORDS.iter().find(|(known, _)| *known == outcome).map_or("failed", |(_, word)| word)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(outcome: &Outcome, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(word(*outcome))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Outcome, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let known = WORDS.iter().find(|(_, word)| *word == text);
        known
            .map(|(outcome, _)| *outcome)
            .ok_or_else(|| D::Error::custom(format!("unknown outcome {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_json() {
        let judged = Judged { execution: 7, outcome: Outcome::TimedOut };
        let skipped = Cause::PolicySkipped { policy: 2, name: "shard".into(), reason: "other shard".into() };
        let aborted = Cause::TestAborted { test: 4, name: "/t".into() };
        let all = [
            Verdict::Ran(judged),
            Verdict::Unfinished(judged, Cause::MaxFail),
            Verdict::NotRun(skipped),
            Verdict::NotRun(aborted),
            Verdict::NotRun(Cause::Signal { signal: 15 }),
        ];
        for verdict in all {
            let text = serde_json::to_string(&verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict, "{text}");
        }
        assert!(serde_json::from_str::<Judged>(r#"{"execution":1,"outcome":"great"}"#).is_err());
    }

    #[test]
    fn causes_name_who_stopped_the_run() {
        let stopped =
            |policy, name: &str| Cause::PolicyStopped { policy, name: name.into(), reason: "enough".into() };
        let table = [
            (Cause::Signal { signal: 2 }, "run stopped by SIGINT"),
            (Cause::Signal { signal: 99 }, "run stopped by signal 99"),
            (Cause::TestAborted { test: 3, name: "/a/b".into() }, "run aborted by test /a/b"),
            (stopped(1, "fail-fast"), "run stopped by policy fail-fast: enough"),
            (stopped(1, ""), "run stopped by policy number 2: enough"),
        ];
        for (cause, text) in table {
            assert_eq!((cause.to_string().as_str(), cause.is_stop()), (text, true));
        }
    }

    #[test]
    fn a_journal_without_names_of_policies_is_read() {
        let text = r#"{"not-run":{"code":"policy-stopped","policy":1,"reason":"x"}}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        assert_eq!(verdict.cause().unwrap().to_string(), "run stopped by policy number 2: x");
    }

    #[test]
    fn codes_are_those_of_the_journal() {
        let aborted = Cause::TestAborted { test: 3, name: "/a/b".into() };
        for cause in [Cause::NoMachine, Cause::RunTimeLimit, Cause::Signal { signal: 2 }, aborted] {
            let json = serde_json::to_value(&cause).unwrap();
            assert_eq!(json["code"], cause.code());
        }
    }
}
