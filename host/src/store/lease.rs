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
    /// `gc` could not tell what became of its reservation, and knows that the host is dead since then at the latest (Unix time
    /// in milliseconds).
    FoundDead { at: u64 },
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
    /// How long the reservation may take, in seconds; 0: not known.
    #[serde(default)]
    pub timeout_s: u64,
    /// How long the provider keeps a machine before it ends the lease by itself, in seconds; `None`: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
    /// How long giving it back may take, in seconds; 0: not known.
    #[serde(default)]
    pub release_s: u64,
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
    /// Unix time in milliseconds at which the host was first seen to be dead.
    pub dead_since: Option<u64>,
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
            let claim = (**claim).clone();
            return Some(Self { claim, machine: None, state: State::Intent, dead_since: None });
        };
        if let Entry::FoundDead { at } = entry {
            standing.dead_since.get_or_insert(*at);
            return Some(standing);
        }
        standing.state = match (standing.state, entry) {
            (state, Entry::Held { machine }) => {
                standing.machine = Some(machine.clone());
                // A machine that came late is still to be given back.
                if state == State::Releasing { State::Releasing } else { State::Held }
            }
            (State::Released, _) | (_, Entry::Released) => State::Released,
            (state, Entry::Intent { .. } | Entry::FoundDead { .. }) => state,
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
    /// A list in which a part of the pool is unknown says nothing of what it does not have. What is missing in a whole one is
    /// gone if it was there before, which its release confirms; a reservation that was cut off may still come up with a machine until its provisioner's settle time is over. That time begins when the host died, which nobody wrote down: at
    /// the latest when the host was first seen to be dead, or when the reservation's own time was over.
    pub fn todo(&self, listed: Option<&[Held]>, now: u64) -> Todo {
        if self.has_ended(now) {
            return Todo::Close;
        }
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
        let was_there = matches!(self.state, State::Held | State::Releasing);
        let left = if was_there && self.machine.is_some() { 0 } else { self.settles_in(now) };
        match &self.machine {
            Some(machine) if left == 0 => Todo::Confirm(machine.clone()),
            _ if listed.iter().any(|held| held.unknown.is_some()) => Todo::Unknown,
            None if left == 0 => Todo::Close,
            _ => Todo::Wait { seconds: left },
        }
    }

    /// Seconds until nothing can come of a reservation that was cut off.
    fn settles_in(&self, now: u64) -> u64 {
        let settled = self.cut_off(now).saturating_add(self.claim.settle_s.saturating_mul(1000));
        settled.saturating_sub(now).div_ceil(1000)
    }

    /// Whether the provider has ended the lease by itself by now, however late the machine came and was last renewed.
    fn has_ended(&self, now: u64) -> bool {
        let (Some(lifetime), Some(dead)) = (self.claim.lifetime_s, self.dead_since) else { return false };
        let latest = dead.max(self.claim.at.saturating_add(self.claim.timeout_s.saturating_mul(1000)));
        let ends = lifetime.saturating_add(self.claim.settle_s).saturating_mul(1000);
        now >= latest.saturating_add(ends)
    }

    /// When a reservation was cut off, at the latest. One that was given up, or whose time was over while the host lived, may
    /// not have ended in time.
    fn cut_off(&self, now: u64) -> u64 {
        let dead = self.dead_since.unwrap_or(now);
        if self.state != State::Intent || self.claim.timeout_s == 0 {
            return dead;
        }
        dead.min(self.claim.at.saturating_add(self.claim.timeout_s.saturating_mul(1000)))
    }
}

/// See [`Standing::todo`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Todo {
    /// Release these machines, by the provisioner's names for them; when that has worked nothing is left.
    Release(Vec<String>),
    /// This machine is not listed any more. Release it all the same, which succeeds if it is gone; then nothing is left.
    Confirm(String),
    /// Nothing of it exists: write that down.
    Close,
    /// A machine may still come up; look again after that time.
    Wait { seconds: u64 },
    /// Its provisioner cannot tell what there is, and never told of a machine.
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
            timeout_s: 7_200,
            lifetime_s: Some(36_000),
            release_s: 0,
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
        let confirm = Todo::Confirm("m".to_owned());
        let blind = [Held::new("x", "me@here/r1/a2"), Held::unknown("n2", "no route to host")];
        // What is known, when the host was found dead, what is listed, what time it is.
        let (hour, day) = (3_600_000, 86_400_000);
        let table = [
            (State::Intent, None, None, Some(&mine[..]), 0, release("found")),
            // An hour after the intent the reservation may have been cut off just now.
            (State::Intent, None, None, Some(&others[..]), hour, wait(600)),
            (State::Intent, None, Some(hour), Some(&others[..]), hour + 599_001, wait(1)),
            (State::Intent, None, Some(hour), Some(&others[..]), hour + 600_000, close.clone()),
            (State::Intent, None, Some(hour), Some(&blind[..]), hour + 600_000, Todo::Unknown),
            // Its own time was over long ago, whenever the host died.
            (State::Intent, None, None, Some(&others[..]), 7_201_000 + 599_001, wait(1)),
            (State::Intent, None, None, Some(&others[..]), day, close.clone()),
            (State::Intent, None, None, None, u64::MAX, Todo::Unknown),
            (State::Held, Some("m"), None, Some(&others[..]), 0, confirm.clone()),
            (State::Held, Some("m"), None, Some(&blind[..]), 0, confirm.clone()),
            (State::Releasing, Some("m"), None, Some(&others[..]), 0, confirm.clone()),
            // It was aborted before it answered.
            (State::Releasing, None, None, Some(&others[..]), day, wait(600)),
            (State::Releasing, None, Some(hour), Some(&others[..]), hour + 600_000, close.clone()),
            (State::Uncertain, Some("m"), None, Some(&others[..]), day, wait(600)),
            (State::Uncertain, Some("m"), Some(hour), Some(&others[..]), hour + 600_000, confirm),
            (State::Uncertain, Some("m"), None, Some(&mine[..]), 0, release("found")),
            (State::Held, Some("m"), None, None, 0, release("m")),
            // The provider has ended it ten hours and the settle time after anybody could have renewed it.
            (State::Held, Some("m"), Some(3 * hour), None, 13 * hour + 599_999, release("m")),
            (State::Held, Some("m"), Some(3 * hour), None, 13 * hour + 600_000, close.clone()),
            (State::Intent, None, Some(hour), None, 7_201_000 + 10 * hour + 600_000, close),
        ];
        for (state, machine, dead_since, listed, now, expected) in table {
            let standing =
                Standing { claim: claim(), machine: machine.map(str::to_owned), state, dead_since };
            assert_eq!(
                standing.todo(listed, now),
                expected,
                "{state:?} {machine:?} {dead_since:?} {listed:?} {now}"
            );
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
            Entry::FoundDead { at: 1 },
            Entry::Released,
        ];
        // For each state, the states after the entries above.
        let table = [
            (Intent, [Intent, Held, Releasing, Uncertain, Intent, Released]),
            (Held, [Held, Held, Releasing, Uncertain, Held, Released]),
            (Releasing, [Releasing, Releasing, Releasing, Uncertain, Releasing, Released]),
            (Uncertain, [Uncertain, Held, Releasing, Uncertain, Uncertain, Released]),
            (Released, [Released, Held, Released, Released, Released, Released]),
        ];
        for (state, expected) in table {
            let after = entries.each_ref().map(|entry| {
                let before = Standing { claim: claim(), machine: None, state, dead_since: None };
                Standing::after(Some(before), entry).unwrap().state
            });
            assert_eq!(after, expected, "{state:?}");
        }
        let first = entries.map(|entry| Standing::after(None, &entry).map(|standing| standing.state));
        assert_eq!(
            first,
            [Some(Intent), None, None, None, None, None],
            "nothing is held that was not announced"
        );
    }
}
