//! Machines for tests, made of this box: an sshd in namespaces of its own, a container. Each removes itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use atex_plugin_api::model::{ExecTransport, HostKeyCheck, SshTransport, Transport};

static NEXT: AtomicU16 = AtomicU16::new(1);

/// Whether a program is there; these fixtures also need root.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()));
    found && rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// One SSH server on an address of its own, with its own processes, mounts and `/var`.
pub struct Sshd {
    child: Child,
    setting: Setting,
    pub directory: tempfile::TempDir,
    pub address: String,
}

/// What is special about a machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting {
    /// A network of its own, to be connected to a switch.
    pub network: bool,
    /// The server is not the machine's first process: the machine survives it.
    pub mortal: bool,
    /// The server is dropbear; its log is the machine's.
    pub dropbear: bool,
}

pub const PORT: u16 = 2222;

impl Sshd {
    /// `None` where there is no sshd.
    pub fn start(more_configuration: &[&str]) -> Option<Self> {
        Self::with(Setting::default(), more_configuration)
    }

    pub fn with(setting: Setting, more_configuration: &[&str]) -> Option<Self> {
        let server = if setting.dropbear { "/usr/sbin/dropbear" } else { "/usr/sbin/sshd" };
        if !have("unshare") || !Path::new(server).exists() {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let address = format!("127.{}.{}.{number}", 1 + process / 251 % 250, 1 + process % 251);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)));
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        fs::create_dir(at("home")).unwrap();
        let home = format!("root:x:0:0:root:{}:/bin/bash", at("home").display());
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let others = accounts.lines().filter(|line| !line.starts_with("root:"));
        fs::write(
            at("passwd"),
            [home.as_str()].into_iter().chain(others).collect::<Vec<_>>().join("\n") + "\n",
        )
        .unwrap();
        // Of the word `secret`.
        let hash =
            "$6$atex$WobXzZreICEO/Oy7WHAgQAh5opqV.q3j/MHWss19j2VZB8sfPEYACNPSvRlP/vlFPLgKW5OodUw9BVuMFsmPk/";
        fs::write(at("shadow"), format!("root:{hash}:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"))
            .unwrap();
        let pam =
            ["auth", "account", "password"].map(|kind| format!("{kind} required pam_unix.so\n")).concat();
        fs::write(at("pam"), pam + "session required pam_permit.so\n").unwrap();
        let mut lines = vec![
            format!("ListenAddress {}:{PORT}", if setting.network { "0.0.0.0" } else { &address }),
            format!("HostKey {}", at("host").display()),
            format!("AuthorizedKeysFile {}", at("authorized").display()),
        ];
        let fixed = [
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 200:30:400",
            "LogLevel ERROR",
        ];
        // The first word on a thing counts.
        lines.splice(0..0, more_configuration.iter().map(|&line| line.to_owned()));
        lines.extend(fixed.map(str::to_owned));
        fs::write(at("config"), lines.join("\n") + "\n").unwrap();
        if setting.dropbear {
            // Where it looks for keys.
            fs::create_dir(at("home/.ssh")).unwrap();
            fs::copy(at("user.pub"), at("home/.ssh/authorized_keys")).unwrap();
            run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(at("dropbear")));
        }
        let child = boot(directory.path(), &address, setting);
        Some(Self { child, setting, directory, address })
    }

    /// No electricity any more.
    pub fn power_off(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A power cut, and the machine is up again with another boot id and an empty `/var`.
    pub fn reboot(&mut self) {
        self.power_off();
        self.child = boot(self.directory.path(), &self.address, self.setting);
    }

    pub fn transport(&self) -> SshTransport {
        let mut ssh = SshTransport::default();
        ssh.host.clone_from(&self.address);
        ssh.port = Some(PORT);
        ssh.user = Some("root".into());
        ssh.keys = vec![self.directory.path().join("user").display().to_string()];
        ssh.host_key_check = HostKeyCheck::Off;
        ssh
    }

    /// What the server knows as its own key: `TYPE BASE64`.
    pub fn host_key(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("host.pub")).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Process id of the first process in the machine's namespaces, once it is there.
    pub fn init(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let mut children = String::new();
        super::eventually(|| {
            children = fs::read_to_string(&path).unwrap_or_default();
            super::holds(!children.is_empty(), "a machine has no first process")
        });
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Processes whose command line has this part, as numbers of this box.
    pub fn processes(&self, part: &str) -> Vec<String> {
        let line = |pid: &String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut all = self.everything();
        all.retain(|pid| String::from_utf8_lossy(&line(pid)).contains(part));
        all
    }

    /// Processes that a session of ours has started, and the session's own shell.
    pub fn of_ours(&self) -> Vec<String> {
        let marked = |pid: &String| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains("ATEX_MARK=")
        };
        let mut all = self.everything();
        let shells = self.processes("bash\0-s");
        all.retain(|pid| shells.contains(pid) || marked(pid));
        all
    }

    /// Work directories of ours on the machine.
    pub fn work_directories(&self) -> Vec<std::path::PathBuf> {
        let var = format!("/proc/{}/root/var", self.init());
        let all = fs::read_dir(var).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("atex-")).collect()
    }

    /// Sends a signal to processes.
    pub fn signal(pids: &[String], name: &str) {
        let _ = Command::new("kill").arg(name).args(pids).status();
    }

    /// Starts the server anew, on a machine that is `mortal`.
    pub fn start_server(&self) {
        let config = self.directory.path().join("config").display().to_string();
        let output = self.inside(&["/usr/sbin/sshd", "-f", &config]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// All processes of the machine, as numbers of this box.
    pub fn everything(&self) -> Vec<String> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.init().to_string());
        let all =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        all.filter(|pid| pid.parse::<u32>().is_ok() && namespace(pid) == own).collect()
    }

    /// Runs a program among the machine's processes and files.
    pub fn inside(&self, words: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["-m", "-p", "-t", &self.init().to_string()])
            .args(words)
            .output()
            .unwrap()
    }
}

/// The machine of this directory, in namespaces of its own.
fn boot(directory: &Path, address: &str, setting: Setting) -> Child {
    fs::copy("/proc/sys/kernel/random/uuid", directory.join("boot")).unwrap();
    let at = directory.display();
    let server = if setting.dropbear {
        format!("exec /usr/sbin/dropbear -F -E -r {at}/dropbear -p {address}:{PORT}")
    } else if setting.mortal {
        format!("/usr/sbin/sshd -f {at}/config && exec tail -f /dev/null")
    } else {
        format!("exec /usr/sbin/sshd -f {at}/config -D -e")
    };
    let script = format!(
        "mount -t proc proc /proc && mount --bind {at}/passwd /etc/passwd && mount --bind {at}/shadow /etc/shadow \
         && {{ [ ! -e /etc/pam.d/sshd ] || mount --bind {at}/pam /etc/pam.d/sshd; }} && mount -t tmpfs tmpfs /var && mkdir -p /run/sshd \
         && mount --bind {at}/boot /proc/sys/kernel/random/boot_id && chmod 755 /var && mkdir -m 1777 /var/tmp \
         && {server}"
    );
    fs::create_dir_all("/run/sshd").unwrap();
    Command::new("unshare")
        .args(if setting.network { &["-n"][..] } else { &[] })
        .args(["-m", "-p", "-u", "-f", "--kill-child", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A container with this box's bash and busybox, and nothing else.
pub struct Container {
    directory: tempfile::TempDir,
    id: String,
}

impl Container {
    /// `None` where there is no podman.
    pub fn start() -> Option<Self> {
        if !have("podman") || !have("runc") || !Path::new("/bin/busybox").exists() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        small_root(&root);
        fs::write(
            directory.path().join("containers.conf"),
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\",\"nproc=4096:4096\"]\nnetns = \"none\"\nlog_driver = \"k8s-file\"\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        )
        .unwrap();
        let mut container = Self { directory, id: String::new() };
        let output = container
            .podman()
            .args(["run", "-d", "--network", "none", "--rootfs"])
            .arg(root)
            .args(["/bin/sleep", "100000"])
            .output()
            .unwrap();
        if !output.status.success() {
            println!("podman does not work here: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        String::from_utf8(output.stdout).unwrap().trim().clone_into(&mut container.id);
        Some(container)
    }

    fn argv(&self) -> [String; 5] {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        ["podman".into(), "--root".into(), at("storage"), "--runroot".into(), at("run")]
    }

    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(&self.argv()[1..]).env("CONTAINERS_CONF", self.directory.path().join("containers.conf"));
        command
    }

    pub fn transport(&self) -> Transport {
        let mut exec =
            ExecTransport::new(self.argv().into_iter().chain(["exec".into(), "-i".into(), self.id.clone()]));
        let configuration = self.directory.path().join("containers.conf");
        exec.env.insert("CONTAINERS_CONF".into(), configuration.display().to_string());
        Transport::Exec(exec)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.podman().args(["rm", "-f", "-t", "0", &self.id]).output();
        let storage = self.directory.path().join("storage");
        for line in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines() {
            let mounted = line.split(' ').nth(1).unwrap_or("");
            if Path::new(mounted).starts_with(&storage) {
                let _ = Command::new("umount").arg(mounted).output();
            }
        }
    }
}

/// busybox for all tools but bash, with the libraries that it needs.
fn small_root(root: &Path) {
    for directory in ["bin", "proc", "dev", "tmp", "var/tmp", "etc", "root", "lib64", "usr/bin"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    fs::write(root.join("etc/os-release"), "ID=small\nVERSION_ID=1\n").unwrap();
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).unwrap();
    let applets = run(Command::new(&busybox).arg("--list"));
    for applet in
        String::from_utf8(applets.stdout).unwrap().lines().filter(|name| !["busybox", "bash"].contains(name))
    {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    fs::copy("/bin/bash", root.join("bin/bash")).unwrap();
    let libraries = run(Command::new("ldd").arg("/bin/bash"));
    for word in
        String::from_utf8(libraries.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/'))
    {
        let target = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(word, target).unwrap();
    }
}
