//! A connection to a machine with one driver per slot, and the place on the machine that outlives it.
//!
//! A [`Place`] (work directory, marks, who was there before) survives reconnections; a [`Session`] does not. All of it
//! belongs to the machine's thread. Whatever waits here asks an [`Interrupt`] whether it should go on, each time the
//! machine's waker has been woken.

use std::io::Read as _;
use std::time::{Duration, Instant};

use atex_plugin_api::model;

use super::cutter::End;
use super::driver::{Driver, Sink, Start, Turn};
use super::spec::{Facts, MachineSpec};
use super::{facts, helpers};
use crate::transport::{self, CommandId, Exit, Got, Stream, Transport, Waker};

/// Reading more at a time was not seen to be faster; each machine of a thousand has one of these.
const BUFFER: usize = 16 << 10;
/// How long a server may refuse a channel after the goodbye of another one (MaxSessions 1).
const CHANNEL_RETRY: Duration = Duration::from_secs(10);
const CHANNEL_PAUSE: Duration = Duration::from_millis(10);
/// How long a machine that is about to go away may take to send the rest of its tests' logs. The keeper in driver.sh takes the
/// host for gone a little later.
const LETTING_GO: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The driver is dead on a connection that still works.
    #[error("the machine's driver ended: {0}")]
    Driver(String),
    #[error("{0}")]
    TimedOut(String),
    /// Something on this side or on the machine's that is no fault of the connection.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, Self::Transport(transport::Error::Interrupted))
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) use crate::transport::Interrupt;

/// What stays on the machine between connections.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// In the environment of every process of ours there.
    mark: String,
    nonce: String,
    bases: String,
    relay: bool,
    /// Absolute; `""` until the first greeting.
    pub(crate) directory: String,
    pub(crate) boot: String,
    /// The last driver that was started found no tree of its slot.
    pub(crate) fresh: bool,
    /// `PID BOOT` of each slot's last driver.
    keepers: Vec<String>,
}

impl Place {
    pub(crate) fn new(transport: &model::Transport) -> Result<Self> {
        let bases = match transport {
            model::Transport::Local(local) => {
                local.directory.clone().unwrap_or_else(|| "/var/tmp:/tmp".into())
            }
            _ => "/var:/var/tmp".into(),
        };
        Ok(Self {
            mark: random_word()?,
            nonce: random_word()?,
            bases,
            relay: matches!(transport, model::Transport::Exec(_)),
            directory: String::new(),
            boot: String::new(),
            fresh: true,
            keepers: vec![],
        })
    }

    /// The directory of a slot.
    pub(crate) fn slot(&self, slot: u16) -> String {
        format!("{}/s{slot}", self.directory)
    }

    pub(crate) fn tree(&self, slot: u16) -> String {
        format!("{}/s{slot}/tree", self.directory)
    }
}

/// 96 bits that nobody guesses, in hexadecimal digits.
fn random_word() -> Result<String> {
    let mut bytes = [0_u8; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| Error::Failed(format!("cannot read /dev/urandom: {e}")))?;
    Ok(crate::text::hex(&bytes))
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    transport: Box<dyn Transport>,
    drivers: Vec<Option<Driver>>,
    pub(crate) place: Place,
    buffer: Vec<u8>,
    /// Silence of the host after which the machine's side gives up.
    silence: Duration,
    next_beat: Instant,
    next_command: u64,
    waker: Waker,
    pub(crate) spec: MachineSpec,
}

impl Session {
    /// Connects and starts the first driver. [`transport::Error::Unreachable`] may go away by itself.
    pub(crate) fn open(
        spec: &MachineSpec,
        place: Place,
        waker: &Waker,
        limit: Option<Instant>,
        interrupt: Interrupt<'_>,
    ) -> Result<Self> {
        let transport = transport::connect(spec, waker, interrupt)?;
        let mut session = Self {
            transport,
            drivers: vec![],
            place,
            buffer: vec![0; BUFFER],
            silence: spec.silence(),
            next_beat: Instant::now(),
            next_command: 1,
            waker: waker.clone(),
            spec: spec.clone(),
        };
        session.start_driver(0, limit, interrupt)?;
        Ok(session)
    }

    /// A driver for `slot`, after its former one has ended.
    pub(crate) fn start_driver(
        &mut self,
        slot: u16,
        limit: Option<Instant>,
        interrupt: Interrupt<'_>,
    ) -> Result<()> {
        let index = usize::from(slot);
        if self.drivers.len() <= index {
            self.drivers.resize_with(index + 1, || None);
        }
        self.place.keepers.resize(self.place.keepers.len().max(index + 1), String::new());
        let until = Instant::now() + CHANNEL_RETRY;
        let driver = loop {
            let start = Start {
                nonce: &self.place.nonce,
                mark: &self.place.mark,
                silence: self.silence,
                bases: &self.place.bases,
                directory: &self.place.directory,
                slot,
                former: &self.place.keepers[index],
                relay: self.place.relay,
            };
            match Driver::start(&mut *self.transport, &start, interrupt) {
                Err(transport::Error::Command(_)) if Instant::now() < until => {
                    self.transport.wait(false, Instant::now() + CHANNEL_PAUSE)?;
                }
                other => break other?,
            }
        };
        self.drivers[index] = Some(driver);
        self.beat(Instant::now());
        let mut noise = Tail::new(2000);
        let end = self.until_end(slot, limit, &mut noise, interrupt).map_err(|e| match e {
            Error::Driver(why) => Error::Driver(format!("the shell did not start: {why}{}", noise.shown())),
            other => other,
        })?;
        self.greeted(index, &end)
    }

    fn greeted(&mut self, index: usize, end: &End) -> Result<()> {
        let mut words = end.flags.splitn(4, ' ');
        let (Some(pid), Some(boot), Some(fresh), Some(directory)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Error::Failed(format!("the machine's greeting makes no sense: `{}`", end.flags)));
        };
        if !directory.starts_with('/') {
            return Err(Error::Failed(format!("the machine's work directory `{directory}` is not absolute")));
        }
        self.place.keepers[index] = format!("{pid} {boot}");
        self.place.fresh = fresh == "new";
        boot.clone_into(&mut self.place.boot);
        directory.clone_into(&mut self.place.directory);
        Ok(())
    }

    /// The machine's own facts, and helpers in its `bin`: one round trip.
    pub(crate) fn introduce(&mut self, interrupt: Interrupt<'_>) -> Result<Facts> {
        let code = format!("{}\n{}", helpers::install(&self.place.directory), facts::SCRIPT);
        let mut output = Split { out: Tail::new(16 << 10), err: Tail::new(2000) };
        let end = self.command(0, &code, None, &mut output, interrupt)?;
        if end.status != 0 {
            return Err(Error::Failed(format!("cannot set up the work directory{}", output.err.shown())));
        }
        Ok(facts::parse(&output.out.bytes))
    }

    /// Submits shell code that runs in the driver of `slot`; its end will bear the number that is returned.
    pub(crate) fn submit(&mut self, slot: u16, code: impl FnOnce(u64) -> String) -> Result<u64> {
        let id = self.next_command;
        self.next_command += 1;
        let code = code(id);
        self.driver(slot)?.submit(id, &code)?;
        Ok(id)
    }

    /// Runs code in a subshell of a driver and waits for it.
    pub(crate) fn command(
        &mut self,
        slot: u16,
        code: &str,
        limit: Option<Instant>,
        sink: &mut dyn Sink,
        interrupt: Interrupt<'_>,
    ) -> Result<End> {
        self.submit(slot, |id| format!("( {code}\n) </dev/null 8>&- 9>&-; say {id} $? ''"))?;
        self.until_end(slot, limit, sink, interrupt)
    }

    /// Waits for the end of what runs in `slot`, while nothing runs in others. `limit` fails it, after killing.
    pub(crate) fn until_end(
        &mut self,
        slot: u16,
        limit: Option<Instant>,
        sink: &mut dyn Sink,
        interrupt: Interrupt<'_>,
    ) -> Result<End> {
        loop {
            match self.turn(slot, sink)? {
                Turn::Busy => continue,
                Turn::Ended(end) => return Ok(end),
                Turn::Dead(why) => return Err(Error::Driver(why)),
                Turn::Idle => {}
            }
            if interrupt() {
                return Err(transport::Error::Interrupted.into());
            }
            let now = Instant::now();
            if let Some(limit) = limit.filter(|limit| *limit <= now) {
                return Err(Error::TimedOut(format!(
                    "still running {} s after its limit",
                    (now - limit).as_secs()
                )));
            }
            self.rest(limit)?;
        }
    }

    /// Like [`until_end`](Self::until_end), but what is still running at `limit` is killed before the error is returned.
    pub(crate) fn until_end_or_kill(
        &mut self,
        slot: u16,
        limit: Instant,
        sink: &mut dyn Sink,
        interrupt: Interrupt<'_>,
    ) -> Result<End> {
        match self.until_end(slot, Some(limit), sink, interrupt) {
            Err(timeout @ Error::TimedOut(_)) => {
                self.driver(slot)?.say("kill\n");
                self.until_end(slot, Some(Instant::now() + self.silence), sink, interrupt)?;
                Err(timeout)
            }
            other => other,
        }
    }

    /// Moves bytes of one slot.
    pub(crate) fn turn(&mut self, slot: u16, sink: &mut dyn Sink) -> Result<Turn> {
        let Some(driver) = self.drivers.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return Err(Error::Failed(format!("slot {slot} has no driver")));
        };
        Ok(driver.turn(&mut *self.transport, &mut self.buffer, sink)?)
    }

    /// Beats if it is time, and sleeps until something happens or `until`.
    pub(crate) fn rest(&mut self, until: Option<Instant>) -> Result<()> {
        let now = Instant::now();
        // A little early, if something else has woken us: then the two need no wake-up each.
        if now + self.silence / 16 >= self.next_beat {
            self.beat(now);
        }
        let mut wake = self.next_beat;
        let mut writing = false;
        for driver in self.drivers.iter_mut().flatten() {
            match driver.push(&mut *self.transport) {
                // A driver that is dead: its own turn will find out.
                Err(transport::Error::Command(_)) => {}
                other => other?,
            }
            writing |= driver.is_writing();
            wake = driver.deadline().map_or(wake, |at| wake.min(at));
        }
        self.transport.wait(writing, until.map_or(wake, |until| wake.min(until)))?;
        self.waker.drain();
        Ok(())
    }

    fn beat(&mut self, now: Instant) {
        for driver in self.drivers.iter_mut().flatten() {
            driver.say("\n");
        }
        self.next_beat = now + self.silence / 4;
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn driver(&mut self, slot: u16) -> Result<&mut Driver> {
        self.drivers
            .get_mut(usize::from(slot))
            .and_then(Option::as_mut)
            .ok_or_else(|| Error::Failed(format!("slot {slot} has no driver")))
    }

    /// `quit`: the driver ends, what it left stays. `quit clean`: everything of ours is killed and removed.
    pub(crate) fn stop_driver(&mut self, slot: u16, word: &str, interrupt: Interrupt<'_>) -> Result<()> {
        let Some(mut driver) = self.drivers.get_mut(usize::from(slot)).and_then(Option::take) else {
            return Ok(());
        };
        driver.say(&format!("{word}\n"));
        let until = Instant::now() + self.silence;
        let over = loop {
            match driver.turn(&mut *self.transport, &mut self.buffer, &mut Nowhere)? {
                Turn::Busy | Turn::Ended(_) => continue,
                Turn::Dead(_) => break true,
                Turn::Idle if driver.is_over(&mut *self.transport)? => break true,
                Turn::Idle => {}
            }
            if interrupt() {
                return Err(transport::Error::Interrupted.into());
            }
            if Instant::now() >= until {
                break false;
            }
            let wake = driver.deadline().map_or(self.next_beat, |at| at.min(self.next_beat)).min(until);
            self.transport.wait(driver.is_writing(), wake)?;
            self.waker.drain();
            self.beat_if_due();
        };
        driver.close(&mut *self.transport);
        if over { Ok(()) } else { Err(Error::TimedOut(format!("the machine did not answer to `{word}`"))) }
    }

    fn beat_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.next_beat {
            self.beat(now);
        }
    }

    /// Another driver with fresh streams in the same directory: a daemon that has the old ones writes into nothing.
    pub(crate) fn renew(&mut self, slot: u16, interrupt: Interrupt<'_>) -> Result<()> {
        self.stop_driver(slot, "quit", interrupt)?;
        self.place.keepers[usize::from(slot)].clear();
        self.start_driver(slot, None, interrupt)
    }

    /// Ends all drivers and removes everything of ours from the machine.
    pub(crate) fn clean(&mut self, interrupt: Interrupt<'_>) -> Result<()> {
        for slot in (1..self.drivers.len()).rev() {
            self.stop_driver(u16::try_from(slot).unwrap_or(u16::MAX), "quit", interrupt)?;
        }
        self.stop_driver(0, "quit clean", interrupt)
    }

    /// After the death of a driver on a living connection: a new one finds and kills what the old one left.
    pub(crate) fn recover(&mut self, interrupt: Interrupt<'_>) -> Result<()> {
        for driver in self.drivers.iter_mut().filter_map(Option::take) {
            driver.close(&mut *self.transport);
        }
        self.place.keepers.clear();
        self.start_driver(0, None, interrupt)?;
        self.stop_driver(0, "quit clean", interrupt)
    }

    /// The streams go away on purpose: what runs may live on for `time`, and whatever it does is its own affair. What it had
    /// written before goes to the sink of its slot; the log and the control channel are two pipes, and `disconnect` may
    /// overtake the log.
    pub(crate) fn detach(mut self, time: Duration, sinks: &mut [(u16, &mut dyn Sink)]) -> Place {
        let word = format!("detach {}\n", time.as_secs().max(1));
        for driver in self.drivers.iter_mut().flatten() {
            driver.say(&word);
        }
        let until = Instant::now() + LETTING_GO;
        for slot in 0..self.drivers.len() {
            let slot = u16::try_from(slot).unwrap_or(u16::MAX);
            let sink: &mut dyn Sink = match sinks.iter_mut().find(|(number, _)| *number == slot) {
                Some((_, sink)) => &mut **sink,
                None => &mut Nowhere,
            };
            // The machine may be gone already.
            if self.driver(slot).is_ok() && self.read_to_the_last(slot, until, sink).is_err() {
                return self.place;
            }
        }
        for driver in self.drivers.iter_mut().filter_map(Option::take) {
            driver.close(&mut *self.transport);
        }
        self.place
    }

    fn read_to_the_last(&mut self, slot: u16, until: Instant, sink: &mut dyn Sink) -> Result<()> {
        while !self.driver(slot)?.has_let_go() && Instant::now() < until {
            match self.turn(slot, sink)? {
                Turn::Busy | Turn::Ended(_) => {}
                Turn::Dead(_) => break,
                Turn::Idle => self.rest(Some(until))?,
            }
        }
        Ok(())
    }

    /// A command of its own beside the drivers, which takes a stream: `fill` writes it. Where the server allows one
    /// channel only, the first driver makes room.
    pub(crate) fn stream(
        &mut self,
        words: &[&str],
        interrupt: Interrupt<'_>,
        fill: &mut dyn FnMut(&mut Pipe<'_>) -> std::io::Result<()>,
    ) -> Result<()> {
        let mark = format!("ATEX_MARK={}.stream", self.place.mark);
        let words: Vec<&str> = ["env", &mark].into_iter().chain(words.iter().copied()).collect();
        let (command, made_room) = match self.transport.spawn(&words, interrupt) {
            Ok(command) => (command, false),
            Err(transport::Error::Command(_)) => {
                self.stop_driver(0, "quit", interrupt)?;
                (self.spawn_soon(&words, interrupt)?, true)
            }
            Err(e) => return Err(e.into()),
        };
        let result = self.fill(command, interrupt, fill);
        self.transport.close(command);
        if made_room && !matches!(result, Err(Error::Transport(_))) {
            self.place.keepers[0].clear();
            self.start_driver(0, None, interrupt)?;
        }
        result
    }

    fn spawn_soon(&mut self, words: &[&str], interrupt: Interrupt<'_>) -> Result<CommandId> {
        let until = Instant::now() + CHANNEL_RETRY;
        loop {
            match self.transport.spawn(words, interrupt) {
                Err(transport::Error::Command(_)) if Instant::now() < until => {
                    self.transport.wait(false, Instant::now() + CHANNEL_PAUSE)?;
                }
                other => return Ok(other?),
            }
        }
    }

    fn fill(
        &mut self,
        command: CommandId,
        interrupt: Interrupt<'_>,
        fill: &mut dyn FnMut(&mut Pipe<'_>) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut pipe = Pipe { session: self, command, interrupt, said: Tail::new(2000), fault: None };
        let filled = fill(&mut pipe);
        let exit = pipe.finish();
        let (said, fault) = (pipe.said.shown(), pipe.fault.take());
        if let Some(fault) = fault {
            return Err(fault);
        }
        // What the machine says explains a broken pipe better than the pipe does.
        match exit? {
            Exit::Status(0) => filled.map_err(|e| Error::Failed(e.to_string())),
            exit => Err(Error::Failed(format!("tar on the machine: {exit}{said}"))),
        }
    }
}

/// The stdin of a command on the machine; keeps the drivers beating while it waits.
pub(crate) struct Pipe<'a> {
    session: &'a mut Session,
    command: CommandId,
    interrupt: Interrupt<'a>,
    said: Tail,
    fault: Option<Error>,
}

impl std::fmt::Debug for Pipe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Pipe<'_> {
    /// One round: what the command says is read (else a window may never grow), and the drivers beat.
    fn idle(&mut self, writing: bool) -> Result<()> {
        let mut busy = false;
        for stream in [Stream::Out, Stream::Err] {
            if let Got::Data(n) =
                self.session.transport.read(self.command, stream, &mut self.session.buffer)?
            {
                self.said.take(&self.session.buffer[..n]);
                busy = true;
            }
        }
        for slot in 0..self.session.drivers.len() {
            let slot = u16::try_from(slot).unwrap_or(u16::MAX);
            if self.session.driver(slot).is_ok()
                && let Turn::Dead(why) = self.session.turn(slot, &mut Nowhere)?
            {
                return Err(Error::Driver(why));
            }
        }
        if busy {
            return Ok(());
        }
        if (self.interrupt)() {
            return Err(transport::Error::Interrupted.into());
        }
        self.session.beat_if_due();
        let wake = self.session.next_beat;
        self.session.transport.wait(writing, wake)?;
        self.session.waker.drain();
        Ok(())
    }

    fn finish(&mut self) -> Result<Exit> {
        if self.fault.is_some() {
            return Ok(Exit::Status(-1));
        }
        self.session.transport.close_stdin(self.command)?;
        loop {
            if let Some(exit) = self.session.transport.exit(self.command)? {
                return Ok(exit);
            }
            self.idle(false)?;
        }
    }
}

impl std::io::Write for Pipe<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        loop {
            match self.session.transport.write(self.command, data) {
                Ok(0) => {}
                Ok(n) => return Ok(n),
                Err(e @ transport::Error::Command(_)) => return Err(std::io::Error::other(e.to_string())),
                Err(e) => {
                    self.fault = Some(e.into());
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
            }
            if let Err(fault) = self.idle(true) {
                self.fault = Some(fault);
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The last bytes of a stream, for messages.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) bytes: Vec<u8>,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: vec![], limit }
    }

    pub(crate) fn take(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        if self.bytes.len() > 2 * self.limit {
            self.bytes.drain(..self.bytes.len() - self.limit);
        }
    }

    /// `: TEXT` on one line, or nothing.
    pub(crate) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes[self.bytes.len().saturating_sub(self.limit)..]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
    }
}

impl Sink for Tail {
    fn control(&mut self, data: &[u8]) {
        self.take(data);
    }
    fn log(&mut self, data: &[u8]) {
        self.take(data);
    }
}

/// Both streams apart.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) out: Tail,
    pub(crate) err: Tail,
}

impl Sink for Split {
    fn control(&mut self, data: &[u8]) {
        self.out.take(data);
    }
    fn log(&mut self, data: &[u8]) {
        self.err.take(data);
    }
}

/// For streams that are read because an unread one would block its writer.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn control(&mut self, _: &[u8]) {}
    fn log(&mut self, _: &[u8]) {}
}
