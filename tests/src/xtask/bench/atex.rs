//! The same tests by atex, python's own way: what there is to beat.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Cost, machines::Machines};
use crate::build::{self, in_path, root, target_dir};

/// What is compared with.
const WANTED: &str = "atex>=1,<2";
/// Names of pythons that may be new enough, best first.
const PYTHONS: [&str; 4] = ["python3.14", "python3.13", "python3.12", "python3"];

/// A python that has atex.
#[derive(Debug)]
pub(super) struct Atex {
    python: PathBuf,
}

impl Atex {
    /// The python that was named, else a virtual environment below the target directory, made if need be.
    pub(super) fn find(named: Option<&Path>) -> Result<Self> {
        ensure!(in_path("rsync"), "it needs rsync");
        if let Some(python) = named {
            ensure!(has_atex(python), "{} has no atex 1", python.display());
            return Ok(Self { python: python.to_owned() });
        }
        let environment = target_dir()?.join("bench-python");
        let python = environment.join("bin/python3");
        if !has_atex(&python) {
            install(&environment, &python)?;
        }
        Ok(Self { python })
    }

    /// Runs the tree over so many machines at a time.
    pub(super) fn run(
        &self,
        tree: &Path,
        scratch: &Path,
        machines: &Machines,
        number: usize,
    ) -> Result<Cost> {
        let place = tempfile::tempdir_in(scratch).context("cannot make a directory for a run")?;
        let mut command = Command::new(&self.python);
        command
            .arg(root().join("tests/bench/atex_run.py"))
            .arg(number.to_string())
            .arg(tree)
            .arg(place.path());
        command.args(machines.servers(number)).stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output().context("cannot start python")?;
        let whole = begun.elapsed();
        if !output.status.success() {
            bail!("atex ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        let figures: Value = serde_json::from_slice(&output.stdout).context("the figures of atex")?;
        let figure = |key: &str| figures[key].as_f64().with_context(|| format!("atex told no {key}"));
        Ok(Cost {
            test_ms: figure("test_ms")?,
            whole_ms: whole.as_secs_f64() * 1e3 / figure("tests")?,
            cpu_ms: figure("cpu_ms")?,
            peak_mib: figure("peak_mib")?,
        })
    }
}

fn install(environment: &Path, python: &Path) -> Result<()> {
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 12))";
    let base = PYTHONS
        .into_iter()
        .find(|name| quiet(Command::new(name).args(["-c", new_enough])))
        .context("it needs python 3.12 or newer; `--python` names one that has it")?;
    eprintln!("installing {WANTED} into {}", environment.display());
    build::run(Command::new(base).args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", WANTED]);
    build::run(&mut install)?;
    ensure!(has_atex(python), "{} does not find what was installed into it", python.display());
    Ok(())
}

fn has_atex(python: &Path) -> bool {
    let check = "from importlib.metadata import version; assert version('atex').startswith('1.'); import atex.orchestrator.adhoc";
    quiet(Command::new(python).args(["-c", check]))
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
