//! A provisioner, a policy and a reporter, all named `faulty`, that do one thing wrong on demand and everything else right.
//!
//! ```yaml
//! {use: faulty, fault: panic, in: reserve}
//! {use: faulty, fault: error, in: release, times: 2}      # then it works
//! ```

#![allow(clippy::panic, clippy::allow_attributes, reason = "that is what it is for")]

mod policy;
mod provisioner;
mod reporter;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use atex_plugin_api::{Error, ErrorKind, Result};

/// What goes wrong, and where.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// What goes wrong; nothing if not given.
    fault: Option<FaultKind>,
    /// The method in which it does, as in Rust, with `-` for `_`; `drop` is the destructor.
    #[serde(rename = "in")]
    method: String,
    /// Only the first so many calls; all if not given.
    times: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum FaultKind {
    /// Panics.
    Panic,
    /// Never returns, also when it is cancelled.
    Block,
    /// Returns an error that may be tried again.
    Error,
    /// Returns an error that is final.
    Denied,
    /// Returns an error whose text panics.
    Display,
    /// Returns what breaks the contract.
    Nonsense,
    /// Makes a machine, and returns an error that does not tell of it; for `reserve`.
    Leak,
}

/// The state of a fault.
#[derive(Debug)]
struct Fault {
    config: Config,
    calls: AtomicU32,
}

impl Fault {
    /// Goes wrong at once if that is what was asked for.
    fn new(config: Config, methods: &[&str]) -> Result<Self> {
        if config.fault.is_some() && !methods.contains(&config.method.as_str()) {
            return Err(Error::config(format!(
                "`in: {}`: must be one of {}",
                config.method,
                methods.join(", ")
            )));
        }
        let fault = Self { config, calls: AtomicU32::new(0) };
        fault.at("new")?;
        Ok(fault)
    }

    /// Goes wrong if it is time to; says whether to return nonsense.
    fn at(&self, method: &str) -> Result<bool> {
        let Some(kind) = self.config.fault.filter(|_| self.config.method == method) else { return Ok(false) };
        if self.config.times.is_some_and(|times| self.calls.fetch_add(1, Ordering::Relaxed) >= times) {
            return Ok(false);
        }
        match kind {
            FaultKind::Panic => panic!("a deliberate panic in {method}"),
            FaultKind::Block => loop {
                std::thread::park();
            },
            FaultKind::Error => Err(Error::new(ErrorKind::Other, format!("a deliberate error in {method}"))),
            FaultKind::Denied => {
                Err(Error::new(ErrorKind::Denied, format!("a deliberate refusal in {method}")))
            }
            FaultKind::Display => Err(PanicsInDisplay.into()),
            FaultKind::Nonsense | FaultKind::Leak => Ok(true),
        }
    }

    /// Of a call that is to go wrong: an error instead of what it has done.
    fn hides(&self) -> Result<()> {
        match self.config.fault {
            Some(FaultKind::Leak) => {
                Err(Error::new(ErrorKind::Other, "a deliberate error after all was done"))
            }
            _ => Ok(()),
        }
    }

    /// [`at`](Self::at) for places that can return no error, such as destructors.
    fn at_infallible(&self, method: &str) -> bool {
        self.at(method).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[derive(Debug)]
struct PanicsInDisplay;

impl fmt::Display for PanicsInDisplay {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a deliberate panic in Display")
    }
}

impl std::error::Error for PanicsInDisplay {}

atex_plugin_api::export_plugin! {
    provisioner "faulty" => provisioner::Faulty,
    policy "faulty" => policy::Faulty,
    reporter "faulty" => reporter::Faulty,
}
