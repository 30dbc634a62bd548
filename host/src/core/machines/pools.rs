//! Pools: how many machines each holds, and how it refuses.

use crate::core::event::{Ms, PlatformId};

/// What is known of one pool.
#[derive(Debug, Default)]
pub(crate) struct PoolState {
    /// Machines that exist, may exist, or are on their way.
    pub(crate) held: u32,
    /// Reservations under way.
    pub(crate) reserving: u32,
    /// Leases in doubt whose confirmation is overdue.
    pub(crate) stuck: u32,
    /// Waves of failures in a row.
    pub(crate) failures: u32,
    /// Refusals for want of a free machine, in a row.
    busy: u32,
    busy_since: Option<Ms>,
    /// When the last counted failure was: what was asked for before it belongs to the same wave.
    last_failure: Option<Ms>,
    /// Not asked before this time.
    pub(crate) not_before: Ms,
    /// Not asked at all any more.
    pub(crate) dead: bool,
    /// Observed time from the reservation to a machine that is ready; 0 if unknown.
    pub(crate) startup: Ms,
    /// Per platform, machines in a row that no policy wants its tests on.
    pub(crate) fruitless: Vec<u32>,
}

impl PoolState {
    pub(crate) fn new(platforms: usize, startup: Ms) -> Self {
        Self { startup, fruitless: vec![0; platforms], ..Self::default() }
    }

    /// A reservation succeeded.
    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.busy, self.busy_since) = (0, 0, None);
    }

    /// A reservation asked for at `asked` failed. Returns how many pauses to double, `None` if the same wave was counted.
    pub(crate) fn failed(&mut self, asked: Ms, now: Ms) -> Option<u32> {
        if self.last_failure.is_some_and(|last| asked <= last) {
            return None;
        }
        self.last_failure = Some(now);
        self.failures = self.failures.saturating_add(1);
        Some(self.failures - 1)
    }

    /// Nothing was free. Returns how many pauses to double, and since when it has been so.
    pub(crate) fn was_busy(&mut self, now: Ms) -> (u32, Ms) {
        self.busy = self.busy.saturating_add(1);
        (self.busy - 1, *self.busy_since.get_or_insert(now))
    }

    /// How many reservations may be under way: fewer after failures.
    pub(crate) fn width(&self, max: u32) -> u32 {
        max.checked_shr(self.failures.min(31)).unwrap_or(0).max(1)
    }

    /// A machine took this long to be ready.
    pub(crate) fn observe(&mut self, startup: Ms) {
        self.startup = if self.startup == 0 { startup } else { (3 * self.startup + startup) / 4 };
    }

    pub(crate) fn fruitless(&self, platform: PlatformId) -> u32 {
        self.fruitless.get(usize::from(platform)).copied().unwrap_or(0)
    }

    pub(crate) fn set_fruitless(&mut self, platform: PlatformId, count: u32) {
        if let Some(slot) = self.fruitless.get_mut(usize::from(platform)) {
            *slot = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_of_failures_counts_once() {
        let mut pool = PoolState::new(1, 0);
        assert_eq!(pool.failed(0, 100), Some(0));
        assert_eq!(pool.failed(0, 100), None);
        assert_eq!(pool.failed(50, 200), None);
        assert_eq!(pool.failed(150, 300), Some(1));
        assert_eq!(pool.width(100), 25);
        pool.succeeded();
        assert_eq!((pool.failures, pool.width(100)), (0, 100));
    }

    #[test]
    fn startup_follows_what_is_observed() {
        let mut pool = PoolState::new(1, 0);
        pool.observe(1000);
        assert_eq!(pool.startup, 1000);
        pool.observe(2000);
        assert_eq!(pool.startup, 1250);
    }
}
