//! What the ledger is told, and when: the one place where the coordinator's words and the ledger's meet.
//!
//! **Invariant:** what [`before`] names is on disk before the action is carried out, and what [`after`] names before the
//! coordinator hears of the event. So a host that dies at any moment leaves a ledger from which `gc` finds everything.

use crate::core::event::{Action, Event, LeaseId};

/// An [`Entry`](crate::store::Entry), before anything is known but the number of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Intent,
    Held,
    Releasing,
    Uncertain,
    Released,
}

/// What an action is announced by.
pub(crate) fn before(action: &Action) -> Option<(LeaseId, Mark)> {
    match *action {
        Action::Reserve { lease, .. } => Some((lease, Mark::Intent)),
        Action::Abort { lease } | Action::Release { lease, .. } => Some((lease, Mark::Releasing)),
        Action::Confirm { lease } => Some((lease, Mark::Uncertain)),
        _ => None,
    }
}

/// What is known of a lease after an event.
pub(crate) fn after(event: &Event) -> Option<(LeaseId, Mark)> {
    match *event {
        Event::Reserved { lease, .. } => Some((lease, Mark::Held)),
        Event::ReserveFailed { lease, certain: true, .. }
        | Event::Released { lease }
        | Event::Absent { lease } => Some((lease, Mark::Released)),
        Event::ReserveFailed { lease, certain: false, .. } => Some((lease, Mark::Uncertain)),
        _ => None,
    }
}
