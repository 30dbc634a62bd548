//! Those who read the journal: reporter plugins, the console, the history, and the statistics that come now and then.
//!
//! Each reader has a thread and its own offset. Nothing is queued in memory and nothing is lost: a slow one holds up nobody, and
//! what it has not read by the end of the run is still there for `atex-host report`.

mod console;
mod follow;
mod plugin;
mod recorder;
mod statistics;

pub(crate) use console::{Console, Style};
pub(crate) use follow::{Follower, start};
pub(crate) use plugin::{Metadata, PluginReporter};
pub(crate) use recorder::recorder;
pub(crate) use statistics::Statistics;

use console::seconds;
