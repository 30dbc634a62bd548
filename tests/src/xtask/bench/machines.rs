//! Machines to measure on: SSH servers and containers of this box, with nothing but what they need. They go when this value does.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Target;
use crate::{
    build::{in_path, run},
    campaign::podman::{IMAGE, SETUP},
};

/// The port of all servers; each has an address of its own.
const PORT: u16 = 2222;
/// Not below `/var`: the servers have another one.
const BASE: &str = "/tmp";

/// As many machines as a run may ask for.
#[derive(Debug)]
pub(super) enum Machines {
    Local,
    Ssh(Servers),
    Podman(Containers),
}

impl Machines {
    pub(super) fn start(target: Target, number: usize) -> Result<Self> {
        Ok(match target {
            Target::Local => Self::Local,
            Target::Ssh => Self::Ssh(Servers::start(number, "MaxStartups 200:30:400")?),
            Target::Podman => Self::Podman(Containers::start()?),
        })
    }

    /// A pool of so many of them, as `--provisioner` takes it.
    pub(super) fn pool(&self, number: usize) -> String {
        match self {
            Self::Local => format!("local,max={number}"),
            Self::Ssh(servers) => servers.pool(number),
            Self::Podman(containers) => containers.pool(number),
        }
    }

    /// Address and key of each server.
    pub(super) fn servers(&self, number: usize) -> Vec<String> {
        let Self::Ssh(servers) = self else { return Vec::new() };
        servers
            .addresses
            .iter()
            .take(number)
            .flat_map(|address| [format!("{address}:{PORT}"), servers.key()])
            .collect()
    }
}

/// SSH servers, each with its own address, processes and `/var`.
#[derive(Debug)]
pub(super) struct Servers {
    directory: tempfile::TempDir,
    children: Vec<Child>,
    pub(super) addresses: Vec<String>,
}

impl Servers {
    /// `startups`: the line of the configuration that says how many may log in at a time.
    pub(super) fn start(number: usize, startups: &str) -> Result<Self> {
        ensure!(
            in_path("sshd") && in_path("unshare") && in_path("ssh-keygen"),
            "it needs sshd, ssh-keygen and unshare"
        );
        let directory = tempfile::Builder::new().prefix("atex-bench-").tempdir_in(BASE)?;
        let at = |name: &str| directory.path().join(name);
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)))?;
        }
        fs::create_dir(at("home"))?;
        fs::write(at("passwd"), accounts(&at("home"))?)?;
        fs::create_dir_all("/run/sshd").context("it needs to be root")?;
        let mut servers = Self { directory, children: Vec::new(), addresses: Vec::new() };
        for number in 1..=number {
            servers.boot(number, startups)?;
        }
        servers.wait()?;
        Ok(servers)
    }

    fn boot(&mut self, number: usize, startups: &str) -> Result<()> {
        let process = std::process::id();
        let address = format!("127.{}.{}.{number}", 1 + process / 251 % 250, 1 + process % 251);
        let directory = self.directory.path().display();
        let config = self.directory.path().join(format!("config{number}"));
        fs::write(
            &config,
            format!(
                "ListenAddress {address}:{PORT}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\n\
                 {startups}\nPidFile none\nStrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\n\
                 PermitRootLogin prohibit-password\nLogLevel ERROR\n"
            ),
        )?;
        let script = format!(
            "mount -t proc proc /proc && mount --bind {directory}/passwd /etc/passwd && mount -t tmpfs tmpfs /var \
             && chmod 755 /var && mkdir -m 1777 /var/tmp && exec /usr/sbin/sshd -f {} -D -e",
            config.display()
        );
        let child = Command::new("unshare")
            .args(["-m", "-p", "-f", "--kill-child", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start unshare")?;
        self.children.push(child);
        self.addresses.push(address);
        Ok(())
    }

    /// Until all servers let us in; the program tries again by itself.
    fn wait(&self) -> Result<()> {
        for address in &self.addresses {
            let up = Command::new("ssh")
                .args([
                    "-F",
                    "none",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "ConnectionAttempts=30",
                    "-o",
                    "StrictHostKeyChecking=no",
                ])
                .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", &PORT.to_string()])
                .args(["-i", &self.key(), &format!("root@{address}"), "true"])
                .output()?;
            if !up.status.success() {
                bail!("{address} does not answer: {}", String::from_utf8_lossy(&up.stderr));
            }
        }
        Ok(())
    }

    pub(super) fn key(&self) -> String {
        self.directory.path().join("user").display().to_string()
    }

    fn pool(&self, number: usize) -> String {
        let mut hosts = String::new();
        for address in self.addresses.iter().take(number) {
            let _infallible = write!(hosts, "\"root@{address}:{PORT}\", ");
        }
        format!(
            "{{use: ssh, hosts: [{hosts}], keys: [{}], host-key-check: 'off', max: {number}}}",
            self.key()
        )
    }

    /// The transport to a machine on one of the servers, in JSON.
    pub(super) fn transport(&self, server: usize) -> String {
        format!(
            r#"{{"kind": "ssh", "host": "{}", "port": {PORT}, "user": "root", "keys": ["{}"], "host_key_check": "off"}}"#,
            self.addresses[server],
            self.key()
        )
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _gone_already = child.kill();
            let _gone_already = child.wait();
        }
    }
}

/// This box's accounts, with an empty home for root: a shell that sshd starts reads what is there.
fn accounts(home: &Path) -> Result<String> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let others = accounts.lines().filter(|line| !line.starts_with("root:"));
    let root = format!("root:x:0:0:root:{}:/bin/bash", home.display());
    let lines: Vec<&str> = [root.as_str()].into_iter().chain(others).collect();
    Ok(lines.join("\n") + "\n")
}

/// podman with an image, and storage of its own.
#[derive(Debug)]
pub(super) struct Containers {
    directory: tempfile::TempDir,
}

impl Containers {
    fn start() -> Result<Self> {
        ensure!(
            in_path("podman") && in_path("runc") && in_path("busybox"),
            "it needs podman, runc and busybox"
        );
        let containers = Self { directory: tempfile::Builder::new().prefix("atex-bench-").tempdir_in(BASE)? };
        let output =
            Command::new("sh").args(["-c", SETUP, "sh"]).arg(containers.directory.path()).output()?;
        ensure!(output.status.success(), "podman: {}", String::from_utf8_lossy(&output.stderr));
        Ok(containers)
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("podman")
    }

    fn pool(&self, number: usize) -> String {
        let program = self.program();
        format!(
            "{{use: podman, program: {}, image: '{IMAGE}', pull: never, networks: [none], max: {number}}}",
            program.display()
        )
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let _as_far_as_it_goes = Command::new(self.program()).args(["rm", "-afv", "-t", "0"]).output();
    }
}
