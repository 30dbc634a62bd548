//! Ending the run before its tests have: drain, cancel, let go, leave.

use super::Coordinator;
use crate::core::event::{Action, ExecutionId, Ruling, TestId};
use crate::core::machines::State;
use crate::core::runs::{At, Stage};
use crate::core::verdict::Cause;

/// That the run ends, how far that goes, and why.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    depth: Depth,
    /// The first cause: tests that wait got it.
    pub(super) cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// No test starts; those that run may finish.
    Drain,
    /// Those that run are cancelled and collected.
    Cancel,
    /// They are not waited for.
    LetGo,
    /// Nothing is waited for.
    Leave,
}

impl Ending {
    pub(super) fn leaves(&self) -> bool {
        self.depth == Depth::Leave
    }

    /// Nothing is waited for but the machines' return.
    pub(super) fn lets_go(&self) -> bool {
        self.depth >= Depth::LetGo
    }
}

impl Coordinator {
    /// No test starts any more; those that run may finish.
    pub(super) fn drain(&mut self, cause: &Cause) {
        self.deepen(Depth::Drain, cause);
    }

    /// Tests that run are cancelled.
    pub(super) fn cancel(&mut self, cause: &Cause) {
        if !self.deepen(Depth::Cancel, cause) {
            return;
        }
        let until = self.now.saturating_add(self.config.limits.cancel_time);
        for execution in self.executions() {
            let Some(active) = self.active.get_mut(&execution) else { continue };
            if !matches!(active.stage, Stage::Running) {
                continue;
            }
            active.stage = Stage::Cancelling(cause.clone());
            active.until = until;
            let lease = active.lease;
            self.arm(lease);
            self.out.push(Action::Cancel { execution });
        }
    }

    /// Tests that run are given up, machines released at once.
    pub(super) fn let_go(&mut self, cause: &Cause) {
        self.cancel(cause);
        if !self.deepen(Depth::LetGo, cause) {
            return;
        }
        for execution in self.executions() {
            match self.active.get(&execution).map(|active| &active.stage) {
                Some(Stage::Judging(_)) => self.judge(execution, Ruling::NONE),
                Some(Stage::Cancelling(cause)) => {
                    let cause = cause.clone();
                    self.close(execution, cause);
                }
                Some(Stage::Running) | None => {}
            }
        }
        for lease in self.leases.ids() {
            if self.is_asked_after(lease) {
                self.give_back(lease);
            }
            if matches!(self.leases.state(lease), State::Ready | State::Draining | State::SettingUp) {
                self.release(lease);
            }
        }
    }

    /// Everything gets its verdict; what is held is left to gc.
    pub(super) fn leave(&mut self, cause: &Cause) {
        self.let_go(cause);
        self.deepen(Depth::Leave, cause);
    }

    /// Goes to this depth, unless it was reached before.
    fn deepen(&mut self, depth: Depth, cause: &Cause) -> bool {
        let (first, deeper) = match &self.ending {
            None => (true, true),
            Some(ending) => (false, ending.depth < depth),
        };
        if deeper {
            let cause = self.ending.take().map_or_else(|| cause.clone(), |ending| ending.cause);
            self.ending = Some(Ending { depth, cause });
            self.unbalanced = true;
        }
        if first {
            self.give_up(0..self.tests.len() as TestId, cause);
        }
        deeper
    }

    /// Tests that wait do not run.
    pub(super) fn give_up(&mut self, tests: std::ops::Range<TestId>, cause: &Cause) {
        for test in tests {
            if self.at(test) == At::Queued {
                self.not_run(test, cause.clone());
            }
        }
    }

    /// Executions under way, in the order in which they began.
    fn executions(&self) -> Vec<ExecutionId> {
        let mut all: Vec<_> = self.active.keys().copied().collect();
        all.sort_unstable();
        all
    }
}
