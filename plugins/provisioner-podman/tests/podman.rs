//! Against the real podman: private storage, a small image made of this box's own programs, no network.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use atex_plugin_api::{Error, ErrorKind, Lease, Machine, Plugin, Provisioner, Transport, read_config};
use atex_plugin_process::testing::{conforms, fake_at, have, skip_if};
use atex_provisioner_podman::Podman;
use serde_json::{Value, json};

/// Makes, in $1, `podman`, a wrapper with storage of its own, and a small image.
const SETUP: &str = include_str!("podman.sh");

/// podman with storage of its own, which is emptied at the end.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Option<Self> {
        if !have(&["podman", "runc", "busybox"]) {
            return None;
        }
        let fixture = Self(tempfile::Builder::new().prefix("atex-podman-").tempdir_in("/var/tmp").unwrap());
        let made = Command::new("sh").args(["-c", SETUP, "sh"]).arg(fixture.0.path()).output().unwrap();
        let failed = String::from_utf8_lossy(&made.stderr).into_owned();
        skip_if(!made.status.success(), &format!("podman does not work here: {failed}")).then_some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, more: &Value) -> String {
        let mut config = json!({"program": self.path("podman"), "networks": ["none"]});
        let image = json!({"image": "localhost/atex-test:1", "pull": "never"});
        let more = if more.get("containerfile").is_some() { [&json!({}), more] } else { [&image, more] };
        for (key, value) in more.into_iter().flat_map(|map| map.as_object().unwrap()) {
            config[key] = value.clone();
        }
        config.to_string()
    }

    fn provisioner(&self, more: &Value) -> Podman {
        Podman::new(read_config(&self.config(more)).unwrap(), fake_at("").1).unwrap()
    }

    fn containers(&self) -> String {
        let output = Command::new(self.path("podman")).args(["ps", "-aq"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path("slow"));
        let _ = Command::new(self.path("podman")).args(["rm", "-afv", "-t", "0"]).output();
    }
}

/// Runs a command by the machine's own transport, as the host would.
fn run(machine: &Machine, command: &[&str]) -> String {
    let Transport::Exec(transport) = &machine.transport else { panic!("{machine:?}") };
    let output = Command::new(&transport.argv[0]).args(&transport.argv[1..]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn lease(id: &str) -> Lease {
    Lease::new(id, "run-1", "me@lab")
}

fn fails(provisioner: &Podman) -> Error {
    provisioner.reserve(&lease("a1"), &fake_at("").1).unwrap_err()
}

#[test]
fn it_conforms() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let provisioner = fixture.provisioner(
        &json!({"env": {"COLOUR": "dark blue"}, "ulimits": ["nofile=512:512", "nproc=4096:4096"]}),
    );
    conforms(&provisioner, &host, "me@lab", |machine| {
        assert_eq!(run(machine, &["bash", "-c", "echo $COLOUR $(ulimit -n) $(id -u)"]), "dark blue 512 0");
        assert!(machine.disposable && machine.expires.is_some());
        let lease = lease("a0192f0c1-0000-7000-8000-000000000001");
        assert_eq!(provisioner.reserve(&lease, &host).unwrap().id, machine.id, "asked twice, it is the same");
        run(machine, &["touch", "/kept"]);
        provisioner.reboot(&machine.id, &host).unwrap();
        run(machine, &["cat", "/kept"]);
    });
    assert_eq!(fixture.containers(), "");
}

#[test]
fn orphans_are_reaped() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let provisioner = fixture.provisioner(&json!({}));
    let machine = provisioner.reserve(&lease("a1"), &host).unwrap();
    run(&machine, &["sh", "-c", "for i in 1 2 3; do sh -c 'sleep 0 & exit'; done"]);
    let processes = run(&machine, &["sh", "-c", "sleep 0.1; ps -o stat"]);
    assert!(!processes.contains('Z'), "{processes}");
    provisioner.release(&machine.id, &host).unwrap();
}

#[test]
fn time_over_stops_it() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let provisioner = fixture.provisioner(&json!({}));
    let mut lease = lease("a1");
    lease.lifetime_s = 1;
    let machine = provisioner.reserve(&lease, &host).unwrap();
    // Ends when the container does.
    let Transport::Exec(transport) = &machine.transport else { panic!("{machine:?}") };
    let lived =
        Command::new(&transport.argv[0]).args(&transport.argv[1..]).args(["sleep", "3600"]).status().unwrap();
    assert!(!lived.success());
    assert!(!provisioner.alive(&machine.id, &host).unwrap());
    assert_eq!(provisioner.list("me@lab", &host).unwrap().len(), 1, "it is found until it is released");
    provisioner.release(&machine.id, &host).unwrap();
    assert_eq!(fixture.containers(), "");
}

#[test]
fn systemd_is_waited_for() {
    let Some(fixture) = Fixture::new() else { return };
    let (services, host) = fake_at("");
    let provisioner = fixture.provisioner(&json!({"systemd": true}));
    let machine = provisioner.reserve(&lease("a1"), &host).unwrap();
    run(&machine, &["cat", "/up"]);
    services.heard("progress: waiting for systemd");
    provisioner.release(&machine.id, &host).unwrap();
}

#[test]
fn an_image_is_built_once() {
    let Some(fixture) = Fixture::new() else { return };
    let (services, host) = fake_at("");
    std::fs::write(fixture.path("hello"), "hello").unwrap();
    let file = "FROM localhost/atex-test:1\nARG WHO\nCOPY hello /hello\nENV WHO=$WHO\n";
    std::fs::write(fixture.path("Containerfile"), file).unwrap();
    // Only what the build needs: a context is copied whole.
    let context = fixture.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::rename(fixture.path("hello"), context.join("hello")).unwrap();
    let provisioner = fixture.provisioner(&json!({
        "containerfile": fixture.path("Containerfile"), "context": context, "build-args": {"WHO": "world"}, "pull": "never",
    }));
    thread::scope(|scope| {
        for id in ["a1", "a2"] {
            let (provisioner, host) = (&provisioner, &host);
            scope.spawn(move || {
                let machine = provisioner.reserve(&lease(id), host).unwrap();
                assert_eq!(run(&machine, &["sh", "-c", "cat /hello; echo \" $WHO\""]), "hello world");
                provisioner.release(&machine.id, host).unwrap();
            });
        }
    });
    let log = services.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line.contains("building the image")).count(), 1);
    assert_eq!(fixture.containers(), "");
}

/// Registries are out of reach for tests: this podman only writes down what it was asked.
#[test]
fn an_image_is_pulled_when_it_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let script = "#!/bin/sh\ncd \"${0%/*}\"\n\
        case $1 in\n\
        image) [ -e there ] && echo 0123abcd ;;\n\
        pull) echo pull >> asked; [ -e registry ] && touch there ;;\n\
        run) echo run >> asked; exit 9 ;;\n\
        *) echo '[]' ;;\n\
        esac\n";
    std::fs::write(path("podman"), script).unwrap();
    std::fs::set_permissions(path("podman"), Permissions::from_mode(0o755)).unwrap();
    // Policy, whether the image is there, whether the registry can be reached; what was pulled, what became of it.
    let table = [
        ("missing", true, false, 0, true),
        ("missing", false, true, 1, true),
        ("missing", false, false, 1, false),
        ("never", true, true, 0, true),
        ("never", false, true, 0, false),
        ("always", true, true, 1, true),
        ("always", true, false, 1, false),
        ("newer", true, true, 1, true),
        ("newer", true, false, 1, true),
        ("newer", false, false, 1, false),
    ];
    for (pull, there, registry, pulls, runs) in table {
        for (name, wanted) in [("there", there), ("registry", registry), ("asked", false)] {
            let _ = std::fs::remove_file(path(name));
            if wanted {
                std::fs::write(path(name), "").unwrap();
            }
        }
        let config = json!({"image": "example.org/x:1", "pull": pull, "program": path("podman")}).to_string();
        let podman = Podman::new(read_config(&config).unwrap(), fake_at("").1).unwrap();
        podman.reserve(&lease("a1"), &fake_at("").1).unwrap_err();
        let asked = std::fs::read_to_string(path("asked")).unwrap_or_default();
        let case = format!("{pull}, there {there}, registry {registry}: {asked:?}");
        assert_eq!(asked.matches("pull").count(), pulls, "{case}");
        assert_eq!(asked.contains("run"), runs, "{case}");
    }
}

#[test]
fn what_cannot_work_says_why_and_leaves_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    let table = [
        (json!({"image": "localhost/none:1"}), "try pull=missing"),
        (json!({"command": ["sh", "-c", "echo the disk is full >&2; exit 3"]}), "the disk is full"),
        (json!({"command": ["/no/such"]}), "/no/such"),
        (json!({"extra-args": ["--no-such-option"]}), "unknown flag"),
        (json!({"networks": ["no-such-network"]}), "no-such-network"),
    ];
    for (config, expected) in table {
        let error = fails(&fixture.provisioner(&config));
        assert!(error.to_string().contains(expected), "{config}: {error}");
        assert_eq!(fixture.containers(), "", "{config}");
    }
}

#[test]
fn a_cancelled_reservation_leaves_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    // In the pull: podman does not answer.
    std::fs::write(fixture.path("slow"), "").unwrap();
    let provisioner = fixture.provisioner(&json!({}));
    cancel_while(&provisioner, "no such message", true);
    std::fs::remove_file(fixture.path("slow")).unwrap();
    cancel_while(&provisioner, "starting the container", false);
    // A systemd that never comes up.
    let systemctl = fixture.path("systemctl");
    std::fs::write(&systemctl, "#!/bin/sh\necho starting\nexit 1\n").unwrap();
    std::fs::set_permissions(&systemctl, Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/bin/systemctl:ro", systemctl.display());
    let never_up = fixture.provisioner(&json!({"systemd": true, "volumes": [volume]}));
    cancel_while(&never_up, "waiting for systemd", false);
    assert_eq!(fixture.containers(), "");
    assert!(provisioner.list("", &fake_at("").1).unwrap().is_empty());
}

/// Cancels a reservation as soon as the host was told this, or at once.
fn cancel_while(provisioner: &Podman, told: &str, at_once: bool) {
    let (services, host) = fake_at("");
    thread::scope(|scope| {
        let reserving = scope.spawn(|| provisioner.reserve(&lease("a1"), &host));
        if !at_once {
            services.heard(told);
        }
        services.cancel.cancel();
        assert_eq!(reserving.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn nothing_of_others_is_touched() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at("");
    let provisioner = fixture.provisioner(&json!({}));
    let theirs = ["run", "-d", "--name=postgres", "--network=none", "localhost/atex-test:1", "sleep", "3600"];
    assert!(Command::new(fixture.path("podman")).args(theirs).output().unwrap().status.success());
    for name in ["postgres", "--all", "atex-", "atex-a1 x", "atex-.*"] {
        provisioner.release(name, &host).unwrap();
        assert!(provisioner.alive(name, &host).is_err(), "{name}");
    }
    provisioner.release("atex-a1", &host).unwrap();
    assert!(!provisioner.alive("atex-a1", &host).unwrap());
    assert!(provisioner.list("", &host).unwrap().is_empty());
    assert_eq!(fixture.containers().lines().count(), 1);
}
