//! Publishes nothing, as long as it works.

use atex_plugin_api::prelude::*;
use atex_plugin_api::reporter::{
    Finished, MachineEvent, Promised, ReporterWants, RunEnded, RunStarted, TestEvent,
};

use crate::{Config, Fault};

const METHODS: [&str; 9] =
    ["new", "wants", "run-started", "promised", "machine", "test", "finished", "run-ended", "drop"];

pub(crate) struct Faulty {
    fault: Fault,
}

impl Plugin for Faulty {
    type Config = Config;
    const ABOUT: &'static str = "misbehaves on demand";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { fault: Fault::new(config, &METHODS)? })
    }
}

impl Faulty {
    /// A reporter answers nothing, so its nonsense is noise in the log.
    fn at(&self, method: &str, host: &Host) -> Result<()> {
        if self.fault.at(method)? {
            host.log(Level::Info, "\u{1b}[2J\u{7}".repeat(10_000), &[("fields", &"x".repeat(100_000))]);
        }
        Ok(())
    }
}

impl Reporter for Faulty {
    fn wants(&self) -> ReporterWants {
        let mut wants = ReporterWants::default();
        wants.machines = true;
        wants.tests = true;
        if self.fault.at_infallible("wants") {
            wants.metadata = vec!["x".repeat(1000); 10_000];
        }
        wants
    }
    fn run_started(&mut self, _run: &RunStarted, host: &Host) -> Result<()> {
        self.at("run-started", host)
    }
    fn promised(&mut self, _tests: &[Promised], host: &Host) -> Result<()> {
        self.at("promised", host)
    }
    fn machine(&mut self, _event: &MachineEvent, host: &Host) -> Result<()> {
        self.at("machine", host)
    }
    fn test(&mut self, _event: &TestEvent, host: &Host) -> Result<()> {
        self.at("test", host)
    }
    fn finished(&mut self, _finished: &Finished, host: &Host) -> Result<()> {
        self.at("finished", host)
    }
    fn run_ended(&mut self, _end: &RunEnded, host: &Host) -> Result<()> {
        self.at("run-ended", host)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.fault.at_infallible("drop");
    }
}
