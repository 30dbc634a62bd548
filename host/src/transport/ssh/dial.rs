//! A TCP connection to a host by name or number.
//!
//! The system's resolver blocks for as long as it likes, so a name is looked up by a thread of its own. A look-up that nobody
//! waits for any more is left behind; it ends when the resolver gives up.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::transport::{Error, Interrupt, Result, Waker, interest, nap, poll_until};

/// Connects to the first address that takes it; each has `patience`, and so has the look-up.
pub(super) fn dial(
    host: &str,
    port: u16,
    patience: Duration,
    waker: &Waker,
    interrupt: Interrupt<'_>,
) -> Result<OwnedFd> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(number) => vec![SocketAddr::new(number, port)],
        Err(_) => look_up(host, port, patience, waker, interrupt)?,
    };
    let mut last = Error::Unreachable(format!("{host} has no address"));
    for address in addresses {
        match dial_one(address, patience, waker, interrupt) {
            Err(Error::Unreachable(why)) => last = Error::Unreachable(why),
            other => return other,
        }
    }
    Err(last)
}

fn look_up(
    host: &str,
    port: u16,
    patience: Duration,
    waker: &Waker,
    interrupt: Interrupt<'_>,
) -> Result<Vec<SocketAddr>> {
    let failed = |e: io::Error| Error::Unreachable(format!("cannot find the address of {host}: {e}"));
    let (sender, receiver) = channel();
    let (name, woken) = (host.to_owned(), waker.clone());
    let body = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = sender.send(found);
        woken.wake();
    };
    let thread = std::thread::Builder::new().name("resolver".into()).stack_size(256 << 10);
    thread.spawn(body).map_err(failed)?;
    let until = Instant::now() + patience;
    loop {
        match receiver.try_recv() {
            Ok(found) => return found.map_err(failed),
            Err(TryRecvError::Disconnected) => return Err(failed(io::ErrorKind::Other.into())),
            Err(TryRecvError::Empty) => {}
        }
        if waker.is_stopped() || interrupt() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(failed(Errno::TIMEDOUT.into()));
        }
        nap(waker, until)?;
    }
}

fn dial_one(
    address: SocketAddr,
    patience: Duration,
    waker: &Waker,
    interrupt: Interrupt<'_>,
) -> Result<OwnedFd> {
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
        // In this order: an order that comes in between ends the next `poll`.
        waker.drain();
        if waker.is_stopped() || interrupt() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(failed(Errno::TIMEDOUT));
        }
    }
}
