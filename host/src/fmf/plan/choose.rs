//! Which plans of a tree are run.

use super::super::discover::error::DiscoverError;
use super::super::regex::Regex;
use super::super::{Node, Order, Value, View};
use crate::config::PlanChoice;

/// The plans that `choice` takes, in the order of the tree; none at all means all tests of the tree.
pub(crate) fn choose<'v>(view: &'v View, choice: &PlanChoice) -> Result<Vec<Node<'v>>, DiscoverError> {
    if *choice == PlanChoice::NoPlan {
        return Ok(Vec::new());
    }
    let plans: Vec<Node<'v>> = view.climb(Order::Sorted).filter(|node| is_plan(*node)).collect();
    let enabled = || plans.iter().copied().filter(|node| node.get("enabled").is_none_or(Value::is_true));
    let names =
        |nodes: &mut dyn Iterator<Item = Node<'v>>| nodes.map(|node| node.name().to_owned()).collect();
    match choice {
        PlanChoice::NoPlan => Ok(Vec::new()),
        PlanChoice::Only => match enabled().collect::<Vec<_>>() {
            several if several.len() > 1 => Err(DiscoverError::SeveralPlans(names(&mut several.into_iter()))),
            one => Ok(one),
        },
        PlanChoice::Matching(patterns) => {
            let matching = matching(enabled(), patterns)?;
            if matching.is_empty() {
                let wanted = patterns.join(" or ");
                return Err(DiscoverError::NoSuchPlan { wanted, known: names(&mut enabled()) });
            }
            Ok(matching)
        }
        PlanChoice::Exactly(name) => match plans.iter().find(|node| node.name() == name) {
            Some(node) => Ok(vec![*node]),
            None => Err(DiscoverError::NoSuchPlan { wanted: name.clone(), known: names(&mut enabled()) }),
        },
    }
}

fn matching<'v>(
    plans: impl Iterator<Item = Node<'v>>,
    patterns: &[String],
) -> Result<Vec<Node<'v>>, DiscoverError> {
    let bad = |cause| DiscoverError::Regex { option: "--plan", cause };
    let patterns =
        patterns.iter().map(|pattern| Regex::new(pattern)).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let mut matching = Vec::new();
    for plan in plans {
        for pattern in &patterns {
            if pattern.search(plan.name()).map_err(bad)? {
                matching.push(plan);
                break;
            }
        }
    }
    Ok(matching)
}

/// An item of the tree that is no test or story and says how tests are found or run.
fn is_plan(node: Node<'_>) -> bool {
    let data = node.data();
    node.is_selected()
        && !data.contains_key("test")
        && !data.get("story").is_some_and(Value::is_true)
        && (data.contains_key("discover")
            || data.contains_key("execute")
            // One that stands for another, elsewhere.
            || data.get("plan").is_some_and(|plan| plan.get("import").is_some()))
}
