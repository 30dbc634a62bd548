//! Waiting for something that is written to a directory, without looking again and again.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::inotify;

/// Returns when `done` says so; it is asked at first and whenever something in the directory, which must exist, was made, written
/// or removed.
pub fn until(directory: &Path, mut done: impl FnMut() -> bool) -> Result<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    let changes = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, changes)
        .with_context(|| format!("cannot watch {}", directory.display()))?;
    let mut buffer = [0_u8; 4096];
    while !done() {
        rustix::io::read(&watch, &mut buffer)?;
    }
    Ok(())
}
