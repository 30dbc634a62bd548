//! Durations and sizes as people write them: `90s`, `1h 30m`, `2GiB`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// No duration of a configuration is longer: a year is more than any run takes, and sums of such stay far from overflow.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Reads a duration: numbers with `s`, `m`, `h` or `d` (without: seconds), added up: `90`, `1.5h`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; examples are 90s, 5m, 1h30m, 2d");
    let mut total = 0.0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(wrong)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total += number * seconds_of(unit).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    within_bounds(total).ok_or_else(|| format!("the duration {text:?} is longer than a year"))
}

fn seconds_of(unit: &str) -> Option<f64> {
    match unit {
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86400.0),
        _ => None,
    }
}

fn within_bounds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST)
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
        f.write_str("a duration such as 90s, 5m, 1h30m or 2d")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        duration(text).map(Span).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
        self.visit_f64(seconds as f64)
    }
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
        within_bounds(seconds)
            .map(Span)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Float(seconds), &self))
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

text_or_number!(Span, "Duration", "90s, 5m, 1h30m, 2d; a number alone is seconds");
text_or_number!(Bytes, "Size", "4096, 512MiB, 2GiB; a number alone is bytes");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("0", 0.0),
            ("90", 90.0),
            ("10s", 10.0),
            ("5m", 300.0),
            ("2h", 7200.0),
            ("1d", 86400.0),
            ("1h30m", 5400.0),
            (" 1h 30m ", 5400.0),
            ("1.5h", 5400.0),
        ];
        for (text, seconds) in table {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "h", "-1s", "1x", "1 m h", "1e3", ".5s", "1.", "1..2s", "s1", "5 minutes", "１s"] {
            assert!(duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
        assert_eq!(duration("1000000d").unwrap_err(), "the duration \"1000000d\" is longer than a year");
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
            if let Ok(duration) = duration(&text) {
                prop_assert!(duration <= LONGEST);
            }
            if let Ok(bytes) = size(&text) {
                prop_assert!(bytes <= 1 << 60);
            }
        }
    }
}
