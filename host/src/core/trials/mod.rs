//! The coordinator as a whole, in virtual time.

mod faults;
mod figures;
mod promises;
mod scripted;
mod watch;
mod whole;
