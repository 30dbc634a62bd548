//! Options of the plugin.

use std::collections::BTreeMap;

use atex_plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The domain to clone. It must be shut off, and is never changed.
    pub domain: String,
    /// The libvirt to use, e.g. `qemu:///system`. Default: virsh's own.
    #[serde(default)]
    pub uri: Option<String>,
    /// How the machine is reached. Default: by its address if the domain is on a network of libvirt or a bridge, else by a
    /// forwarded port.
    #[serde(default)]
    pub reach: Option<Reach>,
    /// Where libvirt looks for the address: lease (default), agent, or arp.
    #[serde(default)]
    pub address_source: AddressSource,
    /// Number of processors. Default: the domain's.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory in MiB. Default: the domain's.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Who to log in as. Default: root.
    #[serde(default = "root")]
    pub user: String,
    /// Paths of private keys. Default: those of the ssh configuration, and the agent's.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Become this user by sudo after login.
    #[serde(default)]
    pub sudo: Option<String>,
    /// Port of the guest's SSH server. Default: 22.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// Let the guest power itself off when the lease's time is over, by a process that is started after login. A test that
    /// reboots ends it. Default: true.
    #[serde(default = "yes")]
    pub power_off: bool,
    /// More options of ssh for the attempts to log in.
    #[serde(default)]
    pub ssh_options: BTreeMap<String, String>,
    /// The virsh to use. Default: the one in PATH.
    #[serde(default = "virsh")]
    pub virsh: String,
    /// The ssh client that tries to log in. Default: the one in PATH.
    #[serde(default = "ssh")]
    pub ssh: String,
}

/// How a machine is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// By a port of this box that qemu forwards; the guest has no other network.
    Forward,
    /// By the address that libvirt knows.
    Address,
}

/// Where libvirt looks for a guest's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSource {
    /// Leases of libvirt's own DHCP server.
    #[default]
    Lease,
    /// The guest agent.
    Agent,
    /// The box's table of neighbours.
    Arp,
}

impl AddressSource {
    /// virsh's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Agent => "agent",
            Self::Arp => "arp",
        }
    }
}

fn root() -> String {
    "root".to_owned()
}
fn ssh_port() -> u16 {
    22
}
fn yes() -> bool {
    true
}
fn virsh() -> String {
    "virsh".to_owned()
}
fn ssh() -> String {
    "ssh".to_owned()
}

impl Config {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let word =
            |text: &str| !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control);
        if !word(&self.domain) {
            return Err(Error::config(format!("`domain`: {:?} is no name of a domain", self.domain)));
        }
        if self.domain.starts_with(crate::PREFIX) {
            return Err(Error::config(format!("`domain`: {} looks like a clone of ours", self.domain)));
        }
        if !word(&self.user) {
            return Err(Error::config(format!("`user`: {:?} is no name of a user", self.user)));
        }
        if self.cpus == Some(0) || self.memory.is_some_and(|memory| memory < 16) || self.port == 0 {
            return Err(Error::config("`cpus` and `port` are at least 1, `memory` (in MiB) at least 16"));
        }
        Ok(())
    }
}
