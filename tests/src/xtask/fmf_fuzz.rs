//! `cargo xtask fmf-fuzz`: random trees, read by atex-host and by the reference implementation in python.
//!
//! The trees and what python says about them come from `tests/fmf/fuzz_gen.py`, the comparison from `tests/fmf/check.py`. A tree
//! depends on seed, chance of unusual input and number alone, so what differed once can be made again. Trees that differed stay below
//! `target/fmf-fuzz`; where nothing did, they are removed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::headline;
use crate::build::{self, cargo, root, target_dir};

/// What the trees are compared with.
const REFERENCE: [&str; 2] = ["fmf==1.7.0", "ruamel.yaml==0.19.1"];

/// Chances of unusual input at each decision: trees that load, the usual mix, trees of which half do not load.
const WEIRD: [&str; 3] = ["0", "0.02", "0.1"];

/// Compares `count` trees for each of the chances; an error if any differs. With `release`, the program is an optimised one: worth its
/// compilation from some thousand trees on.
pub(super) fn fmf_fuzz(seed: u64, count: usize, release: bool) -> Result<()> {
    let host = host(release)?;
    let python = python()?;
    let mut differ = Vec::new();
    for weird in WEIRD {
        headline(&format!("{count} trees, seed {seed}, weird {weird}"));
        let trees = target_dir()?.join(format!("fmf-fuzz/{seed}-{weird}"));
        generate(&python, &trees, seed, count, weird)?;
        if compare(&python, &host, &trees)? {
            fs::remove_dir_all(&trees).with_context(|| format!("cannot remove {}", trees.display()))?;
        } else {
            differ.push(trees.display().to_string());
        }
    }
    if !differ.is_empty() {
        bail!("atex-host and fmf differ about trees in:\n  {}", differ.join("\n  "));
    }
    Ok(())
}

/// Builds the program alone: no plugin has a part in this.
fn host(release: bool) -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "-p", "atex-host"]).current_dir(root());
    if release {
        command.arg("--release");
    }
    build::run(&mut command)?;
    let profile = if release { build::Profile::Release } else { build::Profile::Dev };
    Ok(target_dir()?.join(profile.directory()).join("atex-host"))
}

fn generate(python: &Path, trees: &Path, seed: u64, count: usize, weird: &str) -> Result<()> {
    if trees.exists() {
        fs::remove_dir_all(trees).with_context(|| format!("cannot remove {}", trees.display()))?;
    }
    fs::create_dir_all(trees).with_context(|| format!("cannot make {}", trees.display()))?;
    let mut command = Command::new(python);
    command.arg(material("fuzz_gen.py")).arg("--out").arg(trees);
    command.args(["--seed", &seed.to_string(), "--count", &count.to_string(), "--weird", weird]);
    build::run(&mut command)
}

/// Whether the two say the same about all trees; what differs is printed.
fn compare(python: &Path, host: &Path, trees: &Path) -> Result<bool> {
    // The script splits its argument as a shell does.
    let host = host.to_str().context("the target directory has a name that is not UTF-8")?;
    let quoted = format!("'{}' fmf", host.replace('\'', r#"'"'"'"#));
    let mut command = Command::new(python);
    command.arg(material("check.py")).args(["--cmd", &quoted]).arg(trees);
    let status = command.status().with_context(|| format!("cannot start {}", python.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("check.py ended with {status}"),
    }
}

fn material(name: &str) -> PathBuf {
    root().join("tests/fmf").join(name)
}

/// A python with the reference implementation: `FMF_PYTHON`, else a virtual environment below the target directory, made if need be.
fn python() -> Result<PathBuf> {
    if let Some(python) = env::var_os("FMF_PYTHON").map(PathBuf::from) {
        if !has_reference(&python) {
            bail!("FMF_PYTHON is {}, which has not {}", python.display(), REFERENCE.join(" and "));
        }
        return Ok(python);
    }
    let environment = target_dir()?.join("fmf-python");
    let python = environment.join("bin/python3");
    if has_reference(&python) {
        return Ok(python);
    }
    eprintln!("installing {} into {}", REFERENCE.join(" and "), environment.display());
    build::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).context(
        "cannot make a virtual environment (Debian package python3-venv), and FMF_PYTHON is not set",
    )?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(REFERENCE);
    build::run(&mut install).context("cannot install the reference implementation")?;
    if !has_reference(&python) {
        bail!("{} does not find what was installed into it", python.display());
    }
    Ok(python)
}

fn has_reference(python: &Path) -> bool {
    let wanted = REFERENCE.map(|package| format!("{package:?}")).join(", ");
    let check = format!(
        "from importlib.metadata import version\n\
         import fmf, ruamel.yaml\n\
         assert all(version(name) == number for name, number in (text.split('==') for text in [{wanted}]))"
    );
    let mut command = Command::new(python);
    command.args(["-c", &check]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
