//! Every method of every kind of plugin, in every way it can go wrong: the caller gets an error that names the plugin.

use std::path::Path;
use std::time::Duration;

use atex_host::plugin::{Call, PluginError, Provisioner, Registry, ReportEvent, Search};
use atex_plugin_api::policy::{Outcome, Policy, Queued, Run, RunInfo, TestInfo, View};
use atex_plugin_api::reporter::{Finished, MachineEvent, RunEnded, RunStarted, TestEvent};
use atex_plugin_api::{Error, ErrorKind, Lease, Result};
use serde_json::{Value, json};

use crate::built;

const TEXTS: [(&str, &str, ErrorKind); 4] = [
    ("panic", "panicked: a deliberate panic in METHOD", ErrorKind::Panic),
    ("display", "panicked: a deliberate panic in Display", ErrorKind::Panic),
    ("error", "a deliberate error in METHOD", ErrorKind::Other),
    ("denied", "a deliberate refusal in METHOD", ErrorKind::Denied),
];

fn registry(state: &Path) -> Registry {
    let search = Search { libraries: vec![built::faulty().to_owned()], ..Search::default() };
    Registry::open(search, state).unwrap()
}

fn fault(fault: &str, method: &str) -> Value {
    json!({"fault": fault, "in": method})
}

fn check(error: &Error, text: &str, kind: ErrorKind, method: &str) {
    assert_eq!(error.to_string(), text.replace("METHOD", method));
    assert_eq!(error.kind(), kind);
    if kind == ErrorKind::Panic {
        assert!(error.detail().contains("tests/plugins/faulty/src/"), "{}", error.detail());
    }
}

fn lease() -> Lease {
    Lease::new("a1", "run", "owner")
}

/// Calls one method by its name; the rest of the plugin works.
fn call_provisioner(plugin: &Provisioner, method: &str) -> Result<(), atex_host::plugin::CallError> {
    let call = Call::default();
    match method {
        "reserve" => plugin.reserve(&lease(), &call).map(|_| ()),
        "release" => plugin.release("a1", &call),
        "abort" => plugin.abort("a1", &call),
        "alive" => plugin.alive("a1", &call).map(|_| ()),
        "list" => plugin.list("owner", &call).map(|_| ()),
        "renew" => plugin.renew("a1", Duration::from_secs(1), &call).map(|_| ()),
        "reboot" => plugin.reboot("a1", &call),
        "capacity" => plugin.capacity(&call).map(|_| ()),
        other => panic!("{other}"),
    }
}

const PROVISIONER: [&str; 8] =
    ["reserve", "release", "abort", "alive", "list", "renew", "reboot", "capacity"];

#[test]
fn provisioners() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    for method in PROVISIONER {
        for (name, text, kind) in TEXTS {
            let plugin = registry.provisioner("faulty", "pool", &fault(name, method)).unwrap();
            let error = call_provisioner(&plugin, method).unwrap_err();
            assert!(error.to_string().starts_with("provisioner `pool`: cannot "), "{error}");
            check(&error.error, text, kind, method);
            for other in PROVISIONER.into_iter().filter(|other| *other != method) {
                call_provisioner(&plugin, other).unwrap();
            }
        }
    }
}

#[test]
fn nonsense_of_provisioners() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    let error = |method| {
        let plugin = registry.provisioner("faulty", "pool", &fault("nonsense", method)).unwrap();
        let error = call_provisioner(&plugin, method).unwrap_err();
        assert!(!error.error.is_retryable());
        error.to_string()
    };
    assert!(error("reserve").ends_with("the machine's id is longer than 256 bytes"));
    assert!(error("list").ends_with("the machine's id is empty"));
}

#[test]
fn a_fault_that_goes_away() {
    let state = tempfile::tempdir().unwrap();
    let config = json!({"fault": "error", "in": "reserve", "times": 2});
    let plugin = registry(state.path()).provisioner("faulty", "pool", &config).unwrap();
    let works: Vec<bool> = (0..3).map(|_| plugin.reserve(&lease(), &Call::default()).is_ok()).collect();
    assert_eq!(works, [false, false, true]);
}

#[test]
fn a_blocked_call_hurts_no_other() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    for method in PROVISIONER {
        let plugin = registry.provisioner("faulty", "pool", &fault("block", method)).unwrap();
        let blocked = std::thread::Builder::new().name(format!("blocked {method}")).spawn({
            let plugin = plugin.clone();
            move || call_provisioner(&plugin, method)
        });
        let blocked = blocked.unwrap();
        for other in PROVISIONER.into_iter().filter(|other| *other != method) {
            call_provisioner(&plugin, other).unwrap();
        }
        assert!(!blocked.is_finished());
        // The thread is left behind, as the host leaves it.
    }
}

fn call_policy(policy: &mut impl Policy, method: &str) -> Result<()> {
    let (mut commands, mut ranks, mut wishes) = (vec![], vec![], vec![]);
    match method {
        "register" => policy.register(&RunInfo::new(1, 1, 1), &[TestInfo::new(0, "/t", &["x"])]),
        "ready" => policy.ready(&mut commands),
        "kind" => policy.kind(0, &["x86_64"]),
        "rank" => policy.rank(0, &[Queued::first(0)], &mut ranks),
        "prefer" => policy.prefer(&View::new(0), &[], &mut wishes),
        "judge" => policy.judge(&Run::new(0, 0, Outcome::Failed)).map(|_| ()),
        "note" => policy.note(1, &atex_plugin_api::policy::Note::Time, &mut commands),
        other => panic!("{other}"),
    }
}

#[test]
fn policies() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    let methods = ["register", "ready", "kind", "rank", "prefer", "judge", "note"];
    for method in methods {
        for (name, text, kind) in TEXTS {
            let mut policy = registry.policy("faulty", "p", &fault(name, method)).unwrap();
            check(&call_policy(&mut policy, method).unwrap_err(), text, kind, method);
            for other in methods.into_iter().filter(|other| *other != method) {
                call_policy(&mut policy, other).unwrap();
            }
        }
    }
}

#[test]
fn nonsense_of_policies_is_passed_on_to_be_checked() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    let make = |method| registry.policy("faulty", "p", &fault("nonsense", method)).unwrap();
    let mut ranks = vec![];
    make("rank").rank(0, &[Queued::first(0)], &mut ranks).unwrap();
    assert_eq!(ranks.len(), 2);
    let mut wishes = vec![];
    make("prefer").prefer(&View::new(0), &[], &mut wishes).unwrap();
    assert_eq!(wishes.len(), 1001);
    assert_eq!(make("judge").judge(&Run::new(0, 0, Outcome::Passed)).unwrap().rerun, Some(true));
}

fn call_reporter(
    reporter: &mut atex_host::plugin::Reporter,
    method: &str,
) -> Result<(), atex_host::plugin::CallError> {
    let call = Call::default();
    match method {
        "run-started" => reporter.tell(ReportEvent::RunStarted(&RunStarted::default()), &call),
        "promised" => reporter.tell(ReportEvent::Promised(&[]), &call),
        "machine" => reporter.tell(ReportEvent::Machine(&MachineEvent::default()), &call),
        "test" => reporter.tell(ReportEvent::Test(&TestEvent::default()), &call),
        "finished" => reporter.tell(ReportEvent::Finished(&Finished::default()), &call),
        "run-ended" => reporter.tell(ReportEvent::RunEnded(&RunEnded::default()), &call),
        other => panic!("{other}"),
    }
}

#[test]
fn reporters() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    let methods = ["run-started", "promised", "machine", "test", "finished", "run-ended"];
    for method in methods {
        for (name, text, kind) in TEXTS {
            let mut reporter = registry.reporter("faulty", "results", &fault(name, method)).unwrap();
            let error = call_reporter(&mut reporter, method).unwrap_err();
            assert!(error.to_string().starts_with("reporter `results`: cannot report "), "{error}");
            check(&error.error, text, kind, method);
            for other in methods.into_iter().filter(|other| *other != method) {
                call_reporter(&mut reporter, other).unwrap();
            }
        }
        let mut noisy = registry.reporter("faulty", "results", &fault("nonsense", method)).unwrap();
        call_reporter(&mut noisy, method).unwrap();
    }
}

#[test]
fn making_and_dropping() {
    let state = tempfile::tempdir().unwrap();
    let registry = registry(state.path());
    for (name, text, kind) in TEXTS {
        let config = fault(name, "new");
        let errors = [
            registry.provisioner("faulty", "x", &config).map(|_| ()).unwrap_err(),
            registry.policy("faulty", "x", &config).map(|_| ()).unwrap_err(),
            registry.reporter("faulty", "x", &config).map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            let PluginError::Make { error, .. } = error else { panic!("{error}") };
            check(&error, text, kind, "new");
        }
    }
    // A panic in a destructor is swallowed: the process is still there.
    drop(registry.provisioner("faulty", "x", &fault("panic", "drop")).unwrap());
    drop(registry.policy("faulty", "x", &fault("panic", "drop")).unwrap());
    drop(registry.reporter("faulty", "x", &fault("panic", "drop")).unwrap());
    for wrong in ["panic", "nonsense"] {
        assert!(registry.policy("faulty", "x", &fault(wrong, "wants")).is_err());
        assert!(registry.reporter("faulty", "x", &fault(wrong, "wants")).is_err());
    }
}
