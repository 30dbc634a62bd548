//! Scheduler policies: what an author writes to say in which order tests run and what a finished run means.
//!
//! A policy never picks from a queue. It says how tests *rank*; the host owns the queue. Policies form a chain. Each
//! contributes one level, the pair *(score of the test's class on this machine now, score of the test)*, bigger is sooner.
//! Levels compare in the order of the chain; the last tie goes to the test that was queued first.
//!
//! # Purity
//!
//! Only [`Policy::register`], [`Policy::ready`], [`Policy::kind`] and [`Policy::note`] may change a policy, and everything
//! that changes it comes in through their arguments: a policy has no clock and no random numbers of its own. The host
//! rebuilds a policy by replaying those calls, after a crash and in a simulation, and gets the same policy.
//!
//! # Threads
//!
//! All calls of one policy come from one thread, one at a time. A call that takes longer than the host's limit (5 s) is
//! answered by the host's own order instead, and the run's report says so.

use crate::error::Result;

/// Dense number of a test in the run, from 0.
pub type TestId = u32;
/// Dense number of a machine in the run, from 0, never used again.
pub type MachineId = u32;
/// A policy's own grouping of tests; small numbers are cheap, a class per test is allowed.
pub type Class = u32;
/// Milliseconds, since the run began for points in time.
pub type Ms = u64;

/// "No such test" and "no such machine".
pub const NONE: u32 = u32::MAX;
/// "Not on this machine" (in [`Prefer`]) or "not on machines of this kind" (in [`Rank`]).
pub const VETO: i64 = i64::MIN;
/// [`TestInfo::claim`] of a test that needs a machine for itself.
pub const WHOLE_MACHINE: u16 = u16::MAX;

/// What a policy wants to see and be asked; the host shows and calls nothing else. Asked right after the policy was made, and once
/// more after [`Policy::ready`]: a policy that has nothing to say about these tests can want less by then, and what nobody
/// wants to be asked costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Wants {
    /// Keys of test metadata; [`TestInfo::attrs`] has their values in this order, `""` if absent. A list is joined by `\n`,
    /// anything else that is no string comes as JSON.
    pub attrs: Vec<String>,
    /// Facts of machines. Machines with equal values of all these facts are one *kind* for this policy.
    pub facts: Vec<String>,
    /// [`Policy::rank`] has something to say; otherwise every test is of class 0 and score 0.
    pub rank: bool,
    /// [`Policy::prefer`] has something to say.
    pub prefer: bool,
    /// [`Policy::prefer`] is shown the classes of this many best groups of tests; 0 for a policy that knows its classes.
    pub window: u32,
    /// [`Policy::judge`] has something to say.
    pub judge: bool,
    /// [`Policy::note`] wants to be called.
    pub notes: bool,
}

impl Wants {
    /// Nothing; the methods of the same names as the fields add to it.
    pub fn new() -> Self {
        Self::default()
    }
    /// Wants to see these keys of test metadata, in this order.
    #[must_use]
    pub fn attrs<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.attrs = keys.into_iter().map(Into::into).collect();
        self
    }
    /// Wants to see these facts of machines, in this order.
    #[must_use]
    pub fn facts<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.facts = keys.into_iter().map(Into::into).collect();
        self
    }
    /// Wants [`Policy::rank`] to be called.
    #[must_use]
    pub fn rank(mut self) -> Self {
        self.rank = true;
        self
    }
    /// Wants [`Policy::prefer`] to be called, without a window.
    #[must_use]
    pub fn prefer(mut self) -> Self {
        self.prefer = true;
        self
    }
    /// Wants [`Policy::judge`] to be called.
    #[must_use]
    pub fn judge(mut self) -> Self {
        self.judge = true;
        self
    }
    /// Wants [`Policy::note`] to be called.
    #[must_use]
    pub fn notes(mut self) -> Self {
        self.notes = true;
        self
    }

    /// What is left of these wants when `later` is what the policy says once it knows the tests: it is called for less, never
    /// for more, and sees the same.
    #[must_use]
    pub fn narrowed(mut self, later: &Self) -> Self {
        self.rank &= later.rank;
        self.prefer &= later.prefer;
        self.judge &= later.judge;
        self.notes &= later.notes;
        self
    }
}

/// A test of the run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TestInfo<'a> {
    /// Its number; tests are registered in the order of their numbers.
    pub id: TestId,
    /// Dense number of the platform.
    pub platform: u16,
    /// Slots it takes; [`WHOLE_MACHINE`] for all of them.
    pub claim: u16,
    /// `duration` of the metadata: a limit, not an estimate.
    pub limit: Ms,
    /// How long it will take, from history; 0 if unknown.
    pub expected: Ms,
    /// How often a run of it failed in history, in 1/1000; 0 if unknown.
    pub fail_rate: u16,
    /// Its name.
    pub name: &'a str,
    /// Values of [`Wants::attrs`].
    pub attrs: &'a [&'a str],
}

impl<'a> TestInfo<'a> {
    /// A test that takes one slot, on platform 0, with the default limit of 5 minutes.
    pub fn new(id: TestId, name: &'a str, attrs: &'a [&'a str]) -> Self {
        Self { id, platform: 0, claim: 1, limit: 300_000, expected: 0, fail_rate: 0, name, attrs }
    }
}

/// A test at the moment it is queued, for the first time or again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// The test.
    pub test: TestId,
    /// Judged runs it had so far.
    pub attempt: u16,
    /// Machine of the last one, or [`NONE`].
    pub last_machine: MachineId,
}

impl Queued {
    /// A test that had `attempt` judged runs, the last one on `last_machine`.
    pub fn new(test: TestId, attempt: u16, last_machine: MachineId) -> Self {
        Self { test, attempt, last_machine }
    }
    /// A test queued for the first time.
    pub fn first(test: TestId) -> Self {
        Self { test, attempt: 0, last_machine: NONE }
    }
}

/// How a test ranks among others, on any machine of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rank {
    /// Its group, whose score [`Policy::prefer`] may change.
    pub class: Class,
    /// Bigger is sooner; [`VETO`]: never on machines of this kind.
    pub score: i64,
}

/// A machine with room, at the moment the host looks for its next test.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct View<'a> {
    /// Time of the question.
    pub now: Ms,
    /// The machine.
    pub machine: MachineId,
    /// As announced by [`Policy::kind`].
    pub kind: u32,
    /// Its platform.
    pub platform: u16,
    /// Slots that are free.
    pub free: u16,
    /// Slots the machine has.
    pub slots: u16,
    /// Finished runs on it; 0: fresh.
    pub ran: u32,
    /// Last finished run, or [`NONE`].
    pub last: TestId,
    /// Whether that one passed.
    pub last_ok: bool,
    /// Tests that run there now.
    pub running: &'a [TestId],
    /// What tests left on the machine with the control word `machine K=V`, in order of the keys.
    pub labels: &'a [(&'a str, &'a str)],
}

impl View<'_> {
    /// A fresh machine with one free slot, of kind 0 and platform 0.
    pub fn new(machine: MachineId) -> Self {
        Self {
            now: 0,
            machine,
            kind: 0,
            platform: 0,
            free: 1,
            slots: 1,
            ran: 0,
            last: NONE,
            last_ok: true,
            running: &[],
            labels: &[],
        }
    }
}

/// A wish for one machine. Classes not named have score 0: name the exceptions, not the rule ("destructive -1", not
/// "everything else +1").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// Lift, lower or [`VETO`] a class.
    Class(Class, i64),
    /// Lift one test. It cannot be lowered: give it a class of its own for that.
    Test(TestId, i64),
}

/// How a run of a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Outcome {
    /// The test's own status was pass, info, skip or warn.
    Passed = 1,
    /// The test's own status was anything else.
    Failed = 2,
    /// The host ended it at its time limit.
    TimedOut = 3,
    /// It broke the control channel's protocol.
    Protocol = 4,
    /// The host ended it for another reason of the test's own: too much data, too many results.
    Limit = 5,
}

/// A finished run, to be judged.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Run<'a> {
    /// When it ended.
    pub now: Ms,
    /// The test.
    pub test: TestId,
    /// Where it ran.
    pub machine: MachineId,
    /// Judged runs before this one.
    pub attempt: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Exit status of the test, 128 + number for a signal, or -1 if it never told.
    pub exit: i32,
    /// Time from start to end.
    pub wall: Ms,
    /// The test's own status as it reported it (`pass`, `fail`, ..., a custom word).
    pub status: &'a str,
}

impl Run<'_> {
    /// A first run that took no time; the exit status is unknown and the test reported nothing.
    pub fn new(test: TestId, machine: MachineId, outcome: Outcome) -> Self {
        Self { now: 0, test, machine, attempt: 0, outcome, exit: -1, wall: 0, status: "" }
    }
}

/// The first policy of the chain with an opinion decides each question. If nobody has one: no rerun; the machine is spoilt
/// if the host had to end the test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// Run it again?
    pub rerun: Option<bool>,
    /// May the machine not be used again?
    pub spoilt: Option<bool>,
    /// Start no further test in this run.
    pub stop: bool,
}

impl Judgement {
    /// No opinion.
    pub const NONE: Self = Self { rerun: None, spoilt: None, stop: false };

    /// Only an opinion on whether it runs again.
    pub fn rerun(yes: bool) -> Self {
        Self { rerun: Some(yes), ..Self::NONE }
    }
    /// Only an opinion on the machine.
    pub fn spoilt(yes: bool) -> Self {
        Self { spoilt: Some(yes), ..Self::NONE }
    }
    /// No further test is to start.
    pub fn stop() -> Self {
        Self { stop: true, ..Self::NONE }
    }
}

/// What happened. The only thing besides registration that may change a policy's state.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Note<'a> {
    /// A test started on a machine.
    Started {
        /// The test.
        test: TestId,
        /// Where.
        machine: MachineId,
    },
    /// A run was judged; `last`: the test has its verdict and does not run again.
    Finished {
        /// The run.
        run: Run<'a>,
        /// Whether it was the test's last one.
        last: bool,
    },
    /// A test left a fact on a machine.
    Label {
        /// Where.
        machine: MachineId,
        /// Name of the fact.
        key: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// A machine was given back or lost.
    Gone {
        /// Which.
        machine: MachineId,
    },
    /// The point in time that the policy asked for by [`Command::WakeAt`].
    Time,
}

/// What a policy may ask for, from [`Policy::ready`] and [`Policy::note`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Give a queued test the verdict "not run", with a reason for the report.
    Skip(TestId, String),
    /// Ask [`Policy::rank`] again for a queued test, because its rank changed.
    Rerank(TestId),
    /// Start no further test, with a reason for the report.
    Stop(String),
    /// Call [`Policy::note`] with [`Note::Time`] then. Each policy has one wake-up; a new one replaces it.
    WakeAt(Ms),
}

/// What comes with the first call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RunInfo {
    /// For everything random: the same seed makes the same schedule.
    pub seed: u64,
    /// Number of tests that will be registered.
    pub tests: u32,
    /// Number of platforms.
    pub platforms: u16,
}

impl RunInfo {
    /// A run of so many tests.
    pub fn new(seed: u64, tests: u32, platforms: u16) -> Self {
        Self { seed, tests, platforms }
    }
}

/// A scheduler policy; see the [module](self) for the rules. Everything but [`wants`](Self::wants) has a default.
pub trait Policy: Send + 'static {
    /// What this policy wants to see. Called first, and again after [`ready`](Self::ready), when it may want less: see [`Wants`].
    fn wants(&self) -> Wants;

    /// All tests of the run, in blocks of up to 1,024. Keep what you need: the slices end with the call.
    fn register(&mut self, _run: &RunInfo, _tests: &[TestInfo<'_>]) -> Result<()> {
        Ok(())
    }
    /// After the last block.
    fn ready(&mut self, _out: &mut Vec<Command>) -> Result<()> {
        Ok(())
    }
    /// A kind of machine, before the first machine of it is asked about; `facts` in the order of [`Wants::facts`].
    fn kind(&mut self, _kind: u32, _facts: &[&str]) -> Result<()> {
        Ok(())
    }
    /// Pushes one [`Rank`] per test. Called when tests are queued, per kind of machine, in blocks of up to 1,024.
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.resize(out.len() + tests.len(), Rank::default());
        Ok(())
    }
    /// Called per decision. `window` has the classes of the best groups ([`Wants::window`]).
    fn prefer(&self, _machine: &View<'_>, _window: &[Class], _out: &mut Vec<Prefer>) -> Result<()> {
        Ok(())
    }
    /// Called once per finished run. What was decided comes back as [`Note::Finished`].
    fn judge(&self, _run: &Run<'_>) -> Result<Judgement> {
        Ok(Judgement::NONE)
    }
    /// Called for everything that happened, if [`Wants::notes`].
    fn note(&mut self, _now: Ms, _note: &Note<'_>, _out: &mut Vec<Command>) -> Result<()> {
        Ok(())
    }
}
