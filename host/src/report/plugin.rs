//! A reporter plugin as a reader of the journal.
//!
//! The journal tells of executions as they end and of verdicts as they are reached; a reporter is told of an execution when it is
//! known whether it is the one that counts. So executions are kept back until their test has its verdict: all results of a
//! test come together.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use atex_plugin_api::{
    Facts,
    host_side::ReportEvent,
    reporter::{
        self as api, Finished, MachineEvent, Promised, RunEnded, RunStarted, TestEvent, Verdict as Word,
    },
};
use serde_json::Value;

use crate::{
    core::{
        event::{LeaseId, TestId},
        verdict::Verdict,
    },
    plugin::{Call, Reporter},
    store::{Class, Execution, Machine, MachineChange, Record, RunFile, What},
};

use super::Follower;

/// Tests that are promised in one call.
const BLOCK: usize = 1024;

/// A key of a test's metadata.
pub(crate) type Metadata = Arc<dyn Fn(TestId, &str) -> Option<Value> + Send + Sync>;

/// See the [module](self).
pub(crate) struct PluginReporter {
    reporter: Reporter,
    run: Arc<RunFile>,
    directory: PathBuf,
    /// The run was reported before, in part or completely.
    continued: bool,
    metadata: Metadata,
    /// Executions whose test has no verdict yet.
    waiting: HashMap<TestId, Vec<Execution>>,
    machines: HashMap<LeaseId, (String, Facts)>,
    /// Verdicts that are not told yet, because what is read is old: the run may have been resumed since, and the test run again.
    /// `None`: what is read is new.
    kept_back: Option<Vec<(TestId, Verdict)>>,
}

impl PluginReporter {
    pub(crate) fn new(
        reporter: Reporter,
        run: Arc<RunFile>,
        directory: PathBuf,
        continued: bool,
        metadata: Metadata,
    ) -> Self {
        Self {
            reporter,
            run,
            directory,
            continued,
            metadata,
            waiting: HashMap::new(),
            machines: HashMap::new(),
            kept_back: Some(Vec::new()),
        }
    }

    fn tell(&mut self, event: ReportEvent<'_>) -> Result<(), String> {
        self.reporter.tell(event, &Call::default()).map_err(|error| error.to_string())
    }

    /// Platform and name.
    fn names(&self, test: TestId) -> (String, String) {
        let Some(promise) = self.run.tests.get(test as usize) else { return Default::default() };
        (self.platform(promise.platform), promise.name.clone())
    }

    fn platform(&self, platform: u16) -> String {
        self.run
            .platforms
            .get(usize::from(platform))
            .map(|platform| platform.name.clone())
            .unwrap_or_default()
    }

    fn machine(&mut self, at: u64, machine: &Machine) -> Result<(), String> {
        if !machine.machine.is_empty() {
            let known = self.machines.entry(machine.number).or_default();
            known.0.clone_from(&machine.machine);
            known.1.extend(machine.facts.clone());
        }
        let mut event = MachineEvent::default();
        event.at = at;
        event.change = change(machine.change);
        event.platform = self.platform(machine.platform);
        event.pool.clone_from(&machine.pool);
        event.lease.clone_from(&machine.lease);
        event.machine.clone_from(&machine.machine);
        event.facts.clone_from(&machine.facts);
        event.note.clone_from(&machine.note);
        let told = self.tell(ReportEvent::Machine(&event));
        if matches!(machine.change, MachineChange::Released) {
            self.machines.remove(&machine.number);
        }
        told
    }

    fn started(
        &mut self,
        at: u64,
        execution: u64,
        test: TestId,
        lease: LeaseId,
        attempt: u16,
    ) -> Result<(), String> {
        let (platform, name) = self.names(test);
        let mut event = TestEvent::default();
        event.at = at;
        event.change = api::TestChange::Started;
        (event.platform, event.test) = (platform, name);
        event.execution = execution;
        event.attempt = attempt.into();
        event.machine = self.machines.get(&lease).map(|(id, _)| id.clone()).unwrap_or_default();
        self.tell(ReportEvent::Test(&event))
    }

    /// Tells a verdict, unless it is too early to say that it counts.
    fn on_verdict(&mut self, test: TestId, verdict: &Verdict) -> Result<(), String> {
        let Some(kept_back) = &mut self.kept_back else { return self.verdict(test, verdict) };
        kept_back.retain(|(of, _)| *of != test);
        kept_back.push((test, verdict.clone()));
        Ok(())
    }

    /// All executions of the test, the one that counts last.
    fn verdict(&mut self, test: TestId, verdict: &Verdict) -> Result<(), String> {
        let counts = verdict.judged().map(|judged| judged.execution);
        let mut executions = self.waiting.remove(&test).unwrap_or_default();
        executions.sort_by_key(|execution| (Some(execution.execution) == counts, execution.execution));
        let mut told = Ok(());
        for execution in &executions {
            let last = Some(execution.execution) == counts;
            let finished = self.finished(test, execution, last);
            told = told.and(self.tell(ReportEvent::Finished(&finished)));
        }
        if counts.is_none_or(|counts| executions.iter().all(|execution| execution.execution != counts)) {
            let finished = self.never_ran(test, verdict);
            told = told.and(self.tell(ReportEvent::Finished(&finished)));
        }
        told
    }

    fn finished(&self, test: TestId, execution: &Execution, last: bool) -> Finished {
        let mut finished = Finished::default();
        (finished.platform, finished.test) = self.names(test);
        finished.execution = Some(execution.execution);
        finished.attempt = execution.attempt.into();
        finished.last = last;
        finished.verdict = word(execution);
        finished.status.clone_from(&execution.status);
        finished.note.clone_from(&execution.note);
        finished.started = execution.started;
        finished.ended = execution.finished;
        finished.duration = execution.duration;
        if let Some((id, facts)) = self.machines.get(&execution.lease) {
            finished.machine.clone_from(id);
            finished.facts.clone_from(facts);
        }
        finished.artifacts = execution.artifacts.as_ref().map(|path| self.directory.join(path));
        finished
    }

    fn never_ran(&self, test: TestId, verdict: &Verdict) -> Finished {
        let mut finished = Finished::default();
        (finished.platform, finished.test) = self.names(test);
        finished.last = true;
        finished.verdict = Word::Infra;
        finished.status = "infra".into();
        finished.note = verdict.cause().map(|cause| format!("not run: {cause}"));
        finished
    }
}

impl Follower for PluginReporter {
    fn begin(&mut self) -> Result<(), String> {
        let mut started = RunStarted::default();
        started.run.clone_from(&self.run.run);
        started.owner.clone_from(&self.run.owner);
        started.directory.clone_from(&self.directory);
        started.started = self.run.created;
        started.tests = self.run.tests.len() as u64;
        started.continued = self.continued;
        started.host.clone_from(&self.run.host);
        for of_run in &self.run.platforms {
            let mut platform = api::Platform::default();
            platform.name.clone_from(&of_run.name);
            platform.context.clone_from(&of_run.context);
            started.platforms.push(platform);
        }
        self.tell(ReportEvent::RunStarted(&started))?;
        let keys = self.reporter.wants().metadata.clone();
        let run = Arc::clone(&self.run);
        for (block, tests) in run.tests.chunks(BLOCK).enumerate() {
            let mut promised = Vec::with_capacity(tests.len());
            for (at, of_run) in tests.iter().enumerate() {
                let number = (block * BLOCK + at) as TestId;
                let mut test = Promised::default();
                test.platform = self.platform(of_run.platform);
                test.test.clone_from(&of_run.name);
                test.metadata = keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), (self.metadata)(number, key)?)))
                    .collect();
                promised.push(test);
            }
            self.tell(ReportEvent::Promised(&promised))?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), String> {
        match &record.what {
            What::Machine(machine) => self.machine(record.at, machine),
            What::Started { execution, test, lease, attempt } => {
                self.started(record.at, *execution, *test, *lease, *attempt)
            }
            What::Finished(execution) => {
                self.waiting.entry(execution.test).or_default().push((**execution).clone());
                Ok(())
            }
            What::Verdict { test, verdict } => self.on_verdict(*test, verdict),
            What::Reopened { test } => {
                if let Some(kept_back) = &mut self.kept_back {
                    kept_back.retain(|(of, _)| of != test);
                }
                Ok(())
            }
            What::Ended(ended) => {
                let mut end = RunEnded::default();
                end.ended = record.at;
                end.passed = ended.passed;
                end.failed = ended.failed;
                end.infra = ended.infra;
                end.exit = ended.exit.into();
                end.cause.clone_from(&ended.cause);
                self.tell(ReportEvent::RunEnded(&end))
            }
            _ => Ok(()),
        }
    }

    fn caught_up(&mut self) -> Result<Option<Duration>, String> {
        let mut told = Ok(());
        for (test, verdict) in self.kept_back.take().unwrap_or_default() {
            told = told.and(self.verdict(test, &verdict));
        }
        told.map(|()| None)
    }
}

fn word(execution: &Execution) -> Word {
    match execution.class() {
        Class::Passed | Class::Warned => Word::Passed,
        Class::Failed => Word::Failed,
        Class::Infra | Class::Stopped => Word::Infra,
    }
}

fn change(change: MachineChange) -> api::MachineChange {
    match change {
        MachineChange::Requested => api::MachineChange::Requested,
        MachineChange::Reserved => api::MachineChange::Reserved,
        MachineChange::ReserveFailed => api::MachineChange::ReserveFailed,
        MachineChange::Ready => api::MachineChange::Ready,
        MachineChange::SetupFailed => api::MachineChange::SetupFailed,
        MachineChange::Lost => api::MachineChange::Lost,
        MachineChange::Released => api::MachineChange::Released,
        MachineChange::ReleaseFailed => api::MachineChange::ReleaseFailed,
    }
}
