//! Which tests run on which platform.
//!
//! The tree is read once and looked at once per platform of the configuration. Where a platform has several plans, each pair is
//! a platform of its own from here on; platforms with the same policies stand side by side, as do their tests.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{Dialect, Limits, PoolChoice, RunPlan, playbooks_refused},
    core::event::TestId,
    executor::{
        spec::{self, Site, TestSpec, Variables},
        tree_digest,
    },
    fmf::{
        Tree,
        discover::{Discovered, DiscoveredPlan, DiscoveredTest, Discoverer, Request},
        git::Cache,
    },
    store::{Class, JournalReader, RunDir, StateDir, What},
};

use super::{Error, provision};

/// What discovery gave.
pub(super) struct Selected {
    /// With its platforms bound to plans, and in the order of [`platforms`](Self::platforms).
    pub(super) plan: RunPlan,
    /// Root of the tree.
    pub(super) tree: PathBuf,
    pub(super) digest: String,
    /// One per platform of the plan.
    pub(super) platforms: Vec<SelectedPlatform>,
    pub(super) warnings: Vec<String>,
}

/// A platform with its tests.
pub(super) struct SelectedPlatform {
    pub(super) site: Site,
    pub(super) tests: Vec<SelectedTest>,
}

/// A test, for machines and for policies.
pub(super) struct SelectedTest {
    pub(super) spec: TestSpec,
    pub(super) found: DiscoveredTest,
}

/// Discovers the tests of a plan, without anything that is needed for running them only.
pub(super) fn discover(plan: &RunPlan, state: &StateDir) -> Result<(Arc<Tree>, Vec<Discovered>), Error> {
    let tree = Arc::new(Tree::load(&plan.tree)?);
    let discoverer = Discoverer::new(Arc::clone(&tree), Cache::new(state.cache().map_err(Error::State)?));
    let mut all = Vec::new();
    for platform in &plan.platforms {
        let environment: Variables = platform
            .environment
            .iter()
            .map(|(name, text)| (name.clone(), text.expose().to_owned()))
            .collect();
        all.push(discoverer.discover(&Request {
            context: &platform.context,
            dialect: plan.dialect,
            plans: &platform.plans,
            selection: &plan.selection,
            adjust: &platform.adjust,
            environment: &environment,
            ignore_unsupported: plan.allow.unsupported,
        })?);
    }
    Ok((tree, all))
}

/// Discovers, and decides where machines come from.
pub(super) fn select(plan: RunPlan, state: &StateDir) -> Result<Selected, Error> {
    let mut selected = select_tests(plan, state, true)?;
    let root = &selected.tree;
    selected.digest = tree_digest(root).map_err(|error| Error::Tree { root: root.clone(), error })?;
    Ok(selected)
}

/// Discovers only: nothing is going to run, so nobody has to say where.
pub(super) fn select_for_simulation(plan: RunPlan, state: &StateDir) -> Result<Selected, Error> {
    select_tests(plan, state, false)
}

fn select_tests(plan: RunPlan, state: &StateDir, needs_pools: bool) -> Result<Selected, Error> {
    let (tree, discovered) = discover(&plan, state)?;
    let mut warnings: Vec<String> = Vec::new();
    let mut plans: Vec<DiscoveredPlan> = Vec::new();
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for (platform, found) in plan.platforms.iter().zip(discovered) {
        for warning in found.warnings {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let of_platform = found.plans.iter().filter_map(|plan| plan.name.clone()).collect();
        names.push((platform.name.clone(), of_platform));
        plans.extend(found.plans);
    }
    // Each platform becomes as many as it has plans, in the order of its plans.
    let mut plan = plan.with_plans(|platform| {
        let known = names.iter().find(|(name, _)| *name == platform.name);
        known.map(|(_, plans)| plans.clone()).unwrap_or_default()
    });
    let has_playbooks = |found: &&DiscoveredPlan| {
        found
            .prepare
            .iter()
            .chain(&found.finish)
            .any(|phase| matches!(phase.action, spec::Action::Ansible { .. }))
    };
    if let Some(found) = plans.iter().find(has_playbooks).filter(|_| needs_pools && !plan.allow.tree) {
        return Err(playbooks_refused(found.name.as_deref().unwrap_or("/")).into());
    }
    let uploads = plan.platforms.iter().flat_map(|platform| &platform.uploads);
    for upload in uploads.filter(|_| needs_pools) {
        upload.check()?;
    }
    for (number, found) in plans.iter().enumerate().filter(|_| needs_pools) {
        if plan.platforms[number].pools == PoolChoice::Unspecified
            && let Some(pool) = provision::pool(&plan, found)?
        {
            plan = plan.with_plan_pool(number, pool);
        }
    }
    if let Some(without) = plan.without_pool().filter(|_| needs_pools) {
        return Err(without.no_pool().into());
    }
    let wanted = plan.rerun_failed.as_deref().map(failed_in).transpose()?;
    let mut pairs: Vec<_> = std::mem::take(&mut plan.platforms).into_iter().zip(plans).collect();
    pairs.sort_by_key(|(platform, _)| platform.policies);
    let mut platforms = Vec::new();
    for (platform, found) in pairs {
        let of_platform = |test: &DiscoveredTest| {
            wanted
                .as_ref()
                .is_none_or(|failed| failed.contains(&(platform.name.clone(), test.name.to_string())))
        };
        let tests = found.tests.iter().filter(|test| of_platform(test));
        let tests = tests.map(|test| SelectedTest { spec: found.spec(test), found: test.clone() }).collect();
        let site = site(&platform, &found, plan.dialect, &plan.limits);
        platforms.push(SelectedPlatform { site, tests });
        plan.platforms.push(platform);
    }
    Ok(Selected { plan, tree: tree.root().to_owned(), digest: String::new(), platforms, warnings })
}

fn site(
    platform: &crate::config::Platform,
    found: &DiscoveredPlan,
    dialect: Dialect,
    limits: &Limits,
) -> Site {
    Site {
        layers: found.layers.clone(),
        uploads: platform
            .uploads
            .iter()
            .map(|upload| spec::Upload { from: upload.from.clone(), to: upload.to.clone() })
            .collect(),
        environment: found.site_environment(),
        prepare: found.prepare.clone(),
        finish: found.finish.clone(),
        dialect,
        slots: 1,
        limits: spec::Limits {
            bytes_per_test: limits.bytes_per_test,
            results_per_test: limits.results_per_test,
            grace: limits.grace,
            ..spec::Limits::default()
        },
        // Up to the machine's transport.
        may_reboot: false,
        may_reset: false,
    }
}

/// Platform and name of the tests that did not pass in an earlier run.
fn failed_in(directory: &Path) -> Result<HashSet<(String, String)>, Error> {
    let run = RunDir::read(directory)?;
    let unreadable = |error| Error::Journal { run: directory.to_owned(), error };
    let mut reader = JournalReader::open(&directory.join("journal.jsonl"), 0).map_err(unreadable)?;
    let mut classes = std::collections::HashMap::new();
    let mut failed: HashSet<TestId> = (0..run.tests.len() as TestId).collect();
    while let Some(record) = reader.next_record().map_err(unreadable)? {
        match record.what {
            What::Finished(execution) => _ = classes.insert(execution.execution, execution.class()),
            What::Verdict { test, verdict } => {
                let class = verdict.judged().and_then(|judged| classes.get(&judged.execution).copied());
                if matches!(Class::of_verdict(&verdict, class), Class::Passed | Class::Warned) {
                    failed.remove(&test);
                }
            }
            _ => {}
        }
    }
    let name = |test: TestId| {
        let promise = run.tests.get(test as usize)?;
        Some((run.platforms.get(usize::from(promise.platform))?.name.clone(), promise.name.clone()))
    };
    Ok(failed.into_iter().filter_map(name).collect())
}
