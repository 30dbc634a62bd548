//! The host's half of one driver: a shell on the machine that stays, and is fed with commands.
//!
//! The script (`driver.sh`) travels over the stdin of `bash -s`, secrets with it; nothing but that word is ever in an
//! argument list. Commands are answered one at a time and in order. Everything here is non-blocking: [`Driver::turn`]
//! moves what can be moved.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::cutter::{Cutter, End};
use crate::transport::{self, CommandId, Exit, Got, Stream, Transport, quote};

const SCRIPT: &str = include_str!("driver.sh");
/// An exit status may come before the last data, and the end of a stream before the exit status.
const LATE: Duration = Duration::from_secs(1);
/// The number of the end line by which the keeper, told to detach, says that all of the log so far has been read.
const LET_GO: u64 = u64::MAX;
/// A command line that a shell can read at once; metadata and environment of a test are far below.
const MAX_COMMAND: usize = 64 << 20;

/// Room that is kept for what is to be sent: most tests fit.
const KEPT_OUTBOX: usize = 4 << 10;

/// What the machine's side of a session is told when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) nonce: &'a str,
    /// What all processes of the session bear in their environment.
    pub(crate) mark: &'a str,
    /// Silence of the host after which the machine kills everything.
    pub(crate) silence: Duration,
    /// Directories in which the work directory may be made, in order, joined by colons.
    pub(crate) bases: &'a str,
    /// The work directory of an earlier driver, or `""`.
    pub(crate) directory: &'a str,
    pub(crate) slot: u16,
    /// Process and boot of the driver that was here before and may still be at work, or `""`.
    pub(crate) former: &'a str,
    /// The transport goes on reading although the host has let go.
    pub(crate) relay: bool,
}

/// Who takes the streams of the running command.
pub(crate) trait Sink {
    fn control(&mut self, data: &[u8]);
    fn log(&mut self, data: &[u8]);
}

/// What a [`Driver::turn`] came to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing to do until `wait` says so.
    Idle,
    /// There may be more at once.
    Busy,
    /// The running command is over, both its streams are complete.
    Ended(End),
    /// The driver is dead, and so is the running command.
    Dead(String),
}

#[derive(Debug)]
pub(crate) struct Driver {
    command: CommandId,
    /// Control and log.
    cutters: [Cutter; 2],
    ends: [Option<End>; 2],
    outbox: Vec<u8>,
    sent: usize,
    current: u64,
    /// The keeper has answered to `detach`.
    let_go: bool,
    /// Since when the driver has looked dead.
    gone: Option<Instant>,
}

impl Driver {
    /// Sends the script on its way; the greeting is the end of command 0.
    pub(crate) fn start(
        transport: &mut dyn Transport,
        start: &Start<'_>,
        interrupt: transport::Interrupt<'_>,
    ) -> transport::Result<Self> {
        let command = transport.spawn(&["bash", "-s"], interrupt)?;
        let mut script = SCRIPT.to_owned();
        let seconds = start.silence.as_secs().max(1).to_string();
        script.push_str("keeper");
        for word in [start.nonce, start.mark, &seconds, start.bases, start.directory] {
            let _ = write!(script, " {}", quote(word));
        }
        let _ = writeln!(
            script,
            " {} {} {}; exit 75",
            start.slot,
            quote(start.former),
            if start.relay { "1" } else { "''" }
        );
        let mut outbox =
            format!("IFS= LC_ALL=C read -r -N {} s; eval \"$s\"; exit 75\n", script.len()).into_bytes();
        outbox.extend_from_slice(script.as_bytes());
        let cutters = [Cutter::new(start.nonce), Cutter::new(start.nonce)];
        Ok(Self {
            command,
            cutters,
            ends: [None, None],
            outbox,
            sent: 0,
            current: 0,
            let_go: false,
            gone: None,
        })
    }

    /// Shell code that will end by saying `id`, the running command from now on.
    pub(crate) fn submit(&mut self, id: u64, code: &str) -> transport::Result<()> {
        if code.len() > MAX_COMMAND {
            return Err(transport::Error::Command(format!(
                "a command of {} bytes is too long for the machine's shell",
                code.len()
            )));
        }
        self.current = id;
        self.ends = [None, None];
        self.say(&format!("do {}\n{code}", code.len()));
        Ok(())
    }

    /// `term\n`, `kill\n`, `detach N\n`, `quit\n`, `quit clean\n`, or the heart-beat `\n`.
    pub(crate) fn say(&mut self, line: &str) {
        self.outbox.extend_from_slice(line.as_bytes());
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.sent < self.outbox.len()
    }

    /// Told to detach, and all that the log had until then has been read.
    pub(crate) fn has_let_go(&self) -> bool {
        self.let_go
    }

    /// Sends what can be sent.
    pub(crate) fn push(&mut self, transport: &mut dyn Transport) -> transport::Result<()> {
        while self.is_writing() {
            let n = transport.write(self.command, &self.outbox[self.sent..])?;
            if n == 0 {
                return Ok(());
            }
            self.sent += n;
        }
        // The script and large tests come once; a thousand machines would keep room for them.
        self.outbox.clear();
        self.outbox.shrink_to(KEPT_OUTBOX);
        self.sent = 0;
        Ok(())
    }

    /// Moves bytes both ways, once.
    pub(crate) fn turn(
        &mut self,
        transport: &mut dyn Transport,
        buffer: &mut [u8],
        sink: &mut dyn Sink,
    ) -> transport::Result<Turn> {
        // A dead driver takes nothing, but may have said why.
        let refused = match self.push(transport) {
            Err(transport::Error::Command(_)) => true,
            other => other.map(|()| false)?,
        };
        let (mut busy, mut closed) = (false, 0);
        for (n, stream) in [Stream::Out, Stream::Err].into_iter().enumerate() {
            match transport.read(self.command, stream, buffer)? {
                Got::Blocked => {}
                Got::Eof => closed += 1,
                Got::Data(length) => {
                    busy = true;
                    self.take(n, &buffer[..length], sink);
                }
            }
        }
        if let [Some(_), Some(_)] = self.ends {
            self.ends[1] = None;
            return Ok(self.ends[0].take().map_or(Turn::Busy, Turn::Ended));
        }
        if busy {
            return Ok(Turn::Busy);
        }
        self.look_for_death(transport, refused || closed > 0, closed == 2)
    }

    fn take(&mut self, n: usize, data: &[u8], sink: &mut dyn Sink) {
        let mut at = 0;
        while at < data.len() {
            let over = self.ends[n].is_some();
            let (used, end) = self.cutters[n].feed(&data[at..], &mut |bytes| match (over, n) {
                (true, _) => {} // a survivor of an earlier command
                (false, 0) => sink.control(bytes),
                (false, _) => sink.log(bytes),
            });
            at += used;
            match end {
                Some(end) if end.id == self.current => self.ends[n] = Some(end),
                Some(end) if end.id == LET_GO => self.let_go = true,
                _ => {}
            }
        }
    }

    /// The driver may be dead while a survivor keeps its streams open, so its status is asked for without an end of file.
    fn look_for_death(
        &mut self,
        transport: &mut dyn Transport,
        broken: bool,
        complete: bool,
    ) -> transport::Result<Turn> {
        let exit = transport.exit(self.command)?;
        if !broken && exit.is_none() {
            return Ok(Turn::Idle);
        }
        let now = Instant::now();
        let gone = *self.gone.get_or_insert(now);
        match exit {
            Some(exit) if complete || now >= gone + LATE => Ok(Turn::Dead(Self::obituary(&exit))),
            None if now >= gone + LATE => Ok(Turn::Dead("its streams were closed".into())),
            _ => Ok(Turn::Idle),
        }
    }

    fn obituary(exit: &Exit) -> String {
        match exit {
            Exit::Status(127) => "bash was not found on the machine (exit status 127)".into(),
            Exit::Status(71) => "no work directory could be made (exit status 71)".into(),
            Exit::Status(75) => "it lost the connection to the host, or its worker (exit status 75)".into(),
            exit => exit.to_string(),
        }
    }

    /// When to look again although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.gone.map(|gone| gone + LATE)
    }

    /// Whether the driver is over, after `quit`. Its status is never 0.
    pub(crate) fn is_over(&self, transport: &mut dyn Transport) -> transport::Result<bool> {
        transport.exit(self.command).map(|exit| exit.is_some())
    }

    pub(crate) fn close(self, transport: &mut dyn Transport) {
        transport.close(self.command);
    }
}

#[cfg(test)]
mod tests {
    use super::SCRIPT;

    #[test]
    fn the_script_is_short_ascii_and_valid() {
        assert!(SCRIPT.is_ascii(), "its length is counted in characters on the machine");
        let check = std::process::Command::new("bash").args(["-n", "-c", SCRIPT]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}
