//! Hosts that are killed at random moments, again and again: what do they leave behind, and does a run survive it?
//!
//! Two kinds of campaigns. [`crash()`]: SIGKILL, then `gc`; afterwards the provider itself is asked what it still holds.
//! [`resume()`]: SIGKILL, then `resume`, which may be killed as well; afterwards each test has the one verdict that it is known to
//! deserve. Both end with an error if anything is left, lost, doubled or wrong.
//!
//! Moments are drawn over the measured length of an undisturbed run, so that all its phases are hit in proportion, and over its
//! records in ledger and journal, so that the short times between an intent and its answer are hit as well.

mod cloud;
mod crash;
mod figures;
mod host;
mod kill;
mod libvirt;
mod phase;
pub(crate) mod podman;
mod provider;
mod random;
mod resume;
mod ssh;

pub use cloud::{Cloud, Weather};
pub use crash::crash;
pub use figures::Figures;
pub use libvirt::{Libvirt, kernel};
pub use podman::Podman;
pub use provider::{Left, Provider};
pub use resume::{Resumed, resume};
pub use ssh::Ssh;

use std::time::Duration;

/// How much of it, and how.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub trials: usize,
    /// Moments and faults depend on it, as far as the rest of the box lets them.
    pub seed: u64,
    /// Trials at a time.
    pub parallel: usize,
    /// Whether trials of which `gc` could not tell at once are looked at again when the plugin's settle time is over.
    pub follow_up: bool,
}

/// Waits a little before something outside is looked at again that tells nobody when it changes.
pub(crate) fn look_again(after: Duration) {
    let time = rustix::event::Timespec::try_from(after).ok();
    let _nothing_to_wait_for = rustix::event::poll(&mut [], time.as_ref());
}
