//! `discover`, `show`, `requires`: what is in a tree, without opening a plugin or asking for a machine.

use std::io::{self, Write as _};

use crate::{
    cli::{self, Format},
    config::{ExitStatus, RunPlan},
    store::StateDir,
};

use super::{Error, Terminal, select};

/// What is to be shown of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Names,
    Metadata,
    Packages,
}

pub(super) fn list(plan: &RunPlan, what: What, terminal: &Terminal) -> Result<ExitStatus, Error> {
    terminal.mask(&plan.secrets);
    let state = StateDir::from_environment().map_err(Error::State)?;
    let (_, discovered) = select::discover(plan, &state)?;
    for warning in discovered.iter().flat_map(|found| &found.warnings) {
        tracing::warn!("{warning}");
    }
    let platforms: Vec<cli::discover::Platform<'_>> =
        plan.platforms.iter().map(|platform| platform.name.as_str()).zip(&discovered).collect();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match (what, terminal.output().format) {
        (What::Names, Format::Human) => cli::discover::text(&mut out, &platforms),
        (What::Names, Format::Json) => cli::discover::json(&mut out, &platforms),
        (What::Metadata, Format::Human) => cli::show::text(&mut out, &platforms),
        (What::Metadata, Format::Json) => cli::show::json(&mut out, &platforms),
        (What::Packages, Format::Human) => cli::requires::text(&mut out, &platforms),
        (What::Packages, Format::Json) => cli::requires::json(&mut out, &platforms),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)?;
    let tests = discovered.iter().flat_map(|found| &found.plans).map(|plan| plan.tests.len()).sum::<usize>();
    if tests == 0 && !plan.allow.empty { Err(Error::NoTests) } else { Ok(ExitStatus::Passed) }
}
