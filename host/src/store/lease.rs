//! A lease as the ledger knows it: what is written down of it, and what it is after that.
//!
//! Writing and replaying go through one function, [`Standing::after`]: a ledger that was read back is in exactly the state
//! that its writer was in.
//!
//! **Invariant:** a lease that is `Released` opens again only for a machine that was really handed out, late, after its absence
//! had been confirmed: a machine in hand counts for more than an empty list.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::StoredPlace;

/// What is written down of one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Entry {
    /// A machine is about to be asked for.
    Intent { claim: Box<Claim> },
    /// The provisioner handed it out under this id.
    Held { machine: String },
    /// It is about to be given back.
    Releasing,
    /// It is not known whether anything exists.
    Uncertain,
    /// Nothing of it exists any more.
    Released,
}

/// A lease, with all that is needed to find and free it without the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub owner: String,
    pub run: String,
    pub lease: String,
    pub pool: String,
    pub plugin: PluginFile,
    /// The pool's configuration as it was written: secrets and variables unresolved.
    pub configuration: serde_json::Map<String, serde_json::Value>,
    /// Where relative paths in it begin.
    pub base: PathBuf,
    /// The entry of the pool in the configuration file: secrets that were written out there are not stored here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<StoredPlace>,
    /// How long after a cut-off reservation the machine may still appear, in seconds.
    pub settle_s: u64,
    /// Directory of the run.
    pub directory: PathBuf,
    /// Unix time in milliseconds.
    pub at: u64,
}

/// The library that a pool's provisioner came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginFile {
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
}

/// What is known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub claim: Claim,
    /// The provisioner's name for it, once it told.
    pub machine: Option<String>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `reserve` may be under way, or was cut off.
    Intent,
    Held,
    Releasing,
    Uncertain,
    Released,
}

impl Standing {
    /// The one transition function: what a lease is after an entry about it. `None` for an entry about a lease that was never
    /// announced.
    pub fn after(before: Option<Self>, entry: &Entry) -> Option<Self> {
        let Some(mut standing) = before else {
            let Entry::Intent { claim } = entry else { return None };
            return Some(Self { claim: (**claim).clone(), machine: None, state: State::Intent });
        };
        standing.state = match (standing.state, entry) {
            (state, Entry::Held { machine }) => {
                standing.machine = Some(machine.clone());
                // A machine that came late is still to be given back.
                if state == State::Releasing { State::Releasing } else { State::Held }
            }
            (State::Released, _) | (_, Entry::Released) => State::Released,
            (state, Entry::Intent { .. }) => state,
            (_, Entry::Releasing) => State::Releasing,
            (_, Entry::Uncertain) => State::Uncertain,
        };
        Some(standing)
    }

    /// Whether the lease may still hold something.
    pub fn is_open(&self) -> bool {
        self.state != State::Released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_in_every_state() {
        use State::{Held, Intent, Released, Releasing, Uncertain};
        let claim = || Claim {
            owner: "me@here".into(),
            run: "r1".into(),
            lease: "a1".into(),
            pool: "lab".into(),
            plugin: PluginFile { name: "local".into(), path: "/p.so".into(), sha256: "00".into() },
            configuration: serde_json::Map::new(),
            base: "/".into(),
            place: None,
            settle_s: 600,
            directory: "/runs/1".into(),
            at: 1,
        };
        let entries = [
            Entry::Intent { claim: Box::new(claim()) },
            Entry::Held { machine: "m".into() },
            Entry::Releasing,
            Entry::Uncertain,
            Entry::Released,
        ];
        // For each state, the states after the entries above.
        let table = [
            (Intent, [Intent, Held, Releasing, Uncertain, Released]),
            (Held, [Held, Held, Releasing, Uncertain, Released]),
            (Releasing, [Releasing, Releasing, Releasing, Uncertain, Released]),
            (Uncertain, [Uncertain, Held, Releasing, Uncertain, Released]),
            (Released, [Released, Held, Released, Released, Released]),
        ];
        for (state, expected) in table {
            let after = entries.each_ref().map(|entry| {
                let before = Standing { claim: claim(), machine: None, state };
                Standing::after(Some(before), entry).unwrap().state
            });
            assert_eq!(after, expected, "{state:?}");
        }
        let first = entries.map(|entry| Standing::after(None, &entry).map(|standing| standing.state));
        assert_eq!(first, [Some(Intent), None, None, None, None], "nothing is held that was not announced");
    }
}
