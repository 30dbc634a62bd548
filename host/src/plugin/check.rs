//! What `plugins check` looks at: everything about a library that can be said without a provider.

use std::path::Path;

use atex_plugin_api::describe::{Kind, Provided};
use atex_plugin_api::{Capabilities, ErrorKind, SECRET_MARK};
use serde_json::Value;

use super::error::PluginError;
use super::library::{Library, Trust};
use super::registry::Registry;
use super::search::{Search, file_name};
use crate::config::is_secret_key;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gravity {
    /// As it should be.
    Good,
    /// It works, but could be better.
    Doubtful,
    /// It must be mended.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub gravity: Gravity,
    pub text: String,
}

impl Finding {
    fn new(gravity: Gravity, text: impl Into<String>) -> Self {
        Self { gravity, text: text.into() }
    }
}

/// Opens a library and looks at all that it provides. `state_dir` is for the state of plugins that are made on trial.
pub fn check(path: &Path, state_dir: &Path) -> Vec<Finding> {
    let library = match Library::open(path, Trust::Warn) {
        Ok(library) => library,
        Err(PluginError::Library { reason, .. }) => {
            return vec![Finding::new(Gravity::Bad, reason.to_string())];
        }
        Err(error) => return vec![Finding::new(Gravity::Bad, error.to_string())],
    };
    let about = library.description();
    let mut findings = vec![Finding::new(
        Gravity::Good,
        format!("library {} {}, built for atex-plugin-api {}", about.library, about.version, library.api()),
    )];
    findings.extend(
        library.warnings().iter().map(|warning| Finding::new(Gravity::Doubtful, warning.text.clone())),
    );
    findings.extend(check_file_name(&library));
    let search = Search { libraries: vec![path.to_owned()], ..Search::default() };
    let registry = match Registry::open(search, state_dir) {
        Ok(registry) => registry,
        Err(error) => return vec![Finding::new(Gravity::Bad, error.to_string())],
    };
    for one in &about.provides {
        check_plugin(one, &registry, &mut findings);
    }
    findings
}

/// A library of a directory is found by its name only.
fn check_file_name(library: &Library) -> Option<Finding> {
    let name = library.path().file_name()?.to_str()?;
    let provides = &library.description().provides;
    let names: Vec<String> = provides.iter().filter_map(|one| file_name(one.kind, &one.name)).collect();
    let first = names.first()?;
    let other = !names.iter().any(|one| one == name);
    other
        .then(|| Finding::new(Gravity::Doubtful, format!("in a directory it would be looked for as {first}")))
}

fn check_plugin(one: &Provided, registry: &Registry, findings: &mut Vec<Finding>) {
    let name = format!("{} `{}`", one.kind, one.name);
    if one.kind == Kind::Unknown {
        findings
            .push(Finding::new(Gravity::Doubtful, format!("{name}: of a kind that this host does not know")));
        return;
    }
    let before = findings.len();
    let mut found = |gravity, text: String| findings.push(Finding::new(gravity, format!("{name}: {text}")));
    if one.about.is_empty() {
        found(Gravity::Doubtful, "it does not say what it is for".to_owned());
    }
    let capabilities = Capabilities::from_names(&one.capabilities);
    let cleaned_up = capabilities.has(Capabilities::LIST) || capabilities.has(Capabilities::EXPIRES);
    if one.kind == Kind::Provisioner && !cleaned_up {
        let text =
            "it cannot be cleaned up after: it neither lists what it holds nor do leases end by themselves";
        found(Gravity::Bad, text.to_owned());
    }
    check_schema(one, &mut found);
    match make(one, registry) {
        Some(Err(PluginError::Make { error, .. })) if error.kind() == ErrorKind::Config => {
            found(Gravity::Doubtful, format!("its schema requires no key, but without any it says: {error}"));
        }
        Some(Err(error)) => found(Gravity::Bad, format!("it cannot be made: {error}")),
        Some(Ok(())) | None => {}
    }
    if findings[before..].iter().all(|finding| finding.gravity == Gravity::Good) {
        findings.push(Finding::new(Gravity::Good, name));
    }
}

fn check_schema(one: &Provided, found: &mut impl FnMut(Gravity, String)) {
    let Some(properties) = one.schema.get("properties").and_then(Value::as_object) else { return };
    let own: &[&str] = if one.kind == Kind::Provisioner {
        &["use", "name", "max", "host"]
    } else {
        &["use", "name", "host"]
    };
    for (key, property) in properties {
        if own.contains(&key.as_str()) {
            found(Gravity::Bad, format!("its key `{key}` is one of the host's own: it would never see it"));
        }
        let described = property.get("description").is_some() || property.get("$ref").is_some();
        if !described {
            found(Gravity::Doubtful, format!("its key `{key}` is not described"));
        }
        if is_secret_key(key) && !property.to_string().contains(SECRET_MARK) && property.get("$ref").is_none()
        {
            found(
                Gravity::Doubtful,
                format!("its key `{key}` is not marked as secret: its type should be Secret"),
            );
        }
    }
}

/// Makes it without configuration, if its schema says that this can be done.
fn make(one: &Provided, registry: &Registry) -> Option<Result<(), PluginError>> {
    let required = one.schema.get("required").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    if required {
        return None;
    }
    let (name, nothing) = (one.name.as_str(), Value::Object(serde_json::Map::new()));
    Some(match one.kind {
        Kind::Provisioner => registry.provisioner(name, name, &nothing).map(drop),
        Kind::Policy => registry.policy(name, name, &nothing).map(drop),
        Kind::Reporter => registry.reporter(name, name, &nothing).map(drop),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema_findings(kind: &str, schema: &Value) -> Vec<String> {
        let one: Provided =
            serde_json::from_value(json!({"kind": kind, "name": "x", "schema": schema})).unwrap();
        let mut found = vec![];
        check_schema(&one, &mut |gravity, text| found.push(format!("{gravity:?} {text}")));
        found
    }

    #[test]
    fn keys_are_looked_at() {
        let schema = json!({"properties": {
            "max": {"description": "d"},
            "name": {"description": "d"},
            "url": {},
            "token": {"description": "d", "type": "string"},
            "password": {"description": "d", "x-secret": true},
        }});
        let all = [
            "Bad its key `max` is one of the host's own: it would never see it",
            "Bad its key `name` is one of the host's own: it would never see it",
            "Doubtful its key `url` is not described",
            "Doubtful its key `token` is not marked as secret: its type should be Secret",
        ];
        assert_eq!(schema_findings("provisioner", &schema), all);
        assert_eq!(schema_findings("policy", &schema), all[1..]);
        assert_eq!(schema_findings("policy", &json!({"type": "object"})), [""; 0]);
    }
}
