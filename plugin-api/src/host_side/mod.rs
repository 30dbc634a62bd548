//! The host's side of the boundary: what plugins are made and called with, in plain Rust. Feature `host`.
//!
//! A handle blocks as long as the plugin does. Threads, deadlines and what to do about a call that never returns are the
//! host's business.

mod cancel;
mod policy;
mod provisioner;
mod reporter;
mod root;
mod services;

pub use cancel::Cancel;
pub use policy::PolicyHandle;
pub use provisioner::ProvisionerHandle;
pub use reporter::{ReportEvent, ReporterHandle};
pub use root::{ENTRY_SYMBOL, Refused, Root, Version};
pub use services::{MAX_LOG_BYTES, Services, host};

use serde::de::DeserializeOwned;

/// Beginnings of new plugins, complete and tested; their plugin, crate and type are called `mine`.
pub mod templates {
    /// A provisioner.
    pub const PROVISIONER: &str = include_str!("../../examples/new_provisioner.rs");
    /// A policy.
    pub const POLICY: &str = include_str!("../../examples/new_policy.rs");
    /// A reporter.
    pub const REPORTER: &str = include_str!("../../examples/new_reporter.rs");
}

use crate::error::{Error, ErrorKind, Result};

/// Longest text that is taken from a plugin.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Most keys that one plugin may ask for, and their greatest length.
const MAX_KEYS: usize = 256;
const MAX_KEY_BYTES: usize = 256;

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    if text.len() > MAX_ANSWER_BYTES {
        return Err(nonsense(format!("{what} has {} bytes, more than {MAX_ANSWER_BYTES}", text.len())));
    }
    serde_json::from_str(text).map_err(|error| nonsense(format!("{what} cannot be read: {error}")))
}

/// Keys of metadata or facts that a plugin wants to see.
fn check_keys(keys: &[String]) -> Result<()> {
    if keys.len() > MAX_KEYS {
        return Err(nonsense(format!("it wants {} keys, more than {MAX_KEYS}", keys.len())));
    }
    match keys.iter().find(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        Some(key) => Err(nonsense(format!("it wants a key of {} bytes", key.len()))),
        None => Ok(()),
    }
}

/// The plugin answered something that breaks its contract.
fn nonsense(message: String) -> Error {
    Error::new(ErrorKind::Other, message).retryable(false).uncertain()
}
