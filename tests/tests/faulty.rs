//! A plugin that does one thing wrong costs its own work only: the run ends, every test has its verdict, the plugin is named.
//!
//! Each case is one run of two tests. A provisioner's case has a good pool beside the faulty one.

use std::{
    ffi::OsStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use atex_tests::e2e::{Finished, Place};

const TREE: [(&str, &str); 2] = [("a.fmf", "test: 'true'\n"), ("b.fmf", "test: 'true'\ntag: [x]\n")];
/// At a time: most of them wait for something.
const PARALLEL: usize = 16;

/// One run: what goes wrong in which method, and the exit statuses that are right.
struct Case {
    fault: &'static str,
    method: &'static str,
    statuses: &'static [i32],
    /// Whether the plugin has to be named in the log.
    named: bool,
}

fn cases(methods: &[(&'static str, &'static [&'static str], &'static [i32], bool)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(method, faults, statuses, named) in methods {
        cases.extend(faults.iter().map(|&fault| Case { fault, method, statuses, named }));
    }
    cases
}

/// Runs all cases, several at a time, and tells everything that is wrong.
fn check(cases: &[Case], config: impl Fn(&Case) -> String + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = run(case, &config(case)) {
                        let problem = format!("{} in {}: {problem:#}", case.fault, case.method);
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

fn run(case: &Case, config: &str) -> Result<()> {
    let place = Place::new(&TREE)?;
    let config = place.write("config.yaml", config)?;
    let (plugin, run_dir) = (place.plugin("test-faulty"), place.run_dir());
    let args = [OsStr::new("--config"), config.as_ref(), OsStr::new("--plugin"), plugin.as_ref()];
    let ran = place.run(args.into_iter().chain([OsStr::new("--run-dir"), run_dir.as_ref()]))?;
    judge(case, &place, &ran).with_context(|| format!("exit {}: {}", ran.code(), ran.stderr))
}

fn judge(case: &Case, place: &Place, ran: &Finished) -> Result<()> {
    ensure!(case.statuses.contains(&ran.code()), "should end with {:?}", case.statuses);
    if ran.code() != 2 {
        let verdicts = place.verdicts()?;
        ensure!(verdicts == [1, 1], "verdicts per test: {verdicts:?}");
    }
    ensure!(!case.named || ran.stderr.contains("faulty"), "the plugin is not named");
    Ok(())
}

const LIMITS: &str = "limits: {reserve-timeout: 2s, reserve-failures: 1, release: 1s}\n";

#[test]
fn provisioners() -> Result<()> {
    // Nothing but its own machines is lost: the tests run on the other pool's.
    let cases = cases(&[
        ("new", &["panic", "error", "denied", "display"], &[2], true),
        ("capacity", &["panic", "error"], &[2], true),
        ("reserve", &["panic", "error", "denied", "display", "nonsense", "block"], &[0, 5], true),
        ("release", &["panic", "error", "denied", "block"], &[0, 5], true),
        ("abort", &["panic", "error"], &[0], false),
        ("alive", &["panic", "nonsense"], &[0], false),
        ("list", &["panic", "nonsense"], &[0], false),
        ("renew", &["panic"], &[0], false),
        ("reboot", &["panic"], &[0], false),
        ("drop", &["panic", "block"], &[0], false),
    ]);
    check(&cases, |case| {
        let max = if case.method == "capacity" { "" } else { "max: 1, " };
        format!(
            "{LIMITS}platforms:\n- name: p\n  provisioners:\n  - {{use: faulty, {max}fault: {}, in: {}}}\n  \
             - {{use: local, max: 1}}\n",
            case.fault, case.method
        )
    })
}

/// One policy that never answers costs its own opinion: the others of its chain are still heard.
#[test]
fn a_policy_that_is_silent_leaves_the_others_their_say() -> Result<()> {
    for method in ["judge", "rank", "note"] {
        let place = Place::new(&[("a.fmf", "test: exit 1\n")])?;
        let config = format!(
            "provisioners: {{here: {{use: local, max: 1}}}}\n\
             policies: [{{use: faulty, fault: block, in: {method}}}, {{use: reruns, max: 1}}]\n"
        );
        let config = place.write("config.yaml", &config)?;
        let (plugin, run_dir) = (place.plugin("test-faulty"), place.run_dir());
        let args = [OsStr::new("--config"), config.as_ref(), OsStr::new("--plugin"), plugin.as_ref()];
        let ran = place.run(args.into_iter().chain([OsStr::new("--run-dir"), run_dir.as_ref()]))?;
        ensure!(ran.code() == 1, "{method}: exit {}: {}", ran.code(), ran.stderr);
        let runs = place.journal()?.iter().filter(|record| record["what"] == "started").count();
        ensure!(runs == 2, "{method}: {runs} runs: {}", ran.stderr);
    }
    Ok(())
}

/// Wrong metadata of a test is wrong use, whoever finds it.
#[test]
fn what_a_policy_finds_wrong_in_a_test_costs_no_machine() -> Result<()> {
    let place = Place::new(&[("a.fmf", "test: 'true'\nextra-priority: high\n")])?;
    let ran = place.run_tree(&["--policy", "priority"])?;
    ensure!(ran.code() == 2 && ran.stderr.contains("policy `priority`"), "{}: {}", ran.code(), ran.stderr);
    ensure!(!place.run_dir().exists(), "something was made");
    Ok(())
}

/// A plugin that breaks its promise, and leaves a machine behind when it fails: the host looks, and gives it back.
#[test]
fn what_a_failed_reservation_leaves_is_given_back() -> Result<()> {
    let place = Place::new(&TREE)?;
    let pool = "provisioners: {pool: {use: faulty, max: 1, fault: leak, in: reserve, times: 2}}\n";
    let config = place.write("config.yaml", pool)?;
    let (plugin, run_dir) = (place.plugin("test-faulty"), place.run_dir());
    let args = [OsStr::new("--config"), config.as_ref(), OsStr::new("--plugin"), plugin.as_ref()];
    let ran = place.run(args.into_iter().chain([OsStr::new("--run-dir"), run_dir.as_ref()]))?;
    ensure!(ran.code() == 0, "exit {}: {}", ran.code(), ran.stderr);
    ensure!(ran.stderr.contains("after all was done"), "the error is not told: {}", ran.stderr);
    let leases: Vec<String> = place
        .journal()?
        .iter()
        .filter(|record| record["what"] == "machine" && record["change"] == "requested")
        .filter_map(|record| record["lease"].as_str().map(str::to_owned))
        .collect();
    ensure!(leases.len() == 3, "two reservations that fail and one that does not: {leases:?}");
    let mut left = vec![place.path("state")];
    while let Some(path) = left.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(!leases.contains(&name), "{} is left behind", path.display());
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// What is asked of a provisioner in the middle of a run: a test has its machine reset, which works or fails; a machine that
/// was lost is asked after. What goes wrong, in which method, and what is told of it.
const MIDDLE: [(&str, &str, &str); 5] = [
    ("error", "renew", "its provider still has it"),
    ("error", "reboot", "could not be reset"),
    ("panic", "reboot", "could not be reset"),
    ("panic", "alive", "a deliberate panic in alive"),
    ("nonsense", "alive", "its provider does not have it any more"),
];

#[test]
fn provisioners_in_the_middle_of_a_run() -> Result<()> {
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (fault, method, told) in MIDDLE {
            let wrong = &wrong;
            scope.spawn(move || {
                if let Err(problem) = middle(fault, method, told) {
                    wrong
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{fault} in {method}: {problem:#}"));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn middle(fault: &str, method: &str, told: &str) -> Result<()> {
    let place = Place::new(&[
        ("a.fmf", "test: '(( TMT_REBOOT_COUNT )) || tmt-reboot'\n"),
        // Takes its machine's driver along.
        ("b.fmf", "test: kill -9 $PPID; sleep 60\n"),
    ])?;
    let config = format!(
        "limits: {{lost-machine-reruns: 0, release: 5s}}\n\
         provisioners: {{pool: {{use: faulty, max: 1, fault: {fault}, in: {method}}}}}\n"
    );
    let config = place.write("config.yaml", &config)?;
    let (plugin, run_dir) = (place.plugin("test-faulty"), place.run_dir());
    let args = [OsStr::new("--config"), config.as_ref(), OsStr::new("--plugin"), plugin.as_ref()];
    let ran = place.run(args.into_iter().chain([OsStr::new("--run-dir"), run_dir.as_ref()]))?;
    let all = format!("exit {}: {}\n{}", ran.code(), ran.stderr, ran.stdout);
    ensure!(place.verdicts()? == [1, 1], "verdicts: {all}");
    ensure!(ran.code() == 3, "{all}");
    let journal = std::fs::read_to_string(run_dir.join("journal.jsonl"))?;
    ensure!(ran.stderr.contains(told) || journal.contains(told), "not told `{told}`: {all}");
    // The test that wants a reset goes on after it, where that works.
    let passed = place.results()?.iter().any(|(test, _, status)| test == "/a" && status == "pass");
    ensure!(passed == (method != "reboot"), "{all}");
    Ok(())
}

#[test]
fn policies() -> Result<()> {
    let cases = cases(&[
        ("new", &["panic", "error", "denied", "display"], &[2], true),
        ("wants", &["panic", "nonsense"], &[0, 2], false),
        ("register", &["panic", "error", "display", "block"], &[0], true),
        ("ready", &["panic", "error", "nonsense", "block"], &[0], true),
        ("kind", &["panic", "error", "block"], &[0], true),
        ("rank", &["panic", "error", "nonsense", "block"], &[0], true),
        ("prefer", &["panic", "error", "nonsense", "block"], &[0], true),
        ("judge", &["panic", "error", "block"], &[0], true),
        ("note", &["panic", "error", "nonsense", "block"], &[0], true),
        ("drop", &["panic", "block"], &[0], false),
    ]);
    check(&cases, |case| {
        format!(
            "provisioners: {{here: {{use: local, max: 1}}}}\npolicies: [{{use: faulty, fault: {}, in: {}}}, priority]\n",
            case.fault, case.method
        )
    })
}

#[test]
fn reporters() -> Result<()> {
    // The good reporter beside it has everything.
    let cases = cases(&[
        ("new", &["panic", "error", "denied", "display"], &[2], true),
        ("wants", &["panic"], &[2], true),
        ("run-started", &["panic", "error", "nonsense", "block"], &[0, 6], false),
        ("promised", &["panic", "error", "block"], &[6], true),
        ("machine", &["panic", "error", "block"], &[6], true),
        ("test", &["panic", "error", "block"], &[6], true),
        ("finished", &["panic", "error", "display", "block"], &[6], true),
        ("run-ended", &["panic", "error", "block"], &[6], true),
        ("drop", &["panic", "block"], &[0], false),
    ]);
    check(&cases, |case| {
        format!(
            "provisioners: {{here: {{use: local, max: 1}}}}\nreporters:\n- jsonl\n\
             - {{use: faulty, host: {{finish-timeout: 1s}}, fault: {}, in: {}}}\n",
            case.fault, case.method
        )
    })
}

/// Making a plugin may take a while, so this does.
#[test]
fn plugins_that_cannot_be_made_in_time() -> Result<()> {
    if std::env::var_os("ATEX_TEST_ALL").is_none_or(|value| value.is_empty()) {
        eprintln!("skipped: takes half a minute (ATEX_TEST_ALL=1)");
        return Ok(());
    }
    let all =
        [("provisioners", "new"), ("provisioners", "capacity"), ("policies", "new"), ("reporters", "new")];
    let cases: Vec<Case> =
        all.iter().map(|&(_, method)| Case { fault: "block", method, statuses: &[2], named: true }).collect();
    let kinds: Mutex<Vec<&str>> = Mutex::new(all.iter().map(|&(kind, _)| kind).collect());
    check(&cases, |case| {
        let kind = kinds.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or("reporters");
        let method = if kind == "provisioners" { case.method } else { "new" };
        let faulty = format!("{{use: faulty, fault: block, in: {method}}}");
        match kind {
            "provisioners" => format!("platforms:\n- name: p\n  provisioners: [{faulty}]\n"),
            "policies" => format!("provisioners: {{here: {{use: local}}}}\npolicies: [{faulty}]\n"),
            _ => format!("provisioners: {{here: {{use: local}}}}\nreporters: [{faulty}]\n"),
        }
    })
}
