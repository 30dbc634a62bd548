use super::*;

fn sample(execution: u64, test: &str, passed: bool) -> Sample {
    Sample {
        execution,
        platform: "p".into(),
        test: test.into(),
        at: 1000 + execution,
        status: if passed { "pass" } else { "fail" }.into(),
        passed,
        duration: 10 * execution,
    }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.sqlite");
    (directory, path)
}

#[test]
fn remembers_by_test_and_platform() {
    let (_directory, path) = file();
    let mut history = History::open(&path).unwrap();
    let samples =
        [sample(1, "/a", true), sample(2, "/a", false), sample(3, "/a", true), sample(4, "/b", false)];
    history.record("r1", &samples).unwrap();
    history.record("r1", &samples).unwrap();
    history.record("r2", &[Sample { platform: "other".into(), ..sample(1, "/a", true) }]).unwrap();
    drop(history);

    let history = History::open(&path).unwrap();
    let mode: String = history.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let expected = history.expectations("p").unwrap();
    assert_eq!(expected.len(), 2);
    assert_eq!(expected.get("/a"), Some(Expectation { duration: 20, fail_rate: 333 }));
    assert_eq!(expected.get("/b"), Some(Expectation { duration: 40, fail_rate: 1000 }));
    assert_eq!(expected.get("/c"), None);
    assert!(history.expectations("none").unwrap().is_empty());

    let tests = history.tests(|_, test| test == "/a").unwrap();
    let shape: Vec<_> = tests.iter().map(|it| (it.platform.as_str(), it.executions.len())).collect();
    assert_eq!(shape, [("other", 1), ("p", 3)]);
    let newest = &tests[1].executions[0];
    assert_eq!((newest.at, newest.run.as_str(), newest.status.as_str()), (1003, "r1", "pass"));
}

#[test]
fn what_says_nothing_about_a_test_is_not_remembered() {
    use crate::store::How;
    let execution = |how, status: &str| Execution {
        execution: 7,
        test: 0,
        lease: 0,
        attempt: 0,
        how,
        exit: 0,
        status: status.into(),
        note: None,
        started: 1,
        finished: 50,
        duration: 40,
        results: 1,
        artifacts: None,
        bytes: 0,
        digest: String::new(),
    };
    let run = RunFile {
        platforms: vec![crate::store::RunPlatform { name: "p".into(), context: [].into() }],
        tests: vec![crate::store::Promise { platform: 0, name: "/t".into() }],
        ..crate::store::run_dir::tests::run_file()
    };
    let table = [
        (How::Exited, "pass", Some(true)),
        (How::Exited, "warn", Some(true)),
        (How::Exited, "odd", Some(false)),
        (How::TimedOut, "infra", Some(false)),
        (How::Lost, "infra", None),
        (How::Cancelled, "infra", None),
        (How::NotStarted, "infra", None),
    ];
    for (how, status, passed) in table {
        let sample = Sample::of(&run, &execution(how, status));
        assert_eq!(sample.as_ref().map(|sample| sample.passed), passed, "{how:?} {status}");
        if let Some(sample) = sample {
            assert_eq!((sample.platform.as_str(), sample.test.as_str()), ("p", "/t"));
            assert_eq!((sample.execution, sample.at, sample.duration), (7, 50, 40));
        }
    }
    assert_eq!(Sample::of(&run, &Execution { test: 9, ..execution(How::Exited, "pass") }), None);
}

#[test]
fn keeps_the_newest_of_each_test() {
    let (_directory, path) = file();
    let mut history = History::open(&path).unwrap();
    // In disorder: what is newest is said by the time, not by when it was written.
    let samples: Vec<_> = (0..u64::from(KEPT) + 20).rev().map(|n| sample(n, "/a", true)).collect();
    history.record("r", &samples).unwrap();
    history.record("r", &[sample(1, "/b", true)]).unwrap();
    let tests = history.tests(|_, _| true).unwrap();
    let times: Vec<_> = tests[0].executions.iter().map(|past| past.at).collect();
    assert_eq!(times, (1020..1070).rev().collect::<Vec<_>>());
    assert_eq!(tests[1].executions.len(), 1);
}

#[test]
fn several_hosts_write_at_once() {
    let (_directory, path) = file();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let path = &path;
            scope.spawn(move || {
                for round in 0..10 {
                    let mut history = History::open(path).unwrap();
                    let test = format!("/{writer}");
                    history.record(&format!("r{writer}"), &[sample(round, &test, true)]).unwrap();
                }
            });
        }
    });
    let tests = History::open(&path).unwrap().tests(|_, _| true).unwrap();
    assert_eq!(tests.iter().map(|test| test.executions.len()).collect::<Vec<_>>(), [10; 4]);
}

#[test]
fn a_writer_that_dies_leaves_all_or_nothing() {
    let (directory, path) = file();
    let mut history = History::open(&path).unwrap();
    history.record("r1", &[sample(1, "/a", true)]).unwrap();
    let transaction = history.connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    insert(&transaction, "r2", &sample(2, "/a", true)).unwrap();
    // What a killed process leaves: the files as they are now.
    let dead = directory.path().join("dead.sqlite");
    for suffix in ["", "-wal"] {
        let name = |base: &Path| PathBuf::from(format!("{}{suffix}", base.display()));
        if name(&path).exists() {
            std::fs::copy(name(&path), name(&dead)).unwrap();
        }
    }
    transaction.commit().unwrap();
    let mut survivor = History::open(&dead).unwrap();
    assert_eq!(survivor.tests(|_, _| true).unwrap()[0].executions.len(), 1);
    survivor.record("r3", &[sample(3, "/a", true)]).unwrap();
    assert_eq!(survivor.tests(|_, _| true).unwrap()[0].executions.len(), 2);
}

#[test]
fn what_is_no_history_is_an_error() {
    let (_directory, path) = file();
    std::fs::write(&path, "this is not a database, by any means\n".repeat(100)).unwrap();
    let error = History::open(&path).unwrap_err().to_string();
    assert!(error.starts_with("cannot open the history") && error.contains("not a database"), "{error}");

    let (_directory, path) = file();
    let history = History::open(&path).unwrap();
    history.connection.pragma_update(None, "user_version", 7).unwrap();
    drop(history);
    assert!(matches!(History::open(&path), Err(HistoryError::Later { version: 7, .. })));
}
