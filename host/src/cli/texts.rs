//! Texts about the command line itself: help, completions, manual pages, the schema.

use clap::{Args as _, CommandFactory};
use clap_mangen::roff::{Roff, bold, roman};

use super::UsageError;
use super::args::{ABOUT, Arguments};
use crate::config::options::RunOptions;
use crate::config::{self, ExitStatus};

/// Environment variables that matter, for the manual page.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("ATEX_PLUGIN_PATH", "directories with plugin libraries, separated by colons"),
    ("ATEX_STATE_DIR", "where leases, history and known hosts are kept; default $XDG_STATE_HOME/atex-host"),
    ("NO_COLOR", "no colours, unless --color says otherwise"),
    ("USER, LOGNAME", "the user's part of the default owner user@host"),
    ("XDG_STATE_HOME", "base of the default state directory"),
];

/// The whole command line. As `run` may be left out, its options are known without it, too.
pub(super) fn command() -> clap::Command {
    RunOptions::augment_args(Arguments::command()).about(ABOUT).long_about(None)
}

/// The schema of the configuration, indented.
pub(super) fn schema() -> String {
    format!("{:#}\n", config::schema())
}

/// A script for `shell`.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<String, UsageError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "atex-host", &mut script);
    text(script)
}

/// The manual page of everything, or of one command.
pub(super) fn man(name: Option<&str>) -> Result<String, UsageError> {
    let mut whole = command();
    whole.build();
    let mut page = Vec::new();
    match name {
        None => clap_mangen::Man::new(whole).render(&mut page).and_then(|()| appendix().to_writer(&mut page)),
        Some(name) => {
            let Some(one) = whole.find_subcommand(name) else {
                let near = config::nearest(name, whole.get_subcommands().map(clap::Command::get_name));
                let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(UsageError::Arguments(format!("there is no command {name:?}{help}")));
            };
            clap_mangen::Man::new(one.clone().display_name(format!("atex-host-{name}"))).render(&mut page)
        }
    }
    .map_err(|error| UsageError::Arguments(format!("cannot make the manual page: {error}")))?;
    text(page)
}

/// What the page has beyond options.
fn appendix() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for status in ExitStatus::ALL {
        roff.control("TP", []);
        roff.text([bold(status.code().to_string())]);
        roff.text([roman(status.meaning())]);
    }
    roff.text([roman("Where several apply, the highest counts.")]);
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in ENVIRONMENT {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn text(bytes: Vec<u8>) -> Result<String, UsageError> {
    String::from_utf8(bytes)
        .map_err(|error| UsageError::Arguments(format!("a generated text is broken: {error}")))
}
