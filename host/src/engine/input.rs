//! Everything that can wake the main loop.

use atex_plugin_api::Machine;

use crate::{
    core::event::{Event, LeaseId},
    executor::spec::Report,
};

use super::calls::Failure;

/// One closed list: the main loop is a `match` over it, and nothing else changes its state.
#[derive(Debug)]
pub(crate) enum Input {
    /// From a machine's worker.
    Machine(LeaseId, Report),
    /// A call of a provisioner came back, or was given up.
    Call(LeaseId, Returned),
    /// An answer of the policies.
    Policies(Event),
    /// A policy misbehaved; the text names it.
    PolicyFault(String),
    /// SIGINT, SIGTERM or SIGHUP.
    Signal(i32),
    /// A reporter got through everything, or gave up; the text is what went wrong.
    ReporterDone { reporter: String, problem: Option<String> },
}

/// What a provisioner's call gave.
#[derive(Debug)]
pub(crate) enum Returned {
    Reserve(Result<Box<Machine>, Failure>),
    Release(Result<(), Failure>),
    /// Only failures matter: the answer that counts is that of `reserve`.
    Abort(Result<(), Failure>),
    Renew(Result<Option<u64>, Failure>),
    /// Whether the provider still has the machine, if it can tell.
    Alive(Result<Option<bool>, Failure>),
    Reboot(Result<(), Failure>),
    /// Nothing of the lease exists any more; `false`: it cannot be known.
    Confirm(bool),
}
