//! Policy `shuffle`: tests in random order. The same seed makes the same order.
//!
//! ```yaml
//! policies:
//!   - {use: shuffle}                      # the run's own seed, which is printed
//!   - {use: shuffle, seed: 7}
//! ```

use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Instead of the run's.
    seed: Option<u64>,
}

/// The policy.
#[derive(Debug)]
pub struct Shuffle {
    config: Config,
    host: Host,
    seed: Option<u64>,
}

impl Plugin for Shuffle {
    type Config = Config;
    const ABOUT: &'static str = "tests in random order, the same for the same seed";

    fn new(config: Config, host: Host) -> Result<Self> {
        Ok(Self { config, host, seed: None })
    }
}

impl Policy for Shuffle {
    fn wants(&self) -> Wants {
        Wants::new().rank()
    }

    fn register(&mut self, run: &RunInfo, _tests: &[TestInfo<'_>]) -> Result<()> {
        if self.seed.is_none() {
            let seed = self.config.seed.unwrap_or(run.seed);
            self.host.info(format!("the order of tests has seed {seed}"));
            self.seed = Some(seed);
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let seed = self.seed.unwrap_or_default();
        out.extend(tests.iter().map(|queued| Rank { class: 0, score: random(seed, queued.test) }));
        Ok(())
    }
}

/// A number from 0 that looks random (splitmix64).
fn random(seed: u64, test: u32) -> i64 {
    let mut x = seed.wrapping_add(u64::from(test).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 1) as i64
}

atex_plugin_api::export_plugin!(policy "shuffle" => Shuffle);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn order(config: &str, seed: u64, host: &FakeHost) -> Vec<u32> {
        let mut policy = testkit::policy::<Shuffle>(config, &host.handle()).unwrap();
        policy.register(&RunInfo::new(seed, 20, 1), &[]).unwrap();
        let queued: Vec<_> = (0..20).map(Queued::first).collect();
        let mut ranks = vec![];
        policy.rank(0, &queued, &mut ranks).unwrap();
        let mut order: Vec<u32> = (0..20).collect();
        order.sort_by_key(|test| std::cmp::Reverse(ranks[*test as usize].score));
        order
    }

    #[test]
    fn the_seed_decides() {
        let host = FakeHost::new();
        let first = order("{}", 1, &host);
        assert_eq!(first, order("{}", 1, &host));
        assert_ne!(first, order("{}", 2, &host));
        assert_ne!(first, (0..20).collect::<Vec<_>>());
        assert_eq!(order(r#"{"seed": 1}"#, 2, &host), first);
        assert_eq!(host.log()[0].message, "the order of tests has seed 1");
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Shuffle>("{}", &FakeHost::new().handle()).unwrap();
        assert_eq!(
            testkit::check_policy(make, &["/a", "/b", "/c"], |_, _| String::new(), |_| String::new()),
            []
        );
    }
}
