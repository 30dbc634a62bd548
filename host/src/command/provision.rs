//! A plan's `provision` as a pool, where neither arguments nor configuration name one.
//!
//! Each way of tmt is mapped to the plugin of the same purpose: `local` to `local`, `connect` to `ssh`, `container` to
//! `podman`, `virtual` to `libvirt`. Keys that have a counterpart are taken over; others are left out with a warning, since they
//! describe how to make a machine and not what is tested.

use std::num::NonZeroU16;

use serde_json::{Map, Value, json};

use crate::{
    config::{HostOptions, PluginUse, Pool, RunPlan, local_refused},
    fmf::discover::{DiscoveredPlan, Step},
};

use super::Error;

/// Keys of every step.
const COMMON: [&str; 6] = ["how", "name", "order", "summary", "when", "hardware"];

/// The pool that a plan asks for, if it says anything.
pub(super) fn pool(run: &RunPlan, plan: &DiscoveredPlan) -> Result<Option<Pool>, Error> {
    let Some(step) = plan.provision.first() else { return Ok(None) };
    let (plugin, config) = match step.how.as_str() {
        "local" if !run.allow.local => {
            return Err(local_refused(plan.name.as_deref().unwrap_or("/")).into());
        }
        "local" => ("local", config(step, &[])),
        "connect" => ("ssh", connect(step)),
        "container" => ("podman", config(step, &[("image", "image"), ("pull", "pull-policy")])),
        "virtual" => {
            ("libvirt", config(step, &[("image", "domain"), ("memory", "memory"), ("cpus", "cpus")]))
        }
        _ => return Ok(None),
    };
    let base = plan.source.as_deref().and_then(std::path::Path::parent).unwrap_or(&run.tree);
    let entry = PluginUse::new(plugin, plugin, base, config.clone(), config);
    Ok(Some(Pool {
        provisioner: entry,
        max: None,
        slots: NonZeroU16::MIN,
        options: HostOptions { isolate: false, reserve_timeout: run.limits.reserve_timeout },
    }))
}

/// The keys of a step under the names that the plugin has for them.
fn config(step: &Step, keys: &[(&str, &str)]) -> Map<String, Value> {
    let mut config = Map::new();
    for (key, value) in &step.data {
        let key = key.to_string();
        match keys.iter().find(|(tmt, _)| *tmt == key) {
            Some((_, ours)) => _ = config.insert((*ours).to_owned(), value.to_json()),
            None if COMMON.contains(&key.as_str()) => {}
            None => tracing::warn!("{}: `{}.{key}` is left out", step.place, step.key),
        }
    }
    config
}

/// One host, as the plugin's list of hosts.
fn connect(step: &Step) -> Map<String, Value> {
    let keys =
        [("guest", "host"), ("port", "port"), ("user", "user"), ("key", "keys"), ("password", "password")];
    let mut host = config(step, &keys);
    // tmt takes one key or a list.
    if let Some(key @ Value::String(_)) = host.get_mut("keys") {
        *key = json!([key.take()]);
    }
    let mut config = Map::new();
    config.insert("hosts".to_owned(), json!([host]));
    config
}
