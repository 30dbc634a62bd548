//! The examples of the documentation, and programs that misbehave.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use atex_plugin_api::{ErrorKind, Lease, Plugin, Provisioner, read_config};
use atex_plugin_process::testing::{Fake, conforms, fake_at, have};
use atex_provisioner_exec::Exec;
use serde_json::{Value, json};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

fn exec(config: &Value) -> Exec {
    Exec::new(read_config(&config.to_string()).unwrap(), fake_at("").1).unwrap()
}

/// A provisioner whose program is this shell script.
fn script(text: &str) -> Exec {
    exec(&json!({"program": ["sh", "-c", text], "grace": 0}))
}

fn python(pool: &Path, boot_s: u32) -> Exec {
    exec(&json!({"program": format!("{EXAMPLES}/pool.py"), "options": {"directory": pool, "boot_s": boot_s}}))
}

fn shell(pool: &Path) -> Exec {
    exec(&json!({"program": format!("{EXAMPLES}/pool.sh"), "env": {"POOL": pool}}))
}

#[test]
fn both_examples_conform() {
    if !have(&["python3"]) {
        return;
    }
    let pool = tempfile::tempdir().unwrap();
    for provisioner in [shell(pool.path()), python(pool.path(), 0)] {
        conforms(&provisioner, &fake_at("").1, "me@lab", |machine| {
            assert!(pool.path().join(&machine.id).is_dir());
        });
        assert_eq!(std::fs::read_dir(pool.path()).unwrap().count(), 0);
        let error = provisioner.renew("m", Duration::ZERO, &fake_at("").1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_reservation_that_is_given_up_leaves_nothing() {
    if !have(&["python3"]) {
        return;
    }
    let pool = tempfile::tempdir().unwrap();
    for by_abort in [false, true] {
        let provisioner = python(pool.path(), 3600);
        let (services, host) = fake_at("");
        let lease = Lease::new("a1", "r1", "me");
        thread::scope(|scope| {
            let reserving = scope.spawn(|| provisioner.reserve(&lease, &host).unwrap_err());
            services.heard("progress: warming up");
            assert!(pool.path().join("a1").is_dir());
            if by_abort {
                provisioner.abort("a1", &fake_at("").1).unwrap();
            } else {
                services.cancel.cancel();
            }
            assert_eq!(reserving.join().unwrap().kind(), ErrorKind::Cancelled);
        });
        assert!(!pool.path().join("a1").exists());
    }
}

#[test]
fn whoever_does_not_answer_properly_is_told_to_abort() {
    let directory = tempfile::tempdir().unwrap();
    let aborted = directory.path().join("aborted");
    let table = [
        ("echo hello", "wrote \"hello\", which is no answer"),
        (":", "ended without an answer"),
        ("echo '{}'", "without `machine`"),
        ("echo cable is out >&2; exit 7", "exit status: 7: cable is out"),
        (r#"echo '{"machine": {"id": "m", "transport": {"kind": "pigeon"}}}'"#, "unknown variant `pigeon`"),
        (r#"echo '{"machine": {"id": "m", "transport": {"kind": "local"}}}'; exit 1"#, "exit status: 1"),
        ("yes", "which is no answer"),
        (r#"yes "{\"progress\": \"$(head -c 100000 /dev/zero | tr '\0' x)\"}""#, "more than"),
        ("head -c 3000000 /dev/zero", "a line longer than"),
    ];
    for (answer, expected) in table {
        let told = aborted.display();
        let provisioner = script(&format!(
            r#"[ "$ATEX_REQUEST" = abort ] && {{ echo "$ATEX_LEASE" >> {told}; exit; }}; {answer}"#
        ));
        let error = provisioner.reserve(&Lease::new("a1", "r1", "me"), &fake_at("").1).unwrap_err();
        assert!(error.to_string().contains(expected), "{answer}: {error}");
        assert_eq!(std::fs::read_to_string(&aborted).unwrap(), "a1\n", "{answer}");
        std::fs::remove_file(&aborted).unwrap();
    }
}

#[test]
fn an_error_of_the_program_is_the_error() {
    let answer = r#"echo '{"error": {"kind": "busy", "message": "all 8 are out"}}'; exit 3"#;
    let provisioner = script(answer);
    let error = provisioner.reserve(&Lease::new("a1", "r1", "me"), &fake_at("").1).unwrap_err();
    assert!(error.to_string().ends_with(": all 8 are out"), "{error}");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Busy, true));
}

#[test]
fn secrets_and_requests_reach_the_program() {
    let provisioner = exec(&json!({
        "program": ["sh", "-c", r#"read line; [ "${#TOKEN}" = 7 ] && echo "$line" >&2; echo '{"alive": true}'"#],
        "secrets": {"TOKEN": "hunter2"},
        "options": {"zone": 4},
    }));
    let (services, host): (Arc<Fake>, _) = fake_at("");
    assert!(provisioner.alive("m1", &host).unwrap());
    let log = services.log.lock().unwrap();
    assert_eq!(*log, [r#"sh: {"protocol":1,"request":"alive","machine":"m1","options":{"zone":4}}"#]);
    assert!(!format!("{provisioner:?}").contains("hunter2"));
}

#[test]
fn wrong_configurations_are_refused() {
    let table = [
        (json!({}), "missing field `program`"),
        (json!({"program": ""}), "`program` is empty"),
        (json!({"program": 7}), "`program`: expected a program, or a list"),
        (json!({"program": []}), "`program` is empty"),
        (json!({"program": "./no-such.py"}), "there is no such program"),
        (json!({"program": "sh", "option": {}}), "did you mean `options`"),
        (json!({"program": "sh", "grace": "soon"}), "`grace`"),
        (json!({"program": "sh", "env": {"A=B": "c"}}), "cannot be the name"),
    ];
    for (config, expected) in table {
        let made = read_config(&config.to_string()).and_then(|config| Exec::new(config, fake_at("").1));
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{config}: {error}");
    }
}
