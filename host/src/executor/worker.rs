//! The thread of one machine: connects, sets up, runs tests in slots, hands back.
//!
//! One `poll` serves everything that the machine does; while anything is waited for, orders are looked at whenever the
//! waker is woken. Setup, reboots and handing back block (no test runs then, and an order to let go ends them); tests do
//! not: each slot has a [`Job`] that is advanced when something happened.
//!
//! Errors of the connection end up in one place, [`Machine::lost`]: running tests get their verdict there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::{Sink, Turn};
use super::inbox::Inbox;
use super::job::{Job, Next};
use super::session::{Error, Place, Result, Session};
use super::spec::{Ended, MachineSpec, Order, Report, RunOrder, Site};
use super::{phases, setup};
use crate::transport::{self, nap};

/// First and longest pause between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Keys may be put in place a little after the server is up.
const DENIED_PATIENCE: Duration = Duration::from_mins(1);
/// A driver that has been told to kill its test and does not say that it did is dead.
const HOPELESS: Duration = Duration::from_secs(30);

type Reporter = Box<dyn Fn(Report) + Send>;

/// The body of the thread.
pub(crate) fn serve(spec: MachineSpec, inbox: Inbox, report: Reporter) {
    let mut machine = Machine {
        spec,
        inbox,
        report,
        session: None,
        place: None,
        site: None,
        slots: vec![],
        queue: vec![],
        installed: BTreeSet::new(),
        handing_back: false,
        problems: vec![],
    };
    match machine.live() {
        Ok(()) => (machine.report)(Report::HandedBack { problems: std::mem::take(&mut machine.problems) }),
        Err(e) => machine.lost(&e),
    }
}

/// Room for one test.
#[derive(Debug, Default)]
struct Slot {
    job: Option<Job>,
    /// Runs that this slot has had; numbers its directories for data.
    runs: u32,
}

struct Machine {
    spec: MachineSpec,
    inbox: Inbox,
    report: Reporter,
    session: Option<Session>,
    /// Where we were while there is no session.
    place: Option<Place>,
    site: Option<Arc<Site>>,
    slots: Vec<Slot>,
    /// Orders that wait until nobody is about to reboot the machine.
    queue: Vec<RunOrder>,
    /// Packages that were installed for tests.
    installed: BTreeSet<String>,
    handing_back: bool,
    problems: Vec<String>,
}

impl Machine {
    fn live(&mut self) -> Result<()> {
        self.connect(Instant::now() + self.spec.boot_time, None)?;
        let inbox = &mut self.inbox;
        let session = self.session.as_mut().ok_or_else(no_session)?;
        match session.introduce(&mut || inbox.wants_end()) {
            Ok(facts) => (self.report)(Report::Connected { facts }),
            Err(e) if e.is_interruption() => {}
            Err(e) => return Err(e),
        }
        while !self.take_orders()? {
            self.step()?;
        }
        self.hand_back()
    }

    /// Tries until it works, `until`, or a reason to give up; a run may be waiting for the machine's return.
    fn connect(&mut self, until: Instant, waiting: Option<u64>) -> Result<()> {
        let place = match self.place.take() {
            Some(place) => place,
            None => Place::new(&self.spec.transport)?,
        };
        let mut pause = FIRST_PAUSE;
        let mut denied: Option<Instant> = None;
        loop {
            let inbox = &mut self.inbox;
            let waker = inbox.waker.clone();
            let mut interrupt = || match waiting {
                Some(execution) => inbox.is_abandoned() || inbox.cancels(execution),
                None => inbox.wants_end(),
            };
            match Session::open(&self.spec, place.clone(), &waker, Some(until), &mut interrupt) {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Err(Error::Transport(transport::Error::Unreachable(_) | transport::Error::Gone(_)))
                    if Instant::now() + pause < until => {}
                // Keys may not be in place yet, nor file systems be writable.
                Err(Error::Transport(transport::Error::Denied(_)) | Error::Driver(_))
                    if Instant::now() + pause < until
                        && denied.get_or_insert_with(Instant::now).elapsed() < DENIED_PATIENCE => {}
                Err(e) => return Err(e),
            }
            let again = Instant::now() + pause;
            while Instant::now() < again {
                if interrupt() {
                    return Err(transport::Error::Interrupted.into());
                }
                nap(&waker, again)?;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects to a machine that reboots: as long as it has its former boot id, it is still on its way down.
    fn connect_after(&mut self, former: Option<&str>, until: Instant, execution: u64) -> Result<()> {
        loop {
            self.connect(until, Some(execution))?;
            let session = self.session.as_ref().ok_or_else(no_session)?;
            if former.is_none_or(|boot| boot == "unknown" || boot != session.place.boot) {
                return Ok(());
            }
            if let Some(session) = self.session.take() {
                self.place = Some(session.detach(until.saturating_duration_since(Instant::now()), &mut []));
            }
            let waker = self.inbox.waker.clone();
            nap(&waker, (Instant::now() + Duration::from_secs(1)).min(until))?;
        }
    }

    /// `true` when the machine is to be handed back and nothing runs any more.
    fn take_orders(&mut self) -> Result<bool> {
        while let Some(order) = self.inbox.next() {
            match order {
                Order::Setup(site) => self.set_up(site)?,
                Order::Run(order) => self.queue.push(*order),
                Order::Cancel { execution } => self.cancel(execution),
                Order::HandBack => self.handing_back = true,
                // Nobody waits for it any more.
                Order::WasReset(_) => {}
                Order::Abandon => return Err(transport::Error::Interrupted.into()),
            }
        }
        if self.inbox.is_abandoned() {
            return Err(transport::Error::Interrupted.into());
        }
        self.start_queued()?;
        Ok(self.handing_back && self.queue.is_empty() && self.slots.iter().all(|slot| slot.job.is_none()))
    }

    fn set_up(&mut self, site: Arc<Site>) -> Result<()> {
        let inbox = &mut self.inbox;
        let session = self.session.as_mut().ok_or_else(no_session)?;
        match setup::run(session, &site, &mut || inbox.wants_end()) {
            Ok(()) => {
                self.slots.resize_with(usize::from(site.slots.max(1)), Slot::default);
                self.site = Some(site);
                (self.report)(Report::Ready);
            }
            Err(e) if e.is_interruption() && !inbox.is_abandoned() => {
                (self.report)(Report::SetupFailed { error: "setup was interrupted".into() });
                self.restart_first_driver()?;
            }
            Err(Error::Failed(error) | Error::TimedOut(error)) => {
                (self.report)(Report::SetupFailed { error });
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// After something was given up in the middle: kill it, and take a new driver.
    fn restart_first_driver(&mut self) -> Result<()> {
        let inbox = &mut self.inbox;
        let session = self.session.as_mut().ok_or_else(no_session)?;
        inbox.waker.hurry();
        session.driver(0)?.say("kill\n");
        session.renew(0, &mut || inbox.is_abandoned())
    }

    fn cancel(&mut self, execution: u64) {
        if let Some(job) = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.job.as_mut())
            .find(|job| job.execution() == execution)
        {
            job.end_as(Ended::Cancelled);
        } else if let Some(index) = self.queue.iter().position(|order| order.execution == execution) {
            let order = self.queue.remove(index);
            (self.report)(Job::never_started(&order, Ended::Cancelled));
        }
    }

    /// Starts what can start: the slot is free, and nobody is about to reboot the machine.
    fn start_queued(&mut self) -> Result<()> {
        if self.slots.iter().any(|slot| slot.job.as_ref().is_some_and(Job::is_leaving)) {
            return Ok(());
        }
        let mut index = 0;
        while let Some(order) = self.queue.get(index) {
            let Some(site) = self.site.clone() else {
                let order = self.queue.remove(index);
                (self.report)(Job::never_started(
                    &order,
                    Ended::NotStarted("the machine was not set up".into()),
                ));
                continue;
            };
            match self.slots.get(usize::from(order.slot)) {
                None => {
                    let order = self.queue.remove(index);
                    (self.report)(Job::never_started(&order, Ended::NotStarted("no such slot".into())));
                }
                Some(slot) if slot.job.is_some() => index += 1,
                Some(_) => {
                    let order = self.queue.remove(index);
                    self.start(order, site)?;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, order: RunOrder, site: Arc<Site>) -> Result<()> {
        let index = usize::from(order.slot);
        let session = self.session.as_mut().ok_or_else(no_session)?;
        self.slots[index].runs += 1;
        match Job::new(order, site, self.slots[index].runs, &self.installed) {
            Ok(mut job) => {
                job.begin(session)?;
                self.slots[index].job = Some(job);
            }
            Err(report) => (self.report)(*report),
        }
        Ok(())
    }

    /// Moves bytes of all slots, and sleeps if there was nothing to move; then does what has become due.
    fn step(&mut self) -> Result<()> {
        let session = self.session.as_mut().ok_or_else(no_session)?;
        let now = Instant::now();
        let mut busy = false;
        let mut wake: Option<Instant> = None;
        let slots = self.slots.len().max(1);
        for index in 0..slots {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let mut job = self.slots.get_mut(index).and_then(|slot| slot.job.as_mut());
            if let Some(job) = &mut job {
                job.enforce(session.driver(number)?, now);
                if job.is_hopeless(now, HOPELESS) {
                    return Err(Error::Driver("it did not end a test that it was told to kill".into()));
                }
            }
            let turn = match &mut job {
                Some(job) => session.turn(number, &mut **job)?,
                None => session.turn(number, &mut super::session::Nowhere)?,
            };
            match turn {
                Turn::Busy => busy = true,
                Turn::Dead(why) => return Err(Error::Driver(why)),
                Turn::Ended(end) => {
                    busy = true;
                    if let Some(job) = &mut job {
                        job.over = Some(end);
                    }
                }
                Turn::Idle => {}
            }
            if let Some(job) = job {
                job.tell(&self.report);
                busy |= job.has_cause_to_act();
                wake = [wake, job.deadline()].into_iter().flatten().min();
            }
        }
        if !busy && !may_leave(&self.slots) {
            session.rest(wake)?;
        }
        self.advance()
    }

    fn advance(&mut self) -> Result<()> {
        for index in 0..self.slots.len() {
            let Some(end) = self.slots[index].job.as_mut().and_then(|job| job.over.take()) else { continue };
            let session = self.session.as_mut().ok_or_else(no_session)?;
            if end.has("held") {
                let inbox = &mut self.inbox;
                session.renew(u16::try_from(index).unwrap_or(u16::MAX), &mut || inbox.is_abandoned())?;
            }
            let Some(mut job) = self.slots[index].job.take() else { continue };
            match job.next(&end, session, &mut self.installed)? {
                Next::Goes => self.slots[index].job = Some(job),
                Next::Leaves => {
                    job.leave();
                    self.slots[index].job = Some(job);
                }
                Next::Over => job.finish(&self.report),
            }
        }
        if may_leave(&self.slots) {
            self.reboot()?;
        }
        Ok(())
    }

    /// Lets go of the machine, waits for its return as long as any of the tests that announced it has time, and starts them
    /// again.
    fn reboot(&mut self) -> Result<()> {
        let session = self.session.take().ok_or_else(no_session)?;
        let now = Instant::now();
        let mut last = None;
        for job in self.slots.iter_mut().filter_map(|slot| slot.job.as_mut()) {
            let until = job.time_left_until(now);
            if last.is_none_or(|(_, latest)| until > latest) {
                last = Some((job.execution(), until));
            }
        }
        let (execution, until) = last.ok_or_else(no_session)?;
        let jobs = || self.slots.iter().filter_map(|slot| slot.job.as_ref());
        let former = jobs().any(Job::wants_reboot).then(|| session.place.boot.clone());
        let resets = jobs().any(Job::wants_reset);
        let rest = if resets { Duration::ZERO } else { until.saturating_duration_since(now) };
        let mut sinks: Vec<(u16, &mut dyn Sink)> = Vec::with_capacity(self.slots.len());
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            sinks.extend(slot.job.as_mut().map(|job| (number, job as &mut dyn Sink)));
        }
        self.place = Some(session.detach(rest, &mut sinks));
        (self.report)(Report::Away);
        let reset = if resets { self.reset(until, execution) } else { Ok(()) };
        match reset.and_then(|()| self.connect_after(former.as_deref(), until, execution)) {
            Ok(()) => {
                (self.report)(Report::Back);
                self.returned()
            }
            Err(e) => Err(self.did_not_return(&e, until)),
        }
    }

    /// The machine that was waited for until then will not be back: the end of its tests.
    fn did_not_return(&mut self, error: &Error, until: Instant) -> Error {
        let why = format!("the machine did not come back: {error}");
        let cause = match error {
            _ if Instant::now() >= until => Ended::TimedOut,
            Error::Transport(transport::Error::Interrupted) => Ended::Cancelled,
            _ => Ended::Lost(why.clone()),
        };
        for slot in &mut self.slots {
            if let Some(mut job) = slot.job.take() {
                job.end_as(cause.clone());
                job.finish(&self.report);
            }
        }
        Error::Failed(why)
    }

    /// Has the machine reset by its provisioner, and waits until that is done.
    fn reset(&mut self, until: Instant, execution: u64) -> Result<()> {
        (self.report)(Report::Reset);
        let waker = self.inbox.waker.clone();
        loop {
            if let Some(told) = self.inbox.was_reset() {
                return told.map_err(|why| Error::Failed(format!("it could not be reset: {why}")));
            }
            if self.inbox.is_abandoned() || self.inbox.cancels(execution) {
                return Err(transport::Error::Interrupted.into());
            }
            if Instant::now() >= until {
                return Err(Error::TimedOut("it was not reset in time".into()));
            }
            nap(&waker, until)?;
        }
    }

    fn returned(&mut self) -> Result<()> {
        let Some(site) = self.site.clone() else { return Ok(()) };
        let inbox = &mut self.inbox;
        let session = self.session.as_mut().ok_or_else(no_session)?;
        let interrupt: &mut dyn FnMut() -> bool = &mut || inbox.is_abandoned();
        setup::again(session, &site, interrupt)?;
        for slot in &mut self.slots {
            if let Some(job) = &mut slot.job {
                job.come_back(session)?;
            }
        }
        Ok(())
    }

    fn hand_back(&mut self) -> Result<()> {
        let inbox = &mut self.inbox;
        let session = self.session.as_mut().ok_or_else(no_session)?;
        let interrupt: &mut dyn FnMut() -> bool = &mut || inbox.is_abandoned();
        if let Some(site) = &self.site {
            phases::run_all(session, site, &site.finish, &mut self.problems, interrupt)?;
        }
        if !self.spec.disposable {
            session.clean(interrupt)?;
        }
        self.session = None;
        Ok(())
    }

    /// The end of a machine that was not handed back: a verdict for each test, and what can be tidied up.
    fn lost(&mut self, error: &Error) {
        let reason =
            if error.is_interruption() { "let go of by the host".to_owned() } else { error.to_string() };
        if let (Error::Driver(_), Some(mut session), false) =
            (error, self.session.take(), self.spec.disposable)
        {
            let inbox = &mut self.inbox;
            let until = Instant::now() + Duration::from_secs(10);
            let _ = session.recover(&mut || inbox.is_abandoned() || Instant::now() >= until);
        }
        let cause = || if error.is_interruption() { Ended::Cancelled } else { Ended::Lost(reason.clone()) };
        for slot in &mut self.slots {
            if let Some(mut job) = slot.job.take() {
                job.end_as(cause());
                job.finish(&self.report);
            }
        }
        for order in std::mem::take(&mut self.queue) {
            (self.report)(Job::never_started(&order, cause()));
        }
        while let Some(order) = self.inbox.next() {
            if let Order::Run(order) = order {
                (self.report)(Job::never_started(&order, cause()));
            }
        }
        (self.report)(Report::Lost { reason });
    }
}

/// A test has announced that the machine goes away, and no other one is in the way.
fn may_leave(slots: &[Slot]) -> bool {
    let jobs = || slots.iter().filter_map(|slot| slot.job.as_ref());
    jobs().count() > 0 && jobs().all(Job::is_leaving)
}

fn no_session() -> Error {
    Error::Failed("there is no connection to the machine".into())
}
