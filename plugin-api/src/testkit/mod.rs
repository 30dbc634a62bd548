//! For the tests of plugins: fakes of the host and checks that every plugin of a kind should pass. Feature `testkit`.
//!
//! Everything goes through the binary interface, as in the host: what works here works there.
//!
//! ```
//! # use atex_plugin_api::prelude::*;
//! # struct Mine;
//! # impl Plugin for Mine {
//! #     type Config = NoConfig;
//! #     fn new(_: NoConfig, _: Host) -> Result<Self> { Ok(Self) }
//! # }
//! # impl Provisioner for Mine {
//! #     fn reserve(&self, lease: &Lease, _: &Host) -> Result<Machine> {
//! #         Ok(Machine::new(&lease.id, Transport::Local(LocalTransport::default())))
//! #     }
//! #     fn release(&self, _: &str, _: &Host) -> Result<()> { Ok(()) }
//! #     fn list(&self, _: &str, _: &Host) -> Result<Vec<Held>> { Ok(vec![]) }
//! # }
//! use atex_plugin_api::testkit::{self, FakeHost};
//!
//! let host = FakeHost::new();
//! let plugin = testkit::provisioner::<Mine>("{}", &host.handle())?;
//! let machine = plugin.reserve(&testkit::lease(1), &host.handle())?;
//! plugin.release(&machine.id, &host.handle())?;
//! # Ok::<(), Error>(())
//! ```

mod conformance;
mod fake_host;
mod policy;

pub use conformance::{Check, Conformance, Outcome, Stop};
pub use fake_host::{FakeHost, LogLine};
pub use policy::{PolicyFault, check_policy};

use crate::adapter;
use crate::error::Result;
use crate::host::Host;
use crate::host_side::{PolicyHandle, ProvisionerHandle, ReporterHandle};
use crate::model::Lease;
use crate::plugin::Plugin;
use crate::policy::Policy;
use crate::provisioner::Provisioner;
use crate::reporter::Reporter;

/// A provisioner, made as the host makes it; `config` is a JSON object.
pub fn provisioner<P: Provisioner>(config: &str, host: &Host) -> Result<ProvisionerHandle> {
    adapter::provisioner::<P>(config, host.clone()).map(ProvisionerHandle::new)
}

/// A policy, made as the host makes it; `config` is a JSON object.
pub fn policy<P: Policy + Plugin>(config: &str, host: &Host) -> Result<PolicyHandle> {
    PolicyHandle::new(adapter::policy::<P>(config, host.clone())?)
}

/// A reporter, made as the host makes it; `config` is a JSON object.
pub fn reporter<P: Reporter>(config: &str, host: &Host) -> Result<ReporterHandle> {
    ReporterHandle::new(adapter::reporter::<P>(config, host.clone())?)
}

/// A lease of the owner `testkit`; leases of different numbers are different.
pub fn lease(number: u32) -> Lease {
    let process = std::process::id();
    Lease::new(
        format!("a00000000-0000-7000-{:04x}-{process:08x}{number:04x}", process >> 16),
        "testkit-run",
        "testkit",
    )
}
