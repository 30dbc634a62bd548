//! Every rule of running one test on one machine, over every transport that this box has.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod common;

use atex_plugin_api::model::{LocalTransport, Transport};
use common::cases::run_all;
use common::fixtures::{Container, Sshd};

fn all_pass(transport: &Transport) {
    let only = std::env::var("CASE").ok();
    let (wrong, count) = run_all(transport, only.as_deref());
    assert!(count > 0);
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn local() {
    all_pass(&Transport::Local(LocalTransport::default()));
}

#[test]
fn ssh() {
    let Some(sshd) = Sshd::start(&[]) else { return println!("no sshd here") };
    all_pass(&Transport::Ssh(sshd.transport()));
}

#[test]
fn podman_exec() {
    let Some(container) = Container::start() else { return println!("no podman here") };
    all_pass(&container.transport());
}
