//! Write plugins for `atex-host`: provisioners that supply machines, policies that order tests, reporters that publish results.
//!
//! A plugin is a crate with `crate-type = ["cdylib"]` that implements [`Plugin`] and one of [`Provisioner`],
//! [`Policy`] or [`Reporter`], and names its types in [`export_plugin!`]:
//!
//! ```
#![doc = include_str!("../examples/minimal.rs")]
//! ```
//!
//! Build it and run `atex-host --plugin target/debug/libmine.so TREE --provisioner lab,hosts=[a,b]`.
//!
//! # Rules for all plugins
//!
//! - A panic costs the call it happened in, never the host. Build with `panic = "unwind"`, the default.
//! - stdout, stderr and signals belong to the host: use [`Host::log`].
//! - Errors say what was being done, to what, and why it failed; [`ErrorKind`] tells the host whether to try again.
//! - A plugin works with every host whose version of this crate is compatible in the sense of Cargo, older or newer.
//!
//! # Features
//!
//! `testkit`: fakes and conformance checks for a plugin's own tests ([`testkit`]). `host`: what the host itself needs.

#![warn(missing_docs)]

#[allow(missing_docs, reason = "fields are documented at the plain types they mirror")]
pub mod abi;
mod adapter;
mod convert;
pub mod describe;
pub mod error;
#[doc(hidden)]
pub mod export;
mod fitness;
mod guard;
pub mod host;
#[cfg(feature = "host")]
pub mod host_side;
pub mod model;
mod plugin;
pub mod policy;
mod provisioner;
pub mod reporter;
mod secret;
#[cfg(feature = "testkit")]
pub mod testkit;

#[doc(hidden)]
pub use abi_stable as __abi_stable;

pub use error::{Error, ErrorKind, Result};
pub use fitness::{ByFitness, Fitness, FitnessMachine, FitnessTest};
pub use host::{Host, Level};
pub use model::{
    ExecTransport, Facts, Held, HostKeyCheck, Lease, LocalTransport, Machine, SshTransport, Transport,
};
pub use plugin::{NoConfig, Plugin, read_config};
pub use policy::Policy;
pub use provisioner::{Capabilities, Provisioner};
pub use reporter::Reporter;
pub use secret::{SECRET_MARK, Secret};

/// What most plugins import.
pub mod prelude {
    pub use crate::policy::{
        Judgement, Note, Policy, Prefer, Queued, Rank, Run, RunInfo, TestInfo, View, Wants,
    };
    pub use crate::{
        Capabilities, Error, ErrorKind, ExecTransport, Held, Host, Lease, Level, LocalTransport, Machine,
        NoConfig, Plugin, Provisioner, Reporter, Result, Secret, SshTransport, Transport,
    };
}

pub use schemars;
pub use serde;
pub use serde_json;
