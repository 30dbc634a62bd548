//! A pool of machines that are there already, lent by SSH to one run at a time.
//!
//! Who uses a machine is written on the machine itself (see [`claim`]), so hosts on different boxes need no service to agree,
//! and a claim ends by itself when its time is over. A machine that fails is put aside and tried again later. A machine
//! whose reset failed stays claimed until its lease ends: it is lent to nobody in the state it is in.
//!
//! The id of a machine is `LEASE@ADDRESS`: what is given back is that lease's claim, never another's.

mod claim;
mod config;
mod hosts;
mod pool;
mod remote;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use atex_plugin_api::{
    Capabilities, Error, ErrorKind, Held, Host, Lease, Plugin, Provisioner, Result, SshTransport, Transport,
};
use atex_plugin_process::{Call, Gate, Mark, Program, Reservations, last_lines, quote, require, unix_now};

use claim::{Act, Claim, Told};
use hosts::{Address, Machine};
use pool::{Pool, Tally};
use remote::{Broken, QUICK};

pub use config::{Config, KeyCheck, Spoilt};
pub use hosts::{Entry, FullEntry};

/// How many machines are asked at a time when all are.
const AT_A_TIME: usize = 16;
/// How long the answer of `hosts-command` is good for.
const LIST_AGE: Duration = Duration::from_mins(1);
/// How long tidying up one machine may take.
const TIDY_LIMIT: Duration = Duration::from_secs(45);

/// The provisioner `ssh`.
#[derive(Debug)]
pub struct Ssh {
    config: Config,
    /// For known hosts.
    state_dir: PathBuf,
    pool: Mutex<Pool>,
    /// What `hosts-command` told, and when.
    told: Gate<Option<(Instant, Vec<Machine>)>>,
    reservations: Reservations,
}

impl Plugin for Ssh {
    type Config = Config;
    const ABOUT: &'static str = "a pool of machines that are there already, by SSH";

    fn new(config: Config, host: Host) -> Result<Self> {
        config.check()?;
        require(&config.program).map_err(|error| error.context("`program`"))?;
        let state_dir = host.state_dir()?;
        let ssh = Self {
            config,
            state_dir,
            pool: Mutex::default(),
            told: Gate::new(None),
            reservations: Reservations::default(),
        };
        if ssh.config.hosts_command.is_empty() {
            ssh.written_down()?;
        }
        Ok(ssh)
    }
}

impl Provisioner for Ssh {
    const CAPABILITIES: Capabilities = Capabilities::LIST
        .and(Capabilities::EXPIRES)
        .and(Capabilities::RENEW)
        .and(Capabilities::ALIVE)
        .and(Capabilities::REBOOT);

    /// A claim that was being made when the host died is made within seconds, or not at all.
    const SETTLE: Duration = Duration::from_mins(1);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<atex_plugin_api::Machine> {
        let call = Call::new(host)?;
        let _reservation = self.reservations.begin(&lease.id, &call)?;
        let machines = self.machines(&call)?;
        let (fit, unfit): (Vec<_>, Vec<_>) = machines.into_iter().partition(|machine| fits(machine, lease));
        let mut tally = Tally { unfit: unfit.len() as u32, ..Tally::default() };
        let mut tried = Vec::new();
        loop {
            call.check()?;
            let machine = self.pool().take(&fit, &tried, &lease.id, self.config.reuse, Instant::now());
            let Some(machine) = machine else { break };
            tried.push(machine.address.clone());
            match self.borrow(machine, lease, &call) {
                Ok(Told::Claimed) => return Ok(self.lent(machine, lease, host)),
                Ok(told) => {
                    self.pool().put_back(&machine.address);
                    if matches!(told, Told::Retired(_)) { tally.spoilt += 1 } else { tally.lent += 1 }
                }
                Err(error) if call.cancelled() => {
                    self.pool().put_back(&machine.address);
                    return Err(error);
                }
                Err(error) => tally.failed.push(self.put_aside(&machine.address, &error, host)),
            }
        }
        for machine in fit.iter().filter(|machine| !tried.contains(&machine.address)) {
            self.pool().count(&machine.address, self.config.reuse, Instant::now(), &mut tally);
        }
        Err(none_free(&tally))
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        match self.by_id(machine) {
            Ok((lease, machine)) => self.give_back(lease, &machine, &Call::new(host)?),
            Err(error) => {
                // Never lent, so it is not held.
                host.warn(error.to_string());
                Ok(())
            }
        }
    }

    fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.reservations.stop(lease, call.remaining().unwrap_or(TIDY_LIMIT))?;
        let known = self.pool().of_lease(lease);
        let ids = match known {
            Some(address) => vec![format!("{lease}@{address}")],
            None => self
                .find(|mark| mark.lease == lease, &call)?
                .into_iter()
                .filter(|held| held.unknown.is_none())
                .map(|held| held.id)
                .collect(),
        };
        ids.iter().try_for_each(|id| {
            let (lease, machine) = self.by_id(id)?;
            self.give_back(lease, &machine, &call)
        })
    }

    /// A machine that cannot be reached is told as unknown: a claim on it ends by itself.
    fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        self.find(|mark| owner.is_empty() || mark.owner == owner, &Call::new(host)?)
    }

    fn alive(&self, machine: &str, host: &Host) -> Result<bool> {
        let (lease, machine) = self.by_id(machine)?;
        let told = self.act(&machine, &self.claim_of(lease), Act::State, &Call::new(host)?);
        Ok(told.map_err(|broken| broken.error)? == Told::Claimed)
    }

    fn renew(&self, machine: &str, lifetime: Duration, host: &Host) -> Result<Option<u64>> {
        let call = Call::new(host)?;
        let (lease, machine) = self.by_id(machine)?;
        let mark = self.mark_of(lease, &machine, &call)?;
        let holder = holder();
        let claim =
            Claim { mark: &mark, holder: &holder, lifetime_s: lifetime.as_secs(), ..self.claim_of(lease) };
        match self.act(&machine, &claim, Act::Renew, &call).map_err(|broken| broken.error)? {
            Told::Claimed => Ok(Some(unix_now().saturating_add(lifetime.as_secs()))),
            told => Err(lost(&machine.address, &told)),
        }
    }

    fn reboot(&self, machine: &str, host: &Host) -> Result<()> {
        if self.config.power_cycle.is_empty() {
            return Err(Error::unsupported("no `power-cycle` command is configured for this pool"));
        }
        let (_, machine) = self.by_id(machine)?;
        let words = self.config.power_cycle.iter().map(|word| word.replace("{host}", &machine.address.host));
        Program::new(words).check(&Call::new(host)?).map(drop)
    }

    fn capacity(&self, host: &Host) -> Result<Option<u64>> {
        Ok(Some(self.machines(&Call::new(host)?)?.len() as u64))
    }
}

impl Ssh {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machines as they are written down just now.
    fn machines(&self, call: &Call) -> Result<Vec<Machine>> {
        if self.config.hosts_command.is_empty() {
            return self.written_down();
        }
        let mut told = self.told.enter(call)?;
        if let Some((_, machines)) = told.as_ref().filter(|(time, _)| time.elapsed() < LIST_AGE) {
            return Ok(machines.clone());
        }
        let text = Program::new(&self.config.hosts_command).check(call);
        let entries = hosts::parse_lines(&text.map_err(|error| error.context("`hosts-command`"))?)?;
        let machines = self.read(&entries).map_err(|error| error.context("`hosts-command`"))?;
        *told = Some((Instant::now(), machines.clone()));
        Ok(machines)
    }

    fn written_down(&self) -> Result<Vec<Machine>> {
        let Some(file) = &self.config.hosts_file else { return self.read(&self.config.hosts) };
        let place = || format!("`hosts-file` {}", file.display());
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::config(format!("{}: {error}", place())))?;
        let read = hosts::parse_lines(&text).and_then(|entries| self.read(&entries));
        read.map_err(|error| error.context(place()))
    }

    fn read(&self, entries: &[Entry]) -> Result<Vec<Machine>> {
        let (user, port) = (self.config.user.as_deref(), self.config.port);
        let mut machines: Vec<Machine> = Vec::with_capacity(entries.len());
        let mut seen = std::collections::HashSet::new();
        for entry in entries {
            let machine = entry.machine(user, port)?;
            if !seen.insert(machine.address.clone()) {
                return Err(Error::config(format!("host {} is there twice", machine.address)));
            }
            machines.push(machine);
        }
        if machines.is_empty() {
            return Err(Error::config("there are no hosts"));
        }
        Ok(machines)
    }

    /// Claims a machine and looks whether it is fit. Whatever goes wrong, no claim is left.
    fn borrow(&self, machine: &Machine, lease: &Lease, call: &Call) -> Result<Told> {
        call.host().progress(format!("asking {}", machine.address));
        let (mark, holder) = (lease.mark(), holder());
        let claim =
            Claim { mark: &mark, holder: &holder, lifetime_s: lease.lifetime_s, ..self.claim_of(&lease.id) };
        let told = match self.act(machine, &claim, Act::Claim, call) {
            Ok(Told::Claimed) => self.fit(machine, call).map(|()| Told::Claimed),
            Ok(told) => return Ok(told),
            Err(Broken { error, begun: false }) => return Err(error),
            Err(Broken { error, .. }) => Err(error),
        };
        // Also when the call was cancelled at the last moment: nobody would give the machine back.
        let told = told.and_then(|told| call.check().map(|()| told));
        told.map_err(|failed| self.tidied(machine, &lease.id, failed, call.host()))
    }

    /// Takes a claim back. If that cannot be done, the error says that it may be left.
    fn tidied(&self, machine: &Machine, lease: &str, failed: Error, host: &Host) -> Error {
        let done = Call::tidying(host, TIDY_LIMIT).and_then(|call| {
            self.act(machine, &self.claim_of(lease), Act::Release, &call).map_err(|broken| broken.error)
        });
        let Err(error) = done else { return failed };
        host.warn(format!("a claim may be left on {}, which ends by itself: {error}", machine.address));
        failed.uncertain()
    }

    fn fit(&self, machine: &Machine, call: &Call) -> Result<()> {
        let Some(check) = &self.config.check else { return Ok(()) };
        self.shell("check", check, self.config.check_timeout.0, machine, call)
    }

    /// Resets the machine and gives the claim up, if it is still ours.
    fn give_back(&self, lease: &str, machine: &Machine, call: &Call) -> Result<()> {
        let claim = self.claim_of(lease);
        let spoilt = call.host().facts().spoilt;
        if self.config.reset.is_some() || spoilt {
            // Only what is ours is touched; somebody else may have the machine by now.
            let told = self.act(machine, &claim, Act::State, call).map_err(|broken| broken.error)?;
            if told == Told::Claimed {
                self.restore(lease, machine, call)?;
            }
        }
        self.act(machine, &claim, Act::Release, call).map_err(|broken| broken.error)?;
        self.pool().handed_back(&machine.address, lease);
        Ok(())
    }

    /// Resets a machine that is handed back. One that is spoilt and cannot be reset is lent on with a warning, or retired.
    fn restore(&self, lease: &str, machine: &Machine, call: &Call) -> Result<()> {
        let (host, address) = (call.host(), &machine.address);
        if let Some(reset) = &self.config.reset {
            host.progress(format!("resetting {address}"));
            let done = self.shell("reset", reset, self.config.reset_timeout.0, machine, call);
            return done.map_err(|error| error.context("it stays claimed until its lease ends"));
        }
        if self.config.spoilt == Spoilt::Lend {
            host.warn(format!(
                "{address} is spoilt and nothing resets it: it will be lent as it is; `reset` or `spoilt: retire` would help"
            ));
            self.pool().spoilt(address);
            return Ok(());
        }
        let holder = holder();
        let claim = Claim { mark: lease, holder: &holder, ..self.claim_of(lease) };
        self.act(machine, &claim, Act::Retire, call).map_err(|broken| broken.error)?;
        let file = format!("{}/retired", self.config.claim_directory);
        host.warn(format!(
            "{address} is spoilt and retired: it is lent to nobody until {file} on it is removed"
        ));
        Ok(())
    }

    /// A command of the configuration on the machine. Its limit holds there too: a command outlives its connection.
    fn shell(
        &self,
        name: &str,
        command: &str,
        limit: Duration,
        machine: &Machine,
        call: &Call,
    ) -> Result<()> {
        const OVER: i32 = 124;
        let (seconds, command) = (limit.as_secs().max(1), quote(command));
        let script = format!(
            "set -- sh -c {command}\nif command -v timeout > /dev/null; then set -- timeout {seconds} \"$@\"; fi\n\
             exec \"$@\" < /dev/null\n"
        );
        let limit = Duration::from_secs(seconds).saturating_add(QUICK);
        let output = self.run(machine, script, limit, call).map_err(|broken| broken.error)?;
        let said = || last_lines(&format!("{}\n{}", output.text(), output.stderr), 2);
        let what = match output.status.code() {
            Some(0) => return Ok(()),
            Some(OVER) => format!("took longer than {seconds} s: {}", said()),
            _ => format!("ended with {}: {}", output.status, said()),
        };
        Err(Error::new(ErrorKind::Other, format!("{}: `{name}` {what}", machine.address)))
    }

    fn act(&self, machine: &Machine, claim: &Claim<'_>, act: Act, call: &Call) -> Result<Told, Broken> {
        let output = self.run(machine, claim.script(act), QUICK, call)?;
        let told = claim::read(&output.text());
        told.map_err(|error| Broken { error: error.context(machine.address.to_string()), begun: true })
    }

    fn run(
        &self,
        machine: &Machine,
        script: String,
        limit: Duration,
        call: &Call,
    ) -> Result<atex_plugin_process::Output, Broken> {
        remote::run(&self.config, &self.state_dir, machine, script, limit, call)
    }

    fn claim_of<'a>(&'a self, lease: &'a str) -> Claim<'a> {
        Claim { directory: &self.config.claim_directory, lease, mark: "", holder: "", lifetime_s: 0 }
    }

    /// The machine as the host gets it.
    fn lent(&self, machine: &Machine, lease: &Lease, host: &Host) -> atex_plugin_api::Machine {
        let (used, spoilt) = self.pool().works(&machine.address);
        if spoilt {
            host.warn(format!("{} was left spoilt by an earlier test of this run", machine.address));
        } else if used > 0 && self.config.reset.is_none() {
            let message =
                "was used by this run before and nothing resets it; `reset` or `reuse: false` would help";
            host.warn(format!("{} {message}", machine.address));
        }
        let mut transport = SshTransport::new(&machine.address.host);
        transport.port = machine.address.port;
        transport.user.clone_from(&machine.address.user);
        transport.keys.clone_from(machine.keys.as_ref().unwrap_or(&self.config.keys));
        // It could be read a moment ago, when the machine was claimed.
        let password = remote::password(&self.config, machine).ok().flatten();
        transport.password = password.map(|password| password.expose().to_owned());
        transport.jump.clone_from(machine.jump.as_ref().unwrap_or(&self.config.jump));
        transport.sudo = machine.sudo.clone().or_else(|| self.config.sudo.clone());
        transport.host_key_check = self.config.host_key_check.for_transport();
        let id = format!("{}@{}", lease.id, machine.address);
        let mut lent = atex_plugin_api::Machine::new(id, Transport::Ssh(transport));
        lent.facts.clone_from(&machine.facts);
        lent.expires = Some(unix_now().saturating_add(lease.lifetime_s));
        lent
    }

    fn put_aside(&self, address: &Address, error: &Error, host: &Host) -> String {
        let reason = error.to_string();
        let pause = self.pool().failed(address, &reason, self.config.retry_after.0, Instant::now());
        host.warn(format!("put aside for {} s: {reason}", pause.as_secs()));
        reason
    }

    /// The lease and the machine of an id. A machine that is no longer in the pool is reached by the pool's options.
    fn by_id<'a>(&self, id: &'a str) -> Result<(&'a str, Machine)> {
        let wrong =
            || Error::new(ErrorKind::Other, format!("{id:?} is no machine of this pool")).retryable(false);
        let (lease, address) = id.split_once('@').ok_or_else(wrong)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !lease.starts_with('a') || !lease.bytes().all(fits) {
            return Err(wrong());
        }
        let address = Address::parse(address)?;
        // A list that cannot be read now is no reason to keep a machine.
        let inline = self.written_down().unwrap_or_default();
        let found = inline.into_iter().find(|machine| machine.address == address);
        let bare = || Machine {
            address,
            keys: None,
            password: None,
            jump: None,
            sudo: None,
            facts: atex_plugin_api::Facts::new(),
        };
        Ok((lease, found.unwrap_or_else(bare)))
    }

    fn mark_of(&self, lease: &str, machine: &Machine, call: &Call) -> Result<String> {
        let told =
            self.act(machine, &self.claim_of(lease), Act::List, call).map_err(|broken| broken.error)?;
        let Told::Marks(marks) = told else { return Err(lost(&machine.address, &told)) };
        let ours = |mark: &String| Mark::parse(mark).is_some_and(|mark| mark.lease == lease);
        marks.into_iter().find(ours).ok_or_else(|| lost(&machine.address, &Told::Free))
    }

    /// Claims on all machines of the pool whose mark is wanted.
    fn find(&self, wanted: impl Fn(&Mark<'_>) -> bool + Sync, call: &Call) -> Result<Vec<Held>> {
        let machines = self.machines(call)?;
        let (next, found) = (std::sync::atomic::AtomicUsize::new(0), Mutex::new(Vec::new()));
        let ask = || {
            while let Some(machine) = machines.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                match self.act(machine, &self.claim_of("a"), Act::List, call) {
                    Ok(Told::Marks(marks)) => {
                        let held = marks.iter().filter_map(|text| {
                            let mark = Mark::parse(text).filter(|mark| wanted(mark))?;
                            Some(Held::new(format!("{}@{}", mark.lease, machine.address), text))
                        });
                        found.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
                    }
                    Ok(_) => {}
                    Err(broken) => {
                        let unknown = Held::unknown(machine.address.to_string(), broken.error.to_string());
                        found.lock().unwrap_or_else(PoisonError::into_inner).push(unknown);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..machines.len().min(AT_A_TIME) {
                // Without another thread the remaining ones do it.
                let _ = thread::Builder::new().name("ssh-list".into()).spawn_scoped(scope, ask);
            }
            ask();
        });
        call.check()?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether nothing that is written down of the machine speaks against it. The host compares the rest once it is there.
fn fits(machine: &Machine, lease: &Lease) -> bool {
    let wanted = lease.context.get("arch");
    machine.facts.get("arch").is_none_or(|arch| wanted.is_none_or(|wanted| wanted.contains(arch)))
}

/// This box, for people who wonder who has their machine.
fn holder() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown box".to_owned() } else { name.trim().to_owned() }
}

fn lost(address: &Address, told: &Told) -> Error {
    let why = match told {
        Told::Busy(by) => format!("{by} has it"),
        _ => "the claim is gone".to_owned(),
    };
    Error::new(ErrorKind::Other, format!("{address} is no longer ours: {why}")).retryable(false)
}

fn none_free(tally: &Tally) -> Error {
    let mut parts = Vec::new();
    for (count, what) in [
        (tally.lent, "lent"),
        (tally.retired, "used up (reuse: false)"),
        (tally.spoilt, "retired"),
        (tally.unfit, "of another arch"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if let Some(reason) = tally.failed.last() {
        parts.push(format!("{} failed, the last one: {reason}", tally.failed.len()));
    }
    let kind =
        if tally.lent > 0 || tally.failed.is_empty() { ErrorKind::Busy } else { ErrorKind::Unreachable };
    let never = tally.lent == 0 && tally.failed.is_empty();
    Error::new(kind, format!("no machine of the pool is free: {}", parts.join(", "))).retryable(!never)
}

atex_plugin_api::export_plugin! {
    provisioner "ssh" => Ssh,
}
