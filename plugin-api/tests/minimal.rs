//! The smallest provisioner is one that host and conformance checks are content with.

use atex_plugin_api::testkit::{self, Conformance, FakeHost, Outcome};

include!("../examples/minimal.rs");

#[test]
fn it_conforms() {
    let host = FakeHost::new();
    let lab = testkit::provisioner::<Lab>(r#"{"hosts": ["a", "b", "c"]}"#, &host.handle()).unwrap();
    for check in Conformance::new(&lab, Lab::CAPABILITIES, &host).parallel(3).run() {
        assert!(!matches!(check.outcome, Outcome::Failed(_)), "{check}");
    }
}

#[test]
fn hosts_are_lent_once() {
    let host = FakeHost::new().handle();
    let lab = testkit::provisioner::<Lab>(r#"{"hosts": ["a"]}"#, &host).unwrap();
    let machine = lab.reserve(&testkit::lease(1), &host).unwrap();
    assert_eq!(lab.reserve(&testkit::lease(2), &host).unwrap_err().kind(), ErrorKind::Busy);
    lab.release(&machine.id, &host).unwrap();
    lab.release(&machine.id, &host).unwrap();
    lab.reserve(&testkit::lease(2), &host).unwrap();
    assert!(lab.reserve(&testkit::lease(3), &host).is_err());
}
