//! Tests and the executions under way.

use atex_plugin_api::policy::{MachineId, Ms, Queued};

use super::config::{Past, TestPlan};
use super::event::{FinishedRun, LeaseId, NONE, PlatformId, TestId};
use super::verdict::Cause;

/// Where a test stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Queued,
    Active,
    /// It has its verdict.
    Done,
}

/// A test of the run. There may be a million of these: two to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Test {
    pub(crate) limit: Ms,
    /// How long it will take, by what is known; at least 1.
    pub(crate) estimate: Ms,
    pub(crate) last_machine: MachineId,
    pub(crate) platform: PlatformId,
    /// Judged runs.
    pub(crate) attempt: u16,
    /// Machines that were lost under it.
    pub(crate) lost: u16,
    pub(crate) at: At,
    /// The estimate comes from earlier runs; else it is the limit.
    known: bool,
}
const _: () = assert!(size_of::<Test>() == 32);

impl Test {
    pub(crate) fn new(plan: &TestPlan) -> Self {
        let (at, attempt, last_machine) = match plan.past {
            Past::Open { attempt, last_machine } => (At::Queued, attempt, last_machine),
            Past::Done => (At::Done, 0, NONE),
        };
        let known = plan.expected > 0;
        // Bounded, so that sums stay sums: 35 years.
        let estimate = if known { plan.expected } else { plan.limit }.clamp(1, 1 << 40);
        Self {
            limit: plan.limit,
            estimate,
            last_machine,
            platform: plan.platform,
            attempt,
            lost: 0,
            at,
            known,
        }
    }

    /// How long its machine must live for it to be started there.
    pub(crate) fn need(&self) -> Ms {
        if self.known { self.limit.min(self.estimate.saturating_mul(2)) } else { self.limit }
    }

    pub(crate) fn queued(&self, test: TestId) -> Queued {
        Queued::new(test, self.attempt, self.last_machine)
    }
}

/// An execution under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) test: TestId,
    pub(crate) lease: LeaseId,
    pub(crate) started: Ms,
    /// When its silence means that the machine is dead.
    pub(crate) until: Ms,
    pub(crate) stage: Stage,
}

/// How far an execution is.
#[derive(Debug)]
pub(crate) enum Stage {
    Running,
    /// It was cancelled for this reason, and is being collected.
    Cancelling(Cause),
    /// It ended; the policies are asked what that means.
    Judging(Box<FinishedRun>),
}
