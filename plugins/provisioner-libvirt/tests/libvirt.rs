//! Against a real libvirtd of the test's own, with qemu and without hardware support: a guest takes some 10 s to start. Needs
//! root, and a kernel: ATEX_TEST_KERNEL names a directory into which a kernel package was unpacked (boot/, lib/modules/).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use atex_plugin_api::{ErrorKind, Lease, Machine, Plugin, Provisioner, Transport, read_config};
use atex_plugin_process::testing::{conforms, fake_at, have};
use atex_provisioner_libvirt::Libvirt;
use serde_json::{Value, json};

/// libvirtd in namespaces of its own: whatever it starts ends with it.
struct Fixture {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Fixture {
    fn new() -> Option<Self> {
        // A kernel is nothing that tests can install: without one they are skipped also where all tests are asked for.
        let Some(kernel) = std::env::var_os("ATEX_TEST_KERNEL") else {
            eprintln!("skipped: ATEX_TEST_KERNEL names no unpacked kernel package");
            return None;
        };
        if !have(&[
            "libvirtd",
            "virsh",
            "qemu-system-x86_64",
            "qemu-img",
            "busybox",
            "ssh",
            "ssh-keygen",
            "unshare",
        ]) {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("atex-libvirt-").tempdir_in("/var/tmp").unwrap();
        for key in ["key", "host_key"] {
            let mut keygen = Command::new("ssh-keygen");
            let made =
                keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.path().join(key)).status();
            assert!(made.unwrap().success());
        }
        let mut daemon = Command::new("unshare")
            .args(["-m", "-p", "-f", "--mount-proc", "--kill-child", "sh"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libvirtd.sh"))
            .arg(directory.path())
            .arg(kernel)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Some(Self { directory, daemon })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.path("run/libvirt-sock").display())
    }

    fn provisioner(&self, more: &Value) -> Libvirt {
        let mut config = json!({"domain": "golden", "uri": self.uri(), "keys": [self.path("key")]});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        Libvirt::new(read_config(&config.to_string()).unwrap(), fake_at("").1).unwrap()
    }

    fn virsh(&self, args: &[&str]) -> String {
        let output = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn images(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path("img")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Runs a command on the machine, as the host would.
fn run(machine: &Machine, command: &str) -> String {
    let output = ssh(machine, command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Until a login works again after a reset; each attempt takes a while by itself.
fn until_up(machine: &Machine) {
    while !ssh(machine, "true").status.success() {}
}

fn ssh(machine: &Machine, command: &str) -> std::process::Output {
    let Transport::Ssh(ssh) = &machine.transport else { panic!("{machine:?}") };
    Command::new("ssh")
        .args([
            "-T",
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-lroot",
        ])
        .args(["-oConnectTimeout=10", "-oServerAliveInterval=5", "-oServerAliveCountMax=2"])
        .arg(format!("-i{}", ssh.keys[0]))
        .arg(format!("-p{}", ssh.port.unwrap()))
        .args([&ssh.host, command])
        .output()
        .unwrap()
}

fn lease(id: &str) -> Lease {
    Lease::new(id, "run-1", "me@lab")
}

#[test]
fn clones_come_and_go_and_the_origin_stays() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let provisioner = fixture.provisioner(&json!({"memory": 200}));
    conforms(&provisioner, &host, "me@lab", |machine| {
        // Another one beside it, with a disk of its own.
        let other = provisioner.reserve(&lease("a2"), &host).unwrap();
        assert_eq!(run(machine, "printf spoilt > /dev/vda; sync; head -c 6 /dev/vda"), "spoilt");
        assert_eq!(run(&other, "head -c 6 /dev/vda"), "golden");
        assert!(run(machine, "free -m | awk '/Mem/ {print $2}'").parse::<u32>().unwrap() < 200);
        assert!(run(machine, "ps").contains("sleep 86400"), "its own power-off timer");
        run(&other, "printf 'mine!!' > /dev/vda; sync");
        let boot = run(&other, "cat /proc/sys/kernel/random/boot_id");
        provisioner.reboot(&other.id, &host).unwrap();
        until_up(&other);
        assert_ne!(run(&other, "cat /proc/sys/kernel/random/boot_id"), boot);
        assert_eq!(run(&other, "head -c 6 /dev/vda"), "mine!!", "a reset keeps the disk");
        provisioner.release(&other.id, &host).unwrap();
    });
    assert_eq!(fixture.images(), ["golden.raw"], "no overlay is left");
    assert_eq!(fixture.virsh(&["list", "--all", "--name"]), "golden");
    assert!(std::fs::read(fixture.path("img/golden.raw")).unwrap().starts_with(b"golden"));
}

#[test]
fn a_cancelled_reservation_leaves_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    // A user that no guest lets in: it is waited for.
    let provisioner = fixture.provisioner(&json!({"user": "nobody"}));
    let (services, host) = fake_at("");
    thread::scope(|scope| {
        let reserving = scope.spawn(|| provisioner.reserve(&lease("a1"), &host).unwrap_err());
        services.heard("waiting for the guest");
        assert_eq!(provisioner.list("me@lab", &fake_at("").1).unwrap().len(), 1);
        provisioner.abort("a1", &fake_at("").1).unwrap();
        assert_eq!(reserving.join().unwrap().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(fixture.virsh(&["list", "--all", "--name"]), "golden");
    assert_eq!(fixture.images(), ["golden.raw"]);
}

#[test]
fn what_does_not_work_says_why() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let error = fixture.provisioner(&json!({"domain": "silver"})).reserve(&lease("a1"), &host).unwrap_err();
    assert!(error.to_string().contains("looking for domain silver"), "{error}");
    let error = fixture.provisioner(&json!({"uri": "qemu+unix:///system?socket=/no/such"}));
    let error = error.list("", &host).unwrap_err();
    assert!(error.to_string().contains("listing domains"), "{error}");
    fixture.virsh(&["start", "golden"]);
    let error = fixture.provisioner(&json!({})).reserve(&lease("a1"), &host).unwrap_err();
    assert!(error.to_string().contains("clones need it shut off"), "{error}");
}
