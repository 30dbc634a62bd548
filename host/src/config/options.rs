//! What the command line says about a run, as typed: nothing is looked up, joined or defaulted yet.
//!
//! These structures are read by clap and stored in run.json (see [`super::plan::Origin`]), from where `resume` and `gc` make
//! the same plan again.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expand::is_variable;
use super::plan::Dialect;
use super::spec::Spec;
use super::units;

/// Which tests, of which tree, for which platforms.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct TreeOptions {
    /// Directory in the FMF tree [default: the current directory]
    #[arg(value_name = "TREE", value_hint = clap::ValueHint::DirPath, help_heading = "Arguments")]
    pub tree: Option<PathBuf>,

    /// Configuration file [default: atex.yaml of the tree, as far as it is trusted]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Configuration")]
    pub config: Option<PathBuf>,

    /// Trust the atex.yaml of the tree with plugins, programs, this box and the environment
    #[arg(long, help_heading = "Configuration")]
    pub trust_tree: bool,

    /// Only this platform of the configuration; repeatable
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub platform: Vec<String>,

    /// Whose semantics apply where those of tmt and of atex differ [default: tmt]
    #[arg(long, value_enum, value_name = "DIALECT", help_heading = "Configuration")]
    pub dialect: Option<Dialect>,

    /// Dimension of the context, e.g. distro=fedora-42; repeatable
    #[arg(long, value_name = "K=V", help_heading = "Selection")]
    pub context: Vec<Assignment>,

    /// Plans in whose name this regular expression is found; repeatable
    #[arg(long, value_name = "RE", help_heading = "Selection")]
    pub plan: Vec<String>,

    /// All tests of the tree, whatever plans there are
    #[arg(long, conflicts_with = "plan", help_heading = "Selection")]
    pub no_plan: bool,

    /// Tests in whose name this regular expression is found; repeatable
    #[arg(long, value_name = "RE", help_heading = "Selection")]
    pub test: Vec<String>,

    /// No tests in whose name this regular expression is found; repeatable
    #[arg(long, value_name = "RE", help_heading = "Selection")]
    pub exclude: Vec<String>,

    /// Tests that pass this FMF filter, e.g. 'tag: smoke & tier: 1'; repeatable, all must pass
    #[arg(long, value_name = "EXPR", help_heading = "Selection")]
    pub filter: Vec<String>,

    /// Tests whose metadata meet this Python expression, e.g. 'extra_priority > 5'; repeatable, all must be met
    #[arg(long, value_name = "EXPR", help_heading = "Selection")]
    pub condition: Vec<String>,

    /// Leave out what is not supported in plans, with a warning
    #[arg(long, help_heading = "Permissions")]
    pub ignore_unsupported: bool,

    /// No test selected is a success
    #[arg(long, help_heading = "Permissions")]
    pub allow_empty: bool,
}

/// How tests are run, on which machines.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub tree: TreeOptions,

    #[command(flatten)]
    #[serde(flatten)]
    pub plugins: PluginOptions,

    /// Pool of machines: NAME, NAME,key=value,... or {use: NAME, ...}, where NAME is a pool of the configuration or a plugin; repeatable, no other pools are used then
    #[arg(long, value_name = "SPEC", help_heading = "Plugins")]
    pub provisioner: Vec<Spec>,

    /// Policy that orders tests and judges runs; repeatable, in order, replaces those of the configuration
    #[arg(long, value_name = "SPEC", help_heading = "Plugins")]
    pub policy: Vec<Spec>,

    /// Reporter; repeatable, adds to those of the configuration
    #[arg(long, value_name = "SPEC", help_heading = "Plugins")]
    pub reporter: Vec<Spec>,

    /// Environment variable of tests and scripts; repeatable
    #[arg(long, value_name = "K=V", help_heading = "Run")]
    pub env: Vec<Assignment>,

    /// Run a failed test up to N more times (the policy `reruns`)
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub reruns: Option<u16>,

    /// Tests at once on one machine [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub slots: Option<NonZeroU16>,

    /// Machines over all pools [default: no limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub max_machines: Option<NonZeroU32>,

    /// Machines kept ready beyond what is running [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub spares: Option<u32>,

    /// Start no further test after N failed ones
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub max_fail: Option<NonZeroU32>,

    /// The same as --max-fail 1
    #[arg(long, conflicts_with = "max_fail", help_heading = "Scheduling")]
    pub fail_fast: bool,

    /// For everything random; the same seed makes the same schedule [default: drawn, and printed]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Scheduling")]
    pub seed: Option<u64>,

    /// How long the run may take, e.g. 8h [default: 12h]
    #[arg(long, value_name = "T", help_heading = "Scheduling")]
    pub time_limit: Option<Time>,

    /// Where to keep the run [default: atex-runs/TIME-ID]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = "Run")]
    pub run_dir: Option<PathBuf>,

    /// Only the tests that did not pass in this earlier run
    #[arg(long, value_name = "RUN_DIR", value_hint = clap::ValueHint::DirPath, help_heading = "Run")]
    pub rerun_failed: Option<PathBuf>,

    /// Do everything up to the first reservation and print what would run where
    #[arg(long, help_heading = "Run")]
    pub dry_run: bool,

    /// Run tests on this box if a plan says so: they can wreck it
    #[arg(long, help_heading = "Permissions")]
    pub allow_local: bool,

    /// Count warnings: the verdict warn fails, doubtful plugin files are refused
    #[arg(long, help_heading = "Permissions")]
    pub strict: bool,
}

impl RunOptions {
    /// The keys of the `index`th use of one of the options that name plugins, to redact them.
    pub(crate) fn stored_keys(&mut self, option: &str, index: usize) -> Option<&mut Value> {
        let specs = match option {
            "--provisioner" => &mut self.provisioner,
            "--policy" => &mut self.policy,
            "--reporter" => &mut self.reporter,
            _ => return None,
        };
        specs.get_mut(index).map(Spec::value_mut)
    }
}

/// Where plugins come from.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginOptions {
    /// Load a plugin library; repeatable, wins over a bundled one of the same name
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath, help_heading = "Plugins")]
    pub plugin: Vec<PathBuf>,
}

/// `KEY=VALUE`. `Debug` does not show the value, which may be a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub key: String,
    pub value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if is_variable(&key.replace('-', "_")) => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            Some((key, _)) => Err(format!("{key:?} is no name; expected NAME=VALUE")),
            None => Err("expected NAME=VALUE".to_owned()),
        }
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=...", self.key)
    }
}

/// A duration on the command line: `90s`, `5m`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        units::duration(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_have_a_name() {
        let parse = |text: &str| text.parse::<Assignment>().map(|it| (it.key, it.value));
        assert_eq!(parse("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(parse("kernel-version="), Ok(("kernel-version".into(), String::new())));
        assert_eq!(parse("A").unwrap_err(), "expected NAME=VALUE");
        assert_eq!(parse("=x").unwrap_err(), "\"\" is no name; expected NAME=VALUE");
        assert_eq!(parse("A B=x").unwrap_err(), "\"A B\" is no name; expected NAME=VALUE");
        let secret: Assignment = "TOKEN=hunter2".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "TOKEN=...");
    }
}
