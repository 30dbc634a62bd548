//! Finding the next test for a machine with room.

use super::Coordinator;
use super::lifetime::Lives;
use crate::core::event::{Action, AskId, LeaseId, Note, PlatformId, Question, TestId, Trouble, Wish};
use crate::core::machines::{Renewal, State};
use crate::core::runs::{Active, At, Stage, Test};
use crate::core::timers::Open;

/// Machines with room for more that are asked about one newly queued test.
const WAKE: usize = 64;

impl Coordinator {
    /// A machine may have room: ask the policies about it, or choose at once if none wants to be asked.
    pub(super) fn offer(&mut self, lease: LeaseId) {
        while self.offer_once(lease) {}
    }

    /// Returns whether a test was started at once, and there may be room for another.
    fn offer_once(&mut self, lease: LeaseId) -> bool {
        self.drain_spoilt(lease);
        let Some(it) = self.leases.get(lease) else { return false };
        if it.state != State::Ready || it.ask.is_some() || it.free() == 0 || self.waits_on(lease) {
            return false;
        }
        let Some(it) = self.leases.get(lease) else { return false };
        let (platform, stall) = (it.platform, it.stall);
        let state = self.platform_mut(platform);
        state.idle.remove(&lease);
        state.partial.remove(&lease);
        if state.queued == 0 {
            self.rest(lease);
            return false;
        }
        if !self.lanes.serving(stall).is_some_and(|berth| berth.ready) {
            self.lanes.wait(stall, lease);
            return false;
        }
        self.ask_or_choose(lease, platform)
    }

    /// A spoilt machine gets no test any more, and is given back when the last one has ended.
    fn drain_spoilt(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get(lease).filter(|it| it.spoilt) else { return };
        let busy = !it.running.is_empty();
        match it.state {
            State::Ready if busy => self.enter(lease, State::Draining),
            State::Ready | State::Draining if !busy => self.release(lease),
            _ => {}
        }
    }

    /// Whether the machine goes on running empty for a wide test.
    fn waits_on(&mut self, lease: LeaseId) -> bool {
        let Some(it) = self.leases.get(lease) else { return false };
        let Some(test) = it.waits_for else { return false };
        let claim = self.claim(test, it.slots);
        if it.free() < claim {
            return true;
        }
        let platform = it.platform;
        self.platform_mut(platform).claims.remove(&test);
        if let Some(it) = self.leases.get_mut(lease) {
            it.waits_for = None;
        }
        false
    }

    fn ask_or_choose(&mut self, lease: LeaseId, platform: PlatformId) -> bool {
        let chain = self.chain_of(platform);
        let state = self.chain(chain);
        if !state.prefers || state.silent {
            return self.choose(lease, &[]);
        }
        let ask = self.next_ask();
        let Some(question) = self.question(lease) else { return false };
        if let Some(it) = self.leases.get_mut(lease) {
            it.ask = Some(ask);
        }
        self.timers.ask(self.now.saturating_add(self.config.limits.answer_time), Open::Ask(lease, ask));
        self.out.push(Action::Ask { chain, lease, ask, question: Box::new(question) });
        false
    }

    fn question(&mut self, lease: LeaseId) -> Option<Question> {
        let it = self.leases.get(lease)?;
        let chain = &self.chains[usize::from(self.platforms[usize::from(it.platform)].chain)];
        let mut windows = vec![];
        if let Some(berth) = self.lanes.serving_mut(it.stall).filter(|_| !chain.windows.is_empty()) {
            for &(level, count) in &chain.windows {
                windows.push((level, berth.lane.window(level, count, &self.tickets)));
            }
        }
        Some(Question {
            now: self.now,
            machine: lease,
            kind: it.kind,
            platform: it.platform,
            free: it.free(),
            slots: it.slots,
            ran: it.ran,
            last: it.last,
            last_ok: it.last_ok,
            running: it.running.iter().map(|run| run.test).collect(),
            labels: it.labels.clone(),
            windows,
        })
    }

    pub(super) fn preferred(&mut self, lease: LeaseId, ask: AskId, wishes: &[Wish]) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        let platform = it.platform;
        self.answered(platform);
        let Some(it) = self.leases.get_mut(lease).filter(|it| it.ask == Some(ask)) else { return };
        it.ask = None;
        self.choose_and_go_on(lease, wishes);
    }

    /// Chooses with what the policies said, and asks again if there is room for more.
    pub(super) fn choose_and_go_on(&mut self, lease: LeaseId, wishes: &[Wish]) {
        if self.choose(lease, wishes) {
            self.offer(lease);
        }
    }

    /// Starts the best test, or leaves the machine without one. Returns whether one was started.
    fn choose(&mut self, lease: LeaseId, wishes: &[Wish]) -> bool {
        let Some(it) = self.leases.get(lease).filter(|it| it.state == State::Ready) else { return false };
        if !self.is_open_for_work() || it.spoilt {
            self.rest(lease);
            return false;
        }
        self.decisions += 1;
        let (free, slots, stall, platform) = (it.free(), it.slots, it.stall, it.platform);
        let Some(berth) = self.lanes.serving_mut(stall) else { return false };
        let best = berth.lane.pick(wishes, free, slots, &self.tickets);
        if berth.lane.has_wide() && free < slots && self.wait_for_wide(lease, wishes) {
            return false;
        }
        let Some(test) = best else {
            self.rest(lease);
            return false;
        };
        self.start_in_time(lease, platform, test)
    }

    /// Starts a test if the machine lives long enough for it, or no other one would live longer.
    fn start_in_time(&mut self, lease: LeaseId, platform: PlatformId, test: TestId) -> bool {
        let need = self.tests.get(test as usize).map_or(0, Test::need);
        let lives = self.lives_for(lease, need);
        match lives {
            Lives::LongEnough => self.start(lease, platform, test),
            Lives::Unknown => self.rest(lease),
            Lives::No => self.retire(lease),
        }
        lives == Lives::LongEnough
    }

    /// If the best test of all needs more room than there is, the machine runs empty for it, unless another one does already.
    fn wait_for_wide(&mut self, lease: LeaseId, wishes: &[Wish]) -> bool {
        let Some(it) = self.leases.get(lease) else { return false };
        let (free, slots, stall, platform) = (it.free(), it.slots, it.stall, it.platform);
        if free == slots {
            return false;
        }
        let Some(berth) = self.lanes.serving_mut(stall) else { return false };
        let Some(best) = berth.lane.pick(wishes, slots, slots, &self.tickets) else { return false };
        if self.claim(best, slots) <= free || self.platform(platform).claims.contains_key(&best) {
            return false;
        }
        self.platform_mut(platform).claims.insert(best, lease);
        if let Some(it) = self.leases.get_mut(lease) {
            it.waits_for = Some(best);
        }
        true
    }

    fn start(&mut self, lease: LeaseId, platform: PlatformId, test: TestId) {
        let Some(it) = self.leases.get(lease) else { return };
        let (pool, stall, slots) = (it.pool, it.stall, it.slots);
        let claim = self.claim(test, slots);
        self.dequeue(test);
        if let Some(berth) = self.lanes.serving_mut(stall) {
            berth.lane.taken(test, &self.tickets);
        }
        self.pools[usize::from(pool)].set_fruitless(platform, 0);
        let execution = self.next_execution;
        self.next_execution += 1;
        let Some(entry) = self.tests.get_mut(test as usize) else { return };
        entry.at = At::Active;
        let (attempt, limit, estimate) = (entry.attempt, entry.limit, entry.estimate);
        let until = self.now.saturating_add(limit).saturating_add(self.config.limits.grace);
        self.active
            .insert(execution, Active { test, lease, started: self.now, until, stage: Stage::Running });
        let now = self.now;
        let state = self.platform_mut(platform);
        state.running += 1;
        state.running_ends += u128::from(now) + u128::from(estimate);
        let Some(it) = self.leases.get_mut(lease) else { return };
        let slot = it.occupy(execution, test, claim);
        if until < it.armed {
            self.arm(lease);
        }
        self.out.push(Action::Run { lease, execution, test, attempt, slot });
        let chain = self.chain_of(platform);
        self.note(chain, Note::Started { test, machine: lease });
    }

    /// Nothing for this machine now. If something runs there it may be asked again; else it is idle, or not fit for what
    /// waits.
    pub(super) fn rest(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get(lease).filter(|it| it.state == State::Ready) else { return };
        let (platform, pool, stall, ran) = (it.platform, it.pool, it.stall, it.ran);
        let renewing = matches!(it.renewal, Renewal::Asked(_));
        if !it.running.is_empty() {
            if it.free() > 0 && it.waits_for.is_none() {
                self.platform_mut(platform).partial.insert(lease);
            }
            return;
        }
        self.unbalanced = true;
        let unranked = self.lanes.serving(stall).is_some_and(|berth| berth.unranked > 0);
        if self.platform(platform).queued == 0 || unranked || renewing {
            self.platform_mut(platform).idle.insert(lease);
            return;
        }
        if ran == 0 {
            let count = self.pools[usize::from(pool)].fruitless(platform) + 1;
            self.pools[usize::from(pool)].set_fruitless(platform, count);
            if count == self.config.limits.fruitless + 1 {
                self.trouble(Trouble::PoolUnsuitable { pool, platform });
            }
        }
        self.release(lease);
    }

    /// Something is waiting now: machines without work, and some with room for more, are asked about again.
    pub(super) fn wake(&mut self, platform: PlatformId) {
        let state = self.platform(platform);
        if state.queued == 0 || (state.idle.is_empty() && state.partial.is_empty()) {
            return;
        }
        let from = state.wake_from;
        let after = state.partial.range(from..).chain(state.partial.range(..from));
        let some: Vec<LeaseId> = after.take(WAKE).copied().collect();
        let woken: Vec<LeaseId> = state.idle.iter().copied().chain(some.iter().copied()).collect();
        if let Some(last) = some.last() {
            self.platform_mut(platform).wake_from = last.wrapping_add(1);
        }
        for lease in woken {
            if self.platform(platform).queued == 0 {
                return;
            }
            self.offer(lease);
        }
    }

    /// Slots that a test takes on a machine with `slots`.
    pub(super) fn claim(&self, test: TestId, slots: u16) -> u16 {
        self.tickets.get(test as usize).map_or(1, |ticket| ticket.claim.min(slots).max(1))
    }
}
