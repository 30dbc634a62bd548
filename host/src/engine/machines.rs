//! The engine's half of a machine: what was asked for, what came, and the worker that is connected to it.
//!
//! The coordinator decides what happens to a machine; here is only what it takes to carry that out: which thread to tell, which
//! id to release, which file to write to first.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;

use atex_plugin_api::{Facts, Lease, Machine as Loan, host_side::Cancel};

use crate::{
    core::event::{LeaseId, PlatformId, PoolId},
    executor::{Handle, spec::Site},
    fmf::context::{Context, Outcome, Rule},
};

/// All machines of the run that are not gone.
pub(super) type Machines = BTreeMap<LeaseId, Machine>;

/// One lease and what became of it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) lease: Lease,
    pub(super) pool: PoolId,
    /// The platform it is set up for, or is to be.
    pub(super) platform: PlatformId,
    /// Ends the call of `reserve`.
    pub(super) cancel: Cancel,
    /// What the provisioner handed out.
    pub(super) loan: Option<Loan>,
    pub(super) worker: Link,
    /// Number of the set-up that is under way, or was the last one.
    pub(super) setup: u32,
    pub(super) facts: Facts,
    pub(super) spoilt: bool,
    /// `reserve` has come back: nothing can come of this lease any more but by itself.
    pub(super) answered: bool,
    /// It reboots.
    pub(super) away: bool,
}

/// The way to a machine.
#[derive(Debug)]
pub(super) enum Link {
    /// Nobody is connected, and nobody tries to.
    None,
    /// A worker tries to connect; what is to be done first when it succeeds.
    Connecting(Handle, Arc<Site>),
    Up(Handle),
    /// It is being cleaned and left.
    HandingBack(Handle),
}

impl Machine {
    pub(super) fn new(lease: Lease, pool: PoolId, platform: PlatformId, cancel: Cancel) -> Self {
        Self {
            lease,
            pool,
            platform,
            cancel,
            loan: None,
            worker: Link::None,
            setup: 0,
            facts: Facts::new(),
            spoilt: false,
            answered: false,
            away: false,
        }
    }

    /// The provisioner's name for it; empty before there is one.
    pub(super) fn id(&self) -> &str {
        self.loan.as_ref().map_or("", |loan| &loan.id)
    }
}

/// The first fact that a platform asks for and the machine does not have, told as a sentence; what the machine does not know
/// about itself counts as not having it.
pub(super) fn misfit(require: &BTreeMap<String, String>, facts: &Facts) -> Option<String> {
    require.iter().find_map(|(name, wanted)| {
        let Some(found) = facts.get(name) else {
            return Some(format!("{name} should be {wanted}, and the machine does not tell its {name}"));
        };
        (!matches(name, found, wanted)).then(|| format!("{name} should be {wanted}, and is {found}"))
    })
}

/// Where a machine seems to be another one than its platform's context says, told as a sentence. Only a doubt: contexts are
/// written by people, with words of their own. What the platform requires is compared by [`misfit`].
pub(super) fn doubt(
    context: &IndexMap<String, Vec<String>>,
    require: &BTreeMap<String, String>,
    facts: &Facts,
) -> Option<String> {
    context.iter().filter(|(name, _)| !require.contains_key(*name)).find_map(|(name, wanted)| {
        let found = facts.get(name)?;
        let fits = wanted.is_empty() || wanted.iter().any(|wanted| matches(name, found, wanted));
        (!fits)
            .then(|| format!("its {name} is {found}, and its platform's context says {}", wanted.join(", ")))
    })
}

/// Whether a fact is what is wanted, as `name == wanted` of FMF decides: `rhel-9` takes every `rhel-9.x`, `a, b` takes both.
fn matches(name: &str, found: &str, wanted: &str) -> bool {
    let Ok(rule) = Rule::parse(&format!("{name} == {wanted}")) else { return false };
    let mut context = Context::new();
    context.add(name, found);
    matches!(context.decide(&rule), Ok(Outcome::True))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_compared_by_the_rules_of_fmf() {
        let facts = Facts::from([("distro".into(), "rhel-9.6".into()), ("arch".into(), "x86_64".into())]);
        let check =
            |name: &str, wanted: &str| misfit(&BTreeMap::from([(name.into(), wanted.into())]), &facts);
        assert_eq!(check("distro", "rhel-9"), None);
        assert_eq!(check("distro", "rhel-9.6"), None);
        assert_eq!(check("distro", "rhel-10").unwrap(), "distro should be rhel-10, and is rhel-9.6");
        assert_eq!(check("arch", "x86_64"), None);
        assert!(check("cpus", "4").unwrap().contains("does not tell its cpus"));
    }

    #[test]
    fn a_context_that_does_not_fit_is_a_doubt() {
        let facts = Facts::from([("distro".into(), "rhel-9.6".into()), ("arch".into(), "x86_64".into())]);
        let require = BTreeMap::from([("arch".into(), "x86_64".into())]);
        let check = |name: &str, wanted: &[&str]| {
            let wanted = wanted.iter().map(|&value| value.to_owned()).collect();
            doubt(&IndexMap::from([(name.to_owned(), wanted)]), &require, &facts)
        };
        assert_eq!(check("distro", &["rhel-9"]), None);
        assert_eq!(check("distro", &["fedora-42", "rhel-9.6"]), None);
        assert_eq!(check("arch", &["s390x"]), None, "what is required is not looked at twice");
        assert_eq!(check("trigger", &["nightly"]), None, "no fact");
        let text = check("distro", &["fedora-42", "rhel-8"]).unwrap();
        assert_eq!(text, "its distro is rhel-9.6, and its platform's context says fedora-42, rhel-8");
    }
}
