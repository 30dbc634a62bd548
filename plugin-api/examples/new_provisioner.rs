//! Provisioner `mine`: lends the hosts of a list, one at a time.
//!
//! ```yaml
//! provisioners:
//!   lab: {use: mine, hosts: [a.example.com, b.example.com]}
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use atex_plugin_api::prelude::*;

/// What users write beside `use: mine`. An unknown key is an error.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// Names or addresses of the hosts.
    hosts: Vec<String>,
    /// Who to log in as.
    #[serde(default)]
    user: Option<String>,
}

/// The provisioner. Its methods are called from several threads at a time.
#[derive(Debug)]
pub struct Mine {
    config: Config,
    /// Hosts that are lent, with the marks of their leases.
    lent: Mutex<BTreeMap<String, String>>,
}

impl Plugin for Mine {
    type Config = Config;
    const ABOUT: &'static str = "hosts of a list";

    fn new(config: Config, _host: Host) -> Result<Self> {
        if config.hosts.is_empty() {
            return Err(Error::config("`hosts`: must not be empty"));
        }
        Ok(Self { config, lent: Mutex::default() })
    }
}

impl Provisioner for Mine {
    // Leases end with this process, because nothing else knows of them. A provisioner that makes something lasting has LIST
    // instead, and finds it by its mark.
    const CAPABILITIES: Capabilities = Capabilities::LIST.and(Capabilities::EXPIRES);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        // A reservation that takes long looks at this now and then, and waits with `wait_cancelled`.
        host.check_cancelled()?;
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.config.hosts.iter().find(|name| !lent.contains_key(*name));
        let name = free.ok_or_else(|| Error::new(ErrorKind::Busy, "all hosts are lent"))?;
        lent.insert(name.clone(), lease.mark());
        let mut ssh = SshTransport::new(name);
        ssh.user.clone_from(&self.config.user);
        Ok(Machine::new(name, Transport::Ssh(ssh)))
    }

    fn release(&self, machine: &str, _host: &Host) -> Result<()> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
        Ok(())
    }

    fn list(&self, owner: &str, _host: &Host) -> Result<Vec<Held>> {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = lent.iter().filter(|(_, mark)| owner.is_empty() || mark.starts_with(&format!("{owner}/")));
        Ok(mine.map(|(name, mark)| Held::new(name, mark)).collect())
    }
}

atex_plugin_api::export_plugin!(provisioner "mine" => Mine);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, Conformance, FakeHost, Outcome};

    use super::*;

    #[test]
    fn it_does_what_every_provisioner_does() {
        let host = FakeHost::new();
        let mine = testkit::provisioner::<Mine>(r#"{"hosts": ["a", "b"]}"#, &host.handle()).unwrap();
        for check in Conformance::new(&mine, Mine::CAPABILITIES, &host).run() {
            assert!(!matches!(check.outcome, Outcome::Failed(_)), "{check}");
        }
    }

    #[test]
    fn every_host_is_lent_once() {
        let host = FakeHost::new().handle();
        let mine = testkit::provisioner::<Mine>(r#"{"hosts": ["a"]}"#, &host).unwrap();
        assert_eq!(mine.reserve(&testkit::lease(1), &host).unwrap().id, "a");
        assert_eq!(mine.reserve(&testkit::lease(2), &host).unwrap_err().kind(), ErrorKind::Busy);
    }
}
