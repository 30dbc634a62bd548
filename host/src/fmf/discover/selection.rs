//! Which nodes of a tree are tests of a plan, and which of those a run wants.

use std::sync::Arc;

use super::super::context::{Context, Outcome, Rule};
use super::super::expression::Condition;
use super::super::filter::{Filter, Verdict};
use super::super::merge::Merger;
use super::super::sharing::Sharing;
use super::super::regex::{self, Regex};
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

/// What filters and conditions look at. In dialect tmt, keys of tests that are not there have tmt's defaults (so that `tag:-x`
/// takes tests without tags), and filters know `true` as well as `True`.
pub(super) struct Seen<'a> {
    data: &'a Map,
    with_defaults: Option<Map>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(data: &'a Map, name: &str, dialect: Dialect) -> Self {
        let with_defaults = (dialect == Dialect::Tmt).then(|| with_defaults(data, name));
        Self { data, with_defaults }
    }

    fn data(&self) -> &Map {
        self.with_defaults.as_ref().unwrap_or(self.data)
    }

    pub(super) fn passes(&self, filters: &[Filter], name: &str) -> Result<bool, regex::Error> {
        if filters.is_empty() {
            return Ok(true);
        }
        let booleans = self.with_defaults.as_ref().map(spelled_booleans);
        let data = booleans.as_ref().unwrap_or_else(|| self.data());
        for filter in filters {
            if filter.check(Some(name), data)? != Verdict::Match {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn with_defaults(data: &Map, name: &str) -> Map {
    let mut all = data.clone();
    all.insert("name", Value::from(name));
    let empty = || Value::list(Vec::new());
    let defaults: [(&str, Value); 21] = [
        ("summary", Value::Null),
        ("description", Value::Null),
        ("contact", empty()),
        ("component", empty()),
        ("id", Value::Null),
        ("framework", Value::from("shell")),
        ("manual", Value::Bool(false)),
        ("tty", Value::Bool(false)),
        ("require", empty()),
        ("recommend", empty()),
        ("environment", Value::map(Map::new())),
        ("duration", Value::from("5m")),
        ("result", Value::from("respect")),
        ("check", empty()),
        ("enabled", Value::Bool(true)),
        ("order", Value::Int(50)),
        ("tag", empty()),
        ("tier", Value::Null),
        ("restart-on-exit-code", empty()),
        ("restart-max-count", Value::Int(1)),
        ("restart-with-reboot", Value::Bool(false)),
    ];
    for (key, value) in defaults {
        if all.get(key).is_none_or(Value::is_null) {
            all.insert(key, value);
        }
    }
    all
}

/// Each boolean in both spellings.
fn spelled_booleans(data: &Map) -> Map {
    let spelled = data.iter().map(|(key, value)| match value {
        Value::Bool(truth) => (key.clone(), Value::list(vec![value.clone(), Value::from(truth.to_string())])),
        other => (key.clone(), other.clone()),
    });
    spelled.collect()
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
        if self.filters.is_empty() && self.conditions.is_empty() {
            return Ok(true);
        }
        let seen = Seen::new(data, name, dialect);
        let bad = |cause| DiscoverError::Regex { option: "--filter", cause };
        if !seen.passes(&self.filters, name).map_err(bad)? {
            return Ok(false);
        }
        for condition in &self.conditions {
            let bad = |cause| DiscoverError::Condition { test: name.to_owned(), cause };
            if !condition.holds(seen.data()).map_err(bad)? {
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
