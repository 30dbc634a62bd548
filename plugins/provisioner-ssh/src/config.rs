//! Options of the plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use atex_plugin_api::{Error, HostKeyCheck, Result, Secret};
use atex_plugin_process::Span;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::hosts::Entry;

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The machines: `user@host:port`, or mappings.
    #[serde(default)]
    pub hosts: Vec<Entry>,
    /// A file with a machine per line, read anew whenever one is wanted.
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    pub hosts_file: Option<PathBuf>,
    /// A program and its arguments that prints a machine per line, run whenever one is wanted, at most once a minute.
    #[serde(default)]
    pub hosts_command: Vec<String>,
    /// Who to log in as, where a machine does not say. Default: as of the ssh configuration.
    #[serde(default)]
    pub user: Option<String>,
    /// Port, where a machine does not say.
    #[serde(default)]
    pub port: Option<u16>,
    /// Paths of private keys, tried in order.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Password of the login, for machines that take none of the keys. Needs OpenSSH 8.4 or newer on this box.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file of this box whose first line is the password.
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    pub password_file: Option<PathBuf>,
    /// `user@host:port` of hosts to go through, first hop first.
    #[serde(default)]
    pub jump: Vec<String>,
    /// Become this user by sudo after login, for tests. `check` and `reset` run as the login user.
    #[serde(default)]
    pub sudo: Option<String>,
    /// What to do about host keys that are not known: accept-new (default), strict, or off.
    #[serde(default)]
    pub host_key_check: KeyCheck,
    /// More options of ssh for this plugin's own commands, e.g. `{ProxyCommand: ...}`. What tests need too belongs into the
    /// ssh configuration.
    #[serde(default)]
    pub ssh_options: BTreeMap<String, String>,
    /// How long connecting may take. Default: 10s.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Span,
    /// A shell command that says by its exit status whether a machine is fit to be lent.
    #[serde(default)]
    pub check: Option<String>,
    /// How long `check` may take. Default: 30s.
    #[serde(default = "check_timeout")]
    pub check_timeout: Span,
    /// A shell command that brings a machine back to its first state when it is handed back.
    #[serde(default)]
    pub reset: Option<String>,
    /// How long `reset` may take. Default: 4m.
    #[serde(default = "reset_timeout")]
    pub reset_timeout: Span,
    /// What becomes of a machine that a test left in no state for another one, if there is no `reset`: lend (default) or retire.
    #[serde(default)]
    pub spoilt: Spoilt,
    /// Whether a run may be lent a machine again that it has used and handed back. Default: true.
    #[serde(default = "yes")]
    pub reuse: bool,
    /// How long a machine that failed is left alone at first; twice as long after each further failure, up to 30 minutes.
    /// Default: 30s.
    #[serde(default = "retry_after")]
    pub retry_after: Span,
    /// A program and its arguments, run on this box, that resets a machine the hard way; `{host}` stands for its name.
    #[serde(default)]
    pub power_cycle: Vec<String>,
    /// Directory on the machines in which claims are written; all who share the machines must use the same.
    /// Default: /var/tmp/atex-host-claims.
    #[serde(default = "claims")]
    pub claim_directory: String,
    /// The ssh client for this plugin's own commands. Default: the one in PATH.
    #[serde(default = "ssh")]
    pub program: String,
}

/// What to do with a spoilt machine that nothing can reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spoilt {
    /// Lend it all the same, with a warning.
    #[default]
    Lend,
    /// Lend it to nobody until somebody has mended it.
    Retire,
}

/// What to do about a host key that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyCheck {
    /// Remember it, for the pool.
    #[default]
    AcceptNew,
    /// Refuse it.
    Strict,
    /// Look at no key at all.
    Off,
}

impl KeyCheck {
    /// The same for the host's own connections.
    pub fn for_transport(self) -> HostKeyCheck {
        match self {
            Self::AcceptNew => HostKeyCheck::AcceptNew,
            Self::Strict => HostKeyCheck::Strict,
            Self::Off => HostKeyCheck::Off,
        }
    }
}

fn connect_timeout() -> Span {
    Span::seconds(10)
}
fn check_timeout() -> Span {
    Span::seconds(30)
}
fn reset_timeout() -> Span {
    Span::seconds(240)
}
fn retry_after() -> Span {
    Span::seconds(30)
}
fn yes() -> bool {
    true
}
fn claims() -> String {
    "/var/tmp/atex-host-claims".to_owned()
}
fn ssh() -> String {
    "ssh".to_owned()
}

impl Config {
    /// Refuses what cannot work, as far as that can be seen without asking anybody.
    pub fn check(&self) -> Result<()> {
        let sources = [!self.hosts.is_empty(), self.hosts_file.is_some(), !self.hosts_command.is_empty()];
        match sources.into_iter().filter(|given| *given).count() {
            0 => {
                return Err(Error::config(
                    "no machines: give `hosts`, e.g. hosts=[root@n1,root@n2], `hosts-file` or `hosts-command`",
                ));
            }
            1 => {}
            _ => return Err(Error::config("give only one of `hosts`, `hosts-file` and `hosts-command`")),
        }
        if !self.claim_directory.starts_with('/') || self.claim_directory.contains('\n') {
            return Err(Error::config(format!(
                "`claim-directory`: {:?} is no absolute path",
                self.claim_directory
            )));
        }
        if self.password.is_some() && self.password_file.is_some() {
            return Err(Error::config("give only one of `password` and `password-file`"));
        }
        for hop in self.jump.iter().chain(self.hosts.iter().flat_map(jumps)) {
            crate::hosts::Address::parse(hop).map_err(|error| error.context("`jump`"))?;
        }
        if let Some(wrong) =
            self.ssh_options.keys().find(|key| !key.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            return Err(Error::config(format!("`ssh-options`: {wrong:?} is no option of ssh_config")));
        }
        Ok(())
    }
}

impl Config {
    /// The password of the pool, read anew: it may have changed.
    pub(crate) fn password(&self) -> Result<Option<Secret>> {
        let Some(file) = &self.password_file else { return Ok(self.password.clone()) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::config(format!("`password-file` {}: {error}", file.display())))?;
        match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Ok(Some(Secret::new(line))),
            None => {
                Err(Error::config(format!("`password-file` {}: its first line is empty", file.display())))
            }
        }
    }
}

fn jumps(entry: &Entry) -> &[String] {
    match entry {
        Entry::Full(full) => full.jump.as_deref().unwrap_or_default(),
        Entry::Text(_) => &[],
    }
}
