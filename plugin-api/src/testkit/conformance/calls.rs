//! Calls of a provisioner that end when they should, or are left behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Conformance;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host_side::{Cancel, ProvisionerHandle};

/// How long a call may go on after its deadline or after it was cancelled: to tidy up.
const LONGEST_GRACE: Duration = Duration::from_mins(3);

/// Ends checks that are under way: calls are cancelled, no further check begins, and everything is given back.
#[derive(Debug, Default)]
pub struct Stop(Mutex<State>);

#[derive(Default)]
struct State {
    stopped: bool,
    /// End the calls that are under way. Those of calls that have ended do nothing; they are few.
    calls: Vec<Box<dyn Fn() + Send>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl Stop {
    /// Ends them; from any thread, and as often as one likes.
    pub fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopped = true;
        for end in state.calls.drain(..) {
            end();
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    fn add(&self, end: impl Fn() + Send + 'static) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            end();
        } else {
            state.calls.push(Box::new(end));
        }
    }
}

/// Whether a call ends with the checks or goes on to tidy up after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Checking,
    TidyingUp,
}

enum Said<T> {
    Answer(Result<T>),
    Cancelled,
}

/// A call that is under way.
pub(super) struct Pending<T> {
    cancel: Cancel,
    tell: SyncSender<Said<T>>,
    told: Receiver<Said<T>>,
    grace: Duration,
}

impl<T> Pending<T> {
    /// Tells the plugin to give up.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
        // Full: it has been said already, or there is an answer.
        let _said = self.tell.try_send(Said::Cancelled);
    }

    /// The answer; `None` if there was none in time: then the call is left behind.
    pub(super) fn wait(self) -> Option<Result<T>> {
        let mut limit = self.cancel.remaining().unwrap_or(Duration::MAX);
        let mut over = false;
        loop {
            match self.told.recv_timeout(limit) {
                Ok(Said::Answer(answer)) => return Some(answer),
                Err(RecvTimeoutError::Timeout) if over => return None,
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Said::Cancelled) | Err(RecvTimeoutError::Timeout) => (over, limit) = (true, self.grace),
            }
        }
    }
}

impl Conformance<'_> {
    /// Calls on a thread of its own.
    pub(super) fn start<T: Send + 'static>(
        &self,
        what: &'static str,
        to: &ProvisionerHandle,
        cancel: Cancel,
        when: When,
        call: impl FnOnce(&ProvisionerHandle, &Host) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        // Room for an answer and for both who may cancel it.
        let (tell, told) = sync_channel(3);
        let (host, to) = ((self.hosts)(cancel.clone()), to.clone());
        let grace = self.call_limit.min(LONGEST_GRACE);
        let pending = Pending { cancel, tell: tell.clone(), told, grace };
        if when == When::Checking {
            let (cancel, tell) = (pending.cancel.clone(), tell.clone());
            self.stop.add(move || {
                cancel.cancel();
                let _said = tell.try_send(Said::Cancelled);
            });
        }
        let run = move || {
            let answer = catch_unwind(AssertUnwindSafe(|| call(&to, &host)));
            let answer = answer.unwrap_or_else(|_| Err(Error::new(ErrorKind::Panic, "the call panicked")));
            let _nobody_waits = tell.send(Said::Answer(answer));
        };
        let thread = thread::Builder::new().name(format!("check {what}")).spawn(run);
        thread.map_err(|error| Error::from(error).context("starting a thread"))?;
        Ok(pending)
    }

    /// Calls and waits; a call that does not end is an error.
    pub(super) fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        to: &ProvisionerHandle,
        when: When,
        call: impl FnOnce(&ProvisionerHandle, &Host) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pending = self.start(what, to, Cancel::after(self.call_limit), when, call)?;
        pending.wait().unwrap_or_else(|| Err(self.never_ended()))
    }

    pub(super) fn never_ended(&self) -> Error {
        let grace = self.call_limit.min(LONGEST_GRACE);
        let message = format!("it did not end within {grace:?} after it was to give up, and was left behind");
        Error::new(ErrorKind::Other, message)
    }
}
