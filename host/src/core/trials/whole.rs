//! Whole runs with a known outcome.

use std::collections::BTreeMap;

use atex_plugin_api::policy::{Policy, WHOLE_MACHINE};
use proptest::prelude::*;

use super::watch::{Meddling, Watch};
use crate::core::config::{Config, Past, Platform, Pool, Shape, TestPlan};
use crate::core::coordinator::Coordinator;
use crate::core::event::{Action, Event, Ms, TestId};
use crate::core::simulate::{Observer, Outcomes, Synthetic, SyntheticTest, Truth, World, bound, simulate};
use crate::core::testing::{self, Longest, Priority, Reruns};

fn plans(tests: &[SyntheticTest]) -> (Vec<TestPlan>, Vec<Truth>) {
    tests.iter().map(|test| (test.plan, test.truth)).unzip()
}

/// Runs to the end under watch, without any meddling.
pub(super) fn run(
    tests: &[SyntheticTest],
    policies: Vec<Box<dyn Policy>>,
    change: impl FnOnce(&mut Config),
    world: &World,
) -> Outcomes {
    let ready = testing::ready(policies, tests, 0, world.seed);
    let mut config = Config::simple(1, ready.chain.shape());
    change(&mut config);
    let (plans, truths) = plans(tests);
    let mut watch = Watch::new(&config, &plans, Meddling::default());
    let outcomes = simulate(config.clone(), &plans, &truths, &mut [ready], world, &mut watch).unwrap();
    assert_eq!(watch.complaints, Vec::<String>::new());
    assert!(outcomes.done, "it did not end: {outcomes:?}");
    outcomes
}

#[test]
fn ten_thousand_tests_on_a_thousand_machines() {
    let tests = Synthetic::new(10_000, 7).make();
    let policies: Vec<Box<dyn Policy>> =
        vec![Box::new(Reruns::new(1, false)), Box::new(Priority::new()), Box::new(Longest::new(true))];
    let world = World { reserve_failures: 50, deaths: 50, ..World::default() };
    let outcomes = run(&tests, policies, |config| config.pools[0].max = 1000, &world);
    assert_eq!(outcomes.passed, tests.len());
    let least = bound(tests.iter().map(|test| test.truth), 1000, world.startup);
    assert!(outcomes.makespan < 2 * least, "{} ms, at least {least}", outcomes.makespan);
    assert_eq!((outcomes.uncertain, outcomes.peak), (0, 1000));
}

/// When each test first started.
#[derive(Default)]
struct Starts(BTreeMap<TestId, Ms>);

impl Observer for Starts {
    fn action(&mut self, now: Ms, action: &Action) {
        if let Action::Run { test, .. } = action {
            self.0.entry(*test).or_insert(now);
        }
    }
}

fn synthetic(platform: u16, real: Ms, claim: u16) -> SyntheticTest {
    SyntheticTest {
        plan: TestPlan { platform, claim, limit: 200_000, expected: real, past: Past::FRESH },
        truth: Truth { real, fails: 0 },
        fail_rate: 0,
        priority: 0,
        destructive: false,
    }
}

fn starts(tests: &[SyntheticTest], config: &Config) -> BTreeMap<TestId, Ms> {
    let (plans, truths) = plans(tests);
    let mut starts = Starts::default();
    let world = World { startup: 1_000, ..World::default() };
    let outcomes = simulate(config.clone(), &plans, &truths, &mut [], &world, &mut starts).unwrap();
    assert!(outcomes.done && outcomes.verdicts == tests.len());
    starts.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Once everything before it has started, no test waits longer than what runs just then takes: however many narrow ones
    /// come after a wide one.
    #[test]
    fn nobody_starves_not_even_for_the_whole_machine(
        slots in 1..6_u16,
        machines in 1..5_u32,
        tests in proptest::collection::vec((1..100_000_u64, prop_oneof![4 => 1..4_u16, 1 => Just(WHOLE_MACHINE)]), 1..120),
    ) {
        let tests: Vec<_> = tests.into_iter().map(|(real, claim)| synthetic(0, real, claim)).collect();
        let mut config = Config::simple(machines, Shape::default());
        config.pools[0].slots = slots;
        let starts = starts(&tests, &config);
        let longest = tests.iter().map(|test| test.truth.real).max().unwrap_or(0);
        let mut before = 0;
        for (test, at) in &starts {
            prop_assert!(*at <= before + longest + 5_000, "test {} waited {} ms", test, at - before);
            before = before.max(*at);
        }
    }
}

#[test]
fn platforms_share_a_pool_by_their_work_and_none_goes_without() {
    let count = |actions: &[Action], of| {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Reserve { platform, .. } if *platform == of))
            .count()
    };
    let asked = |work: [(u32, Ms); 3], machines| {
        let tests: Vec<TestPlan> = (0..3)
            .flat_map(|platform| {
                let (tests, real) = work[usize::from(platform)];
                (0..tests).map(move |_| synthetic(platform, real, 1).plan)
            })
            .collect();
        let mut config = Config::simple(machines, Shape::default());
        config.platforms = vec![Platform { chain: 0 }; 3];
        config.pools = vec![Pool::new(machines, 3)];
        let mut actions = vec![];
        Coordinator::new(config, &tests).unwrap().step(0, Event::Tick, &mut actions);
        [0, 1, 2].map(|platform| count(&actions, platform))
    };
    assert_eq!(asked([(100, 60_000); 3], 12), [4, 4, 4]);
    assert_eq!(asked([(100, 60_000), (200, 60_000), (100, 60_000)], 12), [3, 6, 3]);
    // The same number of tests, but longer ones.
    assert_eq!(asked([(100, 60_000), (100, 120_000), (100, 60_000)], 12), [3, 6, 3]);
    assert_eq!(asked([(10_000, 60_000), (10_000, 60_000), (1, 1_000)], 5), [2, 2, 1]);
}

#[test]
fn no_policies_at_all() {
    let tests = Synthetic { flaky: 0, ..Synthetic::new(100, 3) }.make();
    let outcomes = run(&tests, vec![], |config| config.pools[0].max = 10, &World::default());
    assert_eq!(outcomes.passed, tests.len());
    assert_eq!(outcomes.runs, 100);
}
