//! One machine: connect, upload, prepare, run tests, hand back.
//!
//! [`spec`] says what passes between the engine and a machine's worker, which [`Handle::start`] starts.
//!
//! The worker ([`worker`]) drives a [`session`]: one connection with a bash driver per slot ([`driver`], `driver.sh`), whose
//! streams are cut into one piece per command ([`cutter`]). [`job`] is one run of a test; what it says goes through
//! [`intake`] to the control channel's parser ([`control`]) and the recorder of results.

mod ansible;
pub mod artifacts;
mod checks;
pub mod clock;
pub mod control;
pub mod cutter;
mod driver;
mod environment;
mod facts;
mod helpers;
mod inbox;
mod intake;
mod job;
pub mod names;
mod output;
mod packages;
mod phases;
pub mod result;
mod session;
mod setup;
pub mod spec;
pub mod untar;
mod upload;
mod worker;

pub use inbox::Handle;
pub(crate) use upload::digest as tree_digest;
