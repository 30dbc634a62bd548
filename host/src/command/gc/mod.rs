//! `gc`: frees what dead runs still hold.
//!
//! A ledger whose lock is free is that of a dead run. For each lease in it that is not known to be gone, the provisioner is
//! made again from what the ledger says and asked to release the machine: by its id if that is known, else by looking for the
//! lease's mark among all that the owner holds. A lease is closed only when its absence was seen; one that was never answered
//! for stays open until the provisioner's settle time is over.

mod ask;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use atex_plugin_api::describe::Kind;

use crate::{
    cli::{self, Format},
    config::{ExitStatus, PluginUse, Secrets, Surroundings},
    engine::unix_ms,
    plugin::{Provisioner, Registry},
    store::{Claim, Entry, Ledger, LedgerError, RunDir, Standing, StateDir},
    text::printable,
};

use self::ask::{Found, Patience};
use super::{Error, Terminal, open};

pub(super) fn gc(gc: &cli::Gc, around: &Surroundings, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let state = StateDir::from_environment().map_err(Error::State)?;
    let secrets = gc.plan.as_ref().map(|plan| plan.secrets.clone()).unwrap_or_default();
    // Shared: those that ledgers lead to are found on the way.
    terminal.mask(&secrets);
    let mut collector = Collector {
        around,
        state: &state,
        gc,
        json: terminal.output().format == Format::Json,
        secrets,
        held: 0,
        freed: 0,
        patience: Arc::new(Patience::new()),
    };
    for ledger in ledgers(gc, &state)? {
        collector.each(&ledger)?;
    }
    if let Some(plan) = &gc.plan {
        collector.owner(plan)?;
    }
    collector.summary()?;
    Ok(collector.status())
}

/// Frees what one dead run holds, before it is resumed. The status says whether something may still be held.
pub(super) fn free_run(
    ledger: &Path,
    libraries: crate::config::Libraries,
    state: &StateDir,
    around: &Surroundings,
    secrets: &Secrets,
    terminal: &Terminal,
) -> Result<ExitStatus, Error> {
    if !ledger.exists() {
        return Ok(ExitStatus::Passed);
    }
    let gc = cli::Gc { runs: Vec::new(), plan: None, libraries, force: false };
    let json = terminal.output().format == Format::Json;
    let mut collector = Collector {
        around,
        state,
        gc: &gc,
        json,
        secrets: secrets.clone(),
        held: 0,
        freed: 0,
        patience: Arc::new(Patience::new()),
    };
    collector.ledger(ledger)?;
    Ok(collector.status())
}

fn ledgers(gc: &cli::Gc, state: &StateDir) -> Result<Vec<PathBuf>, Error> {
    if gc.runs.is_empty() {
        // With --config alone, whatever the ledgers say is not what was asked for.
        return if gc.plan.is_some() { Ok(Vec::new()) } else { state.ledgers().map_err(Error::State) };
    }
    gc.runs.iter().map(|run| state.ledger(&RunDir::read(run)?.run).map_err(Error::State)).collect()
}

struct Collector<'a> {
    around: &'a Surroundings,
    state: &'a StateDir,
    gc: &'a cli::Gc,
    json: bool,
    /// Of all configurations that were looked at so far; masked in whatever is said.
    secrets: Secrets,
    /// Leases that may still hold something.
    held: u64,
    freed: u64,
    patience: Arc<Patience>,
}

impl Collector<'_> {
    fn status(&self) -> ExitStatus {
        if self.held > 0 { ExitStatus::MachineHeld } else { ExitStatus::Passed }
    }

    /// One of many ledgers: what is wrong with it keeps nobody from the others.
    fn each(&mut self, path: &Path) -> Result<(), Error> {
        match self.ledger(path) {
            Ok(()) => Ok(()),
            Err(error @ Error::Output(_)) => Err(error),
            Err(error) => {
                self.held += 1;
                self.say("unknown", &path.display().to_string(), "", &error.to_string())
            }
        }
    }

    fn ledger(&mut self, path: &Path) -> Result<(), Error> {
        let mut ledger = match Ledger::open(path) {
            Ok(ledger) => ledger,
            Err(LedgerError::Alive { .. }) => {
                let run = path.file_stem().unwrap_or_default().to_string_lossy();
                return self.say("alive", &run, "", "the run is alive; its machines are its own");
            }
            Err(error) => return Err(error.into()),
        };
        let mut pools: BTreeMap<String, Vec<Standing>> = BTreeMap::new();
        for standing in ledger.open_leases() {
            pools.entry(standing.claim.pool.clone()).or_default().push(standing.clone());
        }
        let mut unwritten = Ok(());
        for leases in pools.into_values() {
            match self.pool(&mut ledger, &leases) {
                Err(error @ Error::Output(_)) => return Err(error),
                done => unwritten = unwritten.and(done),
            }
        }
        for damage in ledger.damage() {
            self.held += 1;
            let place = format!("{} line {}", path.display(), damage.line);
            self.say("unknown", &place, "", &format!("cannot be read: {}", damage.problem))?;
        }
        unwritten?;
        ledger.close()?;
        Ok(())
    }

    /// Leases of one pool of one run.
    fn pool(&mut self, ledger: &mut Ledger, leases: &[Standing]) -> Result<(), Error> {
        let Some(claim) = leases.first().map(|standing| &standing.claim) else { return Ok(()) };
        let opened = self.provisioner(claim);
        let listed = opened
            .as_ref()
            .map_err(ToString::to_string)
            .and_then(|provisioner| self.patience.with(|| ask::list(provisioner, &claim.owner)));
        let patience = Arc::clone(&self.patience);
        let free = |standing: &Standing| match &opened {
            Err(error) => Found::Held(error.to_string()),
            Ok(provisioner) => ask::free(provisioner, standing, &listed, &patience),
        };
        // What is free is free, also where there is no room to write that down, and nobody to read it.
        let mut wrong = Ok(());
        ask::side_by_side(leases, free, |standing, found| {
            let written = write_down(ledger, standing, &found).map_err(Error::from);
            let said = self.tell(standing, found);
            wrong = std::mem::replace(&mut wrong, Ok(())).and(said).and(written);
        });
        wrong
    }

    fn tell(&mut self, standing: &Standing, found: Found) -> Result<(), Error> {
        let claim = &standing.claim;
        let (word, why) = match found {
            Found::Gone => ("gone", String::new()),
            Found::Freed => {
                self.freed += 1;
                ("released", String::new())
            }
            Found::Held(why) => {
                self.held += 1;
                ("held", why)
            }
        };
        self.say(word, standing.machine.as_ref().unwrap_or(&claim.lease), &claim.pool, &why)
    }

    /// The provisioner of a lease, from the file that the run used; `--plugin` replaces it.
    fn provisioner(&self, claim: &Claim) -> Result<Provisioner, Error> {
        let mut libraries = self.gc.libraries.clone();
        let replaced =
            registry(&libraries, self.state, &self.secrets)?.find(Kind::Provisioner, &claim.plugin.name);
        let named = replaced.is_ok_and(|offer| {
            self.gc.libraries.files.iter().any(|file| same_file(file, offer.library().path()))
        });
        if !named {
            let now = open::digest(&claim.plugin.path).unwrap_or_else(|_| "missing".to_owned());
            if now != claim.plugin.sha256 {
                tracing::warn!(
                    "plugin library {} is {} since the run; --plugin names another one",
                    claim.plugin.path.display(),
                    if now == "missing" { "gone" } else { "not the same any more" }
                );
            }
            libraries.files.push(claim.plugin.path.clone());
        }
        let entry = PluginUse::again(
            &claim.plugin.name,
            &claim.pool,
            &claim.base,
            &claim.configuration,
            claim.place.as_ref(),
            self.around,
            &self.secrets,
        )?;
        open::provisioner(&registry(&libraries, self.state, &self.secrets)?, &entry, &self.secrets)
    }

    /// Everything that an owner holds in the pools of a configuration, record or not.
    fn owner(&mut self, plan: &crate::config::RunPlan) -> Result<(), Error> {
        let alive = self.runs_alive()?;
        let registry = open::registry(&plan.libraries, plan.allow.strict, self.state, &self.secrets)?;
        for pool in &plan.pools {
            let provisioner = open::provisioner(&registry, &pool.provisioner, &self.secrets)?;
            let held = match self.patience.with(|| ask::list(&provisioner, &plan.owner)) {
                Ok(held) => held,
                Err(why) => {
                    self.held += 1;
                    self.say("unknown", "", pool.name(), &why)?;
                    continue;
                }
            };
            for one in held {
                if let Some(why) = &one.unknown {
                    self.held += 1;
                    self.say("unknown", &one.id, pool.name(), why)?;
                    continue;
                }
                if !is_of(&one.mark, &plan.owner) {
                    tracing::warn!(
                        "pool {}: its plugin lists {}, which is not of {}: left alone",
                        pool.name(),
                        printable(&one.id),
                        printable(&plan.owner)
                    );
                    continue;
                }
                let run = one.mark.rsplit('/').nth(1).unwrap_or_default();
                if alive.iter().any(|alive| alive == run) && !self.gc.force {
                    self.say(
                        "alive",
                        &one.id,
                        pool.name(),
                        "its run is alive; --force frees it all the same",
                    )?;
                    continue;
                }
                match self.patience.with(|| ask::release(&provisioner, &one.id, ask::RELEASE_LIMIT)) {
                    Ok(()) => {
                        self.freed += 1;
                        self.say("released", &one.id, pool.name(), "")?;
                    }
                    Err(error) => {
                        self.held += 1;
                        self.say("held", &one.id, pool.name(), &error)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs of this user on this box whose host lives.
    fn runs_alive(&self) -> Result<Vec<String>, Error> {
        let mut alive = Vec::new();
        for path in self.state.ledgers().map_err(Error::State)? {
            if let Err(LedgerError::Alive { .. }) = Ledger::open(&path) {
                alive.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        Ok(alive)
    }

    fn say(&self, what: &str, machine: &str, pool: &str, why: &str) -> Result<(), Error> {
        let why = &*self.secrets.mask(why);
        let mut out = io::stdout().lock();
        let written = if self.json {
            let line = serde_json::json!({"what": what, "machine": machine, "pool": pool, "why": why});
            writeln!(out, "{line}")
        } else {
            let pool = if pool.is_empty() { String::new() } else { format!(" of pool {}", printable(pool)) };
            let why = if why.is_empty() { String::new() } else { format!(": {}", printable(why)) };
            writeln!(out, "{what:<8} {}{pool}{why}", printable(machine))
        };
        written.map_err(Error::Output)
    }

    fn summary(&self) -> Result<(), Error> {
        if self.json {
            let line = serde_json::json!({"summary": {"released": self.freed, "held": self.held}});
            return writeln!(io::stdout(), "{line}").map_err(Error::Output);
        }
        let text = match (self.freed, self.held) {
            (0, 0) => "nothing is held by dead runs".to_owned(),
            (freed, 0) => format!("{freed} released, nothing is held any more"),
            (freed, held) => format!("{freed} released, {held} may still be held"),
        };
        writeln!(io::stdout(), "{text}").map_err(Error::Output)
    }
}

/// What was found, in the ledger; of what may still be there, that its host is dead.
fn write_down(ledger: &mut Ledger, standing: &Standing, found: &Found) -> Result<(), LedgerError> {
    let entry = match found {
        Found::Gone | Found::Freed => Entry::Released,
        Found::Held(_) if standing.dead_since.is_some() => return Ok(()),
        Found::Held(_) => Entry::FoundDead { at: unix_ms() },
    };
    ledger.write(&standing.claim.lease, entry)
}

/// Whether a mark, `OWNER/RUN/LEASE`, is of this owner; whose own name may have a slash.
fn is_of(mark: &str, owner: &str) -> bool {
    let rest = mark.strip_prefix(owner).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|rest| rest.matches('/').count() == 1)
}

fn registry(
    libraries: &crate::config::Libraries,
    state: &StateDir,
    secrets: &Secrets,
) -> Result<Arc<Registry>, Error> {
    open::registry(libraries, false, state, secrets)
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
