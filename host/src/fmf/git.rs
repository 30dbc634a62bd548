//! Repositories that plans and libraries name, fetched with the git program into a cache.
//!
//! Layout of the cache directory, one directory per address (the first half of its SHA-256):
//!
//! ```text
//! git/<address>/lock            held while the rest changes (a kernel lock, dies with its holder)
//! git/<address>/repository      a bare repository: everything fetched so far
//! git/<address>/known/<name>    the commit that a branch or tag meant when it was last fetched
//! git/<address>/trees/<commit>  the files of one commit, without `.git`; appears complete and never changes
//! ```
//!
//! So several hosts may share a cache: whoever comes second waits for the lock and finds the work done, and a tree in
//! use is never touched. A branch is asked for once per [`Cache`], that is once per run; when the server cannot be reached,
//! what is in the cache is used, with a warning. A full commit that is in the cache needs no server at all.
//!
//! Credentials are never asked for: no terminal, no askpass program, ssh in batch mode. What git is configured with (keys,
//! tokens, `insteadOf`) is used. Submodules and large files kept elsewhere are not fetched.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::error::escape;

/// An address for messages: without the password it may hold.
pub(crate) fn shown(url: &str) -> String {
    let masked = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.split_once('@')?;
        let in_authority = !user.contains('/');
        in_authority.then(|| format!("{scheme}://***@{place}"))
    });
    escape(masked.as_deref().unwrap_or(url))
}

/// Bytes of git's last words that are shown.
const MAX_STDERR: usize = 400;

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    #[error("git address {}: {problem}", shown(.url))]
    Address { url: String, problem: &'static str },

    #[error("git ref {} of {}: {problem}", escape(.reference), shown(.url))]
    Reference { url: String, reference: String, problem: &'static str },

    #[error("the program git cannot be run: {cause}; it is needed to fetch {}", shown(.url))]
    Program { url: String, cause: io::Error },

    #[error("fetching {} of {} failed: {}", escape(.reference), shown(.url), escape(.stderr))]
    Fetch { url: String, reference: String, stderr: String },

    #[error("the cache of {} cannot be used: {}: {cause}", shown(.url), .path.display())]
    Cache { url: String, path: PathBuf, cause: io::Error },
}

/// The files of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Read-only by convention: others use it too.
    pub directory: PathBuf,
    /// The full commit.
    pub commit: String,
    /// Set if the server could not be asked: what came of it.
    pub stale: Option<String>,
}

/// A cache directory. Calls may come from several threads and several processes.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    /// What this run has fetched already.
    fetched: Mutex<HashMap<(String, Option<String>), Checkout>>,
}

impl Cache {
    /// The directory is made when something is fetched.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), fetched: Mutex::default() }
    }

    /// The files of `reference` (a branch, a tag or a full commit; none for the default branch) of the repository at `url`.
    pub fn fetch(&self, url: &str, reference: Option<&str>) -> Result<Checkout, GitError> {
        check_address(url)?;
        if let Some(reference) = reference {
            check_reference(url, reference)?;
        }
        let key = (url.to_owned(), reference.map(str::to_owned));
        // No lock of ours is held while git runs: the one of the file system keeps order.
        let known = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let checkout = Repository::open(&self.directory, url)?.checkout(reference)?;
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(key, checkout.clone());
        Ok(checkout)
    }
}

/// Words that git would take for options, and helpers that run programs, are no addresses.
fn check_address(url: &str) -> Result<(), GitError> {
    let wrong = |problem| Err(GitError::Address { url: url.to_owned(), problem });
    if url.is_empty() || url.starts_with('-') || url.chars().any(|c| c.is_control() || c == ' ') {
        return wrong("it is no address of a repository");
    }
    if url.contains('$') {
        return wrong("variables in plans are not expanded");
    }
    // What it names would depend on the directory that the host was started in.
    if !url.starts_with('/') && !url.contains(':') {
        return wrong("it is a relative path; write it in full, or use `path`");
    }
    if url.split_once("::").is_some_and(|(helper, _)| helper.chars().all(|c| c.is_ascii_alphanumeric())) {
        return wrong("remote helpers are not used");
    }
    Ok(())
}

fn check_reference(url: &str, reference: &str) -> Result<(), GitError> {
    let wrong =
        |problem| Err(GitError::Reference { url: url.to_owned(), reference: reference.to_owned(), problem });
    if reference.starts_with('@') {
        return wrong("dynamic refs are not supported");
    }
    if reference.contains('$') {
        return wrong("variables in plans are not expanded");
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if reference.is_empty()
        || reference.starts_with('-')
        || reference.contains("..")
        || reference.contains(odd)
    {
        return wrong("it is no name of a branch, a tag or a commit");
    }
    Ok(())
}

/// A name for a file that stands for `text`.
fn digest(text: &str) -> String {
    let mut name = String::with_capacity(32);
    for byte in &Sha256::digest(text.as_bytes())[..16] {
        // Writing into a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// One address in the cache, locked as long as this lives.
struct Repository<'a> {
    url: &'a str,
    directory: PathBuf,
    _lock: File,
}

impl<'a> Repository<'a> {
    fn open(cache: &Path, url: &'a str) -> Result<Self, GitError> {
        let digest = digest(url);
        let directory = cache.join("git").join(digest);
        let broken =
            |path: &Path, cause| GitError::Cache { url: url.to_owned(), path: path.to_owned(), cause };
        for name in ["known", "trees"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(|cause| broken(&path, cause))?;
        }
        let path = directory.join("lock");
        let lock =
            File::options().create(true).append(true).open(&path).map_err(|cause| broken(&path, cause))?;
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(broken(&path, cause.into())),
            }
        }
        Ok(Self { url, directory, _lock: lock })
    }

    fn broken(&self, path: &Path, cause: io::Error) -> GitError {
        GitError::Cache { url: self.url.to_owned(), path: path.to_owned(), cause }
    }

    fn checkout(&self, reference: Option<&str>) -> Result<Checkout, GitError> {
        self.init()?;
        let name = reference.unwrap_or("HEAD");
        let (commit, stale) = match self.fetch(name) {
            Ok(commit) => (commit, None),
            // A server that answers, and does not have it, is no server that cannot be reached.
            Err(GitError::Fetch { stderr, .. })
                if self.known(name).is_some() && !stderr.contains("couldn't find remote ref") =>
            {
                (self.known(name).unwrap_or_default(), Some(stderr))
            }
            Err(error) => return Err(error),
        };
        Ok(Checkout { directory: self.tree(&commit)?, commit, stale })
    }

    fn init(&self) -> Result<(), GitError> {
        let repository = self.directory.join("repository");
        if repository.join("HEAD").exists() {
            return Ok(());
        }
        self.run("HEAD", [OsStr::new("init"), "--quiet".as_ref(), "--bare".as_ref(), repository.as_os_str()])
            .map(|_| ())
    }

    /// The commit that `name` means now.
    fn fetch(&self, name: &str) -> Result<String, GitError> {
        let full = is_commit(name);
        if full && self.resolve(name).is_some() {
            return Ok(name.to_owned());
        }
        let arguments = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", self.url, name];
        let commit = match self.run(name, arguments) {
            Ok(_) => self.resolve("FETCH_HEAD"),
            // Not every server gives single commits, and short ones are known only once everything is here.
            Err(GitError::Fetch { stderr, .. }) if looks_like_commit(name) => {
                self.fetch_everything(name).map_err(|_| self.failed(name, stderr))?;
                self.resolve(name)
            }
            Err(error) => return Err(error),
        };
        let commit = commit.ok_or_else(|| self.failed(name, "there is no such commit".to_owned()))?;
        let known = self.known_file(name);
        fs::write(&known, &commit).map_err(|cause| self.broken(&known, cause))?;
        Ok(commit)
    }

    fn fetch_everything(&self, name: &str) -> Result<(), GitError> {
        let shallow = self.directory.join("repository/shallow").exists();
        let depth = if shallow { "--unshallow" } else { "--quiet" };
        let (heads, tags) = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*");
        self.run(name, ["fetch", "--quiet", depth, "--update-head-ok", "--", self.url, heads, tags])
            .map(|_| ())
    }

    fn known_file(&self, name: &str) -> PathBuf {
        let digest = digest(name);
        self.directory.join("known").join(digest)
    }

    /// What `name` meant when it was last fetched, if that commit is still here.
    fn known(&self, name: &str) -> Option<String> {
        let commit = fs::read_to_string(self.known_file(name)).ok()?;
        self.resolve(commit.trim())
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let wanted = format!("{name}^{{commit}}");
        let output =
            self.run(name, ["rev-parse", "--quiet", "--verify", "--end-of-options", &wanted]).ok()?;
        let commit = output.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// The files of `commit`, written out if they are not yet.
    fn tree(&self, commit: &str) -> Result<PathBuf, GitError> {
        let tree = self.directory.join("trees").join(commit);
        if tree.is_dir() {
            return Ok(tree);
        }
        let fresh = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(self.directory.join("trees"))
            .map_err(|cause| self.broken(&tree, cause))?;
        let files = fresh.path().join("files");
        fs::create_dir(&files).map_err(|cause| self.broken(&files, cause))?;
        let mut git = self.git(["read-tree", "--reset", "-u", commit]);
        git.env("GIT_WORK_TREE", &files).env("GIT_INDEX_FILE", fresh.path().join("index"));
        self.finish(commit, git)?;
        fs::rename(&files, &tree).map_err(|cause| self.broken(&tree, cause))?;
        Ok(tree)
    }

    fn run<S: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, GitError> {
        self.finish(name, self.git(arguments))
    }

    fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut git = quiet_git();
        git.env("GIT_DIR", self.directory.join("repository"));
        git.args(arguments);
        git
    }

    fn finish(&self, name: &str, mut git: Command) -> Result<String, GitError> {
        let output = git.output().map_err(|cause| GitError::Program { url: self.url.to_owned(), cause })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        // Git may repeat the address.
        let words = last_words(&output.stderr).replace(self.url, &shown(self.url));
        Err(self.failed(name, words))
    }

    fn failed(&self, name: &str, stderr: String) -> GitError {
        GitError::Fetch { url: self.url.to_owned(), reference: name.to_owned(), stderr }
    }
}

/// The git program, unable to ask anybody anything, or to wait for ever on a dead connection.
fn quiet_git() -> Command {
    let mut git = Command::new("git");
    git.stdin(Stdio::null())
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "false")
        .env("SSH_ASKPASS", "false")
        .env("GCM_INTERACTIVE", "never")
        .args([
            "-c",
            "http.lowSpeedLimit=1000",
            "-c",
            "http.lowSpeedTime=60",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(["-c", "advice.detachedHead=false", "-c", "gc.auto=0"]);
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        git.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15");
    }
    // Set when the host itself is run by a hook of git.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"] {
        git.env_remove(variable);
    }
    git
}

/// The top directory of the repository that `directory` is in; none if it is in no repository.
pub(crate) fn toplevel(directory: &Path) -> Option<PathBuf> {
    let output = quiet_git().current_dir(directory).args(["rev-parse", "--show-toplevel"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = path.trim_end_matches('\n');
    (output.status.success() && !path.is_empty()).then(|| PathBuf::from(path))
}

fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn looks_like_commit(name: &str) -> bool {
    (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The end of what git said, on one line.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines.join("; ");
    let start = text.char_indices().rev().map(|(at, _)| at).take(MAX_STDERR).last().unwrap_or(0);
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository to fetch from, and how to change it.
    struct Origin {
        directory: tempfile::TempDir,
    }

    impl Origin {
        fn new() -> Self {
            let origin = Self { directory: tempfile::tempdir().unwrap() };
            origin.git(&["init", "--quiet", "--initial-branch=trunk/main", "."]);
            origin.commit("one");
            origin
        }

        fn git(&self, arguments: &[&str]) -> String {
            let output = quiet_git()
                .current_dir(self.directory.path())
                .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }

        fn commit(&self, text: &str) -> String {
            fs::write(self.directory.path().join("file"), text).unwrap();
            self.git(&["add", "file"]);
            self.git(&["commit", "--quiet", "-m", text]);
            self.git(&["rev-parse", "HEAD"])
        }

        fn url(&self) -> String {
            format!("file://{}", self.directory.path().display())
        }
    }

    fn text(checkout: &Checkout) -> String {
        fs::read_to_string(checkout.directory.join("file")).unwrap()
    }

    #[test]
    fn branches_tags_and_commits_are_fetched() {
        let origin = Origin::new();
        let first = origin.git(&["rev-parse", "HEAD"]);
        origin.git(&["tag", "-a", "-m", "x", "v1"]);
        origin.commit("two");
        let last = origin.commit("three");
        let cache = tempfile::tempdir().unwrap();
        let fetch = |reference| Cache::new(cache.path()).fetch(&origin.url(), reference).unwrap();
        assert_eq!(text(&fetch(None)), "three");
        assert_eq!(text(&fetch(Some("trunk/main"))), "three");
        assert_eq!(text(&fetch(Some("v1"))), "one");
        assert_eq!(text(&fetch(Some(&first))), "one");
        assert_eq!(text(&fetch(Some(&first[..10]))), "one");
        assert_eq!(fetch(None).commit, last);
        assert!(!fetch(None).directory.join(".git").exists());
        assert_eq!(fetch(None).stale, None);
    }

    #[test]
    fn a_branch_is_asked_for_once_per_run_and_again_in_the_next() {
        let origin = Origin::new();
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        assert_eq!(text(&cache.fetch(&origin.url(), None).unwrap()), "one");
        origin.commit("two");
        assert_eq!(text(&cache.fetch(&origin.url(), None).unwrap()), "one");
        assert_eq!(text(&Cache::new(directory.path()).fetch(&origin.url(), None).unwrap()), "two");
    }

    #[test]
    fn without_the_server_the_cache_is_used_and_says_so() {
        let origin = Origin::new();
        let url = origin.url();
        let commit = origin.git(&["rev-parse", "HEAD"]);
        let cache = tempfile::tempdir().unwrap();
        Cache::new(cache.path()).fetch(&url, None).unwrap();
        drop(origin);
        let stale = Cache::new(cache.path()).fetch(&url, None).unwrap();
        assert_eq!(text(&stale), "one");
        assert!(stale.stale.is_some());
        assert_eq!(Cache::new(cache.path()).fetch(&url, Some(&commit)).unwrap().stale, None);
        let error = Cache::new(cache.path()).fetch(&url, Some("other")).unwrap_err();
        assert!(matches!(error, GitError::Fetch { .. }), "{error}");
    }

    #[test]
    fn what_the_server_does_not_have_any_more_is_not_taken_from_the_cache() {
        let origin = Origin::new();
        origin.git(&["branch", "gone"]);
        let cache = tempfile::tempdir().unwrap();
        Cache::new(cache.path()).fetch(&origin.url(), Some("gone")).unwrap();
        origin.git(&["branch", "-D", "gone"]);
        let error = Cache::new(cache.path()).fetch(&origin.url(), Some("gone")).unwrap_err();
        assert!(matches!(error, GitError::Fetch { .. }), "{error}");
    }

    #[test]
    fn many_at_once_get_the_same_tree() {
        let origin = Origin::new();
        let url = origin.url();
        let directory = tempfile::tempdir().unwrap();
        let fetch = || Cache::new(directory.path()).fetch(&url, None).unwrap();
        let trees: Vec<Checkout> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(trees.iter().all(|tree| *tree == trees[0] && text(tree) == "one"));
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        let cache = Cache::new("/nonexistent");
        for url in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ext::sh -c x",
            "a b",
            "x\n",
            "ext::x",
            "$URL",
            "../lib",
        ] {
            assert!(matches!(cache.fetch(url, None), Err(GitError::Address { .. })), "{url}");
        }
        for reference in ["", "-x", "@file", "a..b", "a b", "x^{/y}", "$REF", "a:b"] {
            let error = cache.fetch("file:///x", Some(reference)).unwrap_err();
            assert!(matches!(error, GitError::Reference { .. }), "{reference}: {error}");
        }
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        assert_eq!(shown("https://me:secret@host/x"), "https://***@host/x");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
        assert_eq!(shown("git@host:x"), "git@host:x");
        let cache = tempfile::tempdir().unwrap();
        let error = Cache::new(cache.path()).fetch("file://me:secret@/nonexistent", None).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_missing_repository_is_an_error_with_gits_reason() {
        let cache = tempfile::tempdir().unwrap();
        let error = Cache::new(cache.path()).fetch("file:///nonexistent/repository", None).unwrap_err();
        assert!(error.to_string().contains("nonexistent"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
