//! Plugins: finding their libraries, refusing those that do not fit, and making provisioners, policies and reporters.
//!
//! Invariants:
//!
//! - A library is looked at as a file first (`elf`, `library`) and handed to the dynamic loader only when it can be
//!   mapped safely. It is never unloaded: its threads and its constants live as long as the process.
//! - Of the directories that are searched, only the library whose plugin is named is ever opened.
//! - Whatever fails says which plugin, from which file, and why, in one line.
//!
//! The handles block as long as the plugin does. Threads and deadlines for calls are the engine's business; panics never
//! get here, they are errors of kind [`ErrorKind::Panic`](atex_plugin_api::ErrorKind::Panic).

mod check;
mod elf;
mod error;
mod handle;
mod instance;
mod library;
mod registry;
mod search;
mod within;

pub use check::{Finding, Gravity, check};
pub use elf::ElfFault;
pub use error::{CallError, PluginError, Refusal};
pub use handle::{Provisioner, Reporter};
pub use instance::{Call, Instance};
pub use library::{Library, Trust, Warning};
pub use registry::{Listed, Offer, Registry};
pub use search::{Search, file_name};
pub(crate) use within::{NoAnswer, STACK_BYTES, within};

pub use atex_plugin_api::describe::{Description, Kind, Provided};
pub use atex_plugin_api::host_side::{Cancel, PolicyHandle, ReportEvent};
