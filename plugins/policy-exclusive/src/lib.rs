//! Policy `exclusive`: tests that must not run beside each other on one machine.
//!
//! ```yaml
//! policies:
//!   - {use: exclusive}                    # tests whose `exclusive` names the same thing
//!   - {use: exclusive, key: port}
//! ```
//!
//! ```yaml
//! # main.fmf
//! test: ./occupy-port.sh
//! exclusive: port-80
//! ```
//!
//! This matters with several slots. A list names several things; two tests exclude each other if they have one in common.
//! A test that needs a machine for itself says so with `extra-slots: all`, without this policy. Where tests name several things,
//! there may be 4,096 different combinations of them; more are an error before anything runs.

use std::collections::BTreeMap;

use atex_plugin_api::policy::{Class, TestId, VETO};
use atex_plugin_api::prelude::*;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Key of the test's metadata.
    key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { key: "exclusive".to_owned() }
    }
}

/// More different combinations of things than one answer can name would be silently unprotected: they are an error.
const MAX_CLASSES: usize = 4096;

/// The policy.
#[derive(Debug)]
pub struct Exclusive {
    config: Config,
    classes: BTreeMap<String, Class>,
    /// Things of each class, from class 1.
    things: Vec<Vec<String>>,
    /// Classes that name a thing.
    by_thing: BTreeMap<String, Vec<Class>>,
    of_test: Vec<Class>,
    /// Some test names several things, so classes may overlap.
    overlaps: bool,
}

impl Plugin for Exclusive {
    type Config = Config;
    const ABOUT: &'static str = "tests that must not run beside each other on one machine";

    fn new(config: Config, _host: Host) -> Result<Self> {
        Ok(Self {
            config,
            classes: BTreeMap::new(),
            things: Vec::new(),
            by_thing: BTreeMap::new(),
            of_test: Vec::new(),
            overlaps: false,
        })
    }
}

impl Exclusive {
    fn class(&mut self, value: &str) -> Class {
        if value.is_empty() {
            return 0;
        }
        let next = self.things.len() as Class + 1;
        let class = *self.classes.entry(value.to_owned()).or_insert(next);
        if class == next {
            let things: Vec<String> = value.lines().map(str::to_owned).collect();
            self.overlaps |= things.len() > 1;
            for thing in &things {
                self.by_thing.entry(thing.clone()).or_default().push(class);
            }
            self.things.push(things);
        }
        class
    }

    fn things_of(&self, class: Class) -> &[String] {
        (class as usize).checked_sub(1).and_then(|index| self.things.get(index)).map_or(&[], Vec::as_slice)
    }

    fn class_of(&self, test: TestId) -> Class {
        self.of_test.get(test as usize).copied().unwrap_or(0)
    }
}

impl Policy for Exclusive {
    fn wants(&self) -> Wants {
        Wants::new().attrs([&self.config.key]).rank().prefer()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            let class = self.class(test.attrs.first().copied().unwrap_or_default());
            if self.things.len() > MAX_CLASSES && self.overlaps {
                return Err(Error::config(format!(
                    "test {}: more than {MAX_CLASSES} different combinations of `{}`",
                    test.name, self.config.key
                )));
            }
            self.of_test.push(class);
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| Rank { class: self.class_of(queued.test), score: 0 }));
        Ok(())
    }

    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let mut excluded: Vec<Class> =
            view.running.iter().map(|test| self.class_of(*test)).filter(|class| *class != 0).collect();
        if self.overlaps {
            let mine = excluded.iter().flat_map(|class| self.things_of(*class));
            let meeting = mine.filter_map(|thing| self.by_thing.get(thing)).flatten();
            excluded = meeting.copied().collect();
        }
        excluded.sort_unstable();
        excluded.dedup();
        out.extend(excluded.into_iter().map(|class| Prefer::Class(class, VETO)));
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "exclusive" => Exclusive);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn register(policy: &mut impl Policy, values: &[String]) -> Result<()> {
        let attrs: Vec<[&str; 1]> = values.iter().map(|value| [value.as_str()]).collect();
        let infos: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
        policy.register(&RunInfo::new(0, infos.len() as u32, 1), &infos)
    }

    fn exclusive() -> impl Policy {
        testkit::policy::<Exclusive>("{}", &FakeHost::new().handle()).unwrap()
    }

    fn vetoes(values: &[&str], running: &[u32]) -> Vec<Class> {
        let mut policy = exclusive();
        register(&mut policy, &values.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let mut view = View::new(0);
        view.running = running;
        let mut out = vec![];
        policy.prefer(&view, &[], &mut out).unwrap();
        out.iter()
            .map(|one| match one {
                Prefer::Class(class, VETO) => *class,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_same_thing_excludes() {
        let values = ["port", "", "disk", "port"];
        assert_eq!(vetoes(&values, &[]), [0; 0]);
        assert_eq!(vetoes(&values, &[1]), [0; 0]);
        assert_eq!(vetoes(&values, &[0]), [1]);
        assert_eq!(vetoes(&values, &[0, 2, 3]), [1, 2]);
    }

    #[test]
    fn one_thing_in_common_excludes() {
        let values = ["port\ndisk", "disk", "clock", "port"];
        assert_eq!(vetoes(&values, &[0]), [1, 2, 4]);
        assert_eq!(vetoes(&values, &[1]), [1, 2]);
        assert_eq!(vetoes(&values, &[2]), [3]);
        let many: Vec<String> = (0..1000).map(|number| format!("all\n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(vetoes(&many, &[7]).len(), 1000);
    }

    #[test]
    fn what_cannot_be_protected_is_an_error() {
        let single: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        assert_eq!(register(&mut exclusive(), &single), Ok(()));
        let several: Vec<String> = (0..5000).map(|i| format!("all\n{i}")).collect();
        assert!(register(&mut exclusive(), &several).is_err());
    }

    #[test]
    fn it_keeps_the_rules() {
        assert_eq!(
            testkit::check_policy(exclusive, &["/a", "/b"], |_, _| "x".to_owned(), |_| String::new()),
            []
        );
    }
}
