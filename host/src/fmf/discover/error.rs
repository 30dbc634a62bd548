//! What can be wrong with plans, tests and what they ask for. Every message names the file and the key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::super::expression::ConditionError;
use super::super::git::GitError;
use super::super::{Node, regex};
use crate::text::printable;

/// Where in the metadata something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The last file that the node's data came from.
    pub file: Option<Arc<Path>>,
    /// The name of the node.
    pub node: Arc<str>,
}

impl Place {
    pub(crate) fn of(node: Node<'_>) -> Self {
        Self { file: node.shared_source(), node: node.shared_name() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", printable(&file.to_string_lossy()))?;
        }
        f.write_str(&printable(&self.node))
    }
}

/// Why there are no tests to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    #[error(transparent)]
    Tree(#[from] super::super::Error),

    #[error("{place}: `{key}` {problem}")]
    Key { place: Place, key: String, problem: String },

    #[error("{place}: `{key}`: {what} is not supported; --ignore-unsupported leaves it out")]
    Unsupported { place: Place, key: String, what: String },

    #[error("{place}: `{key}`: {cause}")]
    Git { place: Place, key: String, cause: Box<GitError> },

    #[error("no enabled plan matches {}; {}", printable(.wanted), listed("there are", .known))]
    NoSuchPlan { wanted: String, known: Vec<String> },

    #[error("the tree has several plans; name one with --plan, or take all with --plan '.*'; {}", listed("there are", .0))]
    SeveralPlans(Vec<String>),

    #[error("two tests have the name {}, {first} and {second}", printable(.name))]
    SameName { name: String, first: Place, second: Place },

    #[error("the plans have more than {limit} tests together")]
    TooManyTests { limit: usize },

    #[error("{option}: {cause}")]
    Regex { option: &'static str, cause: regex::Error },

    #[error("--condition for {}: {cause}", printable(.test))]
    Condition { test: String, cause: ConditionError },

    #[error("{place}: rule {number} of `adjust` in the configuration: {problem}")]
    Adjust { place: Place, number: usize, problem: String },
}

/// Up to twenty names.
fn listed(before: &str, names: &[String]) -> String {
    if names.is_empty() {
        return "there is none".to_owned();
    }
    let shown: Vec<_> = names.iter().take(20).map(|name| printable(name)).collect();
    let more = names.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{before} {}{rest}", shown.join(", "))
}
