//! Adjusting a tree to a context: the rules under `adjust` that apply are merged into each node's data.
//!
//! Every node starts from its own inherited data; what a rule changes in a parent does not reach its children, but they
//! inherit the rule. What a rule says about a context is decided once per adjusting, as the same rules come again in
//! every descendant.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::{Context, Outcome, Rule};
use super::error::{AdjustProblem, Error};
use super::merge::Merger;
use super::tree::Tree;
use super::value::{Map, Value};
use super::view::View;

/// The keys of a rule that are not data.
const CONTROL: [&str; 3] = ["when", "because", "continue"];

/// How a tree is adjusted.
#[derive(Clone, Debug)]
pub struct Adjustment<'a> {
    pub context: &'a Context,
    /// The key that holds the rules.
    pub key: &'a str,
    pub undecided: Undecided,
    /// Rules for every node after its own, as under `adjust`: a mapping, a list of them, or null.
    pub extra_rules: Value,
}

impl<'a> Adjustment<'a> {
    /// The usual one.
    pub fn new(context: &'a Context) -> Self {
        Self { context, key: "adjust", undecided: Undecided::Skip, extra_rules: Value::Null }
    }
}

/// What to do with a rule that the context cannot decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecided {
    /// Go on with the next one.
    #[default]
    Skip,
    /// End with an error.
    Fail,
}

impl Tree {
    /// The tree under a context. Any rule that cannot be used ends it for all nodes.
    pub fn adjust(self: &Arc<Self>, adjustment: &Adjustment<'_>) -> Result<View, Error> {
        let mut adjuster = Adjuster { adjustment, decided: HashMap::new(), merger: Merger::new() };
        let mut changed = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let at = |cause| Error::Adjust { node: node.name.to_string(), cause };
            changed.push(adjuster.adjust(&node.data).map_err(at)?.map(Arc::new));
        }
        Ok(View::adjusted(self.clone(), changed))
    }
}

struct Adjuster<'a> {
    adjustment: &'a Adjustment<'a>,
    /// What each rule seen so far says.
    decided: HashMap<Arc<str>, Outcome>,
    merger: Merger,
}

impl Adjuster<'_> {
    /// The changed data, if any rule applies.
    fn adjust(&mut self, data: &Map) -> Result<Option<Map>, AdjustProblem> {
        let mut changed = None;
        match data.get(self.adjustment.key) {
            None => {}
            Some(Value::Map(rule)) => _ = self.apply(rule, data, &mut changed)?,
            Some(Value::List(rules)) => self.apply_all(rules, data, &mut changed)?,
            Some(other) => {
                let key = self.adjustment.key.to_owned();
                return Err(AdjustProblem::Rules { key, found: other.type_name() });
            }
        }
        match &self.adjustment.extra_rules {
            Value::Null => {}
            Value::Map(rule) => _ = self.apply(rule, data, &mut changed)?,
            Value::List(rules) => self.apply_all(rules, data, &mut changed)?,
            other => return Err(AdjustProblem::Rule { found: other.type_name() }),
        }
        Ok(changed)
    }

    fn apply_all(
        &mut self,
        rules: &[Value],
        data: &Map,
        changed: &mut Option<Map>,
    ) -> Result<(), AdjustProblem> {
        for rule in rules {
            let Some(rule) = rule.as_map() else {
                return Err(AdjustProblem::Rule { found: rule.type_name() });
            };
            if !self.apply(rule, data, changed)? {
                break;
            }
        }
        Ok(())
    }

    /// Merges the rule if it applies; false if the rules after it do not count then.
    fn apply(&mut self, rule: &Map, data: &Map, changed: &mut Option<Map>) -> Result<bool, AdjustProblem> {
        let goes_on = match rule.get("continue") {
            None => true,
            Some(Value::Bool(value)) => *value,
            Some(other) => return Err(AdjustProblem::Continue { found: other.repr() }),
        };
        if !self.applies(rule)? {
            return Ok(true);
        }
        if changed.is_none() {
            self.merger.count_copy(data.len()).map_err(super::merge::Error::from)?;
        }
        let target = changed.get_or_insert_with(|| data.clone());
        self.merger.merge_except(target, rule, &CONTROL)?;
        Ok(goes_on)
    }

    fn applies(&mut self, rule: &Map) -> Result<bool, AdjustProblem> {
        let text = match rule.get("when") {
            None => return Ok(true),
            Some(Value::Bool(value)) => return Ok(*value),
            Some(Value::Str(text)) => text,
            Some(other) => return Err(AdjustProblem::When { found: other.type_name() }),
        };
        match self.decide(text)? {
            Outcome::True => Ok(true),
            Outcome::False => Ok(false),
            Outcome::Undecided => match self.adjustment.undecided {
                Undecided::Skip => Ok(false),
                Undecided::Fail => Err(AdjustProblem::Undecided { rule: text.to_string() }),
            },
        }
    }

    fn decide(&mut self, text: &Arc<str>) -> Result<Outcome, AdjustProblem> {
        if let Some(known) = self.decided.get(text) {
            return Ok(*known);
        }
        let outcome = Rule::parse(text).and_then(|rule| self.adjustment.context.decide(&rule));
        let outcome = outcome.map_err(|cause| AdjustProblem::Condition { rule: text.to_string(), cause })?;
        self.decided.insert(text.clone(), outcome);
        Ok(outcome)
    }
}
