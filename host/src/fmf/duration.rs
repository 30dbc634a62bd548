//! Durations as tests, plans, `atex.yaml` and the control channel write them.
//!
//! Two forms. [`parse`] reads the form of metadata: a sum of amounts with units and a product of factors
//! (`90`, `1h 30m`, `2h *1.5`, `*2` of a default), in any order. [`Change::parse`] reads the form of the control
//! channel: one amount, with a sign if it is relative to the limit in force.
//!
//! Amounts and factors may have decimals. Everything is computed exactly and rounded up to whole seconds at the
//! end, so that `10m *1.1` is 660 s and not, by the error of a float, 661. Nothing is longer than [`MAX`]; what
//! would be is an error, so no sum of two durations overflows anywhere in the host.
//!
//! Pure, and without a dependency on the rest of the crate.

use std::time::Duration;

/// How long a test may take that does not say.
pub const DEFAULT: Duration = Duration::from_mins(5);
/// The longest duration there is: about ten years.
pub const MAX: Duration = Duration::from_hours(24 * 3653);

/// Digits of one number, before and after the point together.
const MAX_DIGITS: usize = 18;
/// Amounts and factors of one duration.
const MAX_TERMS: usize = 16;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    #[error("is empty")]
    Empty,
    #[error("needs a number where {0:?} is")]
    NoNumber(char),
    #[error("ends where a number is needed")]
    Incomplete,
    #[error("has the unknown unit {0:?}: it is one of s, m, h, d")]
    Unit(char),
    #[error("has a number of more than {MAX_DIGITS} digits")]
    Digits,
    #[error("has more than {MAX_TERMS} parts")]
    Terms,
    #[error("is longer than ten years")]
    TooLong,
    #[error("has more than one amount: only metadata may hold sums and products")]
    NotOneAmount,
}

/// Reads the form of metadata. A text of factors only (`*2`), and one that adds up to nothing, means `default`.
///
/// ```
/// use std::time::Duration;
/// use atex_host::fmf::duration::{DEFAULT, parse};
/// assert_eq!(parse("1h 30m", DEFAULT), Ok(Duration::from_secs(5400)));
/// assert_eq!(parse("*2", DEFAULT), Ok(Duration::from_secs(600)));
/// ```
pub fn parse(text: &str, default: Duration) -> Result<Duration, DurationError> {
    let mut scanner = Scanner::new(text);
    let mut sum = Fraction::ZERO;
    let mut product = Fraction::ONE;
    let mut terms = 0;
    while let Some(term) = scanner.term()? {
        terms += 1;
        if terms > MAX_TERMS {
            return Err(DurationError::Terms);
        }
        match term {
            Term::Amount(amount) => sum = sum.add(amount)?,
            Term::Factor(factor) => product = product.multiply(factor)?,
        }
    }
    if terms == 0 {
        return Err(DurationError::Empty);
    }
    if sum.is_zero() {
        sum = Fraction::whole(default.as_secs().into());
    }
    sum.multiply(product)?.seconds_rounded_up()
}

/// What the word `duration` of the control channel asks for, `save` and `restore` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new limit, counted from now on.
    Limit(Duration),
    /// So much more than the limit in force.
    More(Duration),
    /// So much less than the limit in force.
    Less(Duration),
}

impl Change {
    /// Reads `T`, `+T` or `-T`.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let text = text.trim_matches(BLANKS);
        let (make, amount): (fn(Duration) -> Self, &str) = match text.as_bytes().first() {
            Some(b'+') => (Self::More, &text[1..]),
            Some(b'-') => (Self::Less, &text[1..]),
            _ => (Self::Limit, text),
        };
        single(amount).map(make)
    }
}

/// Reads one amount with an optional unit: no sums, products or signs. For the control channel, options and `atex.yaml`.
pub fn single(text: &str) -> Result<Duration, DurationError> {
    let mut scanner = Scanner::new(text);
    let amount = match scanner.term()? {
        Some(Term::Amount(amount)) => amount,
        Some(Term::Factor(_)) => return Err(DurationError::NotOneAmount),
        None => return Err(DurationError::Empty),
    };
    match scanner.term()? {
        Some(_) => Err(DurationError::NotOneAmount),
        None => amount.seconds_rounded_up(),
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

enum Term {
    Amount(Fraction),
    Factor(Fraction),
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The next amount or factor; none at the end.
    fn term(&mut self) -> Result<Option<Term>, DurationError> {
        self.skip_blanks();
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.skip_blanks();
            let factor = self.number()?;
            // `*2h` is a slip: a factor has no unit.
            return match self.rest.chars().next() {
                Some(unit) if unit.is_alphabetic() => Err(DurationError::Unit(unit)),
                _ => Ok(Some(Term::Factor(factor))),
            };
        }
        let number = self.number()?;
        let unit = self.unit()?;
        number.multiply(Fraction::whole(unit)).map(|amount| Some(Term::Amount(amount)))
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(BLANKS);
    }

    fn number(&mut self) -> Result<Fraction, DurationError> {
        let whole = self.digits();
        if whole.is_empty() {
            return Err(self.rest.chars().next().map_or(DurationError::Incomplete, DurationError::NoNumber));
        }
        let mut decimals = "";
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            decimals = self.digits();
            if decimals.is_empty() {
                return Err(DurationError::Incomplete);
            }
        }
        Fraction::from_digits(whole, decimals)
    }

    fn digits(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits
    }

    /// Seconds of the unit that stands right here; one if none does.
    fn unit(&mut self) -> Result<u128, DurationError> {
        let Some(letter) = self.rest.chars().next().filter(|c| !BLANKS.contains(c)) else { return Ok(1) };
        let seconds = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            '*' => return Ok(1),
            other => return Err(DurationError::Unit(other)),
        };
        self.rest = &self.rest[1..];
        Ok(seconds)
    }
}

/// An exact number that is not negative: `numerator / 10^decimals`, at most [`MAX`] seconds and 18 decimals.
#[derive(Debug, Clone, Copy)]
struct Fraction {
    numerator: u128,
    decimals: u32,
}

impl Fraction {
    const ZERO: Self = Self::whole(0);
    const ONE: Self = Self::whole(1);

    const fn whole(number: u128) -> Self {
        Self { numerator: number, decimals: 0 }
    }

    fn from_digits(whole: &str, decimals: &str) -> Result<Self, DurationError> {
        let decimals = decimals.trim_end_matches('0');
        let whole = whole.trim_start_matches('0');
        if whole.len() + decimals.len() > MAX_DIGITS {
            return Err(DurationError::Digits);
        }
        let numerator =
            whole.bytes().chain(decimals.bytes()).fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        Ok(Self { numerator, decimals: decimals.len() as u32 })
    }

    fn is_zero(self) -> bool {
        self.numerator == 0
    }

    fn add(self, other: Self) -> Result<Self, DurationError> {
        let decimals = self.decimals.max(other.decimals);
        let sum = self.scaled(decimals)?.checked_add(other.scaled(decimals)?);
        Self { numerator: sum.ok_or(DurationError::TooLong)?, decimals }.checked()
    }

    fn multiply(self, other: Self) -> Result<Self, DurationError> {
        let numerator = self.numerator.checked_mul(other.numerator).ok_or(DurationError::TooLong)?;
        Self { numerator, decimals: self.decimals + other.decimals }.checked()
    }

    /// The numerator with `decimals` digits behind the point.
    fn scaled(self, decimals: u32) -> Result<u128, DurationError> {
        self.numerator.checked_mul(10_u128.pow(decimals - self.decimals)).ok_or(DurationError::TooLong)
    }

    /// Keeps the invariants: products of many decimals are an error rather than rounded on the way.
    fn checked(self) -> Result<Self, DurationError> {
        if self.decimals as usize > MAX_DIGITS {
            return Err(DurationError::Digits);
        }
        if self.numerator.div_ceil(10_u128.pow(self.decimals)) > MAX.as_secs().into() {
            return Err(DurationError::TooLong);
        }
        Ok(self)
    }

    fn seconds_rounded_up(self) -> Result<Duration, DurationError> {
        let seconds = self.checked()?.numerator.div_ceil(10_u128.pow(self.decimals));
        u64::try_from(seconds).map(Duration::from_secs).map_err(|_| DurationError::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Result<u64, DurationError> {
        parse(text, DEFAULT).map(|duration| duration.as_secs())
    }

    #[test]
    fn metadata_holds_sums_and_products() {
        for (text, expected) in [
            ("90", 90),
            ("5m", 300),
            ("1h", 3600),
            ("2d", 172_800),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            (" 1m\t30 ", 90),
            ("2h *1.5", 10_800),
            ("*1.5 2h", 10_800),
            ("*2", 600),
            ("*2 *1.5", 900),
            ("* 2", 600),
            ("10s*2", 20),
            ("10m *1.1", 660),
            ("1s *1.001", 2),
            ("1.5h", 5400),
            ("0.1s", 1),
            ("0", 300),
            ("*0", 0),
            ("007m", 420),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        use DurationError as E;
        for (text, expected) in [
            ("", E::Empty),
            ("  ", E::Empty),
            ("m", E::NoNumber('m')),
            ("5x", E::Unit('x')),
            ("5 m", E::NoNumber('m')),
            ("5ms", E::NoNumber('s')),
            ("-5m", E::NoNumber('-')),
            ("*", E::Incomplete),
            ("1.h", E::Incomplete),
            ("*2h", E::Unit('h')),
            ("1e9", E::Unit('e')),
            ("５m", E::NoNumber('５')),
            ("3654d", E::TooLong),
            ("999999999999999999d", E::TooLong),
            ("9999999999999999999", E::Digits),
            ("1 *0.0000000001 *0.0000000001", E::Digits),
            ("1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s", E::Terms),
        ] {
            assert_eq!(seconds(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_channel_takes_one_amount_with_a_sign() {
        let of = Duration::from_secs;
        for (text, expected) in [
            ("10m", Ok(Change::Limit(of(600)))),
            ("0", Ok(Change::Limit(of(0)))),
            ("+10m", Ok(Change::More(of(600)))),
            ("-1h", Ok(Change::Less(of(3600)))),
            ("+ 5", Ok(Change::More(of(5)))),
            ("--5", Err(DurationError::NoNumber('-'))),
            ("+", Err(DurationError::Empty)),
            ("1h 30m", Err(DurationError::NotOneAmount)),
            ("*2", Err(DurationError::NotOneAmount)),
            ("save", Err(DurationError::NoNumber('s'))),
        ] {
            assert_eq!(Change::parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_leave_the_range(text in "[-+*0-9.smhd x]{0,40}") {
            if let Ok(duration) = parse(&text, DEFAULT) {
                prop_assert!(duration <= MAX);
            }
            if let Ok(Change::Limit(it) | Change::More(it) | Change::Less(it)) = Change::parse(&text) {
                prop_assert!(it <= MAX);
            }
        }

        #[test]
        fn a_sum_is_the_sum_of_its_parts(parts in proptest::collection::vec((1_u64..100_000, 0_usize..4), 1..8)) {
            let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
            let words: Vec<String> = parts.iter().map(|(n, unit)| format!("{n}{}", units[*unit].0)).collect();
            let text = words.join(" ");
            let expected: u64 = parts.iter().map(|(n, unit)| n * units[*unit].1).sum();
            let result = seconds(&text);
            if expected <= MAX.as_secs() {
                prop_assert_eq!(result, Ok(expected));
            } else {
                prop_assert_eq!(result, Err(DurationError::TooLong));
            }
        }

        #[test]
        fn a_product_is_rounded_up(amount in 1_u64..1_000_000, hundredths in 1_u64..1000) {
            let text = format!("{amount} *{}.{:02}", hundredths / 100, hundredths % 100);
            prop_assert_eq!(seconds(&text), Ok((amount * hundredths).div_ceil(100)));
        }
    }
}
