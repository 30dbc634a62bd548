//! `cargo xtask demo`: the bundled FMF tree over four local machines, and a check of everything that came out.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::packages;
use crate::build::{self, Built, Profile, root, target_dir};

/// Status, files and note of one result; the key is (test, subtest).
type Results = BTreeMap<(String, String), (String, Vec<String>)>;

pub(super) fn demo(run_dir: Option<&Path>) -> Result<()> {
    packages::ensure(false)?;
    eprintln!("building atex-host and its plugins");
    let built = build::build(Profile::Dev)?;
    let scratch = target_dir()?.join("demo");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("run-")
        .disable_cleanup(true)
        .tempdir_in(&scratch)
        .context("cannot make a directory for the demo")?;
    let run_dir = run_dir.map_or_else(|| scratch.path().join("results"), Path::to_path_buf);
    execute(&built, scratch.path(), &run_dir)?;
    check(&run_dir)
}

/// Runs the tree as a user would.
fn execute(built: &Built, scratch: &Path, run_dir: &Path) -> Result<()> {
    let state = scratch.join("state");
    fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let mut command = Command::new(built.host());
    command
        .arg(root().join("tests/demo"))
        .args(["--provisioner", "local,max=4", "--reruns", "1"])
        .args(["--policy", "destructive", "--policy", "priority", "--policy", "duration"])
        .arg("--env")
        .arg(format!("DEMO_STATE={}", state.display()))
        .arg("--run-dir")
        .arg(run_dir)
        .env("ATEX_STATE_DIR", scratch.join("atex-state"));
    let status = command.status().context("cannot start atex-host")?;
    ensure!(
        status.code() == Some(1),
        "atex-host ended with {status}; with tests that fail on purpose it should be exit status 1"
    );
    Ok(())
}

/// Compares the results with what the tree is meant to give.
fn check(run_dir: &Path) -> Result<()> {
    let seen = read_results(&run_dir.join("results.jsonl"))?;
    let expected = read_expected(&root().join("tests/demo/expected.tsv"))?;
    let mut wrong = Vec::new();
    for key in expected.keys().chain(seen.keys().filter(|key| !expected.contains_key(*key))) {
        if expected.get(key) != seen.get(key) {
            wrong.push(format!(
                "{} {}: expected {:?}, saw {:?}",
                key.0,
                key.1,
                expected.get(key),
                seen.get(key)
            ));
        }
    }
    for file in files_of(run_dir, &seen) {
        if !file.is_file() {
            wrong.push(format!("{} is missing", file.display()));
        }
    }
    if !wrong.is_empty() {
        bail!("the demo's results are not as expected:\n  {}", wrong.join("\n  "));
    }
    summary(run_dir, &seen)
}

fn summary(run_dir: &Path, seen: &Results) -> Result<()> {
    let tests: std::collections::BTreeSet<_> = seen.keys().map(|(test, _)| test).collect();
    let mut out = std::io::stdout();
    writeln!(out, "\nAll {} tests and {} results are as they should be:", tests.len(), seen.len())?;
    writeln!(out, "the failures above are meant, they show what a failure looks like.")?;
    writeln!(out, "  results  {}", run_dir.join("results.jsonl").display())?;
    writeln!(out, "  files    {}", run_dir.join("files").display())?;
    Ok(())
}

fn files_of(run_dir: &Path, seen: &Results) -> Vec<PathBuf> {
    let files = run_dir.join("files/default");
    let mut paths = Vec::new();
    for ((test, subtest), (_, names)) in seen {
        let directory = files.join(test.trim_start_matches('/')).join(subtest.trim_start_matches('/'));
        paths.extend(names.iter().map(|name| directory.join(name)));
    }
    paths
}

fn read_results(path: &Path) -> Result<Results> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut results = Results::new();
    for line in text.lines() {
        let (_, status, test, subtest, files, _): (
            String,
            String,
            String,
            Option<String>,
            Vec<String>,
            Option<String>,
        ) = serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
        let key = (test, subtest.unwrap_or_default());
        ensure!(results.insert(key.clone(), (status, files)).is_none(), "{} {} is there twice", key.0, key.1);
    }
    Ok(results)
}

/// Lines of `status`, `test`, `subtest`, `files`, separated by tabs; `-` for nothing.
fn read_expected(path: &Path) -> Result<Results> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut results = Results::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [status, test, subtest, files] = fields[..] else {
            bail!("{}: not four fields: {line}", path.display())
        };
        let list =
            |text: &str| if text == "-" { Vec::new() } else { text.split(' ').map(str::to_owned).collect() };
        let subtest = if subtest == "-" { "" } else { subtest };
        results.insert((test.to_owned(), subtest.to_owned()), (status.to_owned(), list(files)));
    }
    Ok(results)
}
