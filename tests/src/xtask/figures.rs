//! `cargo xtask figures`: the tables of `docs/scheduling.md`, made anew.
//!
//! Everything runs in virtual time with the very coordinator of a run, from an optimised build. Rows about cost have a process of
//! their own each, because peak memory is that of a process.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::headline;
use crate::build::{cargo, root};

/// Tests, machines, policies, affinity groups, slots, platforms, kinds of machines.
const ROWS: [&str; 10] = [
    "1000 10 reruns+priority+duration 0 1 1 1",
    "10000 100 reruns+priority+duration 0 1 1 1",
    "100000 1000 reruns+priority+duration 0 1 1 1",
    "1000000 10000 reruns+priority+duration 0 1 1 1",
    "1000000 10000 reruns+priority+duration+kinds 0 1 1 20",
    "1000000 10000 reruns+affinity+duration 8 1 1 1",
    "1000000 10000 reruns+affinity+duration 100000 1 1 1",
    "1000000 10000 elsewhere+destructive+affinity+priority+duration 8 1 1 1",
    "1000000 10000 elsewhere+destructive+affinity+priority+duration 100000 1 1 1",
    "1000000 10000 elsewhere+exclusive+priority+duration 1000 4 3 1",
];

/// Which tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Figures {
    /// How close schedules come to what is possible, beside simpler ways
    Makespan,
    /// The same by kinds of faults and by what is known of durations
    Faults,
    /// What a decision costs, and a whole run
    Cost,
}

/// The head of the table about cost.
const COST: &str = "\
| tests | machines | policies | groups | slots | platforms | kinds | decisions | us a decision | registration s | run s | MiB |
|--:|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// Makes the tables, all of them if none is named.
pub(super) fn figures(which: &[Figures]) -> Result<()> {
    let wanted = |one| which.is_empty() || which.contains(&one);
    if wanted(Figures::Makespan) {
        headline("makespan over the bound, medians of 31 seeds");
        show("makespan", None)?;
    }
    if wanted(Figures::Faults) {
        headline("makespan over the bound, by faults");
        show("makespan_by_faults", None)?;
    }
    if wanted(Figures::Cost) {
        headline("cost");
        print(COST)?;
        for row in ROWS {
            show("scale", Some(row))?;
        }
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Runs one of the library's figures, and prints what it says without the test runner's own words.
fn show(figure: &str, row: Option<&str>) -> Result<()> {
    let mut command = Command::new(cargo());
    command
        .args(["test", "--release", "--quiet", "-p", "atex-host", "--lib", "--", "--ignored", "--nocapture"])
        .args(["--exact", &format!("core::trials::figures::{figure}")])
        .current_dir(root())
        .stderr(Stdio::inherit());
    command.envs(row.map(|row| ("ATEX_ROW", row)));
    let output = command.output().context("cannot run cargo test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains('|'), "{figure} failed:\n{text}");
    for line in text.lines().filter(|line| line.starts_with('|') || line.contains(" %") || line.is_empty()) {
        print(&format!("{line}\n"))?;
    }
    Ok(())
}
