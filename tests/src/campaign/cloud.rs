//! A cloud that can be asked what it holds: it keeps its own account of every machine, whoever asks for it and dies.
//!
//! What was asked for is done also when nobody waits for the answer any more, within a second. In rough [`Weather`] requests
//! take a random time on either side of the deed, are refused, or are carried out without an answer. Its clients are
//! `tests/plugins/cloud`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    look_again,
    provider::{Left, Provider, processes_of},
    random::Random,
};
use crate::build;

/// How a cloud behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything is done at once.
    Fair,
    /// Everything takes a moment.
    Breezy,
    /// Delays, refusals, lost answers.
    Rough,
}

/// A cloud, as long as this value lives.
#[derive(Debug)]
pub struct Cloud {
    office: Arc<Office>,
    listener: Option<JoinHandle<()>>,
    plugin: PathBuf,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Office {
    directory: PathBuf,
    weather: Weather,
    books: Mutex<Books>,
    closed: AtomicBool,
}

/// What the cloud knows.
#[derive(Debug)]
struct Books {
    /// Mark by id, of what exists.
    machines: BTreeMap<String, String>,
    /// What was deleted, and the process that was told so.
    told_gone: BTreeSet<(String, u32)>,
    made: u64,
    complaints: Vec<String>,
    log: File,
    random: Random,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    before: Duration,
    after: Duration,
    refused: bool,
    answered: bool,
}

impl Cloud {
    pub fn open(weather: Weather, seed: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("atex-cloud-").tempdir()?;
        let path = directory.path().to_owned();
        let books = Books {
            machines: BTreeMap::new(),
            told_gone: BTreeSet::new(),
            made: 0,
            complaints: Vec::new(),
            log: File::create(path.join("log"))?,
            random: Random::new(seed, 0xc1_00d),
        };
        let closed = AtomicBool::new(false);
        let office = Arc::new(Office { directory: path.clone(), weather, books: Mutex::new(books), closed });
        let listener = UnixListener::bind(path.join("socket")).context("cannot open a cloud")?;
        let serving = Arc::clone(&office);
        let serve = move || serving.serve(&listener);
        let listener = Some(thread::Builder::new().name("cloud".into()).spawn(serve)?);
        let plugin = build::for_tests().plugin("test-cloud");
        Ok(Self { office, listener, plugin, _directory: directory })
    }

    /// Machines made so far.
    pub fn made(&self) -> u64 {
        self.office.books().made
    }

    /// Marks of what exists.
    pub fn held(&self) -> Vec<String> {
        self.office.books().machines.values().cloned().collect()
    }

    pub fn socket(&self) -> PathBuf {
        self.office.directory.join("socket")
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.office.closed.store(true, Ordering::SeqCst);
        let _to_wake_it = UnixStream::connect(self.socket());
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

impl Provider for Cloud {
    fn name(&self) -> &'static str {
        "cloud"
    }

    fn pool(&self, _: usize) -> Value {
        json!({"use": "cloud", "socket": self.socket(), "max": 3})
    }

    fn arguments(&self) -> Vec<OsString> {
        vec!["--plugin".into(), self.plugin.clone().into()]
    }

    fn left(&self, _: usize, owner: &str) -> Result<Left> {
        let books = self.office.books();
        let ours = |mark: &&String| mark.split('/').next() == Some(owner);
        let machines = books.machines.values().filter(ours).cloned().collect();
        drop(books);
        Ok(Left { machines, traces: processes_of(owner)? })
    }

    fn complaints(&self) -> Vec<String> {
        self.office.books().complaints.clone()
    }

    fn settle(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn emptied(&self) -> Result<Vec<String>> {
        let mut left: Vec<String> = self.held();
        for entry in fs::read_dir(&self.office.directory)? {
            let path = entry?.path();
            if path.is_dir() {
                // What a dying process wrote into a directory that was just removed is nothing that anybody holds.
                remove(&path);
            }
            if path.is_dir() {
                left.push(format!("directory {}", path.display()));
            }
        }
        Ok(left)
    }
}

impl Office {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(stream), office) = (stream, Arc::clone(self)) else { continue };
            // Without a thread the connection ends: an answer that is lost.
            let _lost = thread::Builder::new().name("cloud call".into()).spawn(move || {
                let _nobody_to_tell = office.answer(stream);
            });
        }
    }

    fn answer(&self, mut stream: UnixStream) -> Result<()> {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let request: Value = serde_json::from_str(&line)?;
        let asking =
            rustix::net::sockopt::socket_peercred(&stream)?.pid.as_raw_nonzero().get().unsigned_abs();
        let fate = self.fate();
        look_again(fate.before);
        let answer =
            if fate.refused { json!({"refused": "come back later"}) } else { self.act(&request, asking)? };
        self.log(&request, &answer, fate);
        look_again(fate.after);
        if !fate.answered {
            return Ok(());
        }
        writeln!(stream, "{answer}")?;
        if request["do"] == "delete" && !fate.refused {
            self.books().told_gone.insert((word(&request, "id").to_owned(), asking));
        }
        Ok(())
    }

    fn fate(&self) -> Fate {
        if self.weather == Weather::Fair {
            return Fate { before: Duration::ZERO, after: Duration::ZERO, refused: false, answered: true };
        }
        let random = &mut self.books().random;
        let mut delay = |end| Duration::from_millis(random.below(end));
        let (before, after) = (delay(60), delay(60));
        // More would make every run long: the host pauses for seconds after each.
        let chance = if self.weather == Weather::Rough { 2 } else { 0 };
        let refused = random.percent(chance);
        Fate { before, after, refused, answered: !random.percent(chance) }
    }

    fn act(&self, request: &Value, asking: u32) -> Result<Value> {
        let id = word(request, "id");
        Ok(match word(request, "do") {
            "create" => self.create(id, word(request, "mark"))?,
            "delete" => self.delete(id, Some(asking)),
            "abandon" => self.delete(id, None),
            "list" => self.list(word(request, "owner")),
            other => json!({"refused": format!("what is {other}?")}),
        })
    }

    fn create(&self, id: &str, mark: &str) -> Result<Value> {
        let directory = self.directory.join(id);
        fs::create_dir_all(&directory)?;
        let mut books = self.books();
        books.made += 1;
        if books.machines.insert(id.to_owned(), mark.to_owned()).is_some() {
            books.complaints.push(format!("{id} was asked for twice"));
        }
        Ok(json!({"directory": directory}))
    }

    /// `asking`: the process that knew it to exist. After that has died, another one may well ask again.
    fn delete(&self, id: &str, asking: Option<u32>) -> Value {
        let mut books = self.books();
        let existed = books.machines.remove(id).is_some();
        if !existed && asking.is_some_and(|asking| books.told_gone.contains(&(id.to_owned(), asking))) {
            books.complaints.push(format!("{id} was given back again although its end had been confirmed"));
        }
        drop(books);
        if existed {
            remove(&self.directory.join(id));
        }
        json!({})
    }

    fn list(&self, owner: &str) -> Value {
        let books = self.books();
        let ours = |mark: &str| owner.is_empty() || mark.split('/').next() == Some(owner);
        let held: Vec<_> = books.machines.iter().filter(|(_, mark)| ours(mark)).collect();
        json!({"held": held})
    }

    fn log(&self, request: &Value, answer: &Value, fate: Fate) {
        let line = json!({"request": request, "answer": answer, "answered": fate.answered});
        // For people only: what counts is in the books.
        let _unread = writeln!(self.books().log, "{line}");
    }
}

fn word<'a>(request: &'a Value, key: &str) -> &'a str {
    request[key].as_str().unwrap_or_default()
}

/// Processes of a test that is just being killed may still be writing there.
fn remove(directory: &Path) {
    for _ in 0..100 {
        if fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        look_again(Duration::from_millis(10));
    }
}
