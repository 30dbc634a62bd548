//! What a plan depends on besides arguments and files: taken from the process once, and made up in tests.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::error::ConfigError;

/// The world as the process found it.
#[derive(Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Working directory, absolute.
    pub directory: PathBuf,
    /// Environment variables whose names and values are UTF-8; the rest counts as unset.
    pub variables: BTreeMap<String, String>,
    /// `user@host`.
    pub owner: String,
    /// A number nobody can foresee, for runs without `--seed`.
    pub seed: u64,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Result<Self, ConfigError> {
        let directory = std::env::current_dir()
            .map_err(|error| ConfigError::new(format!("cannot tell the working directory: {error}")))?;
        let variables: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let owner = owner(&variables, rustix::system::uname().nodename().to_str().unwrap_or_default());
        // 46 random bits: few enough to be exact in any JSON reader and to be typed again.
        let seed = (uuid::Uuid::now_v7().as_u64_pair().1 << 2) >> 18;
        Ok(Self { directory, variables, owner, seed })
    }

    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// `path` as seen from the working directory, absolute and without `.` components.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        join(&self.directory, path)
    }
}

/// Environment variables may be secrets: `Debug` leaves them out.
impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("directory", &self.directory)
            .field("owner", &self.owner)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// `path` as seen from `base`, without `.` components. `..` stays: what it means is for the file system to say.
pub(crate) fn join(base: &Path, path: &Path) -> PathBuf {
    base.join(path).components().filter(|part| *part != Component::CurDir).collect()
}

fn owner(variables: &BTreeMap<String, String>, host: &str) -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| variables.get(*name)).map_or("", String::as_str);
    let clean = |word: &str, otherwise: &str| {
        let word: String =
            word.chars().filter(|c| c.is_alphanumeric() || "-_.".contains(*c)).take(63).collect();
        if word.is_empty() { otherwise.to_owned() } else { word }
    };
    format!("{}@{}", clean(user, "unknown"), clean(host, "localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_lexically() {
        assert_eq!(join(Path::new("/a"), Path::new("./b/../c/.")), Path::new("/a/b/../c"));
        assert_eq!(join(Path::new("/a"), Path::new("/b")), Path::new("/b"));
    }

    #[test]
    fn owner_is_made_of_harmless_characters() {
        let variables = |user: &str| BTreeMap::from([("USER".to_owned(), user.to_owned())]);
        assert_eq!(owner(&variables("me"), "box.lab"), "me@box.lab");
        assert_eq!(owner(&variables("m/e\n"), ""), "me@localhost");
        assert_eq!(owner(&BTreeMap::new(), "box"), "unknown@box");
    }

    #[test]
    fn the_environment_is_not_shown() {
        let mut surroundings = Surroundings::of_process().unwrap();
        surroundings.variables.insert("TOKEN".into(), "hunter2".into());
        assert!(!format!("{surroundings:?}").contains("hunter2"));
    }
}
