//! What the engine tells an executor and what it hears back: plain data, no behaviour.
//!
//! A [`MachineSpec`] starts one worker thread, which owns the connection to that machine until it reports
//! [`Report::HandedBack`] or [`Report::Lost`]. [`Order`]s go in, [`Report`]s come out; both are values, so that a run can be
//! written down and a worker can be tested without an engine.
//!
//! Names, sizes and environment have been checked by whoever made these values: names of variables are shell identifiers,
//! [`TestSpec::cwd`] is relative and has no `..`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::config::Dialect;
pub use atex_plugin_api::model::Facts;
use atex_plugin_api::model::Transport;

/// Names and values of environment variables, in order; a later one of the same name wins.
pub type Variables = Vec<(String, String)>;

/// How to get to one machine, and how long to be patient with it.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Names the thread and appears in messages: `m7`, a lease id, ...
    pub name: String,
    pub transport: Transport,
    /// The machine is destroyed after its release: nothing is cleaned up on it.
    pub disposable: bool,
    /// Host keys that were accepted for this pool, one OpenSSH line each; made when the first one is accepted.
    pub known_hosts: Option<PathBuf>,
    /// How long the machine may take until a first connection works.
    pub boot_time: Duration,
    /// Within this time of the last sign of life, both sides know that the other one is gone. Less than 10 s counts as 10 s.
    pub keepalive: Duration,
}

impl MachineSpec {
    /// Silence after which a side takes the other one for dead. A connection on a busy box may be silent for some seconds.
    pub(crate) fn silence(&self) -> Duration {
        self.keepalive.max(Duration::from_secs(10))
    }
}

/// One platform: what is the same for all tests of a machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// What makes the tree on the machine, in this order; the first is its root. Uploaded without `.git`, without
    /// directories that hold a `run.json`, and without caches (those that hold a `CACHEDIR.TAG`).
    pub layers: Vec<Layer>,
    pub uploads: Vec<Upload>,
    /// For prepare and finish scripts: the plan's, its `environment-file` and the run's.
    pub environment: Variables,
    /// In order of execution; those that `when` rules out are gone.
    pub prepare: Vec<Phase>,
    pub finish: Vec<Phase>,
    pub dialect: Dialect,
    /// How many tests may run at a time, each in its own copy of the tree; at least 1.
    pub slots: u16,
    pub limits: Limits,
    /// Whether a `tmt-reboot` without a command may reboot the machine from inside. `false` for containers and for the box
    /// that the host itself runs on: it is then reset by its provisioner, or the helper fails with a message.
    pub may_reboot: bool,
    /// Whether its provisioner can reset the machine: [`Report::Reset`] is answered by [`Order::WasReset`].
    pub may_reset: bool,
}

/// A directory of this box that becomes a part of the tree on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub from: PathBuf,
    /// Relative to the root on the machine, without `..`; empty for the root itself.
    pub to: String,
}

/// Something sent to each machine before the first prepare phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// A file or a directory on this side.
    pub from: PathBuf,
    /// Its new name on the machine, absolute.
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a test may send over its control channel and into its log, together.
    pub bytes_per_test: u64,
    pub results_per_test: u64,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// For all prepare phases together, and for all finish phases.
    pub phase_time: Duration,
    /// Bytes of a test's log that are kept: the first and the last half of it.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_per_test: 2 << 30,
            results_per_test: 1_000_000,
            grace: Duration::from_secs(10),
            phase_time: Duration::from_hours(1),
            log_bytes: 256 << 20,
        }
    }
}

/// One step of a plan's `prepare` or `finish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// For messages: `prepare /default-0`.
    pub name: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Each script is run by bash like a test's, in the root of the tree.
    Shell {
        scripts: Vec<String>,
    },
    Install(Packages),
    /// Runs on this side, `ansible-playbook` with the machine as its only host; ssh only.
    Ansible {
        playbooks: Vec<PathBuf>,
        extra_args: Vec<String>,
    },
}

/// Packages for the machine's own package manager; only those that are missing are installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// Names, file names beginning with `/`, or capabilities such as `perl(Carp)`.
    pub required: Vec<String>,
    /// Tried one by one; what cannot be had is named in the log, and no more.
    pub recommended: Vec<String>,
    pub exclude: Vec<String>,
    /// `missing: skip`: what the repositories do not have is no error.
    pub skip_missing: bool,
    pub copr: Vec<String>,
    /// Enable EPEL first.
    pub epel: bool,
    /// Package files in the tree, relative to its root, installed from the machine's copy.
    pub files: Vec<String>,
}

impl Packages {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.recommended.is_empty()
            && self.copr.is_empty()
            && !self.epel
            && self.files.is_empty()
    }
}

/// One test of the plan, as its platform sees it.
#[derive(Debug, Clone)]
pub struct TestSpec {
    pub name: String,
    /// Directory relative to the root of the tree, `""` for the root itself.
    pub cwd: String,
    /// Run by bash with `set -e -o pipefail`.
    pub script: String,
    pub tty: bool,
    pub duration: Duration,
    pub environment: TestEnvironment,
    /// The final metadata, as a YAML document.
    pub metadata: String,
    pub framework: Framework,
    pub result: ResultRule,
    pub restart: Option<Restart>,
    pub checks: Vec<Check>,
    /// Installed before the test, once per machine.
    pub packages: Packages,
}

/// What a test gets besides the fixed variables of the host, which stand between the two parts.
///
/// Dialect tmt: everything is in `below`, the test's own first, then the plan's, then the run's. Dialect atex: the plan's is
/// `below`, the test's and then the run's are `above`. What scripts wrote into `TMT_PLAN_ENVIRONMENT_FILE` comes right after
/// `below`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestEnvironment {
    pub below: Variables,
    pub above: Variables,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framework {
    #[default]
    Shell,
    Beakerlib,
}

/// tmt's `result`: what the outcome of a test means. Dialect atex always has [`Respect`](Self::Respect).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResultRule {
    #[default]
    Respect,
    /// `pass` and `fail` change places.
    Xfail,
    Pass,
    Info,
    Warn,
    Error,
    Fail,
    Skip,
    /// The test writes `results.yaml` or `results.json` into `TMT_TEST_DATA`.
    Custom,
    /// Every reported result is a result of its own, and the exit status says nothing.
    Restraint,
}

/// `restart-on-exit-code` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    pub codes: Vec<i32>,
    /// At most 10.
    pub max: u8,
    pub with_reboot: bool,
}

/// One entry of tmt's `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `dmesg`, `avc`, `coredump`, `journal`.
    pub how: String,
    pub result: CheckRule,
    /// Patterns that make `dmesg` and `journal` fail, extended regular expressions; the built-in ones if empty.
    pub failure_patterns: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckRule {
    /// A failed check fails the test.
    #[default]
    Respect,
    Xfail,
    /// Shown, and no more.
    Info,
}

/// What the engine wants of a machine.
#[derive(Debug)]
pub enum Order {
    /// Upload and prepare. Once, after [`Report::Connected`].
    Setup(Arc<Site>),
    Run(Box<RunOrder>),
    /// End this run as cancelled; there will be a [`Report::Finished`] for it unless there was one already.
    Cancel {
        execution: u64,
    },
    /// When running tests are through: finish phases, clean up unless disposable, disconnect.
    HandBack,
    /// The answer to [`Report::Reset`]: the reset was carried out, or why not.
    WasReset(Result<(), String>),
    /// Let go at once, whatever is running. The machine's side cleans up by itself if it still can.
    Abandon,
}

#[derive(Debug)]
pub struct RunOrder {
    /// Unique in the run of the host.
    pub execution: u64,
    pub test: Arc<TestSpec>,
    /// Below [`Site::slots`], and free.
    pub slot: u16,
    /// Number of the test in the plan, from 1 (`TMT_TEST_SERIAL_NUMBER`).
    pub serial: u32,
    /// What `machine K=V` and the host know of this machine goes along into the artifacts.
    pub attempt: u32,
    /// Final directory of the artifacts: appears complete or not at all.
    pub artifacts: PathBuf,
}

/// What the engine hears of a machine. Reports of one machine come in order, from its thread.
#[derive(Debug)]
pub enum Report {
    /// The machine answers; these are its own facts.
    Connected {
        facts: Facts,
    },
    /// Setup is through: tests may come.
    Ready,
    /// Setup failed, the machine is of no use for this platform. Still connected: hand it back.
    SetupFailed {
        error: String,
    },
    /// The test's process runs; also after the first of its reboots only.
    Started {
        execution: u64,
    },
    /// By when the worker will have ended the run if the test does not end by itself: a test may change its own limit.
    /// `None`: its clock stands still, or it is not the test that runs but what comes before or after it. Told when it
    /// is not what [`TestSpec::duration`] says.
    Deadline {
        execution: u64,
        until: Option<Instant>,
    },
    /// A test has announced that the machine goes away: it is waited for.
    Away,
    /// It is back.
    Back,
    /// A test wants the machine reset by its provisioner. Answer: [`Order::WasReset`].
    Reset,
    /// One complete line of the artifacts' `results`, as it was written.
    ResultLine {
        execution: u64,
        json: String,
    },
    /// `machine K=V` of a test.
    Label {
        execution: u64,
        key: String,
        value: String,
    },
    Finished(Box<RunReport>),
    /// The connection is gone for good; running tests were finished as lost. Last report.
    Lost {
        reason: String,
    },
    /// Last report. Problems are what was found or could not be done; the machine is to be released in any case.
    HandedBack {
        problems: Vec<String>,
    },
}

/// How one run of one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    pub execution: u64,
    pub ended: Ended,
    /// Status of the last result of the test's own: `pass`, `fail`, ..., `infra`.
    pub status: String,
    pub note: Option<String>,
    /// Unix time in milliseconds.
    pub started_ms: u64,
    pub ended_ms: u64,
    /// What the test used of its own limit.
    pub duration_ms: u64,
    /// Lines in `results`.
    pub results: u64,
    pub artifacts: Option<Published>,
}

/// Why a run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The test's own exit status; 128 + n for signal n.
    Exited(i32),
    TimedOut,
    /// The test broke a rule of the control channel; says which line and rule.
    Protocol(String),
    /// It went over a limit; says which.
    Limit(String),
    /// It could not be started: packages, directory, terminal, work directory.
    NotStarted(String),
    /// The test asked for the end of everything (`tmt-abort`).
    Aborted,
    Cancelled,
    Lost(String),
    /// The host could not record it, for want of disk space for example.
    Host(String),
}

/// One line for people: the note of a run that the host ended.
impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::TimedOut => f.write_str("the test's duration is used up"),
            Self::Protocol(why) => write!(f, "protocol error: {why}"),
            Self::Limit(why) => write!(f, "limit exceeded: {why}"),
            Self::NotStarted(why) => write!(f, "not started: {why}"),
            Self::Aborted => f.write_str("the test asked for the end of the run"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Lost(why) => write!(f, "machine lost: {why}"),
            Self::Host(why) => write!(f, "the host cannot go on: {why}"),
        }
    }
}

impl Ended {
    /// The exit status to show: that of the test, else -1.
    pub fn exit(&self) -> i32 {
        match self {
            Self::Exited(status) => *status,
            _ => -1,
        }
    }
}

/// Artifacts in their final place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub directory: PathBuf,
    /// Of all files together.
    pub bytes: u64,
    /// SHA-256 of `results`, in hexadecimal digits.
    pub digest: String,
}

/// Unix time in milliseconds; 0 before 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
