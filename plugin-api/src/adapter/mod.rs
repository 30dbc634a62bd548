//! Puts authors' types behind the ABI's trait objects. Every call goes through `guard`, as do destructors.

mod policy;
mod provisioner;
mod reporter;

use std::mem::ManuallyDrop;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use policy::policy;
pub(crate) use provisioner::provisioner;
pub(crate) use reporter::reporter;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::guard_drop;
use crate::host::{Host, Level};
use crate::plugin::{Plugin, read_config};

/// An author's value whose destructor cannot hurt: a panic in it is logged.
struct Guarded<P> {
    plugin: ManuallyDrop<P>,
    host: Host,
}

impl<P: Plugin> Guarded<P> {
    fn make(config: &str, host: Host) -> Result<Self> {
        let config = read_config(config)?;
        Ok(Self { plugin: ManuallyDrop::new(P::new(config, host.clone())?), host })
    }
}

impl<P> Drop for Guarded<P> {
    fn drop(&mut self) {
        let Self { plugin, host } = self;
        #[expect(unsafe_code, reason = "the destructor of an author's type has to run inside a guard")]
        // SAFETY: `plugin` is not used afterwards: this is the destructor of its only owner.
        let drop_it = || unsafe { ManuallyDrop::drop(plugin) };
        guard_drop(drop_it, |error| {
            host.log(Level::Error, error.context_of_drop(), &[("detail", &error.detail())]);
        });
    }
}

impl Error {
    fn context_of_drop(&self) -> String {
        format!("the plugin's destructor {self}")
    }
}

fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::with_source(ErrorKind::Other, format!("cannot read the host's {what}"), &error)
    })
}

fn to_json<T: Serialize>(what: &str, value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::with_source(ErrorKind::Other, format!("cannot write {what} as JSON"), &error))
}
