//! SSH: who is let in, who is believed, and how to get there. What breaks on the way is in `executor_faults`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atex_host::executor::Handle;
use atex_host::executor::spec::{Ended, MachineSpec, Order, Report};
use atex_plugin_api::model::{HostKeyCheck, SshTransport, Transport};
use common::fixtures::{PORT, Setting, Sshd};
use common::{Machine, artifact, site, spec, test, tree};

macro_rules! sshd {
    ($($line:expr),*) => {
        match Sshd::start(&[$($line),*]) {
            Some(sshd) => sshd,
            None => return println!("no sshd here"),
        }
    };
}

/// Connects and hands back, or tells why not.
fn attempt(spec: MachineSpec) -> Result<(), String> {
    let (sender, reports) = std::sync::mpsc::channel();
    let handle = Handle::start(spec, Box::new(move |report| drop(sender.send(report)))).unwrap();
    let result = loop {
        match reports.recv_timeout(Duration::from_secs(30)).unwrap() {
            Report::Connected { .. } => handle.send(Order::HandBack),
            Report::HandedBack { .. } => break Ok(()),
            Report::Lost { reason } => break Err(reason),
            other => panic!("{other:?}"),
        }
    };
    handle.join();
    result
}

fn ssh(transport: SshTransport) -> MachineSpec {
    MachineSpec { boot_time: Duration::from_secs(10), ..spec(Transport::Ssh(transport)) }
}

/// Once it is up, nothing has to be tried again.
fn hurried(transport: SshTransport) -> MachineSpec {
    MachineSpec { boot_time: Duration::from_millis(500), ..ssh(transport) }
}

/// The host key of no machine.
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMHlGWgRVgb7WBfhHCVVkIzYkEYcoNE8VoHNn1xJkfUO";

#[test]
fn host_keys() {
    let sshd = sshd!();
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("pool/known");
    let with = |check: HostKeyCheck, keys: &[String]| {
        let mut transport = sshd.transport();
        transport.host_key_check = check;
        transport.host_keys = keys.to_vec();
        MachineSpec { known_hosts: Some(file.clone()), ..ssh(transport) }
    };
    let other = OTHER_KEY.to_owned();
    let refused = |spec: MachineSpec, part: &str| {
        let why = attempt(spec).unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    attempt(with(HostKeyCheck::Strict, &[sshd.host_key()])).unwrap();
    refused(
        with(HostKeyCheck::AcceptNew, std::slice::from_ref(&other)),
        "differs from the ones that the provisioner gave",
    );
    refused(with(HostKeyCheck::Strict, &[]), "is not known");
    assert!(!file.exists());
    attempt(with(HostKeyCheck::AcceptNew, &[])).unwrap();
    let line = format!("[{}]:{PORT} {}\n", sshd.address, sshd.host_key());
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    attempt(with(HostKeyCheck::Strict, &[])).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), line, "remembered once");
    fs::write(&file, format!("[{}]:{PORT} {other}\n", sshd.address)).unwrap();
    // A wrong key is not tried again: nobody would wait so long.
    let patient = MachineSpec { boot_time: Duration::from_hours(1), ..with(HostKeyCheck::AcceptNew, &[]) };
    refused(patient, "differs from the known ones");
    attempt(with(HostKeyCheck::Off, &[])).unwrap();
}

#[test]
fn keys_inline_wrong_and_missing() {
    let sshd = sshd!();
    attempt(ssh(sshd.transport())).unwrap();
    let mut inline = sshd.transport();
    inline.key_data = Some(fs::read_to_string(inline.keys.remove(0)).unwrap());
    attempt(ssh(inline)).unwrap();
    let mut wrong = sshd.transport();
    wrong.keys = vec![sshd.directory.path().join("host").display().to_string()];
    let why = attempt(hurried(wrong)).unwrap_err();
    assert!(why.contains("did not let root in"), "{why}");
    let mut missing = sshd.transport();
    missing.keys = vec!["/no/such/key".into()];
    let why = attempt(ssh(missing)).unwrap_err();
    assert!(why.contains("cannot read the key /no/such/key"), "{why}");
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_key_of_an_agent_is_tried() {
    let sshd = sshd!();
    let store = tempfile::tempdir().unwrap();
    let socket = store.path().join("agent");
    let agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let _agent = Agent(agent);
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() && Instant::now() < until {
        std::thread::yield_now();
    }
    for number in 0..3 {
        let key = store.path().join(format!("other{number}"));
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
        add(&socket, &key);
    }
    add(&socket, &sshd.directory.path().join("user"));
    // The agent is named by the environment, which a process may not change while it has threads: a process of its own.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_the_agent_of_the_environment", "--ignored", "--nocapture"])
        .env("SSH_AUTH_SOCK", &socket)
        .env("ATEX_TEST_ADDRESS", &sshd.address)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "run by every_key_of_an_agent_is_tried"]
fn with_the_agent_of_the_environment() {
    let mut transport = SshTransport::default();
    transport.host = std::env::var("ATEX_TEST_ADDRESS").unwrap();
    transport.port = Some(PORT);
    transport.user = Some("root".into());
    transport.host_key_check = HostKeyCheck::Off;
    attempt(ssh(transport)).unwrap();
}

fn add(socket: &Path, key: &Path) {
    let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).status().unwrap();
    assert!(added.success());
}

#[test]
fn passwords() {
    for way in ["PasswordAuthentication yes", "KbdInteractiveAuthentication yes"] {
        let pam = if way.starts_with('K') { "UsePAM yes" } else { "UsePAM no" };
        let sshd = sshd!(way, pam, "PermitRootLogin yes", "PubkeyAuthentication no");
        let with = |password: &str| {
            let mut transport = sshd.transport();
            transport.keys.clear();
            transport.password = Some(password.into());
            transport
        };
        attempt(ssh(with("secret"))).unwrap();
        let why = attempt(hurried(with("wrong"))).unwrap_err();
        assert!(why.contains("did not let root in") && why.contains("password"), "{way}: {why}");
        assert!(!why.contains("wrong"), "a password is shown: {why}");
    }
}

#[test]
fn a_certificate_beside_the_key() {
    let store = tempfile::tempdir().unwrap();
    let authority = store.path().join("authority");
    let keygen = |words: &[&str]| {
        let mut command = Command::new("ssh-keygen");
        assert!(command.arg("-q").args(words).status().unwrap().success());
    };
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let name = authority.with_extension(kind).display().to_string();
        keygen(&["-t", "ed25519", "-N", "", "-f", &name]);
        let sshd = sshd!(&format!("TrustedUserCAKeys {name}.pub"), "AuthorizedKeysFile none");
        let key = store.path().join(format!("key-{kind}")).display().to_string();
        keygen(&["-t", kind, "-N", "", "-f", &key]);
        let mut transport = sshd.transport();
        transport.keys = vec![key.clone()];
        assert!(attempt(hurried(transport.clone())).is_err(), "{kind}: let in without a certificate");
        keygen(&["-s", &name, "-I", "id", "-n", "root", &format!("{key}.pub")]);
        attempt(ssh(transport)).unwrap_or_else(|why| panic!("{kind}: {why}"));
    }
}

#[test]
fn compressed() {
    let sshd = sshd!("Compression yes");
    let tree = tree();
    fs::write(tree.path().join("large"), vec![7; 3 << 20]).unwrap();
    let mut transport = sshd.transport();
    transport.compression = true;
    let mut machine = Machine::up(Transport::Ssh(transport), site(tree.path()));
    let run = machine.run(test("cat large"));
    assert_eq!((run.status.as_str(), artifact(&run, "files/output.txt").len()), ("pass", 3 << 20));
    machine.hand_back();
}

/// Another implementation, as small machines have it. It hangs up on whoever asks for a sign of life before logging in.
#[test]
fn dropbear() {
    let setting = Setting { dropbear: true, ..Setting::default() };
    let Some(sshd) = Sshd::with(setting, &[]) else { return println!("no dropbear here") };
    for _ in 0..5 {
        attempt(ssh(sshd.transport())).unwrap();
    }
    let tree = tree();
    let mut machine = Machine::up(Transport::Ssh(sshd.transport()), site(tree.path()));
    let run = machine.run(test(
        "(( TMT_REBOOT_COUNT )) || { echo disconnect >&$ATEX_TEST_CONTROL; exit 7; }; cat deep/er/file; exit 3",
    ));
    assert_eq!((run.ended.clone(), run.status.as_str()), (Ended::Exited(3), "fail"));
    assert_eq!(artifact(&run, "files/output.txt"), "content\n", "{run:?}");
    assert!(machine.hand_back().is_empty());
    let log = fs::read_to_string(sshd.directory.path().join("log")).unwrap();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("before auth")).collect();
    assert!(refused.is_empty() && log.contains("auth succeeded"), "{log}");
}

#[test]
fn as_another_user() {
    let programs = tempfile::tempdir().unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(programs.path(), mode(0o755)).unwrap();
    let sudo = programs.path().join("sudo");
    // Stands in for sudo(8), with the words that it has to get.
    let script = "#!/bin/bash\n[[ \"$1 $2 $3 $4\" == '-n -u nobody --' ]] || exit 1\nshift 4\n\
                  exec setpriv --reuid nobody --regid nogroup --clear-groups -- \"$@\"\n";
    fs::write(&sudo, script).unwrap();
    fs::set_permissions(&sudo, mode(0o755)).unwrap();
    let sshd = sshd!(&format!("SetEnv PATH={}:/usr/bin:/bin:/usr/sbin:/sbin", programs.path().display()));
    let mut transport = sshd.transport();
    transport.sudo = Some("nobody".into());
    let tree = tree();
    let mut machine = Machine::up(Transport::Ssh(transport), site(tree.path()));
    let run = machine.run(test("id -un; cat deep/er/file; [[ $TMT_TREE == /var/tmp/* ]]"));
    assert_eq!(artifact(&run, "files/output.txt"), "nobody\ncontent\n", "{run:?}");
    assert!(machine.hand_back().is_empty());
}

/// `ssh` in a PATH of its own, which reads this configuration only.
fn ssh_program(directory: &Path, configuration: &str) -> String {
    fs::write(directory.join("config"), configuration).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|at| at.join("ssh")).find(|ssh| ssh.exists()).unwrap();
    let script =
        format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", real.display(), directory.join("config").display());
    fs::write(directory.join("ssh"), script).unwrap();
    fs::set_permissions(directory.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{path}", directory.display())
}

#[test]
fn the_configuration_of_ssh_is_followed() {
    let (near, far) = (sshd!(), sshd!());
    fs::copy(far.directory.path().join("authorized"), near.directory.path().join("authorized")).unwrap();
    let store = tempfile::tempdir().unwrap();
    let known = store.path().join("known");
    let authority = store.path().join("authorities");
    fs::write(&known, format!("farthest {}\n", far.host_key())).unwrap();
    fs::write(&authority, format!("@cert-authority *.certified {}\n", far.host_key())).unwrap();
    let key = far.directory.path().join("user");
    let configuration = format!(
        "Host cert.certified\n UserKnownHostsFile {authority}\n HostKeyAlias cert.certified\n\
         Host far farther piped broken cert.certified\n HostName {far}\n HostKeyAlias farthest\n\
         Host near\n HostName {near}\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n\
         Host farther\n ProxyJump near\n\
         Host piped\n ProxyCommand ssh -W %h:%p near\n\
         Host broken\n ProxyCommand sh -c 'echo no way to %n >&2'\n\
         Host *\n User root\n Port {PORT}\n IdentityFile {key}\n IdentitiesOnly yes\n UserKnownHostsFile {known}\n",
        far = far.address,
        near = near.address,
        key = key.display(),
        known = known.display(),
        authority = authority.display(),
    );
    let path = ssh_program(store.path(), &configuration);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_the_configuration_of_the_environment", "--ignored", "--nocapture"])
        .env("PATH", path)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "run by the_configuration_of_ssh_is_followed"]
fn with_the_configuration_of_the_environment() {
    let named = |host: &str| {
        let mut transport = SshTransport::default();
        transport.host = host.into();
        transport.host_key_check = HostKeyCheck::Strict;
        transport
    };
    attempt(ssh(named("far"))).unwrap();
    // The provisioner's keys are those of the machine, by whatever name it is known.
    let mut impostor = named("far");
    impostor.host_key_check = HostKeyCheck::AcceptNew;
    impostor.host_keys = vec![OTHER_KEY.into()];
    let why = attempt(ssh(impostor)).unwrap_err();
    assert!(why.contains("differs from the ones that the provisioner gave"), "{why}");
    // The host on the way is in no file.
    let mut by_jump = named("farther");
    by_jump.host_key_check = HostKeyCheck::AcceptNew;
    attempt(ssh(by_jump)).unwrap();
    let tree = tree();
    let mut machine = Machine::up(Transport::Ssh(named("piped")), site(tree.path()));
    let run = machine.run(test("head -c 2000000 /dev/zero; cat deep/er/file >&2"));
    assert_eq!((run.status.as_str(), artifact(&run, "files/output.txt").len()), ("pass", 2_000_008));
    assert!(machine.hand_back().is_empty());
    let why = attempt(hurried(named("broken"))).unwrap_err();
    assert!(why.contains("ProxyCommand: no way to broken"), "{why}");
    for check in [HostKeyCheck::Strict, HostKeyCheck::AcceptNew] {
        let mut certified = named("cert.certified");
        certified.host_key_check = check;
        let why = attempt(ssh(certified)).unwrap_err();
        assert!(why.contains("@cert-authority"), "{why}");
    }
}

#[test]
fn through_another_host() {
    let (near, far) = (sshd!(), sshd!());
    let mut transport = far.transport();
    transport.jump = vec![format!("root@{}:{PORT}", near.address)];
    // One key for both.
    fs::copy(far.directory.path().join("authorized"), near.directory.path().join("authorized")).unwrap();
    let tree = tree();
    let mut machine = Machine::up(Transport::Ssh(transport), site(tree.path()));
    let run = machine.run(test("head -c 3000000 /dev/zero | tr '\\0' x; echo ${SSH_CONNECTION%% *} >&2"));
    assert_eq!((run.status.as_str(), artifact(&run, "files/output.txt").len() > 3_000_000), ("pass", true));
    machine.hand_back();
}

#[test]
fn nobody_listens() {
    let mut transport = SshTransport::default();
    transport.host = "127.0.0.1".into();
    transport.port = Some(1);
    let why = attempt(hurried(transport)).unwrap_err();
    assert!(why.contains("cannot connect to 127.0.0.1:1"), "{why}");
}

#[test]
fn a_machine_that_boots_late_and_is_let_go_while_it_does() {
    let mut transport = SshTransport::default();
    transport.host = "127.0.0.1".into();
    transport.port = Some(1);
    let (sender, reports) = std::sync::mpsc::channel();
    let late = MachineSpec { boot_time: Duration::from_hours(1), ..ssh(transport) };
    let handle = Handle::start(late, Box::new(move |report| drop(sender.send(report)))).unwrap();
    handle.send(Order::Abandon);
    assert!(matches!(reports.recv_timeout(Duration::from_mins(1)).unwrap(), Report::Lost { .. }));
    handle.join();
}

#[test]
fn a_restart_with_reboot() {
    let mut sshd = sshd!();
    let tree = tree();
    let mut machine = Machine::up(Transport::Ssh(sshd.transport()), site(tree.path()));
    // Stands in for reboot(8): says that it was called. The power cut is ours.
    let called = sshd.directory.path().join("called");
    fs::write(tree.path().join("unused"), "").unwrap();
    let mut spec = test(&format!(
        "echo $TMT_TEST_RESTART_COUNT $TMT_REBOOT_COUNT; (( TMT_REBOOT_COUNT )) && exit 0; \
         printf '#!/bin/sh\\ntouch {}\\n' >$TMT_TREE/../../bin/reboot; chmod 755 $TMT_TREE/../../bin/reboot; exit 9",
        called.display()
    ));
    spec.restart = Some(atex_host::executor::spec::Restart { codes: vec![9], max: 1, with_reboot: true });
    machine.start(spec, 0);
    let until = Instant::now() + Duration::from_secs(20);
    while !called.exists() {
        assert!(Instant::now() < until);
    }
    sshd.reboot();
    let run = machine.finished();
    assert_eq!((run.ended, run.status.as_str()), (Ended::Exited(0), "pass"));
    machine.hand_back();
}
