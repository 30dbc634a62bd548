//! Machines from any program: one process per request, one line of JSON in, one line of JSON out.
//!
//! The protocol is described in `docs/provisioner-exec.md`; its words are in [`protocol`]. A process per request keeps
//! programs simple (a shell script will do), makes requests independent of each other, and lets a cancelled request be ended
//! by ending its process group.
//!
//! Invariant: whenever a `reserve` did not come to an orderly end (an answer that was understood, and exit status 0), the
//! program is asked to `abort` that lease before the call returns.

pub mod protocol;

use std::collections::BTreeMap;
use std::time::Duration;

use atex_plugin_api::{
    Capabilities, Error, ErrorKind, Held, Host, Lease, Machine, Plugin, Provisioner, Result, Secret,
};
use atex_plugin_process::{Call, Program, Reservations, Span, require};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use protocol::{Answer, Ask, Lines, Request};

/// How long `abort` may take.
const ABORT_LIMIT: Duration = Duration::from_mins(1);

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The program: a path, a name that is looked for in PATH, or a list of the program and its arguments.
    pub program: Words,
    /// Goes to the program with every request, as `options`.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Environment variables for the program, beside those of the host.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// More environment variables, whose values are never shown.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// How long the program may tidy up after SIGTERM, when a request is cancelled, before it is killed. Default: 5s.
    #[serde(default = "default_grace")]
    pub grace: Span,
}

fn default_grace() -> Span {
    Span::seconds(5)
}

/// A program with or without arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a program, or a list of a program and its arguments")]
pub enum Words {
    /// Only the program; blanks are part of its name.
    One(String),
    /// The program and its arguments.
    Many(Vec<String>),
}

impl Words {
    fn argv(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        }
    }
}

/// The provisioner `exec`.
#[derive(Debug)]
pub struct Exec {
    config: Config,
    reservations: Reservations,
}

impl Plugin for Exec {
    type Config = Config;
    const ABOUT: &'static str = "machines from any program that speaks a line of JSON per request";

    fn new(config: Config, _: Host) -> Result<Self> {
        let program = config.program.argv().first().filter(|program| !program.is_empty());
        let program =
            program.ok_or_else(|| Error::config("`program` is empty: name a program, e.g. `./lab.py`"))?;
        require(program).map_err(|error| error.context("`program`"))?;
        for name in config.env.keys().chain(config.secrets.keys()) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Error::config(format!("{name:?} cannot be the name of an environment variable")));
            }
        }
        Ok(Self { config, reservations: Reservations::default() })
    }
}

impl Provisioner for Exec {
    const CAPABILITIES: Capabilities =
        Capabilities::LIST.and(Capabilities::ALIVE).and(Capabilities::RENEW).and(Capabilities::REBOOT);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let call = Call::new(host)?;
        let _reservation = self.reservations.begin(&lease.id, &call)?;
        let limit = Duration::from_secs(lease.timeout_s);
        let mark = lease.mark();
        match self.ask(&Ask::Reserve { lease, mark: &mark }, Some(limit), &call) {
            Ok(Answer { machine: Some(machine), .. }) => Ok(machine),
            Ok(_) => Err(self.tidied(&lease.id, self.nonsense("answered `reserve` without `machine`"), host)),
            Err(Failed { error, orderly: true }) => Err(error),
            Err(Failed { error, orderly: false }) => Err(self.tidied(&lease.id, error, host)),
        }
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        self.simple(&Ask::Release { machine }, &Call::new(host)?).map(drop)
    }

    fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.reservations.stop(lease, call.remaining().unwrap_or(ABORT_LIMIT))?;
        self.simple(&Ask::Abort { lease }, &call).map(drop)
    }

    fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        let answer = self.simple(&Ask::List { owner }, &Call::new(host)?)?;
        answer.held.ok_or_else(|| self.nonsense("answered `list` without `held`"))
    }

    fn alive(&self, machine: &str, host: &Host) -> Result<bool> {
        let answer = self.simple(&Ask::Alive { machine }, &Call::new(host)?)?;
        answer.alive.ok_or_else(|| self.nonsense("answered `alive` without `alive`"))
    }

    fn renew(&self, machine: &str, lifetime: Duration, host: &Host) -> Result<Option<u64>> {
        let ask = Ask::Renew { machine, lifetime_s: lifetime.as_secs() };
        Ok(self.simple(&ask, &Call::new(host)?)?.expires)
    }

    fn reboot(&self, machine: &str, host: &Host) -> Result<()> {
        self.simple(&Ask::Reboot { machine }, &Call::new(host)?).map(drop)
    }
}

/// A request that failed.
struct Failed {
    error: Error,
    /// Whether the program itself said so, and so has left nothing behind.
    orderly: bool,
}

impl Exec {
    fn simple(&self, ask: &Ask<'_>, call: &Call) -> Result<Answer> {
        self.ask(ask, None, call).map_err(|failed| failed.error)
    }

    /// Gives up a reservation whose end is not known. If that cannot be done, the error says that something may be left.
    fn tidied(&self, lease: &str, failed: Error, host: &Host) -> Error {
        let done =
            Call::tidying(host, ABORT_LIMIT).and_then(|call| self.simple(&Ask::Abort { lease }, &call));
        match done {
            Ok(_) => failed,
            Err(error) => {
                host.warn(format!("giving up the reservation for {lease}: {error}"));
                failed.uncertain()
            }
        }
    }

    fn ask(&self, ask: &Ask<'_>, limit: Option<Duration>, call: &Call) -> Result<Answer, Failed> {
        let disorderly = |error| Failed { error, orderly: false };
        let request = Request::new(ask, &self.config.options);
        let line = serde_json::to_string(&request).map_err(|error| disorderly(error.into()))?;
        let mut lines = Lines::default();
        let program = self.program(ask, line, limit);
        let ended = program.run_with(call, &mut |bytes| {
            lines
                .take(bytes, &mut |text| call.host().progress(text))
                .map_err(|message| self.nonsense(&message))
        });
        let (status, stderr) = ended.map_err(disorderly)?;
        match lines.finish(ask.needs_answer()) {
            Ok(Answer { error: Some(told), .. }) => {
                Err(Failed { error: told.into_error(&self.name()), orderly: true })
            }
            _ if !status.success() => Err(disorderly(program.failed(status, &stderr))),
            Ok(answer) => Ok(answer),
            Err(message) => Err(disorderly(self.nonsense(&message))),
        }
    }

    fn program(&self, ask: &Ask<'_>, line: String, limit: Option<Duration>) -> Program {
        let mut program = Program::new(self.config.program.argv())
            .stdin(line + "\n")
            .grace(self.config.grace.0)
            .env("ATEX_PROTOCOL", protocol::VERSION.to_string());
        for (key, value) in &self.config.env {
            program = program.env(key, value);
        }
        for (key, value) in &self.config.secrets {
            program = program.env(key, value.expose());
        }
        for (key, value) in ask.variables() {
            program = program.env(key, value);
        }
        match limit {
            Some(limit) => program.limit(limit),
            None => program,
        }
    }

    fn name(&self) -> String {
        self.config.program.argv().join(" ")
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(ErrorKind::Other, format!("{} {what}; see docs/provisioner-exec.md", self.name()))
            .retryable(false)
    }
}

atex_plugin_api::export_plugin! {
    provisioner "exec" => Exec,
}
