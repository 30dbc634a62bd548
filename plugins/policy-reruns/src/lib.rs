//! Policy `reruns`: a failed test runs again, on another machine if there is a choice.
//!
//! ```yaml
//! policies:
//!   - {use: reruns, max: 2, unless-exit: [2]}
//! ```
//!
//! `max` is how often a test may be repeated. `unless-exit` names exit statuses that are final; `outcomes` the ways to end
//! that are worth another try (all but a pass); `statuses` the same by what the test said of itself (`error`, `fail`, a word
//! of its own); `tests` the tests, by regular expressions that are searched in their names. With `elsewhere: false` the machine does
//! not matter.

use atex_plugin_api::policy::{Class, NONE, Outcome};
use atex_plugin_api::prelude::*;
use regex::RegexSet;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// How often a test may be repeated.
    max: u16,
    /// Exit statuses that are final.
    unless_exit: Vec<i32>,
    /// Ways to end that are worth another try.
    outcomes: Vec<Ending>,
    /// Of tests that failed by themselves, the statuses that are worth another try; none: all.
    statuses: Vec<String>,
    /// Regular expressions, searched in names of tests; none: all tests.
    tests: Vec<String>,
    /// Prefer another machine than the last one.
    elsewhere: bool,
}

/// How a run ended, other than by a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The test failed.
    Failed,
    /// It was ended at its time limit.
    TimedOut,
    /// It broke the control channel's protocol.
    Protocol,
    /// It made too much data or too many results.
    Limit,
}

impl Default for Config {
    fn default() -> Self {
        let outcomes = vec![Ending::Failed, Ending::TimedOut, Ending::Protocol, Ending::Limit];
        Self {
            max: 1,
            unless_exit: Vec::new(),
            outcomes,
            statuses: Vec::new(),
            tests: Vec::new(),
            elsewhere: true,
        }
    }
}

/// The policy.
#[derive(Debug)]
pub struct Reruns {
    config: Config,
    names: Option<RegexSet>,
    /// Whether the name of a test matches, by its number; empty if all do.
    matches: Vec<bool>,
}

impl Plugin for Reruns {
    type Config = Config;
    const ABOUT: &'static str = "run failed tests again, on another machine if there is a choice";

    fn new(config: Config, _host: Host) -> Result<Self> {
        let names =
            RegexSet::new(&config.tests).map_err(|error| Error::config(format!("`tests`: {error}")))?;
        let names = (!config.tests.is_empty()).then_some(names);
        Ok(Self { config, names, matches: Vec::new() })
    }
}

impl Reruns {
    fn wanted(&self, run: &Run<'_>) -> bool {
        let ending = match run.outcome {
            Outcome::Passed => return false,
            Outcome::TimedOut => Ending::TimedOut,
            Outcome::Protocol => Ending::Protocol,
            Outcome::Limit => Ending::Limit,
            _ => Ending::Failed,
        };
        run.attempt < self.config.max
            && self.config.outcomes.contains(&ending)
            && !self.config.unless_exit.contains(&run.exit)
            && (ending != Ending::Failed
                || self.config.statuses.is_empty()
                || self.config.statuses.iter().any(|status| status == run.status))
            && (self.names.is_none() || self.matches.get(run.test as usize) == Some(&true))
    }
}

impl Policy for Reruns {
    fn wants(&self) -> Wants {
        let wants = Wants::new().judge();
        if self.config.elsewhere { wants.rank().prefer() } else { wants }
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        if let Some(names) = &self.names {
            self.matches.extend(tests.iter().map(|test| names.is_match(test.name)));
        }
        Ok(())
    }

    /// A class for each machine that had a test last, and one for tests that never ran.
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| Rank { class: class_of(test.last_machine), score: 0 }));
        Ok(())
    }

    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        if view.ran > 0 {
            out.push(Prefer::Class(class_of(view.machine), -1));
        }
        Ok(())
    }

    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        Ok(if self.wanted(run) { Judgement::rerun(true) } else { Judgement::NONE })
    }
}

fn class_of(machine: u32) -> Class {
    if machine == NONE { 0 } else { machine + 1 }
}

atex_plugin_api::export_plugin!(policy "reruns" => Reruns);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn reruns(config: &str) -> impl Policy {
        testkit::policy::<Reruns>(config, &FakeHost::new().handle()).unwrap()
    }

    fn run(test: u32, outcome: Outcome, exit: i32, attempt: u16) -> Run<'static> {
        let mut run = Run::new(test, 0, outcome);
        (run.exit, run.attempt) = (exit, attempt);
        run
    }

    #[test]
    fn what_is_repeated() {
        let table = [
            ("{}", Outcome::Failed, 1, 0, true),
            ("{}", Outcome::Failed, 1, 1, false),
            ("{}", Outcome::Failed, 0, 0, true),
            ("{}", Outcome::Passed, 1, 0, false),
            ("{}", Outcome::TimedOut, -1, 0, true),
            (r#"{"max": 0}"#, Outcome::Failed, 1, 0, false),
            (r#"{"max": 3}"#, Outcome::Failed, 1, 2, true),
            (r#"{"unless-exit": [2]}"#, Outcome::Failed, 2, 0, false),
            (r#"{"unless-exit": [2]}"#, Outcome::Failed, 1, 0, true),
            (r#"{"outcomes": ["timed-out"]}"#, Outcome::Failed, 1, 0, false),
            (r#"{"outcomes": ["timed-out"]}"#, Outcome::TimedOut, -1, 0, true),
        ];
        for (config, outcome, exit, attempt, expected) in table {
            let judgement = reruns(config).judge(&run(0, outcome, exit, attempt)).unwrap();
            assert_eq!(judgement.rerun, expected.then_some(true), "{config} {outcome:?} {exit} {attempt}");
        }
    }

    #[test]
    fn by_status() {
        let policy = reruns(r#"{"statuses": ["error", "flaky"]}"#);
        let again = |outcome, status| {
            let mut run = run(0, outcome, 1, 0);
            run.status = status;
            policy.judge(&run).unwrap().rerun
        };
        assert_eq!(again(Outcome::Failed, "flaky"), Some(true));
        assert_eq!(again(Outcome::Failed, "fail"), None);
        assert_eq!(again(Outcome::TimedOut, "infra"), Some(true), "the test did not say so");
    }

    #[test]
    fn by_name() {
        let mut policy = reruns(r#"{"tests": ["^/long/", "flaky"]}"#);
        let names = ["/long/a", "/short/a", "/short/flaky"];
        let infos: Vec<_> = names.iter().zip(0..).map(|(name, id)| TestInfo::new(id, name, &[])).collect();
        policy.register(&RunInfo::new(0, 3, 1), &infos).unwrap();
        let again = |id| policy.judge(&run(id, Outcome::Failed, 1, 0)).unwrap().rerun;
        assert_eq!([again(0), again(1), again(2)], [Some(true), None, Some(true)]);
    }

    #[test]
    fn elsewhere() {
        let policy = reruns("{}");
        let (mut ranks, mut preferences) = (vec![], vec![]);
        policy.rank(0, &[Queued::first(0), Queued::new(1, 1, 4)], &mut ranks).unwrap();
        assert_eq!((ranks[0].class, ranks[1].class), (0, 5));
        let mut view = View::new(4);
        view.ran = 1;
        policy.prefer(&view, &[], &mut preferences).unwrap();
        assert_eq!(preferences, [Prefer::Class(5, -1)]);
        assert!(!reruns(r#"{"elsewhere": false}"#).wants().prefer);
    }

    #[test]
    fn mistakes_are_told() {
        let host = FakeHost::new().handle();
        let error = |config| testkit::policy::<Reruns>(config, &host).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"unless-exits": [2]}"#),
            "unknown key `unless-exits`, did you mean `unless-exit`?"
        );
        assert!(error(r#"{"tests": ["("]}"#).starts_with("`tests`: regex parse error"));
    }

    #[test]
    fn it_keeps_the_rules() {
        let check = |config| {
            testkit::check_policy(
                || reruns(config),
                &["/a", "/b", "/c"],
                |_, _| String::new(),
                |_| String::new(),
            )
        };
        assert_eq!(check("{}"), []);
        assert_eq!(check(r#"{"tests": ["b"]}"#), []);
    }
}
