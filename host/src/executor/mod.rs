//! One machine: connect, upload, prepare, run tests, hand back.
//!
//! [`spec`] says what passes between the engine and a machine's worker.

pub mod artifacts;
pub mod clock;
pub mod control;
pub mod names;
mod output;
pub mod result;
pub mod spec;
