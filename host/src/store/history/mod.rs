//! `history.sqlite`: how long tests took and how they ended, over all runs of this user.
//!
//! Many hosts may read and write it at once, in short transactions while tests finish; the same record twice counts once. A
//! killed host leaves either all of a transaction or nothing. The file is a help, never a condition: whoever
//! cannot open it goes on without.
//!
//! Of each test on each platform the newest executions stay. Executions that say nothing about the test (its machine
//! was lost, it was cancelled) do not come in.

mod digest;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::record::{Class, Execution, RunFile};

pub use digest::{Expectation, Expectations, TestHistory};

/// Executions that are kept of each test on each platform.
const KEPT: u32 = 50;
/// How long to wait for other writers.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the tables; a file with a later one is refused.
const SCHEMA: u32 = 1;

const TABLES: &str = "
    CREATE TABLE test (
        id INTEGER PRIMARY KEY,
        platform TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (platform, name)
    );
    CREATE TABLE execution (
        test INTEGER NOT NULL REFERENCES test,
        at INTEGER NOT NULL,
        run TEXT NOT NULL,
        number INTEGER NOT NULL,
        status TEXT NOT NULL,
        passed INTEGER NOT NULL,
        duration INTEGER NOT NULL,
        PRIMARY KEY (test, at, run, number)
    ) WITHOUT ROWID;
";

/// The history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("cannot {what} the history {}: {error}", path.display())]
    Database { what: &'static str, path: PathBuf, error: rusqlite::Error },
    #[error("the history {} is that of a later atex-host (format {version}, known is {SCHEMA})", path.display())]
    Later { path: PathBuf, version: u32 },
}

/// One execution, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Unique in its run.
    pub execution: u64,
    pub platform: String,
    pub test: String,
    /// When it ended, Unix time in milliseconds.
    pub at: u64,
    /// The test's own status.
    pub status: String,
    /// Whether that is a pass (`pass`, `info`, `skip`, `warn`).
    pub passed: bool,
    /// Milliseconds from start to end.
    pub duration: u64,
}

impl Sample {
    /// What is remembered of an execution of a run; `None` if it says nothing about the test.
    pub fn of(run: &RunFile, execution: &Execution) -> Option<Self> {
        let passed = match execution.class() {
            Class::Passed | Class::Warned => true,
            Class::Failed => false,
            Class::Infra | Class::Stopped => return None,
        };
        let test = run.tests.get(execution.test as usize)?;
        Some(Self {
            execution: execution.execution,
            platform: run.platforms.get(usize::from(test.platform))?.name.clone(),
            test: test.name.clone(),
            at: execution.finished,
            status: execution.status.clone(),
            passed,
            duration: execution.duration,
        })
    }
}

/// See the [module](self). Not shared between threads: open it again instead.
#[derive(Debug)]
pub struct History {
    connection: Connection,
    path: PathBuf,
}

impl History {
    /// Opens the file, making it if need be.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let wrong = |error| HistoryError::Database { what: "open", path: path.to_owned(), error };
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_NOFOLLOW,
        )
        .map_err(wrong)?;
        connection.busy_timeout(PATIENCE).map_err(wrong)?;
        // Readers and a writer then do not wait for each other. Where that cannot be had (another host is doing it just now,
        // the file system has no shared memory) the file is as safe, only slower.
        let _mode = connection.pragma_update(None, "journal_mode", "wal");
        connection.pragma_update(None, "synchronous", "normal").map_err(wrong)?;
        let version = prepare_tables(&mut connection).map_err(wrong)?;
        if version > SCHEMA {
            return Err(HistoryError::Later { path: path.to_owned(), version });
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Remembers executions of a run: all of them or, on error, none. Those that are known already are passed over.
    pub fn record<'s>(
        &mut self,
        run: &str,
        samples: impl IntoIterator<Item = &'s Sample>,
    ) -> Result<(), HistoryError> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for sample in samples {
                insert(&transaction, run, sample)?;
            }
            transaction.commit()
        };
        write().map_err(|error| self.error("write", error))
    }

    /// What to expect of the tests of a platform.
    pub fn expectations(&self, platform: &str) -> Result<Expectations, HistoryError> {
        let mut expectations = Expectations::default();
        self.each_test(Some(platform), |_, test, executions| {
            expectations.insert(test, digest::expectation(&executions));
        })?;
        Ok(expectations)
    }

    /// Every test of every platform that `keep` wants (platform, test), by platform and name.
    pub fn tests(&self, keep: impl Fn(&str, &str) -> bool) -> Result<Vec<TestHistory>, HistoryError> {
        let mut tests = Vec::new();
        self.each_test(None, |platform, test, executions| {
            if keep(&platform, &test) {
                tests.push(TestHistory::new(platform, test, executions));
            }
        })?;
        Ok(tests)
    }

    /// Calls `act` with platform, test, and its executions, newest first.
    fn each_test(
        &self,
        platform: Option<&str>,
        mut act: impl FnMut(String, String, Vec<Past>),
    ) -> Result<(), HistoryError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut query = self.connection.prepare_cached(
                "SELECT test.id, platform, name, at, run, status, passed, duration
                 FROM test JOIN execution ON execution.test = test.id
                 WHERE ?1 IS NULL OR platform = ?1
                 ORDER BY platform, name, at DESC, run DESC, number DESC",
            )?;
            let mut rows = query.query(params![platform])?;
            let mut current: Option<(i64, String, String, Vec<Past>)> = None;
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                let past = Past {
                    at: unsigned(row.get(3)?),
                    run: row.get(4)?,
                    status: row.get(5)?,
                    passed: row.get(6)?,
                    duration: unsigned(row.get(7)?),
                };
                match &mut current {
                    Some((same, _, _, pasts)) if *same == id => pasts.push(past),
                    _ => {
                        let begun = (id, row.get(1)?, row.get(2)?, vec![past]);
                        if let Some((_, platform, test, pasts)) = current.replace(begun) {
                            act(platform, test, pasts);
                        }
                    }
                }
            }
            if let Some((_, platform, test, pasts)) = current {
                act(platform, test, pasts);
            }
            Ok(())
        };
        read().map_err(|error| self.error("read", error))
    }

    fn error(&self, what: &'static str, error: rusqlite::Error) -> HistoryError {
        HistoryError::Database { what, path: self.path.clone(), error }
    }
}

/// One remembered execution of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Unix time in milliseconds.
    pub at: u64,
    pub run: String,
    pub status: String,
    pub passed: bool,
    pub duration: u64,
}

/// Makes the tables in a new file; the version of what is there.
fn prepare_tables(connection: &mut Connection) -> rusqlite::Result<u32> {
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    let found: u32 = version(connection)?;
    if found != 0 {
        return Ok(found);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another host may have been faster.
    let found = version(&transaction)?;
    if found == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
        transaction.commit()?;
        return Ok(SCHEMA);
    }
    Ok(found)
}

fn insert(transaction: &Transaction<'_>, run: &str, sample: &Sample) -> rusqlite::Result<()> {
    let names = params![sample.platform, sample.test];
    transaction
        .prepare_cached("INSERT INTO test (platform, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(names)?;
    let test: i64 = transaction
        .prepare_cached("SELECT id FROM test WHERE platform = ?1 AND name = ?2")?
        .query_row(names, |row| row.get(0))?;
    transaction
        .prepare_cached(
            "INSERT INTO execution (test, at, run, number, status, passed, duration)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            test,
            signed(sample.at),
            run,
            signed(sample.execution),
            sample.status,
            sample.passed,
            signed(sample.duration)
        ])?;
    transaction
        .prepare_cached(
            "DELETE FROM execution WHERE test = ?1 AND (at, run, number) <= (
                 SELECT at, run, number FROM execution WHERE test = ?1
                 ORDER BY at DESC, run DESC, number DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![test, KEPT])?;
    Ok(())
}

/// SQLite has signed integers only.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
