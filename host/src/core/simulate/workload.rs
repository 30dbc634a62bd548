//! Workloads out of nothing: durations as test suites have them, history as it remembers them.

use super::{Ms, Truth};
use crate::core::config::{Past, TestPlan};
use crate::core::event::PlatformId;
use crate::core::hash::mix;

/// How the durations of tests are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durations {
    /// Median two minutes, a long tail up to eleven hours.
    LogNormal,
    /// Nine of ten tests take half a minute, one of ten an hour.
    Bimodal,
}

/// What sort of workload to make.
#[derive(Debug, Clone)]
pub struct Synthetic {
    pub tests: u32,
    pub durations: Durations,
    /// Standard deviation of the error of the history, as the logarithm: 0.2 is 20 %. `None`: there is no history.
    pub history_error: Option<f64>,
    /// Tests of 1000 whose first run fails, which nothing announces.
    pub failing: u64,
    /// Tests of 1000 whose first run fails every other time, which history knows.
    pub flaky: u64,
    /// Tests are spread over this many platforms.
    pub platforms: u16,
    pub seed: u64,
}

/// A test of such a workload.
#[derive(Debug, Clone, Copy)]
pub struct SyntheticTest {
    pub plan: TestPlan,
    pub truth: Truth,
    /// How often history says that it fails, in 1/1000.
    pub fail_rate: u16,
    /// Value of `extra-priority`.
    pub priority: i32,
    pub destructive: bool,
}

/// Limits as authors choose them.
const LIMITS: [Ms; 10] =
    [60_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 28_800_000, 86_400_000];

impl Synthetic {
    /// `tests` tests of one platform with log-normal durations, known by 20 %, of which 3 % fail once and twice as many are
    /// known to do so.
    pub fn new(tests: u32, seed: u64) -> Self {
        let durations = Durations::LogNormal;
        Self { tests, durations, history_error: Some(0.2), failing: 0, flaky: 60, platforms: 1, seed }
    }

    /// The tests; those of a platform side by side.
    pub fn make(&self) -> Vec<SyntheticTest> {
        let mut random = Random(self.seed);
        let platforms = u64::from(self.platforms.max(1));
        let tests = u64::from(self.tests);
        (0..tests)
            .map(|number| self.test((number * platforms / tests.max(1)) as PlatformId, &mut random))
            .collect()
    }

    fn test(&self, platform: PlatformId, random: &mut Random) -> SyntheticTest {
        let seconds = match self.durations {
            Durations::LogNormal => 120.0 * (1.3 * random.gauss()).exp(),
            Durations::Bimodal if random.roll(10) == 0 => 3600.0 * (0.25 * random.gauss()).exp(),
            Durations::Bimodal => 30.0 * (0.5 * random.gauss()).exp(),
        };
        let real = (seconds.clamp(1.0, 40_000.0) * 1000.0) as Ms;
        let generous = real as f64 * (1.2 + 6.0 * random.fraction());
        let limit = LIMITS.into_iter().find(|&limit| limit as f64 >= generous).unwrap_or(86_400_000);
        let noise = random.gauss();
        let expected =
            self.history_error.map_or(0, |error| ((real as f64 * (error * noise).exp()) as Ms).max(1));
        let dice = random.roll(1000);
        let flaky = (self.failing..self.failing + self.flaky).contains(&dice);
        let fails = dice < self.failing || (flaky && random.roll(2) == 0);
        SyntheticTest {
            plan: TestPlan { platform, claim: 1, limit, expected, past: Past::FRESH },
            truth: Truth { real, fails: fails.into() },
            fail_rate: if flaky && self.history_error.is_some() { 500 } else { 0 },
            priority: if random.roll(50) == 0 { random.roll(20) as i32 - 10 } else { 0 },
            destructive: random.roll(50) == 0,
        }
    }
}

/// What no schedule on `machines` machines can beat: the longest test and the total over the machines, both with the reruns
/// and a start-up.
pub fn bound(truths: impl Iterator<Item = Truth> + Clone, machines: u32, startup: Ms) -> Ms {
    let work = |truth: Truth| truth.real.saturating_mul(1 + u64::from(truth.fails));
    let longest = truths.clone().map(work).max().unwrap_or(0);
    let total: u64 = truths.map(work).sum();
    longest.max(total.div_ceil(u64::from(machines.max(1)))) + startup
}

/// Random numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides
    }

    /// Above 0 and below 1.
    fn fraction(&mut self) -> f64 {
        self.0 = mix(self.0);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Mean 0, standard deviation 1.
    fn gauss(&mut self) -> f64 {
        (-2.0 * self.fraction().ln()).sqrt() * (std::f64::consts::TAU * self.fraction()).cos()
    }
}
