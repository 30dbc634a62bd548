//! A chain of policies: calls them, checks what they say, and turns it into answers for the coordinator.
//!
//! The engine gives each chain a thread; the simulation calls it directly. Either way the coordinator's questions come in
//! as actions and go back as events, so a policy that is slow or dead never holds up the coordinator.
//!
//! Whatever a policy returns is checked. A call that fails, or whose answer makes no sense, costs that policy's opinion in
//! that call: the host's own order is used at its level. A policy whose registration failed is not asked at all. Every
//! fault is counted under the policy's position, with the first message of its kind, for the run's report.
//!
//! Tests have dense numbers in the run; a chain serves a range of them, and its policies count from 0.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use atex_plugin_api::Error;
use atex_plugin_api::policy::{self as api, Policy, RunInfo, TestInfo, View};

use super::config::Shape;
use super::event::{
    Class, Command, FinishedRun, Judgement, KindInfo, Ms, NONE, Note, Prefer, Question, Queued, Rank, TestId,
    Wish,
};

/// Tests per call of a policy.
const BLOCK: usize = 1024;
/// Wishes per call that lift something, beside one for each class that the policy was shown: each of these is looked at.
const WISHES: usize = 64;
/// Wishes per call altogether. What is lowered or ruled out is only looked at where it would have come first.
const ALL_WISHES: usize = 4096;
/// Requests per call.
const COMMANDS: usize = 100_000;
/// Bytes of a reason that a policy gives.
const REASON: usize = 1024;

/// Where a chain reads about tests while it registers them.
pub trait Catalogue {
    /// The test, without attributes; its number is that of the run.
    fn info(&self, test: TestId) -> TestInfo<'_>;
    /// The value of a metadata key, `""` if absent.
    fn attr(&self, test: TestId, key: &str) -> Cow<'_, str>;
}

/// What a policy did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Registration failed: the policy is left out of the run.
    Register,
    /// A call failed.
    Call,
    /// It ranked more or fewer tests than it was asked for.
    RankCount,
    /// It wished for too much at once.
    TooManyWishes,
    /// It asked for too much at once.
    TooManyCommands,
    /// It named a test that does not exist.
    UnknownTest,
    /// It wished to lower a single test.
    LoweredTest,
}

impl FaultKind {
    /// What is wrong, as part of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Register => "its registration failed: it is left out of this run",
            Self::Call => "a call failed: the host's own order is used instead",
            Self::RankCount => "rank: not one rank per test: the host's own order is used instead",
            Self::TooManyWishes => "prefer: too many wishes: the rest is ignored",
            Self::TooManyCommands => "too many requests in one call: the rest is ignored",
            Self::UnknownTest => "it named a test that does not exist",
            Self::LoweredTest => "prefer: one test can be lifted, not lowered; give it a class of its own",
        }
    }
}

/// A kind of fault of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Position in the chain.
    pub policy: u16,
    pub kind: FaultKind,
    /// How often.
    pub count: u64,
    /// The first message, if the policy gave one.
    pub message: String,
}

/// The answer to a question for ranks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranks {
    /// One per ranking level and test, test by test, as on the first of the kinds.
    pub ranks: Vec<Rank>,
    /// Which of the other kinds rank these tests differently.
    pub differ: Vec<u32>,
}

/// See the [module](self).
pub struct Chain {
    policies: Vec<Member>,
    faults: BTreeMap<(u16, FaultKind), Fault>,
    /// Faults of a kind that nobody was told of yet.
    news: Vec<(u16, FaultKind)>,
    tests: Range<TestId>,
    /// Per kind, the number that each policy knows it by.
    kinds: Vec<Vec<u32>>,
}

/// One policy of the chain.
struct Member {
    policy: Box<dyn Policy>,
    wants: api::Wants,
    /// Its registration failed: it is not called.
    off: bool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wants: Vec<_> = self.policies.iter().map(|member| &member.wants).collect();
        f.debug_struct("Chain").field("wants", &wants).field("tests", &self.tests).finish_non_exhaustive()
    }
}

impl Chain {
    /// A chain in this order. Each policy is asked what it wants to see.
    pub fn new(policies: Vec<Box<dyn Policy>>) -> Self {
        let member = |policy: Box<dyn Policy>| Member { wants: policy.wants(), policy, off: false };
        Self {
            policies: policies.into_iter().map(member).collect(),
            faults: BTreeMap::new(),
            news: vec![],
            tests: 0..0,
            kinds: vec![],
        }
    }

    /// What the coordinator must know of this chain.
    pub fn shape(&self) -> Shape {
        Shape { wants: self.policies.iter().map(|member| member.wants.clone()).collect() }
    }

    /// All faults so far.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.values()
    }

    /// Kinds of faults that are new since the last call.
    pub fn take_news(&mut self) -> Vec<Fault> {
        let news = std::mem::take(&mut self.news);
        news.iter().filter_map(|key| self.faults.get(key).cloned()).collect()
    }

    /// Registers the tests of the platforms that this chain serves, and returns what the policies ask for at once.
    pub fn register(
        &mut self,
        run: &RunInfo,
        tests: Range<TestId>,
        catalogue: &dyn Catalogue,
    ) -> Vec<(u16, Command)> {
        self.tests = tests;
        let own = RunInfo::new(run.seed, self.count(), run.platforms);
        let mut out = vec![];
        for position in 0..self.policies.len() as u16 {
            let mut commands = vec![];
            let done = self.register_one(position, &own, catalogue, &mut commands);
            match done {
                Ok(()) => self.check_commands(position, commands, &mut out),
                Err(error) => {
                    self.fault(position, FaultKind::Register, &error.to_string());
                    if let Some(member) = self.policies.get_mut(usize::from(position)) {
                        member.off = true;
                    }
                }
            }
        }
        out
    }

    fn register_one(
        &mut self,
        position: u16,
        run: &RunInfo,
        catalogue: &dyn Catalogue,
        out: &mut Vec<Command>,
    ) -> Result<(), Error> {
        let range = self.tests.clone();
        let Some(member) = self.policies.get_mut(usize::from(position)) else { return Ok(()) };
        let keys = &member.wants.attrs;
        let ids: Vec<TestId> = range.clone().collect();
        for block in ids.chunks(BLOCK) {
            let values: Vec<Cow<'_, str>> = block
                .iter()
                .flat_map(|&test| keys.iter().map(move |key| catalogue.attr(test, key)))
                .collect();
            let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
            let mut infos = Vec::with_capacity(block.len());
            for (number, &test) in block.iter().enumerate() {
                let mut info = catalogue.info(test);
                info.id = test - range.start;
                info.attrs = values.get(number * keys.len()..(number + 1) * keys.len()).unwrap_or_default();
                infos.push(info);
            }
            member.policy.register(run, &infos)?;
        }
        member.policy.ready(out)
    }

    /// Makes a kind of machine known. Kinds come in the order of their numbers.
    pub fn kind(&mut self, info: &KindInfo) {
        for (position, own, values) in &info.news {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            self.call(*position, |policy| policy.kind(*own, &values));
        }
        let at = info.kind as usize;
        if self.kinds.len() <= at {
            self.kinds.resize(at + 1, vec![]);
        }
        if let Some(kind) = self.kinds.get_mut(at) {
            kind.clone_from(&info.own);
        }
    }

    /// Ranks tests for the first of `kinds`, and says which of the others differ.
    pub fn rank(&mut self, kinds: &[u32], tests: &[Queued]) -> Ranks {
        let Some((&first, others)) = kinds.split_first() else { return Ranks::default() };
        let own: Vec<Queued> = tests
            .iter()
            .map(|queued| Queued::new(self.own(queued.test), queued.attempt, queued.last_machine))
            .collect();
        let ranking: Vec<u16> = (0..self.policies.len() as u16).filter(|&at| self.ranks(at)).collect();
        let mut ranks = vec![Rank::default(); tests.len() * ranking.len()];
        let mut differ = vec![];
        for (column, &position) in ranking.iter().enumerate() {
            let mine = self.own_kind(first, position);
            let scores = self.column(position, mine, &own);
            for &kind in others {
                let its = self.own_kind(kind, position);
                if its != mine && !differ.contains(&kind) && self.column(position, its, &own) != scores {
                    differ.push(kind);
                }
            }
            for (row, rank) in ranks.chunks_exact_mut(ranking.len()).zip(scores) {
                if let Some(slot) = row.get_mut(column) {
                    *slot = rank;
                }
            }
        }
        Ranks { ranks, differ }
    }

    /// What the policies wish for one machine.
    pub fn prefer(&mut self, question: &Question) -> Vec<Wish> {
        // A machine may have served a platform of another chain before.
        let own = |test: TestId| if self.tests.contains(&test) { test - self.tests.start } else { NONE };
        let running: Vec<TestId> = question.running.iter().map(|&test| own(test)).collect();
        let last = own(question.last);
        let labels: Vec<(&str, &str)> = question
            .labels
            .iter()
            .flat_map(|labels| labels.iter())
            .map(|(key, value)| (&**key, &**value))
            .collect();
        let mut out = vec![];
        for position in 0..self.policies.len() as u16 {
            if !self.policies.get(usize::from(position)).is_some_and(|member| member.wants.prefer) {
                continue;
            }
            let window = question.windows.iter().find(|(of, _)| *of == position);
            let window: &[Class] = window.map_or(&[], |(_, classes)| classes);
            let mut view = View::new(question.machine);
            view.now = question.now;
            view.kind = self.own_kind(question.kind, position);
            view.platform = question.platform;
            (view.free, view.slots) = (question.free, question.slots);
            (view.ran, view.last, view.last_ok) = (question.ran, last, question.last_ok);
            (view.running, view.labels) = (&running, &labels);
            let mut wishes = vec![];
            if self.call(position, |policy| policy.prefer(&view, window, &mut wishes)) {
                self.check_wishes(position, &wishes, WISHES + window.len(), &mut out);
            }
        }
        out
    }

    /// What a finished run means: the first opinion on each question counts.
    pub fn judge(&mut self, run: &FinishedRun) -> Judgement {
        let test = self.own(run.test);
        let mut run = run.as_api();
        run.test = test;
        let mut all = Judgement::NONE;
        for position in 0..self.policies.len() as u16 {
            if !self.policies.get(usize::from(position)).is_some_and(|member| member.wants.judge) {
                continue;
            }
            let mut said = Judgement::NONE;
            self.call(position, |policy| {
                said = policy.judge(&run)?;
                Ok(())
            });
            all.rerun = all.rerun.or(said.rerun);
            all.spoilt = all.spoilt.or(said.spoilt);
            all.stop |= said.stop;
        }
        all
    }

    /// Tells the policies what happened, and returns what they ask for.
    pub fn note(&mut self, now: Ms, note: &Note) -> Vec<(u16, Command)> {
        let run;
        let told = match note {
            Note::Started { test, machine } => {
                api::Note::Started { test: self.own(*test), machine: *machine }
            }
            Note::Finished { run: finished, last } => {
                let mut own = finished.as_api();
                own.test = self.own(finished.test);
                run = own;
                api::Note::Finished { run, last: *last }
            }
            Note::Label { machine, key, value } => api::Note::Label { machine: *machine, key, value },
            Note::Gone { machine } => api::Note::Gone { machine: *machine },
            Note::Time { .. } => api::Note::Time,
        };
        let only = if let Note::Time { policy } = note { Some(*policy) } else { None };
        let mut out = vec![];
        for position in 0..self.policies.len() as u16 {
            let wanted = self.policies.get(usize::from(position)).is_some_and(|member| member.wants.notes);
            if !wanted || only.is_some_and(|only| only != position) {
                continue;
            }
            let mut commands = vec![];
            if self.call(position, |policy| policy.note(now, &told, &mut commands)) {
                self.check_commands(position, commands, &mut out);
            }
        }
        out
    }

    /// Brings freshly registered policies to where a journal left them. Returns what still holds of what they asked for
    /// meanwhile, `registered` being the answer to [`register`](Self::register): the last wake-up of each, what to skip,
    /// and whether to stop.
    pub fn replay<'a>(
        &mut self,
        registered: Vec<(u16, Command)>,
        notes: impl IntoIterator<Item = (Ms, &'a Note)>,
    ) -> Vec<(u16, Command)> {
        let mut wakes = BTreeMap::new();
        let mut kept = vec![];
        let mut keep = |commands: Vec<(u16, Command)>| {
            for (position, command) in commands {
                match command {
                    Command::WakeAt(at) => _ = wakes.insert(position, at),
                    Command::Rerank(_) => {}
                    other => kept.push((position, other)),
                }
            }
        };
        keep(registered);
        for (now, note) in notes {
            let commands = self.note(now, note);
            keep(commands);
        }
        kept.extend(wakes.into_iter().map(|(position, at)| (position, Command::WakeAt(at))));
        kept
    }

    fn count(&self) -> u32 {
        self.tests.len() as u32
    }

    /// The number that policies know a test of this chain by.
    fn own(&self, test: TestId) -> TestId {
        test.wrapping_sub(self.tests.start)
    }

    fn own_kind(&self, kind: u32, position: u16) -> u32 {
        let own = self.kinds.get(kind as usize).and_then(|own| own.get(usize::from(position)));
        own.copied().unwrap_or(0)
    }

    fn ranks(&self, position: u16) -> bool {
        self.policies.get(usize::from(position)).is_some_and(|member| member.wants.rank)
    }

    /// What one policy says of tests on one of its kinds, or the host's own order.
    fn column(&mut self, position: u16, kind: u32, tests: &[Queued]) -> Vec<Rank> {
        let mut column = Vec::with_capacity(tests.len());
        for block in tests.chunks(BLOCK) {
            let mut ranks = Vec::with_capacity(block.len());
            let answered = self.call(position, |policy| policy.rank(kind, block, &mut ranks));
            if answered && ranks.len() != block.len() {
                self.fault(position, FaultKind::RankCount, "");
            }
            if answered && ranks.len() == block.len() {
                column.append(&mut ranks);
            } else {
                column.resize(column.len() + block.len(), Rank::default());
            }
        }
        column
    }

    /// Calls one policy, unless it is left out. Returns whether it answered; a failure is written down.
    fn call(&mut self, position: u16, call: impl FnOnce(&mut dyn Policy) -> Result<(), Error>) -> bool {
        let member = self.policies.get_mut(usize::from(position)).filter(|member| !member.off);
        match member.map(|member| call(member.policy.as_mut())) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.fault(position, FaultKind::Call, &error.to_string());
                false
            }
            None => false,
        }
    }

    fn check_wishes(&mut self, level: u16, wishes: &[Prefer], most: usize, out: &mut Vec<Wish>) {
        let lifts = |prefer: &Prefer| matches!(prefer, Prefer::Class(_, 1..) | Prefer::Test(..));
        if wishes.len() > ALL_WISHES.max(most) || wishes.iter().filter(|prefer| lifts(prefer)).count() > most
        {
            self.fault(level, FaultKind::TooManyWishes, "");
        }
        let mut lifted = 0;
        for &prefer in wishes.iter().take(ALL_WISHES.max(most)) {
            lifted += usize::from(lifts(&prefer));
            if lifts(&prefer) && lifted > most {
                continue;
            }
            let prefer = match prefer {
                Prefer::Class(..) => prefer,
                Prefer::Test(_, ..=0) => {
                    self.fault(level, FaultKind::LoweredTest, "");
                    continue;
                }
                Prefer::Test(test, _) if test >= self.count() => {
                    self.fault(level, FaultKind::UnknownTest, "");
                    continue;
                }
                Prefer::Test(test, score) => Prefer::Test(test + self.tests.start, score),
            };
            out.push(Wish { level, prefer });
        }
    }

    fn check_commands(&mut self, position: u16, commands: Vec<Command>, out: &mut Vec<(u16, Command)>) {
        let most = COMMANDS.max(self.tests.len());
        if commands.len() > most {
            self.fault(position, FaultKind::TooManyCommands, "");
        }
        for command in commands.into_iter().take(most) {
            let command = match command {
                Command::Skip(test, _) | Command::Rerank(test) if test >= self.count() => {
                    self.fault(position, FaultKind::UnknownTest, "");
                    continue;
                }
                Command::Skip(test, reason) => Command::Skip(test + self.tests.start, shortened(reason)),
                Command::Rerank(test) => Command::Rerank(test + self.tests.start),
                Command::Stop(reason) => Command::Stop(shortened(reason)),
                other => other,
            };
            out.push((position, command));
        }
    }

    fn fault(&mut self, policy: u16, kind: FaultKind, message: &str) {
        let entry = self.faults.entry((policy, kind)).or_insert_with(|| {
            self.news.push((policy, kind));
            Fault { policy, kind, count: 0, message: message.to_owned() }
        });
        entry.count += 1;
    }
}

/// A reason of reasonable length, cut at a character.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON {
        let end = (0..=REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
        reason.truncate(end);
    }
    reason
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::ErrorKind;
    use atex_plugin_api::policy::{Outcome, Policy, Queued, Run, Wants};

    use super::*;
    use crate::core::simulate::Synthetic;
    use crate::core::testing::{Longest, Nonsense, Priority, Reruns, Tests};

    /// Fails in the method of this name.
    struct Broken(&'static str);

    impl Broken {
        fn may(&self, method: &str) -> Result<(), Error> {
            if self.0 == method {
                Err(Error::new(ErrorKind::Panic, format!("{method} broke")))
            } else {
                Ok(())
            }
        }
    }

    impl Policy for Broken {
        fn wants(&self) -> Wants {
            let mut wants = Wants::default();
            (wants.rank, wants.prefer, wants.judge, wants.notes) = (true, true, true, true);
            wants.facts = vec!["model".into()];
            wants
        }
        fn register(&mut self, _run: &RunInfo, _tests: &[TestInfo<'_>]) -> Result<(), Error> {
            self.may("register")
        }
        fn ready(&mut self, out: &mut Vec<Command>) -> Result<(), Error> {
            out.extend([Command::Skip(0, "x".repeat(5000)), Command::Skip(1000, "no such test".into())]);
            self.may("ready")
        }
        fn kind(&mut self, _kind: u32, _facts: &[&str]) -> Result<(), Error> {
            self.may("kind")
        }
        fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<(), Error> {
            out.extend(tests.iter().map(|_| Rank { class: 1, score: 7 }));
            if self.0 == "too few ranks" {
                out.pop();
            }
            self.may("rank")
        }
        fn prefer(&self, _machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<(), Error> {
            out.extend([Prefer::Class(1, 1), Prefer::Test(5, 0), Prefer::Test(1000, 1), Prefer::Test(1, 2)]);
            if self.0 == "too many wishes" {
                out.extend((0..1000).map(|class| Prefer::Class(class, 1)));
            }
            self.may("prefer")
        }
        fn judge(&self, _run: &Run<'_>) -> Result<Judgement, Error> {
            self.may("judge")?;
            Ok(Judgement::rerun(true))
        }
        fn note(&mut self, _now: Ms, _note: &api::Note<'_>, out: &mut Vec<Command>) -> Result<(), Error> {
            out.push(Command::Rerank(3));
            self.may("note")
        }
    }

    fn chain(policies: Vec<Box<dyn Policy>>) -> (Chain, Vec<(u16, Command)>) {
        let tests = Synthetic::new(30, 1).make();
        let mut chain = Chain::new(policies);
        // Ten tests of another chain come first.
        let asked = chain.register(&RunInfo::new(1, 30, 2), 10..30, &Tests { tests: &tests, groups: 0 });
        chain.kind(&KindInfo { kind: 0, own: vec![0], news: vec![(0, 0, vec!["a".into()])] });
        (chain, asked)
    }

    fn question() -> Question {
        Question {
            now: 0,
            machine: 0,
            kind: 0,
            platform: 0,
            free: 1,
            slots: 1,
            ran: 0,
            last: 3,
            last_ok: true,
            running: vec![11],
            labels: None,
            windows: vec![],
        }
    }

    fn finished() -> FinishedRun {
        let (outcome, status) = (Outcome::Failed, "fail".into());
        FinishedRun { now: 0, test: 12, machine: 0, attempt: 0, outcome, exit: 1, wall: 0, status }
    }

    fn kinds_of_faults(chain: &Chain) -> Vec<(FaultKind, u64)> {
        chain.faults().map(|fault| (fault.kind, fault.count)).collect()
    }

    #[test]
    fn what_policies_say_is_checked_and_renumbered() {
        let (mut chain, asked) = chain(vec![Box::new(Broken(""))]);
        let [(0, Command::Skip(10, reason))] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(reason.len(), REASON);
        let wishes = chain.prefer(&question());
        let wanted = [Prefer::Class(1, 1), Prefer::Test(11, 2)];
        assert_eq!(wishes.iter().map(|wish| wish.prefer).collect::<Vec<_>>(), wanted);
        assert_eq!(chain.note(0, &Note::Time { policy: 0 }), [(0, Command::Rerank(13))]);
        assert_eq!(chain.note(0, &Note::Time { policy: 1 }), []);
        assert_eq!(kinds_of_faults(&chain), [(FaultKind::UnknownTest, 2), (FaultKind::LoweredTest, 1)]);
        assert_eq!(chain.take_news().len(), 2);
        assert!(chain.take_news().is_empty());
    }

    #[test]
    fn a_failing_call_costs_one_opinion() {
        let tests: Vec<Queued> = (10..14).map(Queued::first).collect();
        for method in ["rank", "prefer", "judge", "note", "too few ranks", "too many wishes"] {
            let (mut chain, _) = chain(vec![Box::new(Broken(method)), Box::new(Reruns::new(0, false))]);
            let own = chain.rank(&[0], &tests).ranks == [Rank { class: 1, score: 7 }; 4];
            assert_eq!(own, !matches!(method, "rank" | "too few ranks"), "{method}");
            let wishes = chain.prefer(&question()).len();
            assert_eq!((wishes > 0, wishes < 100), (method != "prefer", true), "{method}");
            assert_eq!(chain.judge(&finished()).rerun.is_some(), method != "judge", "{method}");
            assert_eq!(chain.note(0, &Note::Gone { machine: 0 }).is_empty(), method == "note", "{method}");
            let fault = match method {
                "too few ranks" => FaultKind::RankCount,
                "too many wishes" => FaultKind::TooManyWishes,
                _ => FaultKind::Call,
            };
            assert!(chain.faults().any(|it| it.kind == fault && it.policy == 0), "{method}");
        }
    }

    #[test]
    fn a_policy_that_could_not_register_is_left_out() {
        for method in ["register", "ready"] {
            let (mut chain, asked) = chain(vec![Box::new(Broken(method)), Box::new(Priority::new())]);
            assert_eq!(asked, []);
            let ranks = chain.rank(&[0], &[Queued::first(10)]).ranks;
            assert_eq!(ranks[0], Rank::default());
            assert_eq!(chain.prefer(&question()), []);
            assert_eq!(kinds_of_faults(&chain), [(FaultKind::Register, 1)]);
            assert!(chain.faults().all(|fault| fault.message.contains("broke")));
        }
    }

    #[test]
    fn the_first_opinion_counts() {
        let (mut chain, _) = chain(vec![Box::new(Reruns::new(0, false)), Box::new(Broken(""))]);
        assert_eq!(chain.judge(&finished()).rerun, Some(true));
    }

    #[test]
    fn only_policies_that_see_the_difference_are_asked_about_another_kind() {
        let tests = [Queued::first(10), Queued::first(11)];
        let (mut chain, _) = chain(vec![Box::new(Longest::new(true))]);
        chain.kind(&KindInfo { kind: 1, own: vec![0], news: vec![] });
        assert!(chain.rank(&[0, 1], &tests).differ.is_empty());
        let (mut chain, _) = chain2();
        chain.kind(&KindInfo { kind: 1, own: vec![1], news: vec![(0, 1, vec!["b".into()])] });
        assert_eq!(chain.rank(&[0, 1], &tests).differ, [1]);
    }

    /// A chain whose policy ranks every kind differently.
    fn chain2() -> (Chain, Vec<(u16, Command)>) {
        chain(vec![Box::new(crate::core::testing::ByKind { from: 0, veto: false })])
    }

    #[test]
    fn replay_keeps_what_still_holds() {
        let (mut chain, asked) = chain(vec![Box::new(Nonsense(5))]);
        let notes: Vec<(Ms, Note)> = (0..500).map(|now| (now, Note::Time { policy: 0 })).collect();
        let kept = chain.replay(asked, notes.iter().map(|(now, note)| (*now, note)));
        let wakes = kept.iter().filter(|(_, command)| matches!(command, Command::WakeAt(_))).count();
        assert_eq!(wakes, 1);
        assert!(!kept.iter().any(|(_, command)| matches!(command, Command::Rerank(_))));
    }
}
