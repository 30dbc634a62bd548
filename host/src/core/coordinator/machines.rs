//! The life of a lease, from the reservation to the confirmed end.

use std::sync::Arc;

use atex_plugin_api::model::Facts;

use super::Coordinator;
use crate::core::event::{Action, Labels, LeaseId, Ms, Note, PlatformId, PoolId, Refusal, Trouble};
use crate::core::hash::mix;
use crate::core::machines::{Lease, Probe, State};
use crate::core::timers::Timer;

/// Facts that tests may leave on one machine.
const LABELS: usize = 100;

impl Coordinator {
    pub(super) fn reserve(&mut self, pool: PoolId, platform: PlatformId) {
        let Some(from) = self.config.pools.get(usize::from(pool)) else { return };
        let (slots, time) = (from.slots, from.reserve_time);
        let mut lease = Lease::new(pool, platform, slots, self.now);
        lease.deadline = self.now.saturating_add(time);
        let lease = self.leases.push(lease);
        let state = &mut self.pools[usize::from(pool)];
        state.held += 1;
        state.reserving += 1;
        self.join(lease, platform);
        self.arm(lease);
        self.out.push(Action::Reserve { lease, pool, platform });
    }

    pub(super) fn reserved(&mut self, lease: LeaseId, expires: Option<Ms>) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if std::mem::replace(&mut it.answered, true) {
            return;
        }
        let pool = usize::from(it.pool);
        match it.state {
            State::Reserving => {
                let platform = it.platform;
                self.pools[pool].reserving -= 1;
                self.pools[pool].succeeded();
                self.promised(lease, expires);
                self.begin_setup(lease, platform);
            }
            State::Aborting => {
                self.pools[pool].reserving -= 1;
                self.give_back(lease);
            }
            // We had written it off, and it came after all.
            State::Uncertain => self.give_back(lease),
            State::Gone => {
                self.pools[pool].held += 1;
                self.give_back(lease);
            }
            State::SettingUp | State::Ready | State::Draining | State::Releasing => {}
        }
    }

    pub(super) fn reserve_failed(&mut self, lease: LeaseId, refusal: Refusal, certain: bool) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if it.answered {
            return;
        }
        let (state, pool, since) = (it.state, it.pool, it.since);
        match state {
            State::Reserving => {
                self.pools[usize::from(pool)].reserving -= 1;
                self.refused(pool, refusal, since);
                self.part(lease);
            }
            State::Aborting => {
                self.pools[usize::from(pool)].reserving -= 1;
            }
            State::Uncertain if certain => {}
            _ => return,
        }
        if certain {
            self.gone(lease);
        } else {
            self.doubt(lease);
        }
    }

    /// A pool refused a reservation asked for at `asked`.
    pub(super) fn refused(&mut self, pool: PoolId, refusal: Refusal, asked: Ms) {
        let now = self.now;
        let patience = self.config.pools[usize::from(pool)].reserve_time;
        let most = self.config.limits.reserve_failures;
        let state = &mut self.pools[usize::from(pool)];
        let doublings = match refusal {
            Refusal::Final => {
                self.bury(pool);
                return;
            }
            Refusal::Busy => {
                let (doublings, since) = state.was_busy(now);
                // As long as machines of the pool work, it is merely smaller than it claimed to be.
                if state.held.saturating_sub(state.reserving) <= 1 && now.saturating_sub(since) > patience {
                    self.bury(pool);
                    return;
                }
                Some(doublings)
            }
            Refusal::Failed => state.failed(asked, now),
        };
        if state.failures > most {
            self.bury(pool);
            return;
        }
        let Some(doublings) = doublings else { return };
        let limits = &self.config.limits;
        let pause = limits
            .backoff
            .checked_shl(doublings.min(32))
            .unwrap_or(Ms::MAX)
            .clamp(1, limits.backoff_max.max(1));
        let jitter = mix(self.config.seed ^ mix(u64::from(pool) << 32 | u64::from(doublings)) ^ now) % pause;
        let at = now.saturating_add(pause / 2).saturating_add(jitter);
        let state = &mut self.pools[usize::from(pool)];
        if at > state.not_before {
            state.not_before = at;
            self.timers.set(at, Timer::Pool(pool));
        }
    }

    fn bury(&mut self, pool: PoolId) {
        self.unbalanced = true;
        if !std::mem::replace(&mut self.pools[usize::from(pool)].dead, true) {
            self.trouble(Trouble::PoolGivenUp { pool });
        }
    }

    /// Prepares a machine for a platform that counts it already.
    pub(super) fn begin_setup(&mut self, lease: LeaseId, platform: PlatformId) {
        let deadline = self.now.saturating_add(self.config.limits.setup_time);
        self.enter(lease, State::SettingUp);
        let Some(it) = self.leases.get_mut(lease) else { return };
        it.setup += 1;
        it.deadline = deadline;
        let (setup, facts) = (it.setup, it.facts.clone());
        self.arm(lease);
        if let Some(facts) = facts {
            self.board(lease, &facts);
        }
        self.out.push(Action::Setup { lease, setup, platform });
    }

    pub(super) fn identified(&mut self, lease: LeaseId, facts: &Arc<Facts>) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if it.facts.is_some() || it.state != State::SettingUp {
            return;
        }
        it.facts = Some(facts.clone());
        self.board(lease, facts);
    }

    pub(super) fn set_up(&mut self, lease: LeaseId, setup: u32) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if it.state != State::SettingUp || it.setup != setup {
            return;
        }
        if it.expires.is_some_and(|end| end <= self.now) {
            // It took all the time there was.
            return self.setup_failed(lease, setup, false);
        }
        it.deadline = Ms::MAX;
        let (pool, platform, took, slots) =
            (it.pool, it.platform, self.now.saturating_sub(it.since), it.slots);
        let unknown = it.facts.is_none().then(|| Arc::new(Facts::new()));
        let first = it.ran == 0 && setup == 1;
        self.enter(lease, State::Ready);
        if let Some(none) = unknown {
            self.board(lease, &none);
        }
        if first {
            self.pools[usize::from(pool)].observe(took.max(1));
        }
        let state = self.platform_mut(platform);
        state.setup_failures = 0;
        state.pending.remove(&lease);
        state.pending_slots -= u64::from(slots);
        state.ready_slots += u64::from(slots);
        self.arm(lease);
        self.offer(lease);
    }

    pub(super) fn setup_failed(&mut self, lease: LeaseId, setup: u32, lost: bool) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if it.state != State::SettingUp || it.setup != setup {
            return;
        }
        it.spoilt = true;
        it.lost |= lost;
        let platform = it.platform;
        let most = self.config.limits.setup_failures;
        let state = self.platform_mut(platform);
        state.setup_failures += 1;
        if state.setup_failures > most && !std::mem::replace(&mut state.given_up, true) {
            self.trouble(Trouble::PlatformGivenUp { platform });
        }
        self.release(lease);
    }

    pub(super) fn labelled(&mut self, lease: LeaseId, key: Arc<str>, value: Arc<str>) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        if !matches!(it.state, State::Ready | State::Draining) {
            return;
        }
        let labels = it.labels.get_or_insert_with(|| Arc::new(Labels::new()));
        if labels.len() >= LABELS && !labels.contains_key(&key) {
            return;
        }
        Arc::make_mut(labels).insert(key.clone(), value.clone());
        let chain = self.chain_of(self.leases.get(lease).map_or(0, |it| it.platform));
        self.note(chain, Note::Label { machine: lease, key, value });
    }

    pub(super) fn lost(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        let setup = it.setup;
        match it.state {
            // Machines that die of their set-up must come to an end too.
            State::SettingUp => self.setup_failed(lease, setup, true),
            State::Ready | State::Draining => {
                (it.spoilt, it.lost) = (true, true);
                self.release(lease);
            }
            _ => {}
        }
    }

    /// Ends a lease, whatever it is doing; executions on it are lost.
    pub(super) fn release(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        let state = it.state;
        if !state.serves() {
            return;
        }
        let lost: Vec<_> = it.running.iter().map(|run| run.execution).collect();
        let (seen, platform) = (it.setup > 0 && state != State::SettingUp || it.ran > 0, it.platform);
        it.ask = None;
        self.part(lease);
        for execution in lost {
            self.execution_lost(execution);
        }
        if seen {
            let chain = self.chain_of(platform);
            self.note(chain, Note::Gone { machine: lease });
        }
        if state == State::Reserving {
            self.enter(lease, State::Aborting);
            let deadline = self.now.saturating_add(self.config.limits.abort_time);
            if let Some(it) = self.leases.get_mut(lease) {
                it.deadline = deadline;
            }
            self.arm(lease);
            self.out.push(Action::Abort { lease });
        } else if !self.ask_after(lease) {
            self.give_back(lease);
        }
    }

    /// Calls `release`; again, if it was called before.
    pub(super) fn give_back(&mut self, lease: LeaseId) {
        self.enter(lease, State::Releasing);
        let deadline = self.now.saturating_add(self.config.limits.release_time);
        let Some(it) = self.leases.get_mut(lease) else { return };
        it.deadline = deadline;
        (it.pausing, it.probe) = (false, Probe::None);
        let spoilt = it.spoilt;
        self.arm(lease);
        self.out.push(Action::Release { lease, spoilt });
    }

    pub(super) fn released(&mut self, lease: LeaseId) {
        match self.leases.state(lease) {
            State::Aborting => {
                if let Some(it) = self.leases.get(lease) {
                    self.pools[usize::from(it.pool)].reserving -= 1;
                }
                self.gone(lease);
            }
            // Not asked for yet.
            State::Releasing if self.is_asked_after(lease) => {}
            State::Releasing | State::Uncertain => self.gone(lease),
            _ => {}
        }
    }

    pub(super) fn release_failed(&mut self, lease: LeaseId) {
        let limits = &self.config.limits;
        // Pauses grow, up to what one call may take.
        let (most, backoff, longest) = (limits.release_tries, limits.backoff, limits.abort_time);
        let now = self.now;
        let Some(it) = self.leases.get_mut(lease) else { return };
        if it.state != State::Releasing || it.pausing || it.probe != Probe::None {
            return;
        }
        it.tries += 1;
        if it.tries >= most {
            self.doubt(lease);
            return;
        }
        it.pausing = true;
        let pause = backoff.checked_shl(it.tries.min(32)).unwrap_or(Ms::MAX).min(longest);
        it.deadline = now.saturating_add(pause);
        self.arm(lease);
    }

    /// It is not known whether the lease holds anything: somebody has to look.
    pub(super) fn doubt(&mut self, lease: LeaseId) {
        if self.leases.state(lease) == State::Uncertain {
            return;
        }
        self.enter(lease, State::Uncertain);
        let deadline = self.now.saturating_add(self.config.limits.settle_time);
        if let Some(it) = self.leases.get_mut(lease) {
            it.deadline = deadline;
        }
        self.arm(lease);
        self.unbalanced = true;
        self.out.push(Action::Confirm { lease });
        self.trouble(Trouble::LeaseUncertain { lease });
    }

    pub(super) fn gone(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        it.deadline = Ms::MAX;
        it.labels = None;
        let pool = usize::from(it.pool);
        self.pools[pool].held -= 1;
        self.enter(lease, State::Gone);
        self.unbalanced = true;
    }

    /// Moves a lease to another state, and keeps the counts.
    pub(super) fn enter(&mut self, lease: LeaseId, state: State) {
        let unstuck = self.leases.enter(lease, state);
        if let Some(it) = self.leases.get(lease).filter(|_| unstuck) {
            self.pools[usize::from(it.pool)].stuck -= 1;
        }
    }

    /// Counts a lease for a platform: as one on its way.
    pub(super) fn join(&mut self, lease: LeaseId, platform: PlatformId) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        it.platform = platform;
        let slots = u64::from(it.slots);
        let state = self.platform_mut(platform);
        state.held += 1;
        state.held_slots += slots;
        state.pending.insert(lease);
        state.pending_slots += slots;
    }

    /// Takes a lease out of every count of its platform.
    pub(super) fn part(&mut self, lease: LeaseId) {
        self.unbalanced = true;
        let Some(it) = self.leases.get_mut(lease) else { return };
        let (platform, slots, waits_for, state) =
            (it.platform, u64::from(it.slots), it.waits_for.take(), it.state);
        let its = self.platform_mut(platform);
        its.held -= 1;
        its.held_slots -= slots;
        if its.pending.remove(&lease) {
            its.pending_slots -= slots;
        }
        if matches!(state, State::Ready | State::Draining) {
            its.ready_slots -= slots;
        }
        its.idle.remove(&lease);
        its.partial.remove(&lease);
        if let Some(test) = waits_for {
            its.claims.remove(&test);
        }
    }
}
