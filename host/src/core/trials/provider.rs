//! A provider of machines, the ledger and the journal, as far as they outlive a host: what is left when it dies.

use std::collections::{BTreeMap, BTreeSet};

use atex_plugin_api::Held;

use crate::core::event::{LeaseId, Ms, TestId};
use crate::engine::books::Mark;
use crate::store::{Claim, Entry, PluginFile, Standing, Todo};

/// How long after a cut-off reservation the machine may still appear.
pub(super) const SETTLE: Ms = 600_000;
/// How long a reservation may take.
pub(super) const RESERVE_TIME: Ms = 200_000;

/// What there is, and what was told about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Provider {
    /// It can say what exists.
    pub(super) lists: bool,
    /// Machines that exist.
    pub(super) things: BTreeSet<LeaseId>,
    /// Machines that will come into being, though nobody may be there to hear of it.
    pub(super) coming: BTreeSet<LeaseId>,
    /// Machines on their way out.
    pub(super) leaving: BTreeSet<LeaseId>,
    /// Leases of which a host was told that nothing is left.
    pub(super) told_gone: BTreeSet<LeaseId>,
    /// Changes so far.
    pub(super) version: u64,
    pub(super) complaints: Vec<String>,
}

impl Provider {
    pub(super) fn appear(&mut self, lease: LeaseId) {
        self.version += 1;
        self.coming.remove(&lease);
        self.things.insert(lease);
    }

    pub(super) fn vanish(&mut self, lease: LeaseId) {
        self.version += 1;
        self.leaving.remove(&lease);
        self.things.remove(&lease);
    }

    /// Somebody asks for the end of a machine; whoever was told that it is gone must not.
    pub(super) fn ask_release(&mut self, lease: LeaseId) {
        if self.told_gone.contains(&lease) {
            self.complaints.push(format!("lease {lease} was released after its end was confirmed"));
        }
    }

    fn list(&self) -> Option<Vec<Held>> {
        let held = |lease: &LeaseId| Held::new(machine(*lease), format!("//{}", id(*lease)));
        self.lists.then(|| self.things.iter().map(held).collect())
    }
}

/// The ledger of a run: the real transitions, without a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    leases: BTreeMap<LeaseId, Standing>,
    /// Records so far.
    pub(super) version: u64,
}

fn id(lease: LeaseId) -> String {
    format!("a{lease}")
}

fn machine(lease: LeaseId) -> String {
    format!("m{lease}")
}

fn number(text: &str) -> LeaseId {
    text[1..].parse().unwrap()
}

impl Books {
    /// A record as the engine writes it.
    pub(super) fn write(&mut self, now: Ms, lease: LeaseId, mark: Mark) {
        let entry = match mark {
            Mark::Intent => Entry::Intent { claim: Box::new(claim(now, lease)) },
            Mark::Held => Entry::Held { machine: machine(lease) },
            Mark::Releasing => Entry::Releasing,
            Mark::Uncertain => Entry::Uncertain,
            Mark::Released => Entry::Released,
        };
        self.enter(lease, &entry);
    }

    fn enter(&mut self, lease: LeaseId, entry: &Entry) {
        self.version += 1;
        if let Some(standing) = Standing::after(self.leases.remove(&lease), entry) {
            self.leases.insert(lease, standing);
        }
    }

    pub(super) fn is_open(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_some_and(Standing::is_open)
    }

    pub(super) fn open(&self) -> usize {
        self.leases.values().filter(|standing| standing.is_open()).count()
    }

    /// The first number that no lease has.
    pub(super) fn next_lease(&self) -> LeaseId {
        self.leases.keys().last().map_or(0, |last| last + 1)
    }

    /// What `atex-host gc` does, as far as `steps` of it: releases and records. Returns how many steps it took.
    pub(super) fn collect(&mut self, provider: &mut Provider, now: Ms, steps: usize) -> usize {
        let listed = provider.list();
        let open: Vec<(LeaseId, Todo)> = self
            .leases
            .iter()
            .filter(|(_, standing)| standing.is_open())
            .map(|(lease, standing)| (*lease, standing.todo(listed.as_deref(), now)))
            .collect();
        let mut taken = 0;
        for (lease, todo) in open {
            let machines = match todo {
                Todo::Release(machines) => machines,
                Todo::Confirm(machine) => vec![machine],
                Todo::Close => vec![],
                Todo::Wait { .. } => {
                    self.enter(lease, &Entry::FoundDead { at: now });
                    continue;
                }
                Todo::Unknown => continue,
            };
            for machine in machines {
                if taken == steps {
                    return taken;
                }
                taken += 1;
                provider.ask_release(number(&machine));
                provider.vanish(number(&machine));
            }
            if taken == steps {
                return taken;
            }
            taken += 1;
            self.write(now, lease, Mark::Released);
            provider.told_gone.insert(lease);
        }
        taken
    }
}

fn claim(now: Ms, lease: LeaseId) -> Claim {
    Claim {
        owner: String::new(),
        run: String::new(),
        lease: id(lease),
        pool: String::new(),
        plugin: PluginFile { name: String::new(), path: "".into(), sha256: String::new() },
        configuration: serde_json::Map::new(),
        base: "".into(),
        place: None,
        settle_s: SETTLE / 1000,
        timeout_s: RESERVE_TIME / 1000,
        lifetime_s: None,
        release_s: 0,
        directory: "".into(),
        at: now,
    }
}

/// What a dead host left behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Remains {
    pub(super) now: Ms,
    pub(super) provider: Provider,
    pub(super) books: Books,
    /// Verdicts per test.
    pub(super) verdicts: BTreeMap<TestId, u32>,
    pub(super) next_execution: u64,
}

impl Remains {
    /// Everything that exists or is about to is in the ledger.
    pub(super) fn check(&self) -> Vec<String> {
        let provider = &self.provider;
        let lost =
            provider.things.iter().chain(&provider.coming).filter(|lease| !self.books.is_open(**lease));
        let lost = lost.map(|lease| format!("lease {lease} is not in the ledger"));
        provider.complaints.iter().cloned().chain(lost).collect()
    }

    /// Frees everything, as often as it takes; `fate`: whether what was under way when the host died still happens.
    pub(super) fn free(&mut self, fate: bool) -> Vec<String> {
        let now = self.now;
        let leaving = std::mem::take(&mut self.provider.leaving);
        if fate {
            for lease in leaving {
                self.provider.vanish(lease);
            }
        }
        self.books.collect(&mut self.provider, now, usize::MAX);
        // What was under way when the host died may take as long as the plugin says, however long ago it began.
        self.books.collect(&mut self.provider, now + SETTLE - 1_000, usize::MAX);
        for lease in std::mem::take(&mut self.provider.coming) {
            if fate {
                self.provider.appear(lease);
            }
        }
        let mut wrong = self.check();
        self.now = now + SETTLE + 1_000;
        self.books.collect(&mut self.provider, self.now, usize::MAX);
        wrong.extend(self.check());
        if self.provider.lists && !self.provider.things.is_empty() {
            wrong.push(format!("gc has left {:?}", self.provider.things));
        }
        if self.provider.lists && self.books.open() > 0 {
            wrong.push(format!("{} leases stay open though nothing is there", self.books.open()));
        }
        wrong
    }
}
