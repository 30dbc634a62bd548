//! A policy on a thread of its own, so that one that blocks costs its opinion only.
//!
//! [`OwnThread`] is a [`Policy`] again: the chain of policies calls it like any other. Each call is copied to the policy's
//! thread and waited for until the limit. A policy that misses the limit once is never asked again: its thread may be stuck
//! for ever, and an answer that comes later answers a question nobody asks any more. All its calls then fail at once, and the
//! chain goes on without it.

use std::{
    cell::Cell,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use atex_plugin_api::{
    error::{Error, ErrorKind, Result},
    policy::{
        Class, Command, Judgement, MachineId, Ms, Note, Outcome, Policy, Prefer, Queued, Rank, Run, RunInfo,
        TestId, TestInfo, View, Wants,
    },
};

/// How long a policy may take for one call, unless configured otherwise.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct OwnThread {
    name: String,
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
    limit: Duration,
    silent: Cell<bool>,
}

/// A call, with everything it refers to.
enum Ask {
    Wants,
    Register(RunInfo, Vec<OwnedTest>),
    Ready,
    Kind(u32, Vec<String>),
    Rank(u32, Vec<Queued>),
    Prefer(OwnedView, Vec<Class>),
    Judge(OwnedRun),
    Note(Ms, OwnedNote),
}

/// What a call gave; each kind of call has one kind of answer.
enum Answer {
    Wants(Wants),
    Done(Result<()>),
    Commands(Result<Vec<Command>>),
    Ranks(Result<Vec<Rank>>),
    Wishes(Result<Vec<Prefer>>),
    Judgement(Result<Judgement>),
}

impl OwnThread {
    /// Moves `policy` to a thread called `policy NAME`.
    pub(crate) fn start(name: &str, policy: Box<dyn Policy>, limit: Duration) -> std::io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (tell, answers) = mpsc::channel();
        thread::Builder::new().name(format!("policy {name}")).spawn(move || serve(policy, &asked, &tell))?;
        Ok(Self { name: name.to_owned(), asks, answers, limit, silent: Cell::new(false) })
    }

    fn call(&self, ask: Ask) -> Result<Answer> {
        if self.silent.get() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                format!("policy {} is not asked any more: it did not answer before", self.name),
            ));
        }
        let failed = match self.asks.send(ask) {
            Ok(()) => match self.answers.recv_timeout(self.limit) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => format!("did not answer within {:?}", self.limit),
                Err(RecvTimeoutError::Disconnected) => "lost its thread".to_owned(),
            },
            Err(_) => "lost its thread".to_owned(),
        };
        self.silent.set(true);
        Err(Error::new(ErrorKind::Other, format!("policy {} {failed}; it is not asked any more", self.name)))
    }

    fn mixed_up<T>(&self) -> Result<T> {
        self.silent.set(true);
        Err(Error::new(ErrorKind::Other, format!("policy {}: an answer to another question", self.name)))
    }

    fn commands(&self, ask: Ask, out: &mut Vec<Command>) -> Result<()> {
        match self.call(ask)? {
            Answer::Commands(commands) => {
                out.append(&mut commands?);
                Ok(())
            }
            _ => self.mixed_up(),
        }
    }

    fn done(&self, ask: Ask) -> Result<()> {
        match self.call(ask)? {
            Answer::Done(result) => result,
            _ => self.mixed_up(),
        }
    }
}

impl Policy for OwnThread {
    /// A policy that does not answer wants nothing, and therefore is never asked.
    fn wants(&self) -> Wants {
        match self.call(Ask::Wants) {
            Ok(Answer::Wants(wants)) => wants,
            _ => Wants::default(),
        }
    }
    fn register(&mut self, run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.done(Ask::Register(*run, tests.iter().map(OwnedTest::from).collect()))
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        self.commands(Ask::Ready, out)
    }
    fn kind(&mut self, kind: u32, facts: &[&str]) -> Result<()> {
        self.done(Ask::Kind(kind, facts.iter().map(|&fact| fact.to_owned()).collect()))
    }
    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        match self.call(Ask::Rank(kind, tests.to_vec()))? {
            Answer::Ranks(ranks) => {
                out.append(&mut ranks?);
                Ok(())
            }
            _ => self.mixed_up(),
        }
    }
    fn prefer(&self, machine: &View<'_>, window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        match self.call(Ask::Prefer(OwnedView::from(machine), window.to_vec()))? {
            Answer::Wishes(wishes) => {
                out.append(&mut wishes?);
                Ok(())
            }
            _ => self.mixed_up(),
        }
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        match self.call(Ask::Judge(OwnedRun::from(run)))? {
            Answer::Judgement(judgement) => judgement,
            _ => self.mixed_up(),
        }
    }
    fn note(&mut self, now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        match OwnedNote::of(note) {
            Some(note) => self.commands(Ask::Note(now, note), out),
            None => Ok(()),
        }
    }
}

/// The policy's thread: one call after the other, until nobody can ask any more.
fn serve(mut policy: Box<dyn Policy>, asked: &Receiver<Ask>, tell: &Sender<Answer>) {
    for ask in asked {
        if tell.send(answer(policy.as_mut(), ask)).is_err() {
            break;
        }
    }
}

fn answer(policy: &mut dyn Policy, ask: Ask) -> Answer {
    match ask {
        Ask::Wants => Answer::Wants(policy.wants()),
        Ask::Register(run, tests) => {
            let attrs: Vec<Vec<&str>> =
                tests.iter().map(|test| test.attrs.iter().map(String::as_str).collect()).collect();
            let tests: Vec<TestInfo<'_>> =
                tests.iter().zip(&attrs).map(|(test, attrs)| test.borrow(attrs)).collect();
            Answer::Done(policy.register(&run, &tests))
        }
        Ask::Ready => Answer::Commands(collect(|out| policy.ready(out))),
        Ask::Kind(kind, facts) => {
            let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
            Answer::Done(policy.kind(kind, &facts))
        }
        Ask::Rank(kind, tests) => Answer::Ranks(collect(|out| policy.rank(kind, &tests, out))),
        Ask::Prefer(view, window) => {
            let labels = view.labels();
            Answer::Wishes(collect(|out| policy.prefer(&view.borrow(&labels), &window, out)))
        }
        Ask::Judge(run) => Answer::Judgement(policy.judge(&run.borrow())),
        Ask::Note(now, note) => Answer::Commands(collect(|out| policy.note(now, &note.borrow(), out))),
    }
}

fn collect<T>(call: impl FnOnce(&mut Vec<T>) -> Result<()>) -> Result<Vec<T>> {
    let mut out = Vec::new();
    call(&mut out)?;
    Ok(out)
}

struct OwnedTest {
    id: TestId,
    platform: u16,
    claim: u16,
    limit: Ms,
    expected: Ms,
    fail_rate: u16,
    name: String,
    attrs: Vec<String>,
}

impl From<&TestInfo<'_>> for OwnedTest {
    fn from(test: &TestInfo<'_>) -> Self {
        Self {
            id: test.id,
            platform: test.platform,
            claim: test.claim,
            limit: test.limit,
            expected: test.expected,
            fail_rate: test.fail_rate,
            name: test.name.to_owned(),
            attrs: test.attrs.iter().map(|&attr| attr.to_owned()).collect(),
        }
    }
}

impl OwnedTest {
    fn borrow<'a>(&'a self, attrs: &'a [&'a str]) -> TestInfo<'a> {
        let mut test = TestInfo::new(self.id, &self.name, attrs);
        test.platform = self.platform;
        test.claim = self.claim;
        test.limit = self.limit;
        test.expected = self.expected;
        test.fail_rate = self.fail_rate;
        test
    }
}

/// A [`View`] whose lists are its own.
struct OwnedView {
    plain: View<'static>,
    running: Vec<TestId>,
    labels: Vec<(String, String)>,
}

impl From<&View<'_>> for OwnedView {
    fn from(view: &View<'_>) -> Self {
        Self {
            plain: without_lists(view),
            running: view.running.to_vec(),
            labels: view.labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }
}

fn without_lists(view: &View<'_>) -> View<'static> {
    let mut plain = View::new(view.machine);
    plain.now = view.now;
    plain.kind = view.kind;
    plain.platform = view.platform;
    plain.free = view.free;
    plain.slots = view.slots;
    plain.ran = view.ran;
    plain.last = view.last;
    plain.last_ok = view.last_ok;
    plain
}

impl OwnedView {
    fn labels(&self) -> Vec<(&str, &str)> {
        self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
    fn borrow<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> View<'a> {
        let mut view: View<'a> = self.plain;
        view.running = &self.running;
        view.labels = labels;
        view
    }
}

struct OwnedRun {
    now: Ms,
    test: TestId,
    machine: MachineId,
    attempt: u16,
    outcome: Outcome,
    exit: i32,
    wall: Ms,
    status: String,
}

impl From<&Run<'_>> for OwnedRun {
    fn from(run: &Run<'_>) -> Self {
        Self {
            now: run.now,
            test: run.test,
            machine: run.machine,
            attempt: run.attempt,
            outcome: run.outcome,
            exit: run.exit,
            wall: run.wall,
            status: run.status.to_owned(),
        }
    }
}

impl OwnedRun {
    fn borrow(&self) -> Run<'_> {
        let mut run = Run::new(self.test, self.machine, self.outcome);
        run.now = self.now;
        run.attempt = self.attempt;
        run.exit = self.exit;
        run.wall = self.wall;
        run.status = &self.status;
        run
    }
}

enum OwnedNote {
    Started { test: TestId, machine: MachineId },
    Finished { run: OwnedRun, last: bool },
    Label { machine: MachineId, key: String, value: String },
    Gone { machine: MachineId },
    Time,
}

impl OwnedNote {
    /// Nothing for a note of a newer API, which no policy of this host can have asked for.
    fn of(note: &Note<'_>) -> Option<Self> {
        Some(match *note {
            Note::Started { test, machine } => Self::Started { test, machine },
            Note::Finished { ref run, last } => Self::Finished { run: run.into(), last },
            Note::Label { machine, key, value } => {
                Self::Label { machine, key: key.to_owned(), value: value.to_owned() }
            }
            Note::Gone { machine } => Self::Gone { machine },
            Note::Time => Self::Time,
            _ => return None,
        })
    }
    fn borrow(&self) -> Note<'_> {
        match self {
            Self::Started { test, machine } => Note::Started { test: *test, machine: *machine },
            Self::Finished { run, last } => Note::Finished { run: run.borrow(), last: *last },
            Self::Label { machine, key, value } => Note::Label { machine: *machine, key, value },
            Self::Gone { machine } => Note::Gone { machine: *machine },
            Self::Time => Note::Time,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use super::*;

    /// Answers until the gate is asked for in `prefer`.
    struct Stubborn(Arc<(Mutex<bool>, Condvar)>);

    impl Policy for Stubborn {
        fn wants(&self) -> Wants {
            let mut wants = Wants::default();
            wants.rank = true;
            wants.prefer = true;
            wants
        }
        fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
            out.extend(tests.iter().map(|test| Rank { class: kind, score: i64::from(test.test) }));
            Ok(())
        }
        fn prefer(&self, _machine: &View<'_>, _window: &[Class], _out: &mut Vec<Prefer>) -> Result<()> {
            let (open, changed) = &*self.0;
            let mut open = open.lock().unwrap();
            while !*open {
                open = changed.wait(open).unwrap();
            }
            Ok(())
        }
    }

    #[test]
    fn a_policy_that_blocks_is_left_behind_and_never_asked_again() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let mut policy =
            OwnThread::start("stubborn", Box::new(Stubborn(gate.clone())), Duration::from_millis(50))
                .unwrap();
        assert!(policy.wants().rank);
        let mut ranks = vec![];
        policy.rank(7, &[Queued::first(3)], &mut ranks).unwrap();
        assert_eq!(ranks, [Rank { class: 7, score: 3 }]);

        let error = policy.prefer(&View::new(0), &[], &mut vec![]).unwrap_err();
        assert!(error.to_string().contains("policy stubborn did not answer"), "{error}");

        // Also when the thread wakes up in the meantime, its late answer answers nothing.
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        let error = policy.rank(7, &[Queued::first(3)], &mut ranks).unwrap_err();
        assert!(error.to_string().contains("not asked any more"), "{error}");
        assert_eq!(ranks.len(), 1);
        assert!(policy.note(0, &Note::Time, &mut vec![]).is_err());
    }
}
