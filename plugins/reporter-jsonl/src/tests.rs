//! Whole reports, through the interface that the host uses.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use atex_plugin_api::Result;
use atex_plugin_api::host_side::{ReportEvent, ReporterHandle};
use atex_plugin_api::reporter::{Finished, RunEnded, RunStarted};
use atex_plugin_api::testkit::{self, FakeHost};

use crate::JsonLines;

struct Report {
    directory: tempfile::TempDir,
    reporter: ReporterHandle,
    host: FakeHost,
    number: u32,
}

impl Report {
    fn begin(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = FakeHost::new();
        let mut reporter = testkit::reporter::<JsonLines>(config, &host.handle()).unwrap();
        reporter.tell(ReportEvent::RunStarted(&run(directory.path(), false)), &host.handle()).unwrap();
        Self { directory, reporter, host, number: 0 }
    }

    /// Makes artifacts: lines of `results`, and files with their contents.
    fn artifacts(&mut self, results: &[&str], files: &[(&str, &str)]) -> PathBuf {
        self.number += 1;
        let artifacts = self.directory.path().join(format!("artifacts/{}", self.number));
        fs::create_dir_all(artifacts.join("files")).unwrap();
        fs::write(artifacts.join("results"), results.join("\n") + "\n").unwrap();
        for (name, contents) in files {
            let path = artifacts.join("files").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        artifacts
    }

    fn add(&mut self, test: &str, last: bool, results: &[&str], files: &[(&str, &str)]) -> Result<()> {
        let artifacts = self.artifacts(results, files);
        self.tell(test, last, Some(artifacts))
    }

    fn tell(&mut self, test: &str, last: bool, artifacts: Option<PathBuf>) -> Result<()> {
        let mut finished = Finished::default();
        (finished.platform, finished.test) = ("9@x".to_owned(), test.to_owned());
        (finished.last, finished.artifacts) = (last, artifacts);
        (finished.status, finished.note) = ("infra".to_owned(), Some("not run: no machine".to_owned()));
        self.reporter.tell(ReportEvent::Finished(&finished), &self.host.handle())
    }

    fn end(&mut self) {
        self.reporter.tell(ReportEvent::RunEnded(&RunEnded::default()), &self.host.handle()).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }
}

fn run(directory: &Path, continued: bool) -> RunStarted {
    let mut run = RunStarted::default();
    directory.clone_into(&mut run.directory);
    run.continued = continued;
    run
}

const PASS: &str = r#"{"status":"pass"}"#;

#[test]
fn lines_and_files() {
    let mut report = Report::begin("{}");
    let results = [r#"{"status":"fail","name":"sub/x","files":["log"],"note":"n"}"#, PASS];
    report.add("/a", true, &results, &[("sub/x/log", "text"), ("own", "more")]).unwrap();
    // Plain lines can be read while the run goes on.
    assert_eq!(
        report.text("results.jsonl"),
        "[\"9@x\", \"fail\", \"/a\", \"sub/x\", [\"log\"], \"n\"]\n[\"9@x\", \"pass\", \"/a\", null, [], null]\n"
    );
    report.tell("/never", true, None).unwrap();
    report.end();
    assert!(
        report
            .text("results.jsonl")
            .ends_with("[\"9@x\", \"infra\", \"/never\", null, [], \"not run: no machine\"]\n")
    );
    assert_eq!(report.text("files/9@x/a/sub/x/log"), "text");
    let inode = |path: &str| fs::metadata(report.path(path)).unwrap().ino();
    assert_eq!(inode("files/9@x/a/own"), inode("artifacts/1/files/own"));
    assert!(!report.path("files/9@x/never").exists());
}

#[test]
fn all_results_of_a_test_or_none() {
    let mut report = Report::begin("{}");
    let error = report.add("/a", true, &[PASS, "no json"], &[("f", "x")]).unwrap_err().to_string();
    assert!(error.contains("line 2 is no result"), "{error}");
    let artifacts = report.artifacts(&[PASS], &[]);
    fs::remove_file(artifacts.join("results")).unwrap();
    report.tell("/a", true, Some(artifacts)).unwrap_err();
    assert_eq!(report.text("results.jsonl"), "");
    assert!(!report.path("files/9@x").exists());
    // A report that failed does not count as one.
    report.add("/a", true, &[PASS], &[]).unwrap();
}

#[test]
fn a_test_that_is_reported_twice() {
    let mut report = Report::begin("{}");
    report.add("/a", true, &[PASS], &[]).unwrap();
    let error = report.add("/a", true, &[PASS], &[]).unwrap_err().to_string();
    assert_eq!(error, "/a was already reported for 9@x");

    let mut report = Report::begin(r#"{"duplicates": true}"#);
    for contents in ["1", "2", "3"] {
        report.add("/a", true, &[r#"{"files":["f"]}"#], &[("f", contents)]).unwrap();
    }
    let lines = report.text("results.jsonl");
    let names: Vec<&str> = lines.lines().map(|line| line.split("\", ").nth(1).unwrap()).collect();
    assert_eq!(names, ["null, \"/a", "null, \"/a (1)", "null, \"/a (2)"]);
    assert_eq!(report.text("files/9@x/a (2)/f"), "3");
}

#[test]
fn clashes_of_names_get_a_number() {
    let mut report = Report::begin("{}");
    report.add("/a", true, &[r#"{"name":"b","files":["f"]}"#], &[("b/f", "subtest")]).unwrap();
    report.add("/a/b", true, &[r#"{"files":["f"]}"#], &[("f", "test")]).unwrap();
    assert_eq!(
        (report.text("files/9@x/a/b/f"), report.text("files/9@x/a/b (1)/f")),
        ("subtest".into(), "test".into())
    );
    assert!(report.text("results.jsonl").contains("[\"9@x\", null, \"/a/b (1)\", null, [\"f\"], null]"));
}

#[test]
fn old_results_go_to_the_second_place_or_nowhere() {
    let mut report = Report::begin(r#"{"old": {"path": "old/results.jsonl", "files": "old/files"}}"#);
    for last in [false, false, true] {
        report.add("/a", last, &[PASS], &[("f", "x")]).unwrap();
    }
    assert_eq!(report.text("results.jsonl").lines().count(), 1);
    let old = report.text("old/results.jsonl");
    assert_eq!(old.lines().count(), 2);
    assert!(old.contains("\"/a (1)\""));
    assert_eq!(report.text("old/files/9@x/a (1)/f"), "x");

    let mut dropped = Report::begin("{}");
    dropped.add("/a", false, &[PASS], &[("f", "x")]).unwrap();
    assert_eq!(dropped.text("results.jsonl"), "");
    let mut only = Report::begin(r#"{"results": "old"}"#);
    only.add("/a", true, &[PASS], &[]).unwrap();
    assert_eq!(only.text("results.jsonl"), "");
    only.add("/a", false, &[PASS], &[]).unwrap();
    only.add("/a", false, &[PASS], &[]).unwrap();
    assert_eq!(only.text("results.jsonl").lines().count(), 2);
}

fn decompress(codec: &str, path: &Path) -> String {
    let (file, mut text) = (fs::File::open(path).unwrap(), String::new());
    match codec {
        "gz" => flate2::read::GzDecoder::new(file).read_to_string(&mut text),
        "xz" => liblzma::read::XzDecoder::new(file).read_to_string(&mut text),
        _ => zstd::stream::read::Decoder::new(file).unwrap().read_to_string(&mut text),
    }
    .unwrap();
    text
}

#[test]
fn compressed_lines_and_files() {
    for codec in ["gz", "xz", "zst"] {
        let config = format!(r#"{{"compress": "{codec}", "compress-files": true, "skip-files": ["raw"]}}"#);
        let mut report = Report::begin(&config);
        let contents = "text ".repeat(1000);
        let files = [("sub/log", contents.as_str()), ("sub/raw", "as it is")];
        report.add("/a", true, &[r#"{"name":"sub","files":["log","raw"]}"#], &files).unwrap();
        report.end();
        assert_eq!(
            decompress(codec, &report.path(&format!("results.jsonl.{codec}"))),
            format!("[\"9@x\", null, \"/a\", \"sub\", [\"log.{codec}\", \"raw\"], null]\n")
        );
        assert_eq!(decompress(codec, &report.path(&format!("files/9@x/a/sub/log.{codec}"))), contents);
        assert_eq!(report.text("files/9@x/a/sub/raw"), "as it is");
        assert_eq!(report.text("artifacts/1/files/sub/log"), contents);
    }
}

#[test]
fn transparently_compressed_files_keep_their_names() {
    let mut report =
        Report::begin(r#"{"compress": "gz", "compress-files": true, "files-suffix": "", "level": 1}"#);
    report.add("/a", true, &[r#"{"files":["log"]}"#], &[("log", "text")]).unwrap();
    report.end();
    assert!(decompress("gz", &report.path("results.jsonl.gz")).contains("[\"log\"]"));
    assert_eq!(decompress("gz", &report.path("files/9@x/a/log")), "text");
    assert_eq!(report.text("artifacts/1/files/log"), "text");
}

#[test]
fn a_continued_run_replaces_what_is_there() {
    let mut first = Report::begin("{}");
    first.add("/a", true, &[PASS], &[("f", "x")]).unwrap();
    let host = FakeHost::new();
    let again = |continued| {
        let mut reporter = testkit::reporter::<JsonLines>("{}", &host.handle()).unwrap();
        reporter
            .tell(ReportEvent::RunStarted(&run(first.directory.path(), continued)), &host.handle())
            .map(|()| reporter)
    };
    let error = again(false).unwrap_err();
    assert!(error.to_string().ends_with("files already exists"), "{error}");
    let mut reporter = again(true).unwrap();
    assert_eq!(first.text("results.jsonl"), "");
    let mut finished = Finished::default();
    (finished.platform, finished.test, finished.last) = ("9@x".to_owned(), "/a".to_owned(), true);
    finished.artifacts = Some(first.path("artifacts/1"));
    reporter.tell(ReportEvent::Finished(&finished), &host.handle()).unwrap();
    assert_eq!(first.text("results.jsonl").lines().count(), 1);
    assert_eq!(first.text("files/9@x/a/f"), "x");
    assert_eq!(first.text("artifacts/1/files/f"), "x");
}

#[test]
fn links_are_not_followed() {
    let mut report = Report::begin("{}");
    fs::write(report.path("secret"), "s").unwrap();
    let artifacts = report.artifacts(&[PASS], &[("f", "x")]);
    std::os::unix::fs::symlink(report.path("secret"), artifacts.join("files/link")).unwrap();
    report.tell("/a", true, Some(artifacts)).unwrap();
    assert!(report.path("files/9@x/a/f").exists());
    assert!(fs::symlink_metadata(report.path("files/9@x/a/link")).is_err());
    assert!(report.host.log()[0].message.contains("link is no regular file"));
}

#[test]
fn mistakes_in_the_configuration_are_told_at_once() {
    let host = FakeHost::new().handle();
    let error = |config| testkit::reporter::<JsonLines>(config, &host).unwrap_err().to_string();
    assert_eq!(error(r#"{"compres": "xz"}"#), "unknown key `compres`, did you mean `compress`?");
    assert_eq!(error(r#"{"level": 3}"#), "`level`: needs `compress`");
    assert_eq!(error(r#"{"compress": "gz", "level": 10}"#), "`level: 10`: gz has 1 to 9");
    assert_eq!(error(r#"{"compress-files": true}"#), "`compress-files`: needs `compress`");
    assert!(error(r#"{"compress": "rar"}"#).starts_with("`compress`: unknown variant `rar`"));
}
