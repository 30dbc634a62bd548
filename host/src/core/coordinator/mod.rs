//! The state machine: `step(now, event) -> actions`.
//!
//! It has no clock: `now` comes with each event, and [`Coordinator::next_deadline`] says when the next
//! [`Event::Tick`] is due at the latest. It has no random numbers but those of its seed: the same events at the same times
//! make the same actions. It calls no plugin: questions to policies are actions, their answers events, each with a deadline
//! after which the host's own order is used.
//!
//! Invariant: every test gets exactly one [`Action::Verdict`], unless it had one before a resume.
//! Invariant: never more machines than `max` of their pool and `max_machines` over all, those in doubt included.
//! Invariant: the claims of the tests on one machine never exceed its slots.
//! Invariant: a machine that came into being is released until that is confirmed, or its lease ends as uncertain.
//! Invariant: [`Action::Done`] comes exactly once, and only when no lease is left but uncertain ones.

mod balance;
mod choose;
mod ending;
mod lifetime;
mod machines;
mod policies;
mod runs;
mod time;

use std::sync::Arc;

use super::config::{Config, Misfit, TestPlan, range_of};
use super::event::{
    Action, AskId, ChainId, Event, ExecutionId, KindInfo, LeaseId, Ms, Note, PlatformId, Shutdown, TestId,
    Trouble,
};
use super::hash::Map;
use super::kinds::Kinds;
use super::lanes::Lanes;
use super::machines::{Leases, PlatformState, PoolState};
use super::queue::{Level, Ticket};
use super::runs::{Active, At, Test};
use super::timers::{Timer, Timers};
use super::verdict::{Cause, Judged};
use ending::Ending;

/// See the [module](self).
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    chains: Vec<ChainState>,
    platforms: Vec<PlatformState>,
    pools: Vec<PoolState>,
    leases: Leases,
    lanes: Lanes,
    tests: Vec<Test>,
    tickets: Vec<Ticket>,
    active: Map<ExecutionId, Active>,
    /// The last judged run of tests that are to run again.
    judged: Map<TestId, Judged>,
    timers: Timers,
    ending: Option<Ending>,
    /// Tests without a verdict.
    open: u32,
    /// Tests that have failed for good.
    failed: u32,
    /// Judged runs, and how many of them passed.
    runs: u64,
    passes: u64,
    next_execution: ExecutionId,
    next_ask: AskId,
    next_sequence: u32,
    now: Ms,
    started: bool,
    done: bool,
    /// Supply or demand of machines may have changed.
    unbalanced: bool,
    /// Machines to be offered once the event is dealt with, rather than deep inside of something else.
    to_offer: Vec<LeaseId>,
    /// Platforms on which something waits that did not before.
    to_wake: Vec<PlatformId>,
    decisions: u64,
    out: Vec<Action>,
}

/// What is known of one chain of policies.
#[derive(Debug)]
struct ChainState {
    levels: Vec<Level>,
    kinds: Kinds,
    /// Which policies want to see the classes of the best buckets, and of how many.
    windows: Vec<(u16, usize)>,
    ranks: bool,
    prefers: bool,
    judges: bool,
    /// It missed a deadline and has not answered since: it is not asked.
    silent: bool,
    /// Per policy: when it wants to be woken, and when its timer is set.
    wakes: Vec<(Option<Ms>, Ms)>,
    names: Vec<Arc<str>>,
}

impl ChainState {
    fn new(shape: &super::config::Shape) -> Self {
        let any = |want: fn(&atex_plugin_api::policy::Wants) -> bool| shape.wants.iter().any(want);
        let window = |(position, wants): (usize, &atex_plugin_api::policy::Wants)| {
            let wanted = wants.prefer && wants.window > 0;
            wanted.then_some((position as u16, wants.window.min(4096) as usize))
        };
        Self {
            levels: Level::of_chain(&shape.wants),
            kinds: Kinds::new(shape),
            windows: shape.wants.iter().enumerate().filter_map(window).collect(),
            ranks: any(|wants| wants.rank),
            prefers: any(|wants| wants.prefer),
            judges: any(|wants| wants.judge),
            silent: false,
            wakes: vec![(None, Ms::MAX); shape.wants.len()],
            names: shape.names.clone(),
        }
    }

    /// The name of a policy, empty if nobody told it.
    fn name(&self, policy: u16) -> Arc<str> {
        self.names.get(usize::from(policy)).cloned().unwrap_or_default()
    }
}

impl Coordinator {
    /// A coordinator that has not begun. `tests` are numbered as they come, those of a platform side by side.
    ///
    /// # Errors
    ///
    /// If parts of the configuration do not fit together.
    pub fn new(config: Config, tests: &[TestPlan]) -> Result<Self, Misfit> {
        config.check(tests)?;
        let ticket = |(number, plan): (usize, &TestPlan)| Ticket {
            queued: false,
            generation: 0,
            sequence: number as u32,
            claim: plan.claim.max(1),
        };
        let platform = |(number, platform): (usize, &super::config::Platform)| PlatformState {
            chain: platform.chain,
            tests: range_of(tests, number as PlatformId),
            slots: slots_of(&config, number as PlatformId),
            ..PlatformState::default()
        };
        let pool = |pool: &super::config::Pool| PoolState::new(config.platforms.len(), pool.startup);
        let mut it = Self {
            chains: config.chains.iter().map(ChainState::new).collect(),
            platforms: config.platforms.iter().enumerate().map(platform).collect(),
            pools: config.pools.iter().map(pool).collect(),
            leases: Leases::new(config.resume.first_lease),
            lanes: Lanes::new(config.platforms.len()),
            tests: tests.iter().map(Test::new).collect(),
            tickets: tests.iter().enumerate().map(ticket).collect(),
            active: Map::default(),
            judged: Map::default(),
            timers: Timers::default(),
            ending: None,
            open: 0,
            failed: config.resume.failed,
            runs: 0,
            passes: 0,
            next_execution: config.resume.first_execution,
            next_ask: 1,
            next_sequence: tests.len() as u32,
            now: 0,
            started: false,
            done: false,
            unbalanced: true,
            to_offer: vec![],
            to_wake: vec![],
            decisions: 0,
            out: vec![],
            config,
        };
        for test in 0..it.tests.len() as TestId {
            if it.at(test) == At::Queued {
                it.open += 1;
                it.count_queued(test);
            }
        }
        Ok(it)
    }

    /// Takes up what happened, and appends what is to be done. Time never runs backwards: an earlier `now` counts as the
    /// latest one. After [`Action::Done`] nothing more is done, whatever happens.
    pub fn step(&mut self, now: Ms, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        if self.done {
            return;
        }
        std::mem::swap(&mut self.out, out);
        if !std::mem::replace(&mut self.started, true) {
            self.begin();
        }
        self.expire();
        self.on(event);
        self.settle();
        std::mem::swap(&mut self.out, out);
    }

    /// When something is due at the latest; `None`: only an event can move the run on.
    pub fn next_deadline(&self) -> Option<Ms> {
        self.timers.next()
    }

    /// Tests without a verdict.
    pub fn open_tests(&self) -> u32 {
        self.open
    }

    /// Machines that exist, may exist, or are on their way.
    pub fn held(&self) -> u32 {
        self.leases.held()
    }

    /// How often a test was looked for, for a machine with room.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    fn begin(&mut self) {
        if let Some(limit) = self.config.limits.time {
            self.timers.set(limit, Timer::Run);
        }
        if self.config.max_fail.is_some_and(|most| self.failed >= most.max(1)) {
            self.drain(&Cause::MaxFail);
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Reserved { lease, expires } => self.reserved(lease, expires),
            Event::ReserveFailed { lease, refusal, certain } => self.reserve_failed(lease, refusal, certain),
            Event::Identified { lease, facts } => self.identified(lease, &facts),
            Event::SetUp { lease, setup } => self.set_up(lease, setup),
            Event::SetupFailed { lease, setup, lost } => self.setup_failed(lease, setup, lost),
            Event::Label { lease, key, value } => self.labelled(lease, key, value),
            Event::Lost { lease } => self.lost(lease),
            Event::Renewed { lease, expires } => self.renewed(lease, expires),
            Event::RenewFailed { lease, again } => self.renew_failed(lease, again),
            Event::Away { lease } => self.away(lease),
            Event::Back { lease } => self.back(lease),
            Event::Probed { lease, alive } => self.probed(lease, alive),
            Event::Released { lease } | Event::Absent { lease } => self.released(lease),
            Event::ReleaseFailed { lease } => self.release_failed(lease),
            Event::Finished { execution, outcome, exit, status } => {
                self.finished(execution, outcome, exit, status);
            }
            Event::Cancelled { execution } => self.cancelled(execution),
            Event::RunLost { execution } => self.run_lost(execution),
            Event::Extended { execution, until } => self.extended(execution, until),
            Event::Ranked { ask, ranks, differ } => self.ranked(ask, &ranks, &differ),
            Event::Preferred { lease, ask, wishes } => self.preferred(lease, ask, &wishes),
            Event::Judged { execution, ruling } => self.judged_by_policies(execution, ruling),
            Event::Commands { chain, commands } => self.commands(chain, commands),
            Event::Stop { level, cause } => self.stop(level, &cause),
        }
    }

    /// Brings supply and demand into balance, and finds the end.
    fn settle(&mut self) {
        // What one part does may call for another, but each round ends tests, reservations or idle machines. Should that
        // ever be wrong, the rest is for the next event, which comes soon.
        let settled = |it: &Self| it.to_offer.is_empty() && it.to_wake.is_empty() && !it.unbalanced;
        for _ in 0..64 {
            if settled(self) {
                break;
            }
            for lease in std::mem::take(&mut self.to_offer) {
                self.offer(lease);
            }
            let mut platforms = std::mem::take(&mut self.to_wake);
            platforms.dedup();
            for platform in platforms {
                self.wake(platform);
            }
            if std::mem::take(&mut self.unbalanced) {
                self.balance();
            }
        }
        if !settled(self) {
            self.timers.set(self.now + 1, Timer::Rest);
        }
        let left = self.ending.as_ref().is_some_and(Ending::leaves);
        if left || (self.open == 0 && self.leases.busy == 0) {
            self.done = true;
            self.out.push(Action::Done { uncertain: self.leases.held() });
        }
    }

    fn at(&self, test: TestId) -> At {
        self.tests.get(test as usize).map_or(At::Done, |test| test.at)
    }

    fn platform_of(&self, test: TestId) -> PlatformId {
        self.tests.get(test as usize).map_or(0, |test| test.platform)
    }

    fn platform(&self, platform: PlatformId) -> &PlatformState {
        &self.platforms[usize::from(platform)]
    }

    fn platform_mut(&mut self, platform: PlatformId) -> &mut PlatformState {
        &mut self.platforms[usize::from(platform)]
    }

    fn chain_of(&self, platform: PlatformId) -> ChainId {
        self.platform(platform).chain
    }

    fn chain(&self, chain: ChainId) -> &ChainState {
        &self.chains[usize::from(chain)]
    }

    fn chain_mut(&mut self, chain: ChainId) -> &mut ChainState {
        &mut self.chains[usize::from(chain)]
    }

    fn note(&mut self, chain: ChainId, note: Note) {
        self.out.push(Action::Note { chain, now: self.now, note });
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.out.push(Action::Trouble(trouble));
    }

    /// Whether tests may still start.
    fn is_open_for_work(&self) -> bool {
        self.ending.is_none()
    }

    fn announce(&mut self, chain: ChainId, kind: Option<Arc<KindInfo>>) {
        self.out.extend(kind.map(|kind| Action::Kind { chain, kind }));
    }

    fn next_ask(&mut self) -> AskId {
        self.next_ask += 1;
        self.next_ask - 1
    }

    fn arm(&mut self, lease: LeaseId) {
        let due = self.due(lease);
        if let Some(it) = self.leases.get_mut(lease).filter(|it| due < it.armed) {
            it.armed = due;
            self.timers.set(due, Timer::Lease(lease));
        }
    }

    fn stop(&mut self, level: Shutdown, cause: &Cause) {
        match level {
            Shutdown::Finish => self.cancel(cause),
            Shutdown::Release => self.let_go(cause),
            Shutdown::Leave => self.leave(cause),
        }
    }
}

/// The most slots that a machine for this platform may have.
fn slots_of(config: &Config, platform: PlatformId) -> u16 {
    let serves = |pool: &&super::config::Pool| pool.serves.iter().any(|served| served.platform == platform);
    config.pools.iter().filter(serves).map(|pool| pool.slots).max().unwrap_or(1)
}
