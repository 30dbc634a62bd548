//! How a command gets to a machine and how its three streams come back.
//!
//! One thread owns one [`Transport`]. Nothing here blocks but [`connect`], [`Transport::wait`] and [`Transport::spawn`]. All of
//! them look up when the machine's [`Waker`] is woken: `wait` returns, the others ask their [`Interrupt`] whether to go on.
//!
//! A command is a list of words. Each transport sees to it that they arrive as they are, whatever shells are on the way.
//! There is no pseudo-terminal, no file transfer and no forwarding: a tree travels as a tar stream into a command.

mod process;
mod ssh;
mod wake;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use atex_plugin_api::model;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::executor::spec::MachineSpec;
pub use process::Process;
pub use ssh::Ssh;
pub use wake::Waker;

/// A running command of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// That many bytes, at least 1.
    Data(usize),
    /// Nothing yet.
    Blocked,
    Eof,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Status(i32),
    /// Name or number of a signal.
    Signal(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not now, but perhaps later: nobody listens, no route, the server is not up yet, keys are not in place yet.
    #[error("{0}")]
    Unreachable(String),
    /// The machine does not let us in; keys may be put in place a little later.
    #[error("{0}")]
    Denied(String),
    /// Trying again does not help: a wrong host key, an unreadable key file, a program that does not exist.
    #[error("{0}")]
    Refused(String),
    /// The connection was there and is dead.
    #[error("{0}")]
    Gone(String),
    /// One command failed; the connection is good.
    #[error("{0}")]
    Command(String),
    /// The waker was stopped.
    #[error("interrupted")]
    Interrupted,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Asked by what waits, whenever the machine's waker was woken: `true` ends the wait with [`Error::Interrupted`].
pub type Interrupt<'a> = &'a mut dyn FnMut() -> bool;

/// See the [module](self).
pub trait Transport: Send + fmt::Debug {
    /// Start a command with three streams of its own.
    fn spawn(&mut self, words: &[&str], interrupt: Interrupt<'_>) -> Result<CommandId>;
    /// How many bytes were taken; 0 means: wait first.
    fn write(&mut self, id: CommandId, data: &[u8]) -> Result<usize>;
    /// No more input for a command, as soon as what was written is on its way.
    fn close_stdin(&mut self, id: CommandId) -> Result<()>;
    fn read(&mut self, id: CommandId, stream: Stream, buffer: &mut [u8]) -> Result<Got>;
    /// `Some` once the command is over; its streams may still have data.
    fn exit(&mut self, id: CommandId) -> Result<Option<Exit>>;
    /// Give up a command and its streams, without waiting for the machine. What the command does then is its own affair; a
    /// local program is killed.
    fn close(&mut self, id: CommandId);
    /// Sleep until something can be read, or written if `writing`, or the waker is woken, or `until`.
    /// [`Error::Gone`] if the machine shows no sign of life any more; sooner if somebody [is in a hurry](Waker::hurry).
    fn wait(&mut self, writing: bool, until: Instant) -> Result<()>;
}

/// The way to a machine. Network transports are connected when this returns; [`Error::Unreachable`] may go away by itself.
pub fn connect(spec: &MachineSpec, waker: &Waker, interrupt: Interrupt<'_>) -> Result<Box<dyn Transport>> {
    match &spec.transport {
        model::Transport::Local(_) => Ok(Box::new(Process::local(waker.clone()))),
        model::Transport::Exec(exec) => Ok(Box::new(Process::exec(exec, waker.clone()))),
        model::Transport::Ssh(ssh) => Ok(Box::new(Ssh::connect(ssh, spec, waker, interrupt)?)),
        other => Err(Error::Refused(format!("this host does not know the transport {other:?}"))),
    }
}

/// Sleeps until the waker is woken, or `until`.
pub fn nap(waker: &Waker, until: Instant) -> Result<()> {
    poll_until(&mut [interest(waker.as_fd(), true, false)], until)?;
    waker.drain();
    Ok(())
}

/// `poll` until a point in time; an interruption by a signal counts as nothing having happened.
fn poll_until(fds: &mut [PollFd<'_>], until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now()).min(Duration::from_hours(24));
    let time = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    match rustix::event::poll(fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(Error::Gone(format!("cannot poll: {e}"))),
    }
}

/// Interest in reading, and in writing too if `writing`.
fn interest(fd: BorrowedFd<'_>, reading: bool, writing: bool) -> PollFd<'_> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, reading);
    flags.set(PollFlags::OUT, writing);
    PollFd::from_borrowed_fd(fd, flags)
}

/// One word for a POSIX shell.
pub fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./=:,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_survive_a_shell() {
        for word in ["", "a", "a b", "it's", "$HOME", "a\nb", "*", "\\", "'", "''", "-n", "é"] {
            let script = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), word, "{script}");
        }
    }
}
