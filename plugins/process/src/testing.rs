//! For the tests of plugins: a host that remembers what it was told, and the decision to skip.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use atex_plugin_api::host::HostInfo;
use atex_plugin_api::host_side::{Cancel, Services, host};
use atex_plugin_api::testkit::{self, Conformance, FakeHost, Outcome};
use atex_plugin_api::{Capabilities, Error, ErrorKind, Host, Lease, Level, Machine, Provisioner};

/// A host that remembers what it was told.
#[derive(Debug, Default)]
pub struct Fake {
    /// The token of its calls.
    pub cancel: Cancel,
    /// Messages of the log, oldest first.
    pub log: Mutex<Vec<String>>,
    /// What [`Host::state_dir`] answers.
    pub state_dir: PathBuf,
    /// Whether machines are said to be given back spoilt.
    pub spoilt: bool,
    told: Condvar,
}

impl Fake {
    /// Waits until a message with `text` was logged.
    ///
    /// # Panics
    ///
    /// If another thread panicked while it logged.
    pub fn heard(&self, text: &str) {
        let log = self.log.lock().unwrap();
        let silent = |log: &mut Vec<String>| !log.iter().any(|line| line.contains(text));
        drop(self.told.wait_while(log, silent).unwrap());
    }

    fn note(&self, message: String) {
        self.log.lock().unwrap().push(message);
        self.told.notify_all();
    }
}

impl Services for Fake {
    fn log(&self, _: Level, message: &str, _: &str) {
        self.note(message.to_owned());
    }
    fn progress(&self, text: &str) {
        self.note(format!("progress: {text}"));
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
        info.spoilt = self.spoilt;
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

/// The same, for giving back a spoilt machine.
pub fn fake_for_spoilt(directory: impl Into<PathBuf>) -> (Arc<Fake>, Host) {
    serve(Fake { state_dir: directory.into(), spoilt: true, ..Fake::default() })
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

/// What every provisioner must get right, against the real thing. `at_work` is called while a machine is held.
///
/// # Panics
///
/// If the provisioner gets something wrong.
pub fn conforms<P: Provisioner>(provisioner: &P, host: &Host, owner: &str, at_work: impl FnOnce(&Machine)) {
    let lease = Lease::new("a0192f0c1-0000-7000-8000-000000000001", "run-1", owner);
    let held = |owner: &str| {
        let mut marks: Vec<_> =
            provisioner.list(owner, host).unwrap().into_iter().map(|held| held.mark).collect();
        marks.sort();
        marks
    };
    provisioner.abort(&lease.id, host).unwrap();
    assert!(held(owner).is_empty(), "nothing is held at first");

    let machine = provisioner.reserve(&lease, host).unwrap();
    assert_eq!(held(owner), [lease.mark()]);
    assert!(held("").contains(&lease.mark()), "it is somebody's");
    assert!(held(&owner[..owner.len() - 1]).is_empty(), "it is nobody else's");
    let told = provisioner.list(owner, host).unwrap();
    assert_eq!(
        told.first().map(|held| held.id.as_str()),
        Some(machine.id.as_str()),
        "list tells what release takes"
    );
    assert!(unless_unsupported(provisioner.alive(&machine.id, host), true));
    at_work(&machine);

    for _ in 0..2 {
        provisioner.release(&machine.id, host).unwrap();
        assert!(!unless_unsupported(provisioner.alive(&machine.id, host), false));
        provisioner.abort(&lease.id, host).unwrap();
    }
    assert!(held(owner).is_empty(), "nothing is held at the end");

    let machine = provisioner.reserve(&lease, host).unwrap();
    provisioner.abort(&lease.id, host).unwrap();
    assert!(held(owner).is_empty(), "a lease that was got and then given up is not held");
    provisioner.release(&machine.id, host).unwrap();
}

fn unless_unsupported(answer: Result<bool, Error>, otherwise: bool) -> bool {
    match answer {
        Err(error) if error.kind() == ErrorKind::Unsupported => otherwise,
        answer => answer.unwrap(),
    }
}

/// Runs the interface's own conformance checks through the binary interface. `capabilities`: those of the plugin that this
/// configuration really has.
///
/// # Panics
///
/// If one of them fails.
pub fn passes_the_kit<P: Provisioner>(
    config: &str,
    capabilities: Capabilities,
    state_dir: &Path,
    parallel: u32,
) {
    let host = FakeHost::with_state_dir(state_dir);
    let provisioner = testkit::provisioner::<P>(config, &host.handle()).unwrap();
    let again = || testkit::provisioner::<P>(config, &host.handle());
    let checks = Conformance::new(&provisioner, capabilities, &host).parallel(parallel).again(again).run();
    for check in &checks {
        eprintln!("{check}");
    }
    assert!(!checks.iter().any(|check| matches!(check.outcome, Outcome::Failed(_))), "{:?}", host.log());
    assert!(checks.iter().any(|check| check.outcome == Outcome::Passed));
}
