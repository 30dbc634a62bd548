//! Policies that fail, one call at a time, and what remains of the others.

use atex_plugin_api::ErrorKind;
use atex_plugin_api::policy::{Outcome, Policy, Queued, Run, Wants};

use super::*;
use crate::core::event::Prefer;
use crate::core::simulate::Synthetic;
use crate::core::testing::{Longest, Nonsense, Priority, Reruns, Tests};

/// Fails in the method of this name.
struct Broken(&'static str);

impl Broken {
    fn may(&self, method: &str) -> Result<(), Error> {
        if self.0 == method { Err(Error::new(ErrorKind::Panic, format!("{method} broke"))) } else { Ok(()) }
    }
}

impl Policy for Broken {
    fn wants(&self) -> Wants {
        let mut wants = Wants::default();
        (wants.rank, wants.prefer, wants.judge, wants.notes) = (true, true, true, true);
        wants.facts = vec!["model".into()];
        wants
    }
    fn register(&mut self, _run: &RunInfo, _tests: &[TestInfo<'_>]) -> Result<(), Error> {
        self.may("register")
    }
    fn ready(&mut self, out: &mut Vec<Command>) -> Result<(), Error> {
        out.extend([Command::Skip(0, "x".repeat(5000)), Command::Skip(1000, "no such test".into())]);
        self.may("ready")
    }
    fn kind(&mut self, _kind: u32, _facts: &[&str]) -> Result<(), Error> {
        self.may("kind")
    }
    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<(), Error> {
        out.extend(tests.iter().map(|_| Rank { class: 1, score: 7 }));
        if self.0 == "too few ranks" {
            out.pop();
        }
        self.may("rank")
    }
    fn prefer(&self, _machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<(), Error> {
        out.extend([Prefer::Class(1, 1), Prefer::Test(5, 0), Prefer::Test(1000, 1), Prefer::Test(1, 2)]);
        if self.0 == "too many wishes" {
            out.extend((0..1000).map(|class| Prefer::Class(class, 1)));
        }
        self.may("prefer")
    }
    fn judge(&self, _run: &Run<'_>) -> Result<Judgement, Error> {
        self.may("judge")?;
        Ok(Judgement::rerun(true))
    }
    fn note(&mut self, _now: Ms, _note: &api::Note<'_>, out: &mut Vec<Command>) -> Result<(), Error> {
        out.push(Command::Rerank(3));
        self.may("note")
    }
}

fn chain(policies: Vec<Box<dyn Policy>>) -> (Chain, Vec<(u16, Command)>) {
    let tests = Synthetic::new(30, 1).make();
    let mut chain = Chain::new(policies);
    // Ten tests of another chain come first.
    let asked = chain.register(&RunInfo::new(1, 30, 2), 10..30, &Tests { tests: &tests, groups: 0 });
    chain.kind(&KindInfo { kind: 0, own: vec![0], news: vec![(0, 0, vec!["a".into()])] });
    (chain, asked)
}

fn question() -> Question {
    Question {
        now: 0,
        machine: 0,
        kind: 0,
        platform: 0,
        free: 1,
        slots: 1,
        ran: 0,
        last: 3,
        last_ok: true,
        running: vec![11],
        labels: None,
        windows: vec![],
    }
}

fn finished() -> FinishedRun {
    let (outcome, status) = (Outcome::Failed, "fail".into());
    FinishedRun { now: 0, test: 12, machine: 0, attempt: 0, outcome, exit: 1, wall: 0, status }
}

fn kinds_of_faults(chain: &Chain) -> Vec<(FaultKind, u64)> {
    chain.faults().map(|fault| (fault.kind, fault.count)).collect()
}

#[test]
fn what_policies_say_is_checked_and_renumbered() {
    let (mut chain, asked) = chain(vec![Box::new(Broken(""))]);
    let [(0, Command::Skip(10, reason))] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(reason.len(), check::REASON);
    let wishes = chain.prefer(&question());
    let wanted = [Prefer::Class(1, 1), Prefer::Test(11, 2)];
    assert_eq!(wishes.iter().map(|wish| wish.prefer).collect::<Vec<_>>(), wanted);
    assert_eq!(chain.note(0, &Note::Time { policy: 0 }), [(0, Command::Rerank(13))]);
    assert_eq!(chain.note(0, &Note::Time { policy: 1 }), []);
    assert_eq!(kinds_of_faults(&chain), [(FaultKind::UnknownTest, 2), (FaultKind::LoweredTest, 1)]);
    assert_eq!(chain.take_news().len(), 2);
    assert!(chain.take_news().is_empty());
}

/// Wants one thing at first, and another once it knows the tests.
struct Fickle(Wants, Wants, bool);

impl Policy for Fickle {
    fn wants(&self) -> Wants {
        if self.2 { self.1.clone() } else { self.0.clone() }
    }
    fn ready(&mut self, _out: &mut Vec<Command>) -> Result<(), Error> {
        self.2 = true;
        Ok(())
    }
    fn judge(&self, _run: &Run<'_>) -> Result<Judgement, Error> {
        Err(Error::new(ErrorKind::Other, "it is not to be asked"))
    }
}

#[test]
fn who_knows_the_tests_can_want_less_but_not_more() {
    let everything = Wants::new().attrs(["tag"]).facts(["model"]).rank().prefer().judge().notes();
    let less = Fickle(everything.clone(), Wants::new(), false);
    let more = Fickle(Wants::new().judge(), everything.clone().attrs(["x"]), false);
    let (mut chain, _) = chain(vec![Box::new(less), Box::new(more)]);
    assert_eq!(chain.shape().wants, [Wants::new().attrs(["tag"]).facts(["model"]), Wants::new().judge()]);
    assert!(chain.prefer(&question()).is_empty());
    assert_eq!(chain.judge(&finished()), Ruling::NONE);
    assert_eq!(kinds_of_faults(&chain), [(FaultKind::Call, 1)], "only the second policy was asked");
}

#[test]
fn a_failing_call_costs_one_opinion() {
    let tests: Vec<Queued> = (10..14).map(Queued::first).collect();
    for method in ["rank", "prefer", "judge", "note", "too few ranks", "too many wishes"] {
        let (mut chain, _) = chain(vec![Box::new(Broken(method)), Box::new(Reruns::new(0, false))]);
        let own = chain.rank(&[0], &tests).ranks == [Rank { class: 1, score: 7 }; 4];
        assert_eq!(own, !matches!(method, "rank" | "too few ranks"), "{method}");
        let wishes = chain.prefer(&question()).len();
        assert_eq!((wishes > 0, wishes < 100), (method != "prefer", true), "{method}");
        assert_eq!(chain.judge(&finished()).rerun.is_some(), method != "judge", "{method}");
        assert_eq!(chain.note(0, &Note::Gone { machine: 0 }).is_empty(), method == "note", "{method}");
        let fault = match method {
            "too few ranks" => FaultKind::RankCount,
            "too many wishes" => FaultKind::TooManyWishes,
            _ => FaultKind::Call,
        };
        assert!(chain.faults().any(|it| it.kind == fault && it.policy == 0), "{method}");
    }
}

#[test]
fn a_policy_that_could_not_register_is_left_out() {
    for method in ["register", "ready"] {
        let (mut chain, asked) = chain(vec![Box::new(Broken(method)), Box::new(Priority::new())]);
        assert_eq!(asked, []);
        let ranks = chain.rank(&[0], &[Queued::first(10)]).ranks;
        assert_eq!(ranks[0], Rank::default());
        assert_eq!(chain.prefer(&question()), []);
        assert_eq!(kinds_of_faults(&chain), [(FaultKind::Register, 1)]);
        assert!(chain.faults().all(|fault| fault.message.contains("broke")));
    }
}

#[test]
fn the_first_opinion_counts() {
    let (mut chain, _) = chain(vec![Box::new(Reruns::new(0, false)), Box::new(Broken(""))]);
    assert_eq!(chain.judge(&finished()).rerun, Some(true));
}

#[test]
fn only_policies_that_see_the_difference_are_asked_about_another_kind() {
    let tests = [Queued::first(10), Queued::first(11)];
    let (mut chain, _) = chain(vec![Box::new(Longest::new(true))]);
    chain.kind(&KindInfo { kind: 1, own: vec![0], news: vec![] });
    assert!(chain.rank(&[0, 1], &tests).differ.is_empty());
    let (mut chain, _) = chain2();
    chain.kind(&KindInfo { kind: 1, own: vec![1], news: vec![(0, 1, vec!["b".into()])] });
    assert_eq!(chain.rank(&[0, 1], &tests).differ, [1]);
}

/// A chain whose policy ranks every kind differently.
fn chain2() -> (Chain, Vec<(u16, Command)>) {
    chain(vec![Box::new(crate::core::testing::ByKind { from: 0, veto: false })])
}

#[test]
fn replay_keeps_what_still_holds() {
    let (mut chain, asked) = chain(vec![Box::new(Nonsense(5))]);
    let notes: Vec<(Ms, Note)> = (0..500).map(|now| (now, Note::Time { policy: 0 })).collect();
    let kept = chain.replay(asked, notes.iter().map(|(now, note)| (*now, note)));
    let wakes = kept.iter().filter(|(_, command)| matches!(command, Command::WakeAt(_))).count();
    assert_eq!(wakes, 1);
    assert!(!kept.iter().any(|(_, command)| matches!(command, Command::Rerank(_))));
}

/// Says everything twice, or about tests that it must not name.
struct Liar;

impl Policy for Liar {
    fn wants(&self) -> Wants {
        let mut wants = Wants::default();
        (wants.prefer, wants.judge, wants.notes) = (true, true, true);
        wants
    }
    fn prefer(&self, _machine: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<(), Error> {
        out.extend([
            Prefer::Test(2, 9),
            Prefer::Test(2, 9),
            Prefer::Test(2, 1),
            Prefer::Test(u32::MAX, 5),
            Prefer::Class(0, -1),
            Prefer::Class(0, 1),
        ]);
        Ok(())
    }
    fn judge(&self, run: &Run<'_>) -> Result<Judgement, Error> {
        // Whatever happens, once more.
        Ok(Judgement::rerun(run.attempt < u16::MAX))
    }
    fn note(&mut self, _now: Ms, note: &api::Note<'_>, out: &mut Vec<Command>) -> Result<(), Error> {
        if let api::Note::Started { test, .. } = note {
            // A test that runs, one that is done, one that is nobody's; all of it twice.
            for test in [*test, 0, u32::MAX, *test, 0, u32::MAX] {
                out.extend([Command::Rerank(test), Command::Skip(test, "mine".into())]);
            }
        }
        Ok(())
    }
}

/// The tests run in the host's own order, each as often as the host allows, whatever is said of them.
#[test]
fn a_policy_that_lies_changes_nothing_and_is_told_of() {
    use crate::core::config::Config;
    use crate::core::simulate::{Observer, Synthetic, World, simulate};
    use crate::core::testing;

    #[derive(Default)]
    struct Order(Vec<u32>);
    impl Observer for Order {
        fn action(&mut self, _now: Ms, action: &crate::core::event::Action) {
            if let crate::core::event::Action::Run { test, .. } = action {
                self.0.push(*test);
            }
        }
    }

    let tests = Synthetic { flaky: 0, failing: 0, ..Synthetic::new(20, 1) }.make();
    let mut ready = [testing::ready(vec![Box::new(Liar)], &tests, 0, 1)];
    let mut config = Config::simple(1, ready[0].chain.shape());
    config.limits.max_attempts = 3;
    let (plans, truths): (Vec<_>, Vec<_>) = tests.iter().map(|test| (test.plan, test.truth)).unzip();
    let mut order = Order::default();
    let outcomes = simulate(config, &plans, &truths, &mut ready, &World::default(), &mut order).unwrap();
    assert!(outcomes.done && outcomes.verdicts == 20);
    let runs = |test| order.0.iter().filter(|ran| **ran == test).count();
    assert!((0..20).all(|test| runs(test) <= 3), "{:?}", order.0);
    // The test that it wished for goes first, once; the others follow in their order.
    let mut first: Vec<u32> = vec![];
    for test in &order.0 {
        if !first.contains(test) {
            first.push(*test);
        }
    }
    assert_eq!(first[0], 2);
    assert!(first[1..].is_sorted(), "{first:?}");
    assert!(kinds_of_faults(&ready[0].chain).iter().any(|(kind, _)| *kind == FaultKind::UnknownTest));
}
