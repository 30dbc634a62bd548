//! The control channel: bytes of a test in, typed events out.
//!
//! [`Parser`] is incremental. It takes chunks of any size, gives the same events however the stream was cut (only
//! [`Part::Data`] comes in pieces), and holds at most one line or one JSON object. File data passes through as slices of the
//! input, so an upload of gigabytes costs no memory.
//!
//! Everything here is sent by a test and not to be trusted. What breaks a rule becomes a [`Violation`] that names the line and the
//! rule; from then on the parser yields nothing. It decides nothing about results (see [`result`](super::result)) or time (see
//! [`clock`](super::clock)).

mod header;

use std::collections::BTreeSet;
use std::time::Duration;

use super::clock::DurationChange;
use super::names::clean_text;

pub use header::{FileEntry, Header};

/// Bytes of a control line, the newline included.
pub const MAX_LINE: usize = 4096;
/// Bytes of the JSON object of one result.
pub const MAX_JSON: u64 = 1 << 20;
/// Facts that tests may leave on a machine.
pub const MAX_FACTS: usize = 100;
/// Bytes of the key of a fact.
pub const MAX_FACT_KEY: usize = 64;
/// Bytes of the value of a fact.
pub const MAX_FACT_VALUE: usize = 1024;
/// The words of the channel, for `ATEX_TEST_CONTROL_WORDS`.
pub const WORDS: [&str; 7] = ["result", "exitcode", "duration", "disconnect", "reset", "machine", "noop"];

/// Bytes of a broken line that are shown.
const SHOWN: usize = 80;
/// A buffer that grew beyond this is given back after use.
const KEPT_BUFFER: usize = MAX_LINE;

/// A rule of the channel that a test broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control line {line} ({text}): {rule}")]
pub struct Violation {
    /// Number of the control line, from 1; JSON and file data do not count.
    pub line: u64,
    /// The line, shortened and printable.
    pub text: String,
    /// What is wrong.
    pub rule: String,
}

/// Something a test said.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A piece of a result, for [`Recorder::take`](super::result::Recorder::take).
    Result(Part<'a>),
    /// The exit status of the test, 0 to 255. At most once.
    ExitCode(u8),
    Duration(DurationChange),
    /// The machine is about to go away on purpose.
    Disconnect,
    /// The machine is to be reset the hard way, by its provisioner; else as [`Disconnect`](Self::Disconnect).
    Reset,
    /// A fact to remember about the machine.
    Machine {
        key: String,
        value: String,
    },
    Noop,
}

/// A piece of a result: one header, any number of data, one end.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<'a> {
    Header(Box<Header>),
    /// Bytes of the file with this index in [`Header::files`], in order, never empty. A file of length 0 has none.
    Data {
        file: usize,
        bytes: &'a [u8],
    },
    /// All files are complete.
    End,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// A line or a JSON object that has begun in an earlier chunk.
    buffer: Vec<u8>,
    /// Lines so far.
    line: u64,
    exit_seen: bool,
    facts: BTreeSet<String>,
}

#[derive(Debug)]
enum State {
    Line,
    /// Inside an object of this length.
    Json {
        length: usize,
    },
    /// Inside the data of a result's files: lengths of all, the current one, what is missing of it.
    Files {
        lengths: Box<[u64]>,
        file: usize,
        left: u64,
    },
    /// A rule was broken.
    Broken,
}

impl Parser {
    /// A parser for one channel. `facts`: keys that the machine has already, which count as facts.
    pub fn new(facts: impl IntoIterator<Item = String>) -> Self {
        Self {
            state: State::Line,
            buffer: Vec::new(),
            line: 0,
            exit_seen: false,
            facts: facts.into_iter().collect(),
        }
    }

    /// Takes what makes the next event from the front of `input`; `None` when all of it is used up. After an error the
    /// rest of the stream is swallowed.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, Violation> {
        loop {
            match self.step(input) {
                Ok(None) if !input.is_empty() || self.is_object_complete() => {}
                Ok(event) => return Ok(event),
                Err(violation) => {
                    self.state = State::Broken;
                    self.buffer = Vec::new();
                    return Err(violation);
                }
            }
        }
    }

    /// The stream has ended. An error if that was inside a line or inside announced data.
    pub fn finish(&mut self) -> Result<(), Violation> {
        let missing = match &self.state {
            State::Broken => return Ok(()),
            State::Line if self.buffer.is_empty() => return Ok(()),
            State::Line => {
                self.line += 1;
                let text = shown(&self.buffer);
                self.state = State::Broken;
                return Err(Violation {
                    line: self.line,
                    text,
                    rule: "the channel ended before the newline".into(),
                });
            }
            State::Json { length } => {
                format!("the channel ended after {} of {length} bytes of the JSON object", self.buffer.len())
            }
            State::Files { lengths, file, left } => {
                let length = lengths.get(*file).copied().unwrap_or_default();
                format!(
                    "the channel ended after {} of {length} bytes of files[{file}]",
                    length.saturating_sub(*left)
                )
            }
        };
        self.state = State::Broken;
        Err(Violation { line: self.line, text: "result".into(), rule: missing })
    }

    /// An announced object of no bytes is complete without any input.
    fn is_object_complete(&self) -> bool {
        matches!(self.state, State::Json { length } if length == self.buffer.len())
    }

    /// At most one event; `None`: there may be more, if there is more input.
    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, Violation> {
        match &mut self.state {
            State::Broken => {
                *input = &[];
                Ok(None)
            }
            State::Line => self.line(input),
            State::Json { length } => {
                let length = *length;
                self.json(input, length)
            }
            State::Files { lengths, file, left } => {
                while *left == 0 {
                    let Some(next) = lengths.get(*file + 1) else {
                        self.state = State::Line;
                        return Ok(Some(Event::Result(Part::End)));
                    };
                    *file += 1;
                    *left = *next;
                }
                let (bytes, rest) = split(input, usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
                *input = rest;
                let file = *file;
                Ok((!bytes.is_empty()).then_some(Event::Result(Part::Data { file, bytes })))
            }
        }
    }

    fn line<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, Violation> {
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = match end {
            Some(at) => (input.get(..at).unwrap_or_default(), input.get(at + 1..).unwrap_or_default()),
            None => (*input, &[][..]),
        };
        *input = rest;
        let room = MAX_LINE - 1 - self.buffer.len();
        if piece.len() > room {
            self.buffer.extend_from_slice(piece.get(..room).unwrap_or(piece));
            self.line += 1;
            let rule = format!("longer than {MAX_LINE} bytes");
            return Err(Violation { line: self.line, text: shown(&self.buffer), rule });
        }
        if end.is_none() {
            self.buffer.extend_from_slice(piece);
            return Ok(None);
        }
        self.line += 1;
        if self.buffer.is_empty() {
            return self.command(piece);
        }
        self.buffer.extend_from_slice(piece);
        let mut line = std::mem::take(&mut self.buffer);
        let event = self.command(&line);
        line.clear();
        self.buffer = line;
        event
    }

    /// One whole line without its newline. `None`: it announced a result, which comes when its JSON has.
    fn command<'i>(&mut self, line: &[u8]) -> Result<Option<Event<'i>>, Violation> {
        let event = self.parse_command(line);
        event.map_err(|rule| Violation { line: self.line, text: shown(line), rule })
    }

    fn parse_command<'i>(&mut self, line: &[u8]) -> Result<Option<Event<'i>>, String> {
        if line.is_empty() {
            return Err("an empty line".into());
        }
        let text = printable_ascii(line)?;
        let (word, argument) = text.split_once(' ').map_or((text, ""), |(word, argument)| (word, argument));
        let trimmed = argument.trim();
        match word {
            "result" => self.announce(trimmed).map(|()| None),
            "exitcode" => self.exit_code(trimmed).map(Some),
            "duration" => duration_change(trimmed).map(|change| Some(Event::Duration(change))),
            "disconnect" if trimmed.is_empty() => Ok(Some(Event::Disconnect)),
            "reset" if trimmed.is_empty() => Ok(Some(Event::Reset)),
            "disconnect" | "reset" => Err(format!("`{word}` takes no argument")),
            "machine" => self.fact(argument).map(Some),
            "noop" => Ok(Some(Event::Noop)),
            _ => Err(unknown_word(word)),
        }
    }

    fn announce(&mut self, argument: &str) -> Result<(), String> {
        let length = unsigned(argument).ok_or("`result` takes a number of bytes")?;
        if length > MAX_JSON {
            return Err(format!("a result's JSON has at most {MAX_JSON} bytes"));
        }
        self.state = State::Json { length: usize::try_from(length).map_err(|e| e.to_string())? };
        Ok(())
    }

    fn exit_code<'i>(&mut self, argument: &str) -> Result<Event<'i>, String> {
        let code = unsigned(argument).and_then(|code| u8::try_from(code).ok());
        let code = code.ok_or("`exitcode` takes a number from 0 to 255")?;
        if std::mem::replace(&mut self.exit_seen, true) {
            return Err("the exit status was told before".into());
        }
        Ok(Event::ExitCode(code))
    }

    fn fact<'i>(&mut self, argument: &str) -> Result<Event<'i>, String> {
        let (key, value) = argument.split_once('=').ok_or("`machine` takes KEY=VALUE")?;
        let key = key.trim();
        if key.is_empty() || key.len() > MAX_FACT_KEY {
            return Err(format!("the key of a fact has 1 to {MAX_FACT_KEY} bytes"));
        }
        if value.len() > MAX_FACT_VALUE {
            return Err(format!("the value of a fact has at most {MAX_FACT_VALUE} bytes"));
        }
        if !self.facts.contains(key) && self.facts.len() >= MAX_FACTS {
            return Err(format!("a machine has at most {MAX_FACTS} facts"));
        }
        self.facts.insert(key.to_owned());
        Ok(Event::Machine { key: key.to_owned(), value: value.to_owned() })
    }

    fn json<'i>(&mut self, input: &mut &'i [u8], length: usize) -> Result<Option<Event<'i>>, Violation> {
        let (piece, rest) = split(input, length - self.buffer.len());
        *input = rest;
        if self.buffer.len() + piece.len() < length {
            self.buffer.extend_from_slice(piece);
            return Ok(None);
        }
        let header = if self.buffer.is_empty() {
            Header::parse(self.line, piece)
        } else {
            self.buffer.extend_from_slice(piece);
            let header = Header::parse(self.line, &self.buffer);
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BUFFER);
            header
        };
        let header =
            header.map_err(|rule| Violation { line: self.line, text: format!("result {length}"), rule })?;
        let lengths: Box<[u64]> = header.files.iter().map(|file| file.length).collect();
        let left = lengths.first().copied().unwrap_or(0);
        self.state = State::Files { lengths, file: 0, left };
        Ok(Some(Event::Result(Part::Header(Box::new(header)))))
    }
}

/// The first `count` bytes, or all, and the rest.
fn split(input: &[u8], count: usize) -> (&[u8], &[u8]) {
    input.split_at_checked(count).unwrap_or((input, &[]))
}

fn printable_ascii(line: &[u8]) -> Result<&str, String> {
    match line.iter().find(|byte| !matches!(byte, b'\t' | b' '..=b'~')) {
        Some(b'\r') => Err("a carriage return in a control line".into()),
        Some(byte) => Err(format!("byte 0x{byte:02x} in a control line, which is printable ASCII")),
        None => std::str::from_utf8(line).map_err(|error| error.to_string()),
    }
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..SHOWN).unwrap_or(line));
    let dots = if line.len() > SHOWN { "..." } else { "" };
    format!("`{}{dots}`", clean_text(&text, SHOWN * 2))
}

fn unknown_word(word: &str) -> String {
    let word = clean_text(word, 32);
    let near = WORDS.into_iter().find(|known| strsim::damerau_levenshtein(known, &word) <= 2);
    match near {
        Some(known) => format!("unknown word `{word}`; did you mean `{known}`?"),
        None => format!("unknown word `{word}`; known are {}", WORDS.join(", ")),
    }
}

/// Digits only: no sign, no underscores.
fn unsigned(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn duration_change(argument: &str) -> Result<DurationChange, String> {
    let (make, time): (fn(Duration) -> DurationChange, &str) = match argument {
        "save" => return Ok(DurationChange::Save),
        "restore" => return Ok(DurationChange::Restore),
        _ => match (argument.strip_prefix('+'), argument.strip_prefix('-')) {
            (Some(more), _) => (DurationChange::Add, more),
            (_, Some(less)) => (DurationChange::Subtract, less),
            _ => (DurationChange::Set, argument),
        },
    };
    duration(time.trim_start())
        .map(make)
        .ok_or_else(|| "`duration` takes a time such as 90, 5m, +1h or -30s, `save` or `restore`".into())
}

/// A number with an optional unit; seconds without one.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text.get(digits.len()..)?.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    Some(Duration::from_secs(unsigned(digits)?.saturating_mul(factor)))
}

#[cfg(test)]
mod tests;
