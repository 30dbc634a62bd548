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
use std::path::Path;
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

/// Nanoseconds of CPU of all threads that live.
fn cpu() -> f64 {
    fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok).map(|task| cpu_of(&task.path())).sum()
}

fn cpu_of(thread: &Path) -> f64 {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

fn cost(target: &str, transports: &[Transport], tests: usize) {
    let tree = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut machines: Vec<_> =
        transports.iter().map(|transport| Machine::up(transport.clone(), site(tree.path()))).collect();
    let ready = begun.elapsed() / u32::try_from(machines.len()).unwrap();
    let (begun, before) = (Instant::now(), cpu());
    let share = tests / machines.len();
    let of_threads = std::sync::Mutex::new(0.0);
    std::thread::scope(|scope| {
        for machine in &mut machines {
            let of_threads = &of_threads;
            scope.spawn(move || {
                for _ in 0..share {
                    let run = machine.run(test("true"));
                    assert_eq!(run.status, "pass", "{run:?}");
                }
                *of_threads.lock().expect("no panic") += cpu_of(Path::new("/proc/thread-self"));
            });
        }
    });
    let (wall, used) = (begun.elapsed(), cpu() - before + of_threads.into_inner().expect("no panic"));
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
