//! `history`, and what other commands want of it: what to expect of tests.

use std::{io, io::Write as _};

use crate::{
    cli::{self, Format},
    config::{ConfigError, ExitStatus},
    fmf::regex::Regex,
    store::{Expectations, History, HistoryError, StateDir},
};

use super::{Error, Terminal};

pub(super) fn history(wanted: &cli::History, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let patterns = wanted.tests.iter().map(|pattern| Regex::new(pattern)).collect::<Result<Vec<_>, _>>();
    let patterns = patterns.map_err(|error| ConfigError::new(error.to_string()))?;
    let is_wanted = |platform: &str, test: &str| {
        (wanted.platforms.is_empty() || wanted.platforms.iter().any(|name| name == platform))
            && (patterns.is_empty() || patterns.iter().any(|pattern| pattern.search(test).unwrap_or(false)))
    };
    let state = StateDir::from_environment().map_err(Error::State)?;
    let history = History::open(&state.history().map_err(Error::State)?)?;
    let tests = history.tests(is_wanted)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match terminal.output().format {
        Format::Human => cli::history::text(&mut out, &tests),
        Format::Json => cli::history::json(&mut out, &tests),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)?;
    Ok(ExitStatus::Passed)
}

/// What to expect of the tests of each platform, in the order of their names. Without a history nothing; the user is told.
pub(super) fn expectations<'n>(
    state: &StateDir,
    platforms: impl IntoIterator<Item = &'n str>,
) -> Vec<Expectations> {
    let mut history = open(state).map_err(|error| warn(&error)).ok();
    platforms
        .into_iter()
        .map(|platform| match history.as_ref().map(|history| history.expectations(platform)) {
            Some(Ok(expectations)) => expectations,
            Some(Err(error)) => {
                warn(&error);
                history = None;
                Expectations::default()
            }
            None => Expectations::default(),
        })
        .collect()
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot use the state directory: {0}")]
    State(io::Error),
    #[error(transparent)]
    History(#[from] HistoryError),
}

fn open(state: &StateDir) -> Result<History, Problem> {
    Ok(History::open(&state.history().map_err(Problem::State)?)?)
}

fn warn(error: &dyn std::error::Error) {
    tracing::warn!("{error}; durations of tests are guessed");
}
