//! A reporter, as the host calls it.

use std::fmt;

use super::{check_keys, parse};
use crate::abi::{RawEvent, ReporterBox};
use crate::convert::plain_result;
use crate::error::Result;
use crate::host::Host;
use crate::reporter::{Finished, MachineEvent, Promised, ReporterWants, RunEnded, RunStarted, TestEvent};

/// What a reporter is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum ReportEvent<'a> {
    /// The run begins.
    RunStarted(&'a RunStarted),
    /// Up to 1,024 of the run's tests.
    Promised(&'a [Promised]),
    /// Something happened to a machine.
    Machine(&'a MachineEvent),
    /// Something happened to a test.
    Test(&'a TestEvent),
    /// An execution ended.
    Finished(&'a Finished),
    /// The run is over.
    RunEnded(&'a RunEnded),
}

/// A reporter made by [`Root::reporter`](super::Root::reporter).
pub struct ReporterHandle {
    raw: ReporterBox,
    wants: ReporterWants,
}

impl fmt::Debug for ReporterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReporterHandle").field("wants", &self.wants).finish_non_exhaustive()
    }
}

impl ReporterHandle {
    pub(crate) fn new(raw: ReporterBox) -> Result<Self> {
        let answer = plain_result(raw.wants())?;
        let wants: ReporterWants = parse("what it wants", &answer)?;
        check_keys(&wants.metadata)?;
        Ok(Self { raw, wants })
    }

    /// What it wants to be told; asked when it was made.
    pub fn wants(&self) -> &ReporterWants {
        &self.wants
    }

    /// Tells it, unless it does not want to know.
    pub fn tell(&mut self, event: ReportEvent<'_>, host: &Host) -> Result<()> {
        let (code, json) = match event {
            ReportEvent::RunStarted(run) => (RawEvent::RUN_STARTED, serde_json::to_string(run)?),
            ReportEvent::Promised(tests) => (RawEvent::PROMISED, serde_json::to_string(tests)?),
            ReportEvent::Machine(_) if !self.wants.machines => return Ok(()),
            ReportEvent::Machine(event) => (RawEvent::MACHINE, serde_json::to_string(event)?),
            ReportEvent::Test(_) if !self.wants.tests => return Ok(()),
            ReportEvent::Test(event) => (RawEvent::TEST, serde_json::to_string(event)?),
            ReportEvent::Finished(finished) => (RawEvent::FINISHED, serde_json::to_string(finished)?),
            ReportEvent::RunEnded(end) => (RawEvent::RUN_ENDED, serde_json::to_string(end)?),
        };
        plain_result(self.raw.event(code, json.as_str().into(), host.raw()))
    }
}
