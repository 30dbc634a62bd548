//! From a plan to a job: plugins opened, tests discovered, everything checked that can be checked before the first machine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use atex_plugin_api::{
    Capabilities,
    describe::Kind,
    policy::{Policy, RunInfo},
};

use crate::{
    config::{self, PluginUse, PoolChoice, RunPlan},
    core::{
        self, Chain,
        config::{Config, Resume, Served},
        event::{ChainId, Command, Event, Ms, PlatformId, TestId},
        verdict::Verdict,
    },
    engine::{CALL_LIMIT, Job, OwnThread, Platform, Pool, Test},
    executor::spec,
    plugin::{Call, Provisioner, Registry, Reporter},
    report::Metadata,
    store::{Class, Promise, RunPlugin, StateDir},
};

use super::{
    Error, open,
    select::{Selected, SelectedTest, select},
    workload::{TestCatalogue, workload},
};

/// How long a provider may keep a machine beyond the run's own time limit.
const SPARE_LIFETIME: Duration = Duration::from_hours(1);
/// Key of reporters that can publish the results of runs that were repeated later instead of those that count.
const RESULTS: &str = "results";
/// A question to a plugin before the run begins.
const QUESTION: Duration = Duration::from_secs(30);

/// Everything for a run, and what is to be written down of it.
pub(super) struct Prepared {
    pub(super) plan: RunPlan,
    pub(super) job: Job,
    pub(super) reporters: Vec<(Reporter, Duration)>,
    pub(super) metadata: Metadata,
    /// Root of the tree.
    pub(super) root: PathBuf,
    pub(super) digest: String,
    pub(super) plugins: Vec<RunPlugin>,
    /// What policies asked for at registration, per chain.
    pub(super) registered: Vec<Vec<(u16, Command)>>,
    /// Verdicts of an earlier session, with the class of the execution that each names.
    pub(super) kept: Vec<(Verdict, Option<Class>)>,
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    pub(super) fn promises(&self) -> Vec<Promise> {
        let promise = |test: &Test| Promise { platform: test.platform, name: test.name.clone() };
        self.job.tests.iter().map(promise).collect()
    }

    /// The first events of a new run.
    pub(super) fn first_events(&mut self) -> Vec<Event> {
        let registered = std::mem::take(&mut self.registered).into_iter().enumerate();
        registered
            .filter(|(_, commands)| !commands.is_empty())
            .map(|(chain, commands)| Event::Commands { chain: chain as ChainId, commands })
            .collect()
    }
}

pub(super) fn prepare(plan: RunPlan, run: &str, state: &StateDir) -> Result<Prepared, Error> {
    let registry = open::registry(&plan.libraries, plan.allow.strict, state, &plan.secrets)?;
    let Selected { plan, tree: root, digest, mut platforms, mut warnings } = select(plan, state)?;
    let plan =
        plan.with_schemas(|kind, name| Some(registry.find(kind, name).ok()?.provided().schema.clone()));
    let mut used = Used::new(&registry);
    let (pools, mut config) = pools(&plan, &mut used, state)?;
    let (mut chains, policy_names) = chains(&plan, &mut used, true)?;
    let reporters = reporters(&plan, &mut used)?;
    let plugins = used.plugins;
    warnings.extend(registry.warnings().iter().map(ToString::to_string));

    let tests: Vec<Vec<SelectedTest>> =
        platforms.iter_mut().map(|platform| std::mem::take(&mut platform.tests)).collect();
    let (tests, catalogue) = workload(&plan, tests, state);
    let job_platforms = plan.platforms.iter().zip(platforms).map(|(of_plan, selected)| Platform {
        name: of_plan.name.clone(),
        context: of_plan.context.clone(),
        require: of_plan.require.clone(),
        site: selected.site,
    });
    let job_platforms = job_platforms.collect();
    let plans = catalogue.plans();
    config.platforms = plan
        .platforms
        .iter()
        .map(|platform| core::config::Platform { chain: platform.policies as ChainId })
        .collect();
    let registered = register(&mut chains, &plan, &catalogue);
    refuse_metadata(&chains, &policy_names)?;
    let shape = |(chain, names): (&Chain, &Vec<String>)| core::config::Shape {
        names: names.iter().map(|name| Arc::from(name.as_str())).collect(),
        ..chain.shape()
    };
    config.chains = chains.iter().zip(&policy_names).map(shape).collect();

    let metadata: Metadata = {
        let catalogue = Arc::new(catalogue);
        Arc::new(move |test: TestId, key: &str| catalogue.value(test, key))
    };
    let job = Job {
        run: run.to_owned(),
        owner: plan.owner.clone(),
        directory: PathBuf::new(),
        pools,
        platforms: job_platforms,
        tests,
        chains,
        policy_names,
        config,
        plans,
        release_limit: plan.limits.release,
        keepalive: plan.limits.keepalive,
        lifetime: plan.limits.time + SPARE_LIFETIME,
        strict: plan.allow.strict,
    };
    Ok(Prepared {
        plan,
        job,
        reporters,
        metadata,
        root,
        digest,
        plugins,
        registered,
        kept: Vec::new(),
        warnings,
    })
}

/// Plugins as they are opened, for run.json.
pub(super) struct Used<'a> {
    registry: &'a Arc<Registry>,
    plugins: Vec<RunPlugin>,
}

impl<'a> Used<'a> {
    pub(super) fn new(registry: &'a Arc<Registry>) -> Self {
        Self { registry, plugins: Vec::new() }
    }

    fn note(&mut self, kind: Kind, entry: &PluginUse) -> Result<crate::store::PluginFile, Error> {
        let file = open::plugin_file(self.registry, kind, &entry.plugin)?;
        let plugin = RunPlugin {
            kind: kind.word().to_owned(),
            name: file.name.clone(),
            path: file.path.clone(),
            sha256: file.sha256.clone(),
        };
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
        Ok(file)
    }
}

/// Provisioners, and what the coordinator has to know of their pools.
fn pools(plan: &RunPlan, used: &mut Used<'_>, state: &StateDir) -> Result<(Vec<Pool>, Config), Error> {
    let mut pools = Vec::new();
    let mut configs = Vec::new();
    for (number, of_plan) in plan.pools.iter().enumerate() {
        let provisioner = open::provisioner(used.registry, &of_plan.provisioner, &plan.secrets)?;
        let max = match of_plan.max {
            Some(max) => max.get(),
            None => capacity(&provisioner)?,
        };
        configs.push(core::config::Pool {
            max,
            slots: of_plan.slots.get(),
            isolate: of_plan.options.isolate,
            reserve_time: ms(of_plan.options.reserve_timeout),
            renews: provisioner.capabilities().has(Capabilities::RENEW),
            probes: provisioner.capabilities().has(Capabilities::ALIVE),
            startup: 0,
            serves: serves(plan, number),
        });
        pools.push(Pool {
            plugin: used.note(Kind::Provisioner, &of_plan.provisioner)?,
            written: of_plan.provisioner.clone(),
            reserve_timeout: of_plan.options.reserve_timeout,
            slots: of_plan.slots.get(),
            known_hosts: Some(state.known_hosts(of_plan.name()).map_err(Error::State)?),
            provisioner,
        });
    }
    let config = Config { pools: configs, ..config_of(plan) };
    Ok((pools, config))
}

/// What a provisioner says it has; one machine if it does not know.
fn capacity(provisioner: &Provisioner) -> Result<u32, Error> {
    let (asked, name) = (provisioner.clone(), provisioner.instance().name().to_owned());
    let told =
        open::within(QUESTION, format!("provisioner `{name}`, asked for its capacity,"), move || {
            asked.capacity(&Call::within(QUESTION))
        })??;
    Ok(told.map_or(1, |machines| u32::try_from(machines).unwrap_or(u32::MAX).max(1)))
}

/// Platforms that a pool's machines can be set up for. Two platforms that ask for the same and do the same to a machine share
/// machines: what one plan prepares is not there for another, and each one's finish scripts run on what it has prepared.
fn serves(plan: &RunPlan, pool: usize) -> Vec<Served> {
    let uses = |platform: &config::Platform| matches!(&platform.pools, PoolChoice::Listed(pools) if pools.contains(&pool));
    let same = |one: &config::Platform, other: &config::Platform| {
        one.context == other.context
            && one.require == other.require
            && one.plans == other.plans
            && one.environment == other.environment
            && one.uploads == other.uploads
    };
    let served = plan.platforms.iter().enumerate().filter(|(_, platform)| uses(platform));
    served
        .map(|(number, platform)| {
            let flavour = plan.platforms.iter().position(|other| same(other, platform)).unwrap_or(number);
            Served { platform: number as PlatformId, flavour: flavour as u16 }
        })
        .collect()
}

fn config_of(plan: &RunPlan) -> Config {
    let limits = &plan.limits;
    let mut config = Config::simple(0, core::config::Shape::default());
    config.max_machines = limits.max_machines.map_or(u32::MAX, std::num::NonZeroU32::get);
    config.spares = plan.spares;
    config.max_fail = limits.max_fail.map(std::num::NonZeroU32::get);
    config.seed = plan.seed;
    config.resume = Resume::default();
    config.limits.time = Some(ms(limits.time));
    config.limits.setup_failures = limits.setup_failures;
    config.limits.reserve_failures = limits.reserve_failures;
    config.limits.lost_machine_reruns = u16::try_from(limits.lost_machine_reruns).unwrap_or(u16::MAX);
    config.limits.fails_in_a_row = limits.machine_failures;
    config.limits.abort_time = ms(limits.release);
    // Finish phases and cleaning come before the provisioner's own part.
    config.limits.release_time = ms(limits.release) + ms(spec::Limits::default().phase_time);
    // Each policy of a chain has its own time; only a chain that takes longer than all of them together is silent.
    let longest = plan.policies.iter().map(Vec::len).max().unwrap_or(0) as u64;
    config.limits.answer_time = ms(CALL_LIMIT) * (longest + 1);
    config.limits.grace = ms(limits.grace) + 2 * ms(limits.keepalive);
    config
}

fn ms(time: Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}

/// The chains of policies, each policy on a thread of its own, and their names.
///
/// Without threads of their own policies are quicker to ask, and one that blocks blocks whoever asks.
pub(super) fn chains(
    plan: &RunPlan,
    used: &mut Used<'_>,
    threads: bool,
) -> Result<(Vec<Chain>, Vec<Vec<String>>), Error> {
    let mut chains = Vec::new();
    let mut names = Vec::new();
    for entries in &plan.policies {
        let mut policies: Vec<Box<dyn Policy>> = Vec::new();
        for entry in entries {
            let policy = open::policy(used.registry, entry)?;
            used.note(Kind::Policy, entry)?;
            policies.push(if threads {
                Box::new(OwnThread::start(&entry.name, Box::new(policy), CALL_LIMIT).map_err(Error::Thread)?)
            } else {
                Box::new(policy)
            });
        }
        chains.push(Chain::new(policies));
        names.push(entries.iter().map(|entry| entry.name.clone()).collect());
    }
    Ok((chains, names))
}

fn reporters(plan: &RunPlan, used: &mut Used<'_>) -> Result<Vec<(Reporter, Duration)>, Error> {
    let mut reporters = Vec::new();
    for entry in &plan.reporters {
        let reporter = open::reporter(used.registry, &entry.plugin)?;
        used.note(Kind::Reporter, &entry.plugin)?;
        reporters.push((reporter, entry.finish_timeout));
    }
    if let Some(entry) = &plan.old_results {
        let mut old = entry.plugin.clone();
        if used.registry.find(Kind::Reporter, &old.plugin)?.takes(RESULTS) {
            old.set(RESULTS, "old".into());
        }
        let reporter = open::reporter(used.registry, &old)?;
        used.note(Kind::Reporter, &old)?;
        reporters.push((reporter, entry.finish_timeout));
    }
    Ok(reporters)
}

/// Wrong metadata that a policy has found is found before anything is reserved, like all other.
fn refuse_metadata(chains: &[Chain], names: &[Vec<String>]) -> Result<(), config::ConfigError> {
    for (chain, names) in chains.iter().zip(names) {
        if let Some(fault) = chain.faults().find(|fault| fault.kind == core::FaultKind::Metadata) {
            let name = names.get(usize::from(fault.policy)).map_or("", String::as_str);
            return Err(config::ConfigError::new(format!("policy `{name}`: {}", fault.message)));
        }
    }
    Ok(())
}

/// Tells each chain of the tests of its platforms, which stand side by side.
fn register(chains: &mut [Chain], plan: &RunPlan, catalogue: &TestCatalogue) -> Vec<Vec<(u16, Command)>> {
    let run = RunInfo::new(plan.seed, catalogue.len() as u32, plan.platforms.len() as u16);
    let chain_of = |platform: PlatformId| plan.platforms[usize::from(platform)].policies;
    let one = |(number, chain): (usize, &mut Chain)| {
        chain.register(&run, catalogue.range(|platform| chain_of(platform) == number), catalogue)
    };
    chains.iter_mut().enumerate().map(one).collect()
}
