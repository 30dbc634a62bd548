//! Where an entry of the configuration stands, kept with it for errors that are found later, e.g. by a plugin.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{ConfigError, Source};
use super::path::Path;
use super::yaml::{self, Part};

/// A configuration file with its text, for positions in errors.
pub(crate) struct Script {
    pub(crate) file: PathBuf,
    /// Empty if only run.json remembers the configuration: then there are no positions.
    pub(crate) text: String,
}

impl Script {
    /// The file, and the line and column of what is at `path`.
    pub(crate) fn source(&self, path: &Path, part: Part) -> Source {
        Source::File(self.file.clone(), yaml::locate(&self.text, path.steps(), part))
    }
}

/// The text may hold secrets.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub(crate) enum Place {
    /// Nowhere: it is a default.
    #[default]
    Default,
    /// In the `index`th use of an option.
    Option { name: &'static str, index: usize },
    /// At a path of the configuration file.
    File { script: Arc<Script>, path: Path },
}

impl Place {
    /// An error about what stands here.
    pub(crate) fn blame(&self, message: &str) -> ConfigError {
        let error = ConfigError::new(message);
        match self {
            Self::Default => error,
            Self::Option { name, .. } => error.in_source(Source::Argument((*name).to_owned())),
            Self::File { script, path } => error.at(path.clone()).in_source(script.source(path, Part::Value)),
        }
    }
}
