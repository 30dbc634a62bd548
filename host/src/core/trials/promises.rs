//! Random workloads, policies and faults: whatever happens, the promises hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::{Outcome, Policy, Queued, WHOLE_MACHINE};

use super::watch::{Meddling, Watch};
use crate::core::config::{Config, Past, Platform, Pool, Served, Shape, TestPlan};
use crate::core::event::{FinishedRun, Question, Shutdown};
use crate::core::hash::mix;
use crate::core::simulate::{Outcomes, Ready, SyntheticTest, Truth, World, simulate};
use crate::core::testing::{
    self, Affinity, ByKind, Destructive, Exclusive, FailFast, Fitness, Isolate, Longest, Nonsense, Priority,
    Reruns, Shard, Shuffle, TimeLimit,
};

/// Values of the key `group`.
const GROUPS: u64 = 6;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides.max(1)
    }
    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// Everything about one trial but its policies, made from its number.
struct Trial {
    seed: u64,
    tests: Vec<SyntheticTest>,
    config: Config,
    world: World,
    meddling: Meddling,
}

/// The policies of one chain of a trial.
struct Chosen {
    policies: Vec<Box<dyn Policy>>,
    /// Reruns that the first of them allows.
    reruns: u16,
    /// One of them judges as it likes.
    wild: bool,
    /// One of them keeps tests of a group apart.
    exclusive: bool,
}

fn tests(dice: &mut Dice, platforms: u16) -> Vec<SyntheticTest> {
    let mut tests = vec![];
    for platform in 0..platforms {
        for _ in 0..=dice.roll(150) {
            let claim = [1, 1, 1, 2, WHOLE_MACHINE][dice.roll(5) as usize];
            let expected = dice.roll(2) * dice.roll(100_000);
            let past = if dice.one_in(30) { Past::Done } else { Past::FRESH };
            tests.push(SyntheticTest {
                plan: TestPlan { platform, claim, limit: 100_000, expected, past },
                truth: Truth {
                    real: dice.roll(101_000),
                    fails: [0, 0, 0, 0, 0, 1, 2, 9][dice.roll(8) as usize],
                },
                fail_rate: dice.roll(500) as u16,
                priority: dice.roll(5) as i32 - 2,
                destructive: dice.one_in(20),
            });
        }
    }
    tests
}

fn choose_policies(seed: u64, chain: u16) -> Chosen {
    let mut dice = Dice(seed ^ 0xabc ^ u64::from(chain) << 50);
    let (mut wild, mut exclusive) = (false, false);
    let reruns = dice.roll(3) as u16;
    let mut policies: Vec<Box<dyn Policy>> = vec![Box::new(Reruns::new(reruns, dice.one_in(2)))];
    for _ in 0..dice.roll(6) {
        policies.push(match dice.roll(14) {
            0 => Box::new(Priority::new()),
            1 => Box::new(Longest::new(true)),
            2 => Box::new(Destructive::default()),
            3 => Box::new(Affinity::default()),
            4 => {
                exclusive = true;
                Box::new(Exclusive::default())
            }
            5 => Box::new(Isolate),
            6 => Box::new(FailFast { most: 1 + dice.roll(30) as u32, seen: 0 }),
            7 => Box::new(TimeLimit::new(dice.roll(4_000_000))),
            8 => Box::new(Shard(1 + dice.roll(3), vec![])),
            9 => Box::new(Shuffle(seed)),
            10 => Box::new(Fitness { seed, window: 64 }),
            11 => Box::new(ByKind { from: dice.roll(200) as u32, veto: dice.one_in(2) }),
            _ => {
                wild = true;
                Box::new(Nonsense(seed))
            }
        });
    }
    Chosen { policies, reruns, wild, exclusive }
}

/// A chain with its tests registered: those of all platforms, or (`own`) of that with its number.
fn ready(seed: u64, chain: u16, own: bool, tests: &[SyntheticTest]) -> Ready {
    let mine = |test: &SyntheticTest| !own || test.plan.platform == chain;
    let first = tests.iter().position(mine).unwrap_or(0);
    let count = tests.iter().filter(|test| mine(test)).count();
    let policies = choose_policies(seed, chain).policies;
    testing::ready_for(policies, tests, first as u32..(first + count) as u32, GROUPS, seed)
}

fn pools(dice: &mut Dice, platforms: u16) -> Vec<Pool> {
    let slots = 1 + dice.roll(4) as u16;
    let mut common = Pool::new(1 + dice.roll(12) as u32, platforms);
    common.slots = slots;
    common.reserve_time = 200_000;
    (common.renews, common.probes) = (dice.one_in(2), dice.one_in(2));
    if dice.one_in(2) {
        common.serves.iter_mut().for_each(|served| served.flavour = 0);
    }
    let mut pools = vec![common];
    if dice.one_in(2) {
        let mut own = Pool::new(dice.roll(5) as u32, 0);
        own.slots = 1 + dice.roll(2) as u16 * 7;
        own.isolate = dice.one_in(8);
        own.reserve_time = 150_000;
        own.startup = dice.roll(2) * 50_000;
        own.serves = vec![Served { platform: 0, flavour: 9 }];
        pools.push(own);
    }
    pools
}

fn world(dice: &mut Dice, seed: u64) -> World {
    let bad = dice.roll(3) * 60;
    let kinds = 1 + dice.roll(3);
    let model = |kind: u64| Arc::new(Facts::from([("model".to_owned(), kind.to_string())]));
    let level = |roll| [Shutdown::Finish, Shutdown::Release, Shutdown::Leave][roll as usize];
    let stops =
        (0..dice.roll(6).saturating_sub(3)).map(|_| (dice.roll(3_000_000), level(dice.roll(3)))).collect();
    World {
        seed,
        startup: 1 + dice.roll(90_000),
        setup: dice.roll(5000),
        reserve_failures: if dice.one_in(40) { 1000 } else { dice.roll(1 + bad) },
        setup_failures: if dice.one_in(40) { 1000 } else { dice.roll(1 + bad) },
        release_failures: dice.roll(1 + bad),
        deaths: dice.roll(1 + bad),
        life: 1_000_000,
        lease: if dice.one_in(2) { 50_000 + dice.roll(400_000) } else { 0 },
        renew_failures: dice.roll(1 + bad),
        reboots: dice.roll(200),
        labels: dice.roll(300),
        facts: (0..kinds).map(model).collect(),
        stops,
    }
}

fn trial(seed: u64) -> Trial {
    let mut dice = Dice(seed);
    let platforms = 1 + dice.roll(3) as u16;
    let tests = tests(&mut dice, platforms);
    let mut config = Config::simple(1, Shape::default());
    // All platforms with the same policies, or each with its own.
    let own = dice.one_in(2);
    config.platforms =
        (0..platforms).map(|number| Platform { chain: if own { number } else { 0 } }).collect();
    let chains = if own { platforms } else { 1 };
    config.chains = (0..chains).map(|chain| ready(seed, chain, own, &tests).chain.shape()).collect();
    config.pools = pools(&mut dice, platforms);
    config.max_machines = 1 + dice.roll(20) as u32;
    config.spares = dice.roll(3) as u32;
    config.max_fail = dice.one_in(12).then(|| 1 + dice.roll(20) as u32);
    config.seed = seed;
    config.limits.time = dice.one_in(8).then(|| dice.roll(3_000_000));
    config.limits.setup_time = 50_000;
    config.limits.release_time = 20_000;
    config.limits.fails_in_a_row = dice.roll(6) as u32;
    config.limits.max_attempts = 20;
    config.limits.renew_lead = dice.roll(200_000);
    config.limits.probe_every = 1 + dice.roll(60_000);
    let one_of_three = |dice: &mut Dice, most| if dice.one_in(3) { dice.roll(most) } else { 0 };
    let meddling = Meddling {
        seed,
        lost: one_of_three(&mut dice, 60),
        twice: one_of_three(&mut dice, 60),
        late: one_of_three(&mut dice, 60),
        mute: one_of_three(&mut dice, 200),
    };
    let world = world(&mut dice, seed);
    Trial { seed, tests, config, world, meddling }
}

impl Trial {
    /// Runs it; returns what happened, the causes of verdicts, and the notes.
    fn run(&self) -> (Outcomes, BTreeMap<&'static str, u64>) {
        let seed = self.seed;
        let mut chains: Vec<Ready> =
            (0..self.config.chains.len()).map(|chain| self.ready(chain as u16)).collect();
        let chosen: Vec<Chosen> =
            (0..chains.len()).map(|chain| choose_policies(seed, chain as u16)).collect();
        let (plans, truths): (Vec<_>, Vec<_>) = self.tests.iter().map(|test| (test.plan, test.truth)).unzip();
        let mut watch = Watch::new(&self.config, &plans, self.meddling);
        watch.exclusive =
            (self.meddling.mute == 0 && chosen.iter().all(|chosen| chosen.exclusive)).then_some(GROUPS);
        let outcomes =
            simulate(self.config.clone(), &plans, &truths, &mut chains, &self.world, &mut watch).unwrap();
        assert_eq!(watch.complaints, Vec::<String>::new(), "seed {seed}");
        assert!(outcomes.done, "seed {seed}: it did not end: {} open", plans.len() - outcomes.verdicts);
        for (test, (runs, judged)) in &watch.runs {
            let Chosen { reruns, wild, .. } = chosen[self.chain_of(*test)];
            let most = if wild { 20 } else { u32::from(reruns) + 1 };
            assert!(*judged <= most, "seed {seed}: test {test} judged {judged} times");
            let lost = u32::from(self.config.limits.lost_machine_reruns);
            assert!(*runs <= judged + lost + 1, "seed {seed}: test {test} ran {runs} times, judged {judged}");
        }
        if seed.is_multiple_of(8) {
            for (chain, ready) in chains.iter_mut().enumerate() {
                self.check_replay(chain as u16, ready, &watch);
            }
        }
        let undisturbed =
            self.meddling.lost + self.meddling.late + self.world.renew_failures + self.world.deaths == 0;
        let renewed = self.config.pools.iter().all(|pool| pool.renews);
        assert!(
            outcomes.expired == 0 || !undisturbed || !renewed,
            "seed {seed}: machines expired under tests"
        );
        let left = self.world.stops.iter().any(|(_, level)| *level == Shutdown::Leave);
        let doubtful = self.meddling.lost + self.meddling.late + self.world.release_failures > 0;
        assert!(outcomes.uncertain == 0 || left || doubtful, "seed {seed}: {} uncertain", outcomes.uncertain);
        (outcomes, watch.causes)
    }
}

impl Trial {
    fn ready(&self, chain: u16) -> Ready {
        ready(self.seed, chain, self.config.chains.len() > 1, &self.tests)
    }

    fn chain_of(&self, test: u32) -> usize {
        usize::from(self.config.platforms[usize::from(self.tests[test as usize].plan.platform)].chain)
    }

    /// A chain that hears the notes again says what the one that was there says.
    fn check_replay(&self, number: u16, live: &mut Ready, watch: &Watch<'_>) {
        let mut fresh = self.ready(number);
        for (_, kind) in watch.kinds.iter().filter(|(chain, _)| *chain == number) {
            fresh.chain.kind(kind);
        }
        let notes = watch.notes.iter().filter(|(chain, ..)| *chain == number);
        let notes = notes.map(|(_, now, note)| (*now, note));
        fresh.chain.replay(std::mem::take(&mut fresh.commands), notes);
        let mut dice = Dice(self.seed);
        for _ in 0..20 {
            let of_chain: Vec<u32> = (0..self.tests.len() as u32)
                .filter(|test| self.chain_of(*test) == usize::from(number))
                .collect();
            let mut roll = || of_chain[dice.roll(of_chain.len() as u64) as usize];
            let (test, last, running) = (roll(), roll(), vec![roll()]);
            let (now, machine) = (u64::from(roll()) * 1000, roll());
            let queued = [Queued::new(test, 1, machine)];
            assert_eq!(live.chain.rank(&[0], &queued), fresh.chain.rank(&[0], &queued), "seed {}", self.seed);
            let (slots, ran, last_ok) = (4, machine % 2, now.is_multiple_of(3));
            let question = Question {
                now,
                machine,
                kind: 0,
                platform: 0,
                free: 3,
                slots,
                ran,
                last,
                last_ok,
                running,
                labels: None,
                windows: vec![],
            };
            assert_eq!(live.chain.prefer(&question), fresh.chain.prefer(&question), "seed {}", self.seed);
            let (outcome, status) = (Outcome::Failed, "fail".into());
            let run = FinishedRun { now, test, machine, attempt: 1, outcome, exit: 1, wall: 1, status };
            assert_eq!(live.chain.judge(&run), fresh.chain.judge(&run), "seed {}", self.seed);
        }
    }
}

/// How many trials: more for a long run.
fn trials(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let first = number("ATEX_FIRST").unwrap_or(0);
    first..first + number("ATEX_TRIALS").unwrap_or(usual)
}

#[test]
fn promises_hold() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in trials(400) {
        let trial = trial(seed);
        let (outcomes, causes) = trial.run();
        for (cause, count) in causes {
            *seen.entry(cause).or_default() += count;
        }
        if seed.is_multiple_of(16) {
            let (again, _) = trial.run();
            assert_eq!(
                (outcomes.schedule, outcomes.makespan),
                (again.schedule, again.makespan),
                "seed {seed}"
            );
        }
    }
    println!("{seen:?}");
    if trials(400).end >= 400 {
        for code in ["ran", "no-machine", "setup-failed", "machine-lost", "unsuitable", "signal", "max-fail"]
        {
            assert!(seen.contains_key(code), "no trial ended a test by {code}: {seen:?}");
        }
    }
}
