//! Calls of provisioners, each on a thread of its own.
//!
//! A call may take hours or never return; nobody waits for its thread. The answer is an [`Input`] of the main loop, however
//! late; the coordinator's deadlines decide when it has been waited for long enough. A thread that never returns is left
//! behind when the process ends.

use std::{fmt, sync::mpsc::Sender, thread, time::Duration};

use atex_plugin_api::{
    Error, ErrorKind, Held, Lease,
    host_side::{Cancel, ProvisionerHandle},
};

use crate::{core::event::LeaseId, plugin::Caller};

use super::input::{Input, Returned};

/// Enough for plugins that talk to a server; those that need more make threads of their own.
const STACK_BYTES: usize = 1 << 20;
/// Pause between two looks at whether a lease in doubt exists.
const CONFIRM_PAUSE: Duration = Duration::from_secs(20);
/// `list`, `abort` and `renew` (plugin-api's contract).
const SHORT_CALL: Duration = Duration::from_secs(60);

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    Plugin(Error),
    /// The call could not even be made.
    NoThread(std::io::Error),
}

impl Failure {
    /// Whether it is certain that a failed `reserve` left nothing behind: not so after a panic, or if the plugin's answer made
    /// no sense.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Plugin(error) => error.kind() != ErrorKind::Panic && !error.is_nonsense(),
            Self::NoThread(_) => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(error) => error.fmt(f),
            Self::NoThread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

/// One configured provisioner, as the engine calls it.
#[derive(Debug, Clone)]
pub(crate) struct Provisioner {
    /// Name of the pool.
    pub(crate) name: String,
    pub(crate) handle: ProvisionerHandle,
    /// Makes the host handle that goes with a call.
    pub(crate) caller: Caller,
    pub(crate) can_list: bool,
    /// How long a cut-off reservation may still come up with a machine.
    pub(crate) settle: Duration,
}

impl Provisioner {
    /// Asks for a machine. The answer is [`Returned::Reserve`].
    pub(crate) fn reserve(&self, number: LeaseId, lease: Lease, cancel: &Cancel, inbox: &Sender<Input>) {
        let (this, cancel) = (self.clone(), cancel.clone());
        self.spawn("reserve", number, inbox, Returned::Reserve, move || {
            this.handle.reserve(&lease, &this.caller.host(cancel)).map(Box::new)
        });
    }

    /// Gives a machine back. The answer is [`Returned::Release`].
    pub(crate) fn release(&self, number: LeaseId, machine: String, limit: Duration, inbox: &Sender<Input>) {
        let this = self.clone();
        self.spawn("release", number, inbox, Returned::Release, move || {
            this.handle.release(&machine, &this.caller.host(Cancel::after(limit)))
        });
    }

    /// Tells the plugin that a reservation is not wanted any more; its call was cancelled before.
    pub(crate) fn abort(&self, number: LeaseId, lease: String, inbox: &Sender<Input>) {
        let this = self.clone();
        self.spawn("abort", number, inbox, Returned::Abort, move || {
            this.handle.abort(&lease, &this.caller.host(Cancel::after(SHORT_CALL)))
        });
    }

    /// Asks to keep a machine for `lifetime` from now. The answer is [`Returned::Renew`].
    pub(crate) fn renew(&self, number: LeaseId, machine: String, lifetime: Duration, inbox: &Sender<Input>) {
        let this = self.clone();
        self.spawn("renew", number, inbox, Returned::Renew, move || {
            this.handle.renew(&machine, lifetime, &this.caller.host(Cancel::after(SHORT_CALL)))
        });
    }

    /// Looks, until the settle time is over, whether anything bears the lease's mark, and gives that back. The answer is
    /// [`Returned::Confirm`].
    pub(crate) fn confirm(&self, number: LeaseId, lease: Lease, inbox: &Sender<Input>) {
        let this = self.clone();
        let to_answer = |gone: Result<bool, Failure>| Returned::Confirm(gone.unwrap_or(false));
        self.spawn("confirm", number, inbox, to_answer, move || Ok(this.can_list && this.until_absent(&lease)));
    }

    fn until_absent(&self, lease: &Lease) -> bool {
        let settled = Cancel::after(self.settle);
        loop {
            let last_look = settled.cancelled();
            let list = self.handle.list(&lease.owner, &self.caller.host(Cancel::after(SHORT_CALL)));
            let found = list.map(|held| held.into_iter().filter(|held| held.mark == lease.mark()).collect());
            let absent = found.is_ok_and(|found: Vec<Held>| self.release_all(found));
            if last_look {
                return absent;
            }
            settled.wait(CONFIRM_PAUSE);
        }
    }

    /// Whether there was nothing to release.
    fn release_all(&self, found: Vec<Held>) -> bool {
        let nothing = found.is_empty();
        for held in found {
            // If that fails, the next look finds it again.
            let _failed = self.handle.release(&held.id, &self.caller.host(Cancel::after(SHORT_CALL)));
        }
        nothing
    }

    fn spawn<T: 'static>(
        &self,
        call: &str,
        number: LeaseId,
        inbox: &Sender<Input>,
        answer: impl Fn(Result<T, Failure>) -> Returned + Send + Copy + 'static,
        run: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) {
        let to = inbox.clone();
        let thread =
            thread::Builder::new().name(format!("{call} {number}")).stack_size(STACK_BYTES).spawn(move || {
                // Nobody listens any more: the run is over.
                let _over = to.send(Input::Call(number, answer(run().map_err(Failure::Plugin))));
            });
        if let Err(error) = thread {
            let _over = inbox.send(Input::Call(number, answer(Err(Failure::NoThread(error)))));
        }
    }
}
