//! Plain types to ABI types and back. Unknown numbers become the harmless value, never an error.

use abi_stable::std_types::{RErr, ROk, RResult, RString, RVec};

use crate::abi::{RawError, RawErrorKind, RawLevel, RawVote};
#[cfg(feature = "host")]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::host::Level;
use crate::policy::Outcome;

/// Longest chain of causes that is taken from the other side.
#[cfg(feature = "host")]
const MAX_CAUSES: usize = 64;
/// [`RawError::more`] of an error that is [uncertain](Error::uncertain).
const UNCERTAIN: &str = r#"{"uncertain":true}"#;

pub(crate) fn raw_result<T>(result: Result<T>) -> RResult<T, RawError> {
    match result {
        Ok(value) => ROk(value),
        Err(error) => RErr(raw_error(&error)),
    }
}

#[cfg(feature = "host")]
pub(crate) fn plain_result<T>(result: RResult<T, RawError>) -> Result<T> {
    match result {
        ROk(value) => Ok(value),
        RErr(error) => Err(plain_error(&error)),
    }
}

fn raw_error(error: &Error) -> RawError {
    RawError {
        kind: RawErrorKind(error.kind() as u32),
        retryable: error.is_retryable().into(),
        chain: error.chain().iter().map(|message| RString::from(message.as_str())).collect::<RVec<_>>(),
        detail: error.detail().into(),
        more: if error.is_uncertain() { UNCERTAIN.into() } else { RString::new() },
    }
}

#[cfg(feature = "host")]
fn plain_error(error: &RawError) -> Error {
    let mut causes = error.chain.iter().take(MAX_CAUSES).map(RString::as_str).collect::<Vec<_>>();
    let innermost = causes.pop().unwrap_or("no reason given");
    let mut plain = Error::new(error_kind(error.kind), innermost);
    for message in causes.into_iter().rev() {
        plain = plain.context(message);
    }
    plain = plain.retryable(error.retryable == 1).with_detail(error.detail.as_str());
    if is_uncertain(error.more.as_str()) { plain.uncertain() } else { plain }
}

/// What later versions add is passed over; so is what cannot be read.
#[cfg(feature = "host")]
fn is_uncertain(more: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(more).is_ok_and(|more| more["uncertain"] == true)
}

#[cfg(feature = "host")]
fn error_kind(raw: RawErrorKind) -> ErrorKind {
    match raw {
        RawErrorKind::PANIC => ErrorKind::Panic,
        RawErrorKind::CONFIG => ErrorKind::Config,
        RawErrorKind::CANCELLED => ErrorKind::Cancelled,
        RawErrorKind::BUSY => ErrorKind::Busy,
        RawErrorKind::UNSUPPORTED => ErrorKind::Unsupported,
        RawErrorKind::UNREACHABLE => ErrorKind::Unreachable,
        RawErrorKind::DENIED => ErrorKind::Denied,
        _ => ErrorKind::Other,
    }
}

pub(crate) fn raw_level(level: Level) -> RawLevel {
    match level {
        Level::Error => RawLevel::ERROR,
        Level::Warn => RawLevel::WARN,
        Level::Info => RawLevel::INFO,
        Level::Debug => RawLevel::DEBUG,
        Level::Trace => RawLevel::TRACE,
    }
}

#[cfg(feature = "host")]
pub(crate) fn plain_level(level: RawLevel) -> Level {
    match level {
        RawLevel::ERROR => Level::Error,
        RawLevel::WARN => Level::Warn,
        RawLevel::DEBUG => Level::Debug,
        RawLevel::TRACE => Level::Trace,
        _ => Level::Info,
    }
}

pub(crate) fn raw_vote(vote: Option<bool>) -> RawVote {
    match vote {
        None => RawVote::NONE,
        Some(true) => RawVote::YES,
        Some(false) => RawVote::NO,
    }
}

#[cfg(feature = "host")]
pub(crate) fn plain_vote(vote: RawVote) -> Option<bool> {
    match vote {
        RawVote::YES => Some(true),
        RawVote::NO => Some(false),
        _ => None,
    }
}

pub(crate) fn outcome(raw: u32) -> Outcome {
    match raw {
        1 => Outcome::Passed,
        3 => Outcome::TimedOut,
        4 => Outcome::Protocol,
        5 => Outcome::Limit,
        _ => Outcome::Failed,
    }
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way_over() {
        for kind in [
            ErrorKind::Other,
            ErrorKind::Panic,
            ErrorKind::Config,
            ErrorKind::Cancelled,
            ErrorKind::Busy,
            ErrorKind::Unsupported,
            ErrorKind::Unreachable,
            ErrorKind::Denied,
        ] {
            for retryable in [false, true] {
                let error = Error::new(kind, "innermost")
                    .context("middle")
                    .context("outermost")
                    .retryable(retryable)
                    .with_detail("a\nb");
                assert_eq!(plain_error(&raw_error(&error)), error);
            }
        }
    }

    #[test]
    fn what_may_be_left_behind_is_told() {
        let error = Error::new(ErrorKind::Unreachable, "no answer");
        assert!(!plain_error(&raw_error(&error)).is_uncertain());
        assert!(plain_error(&raw_error(&error.uncertain())).is_uncertain());
        let mut raw = raw_error(&Error::config("x"));
        for (more, uncertain) in
            [("", false), ("{", false), (r#"{"new":1}"#, false), (r#"{"uncertain":true,"new":1}"#, true)]
        {
            raw.more = more.into();
            assert_eq!(plain_error(&raw).is_uncertain(), uncertain, "{more}");
        }
    }

    #[test]
    fn strange_errors_are_survived() {
        let mut raw = raw_error(&Error::config("x"));
        raw.kind = RawErrorKind(4711);
        raw.retryable = 2;
        raw.chain.clear();
        let plain = plain_error(&raw);
        assert_eq!((plain.kind(), plain.is_retryable()), (ErrorKind::Other, false));
        assert_eq!(plain.to_string(), "no reason given");
        raw.chain = (0..1000).map(|i| RString::from(i.to_string())).collect();
        assert_eq!(plain_error(&raw).chain().len(), MAX_CAUSES);
    }

    #[test]
    fn outcomes_keep_their_numbers() {
        for it in [Outcome::Passed, Outcome::Failed, Outcome::TimedOut, Outcome::Protocol, Outcome::Limit] {
            assert_eq!(outcome(it as u32), it);
        }
        assert_eq!(outcome(99), Outcome::Failed);
    }
}
