//! [`Provisioner`] behind [`RawProvisioner`].

use std::time::Duration;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RResult, RStr, RString};

use super::{Guarded, from_json, to_json};
use crate::abi::{HostRef, ProvisionerBox, RawAlive, RawError, RawProvisioner, RawProvisioner_TO};
use crate::convert::raw_result;
use crate::error::{ErrorKind, Result};
use crate::guard::guard;
use crate::host::Host;
use crate::provisioner::Provisioner;

struct Adapter<P>(Guarded<P>);

/// Makes one from its configuration.
pub(crate) fn provisioner<P: Provisioner>(config: &str, host: Host) -> Result<ProvisionerBox> {
    let adapter = Adapter(guard(|| Guarded::<P>::make(config, host))?);
    Ok(RawProvisioner_TO::from_ptr(RBox::new(adapter), TD_Opaque))
}

impl<P: Provisioner> Adapter<P> {
    fn call<T>(&self, host: HostRef, call: impl FnOnce(&P, &Host) -> Result<T>) -> RResult<T, RawError> {
        raw_result(guard(|| call(&self.0.plugin, &Host::new(host))))
    }
}

impl<P: Provisioner> RawProvisioner for Adapter<P> {
    fn reserve(&self, lease: RStr<'_>, host: HostRef) -> RResult<RString, RawError> {
        self.call(host, |plugin, host| {
            let lease = from_json("lease", lease.as_str())?;
            let machine = plugin.reserve(&lease, host)?;
            Ok(to_json("the machine", &machine)?.into())
        })
    }
    fn release(&self, machine: RStr<'_>, host: HostRef) -> RResult<(), RawError> {
        self.call(host, |plugin, host| plugin.release(machine.as_str(), host))
    }
    fn abort(&self, lease: RStr<'_>, host: HostRef) -> RResult<(), RawError> {
        self.call(host, |plugin, host| plugin.abort(lease.as_str(), host))
    }
    fn alive(&self, machine: RStr<'_>, host: HostRef) -> RResult<RawAlive, RawError> {
        self.call(host, |plugin, host| match plugin.alive(machine.as_str(), host) {
            Ok(true) => Ok(RawAlive::ALIVE),
            Ok(false) => Ok(RawAlive::GONE),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(RawAlive::UNKNOWN),
            Err(error) => Err(error),
        })
    }
    fn list(&self, owner: RStr<'_>, host: HostRef) -> RResult<RString, RawError> {
        self.call(host, |plugin, host| {
            let held = plugin.list(owner.as_str(), host)?;
            Ok(to_json("the list of machines", &held)?.into())
        })
    }
    fn renew(&self, machine: RStr<'_>, seconds: u64, host: HostRef) -> RResult<u64, RawError> {
        self.call(host, |plugin, host| {
            let expires = plugin.renew(machine.as_str(), Duration::from_secs(seconds), host)?;
            Ok(expires.unwrap_or(0))
        })
    }
    fn reboot(&self, machine: RStr<'_>, host: HostRef) -> RResult<(), RawError> {
        self.call(host, |plugin, host| plugin.reboot(machine.as_str(), host))
    }
    fn capacity(&self, host: HostRef) -> RResult<u64, RawError> {
        self.call(host, |plugin, host| Ok(plugin.capacity(host)?.unwrap_or(u64::MAX)))
    }
}
