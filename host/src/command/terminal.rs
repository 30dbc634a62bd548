//! Where messages go: standard error for people, the run's own log, `--log-file`.
//!
//! The moving line of a run and log lines share the terminal: whoever writes to standard error goes through the bar.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{cli, config::Secrets};

/// The process's way to talk. There is one.
#[derive(Debug, Clone)]
pub struct Terminal {
    output: cli::Output,
    bar: ProgressBar,
    run_log: Late<File>,
    secrets: Late<Secrets>,
}

/// Something that is known later than the first message.
#[derive(Debug)]
struct Late<T>(Arc<OnceLock<T>>);

impl<T> Clone for Late<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(Arc::new(OnceLock::new()))
    }
}

impl Terminal {
    /// Takes over log messages of the whole process.
    pub fn new(output: &cli::Output) -> io::Result<Self> {
        let it = Self {
            output: output.clone(),
            bar: ProgressBar::hidden(),
            run_log: Late::default(),
            secrets: Late::default(),
        };
        let shown = match output.verbosity {
            ..=-1 => LevelFilter::ERROR,
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            3.. => LevelFilter::TRACE,
        };
        let people = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .with_ansi(output.color.enabled(io::stderr().is_terminal()))
            .with_writer(Masked { inner: BesideBar(it.bar.clone()), secrets: it.secrets.clone() })
            .with_filter(shown);
        let run_log = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(Masked { inner: ToFile(it.run_log.clone()), secrets: it.secrets.clone() })
            .with_filter(LevelFilter::DEBUG);
        let file = output.log_file.as_deref().map(open_log).transpose()?.map(|file| {
            let late = Late::default();
            let _first = late.0.set(file);
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(Masked { inner: ToFile(late), secrets: it.secrets.clone() })
                .with_filter(LevelFilter::TRACE)
        });
        tracing_subscriber::registry()
            .with(people)
            .with(run_log)
            .with(file)
            .try_init()
            .map_err(io::Error::other)?;
        Ok(it)
    }

    /// From here on messages go to the run's log too.
    pub(crate) fn log_to(&self, path: &Path) -> io::Result<()> {
        let _only_one_run = self.run_log.0.set(open_log(path)?);
        Ok(())
    }

    /// From here on these are masked in messages.
    pub(crate) fn mask(&self, secrets: &Secrets) {
        let _only_once = self.secrets.0.set(secrets.clone());
    }

    /// A line for people who watch; scripts are not told.
    pub(crate) fn say(&self, text: &str) {
        if self.output.verbosity >= 0 && self.output.format == cli::Format::Human {
            let _gone = writeln!(BesideBar(self.bar.clone()), "{text}");
        }
    }

    /// The moving line.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    pub(crate) fn output(&self) -> &cli::Output {
        &self.output
    }

    /// Whether standard output takes colours.
    pub(crate) fn colour(&self) -> bool {
        self.output.color.enabled(io::stdout().is_terminal())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write the log {}: {error}", path.display()))
    })
}

/// Replaces secrets in whole messages: a message is one `write`.
#[derive(Debug, Clone)]
struct Masked<W> {
    inner: W,
    secrets: Late<Secrets>,
}

impl<W: Clone + Write> MakeWriter<'_> for Masked<W> {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        match (self.secrets.0.get(), std::str::from_utf8(message)) {
            (Some(secrets), Ok(text)) if !secrets.is_empty() => {
                self.inner.write_all(secrets.mask(text).as_bytes())?;
            }
            _ => self.inner.write_all(message)?,
        }
        Ok(message.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Standard error, with the moving line out of the way.
#[derive(Debug, Clone)]
struct BesideBar(ProgressBar);

impl Write for BesideBar {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(message))?;
        Ok(message.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A file, once there is one.
#[derive(Debug, Clone)]
struct ToFile(Late<File>);

impl Write for ToFile {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if let Some(mut file) = self.0.0.get() {
            file.write_all(message)?;
        }
        Ok(message.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
