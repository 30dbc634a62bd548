//! From a plan to a job: plugins opened, tests discovered, everything checked that can be checked before the first machine.

use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

use atex_plugin_api::{
    describe::Kind,
    policy::{Policy, RunInfo, TestInfo, WHOLE_MACHINE},
};

use crate::{
    config::{self, PluginUse, PoolChoice, RunPlan},
    core::{
        self, Catalogue, Chain,
        config::{Config, Past, Resume, Served, TestPlan},
        event::{ChainId, Command, Event, Ms, PlatformId, TestId},
    },
    engine::{CALL_LIMIT, Job, OwnThread, Platform, Pool, Test},
    executor::spec,
    fmf::discover::DiscoveredTest,
    plugin::{Call, Provisioner, Registry, Reporter},
    report::Metadata,
    store::{Promise, RunPlugin, StateDir},
};

use super::{
    Error, open,
    select::{Selected, select},
};

/// How long a provider may keep a machine beyond the run's own time limit.
const SPARE_LIFETIME: Duration = Duration::from_secs(3600);
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
    let registry = open::registry(&plan.libraries, plan.allow.strict, state)?;
    let Selected { plan, tree: root, digest, platforms, mut warnings } = select(plan, state)?;
    let mut used = Used { registry: &registry, plugins: Vec::new() };
    let (pools, mut config) = pools(&plan, &mut used, state)?;
    let (chains, policy_names) = chains(&plan, &mut used)?;
    let reporters = reporters(&plan, &mut used)?;
    let plugins = used.plugins;
    warnings.extend(registry.warnings().iter().map(ToString::to_string));

    let mut job_platforms = Vec::new();
    let mut tests = Vec::new();
    let mut catalogue = TestCatalogue { tests: Vec::new() };
    for (number, selected) in platforms.into_iter().enumerate() {
        let of_plan = &plan.platforms[number];
        for test in selected.tests {
            let spec = Arc::new(test.spec);
            tests.push(Test {
                platform: number as PlatformId,
                name: spec.name.clone(),
                spec: Arc::clone(&spec),
            });
            catalogue.tests.push(Described { platform: number as PlatformId, spec, found: test.found });
        }
        job_platforms.push(Platform {
            name: of_plan.name.clone(),
            context: of_plan.context.clone(),
            require: of_plan.require.clone(),
            site: selected.site,
        });
    }
    let plans: Vec<TestPlan> = catalogue.tests.iter().map(Described::plan).collect();
    config.platforms = plan
        .platforms
        .iter()
        .map(|platform| core::config::Platform { chain: platform.policies as ChainId })
        .collect();
    config.chains = chains.iter().map(Chain::shape).collect();
    let mut chains = chains;
    let registered = register(&mut chains, &plan, &catalogue);

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
    Ok(Prepared { plan, job, reporters, metadata, root, digest, plugins, registered, warnings })
}

/// Plugins as they are opened, for run.json.
struct Used<'a> {
    registry: &'a Arc<Registry>,
    plugins: Vec<RunPlugin>,
}

impl Used<'_> {
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
        let provisioner = open::provisioner(used.registry, &of_plan.provisioner)?;
        let max = match of_plan.max {
            Some(max) => max.get(),
            None => capacity(&provisioner)?,
        };
        configs.push(core::config::Pool {
            max,
            slots: of_plan.slots.get(),
            isolate: of_plan.options.isolate,
            reserve_time: ms(of_plan.options.reserve_timeout),
            renews: provisioner.capabilities().has(atex_plugin_api::Capabilities::RENEW),
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

/// Platforms that a pool's machines can be set up for. Two platforms that ask for the same share machines.
fn serves(plan: &RunPlan, pool: usize) -> Vec<Served> {
    let uses = |platform: &config::Platform| matches!(&platform.pools, PoolChoice::Listed(pools) if pools.contains(&pool));
    let same = |one: &config::Platform, other: &config::Platform| {
        one.context == other.context && one.require == other.require
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
    // Finish phases and cleaning come before the provisioner's own part.
    config.limits.release_time = ms(limits.release) + ms(spec::Limits::default().phase_time);
    config.limits.grace = ms(limits.grace) + 2 * ms(limits.keepalive);
    config
}

fn ms(time: Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}

/// The chains of policies, each policy on a thread of its own, and their names.
fn chains(plan: &RunPlan, used: &mut Used<'_>) -> Result<(Vec<Chain>, Vec<Vec<String>>), Error> {
    let mut chains = Vec::new();
    let mut names = Vec::new();
    for entries in &plan.policies {
        let mut policies: Vec<Box<dyn Policy>> = Vec::new();
        for entry in entries {
            let policy = open::policy(used.registry, entry)?;
            used.note(Kind::Policy, entry)?;
            let policy =
                OwnThread::start(&entry.name, Box::new(policy), CALL_LIMIT).map_err(Error::Thread)?;
            policies.push(Box::new(policy));
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
    Ok(reporters)
}

/// Tells each chain of the tests of its platforms, which stand side by side.
fn register(chains: &mut [Chain], plan: &RunPlan, catalogue: &TestCatalogue) -> Vec<Vec<(u16, Command)>> {
    let run = RunInfo::new(plan.seed, catalogue.tests.len() as u32, plan.platforms.len() as u16);
    let mut registered = Vec::new();
    for (number, chain) in chains.iter_mut().enumerate() {
        let of_chain = |test: &Described| plan.platforms[usize::from(test.platform)].policies == number;
        let first = catalogue.tests.iter().position(of_chain).unwrap_or(0);
        let count = catalogue.tests.iter().filter(|test| of_chain(test)).count();
        let range = first as TestId..(first + count) as TestId;
        registered.push(chain.register(&run, range, catalogue));
    }
    registered
}

/// What policies and reporters may ask of a test.
struct Described {
    platform: PlatformId,
    spec: Arc<spec::TestSpec>,
    found: DiscoveredTest,
}

impl Described {
    fn plan(&self) -> TestPlan {
        TestPlan {
            platform: self.platform,
            claim: self.claim(),
            limit: ms(self.spec.duration),
            expected: 0,
            past: Past::FRESH,
        }
    }

    /// `extra-slots`: how many slots the test takes; `all` for the whole machine.
    fn claim(&self) -> u16 {
        match self.found.metadata().get("extra-slots") {
            Some(value) if value.as_str() == Some("all") => WHOLE_MACHINE,
            Some(value) => {
                value.as_i64().map_or(1, |slots| u16::try_from(slots.max(1)).unwrap_or(WHOLE_MACHINE))
            }
            None => 1,
        }
    }
}

struct TestCatalogue {
    tests: Vec<Described>,
}

impl TestCatalogue {
    fn value(&self, test: TestId, key: &str) -> Option<serde_json::Value> {
        self.tests.get(test as usize)?.found.metadata().get(key).map(crate::fmf::Value::to_json)
    }
}

impl Catalogue for TestCatalogue {
    fn info(&self, test: TestId) -> TestInfo<'_> {
        let Some(described) = self.tests.get(test as usize) else { return TestInfo::new(test, "", &[]) };
        let plan = described.plan();
        let mut info = TestInfo::new(test, &described.spec.name, &[]);
        info.platform = described.platform;
        info.claim = plan.claim;
        info.limit = plan.limit;
        info.expected = plan.expected;
        info
    }

    fn attr(&self, test: TestId, key: &str) -> Cow<'_, str> {
        match self.tests.get(test as usize) {
            Some(described) => Cow::Owned(described.found.attribute(key)),
            None => Cow::Borrowed(""),
        }
    }
}
