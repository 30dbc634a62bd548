//! When something is due: one heap for machines, pools, policies and the run, and a queue for questions to policies.
//!
//! A machine and a policy have at most one timer that counts. It is set when it would be earlier than the one already set;
//! when one fires that is not due, it is set anew. So a million runs with a limit of a day leave no million timers behind.
//! All questions may be open for the same time, so their deadlines come in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::event::{AskId, ChainId, ExecutionId, LeaseId, Ms, PoolId};

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Lease(LeaseId),
    Pool(PoolId),
    Policy(ChainId, u16),
    /// What one event was not enough for.
    Rest,
    Run,
}

/// A question to policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    Ask(LeaseId, AskId),
    Judge(ExecutionId),
    Rank(AskId),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Ms, Timer)>>,
    questions: VecDeque<(Ms, Open)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Ms, timer: Timer) {
        if at != Ms::MAX {
            self.heap.push(Reverse((at, timer)));
        }
    }

    pub(crate) fn ask(&mut self, at: Ms, question: Open) {
        self.questions.push_back((at, question));
    }

    /// The next timer that is due.
    pub(crate) fn pop_due(&mut self, now: Ms) -> Option<(Ms, Timer)> {
        let due = self.heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        due.then(|| self.heap.pop()).flatten().map(|Reverse(timer)| timer)
    }

    /// The oldest question and its deadline.
    pub(crate) fn oldest(&self) -> Option<(Ms, Open)> {
        self.questions.front().copied()
    }

    /// Forgets the oldest question.
    pub(crate) fn forget_oldest(&mut self) {
        self.questions.pop_front();
    }

    pub(crate) fn next(&self) -> Option<Ms> {
        let timer = self.heap.peek().map(|Reverse((at, _))| *at);
        let question = self.questions.front().map(|(at, _)| *at);
        match (timer, question) {
            (Some(timer), Some(question)) => Some(timer.min(question)),
            (timer, question) => timer.or(question),
        }
    }
}
