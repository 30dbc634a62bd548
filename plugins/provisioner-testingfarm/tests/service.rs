//! Against a server that behaves like the service.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod farm;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use atex_plugin_api::{ErrorKind, HostKeyCheck, Lease, Plugin, Provisioner, Transport, read_config};
use atex_plugin_process::testing::{conforms, fake_at, have, passes_the_kit};
use atex_provisioner_testingfarm::TestingFarm;
use serde_json::{Value, json};

use farm::{Farm, How, TOKEN};

/// A service, a place for state, and an `ssh` that is let in at the second attempt.
struct Fixture {
    farm: Farm,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Option<Self> {
        if !have(&["ssh-keygen"]) {
            return None;
        }
        let fixture = Self { farm: Farm::new(), directory: tempfile::tempdir().unwrap() };
        let ssh = fixture.path("ssh");
        let script = "#!/bin/sh\ncd \"${0%/*}\" || exit 9\necho \"$*\" >> logins\n\
            [ -e knows ] || { touch knows; echo 'root@192.0.2.7: Permission denied (publickey).' >&2; exit 255; }\n";
        std::fs::write(&ssh, script).unwrap();
        std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, more: &Value) -> String {
        let mut config = json!({
            "url": self.farm.url, "token": TOKEN, "ssh": self.path("ssh"), "poll-interval": 0,
            "address-url": format!("{}/address", self.farm.url),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config.to_string()
    }

    fn provisioner(&self, more: &Value) -> TestingFarm {
        let (_, host) = fake_at(self.directory.path());
        TestingFarm::new(read_config(&self.config(more)).unwrap(), host).unwrap()
    }

    fn asked(&self, question: &str) -> usize {
        self.farm.state().questions.iter().filter(|asked| asked.starts_with(question)).count()
    }
}

fn lease() -> Lease {
    Lease::new("a1", "run-1", "me@lab")
}

#[test]
fn it_conforms() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at(fixture.directory.path());
    let provisioner =
        fixture.provisioner(&json!({"compose": "Fedora-42", "clean-up": "rm -rf /etc/yum.repos.d/tf-*"}));
    conforms(&provisioner, &host, "me@lab", |machine| {
        let Transport::Ssh(ssh) = &machine.transport else { panic!("{machine:?}") };
        assert_eq!((ssh.host.as_str(), ssh.user.as_deref()), ("192.0.2.7", Some("root")));
        assert_eq!(ssh.host_key_check, HostKeyCheck::Off);
        assert!(std::fs::read_to_string(&ssh.keys[0]).unwrap().contains("PRIVATE KEY"));
        assert!(machine.disposable && machine.expires.is_some());
    });
    assert_eq!(fixture.farm.states(), ["canceled"; 2]);
    let body = fixture.farm.state().requests.values().next().unwrap().body.clone();
    let environment = &body["environments"][0];
    let rules = &environment["settings"]["provisioning"]["security_group_rules_ingress"];
    assert_eq!(rules[0]["cidr"], "203.0.113.9/32");
    assert_eq!(environment["os"]["compose"], "Fedora-42");
    let logins = std::fs::read_to_string(fixture.path("logins")).unwrap();
    let commands: Vec<_> = logins.lines().map(|line| line.split(" -- 192.0.2.7 ").nth(1).unwrap()).collect();
    let clean_up = "rm -rf /etc/yum.repos.d/tf-*";
    assert_eq!(commands, ["true", "true", clean_up, "true", clean_up]);
    assert_eq!(fixture.asked("GET /v0.1/whoami"), 1);
}

#[test]
fn it_passes_the_kit() {
    let Some(fixture) = Fixture::new() else { return };
    let config = fixture.config(&json!({}));
    passes_the_kit::<TestingFarm>(&config, TestingFarm::CAPABILITIES, fixture.directory.path(), 4);
    assert!(fixture.farm.states().iter().all(|state| *state == "canceled"));
}

#[test]
fn outages_are_sat_out() {
    let Some(fixture) = Fixture::new() else { return };
    let (services, host) = fake_at(fixture.directory.path());
    let provisioner = fixture.provisioner(&json!({}));
    for question in
        ["GET /v0.1/whoami", "GET /address", "POST", "GET /v0.1/requests/", "GET /artifacts", "DELETE"]
    {
        for how in [How::Status(503), How::Status(429), How::Status(408), How::NoConnection] {
            fixture.farm.fails(question, how);
        }
    }
    let machine = provisioner.reserve(&lease(), &host).unwrap();
    provisioner.release(&machine.id, &host).unwrap();
    assert!(fixture.farm.state().faults.is_empty());
    assert_eq!(fixture.farm.states(), ["canceled"], "one request, and no more");
    services.heard("trying again: asking the service: the service says 503 on purpose");
}

#[test]
fn a_request_whose_answer_was_lost_is_found() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at(fixture.directory.path());
    let provisioner = fixture.provisioner(&json!({}));
    fixture.farm.fails("POST", How::NoAnswer);
    let machine = provisioner.reserve(&lease(), &host).unwrap();
    assert_eq!(fixture.farm.state().requests.len(), 1);
    assert_eq!(provisioner.reserve(&lease(), &host).unwrap().id, machine.id, "asked twice, it is the same");
    fixture.farm.fails("DELETE", How::NoAnswer);
    provisioner.release(&machine.id, &host).unwrap();
    assert_eq!(fixture.farm.states(), ["canceled"]);
}

#[test]
fn a_reservation_that_is_given_up_is_cancelled() {
    let Some(fixture) = Fixture::new() else { return };
    for (stuck, by_abort) in [("queued", false), ("running", true)] {
        fixture.farm.state().stuck = Some(stuck);
        // A log that never comes: the guest is waited for.
        let provisioner = fixture.provisioner(&json!({"poll-interval": 1}));
        let (services, host) = fake_at(fixture.directory.path());
        thread::scope(|scope| {
            let reserving = scope.spawn(|| provisioner.reserve(&lease(), &host).unwrap_err());
            services.heard(&format!("progress: {stuck}: waiting for a guest"));
            if by_abort {
                provisioner.abort("a1", &fake_at("").1).unwrap();
            } else {
                services.cancel.cancel();
            }
            let error = reserving.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        });
    }
    assert_eq!(fixture.farm.states(), ["canceled"; 2]);
    assert!(fixture.provisioner(&json!({})).list("", &fake_at("").1).unwrap().is_empty());
}

#[test]
fn a_service_that_tells_no_tags_is_asked_by_id() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, host) = fake_at(fixture.directory.path());
    fixture.farm.state().hide_tags = true;
    let machine = fixture.provisioner(&json!({})).reserve(&lease(), &host).unwrap();
    // Another process of this box.
    let other = fixture.provisioner(&json!({}));
    let held = other.list("me@lab", &host).unwrap();
    assert_eq!((held.len(), &held[0].id, held[0].mark.as_str()), (1, &machine.id, "me@lab/run-1/a1"));
    other.abort("a1", &host).unwrap();
    assert_eq!(fixture.farm.states(), ["canceled"]);
    assert!(other.list("", &host).unwrap().is_empty());
}

#[test]
fn what_does_not_work_says_why() {
    let Some(fixture) = Fixture::new() else { return };
    let (services, host) = fake_at(fixture.directory.path());
    let table = [
        (json!({"compose": "Fedora-Rawhid"}), ErrorKind::Config, "did you mean \"Fedora-Rawhide\"?"),
        (json!({"token": "hunter2"}), ErrorKind::Denied, "401 Not authorized; is the token valid?"),
        (
            json!({"address-url": format!("{}/v0.1/whoami", fixture.farm.url)}),
            ErrorKind::Config,
            "set `ingress`",
        ),
    ];
    for (config, kind, expected) in table {
        let error = fixture.provisioner(&config).reserve(&lease(), &host).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(expected), "{config}: {error}");
    }
    fixture.farm.fails("POST", How::Status(400));
    let error = fixture.provisioner(&json!({})).reserve(&lease(), &host).unwrap_err();
    assert!(error.to_string().contains("400 on purpose") && error.kind() == ErrorKind::Config, "{error}");
    assert!(fixture.farm.state().requests.is_empty());

    fixture.farm.state().stuck = Some("error");
    let error = fixture.provisioner(&json!({"pool": "x"})).reserve(&lease(), &host).unwrap_err();
    assert!(
        error.to_string().contains("\"error\" before a machine was ready: no provisioner has such"),
        "{error}"
    );
    assert!(
        !services.log.lock().unwrap().iter().any(|line| line.contains(TOKEN) || line.contains("hunter2"))
    );
}
