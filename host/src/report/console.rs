//! What the user sees while the run goes on: one line per verdict, a line that moves if there is a terminal, a summary.
//!
//! Verdicts and the summary are results and go to standard output, for people or as JSON lines; everything else goes to standard
//! error.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::{
    core::{event::TestId, verdict::Verdict},
    store::{Class, Ended, Execution, MachineChange, Record, RunFile, What},
    text::{counted, printable},
};

use super::Follower;

/// Failures that the summary names; the rest is in the results.
const MOST_NAMED: usize = 20;

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// JSON lines instead of text for people.
    pub(crate) json: bool,
    pub(crate) colour: bool,
    /// Only the summary.
    pub(crate) quiet: bool,
    /// Every execution, also those that were repeated, and machines.
    pub(crate) verbose: bool,
}

/// See the [module](self).
pub(crate) struct Console {
    style: Style,
    run: Arc<RunFile>,
    directory: PathBuf,
    out: Box<dyn Write + Send>,
    bar: ProgressBar,
    /// Executions of tests without a verdict.
    waiting: HashMap<TestId, Vec<Execution>>,
    running: u64,
    machines: u64,
    /// Lines of tests that did not pass.
    bad: Vec<String>,
    warned: u64,
    began: Option<u64>,
}

impl Console {
    /// On this process's standard output; `bar` is the line that moves, on standard error.
    pub(crate) fn new(style: Style, run: Arc<RunFile>, directory: PathBuf, bar: ProgressBar) -> Self {
        bar.set_length(run.tests.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg} {elapsed}") {
            bar.set_style(style);
        }
        if !style.quiet && !style.json && io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Self {
            style,
            run,
            directory,
            out: Box::new(io::stdout()),
            bar,
            waiting: HashMap::new(),
            running: 0,
            machines: 0,
            bad: Vec::new(),
            warned: 0,
            began: None,
        }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.out;
        self.bar.suspend(|| {
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")?;
            out.flush()
        })
    }

    fn paint(&self, class: Class, text: &str) -> String {
        let code = match class {
            Class::Passed => "32",
            Class::Warned => "33",
            Class::Failed => "31",
            Class::Infra | Class::Stopped => "35",
        };
        if self.style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The test's name, behind its platform where there are several.
    fn name(&self, test: TestId) -> String {
        let Some(promise) = self.run.tests.get(test as usize) else { return format!("test {test}") };
        match self.run.platforms.get(usize::from(promise.platform)) {
            Some(platform) if self.run.platforms.len() > 1 => {
                format!("[{}] {}", printable(&platform.name), printable(&promise.name))
            }
            _ => printable(&promise.name).into_owned(),
        }
    }

    fn execution_line(&self, class: Class, name: &str, execution: &Execution) -> String {
        let status = format!("{:<5}", printable(&execution.status));
        let mut line = format!("{} {name}  {}", self.paint(class, &status), seconds(execution.duration));
        if let Some(note) = &execution.note {
            line.push_str("  ");
            line.push_str(&printable(note));
        } else if class == Class::Failed && execution.exit > 0 {
            let _infallible = write!(line, "  exit status {}", execution.exit);
        }
        line
    }

    fn verdict(&mut self, test: TestId, verdict: &Verdict) -> io::Result<()> {
        let executions = self.waiting.remove(&test).unwrap_or_default();
        let counts = verdict.judged().and_then(|judged| {
            executions.iter().find(|execution| execution.execution == judged.execution).cloned()
        });
        let class = Class::of_verdict(verdict, counts.as_ref().map(Execution::class));
        self.bar.inc(1);
        self.warned += u64::from(class == Class::Warned);
        if self.style.json {
            return self.json_verdict(test, verdict, class, counts.as_ref(), executions.len());
        }
        let name = self.name(test);
        let mut line = match (&counts, verdict.cause()) {
            (Some(execution), _) => self.execution_line(class, &name, execution),
            (None, Some(cause)) => format!("{} {name}  not run: {cause}", self.paint(class, "infra")),
            (None, None) => format!("{} {name}", self.paint(class, "infra")),
        };
        if executions.len() > 1 {
            let _infallible = write!(line, "  (run {} times)", executions.len());
        }
        if !matches!(class, Class::Passed | Class::Warned) {
            self.bad.push(line.clone());
        }
        if self.style.quiet { Ok(()) } else { self.line(&line) }
    }

    fn json_verdict(
        &mut self,
        test: TestId,
        verdict: &Verdict,
        class: Class,
        counts: Option<&Execution>,
        runs: usize,
    ) -> io::Result<()> {
        let promise = self.run.tests.get(test as usize);
        let platform = promise.and_then(|promise| self.run.platforms.get(usize::from(promise.platform)));
        let line = json!({
            "platform": platform.map(|platform| &platform.name),
            "test": promise.map(|promise| &promise.name),
            "class": class.word(),
            "status": counts.map_or("infra", |execution| &execution.status),
            "note": counts.and_then(|execution| execution.note.clone())
                .or_else(|| verdict.cause().map(|cause| format!("not run: {cause}"))),
            "cause": verdict.cause().map(crate::core::verdict::Cause::code),
            "exit": counts.map(|execution| execution.exit),
            "duration_ms": counts.map(|execution| execution.duration),
            "runs": runs,
            "artifacts": counts.and_then(|execution| execution.artifacts.as_ref()),
        });
        self.line(&line.to_string())
    }

    fn ended(&mut self, at: u64, ended: &Ended) -> io::Result<()> {
        self.bar.finish_and_clear();
        let took = at.saturating_sub(self.began.unwrap_or(at));
        if self.style.json {
            let line = json!({
                "summary": {"passed": ended.passed, "failed": ended.failed, "infra": ended.infra, "exit": ended.exit,
                    "cause": ended.cause, "uncertain": ended.uncertain, "duration_ms": took, "directory": self.directory},
            });
            return self.line(&line.to_string());
        }
        if !self.bad.is_empty() {
            let more = self.bad.len().saturating_sub(MOST_NAMED);
            let named = std::mem::take(&mut self.bad);
            self.line("")?;
            for line in named.iter().take(MOST_NAMED) {
                self.line(&format!("  {line}"))?;
            }
            if more > 0 {
                self.line(&format!("  and {more} more"))?;
            }
        }
        let tests = counted(self.run.tests.len(), "test");
        let mut line = format!("\n{tests} in {}: {} passed", seconds(took), ended.passed);
        for (count, what) in [
            (self.warned, "of them with a warning"),
            (ended.failed, "failed"),
            (ended.infra, "without a verdict"),
        ] {
            if count > 0 {
                let _infallible = write!(line, ", {count} {what}");
            }
        }
        self.line(&line)?;
        if let Some(cause) = &ended.cause {
            self.line(&format!("ended early: {cause}"))?;
        }
        if ended.uncertain > 0 {
            self.line(&format!("{} machines may still be held: see `atex-host gc`", ended.uncertain))?;
        }
        self.line(&format!("run directory: {}", self.directory.display()))
    }

    fn machine_changed(&mut self, machine: &crate::store::Machine) {
        match machine.change {
            MachineChange::Ready => self.machines += 1,
            MachineChange::Lost | MachineChange::Released => self.machines = self.machines.saturating_sub(1),
            _ => {}
        }
    }
}

impl Follower for Console {
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), String> {
        self.began.get_or_insert(record.at);
        let written = match &record.what {
            What::Machine(machine) => {
                self.machine_changed(machine);
                Ok(())
            }
            What::Started { .. } => {
                self.running += 1;
                Ok(())
            }
            What::Finished(execution) => {
                self.running = self.running.saturating_sub(1);
                self.waiting.entry(execution.test).or_default().push((**execution).clone());
                if self.style.verbose && !self.style.json {
                    let line = format!(
                        "run {} of {}",
                        execution.execution,
                        self.execution_line(execution.class(), &self.name(execution.test), execution)
                    );
                    self.line(&line)
                } else {
                    Ok(())
                }
            }
            What::Verdict { test, verdict } => self.verdict(*test, verdict),
            What::Ended(ended) => self.ended(record.at, ended),
            _ => Ok(()),
        };
        self.bar.set_message(format!("{} running, {} machines", self.running, self.machines));
        match written {
            // Whoever read our output has gone (`| head`): the run goes on all the same.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| format!("cannot write to standard output: {error}")),
        }
    }
}

/// `0.3s`, `12.0s`, `3m20s`, `2h05m`
pub(super) fn seconds(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        whole @ 60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        whole => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, text) in [(0, "0.0s"), (1_250, "1.2s"), (200_000, "3m20s"), (7_500_000, "2h05m")] {
            assert_eq!(seconds(ms), text);
        }
    }
}
