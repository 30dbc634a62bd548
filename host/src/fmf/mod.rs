//! The Flexible Metadata Format, version 1.7: trees of YAML files whose nodes inherit, merge and adjust data.

pub mod duration;
pub mod expression;
pub mod value;

pub use self::value::{Map, Value};
