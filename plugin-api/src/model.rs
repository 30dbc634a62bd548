//! What crosses between host and plugins as data that may grow: leases, machines, facts, test descriptions.
//!
//! All of it travels as JSON. Both sides tolerate fields they do not know, so a field can be added without touching the ABI.
//! The one exception is [`Transport`]: a host that does not know a kind of transport refuses the machine, because guessing
//! how to reach a machine would be worse.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a plugin wants to be told of a machine, or knows of it: `distro`, `arch`, `cpus`, `memory`, `hostname`, ...
pub type Facts = BTreeMap<String, String>;

/// A claim on a machine that does not exist yet.
///
/// The host has this on disk before it calls [`Provisioner::reserve`](crate::Provisioner::reserve). The plugin names or
/// tags what it creates with [`mark`](Self::mark), so that it can be found again whatever happens to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// `a` followed by a version 7 UUID in lower case with dashes: a valid host name, unique for ever.
    pub id: String,
    /// The run this lease belongs to.
    pub run: String,
    /// Who holds the machine, e.g. `nightly@lab`.
    pub owner: String,
    /// The platform whose tests the machine is for.
    pub platform: String,
    /// The platform's context (`distro`, `arch`, ...), each dimension with its values.
    #[serde(default)]
    pub context: BTreeMap<String, Vec<String>>,
    /// What the platform asks of the machine's facts.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// Seconds after which the host gives up waiting for this reservation.
    pub timeout_s: u64,
    /// Seconds after which the provider may end the lease by itself, counted from the reservation: the host will have given
    /// the machine back or renewed the lease by then.
    pub lifetime_s: u64,
}

impl Lease {
    /// A lease for tests and for other hosts; every optional part is empty, the times are an hour and a day.
    pub fn new(id: impl Into<String>, run: impl Into<String>, owner: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            run: run.into(),
            owner: owner.into(),
            platform: "default".into(),
            context: BTreeMap::new(),
            require: BTreeMap::new(),
            timeout_s: 3600,
            lifetime_s: 86400,
        }
    }

    /// `owner/run/lease`: the text that a resource is tagged with.
    pub fn mark(&self) -> String {
        format!("{}/{}/{}", self.owner, self.run, self.id)
    }
}

/// A machine on loan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// The plugin's own name for the resource; given back to it in `release`, `alive`, `renew` and `reboot`. At most 256
    /// bytes without control characters.
    pub id: String,
    /// How the host gets there.
    pub transport: Transport,
    /// What the plugin knows of it. The host asks the machine itself for the rest.
    #[serde(default)]
    pub facts: Facts,
    /// Unix time in seconds at which the provider takes the machine away, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether the machine is destroyed by `release`: then nothing needs to be cleaned up on it.
    #[serde(default)]
    pub disposable: bool,
}

impl Machine {
    /// A machine without facts that stays until it is released.
    pub fn new(id: impl Into<String>, transport: Transport) -> Self {
        Self { id: id.into(), transport, facts: Facts::new(), expires: None, disposable: false }
    }
}

/// How the host runs commands on a machine. The host owns the connection; the plugin only says where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// Processes on the box the host runs on.
    Local(LocalTransport),
    /// A command line that runs `argv... COMMAND ARGS` on the machine, e.g. `podman exec -i ID`.
    Exec(ExecTransport),
    /// An SSH server.
    Ssh(SshTransport),
}

/// See [`Transport::Local`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LocalTransport {
    /// The directory in which the host makes its work directory; `/var/tmp` or `/tmp` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// See [`Transport::Exec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecTransport {
    /// Program and leading arguments; the command to run is appended, word by word, without quoting.
    pub argv: Vec<String>,
    /// Environment variables for that program, e.g. `CONTAINER_HOST`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl ExecTransport {
    /// A command line without extra environment.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), env: BTreeMap::new() }
    }
}

/// See [`Transport::Ssh`]. Whatever is not given comes from the user's ssh configuration for [`host`](Self::host).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SshTransport {
    /// Host name, address, or an alias of the user's ssh configuration.
    pub host: String,
    /// Port of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who to log in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Paths of private keys, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// A private key itself, in OpenSSH or PEM format. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_data: Option<String>,
    /// The password of the login. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `user@host:port` of hosts to go through, first hop first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jump: Vec<String>,
    /// Become this user by `sudo -n -u USER` after login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    /// Host keys to expect, as lines `TYPE BASE64`. Empty: the user's known hosts, then the pool's own file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// What to do about a host key that is not known.
    #[serde(default)]
    pub host_key_check: HostKeyCheck,
    /// Compress what goes over the line.
    #[serde(default)]
    pub compression: bool,
}

impl SshTransport {
    /// A server of which everything but the name comes from the user's ssh configuration.
    pub fn new(host: impl Into<String>) -> Self {
        Self { host: host.into(), ..Self::default() }
    }
}

/// Without what is secret: only whether it is there.
impl fmt::Debug for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            user,
            keys,
            key_data,
            password,
            jump,
            sudo,
            host_keys,
            host_key_check,
            compression,
        } = self;
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "***");
        f.debug_struct("SshTransport")
            .field("host", host)
            .field("port", port)
            .field("user", user)
            .field("keys", keys)
            .field("key_data", &hidden(key_data))
            .field("password", &hidden(password))
            .field("jump", jump)
            .field("sudo", sudo)
            .field("host_keys", host_keys)
            .field("host_key_check", host_key_check)
            .field("compression", compression)
            .finish()
    }
}

impl LocalTransport {
    /// Processes of this box whose work directory is made below `directory`.
    pub fn new(directory: impl Into<String>) -> Self {
        Self { directory: Some(directory.into()) }
    }
}

/// What to do about a host key that is not known yet. A key that differs from a known one is always an error, unless `Off`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HostKeyCheck {
    /// Remember it, for the pool.
    #[default]
    AcceptNew,
    /// Refuse it.
    Strict,
    /// Look at no key at all: every machine of the pool may have any.
    Off,
}

/// What a provider still holds, as [`Provisioner::list`](crate::Provisioner::list) tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Held {
    /// [`Machine::id`], good for `release`.
    pub id: String,
    /// [`Lease::mark`] as it was found on the resource.
    pub mark: String,
    /// Why it cannot be told whether anything is held there: see [`unknown`](Self::unknown).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl Held {
    /// A machine with its mark.
    pub fn new(id: impl Into<String>, mark: impl Into<String>) -> Self {
        Self { id: id.into(), mark: mark.into(), unknown: None }
    }

    /// A part of the pool that cannot be asked, by a name for it and the reason. A list with such an entry is good for what it
    /// has, and the host concludes nothing from what it does not have.
    pub fn unknown(part: impl Into<String>, why: impl Into<String>) -> Self {
        Self { id: part.into(), mark: String::new(), unknown: Some(why.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_transport_are_not_shown() {
        let mut ssh = SshTransport::new("n1");
        ssh.password = Some("hush".into());
        ssh.key_data = Some("hush".into());
        let shown = format!("{:?}", Machine::new("n1", Transport::Ssh(ssh.clone())));
        assert!(shown.contains("n1") && shown.contains("***") && !shown.contains("hush"), "{shown}");
        let back: SshTransport = serde_json::from_str(&serde_json::to_string(&ssh).unwrap()).unwrap();
        assert_eq!(back, ssh);
    }
}
