//! Wakes a thread that goes on with what grows, no more often than is of use.
//!
//! To wake a thread costs more than most of what it is woken for here: a line of the journal is read in less time. So who
//! listens says how long it rests after each time, and while it rests ringing costs nothing. Nobody has to ring twice.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A bell, and the one who hears it.
pub fn bell() -> (Ringer, Listener) {
    let state = State { ringers: 1, rung: false, listening: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (Ringer(Arc::clone(&shared)), Listener(shared))
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ringers: usize,
    /// Somebody rang, and the listener does not know yet.
    rung: bool,
    /// The listener sleeps until somebody rings.
    listening: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rings. When the last clone is gone, the listener is woken for the last time.
#[derive(Debug)]
pub struct Ringer(Arc<Shared>);

impl Ringer {
    /// Does not wait, and costs next to nothing if the listener rests, is at work, or has heard already.
    pub fn ring(&self) {
        let mut state = self.0.state();
        let news = !std::mem::replace(&mut state.rung, true) && state.listening;
        drop(state);
        if news {
            self.0.changed.notify_one();
        }
    }
}

impl Clone for Ringer {
    fn clone(&self) -> Self {
        self.0.state().ringers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Ringer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ringers -= 1;
        let last = state.ringers == 0;
        drop(state);
        if last {
            self.0.changed.notify_one();
        }
    }
}

/// Why [`Listener::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Somebody rang since the last time.
    Rung,
    /// Nobody rang within the limit.
    Nothing,
    /// Nobody has rung, and nobody is left who could.
    Over,
}

/// The one who is woken.
#[derive(Debug)]
pub struct Listener(Arc<Shared>);

impl Listener {
    /// Waits until somebody has rung since the last time, but rests until `rested` before it says so. The end is never rested for.
    /// `limit`: for this long at most.
    pub fn wait(&self, rested: Instant, limit: Option<Duration>) -> Heard {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut state = self.0.state();
        loop {
            let now = Instant::now();
            if state.rung && (now >= rested || state.ringers == 0) {
                state.rung = false;
                return Heard::Rung;
            }
            if state.ringers == 0 {
                return Heard::Over;
            }
            if until.is_some_and(|until| now >= until) {
                return Heard::Nothing;
            }
            let resting = (now < rested).then_some(rested);
            state.listening = resting.is_none();
            let next = until.map_or(resting, |until| Some(resting.map_or(until, |rested| rested.min(until))));
            state = match next {
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.listening = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn ringing_many_times_is_heard_once_and_the_end_after_it() {
        let (ringer, listener) = bell();
        ringer.ring();
        ringer.ring();
        let now = Instant::now();
        assert_eq!(listener.wait(now, None), Heard::Rung);
        assert_eq!(listener.wait(now, Some(Duration::ZERO)), Heard::Nothing);
        ringer.clone().ring();
        drop(ringer);
        assert_eq!(listener.wait(now + HOUR, None), Heard::Rung, "the end is not rested for");
        assert_eq!(listener.wait(now + HOUR, None), Heard::Over);
    }

    #[test]
    fn a_listener_at_rest_hears_of_the_end_and_a_sleeping_one_of_both() {
        let (ringer, listener) = bell();
        let listen = move || {
            let first = listener.wait(Instant::now(), None);
            (first, listener.wait(Instant::now() + HOUR, Some(HOUR)), listener.wait(Instant::now(), None))
        };
        let thread = thread::Builder::new().name("listener".into()).spawn(listen).unwrap();
        ringer.ring();
        while ringer.0.state().rung {
            thread::yield_now();
        }
        ringer.ring();
        drop(ringer);
        assert_eq!(thread.join().unwrap(), (Heard::Rung, Heard::Rung, Heard::Over));
    }

    #[test]
    fn what_rings_during_the_rest_is_heard_after_it() {
        let (ringer, listener) = bell();
        ringer.ring();
        let rested = Instant::now() + Duration::from_millis(5);
        assert_eq!(listener.wait(rested, None), Heard::Rung);
        assert!(Instant::now() >= rested);
    }
}
