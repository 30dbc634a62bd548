//! podman with storage of its own and a small image made of this box's own programs.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::provider::{Left, Provider, processes_of};

/// Makes, in $1: `podman`, a wrapper with storage of its own, and in it a small image, [`IMAGE`].
pub(crate) const SETUP: &str = include_str!("../../../plugins/provisioner-podman/tests/podman.sh");
pub(crate) const IMAGE: &str = "localhost/atex-test:1";

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
            "image": IMAGE, "pull": "never", "max": 2,
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
