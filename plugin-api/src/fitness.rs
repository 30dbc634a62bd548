//! A simpler way to write a policy: only say how well a test suits a machine.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::plugin::Plugin;
use crate::policy::{
    Class, Command, Judgement, Ms, NONE, Note, Policy, Prefer, Queued, Rank, Run, RunInfo, TestId, TestInfo,
    VETO, View, Wants,
};

/// Most classes that are compared by themselves at each decision; beyond it only those of the best tests are.
const MAX_CLASSES: usize = 64;
/// How many of the best groups of tests are looked at, if there are more classes than that.
const WINDOW: u32 = 256;

/// A test, as [`Fitness`] sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FitnessTest {
    /// Its name.
    pub name: String,
    /// Values of [`Fitness::attrs`], `""` if absent.
    pub attrs: Vec<String>,
    /// `duration` of the metadata, in milliseconds.
    pub limit: Ms,
    /// How long it will take, from history, in milliseconds; 0 if unknown.
    pub expected: Ms,
}

/// A machine with room, as [`Fitness`] sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FitnessMachine<'a> {
    /// Values of [`Fitness::facts`], `""` if unknown.
    pub facts: &'a [String],
    /// The test that ran there last; `None` on a fresh machine.
    pub last: Option<&'a FitnessTest>,
    /// Whether that one passed.
    pub last_ok: bool,
    /// Finished runs on it.
    pub ran: u32,
    /// What tests left on it with the control word `machine K=V`.
    pub labels: &'a [(&'a str, &'a str)],
}

/// How well a test suits a machine. [`ByFitness`] makes a policy of it.
///
/// Tests of the same [`class`](Self::class) must be equally fit for every machine. With up to 64 classes the best test is
/// found exactly; with more, only the classes of the 256 best tests (by the other policies) are compared.
pub trait Fitness: Plugin + Send {
    /// Keys of test metadata to see.
    fn attrs(&self) -> Vec<String> {
        Vec::new()
    }
    /// Facts of machines to see.
    fn facts(&self) -> Vec<String> {
        Vec::new()
    }
    /// May the test run on machines with these facts at all?
    fn applicable(&self, _test: &FitnessTest, _facts: &[String]) -> bool {
        true
    }
    /// How well the test suits the machine now: bigger is sooner, 0 is "neither well nor badly".
    fn fitness(&self, test: &FitnessTest, machine: &FitnessMachine<'_>) -> i64;
    /// Tests with equal texts are equally fit. By default those with the same attributes.
    fn class(&self, test: &FitnessTest) -> String {
        test.attrs.join("\n")
    }
    /// As [`Policy::judge`].
    fn judge(&self, _run: &Run<'_>) -> Result<Judgement> {
        Ok(Judgement::NONE)
    }
}

/// The policy that prefers the fittest test for each machine:
/// `export_plugin!(policy "mine" => ByFitness<Mine>)`.
#[derive(Debug)]
pub struct ByFitness<F> {
    fitness: F,
    tests: Vec<FitnessTest>,
    class_of: Vec<Class>,
    classes: BTreeMap<String, Class>,
    /// One test of each class stands for all of it.
    examples: Vec<TestId>,
    kinds: BTreeMap<u32, Vec<String>>,
}

impl<F: Fitness> Plugin for ByFitness<F> {
    type Config = F::Config;
    const ABOUT: &'static str = F::ABOUT;

    fn new(config: F::Config, host: Host) -> Result<Self> {
        Ok(Self {
            fitness: F::new(config, host)?,
            tests: Vec::new(),
            class_of: Vec::new(),
            classes: BTreeMap::new(),
            examples: Vec::new(),
            kinds: BTreeMap::new(),
        })
    }
}

impl<F: Fitness> ByFitness<F> {
    fn test(&self, id: TestId) -> Option<&FitnessTest> {
        if id == NONE { None } else { self.tests.get(id as usize) }
    }

    fn facts(&self, kind: u32) -> &[String] {
        self.kinds.get(&kind).map_or(&[], Vec::as_slice)
    }

    fn push(&self, machine: &FitnessMachine<'_>, class: Class, out: &mut Vec<Prefer>) {
        let example = self.examples.get(class as usize).and_then(|id| self.test(*id));
        let score = example.map_or(0, |test| self.fitness.fitness(test, machine));
        if score != 0 {
            // The least number means "never": unfit is not that.
            out.push(Prefer::Class(class, score.max(VETO + 1)));
        }
    }
}

impl<F: Fitness> Policy for ByFitness<F> {
    fn wants(&self) -> Wants {
        Wants {
            attrs: self.fitness.attrs(),
            facts: self.fitness.facts(),
            rank: true,
            prefer: true,
            window: WINDOW,
            judge: true,
            notes: false,
        }
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            if test.id as usize != self.tests.len() {
                return Err(Error::unsupported("the host registers tests out of order"));
            }
            let seen = FitnessTest {
                name: test.name.to_owned(),
                attrs: test.attrs.iter().map(|value| (*value).to_owned()).collect(),
                limit: test.limit,
                expected: test.expected,
            };
            let next = self.examples.len() as Class;
            let class = *self.classes.entry(self.fitness.class(&seen)).or_insert(next);
            if class == next {
                self.examples.push(test.id);
            }
            self.class_of.push(class);
            self.tests.push(seen);
        }
        Ok(())
    }

    fn kind(&mut self, kind: u32, facts: &[&str]) -> Result<()> {
        self.kinds.insert(kind, facts.iter().map(|value| (*value).to_owned()).collect());
        Ok(())
    }

    fn rank(&self, kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        let facts = self.facts(kind);
        for queued in tests {
            let test =
                self.test(queued.test).ok_or_else(|| Error::unsupported("a test was never registered"))?;
            let score = if self.fitness.applicable(test, facts) { 0 } else { VETO };
            out.push(Rank { class: self.class_of[queued.test as usize], score });
        }
        Ok(())
    }

    fn prefer(&self, view: &View<'_>, window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let machine = FitnessMachine {
            facts: self.facts(view.kind),
            last: self.test(view.last),
            last_ok: view.last_ok,
            ran: view.ran,
            labels: view.labels,
        };
        if self.examples.len() <= MAX_CLASSES {
            for class in 0..self.examples.len() as Class {
                self.push(&machine, class, out);
            }
        } else {
            for class in window {
                self.push(&machine, *class, out);
            }
        }
        Ok(())
    }

    fn judge(&self, run: &Run<'_>) -> Result<Judgement> {
        self.fitness.judge(run)
    }

    fn note(&mut self, _now: Ms, _note: &Note<'_>, _out: &mut Vec<Command>) -> Result<()> {
        Ok(())
    }
}
