//! Commands over SSH, by libssh2: one session, one thread, one `poll`, nothing that blocks.
//!
//! What libssh2 needs from its user:
//!
//! - Whoever waits must have read: an unread answer leaves the socket readable, and `poll` would spin. And a read for one
//!   stream takes packets of others off the socket, for which `poll` then would never wake: [`Ssh::wait`] looks for such.
//! - A packet that could only be sent in part belongs to the call that began it; others are put off until it is out. So what
//!   was begun is gone on with ([`Ssh::settle`]), also for a command that nobody wants any more.
//! - Closing a channel waits for the other side's goodbye, which a dead one never says: that is left to [`Ssh::settle`] too.
//!   The end of a command is such a packet, too.
//! - An exit status of 0 cannot be told from "not yet" before the channel is closed.
//! - Keepalives are sent only when asked for. They want an answer here, since any byte from the peer is a sign of life.

mod agent;
mod auth;
mod config;
mod dial;
mod host_key;
mod jump;
mod line;
mod proxy;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Instant;

use atex_plugin_api::model::SshTransport;
use ssh2::{Channel, ErrorCode};

use super::{CommandId, Error, Exit, Got, Interrupt, Result, Stream, Transport, Waker, quote};
use crate::executor::spec::MachineSpec;
use config::{Asking, Endpoint};
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
    /// Given up, and not closed yet.
    leaving: Vec<Command>,
    next: u32,
    /// Carries the line; ends with it.
    _proxy: Option<Proxy>,
}

struct Command {
    channel: Channel,
    eof_told: [bool; 2],
    /// Its end was a reason not to sleep, once.
    end_told: bool,
    /// The last piece of input may be on its way in part.
    unfinished: bool,
    /// There is to be no more input.
    eof_due: bool,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("eof_told", &self.eof_told).finish_non_exhaustive()
    }
}

impl Ssh {
    /// Connects, checks the host key and logs in, through all hops.
    pub fn connect(
        ssh: &SshTransport,
        spec: &MachineSpec,
        waker: &Waker,
        interrupt: Interrupt<'_>,
    ) -> Result<Self> {
        let mut asking = Asking { waker, interrupt };
        let target = Endpoint::target(ssh, &mut asking)?;
        let hops = config::hops(ssh, &target, MAX_HOPS, &mut asking)?;
        let interrupt = asking.interrupt;
        // Half of the time is for us; the other half is for the machine, whose silence must be longer.
        let dead_after = spec.silence() / 2;
        let mut line: Option<Line> = None;
        let mut proxy: Option<Proxy> = None;
        for end in hops.iter().chain([&target]) {
            let socket = match (line.take(), &end.proxy_command) {
                (Some(before), _) => jump::through(before, end, interrupt)?,
                (None, None) => dial::dial(&end.host, end.port, dead_after, waker, interrupt)?,
                (None, Some(command)) => {
                    let (socket, started) = Proxy::start(command, end)?;
                    proxy = Some(started);
                    socket
                }
            };
            let next = Line::handshake(socket, end, ssh, spec, dead_after, waker, interrupt);
            let mut next = match (next, &mut proxy) {
                (Err(error), Some(proxy)) => return Err(proxy.explain(error)),
                (next, _) => next?,
            };
            auth::log_in(&mut next, end, interrupt)?;
            next.watch();
            line = Some(next);
        }
        let line = line.ok_or_else(|| Error::Refused("no host to connect to".into()))?;
        let prefix = match &ssh.sudo {
            None => "exec ".to_owned(),
            Some(user) => format!("exec sudo -n -u {} -- ", quote(user)),
        };
        Ok(Self { line, prefix, commands: BTreeMap::new(), leaving: vec![], next: 0, _proxy: proxy })
    }

    fn get(&mut self, id: CommandId) -> Result<&mut Command> {
        self.commands.get_mut(&id).ok_or_else(|| Error::Command("the command was closed".into()))
    }

    /// Goes on with what could not be done at once.
    fn settle(&mut self) {
        for command in self.commands.values_mut() {
            command.settle();
        }
        self.leaving.retain_mut(|command| !command.leave());
    }

    /// Something has been read from the socket that nobody has asked for since.
    fn has_news(&mut self) -> bool {
        // First what may read on behalf of the others.
        let mut over = false;
        for command in self.commands.values_mut().filter(|command| !command.end_told) {
            if command.channel.eof() && !is_pending(&command.channel.wait_close()) {
                command.end_told = true;
                over = true;
            }
        }
        over || self.commands.values().any(|command| {
            command.channel.read_window().available > 0
                || (command.eof_told != [true, true] && command.channel.eof())
        })
    }
}

impl Transport for Ssh {
    fn spawn(&mut self, words: &[&str], interrupt: Interrupt<'_>) -> Result<CommandId> {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let command = format!("{}{}", self.prefix, words.join(" "));
        let (commands, leaving) = (&mut self.commands, &mut self.leaving);
        let mut channel = self.line.finish("open a channel", interrupt, |session| {
            commands.values_mut().for_each(Command::settle);
            leaving.retain_mut(|command| !command.leave());
            session.channel_session()
        })?;
        let begun = self.line.finish("run a command", interrupt, |_| channel.exec(&command));
        let mut command =
            Command { channel, eof_told: [false; 2], end_told: false, unfinished: false, eof_due: false };
        if let Err(e) = begun {
            if !command.leave() {
                self.leaving.push(command);
            }
            return Err(e);
        }
        let id = CommandId(self.next);
        self.next += 1;
        self.commands.insert(id, command);
        Ok(id)
    }

    fn write(&mut self, id: CommandId, data: &[u8]) -> Result<usize> {
        let command = self.get(id)?;
        let written = command.channel.write(data);
        command.unfinished = written.is_err();
        self.line.took(written, "write")
    }

    fn close_stdin(&mut self, id: CommandId) -> Result<()> {
        let command = self.get(id)?;
        command.eof_due = true;
        command.settle();
        Ok(())
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
        if let Some(mut command) = self.commands.remove(&id)
            && !command.leave()
        {
            self.leaving.push(command);
        }
    }

    fn wait(&mut self, writing: bool, until: Instant) -> Result<()> {
        self.settle();
        let until = if self.has_news() { Instant::now() } else { until };
        self.line.wait(writing, until)
    }
}

impl Command {
    /// Goes on with the end of its input.
    fn settle(&mut self) {
        self.eof_due = self.eof_due && is_pending(&self.channel.send_eof());
    }

    /// Goes on with the goodbye; whether it is through, or hopeless.
    fn leave(&mut self) -> bool {
        // Only the call that began a packet can finish it. If there is none, one byte more does no harm: who stops in the
        // middle of a stream does not care for its end.
        if self.unfinished {
            self.unfinished = self.channel.write(b"\n").is_err_and(|e| {
                matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
            });
        }
        !is_pending(&self.channel.close())
    }
}

fn is_pending(done: &Result<(), ssh2::Error>) -> bool {
    done.as_ref().is_err_and(line::is_not_now)
}

/// Codes of libssh2, as far as they make a difference here.
const EAGAIN: ErrorCode = ErrorCode::Session(-37);
const BAD_USE: ErrorCode = ErrorCode::Session(-39);
