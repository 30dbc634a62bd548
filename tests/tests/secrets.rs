//! Secrets of a pool's configuration reach its plugin, and nobody else: no file that a run leaves, no message of run or gc.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use atex_tests::{
    build::root,
    e2e::{Finished, Place, finish},
};

const WRITTEN_OUT: &str = "written-out-s3cret";
const OF_THE_ENVIRONMENT: &str = "s3cret-of-the-environment";

fn run(place: &Place, args: &[&str]) -> Finished {
    let mut command = place.command(args);
    command.env("PROBE", OF_THE_ENVIRONMENT);
    let pipe = std::process::Stdio::piped;
    finish(command.stdout(pipe()).stderr(pipe()).spawn().unwrap()).unwrap()
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn shows_none(what: &str, text: &str) {
    for secret in [WRITTEN_OUT, OF_THE_ENVIRONMENT] {
        assert!(!text.contains(secret), "{what}: {text}");
    }
}

#[test]
fn secrets_of_a_pool_are_nowhere_but_in_its_plugin() {
    let place = Place::new(&[("a.fmf", "test: 'true'\n")]).unwrap();
    let example = root().join("plugins/provisioner-exec/examples/pool.sh");
    // Whatever it knows, it tells when a machine is to be given back.
    let script = format!(
        "#!/bin/sh\necho \"I have $TOKEN and $OTHER\" >&2\n[ $ATEX_REQUEST != release ] || [ -e $POOL.open ] || {{\n    \
         echo '{{\"error\": {{\"message\": \"not with '\"$TOKEN and $OTHER\"'\"}}}}'\n    exit\n}}\nexec {}\n",
        example.display()
    );
    let program = place.write("program", &script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "limits: {{release: 1s}}\nprovisioners:\n  lab:\n    use: exec\n    program: {}\n    env: {{POOL: {}}}\n    \
         secrets: {{TOKEN: {WRITTEN_OUT}, OTHER: \"${{secret:PROBE}}\"}}\n    max: 1\n",
        program.display(),
        place.path("pool").display()
    );
    let config = place.write("config.yaml", &config).unwrap();
    let (config, run_dir) = (config.to_str().unwrap().to_owned(), place.run_dir());

    let log = place.path("state/log");
    fs::create_dir_all(place.path("state")).unwrap();
    let ran = run(
        &place,
        &["--config", &config, "--run-dir", run_dir.to_str().unwrap(), "--log-file", log.to_str().unwrap()],
    );
    assert_eq!(ran.code(), 5, "its machine could not be given back: {}", ran.stderr);
    assert!(ran.stderr.contains("not with *** and ***"), "{}", ran.stderr);
    shows_none("run", &format!("{}{}", ran.stdout, ran.stderr));

    for format in ["human", "json"] {
        let gc = run(&place, &["-vv", "gc", "--format", format]);
        assert_eq!(gc.code(), 5, "{}{}", gc.stdout, gc.stderr);
        assert!(gc.stdout.contains("not with *** and ***"), "{}", gc.stdout);
        shows_none("gc", &format!("{}{}", gc.stdout, gc.stderr));
    }
    let gc = run(&place, &["gc", "--config", &config]);
    assert!(gc.stdout.contains("not with *** and ***"), "{}", gc.stdout);
    shows_none("gc --config", &format!("{}{}", gc.stdout, gc.stderr));

    let mut seen = 0;
    for path in [files(&place.path("state")), files(&run_dir)].concat() {
        shows_none(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(&path).unwrap()));
        seen += 1;
    }
    assert!(seen >= 5, "run.json, journal, ledger, logs: {seen} files");

    // The secrets are found again where they are: in the configuration and in the environment.
    place.write("pool.open", "").unwrap();
    let gc = run(&place, &["gc"]);
    assert_eq!(gc.code(), 0, "{}{}", gc.stdout, gc.stderr);
    assert!(gc.stdout.contains("1 released"), "{}", gc.stdout);
}
