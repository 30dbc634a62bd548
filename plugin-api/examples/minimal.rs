// A provisioner that lends hosts of a list: `lab,hosts=[a,b]`.
use atex_plugin_api::prelude::*;
use std::{collections::BTreeSet, sync::Mutex};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    hosts: Vec<String>,
}
struct Lab(Vec<String>, Mutex<BTreeSet<String>>);
impl Plugin for Lab {
    type Config = Config;
    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Lab(config.hosts, Mutex::default()))
    }
}
impl Provisioner for Lab {
    const CAPABILITIES: Capabilities = Capabilities::EXPIRES; // With this process: nothing else knows of it.
    fn reserve(&self, _lease: &Lease, _host: &Host) -> Result<Machine> {
        let free =
            self.0.iter().find(|name| self.1.lock().is_ok_and(|mut lent| lent.insert((*name).clone())));
        let name = free.ok_or(Error::new(ErrorKind::Busy, "all hosts are lent"))?;
        Ok(Machine::new(name, Transport::Ssh(SshTransport::new(name))))
    }
    fn release(&self, machine: &str, _host: &Host) -> Result<()> {
        self.1.lock()?.remove(machine);
        Ok(())
    }
}
atex_plugin_api::export_plugin!(provisioner "lab" => Lab);
