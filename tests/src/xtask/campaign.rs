//! `cargo xtask campaign`: what hosts that are killed leave behind, counted at the provider.

use std::{io::Write as _, num::NonZero, thread};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::{headline, packages};
use crate::{
    build::{self, Profile},
    campaign::{self, Cloud, Extent, Libvirt, Podman, Provider, Ssh, Weather},
};

/// What to run it against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Machines of a cloud that keeps an account of its own, with delays, refusals and lost answers
    Cloud,
    /// Containers
    Podman,
    /// A pool of machines with a real sshd
    Ssh,
    /// Clones of a virtual machine
    Libvirt,
    /// Runs that are resumed after each kill
    Resume,
}

impl Kind {
    fn trials(self) -> usize {
        match self {
            Self::Cloud => 2000,
            Self::Podman | Self::Ssh => 300,
            Self::Libvirt => 30,
            Self::Resume => 200,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Campaign {
    /// What to run it against
    kind: Kind,
    /// Hosts to be killed (default: as many as the documentation has figures for)
    #[arg(long)]
    trials: Option<usize>,
    /// What moments and faults depend on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Trials at a time (default: as many as there are processors)
    #[arg(long)]
    parallel: Option<NonZero<usize>>,
}

pub(super) fn campaign(wanted: &Campaign) -> Result<()> {
    packages::ensure(wanted.kind == Kind::Podman)?;
    build_unless_built()?;
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let parallel = wanted.parallel.map_or(processors, NonZero::get);
    let trials = wanted.trials.unwrap_or_else(|| wanted.kind.trials());
    let extent = Extent { trials, seed: wanted.seed, parallel, follow_up: true };
    headline(&format!("{trials} trials, seed {}, {parallel} at a time", wanted.seed));
    match wanted.kind {
        Kind::Cloud => crash(&Cloud::open(Weather::Rough, wanted.seed)?, extent),
        Kind::Podman => crash(&Podman::start()?, extent),
        Kind::Ssh => crash(&Ssh::start(parallel)?, extent),
        Kind::Libvirt => crash(&Libvirt::start(&campaign::kernel()?)?, extent),
        Kind::Resume => resume(&Cloud::open(Weather::Rough, wanted.seed)?, extent),
    }
}

/// Unless somebody says where a build is.
fn build_unless_built() -> Result<()> {
    if std::env::var_os(build::BUILT).is_none() {
        build::build(Profile::Dev)?;
    }
    Ok(())
}

fn crash(provider: &dyn Provider, extent: Extent) -> Result<()> {
    let figures = campaign::crash(provider, extent)?;
    writeln!(std::io::stdout(), "{}\n{figures}", provider.name())?;
    ensure!(figures.wrong.is_empty(), "{} things are wrong", figures.wrong.len());
    Ok(())
}

fn resume(provider: &dyn Provider, extent: Extent) -> Result<()> {
    let resumed = campaign::resume(provider, extent)?;
    writeln!(std::io::stdout(), "resume\n{resumed}")?;
    ensure!(resumed.wrong.is_empty(), "{} things are wrong", resumed.wrong.len());
    Ok(())
}
