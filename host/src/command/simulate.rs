//! `simulate`: how long a run would take, by the very coordinator and policies, in virtual time.

use std::io::{self, Write as _};

use atex_plugin_api::policy::{RunInfo, TestInfo};

use crate::{
    cli::{self, Format},
    config::ExitStatus,
    core::{
        Catalogue,
        config::{Config, Platform, Pool, TestPlan},
        event::{Ms, TestId},
        simulate::{self, Outcomes, Ready, Synthetic, SyntheticTest, Truth, World},
    },
    store::StateDir,
};

use super::{
    Error, Terminal, open,
    prepare::{Used, chains},
    select::{self, SelectedTest},
    workload::workload,
};

/// What is simulated, and what is known of it.
struct Workload {
    plans: Vec<TestPlan>,
    truths: Vec<Truth>,
    /// Empty for tests that have no names.
    names: Vec<String>,
    catalogue: Box<dyn Catalogue>,
    platforms: Vec<Platform>,
    /// Plugin entries are those of the plan.
    plan: crate::config::RunPlan,
}

pub(super) fn simulate(wanted: cli::Simulate, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let state = StateDir::from_environment().map_err(Error::State)?;
    let deadline = wanted.deadline.map(milliseconds);
    let world = world(&wanted);
    let registry =
        open::registry(&wanted.plan.libraries, wanted.plan.allow.strict, &state, &wanted.plan.secrets)?;
    let workload = match wanted.synthetic {
        Some(tests) => synthetic(tests.get(), wanted.plan),
        None => of_tree(wanted.plan, &state)?,
    };
    if workload.plans.is_empty() && !workload.plan.allow.empty {
        return Err(Error::NoTests);
    }
    let machines: Vec<u32> = match wanted.machines.as_slice() {
        [] => simulate::usual_machines(workload.plans.len()),
        some => some.iter().map(|number| number.get()).collect(),
    };
    let forecast = simulate::forecast(&machines, deadline, |machines| {
        let mut policies = Used::new(&registry);
        let (chains, _) = chains(&workload.plan, &mut policies, false)?;
        run_once(&workload, chains, machines, &world)
    })?;
    let name = |test: TestId| {
        workload.names.get(test as usize).cloned().unwrap_or_else(|| format!("/synthetic/{test}"))
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match terminal.output().format {
        Format::Human => cli::simulate::write_text(&forecast, deadline, name, &mut out),
        Format::Json => cli::simulate::write_json(&forecast, deadline, name, &mut out),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)?;
    Ok(if deadline.is_some() && forecast.least_machines.is_none() {
        ExitStatus::Failed
    } else {
        ExitStatus::Passed
    })
}

fn milliseconds(time: std::time::Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}

/// The machines, as the user describes them.
fn world(wanted: &cli::Simulate) -> World {
    let per_mille = u64::from(wanted.failures) * 10;
    let usual = World { seed: wanted.plan.seed, ..World::default() };
    World {
        startup: wanted.start_up.map_or(usual.startup, milliseconds),
        reserve_failures: per_mille,
        deaths: per_mille,
        ..usual
    }
}

fn run_once(
    workload: &Workload,
    chains: Vec<crate::core::Chain>,
    machines: u32,
    world: &World,
) -> Result<Outcomes, Error> {
    let run = RunInfo::new(workload.plan.seed, workload.plans.len() as u32, workload.platforms.len() as u16);
    let mut config = Config::simple(machines, crate::core::config::Shape::default());
    let slots = workload.plan.pools.iter().map(|pool| pool.slots.get()).max().unwrap_or(1);
    config.pools = vec![Pool { slots, ..Pool::new(machines, workload.platforms.len() as u16) }];
    config.spares = workload.plan.spares;
    config.platforms.clone_from(&workload.platforms);
    config.chains = chains.iter().map(crate::core::Chain::shape).collect();
    config.seed = workload.plan.seed;
    let mut ready = Vec::new();
    for (number, mut chain) in chains.into_iter().enumerate() {
        let of_chain =
            |plan: &TestPlan| usize::from(workload.platforms[usize::from(plan.platform)].chain) == number;
        let first = workload.plans.iter().position(of_chain).unwrap_or(0) as TestId;
        let count = workload.plans.iter().filter(|plan| of_chain(plan)).count() as TestId;
        let commands = chain.register(&run, first..first + count, workload.catalogue.as_ref());
        ready.push(Ready { chain, commands });
    }
    let outcomes = simulate::simulate(config, &workload.plans, &workload.truths, &mut ready, world, &mut ());
    Ok(outcomes.map_err(crate::engine::StartError::from)?)
}

/// The tests of a tree: each takes as long as it did before, else a third of its limit, and fails as often as it did.
fn of_tree(plan: crate::config::RunPlan, state: &StateDir) -> Result<Workload, Error> {
    let selected = select::select_for_simulation(plan, state)?;
    let tests: Vec<Vec<SelectedTest>> =
        selected.platforms.into_iter().map(|platform| platform.tests).collect();
    let (tests, catalogue) = workload(&selected.plan, tests, state);
    let plans = catalogue.plans();
    let seed = selected.plan.seed;
    let truth = |(plan, test): (&TestPlan, TestId)| Truth {
        real: if plan.expected > 0 { plan.expected } else { plan.limit / 3 },
        fails: failures(seed, test, catalogue.info(test).fail_rate),
    };
    let truths = plans.iter().zip(0..).map(truth).collect();
    Ok(Workload {
        truths,
        names: tests.iter().map(|test| test.name.clone()).collect(),
        platforms: selected
            .plan
            .platforms
            .iter()
            .map(|one| Platform { chain: one.policies as u16 })
            .collect(),
        plan: selected.plan,
        catalogue: Box::new(catalogue),
        plans,
    })
}

/// How many runs of a test in a row fail, if so many of 1000 do.
fn failures(seed: u64, test: TestId, fail_rate: u16) -> u16 {
    const MOST: u16 = 10;
    let roll =
        |attempt: u16| crate::core::mix(seed ^ crate::core::mix(u64::from(test) << 16 | u64::from(attempt)));
    let fails = |attempt: &u16| roll(*attempt) % 1000 < u64::from(fail_rate);
    (0..MOST).take_while(fails).count() as u16
}

/// Made-up tests, on one platform.
fn synthetic(tests: u32, plan: crate::config::RunPlan) -> Workload {
    let tests = Synthetic::new(tests, plan.seed).make();
    Workload {
        plans: tests.iter().map(|test| test.plan).collect(),
        truths: tests.iter().map(|test| test.truth).collect(),
        names: Vec::new(),
        platforms: vec![Platform { chain: 0 }],
        catalogue: Box::new(MadeUp(tests)),
        plan,
    }
}

struct MadeUp(Vec<SyntheticTest>);

impl Catalogue for MadeUp {
    fn info(&self, test: TestId) -> TestInfo<'_> {
        let mut info = TestInfo::new(test, "", &[]);
        if let Some(made) = self.0.get(test as usize) {
            info.limit = made.plan.limit;
            info.expected = made.plan.expected;
            info.fail_rate = made.fail_rate;
        }
        info
    }

    fn attr(&self, test: TestId, key: &str) -> std::borrow::Cow<'_, str> {
        match (self.0.get(test as usize), key) {
            (Some(made), "extra-priority") if made.priority != 0 => made.priority.to_string().into(),
            (Some(made), "tag" | "tags") if made.destructive => "destructive".into(),
            _ => "".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_fail_as_often_as_they_did() {
        assert_eq!((failures(1, 2, 0), failures(1, 2, 1000)), (0, 10));
        let failed = (0..10_000).filter(|&test| failures(7, test, 250) > 0).count();
        assert!((2_300..2_700).contains(&failed), "{failed}");
        let twice = (0..10_000).filter(|&test| failures(7, test, 250) > 1).count();
        assert!((500..750).contains(&twice), "{twice}");
    }
}
