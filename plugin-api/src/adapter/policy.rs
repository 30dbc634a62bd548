//! [`Policy`] behind [`RawPolicy`]. Answers of all calls reuse the same buffers: a decision allocates nothing.

use std::cell::Cell;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RResult, RSlice, RStr, RString, RVec};

use super::{Guarded, to_json};
use crate::abi::{
    PolicyBox, RawCommand, RawCommandKind, RawError, RawHead, RawJudgement, RawNote, RawNoteKind, RawPolicy,
    RawPolicy_TO, RawPrefer, RawPreferKind, RawQueued, RawRank, RawRun, RawRunInfo, RawTest, RawView,
    RawVote,
};
use crate::convert::{outcome, raw_result, raw_vote};
use crate::error::{Error, Result};
use crate::guard::guard;
use crate::host::Host;
use crate::plugin::Plugin;
use crate::policy::{Class, Command, Note, Policy, Prefer, Queued, Rank, Run, RunInfo, TestInfo, View};

struct Adapter<P> {
    plugin: Guarded<P>,
    queued: Cell<Vec<Queued>>,
    ranks: Cell<Vec<Rank>>,
    classes: Cell<Vec<Class>>,
    preferences: Cell<Vec<Prefer>>,
    commands: Cell<Vec<Command>>,
}

/// Makes one from its configuration.
pub(crate) fn policy<P: Policy + Plugin>(config: &str, host: Host) -> Result<PolicyBox> {
    let adapter = Adapter {
        plugin: guard(|| Guarded::<P>::make(config, host))?,
        queued: Cell::default(),
        ranks: Cell::default(),
        classes: Cell::default(),
        preferences: Cell::default(),
        commands: Cell::default(),
    };
    Ok(RawPolicy_TO::from_ptr(RBox::new(adapter), TD_Opaque))
}

/// Lends the buffer of `cell`, empty, to `call`. A panic in it loses the buffer, nothing else.
fn with_buffer<T, R>(cell: &Cell<Vec<T>>, call: impl FnOnce(&mut Vec<T>) -> R) -> R {
    let mut buffer = cell.take();
    buffer.clear();
    let result = call(&mut buffer);
    cell.set(buffer);
    result
}

impl<P: Policy> Adapter<P> {
    fn commands(
        &mut self,
        out: &mut RVec<RawCommand>,
        call: impl FnOnce(&mut P, &mut Vec<Command>) -> Result<()>,
    ) -> RResult<(), RawError> {
        let Self { plugin, commands, .. } = self;
        raw_result(guard(|| {
            with_buffer(commands, |commands| {
                call(&mut plugin.plugin, commands)?;
                out.extend(commands.drain(..).map(raw_command));
                Ok(())
            })
        }))
    }
}

impl<P: Policy> RawPolicy for Adapter<P> {
    fn wants(&self) -> RResult<RString, RawError> {
        raw_result(guard(|| Ok(to_json("what the policy wants", &self.plugin.plugin.wants())?.into())))
    }

    fn register(
        &mut self,
        run: &RawRunInfo<'_>,
        tests: RSlice<'_, RawTest<'_>>,
        values: RSlice<'_, RStr<'_>>,
    ) -> RResult<(), RawError> {
        raw_result(guard(|| {
            let run = RunInfo { seed: run.seed, tests: run.tests, platforms: run.platforms as u16 };
            let width = values.len() / tests.len().max(1);
            if values.len() != width * tests.len() {
                return Err(Error::unsupported("the host's table of attributes is not rectangular"));
            }
            let values: Vec<&str> = values.iter().map(RStr::as_str).collect();
            let infos: Vec<TestInfo<'_>> = tests
                .iter()
                .enumerate()
                .map(|(i, test)| test_info(test, &values[i * width..(i + 1) * width]))
                .collect();
            self.plugin.plugin.register(&run, &infos)
        }))
    }

    fn ready(&mut self, out: &mut RVec<RawCommand>) -> RResult<(), RawError> {
        self.commands(out, Policy::ready)
    }

    fn kind(&mut self, kind: u32, facts: RSlice<'_, RStr<'_>>) -> RResult<(), RawError> {
        raw_result(guard(|| {
            let facts: Vec<&str> = facts.iter().map(RStr::as_str).collect();
            self.plugin.plugin.kind(kind, &facts)
        }))
    }

    fn rank(
        &self,
        kind: u32,
        tests: RSlice<'_, RawQueued>,
        out: &mut RVec<RawRank>,
    ) -> RResult<(), RawError> {
        raw_result(guard(|| {
            with_buffer(&self.queued, |queued| {
                queued.extend(tests.iter().map(plain_queued));
                with_buffer(&self.ranks, |ranks| {
                    self.plugin.plugin.rank(kind, queued, ranks)?;
                    out.extend(ranks.iter().map(|it| RawRank {
                        score: it.score,
                        class: it.class,
                        reserved: 0,
                    }));
                    Ok(())
                })
            })
        }))
    }

    fn prefer(
        &self,
        view: &RawView<'_>,
        window: RSlice<'_, RawHead>,
        out: &mut RVec<RawPrefer>,
    ) -> RResult<(), RawError> {
        raw_result(guard(|| {
            let labels: Vec<(&str, &str)> =
                view.labels.iter().map(|pair| (pair.0.as_str(), pair.1.as_str())).collect();
            with_buffer(&self.classes, |classes| {
                classes.extend(window.iter().map(|head| head.class));
                with_buffer(&self.preferences, |preferences| {
                    self.plugin.plugin.prefer(&plain_view(view, &labels), classes, preferences)?;
                    out.extend(preferences.iter().map(raw_prefer));
                    Ok(())
                })
            })
        }))
    }

    fn judge(&self, run: &RawRun<'_>) -> RResult<RawJudgement, RawError> {
        raw_result(guard(|| {
            let judgement = self.plugin.plugin.judge(&plain_run(run))?;
            Ok(RawJudgement {
                rerun: raw_vote(judgement.rerun),
                spoilt: raw_vote(judgement.spoilt),
                stop: if judgement.stop { RawVote::YES } else { RawVote::NONE },
                reserved: 0,
            })
        }))
    }

    fn note(&mut self, now_ms: u64, note: &RawNote<'_>, out: &mut RVec<RawCommand>) -> RResult<(), RawError> {
        match plain_note(note) {
            Some(note) => self.commands(out, |plugin, commands| plugin.note(now_ms, &note, commands)),
            None => raw_result(Ok(())),
        }
    }
}

fn test_info<'a>(test: &'a RawTest<'_>, attrs: &'a [&'a str]) -> TestInfo<'a> {
    TestInfo {
        id: test.id,
        platform: test.platform as u16,
        claim: test.claim as u16,
        limit: test.limit_ms,
        expected: test.expected_ms,
        fail_rate: test.fail_rate as u16,
        name: test.name.as_str(),
        attrs,
    }
}

fn plain_queued(raw: &RawQueued) -> Queued {
    Queued { test: raw.test, attempt: raw.attempt as u16, last_machine: raw.last_machine }
}

fn plain_view<'a>(raw: &'a RawView<'_>, labels: &'a [(&'a str, &'a str)]) -> View<'a> {
    View {
        now: raw.now_ms,
        machine: raw.machine,
        kind: raw.kind,
        platform: raw.platform as u16,
        free: raw.free as u16,
        slots: raw.slots as u16,
        ran: raw.ran,
        last: raw.last,
        last_ok: raw.last_ok == 1,
        running: raw.running.as_slice(),
        labels,
    }
}

fn plain_run<'a>(raw: &'a RawRun<'_>) -> Run<'a> {
    Run {
        now: raw.now_ms,
        test: raw.test,
        machine: raw.machine,
        attempt: raw.attempt as u16,
        outcome: outcome(raw.outcome),
        exit: raw.exit,
        wall: raw.wall_ms,
        status: raw.status.as_str(),
    }
}

fn plain_note<'a>(raw: &'a RawNote<'_>) -> Option<Note<'a>> {
    Some(match raw.kind {
        RawNoteKind::STARTED => Note::Started { test: raw.test, machine: raw.machine },
        RawNoteKind::FINISHED => Note::Finished { run: plain_run(&raw.run), last: raw.last == 1 },
        RawNoteKind::LABEL => {
            Note::Label { machine: raw.machine, key: raw.key.as_str(), value: raw.value.as_str() }
        }
        RawNoteKind::GONE => Note::Gone { machine: raw.machine },
        RawNoteKind::TIME => Note::Time,
        _ => return None,
    })
}

fn raw_prefer(prefer: &Prefer) -> RawPrefer {
    match *prefer {
        Prefer::Class(id, score) => RawPrefer { score, kind: RawPreferKind::CLASS, id },
        Prefer::Test(id, score) => RawPrefer { score, kind: RawPreferKind::TEST, id },
    }
}

fn raw_command(command: Command) -> RawCommand {
    let empty = RawCommand { kind: RawCommandKind(0), test: 0, at_ms: 0, reason: RString::new() };
    match command {
        Command::Skip(test, reason) => {
            RawCommand { kind: RawCommandKind::SKIP, test, reason: reason.into(), ..empty }
        }
        Command::Rerank(test) => RawCommand { kind: RawCommandKind::RERANK, test, ..empty },
        Command::Stop(reason) => RawCommand { kind: RawCommandKind::STOP, reason: reason.into(), ..empty },
        Command::WakeAt(at_ms) => RawCommand { kind: RawCommandKind::WAKE_AT, at_ms, ..empty },
    }
}
