//! Runs from a user's point of view: exit statuses, results, what is left behind.

use atex_tests::e2e::{Finished, Place};

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
    let uploads = place.write("uploads.yaml", "uploads: [{from: ./not-there, to: /x}]\n").unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["--provisioner", "local", "--config", uploads.to_str().unwrap()], "not-there"),
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

#[test]
fn a_test_cannot_reboot_this_box() {
    let place = Place::new(&[("a.fmf", "test: tmt-reboot\nduration: 30s\n")]).unwrap();
    let ran = place.run_tree(&[]).unwrap();
    assert_eq!(ran.code(), 1, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn several_tests_share_a_machine_that_has_slots() {
    // Each waits until both run: with one slot neither would end before its time.
    let tree = "
/a:
    test: touch \"$STATE/a\"; until [[ -e $STATE/b ]]; do read -rt 0.05 <> <(:) || true; done
/b:
    test: touch \"$STATE/b\"; until [[ -e $STATE/a ]]; do read -rt 0.05 <> <(:) || true; done
duration: 1m
";
    let place = Place::new(&[("all.fmf", tree)]).unwrap();
    let state = place.write("shared/x", "").unwrap();
    let state = format!("STATE={}", state.parent().unwrap().display());
    let run_dir = place.run_dir();
    let args = ["--provisioner", "local,max=1", "--slots", "2", "--env", &state, "--run-dir"];
    let ran = place.run(args.iter().map(AsRef::as_ref).chain([run_dir.as_os_str()])).unwrap();
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn plans_environment_prepare_and_finish_reach_the_machine() {
    let plan = "
/plan:
    discover: {how: fmf}
    execute: {how: tmt}
    environment: {COLOUR: red}
    prepare: {how: shell, script: 'echo \"prepared $COLOUR\" > $STATE/prepared'}
    finish: {how: shell, script: 'echo finished > $STATE/finished'}
";
    let test = "test: test \"$COLOUR\" = red && grep -q 'prepared red' $STATE/prepared\n";
    let place = Place::new(&[("plans.fmf", plan), ("a.fmf", test)]).unwrap();
    let state = place.write("shared/x", "").unwrap();
    let shared = state.parent().unwrap();
    let state = format!("STATE={}", shared.display());
    let ran = place.run_tree(&["--env", &state]).unwrap();
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    assert!(shared.join("finished").is_file());
}

/// Also where both could have the same machine, one after the other.
#[test]
fn each_plan_prepares_and_finishes_its_own_machines() {
    let plan = "
discover: {how: fmf}
execute: {how: tmt}
/one:
    prepare: {how: shell, script: 'echo FROM_ONE=1 >> $TMT_PLAN_ENVIRONMENT_FILE; echo one >> $STATE/begun'}
    finish: {how: shell, script: 'echo one >> $STATE/finished'}
/two:
    prepare: {how: shell, script: 'echo two >> $STATE/begun'}
    finish: {how: shell, script: 'echo \"two${FROM_ONE-}\" >> $STATE/finished'}
";
    let place = Place::new(&[("plans.fmf", plan), ("a.fmf", "test: 'true'\n")]).unwrap();
    let state = place.write("shared/x", "").unwrap();
    let shared = state.parent().unwrap();
    let run_dir = place.run_dir();
    let state = format!("STATE={}", shared.display());
    let args = ["--plan", ".*", "--provisioner", "local,max=1", "--env", &state, "--run-dir"];
    let ran = place.run(args.iter().map(AsRef::as_ref).chain([run_dir.as_os_str()])).unwrap();
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    for file in ["begun", "finished"] {
        let text = std::fs::read_to_string(shared.join(file)).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "two"], "{file}");
    }
}

#[test]
fn platforms_have_contexts_of_their_own() {
    let tree = "
/only-a:
    test: 'true'
    enabled: false
    adjust: {when: distro == a, enabled: true}
/both:
    test: test \"$WHERE\" = \"$1\"
    adjust:
      - {when: distro == a, 'test+': ' a'}
      - {when: distro == b, 'test+': ' b'}
";
    let tree = tree.replace("test \"$WHERE\" = \"$1\"", "check() { test \"$WHERE\" = \"$1\"; }; check");
    let config = "
provisioners: {here: {use: local, max: 1}}
platforms:
  - {name: one, context: {distro: a}, provisioners: [here], env: {WHERE: a}}
  - {name: two, context: {distro: b}, provisioners: [here], env: {WHERE: b}}
";
    let place = Place::new(&[("all.fmf", &tree)]).unwrap();
    let config = place.write("config.yaml", config).unwrap();
    let run_dir = place.run_dir();
    let args = ["--config".as_ref(), config.as_os_str(), "--run-dir".as_ref(), run_dir.as_os_str()];
    let ran = place.run(args).unwrap();
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(place.results().unwrap().len(), 3);
    assert!(
        ran.stdout.contains("[one] /all/only-a") && !ran.stdout.contains("[two] /all/only-a"),
        "{}",
        ran.stdout
    );
}

/// A run of one test on a local machine of a platform with this context and these requirements.
fn on_platform(platform: &str) -> anyhow::Result<(Place, Finished)> {
    let place = Place::new(&[("a.fmf", "test: 'true'\n")])?;
    let config = format!("platforms:\n- {{name: p, {platform}, provisioners: [{{use: local, max: 1}}]}}\n");
    let (config, run_dir) = (place.write("config.yaml", &config)?, place.run_dir());
    let words = ["--config".as_ref(), config.as_os_str(), "--run-dir".as_ref(), run_dir.as_os_str()];
    let finished = place.run(words)?;
    Ok((place, finished))
}

#[test]
fn facts_are_compared_with_what_the_platform_requires() {
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let id = release.lines().find_map(|line| line.strip_prefix("ID=")).unwrap().trim_matches('"');
    let arch = std::env::consts::ARCH;

    // The name of the distribution alone takes every version of it.
    let (place, finished) = on_platform(&format!("require: {{distro: {id}, arch: {arch}}}")).unwrap();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let ready = place.journal().unwrap().into_iter().find(|record| record["change"] == "ready").unwrap();
    for fact in ["distro", "arch", "cpus", "memory", "kernel", "hostname"] {
        assert!(ready["facts"][fact].is_string(), "{fact} of {ready}");
    }

    let (_, finished) = on_platform("require: {arch: pdp11}").unwrap();
    assert_eq!(finished.code(), 3, "no machine, no verdict: {}", finished.stderr);
    let told = format!("does not fit its platform: arch should be pdp11, and is {arch}");
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);

    // Without `require` a context that does not fit is worth a warning, and no more.
    let (_, finished) = on_platform("context: {arch: pdp11, trigger: nightly}").unwrap();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let told = format!("its arch is {arch}, and its platform's context says pdp11");
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);
}
