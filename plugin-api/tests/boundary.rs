//! What authors write, called through the binary interface within one process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::allow_attributes, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use atex_plugin_api::host_side::{Cancel, ReportEvent};
use atex_plugin_api::policy::{Class, Command, Ms, Outcome, VETO};
use atex_plugin_api::prelude::*;
use atex_plugin_api::reporter::{
    Finished, MachineEvent, Promised, ReporterWants, RunEnded, RunStarted, TestEvent,
};
use atex_plugin_api::testkit::{self, FakeHost};
use atex_plugin_api::{ByFitness, Fitness, FitnessMachine, FitnessTest};

/// Waits until it is cancelled, by the token or by `abort`.
struct Slow(Cancel);

impl Plugin for Slow {
    type Config = NoConfig;
    fn new(_: NoConfig, _: Host) -> Result<Self> {
        Ok(Self(Cancel::new()))
    }
}

impl Provisioner for Slow {
    fn reserve(&self, _: &Lease, host: &Host) -> Result<Machine> {
        host.progress("waiting");
        while !self.0.cancelled() && !host.wait_cancelled(Duration::from_millis(1)) {}
        host.log(Level::Warn, "given up", &[("why", &"cancelled")]);
        Err(Error::new(ErrorKind::Cancelled, "given up").context("cannot reserve"))
    }
    fn release(&self, _: &str, _: &Host) -> Result<()> {
        Ok(())
    }
    fn list(&self, owner: &str, _: &Host) -> Result<Vec<Held>> {
        Ok(vec![Held::new("m", format!("{owner}/run/lease"))])
    }
    fn abort(&self, _: &str, _: &Host) -> Result<()> {
        self.0.cancel();
        Ok(())
    }
    fn capacity(&self, _: &Host) -> Result<Option<u64>> {
        Ok(Some(3))
    }
}

#[test]
fn a_reservation_can_be_ended_from_another_thread() {
    let host = FakeHost::new();
    for by_abort in [true, false] {
        let slow = testkit::provisioner::<Slow>("", &host.handle()).unwrap();
        let call = host.with_cancel(Cancel::new());
        let handle = call.handle();
        let error = std::thread::scope(|scope| {
            let reserving = scope.spawn(|| slow.reserve(&testkit::lease(1), &handle));
            if by_abort {
                slow.abort("a1", &host.handle()).unwrap();
            } else {
                call.cancel().cancel();
            }
            reserving.join().unwrap().unwrap_err()
        });
        assert_eq!(error.chain(), ["cannot reserve", "given up"]);
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Cancelled, false));
    }
    let log = host.log();
    assert_eq!((log[0].level, log[0].fields.as_str()), (Level::Warn, r#"{"why":"cancelled"}"#));
    assert_eq!(host.progress(), ["waiting", "waiting"]);
}

#[test]
fn what_is_not_implemented_says_so() {
    let host = FakeHost::new().handle();
    let slow = testkit::provisioner::<Slow>("{}", &host).unwrap();
    assert_eq!(slow.alive("m", &host), Ok(None));
    assert_eq!(slow.capacity(&host), Ok(Some(3)));
    assert_eq!(slow.renew("m", Duration::MAX, &host).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(slow.reboot("m", &host).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(slow.list("me", &host).unwrap(), [Held::new("m", "me/run/lease")]);
}

/// Writes down all that it is asked, and answers something recognizable.
struct Scribe {
    host: Host,
}

impl Plugin for Scribe {
    type Config = NoConfig;
    fn new(_: NoConfig, host: Host) -> Result<Self> {
        Ok(Self { host })
    }
}

impl Policy for Scribe {
    fn wants(&self) -> Wants {
        Wants::new().attrs(["tag", "order"]).facts(["arch"]).rank().prefer().judge().notes()
    }
    fn register(&mut self, run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.host.info(format!("{run:?} {tests:?}"));
        Ok(())
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<()> {
        out.extend([Command::Skip(1, "why".into()), Command::Rerank(2), Command::Stop("done".into())]);
        Ok(())
    }
    fn kind(&mut self, kind: u32, facts: &[&str]) -> Result<()> {
        self.host.info(format!("{kind} {facts:?}"));
        Ok(())
    }
    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(
            tests
                .iter()
                .map(|it| Rank { class: it.last_machine, score: i64::from(kind) - i64::from(it.attempt) }),
        );
        Ok(())
    }
    fn prefer(&self, view: &View<'_>, window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        self.host.info(format!("{view:?} {window:?}"));
        out.extend([Prefer::Class(7, VETO), Prefer::Test(8, 9)]);
        Ok(())
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        self.host.info(format!("{run:?}"));
        Ok(if run.exit == 0 { Judgement::stop() } else { Judgement::spoilt(false) })
    }
    fn note(&mut self, now: Ms, note: &Note<'_>, out: &mut Vec<Command>) -> Result<()> {
        self.host.info(format!("{now} {note:?}"));
        out.push(Command::WakeAt(now + 1));
        Ok(())
    }
}

#[test]
fn policies_see_and_say_the_same_on_both_sides() {
    let host = FakeHost::new();
    let mut policy = testkit::policy::<Scribe>("{}", &host.handle()).unwrap();
    let said = |expected: String| assert_eq!(host.log().last().unwrap().message, expected);
    assert_eq!(
        policy.wants(),
        Wants::new().attrs(["tag", "order"]).facts(["arch"]).rank().prefer().judge().notes()
    );

    let (run_info, tests) =
        (RunInfo::new(7, 2, 1), [TestInfo::new(0, "/a", &["x", "1"]), TestInfo::new(1, "/b", &["", ""])]);
    policy.register(&run_info, &tests).unwrap();
    said(format!("{run_info:?} {tests:?}"));
    policy.kind(3, &["x86_64"]).unwrap();
    said("3 [\"x86_64\"]".to_owned());

    let (mut commands, mut ranks, mut wishes) = (vec![], vec![], vec![]);
    policy.ready(&mut commands).unwrap();
    assert_eq!(commands, [Command::Skip(1, "why".into()), Command::Rerank(2), Command::Stop("done".into())]);
    policy.rank(5, &[Queued::new(0, 2, 9), Queued::first(1)], &mut ranks).unwrap();
    assert_eq!(ranks, [Rank { class: 9, score: 3 }, Rank { class: u32::MAX, score: 5 }]);

    let mut view = View::new(4);
    (view.now, view.kind, view.platform, view.free, view.slots, view.ran) = (1, 2, 3, 4, 5, 6);
    (view.last, view.last_ok, view.running, view.labels) = (7, true, &[1, 2], &[("k", "v")]);
    policy.prefer(&view, &[10, 11], &mut wishes).unwrap();
    said(format!("{view:?} [10, 11]"));
    assert_eq!(wishes, [Prefer::Class(7, VETO), Prefer::Test(8, 9)]);

    let mut run = Run::new(1, 2, Outcome::TimedOut);
    (run.now, run.attempt, run.wall, run.status) = (5, 3, 4, "fail");
    assert_eq!(policy.judge(&run).unwrap(), Judgement::spoilt(false));
    said(format!("{run:?}"));
    run.exit = 0;
    assert_eq!(policy.judge(&run).unwrap(), Judgement::stop());

    let notes = [
        Note::Started { test: 1, machine: 2 },
        Note::Finished { run, last: true },
        Note::Finished { run, last: false },
        Note::Label { machine: 1, key: "k", value: "v" },
        Note::Gone { machine: 3 },
        Note::Time,
    ];
    for note in &notes {
        commands.clear();
        policy.note(99, note, &mut commands).unwrap();
        said(format!("99 {note:?}"));
        assert_eq!(commands, [Command::WakeAt(100)]);
    }
}

/// Counts what it is told.
struct Counts {
    told: Arc<AtomicU32>,
}

static TOLD: AtomicU32 = AtomicU32::new(0);

impl Plugin for Counts {
    type Config = NoConfig;
    fn new(_: NoConfig, _: Host) -> Result<Self> {
        Ok(Self { told: Arc::default() })
    }
}

impl Reporter for Counts {
    fn wants(&self) -> ReporterWants {
        let mut wants = ReporterWants::default();
        wants.machines = true;
        wants
    }
    fn run_started(&mut self, run: &RunStarted, _: &Host) -> Result<()> {
        assert_eq!(run.tests, 1);
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn promised(&mut self, tests: &[Promised], _: &Host) -> Result<()> {
        assert_eq!(tests[0].test, "/a");
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn machine(&mut self, _: &MachineEvent, _: &Host) -> Result<()> {
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn test(&mut self, _: &TestEvent, _: &Host) -> Result<()> {
        panic!("it did not want to know");
    }
    fn finished(&mut self, finished: &Finished, _: &Host) -> Result<()> {
        assert_eq!(finished.artifacts.as_deref(), Some(std::path::Path::new("/artifacts/a")));
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn run_ended(&mut self, end: &RunEnded, _: &Host) -> Result<()> {
        assert_eq!(end.passed, 1);
        TOLD.store(self.told.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn reporters_are_told_what_they_want_to_know() {
    let host = FakeHost::new().handle();
    let mut reporter = testkit::reporter::<Counts>("{}", &host).unwrap();
    let mut started = RunStarted::default();
    started.tests = 1;
    let mut promised = Promised::default();
    "/a".clone_into(&mut promised.test);
    let mut finished = Finished::default();
    finished.artifacts = Some("/artifacts/a".into());
    let mut ended = RunEnded::default();
    ended.passed = 1;
    for event in [
        ReportEvent::RunStarted(&started),
        ReportEvent::Promised(&[promised]),
        ReportEvent::Machine(&MachineEvent::default()),
        ReportEvent::Test(&TestEvent::default()),
        ReportEvent::Finished(&finished),
        ReportEvent::RunEnded(&ended),
    ] {
        reporter.tell(event, &host).unwrap();
    }
    assert_eq!(TOLD.load(Ordering::Relaxed), 5);
}

/// Likes tests whose tag the last one had; never runs `arm` tests elsewhere.
struct SameTag;

impl Plugin for SameTag {
    type Config = NoConfig;
    fn new(_: NoConfig, _: Host) -> Result<Self> {
        Ok(Self)
    }
}

impl Fitness for SameTag {
    fn attrs(&self) -> Vec<String> {
        vec!["tag".to_owned()]
    }
    fn facts(&self) -> Vec<String> {
        vec!["arch".to_owned()]
    }
    fn applicable(&self, test: &FitnessTest, facts: &[String]) -> bool {
        test.attrs[0] != "arm" || facts[0] == "aarch64"
    }
    fn fitness(&self, test: &FitnessTest, machine: &FitnessMachine<'_>) -> i64 {
        i64::from(machine.last.is_some_and(|last| last.attrs == test.attrs))
    }
}

fn fitness(tags: &[&str]) -> impl Policy + use<> {
    let mut policy = testkit::policy::<ByFitness<SameTag>>("{}", &FakeHost::new().handle()).unwrap();
    let attrs: Vec<[&str; 1]> = tags.iter().map(|tag| [*tag]).collect();
    let tests: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
    policy.register(&RunInfo::new(0, tests.len() as u32, 1), &tests).unwrap();
    policy.kind(0, &["x86_64"]).unwrap();
    policy.kind(1, &["aarch64"]).unwrap();
    policy
}

#[test]
fn fitness_is_a_policy() {
    let policy = fitness(&["a", "b", "a", "arm"]);
    let scores = |kind| {
        let mut ranks = vec![];
        policy.rank(kind, &[0, 1, 2, 3].map(Queued::first), &mut ranks).unwrap();
        ranks
    };
    let of = |class, score| Rank { class, score };
    assert_eq!(scores(0), [of(0, 0), of(1, 0), of(0, 0), of(2, VETO)]);
    assert_eq!(scores(1)[3], of(2, 0));
    let mut view = View::new(0);
    view.last = 2;
    let mut wishes = vec![];
    policy.prefer(&view, &[], &mut wishes).unwrap();
    assert_eq!(wishes, [Prefer::Class(0, 1)]);
}

#[test]
fn fitness_with_many_classes_looks_at_the_best() {
    let tags: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let policy = fitness(&tags.iter().map(String::as_str).collect::<Vec<_>>());
    let mut view = View::new(0);
    view.last = 500;
    let mut wishes = vec![];
    policy.prefer(&view, &[1, 500, 700], &mut wishes).unwrap();
    assert_eq!(wishes, [Prefer::Class(500, 1)]);
}

#[test]
fn fitness_keeps_the_rules() {
    let make = || testkit::policy::<ByFitness<SameTag>>("{}", &FakeHost::new().handle()).unwrap();
    let faults =
        testkit::check_policy(make, &["/a", "/b", "/c"], |test, _| test.to_owned(), |_| "x".to_owned());
    assert_eq!(faults, []);
}
