//! The conformance checks on provisioners that do something wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use atex_plugin_api::prelude::*;
use atex_plugin_api::testkit::{self, Check, Conformance, FakeHost, Outcome};

/// What it forgets to do.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
struct Config {
    /// Fails a reservation after the machine was made.
    fails_late: bool,
    /// Shows everybody's machines to everybody.
    tells_all: bool,
    /// Hands the same machine to everybody.
    one_for_all: bool,
}

struct Careless {
    config: Config,
    held: Mutex<BTreeMap<String, String>>,
}

impl Plugin for Careless {
    type Config = Config;
    fn new(config: Config, _: Host) -> Result<Self> {
        Ok(Self { config, held: Mutex::default() })
    }
}

impl Provisioner for Careless {
    fn reserve(&self, lease: &Lease, _: &Host) -> Result<Machine> {
        let id = if self.config.one_for_all { "the-one" } else { &lease.id };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), lease.mark());
        if self.config.fails_late {
            return Err(Error::new(ErrorKind::Unreachable, "it was there a moment ago"));
        }
        Ok(Machine::new(id, Transport::Local(LocalTransport::default())))
    }

    fn release(&self, machine: &str, _: &Host) -> Result<()> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
        Ok(())
    }

    fn list(&self, owner: &str, _: &Host) -> Result<Vec<Held>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            |mark: &str| self.config.tells_all || owner.is_empty() || mark.starts_with(&format!("{owner}/"));
        Ok(held.iter().filter(|(_, mark)| wanted(mark)).map(|(id, mark)| Held::new(id, mark)).collect())
    }
}

/// Names of the checks that failed, and what is held in the end.
fn failed(config: &str) -> (Vec<&'static str>, Vec<Held>) {
    let host = FakeHost::new();
    let careless = testkit::provisioner::<Careless>(config, &host.handle()).unwrap();
    let kit = Conformance::new(&careless, Careless::CAPABILITIES, &host);
    let checks = kit.run();
    assert!(kit.left().is_empty());
    let is_bad = |check: &&Check| matches!(check.outcome, Outcome::Failed(_));
    let names = checks.iter().filter(is_bad).map(|check| check.name).collect();
    (names, careless.list("", &host.handle()).unwrap())
}

#[test]
fn each_fault_fails_its_check_and_nothing_is_left() {
    let late = [
        "a machine is reserved",
        "a reservation that is given up at once leaves nothing",
        "a reservation that is given up on its way leaves nothing",
        "a call that is cancelled beforehand holds nothing",
        "a reservation whose time is over ends and leaves nothing",
        "a machine can be given up while it is held",
        "several machines at a time are different ones",
    ];
    let table: [(&str, &[&str]); 4] = [
        ("{}", &[]),
        (r#"{"fails-late": true}"#, &late),
        (r#"{"tells-all": true}"#, &["the list shows it to its owner and to nobody else"]),
        (r#"{"one-for-all": true}"#, &["several machines at a time are different ones"]),
    ];
    for (config, expected) in table {
        let (names, held) = failed(config);
        assert_eq!(names, expected, "{config}");
        assert_eq!(held, [], "{config}");
    }
}

#[test]
fn checks_that_are_stopped_only_tidy_up() {
    let host = FakeHost::new();
    let careless = testkit::provisioner::<Careless>("{}", &host.handle()).unwrap();
    let kit = Conformance::new(&careless, Careless::CAPABILITIES, &host);
    let stop = kit.stop();
    let mut told = Vec::new();
    let checks = kit.run_telling(|check| {
        told.push(check.name);
        stop.stop();
    });
    assert_eq!(told.len(), checks.len());
    let passed: Vec<&str> =
        checks.iter().filter(|check| check.outcome == Outcome::Passed).map(|check| check.name).collect();
    assert_eq!(passed, ["a machine is reserved", "nothing is left"]);
    assert_eq!(careless.list("", &host.handle()).unwrap(), []);
}

#[test]
fn the_number_of_machines_is_told_beforehand() {
    let host = FakeHost::new();
    let careless = testkit::provisioner::<Careless>("{}", &host.handle()).unwrap();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let kit = Conformance::new(&careless, Careless::CAPABILITIES, &host)
        .parallel(5)
        .leases(|| Ok(testkit::lease(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))));
    let announced = kit.machines();
    kit.run();
    drop(kit);
    // Some leases only serve to be given up, and one is asked for twice.
    assert!(asked.into_inner() <= announced, "{announced}");
}
