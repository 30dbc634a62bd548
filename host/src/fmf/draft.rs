//! A tree while its documents are read: raw keys, before any of them is merged.
//!
//! The parts of one node may be scattered over several files and documents. Each part sets raw keys, operators
//! included: a later `tag+` replaces an earlier one, and keeps its place in the order.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::error::{Error, Limit, NodeProblem};
use super::sharing::Label;
use super::value::{Map, Value};

/// Levels of nodes below the root. Each is a step of recursion later.
pub(super) const MAX_DEPTH: usize = 200;

/// Nodes of a tree: twenty times what a large one has.
const MAX_NODES: usize = 2_000_000;

#[derive(Debug)]
pub(super) struct Draft {
    nodes: Vec<DraftNode>,
    /// Documents in several places whose directives were taken: they count in the first place only.
    directed: HashSet<Label>,
}

#[derive(Debug, Default)]
pub(super) struct DraftNode {
    pub(super) data: Map,
    pub(super) children: IndexMap<Arc<str>, usize>,
    pub(super) sources: Vec<Arc<Path>>,
    pub(super) inherit: Option<bool>,
    pub(super) select: Option<bool>,
    depth: usize,
    /// Whether a document, if only an empty one, was given for it.
    updated: bool,
}

impl Draft {
    /// A tree of nothing but its root.
    pub(super) fn root() -> Self {
        Self { nodes: vec![DraftNode::default()], directed: HashSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Gives a node away; its children stay.
    pub(super) fn take(&mut self, node: usize) -> DraftNode {
        std::mem::take(&mut self.nodes[node])
    }

    pub(super) fn add_source(&mut self, node: usize, source: Arc<Path>) {
        self.nodes[node].sources.push(source);
    }

    /// The child with that name, new if there is none.
    pub(super) fn child(&mut self, node: usize, name: &str) -> Result<usize, Error> {
        if let Some(known) = self.nodes[node].children.get(name) {
            return Ok(*known);
        }
        let depth = self.nodes[node].depth + 1;
        if depth > MAX_DEPTH {
            return Err(Limit::Depth(MAX_DEPTH).into());
        }
        let child = self.nodes.len();
        if child >= MAX_NODES {
            return Err(Limit::Nodes(MAX_NODES).into());
        }
        self.nodes.push(DraftNode { depth, ..DraftNode::default() });
        self.nodes[node].children.insert(name.into(), child);
        Ok(child)
    }

    /// Removes children that neither have children nor were ever given a document: directories without metadata.
    pub(super) fn drop_empty_children(&mut self, node: usize) {
        let mut children = std::mem::take(&mut self.nodes[node].children);
        children.retain(|_, child| {
            let child = &self.nodes[*child];
            child.updated || !child.children.is_empty()
        });
        self.nodes[node].children = children;
    }

    /// Marks a node as given by an empty document.
    pub(super) fn touch(&mut self, node: usize) {
        self.nodes[node].updated = true;
    }

    /// Takes the keys of a document into a node and, for keys that start with a slash, into its descendants.
    pub(super) fn update(&mut self, node: usize, document: &Map) -> Result<(), Error> {
        self.touch(node);
        let is_first = document.label().is_none_or(|label| self.directed.insert(label));
        if let Some(directives) = document.get("/").filter(|_| is_first) {
            self.direct(node, directives)?;
        }
        for (key, value) in document {
            match key {
                Value::Str(name) if name.as_ref() == "/" => {}
                Value::Str(name) if name.starts_with('/') => self.update_child(node, name, value)?,
                Value::Str(_) => _ = self.nodes[node].data.insert(key.clone(), value.clone()),
                Value::Null => return Err(bare(NodeProblem::NullKey)),
                other => {
                    let problem = NodeProblem::KeyType { key: other.repr(), found: other.type_name() };
                    return Err(bare(problem));
                }
            }
        }
        Ok(())
    }

    /// `/a/b: value` is `b: value` in the child `a`; `/a/: value` are directives of `a`.
    fn update_child(&mut self, mut node: usize, key: &str, value: &Value) -> Result<(), Error> {
        let mut name = key.trim_start_matches('/');
        while let Some(at) = name.find('/') {
            node = self.child(node, &name[..at])?;
            self.touch(node);
            let rest = name[at..].trim_start_matches('/');
            if name.len() - at == 1 {
                return self.direct(node, value);
            }
            name = rest;
        }
        // A node with a string is a directory to explore for the reference implementation, relative to wherever
        // the process happens to be. Here, as where there is no such directory, it stays without a document.
        let child = self.child(node, name)?;
        match value {
            Value::Null => self.touch(child),
            Value::Map(document) => self.update(child, document)?,
            Value::Str(_) => {}
            other => {
                let problem =
                    NodeProblem::ChildNotAMapping { child: name.to_owned(), found: other.type_name() };
                return Err(bare(problem));
            }
        }
        Ok(())
    }

    fn direct(&mut self, node: usize, directives: &Value) -> Result<(), Error> {
        let Some(directives) = directives.as_map() else {
            return Err(bare(NodeProblem::Directives { found: directives.type_name() }));
        };
        for (directive, value) in directives {
            let (name, field) = match directive.as_str() {
                Some("inherit") => ("inherit", &mut self.nodes[node].inherit),
                Some("select") => ("select", &mut self.nodes[node].select),
                _ => return Err(bare(NodeProblem::UnknownDirective { directive: directive.repr() })),
            };
            let Value::Bool(value) = value else {
                return Err(bare(NodeProblem::DirectiveType { directive: name, found: value.type_name() }));
            };
            *field = Some(*value);
        }
        Ok(())
    }
}

/// The caller knows the file.
fn bare(problem: NodeProblem) -> Error {
    Error::Node { node: "/".to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::fmf::{Order, Tree, yaml};

    fn names(text: &str) -> Result<Vec<String>, String> {
        let document = yaml::parse(text).unwrap();
        let tree = Tree::from_data(document.as_map().unwrap()).map_err(|error| error.to_string())?;
        Ok(Arc::new(tree).view().climb(Order::AsFound).map(|node| node.name().to_owned()).collect())
    }

    #[test]
    fn slashes_make_children() {
        for (text, expected) in [
            ("/a/b/c: {x: 1}\n/a: {y: 1}", vec!["/", "/a", "/a/b", "/a/b/c"]),
            ("//a: \n/b//c: {}\n///d///e: {}", vec!["/", "/a", "/b", "/b/c", "/d", "/d/e"]),
            ("/a/: {inherit: false}", vec!["/", "/a"]),
            ("//: {y: 2}", vec!["/", "/"]),
            ("/a//: {}", vec!["/", "/a", "/a/"]),
            ("/a: {b: {/c: 1}}", vec!["/", "/a"]),
        ] {
            assert_eq!(names(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_what_a_node_cannot_be() {
        for (text, words) in [
            ("/a: 5", "`/a` has to be a mapping or empty, not a int"),
            ("/a: {1: 2}", "the key 1 is a int"),
            ("~: 1", "a key is null"),
            ("/: [inherit]", "mapping of directives, not a list"),
            ("/: {inherit: 'no'}", "`inherit` takes true or false, not a str"),
            ("/a/: {inherits: true}", "no directive 'inherits'"),
        ] {
            let error = names(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
