//! What is wrong with a configuration or with arguments, where, and what would be right.

use std::fmt;
use std::path::PathBuf;

use super::path::Path;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, and the place in it if that could be found.
    File(PathBuf, Option<Position>),
    /// An option of the command line, e.g. `--provisioner`.
    Argument(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, Some(at)) => write!(f, "{}:{}:{}", file.display(), at.line, at.column),
            Self::Argument(name) => f.write_str(name),
            Self::File(file, None) => write!(f, "{}", file.display()),
        }
    }
}

/// Wrong configuration or wrong use; exit status 2. One line: source, key, what is wrong, what would help.
///
/// Never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    source: Option<Source>,
    path: Path,
    message: String,
    help: Option<String>,
}

impl ConfigError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { source: None, path: Path::default(), message: message.into(), help: None }
    }

    /// The same error, about the value at `path`.
    #[must_use]
    pub fn at(mut self, path: Path) -> Self {
        self.path = path;
        self
    }

    /// The same error with what would be right, replacing what was said before.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error in something that came from `source`; the innermost source, set first, stays.
    #[must_use]
    pub fn in_source(mut self, source: Source) -> Self {
        self.source.get_or_insert(source);
        self
    }

    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong, without source, key and help.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with its texts changed, for masking secrets.
    #[must_use]
    pub(super) fn map_text(mut self, change: impl Fn(&str) -> String) -> Self {
        self.message = change(&self.message);
        self.help = self.help.map(|help| change(&help));
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}
