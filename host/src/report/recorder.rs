//! What the history learns from a run, while the run goes on: a host that is killed has told what had finished by then.
//!
//! Executions are written whenever the journal has no more to tell, all that came meanwhile in one transaction: one at a time
//! in a slow run, hundreds in a fast one, and nothing waits for a timer. Each reading begins with the first record of the run,
//! so what an earlier process could not write any more is written by the one that resumes; what is known already does not
//! count twice.
//!
//! The history is a help, never a condition: the first error is told, and the run goes on without.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use crate::store::{History, Record, RunFile, Sample, What};

use super::Follower;

/// Most executions that are kept for one transaction.
const MOST: usize = 1024;

/// See the [module](self).
pub(crate) struct Recorder {
    path: PathBuf,
    run: Arc<RunFile>,
    /// Opened by the thread that writes; `None` as well after an error.
    history: Option<History>,
    samples: Vec<Sample>,
}

impl Recorder {
    /// Into the history file `path`.
    pub(crate) fn new(path: PathBuf, run: Arc<RunFile>) -> Self {
        Self { path, run, history: None, samples: Vec::new() }
    }

    fn write(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let Some(history) = &mut self.history else { return };
        if samples.is_empty() {
            return;
        }
        if let Err(error) = history.record(&self.run.run, &samples) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &dyn std::error::Error) {
        tracing::warn!("{error}; durations of tests are not remembered");
        self.history = None;
    }
}

impl Follower for Recorder {
    fn begin(&mut self) -> Result<(), String> {
        match History::open(&self.path) {
            Ok(history) => self.history = Some(history),
            Err(error) => self.give_up(&error),
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), String> {
        if let (Some(_), What::Finished(execution)) = (&self.history, &record.what) {
            self.samples.extend(Sample::of(&self.run, execution));
        }
        if self.samples.len() >= MOST {
            self.write();
        }
        Ok(())
    }

    fn caught_up(&mut self) -> Result<Option<Duration>, String> {
        self.write();
        Ok(None)
    }
}

/// The recorder of a run, if there is a state directory to keep a history in.
pub(crate) fn recorder(path: io::Result<PathBuf>, run: &Arc<RunFile>) -> Option<Recorder> {
    match path {
        Ok(path) => Some(Recorder::new(path, Arc::clone(run))),
        Err(error) => {
            tracing::warn!("cannot use the state directory: {error}; durations of tests are not remembered");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::Input;
    use crate::store::{Journal, Promise, RunPlatform, TestHistory, run_file};

    fn run() -> Arc<RunFile> {
        let promise = |name: &str| Promise { platform: 0, name: name.into() };
        Arc::new(RunFile {
            platforms: vec![RunPlatform { name: "p".into(), context: [].into() }],
            tests: vec![promise("/a"), promise("/b")],
            ..run_file()
        })
    }

    fn finished(execution: u64, test: u32) -> Record {
        let what = serde_json::json!({
            "at": execution, "what": "finished", "execution": execution, "test": test, "lease": 0, "attempt": 0,
            "how": "exited", "exit": 0, "status": "pass", "started": 1, "finished": 2, "duration": 3, "results": 1,
            "artifacts": null, "bytes": 0, "digest": "",
        });
        serde_json::from_value(what).unwrap()
    }

    fn known(path: &std::path::Path) -> Vec<TestHistory> {
        History::open(path).unwrap().tests(|_, _| true).unwrap()
    }

    #[test]
    fn what_finished_is_remembered_though_the_run_never_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, path) =
            (directory.path().join("journal.jsonl"), directory.path().join("history.sqlite"));
        let mut writer = Journal::open(&journal).unwrap();
        for _session in 0..2 {
            writer.append(&finished(1, 0)).unwrap();
            writer.append(&finished(2, 0)).unwrap();
            writer.append(&finished(3, 1)).unwrap();
            let (inbox, inputs) = mpsc::channel();
            let recorder = Box::new(Recorder::new(path.clone(), run()));
            drop(super::super::start("history", recorder, journal.clone(), 0, inbox).unwrap());
            assert!(matches!(inputs.recv(), Ok(Input::ReporterDone { problem: None, .. })));
            let tests = known(&path);
            let counts: Vec<_> =
                tests.iter().map(|test| (test.test.as_str(), test.executions.len())).collect();
            assert_eq!(counts, [("/a", 2), ("/b", 1)]);
        }
    }

    #[test]
    fn a_history_that_cannot_be_written_costs_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(directory.path().to_owned(), run());
        assert_eq!(recorder.begin(), Ok(()));
        assert_eq!(recorder.record(&finished(1, 0)), Ok(()));
        assert_eq!((recorder.caught_up(), recorder.samples.len()), (Ok(None), 0));
    }
}
