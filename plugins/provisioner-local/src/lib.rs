//! Provisioner `local`: "machines" that are processes and a private directory of the box the host runs on.
//!
//! ```yaml
//! provisioners:
//!   here: {use: local, max: 4}
//! ```
//!
//! Each machine has a directory of its own, removed when it is given back, and nothing else: tests share the box with each
//! other and with everything on it. All machines have the fact `box` with the same value, so that a preparation that
//! concerns the box is done once.
//!
//! A machine's mark is written before its directory is made, below the state directory that the host gives, or below
//! `directory`: `list` finds every machine that was ever made there.

mod store;

use std::path::PathBuf;

use atex_plugin_api::prelude::*;

use store::Store;

/// See the crate's documentation.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Absolute path of the directory below which machines are made; the pool's own state directory if not given.
    #[schemars(extend("x-path" = true))]
    directory: Option<PathBuf>,
}

/// The provisioner.
#[derive(Debug)]
pub struct Local {
    store: Store,
}

impl Plugin for Local {
    type Config = Config;
    const ABOUT: &'static str = "directories and processes of this box";

    fn new(config: Config, host: Host) -> Result<Self> {
        let directory = match config.directory {
            Some(directory) if directory.is_relative() => {
                return Err(Error::config(format!("`directory: {}`: is not absolute", directory.display())));
            }
            Some(directory) => directory,
            None => host.state_dir()?,
        };
        Ok(Self { store: Store::new(&directory) })
    }
}

impl Provisioner for Local {
    const CAPABILITIES: Capabilities = Capabilities::LIST.and(Capabilities::ALIVE);
    /// Everything is made within `reserve`, or not at all.
    const SETTLE: std::time::Duration = std::time::Duration::ZERO;

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        host.check_cancelled()?;
        let directory = self.store.make(&lease.id, &lease.mark())?;
        let Some(directory) = directory.to_str() else {
            return Err(Error::unsupported("the state directory is not UTF-8"));
        };
        let mut machine = Machine::new(&lease.id, Transport::Local(LocalTransport::new(directory)));
        machine.facts.insert("box".to_owned(), "local".to_owned());
        Ok(machine)
    }

    fn release(&self, machine: &str, _host: &Host) -> Result<()> {
        self.store.remove(machine)
    }

    fn list(&self, owner: &str, _host: &Host) -> Result<Vec<Held>> {
        let of_owner = |mark: &str| {
            owner.is_empty() || mark.strip_prefix(owner).is_some_and(|rest| rest.starts_with('/'))
        };
        let all = self.store.list()?.into_iter();
        Ok(all.filter(|(_, mark)| of_owner(mark)).map(|(id, mark)| Held::new(id, mark)).collect())
    }

    fn alive(&self, machine: &str, _host: &Host) -> Result<bool> {
        Ok(self.store.exists(machine))
    }

    /// As many as there are processors; the pool's `max` is the user's to set.
    fn capacity(&self, _host: &Host) -> Result<Option<u64>> {
        Ok(std::thread::available_parallelism().ok().map(|count| count.get() as u64))
    }
}

atex_plugin_api::export_plugin!(provisioner "local" => Local);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, Conformance, FakeHost, Outcome};

    use super::*;

    #[test]
    fn it_conforms() {
        let state = tempfile::tempdir().unwrap();
        let host = FakeHost::with_state_dir(state.path());
        let local = testkit::provisioner::<Local>("{}", &host.handle()).unwrap();
        let again = || testkit::provisioner::<Local>("{}", &host.handle());
        let checks = Conformance::new(&local, Local::CAPABILITIES, &host).parallel(8).again(again).run();
        for check in &checks {
            assert!(!matches!(check.outcome, Outcome::Failed(_)), "{check}");
        }
        assert!(checks.iter().filter(|check| check.outcome == Outcome::Passed).count() >= 16);
        assert_eq!(local.list("", &host.handle()).unwrap(), []);
    }

    #[test]
    fn machines_outlive_the_process_that_made_them() {
        let state = tempfile::tempdir().unwrap();
        let host = FakeHost::with_state_dir(state.path()).handle();
        let make = || testkit::provisioner::<Local>("{}", &host).unwrap();
        let lease = testkit::lease(1);
        let machine = make().reserve(&lease, &host).unwrap();
        let after = make();
        assert_eq!(after.list("testkit", &host).unwrap(), [Held::new(&machine.id, lease.mark())]);
        assert_eq!(after.list("testki", &host).unwrap(), []);
        assert_eq!(after.alive(&machine.id, &host), Ok(Some(true)));
        after.release(&machine.id, &host).unwrap();
        assert_eq!(after.list("", &host).unwrap(), []);
        assert_eq!(after.alive(&machine.id, &host), Ok(Some(false)));
    }

    #[test]
    fn mistakes_are_told() {
        let host = FakeHost::new().handle();
        let error = |config| testkit::provisioner::<Local>(config, &host).unwrap_err().to_string();
        assert_eq!(error(r#"{"maximum": 2}"#), "unknown key `maximum`, it takes directory");
        assert_eq!(error(r#"{"directory": "x"}"#), "`directory: x`: is not absolute");
    }
}
