//! Policy `fail-fast`: starts no further test after so many failed ones.
//!
//! ```yaml
//! policies:
//!   - {use: fail-fast}                    # after the first
//!   - {use: fail-fast, max: 10}
//! ```
//!
//! Only final failures count: one that is followed by a rerun does not.

use atex_plugin_api::policy::{Command, Ms, Outcome};
use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Failed tests after which nothing is started any more; at least 1.
    max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max: 1 }
    }
}

/// The policy.
#[derive(Debug)]
pub struct FailFast {
    max: u32,
    failed: u32,
}

impl Plugin for FailFast {
    type Config = Config;
    const ABOUT: &'static str = "start nothing more after so many failed tests";

    fn new(config: Config, _host: Host) -> Result<Self> {
        if config.max == 0 {
            return Err(Error::config("`max`: must be at least 1"));
        }
        Ok(Self { max: config.max, failed: 0 })
    }
}

impl Policy for FailFast {
    fn wants(&self) -> Wants {
        Wants::new().notes()
    }

    fn note(&mut self, _now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        if let Note::Finished { run, last: true } = note
            && run.outcome != Outcome::Passed
        {
            self.failed = self.failed.saturating_add(1);
            if self.failed == self.max {
                let tests = if self.max == 1 { "test" } else { "tests" };
                out.push(Command::Stop(format!("fail-fast: {} {tests} failed", self.max)));
            }
        }
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "fail-fast" => FailFast);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn fail_fast(config: &str) -> Result<impl Policy + use<>> {
        testkit::policy::<FailFast>(config, &FakeHost::new().handle())
    }

    #[test]
    fn the_last_allowed_failure_stops_the_run() {
        let mut policy = fail_fast(r#"{"max": 2}"#).unwrap();
        let mut out = vec![];
        let story = [
            (Outcome::Failed, true, 0),
            (Outcome::Failed, false, 0),
            (Outcome::Passed, true, 0),
            (Outcome::TimedOut, true, 1),
            (Outcome::Failed, true, 1),
        ];
        for (outcome, last, commands) in story {
            policy.note(0, &Note::Finished { run: Run::new(0, 0, outcome), last }, &mut out).unwrap();
            assert_eq!(out.len(), commands, "{outcome:?} {last}");
        }
        assert_eq!(out, [Command::Stop("fail-fast: 2 tests failed".to_owned())]);
    }

    #[test]
    fn zero_makes_no_sense() {
        assert!(fail_fast(r#"{"max": 0}"#).is_err());
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || fail_fast("{}").unwrap();
        assert_eq!(testkit::check_policy(make, &["/a", "/b"], |_, _| String::new(), |_| String::new()), []);
    }
}
