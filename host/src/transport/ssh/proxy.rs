//! `ProxyCommand` of the user's ssh configuration: a program whose stdin and stdout are the way to a host.
//!
//! libssh2 speaks to one descriptor, so the program gets one end of a socket pair for both. It runs as long as the session does and
//! is killed with its process group afterwards.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::config::Endpoint;
use crate::transport::{Error, Result};

/// How much of what the program says is shown.
const SHOWN: u64 = 1000;

/// The running program.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    said: File,
}

impl Proxy {
    /// Starts the program for `end`; a descriptor that leads there.
    pub(super) fn start(command: &str, end: &Endpoint) -> Result<(OwnedFd, Self)> {
        let command = expand(command, end)?;
        let failed =
            |e: std::io::Error| Error::Unreachable(format!("cannot run ProxyCommand {command}: {e}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let said = tempfile::tempfile().map_err(failed)?;
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("exec {command}")])
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().map_err(failed)?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(said.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        Ok((ours.into(), Self { child, said }))
    }

    /// The same error with what the program said, which mostly knows better why nobody answers.
    pub(super) fn explain(&mut self, error: Error) -> Error {
        let Error::Unreachable(why) = error else { return error };
        let mut said = Vec::new();
        let read =
            self.said.seek(SeekFrom::Start(0)).and_then(|_| (&self.said).take(SHOWN).read_to_end(&mut said));
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match read {
            Ok(_) if !lines.is_empty() => {
                Error::Unreachable(format!("{why}; ProxyCommand: {}", lines.join(" | ")))
            }
            _ => Error::Unreachable(why),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// `%h`, `%n`, `%p`, `%r` and `%%`, as ssh has them. What stands for them comes from the configuration and is not quoted there
/// either; a user name with anything special in it is refused.
fn expand(command: &str, end: &Endpoint) -> Result<String> {
    let mut words = String::with_capacity(command.len() + end.host.len());
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            words.push(c);
            continue;
        }
        match rest.next() {
            Some('%') => words.push('%'),
            Some('h') => words.push_str(plain(&end.host)?),
            Some('n') => words.push_str(plain(&end.alias)?),
            Some('p') => words.push_str(&end.port.to_string()),
            Some('r') => words.push_str(plain(&end.user)?),
            other => {
                let token = other.map(String::from).unwrap_or_default();
                return Err(Error::Refused(format!(
                    "ProxyCommand {command}: `%{token}` is not known (known: %h, %n, %p, %r, %%)"
                )));
            }
        }
    }
    Ok(words)
}

fn plain(word: &str) -> Result<&str> {
    let is_plain = |c: char| c.is_alphanumeric() || "._-:@%+=,\\".contains(c);
    if !word.starts_with('-') && word.chars().all(is_plain) {
        return Ok(word);
    }
    Err(Error::Refused(format!("`{}` cannot be given to a ProxyCommand", word.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(user: &str) -> Endpoint {
        Endpoint {
            host: "real.lab".into(),
            alias: "box".into(),
            port: 2222,
            user: user.into(),
            ..Endpoint::default()
        }
    }

    #[test]
    fn words_for_the_program() {
        let table = [
            ("nc %h %p", Some("nc real.lab 2222")),
            ("x %n %r%%", Some("x box me%")),
            ("x %%h", Some("x %h")),
            ("x %d", None),
            ("x %", None),
        ];
        for (command, expected) in table {
            assert_eq!(expand(command, &end("me")).ok().as_deref(), expected, "{command}");
        }
        for user in ["a;b", "$(id)", "-x", "a b", "a'"] {
            assert!(expand("x %r", &end(user)).is_err(), "{user}");
            assert!(expand("x %h", &end(user)).is_ok(), "{user}: not asked for");
        }
    }

    #[test]
    fn what_it_says_is_told() {
        let (socket, mut proxy) = Proxy::start("sh -c 'echo no route >&2'", &end("me")).unwrap();
        // Its end of the pair is closed when it has ended.
        let mut peer = UnixStream::from(socket);
        peer.set_nonblocking(false).unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        let error = proxy.explain(Error::Unreachable("nobody".into())).to_string();
        assert_eq!(error, "nobody; ProxyCommand: no route");
        assert!(matches!(proxy.explain(Error::Interrupted), Error::Interrupted));
    }
}
