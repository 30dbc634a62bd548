//! Whole runs with a known outcome.

use atex_plugin_api::policy::Policy;

use super::watch::{Meddling, Watch};
use crate::core::config::{Config, TestPlan};
use crate::core::simulate::{Outcomes, Synthetic, SyntheticTest, Truth, World, bound, simulate};
use crate::core::testing::{self, Longest, Priority, Reruns};
use crate::core::verdict::Verdict;

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
    assert!(outcomes.verdicts.iter().flatten().all(Verdict::passed));
    let least = bound(tests.iter().map(|test| test.truth), 1000, world.startup);
    assert!(outcomes.makespan < 2 * least, "{} ms, at least {least}", outcomes.makespan);
    assert_eq!((outcomes.uncertain, outcomes.peak), (0, 1000));
}

#[test]
fn no_policies_at_all() {
    let tests = Synthetic { flaky: 0, ..Synthetic::new(100, 3) }.make();
    let outcomes = run(&tests, vec![], |config| config.pools[0].max = 10, &World::default());
    assert!(outcomes.verdicts.iter().flatten().all(Verdict::passed));
    assert_eq!(outcomes.runs, 100);
}
