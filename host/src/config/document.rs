//! A configuration file: found, read, trusted or not, expanded; and errors about it with their line.

use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::de::{self, Fault};
use super::error::{ConfigError, Source};
use super::expand::{self, Forms, Lookup};
use super::file::File;
use super::path::Path;
use super::place::{Place, Script};
use super::secret::Secrets;
use super::trust;
use super::yaml::{self, Part};

/// The name of the configuration in a tree.
const FILE_NAME: &str = "atex.yaml";

/// A configuration in all its forms.
#[derive(Debug)]
pub(crate) struct Document {
    /// The file it comes from; `None` if there is none.
    script: Option<Arc<Script>>,
    /// Both forms, of the same shape.
    pub(crate) forms: Forms,
    /// The resolved form, typed.
    pub(crate) content: File,
}

impl Document {
    /// No configuration.
    pub(crate) fn none() -> Self {
        Self {
            script: None,
            forms: Forms { written: Value::Null, resolved: Value::Null },
            content: File::default(),
        }
    }

    /// The file that the user named.
    pub(crate) fn named(file: PathBuf, lookup: Lookup<'_>, secrets: &Secrets) -> Result<Self, ConfigError> {
        let text = read(&file)?;
        Self::build(file, text, true, lookup, secrets)
    }

    /// The `atex.yaml` of a tree, if it has one; `trusted` if the user said so.
    pub(crate) fn of_tree(
        tree: &FilePath,
        trusted: bool,
        lookup: Lookup<'_>,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        match find(tree) {
            Some(file) => {
                let text = read(&file)?;
                Self::build(file, text, trusted, lookup, secrets)
            }
            None => Ok(Self::none()),
        }
    }

    /// The written form as an earlier run recorded it: trusted then, or free of all that needs trust.
    pub(crate) fn recorded(
        file: Option<PathBuf>,
        written: &Value,
        lookup: Lookup<'_>,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let script = file.map(|file| Arc::new(Script { file, text: String::new() }));
        let mut document = Self { script, ..Self::none() };
        document.fill(written, lookup, secrets)?;
        Ok(document)
    }

    fn build(
        file: PathBuf,
        text: String,
        trusted: bool,
        lookup: Lookup<'_>,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let raw = yaml::parse(&text).map_err(|error| {
            ConfigError::new(error.message).in_source(Source::File(file.clone(), error.position))
        })?;
        let base = file.parent().unwrap_or(FilePath::new(".")).to_owned();
        let mut document = Self { script: Some(Arc::new(Script { file, text })), ..Self::none() };
        if !trusted {
            trust::check(&raw, &base).map_err(|error| document.located(error, Part::Value))?;
        }
        document.fill(&raw, lookup, secrets)?;
        Ok(document)
    }

    fn fill(&mut self, raw: &Value, lookup: Lookup<'_>, secrets: &Secrets) -> Result<(), ConfigError> {
        self.forms =
            expand::expand(raw, lookup, secrets).map_err(|error| self.located(error, Part::Value))?;
        if !self.forms.resolved.is_null() {
            self.content =
                de::from_value(&self.forms.resolved).map_err(|fault| self.fault(fault, secrets))?;
        }
        Ok(())
    }

    /// A typed-reading error, with its line and without secrets.
    pub(crate) fn fault(&self, fault: Fault, secrets: &Secrets) -> ConfigError {
        let part = fault.part;
        let error = ConfigError::from(fault).map_text(|text| secrets.mask(text).into_owned());
        self.located(error, part)
    }

    /// `message` about the value at `path`.
    pub(crate) fn wrong(&self, path: &Path, message: impl Into<String>) -> ConfigError {
        self.located(ConfigError::new(message).at(path.clone()), Part::Value)
    }

    /// `error`, whose path is one of this document, with the file and the line.
    pub(crate) fn located(&self, error: ConfigError, part: Part) -> ConfigError {
        match &self.script {
            None => error,
            Some(script) => {
                let source = script.source(error.path(), part);
                error.in_source(source)
            }
        }
    }

    /// The file it comes from.
    pub(crate) fn file(&self) -> Option<&FilePath> {
        self.script.as_ref().map(|script| script.file.as_path())
    }

    /// Where the value at `path` stands.
    pub(crate) fn place(&self, path: &Path) -> Place {
        match &self.script {
            None => Place::Default,
            Some(script) => Place::File { script: Arc::clone(script), path: path.clone() },
        }
    }
}

/// The `atex.yaml` of a tree: in the directory that was named, or above it up to the root of the tree.
fn find(tree: &FilePath) -> Option<PathBuf> {
    for directory in tree.ancestors() {
        let file = directory.join(FILE_NAME);
        if file.exists() {
            return Some(file);
        }
        if directory.join(".fmf").exists() {
            return None;
        }
    }
    None
}

/// The text of a configuration file.
pub(crate) fn read(file: &FilePath) -> Result<String, ConfigError> {
    let wrong = |message: String| ConfigError::new(message).in_source(Source::File(file.to_owned(), None));
    let failed = |error: std::io::Error| wrong(format!("cannot read the configuration: {error}"));
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err(wrong("the configuration is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let limit = yaml::MAX_BYTES as u64 + 1;
    std::fs::File::open(file).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        wrong(format!("line {} is not valid UTF-8", valid.split(|byte| *byte == b'\n').count()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_s_file_is_looked_for_up_to_the_root_of_the_tree() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        let below = root.join("a/b");
        std::fs::create_dir_all(below.join("c")).unwrap();
        std::fs::write(top.path().join(FILE_NAME), "").unwrap();
        std::fs::create_dir(root.join(".fmf")).unwrap();
        assert_eq!(find(&below), None, "what is above the root is another's");
        std::fs::write(root.join(FILE_NAME), "").unwrap();
        assert_eq!(find(&below), Some(root.join(FILE_NAME)));
        std::fs::write(below.join(FILE_NAME), "").unwrap();
        assert_eq!(find(&below.join("c")), Some(below.join(FILE_NAME)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let top = tempfile::tempdir().unwrap();
        let message = |file: &FilePath| read(file).unwrap_err().message().to_owned();
        assert_eq!(message(top.path()), "the configuration is no regular file");
        assert!(message(&top.path().join("none")).starts_with("cannot read the configuration: No such file"));
        let file = top.path().join("binary");
        std::fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
        assert_eq!(message(&file), "line 2 is not valid UTF-8");
    }
}
