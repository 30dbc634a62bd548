//! A tree as one platform sees it.

use std::path::Path;
use std::sync::Arc;

use super::tree::{NodeData, NodeId, Tree};
use super::value::{Map, Value};

/// A tree under a context: the loaded data, and that of the nodes which the context changes.
#[derive(Clone, Debug)]
pub struct View {
    tree: Arc<Tree>,
    /// By node; empty if nothing was adjusted.
    changed: Arc<[Option<Arc<Map>>]>,
}

impl View {
    pub(super) fn unadjusted(tree: Arc<Tree>) -> Self {
        Self { tree, changed: Arc::from([]) }
    }

    pub(super) fn adjusted(tree: Arc<Tree>, changed: Vec<Option<Arc<Map>>>) -> Self {
        Self { tree, changed: changed.into() }
    }

    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub fn root(&self) -> Node<'_> {
        Node { view: self, id: 0 }
    }

    /// The first node with exactly this full name.
    pub fn find(&self, name: &str) -> Option<Node<'_>> {
        self.climb(Order::Sorted).find(|node| node.name() == name)
    }

    /// All nodes, parents before children.
    pub fn climb(&self, order: Order) -> Climb<'_> {
        Climb { view: self, order, next: vec![0] }
    }
}

/// The order of siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By code point of their own names.
    #[default]
    Sorted,
    /// As the tree's files brought them.
    AsFound,
}

/// A node of a [`View`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'v> {
    view: &'v View,
    id: NodeId,
}

impl<'v> Node<'v> {
    fn inner(self) -> &'v NodeData {
        &self.view.tree.nodes[self.id]
    }

    /// The full name: the own names of the nodes above and its own, joined by slashes.
    pub fn name(self) -> &'v str {
        &self.inner().name
    }

    /// The data with everything inherited and adjusted.
    pub fn data(self) -> &'v Map {
        match self.view.changed.get(self.id) {
            Some(Some(changed)) => changed,
            _ => &self.inner().data,
        }
    }

    /// The same, to keep.
    pub fn shared_data(self) -> Arc<Map> {
        match self.view.changed.get(self.id) {
            Some(Some(changed)) => changed.clone(),
            _ => self.inner().data.clone(),
        }
    }

    /// The name, to keep.
    pub fn shared_name(self) -> Arc<str> {
        self.inner().name.clone()
    }

    /// The last file that the data came from, to keep.
    pub fn shared_source(self) -> Option<Arc<Path>> {
        self.inner().sources.last().cloned()
    }

    /// The value of a key.
    pub fn get(self, key: &str) -> Option<&'v Value> {
        self.data().get(key)
    }

    /// The files that the data came from, absolute, those of the nodes above first.
    pub fn sources(self) -> impl DoubleEndedIterator<Item = &'v Path> + ExactSizeIterator + Clone {
        self.inner().sources.iter().map(AsRef::as_ref)
    }

    /// The directory that holds the tree.
    pub fn root_directory(self) -> &'v Path {
        self.view.tree.root()
    }

    pub fn parent(self) -> Option<Self> {
        self.inner().parent.map(|id| Self { view: self.view, id })
    }

    pub fn has_children(self) -> bool {
        !self.inner().children.is_empty()
    }

    /// The children with their own names, in the order they were found.
    pub fn children(self) -> impl DoubleEndedIterator<Item = (&'v str, Self)> + ExactSizeIterator {
        self.inner().children.iter().map(move |(name, id)| (name.as_ref(), Self { view: self.view, id: *id }))
    }

    /// Whether the node counts as an item of the tree: leaves do, unless a directive says otherwise.
    pub fn is_selected(self) -> bool {
        self.inner().select.unwrap_or(!self.has_children())
    }

    /// The directory of the last source, relative to the tree's root; none for a node without files of its own or
    /// inherited ones.
    pub fn directory(self) -> Option<&'v Path> {
        self.sources().next_back()?.parent()?.strip_prefix(self.view.tree.root()).ok()
    }
}

/// See [`View::climb`].
#[derive(Clone, Debug)]
pub struct Climb<'v> {
    view: &'v View,
    order: Order,
    /// The nodes to come, the next one last.
    next: Vec<NodeId>,
}

impl<'v> Iterator for Climb<'v> {
    type Item = Node<'v>;

    fn next(&mut self) -> Option<Node<'v>> {
        let id = self.next.pop()?;
        let children = &self.view.tree.nodes[id].children;
        let start = self.next.len();
        match self.order {
            Order::AsFound => self.next.extend(children.iter().rev().map(|(_, child)| child)),
            Order::Sorted => {
                let mut sorted: Vec<_> = children.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| b.cmp(a));
                self.next.extend(sorted.into_iter().map(|(_, child)| child));
            }
        }
        debug_assert!(self.next.len() - start == children.len());
        Some(Node { view: self.view, id })
    }
}
