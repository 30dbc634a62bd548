//! For the tests of plugins: a host that remembers what it was told, and the decision to skip.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atex_plugin_api::host::HostInfo;
use atex_plugin_api::host_side::{Cancel, Services, host};
use atex_plugin_api::{Host, Level};

/// A host that remembers what it was told.
#[derive(Debug, Default)]
pub struct Fake {
    /// The token of its calls.
    pub cancel: Cancel,
    /// Messages of the log, oldest first.
    pub log: Mutex<Vec<String>>,
    /// What [`Host::state_dir`] answers.
    pub state_dir: PathBuf,
}

impl Services for Fake {
    fn log(&self, _: Level, message: &str, _: &str) {
        self.log.lock().unwrap().push(message.to_owned());
    }
    fn progress(&self, text: &str) {
        self.log.lock().unwrap().push(format!("progress: {text}"));
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
        let mut info = HostInfo::default();
        info.state_dir.clone_from(&self.state_dir);
        info
    }
}

/// A host with this token and no state directory.
pub fn fake(cancel: Cancel) -> (Arc<Fake>, Host) {
    serve(Fake { cancel, ..Fake::default() })
}

/// A host that keeps the plugin's state in `directory`, without a deadline.
pub fn fake_at(directory: impl Into<PathBuf>) -> (Arc<Fake>, Host) {
    serve(Fake { state_dir: directory.into(), ..Fake::default() })
}

fn serve(services: Fake) -> (Arc<Fake>, Host) {
    let services = Arc::new(services);
    (Arc::clone(&services), host(services))
}

/// Whether a test that needs these programs can run here. If not it says why; with `ATEX_TEST_ALL=1` it fails.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        |program: &&&str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).copied().collect();
    skip_if(!missing.is_empty(), &format!("not installed: {}", missing.join(", ")))
}

/// `false`, with the reason told, if a test cannot run here; with `ATEX_TEST_ALL=1` it fails instead.
///
/// # Panics
///
/// If it cannot run, and all tests were asked for.
pub fn skip_if(cannot: bool, reason: &str) -> bool {
    assert!(
        !cannot || std::env::var_os("ATEX_TEST_ALL").is_none_or(|all| all != "1"),
        "cannot run: {reason}"
    );
    if cannot {
        eprintln!("skipped: {reason}");
    }
    !cannot
}
