//! What breaks while a test runs, with a real sshd, real networks and real file systems: the verdict, and what is left.
//!
//! Each fault is a test [alone](common::alone): afterwards the host has no descriptor and no temporary file left. `cargo xtask
//! faults` runs them all and prints how long each took; nothing here depends on time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use atex_host::executor::spec::{Ended, Limits, MachineSpec, Order, Report, RunReport, Site, TestSpec};
use atex_plugin_api::model::{LocalTransport, Transport};
use common::alone::{Alone, Switch, alone, run_all};
use common::fixtures::{PORT, Setting, Sshd};
use common::proxy::{Badness, Proxy};
use common::{Machine, artifact, eventually, holds, site, spec, test, tree};

#[test]
fn every_fault() {
    run_all();
}

fn sshd(more: &[&str]) -> Sshd {
    Sshd::start(more).expect("an sshd")
}

/// As short as it can be, unless the table is to be made with another one.
fn keepalive() -> Duration {
    let given = std::env::var("ATEX_FAULT_KEEPALIVE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(10))
}

fn machine_spec(sshd: &Sshd) -> MachineSpec {
    MachineSpec { keepalive: keepalive(), ..spec(Transport::Ssh(sshd.transport())) }
}

fn up(spec: MachineSpec, site: Site) -> Machine {
    let mut machine = Machine::connect(spec);
    machine.set_up(site).unwrap();
    machine
}

/// Shell code that reports a result of this name.
fn result(name: &str) -> String {
    format!("printf 'result %d\\n%s' {} '{{\"name\":\"{name}\"}}' >&$ATEX_TEST_CONTROL\n", name.len() + 11)
}

fn result_arrives(machine: &mut Machine) {
    while !matches!(machine.report(), Report::ResultLine { .. }) {}
}

/// A test that ignores signals and has an escaped child runs, and has reported a result.
fn with_stubborn_test(sshd: &Sshd) -> Machine {
    let tree = tree();
    let mut machine = up(machine_spec(sshd), site(tree.path()));
    let script = format!("trap '' TERM HUP; setsid sleep 1000.5 & {}sleep 1000.5", result("before"));
    let mut stubborn = test(&script);
    stubborn.duration = Duration::from_hours(1);
    machine.start(stubborn, 0);
    result_arrives(&mut machine);
    eventually(|| holds(sshd.processes("sleep\u{0}1000.5").len() == 2, "the test does not run"));
    machine
}

/// The run has ended as lost, and what it had reported before is there.
fn lost(it: &mut Alone, machine: &mut Machine) {
    let run = machine.finished();
    it.known("infra, machine lost");
    assert!(matches!(run.ended, Ended::Lost(_)) && run.status == "infra", "{run:?}");
    assert!(results(&run).contains(r#""name":"before""#), "{}", results(&run));
    assert!(matches!(machine.report(), Report::Lost { .. }));
}

fn results(run: &RunReport) -> String {
    artifact(run, "results")
}

#[test]
#[ignore = "run alone by every_fault"]
fn link_cut() {
    alone("link cut for good", |it| {
        let (switch, mut sshd) = on_a_switch();
        switch.plug(&mut sshd, 2);
        let mut machine = with_stubborn_test(&sshd);
        it.strike();
        switch.cut(2);
        lost(it, &mut machine);
        it.gone(&sshd);
    });
}

fn on_a_switch() -> (Switch, Sshd) {
    let setting = Setting { network: true, ..Setting::default() };
    (Switch::new(), Sshd::with(setting, &[]).expect("an sshd"))
}

#[test]
#[ignore = "run alone by every_fault"]
fn link_cut_for_a_while() {
    alone("link cut for 2 s", |it| {
        let (switch, mut sshd) = on_a_switch();
        switch.plug(&mut sshd, 2);
        let tree = tree();
        let patient = MachineSpec { keepalive: Duration::from_mins(2), ..machine_spec(&sshd) };
        let mut machine = up(patient, site(tree.path()));
        let script = format!("{}for i in {{1..40}}; do echo $i; sleep 0.1; done", result("before"));
        machine.start(test(&script), 0);
        result_arrives(&mut machine);
        it.strike();
        switch.cut(2);
        let (_sender, never) = channel::<()>();
        let _ = never.recv_timeout(Duration::from_secs(2));
        switch.mend(2);
        let run = machine.finished();
        it.known("pass");
        assert_eq!(run.status, "pass", "{run:?}");
        let all: String = (1..=40).map(|n| n.to_string() + "\n").collect();
        assert_eq!(artifact(&run, "files/output.txt"), all);
        assert!(machine.hand_back().is_empty());
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn session_killed() {
    alone("kill -9 of the session's sshd", |it| {
        let sshd = sshd(&[]);
        let mut machine = with_stubborn_test(&sshd);
        it.strike();
        Sshd::signal(&sshd.processes("sshd: root"), "-KILL");
        lost(it, &mut machine);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn frozen() {
    alone("machine frozen", |it| {
        let sshd = sshd(&[]);
        let mut machine = with_stubborn_test(&sshd);
        let all = sshd.everything();
        it.strike();
        Sshd::signal(&all, "-STOP");
        lost(it, &mut machine);
        Sshd::signal(&all, "-CONT");
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn power_cut() {
    alone("power cut", |it| {
        let mut sshd = sshd(&[]);
        let mut machine = with_stubborn_test(&sshd);
        it.strike();
        sshd.power_off();
        lost(it, &mut machine);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn power_cut_behind_a_cut_link() {
    alone("power cut, and nobody resets the connection", |it| {
        let (switch, mut sshd) = on_a_switch();
        switch.plug(&mut sshd, 2);
        let mut machine = with_stubborn_test(&sshd);
        it.strike();
        switch.cut(2);
        sshd.power_off();
        lost(it, &mut machine);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn reboot_announced() {
    alone("announced reboot, new boot id, empty disk", |it| {
        let mut sshd = sshd(&[]);
        let tree = tree();
        let mut machine = up(machine_spec(&sshd), site(tree.path()));
        // The host has acted on the word when the channel is closed; only then may the machine go away.
        let script = "cat deep/er/file; echo $TMT_REBOOT_COUNT; (( TMT_REBOOT_COUNT )) && exit 0; \
             echo disconnect >&$ATEX_TEST_CONTROL; trap '' PIPE; \
             while echo noop >&$ATEX_TEST_CONTROL; do :; done 2>/dev/null; touch /var/tmp/said; sleep 1000";
        machine.start(test(script), 0);
        let said = PathBuf::from(format!("/proc/{}/root/var/tmp/said", sshd.init()));
        eventually(|| holds(said.exists(), "the test does not announce its reboot"));
        it.strike();
        sshd.reboot();
        let run = machine.finished();
        it.known("pass");
        assert_eq!(run.status, "pass", "{run:?}");
        assert_eq!(artifact(&run, "files/output.txt"), "content\n0\ncontent\n1\n");
        assert!(machine.hand_back().is_empty());
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn reboot_unannounced() {
    alone("unannounced reboot", |it| {
        let mut sshd = sshd(&[]);
        let mut machine = with_stubborn_test(&sshd);
        it.strike();
        sshd.reboot();
        lost(it, &mut machine);
        it.gone(&sshd);
    });
}

/// Everything that a run does, under conditions that make it hard: so many bytes each way.
fn bulk(it: &mut Alone, spec: MachineSpec, bytes: usize) {
    let tree = tree();
    fs::write(tree.path().join("large"), vec![7; bytes]).unwrap();
    it.strike();
    let mut machine = up(spec, site(tree.path()));
    let script = format!("[[ $(wc -c <large) == {bytes} ]]; head -c {bytes} /dev/zero | tr '\\0' x");
    let run = machine.run(TestSpec { duration: Duration::from_hours(1), ..test(&script) });
    it.known("pass");
    assert_eq!(run.status, "pass", "{run:?}");
    assert_eq!(artifact(&run, "files/output.txt").len(), bytes);
    assert!(machine.hand_back().is_empty());
}

#[test]
#[ignore = "run alone by every_fault"]
fn one_session_only() {
    alone("MaxSessions 1: setup and a test", |it| {
        let sshd = sshd(&["MaxSessions 1"]);
        bulk(it, machine_spec(&sshd), 100_000);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn frequent_new_keys() {
    alone("RekeyLimit 1M: 8 MB up, 8 MB down", |it| {
        let sshd = sshd(&["RekeyLimit 1M"]);
        bulk(it, machine_spec(&sshd), 8_000_000);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn slow_frequent_new_keys() {
    alone("RekeyLimit 256K: 8 MB up, 8 MB down", |it| {
        let sshd = sshd(&["RekeyLimit 256K"]);
        bulk(it, machine_spec(&sshd), 8_000_000);
        it.gone(&sshd);
    });
}

fn through(proxy: &Proxy, sshd: &Sshd) -> MachineSpec {
    let mut transport = sshd.transport();
    (transport.host, transport.port) = ("127.0.0.1".into(), Some(proxy.port));
    MachineSpec { keepalive: keepalive(), ..spec(Transport::Ssh(transport)) }
}

fn proxy_to(sshd: &Sshd, badness: Badness) -> Proxy {
    Proxy::start(format!("{}:{PORT}", sshd.address).parse().unwrap(), badness)
}

#[test]
#[ignore = "run alone by every_fault"]
fn link_slow() {
    alone("link of 256 KiB/s, 50 ms each way: 500 kB up, 500 kB down", |it| {
        let sshd = sshd(&[]);
        let badness = Badness { delay: Duration::from_millis(50), rate: 256 << 10, not_ready: 0 };
        let proxy = proxy_to(&sshd, badness);
        bulk(it, through(&proxy, &sshd), 500_000);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn link_far() {
    alone("100 ms each way: 100 kB up, 100 kB down", |it| {
        let sshd = sshd(&["MaxSessions 1"]);
        let proxy = proxy_to(&sshd, Badness { delay: Duration::from_millis(100), ..Badness::default() });
        bulk(it, through(&proxy, &sshd), 100_000);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn not_ready() {
    alone("sshd accepts three times before it is ready", |it| {
        let sshd = sshd(&[]);
        let proxy = proxy_to(&sshd, Badness { not_ready: 3, ..Badness::default() });
        bulk(it, through(&proxy, &sshd), 1000);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn server_restarted() {
    alone("sshd's listener killed and started again", |it| {
        let setting = Setting { mortal: true, ..Setting::default() };
        let sshd = Sshd::with(setting, &[]).expect("an sshd");
        let tree = tree();
        let mut machine = up(machine_spec(&sshd), site(tree.path()));
        let script = format!("{}until [[ -e /var/tmp/go ]]; do sleep 0.1; done", result("before"));
        machine.start(test(&script), 0);
        result_arrives(&mut machine);
        it.strike();
        let listener = sshd.processes("[listener]");
        assert_eq!(listener.len(), 1);
        Sshd::signal(&listener, "-KILL");
        eventually(|| holds(sshd.processes("[listener]").is_empty(), "the listener lives on"));
        sshd.start_server();
        let mut other = up(machine_spec(&sshd), site(tree.path()));
        assert_eq!(other.run(test("touch /var/tmp/go")).status, "pass");
        let run = machine.finished();
        it.known("pass, also for a new connection");
        assert_eq!(run.status, "pass", "{run:?}");
        assert!(machine.hand_back().is_empty() && other.hand_back().is_empty());
        it.gone(&sshd);
    });
}

fn resize_var(sshd: &Sshd, size: &str) {
    let output = sshd.inside(&["mount", "-o", &format!("remount,size={size}"), "/var"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run alone by every_fault"]
fn machine_disk_full_for_the_tree() {
    alone("machine's disk too small for the tree", |it| {
        let sshd = sshd(&[]);
        let tree = tree();
        fs::write(tree.path().join("large"), vec![7; 4 << 20]).unwrap();
        let mut machine = Machine::connect(machine_spec(&sshd));
        resize_var(&sshd, "1m");
        it.strike();
        let error = machine.set_up(site(tree.path())).unwrap_err();
        it.known("setup failed");
        assert!(error.starts_with("upload of the tree: tar on the machine: exit status"), "{error}");
        assert!(machine.hand_back().is_empty());
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn machine_disk_full() {
    alone("machine's disk full in mid-test", |it| {
        let sshd = sshd(&[]);
        let tree = tree();
        let mut machine = up(machine_spec(&sshd), site(tree.path()));
        resize_var(&sshd, "2m");
        it.strike();
        let run = machine.run(test("head -c 5000000 /dev/zero >fill"));
        it.known("fail, the test's own");
        assert_eq!((run.ended, run.status.as_str()), (Ended::Exited(1), "fail"));
        // Its metadata could not be written, which its log may say; the test needs nothing of it.
        let run = machine.run(test("echo goes on; [[ $(stat -c %s fill) -gt 1000000 ]]"));
        assert_eq!(run.status, "pass", "{run:?}");
        assert!(artifact(&run, "files/output.txt").ends_with("goes on\n"));
        assert_eq!(machine.run(test("rm fill; echo x >new")).status, "pass");
        assert!(machine.hand_back().is_empty());
        it.gone(&sshd);
    });
}

/// A small file system of its own at a directory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(directory);
        assert!(mount.status().unwrap().success());
        Self(directory.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[ignore = "run alone by every_fault"]
fn host_disk_full() {
    alone("host's disk full in mid-test", |it| {
        let sshd = sshd(&[]);
        let tree = tree();
        let mut machine = up(machine_spec(&sshd), site(tree.path()));
        let disk = SmallDisk::at(&machine.directory.path().join("artifacts"));
        let script = "head -c 5000000 /dev/zero; trap '' TERM; sleep 1000.5; sleep 1000.5";
        it.strike();
        let run = machine.run(test(script));
        it.known("infra, the host cannot go on");
        assert!(matches!(&run.ended, Ended::Host(why) if why.contains("No space left")), "{run:?}");
        assert_eq!(run.status, "infra");
        assert!(run.artifacts.is_none());
        assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0, "what could not be published is gone");
        assert!(sshd.processes("sleep\u{0}1000.5").is_empty());
        let run = machine.run(test("echo goes on"));
        assert_eq!((run.status.as_str(), artifact(&run, "files/output.txt").as_str()), ("pass", "goes on\n"));
        drop(disk);
        assert!(machine.hand_back().is_empty());
        it.gone(&sshd);
    });
}

/// A file that comes through the control channel; how much memory of the host it took at most.
fn upload(transport: Transport, bytes: u64) -> u64 {
    let tree = tempfile::tempdir().unwrap();
    let limits = Limits { bytes_per_test: bytes + 10_000, ..Limits::default() };
    let mut machine = up(spec(transport), Site { limits, ..site(tree.path()) });
    assert_eq!(machine.run(test("echo warm")).status, "pass");
    // From now on the peak counts.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmHWM");
    let json = format!(r#"{{"status":"pass","files":[{{"name":"large","length":{bytes}}}]}}"#);
    let mut upload = test(&format!(
        "printf 'result %d\\n%s' {} '{json}' >&$ATEX_TEST_CONTROL; head -c {bytes} /dev/zero >&$ATEX_TEST_CONTROL",
        json.len()
    ));
    upload.duration = Duration::from_hours(1);
    machine.start(upload, 0);
    let run = loop {
        match machine.reports.recv_timeout(Duration::from_hours(1)).unwrap() {
            Report::Finished(run) => break run,
            Report::Lost { reason } => panic!("{reason}"),
            _ => {}
        }
    };
    let grown = memory("VmHWM").saturating_sub(before);
    assert_eq!(run.status, "pass", "{run:?}");
    let large = run.artifacts.unwrap().directory.join("files/large");
    assert_eq!(fs::metadata(large).unwrap().len(), bytes);
    machine.hand_back();
    grown
}

/// In KiB.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn uploads(it: &mut Alone, transport: &Transport, bytes: u64) {
    it.strike();
    let grown = upload(transport.clone(), bytes);
    it.known(&format!("pass, host's memory grew by {grown} KiB"));
    assert!(grown < 8 << 10, "{grown} KiB for {bytes} bytes");
}

#[test]
#[ignore = "run alone by every_fault"]
fn upload_of_64_mib() {
    alone("upload of 64 MiB, local", |it| {
        uploads(it, &Transport::Local(LocalTransport::default()), 64 << 20);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn upload_of_64_mib_over_ssh() {
    alone("upload of 64 MiB, ssh", |it| {
        let sshd = sshd(&[]);
        uploads(it, &Transport::Ssh(sshd.transport()), 64 << 20);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn large_upload() {
    alone("upload of 2 GiB, local", |it| {
        uploads(it, &Transport::Local(LocalTransport::default()), 2 << 30);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn large_upload_over_ssh() {
    alone("upload of 2 GiB, ssh", |it| {
        let sshd = sshd(&[]);
        uploads(it, &Transport::Ssh(sshd.transport()), 2 << 30);
        it.gone(&sshd);
    });
}

/// A test that ignores signals is cancelled; the machine stays good.
fn cancelled(it: &mut Alone, transport: Transport) {
    let tree = tree();
    let mut machine = up(spec(transport), site(tree.path()));
    let script = format!(
        "trap '' TERM HUP INT; setsid sleep 1000.5 & {}while :; do sleep 1000.5; done",
        result("before")
    );
    let (execution, _) = machine.start(test(&script), 0);
    result_arrives(&mut machine);
    it.strike();
    machine.send(Order::Cancel { execution });
    let run = machine.finished();
    it.known("infra, cancelled");
    assert_eq!((run.ended.clone(), run.status.as_str()), (Ended::Cancelled, "infra"));
    assert!(results(&run).contains("before"));
    assert_eq!(machine.run(test("true")).status, "pass");
    assert!(machine.hand_back().is_empty());
}

#[test]
#[ignore = "run alone by every_fault"]
fn cancelled_locally() {
    alone("cancelled, local, the test ignores signals", |it| {
        cancelled(it, Transport::Local(LocalTransport::default()));
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn cancelled_over_ssh() {
    alone("cancelled, ssh, the test ignores signals", |it| {
        let sshd = sshd(&[]);
        cancelled(it, Transport::Ssh(sshd.transport()));
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_fault"]
fn cancelled_while_frozen() {
    alone("cancelled on a frozen machine, keepalive 1 h", |it| {
        let sshd = sshd(&[]);
        let tree = tree();
        let patient = MachineSpec { keepalive: Duration::from_hours(1), ..machine_spec(&sshd) };
        let mut machine = up(patient, site(tree.path()));
        let (execution, _) = machine.start(test(&format!("{}sleep 1000.5", result("before"))), 0);
        result_arrives(&mut machine);
        let all = sshd.everything();
        Sshd::signal(&all, "-STOP");
        it.strike();
        machine.send(Order::Cancel { execution });
        let run = machine.finished();
        it.known("infra, cancelled");
        assert_eq!(run.ended, Ended::Cancelled);
        assert!(results(&run).contains("before"));
        assert!(matches!(machine.report(), Report::Lost { .. }));
        Sshd::signal(&all, "-CONT");
        it.gone(&sshd);
    });
}
