//! Logging in with the keys of an agent.
//!
//! libssh2 talks to an agent with calls that block for as long as the agent likes, which may ask its user first, or hang. So a
//! thread of its own makes these calls, and what it takes for the agent is a socket of ours: the machine's thread carries
//! bytes between the two, and looks at its orders meanwhile. When it closes that socket, the calls end, and so does the thread.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::auth::attempt;
use super::jump::Load;
use super::line::Line;
use crate::transport::{Error, Interrupt, Result, Waker, interest, poll_until};

/// Time for an agent to ask its user. A server's patience (`LoginGraceTime`) is about two minutes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Tries every identity of the agent at `path`, or of the environment's.
pub(super) fn log_in(
    line: &mut Line,
    user: &str,
    path: Option<&Path>,
    tried: &mut Vec<String>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let path = path.map(Path::to_owned).or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
    let relay = path.and_then(|path| Relay::new(path).ok());
    let (Some(mut relay), Ok(inner)) = (relay, Waker::new()) else {
        tried.push("no agent answers".into());
        return Ok(());
    };
    let outer = line.exchange_waker(inner.clone());
    let over = AtomicBool::new(false);
    let until = Instant::now() + PATIENCE;
    let result = std::thread::scope(|scope| {
        let walk = {
            let (line, tried, path, over, outer) =
                (&mut *line, &mut *tried, relay.path(), &over, outer.clone());
            move || {
                let result = walk(line, user, &path, tried);
                over.store(true, Ordering::Release);
                outer.wake();
                result
            }
        };
        let walking = std::thread::Builder::new().name("agent".into()).spawn_scoped(scope, walk);
        let walking = walking.map_err(|e| Error::Unreachable(format!("cannot talk to the agent: {e}")))?;
        let attended = attend(&mut relay, &outer, &over, until, interrupt);
        if attended.is_err() {
            inner.stop();
        }
        relay.close();
        let walked = walking.join().map_err(|_| Error::Unreachable("cannot talk to the agent".into()))?;
        match (attended, walked) {
            (Err(Error::Interrupted), _) => Err(Error::Interrupted),
            // The thread was stopped because the agent took too long; other keys may do.
            (Err(_), Err(Error::Interrupted)) => Ok(()),
            (_, walked) => walked,
        }
    });
    line.exchange_waker(outer);
    result
}

/// In the thread: every identity, since the crate's own function stops after the first.
fn walk(line: &mut Line, user: &str, path: &Path, tried: &mut Vec<String>) -> Result<()> {
    let Ok(mut agent) = line.session.agent() else { return Ok(()) };
    let _ = agent.set_identity_path(path);
    if agent.connect().is_err() || agent.list_identities().is_err() {
        tried.push("no agent answers".into());
        return Ok(());
    }
    for identity in agent.identities().unwrap_or_default() {
        let name = format!("log in with the agent's key {}", identity.comment());
        attempt(line, &name, tried, &mut || false, |_| agent.userauth(user, &identity))?;
        if line.session.authenticated() {
            break;
        }
    }
    let _ = agent.disconnect();
    Ok(())
}

/// Carries bytes until the thread is through, the time is over, or nobody wants to know any more.
fn attend(
    relay: &mut Relay,
    waker: &Waker,
    over: &AtomicBool,
    until: Instant,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    loop {
        if over.load(Ordering::Acquire) {
            return Ok(());
        }
        if waker.is_stopped() || interrupt() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Error::Unreachable("the agent does not answer".into()));
        }
        if relay.carry().is_err() {
            relay.close();
        }
        relay.wait(waker, until)?;
        waker.drain();
    }
}

/// A socket that leads to the agent as long as somebody carries.
struct Relay {
    agent: PathBuf,
    /// Where the socket is; by its descriptor, because a path of a socket is at most 107 bytes long.
    directory: OwnedFd,
    _holder: tempfile::TempDir,
    listener: Option<UnixListener>,
    /// libssh2's side and the agent's, and what is on its way to each.
    ends: Option<[(UnixStream, Load); 2]>,
}

impl Relay {
    fn new(agent: PathBuf) -> io::Result<Self> {
        let holder = tempfile::tempdir()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(holder.path(), flags, Mode::empty())?;
        let mut relay = Self { agent, directory, _holder: holder, listener: None, ends: None };
        let listener = UnixListener::bind(relay.path())?;
        listener.set_nonblocking(true)?;
        relay.listener = Some(listener);
        Ok(relay)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/agent", self.directory.as_raw_fd()).into()
    }

    fn close(&mut self) {
        self.listener = None;
        self.ends = None;
    }

    /// Moves what can be moved. An error is the end of either side.
    fn carry(&mut self) -> io::Result<()> {
        if let (Some(listener), None) = (&self.listener, &self.ends) {
            match listener.accept() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
                Ok((near, _)) => {
                    near.set_nonblocking(true)?;
                    let far = connect(&self.agent)?;
                    self.ends = Some([(near, Load::default()), (far, Load::default())]);
                }
            }
        }
        let Some([near, far]) = &mut self.ends else { return Ok(()) };
        pass_on(&mut near.0, far)?;
        pass_on(&mut far.0, near)
    }

    /// Sleeps until there may be something to carry.
    fn wait(&self, waker: &Waker, until: Instant) -> Result<()> {
        let mut fds = vec![interest(waker.as_fd(), true, false)];
        match &self.ends {
            None => fds.extend(self.listener.iter().map(|listener| interest(listener.as_fd(), true, false))),
            Some([near, far]) => {
                fds.push(interest(near.0.as_fd(), far.1.is_empty(), !near.1.is_empty()));
                fds.push(interest(far.0.as_fd(), near.1.is_empty(), !far.1.is_empty()));
            }
        }
        poll_until(&mut fds, until)
    }
}

/// What comes from one side goes to the other.
fn pass_on(from: &mut UnixStream, (to, load): &mut (UnixStream, Load)) -> io::Result<()> {
    let not_now = |e: &io::Error| e.kind() == ErrorKind::WouldBlock;
    if load.is_empty() {
        let mut buffer = [0; 4096];
        match from.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => load.fill(&buffer[..n]),
            Err(e) if not_now(&e) => {}
            Err(e) => return Err(e),
        }
    }
    if !load.is_empty() {
        match to.write(load.rest()) {
            Ok(n) => load.took(n),
            Err(e) if not_now(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Without waiting for an agent that does not accept.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
