//! Where libraries are looked for, and how their files are called.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use atex_plugin_api::describe::Kind;

use super::library::Trust;

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Libraries that were named: opened at once, and what they provide wins over what directories have.
    pub libraries: Vec<PathBuf>,
    /// Directories, in order; a library is opened when a plugin of its name is used.
    pub directories: Vec<PathBuf>,
    /// What to do about libraries that others may have changed.
    pub trust: Trust,
}

impl Search {
    /// The named libraries, then the directories of `plugin_path` (colon-separated, the value of `ATEX_PLUGIN_PATH`), then
    /// the bundled ones: beside the program and in `../lib/atex-host/plugins` of its directory.
    pub fn new(libraries: Vec<PathBuf>, plugin_path: Option<&OsStr>, trust: Trust) -> Self {
        let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
        Self::from_parts(libraries, plugin_path, program.as_deref(), trust)
    }

    fn from_parts(
        libraries: Vec<PathBuf>,
        plugin_path: Option<&OsStr>,
        program: Option<&Path>,
        trust: Trust,
    ) -> Self {
        let mut directories: Vec<PathBuf> = plugin_path
            .map(|path| std::env::split_paths(path).filter(|one| !one.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        if let Some(beside) = program.and_then(Path::parent) {
            directories.push(beside.to_owned());
            if let Some(prefix) = beside.parent() {
                directories.push(prefix.join("lib/atex-host/plugins"));
            }
        }
        Self { libraries, directories, trust }
    }

    /// The file of the first directory that has one for this plugin.
    pub(super) fn file(&self, kind: Kind, name: &str) -> Option<PathBuf> {
        let file = file_name(kind, name)?;
        self.directories.iter().map(|directory| directory.join(&file)).find(|path| path.exists())
    }

    /// Every plugin that the directories have, by the names of the files: none is opened. The first of a name counts.
    pub(super) fn listing(&self) -> Vec<(Kind, String, PathBuf)> {
        let mut found: Vec<(Kind, String, PathBuf)> = Vec::new();
        for directory in &self.directories {
            let Ok(entries) = directory.read_dir() else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let Some((kind, name)) = path.file_name().and_then(OsStr::to_str).and_then(plugin_of) else {
                    continue;
                };
                if !found.iter().any(|(k, n, _)| *k == kind && *n == name) {
                    found.push((kind, name, path));
                }
            }
        }
        found
    }
}

/// `libatex_KIND_NAME.so`, with `_` for the `-` of the name, as cargo calls it; `None` for what is no name of a plugin.
pub fn file_name(kind: Kind, name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) && kind != Kind::Unknown;
    good.then(|| format!("libatex_{}_{}.so", kind.word(), name.replace('-', "_")))
}

fn plugin_of(file: &str) -> Option<(Kind, String)> {
    let stem = file.strip_prefix("libatex_")?.strip_suffix(".so")?;
    let (kind, name) = stem.split_once('_')?;
    let kind =
        [Kind::Provisioner, Kind::Policy, Kind::Reporter].into_iter().find(|one| one.word() == kind)?;
    let name = name.replace('_', "-");
    file_name(kind, &name).map(|_| (kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_the_same_thing() {
        assert_eq!(file_name(Kind::Policy, "fail-fast").as_deref(), Some("libatex_policy_fail_fast.so"));
        assert_eq!(plugin_of("libatex_policy_fail_fast.so"), Some((Kind::Policy, "fail-fast".into())));
        for bad in ["../x", "", "A", "a/b"] {
            assert_eq!(file_name(Kind::Reporter, bad), None, "{bad}");
        }
        for other in ["libatex_reporter_.so", "libatex_painter_x.so", "libc.so", "libatex_policy_x.so.bak"] {
            assert_eq!(plugin_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_plugin_path_comes_before_what_is_bundled() {
        let search = Search::from_parts(
            vec![],
            Some(OsStr::new("/a::/b")),
            Some(Path::new("/opt/bin/atex-host")),
            Trust::Warn,
        );
        let expected = ["/a", "/b", "/opt/bin", "/opt/lib/atex-host/plugins"];
        assert_eq!(search.directories, expected.map(PathBuf::from));
    }

    #[test]
    fn the_first_directory_wins() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for directory in [&first, &second] {
            std::fs::write(directory.path().join("libatex_policy_x.so"), "").unwrap();
        }
        std::fs::write(second.path().join("libatex_reporter_y.so"), "").unwrap();
        let directories = vec![PathBuf::from("/nowhere"), first.path().to_owned(), second.path().to_owned()];
        let search = Search { directories, ..Search::default() };
        assert_eq!(search.file(Kind::Policy, "x"), Some(first.path().join("libatex_policy_x.so")));
        assert_eq!(search.file(Kind::Reporter, "x"), None);
        assert_eq!(
            search.listing(),
            [
                (Kind::Policy, "x".to_owned(), first.path().join("libatex_policy_x.so")),
                (Kind::Reporter, "y".to_owned(), second.path().join("libatex_reporter_y.so")),
            ]
        );
    }
}
