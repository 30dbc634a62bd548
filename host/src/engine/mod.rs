//! Carries out what the coordinator decides.
//!
//! The main loop takes one [`Input`] at a time, turns it into an event of the coordinator, and carries out the actions that
//! come back: calls of provisioners ([`calls`]), orders to machines ([`machines`]), questions to policies ([`policies`]),
//! records in ledger and journal ([`chronicle`]). It decides nothing by itself but what is a matter of I/O: an intent that
//! cannot be written down is a refused reservation, a machine whose facts do not fit its platform is a failed set-up.
//!
//! **Invariant:** an action takes effect only after what announces it is written down: a reservation after its intent in the
//! ledger was synced, an execution after its record stands in the journal.

mod calls;
mod chronicle;
mod input;
mod machines;
mod own_thread;
mod policies;
mod prepare;
mod signals;
mod tests_of_run;

use std::{
    collections::VecDeque,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use crate::core::{
    Coordinator,
    event::{Action, Event, Ms, Shutdown},
};
