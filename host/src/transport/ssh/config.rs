//! Where to connect to, and as whom: what the plugin says, and for the rest the user's ssh configuration.
//!
//! The configuration is not parsed here: `ssh -G HOST` is asked, which knows `Host`, `Match` and `Include`. Where there is no
//! ssh program, there is no configuration either, and the usual defaults hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atex_plugin_api::model::SshTransport;

use crate::transport::{Error, Exit, Interrupt, Result, Waker, process};

/// `ssh -G` runs whatever programs the configuration's `Match exec` names.
const PATIENCE: Duration = Duration::from_secs(30);
/// More options than anybody has.
const MAX_OUTPUT: usize = 1 << 20;

/// Who asks `ssh -G`, and when to stop waiting for it.
pub(super) struct Asking<'a> {
    pub(super) waker: &'a Waker,
    pub(super) interrupt: Interrupt<'a>,
}

/// One host on the way, resolved.
#[derive(Debug, Clone, Default)]
pub(super) struct Endpoint {
    /// To connect to.
    pub(super) host: String,
    /// As it was asked for.
    pub(super) alias: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// What host keys are filed under, if not `host`.
    pub(super) key_alias: Option<String>,
    pub(super) key_data: Option<String>,
    /// Given by name: it is an error if one cannot be read.
    pub(super) keys: Vec<PathBuf>,
    /// Of the configuration, as far as they exist.
    pub(super) default_keys: Vec<PathBuf>,
    pub(super) use_agent: bool,
    pub(super) agent: Option<PathBuf>,
    pub(super) password: Option<String>,
    /// Host keys that the provisioner has told: it has these and no others.
    pub(super) given_keys: Vec<String>,
    pub(super) known_hosts: Vec<PathBuf>,
    pub(super) compression: bool,
    /// Hosts to go through, as the configuration has them.
    pub(super) jump: Vec<String>,
    /// A program that leads to the host; only looked at for the first one on the way.
    pub(super) proxy_command: Option<String>,
}

impl Endpoint {
    /// The machine itself.
    pub(super) fn target(ssh: &SshTransport, asking: &mut Asking<'_>) -> Result<Self> {
        let mut end = Self::resolve(&ssh.host, ssh.user.as_deref(), ssh.port, asking)?;
        if ssh.key_data.is_some() || !ssh.keys.is_empty() {
            end.default_keys.clear();
        }
        end.key_data.clone_from(&ssh.key_data);
        end.keys = ssh.keys.iter().map(|key| expand_home(key)).collect();
        end.password.clone_from(&ssh.password);
        end.given_keys.clone_from(&ssh.host_keys);
        Ok(end)
    }

    /// A host to go through, as `[USER@]HOST[:PORT]`; the keys for the machine are good for it too. Not so the password, which it
    /// would get to know.
    fn hop(text: &str, ssh: &SshTransport, asking: &mut Asking<'_>) -> Result<Self> {
        let (user, host, port) = parse_hop(text)?;
        let mut end = Self::resolve(host, user, port, asking)?;
        end.key_data.clone_from(&ssh.key_data);
        end.keys = ssh.keys.iter().map(|key| expand_home(key)).collect();
        Ok(end)
    }

    fn resolve(host: &str, user: Option<&str>, port: Option<u16>, asking: &mut Asking<'_>) -> Result<Self> {
        if host.is_empty()
            || host.starts_with('-')
            || host.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(Error::Refused(format!("`{}` is not a host name", host.escape_debug())));
        }
        let options = ask(host, user, port, asking)?;
        Self::from_options(host, user, port, &options)
    }

    fn from_options(
        host: &str,
        user: Option<&str>,
        port: Option<u16>,
        options: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self> {
        let all = |key: &str| options.get(key).map(Vec::as_slice).unwrap_or_default();
        let one = |key: &str| all(key).first().map(String::as_str).filter(|value| *value != "none");
        let proxy_command = one("proxycommand").map(str::to_owned);
        if proxy_command.is_some() && one("proxyusefdpass") == Some("yes") {
            return Err(Error::Refused(format!(
                "the ssh configuration for {host} wants ProxyUseFdpass, which is not possible here; use transport `exec` \
                 with the ssh program"
            )));
        }
        let paths = |key: &str| {
            let words = all(key).iter().flat_map(|value| value.split_whitespace());
            words.filter(|word| *word != "none").map(expand_home).collect::<Vec<_>>()
        };
        let mut known_hosts = paths("userknownhostsfile");
        known_hosts.extend(paths("globalknownhostsfile"));
        let agent = one("identityagent").filter(|agent| *agent != "SSH_AUTH_SOCK");
        Ok(Self {
            host: one("hostname").unwrap_or(host).to_owned(),
            alias: host.to_owned(),
            proxy_command,
            port: port.or_else(|| one("port").and_then(|port| port.parse().ok())).unwrap_or(22),
            user: user.or_else(|| one("user")).map_or_else(current_user, str::to_owned),
            key_alias: one("hostkeyalias").map(str::to_owned),
            default_keys: all("identityfile")
                .iter()
                .map(|file| expand_home(file))
                .filter(|file| file.exists())
                .collect(),
            use_agent: one("identitiesonly") != Some("yes")
                && all("identityagent").first().map(String::as_str) != Some("none"),
            agent: agent.map(expand_home),
            known_hosts,
            compression: one("compression") == Some("yes"),
            jump: one("proxyjump").map_or_else(Vec::new, |hops| hops.split(',').map(str::to_owned).collect()),
            ..Self::default()
        })
    }

    /// `user@host:port`, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{}@{}:{}", self.user, self.host, self.port)
    }
}

/// The hosts to go through, first hop first. The first hop's own configuration may ask for more before it.
pub(super) fn hops(
    ssh: &SshTransport,
    target: &Endpoint,
    limit: usize,
    asking: &mut Asking<'_>,
) -> Result<Vec<Endpoint>> {
    let listed = if ssh.jump.is_empty() { &target.jump } else { &ssh.jump };
    let mut hops = listed.iter().map(|hop| Endpoint::hop(hop, ssh, asking)).collect::<Result<Vec<_>>>()?;
    while let Some(before) = hops.first().map(|hop| hop.jump.clone()).filter(|jump| !jump.is_empty()) {
        let before = before.iter().map(|hop| Endpoint::hop(hop, ssh, asking)).collect::<Result<Vec<_>>>()?;
        hops.splice(0..0, before);
        if hops.len() > limit {
            return Err(Error::Refused(format!(
                "more than {limit} hosts to go through to {}",
                target.shown()
            )));
        }
    }
    Ok(hops)
}

fn parse_hop(text: &str) -> Result<(Option<&str>, &str, Option<u16>)> {
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
    let bad_port = || Error::Refused(format!("`{text}` does not end with a port number"));
    if let Some((host, port)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.strip_prefix(':').map(|port| port.parse().map_err(|_| bad_port())).transpose()?;
        return Ok((user, host, port));
    }
    match rest.rsplit_once(':') {
        // More than one colon: an address of version 6 without brackets.
        Some((host, port)) if !host.contains(':') => {
            Ok((user, host, Some(port.parse().map_err(|_| bad_port())?)))
        }
        _ => Ok((user, rest, None)),
    }
}

/// What `ssh -G` says; nothing if there is no ssh program.
fn ask(
    host: &str,
    user: Option<&str>,
    port: Option<u16>,
    asking: &mut Asking<'_>,
) -> Result<BTreeMap<String, Vec<String>>> {
    if !is_program("ssh") {
        return Ok(BTreeMap::new());
    }
    let port = port.map(|port| port.to_string());
    let mut words = vec!["ssh", "-G"];
    words.extend(user.iter().flat_map(|user| ["-l", user]));
    words.extend(port.iter().flat_map(|port| ["-p", port.as_str()]));
    words.extend(["--", host]);
    let until = Instant::now() + PATIENCE;
    let (exit, [said, wrong]) =
        process::output(&words, MAX_OUTPUT, until, asking.waker, &mut *asking.interrupt)?;
    if exit != Exit::Status(0) {
        let why = String::from_utf8_lossy(&wrong);
        return Err(Error::Refused(format!(
            "the ssh configuration for {host} cannot be used: {}",
            why.trim()
        )));
    }
    Ok(parse(&String::from_utf8_lossy(&said)))
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

fn parse(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        options.entry(key.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    options
}

fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

fn current_user() -> String {
    ["LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "root".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_taken_apart() {
        let table = [
            ("h", (None, "h", None)),
            ("u@h:22", (Some("u"), "h", Some(22))),
            ("u@d@h", (Some("u@d"), "h", None)),
            ("[::1]:2222", (None, "::1", Some(2222))),
            ("::1", (None, "::1", None)),
            ("ssh://u@h:1", (Some("u"), "h", Some(1))),
        ];
        for (text, expected) in table {
            assert_eq!(parse_hop(text).unwrap(), expected, "{text}");
        }
        for text in ["h:", "h:x", "h:70000", "[::1]:x"] {
            assert!(parse_hop(text).is_err(), "{text}");
        }
    }

    #[test]
    fn given_values_win_over_the_configuration() {
        let options = parse(
            "hostname real\nport 2200\nuser someone\nproxyjump a,b:3\nidentitiesonly yes\nproxycommand none",
        );
        let end = Endpoint::from_options("alias", None, None, &options).unwrap();
        assert_eq!((end.shown().as_str(), end.use_agent), ("someone@real:2200", false));
        assert_eq!(end.jump, ["a", "b:3"]);
        let end = Endpoint::from_options("alias", Some("me"), Some(1), &options).unwrap();
        assert_eq!(end.shown(), "me@real:1");
        assert_eq!(end.proxy_command, None);
        let options = parse("proxycommand nc %h %p\nproxyusefdpass no");
        let end = Endpoint::from_options("alias", None, None, &options).unwrap();
        assert_eq!((end.proxy_command.as_deref(), end.alias.as_str()), (Some("nc %h %p"), "alias"));
        let options = parse("proxycommand nc %h %p\nproxyusefdpass yes");
        let error = Endpoint::from_options("alias", None, None, &options).unwrap_err().to_string();
        assert!(error.contains("ProxyUseFdpass") && error.contains("`exec`"), "{error}");
    }

    #[test]
    fn a_host_on_the_way_gets_neither_the_password_nor_the_keys_of_the_machine() {
        let mut ssh = SshTransport::new("machine.invalid");
        ssh.password = Some("for the machine only".into());
        ssh.host_keys = vec!["ssh-ed25519 AAAA".into()];
        let waker = Waker::new().unwrap();
        let mut asking = Asking { waker: &waker, interrupt: &mut || false };
        let target = Endpoint::target(&ssh, &mut asking).unwrap();
        assert_eq!((&target.password, &target.given_keys), (&ssh.password, &ssh.host_keys));
        let hop = Endpoint::hop("me@gate.invalid", &ssh, &mut asking).unwrap();
        assert_eq!((hop.password, hop.given_keys), (None, vec![]));
    }

    #[test]
    fn what_ssh_would_take_for_an_option_is_no_host() {
        for host in ["", "-oProxyCommand=x", "a b", "a\nb"] {
            let waker = Waker::new().unwrap();
            let mut asking = Asking { waker: &waker, interrupt: &mut || false };
            assert!(Endpoint::resolve(host, None, None, &mut asking).is_err(), "{host:?}");
        }
    }
}
