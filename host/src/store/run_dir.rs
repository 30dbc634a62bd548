//! The run directory: where one run keeps everything it wrote.
//!
//! One host owns it at a time, by a kernel lock that ends with the process. Whoever may write there decides what `gc` and
//! `resume` do, so a directory that others may write to is refused.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::executor::names;

use super::{journal::Journal, ledger::sync_directory, record::RunFile};

const RUN_FILE: &str = "run.json";
const JOURNAL: &str = "journal.jsonl";
const INDEX: &str = "index.jsonl";
const LOCK: &str = ".lock";
/// There once a host has come to its own end, reporters included.
const COMPLETE: &str = ".complete";
/// There as long as the journal could be written: to remove it takes no room on a full disk.
const WHOLE: &str = ".journal-is-whole";
/// What a file is called before it is complete.
const PARTIAL: &str = ".partial";

/// What is wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    #[error("cannot {what} {}: {error}", path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{} already holds a run: name another directory, or `atex-host resume` it", .0.display())]
    Taken(PathBuf),
    #[error("{} holds no run (there is no run.json)", .0.display())]
    NoRun(PathBuf),
    #[error("another atex-host works on {} just now", .0.display())]
    Busy(PathBuf),
    #[error("others may write to {}: not trusted (chmod go-w)", .0.display())]
    Untrusted(PathBuf),
    #[error("{} was written by a newer host ({host}): use that one", path.display())]
    Newer { path: PathBuf, host: String },
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: serde_json::Error },
}

/// Where run directories are made, if nobody names one.
pub const RUNS: &str = "atex-runs";

/// Of the format of run.json and of the journal: what a host must know at least to read them.
pub const VERSION: u32 = 1;

/// What can be read of any run.json, however new.
#[derive(serde::Deserialize)]
struct Format {
    version: u32,
    #[serde(default)]
    host: String,
}

/// The journal's word that it tells everything. Dropping it changes nothing: a host that dies leaves a journal that is whole.
#[derive(Debug)]
pub struct Whole(PathBuf);

impl Whole {
    /// Something could not be written: whoever resumes the run must not take silence for "did not run".
    pub fn lost(&self) {
        let gone = fs::remove_file(&self.0).and_then(|()| sync_directory(&self.0));
        if let Err(error) = gone {
            tracing::warn!("cannot note that the journal has gaps: {error}");
        }
    }
}

/// An open run directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes a run directory at `path`, which must not hold a run yet; nothing but the lock is in it until
    /// [`write_run_file`](Self::write_run_file).
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))?;
        check_trust(path)?;
        let it = Self::lock(path)?;
        // Asked with the lock held: two hosts may have been told the same directory.
        if it.path.join(RUN_FILE).exists() {
            return Err(RunDirError::Taken(path.to_owned()));
        }
        Ok(it)
    }

    /// Makes `below/<name>` and lets `below/latest` point to it. `below` ignores itself in git.
    pub fn create_below(below: &Path, name: &str) -> Result<Self, RunDirError> {
        DirBuilder::new().recursive(true).create(below).map_err(io_error("make", below))?;
        let ignore = below.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(io_error("write", &ignore))?;
        }
        let it = Self::create(&below.join(name))?;
        let (latest, partial) = (below.join("latest"), below.join(format!(".latest-{name}")));
        let _left_over = fs::remove_file(&partial);
        symlink(name, &partial)
            .and_then(|()| fs::rename(&partial, &latest))
            .map_err(io_error("make the link", &latest))?;
        Ok(it)
    }

    /// Opens the directory of an earlier run.
    pub fn open(path: &Path) -> Result<(Self, RunFile), RunDirError> {
        let path = fs::canonicalize(path).map_err(io_error("open", path))?;
        let run_file = Self::read(&path)?;
        Ok((Self::lock(&path)?, run_file))
    }

    /// Reads `run.json` without taking the lock: for a run that may be alive.
    pub fn read(path: &Path) -> Result<RunFile, RunDirError> {
        check_trust(path)?;
        let file = path.join(RUN_FILE);
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RunDirError::NoRun(path.to_owned()));
            }
            other => other.map_err(io_error("read", &file))?,
        };
        let unreadable = |error| RunDirError::Unreadable { path: file.clone(), error };
        let format: Format = serde_json::from_slice(&text).map_err(unreadable)?;
        if format.version > VERSION {
            return Err(RunDirError::Newer { path: file, host: format.host });
        }
        serde_json::from_slice(&text).map_err(unreadable)
    }

    fn lock(path: &Path) -> Result<Self, RunDirError> {
        let path = fs::canonicalize(path).map_err(io_error("open", path))?;
        let file = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(&file)
            .map_err(io_error("lock", &file))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RunDirError::Busy(path)),
            Err(error) => Err(io_error("lock", &file)(error.into())),
        }
    }

    /// Writes `run.json`, and what follows from it: `artifacts/index.jsonl`, which says where each test's artifacts are. Both
    /// appear complete or not at all.
    pub fn write_run_file(&self, run: &RunFile) -> Result<(), RunDirError> {
        self.publish(&self.path.join(RUN_FILE), |out| {
            serde_json::to_writer_pretty(&mut *out, run)?;
            out.write_all(b"\n")
        })?;
        let artifacts = self.artifacts();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&artifacts)
            .map_err(io_error("make", &artifacts))?;
        self.publish(&artifacts.join(INDEX), |out| write_index(out, run))
    }

    /// Writes a file beside its place, syncs it, and renames it.
    fn publish(
        &self,
        place: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), RunDirError> {
        let partial = self.path.join(PARTIAL);
        let publish = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&partial, place)?;
            sync_directory(place)
        };
        publish().map_err(io_error("write", place))
    }

    /// Notes whether there is nothing more to be done or told: before a host begins, and when it has come to its own end.
    pub fn set_complete(&self, complete: bool) -> io::Result<()> {
        let place = self.path.join(COMPLETE);
        if complete {
            return File::create(place).map(drop);
        }
        match fs::remove_file(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the last host that worked here came to its own end. If it did not, reporters may not have heard all.
    pub fn is_complete(&self) -> bool {
        self.path.join(COMPLETE).exists()
    }

    /// Says from now on that the journal tells everything, until [`Whole::lost`].
    pub fn begin_journal(&self) -> Result<Whole, RunDirError> {
        let place = self.path.join(WHOLE);
        File::create(&place).map_err(io_error("write", &place))?;
        Ok(Whole(place))
    }

    /// Whether nothing is missing in the journal but its end. `true` as well before there is anything in it.
    pub fn journal_is_whole(&self) -> bool {
        self.path.join(WHOLE).exists() || fs::metadata(self.journal_path()).map_or(0, |it| it.len()) == 0
    }

    /// The journal, for writing. That it is there, and what was noted of it before, survives a power cut.
    pub fn journal(&self) -> Result<Journal, RunDirError> {
        let path = self.journal_path();
        let journal = Journal::open(&path).map_err(io_error("open", &path))?;
        sync_directory(&path).map_err(io_error("sync the directory of", &path))?;
        Ok(journal)
    }

    pub fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Below it is a directory per execution; see `executor::names`.
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// The host's own log.
    pub fn log(&self) -> PathBuf {
        self.path.join("host.log")
    }
}

/// Where a test's artifacts are, one per line; below it a directory per execution.
fn write_index(out: &mut impl io::Write, run: &RunFile) -> io::Result<()> {
    for test in &run.tests {
        let platform = run.platforms.get(usize::from(test.platform)).map_or("", |platform| &platform.name);
        let path = Path::new(&names::platform_component(platform)).join(names::test_directory(&test.name));
        let line = serde_json::json!({"platform": platform, "test": test.name, "path": path});
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn check_trust(path: &Path) -> Result<(), RunDirError> {
    let meta = fs::metadata(path).map_err(io_error("open", path))?;
    let trusted_owner = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    if meta.mode() & 0o022 == 0 && trusted_owner {
        Ok(())
    } else {
        Err(RunDirError::Untrusted(path.to_owned()))
    }
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> RunDirError + use<> {
    let path = path.to_owned();
    move |error| RunDirError::Io { what, path: path.clone(), error }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Origin, options::RunOptions};
    use crate::store::record::{Promise, RunPlatform};
    use std::os::unix::fs::PermissionsExt as _;

    pub(crate) fn run_file() -> RunFile {
        RunFile {
            version: 1,
            run: "r1".into(),
            owner: "me@here".into(),
            created: 1,
            host: "atex-host 0".into(),
            origin: Origin {
                directory: "/".into(),
                options: RunOptions { reruns: Some(1), ..RunOptions::default() },
                file: None,
                configuration: serde_json::Value::Null,
                owner: "me@here".into(),
                seed: 7,
            },
            tree: "/tree".into(),
            digest: "00".into(),
            platforms: vec![],
            plugins: vec![],
            tests: vec![],
        }
    }

    #[test]
    fn one_host_at_a_time_and_one_run_for_ever() {
        let below = tempfile::tempdir().unwrap();
        let path = below.path().join("run");
        let run = RunDir::create(&path).unwrap();
        assert!(matches!(RunDir::create(&path), Err(RunDirError::Busy(_))));
        assert!(matches!(RunDir::open(&path), Err(RunDirError::NoRun(_))));
        run.write_run_file(&run_file()).unwrap();
        assert!(matches!(RunDir::open(&path), Err(RunDirError::Busy(_))));
        assert_eq!(RunDir::read(&path).unwrap(), run_file());
        drop(run);
        assert_eq!(RunDir::open(&path).unwrap().1, run_file());
        assert!(matches!(RunDir::create(&path), Err(RunDirError::Taken(_))));
    }

    #[test]
    fn a_run_of_a_newer_host_is_told_from_a_broken_one() {
        let below = tempfile::tempdir().unwrap();
        let run = RunDir::create(&below.path().join("run")).unwrap();
        let file = run.path().join(RUN_FILE);
        fs::write(&file, r#"{"version": 2, "host": "atex-host 9", "quite": "different"}"#).unwrap();
        let error = RunDir::read(run.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("was written by a newer host (atex-host 9): use that one"),
            "{error}"
        );
        fs::write(&file, r#"{"version": 1}"#).unwrap();
        assert!(matches!(RunDir::read(run.path()), Err(RunDirError::Unreadable { .. })));
    }

    #[test]
    fn only_a_host_that_came_to_its_end_makes_it_complete() {
        let below = tempfile::tempdir().unwrap();
        let run = RunDir::create(&below.path().join("run")).unwrap();
        for complete in [false, true, true, false] {
            run.set_complete(complete).unwrap();
            assert_eq!(run.is_complete(), complete);
        }
    }

    #[test]
    fn the_index_says_where_artifacts_are() {
        let below = tempfile::tempdir().unwrap();
        let run = RunDir::create(&below.path().join("run")).unwrap();
        let mut file = run_file();
        let platform = |name: &str| RunPlatform { name: name.into(), context: [].into() };
        file.platforms = vec![platform("a"), platform("b:/plan")];
        file.tests = vec![Promise { platform: 1, name: "/x/=y".into() }];
        run.write_run_file(&file).unwrap();
        let index = fs::read_to_string(run.artifacts().join("index.jsonl")).unwrap();
        assert_eq!(index, "{\"platform\":\"b:/plan\",\"test\":\"/x/=y\",\"path\":\"b:%2Fplan/x/%3Dy\"}\n");
        assert!(!run.path().join(PARTIAL).exists());
    }

    #[test]
    fn a_run_is_not_begun_where_others_may_write() {
        let below = tempfile::tempdir().unwrap();
        fs::set_permissions(below.path(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(matches!(RunDir::create(below.path()), Err(RunDirError::Untrusted(_))));
        assert!(RunDir::create(&below.path().join("new")).is_ok());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_trusted() {
        let below = tempfile::tempdir().unwrap();
        let path = below.path().join("run");
        RunDir::create(&path).unwrap().write_run_file(&run_file()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(RunDir::open(&path), Err(RunDirError::Untrusted(_))));
    }

    #[test]
    fn latest_points_to_the_newest() {
        let below = tempfile::tempdir().unwrap();
        let runs = below.path().join("atex-runs");
        for name in ["one", "two"] {
            RunDir::create_below(&runs, name).unwrap();
            assert_eq!(fs::read_link(runs.join("latest")).unwrap(), Path::new(name));
        }
        assert_eq!(fs::read_to_string(runs.join(".gitignore")).unwrap(), "*\n");
    }
}
