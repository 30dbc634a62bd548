//! Playbooks, run by `ansible-playbook` on this side with the machine as its only host, named `machine`.
//!
//! What ansible has to know of the machine, secrets with it, is in files of a private directory that lives as long as the
//! playbook runs. While it does, the machine's driver gets its heart-beats, and orders are looked at.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

use atex_plugin_api::model::{HostKeyCheck, SshTransport, Transport};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};

use super::driver::Turn;
use super::session::{Error, Interrupt, Nowhere, Result, Session, Tail};
use super::spec::MachineSpec;
use crate::transport::{self, Waker, quote};

const PROGRAM: &str = "ansible-playbook";
/// How much of the output of a failed playbook is shown.
const SHOWN: usize = 2000;

/// Runs playbooks one after the other; the first failure is the error.
pub(crate) fn run(
    session: &mut Session,
    playbooks: &[PathBuf],
    extra_args: &[String],
    limit: Instant,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let directory = tempfile::tempdir().map_err(|e| failed("make a directory for", &e))?;
    let inventory = write_inventory(&session.spec, directory.path())?;
    for playbook in playbooks {
        let output = directory.path().join("output");
        let child = spawn(playbook, &inventory, extra_args, &output)?;
        let status = attend(session, child, limit, interrupt)?;
        if !status.success() {
            let said = tail_of(&output);
            return Err(Error::Failed(format!("{PROGRAM} {}: {status}{said}", playbook.display())));
        }
    }
    Ok(())
}

fn failed(what: &str, e: &std::io::Error) -> Error {
    Error::Failed(format!("cannot {what} {PROGRAM}: {e}"))
}

fn spawn(playbook: &Path, inventory: &Path, extra_args: &[String], output: &Path) -> Result<Child> {
    let log = fs::File::create(output).map_err(|e| failed("write the output of", &e))?;
    let copy = log.try_clone().map_err(|e| failed("write the output of", &e))?;
    let mut command = Command::new(PROGRAM);
    command.arg("-i").arg(inventory).args(extra_args).arg("--").arg(playbook);
    command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(copy);
    command.spawn().map_err(|e| failed("run", &e))
}

/// Waits for a process of ours as well as for the machine.
fn attend(
    session: &mut Session,
    child: Child,
    limit: Instant,
    interrupt: Interrupt<'_>,
) -> Result<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let over = watch(child, session.waker().clone())?;
    let result = loop {
        match over.try_recv() {
            Ok(status) => return status.map_err(|e| failed("wait for", &e)),
            Err(TryRecvError::Disconnected) => {
                break Err(Error::Failed(format!("cannot wait for {PROGRAM}")));
            }
            Err(TryRecvError::Empty) => {}
        }
        if interrupt() {
            break Err(transport::Error::Interrupted.into());
        }
        if Instant::now() >= limit {
            break Err(Error::TimedOut(format!("{PROGRAM} was still running")));
        }
        match session.turn(0, &mut Nowhere) {
            Ok(Turn::Busy | Turn::Ended(_)) => {}
            Ok(Turn::Dead(why)) => break Err(Error::Driver(why)),
            Ok(Turn::Idle) => {
                if let Err(e) = session.rest(Some(limit)) {
                    break Err(e);
                }
            }
            Err(e) => break Err(e),
        }
    };
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = over.recv();
    result
}

/// A thread that waits, because a process's end has to wake the machine's `poll`.
fn watch(mut child: Child, waker: Waker) -> Result<Receiver<std::io::Result<ExitStatus>>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name(PROGRAM.into())
        .stack_size(128 << 10)
        .spawn(move || {
            let _ = sender.send(child.wait());
            waker.wake();
        })
        .map_err(|e| failed("wait for", &e))?;
    Ok(receiver)
}

fn tail_of(output: &Path) -> String {
    let mut tail = Tail::new(SHOWN);
    if let Ok(mut file) = fs::File::open(output) {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            tail.take(&buffer[..n]);
        }
    }
    tail.shown()
}

fn write_inventory(spec: &MachineSpec, directory: &Path) -> Result<PathBuf> {
    let key = directory.join("key");
    let variables = match &spec.transport {
        Transport::Local(_) => Map::from_iter([("ansible_connection".to_owned(), json!("local"))]),
        Transport::Ssh(ssh) => {
            if let Some(data) = &ssh.key_data {
                write_private(&key, data)?;
            }
            ssh_variables(ssh, spec.known_hosts.as_deref(), &key)
        }
        _ => {
            let why = "ansible playbooks need a machine that is reached by ssh, or this box itself";
            return Err(Error::Failed(why.into()));
        }
    };
    let path = directory.join("inventory.json");
    write_private(&path, &json!({"all": {"hosts": {"machine": variables}}}).to_string())?;
    Ok(path)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|e| failed("write the inventory for", &e))
}

fn ssh_variables(ssh: &SshTransport, known_hosts: Option<&Path>, key: &Path) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, value: Value| all.insert(name.to_owned(), value);
    add("ansible_connection", json!("ssh"));
    add("ansible_host", json!(ssh.host));
    if let Some(port) = ssh.port {
        add("ansible_port", json!(port));
    }
    if let Some(user) = &ssh.user {
        add("ansible_user", json!(user));
    }
    if let Some(password) = &ssh.password {
        add("ansible_password", json!(password));
    }
    if let Some(user) = &ssh.sudo {
        add("ansible_become", json!(true));
        add("ansible_become_user", json!(user));
    }
    let first_key = ssh.key_data.as_ref().map(|_| key.display().to_string());
    if let Some(key) = first_key.or_else(|| ssh.keys.first().cloned()) {
        add("ansible_ssh_private_key_file", json!(key));
    }
    add("ansible_ssh_common_args", json!(ssh_options(ssh, known_hosts)));
    all
}

fn ssh_options(ssh: &SshTransport, known_hosts: Option<&Path>) -> String {
    let mut words = vec!["-o".to_owned(), "BatchMode=yes".to_owned()];
    if ssh.password.is_some() {
        words.clear();
    }
    let check = match ssh.host_key_check {
        HostKeyCheck::Strict => "yes",
        HostKeyCheck::Off => "no",
        _ => "accept-new",
    };
    words.extend(["-o".to_owned(), format!("StrictHostKeyChecking={check}")]);
    match (ssh.host_key_check, known_hosts) {
        (HostKeyCheck::Off, _) => words.extend(["-o".to_owned(), "UserKnownHostsFile=/dev/null".to_owned()]),
        (_, Some(file)) => {
            words.extend([
                "-o".to_owned(),
                format!("UserKnownHostsFile={} ~/.ssh/known_hosts", file.display()),
            ]);
        }
        _ => {}
    }
    if !ssh.jump.is_empty() {
        words.extend(["-J".to_owned(), ssh.jump.join(",")]);
    }
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use atex_plugin_api::model::ExecTransport;

    use super::*;

    fn spec(transport: Transport) -> MachineSpec {
        MachineSpec {
            name: "m".into(),
            transport,
            disposable: false,
            known_hosts: Some("/state/known hosts".into()),
            boot_time: Duration::ZERO,
            keepalive: Duration::ZERO,
        }
    }

    #[test]
    fn an_inventory_has_what_ssh_needs_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut ssh = SshTransport::default();
        ssh.host = "h".into();
        ssh.port = Some(2222);
        ssh.key_data = Some("secret".into());
        ssh.sudo = Some("root".into());
        ssh.jump = vec!["a".into(), "b:3".into()];
        let path = write_inventory(&spec(Transport::Ssh(ssh)), directory.path()).unwrap();
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let host = &value["all"]["hosts"]["machine"];
        assert_eq!((&host["ansible_port"], &host["ansible_become"]), (&json!(2222), &json!(true)));
        assert_eq!(
            host["ansible_ssh_common_args"],
            "-o BatchMode=yes -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=/state/known hosts ~/.ssh/known_hosts' -J a,b:3"
        );
        let key = host["ansible_ssh_private_key_file"].as_str().unwrap();
        assert_eq!(fs::read_to_string(key).unwrap(), "secret");
        for file in [&path, Path::new(key)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn other_transports_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let exec = Transport::Exec(ExecTransport::new(["podman"]));
        let error = write_inventory(&spec(exec), directory.path()).unwrap_err();
        assert!(error.to_string().contains("reached by ssh"), "{error}");
    }
}
