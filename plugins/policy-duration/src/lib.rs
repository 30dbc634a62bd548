//! Policy `duration`: the longest tests run first, so that none is left running alone at the end.
//!
//! ```yaml
//! policies:
//!   - {use: duration}
//!   - {use: duration, history: false}     # by `duration` of the metadata alone
//! ```
//!
//! How long a test takes comes from history. Without it `duration` of the metadata stands in, a limit and no estimate:
//! scaled by what tests with history usually make of theirs, else every test without history would go first. A test that
//! often fails is likely to run twice, and counts for that much more.

use atex_plugin_api::policy::{Command, Ms};
use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Use what earlier runs took.
    history: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { history: true }
    }
}

#[derive(Debug, Clone, Copy)]
struct Times {
    expected: Ms,
    limit: Ms,
    /// In 1/1000.
    fail_rate: u16,
}

/// The policy.
#[derive(Debug)]
pub struct Duration {
    config: Config,
    times: Vec<Times>,
    /// What tests usually take of their limit, in 1/1000.
    scale: u64,
}

impl Plugin for Duration {
    type Config = Config;
    const ABOUT: &'static str = "longest tests first, by history, else by their limit";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { config, times: Vec::new(), scale: 1000 })
    }
}

impl Duration {
    fn score(&self, times: Times) -> i64 {
        let once = if times.expected > 0 {
            u128::from(times.expected)
        } else {
            u128::from(times.limit) * u128::from(self.scale) / 1000
        };
        let with_reruns = once * (1000 + u128::from(times.fail_rate.min(1000))) / 1000;
        i64::try_from(with_reruns).unwrap_or(i64::MAX)
    }
}

impl Policy for Duration {
    fn wants(&self) -> Wants {
        Wants::new().rank()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        let history = self.config.history;
        self.times.extend(tests.iter().map(|test| Times {
            expected: if history { test.expected } else { 0 },
            limit: test.limit,
            fail_rate: if history { test.fail_rate } else { 0 },
        }));
        Ok(())
    }

    fn ready(&mut self, _out: &mut Vec<Command>) -> Result<()> {
        let known = self.times.iter().filter(|times| times.expected > 0 && times.limit > 0);
        let ratio = |times: &Times| {
            u64::try_from(u128::from(times.expected) * 1000 / u128::from(times.limit)).unwrap_or(u64::MAX)
        };
        let mut ratios: Vec<u64> = known.map(ratio).collect();
        if !ratios.is_empty() {
            let middle = ratios.len() / 2;
            self.scale = *ratios.select_nth_unstable(middle).1;
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| {
            let score = self.times.get(queued.test as usize).map_or(0, |times| self.score(*times));
            Rank { class: 0, score }
        }));
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "duration" => Duration);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    /// Tests as (limit, expected, fail rate).
    fn scores(config: &str, tests: &[(Ms, Ms, u16)]) -> Vec<i64> {
        let mut policy = testkit::policy::<Duration>(config, &FakeHost::new().handle()).unwrap();
        let infos: Vec<_> = tests
            .iter()
            .zip(0..)
            .map(|(&(limit, expected, fail_rate), id)| {
                let mut info = TestInfo::new(id, "/t", &[]);
                (info.limit, info.expected, info.fail_rate) = (limit, expected, fail_rate);
                info
            })
            .collect();
        policy.register(&RunInfo::new(0, infos.len() as u32, 1), &infos).unwrap();
        policy.ready(&mut vec![]).unwrap();
        let queued: Vec<_> = (0..infos.len() as u32).map(Queued::first).collect();
        let mut ranks = vec![];
        policy.rank(0, &queued, &mut ranks).unwrap();
        ranks.iter().map(|rank| rank.score).collect()
    }

    #[test]
    fn limits_alone_stand_as_they_are() {
        assert_eq!(scores("{}", &[(1000, 0, 0), (5000, 0, 0)]), [1000, 5000]);
        assert_eq!(scores(r#"{"history": false}"#, &[(1000, 7, 500), (5000, 9, 0)]), [1000, 5000]);
    }

    #[test]
    fn limits_beside_history_are_scaled() {
        // Half of the limit is usual: the test without history is expected to take 2 s of its 4 s.
        let tests = [(1000, 500, 0), (2000, 1000, 0), (8000, 4000, 0), (4000, 0, 0)];
        assert_eq!(scores("{}", &tests), [500, 1000, 4000, 2000]);
    }

    #[test]
    fn a_likely_rerun_counts() {
        assert_eq!(scores("{}", &[(1000, 1000, 250), (1000, 1000, 0)]), [1250, 1000]);
    }

    #[test]
    fn extremes_are_survived() {
        assert_eq!(scores("{}", &[(u64::MAX, u64::MAX, 1000), (0, 0, 0)]), [i64::MAX, 0]);
        assert_eq!(scores("{}", &[(1, u64::MAX, 0), (u64::MAX, 0, 0)])[1], i64::MAX);
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Duration>("{}", &FakeHost::new().handle()).unwrap();
        assert_eq!(testkit::check_policy(make, &["/a", "/b"], |_, _| String::new(), |_| String::new()), []);
    }
}
