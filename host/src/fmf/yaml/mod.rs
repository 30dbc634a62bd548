//! One YAML document as a [`Value`], resolved as FMF's reference implementation resolves it: YAML 1.2's core schema, plus
//! leading zeros and underscores in numbers, binary numbers, dates, and merge keys. `%YAML 1.1` at the head of a
//! document brings back the old rules (`yes` is true, `017` is octal, `1:30` is ninety).
//!
//! The configuration of this program is read with `serde_yaml`; FMF is not, because it cannot be: `serde_yaml` gives
//! `1_000` and `'1_000'` as the same string, where one is a number here, and neither the place of a duplicate key nor
//! the anchors. So this module stands on a parser of events, `saphyr-parser`: pure Rust without `unsafe`, kept, strings
//! borrowed from the text. Nothing else knows about it.
//!
//! Where the two parsers that python installations have disagree (tabs between tokens, `{a:1}`), the one that accepts
//! the document is right here.
//!
//! A document comes from strangers: its depth, its size with aliases written out, and the digits of its numbers are
//! limited; building does not recurse. Aliased values are shared, later changes of one do not show in the others.

mod builder;
mod scalar;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser};
use thiserror::Error;

use self::builder::Builder;
use super::value::Value;

/// How deep lists and mappings may be nested.
pub const MAX_DEPTH: usize = 200;

/// How many values a document may have when its aliases are written out.
pub const MAX_VALUES: usize = 2_000_000;

/// Why a text is not a document, and where; both numbers start at one.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {problem}")]
pub struct Error {
    pub line: usize,
    pub column: usize,
    pub problem: String,
}

impl Error {
    fn new(at: Marker, problem: impl Into<String>) -> Self {
        Self { line: at.line(), column: at.col() + 1, problem: problem.into() }
    }
}

/// The rules for plain scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    V11,
    V12,
}

/// Keys and short texts, each held once: a tree repeats the same few hundred.
#[derive(Default)]
pub struct Interner(HashSet<Arc<str>>);

impl fmt::Debug for Interner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interner({} texts)", self.0.len())
    }
}

impl Interner {
    /// Longer texts hardly repeat and would only be kept alive.
    const LONGEST: usize = 32;

    fn text(&mut self, text: &str) -> Arc<str> {
        if text.len() > Self::LONGEST {
            return text.into();
        }
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

/// Reads the one document in `text`; an empty text is null.
pub fn parse(text: &str) -> Result<Value, Error> {
    parse_with(text, &mut Interner::default())
}

/// Like [`parse`], sharing texts with other documents.
pub fn parse_with(text: &str, interner: &mut Interner) -> Result<Value, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_characters(text)?;
    let schema = schema(text)?;
    let mut builder = Builder::new(schema, interner);
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Error::new(*error.marker(), error.info()))?;
        match event {
            Event::DocumentStart(_) if documents > 0 => {
                return Err(Error::new(span.start, "a second document: a file holds one"));
            }
            Event::DocumentStart(_) => documents += 1,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::Alias(anchor) => builder.alias(anchor, span.start)?,
            Event::Scalar(text, style, anchor, tag) => {
                builder.scalar(&text, style, anchor, tag.as_deref(), span.start)?
            }
            Event::SequenceStart(anchor, tag) => builder.open_list(anchor, tag.as_deref(), span.start)?,
            Event::MappingStart(anchor, tag) => builder.open_map(anchor, tag.as_deref(), span.start)?,
            Event::SequenceEnd | Event::MappingEnd => builder.close(span.start)?,
        }
    }
    Ok(builder.finish())
}

/// The version that a `%YAML` directive asks for.
fn schema(text: &str) -> Result<Schema, Error> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(version) = line.strip_prefix("%YAML") {
            return match version.split('#').next().unwrap_or_default().trim() {
                "1.1" => Ok(Schema::V11),
                "1.2" => Ok(Schema::V12),
                other => Err(Error {
                    line: number + 1,
                    column: 7,
                    problem: format!("YAML {} is not known here: 1.1 and 1.2 are", other.escape_debug()),
                }),
            };
        }
        if !(line.is_empty() || line.starts_with(['%', '#'])) {
            break;
        }
    }
    Ok(Schema::V12)
}

/// Refuses the characters that YAML does not allow, escapes in quotes aside.
fn check_characters(text: &str) -> Result<(), Error> {
    let suspicious = |byte: &u8| (*byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) || *byte >= 0x7f;
    if !text.as_bytes().iter().any(suspicious) {
        return Ok(());
    }
    let forbidden = |character: char| match character {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\u{fffe}' | '\u{ffff}' => true,
        other => other.is_control(),
    };
    let Some((at, character)) = text.char_indices().find(|(_, character)| forbidden(*character)) else {
        return Ok(());
    };
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    Err(Error {
        line: text[..at].matches('\n').count() + 1,
        column: text[line_start..at].chars().count() + 1,
        problem: format!("the character {} is not allowed", character.escape_unicode()),
    })
}
