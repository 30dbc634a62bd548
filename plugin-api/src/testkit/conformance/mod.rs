//! What every provisioner should do: reserve and release, everything twice, abort in every state, list, a host that died
//! before it had its answer, time-outs, several at a time.
//!
//! It works on a handle, so it checks a plugin's own type in its tests as well as a loaded library against a real provider.
//! Every call has a thread of its own and is left behind when it does not end, so a plugin that hangs fails one check and
//! holds nobody up.
//!
//! **Invariant:** every lease that was asked for is given back before [`run`](Conformance::run) returns, or is told by
//! [`left`](Conformance::left).

mod book;
mod calls;
mod checks;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::FakeHost;
use crate::error::Result;
use crate::host::Host;
use crate::host_side::{Cancel, ProvisionerHandle};
use crate::model::Lease;
use crate::provisioner::Capabilities;

use book::Book;
pub use calls::Stop;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be, and why.
    Failed(String),
    /// Not looked at, and why.
    Skipped(String),
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What should be true.
    pub name: &'static str,
    /// Whether it is.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed => write!(f, "ok       {}", self.name),
            Outcome::Failed(why) => write!(f, "FAILED   {}: {why}", self.name),
            Outcome::Skipped(why) => write!(f, "skipped  {}: {why}", self.name),
        }
    }
}

/// Makes the handle that a call gets, around the token that ends the call.
type Hosts<'a> = Box<dyn Fn(Cancel) -> Host + Send + Sync + 'a>;
/// Makes the same provisioner once more, as another host would.
type Again<'a> = Box<dyn Fn() -> Result<ProvisionerHandle> + Send + Sync + 'a>;
type NextLease<'a> = Box<dyn FnMut() -> Result<Lease> + Send + 'a>;

/// The checks, and what they are made with.
pub struct Conformance<'a> {
    provisioner: ProvisionerHandle,
    capabilities: Capabilities,
    hosts: Hosts<'a>,
    again: Option<Again<'a>>,
    next_lease: Mutex<NextLease<'a>>,
    parallel: u32,
    reserve_limit: Duration,
    call_limit: Duration,
    stop: Arc<Stop>,
    book: Mutex<Book>,
}

impl fmt::Debug for Conformance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("parallel", &self.parallel).finish_non_exhaustive()
    }
}

impl<'a> Conformance<'a> {
    /// Checks of `provisioner`, two machines at a time, with the leases of [`lease`](super::lease) and 10 minutes for each
    /// call.
    pub fn new(provisioner: &ProvisionerHandle, capabilities: Capabilities, host: &FakeHost) -> Self {
        let host = host.clone();
        Self::with_hosts(provisioner, capabilities, move |cancel| host.with_cancel(cancel).handle())
    }

    /// The same with handles of one's own: `hosts` makes one for each call, around the token that ends it.
    pub fn with_hosts(
        provisioner: &ProvisionerHandle,
        capabilities: Capabilities,
        hosts: impl Fn(Cancel) -> Host + Send + Sync + 'a,
    ) -> Self {
        let mut number = 0;
        let leases = move || {
            number += 1;
            Ok(super::lease(number))
        };
        Self {
            provisioner: provisioner.clone(),
            capabilities,
            hosts: Box::new(hosts),
            again: None,
            next_lease: Mutex::new(Box::new(leases)),
            parallel: 2,
            reserve_limit: Duration::from_mins(10),
            call_limit: Duration::from_mins(10),
            stop: Arc::default(),
            book: Mutex::default(),
        }
    }

    /// How many machines to hold at a time.
    #[must_use]
    pub fn parallel(mut self, machines: u32) -> Self {
        self.parallel = machines.max(1);
        self
    }

    /// Limit for each call; the plugin sees it as a deadline.
    #[must_use]
    pub fn call_limit(mut self, limit: Duration) -> Self {
        (self.call_limit, self.reserve_limit) = (limit, limit);
        self
    }

    /// Limit for each reservation, where it is another one.
    #[must_use]
    pub fn reserve_limit(mut self, limit: Duration) -> Self {
        self.reserve_limit = limit;
        self
    }

    /// Where leases come from, for owners and contexts of one's own. All of them must be different. An error fails the check
    /// that needed the lease.
    #[must_use]
    pub fn leases(mut self, next: impl FnMut() -> Result<Lease> + Send + 'a) -> Self {
        self.next_lease = Mutex::new(Box::new(next));
        self
    }

    /// How to make the provisioner once more, with the same configuration: what another host does after this one died.
    /// Without it nobody but the first one is asked.
    #[must_use]
    pub fn again(mut self, make: impl Fn() -> Result<ProvisionerHandle> + Send + Sync + 'a) -> Self {
        self.again = Some(Box::new(make));
        self
    }

    /// Ends the checks from another thread.
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// How many machines [`run`](Self::run) asks for in all; most of them one after the other.
    pub fn machines(&self) -> u32 {
        checks::ONE_BY_ONE + self.parallel
    }

    /// Runs all of them, in order. Machines are given back whatever happens.
    pub fn run(&self) -> Vec<Check> {
        self.run_telling(|_| ())
    }

    /// [`run`](Self::run), telling each check as soon as it is through.
    pub fn run_telling(&self, mut tell: impl FnMut(&Check)) -> Vec<Check> {
        let mut state = checks::State::default();
        let mut done = Vec::new();
        for (name, check) in checks::all() {
            let begin = Instant::now();
            let outcome = if self.stop.stopped() && !checks::runs_always(name) {
                Outcome::Skipped("interrupted".to_owned())
            } else {
                check(self, &mut state).err().unwrap_or(Outcome::Passed)
            };
            let check = Check { name, outcome, took: begin.elapsed() };
            tell(&check);
            done.push(check);
        }
        done
    }

    /// Leases of which it is not certain that nothing is held any more, after [`run`](Self::run).
    pub fn left(&self) -> Vec<Lease> {
        self.book().open()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
