//! Conditions: expressions of python over the metadata of one node, as in `--condition "tier == '1' and 'slow' not in tag"`.
//!
//! Suites are selected with python expressions because the reference implementation hands them to `eval`. Here nothing
//! is run: a [`Condition`] is parsed into a tree and that tree is evaluated over [`Value`]s, with limits on the size
//! of the expression, the steps and the memory of one evaluation. There is no way from an expression to a file, a
//! process or the environment.
//!
//! What is there: literals, displays and comprehensions; `and`, `or`, `not`, chained comparisons, `in`, `is` (with
//! `None`, `True`, `False`), arithmetic, `x if c else y`; subscripts and slices; the functions of [`builtins`] and the
//! methods of [`methods`]; `locals()` and `globals()`.
//!
//! Three kinds of failure, kept apart by [`Problem`]: the text is no expression; it uses a part of python that is not
//! there (never a wrong answer instead); it raises an exception, as it would in python. Of the last kind, a missing
//! name or key is none for [`Condition::holds`]: the condition just does not hold.

mod arithmetic;
mod ast;
mod builtins;
mod eval;
mod lexer;
mod methods;
mod parser;
#[cfg(test)]
mod tests;

use std::fmt;

use super::value::{Map, Value};
use ast::Expr;

/// Longest expression, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A condition, parsed.
#[derive(Debug, Clone)]
pub struct Condition {
    text: Box<str>,
    root: Expr,
}

impl Condition {
    /// Parses one expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let parsed = if text.len() > MAX_LENGTH {
            Err(Fault { at: 0, problem: Problem::Limit("it is longer than 16 KiB") })
        } else {
            parser::parse(text)
        };
        match parsed {
            Ok(root) => Ok(Self { text: text.into(), root }),
            Err(fault) => Err(ConditionError::new(text, fault)),
        }
    }

    /// Whether it is true of `data`. A name or key that is missing makes it false.
    pub fn holds(&self, data: &Map) -> Result<bool, ConditionError> {
        match self.evaluate(data) {
            Ok(value) => Ok(value.is_true()),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its value, with the keys of `data` as names.
    pub fn evaluate(&self, data: &Map) -> Result<Value, ConditionError> {
        eval::evaluate(&self.root, data).map_err(|fault| ConditionError::new(&self.text, fault))
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What is wrong, at a byte of the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    at: u32,
    problem: Problem,
}

type Outcome<T> = Result<T, Fault>;

/// What kind of failure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Not an expression of python.
    Syntax(String),
    /// Python knows this, this program does not.
    Unsupported(String),
    /// Python would raise this exception, of this class and with about this text.
    Raised(&'static str, String),
    /// It takes too much.
    Limit(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => f.write_str(text),
            Self::Unsupported(what) => write!(f, "{what} is not supported"),
            Self::Raised(class, text) => write!(f, "{class}: {text}"),
            Self::Limit(what) => write!(f, "it takes too much: {what}"),
        }
    }
}

/// A condition that cannot be parsed or evaluated: shows the expression and the column, on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("condition {expression:?}, column {column}: {problem}")]
pub struct ConditionError {
    expression: Box<str>,
    column: usize,
    problem: Problem,
}

impl ConditionError {
    fn new(text: &str, fault: Fault) -> Self {
        let before = text.get(..fault.at as usize).unwrap_or("");
        let line = before.rsplit('\n').next().unwrap_or(before);
        let shown: String = text.chars().take(300).collect();
        Self { expression: shown.into(), column: line.chars().count() + 1, problem: fault.problem }
    }

    /// In characters from 1, within its line of the expression.
    pub fn column(&self) -> usize {
        self.column
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The name of python's exception for it; none if python has no trouble with it.
    pub fn class(&self) -> Option<&'static str> {
        match &self.problem {
            Problem::Syntax(_) => Some("SyntaxError"),
            Problem::Raised(class, _) => Some(class),
            Problem::Unsupported(_) | Problem::Limit(_) => None,
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self.problem, Problem::Raised("NameError" | "KeyError", _))
    }
}

fn raised<T>(at: u32, class: &'static str, text: impl Into<String>) -> Outcome<T> {
    Err(Fault { at, problem: Problem::Raised(class, text.into()) })
}

fn type_error<T>(at: u32, text: impl Into<String>) -> Outcome<T> {
    raised(at, "TypeError", text)
}

fn unsupported<T>(at: u32, what: impl Into<String>) -> Outcome<T> {
    Err(Fault { at, problem: Problem::Unsupported(what.into()) })
}

fn syntax<T>(at: u32, text: impl Into<String>) -> Outcome<T> {
    Err(Fault { at, problem: Problem::Syntax(text.into()) })
}

fn limit<T>(at: u32, what: &'static str) -> Outcome<T> {
    Err(Fault { at, problem: Problem::Limit(what) })
}
