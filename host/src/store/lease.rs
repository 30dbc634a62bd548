//! A lease as the ledger knows it: what is written down of it, and what it is after that.
//!
//! Writing and replaying go through one function, [`Standing::after`]: a ledger that was read back is in exactly the state
//! that its writer was in.
//!
//! **Invariant:** a lease that is `Released` opens again only for a machine that was really handed out, late, after its absence
//! had been confirmed: a machine in hand counts for more than an empty list.

use std::path::PathBuf;

use atex_plugin_api::Held;
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

    /// What is to be done about an open lease of a dead run. `listed`: what its provisioner lists, if it can; `now`: Unix time
    /// in milliseconds.
    ///
    /// What is missing in a list is gone if it was there before; a reservation that was cut off may still come up with a
    /// machine until its provisioner's settle time is over.
    pub fn todo(&self, listed: Option<&[Held]>, now: u64) -> Todo {
        let Some(listed) = listed else {
            return self.machine.clone().map_or(Todo::Unknown, |machine| Todo::Release(vec![machine]));
        };
        let Claim { owner, run, lease, .. } = &self.claim;
        let mark = format!("{owner}/{run}/{lease}");
        let ours: Vec<String> =
            listed.iter().filter(|held| held.mark == mark).map(|held| held.id.clone()).collect();
        if !ours.is_empty() {
            return Todo::Release(ours);
        }
        let was_there = self.machine.is_some() && matches!(self.state, State::Held | State::Releasing);
        let settled = self.claim.at.saturating_add(self.claim.settle_s.saturating_mul(1000));
        let left = settled.saturating_sub(now).div_ceil(1000);
        if was_there || left == 0 { Todo::Close } else { Todo::Wait { seconds: left } }
    }
}

/// See [`Standing::todo`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Todo {
    /// Release these machines, by the provisioner's names for them; when that has worked nothing is left.
    Release(Vec<String>),
    /// Nothing of it exists: write that down.
    Close,
    /// A machine may still come up; look again after that time.
    Wait { seconds: u64 },
    /// Its provisioner cannot list, and never told of a machine.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
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
            at: 1_000,
        }
    }

    #[test]
    fn a_dead_runs_lease_is_closed_only_when_nothing_can_come_of_it() {
        let close = Todo::Close;
        let release = |id: &str| Todo::Release(vec![id.to_owned()]);
        let wait = |seconds| Todo::Wait { seconds };
        let mine = [Held::new("x", "me@here/r1/a2"), Held::new("found", "me@here/r1/a1")];
        let others = [Held::new("x", "me@here/r1/a2"), Held::new("y", "you@here/r1/a1")];
        let table = [
            (State::Intent, None, Some(&mine[..]), 0, release("found")),
            (State::Intent, None, Some(&others[..]), 0, wait(601)),
            (State::Intent, None, Some(&others[..]), 600_999, wait(1)),
            (State::Intent, None, Some(&others[..]), 601_000, close.clone()),
            (State::Intent, None, None, u64::MAX, Todo::Unknown),
            (State::Held, Some("m"), Some(&others[..]), 0, close.clone()),
            (State::Releasing, Some("m"), Some(&others[..]), 0, close),
            // It was aborted before it answered.
            (State::Releasing, None, Some(&others[..]), 0, wait(601)),
            (State::Uncertain, Some("m"), Some(&others[..]), 0, wait(601)),
            (State::Uncertain, Some("m"), Some(&mine[..]), 0, release("found")),
            (State::Held, Some("m"), None, 0, release("m")),
        ];
        for (state, machine, listed, now, expected) in table {
            let standing = Standing { claim: claim(), machine: machine.map(str::to_owned), state };
            assert_eq!(standing.todo(listed, now), expected, "{state:?} {machine:?} {listed:?} {now}");
        }
    }

    #[test]
    fn every_entry_in_every_state() {
        use State::{Held, Intent, Released, Releasing, Uncertain};
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
