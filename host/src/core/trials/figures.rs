//! Figures for the documentation: how decisions scale, and how close schedules come to what is possible.
//!
//! They take minutes and mean something only with optimisation, so they are ignored by default:
//!
//! ```text
//! cargo test --release -p atex-host --lib figures::scale -- --ignored --nocapture --exact core::trials::figures::scale
//! ```

use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::Policy;

use crate::core::config::{Config, Platform, Pool};
use crate::core::simulate::{
    Durations, Outcomes, Synthetic, SyntheticTest, World, bound, cpu_time, simulate,
};
use crate::core::testing::{
    self, Affinity, ByKind, Destructive, Exclusive, Fitness, Longest, Priority, Reruns, TimeLimit,
};

fn chain(names: &str) -> Vec<Box<dyn Policy>> {
    let policy = |name| -> Box<dyn Policy> {
        match name {
            "reruns" => Box::new(Reruns::new(1, false)),
            "elsewhere" => Box::new(Reruns::new(1, true)),
            "priority" => Box::new(Priority::new()),
            "duration" => Box::new(Longest::new(true)),
            "limits" => Box::new(Longest::new(false)),
            "destructive" => Box::new(Destructive::default()),
            "affinity" => Box::new(Affinity::default()),
            "exclusive" => Box::new(Exclusive::default()),
            "timelimit" => Box::new(TimeLimit::new(1 << 50)),
            "fitness" => Box::new(Fitness { seed: 1, window: 256 }),
            "samekinds" => Box::new(ByKind { from: u32::MAX, veto: false }),
            "kinds" => Box::new(ByKind { from: 0, veto: false }),
            other => panic!("no policy {other}"),
        }
    };
    names.split('+').filter(|name| !name.is_empty()).map(policy).collect()
}

/// The most memory this process ever used, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0u64) / 1024
}

/// One row: `ATEX_ROW="tests machines chain groups slots platforms kinds"`.
#[test]
#[ignore = "a figure, not a check"]
fn scale() {
    let row = std::env::var("ATEX_ROW").unwrap_or("10000 1000 reruns+priority+duration 0 1 1 1".into());
    let words: Vec<&str> = row.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let (count, machines, names, groups) = (number(0) as u32, number(1) as u32, words[2], number(3));
    let (slots, platforms, kinds) = (number(4) as u16, number(5) as u16, number(6));
    let tests = Synthetic { failing: 20, platforms, ..Synthetic::new(count, 7) }.make();
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let before = cpu_time();
    let ready = testing::ready(chain(names), &tests, groups, 1);
    let registered = cpu_time() - before;
    let mut config = Config::simple(machines, ready.chain.shape());
    config.platforms = vec![Platform { chain: 0 }; platforms.into()];
    config.pools = vec![Pool { slots, ..Pool::new(machines, platforms) }];
    config.pools[0].serves.iter_mut().for_each(|served| served.flavour = 0);
    let model = |kind: u64| Arc::new(Facts::from([("model".to_owned(), kind.to_string())]));
    let world = World { facts: (0..kinds).map(model).collect(), ..World::default() };
    let outcomes = simulate(config, &plans, &truths, &mut [ready], &world, &mut ()).unwrap();
    assert!(outcomes.done && outcomes.verdict_count() == plans.len());
    let micros = outcomes.cpu.as_secs_f64() * 1e6 / outcomes.decisions as f64;
    println!(
        "| {count} | {machines} | {names} | {groups} | {slots} | {platforms} | {kinds} | {} | {micros:.2} | {:.2} | {:.2} | {} |",
        outcomes.decisions,
        registered.as_secs_f64(),
        outcomes.cpu.as_secs_f64(),
        peak_memory(),
    );
}

fn run(tests: &[SyntheticTest], names: &str, machines: u32, spares: u32, world: &World) -> Outcomes {
    let ready = testing::ready(chain(names), tests, 0, 1);
    let mut config = Config::simple(machines, ready.chain.shape());
    (config.spares, config.seed) = (spares, world.seed);
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let outcomes = simulate(config, &plans, &truths, &mut [ready], world, &mut ()).unwrap();
    assert!(outcomes.done && outcomes.verdict_count() == tests.len());
    outcomes
}
