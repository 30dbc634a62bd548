//! Platforms: what waits, what works, and what is on its way.

use std::collections::BTreeSet;

use crate::core::event::{ChainId, LeaseId, Ms, TestId};
use crate::core::hash::Map;

/// What is known of one platform.
#[derive(Debug, Default)]
pub(crate) struct PlatformState {
    pub(crate) chain: ChainId,
    /// Its tests.
    pub(crate) tests: std::ops::Range<TestId>,
    /// The most slots a machine for it may have.
    pub(crate) slots: u16,
    /// Tests that wait.
    pub(crate) queued: u32,
    /// Slots that they would take.
    pub(crate) queued_slots: u64,
    /// How long they will take, by what is known.
    pub(crate) work: Ms,
    /// Tests that run, and the sum of the times at which they will end.
    pub(crate) running: u32,
    pub(crate) running_ends: u128,
    /// Machines that work or will work.
    pub(crate) held: u32,
    pub(crate) held_slots: u64,
    /// Slots of machines that are ready.
    pub(crate) ready_slots: u64,
    /// Reservations and set-ups under way.
    pub(crate) pending: BTreeSet<LeaseId>,
    pub(crate) pending_slots: u64,
    /// Ready machines on which nothing runs and for which nothing was found.
    pub(crate) idle: BTreeSet<LeaseId>,
    /// Ready machines with room on which something runs and for which nothing else was found.
    pub(crate) partial: BTreeSet<LeaseId>,
    /// Where waking of those goes on.
    pub(crate) wake_from: LeaseId,
    /// Wide tests that a machine runs empty for.
    pub(crate) claims: Map<TestId, LeaseId>,
    /// Set-ups in a row that failed.
    pub(crate) setup_failures: u32,
    /// No machine is set up any more.
    pub(crate) given_up: bool,
}

impl PlatformState {
    /// How long the running tests will take on, by what is known.
    pub(crate) fn remaining(&self, now: Ms) -> Ms {
        let spent = u128::from(now) * u128::from(self.running);
        Ms::try_from(self.running_ends.saturating_sub(spent)).unwrap_or(Ms::MAX)
    }
}
