//! What the host does for a plugin: log, progress, cancellation, a private directory.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::abi::{HostRef, RawHost_TO};
use crate::convert::raw_level;
use crate::error::{Error, ErrorKind, Result};

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something was lost or has to be mended by a person.
    Error,
    /// Something is not as it should be, and was dealt with.
    Warn,
    /// What a user who watches wants to know.
    Info,
    /// What one looks at when something went wrong.
    Debug,
    /// Everything.
    Trace,
}

/// What the host tells of itself, as it crosses the boundary; fields that a plugin does not know are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HostInfo {
    /// Program and version, e.g. `atex-host 0.1.0`.
    pub program: String,
    /// Name of this use of the plugin: the pool's name, or the plugin's.
    pub name: String,
    /// A directory of this use of the plugin's own, which outlives the run. It exists.
    pub state_dir: PathBuf,
    /// In `release`: the machine was found to be in no state for another test. A machine that is not destroyed is then to be
    /// mended or left alone.
    pub spoilt: bool,
}

/// The host, as far as one call of a plugin is concerned.
///
/// Cheap to clone, usable from every thread. The handle that a plugin is made with is never cancelled and lives as long as
/// the plugin; the one that comes with a call is cancelled with this call.
#[derive(Clone)]
pub struct Host(HandleClone);

/// `RawHost_TO` is a smart pointer without `Clone`: its pointer is copied instead.
struct HandleClone(HostRef);

impl Clone for HandleClone {
    fn clone(&self) -> Self {
        Self(RawHost_TO::from_sabi(self.0.obj.shallow_clone()))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    pub(crate) fn new(raw: HostRef) -> Self {
        Self(HandleClone(raw))
    }

    #[cfg(feature = "host")]
    pub(crate) fn raw(&self) -> HostRef {
        self.0.clone().0
    }

    /// Writes a line to the host's log, under the plugin's name.
    ///
    /// `fields` are named values, e.g. `&[("machine", &id)]`. Lines longer than 8 KiB are cut. Do not print to stdout or
    /// stderr: those belong to the host.
    pub fn log(&self, level: Level, message: impl AsRef<str>, fields: &[(&str, &dyn Display)]) {
        let fields = if fields.is_empty() {
            String::new()
        } else {
            let map = fields.iter().map(|(key, value)| ((*key).to_owned(), value.to_string().into()));
            serde_json::Value::Object(map.collect()).to_string()
        };
        self.0.0.log(raw_level(level), message.as_ref().into(), fields.as_str().into());
    }

    /// [`log`](Self::log) at [`Level::Error`] without fields.
    pub fn error(&self, message: impl AsRef<str>) {
        self.log(Level::Error, message, &[]);
    }

    /// [`log`](Self::log) at [`Level::Warn`] without fields.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.log(Level::Warn, message, &[]);
    }

    /// [`log`](Self::log) at [`Level::Info`] without fields.
    pub fn info(&self, message: impl AsRef<str>) {
        self.log(Level::Info, message, &[]);
    }

    /// [`log`](Self::log) at [`Level::Debug`] without fields.
    pub fn debug(&self, message: impl AsRef<str>) {
        self.log(Level::Debug, message, &[]);
    }

    /// Says in a few words what the call is doing just now, e.g. `waiting for an address`; each text replaces the one
    /// before. Shown to users who wonder what takes so long.
    pub fn progress(&self, text: impl AsRef<str>) {
        self.0.0.progress(text.as_ref().into());
    }

    /// Whether the call was cancelled or its deadline has passed: then it should end soon, with
    /// [`ErrorKind::Cancelled`], leaving nothing behind.
    pub fn cancelled(&self) -> bool {
        self.0.0.cancelled()
    }

    /// Waits for `timeout`, but not longer than until the call is cancelled; says whether it is. The way to pause between
    /// two questions to a provider.
    pub fn wait_cancelled(&self, timeout: Duration) -> bool {
        self.0.0.wait_cancelled(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }

    /// An error of kind [`ErrorKind::Cancelled`] once the call is cancelled, for use with `?`.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled() { Err(Error::new(ErrorKind::Cancelled, "cancelled")) } else { Ok(()) }
    }

    /// Time left for the call; `None` if it has no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        match self.0.0.remaining_ms() {
            u64::MAX => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// What the host tells of itself.
    pub fn facts(&self) -> HostInfo {
        serde_json::from_str(&self.0.0.info()).unwrap_or_default()
    }

    /// An existing directory for this use of the plugin alone, which outlives the run: locks, caches, what was handed out.
    /// Several hosts may use it at the same time. An error if the host gave none.
    pub fn state_dir(&self) -> Result<PathBuf> {
        let directory = self.facts().state_dir;
        if directory == Path::new("") {
            return Err(Error::unsupported("the host gave this plugin no state directory"));
        }
        Ok(directory)
    }
}
