//! One thread that reads the journal as it grows.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use crate::{
    engine::Input,
    store::{Heard, JournalReader, Listener, Record, Ringer, What, bell},
};

/// From one look at the journal to the next, unless the run ends. Nobody sees the difference, and nobody is woken for each line.
const REST: Duration = Duration::from_millis(20);

/// Somebody who wants to be told of every record, in order.
pub(crate) trait Follower: Send {
    /// Before the first record.
    fn begin(&mut self) -> Result<(), String>;
    /// An error is counted and told; the next record comes all the same.
    fn record(&mut self, record: &Record) -> Result<(), String>;
    /// Everything that is written so far was told. Called again after this time at the latest; `None`: after the next record.
    fn caught_up(&mut self) -> Result<Option<Duration>, String> {
        Ok(None)
    }
}

/// Starts the thread `reporter NAME`. It reads on when the returned bell is rung, until it has passed on the last record of this
/// session, and then sends [`Input::ReporterDone`].
pub(crate) fn start(
    name: &str,
    follower: Box<dyn Follower>,
    journal: PathBuf,
    offset: u64,
    inbox: Sender<Input>,
) -> io::Result<Ringer> {
    let (wake, woken) = bell();
    let name = name.to_owned();
    thread::Builder::new().name(format!("reporter {name}")).spawn(move || {
        let mut reading = Reading { name, follower, first_problem: None, problems: 0 };
        if let Err(error) = reading.read(&journal, offset, &woken) {
            reading.problem(format!("cannot read the journal: {error}"));
        }
        let (reporter, problem) = reading.into_result();
        let _over = inbox.send(Input::ReporterDone { reporter, problem });
    })?;
    Ok(wake)
}

struct Reading {
    name: String,
    follower: Box<dyn Follower>,
    first_problem: Option<String>,
    problems: u64,
}

impl Reading {
    fn read(&mut self, journal: &Path, offset: u64, woken: &Listener) -> io::Result<()> {
        if let Err(problem) = self.follower.begin() {
            self.problem(problem);
        }
        let mut reader = JournalReader::open(journal, offset)?;
        loop {
            let mut next = reader.next_record()?;
            while let Some(record) = next {
                next = reader.next_record()?;
                let ended = matches!(record.what, What::Ended(_));
                // Once an earlier session came to its end; then the run was resumed.
                if ended && next.is_some() {
                    continue;
                }
                if ended {
                    // Whoever has kept something back until it is caught up tells it before the end.
                    self.caught_up();
                }
                if let Err(problem) = self.follower.record(&record) {
                    self.problem(problem);
                }
                if ended {
                    self.caught_up();
                    return Ok(());
                }
            }
            let limit = self.caught_up();
            if woken.wait(Instant::now() + REST, limit) == Heard::Over {
                // Whatever it wrote has been read.
                return Ok(());
            }
        }
    }

    fn caught_up(&mut self) -> Option<Duration> {
        self.follower.caught_up().unwrap_or_else(|problem| {
            self.problem(problem);
            None
        })
    }

    fn problem(&mut self, problem: String) {
        self.problems += 1;
        self.first_problem.get_or_insert(problem);
    }

    fn into_result(self) -> (String, Option<String>) {
        let problem = self.first_problem.map(|first| match self.problems {
            1 => first,
            more => format!("{first} (and {} more)", more - 1),
        });
        (self.name, problem)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::{Ended, Journal};

    struct Collect(Sender<u64>);

    impl Follower for Collect {
        fn begin(&mut self) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, record: &Record) -> Result<(), String> {
            let _test_is_over = self.0.send(record.at);
            if record.at == 2 { Err("two is bad".into()) } else { Ok(()) }
        }
    }

    #[test]
    fn records_come_in_order_and_an_error_does_not_end_the_reading() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let (seen, collected) = mpsc::channel();
        let (inbox, inputs) = mpsc::channel();
        let wake = start("x", Box::new(Collect(seen)), path, 0, inbox).unwrap();
        for at in 1..=3 {
            let what =
                if at == 3 { What::Ended(Ended::default()) } else { What::Warning { text: "w".into() } };
            journal.append(&Record { at, what }).unwrap();
            wake.ring();
        }
        let Ok(Input::ReporterDone { reporter, problem }) = inputs.recv() else { panic!("no end") };
        assert_eq!((reporter.as_str(), problem.as_deref()), ("x", Some("two is bad")));
        assert_eq!(collected.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
