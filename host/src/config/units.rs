//! Durations and sizes as people write them: `90s`, `2h`, `2GiB`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Reads a duration: one number with `s`, `m`, `h` or `d`, without unit in seconds; rounded up to whole seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    crate::fmf::duration::single(text).map_err(|error| format!("the duration {text:?} {error}"))
}

/// A decimal number without sign or exponent at the start of `text`, and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.starts_with('.') || digits.ends_with('.') {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

/// Reads a size in bytes: a number with `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `kB`, `MB`, `GB`, `TB` (powers of
/// 1000); without: bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; examples are 4096, 512MiB, 2GiB");
    let (number, unit) = number(text.trim()).ok_or_else(wrong)?;
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let bytes = number * factor as f64;
    // 2^60: far above any disk, far below where floating point stops being exact enough for a limit.
    if bytes > (1_u64 << 60) as f64 { Err(format!("the size {text:?} is too big")) } else { Ok(bytes as u64) }
}

/// A duration in a configuration: text as for [`duration`], or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A size in a configuration: text as for [`size`], or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 90s, 5m or 2h")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        duration(text).map(Span).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
        self.visit_str(&seconds.to_string())
    }
    /// A fraction is kept, where words round up to seconds.
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
        let not_one = |why| E::custom(format!("not a duration: {seconds}: {why}"));
        Duration::try_from_secs_f64(seconds).map(Span).map_err(not_one)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 4096, 512MiB or 2GiB")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        size(text).map(Bytes).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// Both are text or a number in the schema.
macro_rules! text_or_number {
    ($kind:ty, $name:literal, $description:literal) => {
        impl schemars::JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "description": $description, "type": ["string", "number"] })
            }
        }
    };
}

text_or_number!(Span, "Duration", "90s, 5m, 2h, 1d; a number alone is seconds");
text_or_number!(Bytes, "Size", "4096, 512MiB, 2GiB; a number alone is bytes");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("0", 0), ("90", 90), ("10s", 10), ("5m", 300), ("1.5h", 5400), ("1d", 86400)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "-1s", "1x", "1h 30m", "*2", "soon", "99999999d"] {
            assert!(duration(text).unwrap_err().starts_with("the duration "), "{text}");
        }
    }

    #[test]
    fn numbers_alone_are_seconds_and_bytes() {
        let span = |value| super::super::de::from_value::<Span>(&value).map(|span| span.0.as_millis());
        assert_eq!((span(serde_json::json!(90)), span(serde_json::json!(0.5))), (Ok(90_000), Ok(500)));
        assert!(span(serde_json::json!(-1)).is_err() && span(serde_json::json!(-0.5)).is_err());
        let bytes = super::super::de::from_value::<Bytes>(&serde_json::json!(4096));
        assert_eq!(bytes, Ok(Bytes(4096)));
    }

    #[test]
    fn sizes() {
        let table =
            [("0", 0), ("4096", 4096), ("2GiB", 2 << 30), ("1.5 KiB", 1536), ("3MB", 3_000_000), ("7B", 7)];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1 GiBB", "2 2", "0x10"] {
            assert!(size(text).unwrap_err().contains("is no size"), "{text}");
        }
        assert_eq!(size("99999999TiB").unwrap_err(), "the size \"99999999TiB\" is too big");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.smhdGKMiB \\-+é]{0,24}") {
            let _ = duration(&text);
            if let Ok(bytes) = size(&text) {
                prop_assert!(bytes <= 1 << 60);
            }
        }
    }
}
