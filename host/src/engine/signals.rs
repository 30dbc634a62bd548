//! Signals become inputs of the main loop.
//!
//! SIGINT, SIGTERM and SIGHUP each raise the level of shutdown by one, also if they were ignored when we were started (a job
//! of a detached shell must still give its machines back). A fourth ends the process at once, whatever the main loop does:
//! what is held then is in the ledger.

use std::{io, sync::mpsc::Sender, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::input::Input;

/// Signals that the main loop is told of; one more ends the process.
const TOLD: u32 = 3;

/// Starts the thread; it lives until the process ends.
pub(crate) fn start(inbox: Sender<Input>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut seen = 0_u32;
        for signal in signals.forever() {
            seen += 1;
            if seen > TOLD || inbox.send(Input::Signal(signal)).is_err() {
                signal_hook::low_level::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}
