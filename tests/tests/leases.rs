//! What is left of runs that were killed, when more went wrong than that: plugins, state, ledgers, journals that are gone or changed,
//! disks that are full.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use atex_tests::{
    campaign::{Cloud, Provider as _, Weather},
    e2e::{Finished, Place, finish},
    watch,
};

/// A test that waits until there is a file.
const WAITS: [(&str, &str); 1] = [("a.fmf", "test: '[[ -e $GO ]] || sleep 90000'\n")];

/// A run that was killed while its test ran, and whose test will not wait any more.
fn killed(place: &Place, args: &[&str]) -> Result<()> {
    fs::create_dir_all(place.run_dir())?;
    let go = format!("GO={}", place.path("go").display());
    let mut command = place.command(["--env", &go, "--run-dir"]);
    command.arg(place.run_dir()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let has_begun =
        |journal: Vec<serde_json::Value>| journal.iter().any(|record| record["what"] == "started");
    watch::until(&place.run_dir(), || place.journal().is_ok_and(has_begun))?;
    child.kill()?;
    child.wait()?;
    place.write("go", "")?;
    Ok(())
}

fn resume(place: &Place, more: &[&str]) -> Finished {
    let run_dir = place.run_dir();
    let args = ["resume", run_dir.to_str().unwrap()];
    place.run(args.iter().chain(more)).unwrap()
}

fn is_resumed_by_force_only(place: &Place, why: &str, tests: usize) {
    let refused = resume(place, &[]);
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let forced = resume(place, &["--force"]);
    assert_eq!(forced.code(), 0, "{}", forced.stderr);
    assert_eq!(place.verdicts().unwrap(), vec![1; tests]);
}

fn ledgers(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("state/ledger")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A copy of a plugin, of which nobody minds if it changes.
fn copied_plugin(place: &Place) -> (PathBuf, String) {
    let copy = place.write("plugin.so", "").unwrap();
    fs::copy(place.plugin("provisioner-local"), &copy).unwrap();
    let name = copy.to_str().unwrap().to_owned();
    (copy, name)
}

/// It can still be loaded, and is another file.
fn change(plugin: &Path) {
    let mut bytes = fs::read(plugin).unwrap();
    bytes.push(0);
    // Not in place: whoever has it open keeps what it had.
    fs::remove_file(plugin).unwrap();
    fs::write(plugin, bytes).unwrap();
}

/// A file of `/t0`, `/t1`, ..., and the script of each.
fn many(count: usize, script: impl Fn(usize) -> String) -> String {
    let tests: Vec<_> =
        (0..count).map(|number| format!("/t{number}:\n    test: {}\n", script(number))).collect();
    tests.concat()
}

#[test]
fn gc_uses_a_plugin_that_changed_and_says_so() {
    let place = Place::new(&WAITS).unwrap();
    let (copy, name) = copied_plugin(&place);
    killed(&place, &["--plugin", &name, "--provisioner", "local"]).unwrap();
    change(&copy);
    let gc = place.run(["gc"]).unwrap();
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stderr.contains("is not the same any more since the run"), "{}", gc.stderr);
    assert!(gc.stdout.contains("1 released"), "{}", gc.stdout);
}

#[test]
fn gc_needs_another_plugin_where_one_is_missing() {
    let place = Place::new(&WAITS).unwrap();
    let (copy, name) = copied_plugin(&place);
    killed(&place, &["--plugin", &name, "--provisioner", "local"]).unwrap();
    fs::remove_file(copy).unwrap();
    let gc = place.run(["gc"]).unwrap();
    assert_eq!(gc.code(), 5, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stderr.contains("is gone since the run; --plugin names another one"), "{}", gc.stderr);
    assert_eq!(ledgers(&place).len(), 1);
    let other = place.plugin("provisioner-local");
    let gc = place.run(["gc", "--plugin", other.to_str().unwrap()]).unwrap();
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(ledgers(&place).is_empty());
}

#[test]
fn an_owner_can_be_cleaned_up_after_without_any_record() {
    let cloud = Cloud::open(Weather::Fair, 1).unwrap();
    let place = Place::new(&WAITS).unwrap();
    let pool = cloud.pool(0);
    let config =
        serde_json::json!({"owner": "nightly@lab", "platforms": [{"name": "x", "provisioners": [pool]}]});
    let config = place.write("config.yaml", &config.to_string()).unwrap();
    let plugin = place.plugin("test-cloud");
    let named = ["--config", config.to_str().unwrap(), "--plugin", plugin.to_str().unwrap()];
    killed(&place, &named).unwrap();
    assert_eq!(cloud.held().len(), 1);
    fs::remove_dir_all(place.path("state")).unwrap();
    fs::remove_dir_all(place.run_dir()).unwrap();
    let gc = |owner| place.run(["gc", "--owner", owner].iter().chain(&named)).unwrap();
    let other = gc("weekly@lab");
    assert_eq!((other.code(), cloud.held().len()), (0, 1), "{}{}", other.stdout, other.stderr);
    let gc = gc("nightly@lab");
    assert_eq!((gc.code(), cloud.held().len()), (0, 0), "{}{}", gc.stdout, gc.stderr);
}

#[test]
fn a_ledger_that_cannot_be_opened_keeps_gc_from_no_other() {
    let place = Place::new(&WAITS).unwrap();
    killed(&place, &["--provisioner", "local"]).unwrap();
    // First in order, and no ledger at all.
    let broken = ledgers(&place)[0].with_file_name("00000000-000000-000000.jsonl");
    std::os::unix::fs::symlink("/dev/null", &broken).unwrap();
    let gc = place.run(["gc"]).unwrap();
    assert_eq!(gc.code(), 5, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stdout.contains("unknown  ") && gc.stdout.contains("00000000-000000-000000"), "{}", gc.stdout);
    assert!(gc.stdout.contains("1 released, 1 may still be held"), "{}", gc.stdout);
    assert_eq!(ledgers(&place), [broken]);
}

#[test]
fn a_torn_tail_of_a_ledger_costs_nothing() {
    let place = Place::new(&WAITS).unwrap();
    killed(&place, &["--provisioner", "local"]).unwrap();
    let ledger = ledgers(&place).remove(0);
    let text = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, format!("{text}{{\"lease\":\"a01\",\"state\":\"inte")).unwrap();
    let gc = place.run(["gc"]).unwrap();
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stdout.contains("1 released") && ledgers(&place).is_empty(), "{}", gc.stdout);
}

#[test]
fn without_a_ledger_no_machine_is_asked_for() {
    let cannot = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| !status.success());
    if cannot {
        eprintln!("skipped: no right to mount anything");
        return;
    }
    // A page of room: for the one machine that the first run needs, and not for the thirty of the second.
    for (tests, code) in [(1, 0), (30, 3)] {
        let tree = many(tests, |_| "'true'".into());
        let (cloud, place) =
            (Cloud::open(Weather::Fair, 1).unwrap(), Place::new(&[("a.fmf", &tree)]).unwrap());
        let ledger = place.path("state/ledger");
        fs::create_dir_all(&ledger).unwrap();
        let plugin = place.plugin("test-cloud");
        let pool = format!("cloud,max=30,socket={}", cloud.socket().display());
        let run = place.command(["--plugin", plugin.to_str().unwrap(), "--provisioner", &pool]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", "mount -t tmpfs -o size=4k none \"$0\" && exec \"$@\""]).arg(ledger);
        command.arg(run.get_program()).args(run.get_args()).arg("--run-dir").arg(place.run_dir());
        command.current_dir(place.path("tree")).env("ATEX_STATE_DIR", place.path("state"));
        let ran = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).unwrap();
        assert_eq!(ran.code(), code, "{}", ran.stderr);
        assert_eq!(cloud.made(), u64::from(code == 0), "{}", ran.stderr);
        assert_eq!(ran.stderr.contains("no machine is asked for"), code != 0, "{}", ran.stderr);
        assert_eq!(place.verdicts().unwrap(), vec![1; tests]);
    }
}

#[test]
fn a_run_goes_on_without_its_journal() {
    const TESTS: usize = 40;
    let tree = many(TESTS, |number| format!("touch $RAN/{number}"));
    let place = Place::new(&[("a.fmf", &tree)]).unwrap();
    let ran = place.path("ran");
    fs::create_dir_all(&ran).unwrap();
    let run = place.command(["--provisioner", "local,max=2", "--env", &format!("RAN={}", ran.display())]);
    let mut command = Command::new("prlimit");
    // Enough for every other file.
    command
        .arg("--fsize=16384")
        .arg(run.get_program())
        .args(run.get_args())
        .arg("--run-dir")
        .arg(place.run_dir());
    command.current_dir(place.path("tree")).env("ATEX_STATE_DIR", place.path("state"));
    let ended = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).unwrap();
    assert_eq!(ended.code(), 6, "{}", ended.stderr);
    assert!(ended.stderr.contains("the run goes on and cannot be resumed"), "{}", ended.stderr);
    assert_eq!(fs::read_dir(&ran).unwrap().count(), TESTS, "all tests ran");
    assert!(ledgers(&place).is_empty(), "and nothing is held");
    let verdicts = place.verdicts().unwrap();
    assert!(verdicts.contains(&1) && verdicts.contains(&0), "{verdicts:?}");
    is_resumed_by_force_only(&place, "could not be written to its end; --force", TESTS);
}

#[test]
fn a_run_is_not_resumed_with_another_plugin_unless_told() {
    let place = Place::new(&WAITS).unwrap();
    let (copy, name) = copied_plugin(&place);
    killed(&place, &["--plugin", &name, "--provisioner", "local"]).unwrap();
    change(&copy);
    is_resumed_by_force_only(&place, "changed since the run began: the provisioner `local`", 1);
}

#[test]
fn a_run_is_not_resumed_with_another_configuration_unless_told() {
    let place = Place::new(&WAITS).unwrap();
    let config =
        place.write("config.yaml", "platforms: [{name: x, provisioners: [{use: local}]}]\n").unwrap();
    killed(&place, &["--config", config.to_str().unwrap()]).unwrap();
    place.write("config.yaml", "slots: 2\nplatforms: [{name: x, provisioners: [{use: local}]}]\n").unwrap();
    is_resumed_by_force_only(&place, "changed since the run began: the configuration file", 1);
}

#[test]
fn a_run_that_had_not_begun_its_journal_is_resumed() {
    let place = Place::new(&WAITS).unwrap();
    killed(&place, &["--provisioner", "local"]).unwrap();
    fs::remove_file(place.run_dir().join("journal.jsonl")).unwrap();
    let resumed = resume(&place, &[]);
    assert_eq!(resumed.code(), 0, "{}", resumed.stderr);
    assert_eq!(place.verdicts().unwrap(), [1]);
    assert!(ledgers(&place).is_empty(), "the machine of the run before is not forgotten");
}

/// As if the host had been killed after its last record: reporters had not heard all, a machine was still held.
#[test]
fn what_a_run_that_ended_left_undone_is_done_by_resume() {
    let place = Place::new(&WAITS).unwrap();
    killed(&place, &["--provisioner", "local"]).unwrap();
    let (ledger, results) = (ledgers(&place).remove(0), place.run_dir().join("results.jsonl"));
    let leases = fs::read(&ledger).unwrap();
    assert_eq!(resume(&place, &[]).code(), 0);
    let told = fs::read(&results).unwrap();

    fs::write(&ledger, &leases).unwrap();
    let again = resume(&place, &[]);
    assert_eq!(again.code(), 0, "{}", again.stderr);
    assert!(ledgers(&place).is_empty(), "{}", again.stdout);

    fs::remove_file(place.run_dir().join(".complete")).context("where is it noted?").unwrap();
    fs::write(&results, "").unwrap();
    let again = resume(&place, &[]);
    assert_eq!(again.code(), 0, "{}", again.stderr);
    assert_eq!(fs::read(&results).unwrap(), told);
    assert_eq!(place.verdicts().unwrap(), [1]);
}
