//! Who runs what, where and when: a state machine without I/O, clock, thread or plugin call.

pub mod config;
pub mod event;
mod hash;
mod kinds;
mod queue;
pub mod verdict;

pub use hash::mix;
