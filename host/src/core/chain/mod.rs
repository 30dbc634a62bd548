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

mod check;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use atex_plugin_api::policy::{self as api, Policy, RunInfo, TestInfo, View};
use atex_plugin_api::{Error, ErrorKind};

use super::config::Shape;
use super::event::{
    Class, Command, FinishedRun, Judgement, KindInfo, Ms, NONE, Note, Question, Queued, Rank, Ruling, TestId,
    Wish,
};

pub use check::{Fault, FaultKind};

/// Tests per call of a policy.
const BLOCK: usize = 1024;
/// Wishes per call that lift something, beside one for each class that the policy was shown: each of these is looked at.
const WISHES: usize = 64;

/// Where a chain reads about tests while it registers them.
pub trait Catalogue {
    /// The test, without attributes; its number is that of the run.
    fn info(&self, test: TestId) -> TestInfo<'_>;
    /// The value of a metadata key, `""` if absent.
    fn attr(&self, test: TestId, key: &str) -> Cow<'_, str>;
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
    /// A chain in this order. Each policy is asked what it wants to see, and again once the tests are registered.
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

    /// What the coordinator must know of this chain, once its tests are registered.
    pub fn shape(&self) -> Shape {
        Shape { wants: self.policies.iter().map(|member| member.wants.clone()).collect(), names: vec![] }
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
                Ok(()) => {
                    self.narrow(position);
                    self.check_commands(position, commands, &mut out);
                }
                Err(error) => {
                    let kind = if error.kind() == ErrorKind::Config {
                        FaultKind::Metadata
                    } else {
                        FaultKind::Register
                    };
                    self.fault(position, kind, &error.to_string());
                    if let Some(member) = self.policies.get_mut(usize::from(position)) {
                        member.off = true;
                    }
                }
            }
        }
        out
    }

    /// Now that it knows the tests, a policy may want less.
    fn narrow(&mut self, position: u16) {
        if let Some(member) = self.policies.get_mut(usize::from(position)) {
            let later = member.policy.wants();
            member.wants = std::mem::take(&mut member.wants).narrowed(&later);
        }
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
    pub fn judge(&mut self, run: &FinishedRun) -> Ruling {
        let test = self.own(run.test);
        let mut run = run.as_api();
        run.test = test;
        let mut all = Ruling::NONE;
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
            all.stop = all.stop.or(said.stop.then_some(position));
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
}

#[cfg(test)]
mod tests;
