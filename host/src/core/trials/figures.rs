//! Figures for the documentation: how decisions scale, and how close schedules come to what is possible.
//!
//! They take minutes and mean something only with optimisation, so tests leave them out: `cargo xtask figures` makes them.

use std::collections::HashMap;
use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::Policy;

use crate::core::config::{Config, Platform, Pool};
use crate::core::event::{Action, Event, ExecutionId, LeaseId, TestId};
use crate::core::simulate::{
    Durations, Observer, Outcomes, Synthetic, SyntheticTest, World, bound, cpu_time, simulate,
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
    assert!(outcomes.done && outcomes.verdicts == plans.len());
    let micros = outcomes.cpu.as_secs_f64() * 1e6 / outcomes.decisions as f64;
    println!(
        "| {count} | {machines} | {names} | {groups} | {slots} | {platforms} | {kinds} | {} | {micros:.2} | {:.2} | {:.2} | {} |",
        outcomes.decisions,
        registered.as_secs_f64(),
        outcomes.cpu.as_secs_f64(),
        peak_memory(),
    );
}

fn run_watched(
    tests: &[SyntheticTest],
    names: &str,
    machines: u32,
    world: &World,
    observer: &mut dyn Observer,
) -> Outcomes {
    let ready = testing::ready(chain(names), tests, 0, 1);
    let mut config = Config::simple(machines, ready.chain.shape());
    config.seed = world.seed;
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let outcomes = simulate(config, &plans, &truths, &mut [ready], world, observer).unwrap();
    assert!(outcomes.done && outcomes.verdicts == tests.len());
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

const FAULTS: [Faults; 5] = [
    Faults { title: "no faults", machines: 0, flaky: 0, failing: 0 },
    Faults { title: "3 % reruns", machines: 0, flaky: 60, failing: 0 },
    Faults { title: "5 % of reservations fail, 5 % of machines die", machines: 50, flaky: 0, failing: 0 },
    Faults {
        title: "5 % of reservations fail, 5 % of machines die, 3 % reruns",
        machines: 50,
        flaky: 60,
        failing: 0,
    },
    Faults {
        title: "5 % of reservations fail, 5 % of machines die, 3 % reruns that nothing announces",
        machines: 50,
        flaky: 0,
        failing: 30,
    },
];

/// Medians are over so many.
const SEEDS: u64 = 31;

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { f64::midpoint(numbers[middle - 1], numbers[middle]) }
}

/// What was lost with machines that died, and what that makes impossible.
#[derive(Default)]
struct Losses<'a> {
    tests: &'a [SyntheticTest],
    running: HashMap<LeaseId, (ExecutionId, TestId, u16)>,
    /// No schedule whatsoever ends earlier once this was lost: a test that dies with its machine needs its whole time anew.
    earliest_end: u64,
}

impl Observer for Losses<'_> {
    fn action(&mut self, _now: u64, action: &Action) {
        if let Action::Run { lease, execution, test, attempt, .. } = action {
            self.running.insert(*lease, (*execution, *test, *attempt));
        }
    }
    fn event(&mut self, now: u64, event: &Event) {
        if let Event::Finished { execution, .. } = event {
            self.running.retain(|_, (running, ..)| running != execution);
        }
        let Event::Lost { lease } = event else { return };
        let Some((_, test, attempt)) = self.running.remove(lease) else { return };
        let truth = self.tests[test as usize].truth;
        let left = truth.real * u64::from(1 + truth.fails.saturating_sub(attempt));
        self.earliest_end = self.earliest_end.max(now + left);
    }
}

/// A set and a seed: its tests with all known, the bound, and the world they run in.
struct Trial<'a> {
    set: &'a Set,
    faults: Faults,
    seed: u64,
    exact: Vec<SyntheticTest>,
    bound: u64,
    world: World,
}

impl<'a> Trial<'a> {
    fn new(set: &'a Set, faults: Faults, seed: u64) -> Self {
        let exact = workload(set, faults, seed, Some(0.0));
        let bound = bound(exact.iter().map(|test| test.truth), set.machines, 60_000);
        let (deaths, life) = (faults.machines, bound);
        let world = World { seed, reserve_failures: faults.machines, deaths, life, ..World::default() };
        Self { set, faults, seed, exact, bound, world }
    }

    fn tests(&self, history_error: Option<f64>) -> Vec<SyntheticTest> {
        workload(self.set, self.faults, self.seed, history_error)
    }

    /// Makespan over the bound, and over the bound with what was lost on the way.
    fn both(&self, tests: &[SyntheticTest], names: &str) -> [f64; 2] {
        let mut losses = Losses { tests, ..Losses::default() };
        let outcomes = run_watched(tests, names, self.set.machines, &self.world, &mut losses);
        let executed = outcomes.busy as u64 / u64::from(self.set.machines) + self.world.startup;
        let crowded = crowded(tests, self.set.machines) + self.world.startup;
        let with_losses = self.bound.max(executed).max(losses.earliest_end).max(crowded);
        [self.bound, with_losses].map(|bound| outcomes.makespan as f64 / bound as f64)
    }

    fn ratio(&self, tests: &[SyntheticTest], names: &str) -> f64 {
        self.both(tests, names)[0]
    }
}

/// Of the `k * machines + 1` longest runs some machine gets `k + 1`: the shortest of these add up to what it takes at least.
fn crowded(tests: &[SyntheticTest], machines: u32) -> u64 {
    let truths = tests.iter().map(|test| test.truth);
    let mut runs: Vec<u64> =
        truths.flat_map(|truth| std::iter::repeat_n(truth.real, 1 + usize::from(truth.fails))).collect();
    runs.sort_unstable_by(|a, b| b.cmp(a));
    let machines = machines as usize;
    let rounds = runs.len().saturating_sub(1) / machines;
    (1..=rounds)
        .map(|round| runs[round * machines - round..=round * machines].iter().sum())
        .max()
        .unwrap_or(0)
}

fn workload(set: &Set, faults: Faults, seed: u64, history_error: Option<f64>) -> Vec<SyntheticTest> {
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

/// A table with a row per set: medians over the seeds of what `columns` says, and the median over the sets.
fn table(faults: Faults, titles: &[&str], columns: impl Fn(&Trial<'_>) -> Vec<f64>) {
    println!("\n{}\n", faults.title);
    println!("| durations | tests | machines | {} |", titles.join(" | "));
    println!("|:--|--:|--:|{}", "--:|".repeat(titles.len()));
    let mut all: Vec<Vec<f64>> = vec![vec![]; titles.len()];
    for set in &SETS {
        let rows: Vec<Vec<f64>> = (0..SEEDS).map(|seed| columns(&Trial::new(set, faults, seed))).collect();
        print!("| {:?} | {} | {} |", set.durations, set.tests, set.machines);
        for (column, all) in all.iter_mut().enumerate() {
            let middle = median(rows.iter().map(|row| row[column]).collect());
            all.push(middle);
            print!(" {middle:.3} |");
        }
        println!();
    }
    let medians: Vec<String> = all.into_iter().map(|column| format!("{:.3}", median(column))).collect();
    println!("| median | | | {} |", medians.join(" | "));
}

/// Makespan over what is possible, beside what simpler ways make of it.
#[test]
#[ignore = "a figure, not a check"]
fn makespan() {
    let titles = [
        "atex-host",
        "the same, over the bound with losses",
        "longest by metadata",
        "first-come",
        "N/M slices",
    ];
    table(FAULTS[3], &titles, |trial| {
        let [plain, with_losses] = trial.both(&trial.tests(Some(0.2)), "reruns+duration");
        let metadata = trial.ratio(&trial.tests(None), "reruns+limits");
        let first_come = trial.ratio(&trial.exact, "reruns");
        let slices = slices(&trial.exact, trial.set.machines, &trial.world) as f64 / trial.bound as f64;
        vec![plain, with_losses, metadata, first_come, slices]
    });
}

/// What costs how much: kinds of faults, and what is known beforehand.
#[test]
#[ignore = "a figure, not a check"]
fn makespan_by_faults() {
    let titles = ["true times", "history 20 %", "without fail rates", "history 50 %", "limits"];
    for faults in FAULTS {
        table(faults, &titles, |trial| {
            let mut blind = trial.tests(Some(0.2));
            for test in &mut blind {
                test.fail_rate = 0;
            }
            vec![
                trial.ratio(&trial.exact, "reruns+duration"),
                trial.ratio(&trial.tests(Some(0.2)), "reruns+duration"),
                trial.ratio(&blind, "reruns+duration"),
                trial.ratio(&trial.tests(Some(0.5)), "reruns+duration"),
                trial.ratio(&trial.tests(None), "reruns+limits"),
            ]
        });
    }
}
