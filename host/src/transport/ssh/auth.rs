//! Logging in: keys that were given, keys of the user's configuration, the agent's, a password; in this order.

use std::path::Path;

use ssh2::{KeyboardInteractivePrompt, Prompt};

use super::config::Endpoint;
use super::line::Line;
use crate::transport::{Error, Result};

/// [`Error::Denied`] if the server takes none of what there is; that may change while a machine boots.
pub(super) fn log_in(line: &mut Line, end: &Endpoint) -> Result<()> {
    let user = end.user.as_str();
    let mut tried = vec![];
    if let Some(key) = &end.key_data {
        let session = line.session.clone();
        attempt(line, "the given key", &mut tried, |_| {
            session.userauth_pubkey_memory(user, None, key, None)
        })?;
    }
    for key in &end.keys {
        if line.session.authenticated() {
            return Ok(());
        }
        with_file(line, user, key, &mut tried)?;
    }
    if !line.session.authenticated() && end.use_agent {
        with_agent(line, user, end.agent.as_deref(), &mut tried)?;
    }
    for key in &end.default_keys {
        if line.session.authenticated() {
            return Ok(());
        }
        with_file(line, user, key, &mut tried)?;
    }
    if let (false, Some(password)) = (line.session.authenticated(), &end.password) {
        attempt(line, "the password", &mut tried, |session| session.userauth_password(user, password))?;
        if !line.session.authenticated() {
            let mut prompt = Answer(password);
            attempt(line, "the password, asked for", &mut tried, |session| {
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
fn attempt(
    line: &mut Line,
    name: &str,
    tried: &mut Vec<String>,
    step: impl FnMut(&ssh2::Session) -> Result<(), ssh2::Error>,
) -> Result<()> {
    match line.finish(name, step) {
        Ok(()) => Ok(()),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        // Codes of refused keys and passwords look like those of a dead line; the next step finds out.
        Err(e) => {
            tried.push(e.to_string());
            Ok(())
        }
    }
}

fn with_file(line: &mut Line, user: &str, key: &Path, tried: &mut Vec<String>) -> Result<()> {
    let name = format!("log in with {}", key.display());
    if let Err(e) = std::fs::File::open(key) {
        return Err(Error::Refused(format!("cannot read the key {}: {e}", key.display())));
    }
    let mut certificate = key.as_os_str().to_owned();
    certificate.push("-cert.pub");
    let certificate = Path::new(&certificate);
    if certificate.exists() {
        attempt(line, &format!("{name} and its certificate"), tried, |session| {
            session.userauth_pubkey_file(user, Some(certificate), key, None)
        })?;
        if line.session.authenticated() {
            return Ok(());
        }
    }
    attempt(line, &name, tried, |session| session.userauth_pubkey_file(user, None, key, None))
}

/// Every identity: the crate's own function stops after the first.
fn with_agent(line: &mut Line, user: &str, path: Option<&Path>, tried: &mut Vec<String>) -> Result<()> {
    let Ok(mut agent) = line.session.agent() else { return Ok(()) };
    if let Some(path) = path {
        let _ = agent.set_identity_path(path);
    }
    if agent.connect().is_err() || agent.list_identities().is_err() {
        tried.push("no agent answers".into());
        return Ok(());
    }
    for identity in agent.identities().unwrap_or_default() {
        let name = format!("log in with the agent's key {}", identity.comment());
        attempt(line, &name, tried, |_| agent.userauth(user, &identity))?;
        if line.session.authenticated() {
            break;
        }
    }
    let _ = agent.disconnect();
    Ok(())
}

/// The same answer to everything that is asked.
struct Answer<'a>(&'a str);

impl KeyboardInteractivePrompt for Answer<'_> {
    fn prompt(&mut self, _: &str, _: &str, prompts: &[Prompt<'_>]) -> Vec<String> {
        prompts.iter().map(|_| self.0.to_owned()).collect()
    }
}
