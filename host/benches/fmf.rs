//! CPU time and memory of loading, adjusting and selecting trees, against the reference implementation in the same run.
//!
//!     cargo bench --bench fmf [-- --tests N] [--runs N]
//!
//! Two trees: the real suite that the tests have, and a synthetic one (100,000 tests unless `--tests` says otherwise).
//! `FMF_PYTHON` names a python that has `fmf` and `ruamel.yaml.clib`; without it only this implementation is measured.
//! Each measurement is a process of its own, with its start counted; the median of the runs is shown. A ratio
//! below what the project promises ends the benchmark with status one.

#![expect(clippy::print_stdout, reason = "the table is the output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use atex_host::fmf::{Adjustment, Context, Selection, Tree};
use flate2::read::GzDecoder;
use serde::Deserialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Does what [`measured`] does, and prints the nodes, the CPU seconds and the peak in MiB.
const REFERENCE: &str = "
import sys, resource, fmf
from ruamel.yaml import YAML
import ruamel.yaml.cyaml
tree = fmf.Tree(sys.argv[1])
tree.adjust(fmf.Context(distro='rhel-9.6', arch='x86_64', trigger='commit'))
nodes = len(list(tree.prune()))
used = resource.getrusage(resource.RUSAGE_SELF)
print(nodes, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
";

/// What one process used.
#[derive(Clone, Copy, Debug)]
struct Usage {
    nodes: usize,
    cpu_seconds: f64,
    peak_mebibytes: f64,
}

/// What is promised for a tree.
struct Promise {
    ratio: f64,
    peak_mebibytes: f64,
}

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, tree] = args.as_slice()
        && command == "measured"
    {
        measured(Path::new(tree))?;
        return Ok(ExitCode::SUCCESS);
    }
    let number = |name: &str, default: usize| -> Result<usize> {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).map_or(Ok(default), |text| Ok(text.parse()?))
    };
    let (tests, runs) = (number("--tests", 100_000)?, number("--runs", 11)?);
    let python = std::env::var_os("FMF_PYTHON").map(PathBuf::from);
    let directory = tempfile::tempdir()?;

    println!("| tree | nodes | fmf, C parser | atex-host | ratio |");
    println!("|---|---|---|---|---|");
    let real = directory.path().join("real");
    unpack_real(&real)?;
    let mut kept = compare(
        "real suite",
        &real,
        python.as_deref(),
        runs,
        &Promise { ratio: 40.0, peak_mebibytes: 250.0 },
    )?;
    let synthetic = directory.path().join("synthetic");
    generate(&synthetic, tests)?;
    let promise = Promise { ratio: 60.0, peak_mebibytes: 250.0 };
    kept &= compare(&format!("{tests} tests"), &synthetic, python.as_deref(), 1, &promise)?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In a process of its own: loads a tree, adjusts it, selects its tests; prints what that took.
fn measured(path: &Path) -> Result<()> {
    let tree = Arc::new(Tree::load(path)?);
    let mut context = Context::new();
    for (dimension, value) in [("distro", "rhel-9.6"), ("arch", "x86_64"), ("trigger", "commit")] {
        context.add(dimension, value);
    }
    let view = tree.adjust(&Adjustment::new(&context))?;
    let nodes = view.prune(&Selection::new()).count();
    // Nanoseconds on a processor, and the peak of resident memory.
    let schedule = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = schedule.split(' ').next().unwrap_or_default().parse()?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak")?;
    let kibibytes: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    println!("{nodes} {} {}", nanoseconds / 1e9, kibibytes / 1024.0);
    Ok(())
}

/// Measures a tree and prints its line; false if a promise is not kept.
fn compare(name: &str, tree: &Path, python: Option<&Path>, runs: usize, promise: &Promise) -> Result<bool> {
    let ours = median(runs, || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("measured").arg(tree);
        usage(command)
    })?;
    let Some(python) = python else {
        println!("| {name} | {} | not measured | {} | |", ours.nodes, shown(ours));
        return Ok(ours.peak_mebibytes < promise.peak_mebibytes);
    };
    let theirs = median(runs.min(5), || {
        let mut command = Command::new(python);
        command.args(["-c", REFERENCE]).arg(tree);
        usage(command)
    })?;
    let ratio = theirs.cpu_seconds / ours.cpu_seconds;
    println!("| {name} | {} | {} | {} | {ratio:.0} |", ours.nodes, shown(theirs), shown(ours));
    assert_eq!(ours.nodes, theirs.nodes, "the two select different tests");
    Ok(ratio >= promise.ratio && ours.peak_mebibytes < promise.peak_mebibytes)
}

fn shown(usage: Usage) -> String {
    format!("{:.4} s CPU, {:.0} MiB", usage.cpu_seconds, usage.peak_mebibytes)
}

/// The usage of the run in the middle.
fn median(runs: usize, mut run: impl FnMut() -> Result<Usage>) -> Result<Usage> {
    let mut all = (0..runs.max(1)).map(|_| run()).collect::<Result<Vec<_>>>()?;
    all.sort_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds));
    Ok(all[all.len() / 2])
}

fn usage(mut command: Command) -> Result<Usage> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut word = || words.next().ok_or("nothing measured");
    Ok(Usage { nodes: word()?.parse()?, cpu_seconds: word()?.parse()?, peak_mebibytes: word()?.parse()? })
}

fn material(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fmf").join(name)
}

fn generate(tree: &Path, tests: usize) -> Result<()> {
    let mut command = Command::new("python3");
    command.arg(material("gen_tree.py")).arg(tree).args(["--tests", &tests.to_string()]);
    let status = command.stdout(std::process::Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err("the synthetic tree was not made".into()) }
}

#[derive(Deserialize)]
struct Packed {
    directories: Vec<PathBuf>,
    files: BTreeMap<PathBuf, String>,
    #[serde(default)]
    links: BTreeMap<PathBuf, PathBuf>,
}

fn unpack_real(tree: &Path) -> Result<()> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(material("real.jsonl.gz"))?).read_to_string(&mut text)?;
    let packed: Packed = serde_json::from_str(text.lines().next().unwrap_or_default())?;
    fs::create_dir(tree)?;
    for directory in packed.directories {
        fs::create_dir_all(tree.join(directory))?;
    }
    for (file, text) in packed.files {
        fs::write(tree.join(file), text)?;
    }
    for (link, target) in packed.links {
        symlink(target, tree.join(link))?;
    }
    Ok(())
}
