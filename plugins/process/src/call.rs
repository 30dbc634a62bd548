//! A call of the host, in a form that `poll` can wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use atex_plugin_api::{Error, ErrorKind, Host, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// How long the thread that watches the host's token may outlive its call. The token has no descriptor to wait for and
/// cannot be woken from here; cancellation itself is seen at once.
const LINGER: Duration = Duration::from_secs(1);

/// One call of a plugin: ends when the host says so, when its time is over, or by [`cancel`](Self::cancel). Clones are the
/// same call.
#[derive(Debug, Clone)]
pub struct Call(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    host: Host,
    /// Readable for ever once the call is cancelled.
    signal: OwnedFd,
    cancelled: AtomicBool,
    /// When the call is over whatever the host says; for calls that tidy up after a cancelled one.
    deadline: Option<Instant>,
    watched: OnceLock<bool>,
}

impl Call {
    /// The call that `host` belongs to.
    pub fn new(host: &Host) -> Result<Self> {
        Self::make(host, None)
    }

    /// A call that goes on after the host's was cancelled, for `limit` at most: to tidy up.
    pub fn tidying(host: &Host, limit: Duration) -> Result<Self> {
        Self::make(host, Some(limit))
    }

    fn make(host: &Host, limit: Option<Duration>) -> Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::from(error).context("making an event descriptor"))?;
        Ok(Self(Arc::new(Shared {
            host: host.clone(),
            signal,
            cancelled: AtomicBool::new(false),
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            watched: OnceLock::new(),
        })))
    }

    /// The host's handle.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Ends the call.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether the call has ended, for whatever reason.
    pub fn cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
            || match self.0.deadline {
                Some(deadline) => deadline <= Instant::now(),
                None => self.0.host.cancelled(),
            }
    }

    /// An error of kind [`ErrorKind::Cancelled`] once the call has ended.
    pub fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::new(ErrorKind::Cancelled, "cancelled")) } else { Ok(()) }
    }

    /// Time left; `None` if there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        match self.0.deadline {
            Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            None => self.0.host.remaining(),
        }
    }

    /// Waits for `timeout`, but not longer than until the call ends; says whether it has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let limit = self.remaining().map_or(timeout, |left| left.min(timeout));
        let mut fds = [PollFd::from_borrowed_fd(self.signal(), PollFlags::IN)];
        wait_for(&mut fds, Instant::now().checked_add(limit));
        self.cancelled()
    }

    /// Readable once the call is cancelled; a deadline of a tidying call does not show here.
    pub(crate) fn signal(&self) -> BorrowedFd<'_> {
        self.0.watched.get_or_init(|| self.0.deadline.is_none() && self.watch());
        self.0.signal.as_fd()
    }

    /// Without the thread (no more threads to be had) the call still ends by itself, only not sooner.
    fn watch(&self) -> bool {
        let (host, shared) = (self.0.host.clone(), Arc::downgrade(&self.0));
        let watch = move || {
            while Weak::strong_count(&shared) > 0 {
                if host.wait_cancelled(LINGER) {
                    if let Some(shared) = shared.upgrade() {
                        shared.cancel();
                    }
                    return;
                }
            }
        };
        thread::Builder::new().name("plugin-cancel".into()).spawn(watch).is_ok()
    }
}

impl Shared {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        // Fails only when the counter is full: then it is readable anyway.
        let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
    }
}

/// Waits for one of `fds` until `deadline`. Interruptions and failures look like a time-out that came early: all callers
/// look at the state of things themselves.
pub(crate) fn wait_for(fds: &mut [PollFd<'_>], deadline: Option<Instant>) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let _ = poll(fds, left.as_ref());
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::host_side::Cancel;

    use super::*;
    use crate::testing::fake;

    #[test]
    fn cancelling_the_host_ends_a_wait() {
        let (services, host) = fake(Cancel::new());
        let call = Call::new(&host).unwrap();
        assert!(!call.wait(Duration::ZERO));
        let waiter = call.clone();
        let thread = thread::Builder::new().spawn(move || waiter.wait(Duration::from_hours(1))).unwrap();
        services.cancel.cancel();
        assert!(thread.join().unwrap());
        assert_eq!(call.check().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_tidying_call_goes_on_after_the_host_was_cancelled() {
        let (services, host) = fake(Cancel::new());
        services.cancel.cancel();
        let call = Call::tidying(&host, Duration::from_hours(1)).unwrap();
        assert!(!call.cancelled() && !call.wait(Duration::ZERO));
        call.cancel();
        assert!(call.wait(Duration::from_hours(1)));
        assert!(Call::tidying(&host, Duration::ZERO).unwrap().cancelled());
    }

    #[test]
    fn a_deadline_of_the_host_ends_it() {
        let call = Call::new(&fake(Cancel::after(Duration::ZERO)).1).unwrap();
        assert!(call.wait(Duration::from_hours(1)));
        assert_eq!(call.remaining(), Some(Duration::ZERO));
    }
}
