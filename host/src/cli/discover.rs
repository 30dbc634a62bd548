//! What `discover` prints: the names of the tests.
//!
//! For people: one name per line, in the order of the plan; with several platforms a line `# PLATFORM` (and `: PLAN`) before
//! each one's names.
//!
//! As JSON, an array with one object per platform and plan:
//!
//! ```json
//! {"platform": "rhel-9@x86_64", "plan": "/plans/daily", "source": "/t/plans.fmf", "tests": [
//!   {"name": "/a/b", "node": "/a/b", "directory": "a", "source": "/t/a/main.fmf", "duration": 300, "tags": ["x"], "order": 50}]}
//! ```
//!
//! `plan` is null for all tests of a tree; `directory` is relative to the root of the tree on the machine; `duration` is in
//! seconds. Fields may be added.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::fmf::discover::{Discovered, DiscoveredPlan, DiscoveredTest, printable};

/// A platform's name and what was discovered for it.
pub type Platform<'a> = (&'a str, &'a Discovered);

/// For people.
pub fn text(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let several = plans(platforms).count() > 1;
    for (platform, plan) in plans(platforms) {
        if several {
            writeln!(out, "# {}", title(platform, plan))?;
        }
        for test in &plan.tests {
            writeln!(out, "{}", printable(&test.name))?;
        }
    }
    Ok(())
}

/// For scripts.
pub fn json(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let plans = plans(platforms).map(|(platform, plan)| ShownPlan {
        platform,
        plan: plan.name.as_deref(),
        source: shown_path(plan.source.as_deref()),
        tests: &plan.tests,
    });
    write_json(out, plans)
}

#[derive(Serialize)]
struct ShownPlan<'a> {
    platform: &'a str,
    plan: Option<&'a str>,
    source: Option<Cow<'a, str>>,
    #[serde(serialize_with = "tests")]
    tests: &'a [DiscoveredTest],
}

#[derive(Serialize)]
struct ShownTest<'a> {
    name: &'a str,
    node: &'a str,
    directory: &'a str,
    source: Option<Cow<'a, str>>,
    duration: u64,
    tags: Vec<String>,
    order: i64,
}

/// One after the other: there may be a hundred thousand.
fn tests<S: Serializer>(tests: &[DiscoveredTest], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tests.iter().map(|test| ShownTest {
        name: &test.name,
        node: &test.node,
        directory: &test.cwd,
        source: shown_path(test.source.as_deref()),
        duration: test.duration.as_secs(),
        tags: test.tags(),
        order: test.order,
    }))
}

/// A directory above the tree may have a name that is not UTF-8.
fn shown_path(path: Option<&Path>) -> Option<Cow<'_, str>> {
    path.map(Path::to_string_lossy)
}

/// Every plan of every platform.
pub(super) fn plans<'a>(
    platforms: &'a [Platform<'a>],
) -> impl Iterator<Item = (&'a str, &'a DiscoveredPlan)> + Clone {
    platforms.iter().flat_map(|(name, found)| found.plans.iter().map(move |plan| (*name, plan)))
}

/// What a platform and a plan are called together.
pub(super) fn title(platform: &str, plan: &DiscoveredPlan) -> String {
    match &plan.name {
        Some(plan) => format!("{}: {}", printable(platform), printable(plan)),
        None => printable(platform).into_owned(),
    }
}

/// An array, indented, with a line end. Nothing is held but the item being written.
pub(super) fn write_json(out: &mut impl Write, items: impl IntoIterator<Item: Serialize>) -> io::Result<()> {
    serde_json::Serializer::pretty(&mut *out).collect_seq(items)?;
    writeln!(out)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use indexmap::IndexMap;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::config::{Dialect, PlanChoice, Selection};
    use crate::fmf::Tree;
    use crate::fmf::discover::{Discoverer, Request};
    use crate::fmf::git::Cache;

    /// What a tree of these files gives, all of its plans.
    pub(in crate::cli) fn discovered(files: &[(&str, &str)]) -> Discovered {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(".fmf/version", "1\n");
        for (path, text) in files {
            write(path, text);
        }
        let tree = Arc::new(Tree::load(directory.path()).unwrap());
        let plans = if files.iter().any(|(path, _)| path.starts_with("plan")) {
            PlanChoice::Matching(vec![String::new()])
        } else {
            PlanChoice::NoPlan
        };
        let request = Request {
            context: &IndexMap::new(),
            dialect: Dialect::Tmt,
            plans: &plans,
            selection: &Selection::default(),
            adjust: &[],
            environment: &Vec::new(),
            ignore_unsupported: false,
        };
        let mut found = Discoverer::new(tree, Cache::new("/nonexistent")).discover(&request).unwrap();
        // The directory is another one every time.
        let shorten = |path: &Option<Arc<Path>>| {
            path.as_deref().map(|path| Arc::from(path.strip_prefix(directory.path()).unwrap_or(path)))
        };
        for plan in &mut found.plans {
            plan.source = shorten(&plan.source);
            for test in &mut plan.tests {
                test.source = shorten(&test.source);
            }
        }
        found
    }

    pub(in crate::cli) fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_lines() {
        let found = discovered(&[("main.fmf", "test: t\n/b: {}\n/a: {}\n")]);
        assert_eq!(written(|out| text(out, &[("default", &found)])), "/a\n/b\n");
        assert_eq!(written(|out| text(out, &[])), "");
    }

    #[test]
    fn several_platforms_and_plans_have_titles() {
        let found = discovered(&[
            ("t.fmf", "test: t\n/a: {tag: x}\n/b\u{202e}: {}\n"),
            ("plan.fmf", "/p: {discover: {test: a}}\n/q: {discover: {test: t/b}}\n"),
        ]);
        let shown = "# one: /plan/p\n/t/a\n# one: /plan/q\n/t/b\\u{202e}\n";
        assert_eq!(written(|out| text(out, &[("one", &found)])), shown);
        let other = discovered(&[("t.fmf", "test: t")]);
        let shown = format!("{shown}# two\n/t\n");
        assert_eq!(written(|out| text(out, &[("one", &found), ("two", &other)])), shown);
    }

    #[test]
    fn json_has_the_shape_that_is_documented() {
        let found =
            discovered(&[("a/t.fmf", "test: t\ntag: [x]\nduration: 1h"), ("plan.fmf", "discover: {}")]);
        let shown: Json = serde_json::from_str(&written(|out| json(out, &[("default", &found)]))).unwrap();
        let expected = json!([{"platform": "default", "plan": "/plan", "source": "plan.fmf", "tests": [{
            "name": "/a/t", "node": "/a/t", "directory": "a", "source": "a/t.fmf", "duration": 3600, "tags": ["x"],
            "order": 50,
        }]}]);
        assert_eq!(shown, expected);
    }
}
