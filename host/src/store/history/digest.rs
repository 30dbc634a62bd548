//! What the past of a test says: how long it will take, how likely it fails, whether it is flaky or newly broken.

use std::collections::HashMap;

use super::Past;

/// Executions that an expectation is made of: the newest ones, as tests change.
const RECENT: usize = 15;

/// What to expect of the next execution of a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Median of the recent durations, in milliseconds; at least 1.
    pub duration: u64,
    /// Share of recent executions that failed, in 1/1000.
    pub fail_rate: u16,
}

/// Expectations by test, for one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectations(HashMap<String, Expectation>);

impl Expectations {
    /// `None` for a test that never ran.
    pub fn get(&self, test: &str) -> Option<Expectation> {
        self.0.get(test).copied()
    }

    /// Number of tests that are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, test: String, expectation: Expectation) {
        self.0.insert(test, expectation);
    }
}

/// `executions`: newest first.
pub(super) fn expectation(executions: &[Past]) -> Expectation {
    let recent = executions.get(..RECENT).unwrap_or(executions);
    Expectation { duration: median(recent).max(1), fail_rate: fail_rate(recent) }
}

/// The past of one test on one platform, newest execution first; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestHistory {
    pub platform: String,
    pub test: String,
    pub executions: Vec<Past>,
}

impl TestHistory {
    pub(super) fn new(platform: String, test: String, executions: Vec<Past>) -> Self {
        Self { platform, test, executions }
    }

    /// Median of all durations, in milliseconds.
    pub fn median(&self) -> u64 {
        median(&self.executions)
    }

    /// The longest, in milliseconds.
    pub fn longest(&self) -> u64 {
        self.executions.iter().map(|past| past.duration).max().unwrap_or(0)
    }

    /// Share of executions that failed, in 1/1000.
    pub fn fail_rate(&self) -> u16 {
        fail_rate(&self.executions)
    }

    /// How often the outcome changed from one execution to the next, in 1/1000 of the times it could have: 0 for a test that
    /// always ends the same way or broke once for good is near it, 1000 for one that changes every time.
    pub fn flakiness(&self) -> u16 {
        let pairs = self.executions.len().saturating_sub(1);
        let changes = self.executions.windows(2).filter(|pair| pair[0].passed != pair[1].passed).count();
        per_mille(changes, pairs)
    }

    /// It ended differently in one run, or changed its outcome more often than a test that broke and was mended.
    pub fn is_flaky(&self) -> bool {
        let differs = |run: &[Past]| run.iter().any(|past| past.passed != run[0].passed);
        let changes = self.executions.windows(2).filter(|pair| pair[0].passed != pair[1].passed).count();
        changes > 2 || self.executions.chunk_by(|a, b| a.run == b.run).any(differs)
    }

    /// It failed in the newest run, in all its attempts, and passed at last in the run before.
    pub fn is_newly_failing(&self) -> bool {
        let mut runs = self.executions.chunk_by(|a, b| a.run == b.run);
        let newest_failed = runs.next().is_some_and(|run| run.iter().all(|past| !past.passed));
        let before_passed = runs.next().and_then(|run| run.first()).is_some_and(|past| past.passed);
        newest_failed && before_passed
    }
}

fn median(executions: &[Past]) -> u64 {
    let mut durations: Vec<u64> = executions.iter().map(|past| past.duration).collect();
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or(0)
}

fn fail_rate(executions: &[Past]) -> u16 {
    per_mille(executions.iter().filter(|past| !past.passed).count(), executions.len())
}

fn per_mille(part: usize, whole: usize) -> u16 {
    let share = (part * 1000).checked_div(whole).unwrap_or(0);
    u16::try_from(share).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newest first: `p` passed, `f` failed, a space begins an older run; the duration is the position from 1.
    fn history(text: &str) -> TestHistory {
        let mut executions = Vec::new();
        for (run, outcomes) in text.split(' ').enumerate() {
            for outcome in outcomes.chars() {
                executions.push(Past {
                    at: 0,
                    run: run.to_string(),
                    status: String::new(),
                    passed: outcome == 'p',
                    duration: executions.len() as u64 + 1,
                });
            }
        }
        TestHistory::new("p".into(), "/t".into(), executions)
    }

    #[test]
    fn what_the_past_says() {
        // history, fail rate, flakiness, newly failing
        let table = [
            ("p", 0, 0, false),
            ("f", 1000, 0, false),
            ("p p p", 0, 0, false),
            ("f p p", 333, 500, true),
            ("ff p p", 500, 333, true),
            ("pf p p", 250, 666, false),
            ("f pf p", 500, 1000, true),
            ("f f p", 666, 500, false),
            ("p f p f", 500, 1000, false),
        ];
        for (text, fail_rate, flakiness, newly_failing) in table {
            let history = history(text);
            let found = (history.fail_rate(), history.flakiness(), history.is_newly_failing());
            assert_eq!(found, (fail_rate, flakiness, newly_failing), "{text}");
        }
    }

    #[test]
    fn flaky_is_more_than_broken_and_mended() {
        let table = [("p", false), ("p f f p", false), ("f p f", false), ("p f p f", true), ("pf p p", true)];
        for (text, flaky) in table {
            assert_eq!(history(text).is_flaky(), flaky, "{text}");
        }
    }

    #[test]
    fn expectations_look_at_the_newest_only() {
        let past = history(&format!("{}{}", "p".repeat(RECENT), "f".repeat(30)));
        assert_eq!(expectation(&past.executions), Expectation { duration: 8, fail_rate: 0 });
        assert_eq!((past.median(), past.longest()), (23, 45));
        let quick = [Past { duration: 0, ..past.executions[0].clone() }];
        assert_eq!(expectation(&quick).duration, 1, "0 is for unknown");
    }
}
