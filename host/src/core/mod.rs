//! Who runs what, where and when: a state machine without I/O, clock, thread or plugin call.
//!
//! [`Coordinator::step`] takes an [`event::Event`] and returns [`event::Action`]s. The engine carries them out on real
//! machines; [`simulate`] does so in virtual time. Policies are asked through a [`Chain`], which the coordinator knows only
//! as questions and answers. Everything is numbered ([`event`]); names, paths and plugins are the engine's affair.

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
