//! `+` and `-` between values, as python computes.

use num_bigint::BigInt;

use super::Error;
use crate::fmf::value::Value;

/// A pair of numbers as python computes with them.
enum Numbers {
    Integers(BigInt, BigInt),
    Floats(f64, f64),
}

/// Both as numbers of one kind; none if one of them is not a number.
fn numbers(raw: &str, first: &Value, second: &Value) -> Result<Option<Numbers>, Error> {
    if let (Some(first), Some(second)) = (first.to_integer(), second.to_integer()) {
        return Ok(Some(Numbers::Integers(first, second)));
    }
    let (Some(a), Some(b)) = (first.to_float(), second.to_float()) else { return Ok(None) };
    let overflows = |value: &Value, float: f64| matches!(value, Value::BigInt(_)) && float.is_infinite();
    if overflows(first, a) || overflows(second, b) {
        return Err(Error::Overflow { key: raw.to_owned() });
    }
    Ok(Some(Numbers::Floats(a, b)))
}

/// `first + second`
pub(super) fn sum(raw: &str, first: &Value, second: &Value) -> Result<Value, Error> {
    if let (Value::Int(a), Value::Int(b)) = (first, second)
        && let Some(sum) = a.checked_add(*b)
    {
        return Ok(Value::Int(sum));
    }
    match (first, second) {
        (Value::Str(a), Value::Str(b)) => return Ok(Value::from(format!("{a}{b}"))),
        (Value::List(a), Value::List(b)) => return Ok(Value::list([a.as_slice(), b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => return Ok(Value::Bytes([a.as_ref(), b].concat().into())),
        _ => {}
    }
    match numbers(raw, first, second)? {
        Some(Numbers::Integers(a, b)) => Ok(Value::integer(a + b)),
        Some(Numbers::Floats(a, b)) => Ok(Value::Float(a + b)),
        None => Err(Error::Sum { key: raw.to_owned(), found: first.type_name(), addend: second.type_name() }),
    }
}

/// `first - second` for numbers.
pub(super) fn difference(raw: &str, first: &Value, second: &Value) -> Result<Value, Error> {
    match numbers(raw, first, second)? {
        Some(Numbers::Integers(a, b)) => Ok(Value::integer(a - b)),
        Some(Numbers::Floats(a, b)) => Ok(Value::Float(a - b)),
        None => Err(Error::Difference {
            key: raw.to_owned(),
            found: first.type_name(),
            operand: second.type_name(),
        }),
    }
}
