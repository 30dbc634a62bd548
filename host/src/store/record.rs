//! What `run.json` and `journal.jsonl` hold.
//!
//! Together the two are enough to resume a run and to report it again. A reader passes over records of a kind it does not know
//! and fields it does not know; a field is never given another meaning.

use std::{collections::BTreeMap, path::PathBuf};

use atex_plugin_api::Facts;
use serde::{Deserialize, Serialize};

use crate::{
    config::Origin,
    core::{
        event::{ChainId, ExecutionId, LeaseId, Ms, Note, PlatformId, TestId},
        verdict::Verdict,
    },
};

/// `run.json`: what was asked. Written first, atomically, and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// Of this format; 1.
    pub version: u32,
    /// Id of the run: the name of its ledger, part of every lease's mark.
    pub run: String,
    pub owner: String,
    /// Unix time in milliseconds.
    pub created: u64,
    /// Program and version.
    pub host: String,
    /// Arguments and configuration, without secrets: enough to make the plan again.
    pub origin: Origin,
    /// Root of the FMF tree.
    pub tree: PathBuf,
    /// Of the names and contents of the tree's files, in hexadecimal digits.
    pub digest: String,
    pub platforms: Vec<RunPlatform>,
    pub plugins: Vec<RunPlugin>,
    /// All tests, by number; those of a platform side by side.
    pub tests: Vec<Promise>,
}

/// A target of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlatform {
    pub name: String,
    pub context: BTreeMap<String, Vec<String>>,
}

/// A plugin library that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlugin {
    /// `provisioner`, `policy`, `reporter`
    pub kind: String,
    /// Name of the plugin.
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
}

/// A test that will have a verdict; its number is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub platform: PlatformId,
    pub name: String,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unix time in milliseconds.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum What {
    /// A host process took the run over: the first one, or a later one that resumes it.
    Session(Session),
    Machine(Machine),
    /// A test starts on a machine.
    Started {
        execution: ExecutionId,
        test: TestId,
        lease: LeaseId,
        attempt: u16,
    },
    /// An execution is over, its artifacts are in place.
    Finished(Box<Execution>),
    /// What the policies of a chain were told; replayed on resume.
    Note {
        chain: ChainId,
        now: Ms,
        note: Note,
    },
    /// The one verdict of a test.
    Verdict {
        test: TestId,
        verdict: Verdict,
    },
    /// The verdict that a test had does not count any more: it is to run again. Follows the record of a session that resumes.
    Reopened {
        test: TestId,
    },
    /// Something that people should know.
    Warning {
        text: String,
    },
    /// The host is through; a run without this was interrupted.
    Ended(Ended),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// See [`What::Session`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub host: String,
    pub pid: u32,
    /// The run goes on that an earlier process began.
    pub resumed: bool,
}

/// See [`What::Machine`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub number: LeaseId,
    /// Id of the lease.
    pub lease: String,
    pub change: MachineChange,
    pub platform: PlatformId,
    pub pool: String,
    /// The provisioner's name for it, once there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What became of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineChange {
    Requested,
    Reserved,
    ReserveFailed,
    Ready,
    SetupFailed,
    Lost,
    Released,
    ReleaseFailed,
}

/// See [`What::Finished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    pub execution: ExecutionId,
    pub test: TestId,
    pub lease: LeaseId,
    pub attempt: u16,
    pub how: How,
    /// Exit status of the test, -1 if it told none.
    pub exit: i32,
    /// The test's own status: `pass`, ..., `infra`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Unix time in milliseconds.
    pub started: u64,
    pub finished: u64,
    /// Milliseconds of the test's own time.
    pub duration: u64,
    pub results: u64,
    /// Relative to the run directory; `None`: they could not be written.
    pub artifacts: Option<PathBuf>,
    /// Of all files of the artifacts together.
    pub bytes: u64,
    /// SHA-256 of `results`.
    pub digest: String,
}

/// Why an execution is over; the note says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// By itself.
    Exited,
    /// At its time limit.
    TimedOut,
    /// It broke a rule of the control channel.
    Protocol,
    /// It sent too much.
    Limit,
    /// It could not be started.
    NotStarted,
    /// It asked for the end of everything.
    Aborted,
    /// The run was stopped.
    Cancelled,
    /// Its machine was lost.
    Lost,
    /// The host could not go on with it: a full disk, for example.
    Host,
}

/// What an execution or a verdict means for the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// pass, info, skip
    Passed,
    /// warn
    Warned,
    /// fail, error, a word of the test's own, its time limit, a protocol error
    Failed,
    /// No verdict of the test's own: machine lost, setup failed, never run.
    Infra,
    /// Not run because the run was to end early.
    Stopped,
}

impl Class {
    /// The stable word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Infra => "infra",
            Self::Stopped => "stopped",
        }
    }

    /// What a verdict means, given the class of the execution that it names.
    pub fn of_verdict(verdict: &Verdict, execution: Option<Self>) -> Self {
        match verdict.cause() {
            Some(cause) if cause.is_stop() => Self::Stopped,
            _ => execution.unwrap_or(Self::Infra),
        }
    }
}

impl Execution {
    /// What it means if it is the one that counts.
    pub fn class(&self) -> Class {
        match (self.how, self.status.as_str()) {
            (How::NotStarted | How::Cancelled | How::Lost | How::Host, _) => Class::Infra,
            (How::Exited | How::Aborted, "pass" | "info" | "skip") => Class::Passed,
            (How::Exited | How::Aborted, "warn") => Class::Warned,
            _ => Class::Failed,
        }
    }
}

/// See [`What::Ended`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub passed: u64,
    pub failed: u64,
    pub infra: u64,
    /// Exit status, as far as it was known before reporters were through.
    pub exit: u8,
    /// Why it ended early, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Leases that may still hold something.
    #[serde(default)]
    pub uncertain: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::verdict::Cause;

    #[test]
    fn records_are_flat_and_survive_json() {
        let record =
            Record { at: 5, what: What::Verdict { test: 3, verdict: Verdict::NotRun(Cause::NoMachine) } };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"at":5,"what":"verdict","test":3,"verdict":{"not-run":{"code":"no-machine"}}}"#);
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn a_record_of_a_later_version_is_passed_over() {
        let record: Record = serde_json::from_str(r#"{"at":1,"what":"teleported","where":"moon"}"#).unwrap();
        assert_eq!(record.what, What::Unknown);
    }
}
