//! What every provisioner should do: reserve and release, everything twice, abort, list, several at a time.
//!
//! It works on a handle, so it checks a plugin's own type in its tests as well as a loaded library against a real provider.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::FakeHost;
use crate::error::{Error, ErrorKind, Result};
use crate::host_side::{Cancel, ProvisionerHandle};
use crate::model::{Lease, Machine};
use crate::provisioner::Capabilities;

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
            Outcome::Passed => write!(f, "pass  {}", self.name),
            Outcome::Failed(why) => write!(f, "FAIL  {}: {why}", self.name),
            Outcome::Skipped(why) => write!(f, "skip  {}: {why}", self.name),
        }
    }
}

/// The checks, and what they are made with.
pub struct Conformance<'a> {
    provisioner: &'a ProvisionerHandle,
    capabilities: Capabilities,
    host: FakeHost,
    next_lease: Mutex<Box<dyn FnMut() -> Lease + Send + 'a>>,
    parallel: u32,
    call_limit: Duration,
}

impl fmt::Debug for Conformance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("parallel", &self.parallel).finish_non_exhaustive()
    }
}

type Verdict = Result<(), Outcome>;
type CheckFn<'a> = fn(&Conformance<'a>) -> Verdict;

impl<'a> Conformance<'a> {
    /// Checks of `provisioner`, two machines at a time, with the leases of [`lease`](super::lease) and 10 minutes for each
    /// call.
    pub fn new(provisioner: &'a ProvisionerHandle, capabilities: Capabilities, host: &FakeHost) -> Self {
        let mut number = 0;
        let leases = move || {
            number += 1;
            super::lease(number)
        };
        Self {
            provisioner,
            capabilities,
            host: host.clone(),
            next_lease: Mutex::new(Box::new(leases)),
            parallel: 2,
            call_limit: Duration::from_mins(10),
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
        self.call_limit = limit;
        self
    }

    /// Where leases come from, for owners and contexts of one's own. All of them must be different.
    #[must_use]
    pub fn leases(mut self, next: impl FnMut() -> Lease + Send + 'a) -> Self {
        self.next_lease = Mutex::new(Box::new(next));
        self
    }

    /// Runs all of them, in order. Machines are given back whatever happens.
    pub fn run(&self) -> Vec<Check> {
        let checks: [(&'static str, CheckFn<'a>); 9] = [
            ("a machine is reserved, found, and given back", Self::life_cycle),
            ("a machine can be given back twice", Self::release_twice),
            ("giving back what is not there succeeds", Self::release_unknown),
            ("giving up what is not there succeeds, twice", Self::abort_unknown),
            ("a reservation that is given up leaves nothing", Self::abort_reservation),
            ("a call that is cancelled beforehand holds nothing", Self::cancelled_beforehand),
            ("several machines are different ones", Self::several),
            ("a lease can be renewed", Self::renew),
            ("a machine can be reset", Self::reboot),
        ];
        checks.into_iter().map(|(name, check)| self.check(name, check)).collect()
    }

    fn check(&self, name: &'static str, check: CheckFn<'a>) -> Check {
        let begin = Instant::now();
        let outcome = check(self).err().unwrap_or(Outcome::Passed);
        Check { name, outcome, took: begin.elapsed() }
    }

    fn host(&self) -> crate::Host {
        self.host.with_cancel(Cancel::after(self.call_limit)).handle()
    }

    fn lease(&self) -> Lease {
        let mut next = self.next_lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        next()
    }

    fn reserve(&self, lease: &Lease) -> Result<Machine, Outcome> {
        self.provisioner.reserve(lease, &self.host()).map_err(|error| match error.kind() {
            ErrorKind::Busy => Outcome::Skipped(format!("nothing is free: {error}")),
            _ => failed(&format!("reserve: {error}")),
        })
    }

    fn release(&self, machine: &str) -> Verdict {
        self.provisioner
            .release(machine, &self.host())
            .map_err(|error| failed(&format!("release {machine}: {error}")))
    }

    /// Whether `list` has the lease; `None` if it cannot list.
    fn listed(&self, lease: &Lease) -> Result<Option<bool>, Outcome> {
        if !self.capabilities.has(Capabilities::LIST) {
            return Ok(None);
        }
        let held = self.provisioner.list(&lease.owner, &self.host());
        let held = held.map_err(|error| failed(&format!("list: {error}")))?;
        Ok(Some(held.iter().any(|one| one.mark == lease.mark())))
    }

    fn gone(&self, lease: &Lease) -> Verdict {
        match self.listed(lease)? {
            Some(true) => Err(failed("list still shows it")),
            _ => Ok(()),
        }
    }

    /// Holds a machine while `use_it` runs, and gives it back in any case.
    fn with_machine(&self, use_it: impl FnOnce(&Lease, &Machine) -> Verdict) -> Verdict {
        let lease = self.lease();
        let machine = self.reserve(&lease)?;
        let used = use_it(&lease, &machine);
        self.release(&machine.id)?;
        used?;
        self.gone(&lease)
    }

    fn life_cycle(&self) -> Verdict {
        self.with_machine(|lease, machine| {
            match self.provisioner.alive(&machine.id, &self.host()) {
                Ok(Some(false)) => return Err(failed("alive says that it is not there")),
                Err(error) => return Err(failed(&format!("alive: {error}"))),
                Ok(_) => {}
            }
            if self.listed(lease)? == Some(false) {
                return Err(failed("list does not show it while it is held"));
            }
            Ok(())
        })
    }

    fn release_twice(&self) -> Verdict {
        self.with_machine(|_, machine| self.release(&machine.id))
    }

    fn release_unknown(&self) -> Verdict {
        self.release("testkit-never-heard-of-it")
    }

    fn abort_unknown(&self) -> Verdict {
        let lease = self.lease();
        for _ in 0..2 {
            self.abort(&lease)?;
        }
        Ok(())
    }

    fn abort(&self, lease: &Lease) -> Verdict {
        self.provisioner.abort(&lease.id, &self.host()).map_err(|error| failed(&format!("abort: {error}")))
    }

    /// The abort races with the reservation on purpose: whoever wins, nothing may be left.
    fn abort_reservation(&self) -> Verdict {
        let lease = self.lease();
        let cancel = Cancel::after(self.call_limit);
        let host = self.host.with_cancel(cancel.clone()).handle();
        let reserved = std::thread::scope(|scope| {
            let reserving = scope.spawn(|| self.provisioner.reserve(&lease, &host));
            cancel.cancel();
            let aborted = self.abort(&lease);
            let reserved = reserving.join().map_err(|_| failed("the handle panicked"))?;
            aborted.map(|()| reserved)
        })?;
        if let Ok(machine) = reserved {
            self.release(&machine.id)?;
        }
        self.abort(&lease)?;
        self.gone(&lease)
    }

    fn cancelled_beforehand(&self) -> Verdict {
        let lease = self.lease();
        let cancel = Cancel::new();
        cancel.cancel();
        let host = self.host.with_cancel(cancel).handle();
        if let Ok(machine) = self.provisioner.reserve(&lease, &host) {
            self.release(&machine.id)?;
        }
        self.gone(&lease)
    }

    fn several(&self) -> Verdict {
        let leases: Vec<Lease> = (0..self.parallel).map(|_| self.lease()).collect();
        let reserved: Vec<Result<Machine, Outcome>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                leases.iter().map(|lease| scope.spawn(move || self.reserve(lease))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(failed("the handle panicked"))))
                .collect()
        });
        let mut ids: Vec<&str> = reserved.iter().flatten().map(|machine| machine.id.as_str()).collect();
        let released: Vec<Verdict> = ids.iter().map(|id| self.release(id)).collect();
        ids.sort_unstable();
        let twice = ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned());
        released.into_iter().collect::<Verdict>()?;
        if let Some(id) = twice {
            return Err(failed(&format!("machine {id} was handed out twice")));
        }
        leases.iter().try_for_each(|lease| self.gone(lease))?;
        reserved.into_iter().try_for_each(|one| one.map(|_| ()))
    }

    fn renew(&self) -> Verdict {
        self.needs(Capabilities::RENEW, "renew")?;
        self.with_machine(|_, machine| {
            let renewed = self.provisioner.renew(&machine.id, Duration::from_hours(1), &self.host());
            renewed.map(|_| ()).map_err(|error| failed(&format!("renew: {error}")))
        })
    }

    fn reboot(&self) -> Verdict {
        self.needs(Capabilities::REBOOT, "reboot")?;
        self.with_machine(|_, machine| {
            let reset = self.provisioner.reboot(&machine.id, &self.host());
            reset.map_err(|error: Error| failed(&format!("reboot: {error}")))
        })
    }

    fn needs(&self, capability: Capabilities, name: &str) -> Verdict {
        if self.capabilities.has(capability) {
            return Ok(());
        }
        Err(Outcome::Skipped(format!("it does not claim to be able to {name}")))
    }
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_owned())
}
