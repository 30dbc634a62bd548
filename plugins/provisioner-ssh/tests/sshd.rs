//! Against real sshd: each machine has an address of its own below 127/8 and a /var/tmp of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use atex_plugin_api::{Error, ErrorKind, Host, Lease, Plugin, Provisioner, Transport, read_config};
use atex_plugin_process::testing::{conforms, fake_at, fake_for_spoilt, have, skip_if};
use atex_provisioner_ssh::Ssh;
use serde_json::{Value, json};

/// Runs sshd for machine $2 with the files of $1, in a mount namespace that ends with it. $3: address.
const SSHD: &str = include_str!("sshd.sh");

struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keys, and machines that were started with them.
struct Lab {
    directory: tempfile::TempDir,
    /// Second byte of all addresses, so that tests do not meet.
    net: u8,
    machines: Vec<Machine>,
}

impl Lab {
    /// A lab with this many machines.
    fn new(net: u8, count: u8) -> Option<Self> {
        let namespaces = || {
            Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success())
        };
        if !have(&["ssh", "ssh-keygen", "unshare"])
            || !skip_if(!Path::new("/usr/sbin/sshd").exists(), "no sshd")
        {
            return None;
        }
        if !skip_if(!namespaces(), "no right to make namespaces") {
            return None;
        }
        let lab = Self { directory: tempfile::tempdir().unwrap(), net, machines: Vec::new() };
        for key in ["key", "host_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(lab.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        Some((0..count).fold(lab, |mut lab, _| {
            lab.start();
            lab
        }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self, machine: usize) -> String {
        format!("127.{}.0.{}", self.net, machine + 1)
    }

    fn host(&self, machine: usize) -> String {
        format!("root@{}:2222", self.address(machine))
    }

    /// Starts one more machine and waits until it listens.
    fn start(&mut self) {
        let number = self.machines.len();
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", SSHD, "sh"])
            .arg(self.directory.path())
            .args([number.to_string(), self.address(number)])
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Server listening")), "sshd does not start");
        // It must not block on a pipe that nobody reads.
        thread::Builder::new().spawn(move || lines.for_each(drop)).unwrap();
        self.machines.push(Machine(child));
    }

    fn config(&self, more: &Value) -> Value {
        let hosts: Vec<_> = (0..self.machines.len()).map(|machine| self.host(machine)).collect();
        let mut config = json!({"hosts": hosts, "keys": [self.path("key")], "ssh-options": {"GlobalKnownHostsFile": "/dev/null"}});
        for (key, value) in more.as_object().unwrap() {
            if key.starts_with("hosts-") {
                config.as_object_mut().unwrap().remove("hosts");
            }
            config[key] = value.clone();
        }
        config
    }

    fn pool(&self, more: &Value) -> Ssh {
        Ssh::new(read_config(&self.config(more).to_string()).unwrap(), self.fake()).unwrap()
    }

    fn fake(&self) -> Host {
        fake_at(self.directory.path()).1
    }

    /// What lies in /var/tmp of a machine.
    fn left(&self, machine: usize) -> Vec<String> {
        let names = std::fs::read_dir(self.path(&format!("{machine}/tmp"))).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn lease(id: &str) -> Lease {
    Lease::new(id, "run-1", "me@lab")
}

fn host_of(machine: &atex_plugin_api::Machine) -> String {
    let Transport::Ssh(transport) = &machine.transport else { panic!("{machine:?}") };
    transport.host.clone()
}

#[test]
fn it_conforms() {
    let Some(lab) = Lab::new(101, 1) else { return };
    let host = lab.fake();
    let pool = lab.pool(
        &json!({"check": "test -d /var/tmp/atex-host-claims", "reset": "echo reset >> /var/tmp/resets"}),
    );
    conforms(&pool, &host, "me@lab", |machine| {
        assert_eq!(host_of(machine), lab.address(0));
        let until = pool.renew(&machine.id, std::time::Duration::from_hours(2), &host).unwrap();
        assert!(until > machine.expires.map(|_| 0));
        let other = pool.reserve(&lease("a2"), &host).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Busy, "{other}");
    });
    let resets = std::fs::read_to_string(lab.path("0/tmp/resets")).unwrap();
    assert_eq!(resets, "reset\n".repeat(2), "once for each time it was lent");
    assert_eq!(lab.left(0), ["resets"]);
    assert_eq!(pool.capacity(&host).unwrap(), Some(1));
}

#[test]
fn hosts_on_different_boxes_share_a_pool() {
    let Some(lab) = Lab::new(102, 3) else { return };
    let boxes: Vec<_> = (0..3).map(|_| lab.pool(&json!({}))).collect();
    let lent = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (number, pool) in boxes.iter().enumerate() {
            let (lent, host) = (&lent, lab.fake());
            scope.spawn(move || {
                for attempt in 0..2 {
                    match pool.reserve(&lease(&format!("a{number}-{attempt}")), &host) {
                        Ok(machine) => lent.lock().unwrap().push((host_of(&machine), machine.id)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                    }
                }
            });
        }
    });
    let lent = lent.into_inner().unwrap();
    let hosts: std::collections::HashSet<_> = lent.iter().map(|(host, _)| host).collect();
    assert_eq!(hosts.len(), lent.len(), "no machine twice: {lent:?}");
    assert_eq!(boxes[0].list("me@lab", &lab.fake()).unwrap().len(), lent.len());
    for (_, id) in &lent {
        // Any box can give back what any other holds: as after a crash.
        boxes[0].release(id, &lab.fake()).unwrap();
    }
    assert!((0..3).all(|machine| lab.left(machine).is_empty()));
}

#[test]
fn one_that_fails_is_put_aside() {
    let Some(lab) = Lab::new(103, 1) else { return };
    let dead = format!("root@{}:2222", lab.address(7));
    let pool = lab.pool(&json!({"hosts": [dead, lab.host(0)]}));
    let (services, host) = fake_at(lab.directory.path());
    // Wherever a lease begins, the machine that lives is found.
    for id in ["a1", "a2", "a3", "a4"] {
        let machine = pool.reserve(&lease(id), &host).unwrap();
        assert_eq!(host_of(&machine), lab.address(0));
        pool.release(&machine.id, &host).unwrap();
    }
    let log = services.log.lock().unwrap();
    let aside = log.iter().filter(|line| line.contains("put aside for 30 s")).count();
    assert_eq!(aside, 1, "it is not asked again: {log:?}");
    assert!(log.iter().any(|line| line.contains("was used by this run before")), "{log:?}");
}

fn refusal(pool: &Ssh, lab: &Lab) -> Error {
    pool.reserve(&lease("a9"), &lab.fake()).unwrap_err()
}

#[test]
fn what_does_not_work_says_why_and_leaves_no_claim() {
    let Some(lab) = Lab::new(104, 1) else { return };
    let table = [
        (json!({"check": "echo disk full >&2; exit 4"}), "`check` ended with exit status: 4: disk full"),
        (json!({"check": "if"}), "`check` ended with"),
        (json!({"check": "sleep 3600", "check-timeout": 1}), "`check` took longer than 1 s"),
        (json!({"keys": [lab.path("host_key")]}), "Permission denied"),
        (json!({"host-key-check": "strict"}), "Host key verification failed"),
        (json!({"claim-directory": "/proc/claims"}), "cannot write to /proc/claims"),
        (json!({"hosts": [{"host": lab.host(0), "facts": {"arch": "s390x"}}]}), "1 of another arch"),
    ];
    for (config, expected) in table {
        let mut lease = lease("a1");
        lease.context.insert("arch".into(), vec!["x86_64".into()]);
        let error = lab.pool(&config).reserve(&lease, &lab.fake()).unwrap_err();
        assert!(error.to_string().contains(expected), "{config}: {error}");
        assert!(lab.left(0).is_empty(), "{config}: {:?}", lab.left(0));
    }
    assert!(refusal(&lab.pool(&json!({"check": "false"})), &lab).is_retryable());
}

#[test]
fn a_spoilt_machine_is_lent_on_or_retired() {
    let Some(lab) = Lab::new(110, 1) else { return };
    let (services, spoilt) = fake_for_spoilt(lab.directory.path());
    let heard = |text: &str| services.log.lock().unwrap().iter().filter(|line| line.contains(text)).count();
    let lend = lab.pool(&json!({}));
    let machine = lend.reserve(&lease("a1"), &spoilt).unwrap();
    lend.release(&machine.id, &spoilt).unwrap();
    assert_eq!(heard("it will be lent as it is"), 1);
    lend.release(&machine.id, &spoilt).unwrap();
    assert_eq!(heard("it will be lent as it is"), 1, "only while it was ours");
    let machine = lend.reserve(&lease("a2"), &spoilt).unwrap();
    assert_eq!(heard("was left spoilt by an earlier test"), 1);
    lend.release(&machine.id, &lab.fake()).unwrap();

    // What resets a machine mends it.
    let mended = lab.pool(&json!({"reset": "true", "spoilt": "retire"}));
    let machine = mended.reserve(&lease("a3"), &spoilt).unwrap();
    mended.release(&machine.id, &spoilt).unwrap();
    assert!(lab.left(0).is_empty());

    let retire = lab.pool(&json!({"spoilt": "retire"}));
    let machine = retire.reserve(&lease("a4"), &lab.fake()).unwrap();
    retire.release(&machine.id, &spoilt).unwrap();
    assert_eq!(heard("is spoilt and retired"), 1);
    let error = refusal(&lab.pool(&json!({})), &lab);
    assert!(error.to_string().contains("1 retired"), "nobody else gets it either: {error}");
    assert!(lend.list("", &lab.fake()).unwrap().is_empty(), "and nobody holds it");
    std::fs::remove_dir_all(lab.path("0/tmp/atex-host-claims")).unwrap();
    let machine = retire.reserve(&lease("a5"), &lab.fake()).unwrap();
    retire.release(&machine.id, &lab.fake()).unwrap();
}

#[test]
fn a_password_lets_in() {
    let Some(mut lab) = Lab::new(111, 0) else { return };
    // Of root, in a namespace of the test's own.
    let hash = "$6$atexatexatex$k8aG83J9xyXiA1Z6OYI4HXaBfSWy7XU3TdoqhXmEjiI0WDE3KCd4wIdweF1ro9vvLcu.3f.3QJS/uLw5FUyxT/";
    std::fs::write(
        lab.path("shadow"),
        format!("root:{hash}:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n"),
    )
    .unwrap();
    lab.start();
    let (no_keys, host) = (json!({"IdentityFile": "none", "GlobalKnownHostsFile": "/dev/null"}), lab.fake());
    let with = |password: &str| lab.pool(&json!({"keys": [], "password": password, "ssh-options": no_keys}));
    let pool = with("it's $me");
    let machine = pool.reserve(&lease("a1"), &host).unwrap();
    assert_eq!(pool.list("me@lab", &host).unwrap().len(), 1);
    pool.release(&machine.id, &host).unwrap();
    assert!(lab.left(0).is_empty());
    let error = with("a guess").reserve(&lease("a2"), &host).unwrap_err();
    assert!(error.to_string().contains("Permission denied"), "{error}");
}

#[test]
fn passwords_go_to_ssh_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let ssh = directory.path().join("ssh");
    let script = "#!/bin/sh\ncat > /dev/null\necho \"$*\" > \"${0%/*}/arguments\"\n\"$SSH_ASKPASS\" > \"${0%/*}/answer\"\n\
                  [ \"$SSH_ASKPASS_REQUIRE\" = force ] && echo 'atex-claim: claimed'\n";
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "from a file\nmore\n").unwrap();
    let table = [
        (json!({"hosts": ["n1"], "password": "it's $me"}), "it's $me"),
        (json!({"hosts": ["n1"], "password-file": file}), "from a file"),
        (json!({"hosts": [{"host": "n1", "password": "its own"}], "password": "x"}), "its own"),
    ];
    let (services, host) = fake_at(directory.path());
    for (mut config, expected) in table {
        config["program"] = json!(ssh);
        let pool = Ssh::new(read_config(&config.to_string()).unwrap(), host.clone()).unwrap();
        let machine = pool.reserve(&lease("a1"), &host).unwrap();
        let Transport::Ssh(transport) = &machine.transport else { panic!("{machine:?}") };
        assert_eq!(transport.password.as_deref(), Some(expected));
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("answer").trim_end(), expected);
        assert!(!read("arguments").contains(expected) && !read("arguments").contains("BatchMode"));
        assert!(!format!("{pool:?}").contains(expected), "{pool:?}");
    }
    assert!(!services.log.lock().unwrap().iter().any(|line| line.contains("$me")));
}

#[test]
fn a_reset_that_fails_keeps_the_machine_from_others() {
    let Some(lab) = Lab::new(105, 1) else { return };
    let pool = lab.pool(&json!({"reset": "test -e /var/tmp/fixed && rm /var/tmp/fixed", "reuse": false}));
    let host = lab.fake();
    let machine = pool.reserve(&lease("a1"), &host).unwrap();
    let error = pool.release(&machine.id, &host).unwrap_err();
    assert!(error.to_string().contains("stays claimed"), "{error}");
    assert_eq!(refusal(&lab.pool(&json!({})), &lab).kind(), ErrorKind::Busy);
    std::fs::write(lab.path("0/tmp/fixed"), "").unwrap();
    pool.release(&machine.id, &host).unwrap();
    assert!(lab.left(0).is_empty());
    let error = refusal(&pool, &lab);
    assert!(error.to_string().contains("1 used up (reuse: false)"), "{error}");
}

#[test]
fn a_cancelled_reservation_leaves_no_claim() {
    let Some(lab) = Lab::new(106, 1) else { return };
    let pool = lab.pool(&json!({"check": "echo $$ > /var/tmp/pid; echo checking >&2; exec sleep 3600", "check-timeout": "1h"}));
    let (services, host) = fake_at(lab.directory.path());
    thread::scope(|scope| {
        let reserving = scope.spawn(|| pool.reserve(&lease("a1"), &host).unwrap_err());
        services.heard("ssh: checking");
        assert!(lab.left(0).contains(&"atex-host-claims".to_owned()));
        pool.abort("a1", &lab.fake()).unwrap();
        assert_eq!(reserving.join().unwrap().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(lab.left(0), ["pid"]);
    // What runs on a machine outlives its connection, until its own limit.
    let pid = std::fs::read_to_string(lab.path("0/tmp/pid")).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
}

#[test]
fn the_list_of_machines_may_come_from_elsewhere() {
    let Some(lab) = Lab::new(107, 1) else { return };
    let file = lab.path("hosts");
    std::fs::write(&file, format!("# the lab\n{} rack=7\n", lab.host(0))).unwrap();
    let table = [json!({"hosts-file": file}), json!({"hosts-command": ["cat", file]})];
    for config in table {
        let (pool, host) = (lab.pool(&config), lab.fake());
        let machine = pool.reserve(&lease("a1"), &host).unwrap();
        assert_eq!(machine.facts["rack"], "7");
        assert!(pool.alive(&machine.id, &host).unwrap());
        pool.release(&machine.id, &host).unwrap();
    }
    let pool = lab.pool(&json!({"hosts-command": ["false"]}));
    assert!(refusal(&pool, &lab).to_string().contains("`hosts-command`"));
}

#[test]
fn a_power_cycle_is_a_program_of_this_box() {
    let Some(lab) = Lab::new(108, 1) else { return };
    let witness = lab.path("cycled");
    let touch = ["sh", "-c", "echo {host} > \"$0\"", witness.to_str().unwrap()];
    let (pool, host) = (lab.pool(&json!({"power-cycle": touch})), lab.fake());
    pool.reboot(&format!("a1@{}", lab.host(0)), &host).unwrap();
    assert_eq!(std::fs::read_to_string(witness).unwrap().trim(), lab.address(0));
    let error = lab.pool(&json!({})).reboot(&format!("a1@{}", lab.host(0)), &host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn wrong_configurations_are_refused() {
    let table = [
        (json!({}), "no machines"),
        (json!({"hosts": ["n1"], "hosts-file": "x"}), "give only one"),
        (json!({"hosts": ["n1", "n1"]}), "is there twice"),
        (json!({"hosts": ["-oProxyCommand=x"]}), "no name of a host"),
        (json!({"hosts": [{"host": "n1", "prot": 22}]}), "`user@host:port`, or a mapping"),
        (json!({"hosts-file": "/no/such/file"}), "`hosts-file` /no/such/file"),
        (json!({"hosts": ["n1"], "jump": ["a b"]}), "`jump`"),
        (json!({"hosts": ["n1"], "password": "x", "password-file": "y"}), "give only one of `password`"),
        (json!({"hosts": ["n1"], "spoilt": "scrap"}), "`spoilt`"),
        (json!({"hosts": ["n1"], "claim-directory": "x"}), "no absolute path"),
        (json!({"hosts": ["n1"], "ssh-options": {"A B": "c"}}), "no option of ssh_config"),
        (json!({"hots": ["n1"]}), "did you mean `hosts`"),
    ];
    for (config, expected) in table {
        let made = read_config(&config.to_string()).and_then(|config| Ssh::new(config, fake_at("/tmp").1));
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{config}: {error}");
    }
}
