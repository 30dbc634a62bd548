//! Files that are no plugins, or not for this host: each is refused with its own reason, and the process lives on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use atex_host::plugin::{ElfFault, Library, PluginError, Refusal, Trust};

use crate::built;

fn refusal(path: &Path) -> Refusal {
    match Library::open(path, Trust::Warn) {
        Err(error @ PluginError::Library { .. }) => {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            let PluginError::Library { reason, .. } = error else { unreachable!() };
            reason
        }
        other => panic!("{}: {other:?}", path.display()),
    }
}

fn file(directory: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join("libx.so");
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Compiles a library from C.
fn compile(directory: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let (source_file, library) = (directory.join(format!("{name}.c")), directory.join(name));
    fs::write(&source_file, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source_file)
        .args(arguments)
        .current_dir(directory);
    let done = cc.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    library
}

#[test]
fn truncated_libraries() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(built::minimal()).unwrap();
    for part in [0, 1, 5, 6, 63, 64, 4096, whole.len() / 2, whole.len() - 1] {
        let reason = refusal(&file(&directory, &whole[..part]));
        match reason {
            Refusal::Elf(ElfFault::NotElf) => assert!(part < 6),
            Refusal::Elf(ElfFault::Truncated { length, .. }) => assert_eq!(length, part as u64),
            other => panic!("{part}: {other:?}"),
        }
    }
    Library::open(&file(&directory, &whole), Trust::Strict).unwrap();
}

#[test]
fn other_cpus_and_other_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = fs::read(built::minimal()).unwrap();
    other[18..20].copy_from_slice(&22u16.to_le_bytes());
    assert!(
        matches!(refusal(&file(&directory, &other)), Refusal::Elf(ElfFault::OtherCpu { file, .. }) if file == "s390x")
    );
    assert_eq!(refusal(&file(&directory, b"#!/bin/sh\n")), Refusal::Elf(ElfFault::NotElf));
    assert_eq!(refusal(&directory.path().join("nothing.so")), Refusal::Missing);
}

#[test]
fn libraries_that_are_no_plugins() {
    let directory = tempfile::tempdir().unwrap();
    let library = compile(directory.path(), "libx.so", "int x(void) { return 1; }", &[]);
    assert_eq!(refusal(&library), Refusal::NotAPlugin);
}

#[test]
fn a_missing_symbol() {
    let directory = tempfile::tempdir().unwrap();
    let source = "int frobnicate(void); int x(void) { return frobnicate(); }";
    let library = compile(directory.path(), "libx.so", source, &[]);
    assert_eq!(refusal(&library), Refusal::MissingSymbol("frobnicate".to_owned()));
}

#[test]
fn a_missing_library() {
    let directory = tempfile::tempdir().unwrap();
    compile(directory.path(), "libdep.so", "int dep(void) { return 1; }", &["-Wl,-soname,libatexdep.so.7"]);
    let source = "int dep(void); int x(void) { return dep(); }";
    let library = compile(directory.path(), "libx.so", source, &["-L.", "-ldep"]);
    assert_eq!(refusal(&library), Refusal::MissingLibrary("libatexdep.so.7".to_owned()));
}

#[test]
fn a_newer_c_library() {
    let directory = tempfile::tempdir().unwrap();
    // Stands in for the C library of a later time: the same name, one version more.
    fs::write(directory.path().join("version.map"), "GLIBC_2.99 { global: frobnicate; };").unwrap();
    let stub = ["-nostdlib", "-Wl,-soname,libc.so.6", "-Wl,--version-script=version.map"];
    compile(directory.path(), "libfuture.so", "int frobnicate(void) { return 1; }", &stub);
    let source = "int frobnicate(void); int x(void) { return frobnicate(); }";
    let library = compile(directory.path(), "libx.so", source, &["-nostdlib", "-L.", "-lfuture"]);
    assert_eq!(refusal(&library), Refusal::NewerLibc("GLIBC 2.99".to_owned()));
}

#[test]
fn an_entry_that_is_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let source = format!("const char {}[4096] = \"not a header\";", atex_plugin_api::host_side::ENTRY_SYMBOL);
    let library = compile(directory.path(), "libx.so", &source, &[]);
    assert!(matches!(refusal(&library), Refusal::Incompatible(_)));
}
