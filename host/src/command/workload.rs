//! The tests of a run as coordinator, policies and reporters know them.

use std::{borrow::Cow, ops::Range, sync::Arc};

use atex_plugin_api::policy::{TestInfo, WHOLE_MACHINE};

use crate::{
    config::RunPlan,
    core::{
        Catalogue,
        config::{Past, TestPlan},
        event::{Ms, PlatformId, TestId},
    },
    engine::Test,
    executor::spec,
    fmf::discover::DiscoveredTest,
    store::{Expectation, StateDir},
};

use super::{history, select::SelectedTest};

/// Numbers the tests, those of a platform side by side.
pub(super) fn workload(
    plan: &RunPlan,
    platforms: Vec<Vec<SelectedTest>>,
    state: &StateDir,
) -> (Vec<Test>, TestCatalogue) {
    let mut tests = Vec::new();
    let names = plan.platforms.iter().map(|platform| platform.name.as_str());
    let expectations = history::expectations(state, names);
    let mut catalogue = TestCatalogue { tests: Vec::new() };
    for (number, selected) in platforms.into_iter().enumerate() {
        for test in selected {
            let spec = Arc::new(test.spec);
            let platform = number as PlatformId;
            let expectation = expectations[number].get(&spec.name);
            tests.push(Test { platform, name: spec.name.clone(), spec: Arc::clone(&spec) });
            catalogue.tests.push(Described { platform, spec, found: test.found, expectation });
        }
    }
    (tests, catalogue)
}

/// What policies and reporters may ask of a test.
pub(super) struct Described {
    platform: PlatformId,
    spec: Arc<spec::TestSpec>,
    found: DiscoveredTest,
    expectation: Option<Expectation>,
}

impl Described {
    fn plan(&self) -> TestPlan {
        TestPlan {
            platform: self.platform,
            claim: self.claim(),
            limit: Ms::try_from(self.spec.duration.as_millis()).unwrap_or(Ms::MAX),
            expected: self.expectation.map_or(0, |known| known.duration),
            past: Past::FRESH,
        }
    }

    /// `extra-slots`: how many slots the test takes; `all` for the whole machine.
    fn claim(&self) -> u16 {
        match self.found.metadata().get("extra-slots") {
            Some(value) if value.as_str() == Some("all") => WHOLE_MACHINE,
            Some(value) => {
                value.as_i64().map_or(1, |slots| u16::try_from(slots.max(1)).unwrap_or(WHOLE_MACHINE))
            }
            None => 1,
        }
    }
}

pub(super) struct TestCatalogue {
    tests: Vec<Described>,
}

impl TestCatalogue {
    pub(super) fn len(&self) -> usize {
        self.tests.len()
    }

    /// One per test.
    pub(super) fn plans(&self) -> Vec<TestPlan> {
        self.tests.iter().map(Described::plan).collect()
    }

    /// The tests of some platforms, which stand side by side.
    pub(super) fn range(&self, of: impl Fn(PlatformId) -> bool) -> Range<TestId> {
        let first = self.tests.iter().position(|test| of(test.platform)).unwrap_or(0);
        let count = self.tests.iter().filter(|test| of(test.platform)).count();
        first as TestId..(first + count) as TestId
    }

    pub(super) fn value(&self, test: TestId, key: &str) -> Option<serde_json::Value> {
        self.tests.get(test as usize)?.found.metadata().get(key).map(crate::fmf::Value::to_json)
    }
}

impl Catalogue for TestCatalogue {
    fn info(&self, test: TestId) -> TestInfo<'_> {
        let Some(described) = self.tests.get(test as usize) else { return TestInfo::new(test, "", &[]) };
        let plan = described.plan();
        let mut info = TestInfo::new(test, &described.spec.name, &[]);
        info.platform = described.platform;
        info.claim = plan.claim;
        info.limit = plan.limit;
        info.expected = plan.expected;
        info.fail_rate = described.expectation.map_or(0, |known| known.fail_rate);
        info
    }

    fn attr(&self, test: TestId, key: &str) -> Cow<'_, str> {
        match self.tests.get(test as usize) {
            Some(described) => Cow::Owned(described.found.attribute(key)),
            None => Cow::Borrowed(""),
        }
    }
}
