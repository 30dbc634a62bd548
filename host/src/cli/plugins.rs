//! What `plugins list` and `plugins check` print, and the files that `plugins new` makes.
//!
//! `plugins list` for people has one line per plugin: kind, name, what it is for, and the library with its version. As JSON
//! it is an array with one object per plugin:
//!
//! ```json
//! {"kind": "policy", "name": "reruns", "path": "/...", "about": "...", "library": "atex-policy-reruns", "version": "0.1.0",
//!  "api": "0.1.0", "capabilities": [], "schema": {}}
//! ```
//!
//! One that cannot be used has `error` instead of what follows `path`. `plugins check` has one line, or one object with
//! `gravity` (`good`, `doubtful`, `bad`) and `text`, per finding. `plugins check --live` prints lines as it goes, as JSON an
//! object each: `pool` with `plugin`, `reserves` and `at-a-time` before anything is done, then `pool`, `check`, `outcome`
//! (`passed`, `failed`, `skipped`), `why` and `seconds` per check, then `pool` and `summary`. Fields may be added.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atex_plugin_api::host_side::templates;
use atex_plugin_api::testkit::{Check, Outcome};
use serde_json::{Value as Json, json};

use super::NewPlugin;
use crate::plugin::{Finding, Gravity, Kind, Listed};
use crate::text::printable;

/// All plugins, for people.
pub fn list_text(out: &mut impl Write, all: &[Listed]) -> io::Result<()> {
    let kinds = all.iter().map(|one| one.kind.word().len()).max().unwrap_or(0);
    let names = all.iter().map(|one| one.name.chars().count()).max().unwrap_or(0);
    for one in all {
        write!(out, "{:kinds$}  {:names$}  ", one.kind.word(), one.name)?;
        match &one.offer {
            Ok(offer) => {
                let library = offer.library().description();
                let about = printable(&offer.provided().about);
                writeln!(out, "{about} ({} {})", printable(&library.library), printable(&library.version))?;
            }
            Err(error) => writeln!(out, "unusable: {}", printable(&error.to_string()))?,
        }
    }
    Ok(())
}

/// All plugins, for scripts.
pub fn list_json(out: &mut impl Write, all: &[Listed]) -> io::Result<()> {
    let all: Vec<Json> = all.iter().map(listed).collect();
    serde_json::to_writer(&mut *out, &all)?;
    writeln!(out)
}

fn listed(one: &Listed) -> Json {
    let mut json = json!({"kind": one.kind, "name": one.name, "path": one.path.to_string_lossy()});
    match &one.offer {
        Ok(offer) => {
            let (library, provided) = (offer.library().description(), offer.provided());
            json["about"] = provided.about.as_str().into();
            json["library"] = library.library.as_str().into();
            json["version"] = library.version.as_str().into();
            json["api"] = offer.library().api().to_string().into();
            json["capabilities"] = provided.capabilities.clone().into();
            json["schema"] = provided.schema.clone();
        }
        Err(error) => json["error"] = error.to_string().into(),
    }
    json
}

/// The findings about a library, for people.
pub fn check_text(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        let word = match finding.gravity {
            Gravity::Good => "good",
            Gravity::Doubtful => "doubtful",
            Gravity::Bad => "bad",
        };
        writeln!(out, "{word:8}  {}", printable(&finding.text))?;
    }
    Ok(())
}

/// The findings about a library, for scripts.
pub fn check_json(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let findings: Vec<Json> = findings
        .iter()
        .map(|finding| {
            let gravity = match finding.gravity {
                Gravity::Good => "good",
                Gravity::Doubtful => "doubtful",
                Gravity::Bad => "bad",
            };
            json!({"gravity": gravity, "text": finding.text})
        })
        .collect();
    serde_json::to_writer(&mut *out, &findings)?;
    writeln!(out)
}

/// What is about to happen to a pool.
pub fn live_headline(pool: &str, plugin: &str, machines: u32, parallel: u32, json: bool) -> String {
    if json {
        return json!({"pool": pool, "plugin": plugin, "reserves": machines, "at-a-time": parallel})
            .to_string();
    }
    let (pool, plugin) = (printable(pool), printable(plugin));
    format!(
        "pool {pool} (provisioner {plugin}): reserves up to {machines} real machines, {parallel} at a time at most, and gives \
         them back"
    )
}

/// One check that is through.
pub fn live_check(pool: &str, check: &Check, json: bool) -> String {
    if json {
        let (outcome, why) = match &check.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(why) => ("failed", Some(why)),
            Outcome::Skipped(why) => ("skipped", Some(why)),
        };
        let seconds = check.took.as_secs_f64();
        return json!({"pool": pool, "check": check.name, "outcome": outcome, "why": why, "seconds": seconds})
            .to_string();
    }
    format!("{} ({:.1} s)", printable(&check.to_string()), check.took.as_secs_f64())
}

/// How it ended; `left` leases may still hold a machine.
pub fn live_summary(pool: &str, checks: &[Check], left: usize, json: bool) -> String {
    let count = |wanted: fn(&Outcome) -> bool| checks.iter().filter(|check| wanted(&check.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    if json {
        let summary = json!({"passed": passed, "failed": failed, "skipped": skipped, "left": left});
        return json!({"pool": pool, "summary": summary}).to_string();
    }
    let held = if left == 0 { "" } else { "; machines may still be held: atex-host gc" };
    format!("pool {}: {passed} ok, {failed} failed, {skipped} skipped{held}", printable(pool))
}

/// Whether any check failed.
pub fn live_failed(checks: &[Check]) -> bool {
    checks.iter().any(|check| matches!(check.outcome, Outcome::Failed(_)))
}

/// Where a new plugin finds the crate it is built against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiCrate {
    /// A directory; relative to the new crate's own, or absolute.
    Directory(PathBuf),
    /// A registry.
    Version(String),
}

/// The files of a new plugin, relative to its directory.
pub fn skeleton(name: &str, kind: NewPlugin, api: &ApiCrate) -> Vec<(&'static Path, String)> {
    let (kind, template) = match kind {
        NewPlugin::Provisioner => (Kind::Provisioner, templates::PROVISIONER),
        NewPlugin::Policy => (Kind::Policy, templates::POLICY),
        NewPlugin::Reporter => (Kind::Reporter, templates::REPORTER),
    };
    vec![
        (Path::new("Cargo.toml"), manifest(name, kind, api)),
        (Path::new("src/lib.rs"), source(name, kind, template)),
        (Path::new(".gitignore"), "/target\n".to_owned()),
    ]
}

fn manifest(name: &str, kind: Kind, api: &ApiCrate) -> String {
    // A TOML string, by way of JSON's, which is one.
    let quoted = |text: &str| Json::from(text).to_string();
    let api = match api {
        ApiCrate::Directory(path) => format!("path = {}", quoted(&path.to_string_lossy())),
        ApiCrate::Version(version) => format!("version = {}", quoted(version)),
    };
    format!(
        r#"[package]
name = "atex-{kind}-{name}"
version = "0.1.0"
edition = "2024"
# A plugin becomes part of the host's process, whose licence is this one.
license = "GPL-3.0-or-later"

[lib]
crate-type = ["cdylib"]

[dependencies]
atex-plugin-api = {{ {api} }}
schemars = "1"
serde = {{ version = "1", features = ["derive"] }}

[dev-dependencies]
atex-plugin-api = {{ {api}, features = ["testkit"] }}

# A workspace of its own, wherever it lies.
[workspace]
"#
    )
}

/// The template with the plugin's name where its own was.
fn source(name: &str, kind: Kind, template: &str) -> String {
    template
        .replace(&format!("{kind} \"mine\""), &format!("{kind} \"{name}\""))
        .replace("use: mine", &format!("use: {name}"))
        .replace(" `mine`:", &format!(" `{name}`:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_plugin_has_its_own_name_everywhere() {
        for (kind, word) in [
            (NewPlugin::Provisioner, "provisioner"),
            (NewPlugin::Policy, "policy"),
            (NewPlugin::Reporter, "reporter"),
        ] {
            let files = skeleton("acme-lab", kind, &ApiCrate::Version("0.1.0".to_owned()));
            let text = |name: &str| &files.iter().find(|(path, _)| *path == Path::new(name)).unwrap().1;
            assert!(text("Cargo.toml").contains(&format!("name = \"atex-{word}-acme-lab\"")));
            let source = text("src/lib.rs");
            assert!(source.contains(&format!("export_plugin!({word} \"acme-lab\" => Mine)")), "{source}");
            assert!(source.contains("use: acme-lab") && !source.contains("\"mine\""), "{source}");
        }
    }

    #[test]
    fn strange_directories_are_quoted() {
        let api = ApiCrate::Directory(PathBuf::from("/a \"b\"/c"));
        assert!(manifest("x", Kind::Policy, &api).contains(r#"atex-plugin-api = { path = "/a \"b\"/c" }"#));
    }

    #[test]
    fn live_checks_are_printed() {
        let check = |outcome| Check { name: "x", outcome, took: std::time::Duration::from_millis(1500) };
        let checks = [
            check(Outcome::Passed),
            check(Outcome::Failed("no\u{1b}".to_owned())),
            check(Outcome::Skipped("not here".to_owned())),
        ];
        let lines: Vec<String> = checks.iter().map(|check| live_check("lab", check, false)).collect();
        assert_eq!(
            lines,
            ["ok       x (1.5 s)", "FAILED   x: no\\u{1b} (1.5 s)", "skipped  x: not here (1.5 s)"]
        );
        let line: Json = serde_json::from_str(&live_check("lab", &checks[1], true)).unwrap();
        assert_eq!(
            line,
            json!({"pool": "lab", "check": "x", "outcome": "failed", "why": "no\u{1b}", "seconds": 1.5})
        );
        assert!(live_summary("lab", &checks, 1, false).contains("1 ok, 1 failed, 1 skipped; machines may"));
        assert!(live_failed(&checks) && !live_failed(&checks[..1]));
    }

    #[test]
    fn findings_are_printed() {
        let findings = [
            Finding { gravity: Gravity::Good, text: "library x".to_owned() },
            Finding { gravity: Gravity::Bad, text: "no\u{1b}".to_owned() },
        ];
        let (mut text, mut json) = (vec![], vec![]);
        check_text(&mut text, &findings).unwrap();
        check_json(&mut json, &findings).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "good      library x\nbad       no\\u{1b}\n");
        let json: Json = serde_json::from_slice(&json).unwrap();
        assert_eq!(json[0], json!({"gravity": "good", "text": "library x"}));
    }
}
