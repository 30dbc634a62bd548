//! What a scalar means: the resolver for plain ones, the constructors for tagged ones.

use num_bigint::BigInt;

use super::Schema;
use crate::fmf::value::{Date, DateTime, Value};

/// Python refuses to read longer integers too; it keeps conversion from being slow.
const MAX_DIGITS: usize = 4300;

/// What became of a scalar.
#[derive(Debug, PartialEq)]
pub(super) enum Plain {
    Text,
    Value(Value),
    /// `<<`
    Merge,
    /// `=`
    Default,
}

type Result = std::result::Result<Plain, String>;

/// A plain scalar without a tag.
pub(super) fn resolve(schema: Schema, text: &str) -> Result {
    let Some(first) = text.bytes().next() else { return Ok(Plain::Value(Value::Null)) };
    match first {
        b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => Ok(Plain::Value(Value::Null)),
        b'<' if text == "<<" => Ok(Plain::Merge),
        b'=' if text == "=" => Ok(Plain::Default),
        b'0'..=b'9' | b'-' | b'+' | b'.' => number_or_time(schema, text),
        _ => Ok(boolean(schema, text).map_or(Plain::Text, |value| Plain::Value(Value::Bool(value)))),
    }
}

fn boolean(schema: Schema, text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" if schema == Schema::V11 => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" if schema == Schema::V11 => Some(false),
        _ => None,
    }
}

fn number_or_time(schema: Schema, text: &str) -> Result {
    if is_float(schema, text) {
        return float(text).map(Plain::Value);
    }
    if is_integer(schema, text) {
        return integer(schema, text).map(Plain::Value);
    }
    if is_timestamp(text) {
        return timestamp(text).map(Plain::Value);
    }
    Ok(Plain::Text)
}

/// A scalar with the tag `!!name`.
pub(super) fn construct(schema: Schema, name: &str, text: &str) -> Result {
    let bad = || format!("{text:?} is not a value of `!!{name}`");
    match name {
        "str" | "!" => Ok(Plain::Text),
        "null" => Ok(Plain::Value(Value::Null)),
        "bool" => match text.to_lowercase().as_str() {
            "yes" | "y" | "true" | "on" => Ok(Plain::Value(Value::Bool(true))),
            "no" | "n" | "false" | "off" => Ok(Plain::Value(Value::Bool(false))),
            _ => Err(bad()),
        },
        "int" => integer(schema, text).map(Plain::Value),
        "float" => float(text).map(Plain::Value),
        "timestamp" if is_timestamp(text) => timestamp(text).map(Plain::Value),
        "binary" => base64(text).map(|bytes| Plain::Value(Value::Bytes(bytes.into()))).ok_or_else(bad),
        "timestamp" | "seq" | "map" | "set" | "omap" | "pairs" => Err(bad()),
        other => Err(format!("the tag `{}` is not known for a scalar", other.escape_debug())),
    }
}

/// The text without a sign.
fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn consists_of(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

fn is_integer(schema: Schema, text: &str) -> bool {
    let digits = unsigned(text);
    let based = |prefix: &str, allowed: fn(u8) -> bool| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest| consists_of(rest, |byte| byte == b'_' || allowed(byte)))
    };
    let octal = |byte: u8| matches!(byte, b'0'..=b'7');
    if based("0b", |byte| matches!(byte, b'0' | b'1')) || based("0x", |byte| byte.is_ascii_hexdigit()) {
        return true;
    }
    match schema {
        Schema::V12 => based("0o", octal) || consists_of(digits, is_digit_or_underscore),
        Schema::V11 => {
            consists_of(digits, |byte| byte == b'_' || octal(byte))
                || (matches!(digits.as_bytes(), [b'1'..=b'9', ..])
                    && (consists_of(digits, is_digit_or_underscore) || is_sexagesimal(digits)))
        }
    }
}

/// `1:30`
fn is_sexagesimal(digits: &str) -> bool {
    let mut parts = digits.split(':');
    let first = parts.next().is_some_and(|part| consists_of(part, is_digit_or_underscore));
    let sixty = |part: &str| match part.as_bytes() {
        [unit] => unit.is_ascii_digit(),
        [ten, unit] => matches!(ten, b'0'..=b'5') && unit.is_ascii_digit(),
        _ => false,
    };
    let rest: Vec<&str> = parts.collect();
    first && !rest.is_empty() && rest.into_iter().all(sixty)
}

fn integer(schema: Schema, text: &str) -> std::result::Result<Value, String> {
    // The common case.
    if text.len() < 18
        && !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse()
    {
        return Ok(Value::Int(number));
    }
    let bad = || format!("{} is not an integer", shortened(text));
    let plain = text.replace('_', "");
    let digits = unsigned(&plain);
    if digits.len() > MAX_DIGITS {
        return Err(format!("an integer of more than {MAX_DIGITS} digits"));
    }
    let parse = |digits: &str, base: u32| {
        let signs = digits.starts_with(['-', '+']);
        BigInt::parse_bytes(digits.as_bytes(), base).filter(|_| !signs).ok_or_else(bad)
    };
    let number = if let Some(digits) = digits.strip_prefix("0b") {
        parse(digits, 2)?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        parse(digits, 16)?
    } else if let Some(digits) = digits.strip_prefix("0o") {
        parse(digits, 8)?
    } else if schema == Schema::V11 && digits.starts_with('0') {
        parse(digits, 8)?
    } else if schema == Schema::V11 && digits.contains(':') {
        digits.split(':').try_fold(BigInt::ZERO, |sum, part| Ok::<_, String>(sum * 60 + parse(part, 10)?))?
    } else {
        parse(digits.trim(), 10)?
    };
    Ok(Value::integer(if plain.starts_with('-') { -number } else { number }))
}

fn is_float(schema: Schema, text: &str) -> bool {
    let digits = unsigned(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let signed = exponent.is_none_or(|text| text.starts_with(['-', '+']));
    let exponent_fits = exponent.is_none_or(|text| consists_of(unsigned(text), |byte| byte.is_ascii_digit()));
    let starts_with_digit = mantissa.starts_with(|c: char| c.is_ascii_digit());
    let fits = match mantissa.split_once('.') {
        // Without digits before the point the exponent needs a sign, and in 1.1 the number must not have one.
        Some(("", fraction)) => {
            signed
                && consists_of(fraction, is_digit_or_underscore)
                && (schema == Schema::V12 || digits.len() == text.len())
        }
        Some((whole, fraction)) => {
            let sexagesimal = schema == Schema::V11 && exponent.is_none() && is_sexagesimal(whole);
            starts_with_digit
                && (sexagesimal || whole.bytes().all(is_digit_or_underscore))
                && fraction.bytes().all(is_digit_or_underscore)
        }
        None => exponent.is_some() && starts_with_digit && mantissa.bytes().all(is_digit_or_underscore),
    };
    fits && exponent_fits
}

fn float(text: &str) -> std::result::Result<Value, String> {
    let bad = || format!("{} is not a number", shortened(text));
    let plain = text.replace('_', "").to_lowercase();
    let digits = unsigned(plain.trim());
    let magnitude = match digits {
        ".inf" | "inf" | "infinity" => f64::INFINITY,
        ".nan" | "nan" => f64::NAN,
        _ if digits.contains(':') => digits
            .split(':')
            .try_fold(0.0, |sum, part| part.parse::<f64>().map(|part| sum * 60.0 + part))
            .map_err(|_| bad())?,
        _ if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            digits.parse().map_err(|_| bad())?
        }
        _ => return Err(bad()),
    };
    Ok(Value::Float(if plain.starts_with('-') { -magnitude } else { magnitude }))
}

fn shortened(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?}")
}

/// A cursor over ASCII, for the one grammar that wants it.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// `least` to `most` digits as a number.
    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let rest = self.0.strip_prefix(&[byte])?;
        self.0 = rest;
        Some(())
    }

    /// How many blanks and tabs there were.
    fn blanks(&mut self) -> usize {
        let count = self.0.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.0 = &self.0[count..];
        count
    }
}

/// The fields of a timestamp, not checked against the calendar.
#[derive(Debug)]
struct Fields {
    date: (u32, u32, u32),
    clock: Option<Clock>,
}

#[derive(Debug)]
struct Clock {
    time: (u32, u32, u32),
    fraction: Vec<u8>,
    offset: Option<i32>,
}

fn is_timestamp(text: &str) -> bool {
    fields(text).is_some()
}

fn fields(text: &str) -> Option<Fields> {
    if !matches!(text.as_bytes(), [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', ..]) {
        return None;
    }
    let mut cursor = Cursor(text.as_bytes());
    let year = cursor.digits(4, 4)?;
    cursor.take(b'-')?;
    let month = cursor.digits(1, 2)?;
    cursor.take(b'-')?;
    let day = cursor.digits(1, 2)?;
    let date = (year, month, day);
    if cursor.0.is_empty() {
        // A day alone has to be written in full.
        return (text.len() == 10).then_some(Fields { date, clock: None });
    }
    if cursor.take(b'T').or_else(|| cursor.take(b't')).is_none() && cursor.blanks() == 0 {
        return None;
    }
    let clock = clock(&mut cursor)?;
    cursor.0.is_empty().then_some(Fields { date, clock: Some(clock) })
}

fn clock(cursor: &mut Cursor<'_>) -> Option<Clock> {
    let hour = cursor.digits(1, 2)?;
    cursor.take(b':')?;
    let minute = cursor.digits(2, 2)?;
    cursor.take(b':')?;
    let second = cursor.digits(2, 2)?;
    let mut fraction = Vec::new();
    if cursor.take(b'.').is_some() {
        let count = cursor.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = cursor.0.split_at(count);
        fraction.extend_from_slice(digits);
        cursor.0 = rest;
    }
    cursor.blanks();
    let offset = if cursor.0.is_empty() { None } else { Some(offset(cursor)?) };
    Some(Clock { time: (hour, minute, second), fraction, offset })
}

/// The distance to UTC in seconds after a `Z` or a sign.
fn offset(cursor: &mut Cursor<'_>) -> Option<i32> {
    let sign = match cursor.0.first()? {
        b'Z' => 0,
        b'-' => -1,
        b'+' => 1,
        _ => return None,
    };
    cursor.0 = &cursor.0[1..];
    if sign == 0 {
        return Some(0);
    }
    let hours = cursor.digits(1, 2)?;
    let minutes = if cursor.take(b':').is_some() { cursor.digits(2, 2)? } else { 0 };
    Some(sign * (hours * 3600 + minutes * 60) as i32)
}

fn timestamp(text: &str) -> std::result::Result<Value, String> {
    let bad = || format!("{text:?} is not in the calendar");
    let Fields { date: (year, month, day), clock } = fields(text).ok_or_else(bad)?;
    let date = Date::new(year as u16, month as u8, day as u8).ok_or_else(bad)?;
    let Some(Clock { time: (hour, minute, second), fraction, offset }) = clock else {
        return Ok(Value::Date(date));
    };
    let (microsecond, carry) = microseconds(&fraction);
    let time =
        DateTime::new(date, (hour as u8, minute as u8, second as u8), microsecond, offset).ok_or_else(bad)?;
    let time = if carry { time.next_second().ok_or_else(bad)? } else { time };
    Ok(Value::DateTime(time.into()))
}

/// Six digits of a second, rounded by the seventh, and whether that makes a whole second more.
fn microseconds(fraction: &[u8]) -> (u32, bool) {
    let digit = |at: usize| fraction.get(at).map_or(0, |byte| u32::from(byte - b'0'));
    let number = (0..6).fold(0, |number, at| number * 10 + digit(at)) + u32::from(digit(6) > 4);
    if number > 999_999 { (0, true) } else { (number, false) }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let sextet = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => continue,
            _ => return None,
        };
        group = (group << 6 | u32::from(sextet)) & 0x00ff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    (bits < 6).then_some(bytes)
}
