//! A provisioner that lends hosts of a list: `lab,hosts=[a,b]`.
use atex_plugin_api::prelude::*;
use std::sync::Mutex;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    /// Names or addresses of the hosts.
    hosts: Vec<String>,
}
struct Lab {
    free: Mutex<Vec<String>>,
}
impl Plugin for Lab {
    type Config = Config;
    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Lab { free: Mutex::new(config.hosts) })
    }
}
impl Provisioner for Lab {
    const CAPABILITIES: Capabilities = Capabilities::EXPIRES; // With this process: nothing else knows of it.
    fn reserve(&self, _lease: &Lease, _host: &Host) -> Result<Machine> {
        let name = self.free.lock()?.pop().ok_or(Error::new(ErrorKind::Busy, "all hosts are lent"))?;
        Ok(Machine::new(&name, Transport::Ssh(SshTransport::new(&name))))
    }
    fn release(&self, machine: &str, _host: &Host) -> Result<()> {
        let mut free = self.free.lock()?;
        if !free.iter().any(|name| name == machine) {
            free.push(machine.to_owned());
        }
        Ok(())
    }
    fn list(&self, _owner: &str, _host: &Host) -> Result<Vec<Held>> {
        Ok(Vec::new())
    }
}
atex_plugin_api::export_plugin!(provisioner "lab" => Lab);
