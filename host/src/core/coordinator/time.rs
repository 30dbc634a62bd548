//! What happens because nothing else did: deadlines.

use super::Coordinator;
use crate::core::event::{ChainId, ExecutionId, LeaseId, Ms, Note, Refusal, Trouble};
use crate::core::machines::{Probe, State};
use crate::core::runs::Stage;
use crate::core::timers::{Open, Timer};
use crate::core::verdict::Cause;

impl Coordinator {
    /// When a lease needs attention, if nothing happens before.
    pub(super) fn due(&self, lease: LeaseId) -> Ms {
        let Some(it) = self.leases.get(lease) else { return Ms::MAX };
        match it.state {
            State::SettingUp | State::Releasing => it.deadline.min(Self::lifetime_due(it)),
            State::Ready | State::Draining => {
                let runs = it.running.iter().filter_map(|run| self.active.get(&run.execution));
                runs.map(|active| active.until).min().unwrap_or(Ms::MAX).min(Self::lifetime_due(it))
            }
            State::Reserving | State::Aborting | State::Uncertain | State::Gone => it.deadline,
        }
    }

    /// Deals with everything that is due.
    pub(super) fn expire(&mut self) {
        while let Some((at, timer)) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Lease(lease) => self.lease_timer(lease, at),
                // Balancing looks at the time.
                Timer::Pool(_) => self.unbalanced = true,
                // Every event settles what can be settled.
                Timer::Rest => {}
                Timer::Policy(chain, policy) => self.policy_timer(chain, policy, at),
                Timer::Run => self.cancel(&Cause::RunTimeLimit),
            }
        }
        while let Some((at, question)) = self.timers.oldest() {
            let open = self.is_open(question);
            if open && at > self.now {
                break;
            }
            self.timers.forget_oldest();
            if open {
                self.unanswered(question);
            }
        }
    }

    fn is_open(&self, question: Open) -> bool {
        match question {
            Open::Ask(lease, ask) => self.leases.get(lease).is_some_and(|it| it.ask == Some(ask)),
            Open::Judge(execution) => {
                self.active.get(&execution).is_some_and(|active| matches!(active.stage, Stage::Judging(_)))
            }
            Open::Rank(ask) => self.lanes.pending.contains_key(&ask),
        }
    }

    fn policy_timer(&mut self, chain: ChainId, policy: u16, at: Ms) {
        let now = self.now;
        let Some((wanted, armed)) = self.chain_mut(chain).wakes.get_mut(usize::from(policy)) else { return };
        if *armed != at {
            return;
        }
        *armed = Ms::MAX;
        match *wanted {
            Some(due) if due > now => {
                *armed = due;
                self.timers.set(due, Timer::Policy(chain, policy));
            }
            Some(_) => {
                *wanted = None;
                self.note(chain, Note::Time { policy });
            }
            None => {}
        }
    }

    fn lease_timer(&mut self, lease: LeaseId, at: Ms) {
        let Some(it) = self.leases.get_mut(lease).filter(|it| it.armed == at) else { return };
        it.armed = Ms::MAX;
        if self.due(lease) <= self.now {
            self.lease_due(lease);
        }
        self.arm(lease);
    }

    fn lease_due(&mut self, lease: LeaseId) {
        let Some(it) = self.leases.get_mut(lease) else { return };
        let (pool, asked, setup) = (it.pool, it.since, it.setup);
        match it.state {
            State::Reserving => {
                self.refused(pool, Refusal::Failed, asked);
                self.release(lease);
            }
            State::Aborting => {
                self.pools[usize::from(pool)].reserving -= 1;
                self.doubt(lease);
            }
            State::SettingUp if it.deadline <= self.now => self.setup_failed(lease, setup, false),
            State::SettingUp => self.lifetime_is_due(lease),
            State::Releasing if it.probe != Probe::None => self.probed(lease, None),
            State::Releasing if it.pausing => self.give_back(lease),
            State::Releasing => self.release_overdue(lease),
            State::Uncertain => {
                it.deadline = Ms::MAX;
                self.pools[usize::from(pool)].stuck += u32::from(self.leases.stick(lease));
                self.unbalanced = true;
            }
            State::Gone => it.deadline = Ms::MAX,
            State::Ready | State::Draining => self.working_lease_due(lease),
        }
    }

    /// `release` did not come back: it is called again, as often as it may fail.
    fn release_overdue(&mut self, lease: LeaseId) {
        let most = self.config.limits.release_tries;
        let Some(it) = self.leases.get_mut(lease) else { return };
        it.tries += 1;
        if it.tries >= most {
            self.doubt(lease);
        } else {
            self.give_back(lease);
        }
    }

    fn working_lease_due(&mut self, lease: LeaseId) {
        self.lifetime_is_due(lease);
        let Some(it) = self.leases.get(lease) else { return };
        let overdue: Vec<ExecutionId> = it.running.iter().map(|run| run.execution).collect();
        for execution in overdue {
            let Some(active) = self.active.get(&execution).filter(|active| active.until <= self.now) else {
                continue;
            };
            match &active.stage {
                // The executor keeps the limit. No word long after it: the machine is gone.
                Stage::Running => {
                    self.trouble(Trouble::MachineSilent { lease });
                    self.lost(lease);
                    return;
                }
                Stage::Cancelling(cause) => {
                    let cause = cause.clone();
                    self.close(execution, cause);
                    self.retire(lease);
                }
                Stage::Judging(_) => {}
            }
        }
    }
}
