//! Calls of provisioners, each on a thread of its own.
//!
//! A call may take hours or never return; nobody waits for its thread. The answer is an [`Input`] of the main loop, however
//! late; the coordinator's deadlines decide when it has been waited for long enough. A thread that never returns is left
//! behind when the process ends.

use std::{fmt, sync::mpsc::Sender, thread, time::Duration};

use atex_plugin_api::{Capabilities, ErrorKind, Held, Lease, host_side::Cancel};

use crate::{
    core::event::{LeaseId, Refusal},
    plugin::{Call, CallError, NoAnswer, Provisioner, STACK_BYTES, within},
};

use super::input::{Input, Returned};

/// Pause between two looks at whether a lease in doubt exists.
const CONFIRM_PAUSE: Duration = Duration::from_secs(20);
/// `list`, `abort`, `alive` and `renew` (plugin-api's contract).
const SHORT_CALL: Duration = Duration::from_mins(1);
/// `release`, where no limit of the configuration is at hand (plugin-api's contract).
const RELEASE_CALL: Duration = Duration::from_mins(5);
/// `reboot` (plugin-api's contract).
const REBOOT_CALL: Duration = Duration::from_mins(5);

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    Plugin(CallError),
    /// The call could not be made, or did not return in time.
    NoAnswer {
        what: &'static str,
        why: NoAnswer,
    },
}

impl Failure {
    /// Whether it is certain that a failed `reserve` left nothing behind.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Plugin(error) => !error.error.is_uncertain(),
            Self::NoAnswer { why, .. } => matches!(why, NoAnswer::Thread(_)),
        }
    }

    /// Whether it ended because the host wanted it to.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Plugin(error) if error.error.kind() == ErrorKind::Cancelled)
    }

    /// Whether trying again may help.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Plugin(error) => error.error.is_retryable(),
            Self::NoAnswer { .. } => true,
        }
    }

    /// What the coordinator makes of it.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Plugin(error) => Refusal::from(&error.error),
            Self::NoAnswer { .. } => Refusal::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(error) => error.fmt(f),
            Self::NoAnswer { what, why } => write!(f, "cannot {what}: {why}"),
        }
    }
}

/// Makes calls and sends their answers to the main loop.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    inbox: Sender<Input>,
}

impl Calls {
    pub(crate) fn new(inbox: Sender<Input>) -> Self {
        Self { inbox }
    }

    /// Asks for a machine. The answer is [`Returned::Reserve`], however late.
    pub(crate) fn reserve(&self, number: LeaseId, to: &Provisioner, lease: Lease, cancel: Cancel) {
        let to = to.clone();
        self.spawn("reserve", number, Returned::Reserve, move || {
            to.reserve(&lease, &Call::new(cancel))
                .map(Box::new)
                .map_err(|failed| Failure::Plugin(checked(failed, &to, &lease)))
        });
    }

    /// Gives a machine back, `spoilt` or not. The answer is [`Returned::Release`].
    pub(crate) fn release(
        &self,
        number: LeaseId,
        to: &Provisioner,
        machine: String,
        spoilt: bool,
        limit: Duration,
    ) {
        let to = to.clone();
        self.spawn("release", number, Returned::Release, move || {
            in_time("release", limit, move || to.release(&machine, &Call::within(limit).spoilt(spoilt)))
        });
    }

    /// Tells the plugin that a reservation is not wanted any more; its own call was cancelled before.
    pub(crate) fn abort(&self, number: LeaseId, to: &Provisioner, lease: String) {
        let to = to.clone();
        self.spawn("abort", number, Returned::Abort, move || {
            in_time("abort", SHORT_CALL, move || to.abort(&lease, &Call::within(SHORT_CALL)))
        });
    }

    /// Asks to keep a machine for `lifetime` from now. The answer is [`Returned::Renew`].
    pub(crate) fn renew(&self, number: LeaseId, to: &Provisioner, machine: String, lifetime: Duration) {
        let to = to.clone();
        self.spawn("renew", number, Returned::Renew, move || {
            in_time("renew", SHORT_CALL, move || to.renew(&machine, lifetime, &Call::within(SHORT_CALL)))
        });
    }

    /// Asks whether the provider still has a machine. The answer is [`Returned::Alive`].
    pub(crate) fn alive(&self, number: LeaseId, to: &Provisioner, machine: String) {
        let to = to.clone();
        self.spawn("alive", number, Returned::Alive, move || {
            in_time("ask after a machine", SHORT_CALL, move || to.alive(&machine, &Call::within(SHORT_CALL)))
        });
    }

    /// Has a machine reset. The answer is [`Returned::Reboot`].
    pub(crate) fn reboot(&self, number: LeaseId, to: &Provisioner, machine: String) {
        let to = to.clone();
        self.spawn("reboot", number, Returned::Reboot, move || {
            in_time("reset a machine", REBOOT_CALL, move || to.reboot(&machine, &Call::within(REBOOT_CALL)))
        });
    }

    /// Looks, until the settle time is over, whether anything bears the lease's mark, and gives that back; where nothing can
    /// be listed, whether the machine of this id (if there was one) is there. The answer is [`Returned::Confirm`].
    pub(crate) fn confirm(&self, number: LeaseId, to: &Provisioner, lease: Lease, machine: String) {
        let to = to.clone();
        let answer = |gone: Result<bool, Failure>| Returned::Confirm(gone.unwrap_or(false));
        self.spawn("confirm", number, answer, move || {
            let can = to.capabilities();
            Ok(if can.has(Capabilities::LIST) {
                // What is gone can be given back again; what cannot be reached cannot.
                until_absent(&to, || marked_absent(&to, &lease))
                    && (machine.is_empty() || released(&to, &machine))
            } else {
                can.has(Capabilities::ALIVE)
                    && !machine.is_empty()
                    && until_absent(&to, || machine_absent(&to, &machine))
            })
        });
    }

    fn spawn<T: 'static>(
        &self,
        call: &'static str,
        number: LeaseId,
        answer: impl Fn(Result<T, Failure>) -> Returned + Send + Copy + 'static,
        run: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) {
        let inbox = self.inbox.clone();
        let thread = thread::Builder::new().name(format!("{call} {number}")).stack_size(STACK_BYTES).spawn(
            move || {
                // If nobody listens any more, the run is over.
                let _over = inbox.send(Input::Call(number, answer(run())));
            },
        );
        if let Err(error) = thread {
            let failure = Failure::NoAnswer { what: call, why: NoAnswer::Thread(error) };
            let _over = self.inbox.send(Input::Call(number, answer(Err(failure))));
        }
    }
}

fn in_time<T: Send + 'static>(
    what: &'static str,
    limit: Duration,
    call: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, Failure> {
    match within(limit, what.to_owned(), call) {
        Ok(answer) => answer.map_err(Failure::Plugin),
        Err(why) => Err(Failure::NoAnswer { what, why }),
    }
}

/// A failed reservation left nothing behind, its plugin promises. Where it failed on the way, one look at the list makes sure:
/// what is there all the same is given back. Refusals are believed, as nothing was begun; and so is the plugin if there is no
/// list to be had.
fn checked(mut failed: CallError, to: &Provisioner, lease: &Lease) -> CallError {
    let on_the_way = matches!(failed.error.kind(), ErrorKind::Other | ErrorKind::Cancelled);
    if on_the_way && to.capabilities().has(Capabilities::LIST) && !failed.error.is_uncertain() {
        let ours = marked(to, lease).unwrap_or_default();
        if !ours.is_empty() {
            release_all(to, &ours);
            // Whether that has helped is for the next looks to say.
            failed.error = failed.error.uncertain();
        }
    }
    failed
}

/// Looks again and again until the provider has had the time to come up with a machine; the last look counts.
fn until_absent(provisioner: &Provisioner, look: impl Fn() -> bool) -> bool {
    let settled = Cancel::after(provisioner.settle());
    loop {
        let last_look = settled.cancelled();
        let absent = look();
        if last_look {
            return absent;
        }
        settled.wait(CONFIRM_PAUSE);
    }
}

/// What bears the lease's mark; `None` if that cannot be told.
fn marked(provisioner: &Provisioner, lease: &Lease) -> Option<Vec<Held>> {
    let (asked, owner) = (provisioner.clone(), lease.owner.clone());
    match in_time("list", SHORT_CALL, move || asked.list(&owner, &Call::within(SHORT_CALL))) {
        Ok(held) => {
            let whole = held.iter().all(|held| held.unknown.is_none());
            let ours: Vec<Held> = held.into_iter().filter(|held| held.mark == lease.mark()).collect();
            (whole || !ours.is_empty()).then_some(ours)
        }
        Err(failure) => {
            tracing::warn!("looking for lease {}: {failure}", lease.id);
            None
        }
    }
}

/// Whether nothing bears the lease's mark; what does is given back.
fn marked_absent(provisioner: &Provisioner, lease: &Lease) -> bool {
    marked(provisioner, lease).is_some_and(|ours| {
        release_all(provisioner, &ours);
        ours.is_empty()
    })
}

/// Whether the provider says that it does not have the machine; else it is given back.
fn machine_absent(provisioner: &Provisioner, machine: &str) -> bool {
    let absent = matches!(provisioner.alive(machine, &Call::within(SHORT_CALL)), Ok(Some(false)));
    if !absent {
        // If that fails, so does the next look.
        let _failed = provisioner.release(machine, &Call::within(SHORT_CALL));
    }
    absent
}

fn release_all(provisioner: &Provisioner, held: &[Held]) {
    for held in held {
        // What fails, the next look finds again.
        released(provisioner, &held.id);
    }
}

/// Whether a machine could be given back.
fn released(provisioner: &Provisioner, machine: &str) -> bool {
    let (asked, machine) = (provisioner.clone(), machine.to_owned());
    let release = move || asked.release(&machine, &Call::within(RELEASE_CALL));
    let done = in_time("release", RELEASE_CALL, release);
    done.inspect_err(|failure| tracing::warn!("{failure}")).is_ok()
}
