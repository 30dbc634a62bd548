//! What the bundled provisioners share: running programs for a call of the host, and a few words of their configuration.
//!
//! Invariants: a program that was started is reaped before the function that started it returns; a cancelled call ends the
//! program with all of its process group; nothing that a program prints can make memory grow without bound.
//!
//! This is no part of the plugin interface: authors of other plugins may use it, but nothing asks them to.

mod call;
mod gate;
mod program;
mod reservations;
#[cfg(any(test, feature = "testing"))]
#[expect(clippy::unwrap_used, clippy::print_stderr, reason = "only for tests")]
pub mod testing;
mod words;

pub use call::Call;
pub use gate::{Gate, Pass};
pub use program::{Output, Program, last_lines, require};
pub use reservations::{Reservation, Reservations};
pub use words::{Mark, Span, quote, unix_now};
