//! Plugins and hosts of different versions of the API crate. Copies of the crate with later versions are built for this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use atex_host::plugin::{Call, Library, PluginError, Refusal, Registry, Search, Trust};
use atex_plugin_api::Lease;
use serde_json::json;

use crate::built;

const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api");

/// A program that does what a host does: it loads a library and reserves a machine.
const LATER_HOST: &str = r##"
use atex_plugin_api::{Lease, host_side, testkit::FakeHost};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let library = unsafe { libloading::Library::new(path) }.unwrap();
    let symbol = unsafe { library.get::<*const std::ffi::c_void>(host_side::ENTRY_SYMBOL.as_bytes()) }.unwrap();
    let entry = unsafe { symbol.into_raw() }.into_raw();
    std::mem::forget(library);
    let root = unsafe { host_side::Root::from_entry(entry.cast_const()) }.unwrap();
    let host = FakeHost::new().handle();
    let lab = root.provisioner("lab", r#"{"hosts": ["a"]}"#, &host).unwrap();
    let machine = lab.reserve(&Lease::new("a1", "run", "owner"), &host).unwrap();
    println!("host {} plugin {} machine {} later {}", host_side::Version::ours(), root.api(), machine.id, lab.later());
}
"##;

/// A copy of the API crate, and beside it a plugin and a host that are built with it.
struct Copy {
    directory: tempfile::TempDir,
}

impl Copy {
    fn new(version: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, api) = (directory.path(), directory.path().join("api"));
        for place in
            ["src", "src/adapter", "src/host_side", "src/testkit", "src/testkit/conformance", "examples"]
        {
            fs::create_dir_all(api.join(place)).unwrap();
            for entry in fs::read_dir(Path::new(API).join(place)).unwrap() {
                let from = entry.unwrap().path();
                if from.is_file() {
                    fs::copy(&from, api.join(place).join(from.file_name().unwrap())).unwrap();
                }
            }
        }
        let workspace = fs::read_to_string(format!("{API}/../Cargo.toml")).unwrap();
        let manifest = workspace
            .replace(
                "members = [\"plugin-api\", \"host\", \"plugins/*\", \"tests\", \"tests/plugins/*\"]",
                "members = [\"*\"]",
            )
            .replace("default-members = [\"host\", \"plugins/*\"]\n", "")
            .replace("version = \"0.1.0\"\nedition", &format!("version = \"{version}\"\nedition"))
            .replace("path = \"plugin-api\", version = \"0.1.0\"", "path = \"api\"");
        fs::write(root.join("Cargo.toml"), manifest).unwrap();
        fs::copy(format!("{API}/../Cargo.lock"), root.join("Cargo.lock")).unwrap();
        let own = fs::read_to_string(format!("{API}/Cargo.toml")).unwrap();
        let (own, _) = own.split_once("[dev-dependencies]").unwrap();
        fs::write(api.join("Cargo.toml"), own.replace("readme = \"README.md\"\n", "")).unwrap();
        let copy = Self { directory };
        copy.member("lab", "cdylib", &fs::read_to_string(format!("{API}/examples/minimal.rs")).unwrap());
        copy
    }

    fn member(&self, name: &str, kind: &str, source: &str) {
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = name.replace('-', "_");
        let target = if kind == "bin" { "[[bin]]" } else { "[lib]\ncrate-type = [\"cdylib\"]" };
        let manifest = format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n{target}\nname = \"{file}\"\npath = \"source.rs\"\n[dependencies]\n\
             atex-plugin-api = {{ workspace = true, features = [\"testkit\"] }}\nserde.workspace = true\n\
             schemars.workspace = true\nlibloading.workspace = true\n"
        );
        fs::write(directory.join("Cargo.toml"), manifest).unwrap();
        fs::write(directory.join("source.rs"), source).unwrap();
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.directory.path().join("api/src").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Builds a member; returns a copy of what was built, because all copies of the crate share one target directory.
    fn build(&self, name: &str, file: &str) -> PathBuf {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("versions");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-p", name, "--target-dir"]).arg(&target).current_dir(self.directory.path());
        let done = cargo.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let built = self.directory.path().join(file);
        fs::copy(target.join("debug").join(file), &built).unwrap();
        built
    }
}

/// A later version of the same range: each trait object and the root have something more.
fn later() -> Copy {
    let copy = Copy::new("0.1.7");
    let last = "fn capacity(&self, host: HostRef) -> RResult<u64, RawError>;";
    let more = "fn later(&self) -> u32 { 7 }";
    copy.edit("abi.rs", last, &format!("{last}\n    {more}"));
    let last = "fn info(&self) -> RString;";
    copy.edit("abi.rs", last, &format!("{last}\n    {more}"));
    let last = "config: RStr<'_>, host: HostRef) -> RResult<ReporterBox, RawError>,";
    copy.edit("abi.rs", last, &format!("{last}\n    pub later: extern \"C\" fn() -> u32,"));
    copy.edit(
        "export.rs",
        "PluginRoot { describe, provisioner, policy, reporter }",
        "PluginRoot { describe, provisioner, policy, reporter, later }",
    );
    copy.edit(
        "export.rs",
        "extern \"C\" fn root()",
        "extern \"C\" fn later() -> u32 { 7 }\n            extern \"C\" fn root()",
    );
    let last = "    /// Gives a machine back.\n";
    copy.edit(
        "host_side/provisioner.rs",
        last,
        &format!("    pub fn later(&self) -> u32 {{ self.0.later() }}\n{last}"),
    );
    copy.member("later-host", "bin", LATER_HOST);
    copy
}

#[test]
#[ignore = "builds copies of the API crate: about a minute"]
fn later_plugins_in_this_host_and_earlier_ones_in_a_later_host() {
    let copy = later();
    let lab_of_later = copy.build("lab", "liblab.so");
    let state = tempfile::tempdir().unwrap();
    let search = Search { libraries: vec![lab_of_later.clone()], ..Search::default() };
    let registry = Registry::open(search, state.path()).unwrap();
    assert_eq!(registry.libraries()[0].api().to_string(), "0.1.7");
    let lab = registry.provisioner("lab", "lab", &json!({"hosts": ["a"]})).unwrap();
    assert_eq!(lab.reserve(&Lease::new("a1", "run", "owner"), &Call::default()).unwrap().id, "a");

    let host = copy.build("later-host", "later_host");
    let ours = env!("CARGO_PKG_VERSION");
    for (plugin, version) in [(built::minimal(), ours), (lab_of_later.as_path(), "0.1.7")] {
        let done = Command::new(&host).arg(plugin).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        // What an earlier plugin does not have, has its default.
        assert_eq!(
            said,
            format!("host 0.1.7 plugin {version} machine a later 7\n"),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
#[ignore = "builds copies of the API crate: about a minute"]
fn plugins_of_another_range_and_changed_ones_are_refused() {
    let refusal = |copy: &Copy| match Library::open(&copy.build("lab", "liblab.so"), Trust::Warn) {
        Err(PluginError::Library { reason: Refusal::Incompatible(refused), .. }) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(
        refusal(&Copy::new("0.2.0")),
        format!(
            "it was built for atex-plugin-api 0.2.0, this host has {ours}, which is incompatible: rebuild it"
        )
    );
    let changed = Copy::new(ours);
    changed.edit("abi.rs", "pub retryable: u32,", "pub retryable: u64,");
    changed.edit(
        "convert.rs",
        "retryable: error.is_retryable().into(),",
        "retryable: u64::from(error.is_retryable()),",
    );
    let text = refusal(&changed);
    assert!(text.starts_with(&format!("it was built with a changed atex-plugin-api {ours}: ")), "{text}");
    assert_eq!(text.lines().count(), 1);
}
