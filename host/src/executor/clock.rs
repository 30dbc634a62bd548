//! The time limit of one run of a test, and what the test may do to it.
//!
//! Pure: every call is told the time. The clock runs from the start of the test through its reboots; it stands still while
//! the test has it saved (`duration save` ... `restore`, nested) and while the host holds it, which are counted apart, so
//! that neither can end the other's pause.

use std::time::{Duration, Instant};

/// What follows the word `duration` on the control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationChange {
    /// A new limit, from now on.
    Set(Duration),
    /// More time; what was used stays used.
    Add(Duration),
    /// Less time; what was used stays used.
    Subtract(Duration),
    /// Stop the clock.
    Save,
    /// Let it go on. Only the one that belongs to the outermost `save` does something; one without any is ignored.
    Restore,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Clock {
    limit: Duration,
    /// What counts against the limit, up to `since`.
    used: Duration,
    /// All the time that the clock ran, up to `since`.
    ran: Duration,
    /// The last time that `used` and `ran` were brought up to date, while the clock runs.
    since: Instant,
    saves: u32,
    holds: u32,
}

impl Clock {
    /// A clock that starts now.
    pub fn start(limit: Duration, now: Instant) -> Self {
        Self { limit, used: Duration::ZERO, ran: Duration::ZERO, since: now, saves: 0, holds: 0 }
    }

    /// What the test asked for at `now`.
    pub fn change(&mut self, change: DurationChange, now: Instant) {
        self.advance(now);
        match change {
            DurationChange::Set(limit) => (self.limit, self.used) = (limit, Duration::ZERO),
            DurationChange::Add(more) => self.limit = self.limit.saturating_add(more),
            DurationChange::Subtract(less) => self.limit = self.limit.saturating_sub(less),
            DurationChange::Save => self.saves = self.saves.saturating_add(1),
            DurationChange::Restore => self.saves = self.saves.saturating_sub(1),
        }
    }

    /// Stops the clock for the host's own reasons; nests.
    pub fn hold(&mut self, now: Instant) {
        self.advance(now);
        self.holds = self.holds.saturating_add(1);
    }

    /// Ends one [`hold`](Self::hold).
    pub fn release(&mut self, now: Instant) {
        self.advance(now);
        self.holds = self.holds.saturating_sub(1);
    }

    /// When the test is to be ended; `None` while the clock stands still (or the time is beyond what can be told).
    pub fn deadline(&self) -> Option<Instant> {
        let left = self.limit.saturating_sub(self.used);
        if self.stands_still() { None } else { self.since.checked_add(left) }
    }

    /// Whether the time is over.
    pub fn expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// What is left of the limit.
    pub fn left(&self, now: Instant) -> Duration {
        self.limit.saturating_sub(self.used).saturating_sub(self.running_since(now))
    }

    /// For how long the clock has run since the start.
    pub fn ran(&self, now: Instant) -> Duration {
        self.ran.saturating_add(self.running_since(now))
    }

    fn stands_still(&self) -> bool {
        self.saves > 0 || self.holds > 0
    }

    fn running_since(&self, now: Instant) -> Duration {
        if self.stands_still() { Duration::ZERO } else { now.saturating_duration_since(self.since) }
    }

    fn advance(&mut self, now: Instant) {
        let passed = self.running_since(now);
        self.used = self.used.saturating_add(passed);
        self.ran = self.ran.saturating_add(passed);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::DurationChange::{Add, Restore, Save, Set, Subtract};
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A clock with a limit of 100 s, changed at these seconds; its deadline in seconds.
    fn deadline(changes: &[(u64, DurationChange)]) -> Option<u64> {
        let start = Instant::now();
        let mut clock = Clock::start(s(100), start);
        for (at, change) in changes {
            clock.change(*change, start + s(*at));
        }
        clock.deadline().map(|at| at.duration_since(start).as_secs())
    }

    #[test]
    fn words_move_the_deadline() {
        assert_eq!(deadline(&[]), Some(100));
        assert_eq!(deadline(&[(40, Set(s(100)))]), Some(140), "a new limit starts from now");
        assert_eq!(deadline(&[(40, Add(s(10)))]), Some(110));
        assert_eq!(deadline(&[(40, Subtract(s(10)))]), Some(90));
        assert_eq!(deadline(&[(40, Subtract(s(80)))]), Some(40), "at once");
        assert_eq!(deadline(&[(40, Subtract(s(800))), (40, Add(s(50)))]), Some(50), "never below nothing");
        assert_eq!(deadline(&[(40, Save)]), None);
        assert_eq!(deadline(&[(40, Save), (70, Restore)]), Some(130));
        assert_eq!(deadline(&[(40, Save), (50, Save), (60, Restore)]), None, "the inner pair does not count");
        assert_eq!(deadline(&[(40, Save), (50, Save), (60, Restore), (70, Restore)]), Some(130));
        assert_eq!(
            deadline(&[(10, Restore), (40, Save), (70, Restore)]),
            Some(130),
            "one too many is ignored"
        );
        assert_eq!(deadline(&[(40, Save), (50, Set(s(10))), (70, Restore)]), Some(80));
        assert_eq!(deadline(&[(40, Save), (50, Add(s(10))), (70, Restore)]), Some(140));
    }

    #[test]
    fn what_is_left_and_what_was_used() {
        let start = Instant::now();
        let mut clock = Clock::start(s(100), start);
        assert!(!clock.expired(start + s(99)) && clock.expired(start + s(100)));
        clock.hold(start + s(10));
        clock.change(Save, start + s(15));
        clock.release(start + s(20));
        assert_eq!(clock.deadline(), None, "the test's own pause goes on");
        clock.change(Restore, start + s(30));
        assert_eq!((clock.left(start + s(35)), clock.ran(start + s(35))), (s(85), s(15)));
        clock.change(Set(s(1)), start + s(35));
        assert_eq!((clock.left(start + s(40)), clock.ran(start + s(40))), (s(0), s(20)));
    }

    proptest! {
        #[test]
        fn no_change_can_break_it(changes in prop::collection::vec((0_u64..50, 0_u8..5, any::<u64>()), 0..40)) {
            let start = Instant::now();
            let mut now = start;
            let mut clock = Clock::start(s(100), start);
            for (step, word, amount) in changes {
                now += s(step);
                let amount = Duration::from_millis(amount);
                clock.change([Set(amount), Add(amount), Subtract(amount), Save, Restore][usize::from(word)], now);
                prop_assert!(clock.ran(now) <= now.duration_since(start));
                prop_assert!(clock.deadline().is_none_or(|deadline| deadline >= now));
            }
        }
    }
}
