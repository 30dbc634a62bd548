//! Commands over SSH, by libssh2: one session, one thread, one `poll`, nothing that blocks.
//!
//! What libssh2 needs from its user:
//!
//! - Whoever waits must have read: an unread answer leaves the socket readable, and `poll` would spin. And a read for one
//!   stream takes packets of others off the socket, for which `poll` then would never wake: [`Ssh::wait`] looks for such.
//! - A packet that could only be sent in part belongs to the call that began it; others fail with "bad use" until it is out.
//!   They are treated as "not now".
//! - An exit status of 0 cannot be told from "not yet" before the channel is closed.
//! - Keepalives are sent only when asked for. They want an answer here, since any byte from the peer is a sign of life.

mod auth;
mod config;
mod host_key;
mod jump;
mod line;
mod proxy;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use atex_plugin_api::model::SshTransport;
use ssh2::{Channel, ErrorCode};

use super::{CommandId, Error, Exit, Got, Result, Stream, Transport, Waker, quote};
use crate::executor::spec::MachineSpec;
use config::Endpoint;
use line::Line;
use proxy::Proxy;

/// More hops than anybody needs; ends loops in configurations.
const MAX_HOPS: usize = 8;

/// A way to one machine.
#[derive(Debug)]
pub struct Ssh {
    line: Line,
    prefix: String,
    commands: BTreeMap<CommandId, Command>,
    next: u32,
    /// Carries the line; ends with it.
    _proxy: Option<Proxy>,
}

struct Command {
    channel: Channel,
    eof_told: [bool; 2],
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("eof_told", &self.eof_told).finish_non_exhaustive()
    }
}

impl Ssh {
    /// Connects, checks the host key and logs in, through all hops.
    pub fn connect(ssh: &SshTransport, spec: &MachineSpec, waker: &Waker) -> Result<Self> {
        let target = Endpoint::target(ssh)?;
        let hops = config::hops(ssh, &target, MAX_HOPS)?;
        // Half of the time is for us; the other half is for the machine, whose silence must be longer.
        let dead_after = (spec.keepalive / 2).max(Duration::from_secs(1));
        let mut line: Option<Line> = None;
        let mut proxy: Option<Proxy> = None;
        for end in hops.iter().chain([&target]) {
            let socket = match (line.take(), &end.proxy_command) {
                (Some(before), _) => jump::through(before, end)?,
                (None, None) => line::dial(&end.host, end.port, dead_after, waker)?,
                (None, Some(command)) => {
                    let (socket, started) = Proxy::start(command, end)?;
                    proxy = Some(started);
                    socket
                }
            };
            let next = Line::handshake(socket, end, ssh, spec, dead_after, waker);
            let mut next = match (next, &mut proxy) {
                (Err(error), Some(proxy)) => return Err(proxy.explain(error)),
                (next, _) => next?,
            };
            auth::log_in(&mut next, end)?;
            line = Some(next);
        }
        let line = line.ok_or_else(|| Error::Refused("no host to connect to".into()))?;
        let prefix = match &ssh.sudo {
            None => "exec ".to_owned(),
            Some(user) => format!("exec sudo -n -u {} -- ", quote(user)),
        };
        Ok(Self { line, prefix, commands: BTreeMap::new(), next: 0, _proxy: proxy })
    }

    fn get(&mut self, id: CommandId) -> Result<&mut Command> {
        self.commands.get_mut(&id).ok_or_else(|| Error::Command("the command was closed".into()))
    }

    /// Something has been read from the socket that nobody has asked for since.
    fn has_news(&self) -> bool {
        self.commands.values().any(|command| {
            command.channel.read_window().available > 0
                || (command.eof_told != [true, true] && command.channel.eof())
        })
    }
}

impl Transport for Ssh {
    fn spawn(&mut self, words: &[&str]) -> Result<CommandId> {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let command = format!("{}{}", self.prefix, words.join(" "));
        let mut channel = self.line.finish("open a channel", ssh2::Session::channel_session)?;
        self.line.finish("run a command", |_| channel.exec(&command))?;
        let id = CommandId(self.next);
        self.next += 1;
        self.commands.insert(id, Command { channel, eof_told: [false; 2] });
        Ok(id)
    }

    fn write(&mut self, id: CommandId, data: &[u8]) -> Result<usize> {
        let written = self.get(id)?.channel.write(data);
        self.line.took(written, "write")
    }

    fn close_stdin(&mut self, id: CommandId) -> Result<()> {
        let Some(mut command) = self.commands.remove(&id) else {
            return Err(Error::Command("the command was closed".into()));
        };
        let closed = self.line.finish("close a stream", |_| command.channel.send_eof());
        self.commands.insert(id, command);
        closed
    }

    fn read(&mut self, id: CommandId, stream: Stream, buffer: &mut [u8]) -> Result<Got> {
        let command = self.get(id)?;
        let (number, got) = match stream {
            Stream::Out => (0, command.channel.read(buffer)),
            Stream::Err => (1, command.channel.stderr().read(buffer)),
        };
        if let Ok(n @ 1..) = got {
            return Ok(Got::Data(n));
        }
        if got.is_ok() && command.channel.eof() {
            command.eof_told[number] = true;
            return Ok(Got::Eof);
        }
        self.line.took(got, "read").map(|_| Got::Blocked)
    }

    fn exit(&mut self, id: CommandId) -> Result<Option<Exit>> {
        let channel = &mut self.get(id)?.channel;
        let failed = |e: ssh2::Error| line::fault("get the status of a command", &e);
        // A signal first: the status of a command that died of one is 0.
        if let Some(name) = channel.exit_signal().map_err(failed)?.exit_signal {
            return Ok(Some(Exit::Signal(name)));
        }
        match channel.exit_status().map_err(failed)? {
            0 => {}
            status => return Ok(Some(Exit::Status(status))),
        }
        if !channel.eof() {
            return Ok(None);
        }
        match channel.wait_close() {
            Err(e) if line::is_not_now(&e) => Ok(None),
            Err(e) => Err(failed(e)),
            Ok(()) => match channel.exit_signal().map_err(failed)?.exit_signal {
                Some(name) => Ok(Some(Exit::Signal(name))),
                None => Ok(Some(Exit::Status(channel.exit_status().map_err(failed)?))),
            },
        }
    }

    fn close(&mut self, id: CommandId) {
        if let Some(mut command) = self.commands.remove(&id) {
            let _ = self.line.finish("close a channel", |_| command.channel.close());
        }
    }

    fn wait(&mut self, writing: bool, until: Instant) -> Result<()> {
        let until = if self.has_news() { Instant::now() } else { until };
        self.line.wait(writing, until)
    }
}

/// Codes of libssh2, as far as they make a difference here.
const EAGAIN: ErrorCode = ErrorCode::Session(-37);
const BAD_USE: ErrorCode = ErrorCode::Session(-39);
