//! Trees that want to hurt: each ends with an error that says what and where, or loads, and none takes the host down.

#![expect(clippy::unwrap_used, reason = "this is a test: what it needs has to be there")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use atex_host::fmf::{Adjustment, Context, Error, Tree};
use tempfile::TempDir;

fn tree() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(".fmf")).unwrap();
    fs::write(directory.path().join(".fmf/version"), "1\n").unwrap();
    directory
}

fn tree_with(main: &str) -> TempDir {
    let directory = tree();
    fs::write(directory.path().join("main.fmf"), main).unwrap();
    directory
}

fn error_of(directory: &Path) -> String {
    Tree::load(directory).unwrap_err().to_string()
}

#[test]
fn nested_brackets() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)] {
        let error = error_of(tree_with(&text).path());
        assert!(error.contains("line 1") && error.contains("200 levels"), "{error}");
    }
}

/// Documents that trip assertions in the parser.
#[test]
fn what_trips_the_parser_prints_nothing_but_the_error() {
    for text in ["a: [!, b]", "c: \"s\\", "[!a!set'1', 1]"] {
        let directory = tree_with(text);
        let host = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_atex-host"));
            command
                .args(arguments)
                .arg(directory.path())
                .env("ATEX_STATE_DIR", directory.path().join("state"));
            let output = command.env("RUST_BACKTRACE", "1").output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(host(&["fmf"]), (Some(1), String::new()), "{text:?}");
        let (status, stderr) = host(&["discover"]);
        assert_eq!(status, Some(2), "{text:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("main.fmf: line "), "{text:?}: {stderr}");
    }
}

#[test]
fn alias_bomb() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let error = error_of(tree_with(&text).path());
    assert!(error.contains("with the aliases written out"), "{error}");
}

#[test]
fn alias_inside_itself() {
    let error = error_of(tree_with("a: &x\n  b: *x\n").path());
    assert!(error.contains("line 2, column 6") && error.contains("inside the value"), "{error}");
}

#[test]
fn mapping_that_gets_into_itself() {
    let error = error_of(tree_with("a: &x {k: 1}\n/c:\n  a: &y {k: 1}\n  a+: {self: *y}\n").path());
    assert!(error.contains("holds itself"), "{error}");
}

#[test]
fn enormous_file() {
    let directory = tree();
    let file = fs::File::create(directory.path().join("a.fmf")).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = error_of(directory.path());
    assert!(error.contains("a.fmf") && error.contains("larger than"), "{error}");
}

#[test]
fn fifo_and_directory_as_files() {
    let directory = tree();
    fs::create_dir(directory.path().join("x.fmf")).unwrap();
    Tree::load(directory.path()).unwrap();
    let fifo = directory.path().join("y.fmf");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let error = error_of(directory.path());
    assert!(error.contains("y.fmf") && error.contains("not a regular file"), "{error}");
}

#[test]
fn unreadable_directory() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable then.
        return;
    }
    let directory = tree();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(&closed, permissions(0o000)).unwrap();
    let error = error_of(directory.path());
    fs::set_permissions(&closed, permissions(0o700)).unwrap();
    assert!(error.contains("closed") && error.contains("cannot be listed"), "{error}");
}

#[test]
fn links_between_all_directories() {
    let directory = tree_with("x: 1\n");
    for from in 0..20 {
        let path = directory.path().join(format!("d{from}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("t.fmf"), "test: t\n").unwrap();
        for to in 0..20 {
            symlink(format!("../d{to}"), path.join(format!("l{to}"))).unwrap();
        }
    }
    let tree = Arc::new(Tree::load(directory.path()).unwrap());
    // Each directory as itself, and once through a link.
    let tests =
        tree.view().climb(atex_host::fmf::Order::Sorted).filter(|node| node.name().ends_with("/t")).count();
    assert_eq!(tests, 40);
}

#[test]
fn names_that_a_terminal_acts_on() {
    for name in ["new\nline", "\u{1b}[31mred", "bell\u{7}"] {
        let directory = tree();
        fs::create_dir(directory.path().join(name)).unwrap();
        Tree::load(directory.path()).unwrap();
        fs::write(directory.path().join(name).join("main.fmf"), "test: t\n").unwrap();
        let error = error_of(directory.path());
        assert!(error.contains("control characters") && !error.contains(char::is_control), "{error:?}");
    }
    let error = error_of(tree_with("\"/a\\nb\": {}\n").path());
    assert!(error.contains("control characters"), "{error}");
    let error = error_of(tree_with("\"k\\e[2J+\": [1]\n/c: {\"k\\e[2J+\": x}\n").path());
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn name_that_is_not_text() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tree();
    fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff.fmf")), "test: t\n").unwrap();
    assert!(matches!(Tree::load(directory.path()), Err(Error::Document { .. })));
}

#[test]
fn very_deep_names() {
    let key = "/a".repeat(100_000);
    let error = error_of(tree_with(&format!("? {key}\n: {{}}\n")).path());
    assert!(error.contains("200 levels"), "{error}");
}

#[test]
fn data_that_multiplies() {
    // A long text that many children extend.
    let mut text = format!("s: {}\n", "x".repeat(100_000));
    for child in 0..11_000 {
        writeln!(text, "/c{child}: {{s+: y}}").unwrap();
    }
    let error = error_of(tree_with(&text).path());
    assert!(error.contains("merging makes more than"), "{error}");
}

#[test]
fn text_that_multiplies() {
    let longer = format!("/x/{}/", "x".repeat(1000));
    let text = format!("s: {}\n/c: {{s~: [{longer}, {longer}]}}\n", "x".repeat(64));
    let error = error_of(tree_with(&text).path());
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn pattern_that_never_ends() {
    let text = format!("s: {}\n/c: {{s~: '/(x+x+)+\\1y/z/'}}\n", "x".repeat(64));
    let error = error_of(tree_with(&text).path());
    assert!(error.contains("regular expression"), "{error}");
}

#[test]
fn rules_that_multiply() {
    let mut text = String::from("s: ''\nadjust:\n");
    writeln!(text, "- &r {{s+: {}}}", "x".repeat(100_000)).unwrap();
    for _ in 0..90 {
        text.push_str("- *r\n");
    }
    for child in 0..40 {
        writeln!(text, "/c{child}: {{}}").unwrap();
    }
    let tree = Arc::new(Tree::load(tree_with(&text).path()).unwrap());
    let error = tree.adjust(&Adjustment::new(&Context::new())).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}
