//! Prepare and finish phases of a plan, one after the other, in the driver of slot 0.

use std::time::Instant;

use super::packages;
use super::session::{Error, Interrupt, Result, Session, Tail};
use super::spec::{Action, Phase, Site};
use super::{ansible, environment};

/// How much of a failed script's output goes into the message.
const SHOWN: usize = 2000;

/// Runs phases until one fails; the error names it and shows the end of its output.
pub(crate) fn run(
    session: &mut Session,
    site: &Site,
    phases: &[Phase],
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let limit = Instant::now() + site.limits.phase_time;
    phases.iter().try_for_each(|phase| run_one(session, site, phase, limit, interrupt))
}

/// Like [`run`], but goes on after a failure, as long as the machine can be talked to; every failure is told.
pub(crate) fn run_all(
    session: &mut Session,
    site: &Site,
    phases: &[Phase],
    problems: &mut Vec<String>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let limit = Instant::now() + site.limits.phase_time;
    for phase in phases {
        match run_one(session, site, phase, limit, interrupt) {
            Err(Error::Failed(why)) => problems.push(why),
            other => other?,
        }
    }
    Ok(())
}

fn run_one(
    session: &mut Session,
    site: &Site,
    phase: &Phase,
    limit: Instant,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let name = &phase.name;
    match &phase.action {
        Action::Shell { scripts } => {
            for script in scripts {
                run_script(session, site, script, limit, interrupt).map_err(|e| in_phase(name, e))?;
            }
            Ok(())
        }
        Action::Install(packages) => {
            let script = packages::script(packages);
            run_script(session, site, &script, limit, interrupt).map_err(|e| in_phase(name, e))
        }
        Action::Ansible { playbooks, extra_args } => {
            ansible::run(session, playbooks, extra_args, limit, interrupt).map_err(|e| in_phase(name, e))
        }
    }
}

fn in_phase(name: &str, error: Error) -> Error {
    match error {
        Error::Failed(why) => Error::Failed(format!("{name}: {why}")),
        Error::TimedOut(_) => {
            Error::Failed(format!("{name}: not through within the time for phases (`phase-time`)"))
        }
        other => other,
    }
}

/// A script of the plan; its failure is an error.
pub(crate) fn run_script(
    session: &mut Session,
    site: &Site,
    script: &str,
    limit: Instant,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let mut tail = Tail::new(SHOWN);
    let code = |place: &_, id| environment::script_code(place, site, script, id);
    let place = session.place.clone();
    session.submit(0, |id| code(&place, id))?;
    let end = session.until_end_or_kill(0, limit, &mut tail, interrupt)?;
    if end.has("held") {
        session.renew(0, interrupt)?;
    }
    if end.status == 0 {
        Ok(())
    } else {
        Err(Error::Failed(format!("exit status {}{}", end.status, tail.shown())))
    }
}
