//! Reporter `jsonl`: one JSON line per result, and the files that tests uploaded in one tree beside it.
//!
//! ```yaml
//! reporters:
//!   - use: jsonl
//!     path: results.jsonl.xz        # both in the run directory, if not given
//!     files: files
//!     compress: xz                  # the lines: gz, xz or zst
//!     compress-files: true          # and the files, with the suffix added
//!     skip-files: [output.txt]      # but these stay as they are
//!     old: {path: old/results.jsonl.xz, files: old/files}
//! ```
//!
//! A line is `[platform, status, test, subtest, files, note]`, formatted as python's `json.dumps` does:
//!
//! ```text
//! ["9.8@x86_64", "fail", "/unit/syscalls", "connect", ["test.txt"], "Got errno: ECONNABORTED"]
//! ```
//!
//! Its files are `FILES/<platform>/<test>/<subtest>/<file>`: hard links to the host's artifacts where possible, else
//! copies (which share their data on file systems that can do that). Where the name of a test is also the place of another
//! test's subtest, ` (1)` is added to the name, in the line as well.
//!
//! Final results are written; those of runs that were repeated go to `old`, where a test may appear several times as
//! `/name`, `/name (1)`, ..., or nowhere if that is not given. `results: old` or `all` makes the main place take others.
//! A test's results appear all or not at all.
//!
//! After a restart of the host the whole report is written again, from the host's journal and artifacts.

mod files;
mod format;
mod names;
mod place;
mod sink;

use std::path::PathBuf;

use atex_plugin_api::prelude::*;
use atex_plugin_api::reporter::{Finished, RunEnded, RunStarted};

use place::Place;
pub use sink::Codec;

/// See the crate's documentation.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// The file of lines; `results.jsonl` and the suffix of the compression in the run directory if not given.
    #[schemars(extend("x-path" = true))]
    path: Option<PathBuf>,
    /// The directory of files; `files` in the run directory if not given.
    #[schemars(extend("x-path" = true))]
    files: Option<PathBuf>,
    /// How the lines are compressed; not at all if not given.
    compress: Option<Codec>,
    /// How hard: 1 to 9 for gz, 0 to 9 for xz, 1 to 22 for zst.
    level: Option<u32>,
    /// Compress the files as well.
    compress_files: bool,
    /// What is added to the names of compressed files, also in the lines; as the compression is called if not given. With
    /// an empty one the files keep their names.
    files_suffix: Option<String>,
    /// Names of files (without directories) that are not compressed.
    skip_files: Vec<String>,
    /// A test may be reported several times. If not, the second time is an error.
    duplicates: Option<bool>,
    /// Which results to write.
    results: Selection,
    /// Where old results go.
    old: Option<Old>,
}

/// Which results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The final verdict of each test.
    #[default]
    Final,
    /// Those of runs that were repeated later.
    Old,
    /// Both.
    All,
}

/// The second place, for results of runs that were repeated later.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Old {
    /// The file of lines.
    #[schemars(extend("x-path" = true))]
    path: PathBuf,
    /// The directory of files.
    #[schemars(extend("x-path" = true))]
    files: PathBuf,
}

impl Selection {
    fn takes(self, last: bool) -> bool {
        match self {
            Self::Final => last,
            Self::Old => !last,
            Self::All => true,
        }
    }
}

/// The reporter.
#[derive(Debug)]
pub struct JsonLines {
    config: Config,
    /// Open from the beginning of the run to its end.
    places: Vec<(Selection, Place)>,
}

impl Plugin for JsonLines {
    type Config = Config;
    const ABOUT: &'static str = "one JSON line per result, uploaded files beside it";

    fn new(config: Config, _host: Host) -> Result<Self> {
        check(&config)?;
        Ok(Self { config, places: Vec::new() })
    }
}

fn check(config: &Config) -> Result<()> {
    match (config.compress, config.level) {
        (None, Some(_)) => return Err(Error::config("`level`: needs `compress`")),
        (Some(codec), Some(level)) if !codec.levels().contains(&level) => {
            let levels = codec.levels();
            return Err(Error::config(format!(
                "`level: {level}`: {} has {} to {}",
                codec.word(),
                levels.start(),
                levels.end()
            )));
        }
        _ => {}
    }
    if config.compress_files && config.compress.is_none() {
        return Err(Error::config("`compress-files`: needs `compress`"));
    }
    if config.files_suffix.as_deref().is_some_and(|suffix| suffix.contains('/')) {
        return Err(Error::config("`files-suffix`: must not contain `/`"));
    }
    if config.old.is_some() && config.results != Selection::Final {
        return Err(Error::config("`old`: old results go to the main place already, because of `results`"));
    }
    Ok(())
}

impl JsonLines {
    fn open(&self, run: &RunStarted) -> Result<Vec<(Selection, Place)>> {
        let config = &self.config;
        let suffix = config.compress.map_or("", Codec::suffix);
        let path = config.path.clone().unwrap_or_else(|| PathBuf::from(format!("results.jsonl{suffix}")));
        let files = config.files.clone().unwrap_or_else(|| PathBuf::from("files"));
        let open = |path: PathBuf, files: PathBuf, duplicates: bool| {
            Place::open(
                &run.directory.join(path),
                &run.directory.join(files),
                &place::Options {
                    codec: config.compress,
                    level: config.level,
                    files: config.compress_files.then(|| files::Compression {
                        codec: config.compress.unwrap_or(Codec::Gz),
                        level: config.level,
                        suffix: config.files_suffix.clone().unwrap_or_else(|| suffix.to_owned()),
                        skip: config.skip_files.clone(),
                    }),
                    duplicates,
                    replace: run.continued,
                },
            )
        };
        let duplicates = config.duplicates.unwrap_or(config.results != Selection::Final);
        let mut places = vec![(config.results, open(path, files, duplicates)?)];
        if let Some(old) = &config.old {
            places.push((Selection::Old, open(old.path.clone(), old.files.clone(), true)?));
        }
        Ok(places)
    }
}

impl Reporter for JsonLines {
    fn run_started(&mut self, run: &RunStarted, _host: &Host) -> Result<()> {
        self.places = self.open(run)?;
        Ok(())
    }

    fn finished(&mut self, finished: &Finished, host: &Host) -> Result<()> {
        if self.places.is_empty() {
            return Err(Error::unsupported("its files could not be opened when the run began"));
        }
        for (selection, place) in &mut self.places {
            if selection.takes(finished.last) {
                place.add(finished, host)?;
            }
        }
        Ok(())
    }

    fn run_ended(&mut self, _end: &RunEnded, _host: &Host) -> Result<()> {
        let ended: Vec<Result<()>> = self.places.drain(..).map(|(_, place)| place.close()).collect();
        ended.into_iter().collect()
    }
}

atex_plugin_api::export_plugin!(reporter "jsonl" => JsonLines);

#[cfg(test)]
mod tests;
