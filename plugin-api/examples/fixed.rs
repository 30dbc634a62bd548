// A provisioner that lends one machine: `fixed,address=10.0.0.7,max=1`.
use atex_plugin_api::prelude::*;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Fixed {
    address: String,
}
impl Plugin for Fixed {
    type Config = Self;
    fn new(config: Self, _host: Host) -> Result<Self> {
        Ok(config)
    }
}
impl Provisioner for Fixed {
    const CAPABILITIES: Capabilities = Capabilities::EXPIRES; // With this process: nothing else knows of it.
    fn reserve(&self, _lease: &Lease, _host: &Host) -> Result<Machine> {
        Ok(Machine::new(&self.address, Transport::Ssh(SshTransport::new(&self.address))))
    }
    fn release(&self, _machine: &str, _host: &Host) -> Result<()> {
        Ok(())
    }
}
atex_plugin_api::export_plugin!(provisioner "fixed" => Fixed);
