//! Selecting nodes of a tree.

use std::collections::HashSet;
use std::path::PathBuf;

use super::filter::{Filter, Pattern, Verdict};
use super::regex;
use super::view::{Node, Order, View};

/// Which nodes are wanted: all criteria have to hold, and an empty one always does.
#[derive(Debug, Default)]
pub struct Selection {
    whole: bool,
    order: Order,
    keys: Vec<String>,
    names: Vec<Pattern>,
    sources: HashSet<PathBuf>,
    filters: Vec<Filter>,
}

impl Selection {
    /// The leaves of the tree, and the branches whose directive says so.
    pub fn new() -> Self {
        Self::default()
    }

    /// Branches too.
    #[must_use]
    pub fn whole(mut self, whole: bool) -> Self {
        self.whole = whole;
        self
    }

    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Nodes that have the key, whatever its value.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Nodes in whose full name this or another given pattern is found.
    #[must_use]
    pub fn name(mut self, pattern: impl Into<String>) -> Self {
        self.names.push(Pattern::new(pattern.into()));
        self
    }

    /// Nodes with data from this or another given file; absolute paths.
    #[must_use]
    pub fn source(mut self, file: impl Into<PathBuf>) -> Self {
        self.sources.insert(file.into());
        self
    }

    /// Nodes that pass the filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// Whether the node meets all criteria. Only a bad pattern is an error.
    pub fn accepts(&self, node: Node<'_>) -> Result<bool, regex::Error> {
        if !(self.whole || node.is_selected()) {
            return Ok(false);
        }
        if !self.keys.iter().all(|key| node.data().contains_key(key)) {
            return Ok(false);
        }
        if !self.names.is_empty() && !any(&self.names, |pattern| pattern.is_in(node.name(), true))? {
            return Ok(false);
        }
        if !self.sources.is_empty() && !node.sources().any(|source| self.sources.contains(source)) {
            return Ok(false);
        }
        self.passes(node)
    }

    /// No filter is skipped, so that a bad pattern shows wherever it stands.
    fn passes(&self, node: Node<'_>) -> Result<bool, regex::Error> {
        let mut all = true;
        for filter in &self.filters {
            match filter.check(Some(node.name()), node.data())? {
                Verdict::Match => {}
                Verdict::NoMatch => all = false,
                Verdict::Missing(_) => return Ok(false),
            }
        }
        Ok(all)
    }
}

fn any<T>(items: &[T], mut test: impl FnMut(&T) -> Result<bool, regex::Error>) -> Result<bool, regex::Error> {
    let mut found = false;
    for item in items {
        found |= test(item)?;
    }
    Ok(found)
}

impl View {
    /// The nodes that the selection accepts, parents before children.
    pub fn prune<'v>(
        &'v self,
        selection: &Selection,
    ) -> impl Iterator<Item = Result<Node<'v>, regex::Error>> {
        self.climb(selection.order).filter_map(|node| match selection.accepts(node) {
            Ok(true) => Some(Ok(node)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fmf::{Tree, yaml};

    fn selected(selection: &Selection) -> Vec<String> {
        let text = "x: 1\n/b: {y: 1}\n/a:\n  /: {select: true}\n  /2: {z: null}\n  /10: {}\n/c: {/: {select: false}}\n";
        let tree = Tree::from_data(yaml::parse(text).unwrap().as_map().unwrap()).unwrap();
        let view = Arc::new(tree).view();
        view.prune(selection).map(|node| node.unwrap().name().to_owned()).collect()
    }

    #[test]
    fn leaves_and_what_directives_say_in_order() {
        assert_eq!(selected(&Selection::new()), ["/a", "/a/10", "/a/2", "/b"]);
        assert_eq!(selected(&Selection::new().order(Order::AsFound)), ["/b", "/a", "/a/2", "/a/10"]);
        assert_eq!(selected(&Selection::new().whole(true)), ["/", "/a", "/a/10", "/a/2", "/b", "/c"]);
    }

    #[test]
    fn all_criteria_have_to_hold() {
        assert_eq!(selected(&Selection::new().key("z")), ["/a/2"]);
        assert_eq!(selected(&Selection::new().name("^/b").name("2$")), ["/a/2", "/b"]);
        assert_eq!(selected(&Selection::new().name("a").filter(Filter::new("x:1"))), ["/a", "/a/10", "/a/2"]);
        assert_eq!(selected(&Selection::new().filter(Filter::new("y:1"))), ["/b"]);
        assert!(selected(&Selection::new().source("/nowhere")).is_empty());
    }
}
