//! Names, several libraries, several uses.

use std::fs;
use std::path::{Path, PathBuf};

use atex_host::plugin::{Call, Kind, PluginError, Registry, Search};
use atex_plugin_api::Lease;
use serde_json::json;

use crate::built;

fn copy(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs::copy(built::faulty(), &path).unwrap();
    path
}

fn open(libraries: Vec<PathBuf>, directories: Vec<PathBuf>, state: &Path) -> Result<Registry, PluginError> {
    Registry::open(Search { libraries, directories, ..Search::default() }, state)
}

#[test]
fn one_library_provides_several_kinds_and_is_used_several_times() {
    let state = tempfile::tempdir().unwrap();
    let registry =
        open(vec![built::faulty().to_owned(), built::minimal().to_owned()], vec![], state.path()).unwrap();
    assert_eq!(registry.libraries().len(), 2);
    let sound = registry.provisioner("faulty", "one", &json!({})).unwrap();
    let broken = registry.provisioner("faulty", "two", &json!({"fault": "error", "in": "reserve"})).unwrap();
    let (lease, call) = (Lease::new("a1", "run", "owner"), Call::default());
    let machine = sound.reserve(&lease, &call).unwrap();
    assert!(broken.reserve(&lease, &call).unwrap_err().to_string().contains("provisioner `two`"));
    assert_eq!(sound.list("owner", &call).unwrap()[0].mark, "owner/run/a1");
    assert_eq!(broken.list("owner", &call), Ok(vec![]));
    sound.release(&machine.id, &call).unwrap();
    assert_ne!(sound.instance().state_dir(), broken.instance().state_dir());
    registry.policy("faulty", "faulty", &json!({})).unwrap();
    registry.reporter("faulty", "faulty", &json!({})).unwrap();
}

#[test]
fn the_same_file_twice_is_one_library_and_two_files_clash() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (copy(directory.path(), "first.so"), copy(directory.path(), "second.so"));
    let registry = open(vec![first.clone(), first.clone()], vec![], directory.path()).unwrap();
    assert_eq!(registry.libraries().len(), 1);
    match open(vec![first.clone(), second.clone()], vec![], directory.path()) {
        Err(PluginError::Clash { name, first: a, second: b, .. }) => {
            assert_eq!(
                (name.as_str(), a, b),
                ("faulty", first.canonicalize().unwrap(), second.canonicalize().unwrap())
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn directories_open_only_what_is_named_and_named_libraries_win() {
    let directory = tempfile::tempdir().unwrap();
    let found = copy(directory.path(), "libatex_policy_faulty.so");
    fs::write(directory.path().join("libatex_policy_garbage.so"), "no library").unwrap();
    let directories = vec![directory.path().to_owned()];
    let registry = open(vec![], directories.clone(), directory.path()).unwrap();
    assert!(registry.libraries().is_empty());
    assert_eq!(
        registry.find(Kind::Policy, "faulty").unwrap().library().path(),
        found.canonicalize().unwrap()
    );
    assert_eq!(registry.libraries().len(), 1);
    assert!(matches!(registry.find(Kind::Policy, "garbage"), Err(PluginError::Library { .. })));
    // The library has one, but not under the name of its file.
    assert!(matches!(registry.find(Kind::Reporter, "faulty"), Err(PluginError::Unknown { .. })));

    let named = copy(directory.path(), "mine.so");
    let registry = open(vec![named.clone()], directories, directory.path()).unwrap();
    assert_eq!(
        registry.find(Kind::Policy, "faulty").unwrap().library().path(),
        named.canonicalize().unwrap()
    );
}

#[test]
fn a_library_that_is_not_what_its_name_says() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path(), "libatex_policy_priority.so");
    let registry = open(vec![], vec![directory.path().to_owned()], directory.path()).unwrap();
    let error = registry.find(Kind::Policy, "priority").unwrap_err();
    assert!(matches!(error, PluginError::Misnamed { .. }), "{error}");
    let all = registry.everything();
    assert!(all.iter().any(|one| matches!(one.offer, Err(PluginError::Misnamed { .. }))));
}

#[test]
fn wrong_configurations_name_the_plugin_the_key_and_the_right_one() {
    let state = tempfile::tempdir().unwrap();
    let registry = open(vec![built::faulty().to_owned()], vec![], state.path()).unwrap();
    let error = |config| registry.reporter("faulty", "results", &config).unwrap_err().to_string();
    assert_eq!(error(json!({"faul": "x"})), "reporter `results`: unknown key `faul`, did you mean `fault`?");
    let wrong = error(json!({"fault": "explode"}));
    assert!(wrong.starts_with("reporter `results`: `fault`: unknown variant `explode`"), "{wrong}");
    let error = registry.find(Kind::Provisioner, "fualty").unwrap_err().to_string();
    assert_eq!(error, "there is no provisioner `fualty`, did you mean `faulty`?");
    let offer = registry.find(Kind::Provisioner, "faulty").unwrap();
    assert!(offer.takes("times") && !offer.takes("max"));
}
