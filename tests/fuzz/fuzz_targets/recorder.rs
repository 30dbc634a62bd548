//! Whatever a test says, what is recorded is whole, says what it has, keeps its limits, and nothing is written beside it.
//!
//! The input is a list of orders: a byte for the kind, one for the length, then so many bytes.

#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use atex_host::executor::artifacts::verify;
use atex_host::executor::control::{Event, Parser};
use atex_host::executor::result::{Fallback, Options, Recorded, Recorder};
use atex_host::executor::spec::{Ended, Limits, ResultRule};
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: u64 = 20_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((&mode, mut orders)) = bytes.split_first() else { return };
    // In memory, where there is such a place.
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let base = tempfile::tempdir_in(base).expect("a temporary directory");
    let place = base.path().join("inside/=1");
    let mut recorder = Recorder::create(&place, options(mode)).expect("a new directory");
    let (mut parser, mut fault) = (Parser::new([]), false);
    while let [kind, length, rest @ ..] = orders {
        let (data, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        orders = rest;
        fault |= match kind % 4 {
            0 => control(&mut parser, &mut recorder, data),
            // An announced result: the fuzzer does not have to count.
            1 => {
                let line = format!("result {}\n", data.len());
                control(&mut parser, &mut recorder, line.as_bytes())
                    || control(&mut parser, &mut recorder, data)
            }
            2 => recorder.log(data).is_err(),
            _ => recorder.collect(data).is_err(),
        };
        if fault {
            break;
        }
    }
    let ended = if fault { Ended::Protocol("broken".into()) } else { Ended::Exited(i32::from(mode >> 7)) };
    let recorded = recorder.finish(&ended).expect("a recorder can be finished");
    check(base.path(), &place, &recorded);
});

fn options(mode: u8) -> Options {
    let rules = [ResultRule::Respect, ResultRule::Xfail, ResultRule::Custom, ResultRule::Restraint];
    let limits =
        Limits { bytes_per_test: MAX_BYTES, results_per_test: 50, log_bytes: 1000, ..Limits::default() };
    let fallback = if mode & 4 == 0 { Fallback::ExitStatus } else { Fallback::WorstOfBoth };
    Options { limits, rule: rules[usize::from(mode % 4)], fallback }
}

/// Whether something was wrong.
fn control(parser: &mut Parser, recorder: &mut Recorder, mut input: &[u8]) -> bool {
    loop {
        match parser.next(&mut input) {
            Ok(None) => return false,
            Ok(Some(Event::Result(part))) => match recorder.take(part) {
                Ok(_) => {}
                Err(_) => return true,
            },
            Ok(Some(_)) => {}
            Err(_) => return true,
        }
    }
}

fn check(base: &Path, place: &Path, recorded: &Recorded) {
    let beside: Vec<_> =
        [base, &base.join("inside")].into_iter().flat_map(|path| fs::read_dir(path).unwrap()).collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    let text = fs::read_to_string(place.join("results")).expect("results are text");
    assert!(text.ends_with('\n'));
    let mut lines = 0;
    for line in text.lines() {
        lines += 1;
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let name = line.get("name").and_then(|name| name.as_str()).unwrap_or("");
        for file in line.get("files").and_then(|files| files.as_array()).into_iter().flatten() {
            let path = place.join("files").join(name).join(file.as_str().expect("a file has a name"));
            assert!(
                fs::symlink_metadata(&path).is_ok_and(|it| it.is_file()),
                "{} is missing",
                path.display()
            );
        }
    }
    assert_eq!(lines, recorded.results);
    let published = &recorded.published;
    assert!(verify(place, published.bytes, &published.digest).expect("what was published can be read"));
    assert!(bytes_below(&place.join("files")) <= MAX_BYTES + 1100, "more than the limits allow");
}

/// All bytes of plain files, each file once; there is nothing but files and directories.
fn bytes_below(directory: &Path) -> u64 {
    let (mut bytes, mut seen, mut pending) = (0, BTreeSet::new(), vec![directory.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            assert!(meta.is_dir() || meta.is_file());
            if meta.is_dir() {
                pending.push(entry.path());
            } else if seen.insert(meta.ino()) {
                bytes += meta.len();
            }
        }
    }
    bytes
}
