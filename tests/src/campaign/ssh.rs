//! Machines with a real sshd: each has an address of its own below 127/8 and a `/var` of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::provider::{Left, Provider, processes_of};

/// Machines of each worker.
const EACH: usize = 2;

/// Runs sshd for the machine with the files of $1, in a mount namespace that ends with it. $2: address; $3: keys.
const SSHD: &str = r#"
set -eu
mkdir -p "$1/home" "$1/var/tmp"
awk -F: -v OFS=: -v me="$(id -un)" -v home="$1/home" '$1 == me { $6 = home } { print }' /etc/passwd > "$1/passwd"
mkdir -p /run/sshd
cat > "$1/config" <<END
ListenAddress $2:2222
HostKey $3/host_key
PidFile none
AuthorizedKeysFile $3/key.pub
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200:30:400
MaxSessions 50
END
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/var" /var
exec "$(command -v sshd)" -f "$1/config" -D -e
"#;

/// Machines of all workers, as long as this value lives.
#[derive(Debug)]
pub struct Ssh {
    directory: tempfile::TempDir,
    /// Part of all addresses, so that campaigns do not meet.
    net: u32,
    machines: Vec<Child>,
}

impl Ssh {
    /// Machines for that many workers.
    pub fn start(workers: usize) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("atex-ssh-").tempdir_in("/tmp")?;
        for key in ["key", "host_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.path().join(key));
            ensure!(keygen.status().context("cannot start ssh-keygen")?.success(), "ssh-keygen failed");
        }
        let mut lab = Self { directory, net: std::process::id(), machines: Vec::new() };
        for number in 0..workers * EACH {
            let machine = lab.machine(number)?;
            lab.machines.push(machine);
        }
        Ok(lab)
    }

    fn place(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    fn address(&self, number: usize) -> String {
        format!("127.{}.{}.{}", 128 + self.net % 100, self.net / 100 % 250, number + 1)
    }

    /// Starts a machine and waits until it listens.
    fn machine(&self, number: usize) -> Result<Child> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", SSHD, "sh"])
            .arg(self.place(number))
            .arg(self.address(number))
            .arg(self.directory.path())
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot make a machine")?;
        let mut lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
        let mut said = String::new();
        let listens = lines.by_ref().map_while(Result::ok).any(|line| {
            said = line;
            said.contains("Server listening")
        });
        ensure!(listens, "sshd does not start: {said}");
        // It must not block on a pipe that nobody reads.
        let drain = move || lines.map_while(Result::ok).for_each(drop);
        thread::Builder::new().name("sshd log".into()).spawn(drain)?;
        Ok(child)
    }

    fn of(worker: usize) -> std::ops::Range<usize> {
        worker * EACH..(worker + 1) * EACH
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            let _ended = machine.kill().and_then(|()| machine.wait());
        }
    }
}

impl Provider for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn pool(&self, worker: usize) -> Value {
        let hosts: Vec<String> =
            Self::of(worker).map(|number| format!("root@{}:2222", self.address(number))).collect();
        json!({
            "use": "ssh", "hosts": hosts, "keys": [self.directory.path().join("key")], "max": EACH,
            "ssh-options": {"GlobalKnownHostsFile": "/dev/null"},
        })
    }

    /// Claims are files on the machines. So are work directories, of which nobody else's can be there.
    fn left(&self, worker: usize, owner: &str) -> Result<Left> {
        let mut left = Left { machines: Vec::new(), traces: processes_of(owner)? };
        for number in Self::of(worker) {
            let var = self.place(number).join("var");
            for entry in fs::read_dir(var.join("tmp/atex-host-claims")).into_iter().flatten().flatten() {
                let claim = fs::read_to_string(entry.path()).unwrap_or_default();
                if claim.contains(&format!("{owner}/")) {
                    left.machines.push(format!("claim {}", entry.path().display()));
                }
            }
            for base in [var.clone(), var.join("tmp")] {
                for entry in fs::read_dir(base)?.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if name.starts_with("atex-") && name != "atex-host-claims" {
                        left.traces.push(entry.path().display().to_string());
                    }
                }
            }
        }
        Ok(left)
    }

    fn settle(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn emptied(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for number in 0..self.machines.len() {
            let var = self.place(number).join("var");
            for base in [var.clone(), var.join("tmp")] {
                let names = fs::read_dir(base)?.flatten().map(|entry| entry.path());
                left.extend(
                    names.filter(|path| *path != var.join("tmp")).map(|path| path.display().to_string()),
                );
            }
        }
        Ok(left)
    }
}
