//! Policy `destructive`: what to do about tests that wreck their machine.
//!
//! ```yaml
//! policies:
//!   - {use: destructive}                  # tests tagged `destructive`
//!   - {use: destructive, tag: wrecks, spoils-unless-exit: [0, 2]}
//! ```
//!
//! A test with the tag runs first on a fresh machine and last on a used one, and the machine is not used again. Neither is
//! one whose test had to be ended (time limit, protocol, too much data), unless `after-abort: false`; nor one whose test
//! had another exit status than those of `spoils-unless-exit`, if that is given. A machine that was lost is gone anyway.

use atex_plugin_api::policy::{Class, Outcome};
use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// The tag that marks destructive tests.
    tag: String,
    /// A test that had to be ended spoils its machine.
    after_abort: bool,
    /// Any other exit status than these spoils the machine.
    spoils_unless_exit: Option<Vec<i32>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { tag: "destructive".to_owned(), after_abort: true, spoils_unless_exit: None }
    }
}

const TAGGED: Class = 1;

/// The policy.
#[derive(Debug)]
pub struct Destructive {
    config: Config,
    tagged: Vec<bool>,
}

impl Plugin for Destructive {
    type Config = Config;
    const ABOUT: &'static str = "tests that wreck their machine: on fresh ones, which are not used again";

    fn new(config: Config, _host: Host) -> Result<Self> {
        if config.tag.is_empty() {
            return Err(Error::config("`tag`: must not be empty"));
        }
        Ok(Self { config, tagged: Vec::new() })
    }
}

impl Destructive {
    fn is_tagged(&self, test: u32) -> bool {
        self.tagged.get(test as usize) == Some(&true)
    }
}

impl Policy for Destructive {
    /// Once it is known that no test is tagged, there is nothing to say but what the configuration asks for.
    fn wants(&self) -> Wants {
        let any = self.tagged.is_empty() || self.tagged.contains(&true);
        let wants = Wants::new().attrs(["tag"]);
        let wants = if any { wants.rank().prefer() } else { wants };
        let judges = any || !self.config.after_abort || self.config.spoils_unless_exit.is_some();
        if judges { wants.judge() } else { wants }
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        let tag = self.config.tag.as_str();
        self.tagged.extend(
            tests
                .iter()
                .map(|test| test.attrs.first().is_some_and(|tags| tags.lines().any(|one| one == tag))),
        );
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| Rank { class: self.is_tagged(queued.test).into(), score: 0 }));
        Ok(())
    }

    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let fresh = view.ran == 0 && view.running.is_empty();
        out.push(Prefer::Class(TAGGED, if fresh { 1 } else { -1 }));
        Ok(())
    }

    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        let ended = matches!(run.outcome, Outcome::TimedOut | Outcome::Protocol | Outcome::Limit);
        if self.is_tagged(run.test) {
            return Ok(Judgement::spoilt(true));
        }
        if ended {
            return Ok(Judgement::spoilt(self.config.after_abort));
        }
        Ok(match &self.config.spoils_unless_exit {
            Some(harmless) => Judgement::spoilt(!harmless.contains(&run.exit)),
            None => Judgement::NONE,
        })
    }
}

atex_plugin_api::export_plugin!(policy "destructive" => Destructive);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn policy(config: &str) -> impl Policy {
        let mut policy = testkit::policy::<Destructive>(config, &FakeHost::new().handle()).unwrap();
        let tags = [["a\ndestructive"], ["non-destructive"], [""], ["wrecks"]];
        let infos: Vec<_> = tags.iter().zip(0..).map(|(tags, id)| TestInfo::new(id, "/t", tags)).collect();
        policy.register(&RunInfo::new(0, 4, 1), &infos).unwrap();
        policy.ready(&mut vec![]).unwrap();
        policy
    }

    #[test]
    fn only_the_whole_tag_counts() {
        let classes = |config| {
            let mut ranks = vec![];
            policy(config).rank(0, &[0, 1, 2, 3].map(Queued::first), &mut ranks).unwrap();
            ranks.iter().map(|rank| rank.class).collect::<Vec<_>>()
        };
        assert_eq!(classes("{}"), [1, 0, 0, 0]);
        assert_eq!(classes(r#"{"tag": "wrecks"}"#), [0, 0, 0, 1]);
    }

    #[test]
    fn without_such_tests_there_is_nothing_to_say() {
        let wants = |config| {
            let wants = policy(config).wants();
            (wants.rank, wants.prefer, wants.judge)
        };
        assert_eq!(wants("{}"), (true, true, true));
        assert_eq!(wants(r#"{"tag": "none"}"#), (false, false, false));
        assert_eq!(wants(r#"{"tag": "none", "after-abort": false}"#), (false, false, true));
        assert_eq!(wants(r#"{"tag": "none", "spoils-unless-exit": [0]}"#), (false, false, true));
        let unregistered = testkit::policy::<Destructive>("{}", &FakeHost::new().handle()).unwrap();
        assert!(unregistered.wants().prefer);
    }

    #[test]
    fn fresh_machines_first() {
        let policy = policy("{}");
        let wish = |ran, running: &[u32]| {
            let mut view = View::new(0);
            (view.ran, view.running) = (ran, running);
            let mut out = vec![];
            policy.prefer(&view, &[], &mut out).unwrap();
            out
        };
        assert_eq!(wish(0, &[]), [Prefer::Class(TAGGED, 1)]);
        assert_eq!(wish(3, &[]), [Prefer::Class(TAGGED, -1)]);
        assert_eq!(wish(0, &[2]), [Prefer::Class(TAGGED, -1)]);
    }

    #[test]
    fn what_spoils_a_machine() {
        let by_exit = r#"{"spoils-unless-exit": [0, 2]}"#;
        let table = [
            ("{}", 0, Outcome::Passed, 0, Some(true)),
            ("{}", 2, Outcome::Passed, 0, None),
            ("{}", 2, Outcome::Failed, 1, None),
            ("{}", 2, Outcome::TimedOut, -1, Some(true)),
            (r#"{"after-abort": false}"#, 2, Outcome::TimedOut, -1, Some(false)),
            (by_exit, 2, Outcome::Failed, 2, Some(false)),
            (by_exit, 2, Outcome::Failed, 1, Some(true)),
            (by_exit, 0, Outcome::Passed, 0, Some(true)),
        ];
        for (config, test, outcome, exit, expected) in table {
            let mut run = Run::new(test, 0, outcome);
            run.exit = exit;
            assert_eq!(
                policy(config).judge(&run).unwrap().spoilt,
                expected,
                "{config} {test} {outcome:?} {exit}"
            );
        }
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Destructive>("{}", &FakeHost::new().handle()).unwrap();
        assert_eq!(
            testkit::check_policy(make, &["/a", "/b"], |_, _| "destructive".to_owned(), |_| String::new()),
            []
        );
    }
}
