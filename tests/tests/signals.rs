//! Ctrl-C in every phase of a run: all machines are given back, side by side; a second signal hurries, and no third is needed.
//!
//! Each case stops a run of two machines in one phase, which says so and waits to be told to go on, then sends the signals. What
//! is asserted is what was written down and what is left, never how long something took.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use atex_tests::{e2e::Place, watch};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use serde_json::json;

/// Lends directories; stops at the requests that `STOP` names.
const POOL: &str = r#"#!/bin/sh
home=$SCENE/pool/${ATEX_LEASE-${ATEX_MACHINE-}}
case " $STOP " in *" $ATEX_REQUEST "*) stop=1 ;; *) stop= ;; esac
case $ATEX_REQUEST in
reserve)
    mkdir -p "$home"
    printf '%s\n' "$ATEX_MARK" > "$home/mark"
    [ ! "$stop" ] || { echo here > "$SCENE/here"; read -r _ < "$SCENE/go"; }
    printf '{"machine": {"id": "%s", "transport": {"kind": "local", "directory": "%s"}, "disposable": true}}\n' \
        "$ATEX_LEASE" "$home"
    ;;
release)
    [ ! "$stop" ] || { echo here > "$SCENE/here"; read -r _ < "$SCENE/go"; }
    rm -rf "$home"
    ;;
abort) rm -rf "$home" ;;
list)
    printf '{"held": ['
    comma=
    for mark in "$SCENE"/pool/*/mark; do
        [ -e "$mark" ] || continue
        name=${mark%/mark}
        printf '%s{"id": "%s", "mark": "%s"}' "$comma" "${name##*/}" "$(cat "$mark")"
        comma=,
    done
    echo ']}'
    ;;
*) echo '{"error": {"kind": "unsupported", "message": "not by this script"}}' ;;
esac
"#;

/// In a script: stops here.
const STOP: &str = "echo here > $SCENE/here; read -r _ < $SCENE/go";

/// In a test: the same, with a pipe of its own, or the finish script of the first machine would take what the other's test needs.
const STOP_TEST: &str = "echo here > $SCENE/here; read -r _ < $SCENE/on";

/// A safety net: how long nothing may happen.
const PATIENCE: Duration = Duration::from_mins(4);

/// Where a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reserve,
    Setup,
    Tests,
    Judge,
    Finish,
    Release,
    Reporter,
}

/// What happens after the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nothing: the run ends by itself, whatever is stopped.
    Nothing,
    /// What was stopped goes on.
    GoOn,
}

struct Case {
    phase: Phase,
    signals: usize,
    then: Then,
    /// The exit status that is right.
    code: i32,
}

const fn case(phase: Phase, signals: usize, then: Then, code: i32) -> Case {
    Case { phase, signals, then, code }
}

/// A machine that is being given back cannot be hurried: the provider has to be heard. All else ends at the second signal at the
/// latest, also if it would never have ended by itself.
const CASES: &[Case] = &[
    case(Phase::Reserve, 1, Then::Nothing, 4),
    case(Phase::Reserve, 2, Then::Nothing, 4),
    case(Phase::Setup, 1, Then::Nothing, 4),
    case(Phase::Setup, 2, Then::Nothing, 4),
    case(Phase::Tests, 1, Then::Nothing, 4),
    case(Phase::Tests, 2, Then::Nothing, 4),
    // All tests have run by then.
    case(Phase::Judge, 1, Then::Nothing, 0),
    case(Phase::Judge, 2, Then::Nothing, 0),
    case(Phase::Finish, 1, Then::GoOn, 0),
    case(Phase::Finish, 2, Then::Nothing, 0),
    case(Phase::Release, 1, Then::GoOn, 0),
    case(Phase::Release, 2, Then::GoOn, 0),
    case(Phase::Reporter, 2, Then::Nothing, 6),
];

struct Scene {
    place: Place,
    here: BufReader<File>,
    /// For the tests.
    on: File,
    /// For all else.
    go: File,
}

impl Scene {
    fn new(phase: Phase) -> Result<Self> {
        let stop = |at: Phase| if phase == at { STOP } else { "true" };
        let prepare = format!("[[ -n $SCENE ]]; {}", stop(Phase::Setup));
        let plan = json!({
            "discover": {"how": "fmf"}, "execute": {"how": "tmt"},
            "prepare": {"how": "shell", "script": prepare},
            "finish": {"how": "shell", "script": stop(Phase::Finish)},
        });
        // Each on a machine of its own: neither goes on before both have begun.
        let tests = format!("/a:\n    test: {STOP_TEST}\n/b:\n    test: {STOP_TEST}\n");
        let place = Place::new(&[("tests.fmf", &tests), ("plan.fmf", &plan.to_string())])?;
        place.write("pool.sh", POOL)?;
        fs::create_dir_all(place.path("pool"))?;
        fs::create_dir_all(place.run_dir())?;
        let fifo = |name: &str| -> Result<File> {
            let path = place.path(name);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RWXU,
                0,
            )?;
            // Both ends: neither side ever waits for the other to open it.
            Ok(File::options().read(true).write(true).open(path)?)
        };
        let (here, on, go) = (BufReader::new(fifo("here")?), fifo("on")?, fifo("go")?);
        Ok(Self { place, here, on, go })
    }

    fn start(&self, phase: Phase) -> Result<Running> {
        let place = &self.place;
        let scene = place.path("");
        let scene = scene.to_str().context("a strange directory")?;
        let stop = match phase {
            Phase::Reserve => "reserve",
            Phase::Release => "release",
            _ => "",
        };
        let pool = json!({
            "use": "exec", "program": ["sh", place.path("pool.sh")], "env": {"SCENE": scene, "STOP": stop}, "max": 2,
        });
        let mut command =
            place.command(["--provisioner", &pool.to_string(), "--env", &format!("SCENE={scene}")]);
        command.args(["--plugin".as_ref(), place.plugin("test-faulty").as_os_str()]);
        command.args(["--run-dir".as_ref(), place.run_dir().as_os_str()]);
        match phase {
            Phase::Judge => command.args(["--policy", "faulty,fault=block,in=judge"]),
            Phase::Reporter => command.args(["--reporter", "faulty,fault=block,in=finished"]),
            _ => &mut command,
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = BufReader::new(child.stderr.take().context("no pipe")?);
        let (tell, told) = mpsc::channel();
        thread::Builder::new()
            .name("stderr".into())
            .spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)))?;
        Ok(Running { child, told, said: Vec::new() })
    }

    /// Until the run is where it is to be stopped, on both machines where both get there.
    fn wait_for(&mut self, phase: Phase) -> Result<()> {
        self.both_are_here()?;
        if !matches!(phase, Phase::Reserve | Phase::Setup | Phase::Tests) {
            self.on.write_all(b"\n\n")?;
        }
        let (what, wanted) = match phase {
            Phase::Reserve | Phase::Setup | Phase::Tests => return Ok(()),
            Phase::Finish | Phase::Release => return self.both_are_here(),
            Phase::Judge => ("finished", 2),
            Phase::Reporter => ("ended", 1),
        };
        let journal = || self.place.journal().unwrap_or_default();
        let count = || journal().iter().filter(|record| record["what"] == what).count();
        watch::until(&self.place.run_dir(), || count() >= wanted)
    }
}

impl Scene {
    /// Waits until both machines are stopped, side by side: nobody tells the first one to go on.
    fn both_are_here(&mut self) -> Result<()> {
        for _ in 0..2 {
            ensure!(!self.here.buffer().is_empty() || is_ready(self.here.get_ref())?, "nobody got there");
            let mut line = String::new();
            self.here.read_line(&mut line)?;
            ensure!(line == "here\n", "{line:?} was said");
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(self.go.write_all(b"\n\n")?)
    }
}

/// Waits until there is something to read.
fn is_ready(file: &File) -> Result<bool> {
    let patience = Timespec::try_from(PATIENCE)?;
    Ok(poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&patience))? > 0)
}

struct Running {
    child: Child,
    told: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Sends a signal and returns when the host has said what it does about it.
    fn send(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a child without a pid")?;
        kill_process(pid, signal)?;
        loop {
            let line =
                self.told.recv().with_context(|| format!("it ended first:\n{}", self.said.join("\n")))?;
            let is_it = line.contains("; again to ") || line.contains("reporters");
            self.said.push(line);
            if is_it {
                return Ok(());
            }
        }
    }

    fn end(mut self) -> Result<(i32, String)> {
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.said.push("(killed: it said nothing for long)".to_owned());
                    self.child.kill()?;
                }
            }
        }
        let status = self.child.wait()?;
        Ok((status.code().unwrap_or(-1), self.said.join("\n")))
    }
}

fn run(case: &Case) -> Result<()> {
    let mut scene = Scene::new(case.phase)?;
    let mut running = scene.start(case.phase)?;
    scene.wait_for(case.phase)?;
    for signal in [Signal::INT, Signal::TERM].iter().take(case.signals) {
        running.send(*signal)?;
    }
    if case.then == Then::GoOn {
        scene.go_on()?;
    }
    let (code, said) = running.end()?;
    let results = scene.place.results();
    ensure!(code == case.code, "exit status {code} instead of {}:\n{results:?}\n{said}", case.code);
    let left: Vec<PathBuf> =
        fs::read_dir(scene.place.path("pool"))?.flatten().map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "left at the provider: {left:?}\n{said}");
    let ledgers = fs::read_dir(scene.place.path("state/ledger"))?.count();
    ensure!(ledgers == 0, "the ledger says that something is held\n{said}");
    let verdicts = scene.place.verdicts()?;
    ensure!(verdicts == [1, 1], "{verdicts:?} verdicts\n{said}");
    Ok(())
}

#[test]
fn every_phase() {
    let results: Vec<(String, Result<()>)> = thread::scope(|scope| {
        let threads: Vec<_> = CASES.iter().map(|case| scope.spawn(|| run(case))).collect();
        let name = |case: &Case| format!("{:?}, {} signals", case.phase, case.signals);
        CASES.iter().map(name).zip(threads.into_iter().map(|thread| thread.join().unwrap())).collect()
    });
    let wrong: Vec<String> = results
        .into_iter()
        .filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), CASES.len(), wrong.join("\n\n"));
}
