//! Cases of the executor as data: a test, and what its artifacts must be. The same over every transport.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use atex_host::executor::spec::{Dialect, Ended, Framework, Restart, ResultRule, RunReport, Site, TestSpec};
use atex_plugin_api::model::Transport;
use serde::Deserialize;
use serde_json::Value;

use super::{Machine, site, test};

const CASES: &str = include_str!("../executor_cases.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    #[serde(rename = "case")]
    pub name: String,
    script: String,
    #[serde(default)]
    atex: bool,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    beakerlib: bool,
    result: Option<String>,
    /// Seconds.
    duration: Option<f64>,
    restart: Option<Vec<i32>>,
    #[serde(default)]
    restart_max: Option<u8>,
    #[serde(default)]
    below: BTreeMap<String, String>,
    #[serde(default)]
    above: BTreeMap<String, String>,
    /// Programs that the machine must have.
    #[serde(default)]
    needs: Vec<String>,
    /// `exited 0`, `timed-out`, or the beginning of the debug form.
    ended: Option<String>,
    status: String,
    /// A part of the note.
    note: Option<String>,
    /// Every line, exactly. Words of the form `*` stand for anything.
    results: Option<Vec<Value>>,
    /// The log, exactly.
    log: Option<String>,
    /// Files of the artifacts below `files/`, exactly.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Parts of other reports.
    #[serde(default)]
    reports: Vec<String>,
}

pub fn all() -> Vec<Case> {
    serde_yaml::from_str(CASES).unwrap()
}

pub fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("deep/er")).unwrap();
    fs::write(tree.path().join("deep/er/file"), "content\n").unwrap();
    fs::write(tree.path().join("program"), "#!/bin/bash\necho program \"$@\"\n").unwrap();
    std::os::unix::fs::symlink("deep/er/file", tree.path().join("link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    fs::set_permissions(tree.path().join("program"), mode).unwrap();
    tree
}

/// All cases on one machine for each dialect; gives what is wrong, and how many there were.
pub fn run_all(transport: &Transport, only: Option<&str>) -> (Vec<String>, usize) {
    let tree = tree();
    let (mut wrong, mut count) = (vec![], 0);
    for dialect in [Dialect::Tmt, Dialect::Atex] {
        let site = Site { dialect, ..site(tree.path()) };
        let mut machine = Machine::up(transport.clone(), site);
        for case in all() {
            if (dialect == Dialect::Atex) != case.atex || only.is_some_and(|name| !case.name.contains(name)) {
                continue;
            }
            if !case.needs.iter().all(|program| machine_has(&mut machine, program)) {
                println!("not here for want of {:?}: {}", case.needs, case.name);
                continue;
            }
            machine.seen.clear();
            if std::env::var_os("VERBOSE").is_some() {
                println!("{}", case.name);
            }
            let begun = std::time::Instant::now();
            let run = machine.run(case.test());
            if std::env::var_os("VERBOSE").is_some() {
                println!("    {:?}", begun.elapsed());
            }
            count += 1;
            if let Err(what) = case.check(&run, &machine.seen) {
                wrong.push(format!("{}: {what}\n    {run:?}", case.name));
            }
        }
        let problems = machine.hand_back();
        if !problems.is_empty() {
            wrong.push(format!("hand-back: {problems:?}"));
        }
    }
    (wrong, count)
}

fn machine_has(machine: &mut Machine, program: &str) -> bool {
    machine.run(test(&format!("command -v {program}"))).status == "pass"
}

impl Case {
    fn test(&self) -> TestSpec {
        let mut spec = test(&self.script);
        let variables = |map: &BTreeMap<String, String>| map.clone().into_iter().collect();
        spec.cwd.clone_from(&self.cwd);
        spec.tty = self.tty;
        if self.beakerlib {
            spec.framework = Framework::Beakerlib;
        }
        if let Some(seconds) = self.duration {
            spec.duration = std::time::Duration::from_secs_f64(seconds);
        }
        spec.restart = self.restart.clone().map(|codes| Restart {
            codes,
            max: self.restart_max.unwrap_or(1),
            with_reboot: false,
        });
        spec.environment.below = variables(&self.below);
        spec.environment.above = variables(&self.above);
        spec.result = match self.result.as_deref() {
            None => ResultRule::Respect,
            Some("xfail") => ResultRule::Xfail,
            Some("info") => ResultRule::Info,
            Some("custom") => ResultRule::Custom,
            Some("restraint") => ResultRule::Restraint,
            Some(other) => panic!("{other}"),
        };
        spec
    }

    fn check(&self, run: &RunReport, seen: &[String]) -> Result<(), String> {
        if let Some(expected) = &self.ended {
            let ended = match &run.ended {
                Ended::Exited(status) => format!("exited {status}"),
                Ended::TimedOut => "timed-out".into(),
                other => format!("{other:?}"),
            };
            if !ended.starts_with(expected.as_str()) {
                return Err(format!("ended {ended}, expected {expected}"));
            }
        }
        if run.status != self.status {
            return Err(format!("status {}, expected {}", run.status, self.status));
        }
        if let Some(note) = &self.note
            && !run.note.as_deref().is_some_and(|text| text.contains(note.as_str()))
        {
            return Err(format!("note {:?}, expected {note}", run.note));
        }
        let place = run.artifacts.as_ref().ok_or("no artifacts")?.directory.as_path();
        self.check_results(place, run)?;
        if let Some(log) = &self.log {
            let text =
                fs::read_to_string(place.join("files/output.txt")).map_err(|e| format!("output.txt: {e}"))?;
            if &text != log {
                return Err(format!("log {text:?}, expected {log:?}"));
            }
        }
        for (name, content) in &self.files {
            let text = fs::read(place.join("files").join(name)).map_err(|e| format!("{name}: {e}"))?;
            let text = String::from_utf8_lossy(&text);
            if &text != content {
                return Err(format!("{name}: {text:?}, expected {content:?}"));
            }
        }
        match self.reports.iter().find(|part| !seen.iter().any(|report| report.contains(part.as_str()))) {
            Some(part) => Err(format!("nothing was reported with {part}: {seen:?}")),
            None => Ok(()),
        }
    }

    fn check_results(&self, place: &Path, run: &RunReport) -> Result<(), String> {
        let text = fs::read_to_string(place.join("results")).map_err(|e| format!("results: {e}"))?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        if lines.len() as u64 != run.results {
            return Err(format!("{} lines in results, {} reported", lines.len(), run.results));
        }
        let Some(expected) = &self.results else { return Ok(()) };
        if lines.len() == expected.len()
            && lines.iter().zip(expected).all(|(line, expected)| is_like(line, expected))
        {
            return Ok(());
        }
        Err(format!("results\n{text}    expected {}", serde_json::to_string(expected).unwrap_or_default()))
    }
}

fn is_like(value: &Value, expected: &Value) -> bool {
    match (value, expected) {
        (_, Value::String(any)) if any == "*" => true,
        (Value::Object(value), Value::Object(expected)) => {
            value.len() == expected.len()
                && value
                    .iter()
                    .all(|(key, value)| expected.get(key).is_some_and(|expected| is_like(value, expected)))
        }
        (Value::Array(value), Value::Array(expected)) => {
            value.len() == expected.len()
                && value.iter().zip(expected).all(|(value, expected)| is_like(value, expected))
        }
        _ => value == expected,
    }
}
