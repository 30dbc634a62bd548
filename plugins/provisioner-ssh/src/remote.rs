//! Small commands on a machine, by the `ssh` program: whatever the user's ssh configuration can do works here.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atex_plugin_api::{Error, ErrorKind, Result, Secret};
use atex_plugin_process::{Call, Output, Program, last_lines};

use crate::config::{Config, KeyCheck};
use crate::hosts::Machine;

/// What ssh exits with when the connection itself failed.
const FAILED: i32 = 255;
/// How long a command that only looks at a few files may take, beside connecting.
pub(crate) const QUICK: Duration = Duration::from_secs(20);

/// Variable that ssh hands to [`askpass`].
const ANSWER: &str = "ATEX_SSH_PASSWORD";

/// A command on a machine that did not come to its own end.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: Error,
    /// Whether it may have begun.
    pub(crate) begun: bool,
}

/// Runs `script` by the machine's `sh`, for `limit` at most beside connecting.
pub(crate) fn run(
    config: &Config,
    state_dir: &Path,
    machine: &Machine,
    script: String,
    limit: Duration,
    call: &Call,
) -> Result<Output, Broken> {
    let whole = |error: Error| Broken { error: error.context(machine.address.to_string()), begun: false };
    let password = password(config, machine).map_err(whole)?;
    let mut program = Program::new([config.program.as_str()]);
    if let Some(password) = &password {
        let ask = askpass(state_dir).map_err(whole)?;
        for (key, value) in [
            ("SSH_ASKPASS", ask.as_os_str()),
            ("SSH_ASKPASS_REQUIRE", "force".as_ref()),
            ("DISPLAY", ":".as_ref()),
        ] {
            program = program.env(key, value);
        }
        program = program.env(ANSWER, password.expose());
    }
    let program = program
        .args(arguments(config, state_dir, machine, password.is_some()))
        .args(["--", &machine.address.host, "sh -s"])
        .stdin(script)
        .limit(config.connect_timeout.0.saturating_add(limit))
        .grace(Duration::ZERO)
        .output_limit(1 << 20);
    match program.run(call) {
        Ok(output) if output.status.code() == Some(FAILED) => {
            let (kind, begun) = classify(&output.stderr);
            let message = format!("{}: {}", machine.address, last_lines(&output.stderr, 2));
            Err(Broken { error: Error::new(kind, message), begun })
        }
        Ok(output) => Ok(output),
        Err(error) => {
            let begun = error.kind() != ErrorKind::Config;
            Err(Broken { error: error.context(machine.address.to_string()), begun })
        }
    }
}

/// The machine's password, or the pool's.
pub(crate) fn password(config: &Config, machine: &Machine) -> Result<Option<Secret>> {
    match &machine.password {
        Some(password) => Ok(Some(password.clone())),
        None => config.password(),
    }
}

/// The program that ssh asks for the password: it tells what is in the environment that only ssh was given.
fn askpass(state_dir: &Path) -> Result<PathBuf> {
    let path = state_dir.join("askpass");
    if path.exists() {
        return Ok(path);
    }
    let unfinished = state_dir.join(format!(".askpass.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o700).open(&unfinished)?;
        writeln!(file, "#!/bin/sh\nprintf '%s\\n' \"${ANSWER}\"")?;
        // A program that is open for writing cannot be started.
        drop(file);
        std::fs::rename(&unfinished, &path)
    };
    write().map_err(|error| Error::from(error).context(format!("writing {}", path.display())))?;
    Ok(path)
}

fn arguments(config: &Config, state_dir: &Path, machine: &Machine, password: bool) -> Vec<String> {
    let mut args = vec!["-T".to_owned(), "-x".to_owned()];
    let mut option = |key: &str, value: &str| args.push(format!("-o{key}={value}"));
    // The user's own word comes first: ssh takes the first value of an option.
    for (key, value) in &config.ssh_options {
        option(key, value);
    }
    if password {
        option("NumberOfPasswordPrompts", "1");
        option("PreferredAuthentications", "publickey,password,keyboard-interactive");
    } else {
        option("BatchMode", "yes");
    }
    option("ClearAllForwardings", "yes");
    option("ConnectTimeout", &config.connect_timeout.0.as_secs().max(1).to_string());
    option("ServerAliveInterval", "10");
    option("ServerAliveCountMax", "3");
    let known = state_dir.join("known_hosts");
    match config.host_key_check {
        KeyCheck::AcceptNew => {
            option("StrictHostKeyChecking", "accept-new");
            option("UserKnownHostsFile", &format!("\"{}\" ~/.ssh/known_hosts", known.display()));
        }
        KeyCheck::Strict => option("StrictHostKeyChecking", "yes"),
        KeyCheck::Off => {
            option("StrictHostKeyChecking", "no");
            option("UserKnownHostsFile", "/dev/null");
            option("GlobalKnownHostsFile", "/dev/null");
            option("LogLevel", "ERROR");
        }
    }
    let keys = machine.keys.as_ref().unwrap_or(&config.keys);
    if !keys.is_empty() {
        option("IdentitiesOnly", "yes");
    }
    args.extend(keys.iter().map(|key| format!("-i{key}")));
    args.extend(machine.address.user.iter().map(|user| format!("-l{user}")));
    args.extend(machine.address.port.iter().map(|port| format!("-p{port}")));
    let jump = machine.jump.as_ref().unwrap_or(&config.jump);
    if !jump.is_empty() {
        args.push(format!("-J{}", jump.join(",")));
    }
    args
}

/// What ssh's words mean: the kind of failure, and whether a command may have begun.
fn classify(stderr: &str) -> (ErrorKind, bool) {
    const DENIED: [&str; 3] =
        ["Permission denied", "Host key verification failed", "Too many authentication failures"];
    const NEVER: [&str; 8] = [
        "Could not resolve",
        "Connection refused",
        "No route to host",
        "Network is unreachable",
        "Connection timed out",
        "timed out during banner exchange",
        "kex_exchange_identification",
        "Name or service not known",
    ];
    if DENIED.iter().any(|word| stderr.contains(word)) {
        (ErrorKind::Denied, false)
    } else {
        (ErrorKind::Unreachable, !NEVER.iter().any(|word| stderr.contains(word)))
    }
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::read_config;

    use super::*;
    use crate::hosts::Entry;

    #[test]
    fn arguments_follow_from_options() {
        let config: Config = read_config(
            r#"{"keys": ["/k"], "jump": ["a@b:1", "c"], "ssh-options": {"ProxyCommand": "x y"}, "user": "me",
                "connect-timeout": "5s"}"#,
        )
        .unwrap();
        let machine = Entry::Text("n1:2222".into()).machine(config.user.as_deref(), config.port).unwrap();
        let args = arguments(&config, Path::new("/s"), &machine, false).join("|");
        for expected in
            ["-oProxyCommand=x y|-oBatchMode=yes", "|-i/k|-lme|-p2222|-Ja@b:1,c", "ConnectTimeout=5|"]
        {
            assert!(args.contains(expected), "{args}");
        }
        let with_password = arguments(&config, Path::new("/s"), &machine, true).join("|");
        assert!(
            !with_password.contains("BatchMode") && with_password.contains("Prompts=1"),
            "{with_password}"
        );
        assert!(args.contains("-oUserKnownHostsFile=\"/s/known_hosts\" ~/.ssh/known_hosts"), "{args}");
    }

    #[test]
    fn words_of_ssh_are_understood() {
        let table = [
            ("ssh: connect to host n1 port 22: Connection refused", ErrorKind::Unreachable, false),
            ("root@n1: Permission denied (publickey).", ErrorKind::Denied, false),
            ("Connection to n1 closed by remote host.", ErrorKind::Unreachable, true),
            ("Timeout, server n1 not responding.", ErrorKind::Unreachable, true),
        ];
        for (stderr, kind, begun) in table {
            assert_eq!(classify(stderr), (kind, begun), "{stderr}");
        }
    }
}
