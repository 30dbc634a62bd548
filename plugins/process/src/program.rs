//! Runs a program: bounded output, a deadline, and an end to the whole process group when the call is cancelled.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use atex_plugin_api::{Error, ErrorKind, Host, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::call::{Call, wait_for};

/// How long a program gets between SIGTERM and SIGKILL, unless it is told otherwise.
const GRACE: Duration = Duration::from_secs(5);
/// Most of stdout that is kept, unless it is told otherwise.
const OUTPUT_LIMIT: usize = 4 << 20;
/// How much of the end of stderr is kept for error messages.
const STDERR_TAIL: usize = 4 << 10;
/// Lines of stderr that go to the log; a program that complains more is not worth a full disk.
const STDERR_LINES: usize = 1000;
/// Longest line of stderr that is logged in one piece.
const STDERR_LINE: usize = 4 << 10;

/// A program with its arguments, and how to treat it.
#[derive(Debug, Clone)]
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    limit: Option<Duration>,
    output_limit: usize,
    grace: Duration,
}

/// What a program left when it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// The end of its stderr.
    pub stderr: String,
}

impl Output {
    /// stdout as text, bytes that are none replaced, without white space at the end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl Program {
    /// `argv`: the program, looked for in `PATH` if it has no slash, and its arguments.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: Vec::new(),
            limit: None,
            output_limit: OUTPUT_LIMIT,
            grace: GRACE,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more environment variable, beside those of the host.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What it reads; nothing if not given.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may take, beside what the call allows.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Most bytes it may write to stdout before it is ended.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// How long it has to end by itself after SIGTERM.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The command line, for people.
    pub fn line(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// The program's name without directories.
    fn name(&self) -> String {
        let path = self.argv.first().map(OsString::as_os_str).unwrap_or_default();
        std::path::Path::new(path).file_name().unwrap_or(path).to_string_lossy().into_owned()
    }

    /// Runs it and waits for its end.
    ///
    /// # Errors
    ///
    /// It could not be started, it was cancelled (kind `Cancelled`), took too long or wrote too much; in these cases its
    /// process group is gone. An exit status other than 0 is none of these: see [`check`](Self::check).
    pub fn run(&self, call: &Call) -> Result<Output> {
        let mut stdout = Vec::new();
        let (status, stderr) = self.run_with(call, &mut |bytes| {
            if stdout.len() + bytes.len() > self.output_limit {
                return Err(Error::new(
                    ErrorKind::Other,
                    format!("{} wrote more than {} bytes", self.name(), self.output_limit),
                ));
            }
            stdout.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs it, handing its stdout to `sink` piece by piece; an error of the sink ends it. Returns its status and the end
    /// of its stderr.
    pub fn run_with(
        &self,
        call: &Call,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(ExitStatus, String)> {
        call.check()?;
        let mut running = Running::start(self, call)?;
        let ended = running.drive(sink);
        if ended.is_err() {
            running.stop();
        }
        let status = running.reap();
        running.stderr.finish();
        ended?;
        Ok((
            status.map_err(|error| Error::from(error).context("waiting for a program"))?,
            running.stderr.tail(),
        ))
    }

    /// Runs one that makes something by asking a service for it. If it does not come to its own end, the service may do what it was
    /// asked for all the same, later: that is told so that the host goes on looking for it.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check); [uncertain](Error::uncertain) without an exit status.
    pub fn make(&self, call: &Call) -> Result<()> {
        let output = self.run(call).map_err(|error| {
            let message = format!("{}: it may have been obeyed all the same: {error}", self.name());
            Error::new(ErrorKind::Other, message).retryable(false).uncertain()
        })?;
        if output.status.success() { Ok(()) } else { Err(self.failed(output.status, &output.stderr)) }
    }

    /// Runs it; an exit status other than 0 is an error with the end of stderr. Returns stdout.
    pub fn check(&self, call: &Call) -> Result<String> {
        let output = self.run(call)?;
        if output.status.success() {
            Ok(output.text())
        } else {
            Err(self.failed(output.status, &output.stderr))
        }
    }

    /// An error that says how it ended and why.
    pub fn failed(&self, status: ExitStatus, stderr: &str) -> Error {
        let reason = last_lines(stderr, 3);
        let message = if reason.is_empty() {
            format!("{} ended with {status} and no message", self.name())
        } else {
            format!("{} ended with {status}: {reason}", self.name())
        };
        Error::new(ErrorKind::Other, message).with_detail(self.line())
    }
}

/// An error, for the user to mend, if `program` (looked for in `PATH` if it has no slash) cannot be started.
pub fn require(program: &str) -> Result<()> {
    let usable = |path: &std::path::Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        usable(program.as_ref())
    } else {
        std::env::split_paths(&path).any(|directory| usable(&directory.join(program)))
    };
    if found {
        return Ok(());
    }
    let kind = if program.contains('/') && std::path::Path::new(program).exists() {
        io::ErrorKind::PermissionDenied
    } else {
        io::ErrorKind::NotFound
    };
    Err(cannot_start(program.as_ref(), &kind.into()))
}

/// The last `count` lines of `text` that are not empty, on one line.
pub fn last_lines(text: &str, count: usize) -> String {
    let mut lines: Vec<&str> =
        text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(count).collect();
    lines.reverse();
    lines.join(" | ")
}

/// A program that was started and not yet reaped.
struct Running<'a> {
    program: &'a Program,
    call: &'a Call,
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<(OwnedFd, &'a [u8])>,
    stdout: Option<OwnedFd>,
    stderr_pipe: Option<OwnedFd>,
    stderr: Stderr,
    deadline: Option<Instant>,
}

impl<'a> Running<'a> {
    fn start(program: &'a Program, call: &'a Call) -> Result<Self> {
        let mut child = spawn(program)?;
        let pidfd = match pidfd_open(pid(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Nothing could wait for it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::from(error).context(format!("watching {}", program.name())));
            }
        };
        let deadline = [program.limit, call.remaining()].into_iter().flatten().min();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let running = Self {
            stdin: pipes.0.map(|pipe| (OwnedFd::from(pipe), program.stdin.as_slice())),
            stdout: pipes.1.map(OwnedFd::from),
            stderr_pipe: pipes.2.map(OwnedFd::from),
            stderr: Stderr::new(program.name(), call.host().clone()),
            deadline: deadline.and_then(|limit| Instant::now().checked_add(limit)),
            program,
            call,
            child,
            pidfd,
        };
        for pipe in [
            running.stdin.as_ref().map(|(pipe, _)| pipe),
            running.stdout.as_ref(),
            running.stderr_pipe.as_ref(),
        ] {
            // A pipe that stays blocking would only be slow: every read and write follows a poll.
            let _ = pipe.map(|pipe| rustix::io::ioctl_fionbio(pipe, true));
        }
        Ok(running)
    }

    /// Until it ends by itself (`Ok`), or must be ended.
    fn drive(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            let exited = self.wait(true);
            self.feed();
            self.read_stdout(sink)?;
            self.read_stderr();
            if exited {
                return Ok(());
            }
            self.call.check()?;
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let message = format!("{} took too long and was ended", self.program.name());
                return Err(Error::new(ErrorKind::Other, message).with_detail(self.program.line()));
            }
        }
    }

    /// Waits until something can be done; says whether the program has ended. What it wrote before is in the pipes then.
    fn wait(&self, until_cancelled: bool) -> bool {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        if until_cancelled {
            fds.push(PollFd::from_borrowed_fd(self.call.signal(), PollFlags::IN));
        }
        if let Some((pipe, _)) = &self.stdin {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        for pipe in [&self.stdout, &self.stderr_pipe].into_iter().flatten() {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        wait_for(&mut fds, self.deadline);
        fds.first().is_some_and(|fd| !fd.revents().is_empty())
    }

    fn feed(&mut self) {
        let Some((pipe, rest)) = &mut self.stdin else { return };
        while !rest.is_empty() {
            match rustix::io::write(&*pipe, rest) {
                Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                // It does not want to read: its own affair.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn read_stdout(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        drain(&mut self.stdout, sink)
    }

    fn read_stderr(&mut self) {
        let stderr = &mut self.stderr;
        let _ = drain(&mut self.stderr_pipe, &mut |bytes| {
            stderr.take(bytes);
            Ok(())
        });
    }

    /// SIGTERM to the whole group, then SIGKILL when the grace is over. The leader is not reaped yet, so its number still
    /// stands for its group.
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.stdin = None;
        self.deadline = Instant::now().checked_add(self.program.grace);
        while !self.wait(false) && self.deadline.is_some_and(|deadline| Instant::now() < deadline) {
            // Nobody wants what it still writes, but a full pipe would keep it from ending.
            let _ = drain(&mut self.stdout, &mut |_| Ok(()));
            self.read_stderr();
        }
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Fails only if nobody of the group is left.
        let _ = kill_process_group(pid(&self.child), signal);
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.read_stderr();
        status
    }
}

fn spawn(program: &Program) -> Result<Child> {
    let name = program.argv.first().map(OsString::as_os_str).unwrap_or_default();
    let mut command = Command::new(name);
    command
        .args(program.argv.get(1..).unwrap_or_default())
        .envs(program.env.iter().map(|(key, value)| (key, value)))
        .process_group(0)
        .stdin(if program.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|error| cannot_start(name, &error))
}

fn cannot_start(name: &OsStr, error: &io::Error) -> Error {
    let name = name.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => Error::config(format!(
            "cannot start {name:?}: there is no such program; is it installed and in PATH?"
        )),
        io::ErrorKind::PermissionDenied => {
            Error::config(format!("cannot start {name:?}: it may not be executed; `chmod +x` would help"))
        }
        _ => Error::new(ErrorKind::Other, format!("cannot start {name:?}: {error}")),
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Reads what is there; the pipe is closed at its end.
fn drain(pipe: &mut Option<OwnedFd>, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = [0_u8; 16 << 10];
    while let Some(open) = pipe {
        match rustix::io::read(open.as_fd(), &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => sink(buffer.get(..count).unwrap_or_default())?,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(_) => *pipe = None,
        }
    }
    Ok(())
}

/// stderr of a program: to the log line by line, and its end kept.
struct Stderr {
    name: String,
    host: Host,
    line: Vec<u8>,
    lines: usize,
    tail: VecDeque<u8>,
}

impl Stderr {
    fn new(name: String, host: Host) -> Self {
        Self { name, host, line: Vec::new(), lines: 0, tail: VecDeque::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(STDERR_TAIL)..).unwrap_or_default();
        let surplus = (self.tail.len() + kept.len()).saturating_sub(STDERR_TAIL);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend(kept);
        for &byte in bytes {
            if byte == b'\n' || self.line.len() >= STDERR_LINE {
                self.finish();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    /// Logs the line that has come so far.
    fn finish(&mut self) {
        if !self.line.is_empty() && self.lines < STDERR_LINES {
            self.host.debug(format!("{}: {}", self.name, String::from_utf8_lossy(&self.line)));
            self.lines += 1;
        }
        self.line.clear();
    }

    fn tail(&self) -> String {
        String::from_utf8_lossy(&self.tail.iter().copied().collect::<Vec<_>>()).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use atex_plugin_api::host_side::Cancel;

    use super::*;
    use crate::testing::{Fake, fake};

    const LONG: Duration = Duration::from_hours(1);

    fn call() -> (Arc<Fake>, Call) {
        let (services, host) = fake(Cancel::new());
        (services, Call::new(&host).unwrap())
    }

    fn sh(script: &str) -> Program {
        Program::new(["sh", "-c", script])
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (_, call) = call();
        let megabyte = vec![b'x'; 1 << 20];
        let output = Program::new(["cat"]).stdin(megabyte.clone()).run(&call).unwrap();
        assert!(output.stdout == megabyte && output.status.success());
        assert_eq!(sh("cat; printf %s \"$A\"").env("A", "b c").check(&call).unwrap(), "b c");
        assert_eq!(
            sh("exec <&-; echo x").stdin(megabyte).check(&call).unwrap(),
            "x",
            "unread input is no error"
        );
    }

    #[test]
    fn a_status_is_told_with_the_reason() {
        let (services, call) = call();
        let error = sh("echo one >&2; echo 'no such thing' >&2; exit 3").check(&call).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status: 3: one | no such thing");
        assert_eq!(*services.log.lock().unwrap(), ["sh: one", "sh: no such thing"]);
        let output = sh("kill -9 $$").run(&call).unwrap();
        assert_eq!(output.status.code(), None);
    }

    #[test]
    fn a_program_that_is_missing_is_the_users_to_mend() {
        let error = Program::new(["no-such-program-anywhere"]).run(&call().1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("is it installed"), "{error}");
        let error = Program::new(["/etc/passwd"]).run(&call().1).unwrap_err();
        assert!(error.to_string().contains("chmod"), "{error}");
        for program in ["no-such-program-anywhere", "/no/such", "/etc/passwd", "/etc", ""] {
            assert_eq!(require(program).unwrap_err().kind(), ErrorKind::Config, "{program:?}");
        }
        for program in ["sh", "/bin/sh"] {
            require(program).unwrap();
        }
    }

    #[test]
    fn too_much_is_refused() {
        let error = sh("yes").output_limit(100_000).grace(LONG).run(&call().1).unwrap_err();
        assert_eq!(error.to_string(), "sh wrote more than 100000 bytes");
    }

    #[test]
    fn a_flood_on_stderr_keeps_its_end() {
        let (services, call) = call();
        let output = sh("yes complaint | head -n 100000 >&2; echo last >&2").run(&call).unwrap();
        assert!(output.stderr.ends_with("complaint\nlast") && output.stderr.len() <= STDERR_TAIL);
        assert_eq!(services.log.lock().unwrap().len(), STDERR_LINES);
    }

    #[test]
    fn its_own_limit_ends_it() {
        let error = sh("sleep 3600").limit(Duration::from_millis(1)).run(&call().1).unwrap_err();
        assert_eq!(error.to_string(), "sh took too long and was ended");
    }

    /// Cancels as soon as the program has said that it is ready.
    fn cancel_when_ready(program: &Program) -> (Error, String) {
        let (_, call) = call();
        let mut said = String::new();
        let error = program
            .run_with(&call, &mut |bytes| {
                said.push_str(&String::from_utf8_lossy(bytes));
                if said.ends_with("ready\n") {
                    call.cancel();
                }
                Ok(())
            })
            .unwrap_err();
        (error, said)
    }

    #[test]
    fn cancelling_ends_the_whole_group() {
        let program = sh("sh -c 'echo $$; sleep 3600; :' & echo $$; sleep 0.05; echo ready; wait");
        let (error, said) = cancel_when_ready(&program);
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        for pid in said.lines().filter_map(|line| line.parse().ok()) {
            // A process that was killed may take a moment to be gone.
            let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { continue };
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            wait_for(&mut fds, Instant::now().checked_add(Duration::from_mins(1)));
            assert!(!fds[0].revents().is_empty(), "{pid} still runs");
        }
    }

    #[test]
    fn who_ignores_sigterm_is_killed() {
        let program =
            sh("trap '' TERM; echo ready; while :; do sleep 3600; done").grace(Duration::from_millis(1));
        assert_eq!(cancel_when_ready(&program).0.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn the_hosts_token_ends_it_too() {
        let (services, call) = call();
        let canceller = thread::Builder::new().spawn(move || services.cancel.cancel()).unwrap();
        let error = sh("sleep 3600").run(&call).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        canceller.join().unwrap();
        assert_eq!(
            sh(":").run(&call).unwrap_err().kind(),
            ErrorKind::Cancelled,
            "and nothing is started after it"
        );
    }

    #[test]
    fn a_daemon_that_keeps_the_pipes_open_holds_nobody_up() {
        let (_, call) = call();
        let text = sh("sleep 3600 & echo $!").check(&call).unwrap();
        let daemon: i32 = text.parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn what_was_asked_for_without_an_answer_may_still_come() {
        let (_, host) = crate::testing::fake_at("");
        let call = Call::new(&host).unwrap();
        assert!(Program::new(["true"]).make(&call).is_ok());
        let refused = Program::new(["false"]).make(&call).unwrap_err();
        assert!(refused.is_retryable(), "it was answered: {refused}");
        let silent = Program::new(["sleep", "1000"]).limit(Duration::ZERO).grace(Duration::ZERO);
        let unknown = silent.make(&call).unwrap_err();
        assert_eq!((unknown.kind(), unknown.is_retryable()), (ErrorKind::Other, false), "{unknown}");
    }

    #[test]
    fn the_end_of_a_text() {
        assert_eq!(last_lines("a\n\n b \nc\n", 2), "b | c");
        assert_eq!(last_lines("", 2), "");
    }
}
