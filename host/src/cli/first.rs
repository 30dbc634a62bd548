//! Which command a command line begins with. `run` may be left out, so the first word decides: a command, or else a tree.

use std::ffi::OsString;

use clap::CommandFactory;

use super::args::Arguments;

/// What the first word that is no option of all commands is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// A command, or a wish for help or the version.
    Command,
    /// Something else: `run` was left out and belongs before argument `at`.
    Run { at: usize },
}

/// Options of all commands that take a value in the next word.
const WITH_VALUE: [&str; 3] = ["--format", "--color", "--log-file"];

/// Looks at the arguments up to the first that is no option of all commands.
pub(super) fn classify(arguments: &[OsString]) -> First {
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        let Some(word) = word.to_str() else { return First::Run { at } };
        if WITH_VALUE.contains(&word) {
            at += 2;
        } else if is_output_option(word) {
            at += 1;
        } else if matches!(word, "-h" | "--help" | "-V" | "--version") || is_command(word) {
            return First::Command;
        } else {
            return First::Run { at };
        }
    }
    First::Run { at: at.min(arguments.len()) }
}

fn is_output_option(word: &str) -> bool {
    let short = |letters: &str| !letters.is_empty() && letters.chars().all(|c| c == 'v' || c == 'q');
    matches!(word, "--verbose" | "--quiet")
        || WITH_VALUE.iter().any(|option| word.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')))
        || word.strip_prefix('-').is_some_and(short)
}

fn is_command(word: &str) -> bool {
    word == "help" || Arguments::command().get_subcommands().any(|command| command.get_name() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_the_default() {
        let table: [(&[&str], First); 14] = [
            (&[], First::Run { at: 0 }),
            (&["tree"], First::Run { at: 0 }),
            (&["./run"], First::Run { at: 0 }),
            (&["run", "tree"], First::Command),
            (&["--format", "json", "discover"], First::Command),
            (&["--format=json", "-vv", "--color", "never", "tree"], First::Run { at: 4 }),
            (&["-vq", "gc"], First::Command),
            (&["--plugin", "x", "gc"], First::Run { at: 0 }),
            (&["--help"], First::Command),
            (&["-v", "-V"], First::Command),
            (&["help", "run"], First::Command),
            (&["-"], First::Run { at: 0 }),
            (&["--format"], First::Run { at: 1 }),
            (&["plugins"], First::Command),
        ];
        for (words, want) in table {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert_eq!(classify(&words), want, "{words:?}");
        }
    }
}
