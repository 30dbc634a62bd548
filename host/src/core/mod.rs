//! Who runs what, where and when: a state machine without I/O, clock, thread or plugin call.

mod chain;
pub mod config;
pub mod event;
mod hash;
mod kinds;
mod queue;
pub mod verdict;

pub use chain::{Catalogue, Chain, Fault, FaultKind, Ranks};
pub use hash::mix;
