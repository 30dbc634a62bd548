//! `cargo xtask faults`: breaks everything that can break under running tests, and prints how long it took.
//!
//! The tests are those of `cargo xtask test`, with the slow and the large ones; each appends a line to a file.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::packages;
use crate::build::{self, cargo, root, target_dir};

const TESTS: [&str; 4] = ["--test", "executor_faults", "--test", "executor_cancel"];

/// `keepalive`: seconds, of connections that are to die of it.
pub(super) fn faults(keepalive: u8) -> Result<()> {
    packages::ensure(true)?;
    let times = target_dir()?.join("faults.tsv");
    if times.exists() {
        fs::remove_file(&times).with_context(|| format!("cannot remove {}", times.display()))?;
    }
    let mut command = Command::new(cargo());
    command
        .args(["test", "--quiet", "-p", "atex-host"])
        .args(TESTS)
        .envs([("ATEX_TEST_ALL", "1"), ("ATEX_TEST_LARGE", "1")])
        .env("ATEX_FAULT_KEEPALIVE", keepalive.to_string())
        .env("ATEX_FAULT_TIMES", &times)
        .current_dir(root());
    build::run(&mut command)?;
    print(&times)
}

/// The lines as a table in Markdown, in order of the faults' names.
fn print(times: &Path) -> Result<()> {
    let text = fs::read_to_string(times).with_context(|| format!("cannot read {}", times.display()))?;
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    lines.sort();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| fault | the test's verdict | the host knows after | nothing is left on the machine after |"
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for line in lines {
        ensure!(line.len() == 4, "{}: not four fields: {line:?}", times.display());
        writeln!(out, "| {} | {} | {} | {} |", line[0], line[1], seconds(line[2]), seconds(line[3]))?;
    }
    Ok(())
}

fn seconds(milliseconds: &str) -> String {
    milliseconds.parse::<f64>().map_or_else(|_| milliseconds.to_owned(), |ms| format!("{:.2} s", ms / 1000.0))
}
