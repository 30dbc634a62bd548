//! Leases: our claims on machines, from before a machine exists until it is known to be gone.
//!
//! ```text
//! Reserving ──> SettingUp ──> Ready ──> Draining
//!     │             └───────────┴──────────┤
//!     v                                    v
//! Aborting ─────────────────────────> Releasing ──> Gone
//!     └────────────> Uncertain <───────────┘  ^       │ (a reservation that answers after all)
//!                        └────────────────────┴<──────┘
//! ```

use std::sync::Arc;

use atex_plugin_api::model::Facts;

use crate::core::event::{AskId, ExecutionId, Labels, LeaseId, Ms, NONE, PlatformId, PoolId, TestId};

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The reservation is under way.
    Reserving,
    /// The reservation is under way and no longer wanted.
    Aborting,
    /// The machine is being prepared for its platform.
    SettingUp,
    /// Tests may start on it.
    Ready,
    /// No test starts on it any more; some still run.
    Draining,
    /// It is being given back.
    Releasing,
    /// It is not known whether there is a machine.
    Uncertain,
    /// There is no machine (any more).
    Gone,
}

impl State {
    /// Whether the run still has to do something with the lease.
    pub(crate) fn is_busy(self) -> bool {
        !matches!(self, Self::Uncertain | Self::Gone)
    }

    /// Whether the lease counts as a machine of its platform: one that works or will work.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Reserving | Self::SettingUp | Self::Ready | Self::Draining)
    }
}

/// An execution on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occupied {
    pub(crate) execution: ExecutionId,
    pub(crate) test: TestId,
    /// Unique on the machine.
    pub(crate) slot: u16,
    /// Slots taken.
    pub(crate) claim: u16,
}

/// A claim on a machine, and the machine.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) pool: PoolId,
    pub(crate) platform: PlatformId,
    pub(crate) state: State,
    /// When the reservation was asked for, or the machine handed over.
    pub(crate) since: Ms,
    /// `reserve` has come back: a second answer is a repetition.
    pub(crate) answered: bool,
    /// Number of the last set-up.
    pub(crate) setup: u32,
    pub(crate) facts: Option<Arc<Facts>>,
    pub(crate) kind: u32,
    /// Its place among the queues, once its kind is known.
    pub(crate) stall: u32,
    pub(crate) slots: u16,
    pub(crate) used: u16,
    pub(crate) running: Vec<Occupied>,
    /// Finished runs.
    pub(crate) ran: u32,
    pub(crate) last: TestId,
    pub(crate) last_ok: bool,
    /// Tests in a row that failed here.
    pub(crate) fails: u32,
    pub(crate) labels: Option<Arc<Labels>>,
    /// The question to the policies that is open.
    pub(crate) ask: Option<AskId>,
    /// A wide test that the machine runs empty for.
    pub(crate) waits_for: Option<TestId>,
    /// Not to be used again; a machine that is lost is spoilt too.
    pub(crate) spoilt: bool,
    /// Nobody gets to it any more: its provider is asked what became of it before it is given back.
    pub(crate) lost: bool,
    pub(crate) probe: Probe,
    pub(crate) expires: Option<Ms>,
    pub(crate) renewal: Renewal,
    /// A renewal was asked for, and the last answer was that the machine is kept for longer.
    pub(crate) renewed: Option<bool>,
    /// When `reserve`, a set-up, or `release` is overdue; runs, renewals and probes have their own.
    pub(crate) deadline: Ms,
    /// The earliest timer that is set for it.
    pub(crate) armed: Ms,
    /// Calls of `release` that failed.
    pub(crate) tries: u32,
    /// The next call of `release` waits for its time.
    pub(crate) pausing: bool,
    /// Its absence was not confirmed in time.
    pub(crate) stuck: bool,
}

/// What is done about the end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// A longer one is asked for at this time; [`Ms::MAX`]: it has no end.
    Planned(Ms),
    /// One was asked for; the answer is given up at this time.
    Asked(Ms),
    /// It ends, and nobody can help that: from this time on the machine gets no test.
    Final(Ms),
}

/// Whether its provider is asked what became of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It is where it should be.
    None,
    /// It is away on purpose, and asked about at this time.
    Planned(Ms),
    /// It was asked about; the answer is given up at this time.
    Asked(Ms),
}

impl Lease {
    pub(crate) fn new(pool: PoolId, platform: PlatformId, slots: u16, now: Ms) -> Self {
        Self {
            pool,
            platform,
            state: State::Reserving,
            since: now,
            answered: false,
            setup: 0,
            facts: None,
            kind: 0,
            stall: NONE,
            slots,
            used: 0,
            running: vec![],
            ran: 0,
            last: NONE,
            last_ok: true,
            fails: 0,
            labels: None,
            ask: None,
            waits_for: None,
            spoilt: false,
            lost: false,
            probe: Probe::None,
            expires: None,
            renewal: Renewal::Planned(Ms::MAX),
            renewed: None,
            deadline: Ms::MAX,
            armed: Ms::MAX,
            tries: 0,
            pausing: false,
            stuck: false,
        }
    }

    pub(crate) fn free(&self) -> u16 {
        self.slots.saturating_sub(self.used)
    }

    /// No test has been started on it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.ran == 0 && self.running.is_empty()
    }

    /// Occupies slots for an execution; returns the number of its slot.
    pub(crate) fn occupy(&mut self, execution: ExecutionId, test: TestId, claim: u16) -> u16 {
        let taken = |slot: u16| self.running.iter().any(|run| run.slot == slot);
        let slot = (0..self.slots).find(|&slot| !taken(slot)).unwrap_or(0);
        self.running.push(Occupied { execution, test, slot, claim });
        self.used = self.used.saturating_add(claim);
        slot
    }

    /// Frees the slots of an execution; `false` if it is not there.
    pub(crate) fn vacate(&mut self, execution: ExecutionId) -> bool {
        let Some(at) = self.running.iter().position(|run| run.execution == execution) else { return false };
        let run = self.running.remove(at);
        self.used = self.used.saturating_sub(run.claim);
        true
    }
}

/// All leases of the run, by number.
#[derive(Debug)]
pub(crate) struct Leases {
    first: LeaseId,
    all: Vec<Lease>,
    /// Leases that the run still has to do something with.
    pub(crate) busy: u32,
    /// Leases of which it is not known whether they hold anything.
    pub(crate) uncertain: u32,
    /// Those of them whose confirmation is overdue.
    pub(crate) stuck: u32,
}

impl Leases {
    /// No leases yet; the next one is number `first`.
    pub(crate) fn new(first: LeaseId) -> Self {
        Self { first, all: vec![], busy: 0, uncertain: 0, stuck: 0 }
    }

    pub(crate) fn push(&mut self, lease: Lease) -> LeaseId {
        self.busy += 1;
        self.all.push(lease);
        self.first + (self.all.len() as LeaseId - 1)
    }

    pub(crate) fn get(&self, lease: LeaseId) -> Option<&Lease> {
        self.all.get(lease.checked_sub(self.first)? as usize)
    }

    pub(crate) fn get_mut(&mut self, lease: LeaseId) -> Option<&mut Lease> {
        self.all.get_mut(lease.checked_sub(self.first)? as usize)
    }

    /// The state of a lease; what was never asked for is gone.
    pub(crate) fn state(&self, lease: LeaseId) -> State {
        self.get(lease).map_or(State::Gone, |lease| lease.state)
    }

    pub(crate) fn ids(&self) -> std::ops::Range<LeaseId> {
        self.first..self.first + self.all.len() as LeaseId
    }

    /// Machines that exist, may exist, or are on their way.
    pub(crate) fn held(&self) -> u32 {
        self.busy + self.uncertain
    }

    /// Moves a lease to another state, and keeps the counts. Returns whether it had been [stuck](Self::stick).
    pub(crate) fn enter(&mut self, id: LeaseId, state: State) -> bool {
        let Some(lease) = id.checked_sub(self.first).and_then(|at| self.all.get_mut(at as usize)) else {
            return false;
        };
        let old = std::mem::replace(&mut lease.state, state);
        self.busy = self.busy + u32::from(state.is_busy()) - u32::from(old.is_busy());
        let doubt = |state: State| u32::from(state == State::Uncertain);
        self.uncertain = self.uncertain + doubt(state) - doubt(old);
        let unstuck = state != State::Uncertain && std::mem::take(&mut lease.stuck);
        self.stuck -= u32::from(unstuck);
        unstuck
    }

    /// The absence of a lease in doubt was not confirmed in time. Returns whether that is news.
    pub(crate) fn stick(&mut self, id: LeaseId) -> bool {
        let doubtful = |lease: &&mut Lease| lease.state == State::Uncertain && !lease.stuck;
        let Some(lease) = self.get_mut(id).filter(doubtful) else { return false };
        lease.stuck = true;
        self.stuck += 1;
        true
    }
}
