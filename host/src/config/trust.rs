//! What an `atex.yaml` that merely came with a tree may not do.
//!
//! Whoever runs the tests of a tree lends its authors machines, not this box: without a word of the user, its configuration
//! loads no plugin libraries, starts no programs here, runs no tests here, reads no environment variables, and sends no files
//! from outside the tree to machines.
//!
//! Of provisioners and reporters it may set what is listed here and nothing else: a key that nobody has thought about may well be
//! a program, a place to write to, or somebody to send a token to.

use std::path::Path as FilePath;

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::expand::has_reference;
use super::path::Path;

/// Plugins whose very purpose is to run things on this box.
const REFUSED_PLUGINS: [&str; 2] = ["exec", "local"];

/// Keys of policies that name a program for this box; also with something before a dash: `post-command`.
const PROGRAM_KEYS: [&str; 4] = ["command", "exec", "program", "argv"];

/// Keys of any plugin that are the host's own.
const HOST_KEYS: [&str; 4] = ["use", "name", "max", "host"];

/// What a stranger may set: it names machines and what is to be on them, or says how results look.
const HARMLESS: [(&str, &[&str]); 5] = [
    ("podman", &["image", "pull", "systemd", "memory", "cpus", "ulimits", "user", "env"]),
    (
        "ssh",
        &[
            "hosts",
            "user",
            "port",
            "sudo",
            "check",
            "check-timeout",
            "reset",
            "reset-timeout",
            "reuse",
            "spoilt",
            "retry-after",
            "connect-timeout",
        ],
    ),
    ("libvirt", &["domain", "memory", "cpus", "user", "port", "sudo", "power-off"]),
    (
        "testingfarm",
        &[
            "compose",
            "unlisted-compose",
            "arch",
            "pool",
            "hardware",
            "kickstart",
            "variables",
            "tags",
            "spot",
            "skip-guest-setup",
            "clean-up",
            "poll-interval",
        ],
    ),
    (
        "jsonl",
        &[
            "compress",
            "compress-files",
            "files-suffix",
            "skip-files",
            "duplicates",
            "level",
            "old",
            "results",
        ],
    ),
];

/// Keys of one host of an `ssh` pool.
const HARMLESS_OF_HOSTS: [&str; 5] = ["host", "user", "port", "sudo", "facts"];

/// An error about the first thing in an untrusted document that needs trust. `base`: the directory of its file.
pub(crate) fn check(raw: &Value, base: &FilePath) -> Result<(), ConfigError> {
    let top = Path::default();
    if raw.get("plugins").is_some_and(|plugins| !plugins.is_null()) {
        return Err(refused("plugin libraries", top.key("plugins")));
    }
    check_references(raw, &top)?;
    check_uploads(raw, base, &top)?;
    for (key, check) in SECTIONS {
        check_entries(raw.get(key), check, &top.key(key))?;
    }
    let platforms = raw.get("platforms").and_then(Value::as_array);
    for (index, platform) in platforms.into_iter().flatten().enumerate() {
        let path = top.key("platforms").index(index);
        check_uploads(platform, base, &path)?;
        for (key, check) in SECTIONS {
            check_entries(platform.get(key), check, &path.key(key))?;
        }
    }
    Ok(())
}

type Check = fn(&Map<String, Value>, &Path) -> Result<(), ConfigError>;

/// Where plugins' entries stand, at the top or in a platform.
const SECTIONS: [(&str, Check); 4] = [
    ("provisioners", check_closed),
    ("policies", check_open),
    ("reporters", check_closed),
    ("old-results", check_closed),
];

fn refused(what: &str, path: Path) -> ConfigError {
    ConfigError::new(format!("{what} are refused in a configuration that came with the tree"))
        .at(path)
        .help("name the file with --config, or say --trust-tree")
}

fn check_references(value: &Value, path: &Path) -> Result<(), ConfigError> {
    match value {
        Value::String(text) if has_reference(text) => {
            Err(refused("environment variables (`${...}`)", path.clone()))
        }
        Value::Array(list) => {
            list.iter().enumerate().try_for_each(|(index, item)| check_references(item, &path.index(index)))
        }
        Value::Object(map) => map.iter().try_for_each(|(key, value)| check_references(value, &path.key(key))),
        _ => Ok(()),
    }
}

/// A mapping of entries by name, a list of entries, or one entry; whatever else stands there is refused when it is typed.
fn check_entries(entries: Option<&Value>, check: Check, path: &Path) -> Result<(), ConfigError> {
    match entries {
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, entry)| check_entries(Some(entry), check, &path.index(index))),
        Some(Value::Object(map)) if map.get("use").is_some_and(Value::is_string) => check(map, path),
        Some(Value::Object(map)) => {
            map.iter().try_for_each(|(key, entry)| check_entries(Some(entry), check, &path.key(key)))
        }
        _ => Ok(()),
    }
}

/// A policy: it ranks and judges, and whatever it is told stays with it.
fn check_open(entry: &Map<String, Value>, path: &Path) -> Result<(), ConfigError> {
    entry.iter().try_for_each(|(key, value)| check_programs(key, value, &path.key(key)))
}

/// A provisioner or reporter.
fn check_closed(entry: &Map<String, Value>, path: &Path) -> Result<(), ConfigError> {
    let plugin = entry.get("use").and_then(Value::as_str).unwrap_or_default();
    if let Some(name) = Some(plugin).filter(|name| REFUSED_PLUGINS.contains(name)) {
        let what =
            if name == "local" { "tests on this box (`local`)" } else { "programs of this box (`exec`)" };
        return Err(refused(what, path.key("use")));
    }
    let of_plugin = HARMLESS.iter().find(|(name, _)| *name == plugin).map_or(&[][..], |(_, keys)| keys);
    let is_allowed = |key: &str| HOST_KEYS.contains(&key) || of_plugin.contains(&key);
    if let Some(key) = entry.keys().find(|key| !is_allowed(key)) {
        return Err(refused(&format!("keys such as `{key}` of `{plugin}`"), path.key(key)));
    }
    let hosts = entry.get("hosts").and_then(Value::as_array);
    for (index, host) in hosts.into_iter().flatten().enumerate() {
        let keys = host.as_object().into_iter().flat_map(Map::keys);
        if let Some(key) = keys.into_iter().find(|key| !HARMLESS_OF_HOSTS.contains(&key.as_str())) {
            let path = path.key("hosts").index(index).key(key);
            return Err(refused(&format!("keys such as `{key}` of a host"), path));
        }
    }
    Ok(())
}

fn check_programs(key: &str, value: &Value, path: &Path) -> Result<(), ConfigError> {
    let key = key.replace('_', "-");
    let last = key.rsplit('-').next().unwrap_or(&key);
    if PROGRAM_KEYS.contains(&last) {
        return Err(refused("programs to run on this box", path.clone()));
    }
    match value {
        Value::Object(map) => {
            map.iter().try_for_each(|(key, value)| check_programs(key, value, &path.key(key)))
        }
        _ => Ok(()),
    }
}

fn check_uploads(owner: &Value, base: &FilePath, path: &Path) -> Result<(), ConfigError> {
    let uploads = owner.get("uploads").and_then(Value::as_array);
    for (index, upload) in uploads.into_iter().flatten().enumerate() {
        let Some(from) = upload.get("from").and_then(Value::as_str) else { continue };
        let leaves = from.starts_with('/') || from.split('/').any(|part| part == "..");
        if leaves || leads_outside(base, from) {
            return Err(refused(
                "uploads from outside the tree",
                path.key("uploads").index(index).key("from"),
            ));
        }
    }
    Ok(())
}

/// Whether symbolic links lead out of the directory. What is not there is a matter of others.
fn leads_outside(base: &FilePath, from: &str) -> bool {
    match (base.canonicalize(), base.join(from).canonicalize()) {
        (Ok(base), Ok(from)) => !from.starts_with(base),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn outcome(text: &str) -> String {
        outcome_in(FilePath::new("/no/such/tree"), text)
    }

    fn outcome_in(base: &FilePath, text: &str) -> String {
        match check(&yaml::parse(text).unwrap(), base) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.path().to_string(),
        }
    }

    #[test]
    fn what_needs_trust_is_found_wherever_it_is() {
        let table = [
            ("plugins: [./x.so]", "plugins"),
            ("env: {A: '${HOME}'}", "env.A"),
            ("uploads: [{from: '${HOME}', to: /x}]", "uploads[0].from"),
            ("uploads: [{from: /etc, to: /x}]", "uploads[0].from"),
            ("platforms: [{uploads: [{from: a/../../b, to: /x}]}]", "platforms[0].uploads[0].from"),
            ("provisioners: {a: {use: local}}", "provisioners.a.use"),
            ("provisioners: {use: {use: exec}}", "provisioners.use.use"),
            ("platforms: [{provisioners: [a, {use: local}]}]", "platforms[0].provisioners[1].use"),
            ("provisioners: {a: {use: ssh, host-command: x}}", "provisioners.a.host-command"),
            ("reporters: [{use: x, post: {command: y}}]", "reporters[0].post"),
            ("old-results: {use: x, exec: y}", "old-results.exec"),
            ("policies: [{use: x, post-command: y}]", "policies[0].post-command"),
            // Programs and places that are not called so.
            ("provisioners: {a: {use: ssh, hosts: [x], power-cycle: [sh]}}", "provisioners.a.power-cycle"),
            (
                "provisioners: {a: {use: ssh, hosts: [x], ssh-options: {ProxyCommand: sh}}}",
                "provisioners.a.ssh-options",
            ),
            ("provisioners: {a: {use: ssh, hosts: [{host: x, keys: [/k]}]}}", "provisioners.a.hosts[0].keys"),
            ("provisioners: {a: {use: ssh, hosts: [x], password-file: /p}}", "provisioners.a.password-file"),
            ("provisioners: {a: {use: libvirt, domain: x, virsh: ./v}}", "provisioners.a.virsh"),
            ("provisioners: {a: {use: podman, image: x, volumes: ['/:/h']}}", "provisioners.a.volumes"),
            (
                "provisioners: {a: {use: podman, image: x, global-args: [--runtime, x]}}",
                "provisioners.a.global-args",
            ),
            ("provisioners: {a: {use: testingfarm, compose: x, url: 'http://me'}}", "provisioners.a.url"),
            ("reporters: [{use: jsonl, path: /x}]", "reporters[0].path"),
            ("provisioners: {a: {use: theirs, flavor: x}}", "provisioners.a.flavor"),
        ];
        for (text, path) in table {
            assert_eq!(outcome(text), path, "{text}");
        }
    }

    #[test]
    fn the_rest_is_read_by_itself() {
        for text in [
            "",
            "- nonsense",
            "env: {A: '$${HOME} $HOME'}",
            "uploads: [{from: content/..x, to: /x}]",
            "provisioners: {lab: {use: ssh, hosts: [a]}, local: {use: podman}}",
            "platforms: [{provisioners: [lab, local]}]",
            "policies: [priority, {use: reruns, max: 2, unless-exit: [0]}]",
            "provisioners: {a: {use: theirs, max: 4, host: {slots: 2}}, b: {use: podman, image: x, memory: 1g}}",
            "reporters: [jsonl, {use: jsonl, compress: xz}]",
            "plugins:",
        ] {
            assert_eq!(outcome(text), "fine", "{text}");
        }
    }

    #[test]
    fn links_do_not_lead_uploads_out_of_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("inside")).unwrap();
        for (link, target, expected) in
            [("in", "inside", "fine"), ("out", "/etc", "uploads[0].from"), ("gone", "/no/such", "fine")]
        {
            std::os::unix::fs::symlink(target, tree.path().join(link)).unwrap();
            let text = format!("uploads: [{{from: {link}, to: /x}}]");
            assert_eq!(outcome_in(tree.path(), &text), expected, "{link}");
        }
    }
}
