//! What a library says about itself, as JSON; both sides ignore what they do not know.

use serde::{Deserialize, Serialize};

/// A library and what it provides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Description {
    /// Name of the crate it was built from.
    pub library: String,
    /// Its version.
    pub version: String,
    /// Version of this crate that it was built with.
    pub api: String,
    /// Its plugins.
    pub provides: Vec<Provided>,
}

/// One plugin of a library.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Provided {
    /// What sort of plugin it is.
    pub kind: Kind,
    /// What `use:` names in the configuration.
    pub name: String,
    /// One line on what it is for.
    pub about: String,
    /// JSON schema of its configuration.
    pub schema: serde_json::Value,
    /// Provisioners: [`Capabilities`](crate::Capabilities) by name.
    pub capabilities: Vec<String>,
    /// Provisioners: [`Provisioner::SETTLE`](crate::Provisioner::SETTLE) in seconds.
    pub settle_s: u64,
}

/// What sort of plugin it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Supplies machines.
    Provisioner,
    /// Orders tests and judges runs.
    Policy,
    /// Publishes results.
    Reporter,
    /// A kind of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::Policy => "policy",
            Self::Reporter => "reporter",
            Self::Unknown => "unknown kind",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
