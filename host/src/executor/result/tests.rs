use std::fs;

use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::executor::artifacts::verify;
use crate::executor::control::{Event, Parser};

/// One execution: what came over the channel and into the log, how it ended; and what was left of it.
struct Case {
    base: tempfile::TempDir,
    recorder: Recorder,
    parser: Parser,
    /// The first error, after which nothing more is taken, as in a real run.
    broken: Option<RecordError>,
    streamed: Vec<String>,
}

fn options() -> Options {
    Options { limits: Limits::default(), rule: ResultRule::Respect, fallback: Fallback::ExitStatus }
}

impl Case {
    fn new(options: Options) -> Self {
        let base = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(&base.path().join("p/t/=1"), options).unwrap();
        Self { base, recorder, parser: Parser::new([]), broken: None, streamed: Vec::new() }
    }

    fn bytes(&mut self, mut input: &[u8]) {
        while self.broken.is_none() {
            match self.parser.next(&mut input) {
                Ok(None) => return,
                Ok(Some(Event::Result(part))) => match self.recorder.take(part) {
                    Ok(line) => self.streamed.extend(line),
                    Err(error) => self.broken = Some(error),
                },
                Ok(Some(_)) => {}
                Err(violation) => self.broken = Some(violation.into()),
            }
        }
    }

    /// A result whose files have these contents.
    fn result(&mut self, mut object: Value, contents: &[&str]) -> &mut Self {
        if let Some(files) = object.get_mut("files").and_then(Value::as_array_mut) {
            for (file, content) in files.iter_mut().zip(contents) {
                *file = json!({"name": file.clone(), "length": content.len()});
            }
        }
        let json = object.to_string();
        self.bytes(format!("result {}\n{json}{}", json.len(), contents.concat()).as_bytes());
        self
    }

    fn log(&mut self, text: &str) -> &mut Self {
        if let Err(error) = self.recorder.log(text.as_bytes()) {
            self.broken.get_or_insert(error);
        }
        self
    }

    fn end(self, ended: &Ended) -> Done {
        let recorded = self.recorder.finish(ended).unwrap();
        let place = self.base.path().join("p/t/=1");
        let published = &recorded.published;
        assert_eq!(published.directory, place);
        assert!(verify(&place, published.bytes, &published.digest).unwrap());
        let text = fs::read_to_string(place.join("results")).unwrap();
        assert!(text.ends_with('\n'));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(recorded.results, lines.len() as u64);
        assert_eq!(recorded.published.digest, crate::text::hex(&Sha256::digest(&text)));
        let mut names: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["files", "results"]);
        let streamed = [self.streamed, recorded.last_lines.clone()].concat();
        Done { _base: self.base, place, lines, recorded, streamed, broken: self.broken }
    }

    fn exit(self, status: i32) -> Done {
        self.end(&Ended::Exited(status))
    }
}

struct Done {
    _base: tempfile::TempDir,
    place: PathBuf,
    lines: Vec<Value>,
    recorded: Recorded,
    streamed: Vec<String>,
    broken: Option<RecordError>,
}

impl Done {
    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.place.join("files").join(path)).unwrap()
    }

    fn verdict(&self) -> (&str, Option<&str>) {
        (&self.recorded.status, self.recorded.note.as_deref())
    }

    fn rule(&self) -> String {
        self.broken.as_ref().expect("an error").to_string()
    }
}

#[test]
fn a_silent_test_is_judged_by_its_exit_status() {
    for (exit, status) in [(0, "pass"), (1, "fail"), (137, "fail")] {
        let mut case = Case::new(options());
        case.log("hello\n");
        let done = case.exit(exit);
        assert_eq!(done.lines, [json!({"status": status, "files": ["output.txt"]})]);
        assert_eq!(done.file("output.txt"), "hello\n");
        assert_eq!(done.verdict(), (status, None));
        assert_eq!(done.recorded.last_lines.len(), 1);
    }
}

#[test]
fn a_test_without_any_output_still_has_its_log() {
    let done = Case::new(options()).exit(0);
    assert_eq!(done.file("output.txt"), "");
}

#[test]
fn subtests_keep_their_order_keys_and_files() {
    let mut case = Case::new(options());
    case.result(
        json!({"name": "a/b", "x": {"y": [null]}, "note": "n", "status": "warn", "files": ["f", "d/g"]}),
        &["one", "two"],
    );
    case.result(json!({"status": "pass", "name": "c"}), &[]);
    case.result(json!({"name": "a/b", "files": ["f"]}), &["+more"]);
    let done = case.exit(0);
    assert_eq!(
        done.lines,
        [
            json!({"status": "warn", "name": "a/b", "note": "n", "x": {"y": [null]}, "files": ["f", "d/g"]}),
            json!({"status": "pass", "name": "c"}),
            json!({"name": "a/b", "files": ["f"]}),
            json!({"status": "pass", "files": ["output.txt"]}),
        ]
    );
    assert_eq!((done.file("a/b/f"), done.file("a/b/d/g")), ("one+more".to_owned(), "two".to_owned()));
    let text = fs::read_to_string(done.place.join("results")).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), done.streamed, "every line is told once, as it was written");
    assert!(text.starts_with(r#"{"status":"warn","name":"a/b","note":"n","x":"#), "{text}");
    assert_eq!(done.recorded.published.bytes, 8 + 3 + text.len() as u64);
}

#[test]
fn the_same_file_twice_in_one_result_appends() {
    let mut case = Case::new(options());
    case.result(json!({"name": "s", "files": ["f", "g", "f"]}), &["1", "2", "3"]);
    let done = case.exit(0);
    assert_eq!(done.lines[0], json!({"name": "s", "files": ["f", "g"]}));
    assert_eq!(done.file("s/f"), "13");
}

#[test]
fn files_without_bytes_exist() {
    let mut case = Case::new(options());
    case.result(json!({"status": "pass", "files": ["a", "b", "c"]}), &["", "x", ""]);
    let done = case.exit(0);
    assert_eq!(
        (done.file("a"), done.file("b"), done.file("c")),
        (String::new(), "x".to_owned(), String::new())
    );
}

#[test]
fn a_full_own_result_is_the_verdict() {
    let mut case = Case::new(options());
    case.result(json!({"status": "warn", "note": "first"}), &[]);
    case.result(json!({"status": "custom word", "note": "last"}), &[]);
    let done = case.exit(0);
    assert_eq!(done.lines.len(), 2, "nothing is added");
    assert_eq!(done.verdict(), ("custom word", Some("last")));
    let mut case = Case::new(options());
    case.result(json!({"note": "no status"}), &[]);
    let done = case.exit(3);
    assert_eq!((done.lines.len(), done.verdict()), (1, ("fail", Some("no status"))));
}

#[test]
fn partial_results_merge_until_one_is_full() {
    let mut case = Case::new(options());
    case.result(
        json!({"name": "s", "partial": true, "status": "fail", "x": [1], "gone": 1, "files": ["a"]}),
        &["1"],
    );
    case.result(json!({"name": "other", "status": "pass"}), &[]);
    case.result(json!({"name": "s", "partial": true, "x": [2], "gone": null}), &[]);
    assert_eq!(case.streamed.len(), 1);
    case.result(json!({"name": "s", "status": "pass", "files": ["b", "a"]}), &["2", "3"]);
    case.result(json!({"name": "s", "status": "new"}), &[]);
    let done = case.exit(0);
    assert_eq!(
        done.lines[..3],
        [
            json!({"status": "pass", "name": "other"}),
            json!({"status": "pass", "name": "s", "x": [1, 2], "files": ["a", "b"]}),
            json!({"status": "new", "name": "s"}),
        ]
    );
    assert_eq!(done.file("s/a"), "13");
}

#[test]
fn what_is_open_at_the_end_follows_in_order_of_appearance() {
    let mut case = Case::new(options());
    case.result(json!({"name": "b", "partial": true, "status": "fail"}), &[]);
    case.result(json!({"partial": true, "k": 1}), &[]);
    case.result(json!({"name": "a", "partial": true}), &[]);
    case.result(json!({"name": "b", "partial": true, "k": 2}), &[]);
    case.result(json!({"name": "c"}), &[]);
    let done = case.exit(1);
    assert_eq!(
        done.lines,
        [
            json!({"name": "c"}),
            json!({"status": "fail", "name": "b", "k": 2}),
            json!({"status": "fail", "k": 1, "files": ["output.txt"]}),
            json!({"name": "a"}),
        ]
    );
}

#[test]
fn an_open_own_result_takes_part_in_the_fallback() {
    let table = [
        (json!({"status": "skip"}), json!({"status": "skip", "files": ["output.txt"]})),
        (json!({"testout": "t"}), json!({"status": "fail", "files": ["t"]})),
        (json!({"testout": "t", "files": ["f"]}), json!({"status": "fail", "files": ["f", "t"]})),
        (json!({"files": ["output.txt"]}), json!({"status": "fail", "files": ["output.txt"]})),
        (
            json!({"files": ["f"], "note": "n"}),
            json!({"status": "fail", "note": "n", "files": ["f", "output.txt"]}),
        ),
    ];
    for (mut open, expected) in table {
        open["partial"] = true.into();
        let mut case = Case::new(options());
        case.log("log").result(open.clone(), &["data"]);
        let done = case.exit(9);
        assert_eq!(done.lines, [expected], "{open}");
        for file in done.lines[0]["files"].as_array().unwrap() {
            let name = file.as_str().unwrap();
            let uploaded = open["files"].as_array().is_some_and(|files| files.contains(file));
            assert_eq!(done.file(name), if uploaded { "data" } else { "log" }, "{open}");
        }
    }
}

#[test]
fn null_deletes_status_and_files_of_an_open_result() {
    let mut case = Case::new(options());
    case.result(json!({"partial": true, "status": "pass", "testout": "t", "files": ["f"]}), &["1"]);
    case.result(json!({"partial": true, "status": null, "testout": null, "files": null}), &[]);
    let done = case.exit(1);
    assert_eq!(done.lines, [json!({"status": "fail", "files": ["output.txt"]})]);
}

#[test]
fn testout_is_the_whole_log_as_of_the_end() {
    let mut case = Case::new(options());
    case.log("before\n").result(json!({"name": "s", "testout": "out/log"}), &[]);
    case.result(json!({"status": "pass", "testout": "log.txt"}), &[]).log("after\n");
    let done = case.exit(0);
    assert_eq!(done.lines[0], json!({"name": "s", "files": ["out/log"]}));
    assert_eq!(done.lines[1], json!({"status": "pass", "files": ["log.txt"]}));
    assert_eq!(
        (done.file("s/out/log"), done.file("log.txt")),
        ("before\nafter\n".into(), "before\nafter\n".into())
    );
}

#[test]
fn a_log_that_could_not_be_linked_does_not_count() {
    let mut case = Case::new(options());
    case.log("log").result(json!({"partial": true, "testout": "a"}), &[]);
    // A protocol error: the open result has that name for the log.
    case.result(json!({"files": ["a"]}), &[""]);
    // `end` compares the bytes that are there with those that were counted.
    case.end(&Ended::Exited(0));
}

#[test]
fn testout_must_be_a_new_file() {
    let broken: [&[(Value, &[&str])]; 5] = [
        &[(json!({"testout": "f", "files": ["f"]}), &["x"])],
        &[(json!({"files": ["f"]}), &["x"]), (json!({"testout": "./f"}), &[])],
        &[(json!({"testout": "f"}), &[]), (json!({"testout": "f"}), &[])],
        &[(json!({"testout": "f"}), &[]), (json!({"files": ["f"]}), &["x"])],
        &[(json!({"testout": "f", "partial": true}), &[]), (json!({"files": ["f"]}), &["x"])],
    ];
    for results in broken {
        let mut case = Case::new(options());
        case.log("log");
        for (result, contents) in results {
            let mut result = result.clone();
            result["name"] = "s".into();
            case.result(result, contents);
        }
        let done = case.exit(0);
        assert!(matches!(done.broken, Some(RecordError::Protocol(_))), "{results:?}: {:?}", done.broken);
        assert!(done.rule().contains("`f`"), "{}", done.rule());
        let listed = done.lines.iter().filter(|line| line["name"] == "s").count();
        assert_eq!(listed, results.len() - 1, "what came before stays: {:?}", done.lines);
    }
}

#[test]
fn the_host_overrides_what_was_open_and_leaves_what_was_full() {
    let endings = [
        Ended::TimedOut,
        Ended::Protocol("control line 1".into()),
        Ended::Limit("too much".into()),
        Ended::Lost("no answer".into()),
        Ended::Cancelled,
        Ended::Aborted,
        Ended::NotStarted("no tty".into()),
    ];
    for ended in endings {
        let cause = &*ended.to_string();
        let mut case = Case::new(options());
        case.log("log").result(json!({"partial": true, "status": "pass", "note": "fine", "k": 1}), &[]);
        case.result(json!({"name": "s", "partial": true, "status": "pass"}), &[]);
        let done = case.end(&ended);
        let own = json!({"status": "infra", "note": cause, "k": 1, "files": ["output.txt"]});
        assert_eq!(done.lines, [own, json!({"status": "pass", "name": "s"})]);
        assert_eq!(done.verdict(), ("infra", Some(cause)));

        let mut case = Case::new(options());
        case.result(json!({"status": "pass", "note": "fine"}), &[]);
        let done = case.end(&ended);
        assert_eq!(done.lines, [json!({"status": "pass", "note": "fine"})]);
        assert_eq!(done.verdict(), ("pass", Some("fine")));
    }
}

#[test]
fn a_result_that_never_got_complete_is_not_reported() {
    let mut case = Case::new(options());
    case.result(json!({"name": "whole", "status": "pass"}), &[]);
    let json = r#"{"status":"pass","files":[{"name":"f","length":100}]}"#;
    case.bytes(format!("result {}\n{json}only this", json.len()).as_bytes());
    let violation = case.parser.finish().unwrap_err();
    let done = case.end(&Ended::Protocol(violation.to_string()));
    assert_eq!(done.lines[0]["name"], "whole");
    assert_eq!(done.verdict().0, "infra");
    assert!(done.verdict().1.unwrap().contains("after 9 of 100 bytes of files[0]"));
}

#[test]
fn limits() {
    let limits = Limits { bytes_per_test: 1000, results_per_test: 3, ..Limits::default() };
    let with_limits = || Case::new(Options { limits: limits.clone(), ..options() });

    let mut case = with_limits();
    for _ in 0..4 {
        case.result(json!({"name": "s"}), &[]);
    }
    let done = case.exit(0);
    assert_eq!((done.rule().as_str(), done.lines.len()), ("more than 3 results", 4));

    let mut case = with_limits();
    let json = format!(r#"{{"files":[{{"name":"f","length":{}}}]}}"#, u64::MAX);
    case.bytes(format!("result {}\n{json}", json.len()).as_bytes());
    let done = case.exit(0);
    assert_eq!(done.rule(), "more than 1000 bytes of results, files and log");
    assert!(!done.place.join("files/f").exists(), "refused before anything is written");

    let mut case = with_limits();
    case.log(&"x".repeat(600)).log(&"x".repeat(600));
    let done = case.exit(0);
    assert_eq!((done.rule().contains("1000 bytes"), done.file("output.txt").len()), (true, 600));

    let mut case = Case::new(options());
    for _ in 0..5 {
        case.result(json!({"name": "s", "partial": true, "x": ["y".repeat(1_000_000)]}), &[]);
    }
    assert!(case.exit(0).rule().contains("still open"));
}

#[test]
fn a_long_log_keeps_its_ends() {
    let limits = Limits { log_bytes: 10, ..Limits::default() };
    let mut case = Case::new(Options { limits, ..options() });
    case.result(json!({"name": "s", "testout": "t"}), &[]);
    case.log("0123456789").log("abcdefghij");
    let done = case.exit(0);
    assert_eq!(done.file("output.txt"), "01234\n[atex-host: 10 bytes left out]\nfghij");
    assert_eq!(done.file("s/t"), done.file("output.txt"));
}

#[test]
fn hostile_names_stay_inside_and_are_shown_clean() {
    let mut case = Case::new(options());
    case.result(json!({"name": "/../a\u{1b}[2J", "files": ["../../../etc/x\0"]}), &["1"]);
    case.result(json!({"name": "f", "files": ["x"]}), &["2"]);
    case.result(json!({"files": ["f"]}), &["3"]);
    case.result(json!({"name": "s", "files": ["f", "f/g"]}), &["4", "5"]);
    case.result(json!({"name": "s/f", "files": ["h"]}), &["6"]);
    let done = case.exit(0);
    assert_eq!(done.lines[0], json!({"name": "a_[2J", "files": ["etc/x_"]}));
    assert_eq!(done.file("a_[2J/etc/x_"), "1");
    assert_eq!((&done.lines[2]["files"][0], done.file("f (1)")), (&json!("f (1)"), "3".to_owned()));
    assert_eq!((&done.lines[3]["files"], done.file("s/f (1)/g")), (&json!(["f", "f (1)/g"]), "5".to_owned()));
    assert_eq!((&done.lines[4]["name"], done.file("s/f (1)/h")), (&json!("s/f (1)"), "6".to_owned()));
}

#[test]
fn tmts_rule_is_applied_to_own_results_only() {
    let case = || Case::new(Options { rule: ResultRule::Xfail, ..options() });
    let done = case().exit(1);
    assert_eq!(done.verdict(), ("pass", Some("failed, as expected")));
    let mut other = case();
    other.result(json!({"name": "s", "status": "fail"}), &[]);
    other.result(json!({"status": "pass"}), &[]);
    let done = other.exit(0);
    assert_eq!((&done.lines[0]["status"], &done.lines[1]["status"]), (&json!("fail"), &json!("fail")));
    assert_eq!(case().end(&Ended::TimedOut).verdict().0, "infra");
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn damaged_data_keeps_what_came_before() {
    let mut case = Case::new(options());
    let good = archive(&[("a", "one")]);
    case.recorder.collect(&good[..1024]).unwrap();
    let wrong = case.recorder.collect(&[b'x'; 1024]).unwrap_err();
    assert!(
        wrong.to_string().contains("TMT_TEST_DATA") && matches!(wrong.ended(), Ended::Host(_)),
        "{wrong}"
    );
    let done = case.exit(0);
    assert_eq!(done.lines, [json!({"status": "pass", "files": ["output.txt", "data/a"]})]);
    assert_eq!(done.file("data/a"), "one");
}

#[test]
fn data_left_behind_belongs_to_the_own_result() {
    let leave = |case: &mut Case| {
        let archive = archive(&[("./sub/\u{7}x", "left"), ("empty", "")]);
        for chunk in archive.chunks(100) {
            case.recorder.collect(chunk).unwrap();
        }
    };
    let mut case = Case::new(options());
    leave(&mut case);
    let done = case.exit(0);
    assert_eq!(done.lines, [json!({"status": "pass", "files": ["output.txt", "data/sub/_x", "data/empty"]})]);
    assert_eq!((done.file("data/sub/_x"), done.file("data/empty")), ("left".to_owned(), String::new()));

    let mut case = Case::new(options());
    case.result(json!({"name": "a"}), &[])
        .result(json!({"status": "warn"}), &[])
        .result(json!({"name": "b"}), &[]);
    leave(&mut case);
    let done = case.exit(0);
    let own = json!({"status": "warn", "files": ["data/sub/_x", "data/empty"]});
    assert_eq!(done.lines, [json!({"name": "a"}), own, json!({"name": "b"})]);
}

#[test]
fn custom_results() {
    let run = |files: &[(&str, &str)]| {
        let mut case = Case::new(Options { rule: ResultRule::Custom, ..options() });
        case.recorder.collect(&archive(files)).unwrap();
        case.exit(0)
    };
    let done = run(&[(
        "results.yaml",
        "- {name: /a/b, result: fail, note: [x, y], log: [l], serial: 3}\n- {name: c, result: pass}\n",
    )]);
    assert_eq!(
        done.lines[0],
        json!({"status": "fail", "name": "a/b", "note": "x; y", "log": ["l"], "serial": 3})
    );
    assert_eq!(done.lines[1], json!({"status": "pass", "name": "c"}));
    assert_eq!(done.verdict(), ("fail", None), "the worst, as there is no own result");
    let done =
        run(&[("results.json", r#"[{"name": "/", "result": "warn"}, {"name": "x", "result": "fail"}]"#)]);
    assert_eq!((done.lines.len(), done.verdict()), (2, ("warn", None)));
    let wrong = [
        (&[][..], "neither results.yaml nor results.json"),
        (&[("results.yaml", "[")], "results.yaml: "),
        (&[("results.yaml", "{}")], "not a list"),
        (&[("results.yaml", "[]")], "has no results"),
        (&[("results.json", "[1]")], "result 0 is not a mapping"),
        (&[("results.json", r#"[{"result": "infra"}]"#)], "no usable `result`"),
    ];
    for (files, cause) in wrong {
        let done = run(files);
        assert!(
            done.verdict().0 == "error" && done.verdict().1.unwrap().contains(cause),
            "{:?}",
            done.verdict()
        );
    }
}

#[test]
fn a_test_that_never_ran() {
    let base = tempfile::tempdir().unwrap();
    let place = base.path().join("p/t/=0");
    let published = Recorder::publish_not_run(&place, "not run: no machine could be had").unwrap();
    let text = fs::read_to_string(place.join("results")).unwrap();
    assert_eq!(text, "{\"status\":\"infra\",\"note\":\"not run: no machine could be had\"}\n");
    assert_eq!((published.bytes, published.directory.as_path()), (text.len() as u64, place.as_path()));
    assert!(place.join("files").is_dir());
}

fn names() -> impl Strategy<Value = String> {
    "[a/.\\x01]{0,4}"
}

fn objects() -> impl Strategy<Value = (Value, Vec<String>)> {
    let status = prop::option::of(prop_oneof![Just("pass"), Just("fail"), Just("odd")]);
    let files = prop::collection::vec((names(), "[xy]{0,3}"), 0..3);
    let testout = prop::option::weighted(0.2, names());
    (prop::option::of(names()), status, any::<bool>(), files, testout).prop_map(
        |(name, status, partial, files, testout)| {
            let (names, contents): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let mut object = json!({"name": name, "status": status, "partial": partial, "files": names});
            if let Some(testout) = testout {
                object["testout"] = testout.into();
            }
            (object, contents)
        },
    )
}

fn endings() -> impl Strategy<Value = Ended> {
    prop_oneof![Just(Ended::Exited(0)), Just(Ended::Exited(1)), Just(Ended::TimedOut)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a test sends: whole lines, files that exist, an own result, nothing outside.
    #[test]
    fn anything_ends_in_good_artifacts(results in prop::collection::vec(objects(), 0..8), ended in endings()) {
        let mut case = Case::new(options());
        for (object, contents) in &results {
            let contents: Vec<_> = contents.iter().map(String::as_str).collect();
            case.log("line\n").result(object.clone(), &contents);
        }
        let done = case.end(&ended);
        prop_assert!(done.lines.iter().any(|line| line.get("name").is_none()), "an own result");
        for line in &done.lines {
            let place = done.place.join("files").join(line["name"].as_str().unwrap_or(""));
            for file in line["files"].as_array().into_iter().flatten() {
                let meta = fs::symlink_metadata(place.join(file.as_str().unwrap()));
                prop_assert!(meta.is_ok_and(|meta| meta.is_file()), "{} of {}", file, line);
            }
        }
        let beside: Vec<_> = fs::read_dir(done.place.parent().unwrap()).unwrap().collect();
        prop_assert_eq!(beside.len(), 1);
    }

    #[test]
    fn any_bytes_end_in_good_artifacts(stream in prop::collection::vec(any::<u8>(), 0..100), ended in endings()) {
        let mut case = Case::new(options());
        case.bytes(&stream);
        let done = case.end(&ended);
        prop_assert_eq!(done.lines.len(), 1);
    }
}
