//! Who runs what, where and when: a state machine without I/O, clock, thread or plugin call.

pub mod event;
pub mod verdict;
