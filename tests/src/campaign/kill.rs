//! When a host is killed, and the killing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::random::Random;

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Never,
    /// After so much time.
    Time(Duration),
    /// When so many records are in ledger and journal, and a little time has passed.
    Record(u64, Duration),
}

/// What an undisturbed run is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) time: Duration,
    pub(crate) records: u64,
}

impl Length {
    /// One of a run's moments.
    pub(crate) fn draw(&self, random: &mut Random) -> Moment {
        if random.percent(50) {
            return Moment::Time(microseconds(random, self.time));
        }
        // The first record is that of a beginning; after most records something is waited for.
        let delay = if random.percent(50) { Duration::ZERO } else { Duration::from_millis(3) };
        Moment::Record(1 + random.below(self.records), microseconds(random, delay))
    }
}

fn microseconds(random: &mut Random, end: Duration) -> Duration {
    Duration::from_micros(random.below(u64::try_from(end.as_micros()).unwrap_or(u64::MAX)))
}

/// The files whose records count.
#[derive(Debug)]
pub(crate) struct Records {
    directories: Vec<PathBuf>,
    watch: rustix::fd::OwnedFd,
}

impl Records {
    /// Ledgers of a state directory and the journal of a run directory. Both are made if need be.
    pub(crate) fn watch(ledgers: &Path, run: &Path) -> Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let directories = vec![ledgers.to_owned(), run.to_owned()];
        for directory in &directories {
            fs::create_dir_all(directory)?;
            let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
            inotify::add_watch(&watch, directory, changes)
                .with_context(|| format!("cannot watch {}", directory.display()))?;
        }
        Ok(Self { directories, watch })
    }

    /// Forgets that something has changed.
    fn drain(&self) {
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&self.watch, &mut buffer).is_ok_and(|length| length > 0) {}
    }

    /// Lines of all ledgers and of the journal.
    pub(crate) fn count(&self) -> u64 {
        let mut lines = 0;
        for entry in self.directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten() {
            let Ok(path) = entry.map(|entry| entry.path()) else { continue };
            let is_results = path.file_name().is_some_and(|name| name == "results.jsonl");
            if path.extension().is_some_and(|suffix| suffix == "jsonl") && !is_results {
                let text = fs::read(path).unwrap_or_default();
                lines += text.split(|byte| *byte == b'\n').count() as u64 - 1;
            }
        }
        lines
    }
}

/// How a host came to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Killed,
    /// By itself, before the moment; and the most records that were seen.
    ByItself(ExitStatus, u64),
}

/// Starts a host and kills it at the moment, if it has not ended by then.
pub(crate) fn run_until(command: &mut Command, moment: Moment, records: &Records) -> Result<End> {
    let begun = Instant::now();
    let before = records.count();
    let mut child = command.spawn().context("cannot start atex-host")?;
    let ended = pidfd_open(pid(&child)?, PidfdFlags::empty())?;
    let mut deadline = if let Moment::Time(time) = moment { Some(begun + time) } else { None };
    let mut most = before;
    loop {
        records.drain();
        most = most.max(records.count());
        if let Moment::Record(count, delay) = moment
            && deadline.is_none()
            && most >= before + count
        {
            deadline = Some(Instant::now() + delay);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let timeout = left.map(Timespec::try_from).transpose()?;
        let mut fds = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&records.watch, PollFlags::IN)];
        poll(&mut fds, timeout.as_ref())?;
        if !fds[0].revents().is_empty() {
            let status = child.wait()?;
            return Ok(End::ByItself(status, most - before));
        }
    }
    // Its end may come at the same moment.
    let _ended_just_now = child.kill();
    let status = child.wait()?;
    Ok(if status.code().is_none() { End::Killed } else { End::ByItself(status, most - before) })
}

fn pid(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("a child without a pid")
}
