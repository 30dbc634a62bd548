//! From arguments, environment and `atex.yaml` to one immutable, fully checked [`RunPlan`].
//!
//! Everything a user can get wrong in arguments and configuration is found here, before a plugin is opened or a machine is
//! asked for. What needs the FMF tree (which plans there are, what a plan provisions) is left to discovery, which hands its
//! findings back through [`RunPlan::with_plans`] and [`RunPlan::with_plan_pool`].

mod de;
mod error;
pub mod exit;
mod expand;
mod path;
pub mod plan;
pub mod secret;
mod suggest;
mod units;
mod yaml;

pub use plan::{
    AdjustRule, Dialect, HostOptions, Libraries, Limits, Origin, Permissions, PlanChoice, Platform, Pool,
    PoolChoice, Reporter, RunDirectory, RunPlan, Selection, Upload,
};
pub use secret::{PluginUse, Secrets, Text};
