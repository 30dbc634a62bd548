//! `cargo xtask bench`: what a test costs when the whole program runs it, beside atex in the same minutes; and what a host costs
//! whose machines all wait.
//!
//! Wall-clock figures of a busy box say little: of several runs the least figure is shown, and the ratio to atex is of runs that
//! took turns. CPU time of the host is its own, without that of what it starts (drivers of local machines, ssh programs).

mod atex;
mod host;
mod machines;
mod waiting;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::headline;
use crate::build::{self, Built, Profile};

/// See the [module](self).
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Tests of each run; all of them are `true`
    #[arg(long, default_value_t = 200)]
    tests: usize,
    /// Runs of each kind, of which the least figures are shown
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Kinds of machines
    #[arg(long, value_delimiter = ',', default_values = ["local", "ssh", "podman"])]
    targets: Vec<Target>,
    /// Numbers of machines
    #[arg(long, value_delimiter = ',', default_values = ["1", "4"])]
    machines: Vec<usize>,
    /// Where run directories and local machines go: file systems differ
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
    /// A python that has atex 1 (default: one is installed below the target directory, where that works)
    #[arg(long, env = "ATEX_PYTHON")]
    python: Option<PathBuf>,
    /// Instead of all that: memory and CPU time of a host with so many machines that wait for their tests
    #[arg(long)]
    waiting: Option<usize>,
    /// For how many seconds they are watched
    #[arg(long, default_value_t = 60)]
    watch: u64,
    /// Directory of a finished optimised build, instead of building one
    #[arg(long)]
    built: Option<PathBuf>,
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Directories of this box
    Local,
    /// SSH servers on this box, each with processes and `/var` of its own
    Ssh,
    /// Containers, by `podman exec`
    Podman,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Podman => "podman exec",
        }
    }
}

/// What one run cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// From the start of the first test to the last verdict, in milliseconds per test.
    test_ms: f64,
    /// The whole process, from its start to its end, in milliseconds per test.
    whole_ms: f64,
    /// CPU time of the process itself, in milliseconds per test.
    cpu_ms: f64,
    /// Most memory that it had, in MiB.
    peak_mib: f64,
}

impl Cost {
    /// The least of each figure.
    fn least(self, other: Self) -> Self {
        Self {
            test_ms: self.test_ms.min(other.test_ms),
            whole_ms: self.whole_ms.min(other.whole_ms),
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            peak_mib: self.peak_mib.min(other.peak_mib),
        }
    }
}

pub(super) fn bench(options: &Options) -> Result<()> {
    let built = match &options.built {
        Some(directory) => Built { directory: fs::canonicalize(directory).context("--built")? },
        None => build::build(Profile::Release)?,
    };
    let scratch = tempfile::Builder::new()
        .prefix("atex-bench-")
        .tempdir_in(&options.directory)
        .with_context(|| format!("cannot make a directory in {}", options.directory.display()))?;
    if let Some(machines) = options.waiting {
        return waiting::watch(&built, scratch.path(), &options.targets, machines, options.watch);
    }
    let tree = make_tree(scratch.path(), options.tests)?;
    let atex = atex::Atex::find(options.python.as_deref());
    if let Err(why) = &atex {
        eprintln!("atex is not here, so there is nothing to compare with: {why:#}");
    }
    let bench = Bench { options, built, tree, scratch: scratch.path(), atex: atex.ok() };
    title();
    for &target in &options.targets {
        bench.measure(target)?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    built: Built,
    tree: PathBuf,
    scratch: &'a Path,
    atex: Option<atex::Atex>,
}

impl Bench<'_> {
    /// Numbers of machines of one kind, one after the other.
    fn measure(&self, target: Target) -> Result<()> {
        let most = self.options.machines.iter().copied().max().unwrap_or(1);
        let machines = match machines::Machines::start(target, most) {
            Ok(machines) => machines,
            Err(why) => {
                eprintln!("{}: not on this box: {why:#}", target.name());
                return Ok(());
            }
        };
        for &number in &self.options.machines {
            let (mut ours, mut theirs): (Option<Cost>, Option<Cost>) = (None, None);
            for _ in 0..self.options.repeat.max(1) {
                let one = self.run(&machines, number)?;
                ours = Some(ours.map_or(one, |before| before.least(one)));
                let Some(atex) = self.atex.as_ref().filter(|_| target != Target::Podman) else { continue };
                let one = atex.run(&self.tree, self.scratch, &machines, number)?;
                theirs = Some(theirs.map_or(one, |before| before.least(one)));
            }
            show(target, number, ours, theirs);
        }
        Ok(())
    }

    fn run(&self, machines: &machines::Machines, number: usize) -> Result<Cost> {
        let place = tempfile::tempdir_in(self.scratch).context("cannot make a directory for a run")?;
        host::run(&self.built, &self.tree, place.path(), &machines.pool(number), self.options.tests)
    }
}

/// A tree whose tests differ in nothing but their names.
fn make_tree(scratch: &Path, tests: usize) -> Result<PathBuf> {
    use std::fmt::Write as _;
    let tree = scratch.join("tree");
    let mut nodes = String::from("test: 'true'\nduration: 5m\nframework: shell\n");
    for number in 1..=tests {
        let _infallible = write!(nodes, "/t{number:05}:\n    summary: number {number}\n");
    }
    fs::create_dir_all(tree.join(".fmf"))?;
    fs::write(tree.join(".fmf/version"), "1\n")?;
    fs::write(tree.join("tests.fmf"), nodes)?;
    Ok(tree)
}

#[expect(clippy::print_stdout, reason = "it is what a benchmark does")]
fn title() {
    headline("milliseconds per test");
    println!(
        "{:<12} {:>8} | {:>7} {:>7} {:>7} {:>8} | {:>7} {:>7} {:>7} {:>8} | {:>6} {:>6}",
        "", "", "test", "run", "CPU", "peak", "atex:", "run", "CPU", "peak", "ratio", "CPU"
    );
}

#[expect(clippy::print_stdout, reason = "it is what a benchmark does")]
fn show(target: Target, machines: usize, ours: Option<Cost>, theirs: Option<Cost>) {
    let figures = |cost: Cost| {
        format!(
            "{:>7.2} {:>7.2} {:>7.3} {:>4.0} MiB",
            cost.test_ms, cost.whole_ms, cost.cpu_ms, cost.peak_mib
        )
    };
    let nothing = || format!("{:>7} {:>7} {:>7} {:>8}", "-", "-", "-", "-");
    let ratio = ours.zip(theirs).map_or_else(
        || format!("{:>6} {:>6}", "-", "-"),
        |(ours, theirs)| {
            format!("{:>6.1} {:>6.1}", theirs.test_ms / ours.test_ms, theirs.cpu_ms / ours.cpu_ms)
        },
    );
    println!(
        "{:<12} {machines:>8} | {} | {} | {ratio}",
        target.name(),
        ours.map_or_else(nothing, figures),
        theirs.map_or_else(nothing, figures)
    );
}
