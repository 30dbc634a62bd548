//! Hands out directories of this box, as long as it works.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atex_plugin_api::prelude::*;

use crate::{Config, Fault};

const METHODS: [&str; 10] =
    ["new", "reserve", "release", "abort", "alive", "list", "renew", "reboot", "capacity", "drop"];

pub(crate) struct Faulty {
    fault: Fault,
    held: Mutex<BTreeMap<String, String>>,
}

impl Plugin for Faulty {
    type Config = Config;
    const ABOUT: &'static str = "misbehaves on demand";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { fault: Fault::new(config, &METHODS)?, held: Mutex::default() })
    }
}

impl Provisioner for Faulty {
    const CAPABILITIES: Capabilities =
        Capabilities::LIST.and(Capabilities::ALIVE).and(Capabilities::RENEW).and(Capabilities::REBOOT);
    const SETTLE: Duration = Duration::ZERO;

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let nonsense = self.fault.at("reserve")?;
        let directory = host.state_dir()?.join(&lease.id);
        std::fs::create_dir_all(&directory)?;
        let mut machine =
            Machine::new(&lease.id, Transport::Local(LocalTransport::new(directory.to_string_lossy())));
        machine.disposable = true;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.id.clone(), lease.mark());
        if nonsense {
            self.fault.hides()?;
            machine.id = "\u{7}".repeat(300);
        }
        Ok(machine)
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        self.fault.at("release")?;
        if self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(machine).is_some() {
            std::fs::remove_dir_all(host.state_dir()?.join(machine))?;
        }
        Ok(())
    }

    fn list(&self, owner: &str, _host: &Host) -> Result<Vec<Held>> {
        if self.fault.at("list")? {
            return Ok(vec![Held::new("", "m"), Held::new("id", "m".repeat(1 << 20))]);
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.iter().filter(|(_, mark)| owner.is_empty() || mark.starts_with(&format!("{owner}/")));
        Ok(mine.map(|(id, mark)| Held::new(id, mark)).collect())
    }

    fn abort(&self, _lease: &str, _host: &Host) -> Result<()> {
        self.fault.at("abort").map(|_| ())
    }

    fn alive(&self, machine: &str, _host: &Host) -> Result<bool> {
        let nonsense = self.fault.at("alive")?;
        Ok(nonsense != self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(machine))
    }

    fn renew(&self, _machine: &str, _lifetime: Duration, _host: &Host) -> Result<Option<u64>> {
        // The nonsense is a lease that ended half a century ago.
        Ok(self.fault.at("renew")?.then_some(1))
    }

    fn reboot(&self, _machine: &str, _host: &Host) -> Result<()> {
        self.fault.at("reboot").map(|_| ())
    }

    fn capacity(&self, _host: &Host) -> Result<Option<u64>> {
        Ok(self.fault.at("capacity")?.then_some(0))
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.fault.at_infallible("drop");
    }
}
