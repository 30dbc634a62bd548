//! Brings the journal to the disk in groups, while the run goes on.
//!
//! A sync takes milliseconds, in which machines could have got their next test, and slows down who makes files meanwhile; so one
//! thread does it, and not more often than each [`GAP`]. What is asked for within that time, or while a sync goes on, makes up
//! the next group. A verdict that comes alone is synced at once.
//!
//! **Invariant:** a sync that was asked for begins after the asking, so it covers everything that had been appended then; and
//! readers are woken after it.

use std::{
    fs::File,
    io,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::bell::{Heard, Listener, Ringer, bell};

/// From the end of a sync to the beginning of the next one: what a power cut may cost at most, beside the sync itself.
const GAP: Duration = Duration::from_millis(50);

/// See the [module](self).
#[derive(Debug)]
pub struct Syncer {
    ask: Option<Ringer>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<OnceLock<io::Error>>,
}

impl Syncer {
    /// Starts the thread `journal`. `readers` are woken after each sync.
    pub fn start(file: File, readers: Vec<Ringer>) -> io::Result<Self> {
        let (ask, asked) = bell();
        let failure = Arc::new(OnceLock::new());
        let failed = Arc::clone(&failure);
        let thread = thread::Builder::new()
            .name("journal".into())
            .stack_size(128 << 10)
            .spawn(move || serve(&file, &asked, &readers, &failed))?;
        Ok(Self { ask: Some(ask), thread: Some(thread), failure })
    }

    /// Everything appended so far is to be synced. Does not wait.
    pub fn ask(&self) {
        if let Some(ask) = &self.ask {
            ask.ring();
        }
    }

    /// The first sync that failed; none is tried after it.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.get()
    }

    /// Waits for the syncs that were asked for, and lets go of the readers.
    pub fn finish(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _it_does_not_panic = thread.join();
        }
    }
}

fn serve(file: &File, asked: &Listener, readers: &[Ringer], failure: &OnceLock<io::Error>) {
    let mut earliest = Instant::now();
    // Whoever asks until it is time is covered by the same sync.
    while asked.wait(earliest, None) == Heard::Rung {
        if failure.get().is_none()
            && let Err(error) = file.sync_data()
        {
            let _first = failure.set(error);
        }
        earliest = Instant::now() + GAP;
        for reader in readers {
            reader.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_woken_after_a_sync_and_let_go_at_the_end() {
        let (wake, woken) = bell();
        let mut syncer = Syncer::start(tempfile::tempfile().unwrap(), vec![wake]).unwrap();
        syncer.ask();
        let now = Instant::now();
        assert_eq!(woken.wait(now, None), Heard::Rung);
        for _ in 0..100 {
            syncer.ask();
        }
        syncer.finish();
        assert!(syncer.failure().is_none());
        assert_eq!(woken.wait(now, None), Heard::Rung, "what was asked for is done before the end");
        assert_eq!(woken.wait(now, None), Heard::Over);
        syncer.ask();
    }

    #[test]
    fn a_failure_is_told_and_readers_are_woken_all_the_same() {
        let (wake, woken) = bell();
        // A pipe has nothing to sync.
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut syncer = Syncer::start(file, vec![wake]).unwrap();
        syncer.ask();
        assert_eq!(woken.wait(Instant::now(), None), Heard::Rung);
        assert!(syncer.failure().is_some());
        syncer.finish();
    }
}
