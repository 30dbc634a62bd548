//! `plugins check --live`: every bundled provisioner passes it against the real thing, or the stand-in that its own tests use,
//! and one that does something wrong is told what.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../plugins/provisioner-testingfarm/tests/farm/mod.rs"]
#[expect(dead_code, reason = "the plugin's own tests use all of it")]
mod farm;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    thread,
};

use atex_tests::{
    build::root,
    e2e::{Finished, Place, finish},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const FOUND_AGAIN: &str = "another host finds a machine whose answer was lost";

fn place() -> Place {
    Place::new(&[]).unwrap()
}

fn arguments(pool: &Value, more: &[&str]) -> Vec<String> {
    let spec = pool.to_string();
    let first = ["plugins", "check", "--live", "--format", "json", "-p", &spec];
    first.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// The outcome of each check and why, from what was printed.
fn outcomes(finished: &Finished) -> Vec<(String, String, String)> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines
        .filter(|line| line.get("check").is_some())
        .map(|line| (text(&line["check"]), text(&line["outcome"]), text(&line["why"])))
        .collect()
}

/// Checks a pool, of which only `skipped` may be left out, and looks whether anything was left.
fn passes(place: &Place, pool: &Value, machines: u32, skipped: &[&str]) {
    let machines = machines.to_string();
    let finished = place.run(arguments(pool, &["--machines", &machines])).unwrap();
    assert_eq!(finished.code(), 0, "{}{}", finished.stdout, finished.stderr);
    let all = outcomes(&finished);
    assert_eq!(all.len(), 18, "{all:?}");
    let not_passed: Vec<&str> =
        all.iter().filter(|(_, outcome, _)| outcome != "passed").map(|(name, ..)| name.as_str()).collect();
    assert_eq!(not_passed, skipped, "{all:?}");
    let ledgers = fs::read_dir(place.path("state/ledger")).unwrap().count();
    assert_eq!(ledgers, 0, "nothing is held");
}

/// Whether a test that needs these programs can run here; where all tests are asked for, it has to.
fn have(programs: &[&str]) -> bool {
    let there = programs.iter().all(|program| atex_tests::build::in_path(program));
    let all = std::env::var_os("ATEX_TEST_ALL").is_some_and(|value| !value.is_empty());
    assert!(there || !all, "not installed: one of {programs:?}");
    if !there {
        eprintln!("skipped: not installed: one of {programs:?}");
    }
    there
}

const NO_RENEWAL: &str = "a lease can be renewed";
const NO_RESET: &str = "a machine can be reset";

#[test]
fn local() {
    passes(&place(), &json!({"use": "local"}), 4, &[NO_RENEWAL, NO_RESET]);
}

#[test]
fn programs_in_python_and_shell() {
    let examples = root().join("plugins/provisioner-exec/examples");
    let place = place();
    let pool = place.path("pool");
    let shell = json!({"use": "exec", "program": examples.join("pool.sh"), "env": {"POOL": pool}});
    passes(&place, &shell, 4, &[NO_RENEWAL, NO_RESET]);
    if have(&["python3"]) {
        let python =
            json!({"use": "exec", "program": examples.join("pool.py"), "options": {"directory": pool}});
        passes(&place, &python, 2, &[NO_RENEWAL, NO_RESET]);
    }
    assert_eq!(fs::read_dir(pool).unwrap().count(), 0);
}

/// Ends a process that a test has started.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn key(place: &Place, name: &str) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(place.path(name));
    assert!(keygen.status().unwrap().success());
}

/// Starts sshd `number` on an address of its own and waits until it listens.
fn sshd(place: &Place, number: u8) -> Ends {
    let mut child = Command::new("unshare")
        .args(["-m", "sh"])
        .arg(root().join("plugins/provisioner-ssh/tests/sshd.sh"))
        .arg(place.path(""))
        .args([number.to_string(), format!("127.120.0.{number}")])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Server listening")), "sshd does not start");
    // It must not block on a pipe that nobody reads.
    thread::Builder::new().spawn(move || lines.for_each(drop)).unwrap();
    Ends(child)
}

#[test]
fn ssh() {
    let namespaces = || Command::new("unshare").args(["-m", "true"]).output().unwrap().status.success();
    if !have(&["sshd", "ssh", "ssh-keygen", "unshare"]) || !namespaces() {
        return;
    }
    let place = place();
    key(&place, "key");
    key(&place, "host_key");
    let _machines: Vec<Ends> = (1..=2).map(|number| sshd(&place, number)).collect();
    let pool = json!({
        "use": "ssh", "hosts": ["root@127.120.0.1:2222", "root@127.120.0.2:2222"], "keys": [place.path("key")],
        "ssh-options": {"GlobalKnownHostsFile": "/dev/null"},
    });
    passes(&place, &pool, 2, &[NO_RESET]);
    for number in 1..=2 {
        assert_eq!(
            fs::read_dir(place.path(&format!("{number}/tmp"))).unwrap().count(),
            0,
            "no claim is left"
        );
    }
}

#[test]
fn podman() {
    if !have(&["podman", "runc", "busybox"]) {
        return;
    }
    let place = place();
    let directory = tempfile::Builder::new().prefix("atex-live-").tempdir_in("/var/tmp").unwrap();
    let setup = root().join("plugins/provisioner-podman/tests/podman.sh");
    let made = Command::new("sh").arg(setup).arg(directory.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = directory.path().join("podman");
    let pool = json!({
        "use": "podman", "program": program, "image": "localhost/atex-test:1", "pull": "never", "networks": ["none"],
    });
    passes(&place, &pool, 3, &[NO_RENEWAL]);
    let left = Command::new(program).args(["ps", "-aq"]).output().unwrap();
    assert_eq!(left.stdout, b"", "no container is left");
}

#[test]
fn testingfarm() {
    if !have(&["ssh-keygen"]) {
        return;
    }
    let (place, farm) = (place(), farm::Farm::new());
    let ssh = place.write("ssh", "#!/bin/sh\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let pool = json!({
        "use": "testingfarm", "url": farm.url, "token": farm::TOKEN, "ssh": ssh, "poll-interval": 0,
        "address-url": format!("{}/address", farm.url),
    });
    passes(&place, &pool, 4, &[NO_RENEWAL, NO_RESET]);
    assert!(farm.states().iter().all(|state| *state == "canceled"), "{:?}", farm.states());
}

/// Needs a kernel: ATEX_TEST_KERNEL names a directory into which a kernel package was unpacked.
#[test]
fn libvirt() {
    let Some(kernel) = std::env::var_os("ATEX_TEST_KERNEL").filter(|kernel| !kernel.is_empty()) else {
        eprintln!("skipped: ATEX_TEST_KERNEL names no unpacked kernel package");
        return;
    };
    if !have(&["libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "busybox", "ssh", "unshare"]) {
        return;
    }
    let place = place();
    key(&place, "key");
    key(&place, "host_key");
    let mut daemon = Command::new("unshare")
        .args(["-m", "-p", "-f", "--mount-proc", "--kill-child", "sh"])
        .arg(root().join("plugins/provisioner-libvirt/tests/libvirtd.sh"))
        .arg(place.path(""))
        .arg(kernel)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    let _daemon = Ends(daemon);
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let socket = place.path("run/libvirt-sock");
    let pool = json!({
        "use": "libvirt", "domain": "golden", "uri": format!("qemu:///system?socket={}", socket.display()),
        "keys": [place.path("key")],
    });
    passes(&place, &pool, 2, &[NO_RENEWAL]);
    assert_eq!(fs::read_dir(place.path("img")).unwrap().count(), 1, "no overlay is left");
}

/// What goes wrong where, the exit status, and the checks that must have failed. It keeps what it lent in memory, so that
/// another host never finds it; and what is never answered may still be held.
#[test]
fn faults_are_told() {
    let panics = ["a machine is reserved", "a machine can be given up while it is held"];
    let table: [(&str, &str, i32, &[&str]); 9] = [
        ("panic", "reserve", 1, &panics),
        ("block", "reserve", 5, &["a machine is reserved", "nothing is left"]),
        ("nonsense", "reserve", 1, &["a machine is reserved"]),
        ("error", "release", 5, &["a machine is given back and is gone", "nothing is left"]),
        ("nonsense", "list", 5, &["the list shows it to its owner and to nobody else"]),
        (
            "nonsense",
            "alive",
            1,
            &["the provider says that it is there", "a machine is given back and is gone"],
        ),
        ("nonsense", "renew", 1, &["a lease can be renewed"]),
        ("error", "reboot", 1, &["a machine can be reset"]),
        ("error", "abort", 1, &["giving up what is not there succeeds, twice"]),
    ];
    thread::scope(|scope| {
        for (fault, method, status, expected) in table {
            scope.spawn(move || {
                let place = place();
                let timeout = if fault == "block" { "1s" } else { "1h" };
                let pool = json!({
                    "use": "faulty", "fault": fault, "in": method, "host": {"reserve-timeout": timeout},
                });
                let plugin = place.plugin("test-faulty");
                // All but those that block are done in time, however busy the box is.
                let limit = if fault == "block" { "1s" } else { "1h" };
                let more = ["--limit", limit, "--plugin", plugin.to_str().unwrap()];
                let finished = place.run(arguments(&pool, &more)).unwrap();
                let all = outcomes(&finished);
                assert_eq!(finished.code(), status, "{fault} in {method}: {all:?} {}", finished.stderr);
                let failed =
                    |name: &str| all.iter().any(|(one, outcome, _)| one == name && outcome == "failed");
                for name in expected.iter().chain(&[FOUND_AGAIN]) {
                    assert!(failed(name), "{fault} in {method}: {name} should have failed: {all:?}");
                }
                let causes = all.iter().filter(|(_, outcome, _)| outcome != "passed");
                assert!(causes.clone().all(|(.., why)| !why.is_empty()), "each says why: {all:?}");
            });
        }
    });
}

/// A program whose reservations come to a standstill once they hold something.
struct Standstill {
    place: Place,
    child: Child,
    /// The program that stands still.
    program: Pid,
}

impl Standstill {
    fn start() -> Self {
        let place = place();
        let example = root().join("plugins/provisioner-exec/examples/pool.sh");
        fs::create_dir(place.path("pool")).unwrap();
        let fifo = place.path("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let script = format!(
            "#!/bin/sh\n[ $ATEX_REQUEST = reserve ] || exec {0}\n{0} > \"$POOL/../answer\"\necho $$ > {1}\nexec sleep 900088\n",
            example.display(),
            fifo.display()
        );
        let program = place.write("program", &script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let pool = json!({"use": "exec", "program": program, "env": {"POOL": place.path("pool")}});
        let mut command = place.command(arguments(&pool, &[]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        // Opening blocks until the program opens the other end.
        File::open(&fifo).unwrap().read_to_string(&mut said).unwrap();
        let program = Pid::from_raw(said.trim().parse().unwrap()).unwrap();
        assert_eq!(held(&place), 1);
        Self { place, child, program }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }
}

fn held(place: &Place) -> usize {
    fs::read_dir(place.path("pool")).unwrap().count()
}

#[test]
fn a_signal_gives_back_what_was_reserved() {
    let standstill = Standstill::start();
    standstill.send(Signal::INT);
    let finished = finish(standstill.child).unwrap();
    assert_eq!(finished.code(), 4, "{}{}", finished.stdout, finished.stderr);
    let all = outcomes(&finished);
    assert!(
        all.iter().all(|(name, outcome, _)| (name == "nothing is left") == (outcome == "passed")),
        "{all:?}"
    );
    assert!(finished.stderr.contains("interrupted: what is reserved is given back"), "{}", finished.stderr);
    assert_eq!(held(&standstill.place), 0);
}

#[test]
fn what_a_killed_check_held_is_found_by_gc() {
    let standstill = Standstill::start();
    standstill.send(Signal::KILL);
    let killed = standstill.child.wait_with_output().unwrap();
    assert_eq!(killed.status.code(), None);
    // It knows nothing of its host's end.
    kill_process(standstill.program, Signal::KILL).unwrap();
    let gc = standstill.place.run(["gc"]).unwrap();
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stdout.contains("1 released, nothing is held any more"), "{}", gc.stdout);
    assert_eq!(held(&standstill.place), 0);
}
