//! Which nodes of a tree are tests of a plan, and which of those a run wants.

use std::sync::Arc;

use super::super::context::{Context, Outcome, Rule};
use super::super::expression::Condition;
use super::super::filter::{Filter, Verdict};
use super::super::merge::Merger;
use super::super::regex::{self, Regex};
use super::super::sharing::Sharing;
use super::super::value::{Map, Value};
use super::error::{DiscoverError, Place};
use crate::config::{AdjustRule, Dialect, Selection};

/// Keys of an adjust rule of the configuration that are not metadata.
const CONTROL: [&str; 4] = ["test", "when", "because", "continue"];

/// Whether a node is a test that can be run: it has a test, is enabled, and is neither manual nor a story.
pub(super) fn is_runnable(data: &Map) -> bool {
    let is_true = |key| data.get(key).is_some_and(Value::is_true);
    data.contains_key("test")
        && data.get("enabled").is_none_or(Value::is_true)
        && !is_true("manual")
        && !is_true("story")
}

/// Regular expressions that are searched in names.
pub(super) struct Patterns {
    option: &'static str,
    patterns: Vec<Regex>,
}

impl Patterns {
    pub(super) fn new(option: &'static str, patterns: &[String]) -> Result<Self, DiscoverError> {
        let patterns: Result<_, _> = patterns.iter().map(|pattern| Regex::new(pattern)).collect();
        Ok(Self { option, patterns: patterns.map_err(|cause| DiscoverError::Regex { option, cause })? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of them is found.
    pub(super) fn found_in(&self, name: &str) -> Result<bool, DiscoverError> {
        for pattern in &self.patterns {
            if pattern.search(name).map_err(|cause| DiscoverError::Regex { option: self.option, cause })? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a test passes all filters.
///
/// In dialect tmt, keys of tests that are not there have tmt's defaults (so that `tag:-x` takes tests without tags), and
/// booleans are spelled `true` as well as `True`.
pub(super) fn passes(
    filters: &[Filter],
    name: &str,
    data: &Map,
    dialect: Dialect,
) -> Result<bool, regex::Error> {
    for filter in filters {
        let verdict = match dialect {
            Dialect::Atex => filter.check(Some(name), data)?,
            Dialect::Tmt => filter.check(Some(name), &looked_at(filter, name, data))?,
        };
        if verdict != Verdict::Match {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Just the keys that a filter looks at, as tmt has them.
fn looked_at(filter: &Filter, name: &str, data: &Map) -> Map {
    let mut seen = Map::new();
    for key in filter.keys() {
        let value = if key == "name" { Some(Value::from(name)) } else { value_of(key, data) };
        match value {
            Some(Value::Bool(truth)) => {
                seen.insert(key, Value::list(vec![Value::Bool(truth), Value::from(truth.to_string())]));
            }
            Some(value) => _ = seen.insert(key, value),
            None => {}
        }
    }
    seen
}

/// What conditions look at: as filters do, the defaults in dialect tmt, but booleans as they are.
fn names_of(data: &Map, name: &str, dialect: Dialect) -> Map {
    let mut all = data.clone();
    if dialect == Dialect::Tmt {
        all.insert("name", Value::from(name));
        for key in KEYS_WITH_DEFAULTS {
            if let Some(value) = value_of(key, data) {
                all.insert(key, value);
            }
        }
    }
    all
}

/// The value of a key that is there and not null, or else the default.
fn value_of(key: &str, data: &Map) -> Option<Value> {
    let own = data.get(key);
    own.filter(|value| !value.is_null()).cloned().or_else(|| default_of(key)).or_else(|| own.cloned())
}

const KEYS_WITH_DEFAULTS: [&str; 21] = [
    "summary",
    "description",
    "contact",
    "component",
    "id",
    "framework",
    "manual",
    "tty",
    "require",
    "recommend",
    "environment",
    "duration",
    "result",
    "check",
    "enabled",
    "order",
    "tag",
    "tier",
    "restart-on-exit-code",
    "restart-max-count",
    "restart-with-reboot",
];

/// What tmt takes a key of a test for that is not there.
fn default_of(key: &str) -> Option<Value> {
    Some(match key {
        "summary" | "description" | "id" | "tier" => Value::Null,
        "contact" | "component" | "require" | "recommend" | "check" | "tag" | "restart-on-exit-code" => {
            Value::list(Vec::new())
        }
        "manual" | "tty" | "restart-with-reboot" => Value::Bool(false),
        "enabled" => Value::Bool(true),
        "framework" => Value::from("shell"),
        "duration" => Value::from("5m"),
        "result" => Value::from("respect"),
        "environment" => Value::map(Map::new()),
        "order" => Value::Int(50),
        "restart-max-count" => Value::Int(1),
        _ => return None,
    })
}

/// What narrows a run further than its plan does.
pub(super) struct Narrowing {
    test: Patterns,
    exclude: Patterns,
    filters: Vec<Filter>,
    conditions: Vec<Condition>,
}

impl Narrowing {
    pub(super) fn new(selection: &Selection) -> Result<Self, DiscoverError> {
        let bad = |cause| DiscoverError::Condition { test: "every test".into(), cause };
        let conditions: Result<_, _> =
            selection.condition.iter().map(|text| Condition::parse(text)).collect();
        Ok(Self {
            test: Patterns::new("--test", &selection.test)?,
            exclude: Patterns::new("--exclude", &selection.exclude)?,
            filters: selection.filter.iter().map(|text| Filter::new(text)).collect(),
            conditions: conditions.map_err(bad)?,
        })
    }

    pub(super) fn takes(&self, name: &str, data: &Map, dialect: Dialect) -> Result<bool, DiscoverError> {
        if !self.test.is_empty() && !self.test.found_in(name)? || self.exclude.found_in(name)? {
            return Ok(false);
        }
        let bad = |cause| DiscoverError::Regex { option: "--filter", cause };
        if !passes(&self.filters, name, data, dialect).map_err(bad)? {
            return Ok(false);
        }
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let names = names_of(data, name, dialect);
        for condition in &self.conditions {
            let bad = |cause| DiscoverError::Condition { test: name.to_owned(), cause };
            if !condition.holds(&names).map_err(bad)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The rules of the configuration that have the last word on metadata.
pub(super) struct LastWords {
    rules: Vec<LastWord>,
    merger: Merger,
}

struct LastWord {
    test: Option<Patterns>,
    applies: bool,
    goes_on: bool,
    keys: Map,
}

impl LastWords {
    pub(super) fn new(rules: &[AdjustRule], context: &Context) -> Result<Self, DiscoverError> {
        let read = |(index, rule): (usize, &AdjustRule)| {
            let wrong = |problem: String| {
                let place = Place { file: None, node: "atex.yaml".into() };
                DiscoverError::Adjust { place, number: index + 1, problem }
            };
            let keys = match Value::from(&serde_json::Value::Object(rule.keys.clone())) {
                Value::Map(keys) => Map::clone(&keys),
                _ => Map::new(),
            };
            let applies = match keys.get("when") {
                None => true,
                Some(Value::Bool(value)) => *value,
                Some(when) => {
                    let outcome = Rule::parse(&when.to_string()).and_then(|rule| context.decide(&rule));
                    outcome.map_err(|cause| wrong(format!("`when`: {cause}")))? == Outcome::True
                }
            };
            let goes_on = keys.get("continue").is_none_or(Value::is_true);
            let test = rule
                .test
                .as_ref()
                .map(|test| Patterns::new("adjust", std::slice::from_ref(test)))
                .transpose()?;
            Ok(LastWord { test, applies, goes_on, keys })
        };
        let rules: Result<_, DiscoverError> = rules.iter().enumerate().map(read).collect();
        Ok(Self { rules: rules?, merger: Merger::new(Sharing::default()) })
    }

    /// The data with what the rules say of a test of that name.
    pub(super) fn apply(
        &mut self,
        place: &Place,
        name: &str,
        data: Arc<Map>,
    ) -> Result<Arc<Map>, DiscoverError> {
        let mut data = data;
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.applies || !rule.test.as_ref().map_or(Ok(true), |test| test.found_in(name))? {
                continue;
            }
            let wrong =
                |problem: String| DiscoverError::Adjust { place: place.clone(), number: index + 1, problem };
            self.merger.count_copy(data.len()).map_err(|cause| wrong(cause.to_string()))?;
            self.merger
                .merge_except(Arc::make_mut(&mut data), &rule.keys, &CONTROL)
                .map_err(|cause| wrong(cause.to_string()))?;
            if !rule.goes_on {
                break;
            }
        }
        Ok(data)
    }
}
