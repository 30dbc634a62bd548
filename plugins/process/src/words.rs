//! Words of configuration and of shells: durations, marks, quoting.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A duration of the configuration: seconds as a number, or a text such as `90s`, `5m`, `1h 30m`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads a text; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut total = 0_u64;
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest.get(..digits)?.parse().ok()?;
            rest = rest.get(digits..)?.trim_start();
            let factor = match rest.bytes().next() {
                None | Some(b's') => 1,
                Some(b'm') => 60,
                Some(b'h') => 3600,
                Some(b'd') => 86400,
                Some(_) => return None,
            };
            rest = rest.get(1..).unwrap_or_default().trim_start();
            total = total.checked_add(number.checked_mul(factor)?)?;
        }
        (!text.trim().is_empty()).then_some(Self::seconds(total))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("seconds, or a duration such as 90s, 5m or 1h 30m")
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span::seconds(seconds))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "minimum": 0, "pattern": r"^\s*([0-9]+\s*[smhd]?\s*)+$"})
    }
}

/// The parts of a lease's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    /// Who holds it; may contain slashes.
    pub owner: &'a str,
    /// The run.
    pub run: &'a str,
    /// The lease.
    pub lease: &'a str,
}

impl<'a> Mark<'a> {
    /// The parts of `owner/run/lease`; `None` if it is no mark.
    pub fn parse(mark: &'a str) -> Option<Self> {
        let mut parts = mark.rsplitn(3, '/');
        let (lease, run, owner) = (parts.next()?, parts.next()?, parts.next()?);
        (!lease.is_empty()).then_some(Self { owner, run, lease })
    }

    /// Whether `mark` is one of `owner`'s; the empty owner is anybody.
    pub fn is_of(mark: &str, owner: &str) -> bool {
        Mark::parse(mark).is_some_and(|mark| owner.is_empty() || mark.owner == owner)
    }
}

/// `text` as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Seconds of Unix time.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        let table = [
            ("90", Some(90)),
            ("90s", Some(90)),
            (" 5 m ", Some(300)),
            ("1h 30m", Some(5400)),
            ("1h30m5", Some(5405)),
            ("2d", Some(172_800)),
            ("", None),
            ("m", None),
            ("5 minutes", None),
            ("-5", None),
            ("5ä", None),
            ("99999999999999999999", None),
            ("9999999999999999999d", None),
        ];
        for (text, seconds) in table {
            assert_eq!(Span::parse(text), seconds.map(Span::seconds), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Span>("7").unwrap(), Span::seconds(7));
        assert_eq!(serde_json::from_str::<Span>("\"7m\"").unwrap(), Span::seconds(420));
        let error = serde_json::from_str::<Span>("\"soon\"").unwrap_err().to_string();
        assert!(error.contains("\"soon\"") && error.contains("90s"), "{error}");
    }

    #[test]
    fn marks_are_read_from_the_right() {
        let mark = Mark::parse("group/nightly@lab/r1/a2").unwrap();
        assert_eq!(mark, Mark { owner: "group/nightly@lab", run: "r1", lease: "a2" });
        assert!(Mark::is_of("me/r/l", "me") && Mark::is_of("me/r/l", ""));
        for (mark, owner) in [("me/r/l", "m"), ("me/r", "me"), ("me/r/", "me"), ("", "")] {
            assert!(!Mark::is_of(mark, owner), "{mark:?} {owner:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(text in "[^\0]{0,40}") {
            let script = format!("printf %s {}", quote(&text));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            prop_assert_eq!(output.stdout, text.into_bytes());
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".{0,40}") {
            let _ = (Span::parse(&text), Mark::parse(&text));
        }
    }
}
