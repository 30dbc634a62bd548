//! Reporters: they publish what happened.
//!
//! A reporter is told everything that a run's journal holds, in order, from a thread of its own; it may be slow, nobody
//! waits for it before the end of the run. All data are structs that cross as JSON: both sides ignore fields they do not
//! know, and words of enumerations that they do not know become `Unknown`.
//!
//! # Order
//!
//! [`run_started`](Reporter::run_started), all of [`promised`](Reporter::promised), then machine events, test events and
//! finished executions as they come, then [`run_ended`](Reporter::run_ended). Every promised test gets exactly one
//! [`Finished`] with [`last`](Finished::last) set.
//!
//! # Repetition
//!
//! After a host died and was started again, or by `atex-host report`, a reporter is made anew and told of the same run
//! with [`RunStarted::continued`] set. It is told everything from the beginning, unless [`ReporterWants::continues`]
//! says that it remembers: then it is told only what it has not returned from before. An event during which the host died comes
//! again in both cases.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::host::Host;
use crate::model::Facts;
use crate::plugin::Plugin;

/// Milliseconds of Unix time.
pub type UnixMs = u64;

/// What a reporter wants to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReporterWants {
    /// Keys of test metadata that [`Promised::metadata`] should have.
    pub metadata: Vec<String>,
    /// [`Reporter::machine`] wants to be called.
    pub machines: bool,
    /// [`Reporter::test`] wants to be called.
    pub tests: bool,
    /// After a restart go on where it stopped, instead of from the beginning.
    pub continues: bool,
}

/// A run begins, or is reported again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RunStarted {
    /// The run's id.
    pub run: String,
    /// Who started it, e.g. `nightly@lab`.
    pub owner: String,
    /// The run directory, absolute.
    pub directory: PathBuf,
    /// When it began.
    pub started: UnixMs,
    /// Number of tests that are going to be promised.
    pub tests: u64,
    /// Its targets.
    pub platforms: Vec<Platform>,
    /// This run was reported before, in part or completely: what is there of it may be replaced.
    pub continued: bool,
    /// Program and version of the host.
    pub host: String,
}

/// A target of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Platform {
    /// Its name, as in results.
    pub name: String,
    /// Its dimensions (`distro`, `arch`, ...) with their values.
    pub context: BTreeMap<String, Vec<String>>,
}

/// A test that will have a verdict by the end of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Promised {
    /// Name of its platform.
    pub platform: String,
    /// Name of the test.
    pub test: String,
    /// The keys of [`ReporterWants::metadata`] that the test has.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Something happened to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MachineEvent {
    /// When.
    pub at: UnixMs,
    /// What.
    pub change: MachineChange,
    /// Name of the platform it is for.
    pub platform: String,
    /// Name of the pool.
    pub pool: String,
    /// Id of the lease.
    pub lease: String,
    /// The provisioner's name for the machine; empty before there is one.
    pub machine: String,
    /// What is known of it.
    pub facts: Facts,
    /// Why, for failures and losses.
    pub note: Option<String>,
}

/// See [`MachineEvent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MachineChange {
    /// It was asked for.
    Requested,
    /// The provisioner handed it out.
    Reserved,
    /// The provisioner did not.
    ReserveFailed,
    /// It takes tests.
    Ready,
    /// Its preparation failed.
    SetupFailed,
    /// It went away by itself.
    Lost,
    /// It was given back.
    Released,
    /// It could not be given back.
    ReleaseFailed,
    /// A word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something happened to an execution of a test that is not over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TestEvent {
    /// When.
    pub at: UnixMs,
    /// What.
    pub change: TestChange,
    /// Name of its platform.
    pub platform: String,
    /// Name of the test.
    pub test: String,
    /// Number of the execution in the run.
    pub execution: u64,
    /// Earlier executions of the test that counted.
    pub attempt: u32,
    /// The machine it runs on.
    pub machine: String,
}

/// See [`TestEvent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TestChange {
    /// It runs.
    Started,
    /// The machine reboots and the test goes on.
    Rebooting,
    /// A word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// An execution of a test ended, or the run ended without one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Finished {
    /// Name of its platform.
    pub platform: String,
    /// Name of the test.
    pub test: String,
    /// Number of the execution in the run; `None` for a test that never ran.
    pub execution: Option<u64>,
    /// Earlier executions of the test that counted.
    pub attempt: u32,
    /// This is the final verdict; otherwise the test was run again later, and this is an old result.
    pub last: bool,
    /// What it means for the run.
    pub verdict: Verdict,
    /// The test's own status: `pass`, `fail`, `info`, `warn`, `skip`, `error`, `infra` or a word of the test's.
    pub status: String,
    /// Free text, e.g. why the host ended it.
    pub note: Option<String>,
    /// When it began; 0 for a test that never ran.
    pub started: UnixMs,
    /// When it ended; for a test that never ran, when that was decided.
    pub ended: UnixMs,
    /// Milliseconds the test itself took.
    pub duration: u64,
    /// The provisioner's name for the machine; empty if there was none.
    pub machine: String,
    /// What is known of the machine.
    pub facts: Facts,
    /// Directory with `results` (one JSON object per line) and `files/`; `None` for a test that never ran. A result's files
    /// are in `files/<its name>/`. The directory is the host's: reporters link or copy, and never change it.
    pub artifacts: Option<PathBuf>,
}

/// What an execution means for the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// pass, info, skip, warn
    Passed,
    /// fail, error, a word of the test's own, its time limit, a protocol error
    Failed,
    /// No verdict of the test's own: machine lost, setup failed, never run.
    Infra,
    /// A word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The run is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RunEnded {
    /// When.
    pub ended: UnixMs,
    /// Verdicts by sort.
    pub passed: u64,
    /// See [`Verdict::Failed`].
    pub failed: u64,
    /// See [`Verdict::Infra`].
    pub infra: u64,
    /// Exit status of the host, as far as it is known now.
    pub exit: i32,
    /// Why it ended early, if it did.
    pub cause: Option<String>,
}

/// One line of an artifacts directory's `results`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ResultLine {
    /// `None`: the test said nothing about how it went.
    pub status: Option<String>,
    /// The subtest; `None`: the test itself.
    pub name: Option<String>,
    /// Free text.
    pub note: Option<String>,
    /// Relative names below `files/<name>/`.
    pub files: Vec<String>,
    /// Keys without a meaning of their own.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Publishes what happened; see the [module](self) for order and repetition.
///
/// All methods are called from one thread, one at a time. An error is logged under the reporter's name and counts for the
/// exit status of the host (6); the next event comes all the same. There is no limit for a single call while the run goes
/// on; after its end the reporter has 5 minutes for all that is left, if the configuration does not say otherwise.
pub trait Reporter: Plugin + Send {
    /// What it wants to be told. Called once, first.
    fn wants(&self) -> ReporterWants {
        ReporterWants::default()
    }
    /// The run begins. Called once.
    fn run_started(&mut self, _run: &RunStarted, _host: &Host) -> Result<()> {
        Ok(())
    }
    /// All tests of the run, in blocks of up to 1,024.
    fn promised(&mut self, _tests: &[Promised], _host: &Host) -> Result<()> {
        Ok(())
    }
    /// Called if [`ReporterWants::machines`] is set.
    fn machine(&mut self, _event: &MachineEvent, _host: &Host) -> Result<()> {
        Ok(())
    }
    /// Called if [`ReporterWants::tests`] is set.
    fn test(&mut self, _event: &TestEvent, _host: &Host) -> Result<()> {
        Ok(())
    }
    /// An execution ended. When this returns, the result is published as durably as the reporter promises.
    fn finished(&mut self, finished: &Finished, host: &Host) -> Result<()>;
    /// The run is over; the last call. A run that is resumed later is told to a new reporter.
    fn run_ended(&mut self, _end: &RunEnded, _host: &Host) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_fields_of_later_versions_are_survived() {
        let event: MachineEvent =
            serde_json::from_str(r#"{"change": "painted", "colour": "blue", "lease": "a1"}"#).unwrap();
        assert_eq!((event.change, event.lease.as_str()), (MachineChange::Unknown, "a1"));
        let finished: Finished = serde_json::from_str(r#"{"verdict": "excellent"}"#).unwrap();
        assert_eq!(finished.verdict, Verdict::Unknown);
    }

    #[test]
    fn result_lines_keep_what_they_do_not_know() {
        let text = r#"{"status":"pass","files":["a"],"cpu":{"s":1}}"#;
        let line: ResultLine = serde_json::from_str(text).unwrap();
        assert_eq!(line.other["cpu"]["s"], 1);
        assert_eq!(line.name, None);
    }
}
