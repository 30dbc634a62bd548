//! Real libraries through the real loader.

#![allow(clippy::unwrap_used, clippy::panic, clippy::allow_attributes, reason = "helpers of tests")]

mod built;
mod checks;
mod faulty;
mod refusals;
mod registry;
mod versions;

use atex_host::plugin::{Call, Registry, Search};
use atex_plugin_api::{ErrorKind, Lease, Transport};
use serde_json::json;

#[test]
fn the_minimal_plugin_lends_and_takes_back() {
    let state = tempfile::tempdir().unwrap();
    let search = Search { libraries: vec![built::minimal().to_owned()], ..Search::default() };
    let registry = Registry::open(search, state.path()).unwrap();
    let lab = registry.provisioner("lab", "pool", &json!({"hosts": ["a"]})).unwrap();
    let (lease, call) = (Lease::new("a1", "run", "owner"), Call::default());
    let machine = lab.reserve(&lease, &call).unwrap();
    assert!(matches!(&machine.transport, Transport::Ssh(ssh) if ssh.host == "a"));
    let busy = lab.reserve(&lease, &call).unwrap_err();
    assert_eq!(
        busy.to_string(),
        "provisioner `pool`: cannot reserve a machine for lease a1: all hosts are lent"
    );
    assert_eq!((busy.error.kind(), busy.error.is_retryable()), (ErrorKind::Busy, true));
    lab.release(&machine.id, &call).unwrap();
    lab.release(&machine.id, &call).unwrap();
    assert_eq!(lab.reserve(&lease, &call).unwrap().id, "a");
    assert_eq!(lab.alive("a", &call), Ok(None));
    assert_eq!(
        lab.renew("a", std::time::Duration::ZERO, &call).unwrap_err().error.kind(),
        ErrorKind::Unsupported
    );
}
