//! One run of `atex-host`, with everything that a user's run has, and what its own records say about it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Cost;
use crate::build::Built;

/// Runs all tests of the tree on machines of the pool; everything it writes goes below `place`.
pub(super) fn run(built: &Built, tree: &Path, place: &Path, pool: &str, tests: usize) -> Result<Cost> {
    let run_dir = place.join("run");
    let begun = Instant::now();
    let output = command(built, tree, place, pool).output().context("cannot start atex-host")?;
    let whole = begun.elapsed();
    if !output.status.success() {
        bail!("atex-host ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let per_test = 1.0 / tests as f64;
    let (cpu_ms, peak_mib) = used(&run_dir.join("host.log"))?;
    Ok(Cost {
        test_ms: span(&run_dir.join("journal.jsonl"), tests)? * per_test,
        whole_ms: whole.as_secs_f64() * 1e3 * per_test,
        cpu_ms: cpu_ms * per_test,
        peak_mib,
    })
}

/// The command of a run, not yet started.
pub(super) fn command(built: &Built, tree: &Path, place: &Path, pool: &str) -> Command {
    let mut command = Command::new(built.host());
    command
        .arg("run")
        .arg(tree)
        .args(["--no-plan", "--provisioner", pool, "--run-dir"])
        .arg(place.join("run"));
    command
        .env("ATEX_STATE_DIR", place.join("state"))
        .env_remove("ATEX_PLUGIN_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Milliseconds from the start of the first test to the last verdict.
fn span(journal: &Path, tests: usize) -> Result<f64> {
    let text = fs::read_to_string(journal).context("cannot read the journal")?;
    let (mut first, mut last, mut verdicts) = (None, None, 0);
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).context("the journal")?;
        let at = record["at"].as_f64();
        match record["what"].as_str() {
            Some("started") => first = first.or(at),
            Some("verdict") => (last, verdicts) = (at, verdicts + 1),
            _ => {}
        }
    }
    ensure!(verdicts == tests, "{verdicts} verdicts of {tests} tests");
    first.zip(last).map(|(first, last)| last - first).context("no test was run")
}

/// CPU time of the host's process in milliseconds and the most memory it had in MiB, as it says itself.
fn used(log: &Path) -> Result<(f64, f64)> {
    let text = fs::read_to_string(log).context("cannot read the host's log")?;
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains(" CPU time, "))
        .context("no word of CPU time in the log")?;
    let number = |unit: &str| {
        let words: Vec<&str> = line.split([' ', ',']).collect();
        let at = words.iter().position(|word| *word == unit)?;
        words.get(at.checked_sub(1)?)?.parse::<f64>().ok()
    };
    number("ms").zip(number("MiB")).context("the host's log has another form than expected")
}
