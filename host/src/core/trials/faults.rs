//! Single faults, all of them: every answer lost, repeated, late; every event that could ever come, at every moment.
//!
//! The watch's promises must hold, and the run must end by itself.

use std::sync::Arc;

use atex_plugin_api::policy::{Policy, WHOLE_MACHINE};

use super::watch::{Meddling, Watch};
use crate::core::config::{Config, Past, TestPlan};
use crate::core::event::{
    Action, Command, Event, Ms, Outcome, Prefer, Rank, Refusal, Ruling, Shutdown, Wish,
};
use crate::core::simulate::{Observer, Outcomes, SyntheticTest, Truth, World, simulate};
use crate::core::testing::{self, Destructive, Longest, Reruns};
use crate::core::verdict::Cause;

/// One thing that goes wrong.
#[derive(Debug, Clone)]
enum Fault {
    None,
    /// The answer of this number arrives after these delays instead.
    Answer(u64, [Option<Ms>; 2]),
    /// This event intrudes after so many others.
    Intruder(u64, Event),
}

struct Meddler<'a> {
    watch: Watch<'a>,
    fault: Fault,
    answers: u64,
    events: u64,
}

impl Observer for Meddler<'_> {
    fn event(&mut self, now: Ms, event: &Event) {
        self.watch.event(now, event);
    }
    fn action(&mut self, now: Ms, action: &Action) {
        self.watch.action(now, action);
    }
    fn intrude(&mut self) -> Option<Event> {
        self.events += 1;
        match &self.fault {
            Fault::Intruder(at, event) if *at == self.events => Some(event.clone()),
            _ => None,
        }
    }
    fn deliveries(&mut self, _answer: &Event) -> [Option<Ms>; 2] {
        self.answers += 1;
        match &self.fault {
            Fault::Answer(at, delays) if *at == self.answers => *delays,
            _ => [Some(0), None],
        }
    }
}

/// Five tests on two machines of two slots: one wide, one that fails once, one that spoils its machine.
fn scenario() -> Vec<SyntheticTest> {
    let test = |real, claim, fails, destructive| SyntheticTest {
        plan: TestPlan { platform: 0, claim, limit: 100_000, expected: real, past: Past::FRESH },
        truth: Truth { real, fails },
        fail_rate: 0,
        priority: 0,
        destructive,
    };
    vec![
        test(30_000, 1, 0, false),
        test(20_000, WHOLE_MACHINE, 0, false),
        test(25_000, 1, 1, false),
        test(10_000, 1, 0, true),
        test(5_000, 1, 0, false),
    ]
}

struct Ran {
    outcomes: Outcomes,
    complaints: Vec<String>,
    answers: u64,
    events: u64,
}

fn run(fault: &Fault) -> Ran {
    let tests = scenario();
    let policies: Vec<Box<dyn Policy>> =
        vec![Box::new(Reruns::new(1, true)), Box::new(Destructive::default()), Box::new(Longest::new(true))];
    let ready = testing::ready(policies, &tests, 0, 1);
    let mut config = Config::simple(2, ready.chain.shape());
    config.pools[0].slots = 2;
    config.pools[0].reserve_time = 200_000;
    config.limits.setup_time = 50_000;
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let watch = Watch::new(&config, &plans, Meddling::default());
    let mut meddler = Meddler { watch, fault: fault.clone(), answers: 0, events: 0 };
    let world = World { setup: 2_000, ..World::default() };
    let outcomes = simulate(config.clone(), &plans, &truths, &mut [ready], &world, &mut meddler).unwrap();
    Ran { outcomes, complaints: meddler.watch.complaints, answers: meddler.answers, events: meddler.events }
}

fn check(fault: &Fault) -> Ran {
    let ran = run(fault);
    assert_eq!(ran.complaints, Vec::<String>::new(), "{fault:?}");
    assert!(ran.outcomes.done, "{fault:?}: it did not end");
    ran
}

#[test]
fn every_answer_lost_repeated_or_late() {
    let usual = check(&Fault::None);
    assert_eq!(usual.outcomes.passed, usual.outcomes.verdicts);
    assert!(usual.answers > 25, "too little happens: {}", usual.answers);
    let faults = [
        [None, None],
        [Some(0), Some(0)],
        [Some(0), Some(150_000)],
        [Some(3_000), None],
        [Some(400_000), None],
    ];
    for at in 1..=usual.answers {
        for delays in faults {
            let ran = check(&Fault::Answer(at, delays));
            // One fault costs at most the rerun of one test: if no opinion on it came, it stays failed.
            assert!(ran.outcomes.passed >= 4, "answer {at} at {delays:?}: {}", ran.outcomes.passed);
        }
    }
}

/// Everything that could be heard, about numbers that mean something at some time and others that never do.
fn intruders() -> Vec<Event> {
    let status: Arc<str> = "pass".into();
    let mut all = vec![
        Event::Tick,
        Event::Ranked { ask: 1, ranks: vec![], differ: vec![7] },
        Event::Ranked { ask: 99_999, ranks: vec![Rank::default()], differ: vec![] },
        Event::Commands { chain: 9, commands: vec![(0, Command::Stop("other chain".into()))] },
        Event::Commands {
            chain: 0,
            commands: vec![(0, Command::Skip(77, "unknown".into())), (9, Command::WakeAt(1))],
        },
        Event::Commands { chain: 0, commands: (0..5).map(|test| (0, Command::Rerank(test))).collect() },
    ];
    all.extend(
        [Shutdown::Finish, Shutdown::Release, Shutdown::Leave]
            .map(|level| Event::Stop { level, cause: Cause::Signal { signal: 15 } }),
    );
    for lease in [0, 1, 2, u32::MAX] {
        all.extend([
            Event::Reserved { lease, expires: Some(1) },
            Event::Identified { lease, facts: Arc::default() },
            Event::SetUp { lease, setup: 1 },
            Event::SetupFailed { lease, setup: 1, lost: false },
            Event::SetupFailed { lease, setup: 1, lost: true },
            Event::SetupFailed { lease, setup: 0, lost: true },
            Event::Label { lease, key: "k".into(), value: "v".into() },
            Event::Lost { lease },
            Event::Renewed { lease, expires: None },
            Event::RenewFailed { lease, again: true },
            Event::Away { lease },
            Event::Back { lease },
            Event::Probed { lease, alive: Some(false) },
            Event::Probed { lease, alive: None },
            Event::Released { lease },
            Event::ReleaseFailed { lease },
            Event::Absent { lease },
            Event::Preferred { lease, ask: 1, wishes: vec![] },
            Event::Preferred {
                lease,
                ask: 2,
                wishes: vec![Wish { level: 900, prefer: Prefer::Class(1, 1) }],
            },
        ]);
        for refusal in [Refusal::Busy, Refusal::Failed, Refusal::Final] {
            all.extend([true, false].map(|certain| Event::ReserveFailed { lease, refusal, certain }));
        }
    }
    for execution in [0, 1, 4, u64::MAX] {
        let status = status.clone();
        all.extend([
            Event::Finished { execution, outcome: Outcome::Protocol, exit: 1, status },
            Event::Cancelled { execution },
            Event::RunLost { execution },
            Event::Extended { execution, until: None },
            Event::Extended { execution, until: Some(0) },
            Event::Judged { execution, ruling: Ruling { stop: Some(1), ..Ruling::NONE } },
            Event::Judged { execution, ruling: Ruling { rerun: Some(true), ..Ruling::NONE } },
        ]);
    }
    all
}

#[test]
fn every_event_at_every_moment() {
    let usual = check(&Fault::None);
    for event in intruders() {
        for at in 1..=usual.events {
            check(&Fault::Intruder(at, event.clone()));
        }
    }
}
