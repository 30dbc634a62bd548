//! Errors that cross the boundary: a kind, a chain of causes, and whether trying again may help.

use std::fmt;

/// What sort of failure this is; the host reacts to the kind, people read the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything without a kind of its own.
    Other = 0,
    /// The author's code panicked.
    Panic = 1,
    /// The configuration is wrong: the user can mend it, trying again cannot.
    Config = 2,
    /// The call was cancelled by the host.
    Cancelled = 3,
    /// Nothing is free just now (quota, queue): try again later.
    Busy = 4,
    /// The plugin does not do this.
    Unsupported = 5,
    /// The provider could not be reached: try again later.
    Unreachable = 6,
    /// The provider refused who we are.
    Denied = 7,
}

/// A failure of a plugin, outermost message first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    chain: Vec<String>,
    detail: String,
    retryable: bool,
    uncertain: bool,
}

/// What plugin methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; [`ErrorKind::Busy`] and [`ErrorKind::Unreachable`] are retryable.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retryable = matches!(kind, ErrorKind::Busy | ErrorKind::Unreachable | ErrorKind::Other);
        Self {
            kind,
            chain: vec![message.into()],
            detail: String::new(),
            retryable,
            uncertain: kind == ErrorKind::Panic,
        }
    }
    /// An error in the plugin's configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }
    /// The plugin does not implement this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    /// An error of `kind` with `source` and all its causes below `message`.
    pub fn with_source(kind: ErrorKind, message: impl Into<String>, source: &dyn std::error::Error) -> Self {
        let mut error = Self::new(kind, message);
        error.push_sources(Some(source));
        error
    }
    /// The same error, one level further out.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        self.chain.insert(0, message.into());
        self
    }
    /// The same error, with another answer to whether trying again may help.
    #[must_use]
    pub fn retryable(mut self, yes: bool) -> Self {
        self.retryable = yes;
        self
    }
    /// The same error of a `reserve` that may have left something behind after all: a request whose answer was lost, a machine
    /// that could not be removed again.
    ///
    /// Without it, the host believes that a failed reservation left nothing. With it, the lease stays open: the host looks for
    /// its mark in `list`, until `SETTLE` is over, and gives back what turns up. A panic counts as uncertain by itself.
    #[must_use]
    pub fn uncertain(mut self) -> Self {
        self.uncertain = true;
        self
    }
    /// Long text for logs only: a backtrace, a server's whole answer.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
    /// Whether something may have been left behind: see [`uncertain`](Self::uncertain).
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }
    /// Messages, outermost first; never empty.
    pub fn chain(&self) -> &[String] {
        &self.chain
    }
    /// Long text for logs; often empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }
    /// The same error with other texts: for hosts that keep something out of them.
    #[cfg(feature = "host")]
    #[must_use]
    pub fn map_texts(mut self, map: impl Fn(&str) -> String) -> Self {
        for text in self.chain.iter_mut().chain(std::iter::once(&mut self.detail)) {
            *text = map(text);
        }
        self
    }
    fn push_sources(&mut self, mut source: Option<&dyn std::error::Error>) {
        while let Some(cause) = source {
            self.chain.push(cause.to_string());
            source = cause.source();
        }
    }
}

/// The whole chain on one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.chain.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ": " })?;
            f.write_str(message)?;
        }
        Ok(())
    }
}

/// `?` works on every error: its causes become the chain. `Error` itself therefore is no `std::error::Error`.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut it = Self::new(ErrorKind::Other, error.to_string());
        it.push_sources(error.source());
        it
    }
}
