//! Runs from a user's point of view: exit statuses, results, what is left behind.

use atex_tests::e2e::Place;

const MIXED: &str = "
/good:
    test: 'true'
/bad:
    test: exit 3
/slow:
    test: sleep 100
    duration: 1s
";

#[test]
fn results_and_exit_status_are_those_of_the_tests() {
    let place = Place::new(&[("all.fmf", MIXED)]).unwrap();
    let ran = place.run_tree(&[]).unwrap();
    assert_eq!(ran.code(), 1, "{}", ran.stderr);
    let results = place.results().unwrap();
    let expected = [("/all/bad", "fail"), ("/all/good", "pass"), ("/all/slow", "infra")];
    let expected = expected.map(|(test, status)| (test.to_owned(), String::new(), status.to_owned()));
    assert_eq!(results, expected);
    assert_eq!(place.verdicts().unwrap(), [1, 1, 1]);
    assert!(ran.stdout.contains("3 tests in"), "{}", ran.stdout);
    let log = place.run_dir().join("files/default/all/bad/output.txt");
    assert!(log.is_file(), "{}", log.display());
    let gc = place.run(["gc"]).unwrap();
    assert_eq!((gc.code(), gc.stdout.trim()), (0, "nothing is held by dead runs"));
}

#[test]
fn everything_passing_is_success() {
    let place = Place::new(&[("a.fmf", "test: 'true'\n"), ("b.fmf", "test: true\n")]).unwrap();
    let ran = place.run_tree(&["--format", "json"]).unwrap();
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", ran.stdout);
    assert_eq!(lines[2]["summary"]["passed"], 2);
}

#[test]
fn wrong_use_is_found_before_anything_is_made() {
    let place = Place::new(&[("a.fmf", "test: 'true'\n")]).unwrap();
    let cases: [(&[&str], &str); 8] = [
        (&["--no-such-option"], "--no-such-option"),
        (&["--provisioner", "locl"], "did you mean"),
        (&["--provisioner", "local,colour=red"], "colour"),
        (&["--provisioner", "local", "--policy", "reruns,max=many"], "max"),
        (&[], "nothing says where the machines"),
        (&["--provisioner", "local", "--test", "/nothing"], "no test is selected"),
        (&["--provisioner", "local", "--plugin", "/nonexistent.so"], "does not exist"),
        (&["--provisioner", "local", "--config", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ];
    for (args, expected) in cases {
        let run_dir = place.run_dir();
        let run_dir = run_dir.to_string_lossy();
        let ran = place.run(args.iter().chain(&["--run-dir", &*run_dir])).unwrap();
        assert_eq!(ran.code(), 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {}", ran.stderr);
        assert!(!place.run_dir().join("run.json").exists(), "{args:?}");
    }
}

#[test]
fn a_dry_run_asks_for_nothing() {
    let place = Place::new(&[("all.fmf", MIXED)]).unwrap();
    let ran = place.run_tree(&["--dry-run"]).unwrap();
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("default: 3 tests on local (up to 2)"), "{}", ran.stdout);
    assert!(!place.run_dir().exists());
}

#[test]
fn only_what_failed_runs_again() {
    let place = Place::new(&[("all.fmf", MIXED)]).unwrap();
    assert_eq!(place.run_tree(&[]).unwrap().code(), 1);
    let earlier = place.run_dir();
    let again = place.path("again");
    let args = ["--provisioner", "local", "--rerun-failed"];
    let args = args.iter().map(std::ffi::OsStr::new).chain([earlier.as_os_str()]);
    let ran = place.run(args.chain([std::ffi::OsStr::new("--run-dir"), again.as_os_str()])).unwrap();
    assert_eq!(ran.code(), 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("2 tests in") && !ran.stdout.contains("/all/good"), "{}", ran.stdout);
}

#[test]
fn failed_tests_run_again_as_often_as_asked_for() {
    let flaky = "test: mkdir \"$STATE/once\" 2>/dev/null && exit 1 || true\n";
    let place = Place::new(&[("flaky.fmf", flaky)]).unwrap();
    let state = place.write("shared/here", "").unwrap();
    let state = format!("STATE={}", state.parent().unwrap().display());
    let ran = place.run_tree(&["--reruns", "2", "--env", &state]).unwrap();
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    let runs = place.journal().unwrap().iter().filter(|record| record["what"] == "finished").count();
    assert_eq!(runs, 2);
    assert_eq!(place.results().unwrap().len(), 1, "the run that was repeated is not among the results");
}

#[test]
fn a_reporter_can_be_told_later() {
    let place = Place::new(&[("all.fmf", MIXED)]).unwrap();
    assert_eq!(place.run_tree(&[]).unwrap().code(), 1);
    let to = place.path("later.jsonl");
    let spec = format!("jsonl,path={}", to.display());
    let told = place.run(["report", &place.run_dir().to_string_lossy(), "--reporter", &spec]).unwrap();
    assert_eq!(told.code(), 0, "{}", told.stderr);
    let same = |path: &std::path::Path| {
        let mut lines: Vec<String> =
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(same(&to), same(&place.run_dir().join("results.jsonl")));
}
