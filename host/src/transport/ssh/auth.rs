//! Logging in: keys that were given, keys of the user's configuration, the agent's, a password; in this order.

use std::path::Path;

use ssh2::{KeyboardInteractivePrompt, Prompt};

use super::agent;
use super::config::Endpoint;
use super::line::Line;
use crate::transport::{Error, Interrupt, Result};

/// [`Error::Denied`] if the server takes none of what there is; that may change while a machine boots.
pub(super) fn log_in(line: &mut Line, end: &Endpoint, interrupt: Interrupt<'_>) -> Result<()> {
    let user = end.user.as_str();
    let mut tried = vec![];
    if let Some(key) = &end.key_data {
        let session = line.session.clone();
        attempt(line, "the given key", &mut tried, interrupt, |_| {
            session.userauth_pubkey_memory(user, None, key, None)
        })?;
    }
    for key in &end.keys {
        if line.session.authenticated() {
            return Ok(());
        }
        with_file(line, user, key, &mut tried, interrupt)?;
    }
    if !line.session.authenticated() && end.use_agent {
        agent::log_in(line, user, end.agent.as_deref(), &mut tried, interrupt)?;
    }
    for key in &end.default_keys {
        if line.session.authenticated() {
            return Ok(());
        }
        with_file(line, user, key, &mut tried, interrupt)?;
    }
    if let (false, Some(password)) = (line.session.authenticated(), &end.password) {
        attempt(line, "the password", &mut tried, interrupt, |session| {
            session.userauth_password(user, password)
        })?;
        if !line.session.authenticated() {
            let mut prompt = Answer(password);
            attempt(line, "the password, asked for", &mut tried, interrupt, |session| {
                session.userauth_keyboard_interactive(user, &mut prompt)
            })?;
        }
    }
    if line.session.authenticated() {
        return Ok(());
    }
    let tried = if tried.is_empty() {
        "there was no key and no password to try".to_owned()
    } else {
        tried.join("; ")
    };
    Err(Error::Denied(format!("{} did not let {user} in: {tried}", end.shown())))
}

/// A refusal is noted; a dead connection is an error.
pub(super) fn attempt(
    line: &mut Line,
    name: &str,
    tried: &mut Vec<String>,
    interrupt: Interrupt<'_>,
    step: impl FnMut(&ssh2::Session) -> Result<(), ssh2::Error>,
) -> Result<()> {
    match line.finish(name, interrupt, step) {
        Ok(()) => Ok(()),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(e) if line.is_silent() => Err(e),
        // Codes of refused keys and passwords look like those of a dead line; the next step finds out.
        Err(e) => {
            tried.push(e.to_string());
            Ok(())
        }
    }
}

fn with_file(
    line: &mut Line,
    user: &str,
    key: &Path,
    tried: &mut Vec<String>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let name = format!("log in with {}", key.display());
    if let Err(e) = std::fs::File::open(key) {
        return Err(Error::Refused(format!("cannot read the key {}: {e}", key.display())));
    }
    let mut certificate = key.as_os_str().to_owned();
    certificate.push("-cert.pub");
    let certificate = Path::new(&certificate);
    if certificate.exists() {
        attempt(line, &format!("{name} and its certificate"), tried, interrupt, |session| {
            session.userauth_pubkey_file(user, Some(certificate), key, None)
        })?;
        if line.session.authenticated() {
            return Ok(());
        }
    }
    attempt(line, &name, tried, interrupt, |session| session.userauth_pubkey_file(user, None, key, None))
}

/// The same answer to everything that is asked.
struct Answer<'a>(&'a str);

impl KeyboardInteractivePrompt for Answer<'_> {
    fn prompt(&mut self, _: &str, _: &str, prompts: &[Prompt<'_>]) -> Vec<String> {
        prompts.iter().map(|_| self.0.to_owned()).collect()
    }
}
