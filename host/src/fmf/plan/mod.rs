//! Plans of tmt: which tests to discover, how machines are prepared, and what comes from the environment.
//!
//! A plan is an enabled node that is not a test and says `discover` or `execute`. [`choose()`] finds those that are wanted, [`Plan::read`]
//! turns one into typed data; discovering its tests is [`discover`](super::discover)'s.
//!
//! What the host does not do is refused here, by file and key, wherever leaving it out could change a verdict: in `discover`,
//! `prepare`, `execute`, `finish`, and for plans of several machines. Elsewhere it is a warning.
//!
//! Variables in plans are not expanded: `$` has no meaning in metadata. Scripts get theirs from the shell that runs them.

mod choose;
pub(crate) mod environment;
mod phases;
mod section;

use std::path::Path;
use std::time::Duration;

pub(crate) use self::choose::choose;
pub(crate) use self::section::{Origin, Section, Source};

use super::context::{self, Context, Outcome, Rule};
use super::discover::error::{DiscoverError, Place};
use super::discover::reader::{Keys, Notes, plain};
use super::value::Map;
use super::{Node, Value};
use crate::config::{Dialect, nearest};
use crate::executor::spec::{Framework, Phase, Variables};

/// One entry of a step that is mapped to plugins: `provision`, `report`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `local`, `container`, `connect`, `virtual`, ...; `display`, `junit`, `html`, ...
    pub how: String,
    /// `name`, or `default-N`.
    pub name: String,
    /// All keys as they were written, those two included.
    pub data: Map,
    /// For messages: where it was written.
    pub place: Place,
    /// For messages: `provision`, `report[1]`.
    pub key: String,
}

/// A plan, read and checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// From `environment-file` and `environment`.
    pub(crate) environment: Variables,
    /// Dimensions that the plan adds to the context of its tests.
    pub(crate) context: Vec<(String, Vec<String>)>,
    pub(crate) sections: Vec<Section>,
    pub(crate) prepare: Vec<Phase>,
    pub(crate) finish: Vec<Phase>,
    pub(crate) provision: Vec<Step>,
    pub(crate) report: Vec<Step>,
    /// What tests are that do not say.
    pub(crate) framework: Framework,
}

/// What reading a plan needs to know.
pub(crate) struct Reading<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) context: &'a Context,
    pub(crate) root: &'a Path,
}

/// Keys of a plan that change nothing here.
const IGNORED: [&str; 14] = [
    "summary",
    "description",
    "contact",
    "component",
    "id",
    "tag",
    "tier",
    "link",
    "order",
    "enabled",
    "adjust",
    "author",
    "name",
    "gate",
];

/// Keys whose absence would make wrong verdicts.
const TELLING: [&str; 9] = [
    "discover",
    "prepare",
    "execute",
    "finish",
    "provision",
    "report",
    "context",
    "environment",
    "environment-file",
];

impl Plan {
    pub(crate) fn read(
        node: Node<'_>,
        reading: &Reading<'_>,
        notes: &mut Notes,
    ) -> Result<Self, DiscoverError> {
        let place = Place::of(node);
        let mut keys = Keys::new(&place, "", node.data());
        keys.ignore(&IGNORED);
        refuse_import(&mut keys, notes)?;
        let mut environment = environment::environment_files(&mut keys, reading.root, notes)?;
        for (name, value) in environment::environment(&mut keys)? {
            environment::set(&mut environment, &name, value);
        }
        let context = dimensions(&mut keys)?;
        let mut merged = merged_context(reading.context, &context);
        // tmt leaves case aside where metadata is adjusted, and only there.
        merged.ignore_case(false);
        let reading = &Reading { context: &merged, ..*reading };
        let execute = Execute::read(&mut keys, reading, notes)?;
        let sections = section::sections(&mut keys, execute.tests(), reading, notes)?;
        let provision = steps(&mut keys, "provision", reading)?;
        refuse_multihost(&place, &provision, notes)?;
        let plan = Self {
            environment,
            context,
            sections,
            prepare: phases::phases(&mut keys, "prepare", reading, notes)?,
            finish: phases::phases(&mut keys, "finish", reading, notes)?,
            provision,
            report: steps(&mut keys, "report", reading)?,
            framework: execute.framework,
            place: place.clone(),
        };
        for step in plan.report.iter().filter(|step| step.how != "display") {
            notes.warn(format!(
                "{}: `{}`: `how: {}` is not supported and left out; --reporter names what there is",
                step.place, step.key, step.how
            ));
        }
        for key in ["login", "cleanup", "reboot"] {
            if keys.value(key).is_some() {
                notes.warn(format!("the step `{key}` of plans is not supported and left out"));
            }
        }
        // Others may be inherited, or somebody's own.
        for key in keys.unknown() {
            if let Some(near) = nearest(&key, TELLING) {
                notes.warn(format!(
                    "{place}: `{key}` is no key of plans and left out; did you mean `{near}`?"
                ));
            }
        }
        Ok(plan)
    }
}

/// A plan that only points to one in another repository.
fn refuse_import(keys: &mut Keys<'_>, notes: &mut Notes) -> Result<(), DiscoverError> {
    let imports = keys.value("plan").and_then(|plan| plan.get("import"));
    match imports {
        Some(_) => notes.unsupported(keys.place(), "plan.import", "importing plans"),
        None => Ok(()),
    }
}

fn refuse_multihost(place: &Place, provision: &[Step], notes: &mut Notes) -> Result<(), DiscoverError> {
    if let [_, second, ..] = provision {
        notes.unsupported(place, &second.key, "more than one machine for a plan")?;
    }
    for step in provision {
        for key in ["role", "where"] {
            if step.data.get(key).is_some_and(Value::is_true) {
                notes.unsupported(place, format!("{}.{key}", step.key), format!("`{key}`"))?;
            }
        }
    }
    Ok(())
}

/// `execute`, as far as it matters.
struct Execute {
    scripts: Vec<String>,
    duration: Option<String>,
    framework: Framework,
}

impl Execute {
    fn read(keys: &mut Keys<'_>, reading: &Reading<'_>, notes: &mut Notes) -> Result<Self, DiscoverError> {
        let mut execute = Self { scripts: Vec::new(), duration: None, framework: Framework::Shell };
        let place = keys.place();
        let mut ways = 0;
        for (path, map) in keys.mappings("execute")? {
            let mut own = Keys::new(place, path, map);
            if !wanted(&mut own, reading.context)? {
                continue;
            }
            ways += 1;
            if ways > 1 {
                notes.unsupported(place, own.key("how"), "more than one way to execute")?;
                continue;
            }
            match own.text("how")?.as_deref() {
                None | Some("tmt") => {}
                Some(other) => notes.unsupported(place, own.key("how"), format!("{other:?}"))?,
            }
            own.ignore(&["name", "summary", "order", "no-progress-bar"]);
            for key in ["interactive", "exit-first", "restraint-compatible", "ignore-duration", "where"] {
                own.must_be_off(key, notes)?;
            }
            execute.scripts = own.texts("script")?;
            execute.duration = own.text("duration")?;
            execute.framework = framework(&mut own)?.unwrap_or_default();
            own.finish(notes)?;
        }
        Ok(execute)
    }

    /// Its scripts are tests without a name.
    fn tests(&self) -> Vec<Map> {
        let tests = self.scripts.iter().enumerate().map(|(index, script)| {
            let mut test = Map::new();
            test.insert("name", Value::from(format!("/script-{index:02}")));
            test.insert("test", Value::from(script.as_str()));
            if let Some(duration) = &self.duration {
                test.insert("duration", Value::from(duration.as_str()));
            }
            test
        });
        tests.collect()
    }
}

/// How long a test of `discover: how: shell` or `execute: script` may take that does not say.
pub(crate) const DEFAULT_SCRIPT_DURATION: Duration = Duration::from_hours(1);

pub(crate) fn framework(keys: &mut Keys<'_>) -> Result<Option<Framework>, DiscoverError> {
    match keys.text("framework")?.as_deref() {
        None => Ok(None),
        Some("shell") => Ok(Some(Framework::Shell)),
        Some("beakerlib") => Ok(Some(Framework::Beakerlib)),
        Some(other) => Err(keys.error("framework", format!("is {other:?}; it is one of shell, beakerlib"))),
    }
}

/// `context`: a mapping of dimensions to one or several values.
fn dimensions(keys: &mut Keys<'_>) -> Result<Vec<(String, Vec<String>)>, DiscoverError> {
    let mut dimensions = Vec::new();
    for (_, map) in keys.mappings("context")? {
        for (name, value) in map {
            let values: Option<Vec<String>> = value.items().iter().map(plain).collect();
            let values = values
                .ok_or_else(|| keys.error("context", format!("gives {name} something that is no text")))?;
            dimensions.push((name.to_string(), values));
        }
    }
    Ok(dimensions)
}

/// The context of the run, and what the plan says of dimensions that the run does not know.
pub(crate) fn merged_context(run: &Context, plan: &[(String, Vec<String>)]) -> Context {
    let mut merged = run.clone();
    for (dimension, values) in plan {
        if run.values(dimension).next().is_none() {
            for value in values {
                merged.add(dimension.as_str(), value);
            }
        }
    }
    merged
}

/// Whether `when` lets an entry be: one of its rules holds, or there is none. Undecided is no.
pub(crate) fn wanted(keys: &mut Keys<'_>, context: &Context) -> Result<bool, DiscoverError> {
    let Some(value) = keys.value("when") else { return Ok(true) };
    for item in value.items() {
        let rule = match item {
            Value::Bool(value) => Rule::from(*value),
            Value::Str(text) => Rule::parse(text).map_err(|cause| bad_rule(keys, text, &cause))?,
            _ => return Err(keys.error("when", "has to be a rule or a list of rules")),
        };
        let outcome = context.decide(&rule).map_err(|cause| bad_rule(keys, &item.to_string(), &cause))?;
        if outcome == Outcome::True {
            return Ok(true);
        }
    }
    Ok(false)
}

fn bad_rule(keys: &Keys<'_>, rule: &str, cause: &context::Error) -> DiscoverError {
    keys.error("when", format!("is {rule:?}: {cause}"))
}

/// Entries of a step that plugins do; those that `when` rules out are gone.
fn steps(keys: &mut Keys<'_>, key: &'static str, reading: &Reading<'_>) -> Result<Vec<Step>, DiscoverError> {
    let mut steps = Vec::new();
    for (index, (path, map)) in keys.mappings(key)?.into_iter().enumerate() {
        let mut own = Keys::new(keys.place(), path.clone(), map);
        if !wanted(&mut own, reading.context)? {
            continue;
        }
        let default = if key == "provision" { "virtual" } else { "display" };
        steps.push(Step {
            how: own.text("how")?.unwrap_or_else(|| default.to_owned()),
            name: own.text("name")?.unwrap_or_else(|| format!("default-{index}")),
            data: map.clone(),
            place: keys.place().clone(),
            key: path,
        });
    }
    Ok(steps)
}
