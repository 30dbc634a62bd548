//! What machines and provisioners say, as events of the coordinator.

use std::{sync::Arc, time::Duration};

use atex_plugin_api::{Machine as Loan, policy::Outcome};

use crate::{
    core::{
        event::{Event, LeaseId, Ms, Refusal, Shutdown},
        verdict::Cause,
    },
    executor::spec::{Ended, Facts, Order, Report, RunReport},
    store::{Class, Execution, How, MachineChange, What},
};

use super::{
    Engine,
    calls::Failure,
    input::Returned,
    machines::{Link, doubt, misfit},
    unix_ms,
};

impl Engine {
    pub(super) fn on_report(&mut self, number: LeaseId, report: Report) {
        match report {
            Report::Connected { facts } => self.on_connected(number, facts),
            Report::Ready => {
                self.tell_machine(number, MachineChange::Ready, None);
                if let Some(machine) = self.machines.get(&number) {
                    let setup = machine.setup;
                    self.feed(Event::SetUp { lease: number, setup });
                }
            }
            Report::SetupFailed { error } => self.on_setup_failed(number, &error, false),
            // Registered when it was ordered, and in the artifacts.
            Report::Started { .. } | Report::ResultLine { .. } => {}
            Report::Deadline { execution, until } => {
                let until = until.map(|at| ms(at.saturating_duration_since(self.began)));
                self.feed(Event::Extended { execution, until });
            }
            Report::Away => self.on_away(number, true),
            Report::Back => self.on_away(number, false),
            Report::Reset => self.reset(number),
            Report::Label { key, value, .. } => {
                self.feed(Event::Label { lease: number, key: Arc::from(key), value: Arc::from(value) });
            }
            Report::Finished(report) => self.on_finished(&report),
            Report::Lost { reason } => self.on_lost(number, &reason),
            Report::HandedBack { problems } => self.on_handed_back(number, &problems),
        }
    }

    /// Its own facts win over those that the plugin told.
    fn on_connected(&mut self, number: LeaseId, facts: Facts) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let mut all = machine.loan.as_ref().map(|loan| loan.facts.clone()).unwrap_or_default();
        all.extend(facts);
        machine.facts = all;
        let site = match std::mem::replace(&mut machine.worker, Link::None) {
            Link::Connecting(worker, site) => {
                machine.worker = Link::Up(worker);
                site
            }
            other => {
                machine.worker = other;
                return;
            }
        };
        let facts = Arc::new(machine.facts.clone());
        let require = &self.job.platforms[usize::from(machine.platform)].require;
        if let Some(misfit) = misfit(require, &facts) {
            self.on_setup_failed(number, &format!("it does not fit its platform: {misfit}"), false);
            return;
        }
        let platform = &self.job.platforms[usize::from(machine.platform)];
        let doubt = doubt(&platform.context, require, &facts)
            .map(|doubt| format!("machine {number} ({}): {doubt}; `require` would make sure", machine.id()));
        if let Link::Up(worker) = &machine.worker {
            worker.send(Order::Setup(site));
        }
        if let Some(doubt) = doubt {
            self.warn(doubt);
        }
        self.feed(Event::Identified { lease: number, facts });
    }

    fn on_setup_failed(&mut self, number: LeaseId, error: &str, lost: bool) {
        let Some(machine) = self.machines.get(&number) else { return };
        let setup = machine.setup;
        tracing::warn!("machine {number} ({}): set-up failed: {error}", machine.id());
        self.tell_machine(number, MachineChange::SetupFailed, Some(error.to_owned()));
        self.feed(Event::SetupFailed { lease: number, setup, lost });
    }

    fn on_lost(&mut self, number: LeaseId, reason: &str) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        match std::mem::replace(&mut machine.worker, Link::None) {
            // Nobody got to it at all.
            Link::Connecting(..) => {
                self.on_setup_failed(number, &format!("it cannot be reached: {reason}"), true);
            }
            Link::HandingBack(_) => {
                machine.spoilt = true;
                tracing::warn!(
                    "machine {number} ({}): lost while it was handed back: {reason}",
                    machine.id()
                );
                self.call_release(number);
            }
            Link::Up(_) => {
                tracing::warn!("machine {number} ({}): lost: {reason}", machine.id());
                self.tell_machine(number, MachineChange::Lost, Some(reason.to_owned()));
                self.feed(Event::Lost { lease: number });
            }
            Link::None => {}
        }
    }

    fn on_away(&mut self, number: LeaseId, away: bool) {
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.away = away;
        }
        let lease = number;
        self.feed(if away { Event::Away { lease } } else { Event::Back { lease } });
    }

    fn on_handed_back(&mut self, number: LeaseId, problems: &[String]) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let id = machine.id().to_owned();
        let expected = matches!(machine.worker, Link::HandingBack(_));
        machine.spoilt |= !problems.is_empty();
        if expected {
            machine.worker = Link::None;
        }
        for problem in problems {
            self.warn(format!("machine {number} ({id}): {problem}"));
        }
        if expected {
            self.call_release(number);
        }
    }

    fn on_finished(&mut self, report: &RunReport) {
        let execution = report.execution;
        let Some(running) = self.executions.remove(&execution) else { return };
        let record = self.record_of(report, running);
        let class = record.class();
        self.classes.insert(execution, class);
        self.chronicle.tell(What::Finished(Box::new(record)));
        self.feed(event_of(report, class));
        if let Ended::Host(why) = &report.ended {
            self.tally.host_failed();
            self.warn(format!("execution {execution}: the host could not go on: {why}"));
        }
        if report.ended == Ended::Aborted {
            let name = &self.job.tests[running.test as usize].name;
            let cause = Cause::TestAborted { test: running.test, name: Arc::from(name.as_str()) };
            self.warn(cause.to_string());
            self.feed(Event::Stop { level: Shutdown::Finish, cause });
        }
    }

    fn record_of(&self, report: &RunReport, running: super::Running) -> Execution {
        let relative =
            |path: &std::path::Path| path.strip_prefix(&self.job.directory).unwrap_or(path).to_owned();
        let published = report.artifacts.as_ref();
        Execution {
            execution: report.execution,
            test: running.test,
            lease: running.lease,
            attempt: running.attempt,
            how: how(&report.ended),
            exit: report.ended.exit(),
            status: report.status.clone(),
            note: report.note.clone(),
            started: report.started_ms,
            finished: report.ended_ms,
            duration: report.duration_ms,
            results: report.results,
            artifacts: published.map(|published| relative(&published.directory)),
            bytes: published.map_or(0, |published| published.bytes),
            digest: published.map(|published| published.digest.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn on_returned(&mut self, number: LeaseId, returned: Returned) {
        match returned {
            Returned::Reserve(Ok(loan)) => self.on_reserved(number, *loan),
            Returned::Reserve(Err(failure)) => self.on_reserve_failed(number, &failure),
            Returned::Release(Ok(())) => self.on_gone(number, Event::Released { lease: number }),
            Returned::Release(Err(failure)) => {
                self.warn(format!("{}: {failure}", self.called(number)));
                self.tell_machine(number, MachineChange::ReleaseFailed, Some(failure.to_string()));
                self.feed(Event::ReleaseFailed { lease: number });
            }
            Returned::Abort(Ok(())) => {}
            Returned::Abort(Err(failure)) => tracing::warn!("{}: {failure}", self.called(number)),
            Returned::Renew(Ok(expires)) => {
                let expires = expires.map(|at| self.ms_of(at));
                self.feed(Event::Renewed { lease: number, expires });
            }
            Returned::Renew(Err(failure)) => {
                self.warn(format!("{}: {failure}", self.called(number)));
                self.feed(Event::RenewFailed { lease: number, again: failure.is_retryable() });
            }
            Returned::Alive(told) => self.on_probed(number, told),
            Returned::Reboot(told) => self.on_reset(number, told),
            Returned::Confirm(true) => self.on_gone(number, Event::Absent { lease: number }),
            Returned::Confirm(false) => {
                tracing::warn!(
                    "machine {number}: its absence could not be confirmed; `atex-host gc` looks again"
                );
            }
        }
    }

    fn on_reserved(&mut self, number: LeaseId, loan: Loan) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let expires = loan.expires;
        machine.loan = Some(loan);
        machine.answered = true;
        self.tell_machine(number, MachineChange::Reserved, None);
        let expires = expires.map(|at| self.ms_of(at));
        self.feed(Event::Reserved { lease: number, expires });
    }

    fn on_reserve_failed(&mut self, number: LeaseId, failure: &Failure) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        machine.answered = true;
        let certain = failure.is_certain();
        match failure.refusal() {
            _ if failure.is_cancelled() => tracing::debug!("{failure}"),
            Refusal::Busy => tracing::info!("{failure}"),
            Refusal::Failed | Refusal::Final => tracing::warn!("{failure}"),
        }
        self.tell_machine(number, MachineChange::ReserveFailed, Some(failure.to_string()));
        self.feed(Event::ReserveFailed { lease: number, refusal: failure.refusal(), certain });
        if certain {
            self.machines.remove(&number);
        }
    }

    /// Nothing of a lease exists any more, unless its reservation comes up with something after all.
    fn on_gone(&mut self, number: LeaseId, event: Event) {
        self.tell_machine(number, MachineChange::Released, None);
        self.feed(event);
        if self.machines.get(&number).is_some_and(|machine| machine.answered) {
            self.machines.remove(&number);
        }
    }

    /// What a provider says of a machine that nobody gets to.
    fn on_probed(&mut self, number: LeaseId, told: Result<Option<bool>, Failure>) {
        let alive = match told {
            Ok(alive) => alive,
            Err(failure) => {
                tracing::warn!("{}: {failure}", self.called(number));
                None
            }
        };
        if let Some(alive) = alive {
            let away = self.machines.get(&number).is_some_and(|machine| machine.away);
            match alive {
                true if away => {}
                true => self.warn(format!(
                    "{}: its provider still has it: the connection, or the system on it, failed",
                    self.called(number)
                )),
                false => {
                    self.warn(format!("{}: its provider does not have it any more", self.called(number)));
                }
            }
        }
        self.feed(Event::Probed { lease: number, alive });
    }

    fn on_reset(&mut self, number: LeaseId, told: Result<(), Failure>) {
        let told = told.map_err(|failure| failure.to_string());
        if let Err(why) = &told {
            self.warn(format!("{}: {why}", self.called(number)));
        }
        if let Some(Link::Up(worker)) = self.machines.get(&number).map(|machine| &machine.worker) {
            worker.send(Order::WasReset(told));
        }
    }

    /// A point in Unix time (seconds) in the run's own time; 0 if it is past.
    fn ms_of(&self, unix_s: u64) -> Ms {
        self.now().saturating_add(unix_s.saturating_mul(1000)).saturating_sub(unix_ms())
    }
}

fn ms(time: Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}

fn event_of(report: &RunReport, class: Class) -> Event {
    let execution = report.execution;
    let finished = |outcome| Event::Finished {
        execution,
        outcome,
        exit: report.ended.exit(),
        status: Arc::from(report.status.as_str()),
    };
    match &report.ended {
        Ended::Exited(_) | Ended::Aborted | Ended::NotStarted(_) | Ended::Host(_) => finished(match class {
            Class::Passed | Class::Warned => Outcome::Passed,
            Class::Failed | Class::Infra | Class::Stopped => Outcome::Failed,
        }),
        Ended::TimedOut => finished(Outcome::TimedOut),
        Ended::Protocol(_) => finished(Outcome::Protocol),
        Ended::Limit(_) => finished(Outcome::Limit),
        Ended::Cancelled => Event::Cancelled { execution },
        Ended::Lost(_) => Event::RunLost { execution },
    }
}

fn how(ended: &Ended) -> How {
    match ended {
        Ended::Exited(_) => How::Exited,
        Ended::TimedOut => How::TimedOut,
        Ended::Protocol(_) => How::Protocol,
        Ended::Limit(_) => How::Limit,
        Ended::NotStarted(_) => How::NotStarted,
        Ended::Aborted => How::Aborted,
        Ended::Cancelled => How::Cancelled,
        Ended::Lost(_) => How::Lost,
        Ended::Host(_) => How::Host,
    }
}
