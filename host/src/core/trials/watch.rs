//! An observer that knows what the coordinator promises, and complains when that is broken. It keeps its own books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::config::{Config, TestPlan};
use crate::core::event::{
    Action, ChainId, Event, ExecutionId, KindInfo, Labels, LeaseId, Ms, Note, PlatformId, PoolId, TestId,
    Trouble,
};
use crate::core::hash::mix;
use crate::core::simulate::Observer;
use crate::core::verdict::{Cause, Verdict};

/// How long a machine may have nothing to do before that is noticed: policies may be slow.
const PATIENCE: Ms = 60_000;

/// How answers are meddled with, in 1/1000.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meddling {
    pub(super) seed: u64,
    /// Answers of machines that never come, come twice, come late.
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    /// Answers of policies that never come, or come late.
    pub(super) mute: u64,
}

/// A lease in the observer's books.
#[derive(Debug, Default)]
struct Held {
    pool: PoolId,
    platform: PlatformId,
    /// There is, or may be, a machine.
    open: bool,
    /// `Reserved` was heard.
    came: bool,
    released: u32,
    confirmed: bool,
    uncertain: bool,
    /// It is set up, and nothing runs there.
    ready: bool,
    /// It is set up.
    was_ready: bool,
    /// Since when it has nothing to do though nothing waits.
    useless_since: Option<Ms>,
    expires: Option<Ms>,
    /// The last answer to a renewal was a good one.
    renewed: bool,
    /// Executions that were started there.
    started: u32,
    labels: Labels,
    running: BTreeMap<ExecutionId, (TestId, u16, u16)>,
}

impl Held {
    /// Whether a label counts now.
    fn labelled(&self) -> bool {
        self.open && self.released == 0 && self.was_ready
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Watch<'a> {
    config: &'a Config,
    tests: &'a [TestPlan],
    meddling: Meddling,
    leases: BTreeMap<LeaseId, Held>,
    pools: Vec<u32>,
    executions: BTreeMap<ExecutionId, (LeaseId, TestId)>,
    on: BTreeMap<TestId, ExecutionId>,
    verdicts: BTreeSet<TestId>,
    pub(super) causes: BTreeMap<&'static str, u64>,
    /// Per test: runs, and those that were judged.
    pub(super) runs: BTreeMap<TestId, (u32, u32)>,
    pub(super) notes: Vec<(ChainId, Ms, Note)>,
    pub(super) kinds: Vec<(ChainId, Arc<KindInfo>)>,
    /// Tests of one group (of so many) must not run beside each other on one machine.
    pub(super) exclusive: Option<u64>,
    pub(super) complaints: Vec<String>,
    pub(super) uncertain: u32,
    done: bool,
    /// Since when no test waits, and when to look again for machines that nobody needs.
    quiet_since: Option<Ms>,
    next_look: Ms,
    /// Tests that had their verdict before this session.
    done_before: usize,
    answers: u64,
    pub(super) stopped: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(config: &'a Config, tests: &'a [TestPlan], meddling: Meddling) -> Self {
        Self {
            config,
            tests,
            meddling,
            leases: BTreeMap::new(),
            pools: vec![0; config.pools.len()],
            executions: BTreeMap::new(),
            on: BTreeMap::new(),
            verdicts: BTreeSet::new(),
            causes: BTreeMap::new(),
            runs: BTreeMap::new(),
            notes: vec![],
            kinds: vec![],
            exclusive: None,
            complaints: vec![],
            uncertain: 0,
            done: false,
            quiet_since: None,
            next_look: 0,
            done_before: tests.iter().filter(|plan| plan.past == crate::core::config::Past::Done).count(),
            answers: 0,
            stopped: false,
        }
    }

    fn complain(&mut self, now: Ms, what: &str) {
        if self.complaints.len() < 5 {
            self.complaints.push(format!("at {now}: {what}"));
        }
    }

    fn check(&mut self, now: Ms, holds: bool, what: &str) {
        if !holds {
            self.complain(now, what);
        }
    }

    /// Nothing is left of a lease.
    fn close(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.get_mut(&lease).filter(|held| held.open) else { return };
        held.open = false;
        held.uncertain = false;
        self.pools[usize::from(held.pool)] -= 1;
    }

    /// A reservation that was written off answers after all.
    fn reopen(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        if !held.open {
            held.open = true;
            self.pools[usize::from(held.pool)] += 1;
        }
    }

    fn reserve(&mut self, now: Ms, lease: LeaseId, pool: PoolId, platform: PlatformId) {
        let of = &self.config.pools[usize::from(pool)];
        self.pools[usize::from(pool)] += 1;
        self.check(now, self.pools[usize::from(pool)] <= of.max, "more machines than the pool's max");
        let all: u32 = self.pools.iter().sum();
        self.check(now, all <= self.config.max_machines, "more machines than max-machines");
        self.check(
            now,
            of.serves.iter().any(|served| served.platform == platform),
            "a pool that does not serve",
        );
        let new = Held { pool, platform, open: true, ..Held::default() };
        let old = self.leases.insert(lease, new);
        self.check(now, old.is_none(), "a lease number used twice");
    }

    fn run(&mut self, now: Ms, lease: LeaseId, execution: ExecutionId, test: TestId, slot: u16) {
        let Some(held) = self.leases.get_mut(&lease) else { return self.complain(now, "a run on no lease") };
        let slots = self.config.pools[usize::from(held.pool)].slots;
        let plan = &self.tests[test as usize];
        let claim = plan.claim.clamp(1, slots);
        let (platform, alive) = (held.platform, held.open && held.released == 0 && held.came);
        let same_slot = held.running.values().any(|(_, of, _)| *of == slot);
        held.running.insert(execution, (test, slot, claim));
        let used: u16 = held.running.values().map(|(_, _, claim)| claim).sum();
        let need = if plan.expected > 0 { plan.limit.min(2 * plan.expected) } else { plan.limit };
        let lives = held.expires.is_none_or(|end| now + need <= end) || held.renewed || held.started == 0;
        held.started += 1;
        held.ready = false;
        let group = |test: TestId| self.exclusive.map(|groups| mix(test.into()) % groups);
        let beside = held
            .running
            .values()
            .filter(|(other, ..)| group(*other).is_some() && group(*other) == group(test));
        let alone = beside.count() <= 1;
        self.check(now, alone, "two tests beside each other that exclude each other");
        self.check(now, lives, "a test on a machine that does not live for it");
        self.check(now, alive, "a run on a machine that is not there");
        self.check(now, used <= slots, "more claims than slots");
        self.check(now, slot < slots && !same_slot, "a slot used twice");
        self.check(now, platform == plan.platform, "a run on a machine of another platform");
        let old = self.on.insert(test, execution);
        self.check(now, old.is_none(), "a test that runs twice at a time");
        self.check(now, !self.verdicts.contains(&test), "a run after the verdict");
        let old = self.executions.insert(execution, (lease, test));
        self.check(now, old.is_none(), "an execution number used twice");
        self.runs.entry(test).or_default().0 += 1;
    }

    fn over(&mut self, execution: ExecutionId) {
        let Some((lease, test)) = self.executions.get(&execution).copied() else { return };
        if self.on.get(&test) == Some(&execution) {
            self.on.remove(&test);
        }
        if let Some(held) = self.leases.get_mut(&lease) {
            held.running.remove(&execution);
            held.ready = held.running.is_empty();
        }
    }

    /// Whatever runs on a machine is lost with it.
    fn lose(&mut self, lease: LeaseId) {
        let lost = self.leases.get_mut(&lease).map(|held| std::mem::take(&mut held.running));
        lost.unwrap_or_default().into_keys().for_each(|execution| self.over(execution));
    }

    /// Machines that have had nothing to do for a while, though nothing waits, are too many if there are more than spares.
    fn check_useless(&mut self, now: Ms) {
        let waiting = self.tests.len() - self.done_before - self.verdicts.len() - self.on.len();
        if waiting > 0 {
            self.quiet_since = None;
            return;
        }
        // Once a second is enough: there may be thousands of machines.
        let quiet_since = *self.quiet_since.get_or_insert(now);
        if now < self.next_look {
            return;
        }
        self.next_look = now + 1_000;
        let mut idle = 0;
        for held in self.leases.values_mut() {
            let useless = held.open && held.ready && held.released == 0 && !held.uncertain;
            let since = held.useless_since.map_or(now, |since| since.max(quiet_since));
            held.useless_since = useless.then_some(since);
            if held.useless_since.is_some_and(|since| now - since > PATIENCE) {
                idle += u32::from(self.config.pools[usize::from(held.pool)].slots);
            }
        }
        let slots = self.config.pools.iter().map(|pool| u32::from(pool.slots)).max().unwrap_or(1);
        let spares =
            if self.verdicts.len() + self.done_before == self.tests.len() { 0 } else { self.config.spares };
        let most = (spares * self.config.platforms.len() as u32 + 1) * slots;
        self.check(now, idle < most, "machines that nobody needs");
    }

    fn verdict(&mut self, now: Ms, test: TestId, verdict: &Verdict) {
        let new = self.verdicts.insert(test);
        self.check(now, new, "a second verdict");
        *self.causes.entry(verdict.cause().map_or("ran", Cause::code)).or_default() += 1;
        let ran = self.runs.get(&test).is_some_and(|runs| runs.1 > 0);
        self.check(now, verdict.judged().is_none() || ran, "a verdict about a run that was not");
        if let Some(execution) = self.on.get(&test).copied() {
            self.over(execution);
        }
    }

    fn done(&mut self, now: Ms, uncertain: u32) {
        self.check(now, !self.done, "a second end");
        self.done = true;
        self.uncertain = uncertain;
        let open = self.leases.values().filter(|held| held.open).count() as u32;
        self.check(now, open == uncertain, &format!("{open} leases open, {uncertain} said to be uncertain"));
        let doubted = self.leases.values().filter(|held| held.open).all(|held| held.uncertain);
        self.check(now, doubted || self.stopped, "a lease that nobody doubted is left");
        let all = self.tests.len() - self.done_before;
        self.check(now, self.verdicts.len() == all, "a test without verdict");
    }
}

impl Observer for Watch<'_> {
    fn event(&mut self, now: Ms, event: &Event) {
        self.check_useless(now);
        match event {
            Event::Reserved { lease, expires } => {
                if self.leases.get(lease).is_some_and(|held| !held.came) {
                    self.reopen(*lease);
                }
                if let Some(held) = self.leases.get_mut(lease)
                    && !std::mem::replace(&mut held.came, true)
                {
                    held.expires = *expires;
                }
            }
            Event::SetUp { lease, .. } => {
                if let Some(held) = self.leases.get_mut(lease) {
                    held.ready = held.running.is_empty();
                    held.was_ready = true;
                }
            }
            Event::Renewed { lease, expires } => {
                if let Some(held) = self.leases.get_mut(lease) {
                    (held.renewed, held.expires) = (true, *expires);
                }
            }
            Event::RenewFailed { lease, .. } => {
                if let Some(held) = self.leases.get_mut(lease) {
                    held.renewed = false;
                }
            }
            Event::Label { lease, key, value } => {
                if let Some(held) = self.leases.get_mut(lease).filter(|held| held.labelled()) {
                    held.labels.insert(key.clone(), value.clone());
                }
            }
            Event::ReserveFailed { lease, certain: true, .. }
                if self.leases.get(lease).is_some_and(|held| !held.came) =>
            {
                self.close(*lease);
            }
            Event::Released { lease } | Event::Absent { lease } => {
                let asked = |held: &Held| held.released > 0 || held.uncertain || !held.came;
                if self.leases.get(lease).is_some_and(asked) {
                    self.close(*lease);
                    if let Some(held) = self.leases.get_mut(lease) {
                        held.confirmed |= held.released > 0;
                    }
                }
            }
            Event::Finished { execution, .. }
            | Event::Cancelled { execution }
            | Event::RunLost { execution } => {
                self.over(*execution);
            }
            Event::Lost { lease } => self.lose(*lease),
            Event::Stop { .. } => self.stopped = true,
            _ => {}
        }
    }

    fn action(&mut self, now: Ms, action: &Action) {
        self.check(now, !self.done, "something after the end");
        match action {
            Action::Reserve { lease, pool, platform } => self.reserve(now, *lease, *pool, *platform),
            Action::Setup { lease, platform, .. } => {
                if let Some(held) = self.leases.get_mut(lease) {
                    held.platform = *platform;
                    (held.ready, held.was_ready) = (false, false);
                    let free = held.running.is_empty() && held.released == 0;
                    self.check(now, free, "a set-up under running tests");
                }
            }
            Action::Confirm { lease } => {
                if let Some(held) = self.leases.get_mut(lease) {
                    held.uncertain = true;
                }
            }
            Action::Release { lease, .. } => {
                let Some(held) = self.leases.get_mut(lease) else { return };
                held.released += 1;
                held.uncertain = false;
                let confirmed = held.confirmed;
                for execution in std::mem::take(&mut held.running).into_keys() {
                    self.over(execution);
                }
                self.check(now, !confirmed, "a lease released after that was confirmed");
            }
            Action::Run { lease, execution, test, slot, .. } => {
                self.run(now, *lease, *execution, *test, *slot);
            }
            Action::Note { chain, note, .. } => {
                if let Note::Finished { run, .. } = note {
                    self.runs.entry(run.test).or_default().1 += 1;
                }
                self.notes.push((*chain, now, note.clone()));
            }
            Action::Kind { chain, kind } => self.kinds.push((*chain, kind.clone())),
            Action::Ask { lease, question, .. } => {
                let none = Labels::new();
                let told = question.labels.as_deref().unwrap_or(&none);
                let same = self.leases.get(lease).is_some_and(|held| held.labels == *told);
                self.check(now, same, "labels that no test left there, or not all");
            }
            Action::Trouble(Trouble::MachineSilent { lease }) => self.lose(*lease),
            Action::Verdict { test, verdict } => self.verdict(now, *test, verdict),
            Action::Done { uncertain } => self.done(now, *uncertain),
            _ => {}
        }
    }

    fn deliveries(&mut self, answer: &Event) -> [Option<Ms>; 2] {
        self.answers += 1;
        let roll = |salt: u64| mix(self.meddling.seed ^ mix(self.answers ^ (salt << 40)));
        let Meddling { lost, twice, late, mute, .. } = self.meddling;
        let policy = matches!(
            answer,
            Event::Ranked { .. } | Event::Preferred { .. } | Event::Judged { .. } | Event::Commands { .. }
        );
        let dice = roll(1) % 1000;
        if policy {
            return match dice {
                dice if dice < mute / 2 => [None, None],
                dice if dice < mute => [Some(roll(2) % 20_000), None],
                _ => [Some(0), None],
            };
        }
        match dice {
            dice if dice < lost => [None, None],
            dice if dice < lost + twice => [Some(0), Some(roll(3) % 100_000)],
            dice if dice < lost + twice + late => [Some(roll(4) % 400_000), None],
            _ => [Some(0), None],
        }
    }
}
