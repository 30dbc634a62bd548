//! A run in virtual time: the very coordinator and the very policies, on machines that start slowly, fail and die.
//!
//! Time jumps from event to event, so a night on a thousand machines takes a second. Everything random comes from the seed
//! of the [`World`]: the same seed makes the same run.

mod cpu;
mod forecast;
mod workload;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use atex_plugin_api::model::Facts;

use super::chain::Chain;
use super::config::{Config, Misfit, TestPlan};
use super::coordinator::Coordinator;
use super::event::{Action, Command, Event, ExecutionId, LeaseId, Ms, Outcome, Refusal, Shutdown, TestId};
use super::hash::mix;
use super::verdict::Cause;

pub use cpu::{cpu_time, process_cpu_time};
pub use forecast::{Forecast, Row, forecast, usual_machines};
pub use workload::{Durations, Synthetic, SyntheticTest, bound};

/// Time that a machine takes to go away, and a test to be cancelled.
const MOMENT: Ms = 1_000;

/// What is true of a test, and what policies can only guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// How long a run of it takes.
    pub real: Ms,
    /// How many of its first runs fail.
    pub fails: u16,
}

/// The machines and their faults; rates are in 1/1000.
#[derive(Debug, Clone)]
pub struct World {
    pub seed: u64,
    /// From a reservation to the machine.
    pub startup: Ms,
    /// From the machine to its first test.
    pub setup: Ms,
    pub reserve_failures: u64,
    pub setup_failures: u64,
    pub release_failures: u64,
    /// Machines that die within [`life`](Self::life) after they came up.
    pub deaths: u64,
    pub life: Ms,
    /// How long a machine is lent, at first and with each renewal; 0: for good.
    pub lease: Ms,
    pub renew_failures: u64,
    /// Runs in which the machine reboots, and those that leave a label on it.
    pub reboots: u64,
    pub labels: u64,
    /// Facts of the machines, one after the other.
    pub facts: Vec<Arc<Facts>>,
    /// When somebody stops the run, and how.
    pub stops: Vec<(Ms, Shutdown)>,
}

impl Default for World {
    /// Machines that take a minute to come up, all alike, without faults.
    fn default() -> Self {
        Self {
            seed: 1,
            startup: 60_000,
            setup: 0,
            reserve_failures: 0,
            setup_failures: 0,
            release_failures: 0,
            deaths: 0,
            life: 3_600_000,
            lease: 0,
            renew_failures: 0,
            reboots: 0,
            labels: 0,
            facts: vec![Arc::new(Facts::new())],
            stops: vec![],
        }
    }
}

/// A chain with its tests registered, and what its policies asked for then.
#[derive(Debug)]
pub struct Ready {
    pub chain: Chain,
    pub commands: Vec<(u16, Command)>,
}

/// Sees everything that goes on, and may meddle with answers.
pub trait Observer {
    /// The coordinator is about to get an event.
    fn event(&mut self, _now: Ms, _event: &Event) {}
    /// The coordinator wants something done.
    fn action(&mut self, _now: Ms, _action: &Action) {}
    /// Something that happens beside all else, after the event before.
    fn intrude(&mut self) -> Option<Event> {
        None
    }
    /// When an answer arrives: after these delays, so never, once or twice.
    fn deliveries(&mut self, _answer: &Event) -> [Option<Ms>; 2] {
        [Some(0), None]
    }
}

/// Nobody looks.
impl Observer for () {}

/// How a simulated run went.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// When it was done.
    pub makespan: Ms,
    /// It came to its end.
    pub done: bool,
    /// Leases that may hold something at the end.
    pub uncertain: u32,
    /// How many tests got a verdict, and how many passed.
    pub verdicts: usize,
    pub passed: usize,
    pub runs: u64,
    pub events: u64,
    pub decisions: u64,
    /// Machines that came into being, and the most that were held at once.
    pub machines: u32,
    pub peak: u32,
    /// Machines that the provider took away while tests ran on them, because their time was over.
    pub expired: u32,
    /// Slot time spent with running tests, and slot time of machines that were held.
    pub busy: u128,
    pub held: u128,
    /// The test whose run ended last.
    pub last_test: Option<TestId>,
    /// A number that stands for the whole schedule.
    pub schedule: u64,
    /// CPU time of the whole simulation, policies included.
    pub cpu: Duration,
}

impl Outcomes {
    /// The share of the machines' time that was used, 0 to 1.
    pub fn utilisation(&self) -> f64 {
        if self.held == 0 { 0.0 } else { self.busy as f64 / self.held as f64 }
    }
}

/// Runs `tests` to the end.
///
/// # Errors
///
/// If parts of the configuration do not fit together.
pub fn simulate(
    config: Config,
    tests: &[TestPlan],
    truths: &[Truth],
    chains: &mut [Ready],
    world: &World,
    observer: &mut dyn Observer,
) -> Result<Outcomes, Misfit> {
    let started = cpu_time();
    let slots = config.pools.iter().map(|pool| pool.slots).collect();
    let coordinator = Coordinator::new(config, tests)?;
    let mut simulation = Simulation {
        coordinator,
        tests: tests.iter().zip(truths).map(Fate::new).collect(),
        chains,
        world,
        observer,
        slots,
        queue: BinaryHeap::new(),
        local: VecDeque::new(),
        machines: vec![],
        sequence: 0,
        now: 0,
        out: Outcomes::default(),
        status: [Arc::from("pass"), Arc::from("fail")],
    };
    simulation.run();
    let mut out = simulation.out;
    out.cpu = cpu_time().saturating_sub(started);
    Ok(out)
}

/// Something that will happen.
#[derive(Debug)]
enum Thing {
    /// The coordinator hears of something.
    Hear(Box<Event>),
    /// A reservation comes to its end.
    Resolve(LeaseId),
    /// A set-up comes to its end.
    Prepared(LeaseId, u32),
    /// An execution comes to its end.
    End(LeaseId, ExecutionId),
    /// A machine dies.
    Die(LeaseId),
    /// A machine goes away.
    Vanish(LeaseId),
    /// The provider takes a machine back, unless it has promised otherwise meanwhile.
    Expire(LeaseId),
}

/// In the order of time, then of planning.
#[derive(Debug)]
struct Planned(Ms, u64, Thing);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A machine of the simulated provider.
#[derive(Debug, Default)]
struct Machine {
    slots: u16,
    /// The reservation was aborted before it came to its end.
    aborted: bool,
    /// Since when there is a machine.
    since: Option<Ms>,
    dead: bool,
    /// When the provider takes it away.
    expires: Option<Ms>,
    executions: Vec<Execution>,
}

/// A test under way.
#[derive(Debug, Clone, Copy)]
struct Execution {
    number: ExecutionId,
    test: TestId,
    started: Ms,
    claim: u16,
    outcome: Outcome,
    exit: i32,
}

/// All that the world needs to know of a test, in one place: there may be a million, and each is met once, somewhere in memory.
#[derive(Debug, Clone, Copy)]
#[repr(align(16))]
struct Fate {
    /// How long a run takes, which is not longer than its limit.
    takes: Ms,
    fails: u16,
    claim: u16,
    times_out: bool,
}

impl Fate {
    fn new((plan, truth): (&TestPlan, &Truth)) -> Self {
        let (takes, times_out) = (truth.real.min(plan.limit), truth.real > plan.limit);
        Self { takes, fails: truth.fails, claim: plan.claim, times_out }
    }
}

struct Simulation<'a> {
    coordinator: Coordinator,
    tests: Vec<Fate>,
    chains: &'a mut [Ready],
    world: &'a World,
    observer: &'a mut dyn Observer,
    slots: Vec<u16>,
    queue: BinaryHeap<Reverse<Planned>>,
    /// What is heard at once.
    local: VecDeque<Event>,
    /// By lease. Between those that were asked for may be some that never were: nobody hears of them.
    machines: Vec<Machine>,
    sequence: u64,
    now: Ms,
    out: Outcomes,
    status: [Arc<str>; 2],
}

impl Simulation<'_> {
    fn run(&mut self) {
        for &(at, level) in &self.world.stops {
            let cause = Cause::Signal { signal: 2 };
            self.plan(at, Thing::Hear(Box::new(Event::Stop { level, cause })));
        }
        for (number, ready) in self.chains.iter_mut().enumerate() {
            let commands = std::mem::take(&mut ready.commands);
            self.local.push_back(Event::Commands { chain: number as u16, commands });
        }
        self.local.push_back(Event::Tick);
        let mut actions = vec![];
        while !self.out.done {
            let Some(event) = self.next_event() else { break };
            self.out.events += 1;
            if self.out.events > 1_000_000 + self.tests.len() as u64 * 200 {
                break;
            }
            self.observer.event(self.now, &event);
            self.coordinator.step(self.now, event, &mut actions);
            for action in actions.drain(..) {
                self.observer.action(self.now, &action);
                self.act(action);
            }
            self.local.extend(self.observer.intrude());
        }
        self.out.makespan = self.now;
        self.out.decisions = self.coordinator.decisions();
        for machine in &self.machines {
            if let Some(since) = machine.since {
                self.out.held += u128::from(self.now - since) * u128::from(machine.slots);
            }
        }
    }

    /// The next event for the coordinator, `None` if nothing will ever happen again.
    fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.local.pop_front() {
                return Some(event);
            }
            let due = self.coordinator.next_deadline();
            match self.queue.peek() {
                Some(Reverse(planned)) if due.is_none_or(|due| planned.0 <= due) => {
                    let Reverse(Planned(at, _, thing)) = self.queue.pop()?;
                    self.now = self.now.max(at);
                    if let Some(event) = self.happen(thing) {
                        return Some(event);
                    }
                }
                _ => {
                    self.now = self.now.max(due?);
                    return Some(Event::Tick);
                }
            }
        }
    }

    fn plan(&mut self, at: Ms, thing: Thing) {
        self.sequence += 1;
        self.queue.push(Reverse(Planned(at, self.sequence, thing)));
    }

    /// An answer reaches the coordinator, if nothing meddles with it.
    fn answer(&mut self, after: Ms, event: &Event) {
        for delay in self.observer.deliveries(event).into_iter().flatten() {
            if after + delay == 0 {
                self.local.push_back(event.clone());
            } else {
                self.plan(self.now + after + delay, Thing::Hear(Box::new(event.clone())));
            }
        }
    }

    /// A roll of dice with 1000 sides.
    fn roll(&self, salt: u64) -> u64 {
        mix(self.world.seed ^ mix(self.sequence.wrapping_mul(31) ^ (salt << 40))) % 1000
    }

    fn happen(&mut self, thing: Thing) -> Option<Event> {
        match thing {
            Thing::Hear(event) => return Some(*event),
            Thing::Resolve(lease) => self.resolve(lease),
            Thing::Prepared(lease, setup) => {
                let works = self
                    .machines
                    .get(lease as usize)
                    .is_some_and(|machine| machine.since.is_some() && !machine.dead);
                if works && self.roll(2) >= self.world.setup_failures {
                    self.answer(0, &Event::SetUp { lease, setup });
                } else if works {
                    self.answer(0, &Event::SetupFailed { lease, setup, lost: false });
                }
            }
            Thing::End(lease, execution) => self.end(lease, execution),
            Thing::Die(lease) => self.die(lease),
            Thing::Vanish(lease) => self.vanish(lease),
            Thing::Expire(lease) => self.expire(lease),
        }
        None
    }

    fn resolve(&mut self, lease: LeaseId) {
        let fails = self.roll(1) < self.world.reserve_failures;
        let Some(machine) = self.machines.get_mut(lease as usize).filter(|machine| !machine.aborted) else {
            return;
        };
        if fails {
            self.answer(0, &Event::ReserveFailed { lease, refusal: Refusal::Failed, certain: true });
            return;
        }
        machine.since = Some(self.now);
        self.out.machines += 1;
        let expires = self.promise(lease);
        self.answer(0, &Event::Reserved { lease, expires });
        if self.roll(3) < self.world.deaths {
            let life = mix(self.world.seed ^ mix(u64::from(lease) + 77)) % self.world.life.max(1);
            self.plan(self.now + life, Thing::Die(lease));
        }
    }

    /// The provider lends a machine from now on for its usual time.
    fn promise(&mut self, lease: LeaseId) -> Option<Ms> {
        let end = (self.world.lease > 0).then(|| self.now + self.world.lease)?;
        self.machines.get_mut(lease as usize)?.expires = Some(end);
        self.plan(end, Thing::Expire(lease));
        Some(end)
    }

    fn expire(&mut self, lease: LeaseId) {
        let Some(machine) = self.machines.get(lease as usize) else { return };
        if machine.since.is_some() && !machine.dead && machine.expires.is_some_and(|end| end <= self.now) {
            self.out.expired += u32::from(!machine.executions.is_empty());
            self.die(lease);
        }
    }

    fn renew(&mut self, lease: LeaseId) {
        let roll = self.roll(5);
        let there =
            self.machines.get(lease as usize).is_some_and(|machine| machine.since.is_some() && !machine.dead);
        if !there || roll < self.world.renew_failures {
            let again = roll.is_multiple_of(2);
            return self.answer(MOMENT, &Event::RenewFailed { lease, again });
        }
        let expires = self.promise(lease);
        self.answer(MOMENT, &Event::Renewed { lease, expires });
    }

    fn die(&mut self, lease: LeaseId) {
        let Some(machine) = self.machines.get_mut(lease as usize) else { return };
        if machine.since.is_none() || machine.dead {
            return;
        }
        machine.dead = true;
        self.stop_all(lease);
        self.answer(0, &Event::Lost { lease });
    }

    fn vanish(&mut self, lease: LeaseId) {
        if self.roll(4) < self.world.release_failures {
            self.answer(0, &Event::ReleaseFailed { lease });
            return;
        }
        let gone = self
            .machines
            .get_mut(lease as usize)
            .and_then(|machine| Some((machine.since.take()?, machine.slots)));
        if let Some((since, slots)) = gone {
            self.out.held += u128::from(self.now - since) * u128::from(slots);
        }
        self.answer(0, &Event::Released { lease });
    }

    /// An execution is over; `None` if it was before.
    fn stop_execution(&mut self, lease: LeaseId, number: ExecutionId) -> Option<Execution> {
        let running = &mut self.machines.get_mut(lease as usize)?.executions;
        let at = running.iter().position(|execution| execution.number == number)?;
        let execution = running.swap_remove(at);
        self.out.busy += u128::from(self.now - execution.started) * u128::from(execution.claim);
        Some(execution)
    }

    /// All executions on a machine are over.
    fn stop_all(&mut self, lease: LeaseId) {
        let Some(machine) = self.machines.get_mut(lease as usize) else { return };
        for execution in std::mem::take(&mut machine.executions) {
            self.out.busy += u128::from(self.now - execution.started) * u128::from(execution.claim);
        }
    }

    fn end(&mut self, lease: LeaseId, number: ExecutionId) {
        let Some(execution) = self.stop_execution(lease, number) else { return };
        let Execution { test, outcome, exit, .. } = execution;
        self.out.last_test = Some(test);
        let [pass, fail] = &self.status;
        let status = if outcome == Outcome::Passed { pass.clone() } else { fail.clone() };
        self.answer(0, &Event::Finished { execution: number, outcome, exit, status });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reserve { lease, pool, .. } => {
                let slots = self.slots.get(usize::from(pool)).copied().unwrap_or(1);
                let places = self.machines.len().max(lease as usize + 1);
                self.machines.resize_with(places, Machine::default);
                self.machines[lease as usize].slots = slots;
                self.out.peak = self.out.peak.max(self.coordinator.held());
                self.plan(self.now + self.world.startup, Thing::Resolve(lease));
            }
            Action::Abort { lease } => self.abort(lease),
            Action::Confirm { lease } => {
                // Whoever looks also ends what he finds.
                self.plan(self.now + 10 * MOMENT, Thing::Vanish(lease));
            }
            Action::Setup { lease, setup, .. } => self.set_up(lease, setup),
            Action::Renew { lease } => self.renew(lease),
            Action::Probe { lease } => self.probe(lease),
            Action::Release { lease, .. } => self.release(lease),
            Action::Run { lease, execution, test, attempt, .. } => {
                self.start(lease, execution, test, attempt);
            }
            Action::Cancel { execution } => {
                // Rare enough to be looked for.
                let runs = |machine: &Machine| machine.executions.iter().any(|it| it.number == execution);
                let lease = self.machines.iter().position(runs).map_or(LeaseId::MAX, |at| at as LeaseId);
                if self.stop_execution(lease, execution).is_some() {
                    self.answer(MOMENT, &Event::Cancelled { execution });
                }
            }
            Action::Verdict { verdict, .. } => {
                self.out.verdicts += 1;
                self.out.passed += usize::from(verdict.passed());
            }
            Action::Done { uncertain } => (self.out.done, self.out.uncertain) = (true, uncertain),
            Action::Trouble(_) => {}
            question => self.consult(question),
        }
    }

    /// Puts a question to the policies; they answer at once.
    fn consult(&mut self, question: Action) {
        let answer = match question {
            Action::Kind { chain, kind } => {
                if let Some(ready) = self.chains.get_mut(usize::from(chain)) {
                    ready.chain.kind(&kind);
                }
                return;
            }
            Action::Rank { chain, ask, kinds, tests } => {
                let Some(ready) = self.chains.get_mut(usize::from(chain)) else { return };
                let ranks = ready.chain.rank(&kinds, &tests);
                Event::Ranked { ask, ranks: ranks.ranks, differ: ranks.differ }
            }
            Action::Ask { chain, lease, ask, question } => {
                let Some(ready) = self.chains.get_mut(usize::from(chain)) else { return };
                Event::Preferred { lease, ask, wishes: ready.chain.prefer(&question) }
            }
            Action::Judge { chain, execution, run } => {
                let Some(ready) = self.chains.get_mut(usize::from(chain)) else { return };
                Event::Judged { execution, ruling: ready.chain.judge(&run) }
            }
            Action::Note { chain, now, note } => {
                let Some(ready) = self.chains.get_mut(usize::from(chain)) else { return };
                let commands = ready.chain.note(now, &note);
                if commands.is_empty() {
                    return;
                }
                Event::Commands { chain, commands }
            }
            _ => return,
        };
        for delay in self.observer.deliveries(&answer).into_iter().flatten() {
            if delay == 0 {
                // The common case: no copy of a big answer.
                self.local.push_back(answer);
                return;
            }
            self.plan(self.now + delay, Thing::Hear(Box::new(answer.clone())));
        }
    }

    fn abort(&mut self, lease: LeaseId) {
        let Some(machine) = self.machines.get_mut(lease as usize) else { return };
        if machine.since.is_none() && !std::mem::replace(&mut machine.aborted, true) {
            self.answer(MOMENT, &Event::ReserveFailed { lease, refusal: Refusal::Failed, certain: true });
        }
    }

    fn probe(&mut self, lease: LeaseId) {
        let alive =
            self.machines.get(lease as usize).is_some_and(|machine| machine.since.is_some() && !machine.dead);
        self.answer(MOMENT, &Event::Probed { lease, alive: Some(alive) });
    }

    fn set_up(&mut self, lease: LeaseId, setup: u32) {
        let facts = self.world.facts.get(lease as usize % self.world.facts.len().max(1)).cloned();
        if let Some(facts) = facts {
            self.answer(0, &Event::Identified { lease, facts });
        }
        self.plan(self.now + self.world.setup, Thing::Prepared(lease, setup));
    }

    fn release(&mut self, lease: LeaseId) {
        self.stop_all(lease);
        self.plan(self.now + MOMENT, Thing::Vanish(lease));
    }

    fn start(&mut self, lease: LeaseId, execution: ExecutionId, test: TestId, attempt: u16) {
        self.out.runs += 1;
        self.out.schedule = mix(self.out.schedule ^ self.now ^ (u64::from(lease) << 32) ^ u64::from(test));
        let Some(&fate) = self.tests.get(test as usize) else { return };
        let Some(machine) = self.machines.get_mut(lease as usize) else { return };
        if machine.dead || machine.since.is_none() {
            return; // nobody answers
        }
        let failed = attempt < fate.fails;
        let outcome = match (fate.times_out, failed) {
            (true, _) => Outcome::TimedOut,
            (false, true) => Outcome::Failed,
            (false, false) => Outcome::Passed,
        };
        let claim = fate.claim.min(machine.slots);
        let started = self.now;
        let (number, exit) = (execution, failed.into());
        machine.executions.push(Execution { number, test, started, claim, outcome, exit });
        let real = fate.takes;
        self.plan(self.now + real, Thing::End(lease, execution));
        if self.roll(6) < self.world.reboots {
            self.answer(real / 3, &Event::Away { lease });
            self.answer(real / 2, &Event::Back { lease });
        }
        if self.roll(7) < self.world.labels {
            let (key, value) = (Arc::from(format!("k{}", test % 3)), Arc::from(test.to_string()));
            self.answer(real / 2, &Event::Label { lease, key, value });
        }
    }
}
