//! The tests of `tests/executor` on real machines: what each leaves is compared with what its metadata says it must leave.
//!
//! Each plan gets some machines of the same transport, which take its tests one by one from a common list.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use atex_host::config::{Dialect, PlanChoice, Selection};
use atex_host::executor::spec::{Ended, Limits, Report, RunReport, Site};
use atex_host::fmf::Tree;
use atex_host::fmf::discover::{DiscoveredPlan, DiscoveredTest, Discoverer, Request};
use atex_host::fmf::git::Cache;
use atex_plugin_api::model::Transport;
use serde_json::{Map, Value};

use super::expect::{self, Outcome, Reported};
use super::{Machine, site, test};

/// Machines for each plan: mostly they wait.
const MACHINES: usize = 3;

/// All plans of the tree, each in its dialect.
fn plans() -> Vec<DiscoveredPlan> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/executor");
    let tree = Arc::new(Tree::load(&root).unwrap());
    let discoverer = Discoverer::new(tree, Cache::new("/nonexistent"));
    let mut plans = vec![];
    for (dialect, pattern) in [(Dialect::Tmt, "^/plans/(tmt|script)$"), (Dialect::Atex, "^/plans/atex$")] {
        let found = discoverer
            .discover(&Request {
                context: &indexmap::IndexMap::new(),
                dialect,
                plans: &PlanChoice::Matching(vec![pattern.into()]),
                selection: &Selection::default(),
                adjust: &[],
                environment: &vec![("OF_RUN".into(), "run".into())],
                ignore_unsupported: false,
            })
            .unwrap();
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        plans.extend(found.plans);
    }
    assert_eq!(plans.len(), 3);
    plans
}

fn site_of(plan: &DiscoveredPlan) -> Site {
    let usual = site(&plan.layers[0].from);
    Site {
        layers: plan.layers.clone(),
        environment: plan.site_environment(),
        prepare: plan.prepare.clone(),
        finish: plan.finish.clone(),
        dialect: plan.dialect,
        may_reboot: false,
        limits: Limits { grace: std::time::Duration::from_secs(2), ..usual.limits },
        ..usual
    }
}

/// All tests of all plans; gives what is wrong, and how many there were.
pub fn run_all(transport: &Transport, only: Option<&str>) -> (Vec<String>, usize) {
    let plans = plans();
    let wrong = Mutex::new(vec![]);
    let count = Mutex::new(0);
    std::thread::scope(|scope| {
        for plan in &plans {
            // What is the same in both dialects is run in both on one transport, which is enough.
            let twice = plan.dialect == Dialect::Atex && !matches!(transport, Transport::Local(_));
            let wanted = |test: &&DiscoveredTest| match only {
                Some(part) => test.name.contains(part),
                None => !twice || test.tags().iter().all(|tag| tag == "atex"),
            };
            let left: Vec<_> = plan.tests.iter().filter(wanted).collect();
            let machines = left.len().min(MACHINES);
            let left = Arc::new(Mutex::new(left.into_iter()));
            for _ in 0..machines {
                let (left, wrong, count) = (Arc::clone(&left), &wrong, &count);
                scope.spawn(move || {
                    let mut worker = Worker { machine: Machine::up(transport.clone(), site_of(plan)), plan };
                    loop {
                        let next = left.lock().unwrap().next();
                        let Some(test) = next else { break };
                        if let Some(what) = worker.run(test) {
                            wrong.lock().unwrap().push(format!("{:?} {}: {what}", plan.dialect, test.name));
                        }
                        *count.lock().unwrap() += 1;
                    }
                    let problems = worker.machine.hand_back();
                    if !problems.is_empty() {
                        wrong.lock().unwrap().push(format!("hand-back: {problems:?}"));
                    }
                });
            }
        }
    });
    (wrong.into_inner().unwrap(), count.into_inner().unwrap())
}

struct Worker<'a> {
    machine: Machine,
    plan: &'a DiscoveredPlan,
}

impl Worker<'_> {
    /// What is wrong.
    fn run(&mut self, found: &DiscoveredTest) -> Option<String> {
        let metadata = found.metadata().to_json();
        let metadata = metadata.as_object().unwrap();
        if let Some(missing) = self.missing(metadata) {
            println!("not here for want of {missing}: {}", found.name);
            return None;
        }
        let begun = std::time::Instant::now();
        let (execution, _) = self.machine.start(self.plan.spec(found), 0);
        let (run, labels) = self.finished();
        assert_eq!(run.execution, execution);
        if std::env::var_os("VERBOSE").is_some() {
            println!("{:4} ms {}", begun.elapsed().as_millis(), found.name);
        }
        let Some(published) = &run.artifacts else { return Some(format!("no artifacts: {run:?}")) };
        let ended = match &run.ended {
            Ended::Exited(status) => format!("exited {status}"),
            other => other.to_string(),
        };
        let outcome = Outcome {
            directory: &published.directory,
            status: &run.status,
            note: run.note.as_deref(),
            reported: Some(Reported { ended, labels }),
        };
        let checked = expect::check(&expect::of(metadata), &outcome);
        let output =
            || std::fs::read_to_string(published.directory.join("files/output.txt")).unwrap_or_default();
        checked.err().map(|what| format!("{what}\n    {run:?}\n{}", output()))
    }

    fn finished(&mut self) -> (RunReport, BTreeMap<String, String>) {
        let mut labels = BTreeMap::new();
        loop {
            match self.machine.report() {
                Report::Finished(run) => return (*run, labels),
                Report::Label { key, value, .. } => _ = labels.insert(key, value),
                Report::Lost { reason } => panic!("lost: {reason}"),
                _ => {}
            }
        }
    }

    /// A program that the test needs and the machine does not have.
    fn missing(&mut self, metadata: &Map<String, Value>) -> Option<String> {
        let programs = metadata.get("extra-needs").and_then(Value::as_array)?;
        let programs = programs.iter().filter_map(Value::as_str);
        let has = |machine: &mut Machine, program: &str| {
            machine.run(test(&format!("type -P {program}"))).status == "pass"
        };
        programs.into_iter().find(|program| !has(&mut self.machine, program)).map(str::to_owned)
    }
}
