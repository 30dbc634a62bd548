//! Throw-away clones of a virtual machine of libvirt, through `virsh`.
//!
//! A clone is a transient domain whose disks are overlays that libvirt makes and removes by itself (see [`domain`]): its origin
//! is only read, and `virsh destroy` leaves nothing. A clone is named after its lease, and its mark is its description.
//!
//! `virsh create`, which takes a moment and does create something, is let to end when the call is cancelled; what it made is
//! destroyed. If it gets no answer in time, libvirt may still start the clone: then the host is told that nobody knows.

mod config;
mod domain;

use std::net::TcpListener;
use std::time::Duration;

use atex_plugin_api::{
    Capabilities, Error, ErrorKind, Held, Host, HostKeyCheck, Lease, Machine, Plugin, Provisioner, Result,
    SshTransport, Transport,
};
use atex_plugin_process::{Call, Mark, Program, Reservations, last_lines, require};

use domain::{Difference, Domain};

pub use config::{AddressSource, Config, Reach};

/// What names of clones begin with; the lease's id follows.
const PREFIX: &str = "atex-";
/// How long one command of virsh may take.
const STEP_LIMIT: Duration = Duration::from_mins(2);
/// Between two attempts to find or to enter a guest.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one attempt to log in may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);

/// The provisioner `libvirt`.
#[derive(Debug)]
pub struct Libvirt {
    config: Config,
    reservations: Reservations,
}

/// Where a guest listens.
#[derive(Debug, Clone)]
struct Place {
    host: String,
    port: u16,
}

impl Plugin for Libvirt {
    type Config = Config;
    const ABOUT: &'static str = "throw-away clones of a virtual machine of libvirt";

    fn new(config: Config, _: Host) -> Result<Self> {
        config.check()?;
        require(&config.virsh).map_err(|error| error.context("`virsh`"))?;
        require(&config.ssh).map_err(|error| error.context("`ssh`"))?;
        Ok(Self { config, reservations: Reservations::default() })
    }
}

impl Provisioner for Libvirt {
    const CAPABILITIES: Capabilities = Capabilities::LIST.and(Capabilities::ALIVE).and(Capabilities::REBOOT);

    /// A `virsh create` that outlives a killed host is through by then.
    const SETTLE: Duration = Duration::from_mins(5);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let call = Call::new(host)?;
        let _reservation = self.reservations.begin(&lease.id, &call)?;
        let name = format!("{PREFIX}{}", lease.id);
        let origin = self.origin(&call)?;
        call.check()?;
        let ready =
            self.start(&name, lease, &origin, host).and_then(|port| self.until_up(&name, port, lease, &call));
        match ready {
            Ok(place) => Ok(self.machine(name, &place)),
            Err(error) => {
                let removed = Call::tidying(host, STEP_LIMIT).and_then(|call| self.destroy(&name, &call));
                let Err(left) = removed else { return Err(error) };
                host.warn(format!("domain {name} may be left behind: {left}"));
                Err(error.uncertain())
            }
        }
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        if !is_ours(machine) {
            host.warn(format!("{machine:?} is no clone of ours"));
            return Ok(());
        }
        self.destroy(machine, &Call::new(host)?)
    }

    fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.reservations.stop(lease, call.remaining().unwrap_or(STEP_LIMIT))?;
        self.destroy(&format!("{PREFIX}{lease}"), &call)
    }

    fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        let call = Call::new(host)?;
        let mut held = Vec::new();
        for name in self.clones(&call)? {
            let description = self.virsh(["desc", &name]).run(&call)?;
            if !description.status.success() {
                // It may have ended since.
                if self.clones(&call)?.contains(&name) {
                    held.push(Held::unknown(name, description.stderr.trim()));
                }
            } else if Mark::is_of(&description.text(), owner) {
                held.push(Held::new(&name, description.text()));
            }
        }
        Ok(held)
    }

    fn alive(&self, machine: &str, host: &Host) -> Result<bool> {
        let call = Call::new(host)?;
        Ok(self.clones(&call)?.iter().any(|name| name == machine))
    }

    fn reboot(&self, machine: &str, host: &Host) -> Result<()> {
        if !is_ours(machine) {
            return Err(
                Error::new(ErrorKind::Other, format!("{machine:?} is no clone of ours")).retryable(false)
            );
        }
        self.virsh(["reset", machine]).check(&Call::new(host)?).map(drop)
    }
}

impl Libvirt {
    fn virsh<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Program {
        let mut program = Program::new([self.config.virsh.as_str(), "--quiet"]);
        if let Some(uri) = &self.config.uri {
            program = program.args(["--connect", uri]);
        }
        // Its words are read: they must not be translated.
        program.args(args.into_iter().map(Into::into)).env("LC_ALL", "C").limit(STEP_LIMIT)
    }

    /// The domain to clone, if it is at rest: a disk that somebody writes to must not be read by clones.
    fn origin(&self, call: &Call) -> Result<Domain> {
        let name = &self.config.domain;
        let state = self.virsh(["domstate", "--", name]).check(call);
        let state = state.map_err(|error| error.context(format!("looking for domain {name}")))?;
        if state != "shut off" {
            let message = format!("domain {name} is {state}; clones need it shut off: virsh shutdown {name}");
            return Err(Error::config(message));
        }
        Domain::parse(&self.virsh(["dumpxml", "--inactive", "--security-info", "--", name]).check(call)?)
    }

    /// Starts the clone; says which port leads to it, if one does.
    fn start(&self, name: &str, lease: &Lease, origin: &Domain, host: &Host) -> Result<Option<u16>> {
        host.progress("starting the clone");
        let call = Call::tidying(host, STEP_LIMIT)?;
        let forward = match self.config.reach.unwrap_or_else(|| origin.usual_reach()) {
            Reach::Forward => Some(free_port()?),
            Reach::Address => None,
        };
        // This lease was reserved before, and its answer was lost: nobody uses that one.
        self.destroy(name, &call)?;
        let mark = lease.mark();
        let xml = origin.clone_with(&self.config, &Difference { name, mark: &mark, forward })?;
        let created = self.virsh(["create", "/dev/stdin"]).stdin(xml).make(&call);
        created.map_err(|error| error.context(format!("starting a clone of {}", self.config.domain)))?;
        Ok(forward)
    }

    /// Until the guest lets us in.
    fn until_up(&self, name: &str, port: Option<u16>, lease: &Lease, call: &Call) -> Result<Place> {
        let mut reason = "it has no address".to_owned();
        loop {
            if let Some(place) = self.place(name, port, call)? {
                match self.log_in(&place, lease, call)? {
                    None => return Ok(place),
                    Some(refused) => reason = refused,
                }
            }
            call.host().progress(format!("waiting for the guest: {reason}"));
            if !self.clones(call)?.iter().any(|clone| clone == name) {
                return Err(Error::new(
                    ErrorKind::Other,
                    format!("the clone ended while it was waited for: {reason}"),
                ));
            }
            if call.wait(PAUSE) {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("given up waiting for the guest: {reason}"),
                ));
            }
        }
    }

    fn place(&self, name: &str, port: Option<u16>, call: &Call) -> Result<Option<Place>> {
        if let Some(port) = port {
            return Ok(Some(Place { host: "127.0.0.1".to_owned(), port }));
        }
        let source = self.config.address_source.word();
        let found = self.virsh(["domifaddr", name, "--source", source]).run(call)?;
        Ok(first_address(&found.text()).map(|host| Place { host, port: self.config.port }))
    }

    /// `Some` tells why the guest does not let us in yet. What sees to its end is started with the first login.
    fn log_in(&self, place: &Place, lease: &Lease, call: &Call) -> Result<Option<String>> {
        // It ignores the end of its session, and needs nothing but a shell.
        let timer = format!(
            "sh -c 'trap \"\" HUP; sleep {}; poweroff -f || sudo -n poweroff || poweroff' > /dev/null 2>&1 < /dev/null & exit 0",
            lease.lifetime_s
        );
        let command = if self.config.power_off && lease.lifetime_s > 0 { timer } else { "true".to_owned() };
        let mut program = Program::new([self.config.ssh.as_str(), "-T"]);
        for (key, value) in &self.config.ssh_options {
            program = program.arg(format!("-o{key}={value}"));
        }
        program = program
            .args(["-oBatchMode=yes", "-oConnectTimeout=10", "-oLogLevel=ERROR"])
            .args([
                "-oStrictHostKeyChecking=no",
                "-oUserKnownHostsFile=/dev/null",
                "-oGlobalKnownHostsFile=/dev/null",
            ])
            .args(self.config.keys.iter().map(|key| format!("-i{key}")))
            .args([format!("-l{}", self.config.user), format!("-p{}", place.port)])
            .args(["--", &place.host, &command])
            .limit(LOGIN_LIMIT)
            .grace(Duration::ZERO);
        match program.run(call) {
            Ok(output) if output.status.success() => Ok(None),
            Ok(output) => Ok(Some(last_lines(&output.stderr, 1))),
            Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Config) => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Names of all clones that are there.
    fn clones(&self, call: &Call) -> Result<Vec<String>> {
        let names = self.virsh(["list", "--all", "--name"]).check(call);
        let names = names.map_err(|error| error.context("listing domains"))?;
        Ok(names.lines().map(str::trim).filter(|name| is_ours(name)).map(str::to_owned).collect())
    }

    fn destroy(&self, name: &str, call: &Call) -> Result<()> {
        let output = self.virsh(["destroy", name]).run(call)?;
        // Whatever it says, what counts is whether it is gone.
        if output.status.success() || !self.clones(call)?.iter().any(|clone| clone == name) {
            return Ok(());
        }
        let message = format!("domain {name} cannot be destroyed: {}", last_lines(&output.stderr, 2));
        Err(Error::new(ErrorKind::Other, message))
    }

    fn machine(&self, name: String, place: &Place) -> Machine {
        let mut transport = SshTransport::new(&place.host);
        transport.port = Some(place.port);
        transport.user = Some(self.config.user.clone());
        transport.keys.clone_from(&self.config.keys);
        transport.sudo.clone_from(&self.config.sudo);
        transport.host_key_check = HostKeyCheck::Off;
        let mut machine = Machine::new(name, Transport::Ssh(transport));
        machine.disposable = true;
        machine
    }
}

/// Only what this plugin can have made is ever touched; neither can a name be taken for an option.
fn is_ours(name: &str) -> bool {
    let fits = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.strip_prefix(PREFIX).is_some_and(fits)
}

/// A port that is free now. If somebody takes it before qemu does, starting the clone fails, and is tried again by the host.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(|error| Error::from(error).context("looking for a free port"))?.port())
}

/// The first address that leads out of the guest, in a table such as virsh prints.
fn first_address(table: &str) -> Option<String> {
    let words = table.split_whitespace().filter_map(|word| word.split_once('/')).map(|(address, _)| address);
    let addresses: Vec<std::net::IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
    let usable = |address: &&std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        std::net::IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    addresses.iter().find(usable).map(ToString::to_string)
}

atex_plugin_api::export_plugin! {
    provisioner "libvirt" => Libvirt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_tables() {
        let table = " lo         00:00:00:00:00:00    ipv4         127.0.0.1/8\n \
             vnet0      52:54:00:aa:bb:cc    ipv6         fe80::1/64\n -  -  ipv4  192.168.122.7/24\n";
        assert_eq!(first_address(table).as_deref(), Some("192.168.122.7"));
        assert_eq!(first_address("error: nothing/here"), None);
        assert_eq!(first_address(""), None);
    }

    #[test]
    fn only_clones_are_ours() {
        assert!(is_ours("atex-a0192f0c1-0000"));
        for name in ["golden", "atex-", "atex-a b", "--all", "atex-*"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
