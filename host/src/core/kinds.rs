//! Kinds of machines: machines that no policy of a chain can tell apart.
//!
//! A policy sees only the facts that it declared, and machines with equal values of those are one kind to it. A *kind* of
//! the chain is one combination of those; a *rank kind* is one combination over the policies that rank, so that a fact that
//! only matters to `prefer` (a host name, say) does not multiply the queues.

use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::Wants;

use super::config::Shape;
use super::event::KindInfo;
use super::hash::Map;

/// The kinds that one chain has met.
#[derive(Debug)]
pub(crate) struct Kinds {
    policies: Vec<OwnKinds>,
    numbers: Map<Vec<u32>, u32>,
    rank_numbers: Map<Vec<u32>, u32>,
    /// Per kind, its rank kind.
    rank_of: Vec<u32>,
    /// Per rank kind, the first kind of it.
    example: Vec<u32>,
}

/// The kinds as one policy sees them.
#[derive(Debug)]
struct OwnKinds {
    facts: Vec<String>,
    ranks: bool,
    numbers: Map<Vec<String>, u32>,
}

impl Kinds {
    pub(crate) fn new(shape: &Shape) -> Self {
        let own = |wants: &Wants| OwnKinds {
            facts: wants.facts.clone(),
            ranks: wants.rank,
            numbers: Map::default(),
        };
        Self {
            policies: shape.wants.iter().map(own).collect(),
            numbers: Map::default(),
            rank_numbers: Map::default(),
            rank_of: vec![],
            example: vec![],
        }
    }

    /// The number of the kind with these facts, and its announcement if it is new.
    pub(crate) fn number(&mut self, facts: &Facts) -> (u32, Option<Arc<KindInfo>>) {
        let mut news = vec![];
        let mut own = Vec::with_capacity(self.policies.len());
        for (position, policy) in self.policies.iter_mut().enumerate() {
            let (number, new) = policy.number(facts);
            own.push(number);
            news.extend(new.map(|values| (position as u16, number, values)));
        }
        if let Some(&kind) = self.numbers.get(&own) {
            return (kind, None);
        }
        let kind = self.rank_of.len() as u32;
        self.numbers.insert(own.clone(), kind);
        let ranking =
            self.policies.iter().zip(&own).filter(|(policy, _)| policy.ranks).map(|(_, &own)| own).collect();
        let next = self.example.len() as u32;
        let rank_kind = *self.rank_numbers.entry(ranking).or_insert(next);
        if rank_kind == next {
            self.example.push(kind);
        }
        self.rank_of.push(rank_kind);
        (kind, Some(Arc::new(KindInfo { kind, own, news })))
    }

    /// The rank kind of a kind.
    pub(crate) fn rank_kind(&self, kind: u32) -> u32 {
        self.rank_of.get(kind as usize).copied().unwrap_or(0)
    }

    /// A kind of this rank kind.
    pub(crate) fn example(&self, rank_kind: u32) -> u32 {
        self.example.get(rank_kind as usize).copied().unwrap_or(0)
    }
}

impl OwnKinds {
    fn number(&mut self, facts: &Facts) -> (u32, Option<Vec<String>>) {
        let values: Vec<String> =
            self.facts.iter().map(|key| facts.get(key).cloned().unwrap_or_default()).collect();
        if let Some(&number) = self.numbers.get(&values) {
            return (number, None);
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(values.clone(), number);
        (number, Some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(facts: &[&str], rank: bool) -> Wants {
        let mut wants = Wants::default();
        wants.facts = facts.iter().map(|&fact| fact.to_owned()).collect();
        wants.rank = rank;
        wants
    }

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn undeclared_facts_make_no_kinds() {
        let mut kinds = Kinds::new(&Shape {
            wants: vec![wants(&["arch"], true), wants(&["hostname"], false)],
            names: vec![],
        });
        let (first, new) = kinds.number(&facts(&[("arch", "x"), ("hostname", "a"), ("cpus", "4")]));
        assert_eq!(new.unwrap().news, [(0, 0, vec!["x".to_owned()]), (1, 0, vec!["a".to_owned()])]);
        let (same, new) = kinds.number(&facts(&[("arch", "x"), ("hostname", "a"), ("cpus", "96")]));
        assert_eq!((same, new), (first, None));
    }

    #[test]
    fn facts_that_no_ranking_policy_sees_share_a_rank_kind() {
        let mut kinds = Kinds::new(&Shape {
            wants: vec![wants(&["arch"], true), wants(&["hostname"], false)],
            names: vec![],
        });
        let mut kind = |arch, host| kinds.number(&facts(&[("arch", arch), ("hostname", host)])).0;
        let (a, b, c) = (kind("x", "a"), kind("x", "b"), kind("y", "b"));
        assert!(a != b && b != c);
        assert_eq!(kinds.rank_kind(a), kinds.rank_kind(b));
        assert_ne!(kinds.rank_kind(a), kinds.rank_kind(c));
        assert_eq!(kinds.example(kinds.rank_kind(b)), a);
    }
}
