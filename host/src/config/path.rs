//! Where in a configuration something is: `platforms[0].provisioners[1].flavor`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step from a value into one of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The steps from the top of a document, outermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path(Vec<Step>);

impl Path {
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of the value under `key`.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.step(Step::Key(key.into()))
    }

    /// The path of list item `index`, from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The path of what is at `inner` below the value at this path.
    #[must_use]
    pub fn join(&self, inner: &Self) -> Self {
        Self(self.0.iter().chain(&inner.0).cloned().collect())
    }

    /// This path with `step` before it.
    pub fn prepend(&mut self, step: Step) {
        self.0.insert(0, step);
    }

    /// The value at this path below `root`.
    pub fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(root, |value, step| match step {
            Step::Key(key) => value.get(key.as_str()),
            Step::Index(index) => value.get(*index),
        })
    }

    /// The path of the part of this value that `step` leads to.
    #[must_use]
    pub fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// `a.b[2]`; keys with anything but letters, digits, `-`, `_`, `@` and `/` are quoted, so that they cannot confuse a terminal.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    f.write_str(if position == 0 { "" } else { "." })?;
                    if is_plain(key) { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "-_@/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_the_document() {
        let path = Path::default().key("platforms").index(0).key("env").key("a b\u{1b}");
        assert_eq!(path.to_string(), r#"platforms[0].env."a b\u{1b}""#);
        assert_eq!(Path::default().to_string(), "");
    }

    #[test]
    fn finds_what_it_names() {
        let root = serde_json::json!({"a": [{"b": 1}]});
        assert_eq!(Path::default().key("a").index(0).key("b").find(&root), Some(&Value::from(1)));
        assert_eq!(Path::default().key("a").key("b").find(&root), None);
    }
}
