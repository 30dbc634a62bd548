//! [`RunPlan`]: everything that `run` needs after arguments and configuration were read, before plugins are opened.
//!
//! Invariants, kept by the only makers of a plan (`config::resolve` and the `with_*` methods here):
//!
//! - There is at least one platform, and names of platforms and pools are unique.
//! - [`Platform::pools`] and [`Platform::policies`] are valid indices into [`RunPlan::pools`] and [`RunPlan::policies`].
//! - Every path is absolute. Every duration, size and number is within its documented range.
//!
//! What is deliberately not here: whether plugins exist and like their configuration (the loader asks them), and what is in
//! the tree.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checks;
use super::error::ConfigError;
use super::options::RunOptions;
use super::secret::{PluginUse, Secrets, Text};

/// Whose semantics apply where those of tmt and of atex differ.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// What tmt does.
    #[default]
    #[value(help = None::<&str>)]
    Tmt,
    /// What ATEX does.
    #[value(help = None::<&str>)]
    Atex,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// The directory that was named; the root of its FMF tree is searched from here upwards.
    pub tree: PathBuf,
    pub dialect: Dialect,
    /// Who holds the machines; part of every lease's mark.
    pub owner: String,
    pub libraries: Libraries,
    /// All pools, shared ones and those of single platforms. Empty as long as only plans of the tree name machines.
    pub pools: Vec<Pool>,
    pub platforms: Vec<Platform>,
    /// Chains of policies; platforms with the same chain share it, and so the state of its policies.
    pub policies: Vec<Vec<PluginUse>>,
    pub reporters: Vec<Reporter>,
    /// Where results go of runs that were repeated later; dropped if `None`.
    pub old_results: Option<Reporter>,
    pub selection: Selection,
    pub limits: Limits,
    /// Machines that are kept ready beyond what is running.
    pub spares: u32,
    /// How often a line says how far the run is.
    pub statistics: Option<Duration>,
    /// For everything random; drawn if the user gave none, and to be printed.
    pub seed: u64,
    pub run_directory: RunDirectory,
    /// Run only the tests that did not pass in the run of this directory.
    pub rerun_failed: Option<PathBuf>,
    /// Whether artifacts stay when all reporters are through.
    pub keep_artifacts: bool,
    pub allow: Permissions,
    /// Do everything up to the first reservation, and tell.
    pub dry_run: bool,
    pub origin: Origin,
    /// Every secret of the plan, for masking output.
    pub secrets: Secrets,
}

/// Where plugin libraries come from, in the order they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Libraries {
    /// `--plugin` first, then `plugins:` of the configuration: opened whether used or not.
    pub files: Vec<PathBuf>,
    /// `ATEX_PLUGIN_PATH`: a library is opened only when its name is used. The bundled ones come after these.
    pub directories: Vec<PathBuf>,
}

/// Machines of one kind from one provisioner.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub provisioner: PluginUse,
    /// Most machines held at a time; `None`: as many as the provisioner says it has.
    pub max: Option<NonZeroU32>,
    /// Room for tests on each machine.
    pub slots: NonZeroU16,
    pub options: HostOptions,
}

impl Pool {
    /// The pool's name in messages, reports and the state directory.
    pub fn name(&self) -> &str {
        &self.provisioner.name
    }
}

/// What `host:` of a pool says, with the defaults of the run filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// A fresh machine for every test.
    pub isolate: bool,
    /// How long a reservation may take.
    pub reserve_timeout: Duration,
}

/// A reporter and what the host allows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reporter {
    pub plugin: PluginUse,
    /// How long it may go on after the last event of the run.
    pub finish_timeout: Duration,
}

/// Which pools a platform's machines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolChoice {
    /// Indices into [`RunPlan::pools`], in order of preference; never empty.
    Listed(Vec<usize>),
    /// Neither arguments nor configuration say: the plan's `provision` has to ([`RunPlan::with_plan_pool`]).
    Unspecified,
}

/// A named target.
#[derive(Debug, Clone, PartialEq)]
pub struct Platform {
    pub name: String,
    /// Dimensions (`distro`, `arch`, ...) with their values.
    pub context: IndexMap<String, Vec<String>>,
    /// What a machine's own facts must be, in FMF's version rules: `distro: rhel-9`.
    pub require: BTreeMap<String, String>,
    pub pools: PoolChoice,
    pub plans: PlanChoice,
    /// For tests and scripts; the run's `--env` is already in it.
    pub environment: IndexMap<String, Text>,
    /// Sent to each machine before `prepare`.
    pub uploads: Vec<Upload>,
    /// Last words on metadata, applied in order.
    pub adjust: Vec<AdjustRule>,
    /// Index into [`RunPlan::policies`].
    pub policies: usize,
}

/// Which plans of the tree a platform runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanChoice {
    /// The only enabled plan; several are an error; without any, all tests.
    #[default]
    Only,
    /// All tests, whatever plans there are.
    NoPlan,
    /// Enabled plans in whose name one of these regular expressions is found; none found is an error.
    Matching(Vec<String>),
    /// This plan, by its full name: what discovery chose.
    Exactly(String),
}

/// A file or directory of this box and where it goes on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub from: PathBuf,
    /// Absolute path on the machine.
    pub to: String,
}

impl Upload {
    /// Whether it is there: else every machine would be reserved in vain.
    pub fn check(&self) -> Result<(), ConfigError> {
        let missing = |error| format!("`uploads`: cannot read {}: {error}", self.from.display());
        std::fs::metadata(&self.from).map(drop).map_err(|error| ConfigError::new(missing(error)))
    }
}

/// Changes to the final metadata of tests whose name matches.
#[derive(Debug, Clone, PartialEq)]
pub struct AdjustRule {
    /// Regular expression, searched in the final test name; `None`: every test.
    pub test: Option<String>,
    /// Keys to set, e.g. `duration: 8h`.
    pub keys: Map<String, Value>,
}

/// What narrows the tests further than the plan does. Regular expressions are searched in the final test name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// A test must match one of these, if there are any.
    pub test: Vec<String>,
    /// A test must match none of these.
    pub exclude: Vec<String>,
    /// FMF filters; a test must match all.
    pub filter: Vec<String>,
    /// Python expressions over the metadata; a test must meet all.
    pub condition: Vec<String>,
}

/// Limits of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Set-ups that may fail in a row before the platform gets no more machines.
    pub setup_failures: u32,
    /// Reservations that may fail in a row in a pool before the pool is given up.
    pub reserve_failures: u32,
    /// How long one reservation may take.
    pub reserve_timeout: Duration,
    /// How often a test is run again because its machine was lost, without using up a rerun.
    pub lost_machine_reruns: u32,
    /// Tests that may fail in a row on a machine, while most pass elsewhere, before it is put aside; 0: any number.
    pub machine_failures: u32,
    /// How long the run may start tests and wait for them.
    pub time: Duration,
    /// How long giving back one machine may take.
    pub release: Duration,
    /// A connection that is silent for this long is dead.
    pub keepalive: Duration,
    /// Between SIGTERM and SIGKILL for a test that ran out of time or was cancelled.
    pub grace: Duration,
    /// Bytes of results, files and log that one execution may send.
    pub bytes_per_test: u64,
    pub results_per_test: u64,
    /// Machines over all pools.
    pub max_machines: Option<NonZeroU32>,
    /// Failed tests after which no further test is started.
    pub max_fail: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            setup_failures: 10,
            reserve_failures: 10,
            reserve_timeout: Duration::from_hours(2),
            lost_machine_reruns: 2,
            machine_failures: 10,
            time: Duration::from_hours(12),
            release: Duration::from_mins(5),
            keepalive: Duration::from_mins(1),
            grace: Duration::from_secs(10),
            bytes_per_test: 2 << 30,
            results_per_test: 1_000_000,
            max_machines: None,
            max_fail: None,
        }
    }
}

/// Where the run directory goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunDirectory {
    /// `atex-runs/<UTC time>-<short id>` below this directory, with the link `latest`.
    Fresh { below: PathBuf },
    /// Exactly here; must not hold a run yet.
    At(PathBuf),
}

/// What the user said yes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// A plan's `how: local` may run tests on this box.
    pub local: bool,
    /// The tree may run programs on this box: playbooks of its plans.
    pub tree: bool,
    /// No test selected is a success.
    pub empty: bool,
    /// What is not supported in plans is left out with a warning.
    pub unsupported: bool,
    /// Warnings count: verdict `warn` as 1, doubtful plugin files are refused.
    pub strict: bool,
}

/// What the plan was made from: enough to make it again ([`super::plan_again`]), without any secret. Goes into run.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The working directory; relative paths of `options` start here.
    pub directory: PathBuf,
    /// The command line, with literal secrets redacted.
    pub options: RunOptions,
    /// The configuration file, if there was one.
    pub file: Option<PathBuf>,
    /// The file as it was written: not expanded, literal secrets redacted. `Null` without a file.
    pub configuration: Value,
    /// [`RunPlan::owner`], which must not depend on who resumes.
    pub owner: String,
    /// [`RunPlan::seed`].
    pub seed: u64,
}

impl RunPlan {
    /// The plan with each platform bound to the plans of the tree that discovery chose for it. With several, each pair is a
    /// platform of its own, `NAME:PLAN`; with one or none the platform keeps its name.
    #[must_use]
    pub fn with_plans(mut self, chosen: impl Fn(&Platform) -> Vec<String>) -> Self {
        self.platforms =
            self.platforms.into_iter().flat_map(|platform| split(&platform, chosen(&platform))).collect();
        self
    }

    /// The plan with a pool for platform `index`, made from its plan's `provision`. Platforms that use an equal pool share it;
    /// a platform whose pools were named already keeps them, and an unknown index changes nothing.
    #[must_use]
    pub fn with_plan_pool(mut self, index: usize, mut pool: Pool) -> Self {
        let Some(platform) = self.platforms.get_mut(index) else { return self };
        if platform.pools != PoolChoice::Unspecified {
            return self;
        }
        let shared = self.pools.iter().position(|known| same_machines(known, &pool));
        let at = shared.unwrap_or(self.pools.len());
        if shared.is_none() {
            let taken = |name: &str| self.pools.iter().any(|pool| pool.name() == name);
            pool.provisioner.name = free_name(&pool.provisioner.name, taken);
            self.pools.push(pool);
        }
        platform.pools = PoolChoice::Listed(vec![at]);
        self
    }

    /// The plan with another owner of its machines.
    pub fn with_owner(mut self, owner: String) -> Result<Self, ConfigError> {
        checks::owner(&owner).map_err(ConfigError::new)?;
        self.origin.owner.clone_from(&owner);
        self.owner = owner;
        Ok(self)
    }

    /// The first platform that no machine can come for.
    pub fn without_pool(&self) -> Option<&Platform> {
        self.platforms.iter().find(|platform| platform.pools == PoolChoice::Unspecified)
    }
}

impl Platform {
    /// No pool, no run: what to say of a platform that no machine can come for.
    pub fn no_pool(&self) -> ConfigError {
        ConfigError::new(format!("nothing says where the machines of platform {:?} come from", self.name)).help(
            "name a pool with `--provisioner local` (this box) or another plugin, under `provisioners:` in atex.yaml, \
             or in the plan's `provision`",
        )
    }
}

/// What to say of a plan with `how: local` unless [`Permissions::local`]: tests can wreck the box.
pub fn local_refused(plan: &str) -> ConfigError {
    ConfigError::new(format!(
        "the plan {plan} wants to run its tests on this box (`how: local`), and tests can wreck it"
    ))
    .help("say yes with --allow-local, or name other machines with --provisioner")
}

/// What to say of a plan with playbooks unless [`Permissions::tree`]: they run here, and can do anything.
pub fn playbooks_refused(plan: &str) -> ConfigError {
    ConfigError::new(format!(
        "the plan {plan} wants to run ansible playbooks of the tree, which run on this box"
    ))
    .help("say --trust-tree if you know whose they are")
}

fn split(platform: &Platform, plans: Vec<String>) -> Vec<Platform> {
    let bind = |name: String, plans: PlanChoice| Platform { name, plans, ..platform.clone() };
    let name = platform.name.clone();
    match plans.len() {
        0 => vec![bind(name, PlanChoice::NoPlan)],
        1 => plans.into_iter().map(|plan| bind(name.clone(), PlanChoice::Exactly(plan))).collect(),
        _ => {
            plans.into_iter().map(|plan| bind(format!("{name}:{plan}"), PlanChoice::Exactly(plan))).collect()
        }
    }
}

/// Equal but for the name.
fn same_machines(one: &Pool, other: &Pool) -> bool {
    let mut renamed = other.clone();
    renamed.provisioner.name.clone_from(&one.provisioner.name);
    *one == renamed
}

/// `wanted`, or with a number behind it if that is taken.
pub(super) fn free_name(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = wanted.to_owned();
    let mut number = 2;
    while taken(&name) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(plugin: &str) -> Pool {
        Pool {
            provisioner: PluginUse::bare(plugin),
            max: None,
            slots: NonZeroU16::MIN,
            options: HostOptions { isolate: false, reserve_timeout: Duration::from_hours(2) },
        }
    }

    fn platform(name: &str) -> Platform {
        Platform {
            name: name.into(),
            context: IndexMap::new(),
            require: BTreeMap::new(),
            pools: PoolChoice::Unspecified,
            plans: PlanChoice::Only,
            environment: IndexMap::new(),
            uploads: Vec::new(),
            adjust: Vec::new(),
            policies: 0,
        }
    }

    fn plan(platforms: &[&str]) -> RunPlan {
        RunPlan {
            tree: "/tree".into(),
            dialect: Dialect::Tmt,
            owner: "me@here".into(),
            libraries: Libraries::default(),
            pools: Vec::new(),
            platforms: platforms.iter().map(|name| platform(name)).collect(),
            policies: vec![Vec::new()],
            reporters: Vec::new(),
            old_results: None,
            selection: Selection::default(),
            limits: Limits::default(),
            spares: 0,
            statistics: None,
            seed: 1,
            run_directory: RunDirectory::Fresh { below: "/tree".into() },
            rerun_failed: None,
            keep_artifacts: true,
            allow: Permissions::default(),
            dry_run: false,
            origin: Origin {
                directory: "/".into(),
                options: RunOptions::default(),
                file: None,
                configuration: Value::Null,
                owner: "me@here".into(),
                seed: 1,
            },
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn several_plans_make_several_platforms() {
        let split = plan(&["a", "b", "c"]).with_plans(|platform| match platform.name.as_str() {
            "a" => vec!["/one".into(), "/two".into()],
            "b" => vec!["/one".into()],
            _ => Vec::new(),
        });
        let got: Vec<_> = split.platforms.iter().map(|p| (p.name.as_str(), p.plans.clone())).collect();
        let exactly = |name: &str| PlanChoice::Exactly(name.into());
        assert_eq!(
            got,
            [
                ("a:/one", exactly("/one")),
                ("a:/two", exactly("/two")),
                ("b", exactly("/one")),
                ("c", PlanChoice::NoPlan)
            ]
        );
    }

    #[test]
    fn pools_of_plans_are_shared_when_equal_and_never_replace_named_ones() {
        let plan = plan(&["a", "b", "c"])
            .with_plan_pool(0, pool("podman"))
            .with_plan_pool(1, pool("podman"))
            .with_plan_pool(0, pool("ssh"));
        assert_eq!(plan.without_pool().map(|p| p.name.as_str()), Some("c"));
        let wide = Pool { slots: NonZeroU16::new(2).unwrap(), ..pool("podman") };
        let plan = plan.with_plan_pool(2, wide).with_plan_pool(7, pool("ssh"));
        assert_eq!(plan.pools.iter().map(Pool::name).collect::<Vec<_>>(), ["podman", "podman-2"]);
        assert_eq!(plan.platforms[1].pools, PoolChoice::Listed(vec![0]));
        assert_eq!(plan.platforms[2].pools, PoolChoice::Listed(vec![1]));
        assert_eq!(plan.without_pool(), None);
    }

    #[test]
    fn a_missing_pool_is_told_with_three_ways_to_name_one() {
        let line = platform("a").no_pool().to_string();
        for way in ["--provisioner local", "`provisioners:` in atex.yaml", "`provision`"] {
            assert!(line.contains(way), "{line}");
        }
        assert!(local_refused("/plans/x").to_string().contains("--allow-local"));
    }
}
