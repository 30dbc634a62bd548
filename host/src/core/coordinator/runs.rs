//! Executions, from their end to the verdict, and what waits.

use std::sync::Arc;

use super::Coordinator;
use crate::core::event::{
    Action, ExecutionId, FinishedRun, LeaseId, Ms, Note, Outcome, Ruling, TestId, Trouble,
};
use crate::core::runs::{Active, At, Stage};
use crate::core::timers::Open;
use crate::core::verdict::{Cause, Judged, Verdict};

impl Coordinator {
    pub(super) fn finished(&mut self, execution: ExecutionId, outcome: Outcome, exit: i32, status: Arc<str>) {
        let Some(active) = self.active.get_mut(&execution) else { return };
        let cancelled = matches!(active.stage, Stage::Cancelling(_));
        if matches!(active.stage, Stage::Judging(_)) {
            return;
        }
        let (test, lease) = (active.test, active.lease);
        let run = FinishedRun {
            now: self.now,
            test,
            machine: lease,
            attempt: self.tests.get(test as usize).map_or(0, |test| test.attempt),
            outcome,
            exit,
            wall: self.now.saturating_sub(active.started),
            status,
        };
        active.until = Ms::MAX;
        active.stage = Stage::Judging(Box::new(run.clone()));
        let chain = self.chain_of(self.platform_of(test));
        let state = self.chain(chain);
        if cancelled || !state.judges || state.silent {
            self.judge(execution, Ruling::NONE);
            return;
        }
        self.timers.ask(self.now.saturating_add(self.config.limits.answer_time), Open::Judge(execution));
        self.out.push(Action::Judge { chain, execution, run: Box::new(run) });
    }

    pub(super) fn judged_by_policies(&mut self, execution: ExecutionId, ruling: Ruling) {
        let Some(active) = self.active.get(&execution) else { return };
        let platform = self.platform_of(active.test);
        self.answered(platform);
        self.judge(execution, ruling);
    }

    /// A run that ended is judged: run again, or the verdict.
    pub(super) fn judge(&mut self, execution: ExecutionId, ruling: Ruling) {
        if !self.active.get(&execution).is_some_and(|active| matches!(active.stage, Stage::Judging(_))) {
            return;
        }
        let Some(active) = self.end(execution) else { return };
        let (test, lease) = (active.test, active.lease);
        let Stage::Judging(run) = active.stage else { return };
        let outcome = run.outcome;
        self.runs += 1;
        self.passes += u64::from(outcome == Outcome::Passed);
        self.wear(lease, test, outcome, ruling.spoilt);
        let attempts = run.attempt.saturating_add(1);
        let wanted = ruling.rerun == Some(true) && attempts < self.config.limits.max_attempts;
        let again = wanted && ruling.stop.is_none() && self.is_open_for_work();
        let judged = Judged { execution, outcome };
        if let Some(entry) = self.tests.get_mut(test as usize) {
            (entry.attempt, entry.last_machine) = (attempts, lease);
        }
        let chain = self.chain_of(self.platform_of(test));
        self.note(chain, Note::Finished { run, last: !again });
        if let Some(policy) = ruling.stop {
            let (name, reason) = (self.chain(chain).name(policy), "that is how it judged a run".to_owned());
            self.drain(&Cause::PolicyStopped { policy, name, reason });
        }
        if again {
            self.judged.insert(test, judged);
            self.enqueue(test);
        } else {
            let cause = self.ending.as_ref().filter(|_| wanted).map(|ending| ending.cause.clone());
            let verdict = cause.map_or(Verdict::Ran(judged), |cause| Verdict::Unfinished(judged, cause));
            self.verdict(test, verdict);
        }
        self.offer(lease);
    }

    /// What a run does to its machine.
    fn wear(&mut self, lease: LeaseId, test: TestId, outcome: Outcome, spoilt: Option<bool>) {
        let most = self.config.limits.fails_in_a_row;
        let (runs, passes) = (self.runs, self.passes);
        let Some(it) = self.leases.get_mut(lease) else { return };
        let passed = outcome == Outcome::Passed;
        (it.ran, it.last, it.last_ok) = (it.ran + 1, test, passed);
        it.fails = if passed { 0 } else { it.fails + 1 };
        let ended_by_host = !matches!(outcome, Outcome::Passed | Outcome::Failed);
        let isolate = self.config.pools.get(usize::from(it.pool)).is_some_and(|pool| pool.isolate);
        it.spoilt |= spoilt.unwrap_or(ended_by_host) || isolate;
        // Put aside only if most tests pass elsewhere: a suite that fails everywhere is not the machine's fault.
        let elsewhere = runs - u64::from(it.fails);
        if most > 0 && it.fails >= most && passes * 2 > elsewhere && !it.spoilt {
            it.spoilt = true;
            self.trouble(Trouble::MachinePutAside { lease });
        }
    }

    pub(super) fn cancelled(&mut self, execution: ExecutionId) {
        let Some(active) = self.active.get(&execution) else { return };
        match &active.stage {
            Stage::Cancelling(cause) => {
                let (cause, lease) = (cause.clone(), active.lease);
                self.close(execution, cause);
                self.offer(lease);
            }
            // Nobody asked for it: the run is lost.
            Stage::Running => self.run_lost(execution),
            Stage::Judging(_) => {}
        }
    }

    pub(super) fn run_lost(&mut self, execution: ExecutionId) {
        let Some(active) = self.active.get(&execution) else { return };
        if matches!(active.stage, Stage::Judging(_)) {
            return;
        }
        let lease = active.lease;
        self.execution_lost(execution);
        if let Some(it) = self.leases.get_mut(lease) {
            it.lost = true;
        }
        self.retire(lease);
    }

    /// No further test on this machine.
    pub(super) fn retire(&mut self, lease: LeaseId) {
        if let Some(it) = self.leases.get_mut(lease) {
            it.spoilt = true;
        }
        self.offer(lease);
    }

    /// An execution went down with its machine: the test runs again, unless that happened too often.
    pub(super) fn execution_lost(&mut self, execution: ExecutionId) {
        let Some(active) = self.active.get(&execution) else { return };
        let test = active.test;
        match &active.stage {
            Stage::Cancelling(cause) => {
                let cause = cause.clone();
                self.close(execution, cause);
            }
            // It had ended before: only what the policies make of it is missing.
            Stage::Judging(_) => {}
            Stage::Running => {
                self.end(execution);
                let most = self.config.limits.lost_machine_reruns;
                let Some(entry) = self.tests.get_mut(test as usize) else { return };
                entry.lost = entry.lost.saturating_add(1);
                if entry.lost > most || self.ending.is_some() {
                    self.not_run(test, Cause::MachineLost);
                } else {
                    self.enqueue(test);
                }
            }
        }
    }

    pub(super) fn extended(&mut self, execution: ExecutionId, until: Option<Ms>) {
        let grace = self.config.limits.grace;
        let Some(active) = self.active.get_mut(&execution) else { return };
        if !matches!(active.stage, Stage::Running) {
            return;
        }
        active.until = until.map_or(Ms::MAX, |until| until.saturating_add(grace));
        let lease = active.lease;
        self.arm(lease);
    }

    /// Takes an execution off its machine and out of the books. Its test is for the caller.
    pub(super) fn end(&mut self, execution: ExecutionId) -> Option<Active> {
        let active = self.active.remove(&execution)?;
        let test = self.tests.get(active.test as usize)?;
        let (platform, ends) = (test.platform, u128::from(active.started) + u128::from(test.estimate));
        let state = self.platform_mut(platform);
        state.running -= 1;
        state.running_ends -= ends;
        if let Some(it) = self.leases.get_mut(active.lease) {
            it.vacate(execution);
        }
        Some(active)
    }

    /// Ends an execution that is not judged.
    pub(super) fn close(&mut self, execution: ExecutionId, cause: Cause) {
        if let Some(active) = self.end(execution) {
            self.not_run(active.test, cause);
        }
    }

    /// A test does not run, or not again.
    pub(super) fn not_run(&mut self, test: TestId, cause: Cause) {
        let verdict = match self.judged.get(&test) {
            Some(&judged) => Verdict::Unfinished(judged, cause),
            None => Verdict::NotRun(cause),
        };
        self.verdict(test, verdict);
    }

    /// The one place where a test gets its verdict.
    pub(super) fn verdict(&mut self, test: TestId, verdict: Verdict) {
        match self.at(test) {
            At::Done => return,
            At::Queued => self.dequeue(test),
            At::Active => {}
        }
        if let Some(entry) = self.tests.get_mut(test as usize) {
            entry.at = At::Done;
        }
        self.judged.remove(&test);
        self.open -= 1;
        self.unbalanced |= self.open == 0;
        let failed = verdict.failed();
        self.failed += u32::from(failed);
        self.out.push(Action::Verdict { test, verdict });
        if failed && self.config.max_fail.is_some_and(|most| self.failed >= most.max(1)) {
            self.drain(&Cause::MaxFail);
        }
    }

    /// Puts a test in line, and asks for its ranks.
    pub(super) fn enqueue(&mut self, test: TestId) {
        let platform = self.platform_of(test);
        if let Some(entry) = self.tests.get_mut(test as usize) {
            entry.at = At::Queued;
        }
        if let Some(ticket) = self.tickets.get_mut(test as usize) {
            ticket.generation += 1;
            ticket.sequence = self.next_sequence;
            self.next_sequence = self.next_sequence.saturating_add(1);
        }
        self.count_queued(test);
        self.unbalanced = true;
        // A pool whose machines nothing was fit for may be fit for this one.
        let most = self.config.limits.fruitless;
        for pool in &mut self.pools {
            if pool.fruitless(platform) > most {
                pool.set_fruitless(platform, most);
            }
        }
        self.rank(test);
    }

    pub(super) fn count_queued(&mut self, test: TestId) {
        if let Some(ticket) = self.tickets.get_mut(test as usize) {
            ticket.queued = true;
        }
        let platform = self.platform_of(test);
        let claim = u64::from(self.claim(test, self.platform(platform).slots));
        let estimate = self.tests.get(test as usize).map_or(0, |test| test.estimate);
        let state = self.platform_mut(platform);
        state.queued += 1;
        state.queued_slots += claim;
        state.work = state.work.saturating_add(estimate);
    }

    /// Takes a test out of line; lanes notice by themselves.
    pub(super) fn dequeue(&mut self, test: TestId) {
        let Some(ticket) = self.tickets.get_mut(test as usize) else { return };
        if !std::mem::replace(&mut ticket.queued, false) {
            return;
        }
        let platform = self.platform_of(test);
        let claim = u64::from(self.claim(test, self.platform(platform).slots));
        let estimate = self.tests.get(test as usize).map_or(0, |test| test.estimate);
        let state = self.platform_mut(platform);
        state.queued -= 1;
        state.queued_slots -= claim;
        state.work = state.work.saturating_sub(estimate);
        let excess =
            state.queued == 0 || (state.pending_slots > state.queued_slots && !state.pending.is_empty());
        let waiting = if state.claims.is_empty() { None } else { state.claims.remove(&test) };
        self.unbalanced |= excess;
        if let Some(lease) = waiting {
            if let Some(it) = self.leases.get_mut(lease) {
                it.waits_for = None;
            }
            self.to_offer.push(lease);
        }
    }
}
