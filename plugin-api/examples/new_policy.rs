//! Policy `mine`: tests with a certain tag run first, and stay away from machines on which a test failed.
//!
//! ```yaml
//! policies:
//!   - {use: mine, tag: smoke}
//! ```

use atex_plugin_api::policy::Class;
use atex_plugin_api::prelude::*;

/// What users write beside `use: mine`. An unknown key is an error.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// The tag of tests that run first.
    tag: String,
}

/// The class of tests with the tag; all others are of class 0.
const TAGGED: Class = 1;

/// The policy. It has no clock and no random numbers of its own: all it knows comes with the calls.
#[derive(Debug)]
pub struct Mine {
    config: Config,
    /// Whether a test has the tag, by its number.
    tagged: Vec<bool>,
}

impl Plugin for Mine {
    type Config = Config;
    const ABOUT: &'static str = "tests with a tag first";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { config, tagged: Vec::new() })
    }
}

impl Mine {
    fn is_tagged(&self, test: u32) -> bool {
        self.tagged.get(test as usize) == Some(&true)
    }
}

impl Policy for Mine {
    // What is not asked for here is neither shown nor called.
    fn wants(&self) -> Wants {
        Wants::new().attrs(["tag"]).rank().prefer()
    }

    // All tests of the run, in several blocks.
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        let tag = self.config.tag.as_str();
        self.tagged.extend(tests.iter().map(|test| test.attrs[0].lines().any(|one| one == tag)));
        Ok(())
    }

    // Once per test: bigger scores are sooner.
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| {
            if self.is_tagged(queued.test) { Rank { class: TAGGED, score: 1 } } else { Rank::default() }
        }));
        Ok(())
    }

    // For each decision: name the exceptions, not the rule.
    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        if view.ran > 0 && !view.last_ok {
            out.push(Prefer::Class(TAGGED, -1));
        }
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "mine" => Mine);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn mine() -> impl Policy {
        testkit::policy::<Mine>(r#"{"tag": "smoke"}"#, &FakeHost::new().handle()).unwrap()
    }

    #[test]
    fn tagged_tests_come_first() {
        let mut mine = mine();
        let tests = [TestInfo::new(0, "/a", &["slow"]), TestInfo::new(1, "/b", &["quick\nsmoke"])];
        mine.register(&RunInfo::new(0, 2, 1), &tests).unwrap();
        let mut ranks = vec![];
        mine.rank(0, &[Queued::first(0), Queued::first(1)], &mut ranks).unwrap();
        assert!(ranks[1].score > ranks[0].score);
    }

    #[test]
    fn it_keeps_the_rules_of_all_policies() {
        let faults = testkit::check_policy(mine, &["/a", "/b"], |_, _| "smoke".to_owned(), |_| String::new());
        assert_eq!(faults, []);
    }
}
