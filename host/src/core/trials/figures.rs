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
    let tests = Synthetic { failing: 20, flaky: 0, platforms, ..Synthetic::new(count, 7) }.make();
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let before = cpu_time();
    let ready = testing::ready(chain(names), &tests, groups, 1);
    let registered = cpu_time().saturating_sub(before);
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

/// Makespan over the bound, for one workload.
struct Set {
    durations: Durations,
    tests: u32,
    machines: u32,
}

const SETS: [Set; 10] = {
    use Durations::{Bimodal, LogNormal};
    [
        Set { durations: LogNormal, tests: 50, machines: 3 },
        Set { durations: LogNormal, tests: 200, machines: 10 },
        Set { durations: LogNormal, tests: 1000, machines: 20 },
        Set { durations: LogNormal, tests: 1000, machines: 100 },
        Set { durations: LogNormal, tests: 5000, machines: 50 },
        Set { durations: LogNormal, tests: 5000, machines: 200 },
        Set { durations: Bimodal, tests: 50, machines: 5 },
        Set { durations: Bimodal, tests: 500, machines: 20 },
        Set { durations: Bimodal, tests: 2000, machines: 100 },
        Set { durations: Bimodal, tests: 5000, machines: 200 },
    ]
};

/// What goes wrong in a world.
#[derive(Clone, Copy)]
struct Faults {
    title: &'static str,
    machines: u64,
    flaky: u64,
    failing: u64,
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { f64::midpoint(numbers[middle - 1], numbers[middle]) }
}

/// The columns of one row and seed.
fn columns(set: &Set, faults: Faults, seed: u64) -> Vec<f64> {
    let make = |history_error| {
        Synthetic {
            tests: set.tests,
            durations: set.durations,
            history_error,
            failing: faults.failing,
            flaky: faults.flaky,
            platforms: 1,
            seed: 1000 + seed,
        }
        .make()
    };
    let exact = make(Some(0.0));
    let least = bound(exact.iter().map(|test| test.truth), set.machines, 60_000) as f64;
    let (deaths, life) = (faults.machines, least as u64);
    let world = World { seed, reserve_failures: faults.machines, deaths, life, ..World::default() };
    let ratio = |tests: &[SyntheticTest], names: &str| {
        run(tests, names, set.machines, 0, &world).makespan as f64 / least
    };
    let mut blind = make(Some(0.2));
    for test in &mut blind {
        test.fail_rate = 0;
    }
    vec![
        ratio(&exact, "reruns+duration"),
        ratio(&make(Some(0.2)), "reruns+duration"),
        ratio(&blind, "reruns+duration"),
        ratio(&make(Some(0.5)), "reruns+duration"),
        ratio(&make(None), "reruns+limits"),
        ratio(&exact, "reruns"),
        slices(&exact, set.machines, &world) as f64 / least,
    ]
}

/// One machine of a fixed part of the list, replaced when it fails.
struct Sliced<'a> {
    world: &'a World,
    dice: u64,
    now: u64,
    dies: u64,
}

impl Sliced<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = crate::core::mix(self.dice);
        self.dice % sides
    }

    fn boot(&mut self) {
        self.now += self.world.startup;
        while self.roll(1000) < self.world.reserve_failures {
            self.now += self.world.startup + 5_000;
        }
        let mortal = self.roll(1000) < self.world.deaths;
        self.dies = if mortal { self.now + self.roll(self.world.life) } else { u64::MAX };
    }

    fn run(&mut self, real: u64) {
        while self.now + real > self.dies {
            self.now = self.now.max(self.dies);
            self.boot();
        }
        self.now += real;
    }
}

/// The list cut into one part per machine beforehand; a test that failed runs again on a new machine.
fn slices(tests: &[SyntheticTest], machines: u32, world: &World) -> u64 {
    let bounds = |machine: usize| tests.len() * machine / machines as usize;
    let part = |machine: usize| {
        let dice = world.seed ^ crate::core::mix(machine as u64);
        let mut it = Sliced { world, dice, now: 0, dies: u64::MAX };
        it.boot();
        for test in &tests[bounds(machine)..bounds(machine + 1)] {
            it.run(test.truth.real);
            for _ in 0..test.truth.fails {
                it.boot();
                it.run(test.truth.real);
            }
        }
        it.now
    };
    (0..machines as usize).map(part).max().unwrap_or(0)
}

#[test]
#[ignore = "a figure, not a check"]
fn makespan() {
    let worlds = [
        Faults { title: "no faults", machines: 0, flaky: 0, failing: 0 },
        Faults { title: "3 % reruns", machines: 0, flaky: 60, failing: 0 },
        Faults { title: "5 % of machines fail", machines: 50, flaky: 0, failing: 0 },
        Faults { title: "5 % of machines fail, 3 % reruns", machines: 50, flaky: 60, failing: 0 },
        Faults {
            title: "5 % of machines fail, 3 % reruns that nothing announces",
            machines: 50,
            flaky: 0,
            failing: 30,
        },
    ];
    for faults in worlds {
        println!("\n{}: makespan / bound, median of 9 seeds\n", faults.title);
        println!(
            "| durations | tests | machines | exact | history 20 % | without fail rates | history 50 % | limits | first-come | slices |"
        );
        println!("|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        let mut all: Vec<Vec<f64>> = vec![vec![]; 7];
        for set in &SETS {
            let rows: Vec<Vec<f64>> = (0..9).map(|seed| columns(set, faults, seed)).collect();
            print!("| {:?} | {} | {} |", set.durations, set.tests, set.machines);
            for (column, all) in all.iter_mut().enumerate() {
                let middle = median(rows.iter().map(|row| row[column]).collect());
                all.push(middle);
                print!(" {middle:.3} |");
            }
            println!();
        }
        print!("| median | | |");
        for column in all {
            print!(" {:.3} |", median(column));
        }
        println!();
    }
}
