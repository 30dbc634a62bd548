//! Exhaustive faults: every call of a run, each going wrong in every way, and the host dies at every moment of that.
//!
//! The coordinator, the ledger's transitions, the order in which the engine writes and acts, and what gc makes of a dead run's
//! leases are the real ones; the provider and its machines are a model. Whenever the provider or something on disk has
//! changed, the host is thought dead: what it left is given to gc, whole and cut off after each of its own steps, once with
//! and once without what was under way coming true; then the run is resumed.
//!
//! **No lease is lost:** whatever exists or may still come into being stands open in the ledger. **None is released twice:**
//! nobody asks for the end of a machine after having been told that it is gone. (Before that it may be asked for again: an
//! answer that was lost makes the first call uncertain, and `release` of nothing succeeds.) **No test is without verdict,**
//! and none has two, all sessions of a run together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::provider::{Provider, RESERVE_TIME, Remains, SETTLE};
use crate::core::config::{Config, Past, Resume, Shape, TestPlan};
use crate::core::coordinator::Coordinator;
use crate::core::event::{Action, Event, ExecutionId, LeaseId, Ms, Outcome, Refusal, Shutdown, TestId};
use crate::core::verdict::Cause;
use crate::engine::books;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails and has done nothing.
    FailsBefore,
    /// It has done its work, and says that it failed, as far as it says anything useful.
    FailsAfter,
    /// It has done its work, and its answer is lost.
    AnswerLost,
    /// It answers twice.
    Twice,
    /// It does nothing, and never answers.
    Never,
    /// It does its work and answers when nobody counts on that any more.
    Late,
}

const FAULTS: [Fault; 6] =
    [Fault::FailsBefore, Fault::FailsAfter, Fault::AnswerLost, Fault::Twice, Fault::Never, Fault::Late];

/// Longer than any call may take.
const LATE: Ms = 400_000;

impl Fault {
    /// Whether the call does its work.
    fn works(fault: Option<Self>) -> bool {
        !matches!(fault, Some(Self::FailsBefore | Self::Never))
    }
}

/// What goes on beside the calls.
#[derive(Debug, Clone, Copy)]
struct Scene {
    lists: bool,
    stop: Option<(Ms, Shutdown)>,
}

/// Something that will happen.
#[derive(Debug, Clone)]
enum Thing {
    Hear(Event),
    /// A reservation does its work.
    Appear(LeaseId),
    /// A release does.
    Vanish(LeaseId),
    /// Somebody looks whether anything is there, for the last time or not; whether he tells.
    Look {
        lease: LeaseId,
        last: bool,
        fault: Option<Fault>,
    },
    /// Nobody gets to the machine any more.
    Break(LeaseId),
    /// The provider takes a machine back, unless it was promised for longer.
    Expire(LeaseId),
}

/// How long a lease is.
const LEASE: Ms = 90_000;
/// This machine's connection breaks.
const BREAKS: LeaseId = 1;
/// This test has its machine reset.
const RESETS: TestId = 2;

fn plans() -> Vec<TestPlan> {
    [30_000, 70_000, 40_000, 20_000, 60_000]
        .map(|real| TestPlan { platform: 0, claim: 1, limit: 100_000, expected: real, past: Past::FRESH })
        .to_vec()
}

fn config() -> Config {
    let mut config = Config::simple(3, Shape::default());
    (config.pools[0].renews, config.pools[0].probes) = (true, true);
    config.pools[0].reserve_time = RESERVE_TIME;
    config.limits.renew_lead = 30_000;
    config.limits.setup_time = 50_000;
    config.limits.release_time = 30_000;
    config.spares = 1;
    config
}

/// One host process at its work.
struct Host<'a> {
    scene: Scene,
    coordinator: Coordinator,
    remains: Remains,
    queue: BTreeMap<(Ms, u64), Thing>,
    sequence: u64,
    /// Number of the call that goes wrong, and how.
    fault: Option<(u64, Fault)>,
    calls: u64,
    kinds: BTreeSet<&'static str>,
    /// Leases that the engine knows, and whether their reservation was answered.
    known: BTreeMap<LeaseId, bool>,
    running: BTreeMap<ExecutionId, LeaseId>,
    broken: BTreeSet<LeaseId>,
    /// Reservations that cannot be aborted.
    stubborn: BTreeSet<LeaseId>,
    expires: BTreeMap<LeaseId, Ms>,
    done: Option<u32>,
    /// What was on disk and at the provider when the host was last thought dead.
    seen: (u64, u64, usize),
    died: &'a mut dyn FnMut(&Remains),
}

impl<'a> Host<'a> {
    fn new(
        scene: Scene,
        remains: Remains,
        fault: Option<(u64, Fault)>,
        died: &'a mut dyn FnMut(&Remains),
    ) -> Self {
        let mut config = config();
        config.resume = Resume {
            first_lease: remains.books.next_lease(),
            first_execution: remains.next_execution,
            failed: 0,
        };
        let mut plans = plans();
        for test in remains.verdicts.keys() {
            plans[*test as usize].past = Past::Done;
        }
        let mut host = Self {
            scene,
            coordinator: Coordinator::new(config, &plans).unwrap(),
            remains,
            queue: BTreeMap::new(),
            sequence: 0,
            fault,
            calls: 0,
            kinds: BTreeSet::new(),
            known: BTreeMap::new(),
            running: BTreeMap::new(),
            broken: BTreeSet::new(),
            stubborn: BTreeSet::new(),
            expires: BTreeMap::new(),
            done: None,
            seen: (0, 0, 0),
            died,
        };
        if let Some((at, level)) = scene.stop {
            host.plan(at, Thing::Hear(Event::Stop { level, cause: Cause::Signal { signal: 2 } }));
        }
        host
    }

    fn run(&mut self) {
        // The coordinator's time begins with each session, that of the world goes on.
        let began = self.remains.now;
        self.hear(&Event::Tick, began);
        for _ in 0..5_000 {
            if self.done.is_some() {
                return;
            }
            let due = self.coordinator.next_deadline().map(|due| began + due);
            let first = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (first, due) {
                (Some(at), due) if due.is_none_or(|due| at <= due) => {
                    let ((at, _), thing) = self.queue.pop_first().unwrap();
                    self.remains.now = self.remains.now.max(at);
                    self.happen(thing, began);
                }
                (_, Some(due)) => {
                    self.remains.now = self.remains.now.max(due);
                    self.hear(&Event::Tick, began);
                }
                _ => return,
            }
        }
    }

    fn plan(&mut self, after: Ms, thing: Thing) {
        self.sequence += 1;
        self.queue.insert((self.remains.now + after, self.sequence), thing);
    }

    /// The host may die just now.
    fn moment(&mut self) {
        let seen = (self.remains.provider.version, self.remains.books.version, self.remains.verdicts.len());
        if seen != self.seen {
            self.seen = seen;
            (self.died)(&self.remains);
        }
    }

    /// As the engine does it: what is known is written down, then the coordinator hears of it; what it wants is written
    /// down, all of a step at once, then carried out.
    fn hear(&mut self, event: &Event, began: Ms) {
        let now = self.remains.now;
        if let Some((lease, mark)) = books::after(event).filter(|(lease, _)| self.known.contains_key(lease)) {
            self.remains.books.write(now - began, lease, mark);
            if mark == books::Mark::Released {
                self.remains.provider.told_gone.insert(lease);
            }
            if mark == books::Mark::Held {
                // Whoever has a machine in hand knows that it is there.
                self.remains.provider.told_gone.remove(&lease);
            }
            self.moment();
        }
        match *event {
            Event::Reserved { lease, .. } | Event::ReserveFailed { lease, .. } => {
                self.known.insert(lease, true);
            }
            Event::Finished { execution, .. }
            | Event::RunLost { execution }
            | Event::Cancelled { execution } => {
                self.running.remove(&execution);
            }
            _ => {}
        }
        let mut actions = vec![];
        self.coordinator.step(now - began, event.clone(), &mut actions);
        if let Event::Released { lease } | Event::Absent { lease } = *event
            && self.known.get(&lease) == Some(&true)
        {
            self.known.remove(&lease);
        }
        for action in &actions {
            if let Action::Reserve { lease, .. } = action {
                self.known.insert(*lease, false);
            }
            if let Some((lease, mark)) =
                books::before(action).filter(|(lease, _)| self.known.contains_key(lease))
            {
                self.remains.books.write(now - began, lease, mark);
            }
        }
        self.moment();
        for action in actions {
            self.act(&action, began);
            self.moment();
        }
    }

    fn happen(&mut self, thing: Thing, began: Ms) {
        match thing {
            Thing::Hear(event) => self.hear(&event, began),
            Thing::Appear(lease) => {
                if self.remains.provider.coming.contains(&lease) {
                    self.remains.provider.appear(lease);
                    self.promise(lease);
                }
            }
            Thing::Vanish(lease) => self.remains.provider.vanish(lease),
            Thing::Look { lease, last, fault } => self.look(lease, last, fault),
            Thing::Break(lease) => self.lose(lease, began),
            Thing::Expire(lease) => {
                if self.expires.get(&lease).is_some_and(|end| *end <= self.remains.now) {
                    self.remains.provider.vanish(lease);
                    self.lose(lease, began);
                }
            }
        }
        self.moment();
    }

    fn promise(&mut self, lease: LeaseId) {
        self.expires.insert(lease, self.remains.now + LEASE);
        self.plan(LEASE, Thing::Expire(lease));
    }

    /// Nobody gets to a machine any more: its tests are lost first.
    fn lose(&mut self, lease: LeaseId, began: Ms) {
        if !self.broken.insert(lease) {
            return;
        }
        let lost: Vec<_> =
            self.running.iter().filter(|(_, on)| **on == lease).map(|(execution, _)| *execution).collect();
        for execution in lost {
            self.hear(&Event::RunLost { execution }, began);
        }
        self.hear(&Event::Lost { lease }, began);
    }

    fn look(&mut self, lease: LeaseId, last: bool, fault: Option<Fault>) {
        let there = self.remains.provider.things.contains(&lease);
        if there {
            self.remains.provider.ask_release(lease);
            self.remains.provider.vanish(lease);
        }
        if last && !there {
            self.answer(0, fault, &Event::Absent { lease }, None);
        }
    }

    /// What a call tells: its answer, or that it failed, or nothing.
    fn answer(&mut self, after: Ms, fault: Option<Fault>, good: &Event, bad: Option<Event>) {
        match fault {
            None => self.plan(after, Thing::Hear(good.clone())),
            Some(Fault::Twice) => {
                self.plan(after, Thing::Hear(good.clone()));
                self.plan(after + 3_000, Thing::Hear(good.clone()));
            }
            Some(Fault::FailsBefore | Fault::FailsAfter) => {
                if let Some(bad) = bad {
                    self.plan(after, Thing::Hear(bad));
                }
            }
            Some(Fault::Late) => self.plan(after + LATE, Thing::Hear(good.clone())),
            Some(Fault::AnswerLost | Fault::Never) => {}
        }
    }

    /// Counts a call; says how it goes wrong.
    fn call(&mut self, kind: &'static str) -> Option<Fault> {
        self.calls += 1;
        self.kinds.insert(kind);
        self.fault.filter(|(at, _)| *at == self.calls).map(|(_, fault)| fault)
    }

    fn act(&mut self, action: &Action, began: Ms) {
        match *action {
            Action::Reserve { lease, .. } => self.reserve(lease, began),
            Action::Abort { lease } => self.abort(lease),
            Action::Confirm { lease } => self.confirm(lease),
            Action::Setup { lease, setup, .. } => self.set_up(lease, setup),
            Action::Renew { lease } => self.renew(lease, began),
            Action::Probe { lease } => {
                let fault = self.call("alive");
                let alive = Some(self.remains.provider.things.contains(&lease));
                self.answer(
                    1_000,
                    fault,
                    &Event::Probed { lease, alive },
                    Some(Event::Probed { lease, alive: None }),
                );
            }
            Action::Release { lease, .. } => self.release(lease),
            Action::Run { lease, execution, test, .. } => self.start(lease, execution, test),
            Action::Cancel { execution } => {
                let fault = self.call("cancel");
                if self.running.contains_key(&execution) {
                    let lost = Event::RunLost { execution };
                    self.answer(1_000, fault, &Event::Cancelled { execution }, Some(lost));
                }
            }
            Action::Verdict { test, .. } => *self.remains.verdicts.entry(test).or_default() += 1,
            Action::Done { uncertain } => self.done = Some(uncertain),
            _ => {}
        }
    }

    fn reserve(&mut self, lease: LeaseId, began: Ms) {
        let fault = self.call("reserve");
        // One that is late cannot be aborted either.
        let late = fault == Some(Fault::Late);
        let work = if late { 10_000 + LATE } else { 10_000 };
        if late {
            self.stubborn.insert(lease);
        }
        if Fault::works(fault) {
            self.remains.provider.version += 1;
            self.remains.provider.coming.insert(lease);
            self.plan(work, Thing::Appear(lease));
        }
        let expires = Some(self.remains.now - began + work + LEASE);
        let certain = fault == Some(Fault::FailsBefore);
        let failed = Event::ReserveFailed { lease, refusal: Refusal::Failed, certain };
        self.answer(10_000, fault, &Event::Reserved { lease, expires }, Some(failed));
        if lease == BREAKS {
            self.plan(45_000, Thing::Break(lease));
        }
    }

    /// Ends the reservation, if it still is one; that answers itself.
    fn abort(&mut self, lease: LeaseId) {
        let fault = self.call("abort");
        let pending = self.remains.provider.coming.contains(&lease);
        if !pending || !Fault::works(fault) || self.stubborn.contains(&lease) {
            return;
        }
        self.remains.provider.version += 1;
        self.remains.provider.coming.remove(&lease);
        self.queue.retain(
            |_, thing| !matches!(thing, Thing::Hear(Event::Reserved { lease: of, .. }) if *of == lease),
        );
        let failed = |certain| Event::ReserveFailed { lease, refusal: Refusal::Failed, certain };
        self.answer(1_000, fault, &failed(true), Some(failed(false)));
    }

    fn confirm(&mut self, lease: LeaseId) {
        let fault = self.call("list");
        if !self.scene.lists || !Fault::works(fault) {
            return;
        }
        for at in (0..SETTLE).step_by(100_000) {
            self.plan(at, Thing::Look { lease, last: false, fault });
        }
        self.plan(SETTLE, Thing::Look { lease, last: true, fault });
    }

    fn set_up(&mut self, lease: LeaseId, setup: u32) {
        let fault = self.call("setup");
        let failed = |lost| Event::SetupFailed { lease, setup, lost };
        if self.broken.contains(&lease) || !self.remains.provider.things.contains(&lease) {
            return self.plan(3_000, Thing::Hear(failed(true)));
        }
        self.plan(2_000, Thing::Hear(Event::Identified { lease, facts: Arc::default() }));
        self.answer(3_000, fault, &Event::SetUp { lease, setup }, Some(failed(false)));
    }

    fn renew(&mut self, lease: LeaseId, began: Ms) {
        let fault = self.call("renew");
        let there = self.remains.provider.things.contains(&lease);
        if there && Fault::works(fault) {
            self.promise(lease);
        }
        let expires = Some(self.remains.now - began + LEASE);
        let failed = Event::RenewFailed { lease, again: true };
        if there {
            self.answer(1_000, fault, &Event::Renewed { lease, expires }, Some(failed));
        } else {
            self.plan(1_000, Thing::Hear(failed));
        }
    }

    fn release(&mut self, lease: LeaseId) {
        let fault = self.call("release");
        self.remains.provider.ask_release(lease);
        let lost: Vec<_> =
            self.running.iter().filter(|(_, on)| **on == lease).map(|(execution, _)| *execution).collect();
        for execution in lost {
            self.running.remove(&execution);
        }
        if Fault::works(fault) {
            self.remains.provider.leaving.insert(lease);
            self.plan(2_000, Thing::Vanish(lease));
        }
        self.answer(2_000, fault, &Event::Released { lease }, Some(Event::ReleaseFailed { lease }));
    }

    fn start(&mut self, lease: LeaseId, execution: ExecutionId, test: TestId) {
        let fault = self.call("run");
        self.remains.next_execution = execution + 1;
        if self.broken.contains(&lease) {
            return self.plan(1_000, Thing::Hear(Event::RunLost { execution }));
        }
        self.running.insert(execution, lease);
        let mut real = plans()[test as usize].expected;
        if test == RESETS {
            self.plan(5_000, Thing::Hear(Event::Away { lease }));
            match self.call("reboot") {
                // The worker waits for an answer, which the engine gives it at the latest when the call's time is over.
                Some(Fault::FailsBefore | Fault::FailsAfter | Fault::AnswerLost | Fault::Never) => {
                    return self.plan(6_000, Thing::Break(lease));
                }
                Some(Fault::Twice | Fault::Late) | None => {
                    self.plan(9_000, Thing::Hear(Event::Back { lease }));
                }
            }
            real += 5_000;
        }
        let outcome = |outcome, exit| Event::Finished { execution, outcome, exit, status: "".into() };
        let bad = if fault == Some(Fault::FailsBefore) {
            outcome(Outcome::Failed, 1)
        } else {
            Event::RunLost { execution }
        };
        let after = if fault == Some(Fault::FailsBefore) { 1_000 } else { real };
        self.answer(after, fault, &outcome(Outcome::Passed, 0), Some(bad));
    }
}

fn complain(wrong: &[String], what: &dyn std::fmt::Debug) {
    assert!(wrong.is_empty(), "{what:?}: {}", wrong.join("; "));
}

/// One verdict for each test.
fn check_verdicts(remains: &Remains, what: &dyn std::fmt::Debug) {
    let all: BTreeMap<TestId, u32> = (0..plans().len() as TestId).map(|test| (test, 1)).collect();
    assert_eq!(remains.verdicts, all, "{what:?}: verdicts per test");
}

/// How often a dead host's run is resumed: each of so many times.
fn thinned(usual: u64) -> u64 {
    if std::env::var_os("ATEX_TRIALS").is_some() { 1 } else { usual }
}

/// Everything that may follow from the death of a host.
fn aftermath(scene: Scene, dead: &Remains, number: u64, what: &dyn std::fmt::Debug) {
    complain(&dead.check(), what);
    for fate in [false, true] {
        let mut whole = dead.clone();
        complain(&whole.free(fate), what);
        // A gc that dies as well, after each of its steps, and another one after it.
        let steps = dead.clone().books.collect(&mut dead.provider.clone(), dead.now, usize::MAX);
        for step in 0..steps {
            let mut cut = dead.clone();
            cut.books.collect(&mut cut.provider, cut.now, step);
            complain(&cut.free(fate), what);
        }
        if number.is_multiple_of(thinned(23)) {
            whole.provider.told_gone.clear();
            let before = whole.books.open();
            let mut nobody = |_: &Remains| {};
            let mut resumed = Host::new(Scene { stop: None, ..scene }, whole, None, &mut nobody);
            resumed.run();
            assert_eq!(resumed.done, Some(0), "{what:?}: resumed");
            check_verdicts(&resumed.remains, what);
            complain(&resumed.remains.check(), what);
            assert_eq!(resumed.remains.books.open(), before, "{what:?}: resumed");
        }
    }
}

/// Runs to the end with one fault, and looks at every moment of it. Returns the calls there were, their kinds, and deaths.
fn trial(scene: Scene, fault: Option<(u64, Fault)>) -> (u64, BTreeSet<&'static str>, u64) {
    let what = (scene, fault);
    let mut deaths = 0;
    let mut died = |remains: &Remains| {
        deaths += 1;
        aftermath(scene, remains, deaths, &what);
    };
    let remains =
        Remains { provider: Provider { lists: scene.lists, ..Provider::default() }, ..Remains::default() };
    let mut host = Host::new(scene, remains, fault, &mut died);
    host.run();
    let (calls, kinds) = (host.calls, std::mem::take(&mut host.kinds));
    let uncertain = host.done.unwrap_or_else(|| panic!("{what:?}: it did not end"));
    let remains = std::mem::take(&mut host.remains);
    check_verdicts(&remains, &what);
    complain(&remains.check(), &what);
    let left = scene.stop.is_some_and(|(_, level)| level == Shutdown::Leave);
    let told = uncertain as usize == remains.books.open();
    assert!(told || left, "{what:?}: {uncertain} uncertain, {} open in the ledger", remains.books.open());
    if fault.is_none() && !left {
        assert_eq!((uncertain, remains.provider.things.len()), (0, 0), "{what:?}");
    }
    (calls, kinds, deaths)
}

fn scenes() -> Vec<Scene> {
    let stops = [
        None,
        Some((52_000, Shutdown::Finish)),
        Some((52_000, Shutdown::Release)),
        Some((8_000, Shutdown::Finish)),
        Some((52_000, Shutdown::Leave)),
    ];
    let scene = |lists| move |stop| Scene { lists, stop };
    stops.map(scene(true)).into_iter().chain(stops.map(scene(false))).collect()
}

#[test]
fn every_call_goes_wrong_in_every_way_and_the_host_dies_at_every_moment() {
    let (mut kinds, mut trials, mut deaths) = (BTreeSet::new(), 0, 0);
    for scene in scenes() {
        let (usual, ..) = trial(scene, None);
        for call in 1..=usual + 3 {
            for fault in FAULTS {
                let (_, seen, died) = trial(scene, Some((call, fault)));
                kinds.extend(seen);
                (trials, deaths) = (trials + 1, deaths + died);
            }
        }
    }
    println!("{trials} trials, {deaths} deaths");
    let all = ["abort", "alive", "cancel", "list", "reboot", "release", "renew", "reserve", "run", "setup"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all, "a kind of call that never happens");
    assert!(deaths > 10_000, "too little happens: {deaths}");
}
