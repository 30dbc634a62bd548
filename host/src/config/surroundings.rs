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
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = user(&variables, &users, rustix::process::getuid().as_raw());
        let owner = owner(&user, rustix::system::uname().nodename().to_str().unwrap_or_default());
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

/// The name of the user: what the environment says, else what the user database says, else the number.
fn user(variables: &BTreeMap<String, String>, users: &str, uid: u32) -> String {
    let named =
        ["USER", "LOGNAME"].iter().find_map(|name| variables.get(*name)).filter(|name| !name.is_empty());
    let listed = || {
        let of_user = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
        users.lines().find(of_user).and_then(|line| line.split(':').next()).map(str::to_owned)
    };
    named.cloned().or_else(listed).unwrap_or_else(|| format!("uid{uid}"))
}

fn owner(user: &str, host: &str) -> String {
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
        assert_eq!(owner("me", "box.lab"), "me@box.lab");
        assert_eq!(owner("m/e\n", ""), "me@localhost");
        assert_eq!(owner("/", "box"), "unknown@box");
    }

    #[test]
    fn the_user_has_a_name_also_without_an_environment() {
        let users = "root:x:0:0::/:/bin/sh\nbroken\nme:x:1000:1000::/:/bin/sh\n";
        let variables = |user: &str| BTreeMap::from([("LOGNAME".to_owned(), user.to_owned())]);
        assert_eq!(user(&variables("you"), users, 1000), "you");
        assert_eq!(user(&variables(""), users, 1000), "me");
        assert_eq!(user(&BTreeMap::new(), users, 7), "uid7");
    }

    #[test]
    fn the_environment_is_not_shown() {
        let mut surroundings = Surroundings::of_process().unwrap();
        surroundings.variables.insert("TOKEN".into(), "hunter2".into());
        assert!(!format!("{surroundings:?}").contains("hunter2"));
    }
}
