//! A door that one call at a time goes through, where the others can be cancelled while they wait.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atex_plugin_api::{Error, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::call::{Call, wait_for};

/// Lets one call at a time to a value, for work that takes long: a download, a build.
#[derive(Debug, Default)]
pub struct Gate<T> {
    state: Mutex<State>,
    value: Mutex<T>,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: Vec<Arc<OwnedFd>>,
}

/// The right to be inside; ends when dropped.
#[derive(Debug)]
pub struct Pass<'a, T> {
    gate: &'a Gate<T>,
    value: MutexGuard<'a, T>,
}

impl<T> Gate<T> {
    /// A gate around `value`.
    pub fn new(value: T) -> Self {
        Self { state: Mutex::default(), value: Mutex::new(value) }
    }

    /// Waits until nobody is inside; an error if `call` ends first.
    pub fn enter(&self, call: &Call) -> Result<Pass<'_, T>> {
        loop {
            call.check()?;
            let Some(mine) = self.take_or_queue()? else {
                let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
                return Ok(Pass { gate: self, value });
            };
            let deadline = call.remaining().and_then(|left| std::time::Instant::now().checked_add(left));
            let wanted = PollFlags::IN;
            wait_for(
                &mut [
                    PollFd::from_borrowed_fd(mine.as_fd(), wanted),
                    PollFd::from_borrowed_fd(call.signal(), wanted),
                ],
                deadline,
            );
            self.state().waiting.retain(|other| !Arc::ptr_eq(other, &mine));
        }
    }

    /// `None`: inside. Else a descriptor that becomes readable when it is worth trying again.
    fn take_or_queue(&self) -> Result<Option<Arc<OwnedFd>>> {
        let mut state = self.state();
        if !state.taken {
            state.taken = true;
            return Ok(None);
        }
        let mine = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::from(error).context("making an event descriptor"))?;
        let mine = Arc::new(mine);
        state.waiting.push(Arc::clone(&mine));
        Ok(Some(mine))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> std::ops::Deref for Pass<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> std::ops::DerefMut for Pass<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.taken = false;
        // All are woken: the first may have been cancelled meanwhile, and they are few.
        for waiting in &state.waiting {
            let _ = rustix::io::write(waiting, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use atex_plugin_api::ErrorKind;
    use atex_plugin_api::host_side::Cancel;

    use super::*;
    use crate::testing::fake;

    #[test]
    fn all_get_in_one_after_the_other() {
        let gate = Gate::new(0_u32);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let call = Call::new(&fake(Cancel::new()).1).unwrap();
                    for _ in 0..50 {
                        *gate.enter(&call).unwrap() += 1;
                    }
                });
            }
        });
        let call = Call::new(&fake(Cancel::new()).1).unwrap();
        assert_eq!(*gate.enter(&call).unwrap(), 400);
        assert!(gate.state().waiting.is_empty());
    }

    #[test]
    fn who_waits_can_be_cancelled() {
        let gate = Gate::new(());
        let inside = gate.enter(&Call::new(&fake(Cancel::new()).1).unwrap()).unwrap();
        let call = Call::new(&fake(Cancel::new()).1).unwrap();
        let error = thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.enter(&call).map(drop).unwrap_err());
            call.cancel();
            waiter.join().unwrap()
        });
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        drop(inside);
        assert!(gate.state().waiting.is_empty());
    }
}
