//! What can be wrong with a tree.
//!
//! A tree is loaded and adjusted as a whole or not at all, so that no test is lost silently. Texts from the tree are
//! escaped before they get into a message.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{context, merge, regex, yaml};

/// Why a tree cannot be loaded, adjusted or searched.
#[derive(Debug, Error)]
pub enum Error {
    #[error("no tree root at or above {}: none of these directories has a directory `.fmf`", show(.0))]
    NoRoot(PathBuf),

    #[error("{} cannot be listed as a directory: {cause}", show(.path))]
    Directory { path: PathBuf, cause: io::Error },

    #[error("the format version in {} cannot be used: {problem}", show(.path))]
    Version { path: PathBuf, problem: String },

    #[error("{}: {problem}", show(.path))]
    Config { path: PathBuf, problem: &'static str },

    #[error("{} cannot be read: {cause}", show(.path))]
    Read { path: PathBuf, cause: io::Error },

    #[error("{} is not UTF-8: byte {at} starts no character", show(.path))]
    Encoding { path: PathBuf, at: usize },

    #[error("{}: {cause}", show(.path))]
    Yaml { path: PathBuf, cause: yaml::Error },

    #[error("{}: {problem}", show(.path))]
    Document { path: PathBuf, problem: NodeProblem },

    #[error("{}: {problem}", name(.node))]
    Node { node: String, problem: NodeProblem },

    #[error("{}: {cause}", name(.node))]
    Merge { node: String, cause: merge::Error },

    #[error("{}: {cause}", name(.node))]
    Adjust { node: String, cause: AdjustProblem },

    #[error("{}", .0)]
    Regex(#[from] regex::Error),

    #[error("{}", .0)]
    Limit(#[from] Limit),
}

impl Error {
    /// The name of the error's class in the reference implementation, where it has one.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NoRoot(_) => "RootError",
            Self::Directory { .. } | Self::Yaml { .. } => "FileError",
            Self::Version { .. } => "FormatError",
            Self::Config { .. } => "GeneralError",
            Self::Read { .. } => "OSError",
            Self::Encoding { .. } => "UnicodeDecodeError",
            Self::Document { problem, .. } | Self::Node { problem, .. } => problem.class(),
            Self::Merge { cause, .. } => cause.class(),
            Self::Adjust { cause, .. } => cause.class(),
            Self::Regex(_) => "error",
            Self::Limit(_) => "LimitError",
        }
    }
}

/// What is wrong with a node's document.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NodeProblem {
    #[error("a document has to be a mapping, not a {found}")]
    NotAMapping { found: &'static str },

    #[error("the node `/{}` has to be a mapping or empty, not a {found}", escape(.child))]
    ChildNotAMapping { child: String, found: &'static str },

    #[error("a key is null")]
    NullKey,

    #[error("the key {key} is a {found}; keys of a node are strings, put it in quotes")]
    KeyType { key: String, found: &'static str },

    #[error("`/` takes a mapping of directives, not a {found}")]
    Directives { found: &'static str },

    #[error("the directive `{directive}` takes true or false, not a {found}")]
    DirectiveType { directive: &'static str, found: &'static str },

    #[error("there is no directive {directive}; `inherit` and `select` are")]
    UnknownDirective { directive: String },

    #[error("the name {} holds control characters", escape(.name))]
    Name { name: String },
}

impl NodeProblem {
    fn class(&self) -> &'static str {
        match self {
            Self::NotAMapping { .. } | Self::ChildNotAMapping { .. } | Self::KeyType { .. } => {
                "AttributeError"
            }
            Self::Name { .. } => "NameError",
            _ => "FormatError",
        }
    }
}

/// What is wrong with the rules that adjust a node.
#[derive(Debug, Error)]
pub enum AdjustProblem {
    #[error("`{}` has to be a mapping or a list of mappings, not a {found}", escape(.key))]
    Rules { key: String, found: &'static str },

    #[error("a rule that adjusts has to be a mapping, not a {found}")]
    Rule { found: &'static str },

    #[error("`continue` takes true or false, not {found}")]
    Continue { found: String },

    #[error("`when` takes a rule or a boolean, not a {found}")]
    When { found: &'static str },

    #[error("`when: {}`: {cause}", escape(.rule))]
    Condition { rule: String, cause: context::Error },

    #[error("`when: {}` cannot be decided: the context lacks what it asks for", escape(.rule))]
    Undecided { rule: String },

    #[error("{0}")]
    Merge(#[from] merge::Error),
}

impl AdjustProblem {
    fn class(&self) -> &'static str {
        match self {
            Self::Rules { .. } | Self::Rule { .. } | Self::Continue { .. } => "FormatError",
            Self::When { .. } => "TypeError",
            Self::Condition { cause, .. } => cause.class(),
            Self::Undecided { .. } => "CannotDecide",
            Self::Merge(cause) => cause.class(),
        }
    }
}

/// A limit that keeps hostile trees from eating the host.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Limit {
    #[error("the file is larger than {mebibytes} MiB")]
    File { mebibytes: u64 },

    #[error("the tree's files are larger than {mebibytes} MiB together")]
    Files { mebibytes: u64 },

    #[error("the tree has more than {0} nodes")]
    Nodes(usize),

    #[error("the tree has more than {0} directories")]
    Directories(usize),

    #[error("the tree is more than {0} levels deep")]
    Depth(usize),

    #[error("following anchored mappings through the tree takes too long")]
    Shared,

    #[error("merged data is nested more than {0} levels deep, or holds itself")]
    Nesting(usize),

    #[error("merging makes more than {mebibytes} MiB of data")]
    Merged { mebibytes: u64 },
}

/// A text on one line, without characters that a terminal would act on.
pub(crate) fn escape(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn show(path: &std::path::Path) -> String {
    escape(&path.to_string_lossy())
}

fn name(node: &str) -> String {
    escape(node)
}
