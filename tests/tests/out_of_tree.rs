//! A plugin as its author builds it: against the packaged crate, in a directory of its own, by the README's words.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use atex_tests::{
    build::{cargo, root, target_dir},
    e2e::Place,
};

fn slow_tests() -> bool {
    std::env::var_os("ATEX_TEST_ALL").is_some_and(|value| !value.is_empty())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The crate as it is published, unpacked.
fn packaged_api(to: &Path) -> Result<()> {
    let package = ["package", "-p", "atex-plugin-api", "--allow-dirty", "--no-verify", "--quiet"];
    run(Command::new(cargo()).args(package).current_dir(root()))?;
    let version = env!("CARGO_PKG_VERSION");
    let file = target_dir()?.join(format!("package/atex-plugin-api-{version}.crate"));
    fs::create_dir_all(to)?;
    run(Command::new("tar")
        .args(["-xzf".as_ref(), file.as_os_str(), "--strip-components=1".as_ref(), "-C".as_ref()])
        .arg(to))
}

#[test]
fn a_plugin_built_elsewhere_runs() -> Result<()> {
    if !slow_tests() {
        eprintln!("skipped: builds a crate from nothing (ATEX_TEST_ALL=1)");
        return Ok(());
    }
    let place = Place::new(&[("a.fmf", "test: 'true'\n")])?;
    packaged_api(&place.path("api"))?;
    // The README's plugin, on this box instead of behind an address.
    let code = fs::read_to_string(root().join("plugin-api/examples/fixed.rs"))?;
    let code = code.replace(
        "Transport::Ssh(SshTransport::new(&self.address))",
        "Transport::Local(LocalTransport::default())",
    );
    place.write("mine/src/lib.rs", &code)?;
    place.write(
        "mine/Cargo.toml",
        "[package]\nname = \"mine\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\natex-plugin-api = { path = \"../api\" }\nserde = { version = \"1\", features = [\"derive\"] }\n\
         schemars = \"1\"\n[workspace]\n",
    )?;
    fs::copy(root().join("Cargo.lock"), place.path("mine/Cargo.lock"))?;
    run(Command::new(cargo())
        .args(["build", "--quiet"])
        .current_dir(place.path("mine"))
        .env("CARGO_TARGET_DIR", place.path("mine/target")))?;
    let library = place.path("mine/target/debug/libmine.so");
    let run_dir = place.run_dir();
    let args: [&OsStr; 6] = [
        "--plugin".as_ref(),
        library.as_ref(),
        "--provisioner".as_ref(),
        "fixed,address=here,max=1".as_ref(),
        "--run-dir".as_ref(),
        run_dir.as_ref(),
    ];
    let ran = place.run(args)?;
    ensure!(ran.code() == 0, "{}{}", ran.stdout, ran.stderr);
    let results = place.results().context("no results")?;
    ensure!(results == [("/a".to_owned(), String::new(), "pass".to_owned())], "{results:?}");
    Ok(())
}
