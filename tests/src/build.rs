//! Where things are in this checkout and in cargo's target directory, and how to make them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};

const KINDS: [&str; 3] = ["provisioner-", "policy-", "reporter-"];

/// The root of the checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// cargo's target directory for this workspace.
pub fn target_dir() -> Result<PathBuf> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(directory.into())
}

/// Which of cargo's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    /// The directory below the target directory.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// A built checkout: the program with the bundled plugins beside it.
#[derive(Debug, Clone)]
pub struct Built {
    pub directory: PathBuf,
}

impl Built {
    /// `atex-host` itself.
    pub fn host(&self) -> PathBuf {
        self.directory.join("atex-host")
    }
    /// A plugin library by its crate's name, e.g. `provisioner-local` or `test-faulty`.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.directory.join(format!("libatex_{}.so", name.replace('-', "_")))
    }
}

/// Builds the whole workspace.
pub fn build(profile: Profile) -> Result<Built> {
    let mut command = Command::new(cargo());
    command.args(["build", "--workspace", "--quiet"]).current_dir(root());
    if profile == Profile::Release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(Built { directory: target_dir()?.join(profile.directory()) })
}

/// The cargo that started us, else the one in `PATH`.
pub fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Runs a command to its end; a status other than 0 is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether a program is in `PATH`.
pub fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

/// What tests use: built once per process, or by whoever started them and says so by [`BUILT`].
pub fn for_tests() -> &'static Built {
    static ONCE: OnceLock<Built> = OnceLock::new();
    ONCE.get_or_init(|| match env::var_os(BUILT) {
        Some(directory) => Built { directory: directory.into() },
        None => build(Profile::Dev).unwrap_or_else(|error| {
            eprintln!("cannot build what is to be tested: {error:#}");
            std::process::exit(101)
        }),
    })
}

/// Environment variable: the directory of an up-to-date build.
pub const BUILT: &str = "ATEX_TEST_BUILT";

/// Names of the bundled plugins' crates: those below `plugins/` that are called after a kind of plugin.
pub fn plugin_crates() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("plugins")).context("cannot list plugins/")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if KINDS.iter().any(|kind| name.starts_with(kind)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
