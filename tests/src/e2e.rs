//! `atex-host` as a user runs it, in a directory of its own.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::build::{self, Built};

/// A tree, a state directory and a run directory, removed with this value.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
    built: &'static Built,
}

/// What a process left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The exit status, -1 for a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Place {
    /// With an FMF tree of these files: names and contents.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let it = Self { directory: tempfile::tempdir()?, built: build::for_tests() };
        it.write("tree/.fmf/version", "1\n")?;
        for (name, content) in files {
            it.write(&format!("tree/{name}"), content)?;
        }
        Ok(it)
    }

    /// Writes a file below this place.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A plugin library by its crate's name.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.built.plugin(name)
    }

    /// `atex-host` with these arguments, in the tree.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.built.host());
        command
            .args(args)
            .current_dir(self.path("tree"))
            .env("ATEX_STATE_DIR", self.path("state"))
            .env_remove("ATEX_PLUGIN_PATH")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Finished> {
        finish(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs the tree into the run directory `run` over local machines; `args` come last.
    pub fn run_tree(&self, args: &[&str]) -> Result<Finished> {
        let run = self.run_dir();
        let run = run.to_string_lossy();
        let first = ["--provisioner", "local,max=2", "--run-dir", &run];
        self.run(first.iter().chain(args))
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Status of each (test, subtest) of the default reporter's results, in order.
    pub fn results(&self) -> Result<Vec<(String, String, String)>> {
        let mut results = Vec::new();
        for line in json_lines(&self.run_dir().join("results.jsonl"))? {
            let text = |at: usize| line[at].as_str().unwrap_or_default().to_owned();
            results.push((text(2), text(3), text(1)));
        }
        results.sort();
        Ok(results)
    }

    /// The journal's records.
    pub fn journal(&self) -> Result<Vec<Value>> {
        json_lines(&self.run_dir().join("journal.jsonl"))
    }

    /// Number of verdicts per test.
    pub fn verdicts(&self) -> Result<Vec<usize>> {
        let run: Value = serde_json::from_slice(&fs::read(self.run_dir().join("run.json"))?)?;
        let mut verdicts = vec![0; run["tests"].as_array().map_or(0, Vec::len)];
        for record in self.journal()? {
            if record["what"] == "verdict" {
                let test = record["test"].as_u64().context("a verdict without a test")?;
                verdicts[usize::try_from(test)?] += 1;
            }
        }
        Ok(verdicts)
    }
}

/// Collects the output of a child that was started with pipes.
pub fn finish(child: Child) -> Result<Finished> {
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// The values of a file of JSON lines.
pub fn json_lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
