//! A host with many machines, all of which run a test that waits: what that costs in memory and CPU time.
//!
//! All machines connect before the first is watched, so the time of logging in is not counted (its memory is, as the peak).

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Target, headline, host, machines::Servers};
use crate::build::{Built, run};

/// Servers that share the machines of `ssh`.
const SERVERS: usize = 4;
/// How long all machines together may take to be ready.
const PATIENCE: Duration = Duration::from_mins(30);
/// What is left of starting is over by then.
const SETTLE: Duration = Duration::from_secs(5);

/// Figures of each kind of machine.
#[expect(clippy::print_stdout, reason = "it is what a benchmark does")]
pub(super) fn watch(
    built: &Built,
    scratch: &Path,
    targets: &[Target],
    machines: usize,
    seconds: u64,
) -> Result<()> {
    headline(&format!("{machines} machines whose tests wait, watched for {seconds} s"));
    println!(
        "{:<12} {:>10} {:>10} {:>12} {:>14} {:>10}",
        "", "ready", "memory", "per machine", "CPU of a core", "peak"
    );
    for &target in targets {
        let place = tempfile::tempdir_in(scratch).context("cannot make a directory for a run")?;
        let transports = match transports(target) {
            Ok(transports) => transports,
            Err(why) => {
                eprintln!("{}: not on this box: {why:#}", target.name());
                continue;
            }
        };
        let mut waiting = Waiting::start(built, place.path(), &transports.0, machines)?;
        let seen = waiting.watch(Duration::from_secs(seconds))?;
        println!(
            "{:<12} {:>8.1} s {:>6.1} MiB {:>8.1} KiB {:>12.2} % {:>6.1} MiB",
            target.name(),
            seen.ready.as_secs_f64(),
            seen.memory_kib / 1024.0,
            seen.memory_kib / machines as f64,
            seen.share * 100.0,
            seen.peak_kib / 1024.0
        );
        waiting.end()?;
    }
    Ok(())
}

/// Ways to machines in JSON, and who listens at their other ends.
fn transports(target: Target) -> Result<(Vec<String>, Option<Servers>)> {
    Ok(match target {
        Target::Local => (vec![r#"{"kind": "local", "directory": "DIRECTORY"}"#.to_owned()], None),
        // A container each would be a measurement of podman.
        Target::Podman => (vec![r#"{"kind": "exec", "argv": ["env"]}"#.to_owned()], None),
        Target::Ssh => {
            let servers = Servers::start(SERVERS, "MaxStartups 20:50:40")?;
            ((0..SERVERS).map(|number| servers.transport(number)).collect(), Some(servers))
        }
    })
}

struct Seen {
    ready: Duration,
    memory_kib: f64,
    peak_kib: f64,
    share: f64,
}

/// A host whose tests say a word when they start and end when they are let go.
struct Waiting {
    host: Child,
    began: Instant,
    machines: usize,
    up: Receiver<()>,
    gate: PathBuf,
}

impl Waiting {
    fn start(built: &Built, place: &Path, transports: &[String], machines: usize) -> Result<Self> {
        let fifos =
            tempfile::Builder::new().prefix("atex-bench-").disable_cleanup(true).tempdir_in("/tmp")?;
        let (up, gate) = (fifos.path().join("up"), fifos.path().join("gate"));
        run(Command::new("mkfifo").arg(&up).arg(&gate))?;
        let tree = make_tree(place, machines, &up, &gate)?;
        let pool = make_pool(place, transports, machines)?;
        // Open for writing as well: there is no end of file between two tests.
        let words = OpenOptions::new().read(true).write(true).open(&up)?;
        let up = listen(words)?;
        let began = Instant::now();
        let host =
            host::command(built, &tree, place, &pool).stderr(File::create(place.join("stderr"))?).spawn()?;
        Ok(Self { host, began, machines, up, gate })
    }

    fn watch(&mut self, time: Duration) -> Result<Seen> {
        for number in 0..self.machines {
            match self.up.recv_timeout(PATIENCE.saturating_sub(self.began.elapsed())) {
                Ok(()) => {}
                Err(_) => bail!("only {number} of {} machines were ready in time", self.machines),
            }
        }
        let ready = self.began.elapsed();
        self.pause(SETTLE)?;
        let (begun, before) = (Instant::now(), self.cpu()?);
        self.pause(time)?;
        let share = (self.cpu()? - before) / begun.elapsed().as_secs_f64();
        Ok(Seen { ready, memory_kib: self.status("VmRSS:")?, peak_kib: self.status("VmHWM:")?, share })
    }

    /// No test says anything any more, so this is time that passes.
    fn pause(&self, time: Duration) -> Result<()> {
        match self.up.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => bail!("a test was started twice"),
        }
    }

    /// CPU seconds of the host's process, all its threads.
    fn cpu(&self) -> Result<f64> {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.host.id())).context("the host is gone")?;
        let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    fn status(&self, key: &str) -> Result<f64> {
        let text =
            fs::read_to_string(format!("/proc/{}/status", self.host.id())).context("the host is gone")?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).context("no such line of /proc")?;
        line.split_whitespace().next().and_then(|number| number.parse().ok()).context("no number in /proc")
    }

    /// Lets the tests end.
    fn end(mut self) -> Result<()> {
        drop(OpenOptions::new().write(true).open(&self.gate)?);
        let status = self.host.wait()?;
        if let Some(directory) = self.gate.parent() {
            fs::remove_dir_all(directory)?;
        }
        ensure!(status.success(), "atex-host ended with {status}");
        Ok(())
    }
}

/// One message per word.
fn listen(words: File) -> Result<Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("words".into()).spawn(move || {
        for _word in BufReader::new(words).lines().map_while(Result::ok) {
            if sender.send(()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn make_tree(place: &Path, machines: usize, up: &Path, gate: &Path) -> Result<PathBuf> {
    use std::fmt::Write as _;
    let tree = place.join("tree");
    let (up, gate) = (up.display(), gate.display());
    let mut nodes = format!("test: 'echo up > {up}; read -r _ < {gate} || true'\nduration: 2h\n");
    for number in 1..=machines {
        let _infallible = write!(nodes, "/t{number:05}:\n    summary: number {number}\n");
    }
    fs::create_dir_all(tree.join(".fmf"))?;
    fs::write(tree.join(".fmf/version"), "1\n")?;
    fs::write(tree.join("tests.fmf"), nodes)?;
    Ok(tree)
}

/// A program that lends machines, the next one by the next transport, and forgets them.
fn make_pool(place: &Path, transports: &[String], machines: usize) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = place.join("pool");
    let words = format!("'{}'", transports.join("'\n'"));
    let script = format!(
        "#!/bin/bash\ntransports=(\n{words})\nread -r request\ndirectory={}/machines/$ATEX_LEASE\ncase $ATEX_REQUEST in\n\
         reserve) mkdir -p \"$directory\"; t=${{transports[0x${{ATEX_LEASE: -2}} % {}]}}\n\
         echo \"{{\\\"machine\\\": {{\\\"id\\\": \\\"$ATEX_LEASE\\\", \\\"transport\\\": ${{t/DIRECTORY/$directory}}}}}}\" ;;\n\
         list) echo '{{\"held\": []}}' ;;\n*) echo '{{}}' ;;\nesac\n",
        place.display(),
        transports.len()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{{use: exec, program: '{}', max: {machines}}}", program.display()))
}
