//! What one run of a test says: its control stream through the parser into the recorder, its log, its data.
//!
//! The first thing that goes wrong is the [fault](Intake::fault); the worker ends the test for it. From then on nothing is
//! taken from the control channel, while the log goes on as long as it can be recorded: it may tell why.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::clock::Clock;
use super::control::{Event, FileEntry, Header, Parser, Part};
use super::result::{Fallback, Options, RecordError, Recorder};
use super::spec::{Dialect, Ended, Framework, Report, ResultRule, RunOrder, RunReport, Site, unix_ms};

/// A result of the host's own.
fn header(name: Option<String>, partial: bool, files: Vec<FileEntry>, object: Map<String, Value>) -> Header {
    Header { line: 0, size: 0, name, partial, files, forget_files: false, object }
}

/// Each goes through the main loop, to the policies and into the journal; a test that floods them is ended.
const MAX_FACT_CHANGES: u32 = 10_000;

#[derive(Debug)]
pub(crate) struct Intake {
    execution: u64,
    parser: Parser,
    recorder: Recorder,
    /// Keys of facts that this run has told of, over its restarts.
    facts: Vec<String>,
    /// How often it has told of any.
    fact_changes: u32,
    fault: Option<Ended>,
    log_works: bool,
    data_works: bool,
    disconnect: bool,
    /// It is the host that makes it go away.
    reset: bool,
    exit_code: Option<i32>,
    reports: Vec<Report>,
}

impl Intake {
    pub(crate) fn new(order: &RunOrder, site: &Site) -> Result<Self, RecordError> {
        let test = &order.test;
        let rule = if site.dialect == Dialect::Tmt { test.result } else { ResultRule::Respect };
        let fallback = match test.framework {
            Framework::Shell => Fallback::ExitStatus,
            Framework::Beakerlib => Fallback::WorstOfBoth,
        };
        let limits = site.limits.clone();
        Ok(Self {
            execution: order.execution,
            parser: Parser::new([]),
            recorder: Recorder::create(&order.artifacts, Options { limits, rule, fallback })?,
            facts: vec![],
            fact_changes: 0,
            fault: None,
            log_works: true,
            data_works: true,
            disconnect: false,
            reset: false,
            exit_code: None,
            reports: vec![],
        })
    }

    /// A new process of the test, with a channel of its own.
    pub(crate) fn begin(&mut self) {
        self.parser = Parser::new(self.facts.iter().cloned());
        (self.disconnect, self.reset) = (false, false);
        self.exit_code = None;
    }

    /// Bytes of the control channel; `duration` acts on the clock at once.
    pub(crate) fn control(&mut self, mut data: &[u8], clock: &mut Clock) {
        // After `disconnect` the channel is closed for the test, whatever was on its way.
        while self.fault.is_none() && !self.disconnect {
            match self.parser.next(&mut data) {
                Ok(None) => return,
                Ok(Some(event)) => self.event(event, clock),
                Err(violation) => self.fail(&violation.into()),
            }
        }
    }

    fn event(&mut self, event: Event<'_>, clock: &mut Clock) {
        match event {
            Event::Result(part) => match self.recorder.take(part) {
                Ok(line) => self.line(line),
                Err(e) => self.fail(&e),
            },
            Event::ExitCode(code) => self.exit_code = Some(code.into()),
            Event::Duration(change) => clock.change(change, Instant::now()),
            Event::Disconnect => self.disconnect = true,
            Event::Reset => (self.disconnect, self.reset) = (true, true),
            Event::Machine { .. } if self.fact_changes == MAX_FACT_CHANGES => {
                let why = format!("more than {MAX_FACT_CHANGES} facts of the machine told");
                self.fail(&RecordError::Limit(why));
            }
            Event::Machine { key, value } => {
                self.fact_changes += 1;
                if !self.facts.contains(&key) {
                    self.facts.push(key.clone());
                }
                self.reports.push(Report::Label { execution: self.execution, key, value });
            }
            Event::Noop => {}
        }
    }

    fn line(&mut self, line: Option<String>) {
        let execution = self.execution;
        self.reports.extend(line.map(|json| Report::ResultLine { execution, json }));
    }

    fn fail(&mut self, error: &RecordError) {
        self.fault.get_or_insert_with(|| error.ended());
    }

    pub(crate) fn log(&mut self, data: &[u8]) {
        if self.log_works
            && let Err(e) = self.recorder.log(data)
        {
            self.log_works = false;
            self.fail(&e);
        }
    }

    /// The process has ended by itself: nothing may be left in the middle.
    pub(crate) fn end(&mut self) {
        if self.fault.is_none()
            && !self.disconnect
            && let Err(violation) = self.parser.finish()
        {
            self.fail(&violation.into());
        }
    }

    /// A piece of the tar stream of what the test left in `TMT_TEST_DATA`.
    pub(crate) fn data(&mut self, data: &[u8]) {
        if self.data_works
            && let Err(e) = self.recorder.collect(data)
        {
            self.data_works = false;
            self.fail(&e);
        }
    }

    pub(crate) fn fault(&self) -> Option<&Ended> {
        self.fault.as_ref()
    }

    /// The test has announced that the machine goes away.
    pub(crate) fn wants_disconnect(&self) -> bool {
        self.disconnect
    }

    /// The test wants its machine reset by the provisioner.
    pub(crate) fn wants_reset(&self) -> bool {
        self.reset
    }

    /// What the test, or a wrapper of it, told with the word `exitcode`.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    /// Passes on what has been reported since.
    pub(crate) fn tell(&mut self, report: &dyn Fn(Report)) {
        self.reports.drain(..).for_each(report);
    }

    /// The result of a check, with what it found; and what it means for the test, if anything.
    pub(crate) fn check(&mut self, how: &str, status: &str, found: &[u8], test: Option<&str>) {
        let name = Some(format!("check/{how}"));
        let files = vec![FileEntry { name: format!("{how}.txt"), length: found.len() as u64 }];
        let object = |status: &str| Map::from_iter([("status".to_owned(), Value::from(status))]);
        let mut parts = vec![Part::Header(Box::new(header(name, false, files, object(status))))];
        if !found.is_empty() {
            parts.push(Part::Data { file: 0, bytes: found });
        }
        parts.push(Part::End);
        if let Some(status) = test {
            let mut object = object(status);
            object.insert("note".into(), format!("check {how}: {status}").into());
            parts.push(Part::Header(Box::new(header(None, true, vec![], object))));
            parts.push(Part::End);
        }
        for part in parts {
            match self.recorder.take(part) {
                Ok(line) => self.line(line),
                Err(e) => return self.fail(&e),
            }
        }
    }

    /// Publishes the artifacts.
    pub(crate) fn finish(
        mut self,
        ended: Ended,
        started_ms: u64,
        duration: Duration,
        report: &dyn Fn(Report),
    ) -> RunReport {
        self.tell(report);
        let execution = self.execution;
        let recorded = self.recorder.finish(&ended);
        let (status, note, results, artifacts, ended) = match recorded {
            Ok(recorded) => {
                let lines = recorded.last_lines.into_iter();
                lines.for_each(|json| report(Report::ResultLine { execution, json }));
                (recorded.status, recorded.note, recorded.results, Some(recorded.published), ended)
            }
            Err(e) => {
                let ended = Ended::Host(e.to_string());
                ("infra".to_owned(), Some(ended.to_string()), 0, None, ended)
            }
        };
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ended_ms = unix_ms();
        RunReport { execution, ended, status, note, started_ms, ended_ms, duration_ms, results, artifacts }
    }
}
