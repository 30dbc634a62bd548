//! `prepare` and `finish`: what is done on a machine before and after its tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::discover::error::DiscoverError;
use super::super::discover::reader::{Keys, Notes};
use super::super::value::Value;
use super::super::words::shell_words;
use super::{Reading, wanted};
use crate::executor::spec::{Action, Packages, Phase};

/// Where phases stand that do not say.
const DEFAULT_ORDER: i64 = 50;

/// The phases of a step that apply in this context, in the order they are to be run.
pub(super) fn phases(
    keys: &mut Keys<'_>,
    step: &'static str,
    reading: &Reading<'_>,
    notes: &mut Notes,
) -> Result<Vec<Phase>, DiscoverError> {
    let mut phases = Vec::new();
    for (index, (path, map)) in keys.mappings(step)?.into_iter().enumerate() {
        let mut own = Keys::new(keys.place(), path, map);
        if !wanted(&mut own, reading.context)? {
            continue;
        }
        let order = own.number("order")?.unwrap_or(DEFAULT_ORDER);
        let name = own.text("name")?.unwrap_or_else(|| format!("default-{index}"));
        own.ignore(&["summary"]);
        for key in ["where", "role"] {
            own.must_be_off(key, notes)?;
        }
        if let Some(action) = action(own, step, reading.root, notes)? {
            phases.push((order, Phase { name: format!("{step} {name}"), action }));
        }
    }
    phases.sort_by_key(|(order, _)| *order);
    Ok(phases.into_iter().map(|(_, phase)| phase).collect())
}

fn action(
    mut keys: Keys<'_>,
    step: &str,
    root: &Path,
    notes: &mut Notes,
) -> Result<Option<Action>, DiscoverError> {
    let how = keys.text("how")?;
    let action = match (how.as_deref(), step) {
        (None | Some("shell"), _) => Action::Shell { scripts: keys.texts("script")? },
        (Some("install"), "prepare") => Action::Install(packages(&mut keys, root, notes)?),
        (Some("feature"), "prepare") => Action::Install(features(&mut keys, notes)?),
        (Some("ansible"), _) => ansible(&mut keys, root, notes)?,
        (Some(other), _) => {
            notes.unsupported(keys.place(), keys.key("how"), format!("`{step}` by {other:?}"))?;
            return Ok(None);
        }
    };
    keys.finish(notes)?;
    let idle = match &action {
        Action::Shell { scripts } => scripts.is_empty(),
        Action::Install(packages) => packages.is_empty(),
        Action::Ansible { playbooks, .. } => playbooks.is_empty(),
    };
    Ok(if idle { None } else { Some(action) })
}

fn packages(keys: &mut Keys<'_>, root: &Path, notes: &mut Notes) -> Result<Packages, DiscoverError> {
    let mut packages = Packages {
        exclude: keys.texts("exclude")?,
        copr: keys.texts("copr")?,
        epel: keys.flag("epel")?.unwrap_or(false),
        skip_missing: match keys.text("missing")?.as_deref() {
            None | Some("fail") => false,
            Some("skip") => true,
            Some(other) => {
                return Err(keys.error("missing", format!("is {other:?}; it is one of fail, skip")));
            }
        },
        ..Packages::default()
    };
    for package in keys.texts("package")? {
        if package.starts_with('-') || package.chars().any(char::is_control) {
            return Err(keys.error("package", format!("has {package:?}, which is no name of a package")));
        }
        let is_file = is_package_file(&package) && package.contains('/') && !package.contains("://");
        if !is_file {
            packages.required.push(package);
            continue;
        }
        let file = inside(root, &package).map_err(|problem| keys.error("package", problem))?;
        packages.files.push(file);
    }
    for directory in keys.texts("directory")? {
        let files = package_files(root, &directory).map_err(|problem| keys.error("directory", problem))?;
        if files.is_empty() {
            notes.warn(format!(
                "{}: `{}`: {directory:?} has no packages",
                keys.place(),
                keys.key("directory")
            ));
        }
        packages.files.extend(files);
    }
    Ok(packages)
}

/// `how: feature`, of which only EPEL is known.
fn features(keys: &mut Keys<'_>, notes: &mut Notes) -> Result<Packages, DiscoverError> {
    let mut packages = Packages::default();
    match keys.value("epel") {
        None => {}
        Some(Value::Str(word)) if &**word == "enabled" => packages.epel = true,
        Some(other) => notes.unsupported(keys.place(), keys.key("epel"), other.repr())?,
    }
    Ok(packages)
}

fn ansible(keys: &mut Keys<'_>, root: &Path, notes: &mut Notes) -> Result<Action, DiscoverError> {
    let mut playbooks = Vec::new();
    for playbook in keys.texts("playbook")? {
        if playbook.contains("://") {
            notes.unsupported(keys.place(), keys.key("playbook"), "a playbook from the network")?;
            continue;
        }
        let file = inside(root, &playbook).map_err(|problem| keys.error("playbook", problem))?;
        playbooks.push(root.join(file));
    }
    let extra_args = match keys.text("extra-args")? {
        Some(text) => shell_words(&text, false).map_err(|problem| keys.error("extra-args", problem))?,
        None => Vec::new(),
    };
    Ok(Action::Ansible { playbooks, extra_args })
}

fn is_package_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "rpm")
}

/// The way from the root to a file of the tree.
fn inside(root: &Path, name: &str) -> Result<String, String> {
    let relative = PathBuf::from(name.trim_start_matches('/'));
    let real = root.join(&relative).canonicalize().map_err(|cause| format!("names {name:?}: {cause}"))?;
    let within = root.canonicalize().is_ok_and(|root| real.starts_with(root));
    let text = relative.to_str().filter(|_| within && !name.contains(".."));
    text.map(str::to_owned).ok_or_else(|| format!("names {name:?}, which is outside the tree"))
}

/// The package files right in a directory of the tree, by name.
fn package_files(root: &Path, directory: &str) -> Result<Vec<String>, String> {
    let directory = inside(root, directory)?;
    let entries =
        fs::read_dir(root.join(&directory)).map_err(|cause| format!("names {directory:?}: {cause}"))?;
    let mut files: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_package_file(name))
        .map(|name| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect();
    files.sort();
    Ok(files)
}
