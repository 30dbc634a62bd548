//! `cargo xtask self-test`: the project's own FMF tree, run by what was just built.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::packages;
use crate::build::{self, Profile, root, target_dir};

pub(super) fn selftest() -> Result<()> {
    packages::ensure(false)?;
    let built = build::build(Profile::Dev)?;
    let run_dir = target_dir()?.join("self-test");
    let scratch = tempfile::tempdir().context("cannot make a directory for the state")?;
    // The tests find the program and cargo by name.
    let path = env::join_paths(
        std::iter::once(built.directory.clone())
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    if run_dir.exists() {
        std::fs::remove_dir_all(&run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    }
    let mut command = Command::new(built.host());
    command
        .arg(root())
        .args(["--provisioner", "local,max=3", "--test", "^/self/"])
        .args(["--env", &format!("ATEX_SOURCE={}", root().display())])
        .args(["--env", &format!("ATEX_BIN={}", built.directory.display())])
        .args(["--env", &format!("PATH={}", path.to_string_lossy())])
        .arg("--run-dir")
        .arg(&run_dir)
        .env("ATEX_STATE_DIR", scratch.path());
    for name in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR", "HOME"] {
        if let Ok(value) = env::var(name) {
            command.args(["--env", &format!("{name}={value}")]);
        }
    }
    let status = command.status().context("cannot start atex-host")?;
    ensure!(status.success(), "the project's own tests failed ({status}); see {}", run_dir.display());
    Ok(())
}
