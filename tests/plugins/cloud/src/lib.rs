//! The provisioner `cloud`: machines from the cloud that `cargo xtask campaign` and some tests run (`tests/src/campaign/cloud.rs`).
//!
//! One request per connection to a Unix socket: a line of JSON there, a line of JSON back. The cloud carries out what it was
//! asked for also when whoever asked is gone, which is what makes it a cloud. A connection that ends without an answer says
//! nothing about what was done, and this plugin says so too.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use atex_plugin_api::{
    Error, ErrorKind, Held, Host, Lease, LocalTransport, Machine, Plugin, Provisioner, Result, Transport,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Where the cloud listens.
    #[schemars(extend("x-path" = true))]
    socket: PathBuf,
}

/// The provisioner.
#[derive(Debug)]
pub struct Cloud {
    config: Config,
}

/// What the cloud answers; each request has one field of its own.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Directory of the machine.
    directory: Option<String>,
    held: Option<Vec<(String, String)>>,
    /// It was not done.
    refused: Option<String>,
}

impl Plugin for Cloud {
    type Config = Config;
    const ABOUT: &'static str = "machines of the tests' own cloud";

    fn new(config: Config, _: Host) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Provisioner for Cloud {
    /// What the cloud was asked for it does within a second, or not at all.
    const SETTLE: Duration = Duration::from_secs(2);

    fn reserve(&self, lease: &Lease, _: &Host) -> Result<Machine> {
        let answer = self.ask(&json!({"do": "create", "id": lease.id, "mark": lease.mark()}))?;
        let directory = answer.directory.ok_or_else(|| no_answer("no directory"))?;
        let mut local = LocalTransport::default();
        local.directory = Some(directory);
        let mut machine = Machine::new(&lease.id, Transport::Local(local));
        machine.disposable = true;
        Ok(machine)
    }

    fn release(&self, machine: &str, _: &Host) -> Result<()> {
        self.ask(&json!({"do": "delete", "id": machine})).map(drop)
    }

    fn abort(&self, lease: &str, _: &Host) -> Result<()> {
        self.ask(&json!({"do": "abandon", "id": lease})).map(drop)
    }

    fn list(&self, owner: &str, _: &Host) -> Result<Vec<Held>> {
        let held = self.ask(&json!({"do": "list", "owner": owner}))?.held;
        let held = held.ok_or_else(|| no_answer("no list"))?;
        Ok(held.into_iter().map(|(id, mark)| Held::new(id, mark)).collect())
    }
}

impl Cloud {
    fn ask(&self, request: &Value) -> Result<Answer> {
        let unreachable = |error: std::io::Error| {
            Error::with_source(ErrorKind::Unreachable, "the cloud cannot be reached", &error)
        };
        let mut stream = UnixStream::connect(&self.config.socket).map_err(unreachable)?;
        writeln!(stream, "{request}").map_err(unreachable)?;
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        if read.is_err() || !line.ends_with('\n') {
            return Err(no_answer("the connection ended"));
        }
        let answer: Answer = serde_json::from_str(&line)?;
        match answer.refused {
            Some(why) => Err(Error::new(ErrorKind::Busy, why)),
            None => Ok(answer),
        }
    }
}

/// Nobody knows what was done: the host takes an error of this kind for that.
fn no_answer(why: &str) -> Error {
    Error::new(ErrorKind::Other, format!("no answer of the cloud: {why}")).retryable(false)
}

atex_plugin_api::export_plugin! {
    provisioner "cloud" => Cloud,
}
