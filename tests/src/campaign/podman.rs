//! podman with storage of its own and a small image made of this box's own programs.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::provider::{Left, Provider, processes_of};

/// Makes, in $1: `podman`, a wrapper with storage of its own, and an image of busybox, bash and tar.
const SETUP: &str = r#"
set -eu
cd "$1"
mkdir storage run root root/bin root/etc root/tmp root/root root/var root/var/tmp
cat > containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
cat > podman <<END
#!/bin/sh
export CONTAINERS_CONF=$1/containers.conf
exec podman --root $1/storage --runroot $1/run --storage-driver vfs "\$@"
END
chmod +x podman
for program in bash tar; do
    cp -L "$(command -v $program)" root/bin/
    for library in $(ldd "$(command -v $program)" | grep -o '/[^ ]*'); do
        mkdir -p "root${library%/*}"
        cp -L "$library" "root$library"
    done
done
cp "$(command -v busybox)" root/bin/busybox
for applet in $(busybox --list); do [ -e "root/bin/$applet" ] || ln -s busybox "root/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/bash' > root/etc/passwd
tar -C root -cf root.tar .
./podman import -q root.tar localhost/atex-campaign:1 > /dev/null
"#;

/// podman, as long as this value lives.
#[derive(Debug)]
pub struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    /// An error if podman does not work here.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("atex-campaign-").tempdir_in("/var/tmp")?;
        let made = Command::new("sh").args(["-c", SETUP, "sh"]).arg(directory.path()).output()?;
        ensure!(
            made.status.success(),
            "podman does not work here: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(Self { directory })
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("podman")
    }

    fn containers(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(self.program());
        command.args(["ps", "--all", "--format=json"]).args(args);
        let output = command.output().context("cannot ask podman")?;
        ensure!(output.status.success(), "podman: {}", String::from_utf8_lossy(&output.stderr));
        let found: Option<Vec<Value>> = serde_json::from_slice(&output.stdout)?;
        Ok(found.unwrap_or_default())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _nothing_more_can_be_done = Command::new(self.program()).args(["rm", "-afv", "-t", "0"]).output();
    }
}

impl Provider for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn pool(&self, _: usize) -> Value {
        json!({
            "use": "podman", "program": self.program(), "networks": ["none"],
            "image": "localhost/atex-campaign:1", "pull": "never", "max": 2,
        })
    }

    fn left(&self, _: usize, owner: &str) -> Result<Left> {
        let ours = |container: &Value| {
            let mark = container["Labels"]["atex.mark"].as_str().unwrap_or_default().to_owned();
            (mark.split('/').next() == Some(owner)).then_some(mark)
        };
        let machines = self.containers(&["--filter=label=atex.mark"])?.iter().filter_map(ours).collect();
        Ok(Left { machines, traces: processes_of(owner)? })
    }

    fn settle(&self) -> Duration {
        Duration::from_mins(5)
    }

    /// Storage without a container counts as well.
    fn emptied(&self) -> Result<Vec<String>> {
        Ok(self.containers(&["--external"])?.iter().map(|container| container["Names"].to_string()).collect())
    }
}
