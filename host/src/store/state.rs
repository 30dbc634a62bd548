//! The user's state directory: `$ATEX_STATE_DIR`, else `$XDG_STATE_HOME/atex-host`, else `~/.local/state/atex-host`.

use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// What survives single runs. Every directory is made on first use, for this user alone.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory that the environment names.
    pub fn from_environment() -> io::Result<Self> {
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = named("ATEX_STATE_DIR")
            .or_else(|| named("XDG_STATE_HOME").map(|base| base.join("atex-host")))
            .or_else(|| named("HOME").map(|home| home.join(".local/state/atex-host")))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "no state directory: set ATEX_STATE_DIR or HOME")
            })?;
        Ok(Self::at(std::path::absolute(path)?))
    }

    /// This directory.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the ledger of a run is.
    pub fn ledger(&self, run: &str) -> io::Result<PathBuf> {
        Ok(self.directory("ledger")?.join(format!("{run}.jsonl")))
    }

    /// The ledgers of all runs of this user, dead and alive.
    pub fn ledgers(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.directory("ledger")?)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Host keys that were accepted for a pool's machines.
    pub fn known_hosts(&self, pool: &str) -> io::Result<PathBuf> {
        Ok(self.directory("known_hosts")?.join(safe(pool)))
    }

    /// Fetched trees.
    pub fn cache(&self) -> io::Result<PathBuf> {
        self.directory("cache")
    }

    /// Durations and verdicts of earlier runs.
    pub fn history(&self) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        Ok(self.0.join("history.sqlite"))
    }

    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(path)
    }
}

/// A name as one component of a path.
fn safe(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
    let name: String = name.chars().take(100).map(keep).collect();
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for (name, expected) in [("lab", "lab"), ("../x", "_.._x"), ("", "_"), ("a/b c", "a_b_c")] {
            assert_eq!(safe(name), expected);
        }
    }
}
