//! Containers of podman as machines.
//!
//! A container is named after its lease and labelled with its mark, so that every step can be repeated by any host. What
//! may take long and creates nothing (pulls and builds) is ended when the call is cancelled; `podman run`, which takes a
//! moment and does create something, is let to end and what it made is removed.
//!
//! A container whose time is over is stopped by podman itself (`--timeout`), but stays in its list, stopped, until it is
//! released: `--rm` would forbid restarts and take away the output that tells why a container died at once.

mod config;
mod image;

use std::collections::BTreeMap;
use std::time::Duration;

use atex_plugin_api::{
    Capabilities, Error, ErrorKind, ExecTransport, Held, Host, Lease, Machine, Plugin, Provisioner, Result,
    Transport,
};
use atex_plugin_process::{Call, Gate, Mark, Program, Reservations, last_lines, require, unix_now};
use serde::Deserialize;

pub use config::{Config, Pull};

/// The label that holds the lease's mark.
const LABEL: &str = "atex.mark";
/// What names of containers begin with; the lease's id follows.
const PREFIX: &str = "atex-";
/// How long creating or removing a container may take on a busy box.
const STEP_LIMIT: Duration = Duration::from_mins(2);
/// Between two questions to a systemd that is not up yet.
const PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of a list of containers; one takes about 1 KiB.
const LIST_LIMIT: usize = 64 << 20;

/// The provisioner `podman`.
#[derive(Debug)]
pub struct Podman {
    config: Config,
    /// Name of the pool, for the image that it builds.
    pool: String,
    /// Id of the image, once it is known: all machines of a run have the same.
    image: Gate<Option<String>>,
    reservations: Reservations,
}

/// One container, as `podman ps` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    names: Vec<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
}

impl Plugin for Podman {
    type Config = Config;
    const ABOUT: &'static str = "containers of podman on this box";

    fn new(config: Config, host: Host) -> Result<Self> {
        config.check()?;
        require(&config.program).map_err(|error| error.context("`program`"))?;
        Ok(Self {
            config,
            pool: host.facts().name,
            image: Gate::new(None),
            reservations: Reservations::default(),
        })
    }
}

impl Provisioner for Podman {
    const CAPABILITIES: Capabilities =
        Capabilities::LIST.and(Capabilities::EXPIRES).and(Capabilities::REBOOT).and(Capabilities::ALIVE);

    /// A `podman run` that outlives a killed host is through by then.
    const SETTLE: Duration = Duration::from_mins(5);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let call = Call::new(host)?;
        let _reservation = self.reservations.begin(&lease.id, &call)?;
        let image = self.image(&call)?;
        call.check()?;
        let name = format!("{PREFIX}{}", lease.id);
        let ready = self.create(&name, lease, &image, host).and_then(|()| self.wait_until_up(&name, &call));
        if let Err(error) = ready {
            let removed = Call::tidying(host, STEP_LIMIT).and_then(|call| self.remove(&name, &call));
            let Err(left) = removed else { return Err(error) };
            host.warn(format!("container {name} may be left behind: {left}"));
            return Err(error.uncertain());
        }
        let mut machine = Machine::new(&name, Transport::Exec(self.transport(&name)));
        machine.disposable = true;
        machine.expires = (lease.lifetime_s > 0).then(|| unix_now().saturating_add(lease.lifetime_s));
        Ok(machine)
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        if let Err(error) = ours(machine) {
            // Never made, so it is not there.
            host.warn(error.to_string());
            return Ok(());
        }
        self.remove(machine, &Call::new(host)?)
    }

    fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.reservations.stop(lease, call.remaining().unwrap_or(STEP_LIMIT))?;
        self.remove(&format!("{PREFIX}{lease}"), &call)
    }

    fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        let containers = self.containers(&format!("label={LABEL}"), &Call::new(host)?)?;
        let held = containers.into_iter().filter_map(|container| {
            let mark = container.labels?.remove(LABEL)?;
            Mark::is_of(&mark, owner).then(|| Some(Held::new(container.names.into_iter().next()?, mark)))?
        });
        Ok(held.collect())
    }

    fn alive(&self, machine: &str, host: &Host) -> Result<bool> {
        Ok(self.state(machine, &Call::new(host)?)?.is_some_and(|state| state == "running"))
    }

    fn reboot(&self, machine: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.podman(["restart", "--time=0", ours(machine)?]).check(&call).map(drop)
    }
}

impl Podman {
    fn podman<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Program {
        let words = std::iter::once(&self.config.program).chain(&self.config.global_args).cloned();
        Program::new(words.chain(args.into_iter().map(Into::into)))
    }

    fn transport(&self, name: &str) -> ExecTransport {
        let words = std::iter::once(&self.config.program).chain(&self.config.global_args).cloned();
        let mut argv: Vec<String> = words.chain(["exec", "-i"].map(str::to_owned)).collect();
        argv.extend(self.config.user.iter().map(|user| format!("--user={user}")));
        argv.push(name.to_owned());
        ExecTransport::new(argv)
    }

    /// Not ended by a cancelled call: a client that is killed half-way may leave storage that nothing finds again.
    fn create(&self, name: &str, lease: &Lease, image: &str, host: &Host) -> Result<()> {
        host.progress("starting the container");
        let call = Call::tidying(host, STEP_LIMIT)?;
        let lifetime = u32::try_from(lease.lifetime_s).unwrap_or(u32::MAX);
        let program = self
            .podman(["run", "--detach", "--pull=never"])
            .arg(format!("--name={name}"))
            .arg(format!("--label={LABEL}={}", lease.mark()))
            .arg(format!("--timeout={lifetime}"))
            .args(self.config.run_args())
            .arg(image);
        match program.make(&call) {
            Ok(()) => Ok(()),
            // This lease was reserved before, and its answer was lost.
            Err(_) if self.is_running(name, &lease.mark(), &call) => Ok(()),
            Err(error) => Err(error.context("starting the container")),
        }
    }

    fn is_running(&self, name: &str, mark: &str, call: &Call) -> bool {
        self.containers(&format!("name=^{name}$"), call).is_ok_and(|found| {
            found.iter().any(|container| {
                let marked = container.labels.as_ref().and_then(|labels| labels.get(LABEL));
                container.state == "running" && marked.is_some_and(|found| found == mark)
            })
        })
    }

    /// Until its first process runs, and systemd, if there is one, has started what it should.
    fn wait_until_up(&self, name: &str, call: &Call) -> Result<()> {
        loop {
            let state = self.state(name, call)?.unwrap_or_else(|| "gone".to_owned());
            if state != "running" {
                return Err(self.died(name, &state, call));
            }
            if !self.config.systemd {
                return Ok(());
            }
            call.host().progress("waiting for systemd");
            // Its exit status is 1 for everything but `running`.
            let answer = self.podman(["exec", name, "systemctl", "is-system-running"]).run(call)?;
            if matches!(answer.text().as_str(), "running" | "degraded") {
                return Ok(());
            }
            if answer.status.code().is_some_and(|status| matches!(status, 126 | 127)) {
                let message = "the image has no systemctl: use another image, or systemd=false";
                return Err(Error::config(message).with_detail(answer.stderr));
            }
            if call.wait(PAUSE) {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("waiting for systemd, which is {}", answer.text()),
                ));
            }
        }
    }

    fn died(&self, name: &str, state: &str, call: &Call) -> Error {
        let logs = self.podman(["logs", "--tail=20", name]).run(call);
        let said =
            logs.map(|logs| last_lines(&format!("{}\n{}", logs.text(), logs.stderr), 3)).unwrap_or_default();
        let what = if self.config.systemd {
            "is systemd in the image?"
        } else {
            "does the image have `sh` and `sleep`?"
        };
        Error::new(
            ErrorKind::Other,
            format!("the container is {state} right after its start ({what}) {said}"),
        )
    }

    /// `None` if there is no such container.
    fn state(&self, name: &str, call: &Call) -> Result<Option<String>> {
        let found = self.containers(&format!("name=^{}$", ours(name)?), call)?;
        Ok(found.into_iter().next().map(|container| container.state))
    }

    fn containers(&self, filter: &str, call: &Call) -> Result<Vec<Container>> {
        let program =
            self.podman(["ps", "--all", "--format=json", "--filter", filter]).output_limit(LIST_LIMIT);
        let json = program.check(call).map_err(|error| error.context("listing containers"))?;
        let containers: Option<Vec<Container>> = serde_json::from_str(&json)
            .map_err(|error| Error::from(error).context("reading podman's list of containers"))?;
        Ok(containers.unwrap_or_default())
    }

    fn remove(&self, name: &str, call: &Call) -> Result<()> {
        let program = self.podman(["rm", "--force", "--ignore", "--volumes", "--time=0", ours(name)?]);
        program.check(call).map(drop).map_err(|error| error.context(format!("removing container {name}")))
    }
}

/// Only what this plugin can have made is ever touched; neither can a name be taken for an option.
fn ours(name: &str) -> Result<&str> {
    let fits = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match name.strip_prefix(PREFIX) {
        Some(rest) if fits(rest) => Ok(name),
        _ => Err(Error::new(ErrorKind::Other, format!("{name:?} is no container of ours")).retryable(false)),
    }
}

atex_plugin_api::export_plugin! {
    provisioner "podman" => Podman,
}
