//! Numbers: python's rules for integers of any size and floats, and its conversions from text.

use num_bigint::BigInt;

use super::super::value::Value;
use super::ast::Binary;
use super::{Outcome, limit, raised, type_error, unsupported};

/// Longest integer that a power may make, in bits.
const MAX_BITS: u64 = 64 * 1024;
/// Longest text of an integer, as python limits it.
const MAX_DIGITS: usize = 4300;

pub(super) fn binary(at: u32, operator: Binary, left: &Value, right: &Value) -> Outcome<Value> {
    if let (Some(a), Some(b)) = (left.to_integer(), right.to_integer()) {
        return integers(at, operator, left, right, (a, b));
    }
    if let (Some(a), Some(b)) = (left.to_float(), right.to_float())
        && !matches!(operator, Binary::BitAnd | Binary::BitOr | Binary::BitXor)
    {
        return floats(at, operator, a, b);
    }
    let (symbol, a, b) = (operator.symbol(), left.type_name(), right.type_name());
    type_error(at, format!("unsupported operand type(s) for {symbol}: '{a}' and '{b}'"))
}

fn integers(
    at: u32,
    operator: Binary,
    left: &Value,
    right: &Value,
    (a, b): (BigInt, BigInt),
) -> Outcome<Value> {
    let both_bool = matches!((left, right), (Value::Bool(_), Value::Bool(_)));
    let bits =
        |number: BigInt| if both_bool { Value::Bool(number != BigInt::ZERO) } else { Value::integer(number) };
    match operator {
        Binary::Add => Ok(Value::integer(a + b)),
        Binary::Subtract => Ok(Value::integer(a - b)),
        Binary::Multiply if a.bits() + b.bits() > MAX_BITS => limit(at, "an integer of more than 64 Ki bits"),
        Binary::Multiply => Ok(Value::integer(a * b)),
        Binary::BitAnd => Ok(bits(a & b)),
        Binary::BitOr => Ok(bits(a | b)),
        Binary::BitXor => Ok(bits(a ^ b)),
        Binary::Power => power(at, &a, &b),
        Binary::Divide | Binary::FloorDivide | Binary::Remainder if b == BigInt::ZERO => {
            raised(at, "ZeroDivisionError", "division by zero")
        }
        Binary::Divide => {
            let (a, b) = (left.to_float().unwrap_or(f64::NAN), right.to_float().unwrap_or(f64::NAN));
            if a.is_finite() && b.is_finite() {
                Ok(Value::Float(a / b))
            } else {
                unsupported(at, "dividing such large integers")
            }
        }
        Binary::FloorDivide => Ok(Value::integer(floor_division(&a, &b).0)),
        Binary::Remainder => Ok(Value::integer(floor_division(&a, &b).1)),
    }
}

/// Quotient and remainder, rounded down: the remainder has the sign of the divisor.
fn floor_division(a: &BigInt, b: &BigInt) -> (BigInt, BigInt) {
    let (quotient, remainder) = (a / b, a % b);
    let opposite = remainder != BigInt::ZERO && (remainder < BigInt::ZERO) != (*b < BigInt::ZERO);
    if opposite { (quotient - 1, remainder + b) } else { (quotient, remainder) }
}

fn power(at: u32, base: &BigInt, exponent: &BigInt) -> Outcome<Value> {
    let Ok(times) = u32::try_from(exponent.clone()) else {
        if *exponent >= BigInt::ZERO {
            return limit(at, "an integer of more than 64 Ki bits");
        }
        let as_float = |number: &BigInt| Value::integer(number.clone()).to_float().unwrap_or(f64::NAN);
        return floats(at, Binary::Power, as_float(base), as_float(exponent));
    };
    if base.bits() > 1 && base.bits().saturating_mul(times.into()) > MAX_BITS {
        return limit(at, "an integer of more than 64 Ki bits");
    }
    // A base of one bit (0, 1, -1) never grows; its exponent matters only by being zero, odd or even.
    let times = if base.bits() <= 1 && times > 2 { 2 + times % 2 } else { times };
    Ok(Value::integer(base.pow(times)))
}

fn floats(at: u32, operator: Binary, a: f64, b: f64) -> Outcome<Value> {
    let result = match operator {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide | Binary::FloorDivide | Binary::Remainder if b == 0.0 => {
            return raised(at, "ZeroDivisionError", "float division by zero");
        }
        Binary::Divide => a / b,
        Binary::FloorDivide => float_division(a, b).0,
        Binary::Remainder => float_division(a, b).1,
        Binary::Power if a == 0.0 && b < 0.0 => {
            return raised(at, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
        }
        Binary::Power if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            return unsupported(at, "a complex number");
        }
        Binary::Power => {
            let result = a.powf(b);
            if result.is_infinite() && a.is_finite() && b.is_finite() {
                return raised(at, "OverflowError", "(34, 'Numerical result out of range')");
            }
            result
        }
        Binary::BitAnd | Binary::BitOr | Binary::BitXor => f64::NAN,
    };
    Ok(Value::Float(result))
}

fn float_division(a: f64, b: f64) -> (f64, f64) {
    let mut remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder == 0.0 {
        remainder = 0.0_f64.copysign(b);
    } else if (remainder < 0.0) != (b < 0.0) {
        remainder += b;
        quotient -= 1.0;
    }
    let floored = quotient.floor();
    // The quotient is nearly whole; put it right if rounding made it too small.
    (if quotient - floored > 0.5 { floored + 1.0 } else { floored }, remainder)
}

/// `int(value)`
pub(super) fn to_int(at: u32, value: &Value) -> Outcome<Value> {
    match value {
        Value::Str(text) => from_digits(at, text, 10),
        Value::Float(number) if number.is_nan() => {
            raised(at, "ValueError", "cannot convert float NaN to integer")
        }
        Value::Float(number) if number.is_infinite() => {
            raised(at, "OverflowError", "cannot convert float infinity to integer")
        }
        Value::Float(number) => {
            let digits = format!("{:.0}", number.trunc());
            digits
                .parse()
                .map_or_else(|_| raised(at, "ValueError", digits), |number| Ok(Value::integer(number)))
        }
        other => {
            if let Some(number) = other.to_integer() {
                return Ok(Value::integer(number));
            }
            let class = other.type_name();
            let wanted = "a string, a bytes-like object or a real number";
            type_error(at, format!("int() argument must be {wanted}, not '{class}'"))
        }
    }
}

/// `int(text, radix)`
pub(super) fn from_digits(at: u32, text: &str, radix: u32) -> Outcome<Value> {
    let trimmed = text.trim();
    let (negative, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let marked = match radix {
        16 => unsigned.get(..2).filter(|mark| mark.eq_ignore_ascii_case("0x")),
        8 => unsigned.get(..2).filter(|mark| mark.eq_ignore_ascii_case("0o")),
        2 => unsigned.get(..2).filter(|mark| mark.eq_ignore_ascii_case("0b")),
        _ => None,
    };
    let digits = marked.map_or(unsigned, |mark| {
        let digits = &unsigned[mark.len()..];
        digits.strip_prefix('_').unwrap_or(digits)
    });
    let clean = digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !digits.is_empty()
        && !digits.starts_with('_')
        && !digits.ends_with('_')
        && !digits.contains("__");
    if digits.len() > MAX_DIGITS {
        return raised(at, "ValueError", "the text of the integer is too long");
    }
    let plain = digits.replace('_', "");
    let number = if clean { BigInt::parse_bytes(plain.as_bytes(), radix) } else { None };
    if let Some(number) = number {
        return Ok(Value::integer(if negative { -number } else { number }));
    }
    let shown = Value::from(text).repr();
    raised(at, "ValueError", format!("invalid literal for int() with base {radix}: {shown}"))
}

/// `float(value)`
pub(super) fn to_float(at: u32, value: &Value) -> Outcome<Value> {
    let Value::Str(text) = value else {
        return match value.to_float() {
            Some(number) if number.is_infinite() && !matches!(value, Value::Float(_)) => {
                raised(at, "OverflowError", "int too large to convert to float")
            }
            Some(number) => Ok(Value::Float(number)),
            None => {
                let class = value.type_name();
                type_error(at, format!("float() argument must be a string or a real number, not '{class}'"))
            }
        };
    };
    let trimmed = text.trim();
    let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    let word = matches!(unsigned.to_ascii_lowercase().as_str(), "inf" | "infinity" | "nan");
    let digits =
        unsigned.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' | b'_'));
    let underscores = unsigned
        .as_bytes()
        .windows(3)
        .filter(|it| it[1] == b'_')
        .all(|it| it[0].is_ascii_digit() && it[2].is_ascii_digit())
        && !unsigned.starts_with('_')
        && !unsigned.ends_with('_');
    let parsed = if word || (digits && underscores) { trimmed.replace('_', "").parse().ok() } else { None };
    parsed.map_or_else(
        || raised(at, "ValueError", format!("could not convert string to float: {}", value.repr())),
        |number| Ok(Value::Float(number)),
    )
}
