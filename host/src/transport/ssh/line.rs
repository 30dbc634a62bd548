//! One SSH session over one socket: its steps, its waiting, its signs of life.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use atex_plugin_api::model::SshTransport;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use ssh2::{BlockDirections, ErrorCode, Session};

use super::config::Endpoint;
use super::{BAD_USE, EAGAIN, host_key};
use crate::executor::spec::MachineSpec;
use crate::transport::{Error, Result, Waker, interest, poll_until};

pub(super) struct Line {
    pub(super) session: Session,
    socket: OwnedFd,
    waker: Waker,
    last_heard: Instant,
    dead_after: Duration,
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
    ) -> Result<Self> {
        let copy =
            socket.try_clone().map_err(|e| Error::Unreachable(format!("cannot copy a descriptor: {e}")))?;
        let session = Session::new().map_err(|e| Error::Unreachable(format!("cannot start libssh2: {e}")))?;
        let name = end.shown();
        let last_heard = Instant::now();
        let mut line = Self { session, socket, waker: waker.clone(), last_heard, dead_after, name };
        line.session.set_tcp_stream(Descriptor(copy));
        line.session.set_blocking(false);
        line.session.set_compress(ssh.compression || end.compression);
        let trust = host_key::Trust::gather(end, ssh, spec)?;
        trust.prefer_known_types(&line.session)?;
        // A closure cannot have the session mutably: the crate asks for that here although it has a lock inside.
        let mut session = line.session.clone();
        line.finish("exchange keys", |_| session.handshake()).map_err(unreachable)?;
        trust.check(&line.session, end)?;
        // As often as the drivers' heart-beat, so that a machine whose test just runs wakes us up for both at once. The answer
        // has as long to come.
        let interval = u32::try_from(dead_after.as_secs() / 2).unwrap_or(u32::MAX).max(1);
        line.session.set_keepalive(true, interval);
        Ok(line)
    }

    /// A step of several round trips: tried until it is through.
    pub(super) fn finish<T>(
        &mut self,
        what: &str,
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
            if self.waker.is_stopped() {
                return Err(Error::Interrupted);
            }
            // Else a wake-up that is not for us would keep `poll` from sleeping; orders are looked at later.
            self.waker.drain();
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
        let next = match self.session.keepalive_send() {
            Ok(seconds) => Duration::from_secs(u64::from(seconds.max(1))),
            Err(e) if is_not_now(&e) => Duration::from_millis(50),
            Err(e) => return Err(fault("keep the connection alive", &e)),
        };
        let writing = writing
            || matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        let until = until.min(self.last_heard + self.dead_after).min(Instant::now() + next);
        let mut fds = vec![interest(self.socket.as_fd(), true, writing)];
        fds.extend(other);
        poll_until(&mut fds, until)?;
        let now = Instant::now();
        // An error of the socket is for the next read to tell.
        if !(fds[0].revents() - PollFlags::OUT).is_empty() {
            self.last_heard = now;
        }
        if now >= self.last_heard + self.dead_after {
            let seconds = self.dead_after.as_secs();
            return Err(Error::Gone(format!("{} has not answered for {seconds} s", self.name)));
        }
        Ok(())
    }

    /// For another thread: nobody wakes it.
    pub(super) fn on_its_own(mut self) -> Result<Self> {
        self.waker = Waker::new().map_err(|e| Error::Unreachable(format!("cannot make an eventfd: {e}")))?;
        Ok(self)
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

/// A TCP connection to the first address that takes it.
pub(super) fn dial(host: &str, port: u16, patience: Duration, waker: &Waker) -> Result<OwnedFd> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|e| Error::Unreachable(format!("cannot find the address of {host}: {e}")))?;
    let mut last = Error::Unreachable(format!("{host} has no address"));
    for address in addresses {
        match dial_one(address, patience, waker) {
            Err(Error::Unreachable(why)) => last = Error::Unreachable(why),
            other => return other,
        }
    }
    Err(last)
}

fn dial_one(address: SocketAddr, patience: Duration, waker: &Waker) -> Result<OwnedFd> {
    let failed = |e: Errno| Error::Unreachable(format!("cannot connect to {address}: {e}"));
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true).map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(socket),
        Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(failed(e)),
    }
    let until = Instant::now() + patience;
    loop {
        let mut fds = [interest(socket.as_fd(), false, true), interest(waker.as_fd(), true, false)];
        poll_until(&mut fds, until)?;
        if !fds[0].revents().is_empty() {
            return match rustix::net::sockopt::socket_error(&socket).map_err(failed)? {
                Ok(()) => Ok(socket),
                Err(e) => Err(failed(e)),
            };
        }
        if waker.is_stopped() {
            return Err(Error::Interrupted);
        }
        waker.drain();
        if Instant::now() >= until {
            return Err(failed(Errno::TIMEDOUT));
        }
    }
}
