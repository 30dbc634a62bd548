//! The grammar of rules.

use super::version::{Mode, Version};
use super::{Error, Outcome};
use crate::fmf::regex::Regex;

/// A parsed rule: any of the groups, in each of which every expression has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(Vec<Vec<Expression>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Constant(bool),
    Defined(String),
    NotDefined(String),
    Compare { dimension: String, operator: Operator, values: Vec<Version> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Less,
    MinorLess,
    LessOrEqual,
    MinorLessOrEqual,
    Equal,
    MinorEqual,
    NotEqual,
    MinorNotEqual,
    GreaterOrEqual,
    MinorGreaterOrEqual,
    Greater,
    MinorGreater,
    Matches,
    NotMatches,
}

impl Operator {
    /// In the order they are tried; the first one with which the expression is complete is taken.
    const ALL: [(&'static str, Self); 14] = [
        ("<", Self::Less),
        ("~<", Self::MinorLess),
        ("<=", Self::LessOrEqual),
        ("~<=", Self::MinorLessOrEqual),
        ("==", Self::Equal),
        ("~=", Self::MinorEqual),
        ("!=", Self::NotEqual),
        ("~!=", Self::MinorNotEqual),
        (">=", Self::GreaterOrEqual),
        ("~>=", Self::MinorGreaterOrEqual),
        (">", Self::Greater),
        ("~>", Self::MinorGreater),
        ("~", Self::Matches),
        ("!~", Self::NotMatches),
    ];

    /// What the operator says about one value of the context and one of the rule.
    pub(super) fn decide(self, our: &Version, their: &Version, ignore_case: bool) -> Result<Outcome, Error> {
        let compare = |minor, ordered, test: fn(std::cmp::Ordering) -> bool| {
            let order = our.compare(their, Mode { minor, ordered, ignore_case });
            Ok(order.map_or(Outcome::Undecided, |order| test(order).into()))
        };
        match self {
            Self::Less => compare(false, true, std::cmp::Ordering::is_lt),
            Self::MinorLess => compare(true, true, std::cmp::Ordering::is_lt),
            Self::LessOrEqual => compare(false, true, std::cmp::Ordering::is_le),
            Self::MinorLessOrEqual => compare(true, true, std::cmp::Ordering::is_le),
            Self::Equal => compare(false, false, std::cmp::Ordering::is_eq),
            Self::MinorEqual => compare(true, false, std::cmp::Ordering::is_eq),
            Self::NotEqual => compare(false, false, std::cmp::Ordering::is_ne),
            Self::MinorNotEqual => compare(true, false, std::cmp::Ordering::is_ne),
            Self::GreaterOrEqual => compare(false, true, std::cmp::Ordering::is_ge),
            Self::MinorGreaterOrEqual => compare(true, true, std::cmp::Ordering::is_ge),
            Self::Greater => compare(false, true, std::cmp::Ordering::is_gt),
            Self::MinorGreater => compare(true, true, std::cmp::Ordering::is_gt),
            Self::Matches => Ok(Regex::new(their.raw())?.search(our.raw())?.into()),
            Self::NotMatches => Ok((!Regex::new(their.raw())?.search(our.raw())?).into()),
        }
    }
}

impl Rule {
    /// Parses the whole rule before anything of it is decided.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = double_equal_signs(text);
        let mut groups = Vec::new();
        for group in split_at_word(&text, "or") {
            let expressions =
                split_at_word(group, "and").into_iter().map(|part| Expression::parse(part.trim()));
            groups.push(expressions.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self(groups))
    }

    pub(super) fn groups(&self) -> &[Vec<Expression>] {
        &self.0
    }
}

impl From<bool> for Rule {
    fn from(value: bool) -> Self {
        Self(vec![vec![Expression::Constant(value)]])
    }
}

/// A single `=` means `==`, wherever it stands.
fn double_equal_signs(text: &str) -> String {
    let mut doubled = String::with_capacity(text.len() + 8);
    let mut previous = ' ';
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        doubled.push(character);
        if character == '='
            && !matches!(previous, '=' | '!' | '~' | '<' | '>')
            && characters.peek() != Some(&'=')
        {
            doubled.push('=');
        }
        previous = character;
    }
    doubled
}

/// What a dimension consists of, dashes aside.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The text between the places where `word` stands on its own; dashes end a word too.
fn split_at_word<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let alone = !text[..at].ends_with(is_word) && !text[end..].starts_with(is_word);
        if alone {
            parts.push(&text[start..at]);
            start = end;
        }
    }
    parts.push(&text[start..]);
    parts
}

impl Expression {
    fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.starts_with("true") {
            return Ok(Self::Constant(true));
        }
        if text.starts_with("false") {
            return Ok(Self::Constant(false));
        }
        let end = text.find(|c| !is_word(c) && c != '-').unwrap_or(text.len());
        let (dimension, rest) = text.split_at(end);
        let bad = || Error::Expression(text.to_owned());
        if dimension.is_empty() {
            return Err(bad());
        }
        comparison(dimension, rest.trim_start()).or_else(|| definition(dimension, rest)).ok_or_else(bad)
    }
}

/// The rest of `DIMENSION OPERATOR VALUES`; the values end with the line.
fn comparison(dimension: &str, rest: &str) -> Option<Expression> {
    Operator::ALL.into_iter().find_map(|(sign, operator)| {
        let values = values(rest.strip_prefix(sign)?)?;
        let values = values.lines().next().unwrap_or_default().split(',');
        Some(Expression::Compare {
            dimension: dimension.to_owned(),
            operator,
            values: values.map(|value| Version::new(value.trim())).collect(),
        })
    })
}

/// The values after an operator. They do not start with `=`, unless there are blanks, of which the last counts as
/// their start then.
fn values(text: &str) -> Option<&str> {
    let trimmed = text.trim_start();
    if !trimmed.is_empty() && !trimmed.starts_with('=') {
        return Some(trimmed);
    }
    let blank = text[..text.len() - trimmed.len()].chars().next_back()?;
    Some(&text[text.len() - trimmed.len() - blank.len_utf8()..])
        .map(|values| values.strip_prefix('\n').unwrap_or(values))
}

/// The rest of `DIMENSION is defined`, where the blank before `is` may be missing: `distrois defined`.
fn definition(dimension: &str, rest: &str) -> Option<Expression> {
    let whole = rest.trim_start();
    let (name, is) = match dimension.strip_suffix("is") {
        Some(name) if !whole.starts_with("is ") => (name, rest),
        _ => (dimension, whole.strip_prefix("is")?),
    };
    if name.is_empty() {
        None
    } else if is.starts_with(" defined") {
        Some(Expression::Defined(name.to_owned()))
    } else if is.starts_with(" not defined") {
        Some(Expression::NotDefined(name.to_owned()))
    } else {
        None
    }
}
