//! The commands of `cargo xtask`.

mod bench;
mod campaign;
mod demo;
mod executor;
mod faults;
mod figures;
mod fmf_fuzz;
mod install;
mod packages;
mod selftest;
mod test;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own tool.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, shows and installs atex-host")]
pub struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything, run the bundled FMF tree over four local machines and check what comes out
    Demo {
        /// Where the run directory goes (default: a new one below target/demo)
        #[arg(long)]
        run_dir: Option<PathBuf>,
    },
    /// Formatting, lints, documentation and all quick tests; installs missing system packages where it can
    Test {
        /// Also what is slow: the project testing itself, packaging, random crashes
        #[arg(long)]
        all: bool,
        /// Also what starts virtual machines: libvirt and qemu are installed where that can be done, a kernel is fetched
        #[arg(long)]
        machines: bool,
    },
    /// Run the project's own FMF tree (the one at the root) with atex-host over local machines
    SelfTest,
    /// Break links, machines, servers and disks under running tests, and print how long it took until the host knew
    Faults {
        /// Silence in seconds after which a connection is dead, from 10 to 60
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(10..=60))]
        keepalive: u8,
    },
    /// What a test costs, beside atex; or, with --waiting N, what so many machines cost that wait
    Bench(bench::Options),
    /// Random FMF trees: compare what atex-host reads in them with what python fmf does ($FMF_PYTHON, else one is installed)
    FmfFuzz {
        /// What the trees depend on
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of trees without, with few and with many oddities each
        #[arg(long, default_value_t = 100)]
        count: usize,
        /// Use an optimised build: faster from some thousand trees on
        #[arg(long)]
        release: bool,
    },
    /// How good and how dear schedules are, as tables: by an optimised build, in virtual time
    Figures {
        /// Which tables [default: all]
        which: Vec<figures::Figures>,
    },
    /// Kill hosts at random moments, let them clean up or resume, and count what is left, lost or wrong
    Campaign(campaign::Campaign),
    /// Run the executor's cases (tests/executor) on machines of yours, in both dialects, and compare what comes of them
    Executor {
        /// Arguments for atex-host (default: four machines of this box)
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Build for release and install program, plugins, manual pages, completions and the plugin-api crate
    Install {
        /// Root of the installation, e.g. /usr/local
        #[arg(long)]
        prefix: PathBuf,
    },
}

/// Runs one command.
pub fn run(xtask: Xtask) -> Result<()> {
    match xtask.command {
        Command::Demo { run_dir } => demo::demo(run_dir.as_deref()),
        Command::Test { all, machines } => test::test(all, machines),
        Command::Bench(options) => bench::bench(&options),
        Command::SelfTest => selftest::selftest(),
        Command::Faults { keepalive } => faults::faults(keepalive),
        Command::FmfFuzz { seed, count, release } => fmf_fuzz::fmf_fuzz(seed, count, release),
        Command::Figures { which } => figures::figures(&which),
        Command::Executor { args } => executor::executor(&args),
        Command::Campaign(wanted) => campaign::campaign(&wanted),
        Command::Install { prefix } => install::install(&prefix),
    }
}

/// A headline on standard error, so that a long run can be found one's way in.
fn headline(text: &str) {
    eprintln!("\n== {text}");
}
