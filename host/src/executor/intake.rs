//! What one run of a test says: its control stream through the parser into the recorder, its log, its data.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::control::{Event, Header, Parser, Part, Violation};
use super::spec::{Ended, Published, Report, RunOrder, RunReport, Site, unix_ms};

#[derive(Debug)]
pub(crate) struct Intake {
    parser: Parser,
    facts: BTreeMap<String, String>,
    fault: Option<Ended>,
    disconnect: bool,
    exit_code: Option<i32>,
    reports: Vec<Report>,
    execution: u64,
    bytes: u64,
    limit: u64,
    dir: PathBuf,
    log: fs::File,
    header: Option<Box<Header>>,
    results: Vec<String>,
    own: Option<String>,
}

impl Intake {
    pub(crate) fn new(order: &RunOrder, site: &Site) -> io::Result<Self> {
        let mut dir = order.artifacts.clone().into_os_string();
        dir.push(".part");
        let dir = PathBuf::from(dir);
        fs::create_dir_all(&dir)?;
        let log = fs::File::create(dir.join("output.txt"))?;
        Ok(Self {
            parser: Parser::new([]),
            facts: BTreeMap::new(),
            fault: None,
            disconnect: false,
            exit_code: None,
            reports: vec![],
            execution: order.execution,
            bytes: 0,
            limit: site.limits.bytes_per_test,
            dir,
            log,
            header: None,
            results: vec![],
            own: None,
        })
    }

    /// A new process of the test, with a channel of its own.
    pub(crate) fn begin(&mut self) {
        self.parser = Parser::new(self.facts.keys().cloned());
        self.disconnect = false;
        self.exit_code = None;
    }

    pub(crate) fn control(&mut self, data: &[u8], listening: bool, clock: &mut Clock) {
        if !listening || self.fault.is_some() || self.disconnect || !self.account(data) {
            return;
        }
        let mut input = data;
        loop {
            match self.parser.next(&mut input) {
                Ok(None) => return,
                Ok(Some(event)) => {
                    self.event(event, clock);
                    if self.disconnect {
                        return;
                    }
                }
                Err(violation) => return self.broken(&violation),
            }
        }
    }

    fn broken(&mut self, violation: &Violation) {
        self.fault.get_or_insert(Ended::Protocol(violation.to_string()));
    }

    fn event(&mut self, event: Event<'_>, clock: &mut Clock) {
        match event {
            Event::Result(part) => self.part(part),
            Event::ExitCode(code) => self.exit_code = Some(code.into()),
            Event::Duration(change) => clock.change(change, Instant::now()),
            Event::Disconnect => self.disconnect = true,
            Event::Machine { key, value } => {
                self.facts.insert(key.clone(), value.clone());
                self.reports.push(Report::Label { execution: self.execution, key, value });
            }
            Event::Noop => {}
        }
    }

    fn part(&mut self, part: Part<'_>) {
        match part {
            Part::Header(h) => self.header = Some(h),
            Part::Data { .. } => {}
            Part::End => {
                if let Some(h) = self.header.take() {
                    let json = serde_json::to_string(&h.object).unwrap_or_default();
                    if h.name.is_none() {
                        self.own = h.object.get("status").and_then(|s| s.as_str()).map(str::to_owned);
                    }
                    self.results.push(json.clone());
                    self.reports.push(Report::ResultLine { execution: self.execution, json });
                }
            }
        }
    }

    fn account(&mut self, data: &[u8]) -> bool {
        self.bytes += data.len() as u64;
        if self.bytes > self.limit {
            self.fault.get_or_insert(Ended::Limit("bytes-per-test".into()));
        }
        self.bytes <= self.limit
    }

    pub(crate) fn log(&mut self, data: &[u8]) {
        let _ = self.log.write_all(data);
    }

    pub(crate) fn end(&mut self, cut: bool) {
        if !cut && !self.disconnect {
            if let Err(violation) = self.parser.finish() {
                self.broken(&violation);
            }
        }
    }

    pub(crate) fn begin_data(&mut self) {}
    pub(crate) fn data(&mut self, _: &[u8]) {}
    pub(crate) fn end_data(&mut self) {}

    pub(crate) fn fault(&self) -> Option<Ended> {
        self.fault.clone()
    }
    pub(crate) fn wants_disconnect(&self) -> bool {
        self.disconnect
    }
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }
    pub(crate) fn tell(&mut self, _: u64, report: &dyn Fn(Report)) {
        for r in self.reports.drain(..) {
            report(r);
        }
    }

    pub(crate) fn finish(
        self,
        order: &RunOrder,
        ended: Ended,
        started_ms: u64,
        duration: Duration,
    ) -> RunReport {
        let status = match (&ended, self.own) {
            (_, Some(own)) => own,
            (Ended::Exited(0), None) => "pass".into(),
            (Ended::Exited(_), None) => "fail".into(),
            _ => "infra".into(),
        };
        let _ = fs::write(self.dir.join("results"), self.results.join("\n"));
        let _ = fs::rename(&self.dir, &order.artifacts);
        RunReport {
            execution: order.execution,
            note: if matches!(ended, Ended::Exited(_)) { None } else { Some(ended.to_string()) },
            ended,
            status,
            started_ms,
            ended_ms: unix_ms(),
            duration_ms: duration.as_millis() as u64,
            results: self.results.len() as u64,
            artifacts: Some(Published {
                directory: order.artifacts.clone(),
                bytes: 0,
                digest: String::new(),
            }),
        }
    }
}
