//! Which leases were asked for, and what is known to be held for them.

use std::collections::BTreeMap;

use crate::model::Lease;

/// All leases that may hold something.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<String, Entry>);

/// A lease that may hold something.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) lease: Lease,
    /// Ids of what was handed out for it.
    pub(super) machines: Vec<String>,
    /// A reservation for it never came back: it may still bring a machine.
    pub(super) unanswered: bool,
}

impl Book {
    /// A machine is about to be asked for.
    pub(super) fn begin(&mut self, lease: &Lease) {
        let entry = || Entry { lease: lease.clone(), machines: Vec::new(), unanswered: false };
        self.0.entry(lease.id.clone()).or_insert_with(entry);
    }

    /// One was handed out.
    pub(super) fn got(&mut self, lease: &Lease, machine: &str) {
        if let Some(entry) = self.0.get_mut(&lease.id)
            && !entry.machines.iter().any(|known| known == machine)
        {
            entry.machines.push(machine.to_owned());
        }
    }

    /// The call never came back.
    pub(super) fn unanswered(&mut self, lease: &Lease) {
        if let Some(entry) = self.0.get_mut(&lease.id) {
            entry.unanswered = true;
        }
    }

    /// Nothing is held for it any more.
    pub(super) fn close(&mut self, lease: &Lease) {
        self.0.remove(&lease.id);
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.0.values().cloned().collect()
    }

    pub(super) fn open(&self) -> Vec<Lease> {
        self.0.values().map(|entry| entry.lease.clone()).collect()
    }
}
