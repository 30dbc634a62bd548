//! Policies for the core's own tests: the shapes that real ones have, and some that misbehave.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use atex_plugin_api::policy::{
    Class, Command, Judgement, Ms, NONE, Note, Outcome, Policy, Prefer, Queued, Rank, Run, RunInfo, TestId,
    TestInfo, VETO, View, Wants,
};
use atex_plugin_api::{Error, ErrorKind, Result};

use super::chain::{Catalogue, Chain};
use super::hash::mix;
use super::simulate::{Ready, SyntheticTest};

fn wants(change: impl FnOnce(&mut Wants)) -> Wants {
    let mut wants = Wants::default();
    change(&mut wants);
    wants
}

/// Reruns failed tests up to `most` times, elsewhere if there is a choice.
pub(crate) struct Reruns {
    pub(crate) most: u16,
    pub(crate) elsewhere: bool,
    done: HashMap<TestId, u16>,
}

impl Reruns {
    pub(crate) fn new(most: u16, elsewhere: bool) -> Self {
        Self { most, elsewhere, done: HashMap::new() }
    }
}

impl Policy for Reruns {
    fn wants(&self) -> Wants {
        wants(|wants| {
            (wants.rank, wants.prefer) = (self.elsewhere, self.elsewhere);
            (wants.judge, wants.notes) = (true, true);
        })
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        // No last machine is class 0.
        out.extend(tests.iter().map(|test| Rank { class: test.last_machine.wrapping_add(1), score: 0 }));
        Ok(())
    }
    fn prefer(&self, machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        if machine.ran > 0 {
            out.push(Prefer::Class(machine.machine + 1, -1));
        }
        Ok(())
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        let left = self.done.get(&run.test).copied().unwrap_or(0) < self.most;
        let again = run.outcome != Outcome::Passed && left;
        Ok(if again { Judgement::rerun(true) } else { Judgement::NONE })
    }
    fn note(&mut self, _now: Ms, note: &Note<'_>, _out: &mut Vec<Command>) -> Result<()> {
        if let Note::Finished { run, last: false } = note {
            *self.done.entry(run.test).or_default() += 1;
        }
        Ok(())
    }
}

/// A number of the metadata, bigger first.
pub(crate) struct Priority(Vec<i64>);

impl Priority {
    pub(crate) fn new() -> Self {
        Self(vec![])
    }
}

impl Policy for Priority {
    fn wants(&self) -> Wants {
        wants(|wants| (wants.rank, wants.attrs) = (true, vec!["extra-priority".into()]))
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.0.extend(tests.iter().map(|test| test.attrs[0].parse().unwrap_or(0)));
        Ok(())
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| Rank { class: 0, score: self.0[test.test as usize] }));
        Ok(())
    }
}

/// Longest first: by history and the probability of a rerun, else by the limit, scaled to what history makes of limits.
pub(crate) struct Longest {
    history: bool,
    known: Vec<(Ms, Ms, u16)>,
    ratio: f64,
}

impl Longest {
    pub(crate) fn new(history: bool) -> Self {
        Self { history, known: vec![], ratio: 1.0 }
    }
}

impl Policy for Longest {
    fn wants(&self) -> Wants {
        wants(|wants| wants.rank = true)
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        let expected = |test: &TestInfo<'_>| if self.history { test.expected } else { 0 };
        self.known.extend(tests.iter().map(|test| (expected(test), test.limit, test.fail_rate)));
        Ok(())
    }
    fn ready(&mut self, _out: &mut Vec<Command>) -> Result<()> {
        let known = self.known.iter().filter(|known| known.0 > 0 && known.1 > 0);
        let mut ratios: Vec<f64> = known.map(|known| known.0 as f64 / known.1 as f64).collect();
        if !ratios.is_empty() {
            let middle = ratios.len() / 2;
            self.ratio = *ratios.select_nth_unstable_by(middle, f64::total_cmp).1;
        }
        Ok(())
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| {
            let (expected, limit, fail_rate) = self.known[test.test as usize];
            let time = if expected > 0 { expected as f64 } else { limit as f64 * self.ratio };
            let again = if test.attempt == 0 { f64::from(fail_rate) / 1000.0 } else { 0.0 };
            Rank { class: 0, score: (time * (1.0 + again)) as i64 }
        }));
        Ok(())
    }
}

/// Tests tagged `destructive`: first on a fresh machine, last on a used one, which is spoilt afterwards.
#[derive(Default)]
pub(crate) struct Destructive(Vec<bool>);

impl Policy for Destructive {
    fn wants(&self) -> Wants {
        wants(|wants| {
            wants.attrs = vec!["tag".into()];
            (wants.rank, wants.prefer, wants.judge) = (true, true, true);
        })
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.0.extend(tests.iter().map(|test| test.attrs[0].contains("destructive")));
        Ok(())
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| Rank { class: self.0[test.test as usize].into(), score: 0 }));
        Ok(())
    }
    fn prefer(&self, machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        out.push(Prefer::Class(1, if machine.ran == 0 { 1 } else { -1 }));
        Ok(())
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        Ok(if self.0[run.test as usize] { Judgement::spoilt(true) } else { Judgement::NONE })
    }
}

/// Prefers the test of the same group as the last one that passed on the machine.
#[derive(Default)]
pub(crate) struct Affinity {
    numbers: HashMap<String, Class>,
    groups: Vec<Class>,
}

impl Policy for Affinity {
    fn wants(&self) -> Wants {
        wants(|wants| {
            wants.attrs = vec!["group".into()];
            (wants.rank, wants.prefer) = (true, true);
        })
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            let next = self.numbers.len() as Class + 1;
            let group = test.attrs[0];
            self.groups.push(if group.is_empty() {
                0
            } else {
                *self.numbers.entry(group.into()).or_insert(next)
            });
        }
        Ok(())
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| Rank { class: self.groups[test.test as usize], score: 0 }));
        Ok(())
    }
    fn prefer(&self, machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let group = self.groups.get(machine.last as usize).copied().unwrap_or(0);
        if machine.last_ok && group != 0 {
            out.push(Prefer::Class(group, 1));
        }
        Ok(())
    }
}

/// Tests of one group never run beside each other on one machine.
#[derive(Default)]
pub(crate) struct Exclusive(Affinity);

impl Policy for Exclusive {
    fn wants(&self) -> Wants {
        self.0.wants()
    }
    fn register(&mut self, run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.0.register(run, tests)
    }
    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        self.0.rank(kind, tests, out)
    }
    fn prefer(&self, machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let groups = machine.running.iter().map(|&test| self.0.groups[test as usize]);
        out.extend(groups.filter(|&group| group != 0).map(|group| Prefer::Class(group, VETO)));
        Ok(())
    }
}

/// A fresh machine for every test.
pub(crate) struct Isolate;

impl Policy for Isolate {
    fn wants(&self) -> Wants {
        wants(|wants| wants.judge = true)
    }
    fn judge(&self, _run: &Run<'_>) -> Result<Judgement> {
        Ok(Judgement::spoilt(true))
    }
}

/// Stops after some final failures.
pub(crate) struct FailFast {
    pub(crate) most: u32,
    pub(crate) seen: u32,
}

impl Policy for FailFast {
    fn wants(&self) -> Wants {
        wants(|wants| wants.notes = true)
    }
    fn note(&mut self, _now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        if let Note::Finished { run, last: true } = note {
            self.seen += u32::from(run.outcome != Outcome::Passed);
            if self.seen == self.most {
                out.push(Command::Stop("enough".into()));
            }
        }
        Ok(())
    }
}

/// Skips what would not end in time any more.
pub(crate) struct TimeLimit {
    deadline: Ms,
    left: BTreeSet<(Ms, TestId)>,
    expected: Vec<Ms>,
}

impl TimeLimit {
    pub(crate) fn new(deadline: Ms) -> Self {
        Self { deadline, left: BTreeSet::new(), expected: vec![] }
    }
    fn skip(&mut self, now: Ms, out: &mut Vec<Command>) {
        while let Some(&(time, test)) = self.left.last().filter(|(time, _)| now + time > self.deadline) {
            self.left.pop_last();
            out.push(Command::Skip(test, format!("{time} ms are not left")));
        }
        out.extend(self.left.last().map(|(time, _)| Command::WakeAt(self.deadline - time + 1)));
    }
}

impl Policy for TimeLimit {
    fn wants(&self) -> Wants {
        wants(|wants| wants.notes = true)
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            let time = if test.expected > 0 { test.expected } else { test.limit };
            self.expected.push(time);
            self.left.insert((time, test.id));
        }
        Ok(())
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        self.skip(0, out);
        Ok(())
    }
    fn note(&mut self, now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        match note {
            Note::Started { test, .. } => _ = self.left.remove(&(self.expected[*test as usize], *test)),
            Note::Finished { run, last: false } => {
                self.left.insert((self.expected[run.test as usize], run.test));
            }
            Note::Time => self.skip(now, out),
            _ => {}
        }
        Ok(())
    }
}

/// One of several hosts: the others run the rest.
pub(crate) struct Shard(pub(crate) u64, pub(crate) Vec<TestId>);

impl Policy for Shard {
    fn wants(&self) -> Wants {
        Wants::default()
    }
    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.1.extend(
            tests.iter().map(|test| test.id).filter(|&test| !mix(test.into()).is_multiple_of(self.0)),
        );
        Ok(())
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        out.extend(self.1.iter().map(|&test| Command::Skip(test, "other shard".into())));
        Ok(())
    }
}

/// A class per test, liked by how well it suits the kind of machine; some suit no machine of a kind.
pub(crate) struct Fitness {
    pub(crate) seed: u64,
    pub(crate) window: u32,
}

impl Policy for Fitness {
    fn wants(&self) -> Wants {
        wants(|wants| {
            (wants.rank, wants.prefer, wants.window) = (true, true, self.window);
            wants.facts = vec!["model".into()];
        })
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|test| Rank { class: test.test, score: 0 }));
        Ok(())
    }
    fn prefer(&self, machine: &View<'_>, window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        for &test in window {
            let suits = (mix(self.seed ^ u64::from(test ^ machine.kind)) % 100) as i64;
            out.push(Prefer::Class(test, if (test + machine.kind).is_multiple_of(7) { VETO } else { suits }));
        }
        Ok(())
    }
}

/// Ranks by the kind of machine, from some test on, and rules some out.
pub(crate) struct ByKind {
    pub(crate) from: TestId,
    pub(crate) veto: bool,
}

impl Policy for ByKind {
    fn wants(&self) -> Wants {
        wants(|wants| (wants.rank, wants.facts) = (true, vec!["model".into()]))
    }
    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| {
            let test = queued.test;
            // A test that failed is ranked by kind too, so that kinds that agreed come apart.
            let differs = test >= self.from || queued.attempt > 1;
            let ruled_out = self.veto && differs && (test + kind).is_multiple_of(5);
            let score = if ruled_out { VETO } else { i64::from(differs) * i64::from((test ^ kind) % 3) };
            Rank { class: 0, score }
        }));
        Ok(())
    }
}

pub(crate) struct Shuffle(pub(crate) u64);

impl Policy for Shuffle {
    fn wants(&self) -> Wants {
        wants(|wants| wants.rank = true)
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let score = |test: &Queued| (mix(self.0 ^ u64::from(test.test)) >> 2) as i64;
        out.extend(tests.iter().map(|test| Rank { class: 0, score: score(test) }));
        Ok(())
    }
}

/// Wants everything; says anything, and fails now and then.
pub(crate) struct Nonsense(pub(crate) u64);

impl Nonsense {
    fn fail(&self, salt: u64) -> Result<u64> {
        let roll = mix(self.0 ^ salt);
        if roll.is_multiple_of(37) { Err(Error::new(ErrorKind::Panic, "nonsense")) } else { Ok(roll) }
    }
}

impl Policy for Nonsense {
    fn wants(&self) -> Wants {
        wants(|wants| {
            (wants.rank, wants.prefer, wants.judge, wants.notes, wants.window) = (true, true, true, true, 4);
            wants.facts = vec!["model".into()];
        })
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        out.push(Command::Rerank(NONE));
        if self.0.is_multiple_of(50) { Err(Error::config("nonsense")) } else { Ok(()) }
    }
    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let roll = self.fail(u64::from(tests[0].test))?;
        let count = if roll.is_multiple_of(5) { 1 } else { tests.len() };
        out.extend((0..count as u64).map(|number| Rank {
            class: mix(number) as u32 % 9,
            score: mix(self.0 + number + u64::from(kind)) as i64,
        }));
        Ok(())
    }
    fn prefer(&self, machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let roll = self.fail(machine.now ^ u64::from(machine.machine))?;
        for number in 0..roll % 90 {
            let roll = mix(roll + number);
            let score = if roll.is_multiple_of(7) { VETO } else { roll as i64 % 3 };
            let what = (roll >> 8) as u32;
            let class = Prefer::Class(what % 12, score);
            out.push(if roll.is_multiple_of(2) { class } else { Prefer::Test(what % 3000, score) });
        }
        Ok(())
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        let roll = self.fail(run.now)?;
        let mut judgement = Judgement::NONE;
        judgement.rerun = (roll.is_multiple_of(3) && run.attempt < 5).then_some(roll.is_multiple_of(2));
        judgement.spoilt = roll.is_multiple_of(5).then_some(true);
        judgement.stop = roll.is_multiple_of(4001);
        Ok(judgement)
    }
    fn note(&mut self, now: Ms, _note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        let roll = self.fail(now)?;
        let test = (roll >> 8) as TestId % 3000;
        if roll.is_multiple_of(31) {
            out.push(Command::Rerank(test));
        }
        if roll.is_multiple_of(97) {
            out.push(Command::Skip(test, "nonsense".into()));
        }
        if roll.is_multiple_of(11) {
            out.push(Command::WakeAt(now + roll % 100_000));
        }
        Ok(())
    }
}

/// Attributes for the policies above.
pub(crate) struct Tests<'a> {
    pub(crate) tests: &'a [SyntheticTest],
    /// How many values `group` has; 0: none.
    pub(crate) groups: u64,
}

impl Catalogue for Tests<'_> {
    fn info(&self, test: TestId) -> TestInfo<'_> {
        let it = &self.tests[test as usize];
        let mut info = TestInfo::new(test, "/suite/test", &[]);
        (info.platform, info.claim) = (it.plan.platform, it.plan.claim);
        (info.limit, info.expected, info.fail_rate) = (it.plan.limit, it.plan.expected, it.fail_rate);
        info
    }
    fn attr(&self, test: TestId, key: &str) -> Cow<'_, str> {
        let it = &self.tests[test as usize];
        match key {
            "extra-priority" if it.priority != 0 => it.priority.to_string().into(),
            "tag" if it.destructive => "destructive".into(),
            "group" if self.groups > 0 => format!("v{}", mix(test.into()) % self.groups).into(),
            _ => "".into(),
        }
    }
}

/// A chain that is ready to run all these tests.
pub(crate) fn ready(
    policies: Vec<Box<dyn Policy>>,
    tests: &[SyntheticTest],
    groups: u64,
    seed: u64,
) -> Ready {
    ready_for(policies, tests, 0..tests.len() as TestId, groups, seed)
}

/// A chain that is ready to run a range of these tests.
pub(crate) fn ready_for(
    policies: Vec<Box<dyn Policy>>,
    tests: &[SyntheticTest],
    range: Range<TestId>,
    groups: u64,
    seed: u64,
) -> Ready {
    let mut chain = Chain::new(policies);
    let info = RunInfo::new(seed, tests.len() as u32, 1);
    let commands = chain.register(&info, range, &Tests { tests, groups });
    Ready { chain, commands }
}
