//! Signals become inputs of the main loop.
//!
//! SIGINT, SIGTERM and SIGHUP each raise the level of shutdown by one, also if they were ignored when we were started (a job
//! of a detached shell must still give its machines back). A fourth ends the process at once, whatever the main loop does:
//! what is held then is in the ledger.
//!
//! SIGXFSZ is handled by nothing: a file that may not grow (`ulimit -f`) is then an error of the write, as on a full disk, and
//! no sudden death.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool, mpsc::Sender},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};

use super::input::Input;

/// Signals that the main loop is told of; one more ends the process.
const TOLD: u32 = 3;

/// Starts the thread; it lives until the process ends.
pub(crate) fn start(inbox: Sender<Input>) -> io::Result<()> {
    // A handler and not "ignored": that would be passed on to all programs that are started.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
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
