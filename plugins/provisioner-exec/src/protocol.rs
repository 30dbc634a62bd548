//! The words of the protocol, and the reader of answers.

use atex_plugin_api::{Error, ErrorKind, Held, Lease, Machine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of the protocol. Fields and requests may be added within a version; programs ignore fields that they do not know
/// and answer requests that they do not know with an error of kind `unsupported`.
pub const VERSION: u32 = 1;

/// Longest line, and most bytes of all lines of an answer.
pub const MAX_LINE: usize = 1 << 20;
const MAX_ANSWER: usize = 8 << 20;

/// What is asked for. The tag `request` names it.
#[derive(Debug, Serialize)]
#[serde(tag = "request", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ask<'a> {
    /// A machine for this lease.
    Reserve { lease: &'a Lease, mark: &'a str },
    /// Give this machine back.
    Release { machine: &'a str },
    /// Give up the reservation for the lease of this id, wherever it stands.
    Abort { lease: &'a str },
    /// Is this machine still there?
    Alive { machine: &'a str },
    /// What is held for this owner; an empty one is anybody.
    List { owner: &'a str },
    /// Keep this machine for so long from now.
    Renew { machine: &'a str, lifetime_s: u64 },
    /// Reset this machine.
    Reboot { machine: &'a str },
}

impl Ask<'_> {
    /// Whether silence and exit status 0 are no sufficient answer.
    pub fn needs_answer(&self) -> bool {
        match self {
            Self::Reserve { .. } | Self::Alive { .. } | Self::List { .. } => true,
            Self::Release { .. } | Self::Abort { .. } | Self::Renew { .. } | Self::Reboot { .. } => false,
        }
    }

    /// The same as environment variables, for programs that would rather not read JSON.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let (request, more) = match self {
            Self::Reserve { lease, mark } => (
                "reserve",
                vec![
                    ("ATEX_LEASE", lease.id.clone()),
                    ("ATEX_MARK", (*mark).to_owned()),
                    ("ATEX_OWNER", lease.owner.clone()),
                    ("ATEX_LIFETIME", lease.lifetime_s.to_string()),
                ],
            ),
            Self::Release { machine } => ("release", vec![("ATEX_MACHINE", (*machine).to_owned())]),
            Self::Abort { lease } => ("abort", vec![("ATEX_LEASE", (*lease).to_owned())]),
            Self::Alive { machine } => ("alive", vec![("ATEX_MACHINE", (*machine).to_owned())]),
            Self::List { owner } => ("list", vec![("ATEX_OWNER", (*owner).to_owned())]),
            Self::Renew { machine, lifetime_s } => (
                "renew",
                vec![("ATEX_MACHINE", (*machine).to_owned()), ("ATEX_LIFETIME", lifetime_s.to_string())],
            ),
            Self::Reboot { machine } => ("reboot", vec![("ATEX_MACHINE", (*machine).to_owned())]),
        };
        std::iter::once(("ATEX_REQUEST", request.to_owned())).chain(more).collect()
    }
}

/// The line that a program reads.
#[derive(Debug, Serialize)]
pub struct Request<'a> {
    protocol: u32,
    #[serde(flatten)]
    ask: &'a Ask<'a>,
    options: &'a Map<String, Value>,
}

impl<'a> Request<'a> {
    /// A request of this version.
    pub fn new(ask: &'a Ask<'a>, options: &'a Map<String, Value>) -> Self {
        Self { protocol: VERSION, ask, options }
    }
}

/// The line that a program writes last. Which fields count depends on the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Answer {
    /// To `reserve`.
    pub machine: Option<Machine>,
    /// To `list`.
    pub held: Option<Vec<Held>>,
    /// To `alive`.
    pub alive: Option<bool>,
    /// To `renew`: seconds of Unix time, or absent if it will not end.
    pub expires: Option<u64>,
    /// To any: it did not work, and nothing was left behind.
    pub error: Option<Told>,
    /// No answer yet: what is being done just now.
    pub progress: Option<String>,
}

/// A failure in a program's own words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Told {
    /// `busy`, `unreachable`, `denied`, `config`, `unsupported`, `cancelled`; anything else is `other`.
    pub kind: String,
    /// What happened.
    pub message: String,
    /// Whether trying again may help, if the kind does not say enough.
    pub retryable: Option<bool>,
}

impl Told {
    /// As the host understands it.
    pub fn into_error(self, program: &str) -> Error {
        let kind = match self.kind.as_str() {
            "busy" => ErrorKind::Busy,
            "unreachable" => ErrorKind::Unreachable,
            "denied" => ErrorKind::Denied,
            "config" => ErrorKind::Config,
            "unsupported" => ErrorKind::Unsupported,
            "cancelled" => ErrorKind::Cancelled,
            _ => ErrorKind::Other,
        };
        let error = Error::new(kind, format!("{program}: {}", self.message));
        match self.retryable {
            Some(yes) => error.retryable(yes),
            None => error,
        }
    }
}

/// Reads what a program writes, piece by piece.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    total: usize,
    answer: Option<Answer>,
}

impl Lines {
    /// The next piece. Every line that only tells of progress goes to `progress`.
    pub fn take(&mut self, bytes: &[u8], progress: &mut dyn FnMut(&str)) -> Result<(), String> {
        self.total += bytes.len();
        if self.total > MAX_ANSWER {
            return Err(format!("wrote more than {MAX_ANSWER} bytes"));
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > MAX_LINE {
                return Err(format!("wrote a line longer than {MAX_LINE} bytes"));
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_of_line(progress)?;
            }
        }
        Ok(())
    }

    /// The answer. Without one: nothing was said, which is an error if something had to be.
    pub fn finish(mut self, needed: bool) -> Result<Answer, String> {
        self.end_of_line(&mut |_| ())?;
        match self.answer {
            Some(answer) => Ok(answer),
            None if needed => Err("ended without an answer".to_owned()),
            None => Ok(Answer::default()),
        }
    }

    fn end_of_line(&mut self, progress: &mut dyn FnMut(&str)) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.answer.is_some() {
            return Err("wrote something after its answer".to_owned());
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(|error| {
            let shown: String = String::from_utf8_lossy(&line).trim().chars().take(80).collect();
            format!("wrote {shown:?}, which is no answer: {error}")
        })?;
        match answer {
            Answer { progress: Some(text), machine: None, held: None, alive: None, error: None, .. } => {
                progress(&text);
            }
            answer => self.answer = Some(answer),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, pieces: usize, needed: bool) -> (Result<Answer, String>, Vec<String>) {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for piece in text.as_bytes().chunks(pieces) {
            if let Err(error) = lines.take(piece, &mut |text| heard.push(text.to_owned())) {
                return (Err(error), heard);
            }
        }
        (lines.finish(needed), heard)
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let text = "{\"progress\": \"booting\"}\n\n{\"alive\": true, \"new-word\": 1}";
        for pieces in 1..text.len() {
            let (answer, heard) = read(text, pieces, true);
            assert_eq!(answer.unwrap().alive, Some(true));
            assert_eq!(heard, ["booting"]);
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let table = [
            ("hello\n", "wrote \"hello\", which is no answer"),
            ("{}\n{}\n", "wrote something after its answer"),
            ("", "ended without an answer"),
            ("[1]", "which is no answer"),
            ("{\"alive\": \"maybe\"}", "which is no answer"),
        ];
        for (text, expected) in table {
            let error = read(text, 3, true).0.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read("", 1, false).0.is_ok());
        assert!(read(&"x".repeat(MAX_LINE + 1), 4096, true).0.unwrap_err().contains("longer than"));
        assert!(
            read(&"{\"progress\":\"\"}\n".repeat(MAX_ANSWER / 16 + 1), 4096, true)
                .0
                .unwrap_err()
                .contains("more than")
        );
    }

    #[test]
    fn errors_keep_their_kind() {
        let (answer, _) =
            read(r#"{"error": {"kind": "denied", "message": "no", "retryable": true}}"#, 9, true);
        let error = answer.unwrap().error.unwrap().into_error("lab.py");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Denied, true));
        assert_eq!(error.to_string(), "lab.py: no");
    }

    #[test]
    fn requests_read_as_documented() {
        let options = Map::from_iter([("flavor".to_owned(), Value::from("big"))]);
        let line =
            serde_json::to_string(&Request::new(&Ask::Renew { machine: "m1", lifetime_s: 60 }, &options))
                .unwrap();
        assert_eq!(
            line,
            r#"{"protocol":1,"request":"renew","machine":"m1","lifetime_s":60,"options":{"flavor":"big"}}"#
        );
        let lease = Lease::new("a1", "r1", "me");
        let ask = Ask::Reserve { lease: &lease, mark: &lease.mark() };
        let value = serde_json::to_value(Request::new(&ask, &options)).unwrap();
        assert_eq!(value["request"], "reserve");
        assert_eq!((&value["lease"]["id"], &value["mark"]), (&Value::from("a1"), &Value::from("me/r1/a1")));
    }
}
