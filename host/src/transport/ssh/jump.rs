//! Going through a host: a channel to the next one, and a thread that carries bytes between it and a socket pair.
//!
//! libssh2 speaks to descriptors only, so the next session gets one end of the pair. The thread ends when either side does:
//! the far host or its network, or the session that uses the pair.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::config::Endpoint;
use super::line::Line;
use crate::transport::{Error, Interrupt, Result, interest};

const BUFFER: usize = 32 << 10;

/// A descriptor that leads from `line`'s host to `end`.
pub(super) fn through(mut line: Line, end: &Endpoint, interrupt: Interrupt<'_>) -> Result<OwnedFd> {
    let what = format!("reach {}", end.shown());
    let channel = line
        .finish(&what, interrupt, |session| session.channel_direct_tcpip(&end.host, end.port, None))
        .map_err(|e| match e {
            Error::Command(why) => Error::Unreachable(why),
            other => other,
        })?;
    let failed = |e: std::io::Error| Error::Unreachable(format!("cannot {what}: {e}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    theirs.set_nonblocking(true).map_err(failed)?;
    let line = line.on_its_own()?;
    std::thread::Builder::new()
        .name(format!("jump {}", end.host))
        .stack_size(256 << 10)
        .spawn(move || carry(line, channel, ours))
        .map_err(failed)?;
    Ok(theirs.into())
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
pub(super) struct Load {
    bytes: Vec<u8>,
    sent: usize,
}

impl Load {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.sent = 0;
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn took(&mut self, count: usize) {
        self.sent += count;
    }
}

fn carry(mut line: Line, mut channel: ssh2::Channel, mut near: UnixStream) {
    let mut buffer = vec![0; BUFFER];
    let (mut out, mut back) = (Load::default(), Load::default());
    loop {
        let mut busy = false;
        if out.is_empty() {
            match near.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    out.fill(&buffer[..n]);
                    busy = true;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        if !out.is_empty() {
            let written = channel.write(out.rest());
            let Ok(n) = line.took(written, "write") else { break };
            out.took(n);
            busy |= n > 0;
        }
        if back.is_empty() {
            let got = channel.read(&mut buffer);
            let Ok(n) = line.took(got, "read") else { break };
            if n == 0 && channel.eof() {
                break;
            }
            back.fill(&buffer[..n]);
            busy |= n > 0;
        }
        if !back.is_empty() {
            match near.write(back.rest()) {
                Ok(n) => {
                    back.took(n);
                    busy = true;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        if !busy && line.wait_with(&near, out.is_empty(), !back.is_empty(), !out.is_empty()).is_err() {
            break;
        }
    }
    let _ = channel.close();
    // The line first: a channel of a line that is up would not be freed without an answer.
    drop(line);
}

impl Line {
    /// Like [`wait`](Self::wait), for a second descriptor too. Instead of a waker: the pair's other end is closed.
    fn wait_with(
        &mut self,
        near: &UnixStream,
        reading: bool,
        writing: bool,
        far_writing: bool,
    ) -> Result<()> {
        self.wait_for(
            Some(interest(near.as_fd(), reading, writing)),
            far_writing,
            Instant::now() + Duration::from_mins(1),
        )
    }
}
