//! Libraries for the tests, built once by cargo, which knows what is up to date.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The smallest provisioner: an example of the API crate.
pub(crate) fn minimal() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo_build(&["-p", "atex-plugin-api", "--example", "minimal"]);
        output().join("examples/libminimal.so")
    })
}

/// The plugin that misbehaves on demand.
pub(crate) fn faulty() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo_build(&["-p", "atex-test-faulty"]);
        output().join("libatex_test_faulty.so")
    })
}

/// `target/debug` or the like: the test's own program is in `deps` below it.
fn output() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_owned()
}

fn cargo_build(what: &[&str]) {
    let output = output();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("build").args(what).arg("--target-dir").arg(output.parent().unwrap());
    if output.ends_with("release") {
        cargo.arg("--release");
    }
    let done = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(done.status.success(), "cargo build {what:?}:\n{}", String::from_utf8_lossy(&done.stderr));
}
