//! Where machines come from, seen from outside: what can be asked without atex-host.

use std::{ffi::OsString, fs, time::Duration};

use anyhow::Result;
use serde_json::Value;

/// A provider that a campaign runs against.
pub trait Provider: Sync {
    /// For headlines.
    fn name(&self) -> &'static str;
    /// The pool's entry in the configuration, for the worker of this number: workers do not share machines.
    fn pool(&self, worker: usize) -> Value;
    /// More arguments for `run`, `resume` and `gc`.
    fn arguments(&self) -> Vec<OsString> {
        Vec::new()
    }
    /// What exists of that owner, and of what its tests left at the worker's machines.
    fn left(&self, worker: usize, owner: &str) -> Result<Left>;
    /// What the provider itself saw and should not have seen, of all owners.
    fn complaints(&self) -> Vec<String> {
        Vec::new()
    }
    /// How long after a cut-off reservation the plugin says that a machine may come up: for so long `gc` does not take it for
    /// gone.
    fn settle(&self) -> Duration;
    /// What is left at the very end, of anybody.
    fn emptied(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// What somebody left.
#[derive(Debug, Default)]
pub struct Left {
    /// Machines, or claims on them.
    pub machines: Vec<String>,
    /// Work directories and processes. They end by themselves when the connection does, which takes a moment.
    pub traces: Vec<String>,
}

/// The variable by which processes of a trial's tests are known.
pub(crate) const MARK: &str = "CAMPAIGN_TRIAL";

/// Processes of this box whose environment has the owner's mark.
pub(crate) fn processes_of(owner: &str) -> Result<Vec<String>> {
    let wanted = format!("{MARK}={owner}").into_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    Ok(found)
}
