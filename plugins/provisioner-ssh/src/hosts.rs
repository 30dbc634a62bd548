//! The machines of the pool: how they are written down, and where the list comes from.

use std::collections::BTreeMap;
use std::fmt;

use atex_plugin_api::{Error, Facts, Result, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

/// Longest name of a host: it becomes part of the machine's id.
const MAX_HOST: usize = 160;
/// Most machines of a pool.
const MAX_HOSTS: usize = 10_000;

/// A machine as users write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `user@host:port`, or a mapping with `host`")]
pub enum Entry {
    /// `[user@]host[:port]`, perhaps followed by facts: `root@n1:2222 arch=x86_64`.
    Text(String),
    /// In full.
    Full(FullEntry),
}

/// A machine with what is special about it; what is not given is the pool's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FullEntry {
    /// Name, address, or an alias of the ssh configuration.
    pub host: String,
    /// Who to log in as.
    #[serde(default)]
    pub user: Option<String>,
    /// Port of the server.
    #[serde(default)]
    pub port: Option<u16>,
    /// Paths of private keys.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
    /// Password of the login.
    #[serde(default)]
    pub password: Option<Secret>,
    /// `user@host:port` of hosts to go through, first hop first.
    #[serde(default)]
    pub jump: Option<Vec<String>>,
    /// Become this user by sudo after login.
    #[serde(default)]
    pub sudo: Option<String>,
    /// What is known of the machine, e.g. `arch`.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// Where a machine is: what it is known by in the pool, in ids and in messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Who to log in as.
    pub user: Option<String>,
    /// Name, address, or alias.
    pub host: String,
    /// Port of the server.
    pub port: Option<u16>,
}

/// A machine of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Where it is.
    pub address: Address,
    /// Its own keys, or none.
    pub keys: Option<Vec<String>>,
    /// Its own password, or none.
    pub password: Option<Secret>,
    /// Its own way, or none.
    pub jump: Option<Vec<String>>,
    /// Its own user to become.
    pub sudo: Option<String>,
    /// What is known of it.
    pub facts: Facts,
}

impl Address {
    /// Reads `[user@]host[:port]`; an address of IP version 6 with a port stands in brackets.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::config(format!("{text:?} is no [user@]host[:port]: {why}"));
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => {
                (host, Some(port.strip_prefix(':').ok_or_else(|| wrong("what follows the bracket?"))?))
            }
            None if rest.matches(':').count() == 1 => {
                rest.split_once(':').map_or((rest, None), |(h, p)| (h, Some(p)))
            }
            None => (rest, None),
        };
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or(())).transpose();
        let port = port.map_err(|()| wrong("the port is no number from 1 to 65535"))?;
        let address = Self { user: user.map(str::to_owned), host: host.to_owned(), port };
        address.check().map_err(|why| wrong(&why))?;
        Ok(address)
    }

    /// Nothing here may be taken for an option or a word of a shell.
    fn check(&self) -> Result<(), String> {
        let fits = |c: char| c.is_alphanumeric() || "._-:%".contains(c);
        let word = |text: &str| !text.is_empty() && !text.starts_with('-') && text.chars().all(fits);
        if !word(&self.host) {
            return Err("that is no name of a host".to_owned());
        }
        if self.host.len() > MAX_HOST {
            return Err(format!("the name is longer than {MAX_HOST} bytes"));
        }
        match self.user.as_deref() {
            Some(user) if !word(user) || user.len() > 32 => Err("that is no name of a user".to_owned()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.port, self.host.contains(':')) {
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (None, true) => write!(f, "[{}]", self.host),
            (None, false) => f.write_str(&self.host),
        }
    }
}

impl Entry {
    /// The machine, with the pool's user and port where it has none of its own.
    pub fn machine(&self, user: Option<&str>, port: Option<u16>) -> Result<Machine> {
        let mut machine = match self {
            Self::Text(text) => parse_line(text)?,
            Self::Full(full) => {
                let mut address = Address::parse(&full.host)?;
                address.user = full.user.clone().or(address.user);
                address.port = full.port.or(address.port);
                address.check().map_err(|why| Error::config(format!("host {:?}: {why}", full.host)))?;
                let (keys, jump, sudo) = (full.keys.clone(), full.jump.clone(), full.sudo.clone());
                Machine {
                    address,
                    keys,
                    password: full.password.clone(),
                    jump,
                    sudo,
                    facts: full.facts.clone(),
                }
            }
        };
        let address = &mut machine.address;
        address.user = address.user.take().or_else(|| user.map(str::to_owned));
        address.port = address.port.or(port);
        address.check().map_err(|why| Error::config(format!("host {address}: {why}")))?;
        Ok(machine)
    }
}

/// Machines from lines as of a file: empty ones and those that begin with `#` are left out.
pub(crate) fn parse_lines(text: &str) -> Result<Vec<Entry>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<_> = lines.take(MAX_HOSTS + 1).map(|line| Entry::Text(line.to_owned())).collect();
    if entries.len() > MAX_HOSTS {
        return Err(Error::config(format!("more than {MAX_HOSTS} hosts")));
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Result<Machine> {
    let mut words = line.split_whitespace();
    let address = Address::parse(words.next().unwrap_or_default())?;
    let fact = |word: &str| {
        let (key, value) = word.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Error::config(format!("{word:?} after host {address} is no fact; write e.g. arch=x86_64"))
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let facts = words.map(fact).collect::<Result<_>>()?;
    Ok(Machine { address, keys: None, password: None, jump: None, sudo: None, facts })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        let table = [
            ("n1", (None, "n1", None)),
            ("root@n1", (Some("root"), "n1", None)),
            ("root@n1.lab:2222", (Some("root"), "n1.lab", Some(2222))),
            ("[::1]:22", (None, "::1", Some(22))),
            ("[fe80::1%eth0]", (None, "fe80::1%eth0", None)),
        ];
        for (text, (user, host, port)) in table {
            let expected = Address { user: user.map(str::to_owned), host: host.to_owned(), port };
            assert_eq!(Address::parse(text).unwrap(), expected);
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!(Address::parse("::1").unwrap().to_string(), "[::1]");
    }

    #[test]
    fn what_a_shell_or_ssh_could_misread_is_refused() {
        let long = "x".repeat(200);
        for text in [
            "",
            "@",
            "root@",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(x)",
            "n1:0",
            "n1:x",
            "n1:70000",
            "-x@n1",
            &long,
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.to_string().contains("host[:port]"), "{text}: {error}");
        }
    }

    #[test]
    fn a_machine_gets_from_the_pool_what_it_lacks() {
        let table = [
            (r#""n1""#, "me@n1:22"),
            (r#""root@n1:2222""#, "root@n1:2222"),
            (r#"{"host": "n1", "user": "root"}"#, "root@n1:22"),
            (r#"{"host": "root@n1", "port": 23}"#, "root@n1:23"),
        ];
        for (json, expected) in table {
            let entry: Entry = serde_json::from_str(json).unwrap();
            assert_eq!(entry.machine(Some("me"), Some(22)).unwrap().address.to_string(), expected);
        }
    }

    #[test]
    fn lines_have_facts_and_comments() {
        let entries = parse_lines("# lab\n\n n1  arch=s390x rack=\n").unwrap();
        let machine = entries[0].machine(None, None).unwrap();
        assert_eq!(
            machine.facts,
            Facts::from([("arch".into(), "s390x".into()), ("rack".into(), String::new())])
        );
        assert_eq!(entries.len(), 1);
        let error = parse_lines("n1 fast").unwrap()[0].machine(None, None).unwrap_err();
        assert!(error.to_string().contains("is no fact"), "{error}");
        assert!(parse_lines(&"n\n".repeat(MAX_HOSTS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn an_address_that_is_taken_reads_back(text in ".{0,30}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
            }
        }
    }
}
