//! One run of atex-host with a state directory, a run directory and an owner of its own.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    kill::Records,
    provider::{MARK, Provider},
};
use crate::build;

/// Where one trial happens. It is removed with this value, unless [`keep`](Self::keep) was called.
#[derive(Debug)]
pub(crate) struct Site {
    directory: tempfile::TempDir,
    pub(crate) owner: String,
    pub(crate) worker: usize,
}

impl Site {
    /// `owner` must be unique among all trials of a provider.
    pub(crate) fn new(owner: String, worker: usize, tree: &Path, provider: &dyn Provider) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("atex-trial-").tempdir()?;
        let it = Self { directory, owner, worker };
        let config = json!({
            "owner": it.owner,
            "platforms": [{"name": "default", "provisioners": [provider.pool(worker)]}],
            "env": {MARK: it.owner},
            "limits": {"reserve-failures": 50, "setup-failures": 50},
        });
        fs::write(it.path("config.yaml"), config.to_string())?;
        std::os::unix::fs::symlink(tree, it.path("tree"))?;
        fs::create_dir(it.run_dir())?;
        Ok(it)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    pub(crate) fn ledgers(&self) -> PathBuf {
        self.path("state/ledger")
    }

    pub(crate) fn records(&self) -> Result<Records> {
        Records::watch(&self.ledgers(), &self.run_dir())
    }

    /// `atex-host run` of the tree.
    pub(crate) fn run(&self, provider: &dyn Provider) -> Result<Command> {
        let mut args: Vec<OsString> = vec!["run".into(), self.path("tree").into()];
        args.extend(["--config".into(), self.path("config.yaml").into()]);
        args.extend(["--run-dir".into(), self.run_dir().into()]);
        args.extend(provider.arguments());
        self.command(&args)
    }

    pub(crate) fn resume(&self) -> Result<Command> {
        self.command(&["resume".into(), self.run_dir().into()])
    }

    pub(crate) fn gc(&self) -> Result<Command> {
        self.command(&["gc".into()])
    }

    /// What it says goes to a file, for people who wonder.
    fn command(&self, args: &[OsString]) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.path("said"))?;
        let mut command = Command::new(build::for_tests().host());
        command
            .args(args)
            .current_dir(self.directory.path())
            .env("ATEX_STATE_DIR", self.path("state"))
            .env_remove("ATEX_PLUGIN_PATH")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    /// Leaves the directory where it is and says where that is.
    pub(crate) fn keep(&mut self) -> String {
        self.directory.disable_cleanup(true);
        self.directory.path().display().to_string()
    }
}

/// A tree of these files: names and contents.
pub(crate) fn tree(files: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().prefix("atex-tree-").tempdir()?;
    for (name, content) in [(".fmf/version", "1\n")].iter().chain(files) {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(path, content)?;
    }
    Ok(directory)
}
