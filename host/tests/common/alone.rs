//! Tests that have a process, a network and mounts of their own, so that what they leave can be counted.
//!
//! Such a test is an ignored `#[test]`, whose body is given to [`alone`]. [`run_all`], called from the one test of the binary that
//! is not ignored, runs each of them in a new process, several at a time, since they mostly wait. Prefixes of names say how
//! often: `slow_` with `ATEX_TEST_ALL=1` only, `large_` with `ATEX_TEST_LARGE=1` only; `ATEX_TEST_ONLY=PART` picks by name.
//!
//! After the body, none of the process's descriptors and temporary files may be left. What it measured is a line
//! `FAULT<TAB>VERDICT<TAB>MS<TAB>MS` in the file that `ATEX_FAULT_TIMES` names, which `cargo xtask faults` makes a table of.

use std::collections::VecDeque;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::fixtures::{Sshd, have};
use super::{eventually, holds};

const MARK: &str = "ATEX_TEST_ALONE";
const AT_A_TIME: usize = 4;

/// Runs all ignored tests of this binary, each alone.
pub fn run_all() {
    if !have("ip") || !have("unshare") || !Path::new("/usr/sbin/sshd").exists() {
        return println!("no root, no network tools or no sshd here");
    }
    let queue: Mutex<VecDeque<String>> = Mutex::new(names().into());
    let failed = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(name) = queue.lock().unwrap().pop_front() else { break };
                    if let Err(said) = run_one(&name) {
                        failed.lock().unwrap().push(format!("== {name}\n{said}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

fn names() -> Vec<String> {
    let executable = std::env::current_exe().unwrap();
    let list = Command::new(executable).args(["--list", "--ignored", "--format=terse"]).output().unwrap();
    let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
    let only = std::env::var("ATEX_TEST_ONLY").unwrap_or_default();
    let wanted = |name: &&str| {
        name.contains(&only)
            && (!name.starts_with("slow_") || set("ATEX_TEST_ALL"))
            && (!name.starts_with("large_") || set("ATEX_TEST_LARGE"))
    };
    let text = String::from_utf8(list.stdout).unwrap();
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(wanted)
        .map(str::to_owned)
        .collect();
    assert!(!names.is_empty(), "no test is called so");
    names
}

fn run_one(name: &str) -> Result<(), String> {
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(MARK, name)
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("1 passed") {
        print!("{said}");
        return Ok(());
    }
    Err(said)
}

/// One test, and what it measures.
#[derive(Debug)]
pub struct Alone {
    struck: Option<Instant>,
    verdict: String,
    known: Duration,
    gone: Option<Duration>,
}

/// The body of a test that [`run_all`] runs.
pub fn alone(fault: &str, body: impl FnOnce(&mut Alone)) {
    assert!(
        std::env::var_os(MARK).is_some(),
        "to run this test: ATEX_TEST_ONLY=its-name, and the test that is not ignored"
    );
    ip("link set lo up");
    let before = (descriptors(), temporary_files());
    let mut it = Alone { struck: None, verdict: String::new(), known: Duration::ZERO, gone: None };
    body(&mut it);
    eventually(|| {
        let after = (descriptors(), temporary_files());
        let clean = after.0.len() <= before.0.len() && after.1 == before.1;
        holds(clean, format!("left by the host: {after:?}\nbefore: {before:?}"))
    });
    if it.struck.is_some() {
        it.write_down(fault);
    }
}

impl Alone {
    /// The fault happens now.
    pub fn strike(&mut self) {
        self.struck = Some(Instant::now());
    }

    /// The host knows.
    pub fn known(&mut self, verdict: &str) {
        self.known = self.struck.unwrap().elapsed();
        verdict.clone_into(&mut self.verdict);
    }

    /// Waits until nothing of ours is left on the machine, which can be reached again.
    pub fn gone(&mut self, sshd: &Sshd) {
        eventually(|| {
            let left = (sshd.of_ours(), sshd.work_directories());
            holds(left.0.is_empty() && left.1.is_empty(), format!("left on the machine: {left:?}"))
        });
        self.gone = Some(self.struck.unwrap().elapsed());
    }

    fn write_down(&self, fault: &str) {
        let gone = self.gone.map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string());
        let line = format!("{fault}\t{}\t{}\t{gone}\n", self.verdict, self.known.as_millis());
        print!("{line}");
        if let Some(path) = std::env::var_os("ATEX_FAULT_TIMES") {
            let file = fs::OpenOptions::new().append(true).create(true).open(path);
            file.unwrap().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// What this process has open, but for the descriptor that it looks with.
fn descriptors() -> Vec<String> {
    let all = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let links =
        all.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|link| link.display().to_string());
    let mut links: Vec<_> = links.filter(|link| !link.ends_with("/fd")).collect();
    links.sort();
    links
}

fn temporary_files() -> Vec<std::path::PathBuf> {
    fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs `ip`, with words that have no blanks.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network of this process's own: itself and machines, all on one switch.
#[derive(Debug)]
pub struct Switch {
    name: &'static str,
}

impl Switch {
    /// Nobody has this address, and whoever sends there hears nothing at all.
    pub const NOBODY: &str = "10.9.0.99";

    pub fn new() -> Self {
        ip("link add sw type bridge");
        ip("addr add 10.9.0.1/24 dev sw");
        // A port that is always up: else the switch itself would go down with its only other one.
        ip("link add keep type veth peer name keep-end");
        ip("link set keep master sw up");
        ip("link set keep-end up");
        ip("link set sw up");
        ip(&format!("neigh replace {} lladdr 02:00:00:00:00:99 dev sw nud permanent", Self::NOBODY));
        Self { name: "sw" }
    }

    fn port(&self, number: u8) -> String {
        format!("{}{number}", self.name)
    }

    /// Connects a machine that has a network of its own; its address.
    pub fn plug(&self, sshd: &mut Sshd, number: u8) {
        let pid = sshd.init();
        let port = self.port(number);
        ip(&format!("link add {port} type veth peer name eth0 netns {pid}"));
        ip(&format!("link set {port} master {} up", self.name));
        for words in [format!("addr add 10.9.0.{number}/24 dev eth0"), "link set eth0 up".to_owned()] {
            let mut inside = Command::new("nsenter");
            inside.args(["-n", "-t", &pid.to_string(), "ip"]).args(words.split(' '));
            assert!(inside.status().unwrap().success(), "{words}");
        }
        sshd.address = format!("10.9.0.{number}");
    }

    /// The cable of a machine.
    pub fn cut(&self, number: u8) {
        ip(&format!("link set {} down", self.port(number)));
    }

    pub fn mend(&self, number: u8) {
        ip(&format!("link set {} up", self.port(number)));
    }
}
