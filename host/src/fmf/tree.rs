//! A loaded tree: nodes with their inherited data, as no platform sees it yet.
//!
//! Loading reads the files once ([`explore`]), then merges data from the root downwards. A loaded tree does
//! not change; [`Tree::adjust`] gives a [`View`] of it under a context, which holds the data of only those nodes
//! that the context changes. So ten platforms cost little more than one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::Draft;
use super::error::{Error, NodeProblem};
use super::explore;
use super::merge::Merger;
use super::sharing::Sharing;
use super::value::{KnownKeys, Map};
use super::view::View;

/// The place of a node in its tree; zero is the root.
pub(super) type NodeId = usize;

/// A tree of nodes with their data.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    pub(super) nodes: Vec<NodeData>,
    /// The labels in the data; nothing is changed.
    pub(super) sharing: Sharing,
}

/// One node.
#[derive(Debug)]
pub(super) struct NodeData {
    /// The full name; the root is `/`.
    pub(super) name: Arc<str>,
    pub(super) parent: Option<NodeId>,
    /// In the order they came, with their own names.
    pub(super) children: Vec<(Arc<str>, NodeId)>,
    /// What the directive `select` says.
    pub(super) select: Option<bool>,
    pub(super) data: Arc<Map>,
    /// The files the data came from, absolute, in the order they were merged.
    pub(super) sources: Arc<[Arc<Path>]>,
}

impl Tree {
    /// Loads the whole tree that `path` is in.
    ///
    /// Directories that hold a file `run.json` are not explored: they are results of earlier runs.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let root = explore::find_root(path)?;
        let (draft, sharing) = explore::explore(&root)?;
        Self::inherit(root, draft, sharing)
    }

    /// A tree from data alone, without files.
    pub fn from_data(data: &Map) -> Result<Self, Error> {
        let mut draft = Draft::root();
        draft.update(0, data)?;
        Self::inherit(PathBuf::new(), draft, Sharing::default())
    }

    /// The absolute directory that holds `.fmf`; empty for a tree from data.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How many nodes there are, branches included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a tree has a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tree as it was loaded, without a context.
    pub fn view(self: &Arc<Self>) -> View {
        View::unadjusted(self.clone())
    }

    fn inherit(root: PathBuf, draft: Draft, sharing: Sharing) -> Result<Self, Error> {
        let mut heirs = Heirs {
            draft,
            nodes: Vec::new(),
            merger: Merger::new(sharing),
            known_keys: KnownKeys::default(),
        };
        heirs.nodes.reserve(heirs.draft.len());
        heirs.inherit(&"/".into(), 0, None)?;
        let mut sharing = heirs.merger.into_sharing();
        for node in &mut heirs.nodes {
            if let Some(current) = sharing.resolve_map(&node.data)? {
                node.data = Arc::new(current);
            }
        }
        sharing.forget_changes();
        Ok(Self { root, nodes: heirs.nodes, sharing })
    }
}

/// Turns a draft into nodes, parents before children.
struct Heirs {
    draft: Draft,
    nodes: Vec<NodeData>,
    merger: Merger,
    known_keys: KnownKeys,
}

impl Heirs {
    /// The recursion ends: a draft's depth is limited.
    fn inherit(&mut self, name: &Arc<str>, draft: usize, parent: Option<NodeId>) -> Result<NodeId, Error> {
        let own = self.draft.take(draft);
        let heritage = parent.filter(|_| own.inherit != Some(false)).map(|parent| &self.nodes[parent]);
        let (base, inherited) = match heritage {
            Some(parent) => (parent.data.clone(), parent.sources.clone()),
            None => (Arc::default(), Arc::from([])),
        };
        let data = self.merge(name, base, &own.data)?;
        let sources = if own.sources.is_empty() {
            inherited
        } else {
            inherited.iter().cloned().chain(own.sources).collect()
        };
        let id = self.nodes.len();
        self.nodes.push(NodeData {
            name: name.clone(),
            parent,
            children: Vec::with_capacity(own.children.len()),
            select: own.select,
            data,
            sources,
        });
        for (child, draft) in own.children {
            let full = self.full_name(name, &child)?;
            let node = self.inherit(&full, draft, Some(id))?;
            self.nodes[id].children.push((child, node));
        }
        Ok(id)
    }

    fn merge(&mut self, name: &str, base: Arc<Map>, own: &Map) -> Result<Arc<Map>, Error> {
        let copy = self.merger.copy(&base)?;
        if own.is_empty() {
            return Ok(copy.map_or(base, Arc::new));
        }
        let at = |cause| Error::Merge { node: name.to_owned(), cause };
        self.merger.count_copy(base.len())?;
        let mut data = copy.unwrap_or_else(|| Arc::unwrap_or_clone(base));
        self.merger.merge(&mut data, own).map_err(at)?;
        data.compact(&mut self.known_keys);
        Ok(Arc::new(data))
    }

    /// The name of a child below its parent's. An empty name leaves the slash: `//` under the root is `/` again.
    fn full_name(&mut self, parent: &str, child: &str) -> Result<Arc<str>, Error> {
        if child.chars().any(char::is_control) {
            let problem = NodeProblem::Name { name: child.to_owned() };
            return Err(Error::Node { node: parent.to_owned(), problem });
        }
        self.merger.count_text(parent.len() + child.len())?;
        let slash = if parent.ends_with('/') { "" } else { "/" };
        Ok([parent, slash, child].concat().into())
    }
}
