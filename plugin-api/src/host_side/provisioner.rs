//! A provisioner, as the host calls it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{nonsense, parse};
use crate::abi::{ProvisionerBox, RawAlive};
use crate::convert::plain_result;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::model::{Held, Lease, Machine};

/// Longest [`Machine::id`] and [`Held::mark`].
const MAX_ID_BYTES: usize = 256;
const MAX_MARK_BYTES: usize = 1024;
/// Most facts of one machine, and the most bytes of a name or value.
const MAX_FACTS: usize = 1000;
const MAX_FACT_BYTES: usize = 4096;

/// A provisioner made by [`Root::provisioner`](super::Root::provisioner). Clones are the same provisioner. Every method may
/// be called from any thread and blocks as long as the plugin does.
#[derive(Clone)]
pub struct ProvisionerHandle(Arc<ProvisionerBox>);

impl fmt::Debug for ProvisionerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisionerHandle").finish_non_exhaustive()
    }
}

impl ProvisionerHandle {
    pub(crate) fn new(raw: ProvisionerBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Gets a machine; its id and facts are within limits.
    pub fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let lease = serde_json::to_string(lease)?;
        let answer = plain_result(self.0.reserve(lease.as_str().into(), host.raw()))?;
        let machine: Machine = parse("the machine it reserved", &answer)?;
        check_id(&machine.id)?;
        check_facts(&machine)?;
        Ok(machine)
    }

    /// Gives a machine back.
    pub fn release(&self, machine: &str, host: &Host) -> Result<()> {
        plain_result(self.0.release(machine.into(), host.raw()))
    }

    /// Gives up a reservation that is under way on another thread.
    pub fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        plain_result(self.0.abort(lease.into(), host.raw()))
    }

    /// Whether the provider still has the machine; `None` if it cannot tell.
    pub fn alive(&self, machine: &str, host: &Host) -> Result<Option<bool>> {
        Ok(match plain_result(self.0.alive(machine.into(), host.raw()))? {
            RawAlive::ALIVE => Some(true),
            RawAlive::GONE => Some(false),
            _ => None,
        })
    }

    /// Everything held for `owner` (empty: anybody).
    pub fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        let answer = plain_result(self.0.list(owner.into(), host.raw()))?;
        let held: Vec<Held> = parse("the list of machines it holds", &answer)?;
        for one in &held {
            check_id(&one.id)?;
            if one.mark.len() > MAX_MARK_BYTES {
                return Err(nonsense(format!("the mark of machine {} has {} bytes", one.id, one.mark.len())));
            }
        }
        Ok(held)
    }

    /// Keeps a machine for longer; says until when, in seconds of Unix time.
    pub fn renew(&self, machine: &str, lifetime: Duration, host: &Host) -> Result<Option<u64>> {
        match plain_result(self.0.renew(machine.into(), lifetime.as_secs(), host.raw()))? {
            0 => Ok(None),
            expires => Ok(Some(expires)),
        }
    }

    /// Resets a machine the hard way.
    pub fn reboot(&self, machine: &str, host: &Host) -> Result<()> {
        plain_result(self.0.reboot(machine.into(), host.raw()))
    }

    /// Machines that can be held at a time; `None` if unknown.
    pub fn capacity(&self, host: &Host) -> Result<Option<u64>> {
        match plain_result(self.0.capacity(host.raw())) {
            Ok(u64::MAX) => Ok(None),
            Ok(machines) => Ok(Some(machines)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn check_id(id: &str) -> Result<()> {
    let wrong = if id.is_empty() {
        "is empty"
    } else if id.len() > MAX_ID_BYTES {
        "is longer than 256 bytes"
    } else if id.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(nonsense(format!("the machine's id {wrong}")))
}

fn check_facts(machine: &Machine) -> Result<(), Error> {
    if machine.facts.len() > MAX_FACTS {
        return Err(nonsense(format!(
            "the machine has {} facts, more than {MAX_FACTS}",
            machine.facts.len()
        )));
    }
    match machine.facts.iter().find(|(key, value)| key.len().max(value.len()) > MAX_FACT_BYTES) {
        Some((key, _)) => {
            let shown: String = key.chars().take(40).collect();
            Err(nonsense(format!("the machine's fact {shown:?} is longer than {MAX_FACT_BYTES} bytes")))
        }
        None => Ok(()),
    }
}
