//! Whether a policy keeps the rules that make runs repeatable.

use std::fmt;

use crate::policy::{
    Command, MachineId, Ms, NONE, Note, Outcome, Policy, Prefer, Queued, Rank, Run, RunInfo, TestId,
    TestInfo, View, Wants,
};

/// A rule that a policy broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// In which call.
    pub call: &'static str,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.what)
    }
}

/// Machines of the pretended run.
const MACHINES: u32 = 3;
/// Most preferences that lift something, which a host takes from a policy without a window.
const MAX_PREFERENCES: usize = 64;

/// Runs a small pretended run of `tests` twice on policies from `make`, the second time replaying only the calls that may
/// change a policy, and compares all answers. `attrs` gives a test's values for the keys that the policy asked for, and
/// `facts` the values of machines.
///
/// Returns what was wrong; nothing, for a policy as it should be.
pub fn check_policy<P: Policy>(
    mut make: impl FnMut() -> P,
    tests: &[&str],
    attr: impl Fn(&str, &str) -> String,
    fact: impl Fn(&str) -> String,
) -> Vec<PolicyFault> {
    let mut faults = Vec::new();
    let (mut live, mut replayed) = (make(), make());
    let wants = live.wants();
    if wants != replayed.wants() {
        faults.push(PolicyFault {
            call: "wants",
            what: "two policies of the same configuration differ".to_owned(),
        });
    }
    let story = Story { wants: &wants, tests, attr: &attr, fact: &fact };
    let first = story.tell(&mut live, true, &mut faults);
    let second = story.tell(&mut replayed, false, &mut Vec::new());
    // The replay was not asked in between: if questions changed nothing, the last answers are the same.
    if first != second {
        let what = "the answers differ after a replay of what happened".to_owned();
        faults.push(PolicyFault { call: "note", what });
    }
    faults
}

struct Story<'a> {
    wants: &'a Wants,
    tests: &'a [&'a str],
    attr: &'a dyn Fn(&str, &str) -> String,
    fact: &'a dyn Fn(&str) -> String,
}

/// All answers at one point of the story.
type Answers = (Vec<Rank>, Vec<Vec<Prefer>>, Vec<(Option<bool>, Option<bool>, bool)>);

impl Story<'_> {
    /// Every test runs on every machine in turn; `asking`: with all questions in between.
    fn tell(&self, policy: &mut impl Policy, asking: bool, faults: &mut Vec<PolicyFault>) -> Answers {
        self.register(policy, faults);
        let mut commands = Vec::new();
        for (index, test) in (0..self.tests.len() as TestId).enumerate() {
            let (now, machine) = (index as Ms * 1000, index as MachineId % MACHINES);
            if asking {
                let _ = self.answers(policy, test, now, faults);
            }
            self.note(policy, now, &Note::Started { test, machine }, &mut commands, faults);
            let run = run(test, machine, now, index);
            let last = index % 3 != 0;
            self.note(policy, run.now, &Note::Label { machine, key: "k", value: "v" }, &mut commands, faults);
            self.note(policy, run.now, &Note::Finished { run, last }, &mut commands, faults);
        }
        self.note(policy, 1_000_000, &Note::Time, &mut commands, faults);
        self.note(policy, 1_000_000, &Note::Gone { machine: 0 }, &mut commands, faults);
        self.check_commands(&commands, faults);
        self.answers(policy, 0, 2_000_000, faults)
    }

    fn register(&self, policy: &mut impl Policy, faults: &mut Vec<PolicyFault>) {
        let values: Vec<Vec<String>> = self
            .tests
            .iter()
            .map(|test| self.wants.attrs.iter().map(|key| (self.attr)(test, key)).collect())
            .collect();
        let refs: Vec<Vec<&str>> =
            values.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        let infos: Vec<TestInfo<'_>> = self
            .tests
            .iter()
            .zip(&refs)
            .enumerate()
            .map(|(id, (name, attrs))| TestInfo::new(id as TestId, name, attrs))
            .collect();
        let run = RunInfo::new(7, self.tests.len() as u32, 1);
        for block in infos.chunks(2) {
            keep(faults, "register", policy.register(&run, block));
        }
        let mut commands = Vec::new();
        keep(faults, "ready", policy.ready(&mut commands));
        self.check_commands(&commands, faults);
        let facts: Vec<String> = self.wants.facts.iter().map(|key| (self.fact)(key)).collect();
        let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
        keep(faults, "kind", policy.kind(0, &facts));
    }

    fn note(
        &self,
        policy: &mut impl Policy,
        now: Ms,
        note: &Note<'_>,
        commands: &mut Vec<Command>,
        faults: &mut Vec<PolicyFault>,
    ) {
        if self.wants.notes {
            keep(faults, "note", policy.note(now, note, commands));
        }
    }

    fn answers(&self, policy: &impl Policy, test: TestId, now: Ms, faults: &mut Vec<PolicyFault>) -> Answers {
        let mut ranks = Vec::new();
        if self.wants.rank {
            let queued: Vec<Queued> = (0..self.tests.len() as TestId).map(Queued::first).collect();
            keep(faults, "rank", policy.rank(0, &queued, &mut ranks));
            if ranks.len() != queued.len() {
                let what = format!("{} answers for {} tests", ranks.len(), queued.len());
                faults.push(PolicyFault { call: "rank", what });
            }
        }
        let preferences =
            (0..MACHINES).map(|machine| self.prefer(policy, test, machine, now, &ranks, faults)).collect();
        let judgements = (0..6)
            .filter(|_| self.wants.judge)
            .map(|index| policy.judge(&run(test, 1, now, index)))
            .filter_map(|judged| keep(faults, "judge", judged))
            .map(|it| (it.rerun, it.spoilt, it.stop))
            .collect();
        (ranks, preferences, judgements)
    }

    fn prefer(
        &self,
        policy: &impl Policy,
        test: TestId,
        machine: MachineId,
        now: Ms,
        ranks: &[Rank],
        faults: &mut Vec<PolicyFault>,
    ) -> Vec<Prefer> {
        let mut out = Vec::new();
        if !self.wants.prefer {
            return out;
        }
        let mut window: Vec<u32> = ranks.iter().map(|rank| rank.class).collect();
        window.sort_unstable();
        window.dedup();
        window.truncate(self.wants.window as usize);
        let mut view = View::new(machine);
        view.now = now;
        view.ran = machine;
        view.last = if machine == 0 { NONE } else { test };
        view.last_ok = machine == 1;
        view.labels = &[("k", "v")];
        keep(faults, "prefer", policy.prefer(&view, &window, &mut out));
        let lifts = |one: &&Prefer| matches!(one, Prefer::Class(_, 1..) | Prefer::Test(..));
        let lifted = out.iter().filter(lifts).count();
        if lifted > MAX_PREFERENCES + window.len() {
            faults.push(PolicyFault { call: "prefer", what: format!("{lifted} preferences are too many") });
        }
        for one in &out {
            let what = match *one {
                Prefer::Test(_, ..=0) => "one test can only be lifted: give it a class of its own".to_owned(),
                Prefer::Test(test, _) if test as usize >= self.tests.len() => {
                    format!("there is no test {test}")
                }
                _ => continue,
            };
            faults.push(PolicyFault { call: "prefer", what });
        }
        out
    }

    fn check_commands(&self, commands: &[Command], faults: &mut Vec<PolicyFault>) {
        for command in commands {
            if let Command::Skip(test, _) | Command::Rerank(test) = command
                && *test as usize >= self.tests.len()
            {
                faults.push(PolicyFault { call: "note", what: format!("there is no test {test}") });
            }
        }
    }
}

fn run(test: TestId, machine: MachineId, start: Ms, index: usize) -> Run<'static> {
    let all = [
        (Outcome::Passed, 0, "pass"),
        (Outcome::Failed, 1, "fail"),
        (Outcome::TimedOut, -1, "infra"),
        (Outcome::Failed, 2, "error"),
        (Outcome::Protocol, -1, "infra"),
        (Outcome::Limit, -1, "infra"),
    ];
    let (outcome, exit, status) = all[index % all.len()];
    let mut run = Run::new(test, machine, outcome);
    (run.now, run.wall, run.exit, run.status) = (start + 500, 500, exit, status);
    run
}

fn keep<T>(faults: &mut Vec<PolicyFault>, call: &'static str, result: crate::Result<T>) -> Option<T> {
    result.map_err(|error| faults.push(PolicyFault { call, what: error.to_string() })).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Ranks by how often it was asked: what a policy must not do.
    #[derive(Default)]
    struct Moody(Cell<i64>);
    impl Policy for Moody {
        fn wants(&self) -> Wants {
            Wants::new().rank()
        }
        fn rank(&self, _: u32, tests: &[Queued], out: &mut Vec<Rank>) -> crate::Result<()> {
            self.0.set(self.0.get() + 1);
            out.extend(tests.iter().map(|_| Rank { class: 0, score: self.0.get() }));
            Ok(())
        }
    }

    struct Short;
    impl Policy for Short {
        fn wants(&self) -> Wants {
            Wants::new().rank().prefer()
        }
        fn rank(&self, _: u32, _: &[Queued], _: &mut Vec<Rank>) -> crate::Result<()> {
            Ok(())
        }
        fn prefer(&self, _: &View<'_>, _: &[u32], out: &mut Vec<Prefer>) -> crate::Result<()> {
            out.push(Prefer::Test(99, 1));
            Ok(())
        }
    }

    #[test]
    fn broken_rules_are_found() {
        let none = |_: &str, _: &str| String::new();
        let calls = |faults: Vec<PolicyFault>| {
            let mut calls: Vec<_> = faults.into_iter().map(|fault| fault.call).collect();
            calls.dedup();
            calls
        };
        assert_eq!(calls(check_policy(Moody::default, &["/a", "/b"], none, |_| String::new())), ["note"]);
        let short = calls(check_policy(|| Short, &["/a", "/b"], none, |_| String::new()));
        assert!(short.contains(&"rank") && short.contains(&"prefer"), "{short:?}");
    }
}
