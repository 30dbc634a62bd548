//! Commands as child processes: on this box, or through a program that takes them elsewhere (`podman exec -i ID`).
//!
//! A child gets a process group of its own, so that Ctrl-C at the host's terminal reaches only the host. Its end is an
//! event by itself (a pidfd): streams may end before the process does, and a daemon may keep them open after it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atex_plugin_api::model::ExecTransport;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{CommandId, Error, Exit, Got, Interrupt, Result, Stream, Transport, Waker, interest, poll_until};

/// How long a program that leads to a machine may take to notice that its stdin was closed, before it is killed.
const GOODBYE: Duration = Duration::from_millis(300);

/// What a login would have; nothing else of the host's environment reaches tests on its own box.
const LOGIN_VARIABLES: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"];

/// See the [module](self).
#[derive(Debug)]
pub struct Process {
    argv: Vec<String>,
    environment: Environment,
    running: BTreeMap<CommandId, Running>,
    next: u32,
    waker: Waker,
}

#[derive(Debug)]
enum Environment {
    Login,
    Inherit(BTreeMap<String, String>),
}

#[derive(Debug)]
struct Running {
    child: Child,
    pidfd: Option<OwnedFd>,
    stdin: Option<ChildStdin>,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
}

impl Process {
    /// Commands on this box, with a login's environment.
    pub fn local(waker: Waker) -> Self {
        Self { argv: vec![], environment: Environment::Login, running: BTreeMap::new(), next: 0, waker }
    }

    /// Commands as arguments of a program.
    pub fn exec(transport: &ExecTransport, waker: Waker) -> Self {
        Self {
            argv: transport.argv.clone(),
            environment: Environment::Inherit(transport.env.clone()),
            running: BTreeMap::new(),
            next: 0,
            waker,
        }
    }

    fn command(&self, words: &[&str]) -> Result<(String, Command)> {
        let mut argv = self.argv.iter().map(String::as_str).chain(words.iter().copied());
        let program = argv.next().ok_or_else(|| Error::Refused("empty command line".into()))?;
        let mut command = Command::new(program);
        command.args(argv);
        match &self.environment {
            Environment::Inherit(more) => {
                command.envs(more);
            }
            Environment::Login => {
                let login = |name: &str| LOGIN_VARIABLES.contains(&name) || name.starts_with("LC_");
                command.env_clear();
                command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(login)));
            }
        }
        Ok((program.to_owned(), command))
    }

    /// Commands on this very box are not killed: they end by themselves when their streams do, and may have to clean up.
    fn patience(&self) -> Option<Duration> {
        match self.environment {
            Environment::Login => None,
            Environment::Inherit(_) => Some(GOODBYE),
        }
    }

    fn get(&mut self, id: CommandId) -> Result<&mut Running> {
        self.running.get_mut(&id).ok_or_else(|| Error::Command("the command was closed".into()))
    }
}

impl Transport for Process {
    fn spawn(&mut self, words: &[&str], _: Interrupt<'_>) -> Result<CommandId> {
        let (program, mut command) = self.command(words)?;
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                Error::Refused(format!("cannot run `{program}`: {e}"))
            }
            _ => Error::Unreachable(format!("cannot run `{program}`: {e}")),
        })?;
        let running = Running {
            pidfd: Pid::from_raw(child.id().cast_signed())
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            stdin: child.stdin.take(),
            out: child.stdout.take(),
            err: child.stderr.take(),
            child,
        };
        running.set_nonblocking().map_err(|e| Error::Command(format!("cannot set up pipes: {e}")))?;
        let id = CommandId(self.next);
        self.next += 1;
        self.running.insert(id, running);
        Ok(id)
    }

    fn write(&mut self, id: CommandId, data: &[u8]) -> Result<usize> {
        let stdin = self.get(id)?.stdin.as_mut();
        match stdin.map_or_else(|| Err(ErrorKind::BrokenPipe.into()), |pipe| pipe.write(data)) {
            Ok(n) => Ok(n),
            Err(e) if is_not_now(&e) => Ok(0),
            Err(e) => Err(Error::Command(format!("cannot write to the command: {e}"))),
        }
    }

    fn close_stdin(&mut self, id: CommandId) -> Result<()> {
        self.get(id)?.stdin = None;
        Ok(())
    }

    fn read(&mut self, id: CommandId, stream: Stream, buffer: &mut [u8]) -> Result<Got> {
        let running = self.get(id)?;
        let got = match stream {
            Stream::Out => running.out.as_mut().map(|pipe| pipe.read(buffer)),
            Stream::Err => running.err.as_mut().map(|pipe| pipe.read(buffer)),
        };
        match got {
            None => Ok(Got::Eof),
            Some(Ok(0)) => {
                match stream {
                    Stream::Out => running.out = None,
                    Stream::Err => running.err = None,
                }
                Ok(Got::Eof)
            }
            Some(Ok(n)) => Ok(Got::Data(n)),
            Some(Err(e)) if is_not_now(&e) => Ok(Got::Blocked),
            Some(Err(e)) => Err(Error::Command(format!("cannot read from the command: {e}"))),
        }
    }

    fn exit(&mut self, id: CommandId) -> Result<Option<Exit>> {
        let running = self.get(id)?;
        let status = running
            .child
            .try_wait()
            .map_err(|e| Error::Command(format!("cannot wait for a command: {e}")))?;
        Ok(status.map(|status| {
            running.pidfd = None;
            status.code().map_or_else(
                || Exit::Signal(status.signal().map_or_else(|| "?".to_owned(), |n| n.to_string())),
                Exit::Status,
            )
        }))
    }

    fn close(&mut self, id: CommandId) {
        if let Some(running) = self.running.remove(&id) {
            running.end(self.patience());
        }
    }

    fn wait(&mut self, writing: bool, until: Instant) -> Result<()> {
        let mut fds = vec![interest(self.waker.as_fd(), true, false)];
        for running in self.running.values() {
            fds.extend(running.out.iter().map(|pipe| interest(pipe.as_fd(), true, false)));
            fds.extend(running.err.iter().map(|pipe| interest(pipe.as_fd(), true, false)));
            fds.extend(running.pidfd.iter().map(|fd| interest(fd.as_fd(), true, false)));
            if writing {
                fds.extend(running.stdin.iter().map(|pipe| interest(pipe.as_fd(), false, true)));
            }
        }
        poll_until(&mut fds, until)
    }
}

/// What a program of this box says on stdout and stderr, of each so many bytes, and how it ended. It is killed if it goes on
/// until `until` ([`Error::Unreachable`]), or if nobody wants to know any more.
pub(super) fn output(
    words: &[&str],
    most: usize,
    until: Instant,
    waker: &Waker,
    interrupt: Interrupt<'_>,
) -> Result<(Exit, [Vec<u8>; 2])> {
    let mut program = Process::exec(&ExecTransport::new(Vec::<String>::new()), waker.clone());
    let id = program.spawn(words, interrupt)?;
    program.close_stdin(id)?;
    let (mut said, mut buffer) = ([vec![], vec![]], [0; 4096]);
    loop {
        let mut ends = 0;
        for (stream, said) in [Stream::Out, Stream::Err].into_iter().zip(&mut said) {
            match program.read(id, stream, &mut buffer)? {
                Got::Data(n) if said.len() < most => said.extend_from_slice(&buffer[..n]),
                Got::Data(_) | Got::Blocked => {}
                Got::Eof => ends += 1,
            }
        }
        if let (2, Some(exit)) = (ends, program.exit(id)?) {
            return Ok((exit, said));
        }
        if waker.is_stopped() || interrupt() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Error::Unreachable(format!("`{}` does not end", words.join(" "))));
        }
        program.wait(false, until)?;
        waker.drain();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let patience = self.patience();
        for running in std::mem::take(&mut self.running).into_values() {
            running.end(patience);
        }
    }
}

impl Running {
    fn set_nonblocking(&self) -> rustix::io::Result<()> {
        let streams = [
            self.stdin.as_ref().map(AsFd::as_fd),
            self.out.as_ref().map(AsFd::as_fd),
            self.err.as_ref().map(AsFd::as_fd),
        ];
        streams.into_iter().flatten().try_for_each(|fd| rustix::io::ioctl_fionbio(fd, true))
    }

    /// Close the streams and reap the process; kill it if it is not over when patience ends.
    fn end(mut self, patience: Option<Duration>) {
        (self.stdin, self.out, self.err) = (None, None, None);
        if let (Some(patience), Some(pidfd)) = (patience, &self.pidfd) {
            let _ = poll_until(&mut [interest(pidfd.as_fd(), true, false)], Instant::now() + patience);
        }
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            if patience.is_some() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            } else {
                adopt(self.child);
            }
        }
    }
}

/// Children that were left to end by themselves; each call reaps those that have.
fn adopt(child: Child) {
    static LEFT: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    left.push(child);
}

fn is_not_now(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
