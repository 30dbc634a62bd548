//! What the exit status of `atex-host` means, for all commands.

/// The status with which the process ends. Where several apply, the highest does: see [`ExitStatus::worst`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitStatus {
    /// Every verdict is pass, info, skip or warn (with `--strict`, warn is a failure). Other commands: nothing to complain of.
    Passed = 0,
    /// A test failed: fail, error, any word of its own, its time limit, a protocol error. `plugins check`: a finding.
    Failed = 1,
    /// Wrong use or configuration, or no test selected; nothing was reserved.
    WrongUse = 2,
    /// A test has no verdict of its own: its machine was lost, its setup failed, it never ran for lack of a machine.
    NoVerdict = 3,
    /// Stopped by a signal, a limit or fail-fast before all tests had run.
    Stopped = 4,
    /// A machine may still be held; `atex-host gc` says which.
    MachineHeld = 5,
    /// The host itself or a reporter failed; results may be incomplete.
    HostFailed = 6,
}

impl ExitStatus {
    /// All, lowest first.
    pub const ALL: [Self; 7] = [
        Self::Passed,
        Self::Failed,
        Self::WrongUse,
        Self::NoVerdict,
        Self::Stopped,
        Self::MachineHeld,
        Self::HostFailed,
    ];

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The one that counts of two.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }

    /// One line for help texts and manuals.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Passed => "every test passed, or was skipped or only informed or warned",
            Self::Failed => "a test failed",
            Self::WrongUse => "wrong use or configuration, or no test selected; nothing was reserved",
            Self::NoVerdict => "a test has no verdict of its own: no machine, machine lost, or setup failed",
            Self::Stopped => "stopped by a signal or a limit before all tests had run",
            Self::MachineHeld => "a machine may still be held; `atex-host gc` says which",
            Self::HostFailed => "the host itself or a reporter failed; results may be incomplete",
        }
    }
}

/// The worst of many; [`ExitStatus::Passed`] of none.
impl FromIterator<ExitStatus> for ExitStatus {
    fn from_iter<I: IntoIterator<Item = ExitStatus>>(statuses: I) -> Self {
        statuses.into_iter().fold(Self::Passed, Self::worst)
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_a_contract() {
        let codes: Vec<_> = ExitStatus::ALL.iter().map(|status| status.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_highest_counts() {
        assert_eq!(ExitStatus::Failed.worst(ExitStatus::NoVerdict), ExitStatus::NoVerdict);
        assert_eq!([].into_iter().collect::<ExitStatus>(), ExitStatus::Passed);
        let all = [ExitStatus::Stopped, ExitStatus::Failed, ExitStatus::MachineHeld, ExitStatus::Passed];
        assert_eq!(all.into_iter().collect::<ExitStatus>(), ExitStatus::MachineHeld);
    }
}
