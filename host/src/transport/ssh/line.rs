//! One SSH session over one socket: its steps, its waiting, its signs of life.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use atex_plugin_api::model::SshTransport;
use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;
use ssh2::{BlockDirections, ErrorCode, Session};

use super::config::Endpoint;
use super::{BAD_USE, EAGAIN, host_key};
use crate::executor::spec::MachineSpec;
use crate::transport::{Error, Interrupt, Result, Waker, interest, poll_until};

/// The shortest interval of keepalives that libssh2 knows.
const SHORTEST: Duration = Duration::from_secs(2);
/// When there was no room for a keepalive, or the line was busy otherwise.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a machine may be silent when somebody is in a hurry.
const HURRY: Duration = Duration::from_secs(5);
/// Who sleeps so much longer than it wanted, or comes back so late, has no right to complain of silence.
const OVERSLEPT: Duration = Duration::from_secs(1);

pub(super) struct Line {
    pub(super) session: Session,
    socket: OwnedFd,
    waker: Waker,
    /// Since when we listen and hear nothing.
    quiet_since: Instant,
    /// When we last stopped listening.
    listened: Instant,
    /// How long a silence may be.
    dead_after: Duration,
    /// The same until the next sign of life, when somebody is in a hurry.
    hurry: Option<Duration>,
    next_keepalive: Instant,
    name: String,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What libssh2 gets: it wants a descriptor that stays open as long as the session.
struct Descriptor(OwnedFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Line {
    /// Keys are exchanged, and the host's is one that may be trusted.
    pub(super) fn handshake(
        socket: OwnedFd,
        end: &Endpoint,
        ssh: &SshTransport,
        spec: &MachineSpec,
        dead_after: Duration,
        waker: &Waker,
        interrupt: Interrupt<'_>,
    ) -> Result<Self> {
        let copy =
            socket.try_clone().map_err(|e| Error::Unreachable(format!("cannot copy a descriptor: {e}")))?;
        let session = Session::new().map_err(|e| Error::Unreachable(format!("cannot start libssh2: {e}")))?;
        let now = Instant::now();
        let mut line = Self {
            session,
            socket,
            waker: waker.clone(),
            quiet_since: now,
            listened: now,
            dead_after,
            hurry: None,
            next_keepalive: now + dead_after,
            name: end.shown(),
        };
        line.session.set_tcp_stream(Descriptor(copy));
        line.session.set_blocking(false);
        line.session.set_compress(ssh.compression || end.compression);
        let trust = host_key::Trust::gather(end, ssh, spec)?;
        trust.prefer_known_types(&line.session)?;
        // A closure cannot have the session mutably: the crate asks for that here although it has a lock inside.
        let mut session = line.session.clone();
        line.finish("exchange keys", interrupt, |_| session.handshake()).map_err(unreachable)?;
        trust.check(&line.session, end)?;
        Ok(line)
    }

    /// From now on its silence is asked about. Before somebody is logged in a server need not stand for that: dropbear hangs
    /// up.
    pub(super) fn watch(&mut self) {
        self.keep_alive_every(self.dead_after / 2);
    }

    /// Half of the patience is as often as the drivers' heart-beat, so that a machine whose test just runs wakes us up for both
    /// at once. The answer has as long to come.
    fn keep_alive_every(&mut self, interval: Duration) {
        let seconds = u32::try_from(interval.max(SHORTEST).as_secs()).unwrap_or(u32::MAX);
        self.session.set_keepalive(true, seconds);
        self.next_keepalive = Instant::now();
    }

    /// A step of several round trips: tried until it is through.
    pub(super) fn finish<T>(
        &mut self,
        what: &str,
        interrupt: Interrupt<'_>,
        mut step: impl FnMut(&Session) -> Result<T, ssh2::Error>,
    ) -> Result<T> {
        let until = Instant::now() + self.dead_after;
        loop {
            match step(&self.session) {
                Ok(done) => return Ok(done),
                Err(e) if !is_not_now(&e) => return Err(fault(&format!("{what} ({})", self.name), &e)),
                Err(_) if Instant::now() >= until => {
                    return Err(Error::Gone(format!("cannot {what}: {} does not answer", self.name)));
                }
                Err(_) => self.wait(false, until)?,
            }
            // In this order: an order that comes in between ends the next `poll`.
            self.waker.drain();
            if self.waker.is_stopped() || interrupt() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// A read or write of a stream; 0 for "not now".
    pub(super) fn took(&self, result: io::Result<usize>, what: &str) -> Result<usize> {
        match result {
            Ok(n) => Ok(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            // The stream's error has no code; the session knows it.
            Err(e) => match self.session.last_error_code() {
                Some(code) if code == BAD_USE || code == EAGAIN => Ok(0),
                Some(code) => Err(by_code(code, format!("cannot {what}: {e}"))),
                None => Err(Error::Command(format!("cannot {what}: {e}"))),
            },
        }
    }

    /// Sleeps, keeps the connection alive, and notices when it is dead. The waker ends the sleep.
    pub(super) fn wait(&mut self, writing: bool, until: Instant) -> Result<()> {
        let waker = self.waker.clone();
        self.wait_for(Some(interest(waker.as_fd(), true, false)), writing, until)
    }

    /// The same with another descriptor that ends the sleep.
    pub(super) fn wait_for(
        &mut self,
        other: Option<PollFd<'_>>,
        writing: bool,
        until: Instant,
    ) -> Result<()> {
        if self.waker.take_hurry() {
            self.insist();
        }
        let begun = Instant::now();
        if begun > self.listened + OVERSLEPT {
            self.quiet_since = begun;
        }
        self.keep_alive(begun)?;
        let writing = writing
            || matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        let until = until.min(self.quiet_since + self.patience()).min(self.next_keepalive);
        let mut fds = vec![interest(self.socket.as_fd(), true, writing)];
        fds.extend(other);
        poll_until(&mut fds, until)?;
        let now = Instant::now();
        self.listened = now;
        // An error of the socket is for the next read to tell.
        if !(fds[0].revents() - PollFlags::OUT).is_empty() {
            self.heard(now);
        } else if now > until + OVERSLEPT && begun < until {
            // What we would have asked meanwhile was not asked.
            self.quiet_since = self.quiet_since.max(now.checked_sub(self.patience() / 2).unwrap_or(now));
        }
        if self.is_silent() {
            let seconds = self.patience().as_secs();
            return Err(Error::Gone(format!("{} has not answered for {seconds} s", self.name)));
        }
        Ok(())
    }

    /// Asks for an answer, when it is time. What could be sent in part only would keep everything else from being sent, since
    /// libssh2 does not go on with it: where there is no room in the socket, there is time later.
    fn keep_alive(&mut self, now: Instant) -> Result<()> {
        if now < self.next_keepalive {
            return Ok(());
        }
        let mut room = [interest(self.socket.as_fd(), false, true)];
        poll_until(&mut room, now)?;
        let mut next = AGAIN;
        if room[0].revents().contains(PollFlags::OUT) {
            match self.session.keepalive_send() {
                Ok(seconds) => next = Duration::from_secs(u64::from(seconds)).max(AGAIN),
                Err(e) if is_not_now(&e) => {}
                Err(e) => return Err(fault("keep the connection alive", &e)),
            }
        }
        self.next_keepalive = now + next;
        Ok(())
    }

    fn heard(&mut self, now: Instant) {
        self.quiet_since = now;
        if self.hurry.take().is_some() {
            self.keep_alive_every(self.dead_after / 2);
        }
    }

    fn patience(&self) -> Duration {
        self.hurry.unwrap_or(self.dead_after)
    }

    /// Whether the peer has been silent for too long.
    pub(super) fn is_silent(&self) -> bool {
        self.listened >= self.quiet_since + self.patience()
    }

    /// Without a sign of life soon, nobody is there any more. A server that still lets somebody in cannot be asked for one.
    fn insist(&mut self) {
        if self.session.authenticated() && HURRY < self.dead_after && self.hurry.is_none() {
            self.hurry = Some(HURRY);
            self.quiet_since = Instant::now();
            self.keep_alive_every(SHORTEST);
        }
    }

    /// Another waker for the steps to come; the one that was there.
    pub(super) fn exchange_waker(&mut self, waker: Waker) -> Waker {
        std::mem::replace(&mut self.waker, waker)
    }

    /// For another thread: nobody wakes it.
    pub(super) fn on_its_own(mut self) -> Result<Self> {
        self.waker = Waker::new().map_err(|e| Error::Unreachable(format!("cannot make an eventfd: {e}")))?;
        Ok(self)
    }
}

impl Drop for Line {
    /// libssh2 frees a session with open channels only when it knows that nobody is there any more.
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

/// Codes of errors, which the crate does not give away by itself.
trait LastError {
    fn last_error_code(&self) -> Option<ErrorCode>;
}

impl LastError for Session {
    fn last_error_code(&self) -> Option<ErrorCode> {
        ssh2::Error::last_session_error(self).map(|e| e.code())
    }
}

/// `true` for what libssh2 cannot do at the moment.
pub(super) fn is_not_now(e: &ssh2::Error) -> bool {
    e.code() == EAGAIN || e.code() == BAD_USE
}

/// An error of libssh2, by whether the connection survives it.
pub(super) fn fault(what: &str, e: &ssh2::Error) -> Error {
    by_code(e.code(), format!("cannot {what}: {}", e.message()))
}

fn by_code(code: ErrorCode, message: String) -> Error {
    match code {
        // Channel failures, refusals, a closed channel, end of file: of one command.
        ErrorCode::Session(-27..=-21 | -32) => Error::Command(message),
        _ => Error::Gone(message),
    }
}

/// Before a session stands, everything may be a matter of time.
fn unreachable(e: Error) -> Error {
    match e {
        Error::Gone(message) | Error::Command(message) => Error::Unreachable(message),
        other => other,
    }
}
