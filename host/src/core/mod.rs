//! Who runs what, where and when: a state machine without I/O, clock, thread or plugin call.

mod chain;
pub mod config;
mod coordinator;
pub mod event;
mod hash;
mod kinds;
mod lanes;
mod machines;
mod queue;
mod runs;
pub mod simulate;
#[cfg(test)]
mod testing;
mod timers;
#[cfg(test)]
mod trials;
pub mod verdict;

pub use chain::{Catalogue, Chain, Fault, FaultKind, Ranks};
pub use coordinator::Coordinator;
pub use hash::mix;
