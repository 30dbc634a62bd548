//! A policy, as the host calls it: a [`Policy`] like any other.

use std::cell::Cell;
use std::fmt;

use abi_stable::std_types::{RSlice, RStr, RVec, Tuple2};

use super::{check_keys, nonsense, parse};
use crate::abi::{
    PolicyBox, RawCommand, RawCommandKind, RawHead, RawNote, RawNoteKind, RawPrefer, RawPreferKind,
    RawQueued, RawRank, RawRun, RawRunInfo, RawTest, RawView, RawVote,
};
use crate::convert::{plain_result, plain_vote};
use crate::error::Result;
use crate::policy::{
    Class, Command, Judgement, Ms, NONE, Note, Policy, Prefer, Queued, Rank, Run, RunInfo, TestInfo, View,
    Wants,
};

/// Largest [`Wants::window`].
const MAX_WINDOW: u32 = 4096;

/// A policy made by [`Root::policy`](super::Root::policy). Answers are passed on as the plugin gave them, except that
/// words of later versions are left out: whether they make sense is for the host to check.
pub struct PolicyHandle {
    raw: PolicyBox,
    wants: Wants,
    queued: Cell<Vec<RawQueued>>,
    heads: Cell<Vec<RawHead>>,
    ranks: Cell<RVec<RawRank>>,
    preferences: Cell<RVec<RawPrefer>>,
    commands: RVec<RawCommand>,
}

impl fmt::Debug for PolicyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyHandle").field("wants", &self.wants).finish_non_exhaustive()
    }
}

impl PolicyHandle {
    pub(crate) fn new(raw: PolicyBox) -> Result<Self> {
        let wants = wants_of(&raw)?;
        if wants.window > MAX_WINDOW {
            return Err(nonsense(format!("it wants a window of {}, more than {MAX_WINDOW}", wants.window)));
        }
        check_keys(&wants.attrs)?;
        check_keys(&wants.facts)?;
        Ok(Self {
            raw,
            wants,
            queued: Cell::default(),
            heads: Cell::default(),
            ranks: Cell::default(),
            preferences: Cell::default(),
            commands: RVec::new(),
        })
    }

    fn take_commands(&mut self, out: &mut Vec<Command>) {
        out.extend(self.commands.drain(..).filter_map(plain_command));
    }
}

fn wants_of(raw: &PolicyBox) -> Result<Wants> {
    parse("what it wants", &plain_result(raw.wants())?)
}

impl Policy for PolicyHandle {
    fn wants(&self) -> Wants {
        self.wants.clone()
    }

    fn register(&mut self, run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        let run = RawRunInfo {
            seed: run.seed,
            tests: run.tests,
            platforms: run.platforms.into(),
            more: RSlice::EMPTY,
        };
        let values: Vec<RStr<'_>> =
            tests.iter().flat_map(|test| test.attrs).map(|value| RStr::from(*value)).collect();
        let tests: Vec<RawTest<'_>> = tests.iter().map(raw_test).collect();
        plain_result(self.raw.register(&run, tests.as_slice().into(), values.as_slice().into()))
    }

    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        self.commands.clear();
        plain_result(self.raw.ready(&mut self.commands))?;
        self.wants = std::mem::take(&mut self.wants).narrowed(&wants_of(&self.raw)?);
        self.take_commands(out);
        Ok(())
    }

    fn kind(&mut self, kind: u32, facts: &[&str]) -> Result<()> {
        let facts: Vec<RStr<'_>> = facts.iter().map(|value| RStr::from(*value)).collect();
        plain_result(self.raw.kind(kind, facts.as_slice().into()))
    }

    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let (mut queued, mut ranks) = (self.queued.take(), self.ranks.take());
        queued.clear();
        ranks.clear();
        queued.extend(tests.iter().map(raw_queued));
        let result = plain_result(self.raw.rank(kind, queued.as_slice().into(), &mut ranks));
        if result.is_ok() {
            out.extend(ranks.iter().map(|rank| Rank { class: rank.class, score: rank.score }));
        }
        self.queued.set(queued);
        self.ranks.set(ranks);
        result
    }

    fn prefer(&self, view: &View<'_>, window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let labels: Vec<Tuple2<RStr<'_>, RStr<'_>>> =
            view.labels.iter().map(|(key, value)| Tuple2(RStr::from(*key), RStr::from(*value))).collect();
        let (mut heads, mut preferences) = (self.heads.take(), self.preferences.take());
        heads.clear();
        preferences.clear();
        heads.extend(window.iter().map(|class| RawHead { class: *class, test: NONE }));
        let view = raw_view(view, &labels);
        let result = plain_result(self.raw.prefer(&view, heads.as_slice().into(), &mut preferences));
        if result.is_ok() {
            out.extend(preferences.iter().filter_map(plain_prefer));
        }
        self.heads.set(heads);
        self.preferences.set(preferences);
        result
    }

    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        let raw = plain_result(self.raw.judge(&raw_run(run)))?;
        Ok(Judgement {
            rerun: plain_vote(raw.rerun),
            spoilt: plain_vote(raw.spoilt),
            stop: raw.stop == RawVote::YES,
        })
    }

    fn note(&mut self, now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        self.commands.clear();
        plain_result(self.raw.note(now, &raw_note(note), &mut self.commands))?;
        self.take_commands(out);
        Ok(())
    }
}

fn raw_test<'a>(test: &TestInfo<'a>) -> RawTest<'a> {
    RawTest {
        id: test.id,
        platform: test.platform.into(),
        claim: test.claim.into(),
        fail_rate: test.fail_rate.into(),
        limit_ms: test.limit,
        expected_ms: test.expected,
        name: test.name.into(),
        more: RSlice::EMPTY,
    }
}

fn raw_queued(queued: &Queued) -> RawQueued {
    let Queued { test, attempt, last_machine } = *queued;
    RawQueued { test, attempt: attempt.into(), last_machine, reserved: 0 }
}

fn raw_view<'a>(view: &View<'a>, labels: &'a [Tuple2<RStr<'a>, RStr<'a>>]) -> RawView<'a> {
    RawView {
        now_ms: view.now,
        machine: view.machine,
        kind: view.kind,
        platform: view.platform.into(),
        free: view.free.into(),
        slots: view.slots.into(),
        ran: view.ran,
        last: view.last,
        last_ok: view.last_ok.into(),
        running: view.running.into(),
        labels: labels.into(),
        more: RSlice::EMPTY,
    }
}

fn raw_run<'a>(run: &Run<'a>) -> RawRun<'a> {
    RawRun {
        now_ms: run.now,
        wall_ms: run.wall,
        test: run.test,
        machine: run.machine,
        attempt: run.attempt.into(),
        exit: run.exit,
        outcome: run.outcome as u32,
        reserved: 0,
        status: run.status.into(),
        more: RSlice::EMPTY,
    }
}

/// What a note's `run` holds when the note is not about a run.
const NO_RUN: RawRun<'static> = RawRun {
    now_ms: 0,
    wall_ms: 0,
    test: NONE,
    machine: NONE,
    attempt: 0,
    exit: 0,
    outcome: 0,
    reserved: 0,
    status: RStr::empty(),
    more: RSlice::EMPTY,
};

fn raw_note<'a>(note: &Note<'a>) -> RawNote<'a> {
    let empty = RawNote {
        kind: RawNoteKind::TIME,
        test: NONE,
        machine: NONE,
        last: 0,
        run: NO_RUN,
        key: RStr::empty(),
        value: RStr::empty(),
        more: RSlice::EMPTY,
    };
    match *note {
        Note::Started { test, machine } => RawNote { kind: RawNoteKind::STARTED, test, machine, ..empty },
        Note::Finished { run, last } => {
            let (test, machine) = (run.test, run.machine);
            let run = raw_run(&run);
            RawNote { kind: RawNoteKind::FINISHED, test, machine, last: last.into(), run, ..empty }
        }
        Note::Label { machine, key, value } => {
            RawNote { kind: RawNoteKind::LABEL, machine, key: key.into(), value: value.into(), ..empty }
        }
        Note::Gone { machine } => RawNote { kind: RawNoteKind::GONE, machine, ..empty },
        Note::Time => empty,
    }
}

fn plain_prefer(raw: &RawPrefer) -> Option<Prefer> {
    match raw.kind {
        RawPreferKind::CLASS => Some(Prefer::Class(raw.id, raw.score)),
        RawPreferKind::TEST => Some(Prefer::Test(raw.id, raw.score)),
        _ => None,
    }
}

fn plain_command(raw: RawCommand) -> Option<Command> {
    match raw.kind {
        RawCommandKind::SKIP => Some(Command::Skip(raw.test, raw.reason.into())),
        RawCommandKind::RERANK => Some(Command::Rerank(raw.test)),
        RawCommandKind::STOP => Some(Command::Stop(raw.reason.into())),
        RawCommandKind::WAKE_AT => Some(Command::WakeAt(raw.at_ms)),
        _ => None,
    }
}
