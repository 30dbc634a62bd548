//! Plugin entries, from the configuration or from a `SPEC`, to pools, policies and reporters of the plan.
//!
//! The one place that tells the host's keys (`use`, `name`, `host`, and `max` of a pool) from the plugin's own.

use std::num::NonZeroU16;
use std::path::Path as FilePath;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::checks;
use super::de;
use super::error::{ConfigError, Source};
use super::expand::{self, Forms, Lookup};
use super::file::{NoHost, PolicyEntry, PoolEntry, PoolHost, ReporterEntry, ReporterHost};
use super::path::Path;
use super::place::Place;
use super::plan::{HostOptions, Pool, Reporter};
use super::secret::{PluginUse, Secrets};
use super::spec::Spec;

/// How long a reporter may go on after the last event, unless told otherwise.
const FINISH_TIMEOUT: Duration = Duration::from_mins(5);

/// The host's keys of a pool.
const POOL_KEYS: [&str; 4] = ["use", "name", "max", "host"];

/// What pools take from the run where their entries are silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolDefaults {
    pub(crate) slots: NonZeroU16,
    pub(crate) reserve_timeout: Duration,
}

/// An entry with what is needed to split and to blame it.
pub(crate) struct Raw<'a> {
    pub(crate) written: &'a Value,
    pub(crate) resolved: &'a Value,
    /// Where relative paths in it start.
    pub(crate) base: &'a FilePath,
    pub(crate) place: Place,
}

impl Raw<'_> {
    fn plugin(&self, plugin: &str, name: Option<&str>, host_keys: &[&str]) -> Result<PluginUse, ConfigError> {
        checks::plugin(plugin).map_err(|message| ConfigError::new(message).at(Path::default().key("use")))?;
        let at_name =
            if self.resolved.get("name").is_some() { Path::default().key("name") } else { Path::default() };
        let name = name.unwrap_or(plugin);
        checks::pool(name).map_err(|message| ConfigError::new(message).at(at_name))?;
        let (written, resolved) = (own_keys(self.written, host_keys), own_keys(self.resolved, host_keys));
        Ok(PluginUse::new(plugin, name, self.base, written, resolved).at(self.place.clone()))
    }

    /// How many keys the provisioner of this pool gets.
    pub(crate) fn plugin_keys(&self) -> usize {
        own_keys(self.resolved, &POOL_KEYS).len()
    }

    /// A pool; `shared` is its key under `provisioners:`, if it has one.
    pub(crate) fn pool(
        &self,
        entry: &PoolEntry,
        shared: Option<&str>,
        defaults: PoolDefaults,
    ) -> Result<Pool, ConfigError> {
        let provisioner = self.plugin(&entry.r#use, entry.name.as_deref().or(shared), &POOL_KEYS)?;
        let PoolHost { slots, isolate, reserve_timeout } = &entry.host;
        Ok(Pool {
            provisioner,
            max: entry.max,
            slots: slots.unwrap_or(defaults.slots),
            options: HostOptions {
                isolate: isolate.unwrap_or(false),
                reserve_timeout: reserve_timeout.map_or(defaults.reserve_timeout, |span| span.0),
            },
        })
    }

    /// A policy. `max` is the policy's own: policies have no machines to count.
    pub(crate) fn policy(&self, entry: &PolicyEntry) -> Result<PluginUse, ConfigError> {
        let NoHost {} = entry.host;
        self.plugin(&entry.r#use, entry.name.as_deref(), &["use", "name", "host"])
    }

    /// A reporter; `max`, too, is its own.
    pub(crate) fn reporter(&self, entry: &ReporterEntry) -> Result<Reporter, ConfigError> {
        let ReporterHost { finish_timeout } = &entry.host;
        let plugin = self.plugin(&entry.r#use, entry.name.as_deref(), &["use", "name", "host"])?;
        Ok(Reporter { plugin, finish_timeout: finish_timeout.map_or(FINISH_TIMEOUT, |span| span.0) })
    }
}

fn own_keys(entry: &Value, host_keys: &[&str]) -> Map<String, Value> {
    let Value::Object(map) = entry else { return Map::new() };
    map.iter()
        .filter(|(key, _)| !host_keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A policy that only its name is given of.
pub(crate) fn bare(plugin: &str, base: &FilePath) -> Result<PluginUse, ConfigError> {
    checks::plugin(plugin).map_err(ConfigError::new)?;
    Ok(PluginUse::new(plugin, plugin, base, Map::new(), Map::new()))
}

/// A reporter that only its name is given of.
pub(crate) fn bare_reporter(plugin: &str, base: &FilePath) -> Result<Reporter, ConfigError> {
    Ok(Reporter { plugin: bare(plugin, base)?, finish_timeout: FINISH_TIMEOUT })
}

/// A `SPEC` of an option, in both forms.
pub(crate) struct Given<'a> {
    option: &'static str,
    index: usize,
    forms: Forms,
    base: &'a FilePath,
}

impl<'a> Given<'a> {
    /// With `recorded`, the spec comes from run.json and is in its written form; otherwise it means itself.
    pub(crate) fn new(
        option: &'static str,
        index: usize,
        spec: &Spec,
        base: &'a FilePath,
        recorded: Option<Lookup<'_>>,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let value = spec.value();
        let forms = match recorded {
            Some(lookup) => expand::expand(value, lookup, secrets),
            None => expand::literal(value, secrets),
        };
        let forms = forms.map_err(|error| error.in_source(Source::Argument(option.to_owned())))?;
        Ok(Self { option, index, forms, base })
    }

    /// The spec as it may be stored.
    pub(crate) fn written(&self) -> Spec {
        Spec::with_value(self.forms.written.clone())
    }

    /// Reads the host's keys and lets `make` build what the option stands for.
    pub(crate) fn build<E: DeserializeOwned, T>(
        &self,
        secrets: &Secrets,
        make: impl FnOnce(&Raw<'_>, &E) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let raw = Raw {
            written: &self.forms.written,
            resolved: &self.forms.resolved,
            base: self.base,
            place: Place::Option { name: self.option, index: self.index },
        };
        let entry = de::from_value::<E>(raw.resolved)
            .map_err(|fault| ConfigError::from(fault).map_text(|text| secrets.mask(text).into_owned()));
        entry
            .and_then(|entry| make(&raw, &entry))
            .map_err(|error| error.in_source(Source::Argument(self.option.to_owned())))
    }
}
