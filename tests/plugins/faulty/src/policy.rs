//! Has no opinion, as long as it works.

use atex_plugin_api::policy::{Class, Command, Ms};
use atex_plugin_api::prelude::*;

use crate::{Config, Fault};

const METHODS: [&str; 10] =
    ["new", "wants", "register", "ready", "kind", "rank", "prefer", "judge", "note", "drop"];

/// A test that no run has.
const UNKNOWN_TEST: u32 = u32::MAX - 7;

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

impl Policy for Faulty {
    fn wants(&self) -> Wants {
        let mut wants = Wants::new().attrs(["tag"]).facts(["arch"]).rank().prefer().judge().notes();
        if self.fault.at_infallible("wants") {
            wants.window = u32::MAX;
            wants.attrs = vec![String::new(); 10_000];
        }
        wants
    }

    fn register(&mut self, _run: &RunInfo, _tests: &[TestInfo<'_>]) -> Result<()> {
        self.fault.at("register").map(|_| ())
    }

    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        if self.fault.at("ready")? {
            out.extend([Command::Skip(UNKNOWN_TEST, "x".repeat(1 << 20)), Command::Rerank(UNKNOWN_TEST)]);
        }
        Ok(())
    }

    fn kind(&mut self, _kind: u32, _facts: &[&str]) -> Result<()> {
        self.fault.at("kind").map(|_| ())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let extra = usize::from(self.fault.at("rank")?);
        out.resize(tests.len() + extra, Rank::default());
        Ok(())
    }

    fn prefer(&self, _view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        if self.fault.at("prefer")? {
            out.extend((0..1000).map(|_| Prefer::Test(UNKNOWN_TEST, 1)));
            out.push(Prefer::Test(0, -1));
        }
        Ok(())
    }

    fn judge(&self, _run: &Run<'_>) -> Result<Judgement> {
        // The nonsense is to have every test run for ever.
        Ok(if self.fault.at("judge")? { Judgement::rerun(true) } else { Judgement::NONE })
    }

    fn note(&mut self, now: Ms, _note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        if self.fault.at("note")? {
            out.extend([
                Command::Skip(UNKNOWN_TEST, "no such test".to_owned()),
                Command::Rerank(UNKNOWN_TEST),
                Command::WakeAt(now),
                Command::WakeAt(0),
            ]);
        }
        Ok(())
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.fault.at_infallible("drop");
    }
}
