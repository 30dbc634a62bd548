//! From the XML of a domain to that of a throw-away clone. Pure.
//!
//! Every disk becomes transient with a shared backing file: libvirt puts an overlay over it when the clone starts, and removes
//! the overlay when the clone ends. What a clone could share with its origin or other clones by mistake (name, hardware
//! addresses, sockets, log files, fixed ports) is taken out; what cannot be cloned this way is refused by name.

use atex_plugin_api::{Error, Result};
use xmltree::{Element, XMLNode};

use crate::config::{Config, Reach};

const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// What makes a clone different from its origin.
#[derive(Debug, Clone)]
pub(crate) struct Difference<'a> {
    pub(crate) name: &'a str,
    pub(crate) mark: &'a str,
    /// Forward this port of the box to the guest's SSH server, instead of the origin's networks.
    pub(crate) forward: Option<u16>,
}

/// The domain's XML, read.
#[derive(Debug, Clone)]
pub(crate) struct Domain(Element);

impl Domain {
    /// Reads what `virsh dumpxml` wrote.
    pub(crate) fn parse(xml: &str) -> Result<Self> {
        let root = Element::parse(xml.as_bytes())
            .map_err(|error| Error::from(error).context("reading the domain's XML"))?;
        if root.name != "domain" {
            return Err(Error::config(format!("this is no domain but a {:?}", root.name)));
        }
        Ok(Self(root))
    }

    /// How its clones are reached if nobody says.
    pub(crate) fn usual_reach(&self) -> Reach {
        let networked = self.devices().is_some_and(|devices| {
            elements(devices).any(|device| {
                let kind = device.attributes.get("type").map(String::as_str);
                device.name == "interface" && matches!(kind, Some("network" | "bridge" | "direct"))
            })
        });
        if networked { Reach::Address } else { Reach::Forward }
    }

    /// The XML of a clone.
    pub(crate) fn clone_with(&self, config: &Config, clone: &Difference<'_>) -> Result<String> {
        let mut root = self.0.clone();
        root.attributes.remove("id");
        for name in ["uuid", "title", "description", "name", "genid"] {
            remove(&mut root, name);
        }
        root.children.insert(0, text_element("description", clone.mark));
        root.children.insert(0, text_element("name", clone.name));
        refuse_firmware(&root)?;
        override_size(&mut root, config);
        let devices =
            root.get_mut_child("devices").ok_or_else(|| Error::config("the domain has no devices"))?;
        // Its state would be left behind.
        remove(devices, "tpm");
        let mut disks = 0;
        for device in devices.children.iter_mut().filter_map(XMLNode::as_mut_element) {
            disks += u32::from(separate(device)?);
        }
        if disks == 0 {
            return Err(Error::config("the domain has no disk that could be cloned"));
        }
        if let Some(port) = clone.forward {
            remove(devices, "interface");
            forward(&mut root, port, config.port);
        }
        let mut xml = Vec::new();
        root.write(&mut xml).map_err(|error| Error::from(error).context("writing the clone's XML"))?;
        String::from_utf8(xml).map_err(Error::from)
    }

    fn devices(&self) -> Option<&Element> {
        self.0.get_child("devices")
    }
}

fn elements(parent: &Element) -> impl Iterator<Item = &Element> {
    parent.children.iter().filter_map(XMLNode::as_element)
}

fn remove(parent: &mut Element, name: &str) {
    parent.children.retain(|child| child.as_element().is_none_or(|element| element.name != name));
}

fn text_element(name: &str, text: &str) -> XMLNode {
    let mut element = Element::new(name);
    element.children.push(XMLNode::Text(text.to_owned()));
    XMLNode::Element(element)
}

/// Variables of UEFI are a file of the domain's own that libvirt would neither copy nor remove.
fn refuse_firmware(root: &Element) -> Result<()> {
    let os = root.get_child("os");
    if os.is_some_and(|os| {
        os.get_child("nvram").is_some() || os.attributes.get("firmware").is_some_and(|it| it == "efi")
    }) {
        return Err(Error::config(
            "the domain keeps UEFI variables (nvram), which cannot be cloned; use one that boots by BIOS",
        ));
    }
    Ok(())
}

fn override_size(root: &mut Element, config: &Config) {
    let mut prepend = |name: &str, text: String| {
        remove(root, name);
        root.children.push(text_element(name, &text));
    };
    if let Some(memory) = config.memory {
        let kib = memory.saturating_mul(1024).to_string();
        // KiB is the default unit.
        prepend("memory", kib.clone());
        prepend("currentMemory", kib);
    }
    if let Some(cpus) = config.cpus {
        prepend("vcpu", cpus.to_string());
        remove(root, "vcpus");
        remove(root, "cputune");
        if let Some(cpu) = root.get_mut_child("cpu") {
            remove(cpu, "topology");
            remove(cpu, "numa");
        }
    }
}

/// Takes out of a device what it could share by mistake; says whether it is a disk that was made transient.
fn separate(device: &mut Element) -> Result<bool> {
    match device.name.as_str() {
        "disk" => return transient(device),
        "interface" => ["mac", "target"].into_iter().for_each(|name| remove(device, name)),
        "graphics" => {
            for name in ["port", "tlsPort", "websocket", "socket"] {
                device.attributes.remove(name);
            }
            device.attributes.insert("autoport".to_owned(), "yes".to_owned());
        }
        "serial" | "console" | "parallel" => {
            remove(device, "log");
            if device.attributes.get("type").is_some_and(|kind| kind != "pty") {
                device.attributes.insert("type".to_owned(), "pty".to_owned());
                remove(device, "source");
                remove(device, "protocol");
            }
        }
        // A socket of the domain's own; libvirt makes another.
        "channel" if device.attributes.get("type").is_some_and(|kind| kind == "unix") => {
            remove(device, "source");
        }
        "hostdev" => {
            return Err(Error::config(
                "the domain has a device of the box (hostdev), which only one machine can use",
            ));
        }
        _ => {}
    }
    Ok(false)
}

fn transient(disk: &mut Element) -> Result<bool> {
    let is_disk = disk.attributes.get("device").is_none_or(|device| device == "disk");
    if !is_disk || disk.get_child("readonly").is_some() || disk.get_child("shareable").is_some() {
        return Ok(false);
    }
    let target =
        disk.get_child("target").and_then(|target| target.attributes.get("dev")).cloned().unwrap_or_default();
    if disk.attributes.get("type").is_none_or(|kind| kind != "file") {
        return Err(Error::config(format!(
            "disk {target:?} of the domain is no file; only files can be cloned"
        )));
    }
    for name in ["transient", "backingStore", "mirror", "serial"] {
        remove(disk, name);
    }
    let mut transient = Element::new("transient");
    transient.attributes.insert("shareBacking".to_owned(), "yes".to_owned());
    disk.children.push(XMLNode::Element(transient));
    Ok(true)
}

/// A network of qemu's own, whose only way in is the port.
fn forward(root: &mut Element, port: u16, guest_port: u16) {
    let mut namespaces = root.namespaces.take().unwrap_or_else(xmltree::Namespace::empty);
    namespaces.put("qemu", QEMU);
    root.namespaces = Some(namespaces);
    let netdev = format!("user,id=atex0,hostfwd=tcp:127.0.0.1:{port}-:{guest_port}");
    let mut commandline = Element::new("commandline");
    commandline.prefix = Some("qemu".to_owned());
    // An address high up, out of the way of those that libvirt gives.
    for value in ["-netdev", &netdev, "-device", "virtio-net-pci,netdev=atex0,addr=0x1e"] {
        let mut arg = Element::new("arg");
        arg.prefix = Some("qemu".to_owned());
        arg.attributes.insert("value".to_owned(), value.to_owned());
        commandline.children.push(XMLNode::Element(arg));
    }
    root.children.push(XMLNode::Element(commandline));
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::read_config;

    use super::*;

    const ORIGIN: &str = r"<domain type='kvm' id='3'>
      <name>golden</name><uuid>01234567-89ab-cdef-0123-456789abcdef</uuid><title>t</title><description>d</description>
      <memory unit='GiB'>2</memory><currentMemory unit='GiB'>2</currentMemory><vcpu placement='static'>1</vcpu>
      <cpu mode='host-model'><topology sockets='1' cores='1' threads='1'/></cpu>
      <os><type arch='x86_64'>hvm</type></os>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/img/golden.qcow2'/>
          <backingStore type='file'/><target dev='vda' bus='virtio'/><serial>4711</serial></disk>
        <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
        <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/><target dev='vnet0'/></interface>
        <serial type='file'><source path='/var/log/golden.log'/></serial>
        <channel type='unix'><source mode='bind' path='/run/golden.agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <graphics type='vnc' port='5900' autoport='no'/>
        <tpm model='tpm-crb'/>
      </devices>
    </domain>";

    fn config(json: &str) -> Config {
        read_config(json).unwrap()
    }

    fn made(json: &str, forward: Option<u16>) -> Element {
        let clone = Difference { name: "atex-a1", mark: "me & co/r/a1", forward };
        let xml = Domain::parse(ORIGIN).unwrap().clone_with(&config(json), &clone).unwrap();
        Element::parse(xml.as_bytes()).unwrap()
    }

    fn text(root: &Element, name: &str) -> String {
        root.get_child(name).and_then(Element::get_text).map(std::borrow::Cow::into_owned).unwrap_or_default()
    }

    #[test]
    fn a_clone_shares_nothing_but_what_it_reads() {
        let root = made(r#"{"domain": "golden"}"#, None);
        assert_eq!(
            (text(&root, "name"), text(&root, "description")),
            ("atex-a1".into(), "me & co/r/a1".into())
        );
        assert_eq!((root.get_child("uuid"), root.attributes.get("id")), (None, None));
        assert_eq!(text(&root, "vcpu"), "1");
        let devices = root.get_child("devices").unwrap();
        let all = |name: &'static str| elements(devices).filter(move |device| device.name == name);
        let disk = all("disk").next().unwrap();
        assert_eq!(disk.get_child("transient").unwrap().attributes["shareBacking"], "yes");
        assert_eq!(disk.get_child("source").unwrap().attributes["file"], "/img/golden.qcow2");
        assert_eq!((disk.get_child("backingStore"), disk.get_child("serial")), (None, None));
        assert!(all("disk").nth(1).unwrap().get_child("transient").is_none(), "nobody writes there");
        let interface = all("interface").next().unwrap();
        assert_eq!((interface.get_child("mac"), interface.get_child("target")), (None, None));
        let serial = all("serial").next().unwrap();
        assert_eq!((serial.attributes["type"].as_str(), serial.get_child("source")), ("pty", None));
        assert_eq!(all("channel").next().unwrap().get_child("source"), None);
        let graphics = all("graphics").next().unwrap();
        assert_eq!(
            (graphics.attributes.get("port"), graphics.attributes["autoport"].as_str()),
            (None, "yes")
        );
        assert_eq!(all("tpm").count(), 0);
    }

    #[test]
    fn size_and_network_can_be_others() {
        let root = made(r#"{"domain": "golden", "cpus": 4, "memory": 512, "port": 2022}"#, Some(40123));
        assert_eq!((text(&root, "vcpu"), text(&root, "memory")), ("4".into(), "524288".into()));
        assert_eq!(root.get_child("memory").unwrap().attributes.get("unit"), None);
        assert_eq!(text(&root, "currentMemory"), "524288");
        assert_eq!(root.get_child("cpu").unwrap().get_child("topology"), None);
        assert_eq!(root.get_child("devices").unwrap().get_child("interface"), None);
        let commandline = root.get_child(("commandline", QEMU)).unwrap();
        let args: Vec<_> = elements(commandline).map(|arg| arg.attributes["value"].as_str()).collect();
        assert_eq!(args[1], "user,id=atex0,hostfwd=tcp:127.0.0.1:40123-:2022");
    }

    #[test]
    fn what_cannot_be_cloned_is_named() {
        let table = [
            ("<os>", "<os firmware='efi'>", "UEFI variables"),
            ("</os>", "<nvram>/x_VARS.fd</nvram></os>", "UEFI variables"),
            (
                "<disk type='file' device='disk'>",
                "<disk type='block' device='disk'>",
                "disk \"vda\" of the domain is no file",
            ),
            (
                "<disk type='file' device='disk'>",
                "<disk type='file' device='lun'>",
                "no disk that could be cloned",
            ),
            ("<tpm ", "<hostdev mode='subsystem'/><tpm ", "hostdev"),
            ("<devices>", "<devices", "reading the domain's XML"),
        ];
        for (from, to, expected) in table {
            let clone = Difference { name: "n", mark: "m", forward: None };
            let xml = ORIGIN.replace(from, to);
            let made =
                Domain::parse(&xml).and_then(|it| it.clone_with(&config(r#"{"domain": "x"}"#), &clone));
            let error = made.unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        assert!(Domain::parse("<network/>").is_err());
    }

    #[test]
    fn a_domain_without_a_network_gets_a_port() {
        assert_eq!(Domain::parse(ORIGIN).unwrap().usual_reach(), Reach::Address);
        for other in ["user", "ethernet"] {
            let xml = ORIGIN.replace("interface type='network'", &format!("interface type='{other}'"));
            assert_eq!(Domain::parse(&xml).unwrap().usual_reach(), Reach::Forward);
        }
    }
}
