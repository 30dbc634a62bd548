//! A line about how far the run is, every so often: for nights that nobody watches, in logs that somebody reads later.

use std::{
    collections::HashMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::{
    core::{
        event::{ExecutionId, TestId},
        verdict::Verdict,
    },
    store::{Class, MachineChange, Record, What},
    text::counted,
};

use super::{Follower, seconds};

/// See the [module](self).
pub(crate) struct Statistics {
    every: Duration,
    next: Instant,
    say: Box<dyn Fn(&str) + Send>,
    count: Count,
}

impl Statistics {
    /// A line for `say`, every so often, about a run of so many tests.
    pub(crate) fn new(every: Duration, tests: usize, say: impl Fn(&str) + Send + 'static) -> Self {
        Self { every, next: Instant::now() + every, say: Box::new(say), count: Count::new(tests) }
    }
}

impl Follower for Statistics {
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), String> {
        self.count.record(record);
        Ok(())
    }

    fn caught_up(&mut self) -> Result<Option<Duration>, String> {
        let now = Instant::now();
        if now >= self.next {
            // A line that comes late does not make the others late.
            while self.next <= now {
                self.next += self.every;
            }
            let unix = jiff::Timestamp::now().as_millisecond();
            (self.say)(&self.count.line(u64::try_from(unix).unwrap_or(0)));
        }
        Ok(Some(self.next.saturating_duration_since(now)))
    }
}

/// What the journal has told so far.
#[derive(Debug)]
struct Count {
    tests: usize,
    began: Option<u64>,
    passed: u64,
    failed: u64,
    /// Tests that ended without a verdict of their own.
    others: u64,
    /// Runs that were repeated.
    repeated: usize,
    running: u64,
    machines: u64,
    /// Executions of tests without a verdict.
    open: HashMap<TestId, Vec<(ExecutionId, Class)>>,
}

impl Count {
    fn new(tests: usize) -> Self {
        Self {
            tests,
            began: None,
            passed: 0,
            failed: 0,
            others: 0,
            repeated: 0,
            running: 0,
            machines: 0,
            open: HashMap::new(),
        }
    }

    fn record(&mut self, record: &Record) {
        self.began.get_or_insert(record.at);
        match &record.what {
            // Whatever ran on the machines of an earlier process does not run any more.
            What::Session(_) => (self.running, self.machines) = (0, 0),
            What::Machine(machine) => match machine.change {
                MachineChange::Ready => self.machines += 1,
                MachineChange::Lost | MachineChange::Released => {
                    self.machines = self.machines.saturating_sub(1);
                }
                _ => {}
            },
            What::Started { .. } => self.running += 1,
            What::Finished(execution) => {
                self.running = self.running.saturating_sub(1);
                let of_test = self.open.entry(execution.test).or_default();
                of_test.push((execution.execution, execution.class()));
            }
            What::Verdict { test, verdict } => self.verdict(*test, verdict),
            _ => {}
        }
    }

    fn verdict(&mut self, test: TestId, verdict: &Verdict) {
        let executions = self.open.remove(&test).unwrap_or_default();
        let counts = verdict.judged().map(|judged| judged.execution);
        let class = executions.iter().find(|(number, _)| Some(*number) == counts).map(|(_, class)| *class);
        self.repeated += executions.len() - usize::from(class.is_some());
        match Class::of_verdict(verdict, class) {
            Class::Passed | Class::Warned => self.passed += 1,
            Class::Failed => self.failed += 1,
            Class::Infra | Class::Stopped => self.others += 1,
        }
    }

    fn line(&self, now: u64) -> String {
        let done = self.passed + self.failed + self.others;
        let took = seconds(now.saturating_sub(self.began.unwrap_or(now)));
        let mut line = format!("{done} of {} in {took}: {} passed", counted(self.tests, "test"), self.passed);
        let again = self.repeated + self.open.values().map(Vec::len).sum::<usize>();
        for (count, what) in [(self.failed, "failed"), (self.others, "without a verdict")] {
            if count > 0 {
                let _infallible = write!(line, ", {count} {what}");
            }
        }
        let machines = counted(usize::try_from(self.machines).unwrap_or(usize::MAX), "machine");
        let _infallible = write!(line, "; {} running on {machines}", self.running);
        if again > 0 {
            let _infallible = write!(line, "; {} repeated", counted(again, "run"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::{Value, json};

    use super::*;

    fn record(at: u64, what: &Value) -> Record {
        let mut record = what.clone();
        record["at"] = at.into();
        serde_json::from_value(record).unwrap()
    }

    fn finished(execution: u64, test: u32, status: &str) -> Value {
        json!({
            "what": "finished", "execution": execution, "test": test, "lease": 0, "attempt": 0, "how": "exited",
            "exit": 0, "status": status, "started": 1, "finished": 2, "duration": 3, "results": 1,
            "artifacts": null, "bytes": 0, "digest": "",
        })
    }

    fn machine(change: &str) -> Value {
        json!({"what": "machine", "number": 0, "lease": "l", "change": change, "platform": 0, "pool": "p"})
    }

    #[test]
    fn a_line_says_how_far_the_run_is() {
        let mut count = Count::new(5);
        assert_eq!(count.line(9), "0 of 5 tests in 0.0s: 0 passed; 0 running on 0 machines");
        let started = |execution: u64, test: u32| json!({"what": "started", "execution": execution, "test": test, "lease": 0, "attempt": 0});
        let verdict = |test: u32, execution: u64, outcome: &str| json!({"what": "verdict", "test": test, "verdict": {"ran": {"execution": execution, "outcome": outcome}}});
        let story = [
            machine("reserved"),
            machine("ready"),
            machine("ready"),
            started(1, 0),
            started(2, 1),
            finished(1, 0, "fail"),
            started(3, 0),
            finished(3, 0, "pass"),
            verdict(0, 3, "passed"),
            finished(2, 1, "fail"),
            verdict(1, 2, "failed"),
            json!({"what": "verdict", "test": 2, "verdict": {"not-run": {"code": "no-machine"}}}),
            started(4, 3),
            machine("released"),
        ];
        for (at, what) in story.iter().enumerate() {
            count.record(&record(1000 + at as u64, what));
        }
        let line = count.line(61_000);
        assert_eq!(
            line,
            "3 of 5 tests in 1m00s: 1 passed, 1 failed, 1 without a verdict; 1 running on 1 machine; 1 run repeated"
        );
        count.record(&record(2000, &json!({"what": "session", "host": "h", "pid": 1, "resumed": true})));
        assert!(count.line(2000).contains("; 0 running on 0 machines"));
    }

    #[test]
    fn it_speaks_when_its_time_has_come() {
        let (said, lines) = mpsc::channel();
        let say = move |line: &str| said.send(line.to_owned()).unwrap();
        let mut statistics = Statistics::new(Duration::from_mins(10), 3, say);
        assert!(statistics.caught_up().unwrap().unwrap() <= Duration::from_mins(10));
        assert!(lines.try_recv().is_err());
        statistics.next = Instant::now();
        let again = statistics.caught_up().unwrap().unwrap();
        assert!(lines.try_recv().unwrap().starts_with("0 of 3 tests"));
        assert!(again > Duration::ZERO && again <= Duration::from_mins(10));
    }
}
