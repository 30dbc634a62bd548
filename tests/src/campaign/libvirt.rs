//! A private libvirtd with qemu, and a small domain to be cloned. As root; needs a kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::provider::{Left, Provider, processes_of};
use crate::build;

/// libvirtd in namespaces of its own, as long as this value lives: whatever it starts ends with it.
#[derive(Debug)]
pub struct Libvirt {
    directory: tempfile::TempDir,
    daemon: Child,
}

/// A directory with an unpacked kernel package: `ATEX_TEST_KERNEL`, else Debian's kernel for clouds is fetched into the target
/// directory, once.
pub fn kernel() -> Result<PathBuf> {
    if let Some(kernel) = std::env::var_os("ATEX_TEST_KERNEL") {
        return Ok(kernel.into());
    }
    let place = build::target_dir()?.join("kernel");
    if place.join("boot").is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(&place)?;
    let script = "
        set -eu
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1)
        apt-get -qq download \"$package\"
        dpkg -x linux-image*.deb .
        rm linux-image*.deb";
    build::run(Command::new("sh").args(["-c", script]).current_dir(&place))
        .context("cannot fetch a kernel; ATEX_TEST_KERNEL names a directory with one")?;
    Ok(place)
}

impl Libvirt {
    /// With the kernel of an unpacked package.
    pub fn start(kernel: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("atex-libvirt-").tempdir_in("/var/tmp")?;
        for key in ["key", "host_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.path().join(key));
            ensure!(keygen.status().context("cannot start ssh-keygen")?.success(), "ssh-keygen failed");
        }
        let mut daemon = Command::new("unshare")
            .args(["-m", "-p", "-f", "--mount-proc", "--kill-child", "sh"])
            .arg(build::root().join("plugins/provisioner-libvirt/tests/libvirtd.sh"))
            .arg(directory.path())
            .arg(kernel)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot make namespaces")?;
        let mut lines = BufReader::new(daemon.stdout.take().context("no pipe")?).lines();
        let said = lines.next().transpose()?.unwrap_or_default();
        ensure!(said == "ready", "libvirtd does not start: {said}");
        Ok(Self { directory, daemon })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.path("run/libvirt-sock").display())
    }

    fn virsh(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(args).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn clones(&self) -> Result<Vec<String>> {
        let names = self.virsh(&["list", "--all", "--name"])?;
        Ok(names.lines().map(str::trim).filter(|name| name.starts_with("atex-")).map(str::to_owned).collect())
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ended = self.daemon.kill().and_then(|()| self.daemon.wait());
    }
}

impl Provider for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn pool(&self, _: usize) -> Value {
        json!({
            "use": "libvirt", "domain": "golden", "uri": self.uri(), "keys": [self.path("key")], "memory": 200,
            "max": 2,
        })
    }

    fn left(&self, _: usize, owner: &str) -> Result<Left> {
        let mut machines = Vec::new();
        for name in self.clones()? {
            let mark = self.virsh(&["desc", &name])?;
            if mark.split('/').next() == Some(owner) {
                machines.push(mark);
            }
        }
        Ok(Left { machines, traces: processes_of(owner)? })
    }

    fn settle(&self) -> Duration {
        Duration::from_mins(5)
    }

    /// Domains, and disks without one.
    fn emptied(&self) -> Result<Vec<String>> {
        let mut left = self.clones()?;
        for entry in fs::read_dir(self.path("img"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "golden.raw" {
                left.push(format!("disk {name}"));
            }
        }
        Ok(left)
    }
}
