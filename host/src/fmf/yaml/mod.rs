//! One YAML document as a [`Value`], resolved as FMF's reference implementation resolves it: YAML 1.2's core schema, plus
//! leading zeros and underscores in numbers, binary numbers, dates, and merge keys. `%YAML 1.1` at the head of a
//! document brings back the old rules (`yes` is true, `017` is octal, `1:30` is ninety).
//!
//! The configuration of this program is read with `serde_yaml`; FMF is not, because it cannot be: `serde_yaml` gives
//! `1_000` and `'1_000'` as the same string, where one is a number here, and tells neither the place of a value nor the
//! version a document asks for. So this module stands on events of `libyaml-safer`, the same parser (libyaml) in safe
//! Rust. It is also the C parser that many python installations read FMF with, so it accepts and refuses what they do.
//! Nothing else knows about it.
//!
//! A document comes from strangers: its depth, its size with aliases written out, and the digits of its numbers are
//! limited; building does not recurse. Anchored mappings get labels, see [`sharing`](super::sharing).

mod builder;
mod scalar;

use std::collections::HashSet;
use std::sync::Arc;

use libyaml_safer::{EventData, Mark, Parser};
use thiserror::Error;

use self::builder::Builder;
use super::sharing::Sharing;
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
    fn new(at: Mark, problem: impl Into<String>) -> Self {
        Self { line: at.line as usize + 1, column: at.column as usize + 1, problem: problem.into() }
    }

    fn syntax(error: &libyaml_safer::Error) -> Self {
        Self::new(error.problem_mark().unwrap_or_default(), error.problem())
    }
}

/// The rules for plain scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    V11,
    V12,
}

/// What the documents of a tree have in common: keys and short texts, each held once, as a tree repeats the same few
/// hundred; and the labels of anchored mappings.
#[derive(Default)]
pub(crate) struct Common {
    texts: HashSet<Arc<str>>,
    pub(crate) sharing: Sharing,
}

impl Common {
    /// Longer texts hardly repeat and would only be kept alive.
    const LONGEST: usize = 32;

    fn text(&mut self, text: &str) -> Arc<str> {
        if text.len() > Self::LONGEST {
            return text.into();
        }
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.texts.insert(new.clone());
        new
    }
}

/// Reads the one document in `text`; an empty text is null.
pub fn parse(text: &str) -> Result<Value, Error> {
    parse_with(text, &mut Common::default())
}

/// Like [`parse`], sharing texts with other documents.
pub(crate) fn parse_with(text: &str, common: &mut Common) -> Result<Value, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_characters(text)?;
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    let mut builder = Builder::new(common);
    let mut documents = 0;
    loop {
        let event = parser.parse().map_err(|error| Error::syntax(&error))?;
        let at = event.start_mark;
        match event.data {
            EventData::StreamEnd => return Ok(builder.finish()),
            EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => {}
            EventData::DocumentStart { version_directive, .. } => {
                documents += 1;
                if documents > 1 {
                    return Err(Error::new(at, "a second document: a file holds one"));
                }
                if version_directive.is_some_and(|version| (version.major, version.minor) == (1, 1)) {
                    builder.use_schema(Schema::V11);
                }
            }
            EventData::Alias { anchor } => builder.alias(&anchor, at)?,
            EventData::Scalar { anchor, tag, value, style, .. } => {
                builder.scalar(&value, style, anchor, tag.as_deref(), at)?;
            }
            EventData::SequenceStart { anchor, tag, .. } => builder.open_list(anchor, tag.as_deref(), at)?,
            EventData::MappingStart { anchor, tag, .. } => builder.open_map(anchor, tag.as_deref(), at)?,
            EventData::SequenceEnd | EventData::MappingEnd => builder.close(at)?,
        }
    }
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
