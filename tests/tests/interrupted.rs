//! Runs that do not come to their own end: signals, a killed host. Nothing stays behind, and what was interrupted goes on.

use std::{
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use atex_tests::e2e::{Finished, Place, finish};
use rustix::process::{Pid, Signal, kill_process};

/// A place whose tests say when they run, and wait.
struct Waiting {
    place: Place,
    fifo: PathBuf,
    /// What the tests wait by; unique, so that what is left of them can be found.
    sleep: String,
}

impl Waiting {
    /// A tree with one quick test and some that wait.
    fn new(unique: u32) -> Result<Self> {
        let sleep = format!("sleep {}{unique}", 900_000);
        let tree = format!(
            "/quick:\n    test: 'true'\n    extra-priority: 5\n/wait:\n    tag: [wait]\n    test: |\n        \
             [[ -e $STATE/go ]] && exit 0\n        echo here > $STATE/fifo\n        {sleep}\n/zz:\n    test: 'true'\n"
        );
        let place = Place::new(&[("all.fmf", &tree)])?;
        let fifo = place.write("shared/x", "")?.with_file_name("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)?;
        Ok(Self { place, fifo, sleep })
    }

    /// Starts the run and returns when the waiting test runs.
    fn start(&self, args: &[&str]) -> Result<Child> {
        self.wait_for_test(self.command(args)?)
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let run_dir = self.place.run_dir();
        let state = format!("STATE={}", self.fifo.parent().context("no directory")?.display());
        let mut command = self.place.command(["--provisioner", "local,max=1", "--env", &state, "--run-dir"]);
        command.arg(run_dir).args(args);
        Ok(command)
    }

    fn wait_for_test(&self, mut command: Command) -> Result<Child> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut said = String::new();
        // Opening blocks until the test opens the other end.
        File::open(&self.fifo)?.read_to_string(&mut said)?;
        ensure!(said == "here\n", "the test said {said:?}");
        Ok(child)
    }

    /// Whether a process of the tests is still there.
    fn is_anything_left(&self) -> Result<bool> {
        for entry in fs::read_dir("/proc")? {
            let command = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).replace('\0', " ").trim_end() == self.sleep {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn gc(&self) -> Result<Finished> {
        self.place.run(["gc"])
    }
}

fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child without a pid")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn one_signal_ends_the_run_in_good_order() {
    for (number, signal) in [(11, Signal::INT), (12, Signal::TERM), (13, Signal::HUP)] {
        let waiting = Waiting::new(number).unwrap();
        let child = waiting.start(&["--policy", "priority"]).unwrap();
        send(&child, signal).unwrap();
        let ended = finish(child).unwrap();
        assert_eq!(ended.code(), 4, "{}", ended.stderr);
        assert_eq!(waiting.place.verdicts().unwrap(), [1, 1, 1]);
        let results = waiting.place.results().unwrap();
        let statuses: Vec<&str> = results.iter().map(|(_, _, status)| status.as_str()).collect();
        assert_eq!(statuses, ["pass", "infra", "infra"], "{results:?}");
        assert!(!waiting.is_anything_left().unwrap());
        let gc = waiting.gc().unwrap();
        assert_eq!((gc.code(), gc.stdout.trim()), (0, "nothing is held by dead runs"));
    }
}

#[test]
fn a_signal_that_was_ignored_on_entry_is_handled_all_the_same() {
    let waiting = Waiting::new(71).unwrap();
    let command = waiting.command(&["--policy", "priority"]).unwrap();
    // As `nohup` and the background jobs of a script are started.
    let mut words = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT HUP TERM; exec \"$@\"", "sh"]).args(words);
    shell.current_dir(waiting.place.path("tree")).env("ATEX_STATE_DIR", waiting.place.path("state"));
    let child = waiting.wait_for_test(shell).unwrap();
    send(&child, Signal::HUP).unwrap();
    let ended = finish(child).unwrap();
    assert_eq!(ended.code(), 4, "{}", ended.stderr);
}

#[test]
fn a_third_signal_leaves_at_once() {
    let waiting = Waiting::new(21).unwrap();
    let child = waiting.start(&["--policy", "priority"]).unwrap();
    for _ in 0..3 {
        send(&child, Signal::INT).unwrap();
    }
    let ended = finish(child).unwrap();
    // 6: the console had no time to tell all.
    assert!([4, 5, 6, 130].contains(&ended.code()), "{} {}", ended.code(), ended.stderr);
    assert_eq!(waiting.gc().unwrap().code(), 0);
}

#[test]
fn a_reservation_that_never_comes_back_is_left_behind() {
    let place = Place::new(&[("a.fmf", "test: 'true'\n")]).unwrap();
    let config = place.write("c.yaml", "limits: {release: 1s}\n").unwrap();
    let plugin = place.plugin("test-faulty");
    let run_dir = place.run_dir();
    let mut command = place.command([
        "--config",
        config.to_str().unwrap(),
        "--plugin",
        plugin.to_str().unwrap(),
        "--provisioner",
        "faulty,max=1,fault=block,in=reserve",
        "--format",
        "json",
        "--log-file",
        place.path("log").to_str().unwrap(),
        "--run-dir",
        run_dir.to_str().unwrap(),
    ]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Until the reservation is in the ledger nothing of interest has happened.
    let ledger = place.path("state/ledger");
    while !fs::read_dir(&ledger).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0)))
    }) {
        std::thread::yield_now();
    }
    send(&child, Signal::INT).unwrap();
    let ended = finish(child).unwrap();
    assert_eq!(ended.code(), 5, "{}", ended.stderr);
    assert_eq!(place.verdicts().unwrap(), [1]);
}

#[test]
fn a_killed_host_leaks_nothing_that_gc_does_not_find() {
    let waiting = Waiting::new(31).unwrap();
    let child = waiting.start(&["--policy", "priority"]).unwrap();
    send(&child, Signal::KILL).unwrap();
    finish(child).unwrap();
    let gc = waiting.gc().unwrap();
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stdout.contains("1 released, nothing is held any more"), "{}", gc.stdout);
    assert_eq!(waiting.gc().unwrap().stdout.trim(), "nothing is held by dead runs");
}

#[test]
fn gc_leaves_a_run_alone_that_is_alive() {
    let waiting = Waiting::new(41).unwrap();
    let child = waiting.start(&["--policy", "priority"]).unwrap();
    let gc = waiting.gc().unwrap();
    assert!(gc.stdout.contains("alive"), "{}", gc.stdout);
    assert!(waiting.is_anything_left().unwrap(), "its test runs on");
    send(&child, Signal::TERM).unwrap();
    assert_eq!(finish(child).unwrap().code(), 4);
}

#[test]
fn a_killed_run_is_resumed() {
    let waiting = Waiting::new(51).unwrap();
    let child = waiting.start(&["--policy", "priority"]).unwrap();
    send(&child, Signal::KILL).unwrap();
    finish(child).unwrap();
    // From now on the test does not wait.
    waiting.place.write("shared/go", "").unwrap();
    let run_dir = waiting.place.run_dir();
    let resumed = waiting.place.run(["resume".as_ref(), run_dir.as_os_str()]).unwrap();
    assert_eq!(resumed.code(), 0, "{}{}", resumed.stdout, resumed.stderr);
    assert_eq!(waiting.place.verdicts().unwrap(), [1, 1, 1]);
    let results = waiting.place.results().unwrap();
    assert_eq!(results.len(), 3, "{results:?}");
    assert!(results.iter().all(|(_, _, status)| status == "pass"), "{results:?}");
    let quick = waiting.place.journal().unwrap();
    let runs = |test: u64| {
        quick.iter().filter(|record| record["what"] == "started" && record["test"] == test).count()
    };
    assert_eq!((0..3).map(runs).sum::<usize>(), 4, "only what had no verdict ran again");

    // Of a finished run the summary is shown again, and nothing else happens.
    let again = waiting.place.run(["resume".as_ref(), run_dir.as_os_str()]).unwrap();
    assert_eq!(again.code(), 0, "{}", again.stderr);
    assert!(again.stdout.contains("3 tests in"), "{}", again.stdout);
    assert_eq!(waiting.place.verdicts().unwrap(), [1, 1, 1]);
}

#[test]
fn a_run_whose_tree_changed_is_not_resumed() {
    let waiting = Waiting::new(61).unwrap();
    let child = waiting.start(&["--policy", "priority"]).unwrap();
    send(&child, Signal::KILL).unwrap();
    finish(child).unwrap();
    waiting.place.write("tree/data", "new\n").unwrap();
    let run_dir = waiting.place.run_dir();
    let resumed = waiting.place.run(["resume".as_ref(), run_dir.as_os_str()]).unwrap();
    assert_eq!(resumed.code(), 2, "{}", resumed.stderr);
    assert!(resumed.stderr.contains("changed since the run began: the tree"), "{}", resumed.stderr);
}
