//! A cancel token with a deadline.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells a call that it should give up: because somebody said so, or because its time is over. Clones are the same token.
#[derive(Clone)]
pub struct Cancel(Arc<Shared>);

struct Shared {
    cancelled: Mutex<bool>,
    changed: Condvar,
    deadline: Option<Instant>,
}

impl Cancel {
    /// A token that ends only when [`cancel`](Self::cancel) is called.
    pub fn new() -> Self {
        Self::at(None)
    }

    /// A token that ends after `limit` as well.
    pub fn after(limit: Duration) -> Self {
        Self::at(Instant::now().checked_add(limit))
    }

    fn at(deadline: Option<Instant>) -> Self {
        Self(Arc::new(Shared { cancelled: Mutex::new(false), changed: Condvar::new(), deadline }))
    }

    /// Ends it, for ever.
    pub fn cancel(&self) {
        *self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }

    /// Whether it ended.
    pub fn cancelled(&self) -> bool {
        self.overdue() || *self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it ends or `timeout` is over; says whether it ended.
    pub fn wait(&self, timeout: Duration) -> bool {
        let limit = self.remaining().map_or(timeout, |remaining| remaining.min(timeout));
        let guard = self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(guard, limit, |cancelled| !*cancelled);
        let cancelled = *waited.unwrap_or_else(PoisonError::into_inner).0;
        cancelled || self.overdue()
    }

    /// Time left; `None` if it has no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn overdue(&self) -> bool {
        self.remaining().is_some_and(|remaining| remaining.is_zero())
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel")
            .field("cancelled", &self.cancelled())
            .field("remaining", &self.remaining())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_thread_is_woken() {
        let cancel = Cancel::new();
        let waiter = cancel.clone();
        let thread = std::thread::Builder::new().spawn(move || waiter.wait(Duration::MAX)).unwrap();
        assert!(!cancel.wait(Duration::ZERO));
        cancel.cancel();
        assert!(thread.join().unwrap());
        assert!(cancel.cancelled());
    }

    #[test]
    fn a_deadline_that_has_passed_is_a_cancellation() {
        let cancel = Cancel::after(Duration::ZERO);
        assert!(cancel.cancelled() && cancel.wait(Duration::MAX));
        assert_eq!(Cancel::after(Duration::MAX).remaining(), None);
    }
}
