//! `discover`: the sections of a plan, each with its own tests.

use std::collections::HashSet;

use super::super::discover::error::DiscoverError;
use super::super::discover::reader::{Keys, Notes};
use super::super::value::{Map, Value};
use super::{Reading, wanted};
use crate::config::Dialect;

/// One source of tests.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// `name`, or `default-N`.
    pub(crate) name: String,
    /// Whether names of tests begin with `/name`.
    pub(crate) prefixed: bool,
    pub(crate) origin: Origin,
    pub(crate) source: Source,
    /// For messages: `discover`, `discover[1]`.
    pub(crate) key: String,
}

/// Where the files of a section are; all empty for the plan's own tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) url: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) path: Option<String>,
}

impl Origin {
    pub(crate) fn is_local(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Tests of a tree.
    Fmf {
        /// A name must match one of these regular expressions, if there are any.
        test: Vec<String>,
        /// A test must pass all of these.
        filter: Vec<String>,
        /// A name must match none of these.
        exclude: Vec<String>,
        /// Rules that adjust the tests, as under `adjust`.
        adjust: Value,
    },
    /// Tests written out in the plan.
    Shell(Vec<Map>),
}

/// Reads `discover`. `scripts` are the tests that `execute` brings; they stand in for a plan without `discover`.
pub(super) fn sections(
    keys: &mut Keys<'_>,
    scripts: Vec<Map>,
    reading: &Reading<'_>,
    notes: &mut Notes,
) -> Result<Vec<Section>, DiscoverError> {
    let mappings = keys.mappings("discover")?;
    if !scripts.is_empty() {
        if !mappings.is_empty() {
            return Err(keys.error("execute.script", "stands beside `discover`: tests come from one of them"));
        }
        let source = Source::Shell(scripts);
        let (name, key) = ("default-0".to_owned(), "execute.script".to_owned());
        return Ok(vec![Section { name, prefixed: false, origin: Origin::default(), source, key }]);
    }
    if mappings.is_empty() {
        return Err(keys.error("discover", "is missing: the plan does not say which tests it runs"));
    }
    let several = mappings.len() > 1;
    let mut names = HashSet::new();
    let mut sections = Vec::new();
    for (index, (path, map)) in mappings.into_iter().enumerate() {
        let mut own = Keys::new(keys.place(), path, map);
        let name = section_name(&mut own, index, several, reading.dialect)?;
        if !names.insert(name.clone()) {
            return Err(own.error("name", format!("{name:?} is that of another section too")));
        }
        if !wanted(&mut own, reading.context)? {
            continue;
        }
        let prefixed = several || (reading.dialect == Dialect::Atex && own.value("name").is_some());
        if let Some(section) = section(own, name, prefixed, notes)? {
            sections.push(section);
        }
    }
    Ok(sections)
}

fn section_name(
    keys: &mut Keys<'_>,
    index: usize,
    several: bool,
    dialect: Dialect,
) -> Result<String, DiscoverError> {
    let Some(name) = keys.text("name")? else {
        if several && dialect == Dialect::Atex {
            return Err(keys.error("name", "is missing: each of several sections needs one"));
        }
        return Ok(format!("default-{index}"));
    };
    let name = name.trim_start_matches('/').to_owned();
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if name.split('/').any(bad) || name.chars().any(char::is_control) {
        return Err(keys.error("name", format!("{name:?} is no name for a directory")));
    }
    Ok(name)
}

fn section(
    mut keys: Keys<'_>,
    name: String,
    prefixed: bool,
    notes: &mut Notes,
) -> Result<Option<Section>, DiscoverError> {
    keys.ignore(&["summary", "order", "prune"]);
    for key in ["where", "role", "dist-git-source", "modified-only", "sync-repo", "keep-git-metadata", "link"]
    {
        keys.must_be_off(key, notes)?;
    }
    let mut origin =
        Origin { url: keys.text("url")?, reference: keys.text("ref")?, path: keys.text("path")? };
    origin.url = origin.url.or(keys.text("repository")?);
    origin.reference = origin.reference.or(keys.text("revision")?);
    let source = match keys.text("how")?.as_deref() {
        None | Some("fmf") => Source::Fmf {
            test: keys.texts("test")?,
            filter: keys.texts("filter")?,
            exclude: keys.texts("exclude")?,
            adjust: keys.value("adjust-tests").cloned().unwrap_or_default(),
        },
        Some("shell") => {
            Source::Shell(keys.mappings("tests")?.into_iter().map(|(_, map)| map.clone()).collect())
        }
        Some(other) => {
            let what = format!("discovering by {other:?}");
            notes.unsupported(keys.place(), keys.key("how"), what)?;
            return Ok(None);
        }
    };
    let key = keys.key("");
    let section = Section { name, prefixed, origin, source, key: key.trim_end_matches('.').to_owned() };
    keys.finish(notes)?;
    Ok(Some(section))
}
