//! One run of one test in a slot, as a state machine that the worker advances.
//!
//! A run goes through [`Stage`]s, each one command of the slot's driver: packages, the test itself (again after a reboot or
//! a restart), its data. Whatever ends it early is its *cause*; the first one counts. Then the command is told to end: TERM,
//! a grace period, KILL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checks;
use super::clock::Clock;
use super::cutter::End;
use super::driver::{Driver, Sink};
use super::environment::{self, Counts};
use super::intake::Intake;
use super::packages;
use super::session::{Result, Session, Tail};
use super::spec::{Ended, Framework, Packages, Report, RunOrder, RunReport, Site, TestSpec, unix_ms};

/// For what is not a time-out there is no reason to wait long.
const SHORT_GRACE: Duration = Duration::from_secs(1);

/// The package that tests with `framework: beakerlib` need without saying so.
const BEAKERLIB: &str = "beakerlib";

/// Bytes of what a check found that are kept: the last ones.
const MAX_FOUND: usize = 1 << 20;

/// Returns before the machine goes down, so that its end is noticed in good order. Not in the test's process group.
const REBOOT: &str = "command -v setsid >/dev/null && away=setsid\n\
    $away bash -c 'sleep 0.5; reboot || shutdown -r now || systemctl reboot' >/dev/null 2>&1 &\nsleep 0.1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Packages that the test requires.
    Packages,
    /// Marks for the checks.
    Marks,
    Test,
    /// The machine is told to reboot, for `restart-with-reboot`.
    Reboot,
    /// The check of this number.
    Check(usize),
    /// Its `TMT_TEST_DATA` as a tar stream.
    Data,
}

/// What a job does after a command has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next command runs.
    Goes,
    /// The machine is to be let go of, and the test started again.
    Leaves,
    Over,
}

/// How far the command has been told to end.
#[derive(Debug, Clone, Copy)]
enum Pressure {
    None,
    Term { kill_at: Instant },
    Kill { since: Instant },
}

#[derive(Debug)]
pub(crate) struct Job {
    order: RunOrder,
    site: Arc<Site>,
    intake: Intake,
    clock: Clock,
    stage: Stage,
    packages: Option<Packages>,
    /// Output of what is not the test.
    tail: Tail,
    counts: Counts,
    /// Of which restarts by exit status, that are limited.
    restarts_by_status: u8,
    data: u32,
    has_data: bool,
    pressure: Pressure,
    cause: Option<Ended>,
    exit: i32,
    leaving: bool,
    started_ms: u64,
    told_start: bool,
    /// What was last told of the time by which it ends.
    told_deadline: Option<Instant>,
    /// The machine is to be reset by its provisioner, for `restart-with-reboot`.
    resets: bool,
    /// Set by the worker when the command has ended.
    pub(crate) over: Option<End>,
}

impl Job {
    /// Nothing has been sent yet. `installed` are the packages that the machine has got for tests.
    pub(crate) fn new(
        order: RunOrder,
        site: Arc<Site>,
        data: u32,
        installed: &BTreeSet<String>,
    ) -> std::result::Result<Self, Box<Report>> {
        let intake = match Intake::new(&order, &site) {
            Ok(intake) => intake,
            Err(e) => {
                let why = format!("cannot write artifacts to {}: {e}", order.artifacts.display());
                return Err(Box::new(Self::never_started(&order, Ended::NotStarted(why))));
            }
        };
        if let Some(what) = checks::unsupported(&order.test.checks) {
            return Err(Box::new(Self::never_started(&order, Ended::NotStarted(what))));
        }
        let packages = still_wanted(&order.test, installed);
        let clock = Clock::start(order.test.duration, Instant::now());
        let stage = match (&packages, order.test.checks.is_empty()) {
            (Some(_), _) => Stage::Packages,
            (None, true) => Stage::Test,
            (None, false) => Stage::Marks,
        };
        Ok(Self {
            order,
            site,
            intake,
            told_deadline: clock.deadline(),
            clock,
            stage,
            packages,
            tail: Tail::new(2000),
            counts: Counts::default(),
            restarts_by_status: 0,
            data,
            has_data: false,
            pressure: Pressure::None,
            cause: None,
            exit: -1,
            leaving: false,
            started_ms: unix_ms(),
            told_start: false,
            resets: false,
            over: None,
        })
    }

    /// The report of a run that has not begun, and leaves no artifacts.
    pub(crate) fn never_started(order: &RunOrder, ended: Ended) -> Report {
        let now = unix_ms();
        Report::Finished(Box::new(RunReport {
            execution: order.execution,
            status: "infra".into(),
            note: Some(ended.to_string()),
            ended,
            started_ms: now,
            ended_ms: now,
            duration_ms: 0,
            results: 0,
            artifacts: None,
        }))
    }

    pub(crate) fn execution(&self) -> u64 {
        self.order.execution
    }

    /// Sends the command of the current stage.
    pub(crate) fn begin(&mut self, session: &mut Session) -> Result<()> {
        let place = session.place.clone();
        let slot = self.order.slot;
        self.pressure = Pressure::None;
        match self.stage {
            Stage::Packages => {
                let script = packages::script(self.packages.as_ref().unwrap_or(&Packages::default()));
                session.submit(slot, |id| environment::script_code(&place, &self.site, &script, id))?;
            }
            Stage::Marks => {
                let script = checks::before(&self.order.test.checks);
                session.submit(slot, |id| environment::check_code(&place, slot, &script, id))?;
            }
            Stage::Check(number) => {
                self.tail = Tail::new(MAX_FOUND);
                let script = self.order.test.checks.get(number).map(checks::after).unwrap_or_default();
                session.submit(slot, |id| environment::check_code(&place, slot, &script, id))?;
            }
            Stage::Reboot => {
                session.submit(slot, |id| environment::check_code(&place, slot, REBOOT, id))?;
            }
            Stage::Test => {
                self.intake.begin();
                if !self.told_start {
                    self.clock = Clock::start(self.order.test.duration, Instant::now());
                }
                session.submit(slot, |id| {
                    environment::test_code(&place, &self.site, &self.order, self.counts, id, self.data)
                })?;
            }
            Stage::Data => {
                let directory = format!("{}/data", environment::invocation(&place, slot, self.data));
                session.submit(slot, |id| format!("collect {id} {}", crate::transport::quote(&directory)))?;
            }
        }
        Ok(())
    }

    /// Gives the run an end of the host's; the first one counts.
    pub(crate) fn end_as(&mut self, ended: Ended) {
        self.cause.get_or_insert(ended);
    }

    /// Sees to limits and causes: tells the driver to end the command when it has to.
    pub(crate) fn enforce(&mut self, driver: &mut Driver, now: Instant) {
        if self.over.is_some() {
            return;
        }
        if self.cause.is_none() {
            self.cause = self.intake.fault().cloned();
        }
        if self.cause.is_none() && self.stage == Stage::Test && self.clock.expired(now) {
            self.cause = Some(Ended::TimedOut);
        }
        let Some(cause) = &self.cause else { return };
        // What comes after a test that was ended for a reason is not ended for that reason.
        if self.is_afterwards() && *cause != Ended::Cancelled {
            return;
        }
        match self.pressure {
            Pressure::None => {
                let grace = self.site.limits.grace;
                let grace = if *cause == Ended::TimedOut { grace } else { grace.min(SHORT_GRACE) };
                driver.say("term\n");
                self.pressure = Pressure::Term { kill_at: now + grace };
            }
            Pressure::Term { kill_at } if kill_at <= now => {
                driver.say("kill\n");
                self.pressure = Pressure::Kill { since: now };
            }
            _ => {}
        }
    }

    fn is_afterwards(&self) -> bool {
        matches!(self.stage, Stage::Check(_) | Stage::Data)
    }

    /// Killed, and the driver has not said that it is over.
    pub(crate) fn is_hopeless(&self, now: Instant, patience: Duration) -> bool {
        matches!(self.pressure, Pressure::Kill { since } if now >= since + patience)
    }

    /// When [`enforce`](Self::enforce) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.pressure {
            Pressure::None if self.stage == Stage::Test => self.clock.deadline(),
            Pressure::None => None,
            Pressure::Term { kill_at } => Some(kill_at),
            Pressure::Kill { since } => Some(since + Duration::from_secs(30)),
        }
    }

    /// A cause has just turned up, or the test has announced that the machine goes away.
    pub(crate) fn has_cause_to_act(&mut self) -> bool {
        if self.stage == Stage::Test
            && !self.leaving
            && self.cause.is_none()
            && self.intake.wants_disconnect()
        {
            self.leave();
        }
        matches!(self.pressure, Pressure::None)
            && !self.is_afterwards()
            && (self.cause.is_some() || self.intake.fault().is_some())
    }

    /// The test waits for the machine to go away; while others run, its clock stands still.
    pub(crate) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.clock.hold(Instant::now());
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The clock goes on; the point in time at which the test's time is over.
    pub(crate) fn time_left_until(&mut self, now: Instant) -> Instant {
        if self.leaving {
            self.clock.release(now);
        }
        self.clock.deadline().unwrap_or_else(|| now + self.clock.left(now))
    }

    /// The machine is back.
    pub(crate) fn come_back(&mut self, session: &mut Session) -> Result<()> {
        (self.leaving, self.resets) = (false, false);
        self.over = None;
        self.stage = Stage::Test;
        self.counts.reboots += 1;
        self.counts.restarts += 1;
        self.begin(session)
    }

    /// Passes on what the test has reported.
    pub(crate) fn tell(&mut self, report: &dyn Fn(Report)) {
        if self.stage == Stage::Test && !self.told_start {
            self.told_start = true;
            report(Report::Started { execution: self.order.execution });
        }
        let until = self.clock.deadline().filter(|_| self.stage == Stage::Test && !self.leaving);
        if differ(self.told_deadline, until) {
            self.told_deadline = until;
            report(Report::Deadline { execution: self.order.execution, until });
        }
        self.intake.tell(report);
    }

    /// After the end of a command: the next one, or none. What the machine has got is added to `installed`.
    pub(crate) fn next(
        &mut self,
        end: &End,
        session: &mut Session,
        installed: &mut BTreeSet<String>,
    ) -> Result<Next> {
        match self.stage {
            Stage::Packages => {
                if end.status != 0 {
                    let why = format!(
                        "packages could not be installed: exit status {}{}",
                        end.status,
                        self.tail.shown()
                    );
                    self.end_as(Ended::NotStarted(why));
                    return Ok(Next::Over);
                }
                let got = self.packages.take().unwrap_or_default();
                installed.extend(got.required.into_iter().chain(got.recommended));
                self.stage = self.first_stage();
            }
            Stage::Marks => self.stage = Stage::Test,
            Stage::Reboot => return Ok(Next::Leaves),
            Stage::Check(number) => {
                self.checked(number, end.status);
                self.stage = match self.stage_after(number + 1) {
                    Some(stage) => stage,
                    None => return Ok(Next::Over),
                };
            }
            Stage::Test => match self.test_ended(end) {
                Next::Goes => {}
                other => return Ok(other),
            },
            Stage::Data => {
                return Ok(Next::Over);
            }
        }
        self.begin(session)?;
        Ok(Next::Goes)
    }

    fn test_ended(&mut self, end: &End) -> Next {
        self.exit = end.status;
        self.has_data |= end.has("data");
        if end.has("nodir") {
            self.end_as(Ended::NotStarted(format!("no such directory in the tree: {}", self.order.test.cwd)));
        } else if end.has("abort") {
            self.end_as(Ended::Aborted);
        }
        if self.cause.is_none() {
            self.intake.end();
            self.cause = self.intake.fault().cloned();
        }
        if self.cause.is_none() && self.intake.wants_disconnect() {
            return Next::Leaves;
        }
        if self.cause.is_none() && self.may_restart(end.status) {
            self.restarts_by_status += 1;
            return self.restart();
        }
        match self.stage_after(0) {
            Some(stage) => {
                self.stage = stage;
                Next::Goes
            }
            None => Next::Over,
        }
    }

    /// After the packages.
    fn first_stage(&self) -> Stage {
        if self.order.test.checks.is_empty() { Stage::Test } else { Stage::Marks }
    }

    /// The check of this number, or what comes when all checks are through.
    fn stage_after(&self, check: usize) -> Option<Stage> {
        let wanted = !matches!(self.cause, Some(Ended::Cancelled | Ended::NotStarted(_)));
        if wanted && check < self.order.test.checks.len() {
            Some(Stage::Check(check))
        } else if self.has_data && self.cause != Some(Ended::Cancelled) {
            Some(Stage::Data)
        } else {
            None
        }
    }

    fn checked(&mut self, number: usize, exit: i32) {
        if let Some(check) = self.order.test.checks.get(number) {
            let (status, test) = checks::judge(check.result, exit);
            self.intake.check(&check.how, status, &self.tail.bytes, test);
        }
    }

    /// Once more, because of the exit status.
    fn restart(&mut self) -> Next {
        if !self.order.test.restart.as_ref().is_some_and(|rule| rule.with_reboot) {
            self.counts.restarts += 1;
            return Next::Goes;
        }
        if self.site.may_reboot {
            self.stage = Stage::Reboot;
            return Next::Goes;
        }
        if self.site.may_reset {
            self.resets = true;
            return Next::Leaves;
        }
        let why = "`restart-with-reboot`: this machine cannot be rebooted from inside, nor reset by its provisioner";
        self.end_as(Ended::Host(why.into()));
        Next::Over
    }

    /// The provisioner has to reset the machine.
    pub(crate) fn wants_reset(&self) -> bool {
        self.resets || self.leaving && self.intake.wants_reset()
    }

    /// The machine must have another boot id when it comes back.
    pub(crate) fn wants_reboot(&self) -> bool {
        self.stage == Stage::Reboot
    }

    fn may_restart(&self, status: i32) -> bool {
        self.order
            .test
            .restart
            .as_ref()
            .is_some_and(|rule| rule.codes.contains(&status) && self.restarts_by_status < rule.max)
    }

    /// Publishes the artifacts.
    pub(crate) fn finish(self, report: &dyn Fn(Report)) {
        let own_end = || Ended::Exited(self.intake.exit_code().unwrap_or(self.exit));
        let ended = self.cause.unwrap_or_else(own_end);
        let duration = self.clock.ran(Instant::now());
        let run = self.intake.finish(ended, self.started_ms, duration, report);
        report(Report::Finished(Box::new(run)));
    }
}

impl Sink for Job {
    fn control(&mut self, data: &[u8]) {
        match self.stage {
            Stage::Packages | Stage::Marks | Stage::Reboot | Stage::Check(_) => {}
            Stage::Test if self.cause.is_some() => {}
            Stage::Test => self.intake.control(data, &mut self.clock),
            Stage::Data => self.intake.data(data),
        }
    }

    fn log(&mut self, data: &[u8]) {
        match self.stage {
            Stage::Packages | Stage::Marks | Stage::Reboot | Stage::Check(_) => self.tail.take(data),
            Stage::Test => self.intake.log(data),
            Stage::Data => {}
        }
    }
}

/// Whether two deadlines differ by more than what it takes to start a test.
fn differ(told: Option<Instant>, now: Option<Instant>) -> bool {
    match (told, now) {
        (Some(one), Some(other)) => one.max(other) - one.min(other) > Duration::from_secs(1),
        (one, other) => one.is_some() != other.is_some(),
    }
}

/// What a test needs that the machine has not got for another one.
fn still_wanted(test: &TestSpec, installed: &BTreeSet<String>) -> Option<Packages> {
    let mut wanted = test.packages.clone();
    if test.framework == Framework::Beakerlib && !wanted.required.iter().any(|name| name == BEAKERLIB) {
        wanted.required.push(BEAKERLIB.into());
    }
    wanted.required.retain(|name| !installed.contains(name));
    wanted.recommended.retain(|name| !installed.contains(name));
    (!wanted.is_empty()).then_some(wanted)
}
