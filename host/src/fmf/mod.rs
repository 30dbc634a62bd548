//! The Flexible Metadata Format, version 1.7: trees of YAML files whose nodes inherit, merge and adjust data.
//!
//! [`Tree::load`] reads a tree once; [`Tree::adjust`] shows it as a platform sees it; [`View::prune`] selects nodes.

pub mod adjust;
mod budget;
pub mod context;
pub mod discover;
mod draft;
pub mod duration;
pub mod error;
mod explore;
pub mod expression;
pub mod filter;
pub mod git;
mod library;
mod merge;
mod plan;
pub mod regex;
pub mod select;
mod sharing;
mod tree;
pub mod value;
mod view;
mod words;
pub mod yaml;

pub use self::adjust::{Adjustment, Undecided};
pub use self::context::Context;
pub use self::error::Error;
pub(crate) use self::explore::normalize;
pub use self::filter::Filter;
pub use self::select::Selection;
pub use self::tree::Tree;
pub use self::value::{Map, Value};
pub use self::view::{Node, Order, View};
