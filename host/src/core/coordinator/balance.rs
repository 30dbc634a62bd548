//! Supply and demand of machines: asking for them, handing them over, giving them back.
//!
//! One rule says how many machines a platform lacks ([`Coordinator::shortage`]), for asking and for giving back alike:
//! with two, one part asks for what the other gives back, for ever.

use std::cmp::Reverse;

use super::Coordinator;
use crate::core::event::{LeaseId, Ms, Note, PlatformId, PoolId};
use crate::core::machines::State;
use crate::core::verdict::Cause;

/// A machine must do at least one part in this many of its start-up time to be worth asking for.
const WORTH: u64 = 4;

impl Coordinator {
    pub(super) fn balance(&mut self) {
        let platforms = 0..self.platforms.len() as PlatformId;
        for platform in platforms.clone() {
            self.give_up_if_hopeless(platform);
        }
        if self.is_open_for_work() {
            for platform in platforms.clone() {
                self.take_over(platform);
            }
        }
        for platform in platforms {
            self.give_back_excess(platform);
        }
        if self.is_open_for_work() {
            self.ask_for_machines();
        }
    }

    /// Slots that a platform lacks (above 0) or has too many of.
    fn shortage(&self, platform: PlatformId) -> i64 {
        let state = self.platform(platform);
        let coming = state.pending_slots as i64 + self.idle_slots(platform);
        self.demand(platform) as i64 + self.spare_slots(platform) as i64 - coming
    }

    /// Slots that the tests that wait are worth.
    fn demand(&self, platform: PlatformId) -> u64 {
        let state = self.platform(platform);
        let startup = self.startup(platform);
        if startup == 0 || state.queued == 0 {
            return state.queued_slots;
        }
        // Machines that work will be through with everything before a new one is up.
        let soon = state.ready_slots.saturating_mul(startup);
        if state.ready_slots > 0 && state.work.saturating_add(state.remaining(self.now)) <= soon {
            return 0;
        }
        let worth = state.work.saturating_mul(WORTH) / startup;
        state.queued_slots.min(worth.max(u64::from(state.slots)))
    }

    /// The shortest time in which a machine for this platform comes up, by what is known; 0 if nothing is.
    fn startup(&self, platform: PlatformId) -> Ms {
        let pools = self.config.pools.iter().zip(&self.pools);
        let serving = pools.filter(|(pool, state)| !state.dead && serves(pool, platform));
        serving.map(|(_, state)| state.startup).min().unwrap_or(0)
    }

    fn spare_slots(&self, platform: PlatformId) -> u64 {
        let state = self.platform(platform);
        let wanted = self.open > 0 && self.is_open_for_work() && (state.held > 0 || state.queued > 0);
        if wanted { u64::from(self.config.spares) * u64::from(state.slots) } else { 0 }
    }

    fn idle_slots(&self, platform: PlatformId) -> i64 {
        let idle = self.platform(platform).idle.iter();
        idle.filter_map(|&lease| self.leases.get(lease)).map(|it| i64::from(it.slots)).sum()
    }

    /// Without any prospect of a machine, tests that wait get their verdict.
    fn give_up_if_hopeless(&mut self, platform: PlatformId) {
        let state = self.platform(platform);
        if state.queued == 0 || state.held > 0 {
            return;
        }
        let most = self.config.limits.fruitless;
        let mut unsuitable = false;
        let full_for_ever = self.leases.stuck >= self.config.max_machines;
        let hope = self.config.pools.iter().zip(&self.pools).any(|(pool, its)| {
            if !serves(pool, platform) || its.dead || its.stuck >= pool.max || full_for_ever {
                return false;
            }
            let fruitless = its.fruitless(platform) > most;
            unsuitable |= fruitless;
            !fruitless
        });
        if hope && !state.given_up {
            return;
        }
        let cause = match (state.given_up, unsuitable) {
            (true, _) => Cause::SetupFailed,
            (false, true) => Cause::Unsuitable,
            (false, false) => Cause::NoMachine,
        };
        let tests = state.tests.clone();
        self.give_up(tests, &cause);
    }

    /// Machines without work that were set up for another platform are set up for this one.
    fn take_over(&mut self, platform: PlatformId) {
        while self.platform(platform).queued > 0 && !self.platform(platform).given_up {
            let shortage = self.shortage(platform);
            let waiting = self.platform(platform).pending.last().copied();
            let waiting = waiting.filter(|&lease| self.leases.state(lease) == State::Reserving);
            if shortage <= 0 && (waiting.is_none() || self.demand(platform) == 0) {
                return;
            }
            let Some(lease) = self.idle_elsewhere(platform) else { return };
            // A machine that is up is better than one that is still to come.
            if let Some(waiting) = waiting.filter(|_| shortage <= 0) {
                self.release(waiting);
            }
            self.hand_over(lease, platform);
        }
    }

    /// A machine that another platform does not need and this one could use.
    fn idle_elsewhere(&self, platform: PlatformId) -> Option<LeaseId> {
        let others = (0..self.platforms.len() as PlatformId).filter(|&other| other != platform);
        let unneeded = others.filter(|&other| self.platform(other).queued == 0);
        let mut idle = unneeded.flat_map(|other| self.platform(other).idle.iter().copied());
        idle.find(|&lease| {
            let Some(it) = self.leases.get(lease) else { return false };
            let serves = self.config.pools.get(usize::from(it.pool)).map_or(&[][..], |pool| &pool.serves);
            let flavour =
                |of| serves.iter().find(|served| served.platform == of).map(|served| served.flavour);
            let mine = flavour(platform);
            mine.is_some() && mine == flavour(it.platform)
        })
    }

    fn hand_over(&mut self, lease: LeaseId, platform: PlatformId) {
        let Some(old) = self.leases.get(lease).map(|it| it.platform) else { return };
        let (from, to) = (self.chain_of(old), self.chain_of(platform));
        if from != to {
            self.note(from, Note::Gone { machine: lease });
        }
        self.part(lease);
        let now = self.now;
        if let Some(it) = self.leases.get_mut(lease) {
            it.since = now;
        }
        self.join(lease, platform);
        self.begin_setup(lease, platform);
    }

    /// Machines and reservations beyond what waits and the spares are not kept.
    fn give_back_excess(&mut self, platform: PlatformId) {
        let state = self.platform(platform);
        let spares = self.spare_slots(platform) as i64;
        let queued = if self.is_open_for_work() { state.queued_slots as i64 } else { 0 };
        let mut excess = state.pending_slots as i64 + self.idle_slots(platform) - queued - spares;
        if state.queued == 0 {
            for lease in state.idle.clone() {
                let slots = self.leases.get(lease).map_or(0, |it| i64::from(it.slots));
                if excess < slots {
                    break;
                }
                // Reservations go before machines that are up.
                let pending = self.platform(platform).pending_slots as i64;
                if excess - pending < slots {
                    break;
                }
                excess -= slots;
                self.release(lease);
            }
        }
        while let Some(&lease) = self.platform(platform).pending.last() {
            let slots = self.leases.get(lease).map_or(0, |it| i64::from(it.slots));
            if excess < slots {
                return;
            }
            excess -= slots;
            self.release(lease);
        }
    }

    /// Asks for machines: for platforms first that have none at all, then for the one with the most work per machine.
    fn ask_for_machines(&mut self) {
        loop {
            let lacking = (0..self.platforms.len() as PlatformId)
                .filter(|&platform| !self.platform(platform).given_up && self.shortage(platform) > 0);
            let mut wishes: Vec<(bool, u64, Reverse<PlatformId>)> = lacking
                .map(|platform| {
                    let state = self.platform(platform);
                    let work = state.work.saturating_mul(16) / (state.held_slots + 1);
                    (state.held == 0, work, Reverse(platform))
                })
                .collect();
            wishes.sort_unstable();
            let mut asked = false;
            while let Some((_, _, Reverse(platform))) = wishes.pop() {
                if let Some(pool) = self.pool_with_room(platform) {
                    self.reserve(pool, platform);
                    asked = true;
                    break;
                }
                self.make_room(platform);
            }
            if !asked {
                return;
            }
        }
    }

    fn pool_with_room(&self, platform: PlatformId) -> Option<PoolId> {
        if self.leases.held() >= self.config.max_machines {
            return None;
        }
        let most = self.config.limits.fruitless;
        let pools = self.config.pools.iter().zip(&self.pools);
        let room = pools.map(|(pool, state)| {
            serves(pool, platform)
                && !state.dead
                && state.held < pool.max
                && state.not_before <= self.now
                && state.reserving < state.width(pool.max)
                && state.fruitless(platform) <= most
        });
        room.into_iter().position(|room| room).map(|pool| pool as PoolId)
    }

    /// Spares of one platform must not starve another: one is given back if it takes the place that is needed.
    fn make_room(&mut self, platform: PlatformId) {
        let state = self.platform(platform);
        if state.queued == 0 || !state.pending.is_empty() || state.ready_slots > 0 {
            return;
        }
        // A place that is about to be free is enough.
        let serving: u32 = self.platforms.iter().map(|other| other.held).sum();
        if self.leases.busy > serving {
            return;
        }
        let full = self.leases.held() >= self.config.max_machines;
        let most = self.config.limits.fruitless;
        let blocks = |lease: &LeaseId| {
            let Some(it) = self.leases.get(*lease) else { return false };
            let at = usize::from(it.pool);
            let (Some(pool), Some(its)) = (self.config.pools.get(at), self.pools.get(at)) else {
                return false;
            };
            let useful = serves(pool, platform) && !its.dead && its.fruitless(platform) <= most;
            full || (useful && its.held >= pool.max)
        };
        let others = self.platforms.iter().filter(|other| other.queued == 0);
        let idle = others.flat_map(|other| other.idle.iter().chain(&other.pending)).copied().find(blocks);
        if let Some(lease) = idle {
            self.release(lease);
        }
    }
}

fn serves(pool: &crate::core::config::Pool, platform: PlatformId) -> bool {
    pool.serves.iter().any(|served| served.platform == platform)
}
