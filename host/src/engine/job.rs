//! Everything that a run needs, read, checked and opened: what the engine is given.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use indexmap::IndexMap;

use crate::{
    config::PluginUse,
    core::{
        Chain,
        config::{Config, TestPlan},
        event::PlatformId,
    },
    executor::spec::{Site, TestSpec},
    plugin::Provisioner,
    store::PluginFile,
};

/// See the [module](self). Numbers of pools, platforms, tests and chains are places in these lists.
#[derive(Debug)]
pub(crate) struct Job {
    /// Id of the run.
    pub(crate) run: String,
    pub(crate) owner: String,
    /// The run directory, absolute.
    pub(crate) directory: PathBuf,
    pub(crate) pools: Vec<Pool>,
    pub(crate) platforms: Vec<Platform>,
    /// Those of a platform side by side.
    pub(crate) tests: Vec<Test>,
    /// Registered already.
    pub(crate) chains: Vec<Chain>,
    /// Names of the policies of each chain, by position.
    pub(crate) policy_names: Vec<Vec<String>>,
    pub(crate) config: Config,
    /// One per test.
    pub(crate) plans: Vec<TestPlan>,
    pub(crate) release_limit: Duration,
    pub(crate) keepalive: Duration,
    /// How long a provider may keep a machine if nobody gives it back.
    pub(crate) lifetime: Duration,
    pub(crate) strict: bool,
}

/// Where machines come from.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) provisioner: Provisioner,
    pub(crate) plugin: PluginFile,
    /// As it was written: for the ledger.
    pub(crate) written: PluginUse,
    pub(crate) reserve_timeout: Duration,
    pub(crate) slots: u16,
    /// Host keys that were accepted for its machines.
    pub(crate) known_hosts: Option<PathBuf>,
}

impl Pool {
    pub(crate) fn name(&self) -> &str {
        self.provisioner.instance().name()
    }
}

/// A target.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) name: String,
    pub(crate) context: IndexMap<String, Vec<String>>,
    /// What a machine's own facts must be.
    pub(crate) require: BTreeMap<String, String>,
    /// As for one slot; pools differ in slots.
    pub(crate) site: Site,
}

/// A test of the run.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) platform: PlatformId,
    pub(crate) name: String,
    pub(crate) spec: Arc<TestSpec>,
}
