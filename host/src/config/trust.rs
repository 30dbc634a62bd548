//! What an `atex.yaml` that merely came with a tree may not do.
//!
//! Whoever runs the tests of a tree lends its authors machines, not this box: without a word of the user, its configuration
//! loads no plugin libraries, starts no programs here, runs no tests here, reads no environment variables, and sends no files
//! from outside the tree to machines.

use serde_json::Value;

use super::error::ConfigError;
use super::expand::has_reference;
use super::path::Path;

/// Plugins whose very purpose is to run things on this box.
const REFUSED_PLUGINS: [&str; 2] = ["exec", "local"];

/// Keys of plugins that name a program for this box; also with something before a dash: `proxy-command`.
const PROGRAM_KEYS: [&str; 4] = ["command", "exec", "program", "argv"];

/// An error about the first thing in an untrusted document that needs trust.
pub(crate) fn check(raw: &Value) -> Result<(), ConfigError> {
    let top = Path::default();
    if raw.get("plugins").is_some_and(|plugins| !plugins.is_null()) {
        return Err(refused("plugin libraries", top.key("plugins")));
    }
    check_references(raw, &top)?;
    check_uploads(raw, &top)?;
    for (key, entries) in [("provisioners", raw), ("policies", raw), ("reporters", raw), ("old-results", raw)]
    {
        check_entries(entries.get(key), &top.key(key))?;
    }
    let platforms = raw.get("platforms").and_then(Value::as_array);
    for (index, platform) in platforms.into_iter().flatten().enumerate() {
        let path = top.key("platforms").index(index);
        check_uploads(platform, &path)?;
        for key in ["provisioners", "policies"] {
            check_entries(platform.get(key), &path.key(key))?;
        }
    }
    Ok(())
}

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
fn check_entries(entries: Option<&Value>, path: &Path) -> Result<(), ConfigError> {
    match entries {
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, entry)| check_entries(Some(entry), &path.index(index))),
        Some(Value::Object(map)) if map.get("use").is_some_and(Value::is_string) => check_entry(map, path),
        Some(Value::Object(map)) => {
            map.iter().try_for_each(|(key, entry)| check_entries(Some(entry), &path.key(key)))
        }
        _ => Ok(()),
    }
}

fn check_entry(entry: &serde_json::Map<String, Value>, path: &Path) -> Result<(), ConfigError> {
    if let Some(name) = entry.get("use").and_then(Value::as_str).filter(|name| REFUSED_PLUGINS.contains(name))
    {
        let what =
            if name == "local" { "tests on this box (`local`)" } else { "programs of this box (`exec`)" };
        return Err(refused(what, path.key("use")));
    }
    entry.iter().try_for_each(|(key, value)| check_programs(key, value, &path.key(key)))
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

fn check_uploads(owner: &Value, path: &Path) -> Result<(), ConfigError> {
    let uploads = owner.get("uploads").and_then(Value::as_array);
    for (index, upload) in uploads.into_iter().flatten().enumerate() {
        let Some(from) = upload.get("from").and_then(Value::as_str) else { continue };
        if from.starts_with('/') || from.split('/').any(|part| part == "..") {
            return Err(refused(
                "uploads from outside the tree",
                path.key("uploads").index(index).key("from"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn outcome(text: &str) -> String {
        match check(&yaml::parse(text).unwrap()) {
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
            ("reporters: [{use: x, post: {command: y}}]", "reporters[0].post.command"),
            ("old-results: {use: x, exec: y}", "old-results.exec"),
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
            "policies: [priority, {use: reruns, max: 2}]",
            "plugins:",
        ] {
            assert_eq!(outcome(text), "fine", "{text}");
        }
    }
}
