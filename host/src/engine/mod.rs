//! Carries out what the coordinator decides.
//!
//! The main loop takes one [`Input`] at a time, turns it into an event of the coordinator, and carries out the actions that
//! come back: calls of provisioners ([`calls`]), orders to machines ([`machines`]), questions to policies ([`policies`]),
//! records in ledger and journal ([`chronicle`]). It decides nothing by itself but what is a matter of I/O: an intent that
//! cannot be written down is a refused reservation, a machine whose facts do not fit its platform is a failed set-up.
//!
//! **Invariant:** an action takes effect only after what announces it is written down: a reservation after its intent in the
//! ledger was synced, an execution after its record stands in the journal.

mod actions;
pub(crate) mod books;
mod calls;
mod chronicle;
mod events;
mod input;
mod job;
mod machines;
mod own_thread;
mod policies;
mod signals;
mod tally;

use std::{
    collections::{HashMap, VecDeque},
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

pub(crate) use crate::executor::spec::unix_ms;
pub(crate) use chronicle::Chronicle;
pub(crate) use input::Input;
pub(crate) use job::{Job, Platform, Pool, Test};
pub(crate) use own_thread::{CALL_LIMIT, OwnThread};
use tally::Tally;

use crate::core::{
    Coordinator,
    config::Misfit,
    event::{Action, Event, ExecutionId, LeaseId, Ms, Shutdown, TestId},
    verdict::{Cause, Verdict, signal_name},
};
use crate::store::{Class, What};

use self::{calls::Calls, machines::Machines, policies::Policies};

/// The signal from which on tests are not waited for, and reporters only for a moment.
const HURRYING: u32 = 2;
/// That moment: enough for one that works, and short for people.
const HURRY: Duration = Duration::from_secs(5);
/// The signal after which nothing is waited for.
const LAST_SIGNAL: u32 = 3;
/// Inputs that are handled before readers are woken and verdicts synced.
const BATCH: usize = 256;

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the run does not fit together: {0}")]
    Misfit(#[from] Misfit),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The main loop and everything it owns.
#[derive(Debug)]
pub(crate) struct Engine {
    job: Job,
    coordinator: Coordinator,
    policies: Policies,
    calls: Calls,
    machines: Machines,
    executions: HashMap<ExecutionId, Running>,
    /// Of executions that are over, until their test has its verdict.
    classes: HashMap<ExecutionId, Class>,
    chronicle: Chronicle,
    tally: Tally,
    inbox: Receiver<Input>,
    /// For workers and calls.
    sender: Sender<Input>,
    /// Events that the carrying out of actions gave.
    pending: VecDeque<Event>,
    began: Instant,
    signals: u32,
    /// Set by the last action of all.
    over: bool,
    /// Who is not through yet, and how long each may take after the last record.
    reporters: Vec<(String, Duration)>,
}

/// An execution that is under way, or waits to be judged.
#[derive(Debug, Clone, Copy)]
struct Running {
    test: TestId,
    lease: LeaseId,
    attempt: u16,
}

/// The two ends of the main loop's inbox, made before there is a loop: reporters are started first.
pub(crate) fn inbox() -> (Sender<Input>, Receiver<Input>) {
    mpsc::channel()
}

impl Engine {
    /// Starts the threads of policies and signals. `reporters`: those who will send [`Input::ReporterDone`], and how long
    /// each may take after the last record. `kept`: verdicts of an earlier session.
    pub(crate) fn start(
        mut job: Job,
        chronicle: Chronicle,
        reporters: Vec<(String, Duration)>,
        kept: &[(Verdict, Option<Class>)],
        (sender, inbox): (Sender<Input>, Receiver<Input>),
    ) -> Result<Self, StartError> {
        signals::start(sender.clone())?;
        let coordinator = Coordinator::new(job.config.clone(), &job.plans)?;
        let chains = std::mem::take(&mut job.chains);
        let policies = Policies::start(chains, &job.policy_names, &sender)?;
        let mut tally = Tally::new(job.tests.len(), job.strict);
        for (verdict, class) in kept {
            tally.count(Class::of_verdict(verdict, *class));
        }
        Ok(Self {
            job,
            coordinator,
            policies,
            calls: Calls::new(sender.clone()),
            machines: Machines::new(),
            executions: HashMap::new(),
            classes: HashMap::new(),
            chronicle,
            tally,
            inbox,
            sender,
            pending: VecDeque::new(),
            began: Instant::now(),
            signals: 0,
            over: false,
            reporters,
        })
    }

    /// Runs all tests, then waits for the reporters. `first`: what to begin with.
    pub(crate) fn run(mut self, first: Vec<Event>) -> Tally {
        self.feed(Event::Tick);
        for event in first {
            self.feed(event);
        }
        while !self.over {
            let deadline = self.coordinator.next_deadline();
            self.turn(deadline);
        }
        self.end()
    }

    /// Waits for one input, handles it and what else is there.
    fn turn(&mut self, deadline: Option<Ms>) {
        self.chronicle.turn();
        match self.receive(deadline) {
            Some(input) => self.on(input),
            None => self.feed(Event::Tick),
        }
        for _ in 0..BATCH {
            match self.inbox.try_recv() {
                Ok(input) => self.on(input),
                Err(_) => break,
            }
        }
        if self.policies.due().is_some() {
            self.policies.send_due(Instant::now());
        }
    }

    /// `None`: a deadline has come first, that of the coordinator or of notes to policies.
    fn receive(&self, deadline: Option<Ms>) -> Option<Input> {
        let deadline = deadline.and_then(|deadline| self.began.checked_add(Duration::from_millis(deadline)));
        let until = match (deadline, self.policies.due()) {
            (Some(one), Some(other)) => one.min(other),
            // We hold a sender ourselves, so the channel cannot be closed.
            (one, other) => match one.or(other) {
                Some(until) => until,
                None => return self.inbox.recv().ok(),
            },
        };
        self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }

    fn now(&self) -> Ms {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(Ms::MAX)
    }

    /// One step of the coordinator, and all that follows from it.
    fn feed(&mut self, event: Event) {
        self.pending.push_back(event);
        let mut actions: Vec<Action> = Vec::new();
        while let Some(event) = self.pending.pop_front() {
            self.enter(&event);
            let now = self.now();
            self.coordinator.step(now, event, &mut actions);
            self.announce(&mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
    }

    fn on(&mut self, input: Input) {
        match input {
            Input::Machine(lease, report) => self.on_report(lease, report),
            Input::Call(lease, returned) => self.on_returned(lease, returned),
            Input::Policies(event) => self.feed(event),
            Input::PolicyFault(text) => self.warn(text),
            Input::Signal(signal) => self.on_signal(signal),
            Input::ReporterDone { reporter, problem } => self.on_reporter_done(&reporter, problem),
        }
    }

    fn on_signal(&mut self, signal: i32) {
        self.signals += 1;
        let (level, what) = match self.signals {
            1 => (Shutdown::Finish, "cancelling tests and giving machines back; again to hurry"),
            HURRYING => (Shutdown::Release, "giving machines back without waiting for tests; again to leave"),
            LAST_SIGNAL.. | 0 => (Shutdown::Leave, "leaving; `atex-host gc` finds what is still held"),
        };
        self.warn(format!("{}: {what}", signal_name(signal).unwrap_or("a signal")));
        self.feed(Event::Stop { level, cause: Cause::Signal { signal } });
        if self.is_hurrying() {
            self.hurry_hand_backs();
        }
    }

    /// A second signal came.
    fn is_hurrying(&self) -> bool {
        self.signals >= HURRYING
    }

    fn on_reporter_done(&mut self, reporter: &str, problem: Option<String>) {
        self.reporters.retain(|(name, _)| name != reporter);
        if let Some(problem) = problem {
            self.tally.reporter_failed();
            self.warn(problem);
        }
    }

    /// Something people should know: into the log and the journal.
    fn warn(&mut self, text: String) {
        tracing::warn!("{text}");
        self.chronicle.tell(What::Warning { text });
    }

    /// The last record, and the wait for those who read it.
    fn end(mut self) -> Tally {
        let ended = self.tally.ended();
        self.chronicle.tell(What::Ended(ended));
        self.chronicle.last_turn();
        self.wait_for_reporters();
        if !self.chronicle.is_complete() {
            self.tally.host_failed();
        }
        self.tally.still_held(self.chronicle.open_leases());
        if let Err(error) = self.chronicle.close() {
            tracing::error!("{error}");
        }
        self.tally
    }

    fn wait_for_reporters(&mut self) {
        let ended = Instant::now();
        let mut hurried = None;
        while let Some(limit) = self.reporters.iter().map(|(_, limit)| *limit).min() {
            if self.is_hurrying() {
                hurried.get_or_insert_with(|| Instant::now() + HURRY);
            }
            let until = hurried.map_or(ended + limit, |hurried| hurried.min(ended + limit));
            if self.signals >= LAST_SIGNAL {
                return self.give_up_reporters(Duration::MAX);
            }
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Input::ReporterDone { reporter, problem }) => self.on_reporter_done(&reporter, problem),
                Ok(Input::Signal(signal)) => self.on_late_signal(signal),
                Ok(_late) => {}
                Err(_) if hurried == Some(until) => self.give_up_reporters(Duration::MAX),
                Err(_) => self.give_up_reporters(limit),
            }
        }
    }

    /// All tests have their verdicts, and nothing is held: only reporters are waited for.
    fn on_late_signal(&mut self, signal: i32) {
        self.signals += 1;
        let names: Vec<_> = self.reporters.iter().map(|(name, _)| format!("`{name}`")).collect();
        let what = if self.is_hurrying() { "they have a moment left" } else { "again to hurry" };
        let signal = signal_name(signal).unwrap_or("a signal");
        tracing::warn!("{signal}: waiting for reporters {}; {what}", names.join(", "));
    }

    /// Those whose time is up.
    fn give_up_reporters(&mut self, limit: Duration) {
        let (late, left) =
            std::mem::take(&mut self.reporters).into_iter().partition(|(_, own)| *own <= limit);
        self.reporters = left;
        let late: Vec<(String, Duration)> = late;
        for (reporter, _) in late {
            self.tally.reporter_failed();
            let text = format!(
                "reporter `{reporter}` was not through in time: `atex-host report` tells it the rest"
            );
            tracing::error!("{text}");
        }
    }
}
