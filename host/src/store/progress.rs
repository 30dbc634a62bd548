//! What an interrupted run had done, read back from its journal: where `resume` begins.
//!
//! The journal is the only witness. What it does not say did not happen, so a lost line costs at most that a test runs again:
//! a verdict counts only together with the execution that it names, and that only while its artifacts are as they were.

use std::{collections::HashMap, io};

use crate::core::{
    config::{Past, Resume},
    event::{ChainId, ExecutionId, LeaseId, Ms, NONE, Note, TestId},
    verdict::{Cause, Verdict},
};

use super::{
    journal::JournalReader,
    record::{Ended, Execution, What},
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Progress {
    /// By number of the test.
    tests: Vec<Test>,
    /// Numbers that are not used yet.
    first_lease: LeaseId,
    first_execution: ExecutionId,
    /// Those that a verdict may name.
    executions: HashMap<ExecutionId, Execution>,
    /// What policies were told, in order.
    pub notes: Vec<(ChainId, Ms, Note)>,
    /// The last thing the journal says, if the last host came to its end.
    pub ended: Option<Ended>,
    /// Host processes so far.
    pub sessions: u32,
    /// Lines that could not be read.
    pub damaged: u64,
    /// Tests whose verdict is in the journal and does not count: their artifacts are not as they were, or they did not run.
    pub reopened: Vec<TestId>,
}

#[derive(Debug, Clone, Default)]
struct Test {
    verdict: Option<Verdict>,
    /// Runs that were judged.
    attempt: u16,
    /// Attempt and machine of the last execution that ended.
    last: Option<(u16, LeaseId)>,
}

impl Progress {
    /// Reads a journal of a run of that many tests to its end. `is_intact` is asked for the execution of each verdict.
    pub fn read(
        reader: &mut JournalReader,
        tests: usize,
        mut is_intact: impl FnMut(&Execution) -> bool,
    ) -> io::Result<Self> {
        let mut it = Self { tests: vec![Test::default(); tests], ..Self::default() };
        loop {
            let before = reader.offset();
            match reader.next_record() {
                Ok(Some(record)) => it.take(record.what),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData && reader.offset() > before => {
                    it.damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        for (number, test) in it.tests.iter_mut().enumerate() {
            if let Some(judged) = test.verdict.as_ref().and_then(Verdict::judged)
                && !it.executions.get(&judged.execution).is_some_and(&mut is_intact)
            {
                test.verdict = None;
                it.reopened.push(number as TestId);
            }
        }
        Ok(it)
    }

    /// Forgets the verdicts of tests that did not run, or not again, because the run was stopped.
    pub fn reopen_stopped(&mut self) {
        for (number, test) in self.tests.iter_mut().enumerate() {
            if test.verdict.as_ref().and_then(Verdict::cause).is_some_and(Cause::is_stop) {
                test.verdict = None;
                self.reopened.push(number as TestId);
            }
        }
    }

    /// The verdict of a test, if it has one.
    pub fn verdict(&self, test: usize) -> Option<&Verdict> {
        self.tests.get(test)?.verdict.as_ref()
    }

    /// The execution that a verdict names.
    pub fn execution(&self, verdict: &Verdict) -> Option<&Execution> {
        self.executions.get(&verdict.judged()?.execution)
    }

    /// What the coordinator is told of a test.
    pub fn past(&self, test: usize) -> Past {
        match self.tests.get(test) {
            None => Past::FRESH,
            Some(Test { verdict: Some(_), .. }) => Past::Done,
            Some(Test { attempt, last, .. }) => {
                let judged = last.filter(|(last, _)| last < attempt);
                Past::Open { attempt: *attempt, last_machine: judged.map_or(NONE, |(_, lease)| lease) }
            }
        }
    }

    /// What the coordinator is told of the run.
    pub fn resume(&self) -> Resume {
        let verdicts = self.tests.iter().filter_map(|test| test.verdict.as_ref());
        Resume {
            first_lease: self.first_lease,
            first_execution: self.first_execution,
            failed: verdicts.filter(|verdict| verdict.failed()).count() as u32,
        }
    }

    fn take(&mut self, what: What) {
        // Whatever comes after the end is a new session's.
        self.ended = None;
        match what {
            What::Session(_) => self.sessions += 1,
            What::Machine(machine) => {
                self.first_lease = self.first_lease.max(machine.number.saturating_add(1));
            }
            What::Started { execution, test, attempt, .. } => {
                self.first_execution = self.first_execution.max(execution.saturating_add(1));
                if let Some(test) = self.tests.get_mut(test as usize) {
                    test.attempt = test.attempt.max(attempt);
                }
            }
            What::Finished(execution) => {
                if let Some(test) = self.tests.get_mut(execution.test as usize) {
                    test.last = Some((execution.attempt, execution.lease));
                    self.executions.insert(execution.execution, *execution);
                }
            }
            What::Note { chain, now, note } => {
                if let Note::Finished { run, .. } = &note
                    && let Some(test) = self.tests.get_mut(run.test as usize)
                {
                    test.attempt = test.attempt.max(run.attempt.saturating_add(1));
                }
                self.notes.push((chain, now, note));
            }
            What::Verdict { test, verdict } => {
                if let Some(test) = self.tests.get_mut(test as usize) {
                    test.verdict = Some(verdict);
                }
            }
            What::Reopened { test } => {
                if let Some(test) = self.tests.get_mut(test as usize) {
                    test.verdict = None;
                }
            }
            What::Ended(ended) => self.ended = Some(ended),
            What::Warning { .. } | What::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use atex_plugin_api::policy::Outcome;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        core::{event::FinishedRun, verdict::Judged},
        store::{Journal, Record, Session, record::How},
    };

    fn started(execution: ExecutionId, test: u32, lease: LeaseId, attempt: u16) -> What {
        What::Started { execution, test, lease, attempt }
    }

    fn finished(execution: ExecutionId, test: u32, lease: LeaseId, attempt: u16, status: &str) -> What {
        What::Finished(Box::new(Execution {
            execution,
            test,
            lease,
            attempt,
            how: How::Exited,
            exit: 0,
            status: status.into(),
            note: None,
            started: 1,
            finished: 2,
            duration: 1,
            results: 1,
            artifacts: None,
            bytes: 0,
            digest: execution.to_string(),
        }))
    }

    fn judged(test: u32, attempt: u16, last: bool) -> What {
        let run = FinishedRun {
            now: 5,
            test,
            machine: 0,
            attempt,
            outcome: Outcome::Failed,
            exit: 1,
            wall: 1,
            status: Arc::from("fail"),
        };
        What::Note { chain: 0, now: 5, note: Note::Finished { run: Box::new(run), last } }
    }

    fn ran(test: u32, execution: ExecutionId) -> What {
        What::Verdict { test, verdict: Verdict::Ran(Judged { execution, outcome: Outcome::Failed }) }
    }

    fn not_run(test: u32, cause: Cause) -> What {
        What::Verdict { test, verdict: Verdict::NotRun(cause) }
    }

    fn session() -> What {
        What::Session(Session { host: "h".into(), pid: 1, resumed: false })
    }

    fn write(records: &[What]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        for what in records {
            journal.append(&Record { at: 1, what: what.clone() }).unwrap();
        }
        (directory, path)
    }

    fn read(records: &[What], damaged: &str) -> Progress {
        let (_directory, path) = write(records);
        let is_intact = |execution: &Execution| execution.digest != damaged;
        Progress::read(&mut JournalReader::open(&path, 0).unwrap(), 3, is_intact).unwrap()
    }

    fn open(attempt: u16, last_machine: LeaseId) -> Past {
        Past::Open { attempt, last_machine }
    }

    #[test]
    fn nothing_was_done() {
        let progress = read(&[], "");
        assert_eq!((0..4).map(|test| progress.past(test)).collect::<Vec<_>>(), [Past::FRESH; 4]);
        let resume = progress.resume();
        assert_eq!((resume.first_lease, resume.first_execution, resume.failed), (0, 0, 0));
    }

    #[test]
    fn verdicts_stay_and_what_was_under_way_runs_again() {
        let records = [
            session(),
            started(0, 0, 0, 0),
            started(1, 1, 4, 0),
            finished(0, 0, 0, 0, "fail"),
            judged(0, 0, true),
            ran(0, 0),
            finished(1, 1, 4, 0, "fail"),
            judged(1, 0, false),
            started(2, 1, 5, 1),
            // It ended, and nobody had judged it.
            finished(2, 1, 5, 1, "pass"),
        ];
        let progress = read(&records, "");
        assert_eq!(progress.past(0), Past::Done);
        assert_eq!(progress.past(1), open(1, NONE), "the machine of the judged run is not known any more");
        assert_eq!(progress.past(2), Past::FRESH);
        assert_eq!(progress.execution(progress.verdict(0).unwrap()).unwrap().status, "fail");
        let resume = progress.resume();
        assert_eq!((resume.first_execution, resume.failed, progress.notes.len()), (3, 1, 2));
        let progress = read(&records[..8], "");
        assert_eq!(progress.past(1), open(1, 4), "judged: to run again, elsewhere if possible");
        let progress = read(&records[..7], "");
        assert_eq!(progress.past(1), open(0, NONE), "not judged: as if it had not run");
    }

    #[test]
    fn a_verdict_without_its_artifacts_does_not_count() {
        let records = [started(0, 0, 0, 0), finished(0, 0, 0, 0, "fail"), ran(0, 0), ran(1, 7)];
        assert_eq!(read(&records, "").past(0), Past::Done);
        assert_eq!(read(&records, "0").past(0), Past::FRESH);
        assert_eq!(read(&records, "").past(1), Past::FRESH, "nobody knows its execution");
    }

    #[test]
    fn stopped_tests_may_be_opened_again() {
        let mut progress = read(
            &[
                not_run(0, Cause::Signal { signal: 2 }),
                not_run(1, Cause::NoMachine),
                What::Ended(Ended::default()),
            ],
            "",
        );
        assert!(progress.ended.is_some());
        assert_eq!([0, 1, 2].map(|test| progress.past(test)), [Past::Done, Past::Done, Past::FRESH]);
        progress.reopen_stopped();
        assert_eq!([0, 1, 2].map(|test| progress.past(test)), [Past::FRESH, Past::Done, Past::FRESH]);
    }

    #[test]
    fn a_damaged_line_costs_itself() {
        let (_directory, path) = write(&[session(), not_run(0, Cause::NoMachine)]);
        let text = std::fs::read_to_string(&path).unwrap();
        let unknown =
            "{\"at\":1,\"what\":\"verdict\",\"test\":9,\"verdict\":{\"not-run\":{\"code\":\"no-machine\"}}}";
        std::fs::write(&path, format!("nonsense\n{unknown}\n{text}torn")).unwrap();
        let mut reader = JournalReader::open(&path, 0).unwrap();
        let progress = Progress::read(&mut reader, 3, |_| true).unwrap();
        assert_eq!((progress.damaged, progress.sessions, progress.past(0)), (1, 1, Past::Done));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A verdict that was written before the cut is there after it, and nothing that came later is.
        #[test]
        fn cut_anywhere_it_is_a_prefix(choices in proptest::collection::vec((0_u32..3, 0..3_u8), 0..20), cut in any::<prop::sample::Index>()) {
            let mut records = vec![];
            for (number, (test, kind)) in choices.into_iter().enumerate() {
                let execution = number as ExecutionId;
                match kind {
                    0 => records.push(started(execution, test, 0, 0)),
                    1 => records.push(not_run(test, Cause::NoMachine)),
                    _ => records.extend([finished(execution, test, 0, 0, "pass"), ran(test, execution)]),
                }
            }
            let (_directory, path) = write(&records);
            let bytes = std::fs::read(&path).unwrap();
            let cut = cut.index(bytes.len() + 1);
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = memchr::memchr_iter(b'\n', &bytes[..cut]).count();
            let progress = Progress::read(&mut JournalReader::open(&path, 0).unwrap(), 3, |_| true).unwrap();
            for test in 0..3_u32 {
                let expected = records[..whole].iter().rev().find_map(|what| match what {
                    What::Verdict { test: of, verdict } if *of == test => Some(verdict),
                    _ => None,
                });
                prop_assert_eq!(progress.verdict(test as usize), expected);
            }
        }
    }
}
