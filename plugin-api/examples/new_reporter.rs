//! Reporter `mine`: one line of text for each test, in the run directory.
//!
//! ```yaml
//! reporters:
//!   - {use: mine, file: summary.txt}
//! ```

use std::fs::File;
use std::io::Write;

use atex_plugin_api::prelude::*;
use atex_plugin_api::reporter::{Finished, RunEnded, RunStarted};

/// What users write beside `use: mine`. An unknown key is an error.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Name of the file.
    file: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { file: "summary.txt".to_owned() }
    }
}

/// The reporter. Its methods are called one after the other; it may be slow, nobody waits for it.
#[derive(Debug)]
pub struct Mine {
    config: Config,
    /// Open while the run goes on.
    file: Option<File>,
}

impl Plugin for Mine {
    type Config = Config;
    const ABOUT: &'static str = "one line of text for each test";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self { config, file: None })
    }
}

impl Reporter for Mine {
    // A run may be told again, from its beginning: then the file is made anew.
    fn run_started(&mut self, run: &RunStarted, _host: &Host) -> Result<()> {
        self.file = Some(File::create(run.directory.join(&self.config.file))?);
        Ok(())
    }

    fn finished(&mut self, finished: &Finished, _host: &Host) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::unsupported("the file could not be made"))?;
        if finished.last {
            writeln!(file, "{} {} {}", finished.status, finished.platform, finished.test)?;
        }
        Ok(())
    }

    fn run_ended(&mut self, _end: &RunEnded, _host: &Host) -> Result<()> {
        match self.file.take() {
            Some(file) => Ok(file.sync_all()?),
            None => Ok(()),
        }
    }
}

atex_plugin_api::export_plugin!(reporter "mine" => Mine);

#[cfg(test)]
mod tests {
    use atex_plugin_api::host_side::ReportEvent;
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    #[test]
    fn only_final_verdicts_are_written() {
        let directory = std::env::temp_dir().join(format!("mine-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let host = FakeHost::new().handle();
        let mut mine = testkit::reporter::<Mine>("{}", &host).unwrap();
        let mut run = RunStarted::default();
        run.directory.clone_from(&directory);
        mine.tell(ReportEvent::RunStarted(&run), &host).unwrap();
        for last in [false, true] {
            let mut finished = Finished::default();
            (finished.platform, finished.test) = ("p".to_owned(), "/a".to_owned());
            (finished.status, finished.last) = ("pass".to_owned(), last);
            mine.tell(ReportEvent::Finished(&finished), &host).unwrap();
        }
        mine.tell(ReportEvent::RunEnded(&RunEnded::default()), &host).unwrap();
        let text = std::fs::read_to_string(directory.join("summary.txt")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text, "pass p /a\n");
    }
}
