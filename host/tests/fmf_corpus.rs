//! Recorded runs of the reference implementation: small trees for each rule, and a real suite of 475 tests under four
//! contexts. Every run is repeated here in one process, through the command `fmf`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test: what it needs has to be there")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use atex_host::cli::fmf::{FmfArgs, run};
use clap::Parser;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value as Json;

/// The cases that are different here, with the reason; docs/fmf.md says more.
const DEVIATIONS: [(&str, &str); 3] =
    [("yaml-nel-ls", LIBYAML), ("yaml-tab-after-colon", LIBYAML), ("yaml-tab-trailing", LIBYAML)];

const LIBYAML: &str = "the parser in python and libyaml disagree, and libyaml is right here";

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    directories: Vec<PathBuf>,
    #[serde(default)]
    files: BTreeMap<PathBuf, String>,
    /// In base64.
    #[serde(default)]
    binary: BTreeMap<PathBuf, String>,
    #[serde(default)]
    links: BTreeMap<PathBuf, PathBuf>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    args: Vec<String>,
    expected: Json,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    fmf: FmfArgs,
}

fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fmf").join(file);
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    if Path::new(file).extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Case {
    fn unpack(&self, tree: &Path) {
        for directory in &self.directories {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        for (file, text) in &self.files {
            fs::write(tree.join(file), text).unwrap();
        }
        for (file, text) in &self.binary {
            fs::write(tree.join(file), base64(text)).unwrap();
        }
        for (link, target) in &self.links {
            symlink(target, tree.join(link)).unwrap();
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    let document = format!("!!binary {text}");
    match atex_host::fmf::yaml::parse(&document).unwrap() {
        atex_host::fmf::Value::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// What the command prints.
fn actual(tree: &Path, args: &[String]) -> String {
    let words = ["fmf", tree.to_str().unwrap()].into_iter().map(str::to_owned).chain(args.iter().cloned());
    let cli = Cli::parse_from(words);
    let mut out = Vec::new();
    let status = run(&cli.fmf, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(status == 1, text.starts_with("{\"error\""), "{text}");
    text
}

/// Errors are equal whatever they say; output with its order only where it was asked for.
fn same(run: &Run, actual: &str) -> bool {
    let parsed: Json = serde_json::from_str(actual).unwrap();
    match (run.expected.get("error").is_some(), parsed.get("error").is_some()) {
        (true, true) => true,
        (false, false) if run.args.iter().any(|arg| arg == "--keep-order") => {
            serde_json::to_string(&run.expected).unwrap() == serde_json::to_string(&parsed).unwrap()
        }
        (false, false) => run.expected == parsed,
        _ => false,
    }
}

/// Repeats the runs of a file; gives the number of runs and what is different, by case.
fn compare(file: &str) -> (usize, BTreeMap<String, String>) {
    let (mut runs, mut different) = (0, BTreeMap::<String, String>::new());
    for case in cases(file) {
        let directory = tempfile::tempdir().unwrap();
        case.unpack(directory.path());
        for run in &case.runs {
            runs += 1;
            let actual = actual(directory.path(), &run.args);
            if !same(run, &actual) {
                let report = different.entry(case.name.clone()).or_default();
                writeln!(
                    report,
                    "{} {:?}\n  expected {}\n  actual   {actual}",
                    case.name, run.args, run.expected
                )
                .unwrap();
            }
        }
    }
    (runs, different)
}

#[test]
fn small_trees() {
    let (runs, mut different) = compare("corpus.jsonl");
    assert_eq!(runs, 482);
    for (case, reason) in DEVIATIONS {
        assert!(different.remove(case).is_some(), "{case} is not different any more ({reason})");
    }
    assert!(different.is_empty(), "{}", different.into_values().collect::<String>());
}

#[test]
fn real_suite() {
    let (runs, different) = compare("real.jsonl.gz");
    assert_eq!(runs, 4);
    assert!(different.is_empty(), "{} cases differ", different.len());
}
