//! Small trees, written out where they are used.

use std::process::Command;

use super::*;
use crate::config::{AdjustRule, PlanChoice, Selection};
use crate::executor::spec::{Action, CheckRule, ResultRule};

/// A tree of these files in a directory of its own, and what a platform asks of it.
struct Fixture {
    directory: tempfile::TempDir,
    dialect: Dialect,
    context: IndexMap<String, Vec<String>>,
    plans: PlanChoice,
    selection: Selection,
    adjust: Vec<AdjustRule>,
    environment: Variables,
    ignore_unsupported: bool,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self {
            directory,
            dialect: Dialect::Tmt,
            context: IndexMap::new(),
            plans: PlanChoice::Only,
            selection: Selection::default(),
            adjust: Vec::new(),
            environment: Variables::new(),
            ignore_unsupported: false,
        };
        fixture.write(".fmf/version", "1\n");
        for (path, text) in files {
            fixture.write(path, text);
        }
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("tree").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn context(mut self, dimension: &str, value: &str) -> Self {
        self.context.entry(dimension.into()).or_default().push(value.into());
        self
    }

    fn atex(mut self) -> Self {
        self.dialect = Dialect::Atex;
        self
    }

    fn plan(mut self, pattern: &str) -> Self {
        self.plans = PlanChoice::Matching(vec![pattern.into()]);
        self
    }

    fn try_discover(&self) -> Result<Discovered, String> {
        let tree = Arc::new(Tree::load(&self.path("")).map_err(|error| error.to_string())?);
        let discoverer = Discoverer::new(tree, Cache::new(self.directory.path().join("cache")));
        let request = Request {
            context: &self.context,
            dialect: self.dialect,
            plans: &self.plans,
            selection: &self.selection,
            adjust: &self.adjust,
            environment: &self.environment,
            ignore_unsupported: self.ignore_unsupported,
        };
        discoverer.discover(&request).map_err(|error| error.to_string())
    }

    fn discover(&self) -> Discovered {
        self.try_discover().unwrap()
    }

    fn error(&self) -> String {
        let error = self.try_discover().unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    /// The only plan.
    fn only(&self) -> DiscoveredPlan {
        let mut plans = self.discover().plans;
        assert_eq!(plans.len(), 1);
        plans.remove(0)
    }

    fn names(&self) -> Vec<String> {
        self.only().tests.iter().map(|test| test.name.to_string()).collect()
    }

    fn test(&self, name: &str) -> DiscoveredTest {
        let plan = self.only();
        plan.tests.into_iter().find(|test| &*test.name == name).unwrap_or_else(|| panic!("no test {name}"))
    }
}

/// A test `/t` with these keys, and no plan.
fn test_with(keys: &str) -> Result<DiscoveredTest, String> {
    let fixture = Fixture::new(&[("t.fmf", &format!("test: ./run\n{keys}"))]);
    Ok(fixture.try_discover()?.plans.remove(0).tests.remove(0))
}

/// A plan `/p` with these keys beside one test `/t`.
fn plan_with(keys: &str) -> Fixture {
    Fixture::new(&[("t.fmf", "test: ./run"), ("p.fmf", keys)])
}

const DISCOVER: &str = "discover: {how: fmf}\n";

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a repository of these files beside the tree; gives its address.
fn repository(fixture: &Fixture, name: &str, files: &[(&str, &str)]) -> String {
    let directory = fixture.directory.path().join(name);
    for (path, text) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    git(&directory, &["init", "--quiet", "--initial-branch=main", "."]);
    git(&directory, &["add", "."]);
    git(&directory, &["commit", "--quiet", "-m", "x"]);
    format!("file://{}", directory.display())
}

mod selecting {
    use super::*;

    const TESTS: (&str, &str) = (
        "main.fmf",
        "test: t\n/a: {tag: [x]}\n/b: {tag: [y]}\n/c: {enabled: false}\n/d: {manual: true}\n/e: {story: s}\n\
         /f: {enabled: 0}\n/g: {enabled: 'no'}\n/h: {enabled: }\n/i: {test: }\n/j: {manual: ''}\n",
    );

    #[test]
    fn tests_are_enabled_automatic_and_no_stories() {
        let fixture = Fixture::new(&[TESTS]);
        assert_eq!(fixture.names(), ["/a", "/b", "/g", "/i", "/j"]);
        assert_eq!(fixture.only().name, None);
    }

    #[test]
    fn a_test_without_a_command_fails_and_is_warned_about() {
        let found = Fixture::new(&[("t.fmf", "test:\n")]).discover();
        assert!(found.plans[0].tests[0].script.ends_with("exit 1"));
        assert!(found.warnings[0].contains("t.fmf"), "{:?}", found.warnings);
    }

    #[test]
    fn a_plan_selects_by_names_filters_and_exclusions() {
        let inherit = "/:\n  inherit: false\n";
        for (discover, expected) in [
            ("{how: fmf}", ["/tests/a", "/tests/b", "/tests/n"].as_slice()),
            ("{filter: 'tag:x'}", &["/tests/a"]),
            ("{filter: ['tag:x', 'tag:y']}", &[]),
            ("{test: [/a, '/b$'], exclude: [a$]}", &["/tests/b"]),
            ("{test: /b}", &["/tests/b"]),
            ("{exclude: /tests}", &[]),
        ] {
            let plan = format!("{inherit}execute: {{how: tmt}}\ndiscover: {discover}\n");
            let tests =
                "test: t\n/a: {tag: [x]}\n/b: {tag: [y]}\n/n: {tag: z}\n/c: {enabled: false, tag: [x]}\n";
            let fixture = Fixture::new(&[("plan.fmf", &plan), ("tests/main.fmf", tests)]);
            assert_eq!(fixture.names(), expected, "{discover}");
            assert_eq!(fixture.atex().names(), expected, "{discover}");
        }
    }

    #[test]
    fn in_dialect_tmt_filters_know_the_defaults_of_tests() {
        let tests = ("main.fmf", "test: t\n/a: {tag: [slow]}\n/b: {summary: x}\n/c: {tty: true}\n");
        for (filter, tmt, atex) in [
            ("tag:-slow", ["/b", "/c"].as_slice(), [].as_slice()),
            ("enabled:true", &["/a", "/b", "/c"], &[]),
            ("tty:true", &["/c"], &[]),
            ("tty:True", &["/c"], &["/c"]),
            ("framework:shell", &["/a", "/b", "/c"], &[]),
            ("/[ab]$", &["/a", "/b"], &["/a", "/b"]),
        ] {
            let mut fixture = Fixture::new(&[tests]);
            fixture.selection.filter = vec![filter.into()];
            assert_eq!(fixture.names(), tmt, "{filter}");
            assert_eq!(fixture.atex().names(), atex, "{filter}");
        }
    }

    #[test]
    fn a_run_narrows_what_the_plan_selected() {
        let select = |change: fn(&mut Selection)| {
            let plan = "/:\n  inherit: false\ndiscover: {test: '/[abg]$'}\n";
            let mut fixture = Fixture::new(&[TESTS, ("p.fmf", plan)]);
            change(&mut fixture.selection);
            fixture.try_discover().map(|found| {
                found.plans[0].tests.iter().map(|test| test.name.to_string()).collect::<Vec<_>>()
            })
        };
        let some = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(select(|it| it.test = vec!["a".into(), "i".into()]), some(&["/a"]));
        assert_eq!(select(|it| it.exclude = vec!["a".into()]), some(&["/b", "/g"]));
        assert_eq!(select(|it| it.filter = vec!["tag:x,y".into()]), some(&["/a", "/b"]));
        assert_eq!(select(|it| it.condition = vec!["'y' in tag".into()]), some(&["/b"]));
        assert_eq!(select(|it| it.condition = vec!["nokey == 1".into()]), some(&[]));
        for (change, problem) in [
            ((|it| it.test = vec!["(".into()]) as fn(&mut Selection), "--test"),
            (|it| it.exclude = vec!["(".into()], "--exclude"),
            (|it| it.filter = vec!["tag:(".into()], "--filter"),
            (|it| it.condition = vec!["tag ==".into()], "column 7"),
            (|it| it.condition = vec!["tag < 1".into()], "TypeError"),
        ] {
            let error = select(change).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn the_context_and_the_last_words_decide_too() {
        let tests = "test: t\n/a: {adjust: {enabled: false, when: distro == fedora}}\n/b: {duration: 5m, require: [x]}\n";
        let fixture = Fixture::new(&[("main.fmf", tests)]).context("distro", "fedora-40");
        assert_eq!(fixture.names(), ["/b"]);
        let rule = |test: Option<&str>, keys: &str| AdjustRule {
            test: test.map(str::to_owned),
            keys: serde_json::from_str(keys).unwrap(),
        };
        let mut fixture = Fixture::new(&[("main.fmf", tests)]).context("distro", "rhel-9");
        fixture.adjust = vec![
            rule(Some("/b"), r#"{"duration+": " *2", "require+": ["y"], "when": "distro == rhel"}"#),
            rule(Some("/b"), r#"{"tag": ["no"], "when": "distro == fedora"}"#),
            rule(Some("/a$"), r#"{"enabled": false}"#),
        ];
        assert_eq!(fixture.names(), ["/b"]);
        let test = fixture.test("/b");
        assert_eq!(test.duration.as_secs(), 600);
        assert_eq!(test.packages.required, ["x", "y"]);
        assert_eq!(test.tags(), [] as [&str; 0]);
        fixture.adjust = vec![rule(None, r#"{"duration+": 5}"#)];
        assert!(fixture.error().contains("rule 1 of `adjust`"), "{}", fixture.error());
        fixture.adjust = vec![rule(None, r#"{"when": "distro ="}"#)];
        assert!(fixture.error().contains("`when`"), "{}", fixture.error());
    }

    #[test]
    fn dialect_tmt_keeps_the_order_that_tests_ask_for() {
        let tests = ("main.fmf", "test: t\n/a: {order: 60}\n/b: {}\n/c: {order: 10}\n/d: {}\n");
        assert_eq!(Fixture::new(&[tests]).names(), ["/c", "/b", "/d", "/a"]);
        assert_eq!(Fixture::new(&[tests]).atex().names(), ["/a", "/b", "/c", "/d"]);
    }
}

mod choosing_plans {
    use super::*;

    const PLANS: (&str, &str) = (
        "plans.fmf",
        "execute: {how: tmt}\ndiscover: {how: fmf}\n/a: {}\n/b: {}\n/off: {enabled: false}\n\
         /ctx: {adjust: {enabled: false, when: distro == fedora}}\n",
    );
    const TEST: (&str, &str) = ("t.fmf", "test: t");

    fn plans(fixture: &Fixture) -> Vec<Option<String>> {
        fixture.discover().plans.into_iter().map(|plan| plan.name).collect()
    }

    #[test]
    fn several_need_a_choice() {
        let fixture = Fixture::new(&[PLANS, TEST]);
        let error = fixture.error();
        assert!(error.contains("/plans/a, /plans/b, /plans/ctx") && !error.contains("off"), "{error}");
        let some = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
        assert_eq!(plans(&Fixture::new(&[PLANS, TEST]).plan("/a$")), some(&["/plans/a"]));
        assert_eq!(
            plans(&Fixture::new(&[PLANS, TEST]).plan(".*")),
            some(&["/plans/a", "/plans/b", "/plans/ctx"])
        );
        let fedora = Fixture::new(&[PLANS, TEST]).plan(".*").context("distro", "fedora");
        assert_eq!(plans(&fedora), some(&["/plans/a", "/plans/b"]));
    }

    #[test]
    fn one_is_taken_and_none_means_all_tests() {
        let one = Fixture::new(&[
            TEST,
            ("p.fmf", "discover: {how: fmf}"),
            ("q.fmf", "execute: {}\nenabled: false"),
        ]);
        assert_eq!(plans(&one), [Some("/p".to_owned())]);
        assert_eq!(plans(&Fixture::new(&[TEST])), [None]);
        let mut none = Fixture::new(&[TEST, PLANS]);
        none.plans = PlanChoice::NoPlan;
        assert_eq!(plans(&none), [None]);
        assert_eq!(none.names(), ["/t"]);
        none.plans = PlanChoice::Exactly("/plans/b".into());
        assert_eq!(plans(&none), [Some("/plans/b".to_owned())]);
    }

    #[test]
    fn one_that_is_not_there_is_an_error_that_lists_the_others() {
        for choice in ["/nope", "off", "/t"] {
            let error = Fixture::new(&[PLANS, TEST]).plan(choice).error();
            assert!(error.contains(choice) && error.contains("/plans/a"), "{error}");
        }
        assert!(Fixture::new(&[TEST]).plan("x").error().contains("there is none"));
        assert!(Fixture::new(&[TEST]).plan("(").error().contains("--plan"));
    }

    #[test]
    fn a_test_or_a_story_is_no_plan() {
        let fixture = Fixture::new(&[(
            "main.fmf",
            "execute: {how: tmt}\n/t: {test: t}\n/s: {story: x}\n/p: {discover: {how: fmf}}\n",
        )]);
        assert_eq!(plans(&fixture), [Some("/p".to_owned())]);
    }
}

mod sections {
    use super::*;

    fn with(discover: &str) -> Fixture {
        let plan = format!("discover: {discover}\n");
        Fixture::new(&[("p.fmf", &plan), ("d/main.fmf", "test: t\n/a: {tag: x}\n/b: {tag: y}\n")])
    }

    fn layers(fixture: &Fixture) -> Vec<String> {
        fixture.only().layers.into_iter().map(|layer| layer.to).collect()
    }

    #[test]
    fn names_are_prefixed_by_dialect() {
        let one = "{name: one, how: fmf}";
        assert_eq!(with(one).names(), ["/d/a", "/d/b"]);
        assert_eq!(with(one).atex().names(), ["/one/d/a", "/one/d/b"]);
        assert_eq!(with("{how: fmf}").atex().names(), ["/d/a", "/d/b"]);
        let two = "[{name: one, filter: 'tag:x'}, {name: two, test: /b}]";
        assert_eq!(with(two).names(), ["/one/d/a", "/two/d/b"]);
        assert_eq!(with(two).atex().names(), ["/one/d/a", "/two/d/b"]);
        let unnamed = "[{filter: 'tag:x'}, {test: /b}]";
        assert_eq!(with(unnamed).names(), ["/default-0/d/a", "/default-1/d/b"]);
        assert!(with(unnamed).atex().error().contains("`discover[0].name` is missing"));
        let same = "[{name: one}, {name: one}]";
        assert!(with(same).error().contains("`discover[1].name`"), "{}", with(same).error());
        let third = "[{name: one, filter: 'tag:x'}, {name: two, when: distro == x}]";
        assert_eq!(with(third).names(), ["/one/d/a"]);
    }

    #[test]
    fn each_prefixed_section_has_a_directory() {
        assert_eq!(layers(&with("{how: fmf}")), [""]);
        let two = with("[{name: one, filter: 'tag:x'}, {name: d, test: /b}]");
        // `d` is taken in the tree.
        assert_eq!(layers(&two), ["", "one", "_d"]);
        assert_eq!(two.test("/one/d/a").cwd, "one/d");
        assert_eq!(two.test("/d/d/b").cwd, "_d/d");
        assert_eq!(&*two.test("/d/d/b").node, "/d/b");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["..", "a/../b", "''", "a//b", "'a\\tb'"] {
            let fixture = with(&format!("{{name: {}}}", name.replace("'a\\tb'", "\"a\\tb\"")));
            let result = fixture.try_discover();
            assert!(result.is_err(), "{name}");
        }
    }

    #[test]
    fn tests_may_be_written_out_in_the_plan() {
        let fixture = with(
            "{how: shell, tests: [{name: /help/main, test: true}, {name: smoke, test: ./s, path: d, duration: 2m, \
             environment: {A: 1}, tag: [x]}]}",
        );
        assert_eq!(fixture.names(), ["/help/main", "/smoke"]);
        let main = fixture.test("/help/main");
        assert_eq!((main.cwd.as_str(), &*main.script, main.duration.as_secs()), ("", "true", 3600));
        let smoke = fixture.test("/smoke");
        assert_eq!((smoke.cwd.as_str(), smoke.duration.as_secs()), ("d", 120));
        assert_eq!(*smoke.environment, [("A".to_owned(), "1".to_owned())]);
        assert_eq!(smoke.tags(), ["x"]);
        for (tests, problem) in [
            ("[{test: x}]", "`discover.tests[0].name` is missing"),
            ("[{name: x}]", "`discover.tests[0].test` is missing"),
            ("[{name: /, test: x}]", "no name"),
            ("[{name: x, test: t}, {name: /x, test: t}]", "two tests have the name /x"),
            ("x", "`discover.tests`"),
        ] {
            let error = with(&format!("{{how: shell, tests: {tests}}}")).error();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn scripts_of_execute_are_tests() {
        let fixture = Fixture::new(&[("p.fmf", "execute: {how: tmt, script: [./a, 'b c'], duration: 10m}")]);
        assert_eq!(fixture.names(), ["/script-00", "/script-01"]);
        assert_eq!(&*fixture.test("/script-01").script, "b c");
        assert_eq!(fixture.test("/script-01").duration.as_secs(), 600);
        let both = Fixture::new(&[("p.fmf", "execute: {script: x}\ndiscover: {how: fmf}")]);
        assert!(both.error().contains("beside `discover`"));
        let neither = Fixture::new(&[("p.fmf", "execute: {how: tmt}")]);
        assert!(neither.error().contains("`discover` is missing"), "{}", neither.error());
    }

    #[test]
    fn the_plan_may_add_to_the_context_and_adjust_tests() {
        let files = [
            ("p.fmf", "context: {kind: daily, distro: rhel-9}\ndiscover: {adjust-tests: [{tag+: [z]}]}\n"),
            (
                "t.fmf",
                "test: t\ntag: [a]\nadjust: [{tag+: [d], when: kind == daily}, {tag+: [r], when: distro == rhel}]\n",
            ),
        ];
        assert_eq!(Fixture::new(&files).test("/t").tags(), ["a", "d", "r", "z"]);
        let fedora = Fixture::new(&files).context("distro", "fedora-40");
        assert_eq!(fedora.test("/t").tags(), ["a", "d", "z"]);
    }

    #[test]
    fn trees_from_elsewhere_are_fetched() {
        let mut fixture = with("{how: fmf}");
        let files = [
            ("sub/.fmf/version", "1"),
            ("sub/lib/t.fmf", "test: remote\npath: /lib"),
            ("README", "outside the tree"),
        ];
        let url = repository(&fixture, "remote", &files);
        fixture.write("p.fmf", &format!("discover: {{url: {url}, path: /sub, ref: main}}\n"));
        assert_eq!(fixture.names(), ["/lib/t"]);
        assert_eq!(layers(&fixture), ["", "default-0"]);
        assert_eq!(fixture.test("/lib/t").cwd, "default-0/sub/lib");
        let layer = fixture.only().layers[1].from.clone();
        assert!(layer.join("README").exists() && !layer.join(".git").exists());
        for (section, problem) in [
            (format!("{{url: {url}}}"), "`discover.path` names"),
            (format!("{{url: {url}, path: ../x}}"), "outside the repository"),
            (format!("{{url: {url}, ref: nope, path: sub}}"), "`discover.url`: fetching nope"),
            (format!("{{url: {url}, ref: '@file'}}"), "dynamic refs"),
            ("{url: 'https://$HOST/x'}".to_owned(), "not expanded"),
            ("{path: /nonexistent}".to_owned(), "no tree"),
            ("{ref: main}".to_owned(), "no git repository"),
        ] {
            fixture.write("p.fmf", &format!("discover: {section}\n"));
            assert!(fixture.error().contains(problem), "{section}: {}", fixture.error());
        }
        fixture.write(
            "p.fmf",
            &format!("discover: {{how: shell, url: {url}, tests: [{{name: x, test: y, path: lib}}]}}"),
        );
        assert_eq!(fixture.test("/x").cwd, "default-0/lib");
        fixture.write(
            "p.fmf",
            &format!("discover: [{{name: far, url: {url}, path: sub}}, {{name: near, test: /a}}]"),
        );
        assert_eq!(fixture.names(), ["/far/lib/t", "/near/d/a"]);
        fixture.dialect = Dialect::Atex;
        assert_eq!(fixture.test("/near/d/a").cwd, "near/d");
    }

    #[test]
    fn another_commit_of_the_trees_own_repository_can_be_taken() {
        let fixture = with("{ref: old}");
        let root = fixture.path("");
        git(&root, &["init", "--quiet", "--initial-branch=main", "."]);
        git(&root, &["add", "."]);
        git(&root, &["commit", "--quiet", "-m", "x"]);
        git(&root, &["branch", "old"]);
        fixture.write("new.fmf", "test: t");
        assert_eq!(fixture.names(), ["/d/a", "/d/b"]);
    }

    #[test]
    fn a_nested_tree_has_its_own_directory() {
        let fixture = with("{path: nested}");
        fixture.write("nested/.fmf/version", "1");
        fixture.write("nested/x.fmf", "test: t");
        assert_eq!(fixture.names(), ["/x"]);
        assert_eq!(fixture.test("/x").cwd, "default-0");
        assert_eq!(fixture.only().layers[1].from, fixture.path("nested"));
    }
}

mod keys_of_tests {
    use super::*;

    #[test]
    fn commands_are_what_was_written() {
        let script = |text: &str| {
            let fixture = Fixture::new(&[("t.fmf", &format!("test: {text}"))]);
            fixture.try_discover().map(|found| found.plans[0].tests[0].script.to_string())
        };
        assert_eq!(script("true"), Ok("true".to_owned()));
        assert_eq!(script("false"), Ok("false".to_owned()));
        assert_eq!(script("|\n  a\n  b\n"), Ok("a\nb\n".to_owned()));
        assert!(script("[a]").unwrap_err().contains("`test` has to be a command"));
    }

    #[test]
    fn directories_are_those_of_the_file_and_the_path() {
        let cwd = |file: &str, keys: &str| {
            let fixture = Fixture::new(&[(file, &format!("test: t\n{keys}"))]);
            fixture.try_discover().map(|found| found.plans[0].tests[0].cwd.clone())
        };
        for (file, keys, expected) in [
            ("t.fmf", "", ""),
            ("main.fmf", "/t: {}", ""),
            ("a/b/main.fmf", "", "a/b"),
            ("a/b/t.fmf", "/x: {}", "a/b"),
            ("a/t.fmf", "path: sub", "a/sub"),
            ("a/t.fmf", "path: ../c/", "c"),
            ("a/t.fmf", "path: /c/./d", "c/d"),
            ("a/t.fmf", "path: /", ""),
        ] {
            assert_eq!(cwd(file, keys).as_deref(), Ok(expected), "{file} {keys}");
        }
        for path in ["../..", "/..", "/a/../../x"] {
            let error = cwd("a/t.fmf", &format!("path: {path}")).unwrap_err();
            assert!(error.contains("`path`") && error.contains("outside the tree"), "{error}");
        }
    }

    #[test]
    fn values_are_typed() {
        let test = test_with(
            "duration: 1h 30m\ntty: true\nframework: beakerlib\ntag: one\nresult: xfail\norder: 7\n\
             restart-on-exit-code: [3, 4]\nrestart-max-count: 5\nrestart-with-reboot: true\n\
             require: [a, b]\nrecommend: c\nextra-nitrate: TC#1\n\
             check: [avc, {how: dmesg, result: info, failure-pattern: [oops]}, {how: journal, enabled: false}]\n",
        )
        .unwrap();
        assert_eq!(test.duration.as_secs(), 5400);
        assert!(test.tty && test.framework == Framework::Beakerlib && test.result == ResultRule::Xfail);
        assert_eq!((test.tags().as_slice(), test.order), (["one".to_owned()].as_slice(), 7));
        let restart = test.restart.clone().unwrap();
        assert_eq!(
            (restart.codes.as_slice(), restart.max, restart.with_reboot),
            ([3, 4].as_slice(), 5, true)
        );
        assert_eq!(
            (test.packages.required.join(" "), test.packages.recommended.join(" ")),
            ("a b".into(), "c".into())
        );
        let checks: Vec<_> = test.checks.iter().map(|check| (check.how.as_str(), check.result)).collect();
        assert_eq!(checks, [("avc", CheckRule::Respect), ("dmesg", CheckRule::Info)]);
        assert_eq!(test.checks[1].failure_patterns, ["oops"]);
        assert_eq!(test.extra().map(|(key, _)| key).collect::<Vec<_>>(), ["extra-nitrate"]);
        let plain = test_with("").unwrap();
        assert_eq!((plain.duration, plain.order), (duration::DEFAULT, 50));
        assert!(!plain.tty && plain.restart.is_none() && plain.checks.is_empty());
        assert_eq!(test_with("duration: 300").unwrap().duration.as_secs(), 300);
    }

    #[test]
    fn what_is_wrong_names_file_and_key() {
        for (keys, key) in [
            ("duration: soon", "duration"),
            ("duration: [5m]", "duration"),
            ("tty: 'yes'", "tty"),
            ("framework: perl", "framework"),
            ("result: maybe", "result"),
            ("restart-on-exit-code: x", "restart-on-exit-code"),
            ("restart-on-exit-code: 256", "restart-on-exit-code"),
            ("restart-max-count: 11", "restart-max-count"),
            ("order: first", "order"),
            ("environment: {A: [1]}", "environment"),
            ("check: [{how: dmesg, result: maybe}]", "check[0].result"),
            ("check: 5", "check"),
            ("require: -rf", "require"),
            ("require: [5]", "require"),
        ] {
            let error = test_with(keys).unwrap_err();
            assert!(error.contains("t.fmf: /t: ") && error.contains(&format!("`{key}`")), "{keys}: {error}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_or_left_out() {
        for (keys, key) in
            [("check: [selinux]", "check[0].how"), ("where: server", "where"), ("role: x", "role")]
        {
            let mut fixture = Fixture::new(&[("t.fmf", &format!("test: t\n{keys}"))]);
            let error = fixture.error();
            assert!(error.contains(key) && error.contains("--ignore-unsupported"), "{error}");
            fixture.ignore_unsupported = true;
            let found = fixture.discover();
            assert_eq!((found.plans[0].tests.len(), found.warnings.len()), (1, 1));
        }
    }

    #[test]
    fn metadata_has_the_final_name_and_no_rules() {
        let fixture = Fixture::new(&[
            ("t.fmf", "test: t\ntag: [a, b]\nmeta: {k: 1}\nadjust: {tier: '2', when: distro == x}\n"),
            ("p.fmf", "discover: [{name: one}, {name: two, test: nope}]"),
        ])
        .context("distro", "x");
        let test = fixture.test("/one/t");
        let json = test.metadata().to_json().to_string();
        assert_eq!(json, r#"{"name":"/one/t","test":"t","tag":["a","b"],"meta":{"k":1},"tier":"2"}"#);
        let attributes = ["tag", "meta", "tier", "nope", "test"].map(|key| test.attribute(key));
        assert_eq!(attributes, ["a\nb", r#"{"k":1}"#, "2", "", "t"]);
        assert!(fixture.only().spec(&test).metadata.contains("name: /one/t\n"));
    }

    #[test]
    fn environments_are_merged_by_dialect() {
        let files = [
            ("t.fmf", "test: t\nenvironment: {T: test, TP: test, TR: test, ALL: test}"),
            ("p.fmf", "discover: {how: fmf}\nenvironment: {P: plan, TP: plan, PR: plan, ALL: plan}"),
        ];
        let merged = |mut fixture: Fixture| {
            let pair = |name: &str| (name.to_owned(), "run".to_owned());
            fixture.environment = ["R", "TR", "PR", "ALL"].map(pair).to_vec();
            let plan = fixture.only();
            let site = plan.site_environment();
            let test = plan.environment_of(&plan.tests[0]);
            let all: HashMap<_, _> = test.below.iter().chain(&test.above).cloned().collect();
            let of =
                |names: &[&str]| names.iter().map(|name| all[*name].as_str()).collect::<Vec<_>>().join(" ");
            assert_eq!(site.iter().find(|(name, _)| name == "PR").unwrap().1, "run");
            assert!(site.iter().all(|(name, _)| name != "T"));
            (of(&["T", "P", "R", "TP", "TR", "PR", "ALL"]), test.above.is_empty())
        };
        assert_eq!(merged(Fixture::new(&files)), ("test plan run plan run run run".to_owned(), true));
        assert_eq!(merged(Fixture::new(&files).atex()), ("test plan run test run run run".to_owned(), false));
    }

    #[test]
    fn dialect_atex_ignores_result() {
        let fixture = Fixture::new(&[("t.fmf", "test: t\nresult: xfail")]).atex();
        assert_eq!(fixture.test("/t").result, ResultRule::Respect);
    }
}

mod phases {
    use super::*;

    fn prepare(keys: &str) -> Vec<Phase> {
        plan_with(&format!("{DISCOVER}{keys}")).only().prepare
    }

    #[test]
    fn phases_are_sorted_and_chosen_by_the_context() {
        let keys = format!(
            "{DISCOVER}prepare:\n- {{how: shell, script: b, name: second}}\n- {{script: [a, c], order: 10}}\n\
             - {{how: shell, script: x, when: distro == fedora}}\n- {{how: shell, script: y, when: [distro == fedora, arch == arm]}}\n\
             finish: {{how: shell, script: done}}\n"
        );
        let plan = plan_with(&keys).context("arch", "arm").only();
        let scripts: Vec<_> = plan
            .prepare
            .iter()
            .chain(&plan.finish)
            .map(|phase| (phase.name.as_str(), &phase.action))
            .collect();
        let shell =
            |scripts: &[&str]| Action::Shell { scripts: scripts.iter().map(|it| (*it).to_owned()).collect() };
        assert_eq!(
            scripts,
            [
                ("prepare default-1", &shell(&["a", "c"])),
                ("prepare second", &shell(&["b"])),
                ("prepare default-3", &shell(&["y"])),
                ("finish default-0", &shell(&["done"])),
            ]
        );
    }

    #[test]
    fn installing_knows_packages_files_and_repositories() {
        let fixture = plan_with(&format!(
            "{DISCOVER}prepare:\n- {{how: install, package: [a, 'perl(X)', /usr/bin/b, ./rpms/x.rpm], exclude: [c], missing: skip, \
             copr: g/p, directory: rpms}}\n- {{how: feature, epel: enabled}}\n"
        ));
        fixture.write("rpms/x.rpm", "");
        fixture.write("rpms/y.rpm", "");
        let prepare = fixture.only().prepare;
        let Action::Install(packages) = &prepare[0].action else { panic!("{prepare:?}") };
        assert_eq!(packages.required, ["a", "perl(X)", "/usr/bin/b"]);
        assert_eq!(packages.files, ["./rpms/x.rpm", "rpms/x.rpm", "rpms/y.rpm"]);
        assert_eq!((packages.exclude.join(" "), packages.copr.join(" ")), ("c".into(), "g/p".into()));
        assert!(packages.skip_missing && !packages.epel);
        assert!(matches!(&prepare[1].action, Action::Install(packages) if packages.epel));
    }

    #[test]
    fn playbooks_are_files_of_the_tree() {
        let fixture = plan_with(&format!(
            "{DISCOVER}prepare: {{how: ansible, playbook: play.yml, extra-args: \"-v -e 'a b'\"}}\n"
        ));
        fixture.write("play.yml", "");
        let Action::Ansible { playbooks, extra_args } = &fixture.only().prepare[0].action else { panic!() };
        assert_eq!(playbooks, &[fixture.path("play.yml")]);
        assert_eq!(extra_args, &["-v", "-e", "a b"]);
    }

    #[test]
    fn what_does_nothing_is_no_phase() {
        assert_eq!(prepare("prepare: []\n"), []);
        assert_eq!(prepare("prepare:\n"), []);
        assert_eq!(prepare("prepare: {how: shell, script: []}\n"), []);
    }

    #[test]
    fn what_is_wrong_names_file_and_key() {
        for (keys, key, problem) in [
            ("prepare: x", "`prepare`", "mapping"),
            ("prepare: [{how: shell, script: {a: 1}}]", "`prepare[0].script`", "text"),
            ("prepare: {how: install, missing: maybe}", "`prepare.missing`", "fail, skip"),
            ("prepare: {how: install, package: -x}", "`prepare.package`", "no name of a package"),
            ("prepare: {how: install, package: a/b.rpm}", "`prepare.package`", "No such file"),
            ("prepare: {how: install, directory: ..}", "`prepare.directory`", "outside the tree"),
            ("prepare: {how: ansible, playbook: nope.yml}", "`prepare.playbook`", "No such file"),
            ("prepare: {how: shell, script: x, when: distro ==}", "`prepare.when`", "expression"),
            ("prepare: {how: shell, script: x, when: 5}", "`prepare.when`", "rule"),
            ("prepare: {how: shell, script: x, order: first}", "`prepare.order`", "whole number"),
            ("environment: {A: {}}", "`environment`", "dict"),
            ("environment-file: nope", "`environment-file`", "nope"),
            ("context: {a: {}}", "`context`", "no text"),
        ] {
            let error = plan_with(&format!("{DISCOVER}{keys}\n")).error();
            assert!(
                error.contains("p.fmf: /p: ") && error.contains(key) && error.contains(problem),
                "{keys}: {error}"
            );
        }
    }
}

mod unsupported {
    use super::*;

    #[test]
    fn where_it_could_change_a_verdict_it_is_an_error_unless_ignored() {
        for (keys, key) in [
            ("discover: {how: cmake}", "discover.how"),
            ("discover: {modified-only: true}", "discover.modified-only"),
            ("discover: {dist-git-source: true}", "discover.dist-git-source"),
            ("discover: {link: 'verifies:x'}", "discover.link"),
            ("discover: {foo: 1}", "discover.foo"),
            ("discover: {where: x}", "discover.where"),
            ("discover: [{name: a}, {name: b, sync-repo: true}]", "discover[1].sync-repo"),
            ("discover: {}\nprepare: {how: distgit}", "prepare.how"),
            ("discover: {}\nprepare: {how: shell, script: x, url: y}", "prepare.url"),
            ("discover: {}\nprepare: {how: shell, script: x, role: server}", "prepare.role"),
            ("discover: {}\nprepare: {how: shell, script: x, where: server}", "prepare.where"),
            ("discover: {}\nprepare: {how: feature, fips: enabled}", "prepare.fips"),
            ("discover: {}\nprepare: {how: feature, epel: disabled}", "prepare.epel"),
            ("discover: {}\nprepare: {how: ansible, playbook: 'https://x/y'}", "prepare.playbook"),
            ("discover: {}\nfinish: {how: install, package: x}", "finish.how"),
            ("discover: {}\nexecute: {how: upgrade}", "execute.how"),
            ("discover: {}\nexecute: {how: tmt, exit-first: true}", "execute.exit-first"),
            ("discover: {}\nexecute: {how: tmt, foo: x}", "execute.foo"),
            ("discover: {}\nexecute: [{how: tmt}, {how: tmt}]", "execute[1].how"),
            ("discover: {}\nprovision: [{how: local}, {how: virtual}]", "provision[1]"),
            ("discover: {}\nprovision: {how: local, role: server}", "provision.role"),
            ("discover: {}\nplan: {import: {url: x}}", "plan.import"),
            ("discover: {}\nenvironment-file: 'https://x/y'", "environment-file"),
        ] {
            let mut fixture = plan_with(keys);
            let error = fixture.error();
            assert!(error.contains("p.fmf: /p: ") && error.contains(&format!("`{key}`")), "{keys}: {error}");
            assert!(error.contains("--ignore-unsupported"), "{keys}: {error}");
            fixture.ignore_unsupported = true;
            let found = fixture.discover();
            assert!(
                found.warnings.iter().any(|warning| warning.contains(key)),
                "{keys}: {:?}",
                found.warnings
            );
        }
    }

    #[test]
    fn what_is_switched_off_or_ruled_out_is_no_matter() {
        for keys in [
            "discover: {modified-only: false, dist-git-source: false, prune: true, summary: x}",
            "discover: {}\nexecute: {how: tmt, exit-first: false, interactive: false}",
            "discover: {}\nprepare: {how: distgit, when: distro == x}",
            "discover: {}\nexecute: {how: upgrade, when: distro == x}",
            "discover: {}\nextra-x: y\nsummary: s\nfoo: bar",
        ] {
            let found = plan_with(keys).discover();
            assert_eq!(found.warnings, [] as [&str; 0], "{keys}");
        }
    }

    #[test]
    fn a_mistyped_step_is_told() {
        for (keys, said) in [
            ("discover: {}\nprepar: {how: shell, script: x}", "did you mean `prepare`?"),
            ("discover: {}\nenviroment: {A: 1}", "did you mean `environment`?"),
            (
                "discover: {}\nreport: [{how: display}, {how: junit, file: r.xml}]",
                "`how: junit` is not supported",
            ),
        ] {
            let warnings = plan_with(keys).discover().warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(said), "{keys}: {warnings:?}");
        }
    }

    #[test]
    fn a_plan_that_only_stands_for_another_is_one() {
        let import = "plan: {import: {url: 'https://x/y', name: /plans/real}}\n";
        let error = Fixture::new(&[("t.fmf", "test: t"), ("p.fmf", import)]).error();
        assert!(error.contains("`plan.import`"), "{error}");
    }

    #[test]
    fn case_matters_where_the_dialect_has_it() {
        let test = "test: t\nadjust: {enabled: false, when: distro == Fedora}\n/x: {}\n";
        let fixture = Fixture::new(&[("t.fmf", test)]).context("distro", "fedora-42");
        assert_eq!(fixture.names(), [] as [&str; 0]);
        assert_eq!(fixture.atex().names(), ["/t/x"]);
    }

    #[test]
    fn elsewhere_it_is_a_warning_once() {
        let plans = "discover: {how: fmf}\nlogin: {when: fail}\ncleanup: {how: tmt}\n/a: {}\n/b: {}\n";
        let fixture = Fixture::new(&[("t.fmf", "test: t"), ("p.fmf", plans)]).plan(".*");
        let warnings = fixture.discover().warnings;
        let about = |word: &str| warnings.iter().filter(|warning| warning.contains(word)).count();
        assert!(about("`login`") == 1 && about("`cleanup`") == 1, "{warnings:?}");
    }

    #[test]
    fn provision_and_report_are_kept_for_plugins() {
        let plan = plan_with(&format!(
            "{DISCOVER}provision: {{how: container, image: 'fedora:40'}}\nreport: [{{how: html}}, {{name: x, how: junit, file: f, when: distro == a}}]\n"
        ));
        let found = plan.only();
        assert_eq!(
            (found.provision[0].how.as_str(), found.provision[0].name.as_str()),
            ("container", "default-0")
        );
        assert_eq!(found.provision[0].data.get("image").and_then(Value::as_str), Some("fedora:40"));
        assert_eq!(found.report.len(), 1);
    }
}

mod libraries {
    use super::*;

    const TREE: (&str, &str) = (".fmf/version", "1");

    fn layers(fixture: &Fixture) -> Vec<(String, bool)> {
        let layers = fixture.only().layers;
        layers.into_iter().skip(1).map(|layer| (layer.to, layer.from.join("bar/lib.sh").exists())).collect()
    }

    #[test]
    fn what_libraries_need_is_resolved_through_cycles() {
        let mut fixture = Fixture::new(&[]);
        let foo = fixture.directory.path().join("foo");
        let baz = repository(
            &fixture,
            "baz",
            &[
                TREE,
                (
                    "main.fmf",
                    &format!("/x: {{require: [p3, {{url: 'file://{}', name: /bar}}]}}", foo.display()),
                ),
            ],
        );
        let main = format!("require: [p1, {{type: library, url: '{baz}', name: /x}}]\nrecommend: [p2, p1]\n");
        let foo = repository(&fixture, "foo", &[TREE, ("bar/main.fmf", &main), ("bar/lib.sh", "")]);
        fixture.write(
            "t.fmf",
            &format!("test: t\nrequire: [p0, {{type: library, url: '{foo}', name: /bar}}]\nrecommend: p3\n"),
        );
        let test = fixture.test("/t");
        assert_eq!(test.packages.required, ["p0", "p1", "p3"]);
        assert_eq!(test.packages.recommended, ["p2"]);
        assert_eq!(layers(&fixture), [("libs/foo".to_owned(), true), ("libs/baz".to_owned(), false)]);
        fixture.dialect = Dialect::Atex;
        assert_eq!(fixture.test("/t").packages.required, ["p0", "p1", "p3"]);
    }

    #[test]
    fn all_forms_find_their_place() {
        let fixture = Fixture::new(&[]);
        let foo = repository(&fixture, "foo.git", &[TREE, ("bar/main.fmf", "{}"), ("bar/lib.sh", "")]);
        let local = fixture.directory.path().join("foo.git");
        for (form, to) in [
            (format!("{{url: '{foo}', name: /bar}}"), "libs/foo"),
            (format!("{{url: '{foo}', name: /bar, nick: other}}"), "libs/other"),
            (format!("{{url: '{foo}', name: /bar, destination: custom/place}}"), "custom/place/foo"),
            (format!("{{url: '{foo}', name: /bar, ref: main}}"), "libs/foo"),
            (format!("{{path: '{}', name: /bar}}", local.display()), "libs/foo"),
        ] {
            fixture.write("t.fmf", &format!("test: t\nrequire: {form}\n"));
            assert_eq!(layers(&fixture), [(to.to_owned(), true)], "{form}");
        }
        fixture.write(
            "t.fmf",
            "test: t\nrequire: [{type: library, nick: own, name: /lib}, {type: file, pattern: [/x]}]\n",
        );
        fixture.write("lib.fmf", "require: p");
        assert_eq!(fixture.test("/t").packages.required, ["p"]);
        assert_eq!(fixture.only().layers[1], Layer { from: fixture.path(""), to: "libs/own".into() });
    }

    #[test]
    fn libraries_go_where_their_section_is() {
        let fixture = Fixture::new(&[]);
        let foo = repository(&fixture, "foo", &[TREE, ("bar/main.fmf", "{}"), ("bar/lib.sh", "")]);
        fixture.write("t.fmf", &format!("test: t\nrequire: {{url: '{foo}', name: /bar}}\n"));
        fixture.write("p.fmf", "discover: [{name: a}, {name: b}]");
        let to: Vec<_> = fixture.only().layers.into_iter().map(|layer| layer.to).collect();
        assert_eq!(to, ["", "a", "b", "a/libs/foo", "b/libs/foo"]);
    }

    #[test]
    fn a_library_in_the_tree_itself_is_kept() {
        let fixture = Fixture::new(&[("libs/foo/bar/lib.sh", "own")]);
        let foo = repository(&fixture, "foo", &[TREE, ("bar/main.fmf", "require: p"), ("bar/lib.sh", "")]);
        fixture.write("t.fmf", &format!("test: t\nrequire: {{url: '{foo}', name: /bar}}\n"));
        let found = fixture.discover();
        assert_eq!(found.plans[0].layers.len(), 1);
        assert_eq!(found.plans[0].tests[0].packages.required, ["p"]);
        assert!(found.warnings[0].contains("libs/foo"), "{:?}", found.warnings);
    }

    #[test]
    fn short_names_are_packages_when_there_is_no_repository() {
        let fixture = Fixture::new(&[(
            "t.fmf",
            "test: t\nrequire: [library(foo/bar), library(foo/other), 'library(x)']\n",
        )]);
        let found = discover_with_beakerlib(&fixture, "file:///nonexistent");
        assert_eq!(found.0.required, ["library(foo/bar)", "library(foo/other)", "library(x)"]);
        assert_eq!(found.1, 2, "each is warned about");
        let url = repository(&fixture, "foo", &[TREE, ("bar/main.fmf", "require: p"), ("bar/lib.sh", "")]);
        let base = url.strip_suffix("/foo").unwrap();
        let found = discover_with_beakerlib(&fixture, base);
        assert_eq!(found.0.required, ["p", "library(foo/other)", "library(x)"]);
    }

    /// Resolves what `/t` requires, with another place for the project's own libraries.
    fn discover_with_beakerlib(fixture: &Fixture, base: &str) -> (Arc<Packages>, usize) {
        let tree = Arc::new(Tree::load(&fixture.path("")).unwrap());
        let cache = tempfile::tempdir().unwrap();
        let trees = Trees::new(Cache::new(cache.path()), &tree);
        let mut libraries = Libraries::with_beakerlib(&trees, base);
        let view = tree.view();
        let node = view.find("/t").unwrap();
        let place = Place::of(node);
        let mut keys = reader::Keys::new(&place, "", node.data());
        let needs = crate::fmf::library::Needs::read(&mut keys).unwrap();
        let home = Home { directory: tree.root(), to: "", root: tree.root() };
        let mut notes = Notes::new(false);
        let packages = libraries.resolve(&place, &home, needs, &mut notes).unwrap();
        (packages, notes.into_warnings().len())
    }

    #[test]
    fn what_is_wrong_names_file_and_key() {
        let fixture = Fixture::new(&[]);
        let foo = repository(&fixture, "foo", &[TREE, ("bar/main.fmf", "{}")]);
        let other = repository(&fixture, "other", &[("README", "no tree")]);
        for (form, problem) in [
            ("{type: library}".to_owned(), "needs url, path or nick"),
            ("{type: module, url: x}".to_owned(), "library, file"),
            (format!("{{url: '{foo}', name: bar}}"), "begins with a slash"),
            (format!("{{url: '{foo}', name: /nope}}"), "\"/nope\""),
            (format!("{{url: '{foo}', name: /bar, nick: ../x}}"), "no name for a directory"),
            (format!("{{url: '{foo}', name: /bar, destination: a/../b}}"), "no directory below"),
            (format!("{{url: '{foo}', name: /bar, path: ../../x}}"), "outside its repository"),
            (format!("{{url: '{other}', name: /bar}}"), "no tree"),
            ("{url: 'file:///nonexistent', name: /bar}".to_owned(), "fetching HEAD"),
            ("{path: /nonexistent, name: /bar}".to_owned(), "no tree"),
            (
                format!("[{{url: '{foo}', name: /bar}}, {{url: '{other}', name: /bar, nick: foo}}]"),
                "two libraries to libs/foo",
            ),
        ] {
            fixture.write("t.fmf", &format!("test: t\nrequire: {form}\n"));
            let error = fixture.error();
            assert!(error.contains("t.fmf: /t: `require") && error.contains(problem), "{form}: {error}");
        }
    }
}

#[test]
fn packages_of_all_are_sorted_and_required_ones_are_not_recommended() {
    let fixture = Fixture::new(&[
        ("main.fmf", "test: t\n/a: {require: [b, a]}\n/b: {require: a, recommend: [c, b]}\n"),
        ("p.fmf", "/:\n  inherit: false\ndiscover: {how: fmf}\nprepare: {how: install, package: z}\n"),
    ]);
    let packages = fixture.discover().packages();
    assert_eq!((packages.required.join(" "), packages.recommended.join(" ")), ("a b z".into(), "c".into()));
}

#[test]
fn two_platforms_share_a_tree() {
    let fixture = Fixture::new(&[(
        "main.fmf",
        "test: t\n/a: {adjust: {enabled: false, when: distro == fedora}}\n/b: {}\n",
    )]);
    let tree = Arc::new(Tree::load(&fixture.path("")).unwrap());
    let discoverer = Discoverer::new(tree, Cache::new(fixture.directory.path().join("cache")));
    let count = |distro: &str| {
        let context = IndexMap::from([("distro".to_owned(), vec![distro.to_owned()])]);
        let request = Request {
            context: &context,
            dialect: Dialect::Tmt,
            plans: &PlanChoice::Only,
            selection: &Selection::default(),
            adjust: &[],
            environment: &Variables::new(),
            ignore_unsupported: false,
        };
        discoverer.discover(&request).unwrap().plans[0].tests.len()
    };
    assert_eq!((count("fedora"), count("rhel"), count("fedora")), (1, 2, 1));
}
