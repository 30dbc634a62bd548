//! The body of a request for a reservation, and what is read back of it.

use atex_plugin_api::Lease;
use atex_plugin_process::Mark;
use serde_json::{Map, Value, json};

use crate::config::Config;

/// The tag that holds the lease's mark.
pub(crate) const TAG: &str = "atex-mark";

/// States in which a request holds something, or soon will.
pub(crate) const OPEN: [&str; 3] = ["new", "queued", "running"];

/// The body. `key`: the public key's line. `ingress`: networks that may connect.
pub(crate) fn body(config: &Config, lease: &Lease, key: &str, ingress: &[String]) -> Value {
    let mut tags: Map<String, Value> =
        config.tags.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    tags.insert(TAG.to_owned(), lease.mark().into());
    if !config.spot {
        tags.insert("ArtemisUseSpot".to_owned(), "false".into());
    }
    let mut provisioning = json!({"tags": tags});
    if !ingress.is_empty() {
        let rule = |net: &String| json!({"type": "ingress", "protocol": "-1", "cidr": net, "port_min": 0, "port_max": 65535});
        provisioning["security_group_rules_ingress"] = ingress.iter().map(rule).collect();
    }
    let mut environment = json!({
        "arch": arch(config, lease),
        "variables": variables(config, lease),
        "secrets": secrets(config, key),
        "settings": {"provisioning": provisioning, "pipeline": {"skip_guest_setup": config.skip_guest_setup}},
    });
    let optional = [
        ("os", config.compose.as_ref().map(|compose| json!({"compose": compose}))),
        ("pool", config.pool.clone().map(Value::from)),
        ("hardware", config.hardware.clone().map(Value::from)),
        ("kickstart", config.kickstart.clone().map(Value::from)),
        ("artifacts", (!config.artifacts.is_empty()).then(|| json!(config.artifacts))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            environment[key] = value;
        }
    }
    let test = &config.test;
    json!({
        "test": {"fmf": {"url": test.url, "ref": test.git_ref, "path": test.path, "name": test.name}},
        "environments": [environment],
        // It covers the queue and the set-up as well as the reservation itself.
        "settings": {"pipeline": {"timeout": minutes(lease.timeout_s.saturating_add(lease.lifetime_s))}},
    })
}

fn arch(config: &Config, lease: &Lease) -> String {
    let of_platform = lease.context.get("arch").and_then(|values| values.first());
    config.arch.as_ref().or(of_platform).cloned().unwrap_or_else(|| "x86_64".to_owned())
}

fn variables(config: &Config, lease: &Lease) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        config.variables.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    all.insert("TF_RESERVATION_DURATION".to_owned(), minutes(lease.lifetime_s).to_string().into());
    all
}

fn secrets(config: &Config, key: &str) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        config.secrets.iter().map(|(key, value)| (key.clone(), value.expose().into())).collect();
    all.insert("TF_RESERVATION_AUTHORIZED_KEYS_BASE64".to_owned(), base64(&plain_key(key)).into());
    all
}

fn minutes(seconds: u64) -> u64 {
    seconds.div_ceil(60).max(1)
}

/// The key's type and data, with a comment that tells nothing of who made it.
fn plain_key(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    format!("{} atex-host\n", words.join(" "))
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::with_capacity(text.len().div_ceil(3) * 4);
    for chunk in text.as_bytes().chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * position) & 63) as usize).copied().unwrap_or(b'=');
            encoded.push(if position > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    encoded
}

/// The mark of a request as the API tells it.
pub(crate) fn mark_of(request: &Value) -> Option<&str> {
    let environments =
        ["environments_requested", "environments"].iter().find_map(|key| request.get(key)?.as_array())?;
    let tag =
        environments.iter().find_map(|one| one.pointer("/settings/provisioning/tags")?.get(TAG)?.as_str())?;
    Mark::parse(tag).map(|_| tag)
}

/// Its state, or nothing if there is none.
pub(crate) fn state_of(request: &Value) -> &str {
    request.get("state").and_then(Value::as_str).unwrap_or_default()
}

/// Its id, if it can be one.
pub(crate) fn id_of(request: &Value) -> Option<&str> {
    request.get("id").and_then(Value::as_str).filter(|id| is_id(id))
}

/// Whether a text can be a request's id: it becomes part of a path.
pub(crate) fn is_id(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::read_config;

    use super::*;

    #[test]
    fn everything_has_its_place() {
        let config: Config = read_config(
            r#"{"compose": "Fedora-42", "pool": "beaker", "hardware": {"memory": ">= 8 GB"}, "kickstart": {"kernel-options": "x"},
                "variables": {"A": "b"}, "secrets": {"S": "hunter2"}, "artifacts": [{"type": "fedora-koji-build", "id": "1"}],
                "tags": {"BusinessUnit": "sst"}, "skip-guest-setup": false}"#,
        )
        .unwrap();
        let mut lease = Lease::new("a1", "r1", "me@lab");
        (lease.timeout_s, lease.lifetime_s) = (3600, 7230);
        lease.context.insert("arch".into(), vec!["s390x".into()]);
        let body = body(&config, &lease, "ssh-ed25519 AAAA me@secret-box", &["192.0.2.7/32".into()]);
        let table = [
            ("/test/fmf/name", json!("/testing-farm/reserve")),
            ("/test/fmf/ref", json!("main")),
            ("/environments/0/arch", json!("s390x")),
            ("/environments/0/os/compose", json!("Fedora-42")),
            ("/environments/0/pool", json!("beaker")),
            ("/environments/0/hardware/memory", json!(">= 8 GB")),
            ("/environments/0/kickstart/kernel-options", json!("x")),
            ("/environments/0/variables", json!({"A": "b", "TF_RESERVATION_DURATION": "121"})),
            ("/environments/0/secrets/S", json!("hunter2")),
            (
                "/environments/0/secrets/TF_RESERVATION_AUTHORIZED_KEYS_BASE64",
                json!("c3NoLWVkMjU1MTkgQUFBQSBhdGV4LWhvc3QK"),
            ),
            ("/environments/0/artifacts/0/id", json!("1")),
            (
                "/environments/0/settings/provisioning/tags",
                json!({"BusinessUnit": "sst", "atex-mark": "me@lab/r1/a1", "ArtemisUseSpot": "false"}),
            ),
            (
                "/environments/0/settings/provisioning/security_group_rules_ingress/0/cidr",
                json!("192.0.2.7/32"),
            ),
            ("/environments/0/settings/pipeline/skip_guest_setup", json!(false)),
            ("/settings/pipeline/timeout", json!(181)),
        ];
        for (path, expected) in table {
            assert_eq!(body.pointer(path), Some(&expected), "{path}");
        }
        assert_eq!(mark_of(&body), Some("me@lab/r1/a1"), "what is asked for is found again");
    }

    #[test]
    fn what_is_not_given_is_not_asked_for() {
        let config: Config = read_config(r#"{"spot": true}"#).unwrap();
        let body = body(&config, &Lease::new("a1", "r1", "me"), "t k", &[]);
        for path in ["os", "pool", "hardware", "kickstart", "artifacts"] {
            assert_eq!(body["environments"][0].get(path), None);
        }
        let provisioning = &body["environments"][0]["settings"]["provisioning"];
        assert_eq!(provisioning, &json!({"tags": {"atex-mark": "me/r1/a1"}}));
        assert_eq!(body["environments"][0]["arch"], "x86_64");
    }

    #[test]
    fn base64_as_others_write_it() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text), expected);
        }
    }

    #[test]
    fn only_ids_are_ids() {
        assert!(is_id("01234567-89ab-cdef-0123-456789abcdef"));
        for text in ["", "../whoami", "0123", "01234567?x", &"0".repeat(65)] {
            assert!(!is_id(text), "{text}");
        }
    }
}
