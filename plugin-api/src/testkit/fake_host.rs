//! A host for tests: it keeps what plugins say, and cancels when told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::host::{Host, HostInfo, Level};
use crate::host_side::{Cancel, Services, host};

/// What a plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// The text.
    pub message: String,
    /// A JSON object, or empty.
    pub fields: String,
}

/// A host that a plugin's tests can look into. Clones are the same host.
#[derive(Clone)]
pub struct FakeHost {
    shared: Arc<Shared>,
    cancel: Cancel,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<LogLine>>,
    progress: Mutex<Vec<String>>,
    state_dir: PathBuf,
}

impl fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHost").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

impl FakeHost {
    /// A host without a state directory.
    pub fn new() -> Self {
        Self::with_state_dir(Path::new(""))
    }

    /// A host that gives plugins this directory for their state; the caller makes and removes it.
    pub fn with_state_dir(directory: &Path) -> Self {
        let shared = Shared { state_dir: directory.to_owned(), ..Shared::default() };
        Self { shared: Arc::new(shared), cancel: Cancel::new() }
    }

    /// The same host with a token of its own, as for another call.
    #[must_use]
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { shared: Arc::clone(&self.shared), cancel }
    }

    /// What plugins get.
    pub fn handle(&self) -> Host {
        host(Arc::new(self.clone()))
    }

    /// The token of the calls that are made with [`handle`](Self::handle).
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<LogLine> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The progress texts so far.
    pub fn progress(&self) -> Vec<String> {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Services for FakeHost {
    fn log(&self, level: Level, message: &str, fields: &str) {
        let line = LogLine { level, message: message.to_owned(), fields: fields.to_owned() };
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
    fn progress(&self, text: &str) {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }
    fn cancelled(&self) -> bool {
        self.cancel.cancelled()
    }
    fn wait_cancelled(&self, timeout: Duration) -> bool {
        self.cancel.wait(timeout)
    }
    fn remaining(&self) -> Option<Duration> {
        self.cancel.remaining()
    }
    fn info(&self) -> HostInfo {
        HostInfo {
            program: "testkit".to_owned(),
            name: "testkit".to_owned(),
            state_dir: self.shared.state_dir.clone(),
            ..HostInfo::default()
        }
    }
}
