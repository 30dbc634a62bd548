//! Everything that can be wrong with plugins, as one line each.

use std::path::PathBuf;

use atex_plugin_api::describe::Kind;
use atex_plugin_api::host_side::Refused;

use super::elf::ElfFault;

/// Why a library file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("it does not exist")]
    Missing,
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is not a file")]
    NotAFile,
    #[error(transparent)]
    Elf(#[from] ElfFault),
    #[error("{what} may be written by anybody: chmod o-w {path}", path = .path.display())]
    WritableByAnybody { what: &'static str, path: PathBuf },
    #[error("{0}, which --strict refuses")]
    Doubtful(String),
    #[error("it needs {0}, which the C library of this box does not have: build it on an older system")]
    NewerLibc(String),
    #[error("it needs the symbol {0}, which nothing provides")]
    MissingSymbol(String),
    #[error("it needs the library {0}, which is not installed")]
    MissingLibrary(String),
    #[error("it cannot be loaded: {0}")]
    Loader(String),
    #[error("it is not a plugin: it does not export a root (is `export_plugin!` missing?)")]
    NotAPlugin,
    #[error(transparent)]
    Incompatible(#[from] Refused),
    #[error("it does not describe itself properly: {0}")]
    Description(String),
}

/// Why plugins cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    #[error("plugin library {}: {reason}", .path.display())]
    Library { path: PathBuf, reason: Refusal },
    #[error("{kind} `{name}` is provided by both {} and {}: load only one of them", .first.display(), .second.display())]
    Clash { kind: Kind, name: String, first: PathBuf, second: PathBuf },
    #[error("there is no {kind} `{name}`{hint}")]
    Unknown {
        kind: Kind,
        name: String,
        /// `, did you mean ...?` or what there is.
        hint: String,
    },
    #[error("plugin library {} is named after a {kind} `{name}` but does not provide it", .path.display())]
    Misnamed { path: PathBuf, kind: Kind, name: String },
    #[error("{kind} `{name}`: {error}")]
    Make {
        kind: Kind,
        /// Name of this use of the plugin.
        name: String,
        error: atex_plugin_api::Error,
    },
    #[error("{kind} `{name}`: cannot make its state directory {}: {reason}", .path.display())]
    StateDir { kind: Kind, name: String, path: PathBuf, reason: String },
}

/// A call of a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{name}`: cannot {what}: {error}")]
pub struct CallError {
    pub kind: Kind,
    /// Name of this use of the plugin: of the pool, of the reporter.
    pub name: String,
    /// What was being done, with which machine or test.
    pub what: String,
    /// The plugin's own words; its kind says whether to try again.
    pub error: atex_plugin_api::Error,
}
