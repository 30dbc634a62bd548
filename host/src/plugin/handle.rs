//! Provisioners and reporters, as the engine calls them. Policies are called through the trait that authors implement:
//! [`PolicyHandle`](super::PolicyHandle).

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use atex_plugin_api::describe::Provided;
use atex_plugin_api::host_side::{ProvisionerHandle, ReportEvent, ReporterHandle};
use atex_plugin_api::reporter::ReporterWants;
use atex_plugin_api::{Capabilities, Held, Host, Lease, Machine};

use super::error::CallError;
use super::instance::{Call, Instance};

/// A pool's provisioner. Clones are the same one; every method may be called from any thread, and blocks as long as the
/// plugin does.
#[derive(Debug, Clone)]
pub struct Provisioner {
    /// Never dropped: a plugin's destructor may do anything, block for ever included, and the process ends without it.
    handle: ManuallyDrop<ProvisionerHandle>,
    instance: Arc<Instance>,
    capabilities: Capabilities,
    settle: Duration,
}

impl Provisioner {
    pub(super) fn new(handle: ProvisionerHandle, instance: Arc<Instance>, provided: &Provided) -> Self {
        Self {
            handle: ManuallyDrop::new(handle),
            instance,
            capabilities: Capabilities::from_names(&provided.capabilities),
            settle: Duration::from_secs(provided.settle_s),
        }
    }

    /// Which use of which plugin it is.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What works beyond reserving and releasing.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// How long a cut-off reservation may still turn into a machine.
    pub fn settle(&self) -> Duration {
        self.settle
    }

    /// The plugin itself, for the conformance checks.
    pub(crate) fn handle(&self) -> &ProvisionerHandle {
        &self.handle
    }

    /// What a call of the plugin itself gets.
    pub(crate) fn host_for(&self, call: &Call) -> Host {
        call.host(&self.instance)
    }

    /// Gets a machine.
    pub fn reserve(&self, lease: &Lease, call: &Call) -> Result<Machine, CallError> {
        let made = self.handle.reserve(lease, &call.host(&self.instance));
        made.map_err(|error| self.instance.error(format!("reserve a machine for lease {}", lease.id), error))
    }

    /// Gives a machine back, by its id or that of [`Held`].
    pub fn release(&self, machine: &str, call: &Call) -> Result<(), CallError> {
        let done = self.handle.release(machine, &call.host(&self.instance));
        done.map_err(|error| self.instance.error(format!("release machine {machine}"), error))
    }

    /// Gives up the reservation for a lease; its own call should be cancelled as well.
    pub fn abort(&self, lease: &str, call: &Call) -> Result<(), CallError> {
        let done = self.handle.abort(lease, &call.host(&self.instance));
        done.map_err(|error| self.instance.error(format!("abort lease {lease}"), error))
    }

    /// Whether the provider still has the machine; `None`: it cannot tell.
    pub fn alive(&self, machine: &str, call: &Call) -> Result<Option<bool>, CallError> {
        let told = self.handle.alive(machine, &call.host(&self.instance));
        told.map_err(|error| self.instance.error(format!("ask after machine {machine}"), error))
    }

    /// What is held for `owner`; empty: for anybody.
    pub fn list(&self, owner: &str, call: &Call) -> Result<Vec<Held>, CallError> {
        let told = self.handle.list(owner, &call.host(&self.instance));
        told.map_err(|error| self.instance.error("list what is held", error))
    }

    /// Keeps a machine for `lifetime` from now; says when the lease ends, in seconds of Unix time.
    pub fn renew(&self, machine: &str, lifetime: Duration, call: &Call) -> Result<Option<u64>, CallError> {
        let told = self.handle.renew(machine, lifetime, &call.host(&self.instance));
        told.map_err(|error| self.instance.error(format!("renew the lease of machine {machine}"), error))
    }

    /// Resets a machine the hard way.
    pub fn reboot(&self, machine: &str, call: &Call) -> Result<(), CallError> {
        let done = self.handle.reboot(machine, &call.host(&self.instance));
        done.map_err(|error| self.instance.error(format!("reset machine {machine}"), error))
    }

    /// How many machines can be held at a time; `None`: not known.
    pub fn capacity(&self, call: &Call) -> Result<Option<u64>, CallError> {
        let told = self.handle.capacity(&call.host(&self.instance));
        told.map_err(|error| self.instance.error("tell its capacity", error))
    }
}

/// A reporter. It belongs to one thread at a time.
#[derive(Debug)]
pub struct Reporter {
    /// Never dropped, as that of a provisioner.
    handle: ManuallyDrop<ReporterHandle>,
    instance: Arc<Instance>,
}

impl Reporter {
    pub(super) fn new(handle: ReporterHandle, instance: Arc<Instance>) -> Self {
        Self { handle: ManuallyDrop::new(handle), instance }
    }

    /// Which use of which plugin it is.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What it wants to be told.
    pub fn wants(&self) -> &ReporterWants {
        self.handle.wants()
    }

    /// Tells it what happened, unless it does not want to know; returns when it has published it.
    pub fn tell(&mut self, event: ReportEvent<'_>, call: &Call) -> Result<(), CallError> {
        let done = self.handle.tell(event, &call.host(&self.instance));
        done.map_err(|error| self.instance.error(format!("report {}", what(event)), error))
    }
}

fn what(event: ReportEvent<'_>) -> String {
    match event {
        ReportEvent::RunStarted(_) => "the beginning of the run".to_owned(),
        ReportEvent::Promised(_) => "the tests of the run".to_owned(),
        ReportEvent::Machine(event) => format!("what happened to machine {}", event.machine),
        ReportEvent::Test(event) => format!("what happened to test {}", event.test),
        ReportEvent::Finished(finished) => format!("the results of {}", finished.test),
        ReportEvent::RunEnded(_) => "the end of the run".to_owned(),
        _ => "an event".to_owned(),
    }
}
