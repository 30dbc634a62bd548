//! One test: its metadata read, checked and typed.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::duration;
use super::super::library::Needs;
use super::super::plan::{environment, framework};
use super::super::value::{Map, Value};
use super::error::{DiscoverError, Place};
use super::reader::{Keys, Notes, plain};
use crate::config::Dialect;
use crate::executor::spec::{Check, CheckRule, Framework, Packages, Restart, ResultRule, Variables};

/// Where tests stand that do not say.
const DEFAULT_ORDER: i64 = 50;
/// The most that `restart-max-count` may say.
const MAX_RESTARTS: i64 = 10;

/// A test of a plan, as one platform sees it.
#[derive(Debug, Clone)]
pub struct DiscoveredTest {
    /// Unique within the plan. May hold anything but control characters: show it through [`printable`](super::printable).
    pub name: Arc<str>,
    /// The name of the FMF node; `name` without the section's.
    pub node: Arc<str>,
    /// Directory in which it runs, relative to the root on the machine; empty for the root.
    pub cwd: String,
    /// For bash.
    pub script: Arc<str>,
    pub duration: Duration,
    /// From its own `environment` only.
    pub environment: Arc<Variables>,
    pub tty: bool,
    pub framework: Framework,
    /// From `require` and `recommend`, those of its libraries included.
    pub packages: Arc<Packages>,
    /// Always [`ResultRule::Respect`] in dialect atex.
    pub result: ResultRule,
    pub restart: Option<Restart>,
    pub checks: Vec<Check>,
    /// tmt's `order`: small is early.
    pub order: i64,
    /// The last file its data came from.
    pub source: Option<Arc<Path>>,
    /// The final data, with the key `adjust` that is not part of the [`metadata`](Self::metadata).
    pub(crate) data: Arc<Map>,
}

impl DiscoveredTest {
    /// The final metadata with the final name: for `TMT_TEST_METADATA` and `show`.
    pub fn metadata(&self) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name", Value::Str(self.name.clone()));
        for (key, value) in self.data.iter() {
            if !matches!(key.as_str(), Some("adjust" | "name")) {
                metadata.insert(key.clone(), value.clone());
            }
        }
        Value::map(metadata)
    }

    /// A key as policies see it: a list joined by line ends, what else is no text as JSON, nothing if absent.
    pub fn attribute(&self, key: &str) -> String {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::Str(text) => text.to_string(),
            other => other.to_json().to_string(),
        };
        match self.data.get(key) {
            None => String::new(),
            Some(Value::List(items)) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
            Some(value) => text(value),
        }
    }

    /// A key of the metadata.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.data.get(key)
    }

    /// The texts under `tag`.
    pub fn tags(&self) -> Vec<String> {
        self.data.get("tag").map_or(&[] as &[Value], Value::items).iter().filter_map(plain).collect()
    }

    /// The keys that begin with `extra-`.
    pub fn extra(&self) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.data.iter().filter_map(|(key, value)| Some((key.as_str()?, value)));
        entries.filter(|(key, _)| key.starts_with("extra-"))
    }
}

/// What a test is made from.
pub(super) struct Raw {
    pub(super) name: Arc<str>,
    pub(super) node: Arc<str>,
    pub(super) place: Place,
    pub(super) data: Arc<Map>,
    /// The directory of its file, relative to the root of its tree.
    pub(super) directory: PathBuf,
    /// The root of its tree, relative to the root on the machine.
    pub(super) root: Arc<str>,
    pub(super) default_duration: Duration,
    pub(super) default_framework: Framework,
}

impl Raw {
    /// The test, and what is left to resolve: what it requires and recommends.
    pub(super) fn read(
        self,
        dialect: Dialect,
        notes: &mut Notes,
    ) -> Result<(DiscoveredTest, Needs), DiscoverError> {
        let mut keys = Keys::new(&self.place, "", &self.data);
        for key in ["where", "role"] {
            keys.must_be_off(key, notes)?;
        }
        keys.texts("tag")?;
        let test = DiscoveredTest {
            cwd: cwd(&mut keys, &self.root, &self.directory)?,
            script: script(&mut keys, notes)?,
            duration: duration_of(&mut keys, self.default_duration)?,
            environment: Arc::new(environment::environment(&mut keys)?),
            tty: keys.flag("tty")?.unwrap_or(false),
            framework: framework(&mut keys)?.unwrap_or(self.default_framework),
            packages: Arc::default(),
            result: if dialect == Dialect::Tmt { result(&mut keys)? } else { ResultRule::Respect },
            restart: restart(&mut keys)?,
            checks: checks(&mut keys, notes)?,
            order: keys.number("order")?.unwrap_or(DEFAULT_ORDER),
            source: self.place.file.clone(),
            name: self.name,
            node: self.node,
            data: self.data.clone(),
        };
        Ok((test, Needs::read(&mut keys)?))
    }
}

/// The directory of the test's file and its `path`: relative to it, or, with a slash in front, to the root of the tree.
fn cwd(keys: &mut Keys<'_>, root: &str, directory: &Path) -> Result<String, DiscoverError> {
    let mut way: Vec<String> = Vec::new();
    let path = keys.text("path")?;
    let inside = match path.as_deref() {
        Some(path) => match path.strip_prefix('/') {
            Some(from_root) => PathBuf::from(from_root.trim_start_matches('/')),
            None => directory.join(path),
        },
        None => directory.to_owned(),
    };
    for component in inside.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if way.pop().is_some() => {}
            Component::Normal(name) => match name.to_str() {
                Some(name) => way.push(name.to_owned()),
                None => {
                    return Err(keys.error("path", "the directory of the test has a name that is not UTF-8"));
                }
            },
            _ => {
                return Err(keys
                    .error("path", format!("is {:?}, which is outside the tree", path.unwrap_or_default())));
            }
        }
    }
    let inside = way.join("/");
    let parts = [root, inside.as_str()].into_iter().filter(|part| !part.is_empty());
    Ok(parts.collect::<Vec<_>>().join("/"))
}

/// `test: true` is the command `true`, whatever YAML takes it for.
fn script(keys: &mut Keys<'_>, notes: &mut Notes) -> Result<Arc<str>, DiscoverError> {
    match keys.value("test") {
        None => {
            // An empty script would pass.
            notes.warn(format!("{}: `test` is empty: the test will fail", keys.place()));
            Ok("echo 'the key test is empty' >&2; exit 1".into())
        }
        Some(Value::Str(script)) => Ok(script.clone()),
        Some(value) => {
            let text = plain(value)
                .ok_or_else(|| keys.error("test", format!("has to be a command, not {}", value.repr())))?;
            Ok(text.into())
        }
    }
}

fn duration_of(keys: &mut Keys<'_>, default: Duration) -> Result<Duration, DiscoverError> {
    match keys.text("duration")? {
        None => Ok(default),
        Some(text) => duration::parse(&text, default)
            .map_err(|cause| keys.error("duration", format!("is {text:?}, which {cause}"))),
    }
}

fn result(keys: &mut Keys<'_>) -> Result<ResultRule, DiscoverError> {
    let Some(word) = keys.text("result")? else { return Ok(ResultRule::Respect) };
    Ok(match word.as_str() {
        "respect" => ResultRule::Respect,
        "xfail" => ResultRule::Xfail,
        "pass" => ResultRule::Pass,
        "info" => ResultRule::Info,
        "warn" => ResultRule::Warn,
        "error" => ResultRule::Error,
        "fail" => ResultRule::Fail,
        "skip" => ResultRule::Skip,
        "custom" => ResultRule::Custom,
        "restraint" => ResultRule::Restraint,
        other => {
            let known = "respect, xfail, pass, info, warn, error, fail, skip, custom, restraint";
            return Err(keys.error("result", format!("is {other:?}; it is one of {known}")));
        }
    })
}

fn restart(keys: &mut Keys<'_>) -> Result<Option<Restart>, DiscoverError> {
    let mut codes = Vec::new();
    if let Some(value) = keys.value("restart-on-exit-code") {
        for item in value.items() {
            let code = item.as_i64().filter(|code| (0..=255).contains(code));
            let wrong = || {
                keys.error("restart-on-exit-code", format!("has {}, which is no exit status", item.repr()))
            };
            codes.push(code.ok_or_else(wrong)? as i32);
        }
    }
    let max = keys.number("restart-max-count")?.unwrap_or(1);
    if !(0..=MAX_RESTARTS).contains(&max) {
        return Err(keys.error("restart-max-count", format!("is {max}; it is at most {MAX_RESTARTS}")));
    }
    let with_reboot = keys.flag("restart-with-reboot")?.unwrap_or(false);
    let idle = codes.is_empty() || max == 0;
    Ok(if idle { None } else { Some(Restart { codes, max: max as u8, with_reboot }) })
}

/// `check`: names, or mappings with `how`.
fn checks(keys: &mut Keys<'_>, notes: &mut Notes) -> Result<Vec<Check>, DiscoverError> {
    let Some(value) = keys.value("check") else { return Ok(Vec::new()) };
    let mut checks = Vec::new();
    for (index, item) in value.items().iter().enumerate() {
        let mut named = Map::new();
        let map = match item {
            Value::Str(how) => {
                named.insert("how", Value::Str(how.clone()));
                &named
            }
            Value::Map(map) => map,
            other => {
                return Err(
                    keys.error("check", format!("has {}, neither a name nor a mapping", other.repr()))
                );
            }
        };
        let own = Keys::new(keys.place(), format!("check[{index}]"), map);
        checks.extend(check(own, notes)?);
    }
    Ok(checks)
}

fn check(mut keys: Keys<'_>, notes: &mut Notes) -> Result<Option<Check>, DiscoverError> {
    let how = keys.text("how")?.ok_or_else(|| keys.error("how", "is missing"))?;
    if !keys.flag("enabled")?.unwrap_or(true) {
        return Ok(None);
    }
    // `watchdog` is for machines that hang. The host notices those by itself, and what the check is about, resetting them in
    // the middle of a test, is not there.
    if !matches!(how.as_str(), "dmesg" | "avc" | "coredump" | "journal") {
        notes.unsupported(keys.place(), keys.key("how"), format!("the check {how:?}"))?;
        return Ok(None);
    }
    let result = match keys.text("result")?.as_deref() {
        None | Some("respect") => CheckRule::Respect,
        Some("xfail") => CheckRule::Xfail,
        Some("info") => CheckRule::Info,
        Some(other) => {
            return Err(keys.error("result", format!("is {other:?}; it is one of respect, xfail, info")));
        }
    };
    let failure_patterns = keys.texts("failure-pattern")?;
    // The rest is the check's own.
    Ok(Some(Check { how, result, failure_patterns }))
}
