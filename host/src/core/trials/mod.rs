//! The coordinator as a whole, in virtual time.

mod crash;
mod faults;
mod figures;
mod promises;
mod provider;
mod scripted;
mod watch;
mod whole;
