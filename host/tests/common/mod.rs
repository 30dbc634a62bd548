//! A machine under test: its worker, and what it reported.

#![allow(unreachable_pub, dead_code, clippy::allow_attributes, reason = "each test binary uses a part")]

pub mod alone;
pub mod cases;
#[path = "../../../tests/src/expect.rs"]
mod expect;
pub mod fixtures;
pub mod proxy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use atex_host::executor::Handle;
use atex_host::executor::spec::{
    Dialect, Framework, Layer, Limits, MachineSpec, Order, Packages, Report, ResultRule, RunOrder, RunReport,
    Site, TestEnvironment, TestSpec,
};
use atex_plugin_api::model::Transport;

/// Long enough for a busy box; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_mins(3);

/// A small tree with a directory, a program and a link.
pub fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("deep/er")).unwrap();
    std::fs::write(tree.path().join("deep/er/file"), "content\n").unwrap();
    std::os::unix::fs::symlink("deep/er/file", tree.path().join("link")).unwrap();
    tree
}

pub struct Machine {
    pub handle: Option<Handle>,
    pub reports: Receiver<Report>,
    pub directory: tempfile::TempDir,
    next: u64,
    /// Reports other than ends of runs, as they came.
    pub seen: Vec<String>,
}

pub fn spec(transport: Transport) -> MachineSpec {
    MachineSpec {
        name: "machine".into(),
        transport,
        disposable: false,
        known_hosts: None,
        boot_time: Duration::from_secs(20),
        keepalive: Duration::from_secs(20),
    }
}

pub fn site(tree: &Path) -> Site {
    Site {
        layers: vec![Layer { from: tree.to_path_buf(), to: String::new() }],
        uploads: vec![],
        environment: vec![],
        prepare: vec![],
        finish: vec![],
        dialect: Dialect::Tmt,
        slots: 1,
        limits: Limits { grace: Duration::from_millis(300), ..Limits::default() },
        may_reboot: true,
        may_reset: false,
    }
}

pub fn test(script: &str) -> TestSpec {
    TestSpec {
        name: "/some/test".into(),
        cwd: String::new(),
        script: script.into(),
        tty: false,
        duration: Duration::from_secs(30),
        environment: TestEnvironment::default(),
        metadata: "summary: a test\n".into(),
        framework: Framework::Shell,
        result: ResultRule::Respect,
        restart: None,
        checks: vec![],
        packages: Packages::default(),
    }
}

impl Machine {
    /// Connected and not yet set up.
    pub fn connect(spec: MachineSpec) -> Self {
        let (sender, reports) = channel();
        let handle = Handle::start(spec, Box::new(move |report| drop(sender.send(report)))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut machine = Self { handle: Some(handle), reports, directory, next: 1, seen: vec![] };
        match machine.report() {
            Report::Connected { .. } => machine,
            other => panic!("not connected: {other:?}"),
        }
    }

    pub fn up(transport: Transport, site: Site) -> Self {
        let mut machine = Self::connect(spec(transport));
        machine.set_up(site).unwrap();
        machine
    }

    pub fn report(&mut self) -> Report {
        self.reports.recv_timeout(PATIENCE).expect("the machine is silent")
    }

    pub fn send(&self, order: Order) {
        self.handle.as_ref().unwrap().send(order);
    }

    pub fn set_up(&mut self, site: Site) -> Result<(), String> {
        self.send(Order::Setup(Arc::new(site)));
        match self.report() {
            Report::Ready => Ok(()),
            Report::SetupFailed { error } => Err(error),
            other => panic!("neither ready nor failed: {other:?}"),
        }
    }

    pub fn start(&mut self, test: TestSpec, slot: u16) -> (u64, PathBuf) {
        let execution = self.next;
        self.next += 1;
        let artifacts = self.directory.path().join(format!("artifacts/{execution}"));
        self.send(Order::Run(Box::new(RunOrder {
            execution,
            test: Arc::new(test),
            slot,
            serial: 1,
            attempt: 1,
            artifacts: artifacts.clone(),
        })));
        (execution, artifacts)
    }

    /// The next end of a run.
    pub fn finished(&mut self) -> RunReport {
        loop {
            match self.report() {
                Report::Finished(run) => return *run,
                Report::Lost { reason } => panic!("lost: {reason}; before: {:?}", self.seen),
                other => self.seen.push(format!("{other:?}")),
            }
        }
    }

    pub fn run(&mut self, test: TestSpec) -> RunReport {
        self.start(test, 0);
        self.finished()
    }

    /// Problems that were found.
    pub fn hand_back(mut self) -> Vec<String> {
        self.send(Order::HandBack);
        let problems = loop {
            match self.report() {
                Report::HandedBack { problems } => break problems,
                Report::Lost { reason } => panic!("lost: {reason}"),
                _ => {}
            }
        };
        if let Some(handle) = self.handle.take() {
            handle.join();
        }
        problems
    }
}

/// Waits for something that other processes do, without assuming how long it takes. The error says what is missing.
pub fn eventually(mut done: impl FnMut() -> Result<(), String>) {
    let (_sender, never) = channel::<()>();
    let until = Instant::now() + PATIENCE;
    while let Err(missing) = done() {
        assert!(Instant::now() < until, "{missing}");
        let _ = never.recv_timeout(Duration::from_millis(20));
    }
}

/// `Err` of a message, if not.
pub fn holds(condition: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}

/// What a run left in a file of its artifacts.
pub fn artifact(run: &RunReport, name: &str) -> String {
    let path = run.artifacts.as_ref().unwrap().directory.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
