//! Waking a thread that sleeps in `poll`.
//!
//! One descriptor stands in every `poll` of a machine's thread, so that an order reaches a thread which waits for its
//! machine. `stop` is for orders that cannot wait for their turn in a queue: a connection attempt looks at it wherever it
//! could wait. `hurry` is for orders that a dead machine must not keep waiting, whatever the thread is at.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Clones wake the same thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: OwnedFd,
    stop: AtomicBool,
    hurry: AtomicBool,
}

impl Waker {
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { event, stop: AtomicBool::new(false), hurry: AtomicBool::new(false) })))
    }

    /// End the current or the next `poll` of the thread. A full counter has woken it already.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
    }

    /// The thread is to give up whatever it waits for, from now on.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Somebody is in a hurry: the connection that the thread waits for is to show soon that it is alive.
    pub fn hurry(&self) {
        self.0.hurry.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether somebody has been in a hurry since this was last asked.
    pub fn take_hurry(&self) -> bool {
        self.0.hurry.swap(false, Ordering::AcqRel)
    }

    /// Forget wake-ups so far. Whoever calls this looks at its queue afterwards, before it sleeps again.
    pub fn drain(&self) {
        let _ = rustix::io::read(&self.0.event, &mut [0_u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
