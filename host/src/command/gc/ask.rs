//! What `gc` asks of provisioners: several things at a time, each within its limit, and again where that may help.

use std::{
    sync::{
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use atex_plugin_api::{Capabilities, Held, host_side::Cancel};

use crate::{
    engine::unix_ms,
    plugin::{Call, CallError, Provisioner},
    store::{Standing, Todo},
};

use super::super::{Error, open};

/// One `list` (plugin-api's contract).
const LIST_LIMIT: Duration = Duration::from_mins(1);
/// One `release`, unless the run's own limit was longer.
pub(super) const RELEASE_LIMIT: Duration = Duration::from_mins(5);
/// Machines that are given back at a time.
const AT_A_TIME: usize = 16;

/// What became of a lease.
pub(super) enum Found {
    /// Nothing of it exists any more.
    Gone,
    /// It was there, and was given back.
    Freed,
    /// It cannot be said yet, or not at all.
    Held(String),
}

/// Why something could not be done, and whether it may be done a little later.
pub(super) struct Refused {
    why: String,
    again: bool,
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        Self { why: error.to_string(), again: error.error.is_retryable() }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { why: error.to_string(), again: false }
    }
}

/// How often a provider that cannot do something just now is asked again, over all.
pub(super) struct Patience(AtomicU32);

impl Patience {
    const PAUSES: u32 = 6;
    const PAUSE: Duration = Duration::from_millis(500);

    pub(super) fn new() -> Self {
        Self(AtomicU32::new(Self::PAUSES))
    }

    /// Does something, again and again while patience lasts and it may help.
    pub(super) fn with<T>(&self, act: impl Fn() -> Result<T, Refused>) -> Result<T, String> {
        loop {
            let Refused { why, again } = match act() {
                Ok(done) => return Ok(done),
                Err(refused) => refused,
            };
            let less = |left: u32| left.checked_sub(1);
            if !again || self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                return Err(why);
            }
            Cancel::after(Self::PAUSE).wait(Self::PAUSE);
        }
    }
}

/// Does something with each lease, several at a time; `take` gets what came of it on the caller's thread.
pub(super) fn side_by_side<'a>(
    leases: &'a [Standing],
    free: impl Fn(&Standing) -> Found + Sync,
    mut take: impl FnMut(&'a Standing, Found),
) {
    let next = AtomicUsize::new(0);
    let (sender, done) = mpsc::channel();
    let work = |sender: &mpsc::Sender<(&'a Standing, Found)>| {
        while let Some(standing) = leases.get(next.fetch_add(1, Ordering::Relaxed)) {
            // The receiver lives as long as we do.
            let _heard = sender.send((standing, free(standing)));
        }
    };
    thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..leases.len().min(AT_A_TIME) {
            let (sender, work) = (sender.clone(), &work);
            let thread = thread::Builder::new().name("gc".into());
            started += usize::from(thread.spawn_scoped(scope, move || work(&sender)).is_ok());
        }
        if started == 0 {
            work(&sender);
        }
        drop(sender);
        for (standing, found) in done {
            take(standing, found);
        }
    });
}

/// Frees one lease. `listed`: what the provisioner lists, or why it does not.
pub(super) fn free(
    provisioner: &Provisioner,
    standing: &Standing,
    listed: &Result<Vec<Held>, String>,
    patience: &Patience,
) -> Found {
    let limit = RELEASE_LIMIT.max(Duration::from_secs(standing.claim.release_s));
    let release = |machine: &String| patience.with(|| release(provisioner, machine, limit));
    match standing.todo(listed.as_deref().ok(), unix_ms()) {
        Todo::Release(machines) => {
            machines.iter().try_for_each(release).map_or_else(Found::Held, |()| Found::Freed)
        }
        Todo::Confirm(machine) => release(&machine).map_or_else(Found::Held, |()| Found::Gone),
        Todo::Close => Found::Gone,
        Todo::Wait { seconds } => Found::Held(format!(
            "nothing is there yet, but its reservation was cut off; look again in {seconds} s"
        )),
        Todo::Unknown => Found::Held(why_unknown(listed)),
    }
}

/// Why a list does not tell what there is.
fn why_unknown(listed: &Result<Vec<Held>, String>) -> String {
    let unknown = |held: &Held| {
        let why = held.unknown.as_deref()?;
        Some(format!("nothing of it is listed, but {} cannot be asked: {why}", held.id))
    };
    match listed {
        Err(why) => why.clone(),
        Ok(held) => held.iter().find_map(unknown).unwrap_or_default(),
    }
}

pub(super) fn list(provisioner: &Provisioner, owner: &str) -> Result<Vec<Held>, Refused> {
    if !provisioner.capabilities().has(Capabilities::LIST) {
        return Err(Refused { why: "its plugin cannot list what is held".to_owned(), again: false });
    }
    let (asked, owner) = (provisioner.clone(), owner.to_owned());
    open::within(LIST_LIMIT, "the plugin's list".to_owned(), move || {
        asked.list(&owner, &Call::within(LIST_LIMIT))
    })?
    .map_err(Refused::from)
}

pub(super) fn release(provisioner: &Provisioner, machine: &str, limit: Duration) -> Result<(), Refused> {
    let (asked, machine) = (provisioner.clone(), machine.to_owned());
    open::within(limit, "the plugin's release".to_owned(), move || {
        asked.release(&machine, &Call::within(limit))
    })?
    .map_err(Refused::from)
}
