//! How the run went, as numbers and as an exit status.

use crate::{
    config::exit::ExitStatus,
    store::{self, Class},
};

/// Counts verdicts and what else the exit status says.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    tests: usize,
    strict: bool,
    passed: u64,
    warned: u64,
    failed: u64,
    infra: u64,
    stopped: u64,
    cause: Option<String>,
    uncertain: u32,
    held: usize,
    host_failed: bool,
    reporters_failed: bool,
}

impl Tally {
    pub(crate) fn new(tests: usize, strict: bool) -> Self {
        Self {
            tests,
            strict,
            passed: 0,
            warned: 0,
            failed: 0,
            infra: 0,
            stopped: 0,
            cause: None,
            uncertain: 0,
            held: 0,
            host_failed: false,
            reporters_failed: false,
        }
    }

    pub(super) fn count(&mut self, class: Class) {
        *match class {
            Class::Passed => &mut self.passed,
            Class::Warned => &mut self.warned,
            Class::Failed => &mut self.failed,
            Class::Infra => &mut self.infra,
            Class::Stopped => &mut self.stopped,
        } += 1;
    }

    /// Remembers why the run ended early; the first cause counts.
    pub(super) fn stopped_by(&mut self, cause: String) {
        self.cause.get_or_insert(cause);
    }
    pub(super) fn left_uncertain(&mut self, leases: u32) {
        self.uncertain = leases;
    }
    pub(super) fn still_held(&mut self, leases: usize) {
        self.held = leases;
    }
    /// Results may be incomplete.
    pub(super) fn host_failed(&mut self) {
        self.host_failed = true;
    }
    /// A reporter has not told everything.
    pub(super) fn reporter_failed(&mut self) {
        (self.host_failed, self.reporters_failed) = (true, true);
    }
    /// Whether any has not.
    pub(crate) fn reporters_failed(&self) -> bool {
        self.reporters_failed
    }

    /// For the journal's last record.
    pub(super) fn ended(&self) -> store::Ended {
        store::Ended {
            passed: self.passed + self.warned,
            failed: self.failed,
            infra: self.infra + self.stopped,
            exit: self.exit().code(),
            cause: self.cause.clone(),
            uncertain: self.uncertain,
        }
    }

    /// The highest status that applies.
    pub(crate) fn exit(&self) -> ExitStatus {
        let verdicts = self.passed + self.warned + self.failed + self.infra + self.stopped;
        let applies = [
            (self.failed > 0 || self.strict && self.warned > 0, ExitStatus::Failed),
            (self.infra > 0 || verdicts < self.tests as u64, ExitStatus::NoVerdict),
            (self.stopped > 0, ExitStatus::Stopped),
            (self.uncertain > 0 || self.held > 0, ExitStatus::MachineHeld),
            (self.host_failed, ExitStatus::HostFailed),
        ];
        applies.into_iter().filter(|(applies, _)| *applies).map(|(_, status)| status).collect()
    }
}
