//! Policy `same-snapshot`: after a test that passed in a VM, a machine prefers a test that starts from the same VM snapshot.
//!
//! ```yaml
//! policies:
//!   - same-snapshot
//! ```
//!
//! A test with the tag `snapshottable` installs a VM, unless there is one on the machine, and works on a snapshot of it. What
//! the VM is like depends on the tags `with-gui`, `uefi` and `fips`: tests that agree in all three share it, and only the first of
//! them pays for its installation. `docs/policies.md` of atex-host has the whole set-up that this is a part of.

use atex_plugin_api::policy::Class;
use atex_plugin_api::prelude::*;

/// The tag of tests that work on a snapshot.
const SNAPSHOTTABLE: &str = "snapshottable";
/// What makes one VM differ from another.
const FEATURES: [&str; 3] = ["with-gui", "uefi", "fips"];

/// There is nothing to configure; an unknown key is an error.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub struct Config {}

/// The policy: the snapshot of each test, by its number; 0 for tests that use none.
#[derive(Debug)]
pub struct SameSnapshot(Vec<Class>);

/// A number for the snapshot that a test with these tags starts from: 1 and a bit for each feature.
fn snapshot<'a>(tags: impl Iterator<Item = &'a str>) -> Class {
    let tags: Vec<_> = tags.collect();
    let has = |wanted: &str| tags.contains(&wanted);
    if !has(SNAPSHOTTABLE) {
        return 0;
    }
    FEATURES.iter().zip(1..).fold(1, |bits, (feature, bit)| bits | Class::from(has(feature)) << bit)
}

impl Plugin for SameSnapshot {
    type Config = Config;
    const ABOUT: &'static str = "after a test that passed in a VM, one that starts from the same snapshot";

    fn new(_config: Config, _host: Host) -> Result<Self> {
        Ok(Self(Vec::new()))
    }
}

impl SameSnapshot {
    fn of(&self, test: u32) -> Class {
        self.0.get(test as usize).copied().unwrap_or(0)
    }
}

impl Policy for SameSnapshot {
    fn wants(&self) -> Wants {
        Wants::new().attrs(["tag"]).rank().prefer()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        self.0.extend(tests.iter().map(|test| snapshot(test.attrs[0].lines())));
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| Rank { class: self.of(queued.test), score: 0 }));
        Ok(())
    }

    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let there = self.of(view.last);
        if view.last_ok && there != 0 {
            out.push(Prefer::Class(there, 1));
        }
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "same-snapshot" => SameSnapshot);

#[cfg(test)]
mod tests {
    use atex_plugin_api::policy::NONE;
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn policy() -> SameSnapshot {
        SameSnapshot::new(Config {}, FakeHost::new().handle()).unwrap()
    }

    #[test]
    fn snapshots_differ_by_what_the_vm_is_like() {
        let of = |tags: &str| snapshot(tags.lines());
        assert_eq!([of(""), of("uefi"), of("uefi\nfips")], [0; 3]);
        assert_eq!(of("snapshottable\nuefi\nslow"), of("uefi\nsnapshottable"));
        let all = [
            of("snapshottable"),
            of("snapshottable\nuefi"),
            of("snapshottable\nfips"),
            of("snapshottable\nwith-gui"),
            of("snapshottable\nwith-gui\nuefi\nfips"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(*one != 0 && !all[..at].contains(one), "{all:?}");
        }
    }

    #[test]
    fn only_a_test_that_passed_leaves_its_snapshot() {
        let mut policy = policy();
        let tags = ["snapshottable\nuefi", "", "snapshottable"];
        let attrs = tags.map(|tags| [tags]);
        let tests: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
        policy.register(&RunInfo::new(0, 3, 1), &tests).unwrap();
        let wish = |last, last_ok| {
            let mut view = View::new(0);
            (view.last, view.last_ok) = (last, last_ok);
            let mut out = vec![];
            policy.prefer(&view, &[], &mut out).unwrap();
            out
        };
        assert_eq!(wish(0, true), [Prefer::Class(snapshot("snapshottable\nuefi".lines()), 1)]);
        assert_eq!([wish(0, false), wish(1, true), wish(NONE, true)], [const { Vec::new() }; 3]);
    }

    #[test]
    fn it_keeps_the_rules_of_all_policies() {
        let tags = |_: &str, _: &str| "snapshottable\nfips".to_owned();
        assert_eq!(testkit::check_policy(policy, &["/a", "/b"], tags, |_| String::new()), []);
    }
}
