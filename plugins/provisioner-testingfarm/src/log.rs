//! The log of a request's pipeline, read on as it grows: where the guest is, and when it is being kept.

/// Longest line that is looked at.
const LINE_LIMIT: usize = 16 << 10;

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Bytes that were read.
    offset: u64,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    guest: Option<Guest>,
    executing: bool,
}

/// Where to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) user: String,
    pub(crate) host: String,
}

impl Log {
    /// From where to read on.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The guest, once the test that keeps it is about to run.
    pub(crate) fn kept_guest(&self) -> Option<&Guest> {
        self.guest.as_ref().filter(|_| self.executing)
    }

    /// What the user may want to know.
    pub(crate) fn progress(&self) -> &'static str {
        if self.guest.is_some() { "the guest is being set up" } else { "waiting for a guest" }
    }

    /// An answer: 206 brings what is new, 200 all there is; 416 says that nothing is new, 403 and 404 that there is no log yet.
    pub(crate) fn take(&mut self, status: u16, body: &[u8]) {
        let new = match status {
            206 => body,
            200 => body.get(usize::try_from(self.offset).unwrap_or(usize::MAX)..).unwrap_or_default(),
            _ => return,
        };
        self.offset += new.len() as u64;
        for piece in new.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_LIMIT.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.look(&String::from_utf8_lossy(&line));
            }
        }
    }

    fn look(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("] Guest is ready: ArtemisGuest(") {
            self.guest =
                rest.split([',', ')']).find_map(|part| Guest::parse(part.trim())).or(self.guest.take());
        } else if line.contains("] starting tests execution") {
            self.executing = true;
        }
    }
}

impl Guest {
    /// Reads `USER@HOST`; nothing in it may be taken for an option.
    fn parse(text: &str) -> Option<Self> {
        let (user, host) = text.split_once('@')?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        let word = |text: &str| {
            !text.is_empty() && text.len() < 200 && !text.starts_with('-') && text.chars().all(fits)
        };
        (word(user) && word(host)).then(|| Self { user: user.to_owned(), host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "[12:00:00] [+] queued\n\
        [12:00:01] [+] [9b1] Guest is ready: ArtemisGuest(9b1, root@192.0.2.7, arch=x86_64)\n\
        [12:00:02] [+] [9b1] starting tests execution\n";

    fn guest() -> Guest {
        Guest { user: "root".into(), host: "192.0.2.7".into() }
    }

    #[test]
    fn a_log_is_read_in_any_pieces() {
        for size in 1..TEXT.len() {
            let mut log = Log::default();
            log.take(404, b"no such page");
            for piece in TEXT.as_bytes().chunks(size) {
                assert!(log.kept_guest().is_none());
                log.take(206, piece);
                log.take(416, b"nothing new");
            }
            assert_eq!(log.kept_guest(), Some(&guest()));
            assert_eq!(log.offset(), TEXT.len() as u64);
        }
    }

    #[test]
    fn a_server_without_ranges_is_fine() {
        let mut log = Log::default();
        for end in [10, 60, 60, TEXT.len()] {
            log.take(200, &TEXT.as_bytes()[..end]);
        }
        assert_eq!((log.kept_guest(), log.offset()), (Some(&guest()), TEXT.len() as u64));
    }

    #[test]
    fn what_could_be_an_option_is_no_guest() {
        for text in ["-oProxyCommand=x@h", "root@-x", "root@a b", "root", "@h", "root@$(x)"] {
            assert_eq!(Guest::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(status in 200_u16..420, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut log = Log::default();
            log.take(status, &body);
            log.take(status, &body);
            prop_assert!(log.kept_guest().is_none());
        }
    }
}
