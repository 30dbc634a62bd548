//! Whether a host is who it says it is.
//!
//! Keys that the plugin gives are the only good ones. Else those of the user's known hosts, of the system's, and of the
//! pool's own file count together. A key that differs from every known one of the host is an error; a host that nobody knows
//! is remembered in the pool's file, unless the check is strict. Certificates of hosts are not supported: a host that only a
//! `@cert-authority` vouches for is refused, as its key would be taken on trust otherwise.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use atex_plugin_api::model::{HostKeyCheck, SshTransport};
use ssh2::{CheckResult, HostKeyType, KnownHostFileKind, MethodType, Session};

use super::config::Endpoint;
use crate::executor::spec::MachineSpec;
use crate::transport::{Error, Result};

/// A file that is larger was not made by ssh.
const MAX_FILE: u64 = 16 << 20;

/// What is known of one host before it is talked to.
#[derive(Debug)]
pub(super) struct Trust {
    check: HostKeyCheck,
    /// Type and key, decoded.
    known: Vec<(String, Vec<u8>)>,
    revoked: Vec<Vec<u8>>,
    /// An authority vouches for the host.
    certified: bool,
    /// Where to remember a new one.
    file: Option<PathBuf>,
    /// As the file has it.
    name: String,
    /// The keys were given, and there can be no others.
    given: bool,
}

impl Trust {
    pub(super) fn gather(end: &Endpoint, ssh: &SshTransport, spec: &MachineSpec) -> Result<Self> {
        // An alias stands for host and port.
        let (host, port) = match &end.key_alias {
            Some(alias) => (alias.as_str(), 22),
            None => (end.host.as_str(), end.port),
        };
        let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        let file = spec.known_hosts.clone();
        let mut trust = Self {
            check: ssh.host_key_check,
            known: vec![],
            revoked: vec![],
            certified: false,
            file,
            name,
            given: false,
        };
        if trust.check == HostKeyCheck::Off {
            return Ok(trust);
        }
        if !end.given_keys.is_empty() {
            trust.given = true;
            for line in &end.given_keys {
                let mut words = line.split_whitespace();
                let key = words
                    .next()
                    .zip(words.next())
                    .and_then(|(kind, key)| Some((kind.to_owned(), decode(key)?)));
                trust.known.push(
                    key.ok_or_else(|| Error::Refused(format!("`{line}` is not a host key (TYPE BASE64)")))?,
                );
            }
            return Ok(trust);
        }
        for path in end.known_hosts.iter().chain(&trust.file.clone()) {
            trust.read(path, host, port)?;
        }
        Ok(trust)
    }

    fn read(&mut self, path: &Path, host: &str, port: u16) -> Result<()> {
        match fs::metadata(path) {
            Err(_) => return Ok(()),
            // Opening a pipe would block.
            Ok(metadata) if !metadata.is_file() => return Ok(()),
            Ok(metadata) if metadata.len() > MAX_FILE => {
                return Err(Error::Refused(format!("{} is too large for known hosts", path.display())));
            }
            Ok(_) => {}
        }
        let text =
            fs::read(path).map_err(|e| Error::Refused(format!("cannot read {}: {e}", path.display())))?;
        for line in String::from_utf8_lossy(&text).lines() {
            self.take(line.trim(), host, port);
        }
        Ok(())
    }

    fn take(&mut self, line: &str, host: &str, port: u16) {
        let (marker, entry) = match line.strip_prefix('@') {
            Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
            None => ("", line),
        };
        let mut words = entry.split_whitespace();
        let (Some(names), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) else { return };
        if names.starts_with('#') || !is_named(names, entry, host, port) {
            return;
        }
        match (marker, decode(key)) {
            ("cert-authority", _) => self.certified = true,
            ("revoked", Some(key)) => self.revoked.push(key),
            ("", Some(key)) => self.known.push((kind.to_owned(), key)),
            _ => {}
        }
    }

    /// A server has keys of several types: it is asked for one that is known.
    pub(super) fn prefer_known_types(&self, session: &Session) -> Result<()> {
        if self.known.is_empty() {
            return Ok(());
        }
        let failed = |e: ssh2::Error| Error::Unreachable(format!("cannot choose the type of host key: {e}"));
        let mut types = session.supported_algs(MethodType::HostKey).map_err(failed)?;
        let is_known = |name: &str| {
            self.known
                .iter()
                .any(|(kind, _)| kind == name || kind == "ssh-rsa" && name.starts_with("rsa-sha2-"))
        };
        types.sort_by_key(|name| !is_known(name));
        session.method_pref(MethodType::HostKey, &types.join(",")).map_err(failed)
    }

    /// After the exchange of keys: is it the right one? Remembers a new one.
    pub(super) fn check(&self, session: &Session, end: &Endpoint) -> Result<()> {
        if self.check == HostKeyCheck::Off {
            return Ok(());
        }
        let shown = end.shown();
        let Some((key, kind)) = session.host_key() else {
            return Err(Error::Unreachable(format!("{shown} showed no host key")));
        };
        if self.revoked.iter().any(|revoked| revoked == key) {
            return Err(Error::Refused(format!("the host key of {shown} was revoked")));
        }
        if self.known.iter().any(|(_, known)| known == key) {
            return Ok(());
        }
        if !self.known.is_empty() {
            let source = if self.given { "the ones that the provisioner gave" } else { "the known ones" };
            return Err(Error::Refused(format!(
                "the host key of {shown} differs from {source}: another machine answers, or it was installed anew \
                 (`ssh-keygen -R '{}'` in the file that has the old key)",
                self.name
            )));
        }
        if self.certified {
            return Err(Error::Refused(format!(
                "{shown} has a known certificate authority (`@cert-authority`) and no known key; certificates of hosts are not \
                 supported here: give its own key, or use transport `exec` with the ssh program"
            )));
        }
        match (self.check, &self.file) {
            (HostKeyCheck::AcceptNew, Some(file)) => self.remember(file, key, kind),
            (HostKeyCheck::AcceptNew, None) => Ok(()),
            _ => Err(Error::Refused(format!(
                "the host key of {shown} is not known, and only known ones are allowed"
            ))),
        }
    }

    /// One write of one line: other threads and processes append to the same file.
    fn remember(&self, file: &Path, key: &[u8], kind: HostKeyType) -> Result<()> {
        let kind = match kind {
            HostKeyType::Rsa => "ssh-rsa",
            HostKeyType::Dss => "ssh-dss",
            HostKeyType::Ecdsa256 => "ecdsa-sha2-nistp256",
            HostKeyType::Ecdsa384 => "ecdsa-sha2-nistp384",
            HostKeyType::Ecdsa521 => "ecdsa-sha2-nistp521",
            HostKeyType::Ed25519 => "ssh-ed25519",
            HostKeyType::Unknown => return Err(Error::Refused("a host key of an unknown type".into())),
        };
        let line = format!("{} {kind} {}\n", self.name, encode(key));
        let written = file
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().append(true).create(true).open(file))
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|e| Error::Refused(format!("cannot write the host key to {}: {e}", file.display())))
    }
}

/// Whether the first field of an entry means this host. Hashed names are left to libssh2.
fn is_named(names: &str, entry: &str, host: &str, port: u16) -> bool {
    if names.starts_with("|1|") {
        return is_hashed_name(entry, host, port).unwrap_or(false);
    }
    let full = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    let full = full.to_ascii_lowercase();
    let mut named = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern.to_ascii_lowercase().as_bytes(), full.as_bytes()) => {
                return false;
            }
            Some(_) => {}
            None => named |= matches(pattern.to_ascii_lowercase().as_bytes(), full.as_bytes()),
        }
    }
    named
}

fn is_hashed_name(entry: &str, host: &str, port: u16) -> Option<bool> {
    let session = Session::new().ok()?;
    let mut file = session.known_hosts().ok()?;
    file.read_str(entry, KnownHostFileKind::OpenSSH).ok()?;
    let key = decode(entry.split_whitespace().nth(2)?)?;
    if host.contains('\0') {
        return None;
    }
    Some(matches!(file.check_port(host, port, &key), CheckResult::Match))
}

/// `*` and `?`, in linear memory and without recursion.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut word, mut bits) = (0_u32, 0);
    for digit in text.bytes() {
        let value = DIGITS.iter().position(|&d| d == digit)?;
        word = (word << 6 | u32::try_from(value).ok()?) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_of_known_hosts() {
        let table = [
            ("host", "host", 22, true),
            ("HOST", "host", 22, true),
            ("other,host", "host", 22, true),
            ("host", "host", 2222, false),
            ("[host]:2222", "host", 2222, true),
            ("*.lab", "a.lab", 22, true),
            ("*.lab,!a.lab", "a.lab", 22, false),
            ("h?st", "host", 22, true),
            ("h*t*", "hoooooost", 22, true),
            ("", "host", 22, false),
        ];
        for (names, host, port, expected) in table {
            assert_eq!(is_named(names, "", host, port), expected, "{names} for {host}:{port}");
        }
    }

    #[test]
    fn hashed_names_are_understood() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("known");
        let key = encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        fs::write(&file, format!("secret.lab ssh-ed25519 {key}\n")).unwrap();
        let hashed = std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output();
        if !hashed.is_ok_and(|output| output.status.success()) {
            return; // no ssh-keygen here
        }
        let line = fs::read_to_string(&file).unwrap();
        assert!(line.starts_with("|1|"), "{line}");
        assert!(is_named("|1|", line.trim(), "secret.lab", 22));
        assert!(!is_named("|1|", line.trim(), "public.lab", 22));
    }

    proptest! {
        #[test]
        fn base64_goes_both_ways(bytes in prop::collection::vec(any::<u8>(), 1..100)) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len() % 4, 0);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn lines_of_a_file_never_panic(line in ".*") {
            let mut trust = Trust {
                check: HostKeyCheck::Strict, known: vec![], revoked: vec![], certified: false, file: None, name: String::new(),
                given: false,
            };
            trust.take(&line, "host", 22);
        }
    }
}
