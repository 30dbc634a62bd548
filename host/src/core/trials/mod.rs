//! The coordinator as a whole, in virtual time.

mod promises;
mod watch;
mod whole;
