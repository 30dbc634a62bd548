//! Small scenes, event by event: each shows one rule.

use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::WHOLE_MACHINE;
use atex_plugin_api::policy::Wants;

use crate::core::config::{Config, Past, Platform, Pool, Resume, Served, Shape, TestPlan};
use crate::core::coordinator::Coordinator;
use crate::core::event::{
    Action, Command, Event, ExecutionId, LeaseId, Ms, Outcome, Rank, Refusal, Ruling, Shutdown, TestId,
    Trouble,
};
use crate::core::verdict::{Cause, Verdict};

/// A coordinator, driven by hand.
struct Drive {
    coordinator: Coordinator,
    now: Ms,
}

fn plan(expected: Ms) -> TestPlan {
    TestPlan { platform: 0, claim: 1, limit: 300_000, expected, past: Past::FRESH }
}

fn config(machines: u32) -> Config {
    Config::simple(machines, Shape::default())
}

impl Drive {
    fn new(config: Config, tests: &[TestPlan]) -> (Self, Vec<Action>) {
        let coordinator = Coordinator::new(config, tests).unwrap();
        let mut drive = Self { coordinator, now: 0 };
        let actions = drive.tell(Event::Tick);
        (drive, actions)
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = vec![];
        self.coordinator.step(self.now, event, &mut actions);
        actions.retain(|action| !matches!(action, Action::Note { .. } | Action::Kind { .. }));
        actions
    }

    /// Lets time pass to the next deadline.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.coordinator.next_deadline().expect("a deadline");
        self.tell(Event::Tick)
    }

    /// Lets time pass until something is done.
    fn wait_on(&mut self) -> Vec<Action> {
        for _ in 0..100 {
            let actions = self.wait();
            if !actions.is_empty() {
                return actions;
            }
        }
        panic!("nothing is ever done")
    }

    /// A reservation succeeds, and the machine is set up at once.
    fn up(&mut self, lease: LeaseId) -> Vec<Action> {
        self.up_until(lease, None)
    }

    fn up_until(&mut self, lease: LeaseId, expires: Option<Ms>) -> Vec<Action> {
        let mut actions = self.tell(Event::Reserved { lease, expires });
        actions.extend(self.tell(Event::SetUp { lease, setup: 1 }));
        actions
    }

    fn end(&mut self, execution: ExecutionId, outcome: Outcome) -> Vec<Action> {
        let status: Arc<str> = if outcome == Outcome::Passed { "pass".into() } else { "fail".into() };
        self.tell(Event::Finished { execution, outcome, exit: 0, status })
    }
}

fn reserved(actions: &[Action]) -> Vec<LeaseId> {
    let lease =
        |action: &Action| if let Action::Reserve { lease, .. } = action { Some(*lease) } else { None };
    actions.iter().filter_map(lease).collect()
}

fn runs(actions: &[Action]) -> Vec<(LeaseId, TestId, ExecutionId)> {
    let run = |action: &Action| match action {
        Action::Run { lease, test, execution, .. } => Some((*lease, *test, *execution)),
        _ => None,
    };
    actions.iter().filter_map(run).collect()
}

fn verdicts(actions: &[Action]) -> Vec<(TestId, Verdict)> {
    let verdict = |action: &Action| match action {
        Action::Verdict { test, verdict } => Some((*test, verdict.clone())),
        _ => None,
    };
    actions.iter().filter_map(verdict).collect()
}

fn released(actions: &[Action]) -> Vec<LeaseId> {
    let lease =
        |action: &Action| if let Action::Release { lease, .. } = action { Some(*lease) } else { None };
    actions.iter().filter_map(lease).collect()
}

fn aborted(actions: &[Action]) -> Vec<LeaseId> {
    let lease = |action: &Action| if let Action::Abort { lease } = action { Some(*lease) } else { None };
    actions.iter().filter_map(lease).collect()
}

fn troubles(actions: &[Action]) -> Vec<Trouble> {
    let trouble = |action: &Action| if let Action::Trouble(trouble) = action { Some(*trouble) } else { None };
    actions.iter().filter_map(trouble).collect()
}

fn is_done(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Done { .. }))
}

#[test]
fn the_usual_life_of_a_machine() {
    let (mut drive, actions) = Drive::new(config(1), &[plan(0), plan(0)]);
    assert_eq!(reserved(&actions), [0]);
    assert_eq!(runs(&drive.up(0)), [(0, 0, 0)]);
    let actions = drive.end(0, Outcome::Passed);
    assert_eq!(verdicts(&actions).len(), 1);
    assert_eq!(runs(&actions), [(0, 1, 1)]);
    let actions = drive.end(1, Outcome::Failed);
    assert_eq!(released(&actions), [0]);
    assert!(!is_done(&actions));
    assert!(is_done(&drive.tell(Event::Released { lease: 0 })));
    assert!(drive.tell(Event::Tick).is_empty(), "something after the end");
}

#[test]
fn without_tests_it_ends_at_once() {
    let (_, actions) = Drive::new(config(1), &[]);
    assert!(is_done(&actions) && actions.len() == 1);
}

#[test]
fn an_overdue_reservation_is_aborted_then_in_doubt_and_keeps_its_place() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    let actions = drive.wait();
    assert_eq!((aborted(&actions), reserved(&actions)), (vec![0], vec![]));
    let mut actions = drive.wait();
    while !actions.iter().any(|action| matches!(action, Action::Confirm { lease: 0 })) {
        assert!(reserved(&actions).is_empty(), "the place may still be taken");
        actions = drive.wait();
    }
    assert_eq!(troubles(&actions), [Trouble::LeaseUncertain { lease: 0 }]);
    assert_eq!(reserved(&drive.tell(Event::Absent { lease: 0 })), [1]);
}

#[test]
fn without_confirmation_there_is_no_machine() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    let mut actions = vec![];
    for _ in 0..10 {
        if is_done(&actions) {
            break;
        }
        actions.extend(drive.wait());
    }
    assert_eq!(verdicts(&actions), [(0, Verdict::NotRun(Cause::NoMachine))]);
    assert!(matches!(actions.last(), Some(Action::Done { uncertain: 1 })));
}

#[test]
fn a_machine_that_comes_after_all_is_given_back() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    assert_eq!(aborted(&drive.wait()), [0]);
    drive.tell(Event::ReserveFailed { lease: 0, refusal: Refusal::Failed, certain: true });
    let actions = drive.tell(Event::Reserved { lease: 0, expires: None });
    assert_eq!(released(&actions), [0]);
    assert!(released(&drive.tell(Event::Reserved { lease: 0, expires: None })).is_empty());
    drive.tell(Event::Released { lease: 0 });
    assert!(released(&drive.tell(Event::Reserved { lease: 0, expires: None })).is_empty());
}

#[test]
fn a_pool_that_refuses_for_good_is_given_up_at_once() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    let actions = drive.tell(Event::ReserveFailed { lease: 0, refusal: Refusal::Final, certain: true });
    assert_eq!(troubles(&actions), [Trouble::PoolGivenUp { pool: 0 }]);
    assert_eq!(verdicts(&actions), [(0, Verdict::NotRun(Cause::NoMachine))]);
    assert!(is_done(&actions));
}

#[test]
fn failures_are_tried_again_with_growing_pauses_up_to_the_limit() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    let (mut lease, mut pauses, mut actions) = (0, vec![], vec![]);
    while !is_done(&actions) {
        let asked = drive.now;
        drive.now += 1;
        actions = drive.tell(Event::ReserveFailed { lease, refusal: Refusal::Failed, certain: true });
        while !is_done(&actions) && reserved(&actions).is_empty() {
            actions = drive.wait();
        }
        lease += 1;
        pauses.push(drive.now - asked);
    }
    assert_eq!(pauses.len(), 11, "{pauses:?}");
    assert!(pauses[8] > 8 * pauses[0] && pauses.iter().all(|&pause| pause < 1_000_000), "{pauses:?}");
}

#[test]
fn a_busy_pool_is_asked_for_as_long_as_a_reservation_may_take() {
    let mut busy = config(1);
    busy.pools[0].reserve_time = 3_600_000;
    let (mut drive, mut actions) = Drive::new(busy, &[plan(0)]);
    let mut tries = 0;
    while !is_done(&actions) {
        if let Some(&lease) = reserved(&actions).first() {
            tries += 1;
            actions = drive.tell(Event::ReserveFailed { lease, refusal: Refusal::Busy, certain: true });
        } else {
            actions = drive.wait();
        }
    }
    assert!(tries > 5 && drive.now > 3_600_000 && drive.now < 5_000_000, "{tries} tries in {} ms", drive.now);
}

#[test]
fn set_ups_that_fail_in_a_row_give_the_platform_up() {
    let (mut drive, mut actions) = Drive::new(config(1), &[plan(0)]);
    let mut machines = 0;
    while let Some(&lease) = reserved(&actions).first() {
        machines += 1;
        drive.tell(Event::Reserved { lease, expires: None });
        assert_eq!(released(&drive.tell(Event::SetupFailed { lease, setup: 1, lost: false })), [lease]);
        actions = drive.tell(Event::Released { lease });
    }
    assert_eq!(machines, 11);
    assert!(is_done(&actions));
}

#[test]
fn a_lost_machine_costs_no_rerun_up_to_the_limit() {
    let (mut drive, mut actions) = Drive::new(config(1), &[plan(0)]);
    for lost in 0..3u8 {
        let lease = reserved(&actions)[0];
        assert_eq!(runs(&drive.up(lease)), [(lease, 0, u64::from(lost))]);
        actions = drive.tell(Event::Lost { lease });
        assert_eq!(released(&actions), [lease]);
        let ended = verdicts(&actions);
        actions = drive.tell(Event::Released { lease });
        assert_eq!(ended.len(), usize::from(lost == 2));
        assert!(ended.iter().all(|(_, verdict)| *verdict == Verdict::NotRun(Cause::MachineLost)));
    }
    assert!(is_done(&actions));
}

#[test]
fn a_silent_machine_is_taken_for_dead() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    drive.up(0);
    drive.tell(Event::Extended { execution: 0, until: Some(1_000_000) });
    let actions = drive.wait();
    assert!(released(&actions).is_empty(), "its limit had been extended");
    let actions = drive.wait();
    assert_eq!((troubles(&actions), drive.now), (vec![Trouble::MachineSilent { lease: 0 }], 1_120_000));
    assert_eq!(released(&actions), [0]);
}

/// One machine of a pool that renews leases or does not, early enough for what is told by `lead`.
fn lent(renews: bool, lead: Ms) -> Config {
    let mut lent = config(1);
    lent.pools[0].renews = renews;
    lent.limits.renew_lead = lead;
    lent
}

fn renewals(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Renew { .. })).count()
}

#[test]
fn without_renewal_nothing_is_started_that_cannot_end_in_time() {
    let (mut drive, _) = Drive::new(lent(false, 0), &[plan(0), plan(0)]);
    assert_eq!(runs(&drive.up_until(0, Some(400_000))), [(0, 0, 0)]);
    drive.now = 200_000;
    let actions = drive.end(0, Outcome::Passed);
    assert_eq!((runs(&actions), released(&actions), renewals(&actions)), (vec![], vec![0], 0));
    assert_eq!(reserved(&drive.tell(Event::Released { lease: 0 })), [1], "it is replaced");
    // A fresh one with too little time: no other would do better.
    assert_eq!(runs(&drive.up_until(1, Some(250_000))), [(1, 1, 1)]);
}

#[test]
fn a_lease_is_renewed_first_if_a_test_would_outlast_it() {
    let (mut drive, _) = Drive::new(lent(true, 0), &[plan(0), plan(0), plan(0)]);
    assert_eq!(runs(&drive.up_until(0, Some(400_000))), [(0, 0, 0)]);
    drive.now = 200_000;
    let actions = drive.end(0, Outcome::Passed);
    assert_eq!((runs(&actions), renewals(&actions)), (vec![], 1));
    // Renewals work, so what the machine has is not its end.
    assert_eq!(runs(&drive.tell(Event::Renewed { lease: 0, expires: Some(410_000) })), [(0, 1, 1)]);
    drive.now = 390_000;
    assert_eq!(runs(&drive.end(1, Outcome::Passed)), [(0, 2, 2)]);
}

#[test]
fn a_machine_that_is_not_kept_longer_is_replaced() {
    let (mut drive, _) = Drive::new(lent(true, 0), &[plan(0), plan(0)]);
    drive.up_until(0, Some(400_000));
    drive.now = 200_000;
    drive.end(0, Outcome::Passed);
    let actions = drive.tell(Event::RenewFailed { lease: 0, again: false });
    assert_eq!((runs(&actions), released(&actions)), (vec![], vec![0]));
    assert_eq!(reserved(&drive.tell(Event::Released { lease: 0 })), [1]);
}

#[test]
fn a_renewal_that_gains_nothing_is_the_last_one() {
    let (mut drive, _) = Drive::new(lent(true, 0), &[plan(0), plan(0)]);
    drive.up_until(0, Some(400_000));
    drive.now = 200_000;
    assert_eq!(renewals(&drive.end(0, Outcome::Passed)), 1);
    let actions = drive.tell(Event::Renewed { lease: 0, expires: Some(400_000) });
    assert_eq!((released(&actions), renewals(&actions)), (vec![0], 0));
}

#[test]
fn a_lease_is_renewed_before_it_expires() {
    let (mut drive, _) = Drive::new(lent(true, 50_000), &[plan(0)]);
    drive.up_until(0, Some(310_000));
    let actions = drive.wait_on();
    assert!(matches!(actions[..], [Action::Renew { lease: 0 }]) && drive.now == 260_000, "{actions:?}");
}

#[test]
fn a_short_lease_is_renewed_at_half_of_its_time_and_not_all_the_time() {
    let (mut drive, _) = Drive::new(lent(true, 900_000), &[plan(0)]);
    drive.up_until(0, Some(310_000));
    drive.tell(Event::Extended { execution: 0, until: None });
    let mut times = vec![];
    for _ in 0..5 {
        assert_eq!(renewals(&drive.wait_on()), 1);
        times.push(drive.now);
        let expires = Some(drive.now + 310_000);
        assert_eq!(renewals(&drive.tell(Event::Renewed { lease: 0, expires })), 0);
    }
    assert_eq!(times, [155_000, 310_000, 465_000, 620_000, 775_000]);
}

#[test]
fn a_renewal_that_failed_is_tried_again_as_long_as_there_is_time() {
    let (mut drive, _) = Drive::new(lent(true, 400_000), &[plan(1_000), plan(0)]);
    drive.up_until(0, Some(800_000));
    drive.tell(Event::Extended { execution: 0, until: None });
    let mut tries = vec![];
    while renewals(&drive.wait_on()) == 1 {
        tries.push(drive.now);
        drive.tell(Event::RenewFailed { lease: 0, again: true });
        if tries.len() > 3 {
            break;
        }
    }
    assert_eq!(tries, [400_000, 600_000, 700_000, 750_000]);
    // What cannot end in time is not started meanwhile.
    let actions = drive.end(0, Outcome::Passed);
    assert_eq!((runs(&actions), released(&actions)), (vec![], vec![0]));
}

#[test]
fn a_renewal_without_an_answer_has_failed() {
    let (mut drive, _) = Drive::new(lent(true, 50_000), &[plan(0)]);
    drive.up_until(0, Some(310_000));
    drive.tell(Event::Extended { execution: 0, until: None });
    assert_eq!(renewals(&drive.wait_on()), 1);
    // Too late for another one; a late answer changes nothing.
    drive.now += 75_000;
    assert!(drive.tell(Event::Tick).is_empty());
    assert!(drive.tell(Event::Renewed { lease: 0, expires: None }).is_empty());
    assert_eq!(released(&drive.end(0, Outcome::Passed)), [0]);
}

#[test]
fn a_spare_machine_is_replaced_before_its_end() {
    let mut two = lent(false, 0);
    (two.pools[0].max, two.spares) = (2, 1);
    let (mut drive, actions) = Drive::new(two, &[plan(0)]);
    assert_eq!(reserved(&actions), [0, 1]);
    drive.up_until(0, None);
    drive.tell(Event::Extended { execution: 0, until: None });
    // It is up to the very end of its time what a fresh machine is good for.
    assert!(runs(&drive.up_until(1, Some(400_000))).is_empty());
    assert_eq!((released(&drive.wait_on()), drive.now), (vec![1], 400_000));
    assert_eq!(reserved(&drive.tell(Event::Released { lease: 1 })), [2]);
}

#[test]
fn a_set_up_that_took_all_the_time_there_was_has_failed() {
    let (mut drive, _) = Drive::new(lent(false, 0), &[plan(0)]);
    drive.tell(Event::Reserved { lease: 0, expires: Some(10_000) });
    drive.now = 10_000;
    assert_eq!(released(&drive.tell(Event::SetUp { lease: 0, setup: 1 })), [0]);
}

/// A pool whose provisioner can be asked after machines.
fn telling() -> Config {
    let mut telling = config(1);
    telling.pools[0].probes = true;
    telling
}

fn probed(actions: &[Action]) -> Vec<LeaseId> {
    let lease = |action: &Action| if let Action::Probe { lease } = action { Some(*lease) } else { None };
    actions.iter().filter_map(lease).collect()
}

#[test]
fn a_lost_machine_is_asked_after_before_it_is_given_back() {
    for answer in [Some(Some(true)), Some(Some(false)), Some(None), None] {
        let (mut drive, _) = Drive::new(telling(), &[plan(0)]);
        drive.up(0);
        let actions = drive.tell(Event::RunLost { execution: 0 });
        assert_eq!((probed(&actions), released(&actions)), (vec![0], vec![]));
        assert!(drive.tell(Event::Lost { lease: 0 }).is_empty(), "known already");
        assert!(drive.tell(Event::Released { lease: 0 }).is_empty(), "nobody asked for that");
        let actions = match answer {
            Some(alive) => drive.tell(Event::Probed { lease: 0, alive }),
            None => drive.wait_on(),
        };
        assert_eq!((released(&actions), drive.now), (vec![0], if answer.is_some() { 0 } else { 75_000 }));
        assert!(drive.tell(Event::Probed { lease: 0, alive: None }).is_empty(), "once");
        // Its test runs elsewhere.
        assert_eq!(reserved(&drive.tell(Event::Released { lease: 0 })), [1]);
    }
}

#[test]
fn a_machine_that_cannot_be_reached_is_asked_after_too() {
    let (mut drive, _) = Drive::new(telling(), &[plan(0)]);
    drive.tell(Event::Reserved { lease: 0, expires: None });
    let actions = drive.tell(Event::SetupFailed { lease: 0, setup: 1, lost: true });
    assert_eq!((probed(&actions), released(&actions)), (vec![0], vec![]));
}

#[test]
fn nobody_in_a_hurry_asks_after_machines() {
    let release = || Event::Stop { level: Shutdown::Release, cause: Cause::Signal { signal: 2 } };
    let (mut drive, _) = Drive::new(telling(), &[plan(0)]);
    drive.up(0);
    assert_eq!(probed(&drive.tell(Event::Lost { lease: 0 })), [0]);
    assert_eq!(released(&drive.tell(release())), [0], "not even for the answer");
}

#[test]
fn a_machine_that_is_gone_while_it_reboots_is_not_waited_for() {
    let (mut drive, _) = Drive::new(telling(), &[plan(0)]);
    drive.up(0);
    drive.tell(Event::Extended { execution: 0, until: None });
    drive.tell(Event::Away { lease: 0 });
    assert_eq!((probed(&drive.wait_on()), drive.now), (vec![0], 180_000));
    assert!(drive.tell(Event::Probed { lease: 0, alive: Some(true) }).is_empty());
    assert_eq!((probed(&drive.wait_on()), drive.now), (vec![0], 360_000));
    let actions = drive.tell(Event::Probed { lease: 0, alive: Some(false) });
    assert_eq!((released(&actions), probed(&actions)), (vec![0], vec![]));
}

#[test]
fn a_machine_that_came_back_is_not_asked_after() {
    let (mut drive, _) = Drive::new(telling(), &[plan(0)]);
    drive.up(0);
    drive.tell(Event::Away { lease: 0 });
    drive.tell(Event::Back { lease: 0 });
    assert_eq!(troubles(&drive.wait_on()), [Trouble::MachineSilent { lease: 0 }]);
}

#[test]
fn machines_that_die_of_their_set_up_give_the_platform_up() {
    let (mut drive, mut actions) = Drive::new(config(1), &[plan(0)]);
    let mut machines = 0;
    while let Some(&lease) = reserved(&actions).first() {
        machines += 1;
        assert!(machines < 50, "no end of machines");
        drive.tell(Event::Reserved { lease, expires: None });
        drive.tell(Event::Lost { lease });
        actions = drive.tell(Event::Released { lease });
    }
    assert_eq!(machines, 11);
    assert!(is_done(&actions));
}

#[test]
fn spares_are_kept_as_long_as_any_test_is_open() {
    let mut spare = config(5);
    spare.spares = 2;
    let (mut drive, actions) = Drive::new(spare, &[plan(0)]);
    assert_eq!(reserved(&actions), [0, 1, 2]);
    assert_eq!(runs(&drive.up(0)), [(0, 0, 0)]);
    drive.up(1);
    drive.up(2);
    // One of them takes over at once when the machine that works is lost, and is replaced.
    let actions = drive.tell(Event::Lost { lease: 0 });
    assert_eq!((runs(&actions).len(), reserved(&actions).len()), (1, 1), "{actions:?}");
    let (lease, _, execution) = runs(&actions)[0];
    assert!(lease == 1 || lease == 2);
    let actions = drive.end(execution, Outcome::Passed);
    assert_eq!(released(&actions).len() + aborted(&actions).len(), 3, "nobody needs them any more");
}

#[test]
fn no_more_machines_over_all_than_allowed() {
    let mut two = config(3);
    two.pools.push(Pool::new(3, 1));
    two.max_machines = 4;
    let (mut drive, actions) = Drive::new(two, &[plan(0); 20]);
    assert_eq!(reserved(&actions).len(), 4);
    drive.up(0);
    let actions = drive.tell(Event::Lost { lease: 0 });
    assert!(reserved(&actions).is_empty(), "it is still held");
    assert_eq!(reserved(&drive.tell(Event::Released { lease: 0 })), [4]);
}

#[test]
fn back_offs_have_jitter_that_comes_from_the_seed() {
    let pause = |seed| {
        let mut seeded = config(1);
        seeded.seed = seed;
        let (mut drive, _) = Drive::new(seeded, &[plan(0)]);
        drive.tell(Event::ReserveFailed { lease: 0, refusal: Refusal::Failed, certain: true });
        while reserved(&drive.wait()).is_empty() {}
        drive.now
    };
    let pauses: std::collections::BTreeSet<Ms> = (0..20).map(pause).collect();
    assert!(pauses.len() > 10, "{pauses:?}");
    assert!(pauses.iter().all(|pause| (2_500..7_500).contains(pause)), "{pauses:?}");
    assert_eq!(pause(3), pause(3));
}

#[test]
fn a_stop_names_who_wanted_it() {
    let mut named = asking();
    named.chains[0].names = vec!["fail-fast".into()];
    let judged = |ruling| {
        let (mut drive, _) = Drive::new(named.clone(), &[plan(0); 2]);
        drive.up(0);
        drive.wait();
        // They are back.
        drive.tell(Event::Preferred { lease: 0, ask: 1, wishes: vec![] });
        drive.end(0, Outcome::Failed);
        drive.tell(Event::Judged { execution: 0, ruling })
    };
    let ended = verdicts(&judged(Ruling { stop: Some(0), ..Ruling::NONE }));
    let text = ended.iter().find_map(|(_, verdict)| verdict.cause()).unwrap().to_string();
    assert_eq!(text, "run stopped by policy fail-fast: that is how it judged a run");

    let (mut drive, _) = Drive::new(config(1), &[plan(0); 2]);
    drive.up(0);
    let cause = Cause::TestAborted { test: 0, name: "/a".into() };
    let actions = drive.tell(Event::Stop { level: Shutdown::Finish, cause: cause.clone() });
    assert_eq!(verdicts(&actions), [(1, Verdict::NotRun(cause))]);
}

#[test]
fn a_machine_runs_empty_for_a_wide_test_and_only_one_does() {
    let mut slots = config(2);
    slots.pools[0].slots = 2;
    // The wide one comes third; behind it there is no end of narrow ones.
    let mut tests = vec![plan(0); 40];
    tests[3].claim = WHOLE_MACHINE;
    let (mut drive, _) = Drive::new(slots, &tests);
    assert_eq!(runs(&drive.up(0)).len(), 2);
    assert_eq!(runs(&drive.up(1)).len(), 1, "one slot is kept for the wide test");
    // The other machine goes on.
    assert_eq!(runs(&drive.end(0, Outcome::Passed)), [(0, 4, 3)]);
    let actions = drive.end(2, Outcome::Passed);
    assert_eq!(runs(&actions), [(1, 3, 4)], "the machine is empty now");
}

#[test]
fn an_idle_machine_is_handed_over_to_a_platform_of_its_flavour_only() {
    let two = |flavour| {
        let mut two = config(1);
        two.platforms = vec![Platform { chain: 0 }; 2];
        two.pools[0].serves = vec![Served { platform: 0, flavour: 0 }, Served { platform: 1, flavour }];
        let other = TestPlan { platform: 1, ..plan(0) };
        let (mut drive, _) = Drive::new(two, &[plan(0), other]);
        drive.up(0);
        drive.end(0, Outcome::Passed)
    };
    let actions = two(0);
    let handed = |action: &Action| matches!(action, Action::Setup { lease: 0, platform: 1, setup: 2 });
    assert!(actions.iter().any(handed) && released(&actions).is_empty(), "{actions:?}");
    assert_eq!(released(&two(1)), [0]);
}

#[test]
fn no_more_machines_than_the_work_left_is_worth() {
    // A hundred tests of a second each; a machine takes ten minutes to come up.
    let mut slow = config(100);
    slow.pools[0].startup = 600_000;
    let (_, actions) = Drive::new(slow.clone(), &[plan(1_000); 100]);
    assert_eq!(reserved(&actions).len(), 1);
    let (_, actions) = Drive::new(slow, &[plan(600_000); 100]);
    assert_eq!(reserved(&actions).len(), 100);
}

#[test]
fn reservations_that_are_not_needed_any_more_are_aborted() {
    let (mut drive, actions) = Drive::new(config(3), &[plan(1_000); 3]);
    assert_eq!(reserved(&actions), [0, 1, 2]);
    drive.up(0);
    assert_eq!(aborted(&drive.end(0, Outcome::Passed)), [2]);
    assert_eq!(aborted(&drive.end(1, Outcome::Passed)), [1]);
}

#[test]
fn a_machine_on_which_everything_fails_is_put_aside() {
    let mut strict = config(2);
    strict.limits.fails_in_a_row = 3;
    let (mut drive, _) = Drive::new(strict, &[plan(0); 20]);
    drive.up(0);
    drive.up(1);
    for round in 0..3 {
        let bad = drive.end(2 * round, Outcome::Failed);
        let put_aside = troubles(&bad) == [Trouble::MachinePutAside { lease: 0 }];
        assert_eq!((put_aside, released(&bad).len()), (round == 2, usize::from(round == 2)), "round {round}");
        drive.end(2 * round + 1, Outcome::Passed);
    }
}

#[test]
fn a_first_signal_collects_a_second_does_not_wait_a_third_leaves() {
    let (mut drive, _) = Drive::new(config(3), &[plan(0); 5]);
    drive.up(0);
    drive.up(1);
    let actions = drive.tell(Event::Stop { level: Shutdown::Finish, cause: Cause::Signal { signal: 2 } });
    assert_eq!(verdicts(&actions).len(), 3, "what waits gets its verdict");
    assert_eq!((aborted(&actions), released(&actions)), (vec![2], vec![]));
    let cancels = actions.iter().filter(|action| matches!(action, Action::Cancel { .. })).count();
    assert_eq!(cancels, 2);
    let actions = drive.tell(Event::Cancelled { execution: 0 });
    assert_eq!(verdicts(&actions), [(0, Verdict::NotRun(Cause::Signal { signal: 2 }))]);
    assert_eq!(released(&actions), [0]);
    let actions = drive.tell(Event::Stop { level: Shutdown::Release, cause: Cause::Signal { signal: 15 } });
    assert_eq!((verdicts(&actions).len(), released(&actions)), (1, vec![1]));
    assert!(!is_done(&actions));
    let actions = drive.tell(Event::Stop { level: Shutdown::Leave, cause: Cause::Signal { signal: 15 } });
    assert!(matches!(actions[..], [Action::Done { uncertain: 3 }]), "{actions:?}");
}

#[test]
fn a_test_that_ended_before_it_was_cancelled_keeps_its_result() {
    let (mut drive, _) = Drive::new(config(1), &[plan(0)]);
    drive.up(0);
    drive.tell(Event::Stop { level: Shutdown::Finish, cause: Cause::Signal { signal: 2 } });
    let actions = drive.end(0, Outcome::Passed);
    assert!(verdicts(&actions)[0].1.passed());
    assert_eq!(released(&actions), [0]);
}

#[test]
fn enough_failures_drain_the_run() {
    let mut strict = config(2);
    strict.max_fail = Some(1);
    let (mut drive, _) = Drive::new(strict, &[plan(0); 4]);
    drive.up(0);
    drive.up(1);
    let actions = drive.end(0, Outcome::Failed);
    let causes: Vec<_> =
        verdicts(&actions).iter().filter_map(|(_, verdict)| verdict.cause().cloned()).collect();
    assert_eq!(causes, [Cause::MaxFail, Cause::MaxFail]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Cancel { .. })), "what runs may finish");
    assert!(verdicts(&drive.end(1, Outcome::Passed))[0].1.passed());
}

fn asking() -> Config {
    let mut wants = Wants::default();
    (wants.rank, wants.prefer, wants.judge) = (true, true, true);
    Config::simple(1, Shape { wants: vec![wants], ..Shape::default() })
}

#[test]
fn policies_that_do_not_answer_cost_their_opinion_only() {
    let (mut drive, _) = Drive::new(asking(), &[plan(0); 3]);
    let actions = drive.up(0);
    assert!(actions.iter().any(|action| matches!(action, Action::Rank { .. })));
    assert!(runs(&actions).is_empty());
    let actions = drive.wait();
    assert_eq!((troubles(&actions), drive.now), (vec![Trouble::PoliciesSilent { chain: 0 }], 5_000));
    assert_eq!(runs(&actions), [(0, 0, 0)], "in the host's own order");
    // They are not asked again as long as they are silent.
    let actions = drive.end(0, Outcome::Failed);
    assert_eq!(runs(&actions), [(0, 1, 1)]);
    // A late answer shows that they are back.
    drive.tell(Event::Preferred { lease: 0, ask: 1, wishes: vec![] });
    let actions = drive.end(1, Outcome::Passed);
    assert!(matches!(actions[..], [Action::Judge { execution: 1, .. }]), "{actions:?}");
}

#[test]
fn kinds_that_rank_alike_share_a_queue_until_they_do_not() {
    let mut wants = Wants::default();
    (wants.rank, wants.facts) = (true, vec!["model".into()]);
    let mut two = Config::simple(2, Shape { wants: vec![wants], ..Shape::default() });
    two.limits.lost_machine_reruns = 9;
    let (mut drive, _) = Drive::new(two, &[plan(0); 4]);
    let ask_of = |drive: &mut Drive, lease: LeaseId, model: &str| {
        drive.tell(Event::Reserved { lease, expires: None });
        let facts = Arc::new(Facts::from([("model".to_owned(), model.to_owned())]));
        let actions = drive.tell(Event::Identified { lease, facts });
        let Some(Action::Rank { ask, tests, kinds, .. }) = actions.first() else { panic!("{actions:?}") };
        assert_eq!(kinds.len(), 1);
        let ranks = vec![Rank::default(); tests.len()];
        drive.tell(Event::Ranked { ask: *ask, ranks, differ: vec![] });
        drive.tell(Event::SetUp { lease, setup: 1 })
    };
    assert_eq!(runs(&ask_of(&mut drive, 0, "a")).len(), 1);
    assert_eq!(runs(&ask_of(&mut drive, 1, "b")).len(), 1);
    // Now both kinds are asked about at once, and differ.
    let actions = drive.tell(Event::RunLost { execution: 0 });
    let Some(Action::Rank { ask, kinds, .. }) =
        actions.iter().find(|action| matches!(action, Action::Rank { .. }))
    else {
        panic!("{actions:?}")
    };
    assert_eq!(kinds[..], [0, 1]);
    let actions = drive.tell(Event::Ranked { ask: *ask, ranks: vec![Rank::default()], differ: vec![1] });
    let Some(Action::Rank { kinds, tests, .. }) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((kinds[..].to_vec(), tests.len()), (vec![1], 3));
}

#[test]
fn a_policy_has_one_wake_up() {
    let mut wants = Wants::default();
    wants.notes = true;
    let (mut drive, _) =
        Drive::new(Config::simple(1, Shape { wants: vec![wants], ..Shape::default() }), &[plan(0)]);
    for at in [9_000, 5_000, 7_000] {
        drive.tell(Event::Commands { chain: 0, commands: vec![(0, Command::WakeAt(at))] });
    }
    let mut woken = vec![];
    while drive.now < 20_000 {
        drive.now = drive.coordinator.next_deadline().unwrap();
        let mut actions = vec![];
        drive.coordinator.step(drive.now, Event::Tick, &mut actions);
        woken.extend(actions.iter().any(|action| matches!(action, Action::Note { .. })).then_some(drive.now));
    }
    assert_eq!(woken, [7_000]);
}

#[test]
fn a_resumed_run_goes_on_counting() {
    let mut resumed = config(2);
    resumed.resume = Resume { first_lease: 40, first_execution: 90, failed: 0 };
    let done = TestPlan { past: Past::Done, ..plan(0) };
    let again = TestPlan { past: Past::Open { attempt: 1, last_machine: 3 }, ..plan(0) };
    let (mut drive, actions) = Drive::new(resumed, &[done, again]);
    assert_eq!(reserved(&actions), [40]);
    let actions = drive.up(40);
    let run = actions.iter().find(|action| matches!(action, Action::Run { .. }));
    assert!(matches!(run, Some(Action::Run { execution: 90, test: 1, attempt: 1, .. })), "{run:?}");
    drive.end(90, Outcome::Passed);
    assert!(is_done(&drive.tell(Event::Released { lease: 40 })));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let no_slots = {
        let mut no_slots = config(1);
        no_slots.pools[0].slots = 0;
        no_slots
    };
    let unknown = {
        let mut unknown = config(1);
        unknown.pools.push(Pool::new(1, 2));
        unknown
    };
    let other = TestPlan { platform: 1, ..plan(0) };
    let mut two = config(1);
    two.platforms.push(Platform { chain: 0 });
    assert!(Coordinator::new(no_slots, &[]).is_err());
    assert!(Coordinator::new(unknown, &[]).is_err());
    assert!(Coordinator::new(config(1), &[other]).is_err());
    assert!(Coordinator::new(two.clone(), &[plan(0), other, plan(0)]).is_err());
    two.platforms[1].chain = 7;
    assert!(Coordinator::new(two, &[plan(0), other]).is_err());
}
