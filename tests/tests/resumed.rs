//! Runs that go on: where they are kept, and after how they ended.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use atex_tests::{
    e2e::{Finished, Place, finish, json_lines},
    watch,
};
use rustix::process::{Pid, Signal, kill_process};

const TREE: [(&str, &str); 2] =
    [("a.fmf", "test: '[[ -e $GO ]] || sleep 90000'\n"), ("b.fmf", "test: '[[ -e $GO ]] || sleep 90000'\n")];

/// A run on one machine, once its first test has begun. `run` is below the tree.
fn started(place: &Place, run: &str) -> Child {
    let directory = place.path("tree").join(run);
    fs::create_dir_all(&directory).unwrap();
    let go = format!("GO={}", place.path("go").display());
    let mut command = place.command(["--provisioner", "local,max=1", "--env", &go, "--run-dir", run]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = directory.join("journal.jsonl");
    let has_begun =
        || json_lines(&journal).is_ok_and(|records| records.iter().any(|record| record["what"] == "started"));
    watch::until(&directory, has_begun).unwrap();
    child
}

fn resume(place: &Place, run: &str) -> Finished {
    place.run(["resume", run]).unwrap()
}

/// Status and name of each result.
fn results(run: &Path) -> Vec<String> {
    let mut results: Vec<String> = json_lines(&run.join("results.jsonl"))
        .unwrap()
        .iter()
        .map(|line| format!("{} {}", line[1].as_str().unwrap(), line[2].as_str().unwrap()))
        .collect();
    results.sort();
    results
}

/// The run's own files, and times, are no change of the tree.
#[test]
fn a_run_that_is_kept_in_its_tree_goes_on() {
    let place = Place::new(&TREE).unwrap();
    let run = "atex-runs/one";
    let mut child = started(&place, run);
    child.kill().unwrap();
    child.wait().unwrap();
    place.write("tree/atex-runs/.gitignore", "*\n").unwrap();
    std::os::unix::fs::symlink("one", place.path("tree/atex-runs/latest")).unwrap();
    for (name, content) in TREE {
        place.write(&format!("tree/{name}"), content).unwrap();
    }
    place.write("go", "").unwrap();
    let resumed = resume(&place, "atex-runs/latest");
    assert_eq!(resumed.code(), 0, "{}", resumed.stderr);
    assert_eq!(results(&place.path("tree/atex-runs/one")), ["pass /a", "pass /b"]);
    place.write("tree/c.fmf", "test: 'true'\n").unwrap();
    assert_eq!(resume(&place, run).code(), 0, "what is finished is told, whatever the tree is now");
}

/// Reporters are told each test once, whatever an earlier session said of it.
#[test]
fn what_a_signal_stopped_is_finished() {
    let place = Place::new(&TREE).unwrap();
    let run = "atex-runs/one";
    let child = started(&place, run);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let stopped = finish(child).unwrap();
    assert_eq!(stopped.code(), 4, "{}", stopped.stderr);
    let directory = place.path("tree").join(run);
    assert_eq!(results(&directory), ["infra /a", "infra /b"]);
    place.write("go", "").unwrap();
    let resumed = resume(&place, run);
    assert_eq!(resumed.code(), 0, "{}", resumed.stderr);
    assert_eq!(results(&directory), ["pass /a", "pass /b"]);
    let again = resume(&place, run);
    assert_eq!(again.code(), 0, "{}", again.stderr);
    for (said, times) in [("pass  /a", 1), ("pass  /b", 1), ("infra", 0), ("2 passed", 1)] {
        assert_eq!(again.stdout.matches(said).count(), times, "{said}: {}", again.stdout);
    }
    fs::remove_file(directory.join("results.jsonl")).unwrap();
    fs::remove_dir_all(directory.join("files")).unwrap();
    let told = place.run(["report", run, "--reporter", "jsonl"]).unwrap();
    assert_eq!(told.code(), 0, "{}", told.stderr);
    assert_eq!(results(&directory), ["pass /a", "pass /b"]);
}
