//! From arguments, environment and `atex.yaml` to one immutable, fully checked [`RunPlan`].
//!
//! Everything a user can get wrong in arguments and configuration is found here, before a plugin is opened or a machine is
//! asked for. What needs the FMF tree (which plans there are, what a plan provisions) is left to discovery, which hands its
//! findings back through [`RunPlan::with_plans`] and [`RunPlan::with_plan_pool`].

mod again;
mod checks;
mod de;
mod document;
mod entries;
mod error;
pub mod exit;
mod expand;
mod file;
pub mod options;
mod path;
mod place;
pub mod plan;
mod platforms;
mod resolve;
mod schemas;
pub mod secret;
pub mod spec;
mod suggest;
pub mod surroundings;
mod trust;
mod units;
mod yaml;

pub use again::{StoredPlace, configuration_changed};
pub use error::{ConfigError, Position, Source};
pub use exit::ExitStatus;
pub(crate) use expand::is_secret_key;
pub use file::schema;
pub use path::{Path, Step};
pub use plan::{
    AdjustRule, Dialect, HostOptions, Libraries, Limits, Origin, Permissions, PlanChoice, Platform, Pool,
    PoolChoice, Reporter, RunDirectory, RunPlan, Selection, Upload, local_refused, playbooks_refused,
};
pub use resolve::{check_patterns, check_plugin_name, libraries, plan, plan_again, reporters};
pub use schemas::PATH_MARK;
pub use secret::{PluginUse, Secrets, Text};
pub use suggest::nearest;
pub use surroundings::Surroundings;
