//! Adjusting a tree to a context: the rules under `adjust` that apply are merged into each node's data.
//!
//! Every node starts from its own inherited data; what a rule changes in a parent does not reach its children, but they
//! inherit the rule. What a rule says about a context is decided once per adjusting, as the same rules come again in
//! every descendant.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::{Context, Outcome, Rule};
use super::error::{AdjustProblem, Error, Limit};
use super::merge::Merger;
use super::tree::Tree;
use super::value::{KnownKeys, Map, Value};
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
        let merger = Merger::new(self.sharing.clone());
        let mut adjuster = Adjuster { adjustment, decided: HashMap::new(), merger };
        let mut known_keys = KnownKeys::default();
        let mut changed = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let at = |cause| Error::Adjust { node: node.name.to_string(), cause };
            let data = adjuster.adjust(&node.data).map_err(at)?;
            changed.push(data.map(|mut data| {
                data.compact(&mut known_keys);
                Arc::new(data)
            }));
        }
        let mut sharing = adjuster.merger.into_sharing();
        for (node, changed) in self.nodes.iter().zip(&mut changed) {
            let data = changed.as_ref().unwrap_or(&node.data);
            if let Some(current) = sharing.resolve_map(data)? {
                *changed = Some(Arc::new(current));
            }
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
    ///
    /// A mapping that a rule puts into the data stays in the rule, which is data as well: a later rule that changes it
    /// changes both. That is rare, and following it is costly; so the rules are applied without, and once more
    /// with every mapping in them labelled if that could make a difference.
    fn adjust(&mut self, data: &Map) -> Result<Option<Map>, AdjustProblem> {
        let Some(rules) = data.get(self.adjustment.key) else { return self.adjust_more(data, None) };
        self.merger.borrowed = false;
        self.merger.sharing.begin();
        let mut changed = None;
        self.apply_rules(rules, data, &mut changed)?;
        if self.merger.borrowed && changed.is_some() {
            changed = self.adjust_shared(rules, data, changed)?;
        }
        self.merger.sharing.keep();
        self.adjust_more(data, changed)
    }

    /// Applies the rules again, with labels; `plain` is what came out without, and stays if the labels do not matter.
    fn adjust_shared(
        &mut self,
        rules: &Value,
        data: &Map,
        plain: Option<Map>,
    ) -> Result<Option<Map>, AdjustProblem> {
        let limited = |limit: Limit| AdjustProblem::Merge(limit.into());
        let taken = self.merger.sharing.take_back();
        self.merger.sharing.begin();
        let labels = self.merger.sharing.labels();
        let rules = self.merger.sharing.label(rules).map_err(limited)?;
        let mut labelled = data.clone();
        labelled.insert(self.adjustment.key, rules.clone());
        let mut again = Some(labelled);
        self.apply_rules(&rules, data, &mut again)?;
        if !self.merger.sharing.changed_since(labels) {
            self.merger.sharing.take_back();
            self.merger.sharing.make_again(taken);
            return Ok(plain);
        }
        if let Some(again) = &mut again
            && let Some(current) = self.merger.sharing.resolve_map(again).map_err(limited)?
        {
            *again = current;
        }
        self.merger.sharing.forget_since(labels);
        Ok(again)
    }

    /// The rules that are no data, after the node's own.
    fn adjust_more(&mut self, data: &Map, mut changed: Option<Map>) -> Result<Option<Map>, AdjustProblem> {
        match &self.adjustment.extra_rules {
            Value::Null => {}
            Value::Map(rule) => _ = self.apply(rule, data, &mut changed)?,
            Value::List(rules) => self.apply_all(rules, data, &mut changed)?,
            other => return Err(AdjustProblem::Rule { found: other.type_name() }),
        }
        Ok(changed)
    }

    fn apply_rules(
        &mut self,
        rules: &Value,
        data: &Map,
        changed: &mut Option<Map>,
    ) -> Result<(), AdjustProblem> {
        match rules {
            Value::Map(rule) => _ = self.apply(rule, data, changed)?,
            Value::List(rules) => self.apply_all(rules, data, changed)?,
            other => {
                let key = self.adjustment.key.to_owned();
                return Err(AdjustProblem::Rules { key, found: other.type_name() });
            }
        }
        Ok(())
    }

    fn apply_all(
        &mut self,
        rules: &[Value],
        data: &Map,
        changed: &mut Option<Map>,
    ) -> Result<(), AdjustProblem> {
        for rule in rules {
            let Value::Map(rule) = rule else { return Err(AdjustProblem::Rule { found: rule.type_name() }) };
            // An earlier rule may have changed this one.
            let rule = self.merger.sharing.current(rule).clone();
            if !self.apply(&rule, data, changed)? {
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
        // A rule that changes the rules changes those that come after it.
        let key = self.adjustment.key;
        self.merger.borrowed |=
            rule.keys().filter_map(Value::as_str).any(|raw| raw != key && raw.starts_with(key));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmf::{Order, yaml};

    fn tree(text: &str) -> Arc<Tree> {
        Arc::new(Tree::from_data(yaml::parse(text).unwrap().as_map().unwrap()).unwrap())
    }

    fn shown(view: &View, name: &str, key: &str) -> String {
        view.find(name).unwrap().get(key).map_or_else(|| "-".to_owned(), Value::to_string)
    }

    #[test]
    fn only_what_changes_is_held() {
        let tree = tree("x: 1\n/a: {adjust: {x: 2, when: distro == fedora}}\n/b: {y: 1}\n");
        let fedora = Context::parse("distro=fedora-40").unwrap();
        let view = tree.adjust(&Adjustment::new(&fedora)).unwrap();
        assert_eq!((shown(&view, "/a", "x"), shown(&view, "/b", "x")), ("2".to_owned(), "1".to_owned()));
        // The tree itself, and other views of it, are as before.
        assert_eq!(shown(&tree.view(), "/a", "x"), "1");
        let shared = |view: &View| std::ptr::from_ref(view.find("/b").unwrap().data());
        assert_eq!(shared(&view), shared(&tree.view()));
    }

    #[test]
    fn extra_rules_come_last_and_start_afresh_for_each_node() {
        let tree = tree("/a: {adjust: {x: 1, continue: false}}\n/b: {}\n");
        let context = Context::new();
        let mut adjustment = Adjustment::new(&context);
        adjustment.extra_rules = yaml::parse("[{x+: 1, env: {A: 1}}, {env+: {A+: 1}}]").unwrap();
        let view = tree.adjust(&adjustment).unwrap();
        for (node, x) in [("/a", "2"), ("/b", "1")] {
            assert_eq!(
                (shown(&view, node, "x").as_str(), shown(&view, node, "env").as_str()),
                (x, "{'A': 2}")
            );
        }
    }

    #[test]
    fn undecided_rules_are_skipped_or_end_it() {
        let tree = tree("/a: {adjust: [{x: 1, when: arch == x86_64, continue: false}, {x: 2}]}\n");
        let context = Context::new();
        let mut adjustment = Adjustment::new(&context);
        assert_eq!(shown(&tree.adjust(&adjustment).unwrap(), "/a", "x"), "2");
        adjustment.undecided = Undecided::Fail;
        let error = tree.adjust(&adjustment).unwrap_err();
        assert_eq!(error.class(), "CannotDecide");
        assert!(error.to_string().contains("arch == x86_64"), "{error}");
    }

    #[test]
    fn a_bad_rule_ends_it_for_all_nodes() {
        for (rules, words) in [
            ("null", "NoneType"),
            ("[5]", "mapping"),
            ("{continue: 'no'}", "'no'"),
            ("{when: 5}", "int"),
            ("{when: a ==}", "a =="),
            ("{x+: []}", "list"),
        ] {
            let tree = tree(&format!("x: 1\n/a: {{}}\n/b: {{adjust: {rules}}}\n"));
            let error = tree.adjust(&Adjustment::new(&Context::new())).unwrap_err().to_string();
            assert!(error.starts_with("/b: ") && error.contains(words), "{rules}: {error}");
        }
        assert_eq!(tree("x: 1\n").view().climb(Order::AsFound).count(), 1);
    }
}
