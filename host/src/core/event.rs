//! What goes into the coordinator and what comes out of it.
//!
//! The engine turns everything that happens (answers of provisioners, of machines and of policies, signals, time) into an
//! [`Event`], hands it to [`Coordinator::step`](super::Coordinator::step), and carries out the [`Action`]s that come back,
//! in their order. Nothing here refers to a thread, a path or a plugin: only dense numbers, which the engine maps to names.
//!
//! Nothing stale counts. Each execution of a test has an [`ExecutionId`] of its own, each question to policies an
//! [`AskId`], each set-up of a machine a number; an event that carries an old one changes nothing. Answers may therefore be
//! late, repeated or missing, in any state.

use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy as api;
use serde::{Deserialize, Serialize};

pub use atex_plugin_api::policy::{
    Class, Command, Judgement, MachineId, Ms, NONE, Outcome, Prefer, Queued, Rank, TestId, VETO,
};

use super::verdict::{Cause, Verdict, outcome_word};

/// Number of a machine and of our claim on it; dense, never used again, not even after a resume.
pub type LeaseId = MachineId;
/// Number of one execution of one test; unique in the run, also over resumes.
pub type ExecutionId = u64;
/// Number of one question to a chain of policies.
pub type AskId = u64;
/// Dense number of a platform.
pub type PlatformId = u16;
/// Dense number of a pool of machines.
pub type PoolId = u16;
/// Dense number of a chain of policies: platforms may have policies of their own.
pub type ChainId = u16;

/// How a provisioner refused a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Nothing is free just now. Tried again for as long as a reservation may take.
    Busy,
    /// It failed; trying again may help. Limited by number.
    Failed,
    /// Trying again cannot help (configuration, credentials): the pool is given up at once.
    Final,
}

impl From<&atex_plugin_api::Error> for Refusal {
    fn from(error: &atex_plugin_api::Error) -> Self {
        use atex_plugin_api::ErrorKind::{Busy, Config, Denied, Unsupported};
        match error.kind() {
            Busy => Self::Busy,
            Config | Denied | Unsupported => Self::Final,
            _ => Self::Failed,
        }
    }
}

/// How far the run is to be cut short; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// First signal: tests that run are cancelled and reported, every machine is released.
    Finish,
    /// Second signal: nobody waits for the cancelled tests, machines are released at once.
    Release,
    /// Third signal: leave with what is on disk.
    Leave,
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed ([`next_deadline`](super::Coordinator::next_deadline)); also a fit first event.
    Tick,

    /// `reserve` came back with a machine. `expires`: when the provider takes it away, if it does.
    Reserved { lease: LeaseId, expires: Option<Ms> },
    /// `reserve` came back without one. `certain`: it is known that nothing came into being; false for a call that was cut
    /// off, that panicked, or whose outcome is unknown for another reason.
    ReserveFailed { lease: LeaseId, refusal: Refusal, certain: bool },
    /// The facts of a machine are known: at any time from [`Reserved`](Self::Reserved) to [`SetUp`](Self::SetUp). A machine
    /// that never tells is of the kind without facts.
    Identified { lease: LeaseId, facts: Arc<Facts> },
    /// A set-up ended well. `setup` is the number from [`Action::Setup`].
    SetUp { lease: LeaseId, setup: u32 },
    /// A set-up failed, or the machine does not fit its platform. `lost`: it could not be reached, or not any more.
    SetupFailed { lease: LeaseId, setup: u32, lost: bool },
    /// A test left a fact on the machine (control word `machine K=V`).
    Label { lease: LeaseId, key: Arc<str>, value: Arc<str> },
    /// The machine is dead or unreachable; all its executions are lost.
    Lost { lease: LeaseId },
    /// A test has announced that the machine goes away on purpose: it reboots.
    Away { lease: LeaseId },
    /// It came back.
    Back { lease: LeaseId },
    /// Answer to [`Action::Probe`]; `None`: the provider cannot tell.
    Probed { lease: LeaseId, alive: Option<bool> },
    /// The provider will keep the machine until `expires` (`None`: for good).
    Renewed { lease: LeaseId, expires: Option<Ms> },
    /// The provider did not promise to keep it longer. `again`: trying again may help.
    RenewFailed { lease: LeaseId, again: bool },
    /// `release` came back well, or an aborted reservation is known to have left nothing.
    Released { lease: LeaseId },
    /// `release` failed; it is tried again.
    ReleaseFailed { lease: LeaseId },
    /// It was confirmed that nothing of this lease exists any more ([`Action::Confirm`]).
    Absent { lease: LeaseId },

    /// A test ended, or the host ended it for a reason of the test's own.
    Finished { execution: ExecutionId, outcome: Outcome, exit: i32, status: Arc<str> },
    /// An execution ended because of [`Action::Cancel`].
    Cancelled { execution: ExecutionId },
    /// An execution was lost though the machine may live: it is not given another test.
    RunLost { execution: ExecutionId },
    /// The test changed its own time limit (control word `duration`); `None`: its clock stands still.
    Extended { execution: ExecutionId, until: Option<Ms> },

    /// Answer to [`Action::Rank`]: one rank per ranking level and test, test by test.
    Ranked { ask: AskId, ranks: Vec<Rank>, differ: Vec<u32> },
    /// Answer to [`Action::Ask`].
    Preferred { lease: LeaseId, ask: AskId, wishes: Vec<Wish> },
    /// Answer to [`Action::Judge`].
    Judged { execution: ExecutionId, ruling: Ruling },
    /// What policies of a chain ask for, each with the policy's position; in answer to a note or to the registration.
    Commands { chain: ChainId, commands: Vec<(u16, Command)> },

    /// The run is to end early: a signal, or a test that asked for it.
    Stop { level: Shutdown, cause: Cause },
}

/// Something to do. The engine carries out each exactly once, in this order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Ask the pool's provisioner for a machine. Answer: `Reserved` or `ReserveFailed`.
    Reserve { lease: LeaseId, pool: PoolId, platform: PlatformId },
    /// The reservation is not wanted any more. The answer is still that of `Reserve` itself.
    Abort { lease: LeaseId },
    /// Find out whether anything of this lease exists, and end it if so. Answer: `Absent` or `Released`, however late. The
    /// run does not wait for it.
    Confirm { lease: LeaseId },
    /// Prepare the machine for a platform: the one it was reserved for, or another one it is handed over to.
    Setup { lease: LeaseId, setup: u32, platform: PlatformId },
    /// Ask the provider to keep the machine for longer. Answer: `Renewed` or `RenewFailed`.
    Renew { lease: LeaseId },
    /// Ask the provider whether it still has the machine: it was lost, or has been away for long. Answer: `Probed`.
    Probe { lease: LeaseId },
    /// Give the machine back; nothing runs there any more that counts. `spoilt`: it must not be cleaned for others, only
    /// destroyed or reset. Answer: `Released` or `ReleaseFailed`.
    Release { lease: LeaseId, spoilt: bool },

    /// Run a test. `attempt`: judged runs before this one. `slot`: unique among the executions on that machine now.
    Run { lease: LeaseId, execution: ExecutionId, test: TestId, attempt: u16, slot: u16 },
    /// End an execution. Answer: `Cancelled`, or `Finished` if it was over already.
    Cancel { execution: ExecutionId },

    /// A kind of machine, for [`Chain::kind`](super::Chain::kind); before anything that names it.
    Kind { chain: ChainId, kind: Arc<KindInfo> },
    /// For [`Chain::rank`](super::Chain::rank).
    Rank { chain: ChainId, ask: AskId, kinds: Arc<[u32]>, tests: Arc<[Queued]> },
    /// For [`Chain::prefer`](super::Chain::prefer).
    Ask { chain: ChainId, lease: LeaseId, ask: AskId, question: Box<Question> },
    /// For [`Chain::judge`](super::Chain::judge).
    Judge { chain: ChainId, execution: ExecutionId, run: Box<FinishedRun> },
    /// For [`Chain::note`](super::Chain::note), in order; the journal keeps these for resume. They come even if no policy
    /// wants them.
    Note { chain: ChainId, now: Ms, note: Note },

    /// The one verdict of a test.
    Verdict { test: TestId, verdict: Verdict },
    /// Something people want to know about.
    Trouble(Trouble),
    /// The last action: every test has its verdict, and nothing is held but `uncertain` leases; or the run was left.
    Done { uncertain: u32 },
}

/// What one policy wishes for one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Position of the policy in its chain.
    pub level: u16,
    pub prefer: Prefer,
}

/// A kind of machine: equal in every fact that any policy of the chain asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindInfo {
    /// Dense number of the kind in its chain.
    pub kind: u32,
    /// Per policy, the number this kind has for it alone; policies that ask for fewer facts see fewer kinds.
    pub own: Vec<u32>,
    /// Own kinds that are new to their policy: position, number, values in the order of the wanted facts.
    pub news: Vec<(u16, u32, Vec<String>)>,
}

/// A machine with room, as [`api::View`], owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub now: Ms,
    pub machine: LeaseId,
    /// Number of [`KindInfo`].
    pub kind: u32,
    pub platform: PlatformId,
    pub free: u16,
    pub slots: u16,
    pub ran: u32,
    pub last: TestId,
    pub last_ok: bool,
    pub running: Vec<TestId>,
    pub labels: Option<Arc<Labels>>,
    /// Classes of the best groups of tests, for the policies that want to see them: position, classes.
    pub windows: Vec<(u16, Vec<Class>)>,
}

/// What tests left on a machine, ordered by key.
pub type Labels = std::collections::BTreeMap<Arc<str>, Arc<str>>;

/// What a whole chain makes of a finished run: on each question the first opinion counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Run it again?
    pub rerun: Option<bool>,
    /// May the machine not be used again?
    pub spoilt: Option<bool>,
    /// Position of the first policy that wants no further test to start.
    pub stop: Option<u16>,
}

impl Ruling {
    /// Nobody has an opinion.
    pub const NONE: Self = Self { rerun: None, spoilt: None, stop: None };
}

/// A finished run, as [`api::Run`], owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRun {
    pub now: Ms,
    pub test: TestId,
    pub machine: LeaseId,
    pub attempt: u16,
    #[serde(with = "outcome_word")]
    pub outcome: Outcome,
    pub exit: i32,
    pub wall: Ms,
    pub status: Arc<str>,
}

/// What happened, as [`api::Note`], owned. Replaying these in order rebuilds the policies of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    Started {
        test: TestId,
        machine: LeaseId,
    },
    Finished {
        run: Box<FinishedRun>,
        last: bool,
    },
    Label {
        machine: LeaseId,
        key: Arc<str>,
        value: Arc<str>,
    },
    Gone {
        machine: LeaseId,
    },
    /// The wake-up of the policy at this position.
    Time {
        policy: u16,
    },
}

/// Something the coordinator did on its own that people should know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// No more machines are asked of this pool: it refused for good, or too often.
    PoolGivenUp { pool: PoolId },
    /// No more machines are set up for this platform: too many set-ups in a row failed.
    PlatformGivenUp { platform: PlatformId },
    /// Machines of this pool come up, but the policies want none of the platform's tests there.
    PoolUnsuitable { pool: PoolId, platform: PlatformId },
    /// Tests kept failing on this machine that pass elsewhere: it is given back.
    MachinePutAside { lease: LeaseId },
    /// No word about an execution long after its limit: the machine is taken for dead.
    MachineSilent { lease: LeaseId },
    /// It is not known whether this lease still holds anything.
    LeaseUncertain { lease: LeaseId },
    /// The policies did not answer in time: the host's own order is used until they do.
    PoliciesSilent { chain: ChainId },
}

impl FinishedRun {
    /// As policies see it.
    pub fn as_api(&self) -> api::Run<'_> {
        let mut run = api::Run::new(self.test, self.machine, self.outcome);
        run.now = self.now;
        run.attempt = self.attempt;
        run.exit = self.exit;
        run.wall = self.wall;
        run.status = &self.status;
        run
    }
}
