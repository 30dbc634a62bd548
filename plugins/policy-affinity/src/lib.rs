//! Policy `affinity`: a machine prefers the tests that suit what it did before.
//!
//! ```yaml
//! policies:
//!   - {use: affinity, key: snapshot}                  # as the last test that passed there
//!   - {use: affinity, key: tag}                       # sharing a tag with it
//!   - {use: affinity, key: snapshot, label: snapshot} # what a test left by `machine snapshot=...`
//! ```
//!
//! Tests suit each other if their values of the metadata key `key` have a word in common (a list has several). With `label`
//! the machine's fact of that name decides, which tests set with the control word `machine`; where there is none, the last
//! test does. With `after-failure: true` a failed test is as good as a passed one. Values that many tests share are cheap;
//! at most 64 groups are preferred at a time.

use std::collections::BTreeMap;

use atex_plugin_api::policy::{Class, NONE, TestId};
use atex_plugin_api::prelude::*;

/// Most classes that one answer may prefer.
const MAX_PREFERRED: usize = 64;

/// See the crate's documentation.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// Key of the test's metadata.
    key: String,
    /// Name of the machine's fact that tests set.
    #[serde(default)]
    label: Option<String>,
    /// Prefer what suits a failed test, too.
    #[serde(default)]
    after_failure: bool,
}

/// The policy.
#[derive(Debug)]
pub struct Affinity {
    config: Config,
    /// The class of a value; class 0 is for tests without one.
    classes: BTreeMap<String, Class>,
    /// Classes that have a word, in order.
    by_word: BTreeMap<String, Vec<Class>>,
    of_test: Vec<Class>,
    /// Words of each class, from class 1.
    words: Vec<Vec<String>>,
}

impl Plugin for Affinity {
    type Config = Config;
    const ABOUT: &'static str = "prefer tests that suit what the machine did last";

    fn new(config: Config, _host: Host) -> Result<Self> {
        if config.key.is_empty() {
            return Err(Error::config("`key`: must not be empty"));
        }
        let (classes, by_word) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { config, classes, by_word, of_test: Vec::new(), words: Vec::new() })
    }
}

impl Affinity {
    fn class(&mut self, value: &str) -> Class {
        if value.is_empty() {
            return 0;
        }
        if let Some(class) = self.classes.get(value) {
            return *class;
        }
        let class = self.words.len() as Class + 1;
        let mut words: Vec<String> = value.lines().map(str::to_owned).collect();
        words.sort();
        words.dedup();
        for word in &words {
            self.by_word.entry(word.clone()).or_default().push(class);
        }
        self.words.push(words);
        self.classes.insert(value.to_owned(), class);
        class
    }

    fn class_of(&self, test: TestId) -> Class {
        self.of_test.get(test as usize).copied().unwrap_or(0)
    }

    /// The words that suit the machine now.
    fn wanted<'a>(&'a self, view: &View<'a>) -> Vec<&'a str> {
        if let Some(label) = &self.config.label
            && let Some((_, value)) = view.labels.iter().find(|(key, _)| key == label)
        {
            return vec![value];
        }
        if view.last == NONE || !(view.last_ok || self.config.after_failure) {
            return Vec::new();
        }
        let words =
            (self.class_of(view.last) as usize).checked_sub(1).and_then(|index| self.words.get(index));
        words.map_or_else(Vec::new, |words| words.iter().map(String::as_str).collect())
    }
}

impl Policy for Affinity {
    fn wants(&self) -> Wants {
        Wants::new().attrs([&self.config.key]).rank().prefer()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            let class = self.class(test.attrs.first().copied().unwrap_or_default());
            self.of_test.push(class);
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| Rank { class: self.class_of(queued.test), score: 0 }));
        Ok(())
    }

    /// Classes with more words in common come first.
    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        let mut common: BTreeMap<Class, i64> = BTreeMap::new();
        for word in self.wanted(view) {
            for class in self.by_word.get(word).into_iter().flatten() {
                *common.entry(*class).or_default() += 1;
            }
        }
        let mut best: Vec<(i64, Class)> = common.into_iter().map(|(class, words)| (words, class)).collect();
        best.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        out.extend(best.into_iter().take(MAX_PREFERRED).map(|(words, class)| Prefer::Class(class, words)));
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "affinity" => Affinity);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn affinity(config: &str, values: &[&str]) -> impl Policy + use<> {
        let mut policy = testkit::policy::<Affinity>(config, &FakeHost::new().handle()).unwrap();
        let attrs: Vec<[&str; 1]> = values.iter().map(|value| [*value]).collect();
        let infos: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
        policy.register(&RunInfo::new(0, infos.len() as u32, 1), &infos).unwrap();
        policy
    }

    fn wish(policy: &impl Policy, last: u32, last_ok: bool, labels: &[(&str, &str)]) -> Vec<Prefer> {
        let mut view = View::new(0);
        (view.last, view.last_ok, view.labels) = (last, last_ok, labels);
        let mut out = vec![];
        policy.prefer(&view, &[], &mut out).unwrap();
        out
    }

    #[test]
    fn the_last_test_decides() {
        let policy = affinity(r#"{"key": "snapshot"}"#, &["gui", "", "gui", "uefi"]);
        assert_eq!(wish(&policy, 0, true, &[]), [Prefer::Class(1, 1)]);
        assert_eq!(wish(&policy, 3, true, &[]), [Prefer::Class(2, 1)]);
        assert_eq!(wish(&policy, 1, true, &[]), []);
        assert_eq!(wish(&policy, 0, false, &[]), []);
        assert_eq!(wish(&policy, NONE, true, &[]), []);
        let lenient = affinity(r#"{"key": "snapshot", "after-failure": true}"#, &["gui"]);
        assert_eq!(wish(&lenient, 0, false, &[]), [Prefer::Class(1, 1)]);
    }

    #[test]
    fn words_in_common_count() {
        let policy = affinity(r#"{"key": "tag"}"#, &["a\nb", "b\nc", "c", "b\na"]);
        assert_eq!(
            wish(&policy, 0, true, &[]),
            [Prefer::Class(1, 2), Prefer::Class(4, 2), Prefer::Class(2, 1)]
        );
    }

    #[test]
    fn what_was_left_on_the_machine_comes_first() {
        let policy = affinity(r#"{"key": "snapshot", "label": "snap"}"#, &["gui", "uefi"]);
        assert_eq!(wish(&policy, 0, true, &[("snap", "uefi")]), [Prefer::Class(2, 1)]);
        assert_eq!(wish(&policy, 0, true, &[("other", "uefi")]), [Prefer::Class(1, 1)]);
        assert_eq!(wish(&policy, 0, true, &[("snap", "nobody")]), []);
    }

    #[test]
    fn never_too_many_preferences() {
        let values: Vec<String> = (0..500).map(|i| format!("all\n{i}")).collect();
        let policy = affinity(r#"{"key": "tag"}"#, &values.iter().map(String::as_str).collect::<Vec<_>>());
        let wishes = wish(&policy, 9, true, &[]);
        assert_eq!((wishes.len(), wishes[0]), (MAX_PREFERRED, Prefer::Class(10, 2)));
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Affinity>(r#"{"key": "tag"}"#, &FakeHost::new().handle()).unwrap();
        assert_eq!(
            testkit::check_policy(make, &["/a", "/b", "/c"], |_, _| "x".to_owned(), |_| String::new()),
            []
        );
    }
}
