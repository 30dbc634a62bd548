//! The life of a machine: setup, phases, slots, cancelling, losing, handing back.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atex_host::executor::spec::{
    Action, Check, CheckRule, Dialect, Ended, MachineSpec, Order, Packages, Phase, Report, Restart, Site,
    Upload,
};
use atex_plugin_api::model::{LocalTransport, Transport};
use common::{Machine, artifact, site, spec, test, tree};

fn local() -> Transport {
    Transport::Local(LocalTransport::default())
}

/// Local, with its work directory in a place that can be looked at.
fn local_in(directory: &tempfile::TempDir) -> Transport {
    let mut local = LocalTransport::default();
    local.directory = Some(directory.path().display().to_string());
    Transport::Local(local)
}

fn shell(name: &str, script: &str) -> Phase {
    Phase { name: name.into(), action: Action::Shell { scripts: vec![script.into()] } }
}

fn entries(directory: &tempfile::TempDir) -> Vec<PathBuf> {
    fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Waits for something that other processes do, without assuming how long it takes.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        let _ = receiver.recv_timeout(Duration::from_millis(20));
    }
    drop(sender);
}

/// Processes of this box with `text` in their command line.
fn processes(text: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
    .count()
}

#[test]
fn phases_uploads_and_facts() {
    let (tree, content, place) = (tree(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(content.path().join("data"), "uploaded").unwrap();
    let to = place.path().join("here/deep");
    let site = Site {
        environment: vec![("PLAN".into(), "it's mine".into())],
        uploads: vec![
            Upload { from: content.path().into(), to: to.display().to_string() },
            Upload { from: content.path().join("data"), to: format!("{}/renamed", to.display()) },
        ],
        prepare: vec![
            shell("first", "echo VALUE=1 >>$TMT_PLAN_ENVIRONMENT_FILE; echo \"$PLAN\" >prepared"),
            shell("second", "(( VALUE == 1 )); [[ $PWD == $TMT_TREE ]]"),
        ],
        finish: vec![
            shell("failing", "echo oh no >&2; exit 3"),
            shell("last", "cp -r prepared \"$TMT_TREE\"/../../../done"),
        ],
        ..site(tree.path())
    };
    let work = tempfile::tempdir().unwrap();
    let mut machine = Machine::up(local_in(&work), site);
    let run = machine.run(test("echo $VALUE $PLAN; cat prepared"));
    assert_eq!(
        (run.status.as_str(), artifact(&run, "files/output.txt").as_str()),
        ("pass", "1\nit's mine\n")
    );
    assert_eq!(fs::read_to_string(to.join("data")).unwrap(), "uploaded");
    assert_eq!(fs::read_to_string(to.join("renamed")).unwrap(), "uploaded");
    assert_eq!(machine.hand_back(), ["failing: exit status 3: oh no"]);
    assert_eq!(entries(&work), [work.path().join("done")], "only what a finish phase left outside");
}

#[test]
fn a_failed_prepare_phase_is_told_and_the_machine_can_be_handed_back() {
    let (tree, work) = (tree(), tempfile::tempdir().unwrap());
    let mut machine = Machine::connect(spec(local_in(&work)));
    let site = Site { prepare: vec![shell("prepare /x", "echo why >&2; exit 7")], ..site(tree.path()) };
    assert_eq!(machine.set_up(site).unwrap_err(), "prepare /x: exit status 7: why");
    let run = machine.run(test("true"));
    assert!(matches!(run.ended, Ended::NotStarted(_)), "{run:?}");
    assert!(machine.hand_back().is_empty());
    assert!(entries(&work).is_empty());
}

#[test]
fn a_tree_that_is_not_there_fails_setup() {
    let mut machine = Machine::connect(spec(local()));
    let error = machine.set_up(site(Path::new("/no/such/tree"))).unwrap_err();
    assert!(error.starts_with("upload of the tree: cannot read /no/such/tree"), "{error}");
    machine.hand_back();
}

#[test]
fn phases_have_a_time_limit_and_an_end_of_patience() {
    let tree = tree();
    let mut machine = Machine::connect(spec(local()));
    let mut slow = Site { prepare: vec![shell("slow", "sleep 1000")], ..site(tree.path()) };
    slow.limits.phase_time = Duration::from_millis(300);
    let error = machine.set_up(slow).unwrap_err();
    assert!(error.starts_with("slow: not through within the time"), "{error}");
    assert!(machine.hand_back().is_empty());

    let machine = Machine::connect(spec(local()));
    let slow = Site { prepare: vec![shell("slow", "sleep 100000.5")], ..site(tree.path()) };
    machine.send(Order::Setup(std::sync::Arc::new(slow)));
    eventually("the phase runs", || processes("sleep\u{0}100000.5") == 1);
    // Does not wait for the phase, or this would never return.
    machine.hand_back();
    assert_eq!(processes("sleep\u{0}100000.5"), 0);
}

#[test]
fn packages_that_cannot_be_had_fail_the_test_only() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    let mut wants = test("echo never");
    wants.packages =
        Packages { required: vec!["there-is-no-such-package-anywhere".into()], ..Packages::default() };
    let run = machine.run(wants);
    assert!(
        matches!(&run.ended, Ended::NotStarted(why) if why.starts_with("packages could not be installed")),
        "{run:?}"
    );
    let mut has = test("echo fine");
    has.packages = Packages { required: vec!["bash".into()], ..Packages::default() };
    let run = machine.run(has);
    assert_eq!(run.status, "pass", "{run:?}");
    machine.hand_back();
}

#[test]
fn cancelling_does_not_wait_for_the_test() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    for script in ["sleep infinity", "trap '' TERM HUP INT; while :; do sleep infinity; done"] {
        let (execution, _) = machine.start(test(script), 0);
        assert!(matches!(machine.report(), Report::Started { execution: e } if e == execution));
        machine.send(Order::Cancel { execution });
        let run = machine.finished();
        assert_eq!((run.ended, run.status.as_str()), (Ended::Cancelled, "infra"));
    }
    assert_eq!(machine.run(test("true")).status, "pass", "the machine is still good");
    machine.hand_back();
}

/// A site whose provisioner can reset machines that cannot reboot by themselves.
fn resettable(tree: &Path) -> Site {
    Site { may_reboot: false, may_reset: true, ..site(tree) }
}

/// Waits until the test wants its machine reset.
fn until_reset(machine: &mut Machine) -> Vec<Report> {
    let mut before = vec![];
    loop {
        match machine.report() {
            Report::Reset => return before,
            Report::Finished(run) => panic!("no reset: {run:?}"),
            other => before.push(other),
        }
    }
}

#[test]
fn a_reset_by_the_provisioner() {
    let tree = tree();
    for script in ["tmt-reboot --hard", "tmt-reboot", "echo reset >&$ATEX_TEST_CONTROL; sleep 1006.5"] {
        let mut machine = Machine::up(local(), resettable(tree.path()));
        machine.start(test(&format!("echo $TMT_REBOOT_COUNT; (( TMT_REBOOT_COUNT )) || {{ {script}; }}")), 0);
        let before = until_reset(&mut machine);
        assert!(before.iter().any(|report| matches!(report, Report::Away)), "{script}: {before:?}");
        // The machine would be down for a moment now.
        machine.send(Order::WasReset(Ok(())));
        let run = machine.finished();
        assert_eq!((&run.ended, run.status.as_str()), (&Ended::Exited(0), "pass"), "{script}: {run:?}");
        assert_eq!(artifact(&run, "files/output.txt"), "0\n1\n", "{script}");
        assert!(machine.seen.iter().any(|report| report == "Back"), "{script}: {:?}", machine.seen);
        machine.hand_back();
    }
}

#[test]
fn a_restart_with_reboot_by_the_provisioner() {
    let tree = tree();
    let mut machine = Machine::up(local(), resettable(tree.path()));
    let mut spec = test("echo $TMT_TEST_RESTART_COUNT $TMT_REBOOT_COUNT; (( TMT_REBOOT_COUNT )) || exit 9");
    spec.restart = Some(Restart { codes: vec![9], max: 1, with_reboot: true });
    machine.start(spec, 0);
    until_reset(&mut machine);
    machine.send(Order::WasReset(Ok(())));
    let run = machine.finished();
    assert_eq!((run.status.as_str(), artifact(&run, "files/output.txt").as_str()), ("pass", "0 0\n1 1\n"));
    machine.hand_back();
}

#[test]
fn a_machine_that_could_not_be_reset_is_lost() {
    let tree = tree();
    let mut machine = Machine::up(local(), resettable(tree.path()));
    machine.start(test("tmt-reboot --hard"), 0);
    until_reset(&mut machine);
    machine.send(Order::WasReset(Err("no such machine".into())));
    let run = machine.finished();
    assert!(
        matches!(&run.ended, Ended::Lost(why) if why.contains("could not be reset: no such machine")),
        "{run:?}"
    );
    assert!(matches!(machine.report(), Report::Lost { .. }));
}

#[test]
fn a_reset_that_is_waited_for_can_be_cancelled() {
    let tree = tree();
    let mut machine = Machine::up(local(), resettable(tree.path()));
    let (execution, _) = machine.start(test("tmt-reboot --hard"), 0);
    until_reset(&mut machine);
    machine.send(Order::Cancel { execution });
    assert_eq!(machine.finished().ended, Ended::Cancelled);
}

#[test]
fn nobody_resets_what_cannot_be_reset() {
    let tree = tree();
    let mut machine = Machine::up(local(), Site { may_reboot: false, ..site(tree.path()) });
    for (script, why) in [
        ("tmt-reboot --hard", "the provisioner of this machine cannot reset it"),
        ("tmt-reboot", "this machine cannot reboot by itself"),
    ] {
        let run = machine.run(test(script));
        assert!(artifact(&run, "files/output.txt").contains(why), "{script}");
        assert_eq!(run.status, "fail");
    }
    machine.hand_back();
}

#[test]
fn the_engine_knows_when_a_test_changes_its_limit() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    let told = |machine: &mut Machine| loop {
        match machine.report() {
            Report::Deadline { until, .. } => return until,
            Report::Finished(run) => panic!("nothing told: {run:?}"),
            _ => {}
        }
    };
    let script = "echo duration +1h >&$ATEX_TEST_CONTROL; echo duration save >&$ATEX_TEST_CONTROL\n\
        read -r _ <fifo; echo duration restore >&$ATEX_TEST_CONTROL";
    machine.start(test(&format!("mkfifo fifo; (sleep 0.1; echo >fifo) &\n{script}")), 0);
    // An hour more, then no limit; that is one message where both words came together.
    let mut last = told(&mut machine);
    while last.is_some() {
        last = told(&mut machine);
    }
    let until = told(&mut machine).expect("the clock runs again");
    assert!(until > Instant::now() + Duration::from_mins(50));
    assert_eq!(machine.finished().status, "pass");
    machine.hand_back();
}

#[test]
fn an_abandoned_machine_cleans_up_by_itself() {
    let (tree, work) = (tree(), tempfile::tempdir().unwrap());
    let mut machine = Machine::up(local_in(&work), site(tree.path()));
    machine.start(test("setsid sleep 1003.5 & trap '' TERM HUP; sleep 1003.5"), 0);
    eventually("the test runs", || processes("sleep\u{0}1003.5") == 2);
    machine.send(Order::Abandon);
    let run = machine.finished();
    assert_eq!(run.ended, Ended::Cancelled);
    assert!(matches!(machine.report(), Report::Lost { .. }));
    eventually("nothing is left running", || processes("sleep\u{0}1003.5") == 0);
    eventually("the directory is gone", || entries(&work).is_empty());
}

#[test]
fn hand_back_finds_what_escaped() {
    let (tree, work) = (tree(), tempfile::tempdir().unwrap());
    let mut machine = Machine::up(local_in(&work), site(tree.path()));
    assert_eq!(machine.run(test("setsid sleep 1004.5 >/dev/null 2>&1 7>&- & sleep 0.2")).status, "pass");
    assert_eq!(processes("sleep\u{0}1004.5"), 1);
    machine.hand_back();
    assert_eq!(processes("sleep\u{0}1004.5"), 0);
    assert!(entries(&work).is_empty());
}

#[test]
fn a_test_that_kills_its_driver_loses_the_machine_and_leaves_nothing() {
    let (tree, work) = (tree(), tempfile::tempdir().unwrap());
    let mut machine = Machine::up(local_in(&work), site(tree.path()));
    machine.start(test("echo last words; kill -9 $PPID; sleep 1005.5"), 0);
    let run = machine.finished();
    assert!(matches!(run.ended, Ended::Lost(_)), "{run:?}");
    assert_eq!(artifact(&run, "files/output.txt"), "last words\n");
    assert!(matches!(machine.report(), Report::Lost { .. }));
    assert_eq!(processes("sleep\u{0}1005.5"), 0);
    assert!(entries(&work).is_empty());
}

#[test]
fn slots_have_trees_channels_and_temporary_directories_of_their_own() {
    let tree = tree();
    let mut machine = Machine::up(local(), Site { slots: 3, ..site(tree.path()) });
    let script = |n: u8| {
        format!(
            "echo {n} >mine; echo V{n}=1 >>$TMT_PLAN_ENVIRONMENT_FILE; touch $TMPDIR/at; until [[ $(ls $TMPDIR/../../s*/tmp/at | wc -l) == 3 ]]; do \
             sleep 0.02; done; cat mine; json='{{\"status\":\"s{n}\",\"testout\":\"output.txt\"}}'; printf 'result %d\\n%s' ${{#json}} \"$json\" >&$ATEX_TEST_CONTROL"
        )
    };
    for n in 0..3 {
        machine.start(test(&script(n)), n.into());
    }
    for _ in 0..3 {
        let run = machine.finished();
        let n = run.execution - 1;
        assert_eq!(run.status, format!("s{n}"));
        assert_eq!(artifact(&run, "files/output.txt"), format!("{n}\n"));
    }
    assert_eq!(
        machine.run(test("(( V0 && V1 && V2 )); cat deep/er/file")).status,
        "pass",
        "one environment file"
    );
    assert!(machine.hand_back().is_empty());
}

#[test]
fn a_script_that_rewrites_the_environment_file_is_waited_for() {
    let tree = tree();
    let mut machine = Machine::up(local(), Site { slots: 2, ..site(tree.path()) });
    let rewrite = "file=$TMT_PLAN_ENVIRONMENT_FILE; mkdir $file.lock; printf 'X=\"half' >$file; touch $TMT_PLAN_DATA/begun; \
                   sleep 0.3; printf ' and half\"\n' >>$file; rmdir $file.lock";
    machine.start(test(rewrite), 0);
    let wait = "until [[ -e $TMT_PLAN_DATA/begun ]]; do sleep 0.02; done; exit 3";
    let mut reads = test(&format!("(( TMT_TEST_RESTART_COUNT )) || {{ {wait}; }}; echo $X"));
    reads.restart = Some(Restart { codes: vec![3], max: 1, with_reboot: false });
    let (reader, _) = machine.start(reads, 1);
    let runs = [machine.finished(), machine.finished()];
    let run = runs.iter().find(|run| run.execution == reader).unwrap();
    assert_eq!(artifact(run, "files/output.txt"), "half and half\n", "{run:?}");
    assert!(machine.hand_back().is_empty());
}

#[test]
fn a_disconnect_waits_for_the_other_slots() {
    let (tree, place) = (tree(), tempfile::tempdir().unwrap());
    let at = |name: &str| place.path().join(name);
    let mut machine = Machine::up(local(), Site { slots: 2, ..site(tree.path()) });
    let mut leaver = test(&format!(
        "(( TMT_REBOOT_COUNT )) && exit 0; echo disconnect >&$ATEX_TEST_CONTROL; touch {0}; while echo noop >&$ATEX_TEST_CONTROL; do sleep 0.05; done",
        at("said").display()
    ));
    // The clock stands still while others run: what it takes until then does not count.
    leaver.duration = Duration::from_secs(4);
    let (leaver, _) = machine.start(leaver, 0);
    let script = format!(
        "until [[ -e {} ]]; do sleep 0.02; done; sleep 5; echo $TMT_REBOOT_COUNT",
        at("said").display()
    );
    let (other, _) = machine.start(test(&script), 1);
    let run = machine.finished();
    assert_eq!((run.execution, run.status.as_str()), (other, "pass"));
    assert_eq!(artifact(&run, "files/output.txt"), "0\n");
    let run = machine.finished();
    assert_eq!((run.execution, run.status.as_str()), (leaver, "pass"), "{run:?}");
    machine.hand_back();
}

#[test]
fn limits_end_a_test_and_say_which() {
    let tree = tree();
    let mut site = site(tree.path());
    site.limits.bytes_per_test = 100_000;
    site.limits.results_per_test = 5;
    site.dialect = Dialect::Atex;
    let mut machine = Machine::up(local(), site);
    let run = machine.run(test("yes"));
    assert!(matches!(&run.ended, Ended::Limit(what) if what.contains("100000 bytes")), "{run:?}");
    let run = machine.run(test(
        "for i in {1..9}; do printf 'result 12\\n{\"name\":\"a\"}' >&$ATEX_TEST_CONTROL; done; sleep 100",
    ));
    assert!(matches!(&run.ended, Ended::Limit(what) if what.contains("5 results")), "{run:?}");
    assert_eq!(run.results, 6);
    assert_eq!(machine.run(test("true")).status, "pass");
    machine.hand_back();
}

#[test]
fn artifacts_that_cannot_be_written_are_an_infra_verdict() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    fs::write(machine.directory.path().join("artifacts"), "a file where a directory should be").unwrap();
    let run = machine.run(test("true"));
    assert_eq!((run.status.as_str(), run.artifacts.is_none()), ("infra", true));
    assert!(run.note.unwrap().contains("artifacts"));
    machine.hand_back();
}

#[test]
fn checks_have_results_of_their_own() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    let check = |how: &str| Check { how: how.into(), result: CheckRule::Info, failure_patterns: vec![] };
    let mut checked = test("echo the test; exit 3");
    checked.checks = vec![check("dmesg"), check("coredump")];
    let run = machine.run(checked);
    assert_eq!((run.ended, run.status.as_str()), (Ended::Exited(3), "fail"));
    let results = fs::read_to_string(run.artifacts.unwrap().directory.join("results")).unwrap();
    let lines: Vec<_> = results.lines().collect();
    assert_eq!(lines[0], r#"{"status":"info","name":"check/dmesg","files":["dmesg.txt"]}"#);
    assert_eq!(lines[1], r#"{"status":"info","name":"check/coredump","files":["coredump.txt"]}"#);
    assert_eq!(lines[2], r#"{"status":"fail","files":["output.txt"]}"#);
    machine.hand_back();
}

#[test]
fn a_failed_check_fails_the_test() {
    let tree = tree();
    // A pretended dmesg in the tree's own directory of programs, which is first in PATH.
    let program = "#!/bin/sh\necho boot\nif [ -e /proc/self/fd/0 ] && [ -e \"${state%/run}/tree/bad\" ]; then echo Call Trace:; fi\n";
    fs::write(tree.path().join("dmesg"), program).unwrap();
    let install = "install -m 755 dmesg \"$TMT_TREE\"/../../bin/dmesg";
    let mut machine =
        Machine::up(local(), Site { prepare: vec![shell("fake", install)], ..site(tree.path()) });
    let mut checked = test("touch bad");
    checked.checks =
        vec![Check { how: "dmesg".into(), result: CheckRule::Respect, failure_patterns: vec![] }];
    let run = machine.run(checked.clone());
    assert_eq!((run.ended, run.status.as_str()), (Ended::Exited(0), "fail"));
    assert_eq!(run.note.as_deref(), Some("check dmesg: fail"));
    checked.checks[0].result = CheckRule::Xfail;
    checked.script = "true".into();
    checked.checks[0].failure_patterns = vec!["boot".into()];
    assert_eq!(
        machine.run(checked).status,
        "fail",
        "nothing new since the mark: expected to fail, and did not"
    );
    machine.hand_back();
}

#[test]
fn playbooks_run_on_this_side() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("ansible-playbook");
    fs::write(&program, "#!/bin/bash\ngrep -q local \"$2\" && echo \"with ${*:3}\"; [[ $* != *slow* ]] || exec sleep 1006.5; [[ $* != *bad* ]]\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // A process of its own: which programs there are is said by the environment.
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_a_pretended_ansible", "--ignored", "--nocapture"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by playbooks_run_on_this_side"]
fn with_a_pretended_ansible() {
    let tree = tree();
    let phase = |playbook: &str| Phase {
        name: "ansible".into(),
        action: Action::Ansible { playbooks: vec![playbook.into()], extra_args: vec!["-v".into()] },
    };
    let mut machine = Machine::up(local(), Site { prepare: vec![phase("good.yml")], ..site(tree.path()) });
    assert_eq!(machine.run(test("true")).status, "pass");
    machine.hand_back();
    let mut machine = Machine::connect(spec(local()));
    let error = machine.set_up(Site { prepare: vec![phase("bad.yml")], ..site(tree.path()) }).unwrap_err();
    assert_eq!(error, "ansible: ansible-playbook bad.yml: exit status: 1: with -v -- bad.yml");
    machine.hand_back();
    let mut machine = Machine::connect(spec(local()));
    let mut slow = Site { prepare: vec![phase("slow.yml")], ..site(tree.path()) };
    slow.limits.phase_time = Duration::from_millis(300);
    let error = machine.set_up(slow).unwrap_err();
    assert!(error.starts_with("ansible: not through within the time"), "{error}");
    assert_eq!(processes("sleep\u{0}1006.5"), 0);
    machine.hand_back();
}

#[test]
fn a_program_that_does_not_exist_is_refused_at_once() {
    let exec = atex_plugin_api::model::ExecTransport::new(["/no/such/program"]);
    let (sender, reports) = std::sync::mpsc::channel();
    let handle = atex_host::executor::Handle::start(
        spec(Transport::Exec(exec)),
        Box::new(move |r| drop(sender.send(r))),
    )
    .unwrap();
    match reports.recv_timeout(Duration::from_secs(5)).unwrap() {
        Report::Lost { reason } => assert!(reason.contains("cannot run `/no/such/program`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    handle.join();
}

#[test]
fn stale_directories_of_dead_sessions_are_removed() {
    let work = tempfile::tempdir().unwrap();
    for (name, day_old) in [("atex-0123456789", true), ("atex-abcdefghij", false), ("atex-other", true)] {
        let directory = work.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(".alive"), "").unwrap();
        if day_old {
            let then = std::time::SystemTime::now() - Duration::from_hours(25);
            let file = fs::File::options().write(true).open(directory.join(".alive")).unwrap();
            file.set_modified(then).unwrap();
        }
    }
    Machine::connect(spec(local_in(&work))).hand_back();
    let mut left: Vec<_> = entries(&work).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    left.sort();
    assert_eq!(left, ["atex-abcdefghij", "atex-other"]);
}

/// As podman does when it dies of a broken pipe: the command lives on, its stdin stays open.
#[test]
fn a_machine_that_never_hears_of_the_end_of_its_input() {
    let held = "[[ $1 == bash ]] || exec \"$@\"\nexec 3<&0\nd=$(mktemp -d)\n\
        hold() { until [[ -e $d/pid ]]; do :; done; while kill -0 $(<$d/pid); do sleep 0.05; done 2>/dev/null; rm -r $d; }\n\
        { echo $BASHPID >$d/pid; exec setsid \"$@\"; } < <(cat <&3; hold) &\nwait";
    let exec = atex_plugin_api::model::ExecTransport::new(["bash", "-c", held, "-"]);
    let tree = tree();
    // Nothing but the word can tell the machine that the host is gone.
    let spec = MachineSpec { keepalive: Duration::from_hours(1), ..spec(Transport::Exec(exec)) };
    let mut machine = Machine::connect(spec);
    machine.set_up(site(tree.path())).unwrap();
    let run =
        machine.run(test("(( TMT_REBOOT_COUNT )) && exit 0; echo disconnect >&$ATEX_TEST_CONTROL; exit 7"));
    assert_eq!((run.ended, run.status.as_str()), (Ended::Exited(0), "pass"));
    assert!(machine.hand_back().is_empty());
}

#[test]
fn the_log_up_to_a_disconnect_is_complete() {
    let tree = tree();
    let mut machine = Machine::up(local(), site(tree.path()));
    // Written at once, and more than the host reads at a time: the control channel overtakes it.
    let run = machine.run(test(
        "(( TMT_REBOOT_COUNT )) && exit 0; log=$(seq 10000)\necho \"$log\"; echo disconnect >&$ATEX_TEST_CONTROL\n\
         while echo noop >&$ATEX_TEST_CONTROL; do read -t 0.02 <> <(:) || :; done",
    ));
    let log = (1..=10_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    assert!(artifact(&run, "files/output.txt") == log, "the log is not complete: {run:?}");
    machine.hand_back();
}
