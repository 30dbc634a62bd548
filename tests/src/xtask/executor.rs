//! `cargo xtask executor -- --provisioner ...`: the executor's cases over any machines, as a user runs them.
//!
//! The same tree and the same expectations as in the executor's own tests; what only the executor's reports show (`ended`,
//! `labels`) is not looked at. Left out are the tests that end a run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{headline, packages};
use crate::{
    build::{self, Built, root, target_dir},
    expect::{self, Outcome},
};

const MACHINES: [&str; 2] = ["--provisioner", "local,max=4"];
/// The test that tells which programs the machine has.
const PROGRAMS: &str = "/machine/programs";
/// `tmt-abort` and its like.
const END_A_RUN: &str = "^/helpers/[a-z]*-?abort$";

pub(super) fn executor(args: &[String]) -> Result<()> {
    packages::ensure(false)?;
    let built = build::for_tests();
    let (mut wrong, mut left_out, mut count) = (Vec::new(), Vec::new(), 0);
    for dialect in ["tmt", "atex"] {
        headline(&format!("dialect {dialect}"));
        let run_dir = run(built, dialect, args)?;
        let tests = cases(built, dialect)?;
        let executions = executions(&run_dir)?;
        let programs = programs(&run_dir, executions.get(PROGRAMS))?;
        for Case { name, needs, expected } in &tests {
            if let Some(missing) = needs.iter().find(|need| !programs.contains(need)) {
                left_out.push(format!("{dialect} {name}: no {missing} on the machine"));
                continue;
            }
            count += 1;
            if let Err(what) = check(&run_dir, executions.get(name), expected) {
                wrong.push(format!("{dialect} {name}: {what}"));
            }
        }
    }
    if !left_out.is_empty() {
        eprintln!("\n{} cases mean nothing on these machines:\n  {}", left_out.len(), left_out.join("\n  "));
    }
    if !wrong.is_empty() {
        bail!("{} of {count} cases are not as expected:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    eprintln!("\nAll {count} cases are as they should be; failures shown above are meant.");
    Ok(())
}

fn selection(dialect: &str) -> [String; 7] {
    [
        root().join("tests/executor").display().to_string(),
        "--dialect".into(),
        dialect.into(),
        "--plan".into(),
        format!("^/plans/{dialect}$"),
        "--exclude".into(),
        END_A_RUN.into(),
    ]
}

fn run(built: &Built, dialect: &str, args: &[String]) -> Result<PathBuf> {
    let run_dir = target_dir()?.join("executor").join(dialect);
    if run_dir.exists() {
        fs::remove_dir_all(&run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    }
    let mut command = Command::new(built.host());
    command.args(selection(dialect)).args(["--env", "OF_RUN=run", "--run-dir"]).arg(&run_dir);
    if args.is_empty() {
        command.args(MACHINES);
    }
    let status = command.args(args).status().context("cannot start atex-host")?;
    // Many tests fail or are ended on purpose.
    ensure!(matches!(status.code(), Some(1 | 3)), "atex-host ended with {status}");
    Ok(run_dir)
}

/// A test, the programs of the machine without which it means nothing, and what is expected of it.
struct Case {
    name: String,
    needs: Vec<String>,
    expected: Value,
}

fn cases(built: &Built, dialect: &str) -> Result<Vec<Case>> {
    let mut command = Command::new(built.host());
    let output = command.args(["show", "--format", "json"]).args(selection(dialect)).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tests: Vec<Value> = serde_json::from_slice(&output.stdout).context("what `show` printed")?;
    tests
        .iter()
        .map(|test| {
            let name = test["name"].as_str().context("a test without a name")?;
            let metadata = test["metadata"].as_object().context("a test without metadata")?;
            let needs = metadata.get("extra-needs").and_then(Value::as_array).into_iter().flatten();
            let needs = needs.filter_map(Value::as_str).map(str::to_owned).collect();
            Ok(Case { name: name.to_owned(), needs, expected: expect::of(metadata) })
        })
        .collect()
}

/// The programs that the machine has, of those that tests need.
fn programs(run_dir: &Path, execution: Option<&Value>) -> Result<Vec<String>> {
    let artifacts =
        execution.and_then(|it| it["artifacts"].as_str()).context("nobody knows the machine's programs")?;
    let file = run_dir.join(artifacts).join("files/output.txt");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The journal's last record of each test that was run.
fn executions(run_dir: &Path) -> Result<BTreeMap<String, Value>> {
    let run: Value = serde_json::from_slice(&fs::read(run_dir.join("run.json"))?)?;
    let mut executions = BTreeMap::new();
    let journal = run_dir.join("journal.jsonl");
    for line in fs::read_to_string(&journal).with_context(|| journal.display().to_string())?.lines() {
        let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if record["what"] == "finished" {
            let number = record["test"].as_u64().context("an execution without a test")?;
            let name =
                run["tests"][usize::try_from(number)?]["name"].as_str().context("a test without a name")?;
            executions.insert(name.to_owned(), record);
        }
    }
    Ok(executions)
}

fn check(run_dir: &Path, execution: Option<&Value>, expected: &Value) -> Result<(), String> {
    let execution = execution.ok_or("was not run")?;
    let directory =
        execution["artifacts"].as_str().map(|path| run_dir.join(path)).ok_or("has no artifacts")?;
    let outcome = Outcome {
        directory: &directory,
        status: execution["status"].as_str().unwrap_or_default(),
        note: execution["note"].as_str(),
        reported: None,
    };
    expect::check(expected, &outcome)
}
