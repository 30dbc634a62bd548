//! What running a test costs: `cargo bench -p atex-host --bench executor`.
//!
//! Prints wall-clock time and host CPU per test of `true`, with artifacts as in a real run; and what many idle machines cost.
//! `TARGETS=local,ssh,podman`, `TESTS=200`, `MANY=1000` (machines for the second part; 0 leaves it out).

#![expect(clippy::print_stdout, reason = "it is what a benchmark does")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark may end like a test"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::time::{Duration, Instant};

use atex_plugin_api::model::{LocalTransport, Transport};
use common::fixtures::{Container, Sshd};
use common::{Machine, site, spec, test};

fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let tests: usize = setting("TESTS", "200").parse().unwrap();
    let many: usize = setting("MANY", "0").parse().unwrap();
    for target in setting("TARGETS", "local,ssh,podman").split(',') {
        measure(target, tests, many);
    }
}

fn measure(target: &str, tests: usize, many: usize) {
    let mut servers = vec![];
    let mut containers = vec![];
    let mut transports: Vec<Transport> = vec![];
    for _ in 0..4 {
        match target {
            "local" => transports.push(Transport::Local(LocalTransport::default())),
            "ssh" => {
                let Some(sshd) = Sshd::start(&["MaxSessions 50"]) else {
                    return println!("{target}: not here");
                };
                transports.push(Transport::Ssh(sshd.transport()));
                servers.push(sshd);
            }
            _ => {
                let Some(container) = Container::start() else { return println!("{target}: not here") };
                transports.push(container.transport());
                containers.push(container);
            }
        }
    }
    for machines in [1, 4] {
        cost(target, &transports[..machines], tests);
    }
    if many > 0 {
        idle(target, &transports, many);
    }
}

/// Nanoseconds of CPU of all threads that live, which are all that there were.
fn cpu() -> f64 {
    let mut sum = 0.0;
    for task in fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok) {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    sum
}

fn cost(target: &str, transports: &[Transport], tests: usize) {
    let tree = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut machines: Vec<_> =
        transports.iter().map(|transport| Machine::up(transport.clone(), site(tree.path()))).collect();
    let ready = begun.elapsed() / u32::try_from(machines.len()).unwrap();
    let (begun, before) = (Instant::now(), cpu());
    let share = tests / machines.len();
    for machine in &mut machines {
        machine.start(test("true"), 0);
    }
    // Each gets its next test when it has finished one, as the engine does it.
    let mut left = vec![share; machines.len()];
    while left.iter().any(|n| *n > 0) {
        for (machine, left) in machines.iter_mut().zip(&mut left) {
            while let Some(report) = machine.reports.try_recv().ok().or_else(|| wait(machine, *left)) {
                if let atex_host::executor::spec::Report::Finished(run) = report {
                    assert_eq!(run.status, "pass", "{run:?}");
                    *left -= 1;
                    if *left > 0 {
                        machine.start(test("true"), 0);
                    }
                }
            }
        }
    }
    let (wall, used) = (begun.elapsed(), cpu() - before);
    let per_test = 1.0 / f64::from(u32::try_from(share * machines.len()).unwrap());
    println!(
        "{target}, {} machines: {:.2} ms a test, {:.3} ms host CPU a test; ready after {} ms",
        machines.len(),
        wall.as_secs_f64() * 1e3 * per_test,
        used / 1e6 * per_test,
        ready.as_millis()
    );
    for machine in machines {
        machine.hand_back();
    }
}

/// Of a machine that has something to do, a moment is waited for.
fn wait(machine: &Machine, left: usize) -> Option<atex_host::executor::spec::Report> {
    if left == 0 { None } else { machine.reports.recv_timeout(Duration::from_micros(200)).ok() }
}

fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or("").to_owned();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn idle(target: &str, transports: &[Transport], many: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let before = status("VmRSS");
    let mut machines = vec![];
    for chunk in (0..many).collect::<Vec<_>>().chunks(20) {
        let started: Vec<_> = chunk
            .iter()
            .map(|n| {
                let mut spec = spec(transports[n % transports.len()].clone());
                spec.boot_time = Duration::from_mins(2);
                spec.keepalive = Duration::from_mins(1);
                std::thread::Builder::new().spawn(move || Machine::connect(spec)).unwrap()
            })
            .collect();
        machines.extend(started.into_iter().map(|thread| thread.join().unwrap()));
    }
    let after = status("VmRSS");
    let (begun, used) = (Instant::now(), cpu());
    let (_sender, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_secs(20));
    let share = (cpu() - used) / 1e7 / begun.elapsed().as_secs_f64();
    println!("{target}, {many} idle machines: RSS {before} -> {after}, {share:.2} % of a core");
    for machine in &machines {
        machine.send(atex_host::executor::spec::Order::HandBack);
    }
    for machine in machines {
        machine.hand_back();
    }
}
