//! `plugins check --live`: the conformance checks of `atex-plugin-api` against real machines of configured pools.
//!
//! Each pool's checks are a small run of their own, with a ledger: whatever happens to this process, `atex-host gc` finds what
//! it held. The provisioner is made as a run makes it, with the pool's own state directory.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use atex_plugin_api::{Error as PluginFailure, Lease, describe::Kind, testkit::Conformance};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use uuid::Uuid;

use crate::{
    cli::{CheckLive, Format, plugins as print},
    config::{ExitStatus, PluginUse, Pool, PoolChoice, RunPlan},
    engine::unix_ms,
    plugin::{Call, Provisioner, Registry},
    store::{Claim, Entry, Ledger, PluginFile, StateDir},
};

use super::{Error, Terminal, open, run::run_id};

/// How long the provider may keep a machine after the process was killed.
const LIFETIME: Duration = Duration::from_hours(1);

type Kit = Conformance<'static>;

pub(super) fn check(wanted: CheckLive, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let CheckLive { plan, machines, limit } = wanted;
    terminal.mask(&plan.secrets);
    let state = StateDir::from_environment().map_err(Error::State)?;
    let registry = open::registry(&plan.libraries, plan.allow.strict, &state, &plan.secrets)?;
    let plan =
        plan.with_schemas(|kind, name| Some(registry.find(kind, name).ok()?.provided().schema.clone()));
    for warning in registry.warnings() {
        tracing::warn!("{warning}");
    }
    // All of them first: a mistake in the last pool is found before the first machine is asked for.
    let pools: Vec<Subject> = plan
        .pools
        .iter()
        .enumerate()
        .map(|(number, pool)| Subject::new(number, pool, &plan, &registry))
        .collect::<Result<_, _>>()?;
    let interrupt = Interrupt::start()?;
    let mut worst = ExitStatus::Passed;
    for pool in pools {
        let parallel = pool.max.map_or(machines.get(), |max| machines.get().min(max));
        worst = worst.worst(pool.check(parallel, limit, &interrupt, &state, terminal)?);
    }
    Ok(if interrupt.came() { worst.worst(ExitStatus::Stopped) } else { worst })
}

/// A pool that is checked.
struct Subject {
    entry: PluginUse,
    provisioner: Provisioner,
    registry: Arc<Registry>,
    plugin: PluginFile,
    max: Option<u32>,
    /// What every lease of it says, but for its id.
    lease: Lease,
    secrets: crate::config::Secrets,
}

impl Subject {
    fn new(number: usize, pool: &Pool, plan: &RunPlan, registry: &Arc<Registry>) -> Result<Self, Error> {
        let mut lease = Lease::new("", format!("check-{}", run_id()), &plan.owner);
        let uses =
            |choice: &PoolChoice| matches!(choice, PoolChoice::Listed(pools) if pools.contains(&number));
        if let Some(platform) = plan.platforms.iter().find(|platform| uses(&platform.pools)) {
            lease.platform.clone_from(&platform.name);
            lease.context =
                platform.context.iter().map(|(name, values)| (name.clone(), values.clone())).collect();
            lease.require.clone_from(&platform.require);
        }
        lease.timeout_s = pool.options.reserve_timeout.as_secs().max(1);
        lease.lifetime_s = (pool.options.reserve_timeout + LIFETIME).as_secs();
        Ok(Self {
            provisioner: open::provisioner(registry, &pool.provisioner, &plan.secrets)?,
            plugin: open::plugin_file(registry, Kind::Provisioner, &pool.provisioner.plugin)?,
            entry: pool.provisioner.clone(),
            registry: Arc::clone(registry),
            max: pool.max.map(std::num::NonZeroU32::get),
            lease,
            secrets: plan.secrets.clone(),
        })
    }

    fn check(
        self,
        parallel: u32,
        limit: Duration,
        interrupt: &Interrupt,
        state: &StateDir,
        terminal: &Terminal,
    ) -> Result<ExitStatus, Error> {
        let (pool, run, secrets) = (self.entry.name.clone(), self.lease.run.clone(), self.secrets.clone());
        let ledger = Ledger::open(&state.ledger(&run).map_err(Error::State)?)?;
        let ledger = Arc::new(Mutex::new(Some(ledger)));
        let kit = self.kit(&ledger).parallel(parallel).call_limit(limit);
        let kit = kit.reserve_limit(Duration::from_secs(self.lease.timeout_s));
        let json = terminal.output().format == Format::Json;
        let show = |text: &str| {
            let text = secrets.mask(text);
            writeln!(io::stdout().lock(), "{text}")
        };
        show(&print::live_headline(&pool, &self.entry.plugin, kit.machines(), parallel, json))
            .map_err(Error::Output)?;
        interrupt.ends(&kit);
        let mut shown = Ok(());
        let checks = kit.run_telling(|check| {
            if shown.is_ok() {
                shown = show(&print::live_check(&pool, check, json));
            }
        });
        let left = kit.left();
        close(&ledger, &left)?;
        shown.map_err(Error::Output)?;
        let text = print::live_summary(&pool, &checks, left.len(), json);
        show(&text).map_err(Error::Output)?;
        let failed = print::live_failed(&checks);
        let status = if failed { ExitStatus::Failed } else { ExitStatus::Passed };
        Ok(if left.is_empty() { status } else { ExitStatus::MachineHeld })
    }

    fn kit(&self, ledger: &Arc<Mutex<Option<Ledger>>>) -> Kit {
        let (provisioner, registry) = (self.provisioner.clone(), Arc::clone(&self.registry));
        let (entry, secrets) = (self.entry.clone(), self.secrets.clone());
        let handle = provisioner.handle().clone();
        let capabilities = provisioner.capabilities();
        let kit = Conformance::with_hosts(&handle, capabilities, move |cancel| {
            provisioner.host_for(&Call::new(cancel))
        });
        let again = move || match open::provisioner(&registry, &entry, &secrets) {
            Ok(provisioner) => Ok(provisioner.handle().clone()),
            Err(error) => Err(PluginFailure::config(error.to_string())),
        };
        let (claim, model, ledger) = (self.claim(), self.lease.clone(), Arc::clone(ledger));
        kit.again(again).leases(move || {
            let mut lease = model.clone();
            lease.id = format!("a{}", Uuid::now_v7());
            let claim = Claim { lease: lease.id.clone(), at: unix_ms(), ..claim.clone() };
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let closed = || PluginFailure::config("the ledger is closed");
            let written = ledger
                .as_mut()
                .ok_or_else(closed)?
                .write(&lease.id, Entry::Intent { claim: Box::new(claim) });
            written.map_err(|error| PluginFailure::config(error.to_string()))?;
            Ok(lease)
        })
    }

    fn claim(&self) -> Claim {
        Claim {
            owner: self.lease.owner.clone(),
            run: self.lease.run.clone(),
            lease: String::new(),
            pool: self.entry.name.clone(),
            plugin: self.plugin.clone(),
            configuration: self.entry.written().clone(),
            base: self.entry.base.clone(),
            place: self.entry.stored_place(),
            settle_s: self.provisioner.settle().as_secs(),
            timeout_s: self.lease.timeout_s,
            lifetime_s: None,
            release_s: 0,
            directory: std::path::PathBuf::new(),
            at: 0,
        }
    }
}

/// Closes all leases but those that may still hold something, and removes the ledger if there are none.
fn close(ledger: &Mutex<Option<Ledger>>, left: &[Lease]) -> Result<(), Error> {
    let Some(mut ledger) = ledger.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return Ok(());
    };
    let open: Vec<String> = ledger.open_leases().map(|standing| standing.claim.lease.clone()).collect();
    for lease in open {
        let entry = if left.iter().any(|one| one.id == lease) { Entry::Uncertain } else { Entry::Released };
        ledger.write(&lease, entry)?;
    }
    Ok(ledger.close()?)
}

/// Signals: the first ends the checks and gives everything back, a second one leaves at once.
#[derive(Clone)]
struct Interrupt(Arc<Mutex<Interrupted>>);

#[derive(Default)]
struct Interrupted {
    came: bool,
    stop: Option<Arc<atex_plugin_api::testkit::Stop>>,
}

impl Interrupt {
    fn start() -> Result<Self, Error> {
        let it = Self(Arc::default());
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Thread)?;
        let told = it.clone();
        let watch = move || {
            for signal in signals.forever() {
                if told.came() {
                    tracing::warn!("left at once: `atex-host gc` gives back what is held");
                    signal_hook::low_level::exit(128 + signal);
                }
                tracing::warn!("interrupted: what is reserved is given back; once more leaves at once");
                told.note();
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch).map_err(Error::Thread)?;
        Ok(it)
    }

    fn came(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).came
    }

    fn note(&self) {
        let mut interrupted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        interrupted.came = true;
        if let Some(stop) = &interrupted.stop {
            stop.stop();
        }
    }

    /// From now on it ends these checks; at once if it came already.
    fn ends(&self, kit: &Kit) {
        let mut interrupted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if interrupted.came {
            kit.stop().stop();
        }
        interrupted.stop = Some(kit.stop());
    }
}
