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
mod guard;
mod scalar;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use libyaml_safer::{EventData, Mark, Parser, ScalarStyle};
use thiserror::Error;

use self::builder::Builder;
use self::guard::guarded;
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
    let mut joined = Cow::Borrowed(text);
    let mut read = 0;
    loop {
        match parse_events(&joined, common) {
            Err(error) if error.problem == BAD_ESCAPE && read < MAX_READ_AGAIN => {
                read += joined.len();
                joined = Cow::Owned(join_surrogates(&joined, &error).ok_or(error)?);
            }
            result => return result,
        }
    }
}

/// What the parser says of an escaped surrogate.
const BAD_ESCAPE: &str = "found invalid Unicode character escape code";

/// Bytes of a document that may be read again for the sake of its surrogates.
const MAX_READ_AGAIN: usize = 64 << 20;

/// The text with the pair of escaped surrogates at the error's place as the character it stands for. JSON writes
/// characters outside the basic plane like this.
fn join_surrogates(text: &str, error: &Error) -> Option<String> {
    let start: usize = text.split_inclusive('\n').take(error.line - 1).map(str::len).sum();
    let column = text[start..].char_indices().nth(error.column - 1)?.0;
    let at = start + column;
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at.checked_sub(2)?..at + 4)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let pair = [unit(at)?, unit(at + 6)?];
    let character = char::decode_utf16(pair).next()?.ok()?;
    (character.len_utf16() == 2).then(|| format!("{}{character}{}", &text[..at - 2], &text[at + 10..]))
}

fn parse_events(text: &str, common: &mut Common) -> Result<Value, Error> {
    let (text, is_open) = with_final_break(text);
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    let mut builder = Builder::new(common);
    let mut documents = 0;
    let mut place = Mark::default();
    loop {
        let event = guarded(|| parser.parse())
            .ok_or_else(|| Error::new(place, "what follows cannot be parsed"))?
            .map_err(|error| Error::syntax(&error))?;
        let at = event.start_mark;
        place = event.end_mark;
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
            EventData::Scalar { anchor, tag, mut value, style, .. } => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if is_open && is_block && place.index as usize >= text.len() && value.ends_with('\n') {
                    value.pop();
                }
                builder.scalar(&value, style, anchor, tag.as_deref(), at)?;
            }
            EventData::SequenceStart { anchor, tag, .. } => builder.open_list(anchor, tag.as_deref(), at)?,
            EventData::MappingStart { anchor, tag, .. } => builder.open_map(anchor, tag.as_deref(), at)?,
            EventData::SequenceEnd | EventData::MappingEnd => builder.close(at)?,
        }
    }
}

/// The text with a line break at its end, which the parser needs where libyaml does not, and whether it lacked one: a
/// block scalar that ends with the text ends without a break then.
fn with_final_break(text: &str) -> (Cow<'_, str>, bool) {
    let start = text.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    if text[start..].trim_matches([' ', '\t']).is_empty() {
        (Cow::Borrowed(&text[..start]), false)
    } else {
        (Cow::Owned(format!("{text}\n")), true)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmf::value::Keys;

    fn typed(text: &str) -> String {
        let mut typed = String::new();
        parse(text).unwrap().write_typed(&mut typed, Keys::AsIs);
        typed
    }

    #[test]
    fn errors_say_where() {
        for (text, place, problem) in [
            ("a: 1\nb: 2\na: 3\n", (3, 1), "the key 'a' comes twice"),
            ("a: 1\n'b': *nope\n", (2, 6), "no anchor `nope`"),
            ("a: 1\n---\nb: 2\n", (2, 1), "a second document"),
            ("a: \u{1}\n", (1, 4), "\\u{1}"),
            ("a:\n  - !odd x\n", (2, 5), "`!odd`"),
            ("a: {b: [1, 2}\n", (1, 13), "expected"),
            ("<<: 5\n", (1, 5), "takes a mapping"),
            ("<<: {a: 1}\n<<: {b: 1}\n", (2, 1), "a second merge key"),
            ("a: 2024-02-30\n", (1, 4), "calendar"),
            ("? {a: b}\n: 1\n", (1, 8), "cannot be a key"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.column), place, "{text:?}: {error}");
            assert!(error.problem.contains(problem), "{text:?}: {error}");
        }
    }

    #[test]
    fn merge_keys_come_first_and_give_way() {
        assert_eq!(
            typed("b: &b {x: 1, y: 1}\nc: {w: 3, x: 9, <<: *b}\n").split_once("\"c\"").unwrap().1,
            r#": {"x": 9, "y": 1, "w": 3}}"#
        );
        assert_eq!(typed("<<: [{a: 1, b: 1}, {b: 2, c: 2}]\n"), r#"{"b": 1, "c": 2, "a": 1}"#);
        // Without anything merged it is as if it was not there.
        assert_eq!(typed("<<: {}\na: 1\n"), r#"{"a": 1}"#);
    }

    #[test]
    fn version_of_a_document_decides() {
        assert_eq!(typed("[yes, 017, 1:30]"), r#"["yes", 17, "1:30"]"#);
        assert_eq!(typed("%YAML 1.1\n---\n[yes, 017, 1:30, 1:30.5]"), "[true, 15, 90, 90.5]");
    }

    #[test]
    fn surrogates_are_joined_in_double_quotes_only() {
        assert_eq!(
            parse(r#"["\ud83d\ude00é\uD83D\uDE00", '\ud83d\ude00', x]"#).unwrap().to_string(),
            r"['😀é😀', '\\ud83d\\ude00', 'x']"
        );
        for text in [r#""\ud83d""#, r#""\ud83d\u0041""#, r#""\ude00\ud83d""#, r#""\ud8"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_may_end_without_a_line_break() {
        for (text, value) in [
            ("a: |\n  x", r#"{"a": "x"}"#),
            ("a: |+\n  x", r#"{"a": "x"}"#),
            ("a: >\n  x\n  y", r#"{"a": "x y"}"#),
            ("a: |\n  x\n  ", r#"{"a": "x\n"}"#),
            ("a: |\n  x\n# c", r#"{"a": "x\n"}"#),
            ("a: b", r#"{"a": "b"}"#),
            ("a:\n  ", r#"{"a": null}"#),
        ] {
            assert_eq!(typed(text), value, "{text:?}");
        }
    }

    #[test]
    fn what_trips_the_parser_is_an_error() {
        for text in ["a: [!, b]", "c: \"s\\", "[!a!set'1', 1]"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn long_integers_are_limited() {
        assert!(parse(&"9".repeat(4300)).is_ok());
        assert!(parse(&"9".repeat(4301)).unwrap_err().problem.contains("4300 digits"));
    }

    #[test]
    fn a_second_is_carried() {
        assert_eq!(typed("2024-12-31 23:59:59.9999999"), r#"{"$datetime": "2025-01-01T00:00:00"}"#);
    }
}
