//! Policy `priority`: tests with a higher number in their metadata run first.
//!
//! ```yaml
//! policies:
//!   - {use: priority}                     # extra-priority, the highest first
//!   - {use: priority, key: weight, lowest-first: true}
//! ```
//!
//! Tests without the key count as `default`, 0 if not given.

use atex_plugin_api::policy::TestId;
use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Key of the test's metadata: a whole number.
    key: String,
    /// Lower numbers first.
    lowest_first: bool,
    /// Number of tests without the key.
    default: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self { key: "extra-priority".to_owned(), lowest_first: false, default: 0 }
    }
}

/// The policy.
#[derive(Debug)]
pub struct Priority {
    config: Config,
    scores: Vec<i64>,
}

impl Plugin for Priority {
    type Config = Config;
    const ABOUT: &'static str = "tests with a higher number in their metadata first";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { config, scores: Vec::new() })
    }
}

impl Priority {
    fn score(&self, test: &TestInfo<'_>) -> Result<i64> {
        let value = match test.attrs.first() {
            None | Some(&"") => self.config.default,
            Some(text) => text.trim().parse().map_err(|_| {
                Error::config(format!(
                    "test {}: `{}: {text}` is not a whole number",
                    test.name, self.config.key
                ))
            })?,
        };
        // The least number means "never": the most urgent and the least urgent are kept away from it.
        let signed = if self.config.lowest_first { value.saturating_neg() } else { value };
        Ok(signed.max(i64::MIN + 1))
    }
}

impl Policy for Priority {
    fn wants(&self) -> Wants {
        Wants::new().attrs([&self.config.key]).rank()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            let score = self.score(test)?;
            self.scores.push(score);
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| Rank { class: 0, score: score_of(&self.scores, queued.test) }));
        Ok(())
    }
}

fn score_of(scores: &[i64], test: TestId) -> i64 {
    scores.get(test as usize).copied().unwrap_or(0)
}

atex_plugin_api::export_plugin!(policy "priority" => Priority);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn scores(config: &str, values: &[&str]) -> Result<Vec<i64>> {
        let mut policy = testkit::policy::<Priority>(config, &FakeHost::new().handle())?;
        let attrs: Vec<[&str; 1]> = values.iter().map(|value| [*value]).collect();
        let infos: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
        policy.register(&RunInfo::new(0, infos.len() as u32, 1), &infos)?;
        let queued: Vec<_> = (0..infos.len() as u32).map(Queued::first).collect();
        let mut ranks = vec![];
        policy.rank(0, &queued, &mut ranks)?;
        Ok(ranks.iter().map(|rank| rank.score).collect())
    }

    #[test]
    fn numbers_become_scores() {
        assert_eq!(scores("{}", &["5", "", "-3"]), Ok(vec![5, 0, -3]));
        assert_eq!(scores(r#"{"lowest-first": true, "default": 50}"#, &["5", ""]), Ok(vec![-5, -50]));
        assert_eq!(scores("{}", &["-9223372036854775808"]), Ok(vec![i64::MIN + 1]));
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let error = scores("{}", &["high"]).unwrap_err();
        assert_eq!(error.to_string(), "test /t: `extra-priority: high` is not a whole number");
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Priority>("{}", &FakeHost::new().handle()).unwrap();
        assert_eq!(
            testkit::check_policy(make, &["/a", "/bb"], |test, _| test.len().to_string(), |_| String::new()),
            []
        );
    }
}
