//! What `plugins check` says of real libraries.

use std::path::Path;

use atex_host::plugin::{Gravity, check};

use crate::built;

fn findings(path: &Path) -> Vec<(Gravity, String)> {
    let state = tempfile::tempdir().unwrap();
    check(path, state.path()).into_iter().map(|finding| (finding.gravity, finding.text)).collect()
}

#[test]
fn a_sound_library_has_only_small_faults() {
    let all = findings(built::minimal());
    assert!(all[0].1.starts_with("library atex-plugin-api "), "{all:?}");
    let rest: Vec<(Gravity, &str)> =
        all[1..].iter().map(|(gravity, text)| (*gravity, text.as_str())).collect();
    assert_eq!(
        rest,
        [
            (Gravity::Doubtful, "in a directory it would be looked for as libatex_provisioner_lab.so"),
            (Gravity::Doubtful, "provisioner `lab`: it does not say what it is for"),
            (Gravity::Doubtful, "provisioner `lab`: its key `hosts` is not described"),
        ]
    );
}

#[test]
fn all_plugins_of_a_library_are_looked_at() {
    let all = findings(built::faulty());
    assert!(all.iter().all(|(gravity, _)| *gravity != Gravity::Bad), "{all:?}");
    for kind in ["provisioner", "policy", "reporter"] {
        assert!(all.iter().any(|one| *one == (Gravity::Good, format!("{kind} `faulty`"))), "{all:?}");
    }
}

#[test]
fn what_is_no_library_is_one_bad_finding() {
    let all = findings(Path::new("/etc/passwd"));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, Gravity::Bad);
}
